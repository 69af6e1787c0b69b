"""The search: schedule after schedule of some sessions' programs, whoever judges them.

What is common to exploring a contract's calls and a scenario's sessions: which schedule comes next, how one is carried
out again, whether it ends the same, and what can be said of all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from harness.errors import UsageError
from harness.schedules.control import Answer, Controller, ScheduleTimeoutError, Trace
from harness.schedules.exhaustive import Exhaustive
from harness.schedules.pct import Pct
from harness.schedules.plan import RANDOM_SCHEDULES, Plan
from harness.schedules.program import Program
from harness.schedules.random_walk import RandomWalk
from harness.schedules.replay import Replay
from harness.schedules.scheduler import Scheduler
from harness.schedules.trace import Choice, Event, Kind, replay_text, switches, trimmed
from harness.signals import heed

_TWICE = 25
"""One of so many schedules is repeated, to see whether it ends the same."""

_RACE_ATTEMPTS = 40
"""How often a schedule is tried again in which the server decides which of two waiting calls goes on first."""

_MOST_RESTARTS = 20
"""A search is begun again where a step is found to touch more than was known: at most so often."""


class _LostError(Exception):
    """A session's connection was lost, which no choice asked for."""


@dataclass(frozen=True, slots=True)
class Run:
    """One schedule carried out."""

    events: tuple[Event, ...]
    answers: tuple[Answer, ...]
    """By session."""
    label: str = ""
    """What goes before the replay text: which case it is of."""

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

    def trimmed(self) -> Run:
        """Without what only the search needs of its events."""
        return replace(self, events=trimmed(self.events))


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
    programs: Callable[[], Sequence[Program]]
    make_scheduler: Callable[[], Scheduler]
    alike: Callable[[Run, Run], bool]
    """Whether two runs of one schedule ended the same."""
    plan: Plan
    deadline: float
    read_committed: bool = True
    """All transactions are at that level."""
    label: str = ""
    unfinished: Mapping[str, Any] | None = None
    """Where the search of an earlier exploration stood (`saved`), to go on there."""
    runs: int = 0
    repeated: int = 0
    restarts: int = 0
    timeouts: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    """Schedules that the environment ended: what they left is nobody's result."""
    unsteady: list[str] = field(default_factory=list)
    _seen: set[str] = field(default_factory=set)
    _scheduler: Scheduler | None = None
    _over: bool = False
    """Nothing was left to carry out, and nothing turned up that was left out wrongly."""

    @property
    def exhausted(self) -> bool:
        """Whether every distinct schedule was carried out."""
        return self._over and self._scheduler is not None and self._scheduler.exhausted

    @property
    def before_reduction(self) -> int:
        """Interleavings that the schedules stand for."""
        if isinstance(self._scheduler, Exhaustive):
            return self._scheduler.before_reduction
        return len(self._seen)

    def gone_through(self) -> tuple[float, int]:
        """The share of all choices, as far as can be told, and how many known ones are left."""
        if self.exhausted or not isinstance(self._scheduler, Exhaustive):
            return float(self.exhausted), 0
        return self._scheduler.gone_through()

    def saved(self) -> dict[str, Any] | None:
        """Where it stands, as plain values, to go on there later; None where that cannot be."""
        if not isinstance(self._scheduler, Exhaustive):
            return None
        return self._scheduler.saved()

    def schedules(self) -> Iterator[Run]:
        """Carry out schedules, each different from the others but in a replay, until none is left or time is up."""
        scheduler = self._scheduler = self.make_scheduler()
        if self.unfinished is not None and isinstance(scheduler, Exhaustive):
            scheduler.go_on(self.unfinished)
        replaying = isinstance(scheduler, Replay)
        most = self.plan.max_schedules or (None if self.plan.search == "exhaustive" else RANDOM_SCHEDULES)
        cut = False
        first: Run | None = None
        self.controller.stale = False
        while scheduler.another():
            heed()
            if (most is not None and self.runs >= most) or time.monotonic() > self.deadline:
                cut = True
                break
            try:
                run, complete = self._attempted(scheduler)
            except ScheduleTimeoutError as timeout:
                self.timeouts.append(f"{self.label}{timeout}")
                self.controller.reset()
                cut = True
                break
            except _LostError as lost:
                self.lost.append(f"{self.label}{lost}")
                cut = True
                break
            counts = scheduler.ended(run.events, complete=complete)
            if self.controller.stale and isinstance(scheduler, Exhaustive) and self.restarts < _MOST_RESTARTS:
                # What was left out because steps seemed to commute has to be looked at again.
                self.controller.stale = False
                self.restarts += 1
                scheduler = self._scheduler = self.make_scheduler()
            if not counts:
                continue
            if replaying:
                self.runs += 1
                first = first or run
                if not self.alike(run, first):
                    self.unsteady.append(run.replay)
            elif run.replay in self._seen:
                continue  # drawn before
            else:
                self._seen.add(run.replay)
                self.runs += 1
            yield run
            if self.runs % _TWICE == 1 and not replaying:
                self._repeat(run)
        if isinstance(scheduler, Exhaustive) and scheduler.unsteady:
            self.unsteady.append(f"{self.label}(a beginning that two schedules share)")
        self._over = not cut and not self.controller.stale

    def again(self, choices: Sequence[Choice], *, races: bool = False) -> Run | None:
        """Carry out some choices, once more for each attempt; None where they cannot be made.

        `races`: in it the server decides which of two calls comes first, so that it takes some attempts.
        """
        for _ in range(_RACE_ATTEMPTS if races else 1):
            replay = Replay(choices)
            try:
                run = self._carry_out(replay)[0]
                if len(run.events) == len(choices):
                    return run
            except (UsageError, ScheduleTimeoutError, _LostError):
                self.controller.reset()  # it departed in the middle, or hangs, or was ended
        return None

    def _repeat(self, run: Run) -> None:
        """Carry a schedule out once more; note when it does not end the same."""
        self.repeated += 1
        for _ in range(_RACE_ATTEMPTS if any(event.races for event in run.events) else 1):
            again = self.again([event.choice for event in run.events])
            if again is not None and self.alike(again, run):
                return
        self.unsteady.append(run.replay)

    def _attempted(self, scheduler: Scheduler) -> tuple[Run, bool]:
        """One schedule. A replay that departs is tried again: two calls that are let go at once may change places."""
        for attempts_left in reversed(range(_RACE_ATTEMPTS)):
            try:
                return self._carry_out(scheduler)
            except UsageError:
                if not (isinstance(scheduler, Replay) and scheduler.raced and attempts_left):
                    raise
                self.controller.reset()
        raise AssertionError("the last attempt returns or raises")

    def _carry_out(self, scheduler: Scheduler) -> tuple[Run, bool]:
        programs = self.programs()
        foresight = self.controller.foresight(programs) if self.read_committed and self.plan.relays else None
        order = None if foresight is None else scheduler.plan(foresight)
        if order is not None:
            events = self.controller.relay(programs, order)
            complete = None if events is None else scheduler.adopt(events)
            if events is not None and complete is not None:
                return self._whole(Run(events, self.controller.answers(), self.label)), complete
            programs = self.programs()
        trace: Trace = self.controller.run(programs, scheduler.choose)
        return self._whole(Run(trace.events, trace.answers, self.label)), trace.complete

    def _whole(self, run: Run) -> Run:
        """The run. Raises _LostError where a session died in it that no choice let die: judged, it would be blamed."""
        let_die = {event.choice.call for event in run.events if event.choice.kind is Kind.DIE}
        for number, answer in enumerate(run.answers):
            if answer.died and number not in let_die:
                raise _LostError(f"the connection of {Choice(number)} was lost in {run.replay}")
        return run
