"""The search: schedule after schedule of some sessions' programs, whoever judges them.

What is common to exploring a contract's calls and a scenario's sessions: which schedule comes next, how one is carried
out again, whether it ends the same, and what can be said of all of them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from harness.errors import UsageError
from harness.schedules.control import Controller, ScheduleTimeoutError, Trace
from harness.schedules.exhaustive import Exhaustive
from harness.schedules.pct import Pct
from harness.schedules.plan import RANDOM_SCHEDULES, Plan
from harness.schedules.program import Program
from harness.schedules.random_walk import RandomWalk
from harness.schedules.relaying import Relay
from harness.schedules.replay import Replay
from harness.schedules.scheduler import Scheduler
from harness.schedules.standing import Ending
from harness.schedules.trace import Choice, Event, Kind, replay_text, switches
from harness.signals import heed

_TWICE = 25
"""One of so many schedules is repeated, to see whether it ends the same."""

_RACE_ATTEMPTS = 40
"""How often a schedule is tried again in which the server decides which of two waiting calls goes on first."""

_IDLE = 5
"""A search at random ends when it has drawn so many times as many schedules as there are, and a few, and none was new:
with one more that is as likely as each of them, that happens in one of 150 searches."""

_MOST_RESTARTS = 20
"""A search is begun again where a step is found to touch more than was known: at most so often."""


@dataclass(frozen=True, slots=True)
class _Begun:
    """A schedule that was handed to the server."""

    asked: Asked
    relay: Relay | None


@dataclass(frozen=True, slots=True)
class _Foretold:
    """What a scheduler has learned of a schedule that is still under way."""

    complete: bool
    counts: bool
    take_back: Callable[[], None]
    """Have it know nothing of that schedule."""


class _LostError(Exception):
    """A session's connection was lost, which no choice asked for."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the sessions of one schedule are to do."""

    programs: Sequence[Program]
    of: Any = None
    """What whoever asks knows it by, and is told it by afterwards."""


@dataclass(frozen=True, slots=True)
class Run:
    """One schedule carried out."""

    events: tuple[Event, ...]
    endings: tuple[Ending, ...]
    """By session."""
    label: str = ""
    """What goes before the replay text: which case it is of."""
    of: Any = None
    """What it was asked for by (`Asked`)."""

    @property
    def replay(self) -> str:
        """The text that repeats it."""
        return self.label + replay_text([event.choice for event in self.events])

    @property
    def serial(self) -> bool:
        """Whether no session did anything between the first and the last step of another."""
        calls = [event.choice.call for event in self.events]
        return switches(self.events) == len(set(calls)) - 1

    @property
    def length(self) -> tuple[int, int, int]:
        """How much there is to follow: what the server decides, choices, turns from one session to another."""
        return sum(event.races for event in self.events), len(self.events), switches(self.events)


def scheduler_for(plan: Plan, choices: Sequence[Choice], sessions: int) -> Scheduler:
    """The strategy that a plan asks for; `choices` are those of a replay."""
    if choices:
        return Replay(choices, plan.times)
    if plan.search == "random":
        return RandomWalk(plan.seed)
    if plan.search == "pct":
        return Pct(plan.seed, sessions)
    return Exhaustive(reduction=plan.reduction, max_preemptions=plan.max_preemptions)


@dataclass
class Search:
    """Schedules of one case: programs that are the same in each of them, but for keys.

    `programs` gives them anew for each schedule, after it has put the world back to where it was.
    """

    controller: Controller
    programs: Callable[[], Asked]
    make_scheduler: Callable[[], Scheduler]
    alike: Callable[[Run, Run], bool]
    """Whether two runs of one schedule ended the same."""
    plan: Plan
    read_committed: bool = True
    """All transactions are at that level."""
    label: str = ""
    beside: Callable[[Sequence[Ending], Any], object] = lambda _endings, _of: None
    """Told how the sessions ended of what was carried out beside the schedules: repetitions, and what came to none."""
    early: Callable[[], bool] = lambda: False
    """Whether `programs` may be asked, and what they do be begun, while a schedule is under way: they do nothing to the
    database, and need nothing to be put back."""
    unfinished: Mapping[str, Any] | None = None
    """Where the search of an earlier exploration stood (`saved`), to go on there."""
    runs: int = 0
    """Schedules, all different, that the search has come to."""
    ahead: dict[str, None] = field(default_factory=dict)
    """The replay texts of those that were carried out before it came to them."""
    bounded: int | None = None
    """Every schedule with so many interruptions of a call that could go on was carried out, or fewer."""
    repeated: int = 0
    restarts: int = 0
    timeouts: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    """Schedules that the environment ended: what they left is nobody's result."""
    unsteady: dict[str, None] = field(default_factory=dict)
    idle: int = 0
    """Schedules drawn at random since the last one that was new."""
    ended: bool = False
    """It is not gone on with: nothing is left, or as much was tried as was asked for, or there was no end to one."""
    _seen: set[int] = field(default_factory=set)
    """Hashes of the replay texts: there may be a million."""
    _scheduler: Scheduler | None = None
    _outdated: int = 0
    """How often choices had turned out to be made in ignorance when this search was begun."""
    _over: bool = False
    """Nothing was left to carry out."""
    _anew: bool = False
    """It was begun anew, since its first schedule did not end the same when it was repeated."""
    _first: Run | None = None
    _following: _Begun | None = None
    """The schedule after the one that is told, begun already."""
    _until: float = math.inf
    _most: int | None = None

    @property
    def begun(self) -> bool:
        """Whether anything of it was tried, here or before."""
        return self._scheduler is not None

    @property
    def exhausted(self) -> bool:
        """Whether every distinct schedule was carried out."""
        through = self._over and self._scheduler is not None and self._scheduler.exhausted
        return through and not self.outdated

    @property
    def outdated(self) -> bool:
        """Whether a step was seen to touch more than it was taken to when choices were made."""
        return self._outdated != self.controller.known.outdated

    @property
    def overtaken(self) -> bool:
        """Whether all was carried out, and then a step was seen to touch more than it was taken to."""
        again = isinstance(self._scheduler, Exhaustive) and self.restarts < _MOST_RESTARTS
        return again and self._over and self.outdated

    @property
    def carried_out(self) -> int:
        """Schedules, all different; where none is left, without those that it was not in need of."""
        return self.runs if self.exhausted else self.runs + len(self.ahead)

    @property
    def dried_up(self) -> bool:
        """Whether what was drawn at random last was all there before."""
        return self.idle > _IDLE * (self.runs + _IDLE)

    @property
    def before_reduction(self) -> int:
        """Interleavings that the schedules stand for."""
        if isinstance(self._scheduler, Exhaustive):
            return max(self._scheduler.before_reduction, self.carried_out)
        return len(self._seen)

    def gone_through(self) -> tuple[float, int]:
        """The share of all choices, as far as can be told, and how many known ones are left."""
        if self.exhausted or not isinstance(self._scheduler, Exhaustive):
            return float(self.exhausted), 0
        return self._scheduler.gone_through()

    def saved(self) -> dict[str, Any] | None:
        """Where it stands, as plain values, to go on there later: at its beginning, where it is outdated.

        None where that cannot be.
        """
        scheduler = self.make_scheduler() if self.outdated else self._scheduler
        return scheduler.saved() if isinstance(scheduler, Exhaustive) else None

    def schedules(self, until: float, bound: int | None = None) -> Iterator[Run]:
        """Carry out schedules, each different from all before but in a replay, until none is left or time is up.

        Asked again, it goes on where it was. With a `bound`, those that interrupt a call which could go on at most so
        often: they are carried out ahead of the search, which comes to them all the same.
        """
        scheduler = self._gone_on() if bound is None else Exhaustive(reduction=False, max_preemptions=bound)
        replaying = isinstance(scheduler, Replay)
        most = self.plan.max_schedules or (None if self.plan.search == "exhaustive" else RANDOM_SCHEDULES)
        self._until, self._most = until, most
        try:
            while self._following is not None or scheduler.another():
                heed()
                if self._following is None:
                    if most is not None and self.carried_out >= most:
                        self.ended = True
                        return
                    if time.monotonic() > until:
                        return
                try:
                    run, complete, counts = self._attempted(scheduler)
                except ScheduleTimeoutError as timeout:
                    self.timeouts.append(f"{self.label}{timeout}")
                    self.controller.reset()
                    self.ended = True
                    return
                except _LostError as lost:
                    self.lost.append(f"{self.label}{lost}")
                    self.ended = True
                    return
                if counts is None:
                    counts = scheduler.ended(run.events, complete=complete)
                if bound is None:
                    scheduler = self._gone_on()
                if not counts:
                    self.beside(run.endings, run.of)
                    continue
                begins = not self._seen and bound is None and not replaying and self.unfinished is None
                if replaying:
                    self.runs += 1
                    self._first = self._first or run
                    if not self.alike(run, self._first):
                        self.unsteady[run.replay] = None
                elif not self._new(run.replay, ahead=bound is not None):
                    self.beside(run.endings, run.of)
                    if self.dried_up and not isinstance(scheduler, Exhaustive):
                        self.ended = True
                        return
                    continue
                yield run
                if self.carried_out % _TWICE == 1 and not replaying and not self._repeat(run, scheduler):
                    if not begins or self._anew:
                        self.unsteady[run.replay] = None
                        continue
                    # What the first call of a client made, such as its profile, all later ones find made.
                    self.unsteady[f"{run.replay} (the first; what calls do after it was tried)"] = None
                    self._anew = True
                    self._drop()
                    self._seen.clear()
                    self.runs = 0
                    scheduler = self._scheduler = self.make_scheduler()
                    self._outdated = self.controller.known.outdated
        finally:
            self._drop()
            if isinstance(scheduler, Exhaustive) and scheduler.unsteady:
                self.unsteady[f"{self.label}(a beginning that two schedules share)"] = None
        if bound is None:
            self.ended = True
            self._over = True
        else:
            self.bounded = bound

    def _gone_on(self) -> Scheduler:
        """Who says what comes next. What was left out because steps seemed to commute may have to be looked at."""
        if self._scheduler is None:
            self._scheduler = self.make_scheduler()
            if self.unfinished is not None and isinstance(self._scheduler, Exhaustive):
                self._scheduler.go_on(self.unfinished)
            self._outdated = self.controller.known.outdated
        elif self.outdated and isinstance(self._scheduler, Exhaustive) and self.restarts < _MOST_RESTARTS:
            self.restarts += 1
            self._drop()
            self._scheduler = self.make_scheduler()
            self._outdated = self.controller.known.outdated
            self._over = self.ended = False
        return self._scheduler

    def _new(self, replay: str, *, ahead: bool) -> bool:
        """Count a schedule that was carried out; whether it was for the first time."""
        known = hash(replay)
        if known in self._seen:
            if replay in self.ahead and not ahead:
                del self.ahead[replay]
                self.runs += 1
            self.idle += 1
            return False
        self._seen.add(known)
        self.idle = 0
        if ahead:
            self.ahead[replay] = None
        else:
            self.runs += 1
        return True

    def again(self, choices: Sequence[Choice], *, races: bool = False, before: Scheduler | None = None) -> Run | None:
        """Carry out some choices, once more for each attempt; None where they cannot be made.

        `races`: in it the server decides which of two calls comes first, so that it takes some attempts. `before` which
        other scheduler's next schedule.
        """
        for _ in range(_RACE_ATTEMPTS if races else 1):
            try:
                run, complete, _ = self._carry_out(Replay(choices, gives_up=True), None if races else before)
                if complete and len(run.events) == len(choices):
                    return run
                self.beside(run.endings, run.of)  # it departed in the middle
            except (ScheduleTimeoutError, _LostError):
                self.controller.reset()
        return None

    def _repeat(self, run: Run, scheduler: Scheduler) -> bool:
        """Carry a schedule out once more; whether it ends the same."""
        self.repeated += 1
        races = any(event.races for event in run.events)
        for _ in range(_RACE_ATTEMPTS if races else 1):
            again = self.again([event.choice for event in run.events], before=None if races else scheduler)
            if again is not None:
                self.beside(again.endings, again.of)
                if self.alike(again, run):
                    return True
        return False

    def _attempted(self, scheduler: Scheduler) -> tuple[Run, bool, bool | None]:
        """One schedule.

        A replay that departs is tried again: two calls that are let go at once may change places; and what a client's
        first call makes, such as its profile, the schedule that the text is of may have found made by those before it.
        """
        if not isinstance(scheduler, Replay):
            return self._carry_out(scheduler)
        called_before = False
        for attempts_left in reversed(range(_RACE_ATTEMPTS)):
            try:
                run, complete, counts = self._carry_out(scheduler)
                if len(run.events) < len(scheduler.choices):
                    self.beside(run.endings, run.of)
                scheduler.ended(run.events, complete=complete)
            except UsageError:
                if not attempts_left or (called_before and not scheduler.raced):
                    raise
                self.controller.reset()
                if not called_before:
                    called_before = True
                    self.again(scheduler.choices)
            else:
                return run, complete, counts
        raise AssertionError("the last attempt returns or raises")

    def _carry_out(self, scheduler: Scheduler, before: Scheduler | None = None) -> tuple[Run, bool, bool | None]:
        """One schedule; whether it was not given up; and whether it counts, where the scheduler has learned of it.

        `before`: the scheduler whose schedule comes next, where that is another one.
        """
        begun, self._following = self._following or self._begin(scheduler), None
        asked = begun.asked
        if begun.relay is not None:
            foretold = self._look_ahead(scheduler, begun.relay)
            if before is not None and self._may_begin(before, begun.relay, self.carried_out):
                self._begin_behind(before, begun.relay)
            events: tuple[Event, ...] | None = None
            try:
                events, endings = self.controller.relays.collect(begun.relay)
            finally:
                if foretold is not None and events is not begun.relay.foreseen:
                    foretold.take_back()
            if foretold is not None and events is not None and events is begun.relay.foreseen:
                return self._whole(Run(events, endings, self.label, asked.of)), foretold.complete, foretold.counts
            complete = None if events is None else scheduler.adopt(events)
            if complete is None or events is not begun.relay.foreseen:
                self._drop()
            if events is not None and complete is not None:
                return self._whole(Run(events, endings, self.label, asked.of)), complete, None
            self.beside(endings, asked.of)
            asked = self.programs()
        trace: Trace = self.controller.run(asked.programs, scheduler.choose)
        return self._whole(Run(trace.events, trace.endings, self.label, asked.of)), trace.complete, None

    def _begin(self, scheduler: Scheduler, behind: Relay | None = None) -> _Begun:
        """Ask for the programs of the next schedule, and hand it to the server where that can be done."""
        asked, relay = self.programs(), None
        foresight = (
            self.controller.relays.foresight(asked.programs) if self.read_committed and self.plan.relays else None
        )
        order = None if foresight is None else scheduler.plan(foresight)
        if order is not None:
            relay = self.controller.relays.begin(asked.programs, order, behind)
        return _Begun(asked, relay)

    def _look_ahead(self, scheduler: Scheduler, relay: Relay) -> _Foretold | None:
        """Take it for granted that a schedule goes as foreseen, and begin the one after it, for which it is time.

        The server goes on with that while it is told here what came of the first. None where nothing is foretold.
        """
        following = self.carried_out + 1
        # One of so many is to be repeated first.
        if following % _TWICE == 1 or not self._may_begin(scheduler, relay, following):
            return None
        assert isinstance(scheduler, Exhaustive)
        assert relay.foreseen is not None
        take_back = partial(scheduler.back_to, scheduler.mark())
        try:
            complete = scheduler.adopt(relay.foreseen)
            if complete is None:
                take_back()
                return None
            counts = scheduler.ended(relay.foreseen, complete=complete)
            self._begin_behind(scheduler, relay)
        except BaseException:
            take_back()
            raise
        return _Foretold(complete, counts, take_back)

    def _may_begin(self, scheduler: Scheduler, relay: Relay, number: int) -> bool:
        """Whether a scheduler's schedule, the one of that number from 0, may be begun while another is under way."""
        return (
            isinstance(scheduler, Exhaustive)
            and relay.foreseen is not None
            and self.early()
            and (self._most is None or number < self._most)
            and time.monotonic() <= self._until
        )

    def _begin_behind(self, scheduler: Scheduler, relay: Relay) -> None:
        if scheduler.another():
            begun = self._begin(scheduler, behind=relay)
            self._following = None if begun.relay is None else begun

    def _drop(self) -> None:
        """Let what was begun in vain come to its end."""
        begun, self._following = self._following, None
        if begun is not None and begun.relay is not None:
            self.beside(self.controller.relays.abandoned(begun.relay), begun.asked.of)

    def _whole(self, run: Run) -> Run:
        """The run. Raises _LostError where a session died in it that no choice let die: judged, it would be blamed."""
        for number, ending in enumerate(run.endings):
            if ending.died and Choice(number, Kind.DIE) not in [event.choice for event in run.events]:
                raise _LostError(f"the connection of {Choice(number)} was lost in {run.replay}")
        return run


def in_turn(searches: Sequence[Search], until: float) -> Iterator[tuple[Search, Run]]:
    """The schedules of some cases, which share the time: what one leaves of its part, those after it have.

    Depth first, a search comes to what happens early last of all. So a case that is not exhausted in a quarter of the
    time is gone through with one interruption of a call, then with two, which most faults need at most (Musuvathi and
    Qadeer, "Iterative context bounding", 2007), before it is gone on with.
    """
    for bound, part in _ROUNDS:
        left = [s for s in searches if not s.ended and (bound is None or s.plan.deepens)]
        end = time.monotonic() + (until - time.monotonic()) * (part if any(s.plan.deepens for s in left) else 1)
        for at, search in enumerate(left):
            share = (end - time.monotonic()) / (len(left) - at)
            for run in search.schedules(time.monotonic() + share, bound):
                yield search, run
    while (left := [search for search in searches if search.overtaken]) and time.monotonic() < until:
        for search in left:
            for run in search.schedules(until):
                yield search, run


_ROUNDS: Sequence[tuple[int | None, float]] = ((None, 0.25), (1, 0.4), (2, 0.6), (None, 1.0))
"""The interruptions in each, and which part of the time that is left it has at most."""
