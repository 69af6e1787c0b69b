"""Exploring sessions: each a list of statements, judged by whoever asks.

    found = explore_sessions(dsn, [alice, bob], Plan(), restore=restore, judge=judge)

A contract's call is a session of one statement (engine.py); a scenario's sessions are what its file says.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from string import ascii_uppercase
from typing import Any, Self

import psycopg

from harness.environment.servers import connect
from harness.errors import UsageError
from harness.schedules.connections import Together
from harness.schedules.control import Controller
from harness.schedules.narrate import answered, moves
from harness.schedules.plan import MOST_CALLS, Plan
from harness.schedules.program import Session, StatementAnswer, compiled, isolation_named
from harness.schedules.result import Schedule
from harness.schedules.rewrite import Rewritten, catalogue_of, rewrite, undo
from harness.schedules.search import Asked, Run, Search, in_turn, scheduler_for
from harness.schedules.trace import Choice, Kind, read_replay
from harness.schedules.watch import read, watched, with_rows, written
from harness.verdict.findings import Finding, Truth, truth_of


@dataclass(frozen=True, slots=True)
class SessionsRun:
    """One schedule of sessions, carried out to its end."""

    replay: str
    """The text that repeats it, such as AABBA: a letter for each session's step, in the order of the sessions."""
    answers: tuple[tuple[StatementAnswer, ...], ...]
    """By session, then by statement; fewer where a session ended before its last statement."""
    serial: bool
    """The sessions came one after the other."""
    used_up: tuple[int, ...] = ()
    """Sessions of which a transaction failed more often than it may be run again."""
    died: tuple[int, ...] = ()
    """Sessions whose connection was lost."""


@dataclass(frozen=True, slots=True)
class SessionsExplored:
    """What was tried and found, and what it does not cover."""

    sessions: tuple[str, ...]
    schedules: int
    """Carried out and judged, all different."""
    before_reduction: int
    """Interleavings that they stand for."""
    exhausted: bool
    """Every distinct order of the steps was tried. It takes more to say held: see `undecided`."""
    undecided: tuple[str, ...]
    """Why not every order can have been tried: bodies that could not be split."""
    findings: tuple[Finding, ...]
    """The exploration's own: every_order_tried, same_end_when_repeated."""
    broken: Mapping[str, Schedule]
    """By the name that `judge` gave: the shortest schedule that it gave it for, and gave it for again when repeated."""
    replayed: Schedule | None
    """The schedule of a replay."""
    steps: tuple[str, ...]
    """Every step inside functions, as `function:line: statement`."""
    not_covered: tuple[str, ...]
    seconds: float
    timeouts: tuple[str, ...] = ()
    unsteady: tuple[str, ...] = ()

    @property
    def truth(self) -> Truth:
        """Of the findings here: what `judge` gave names for is the caller's to weigh."""
        return truth_of(self.findings)


Judge = Callable[[SessionsRun], Iterable[str]]


def explore_sessions(
    dsn: str,
    sessions: Sequence[Session],
    plan: Plan,
    *,
    restore: Callable[[], None],
    judge: Judge,
    together: Together | None = None,
) -> SessionsExplored:
    """Explore every interleaving of sessions in a scratch database, whose functions are rewritten in place.

    `restore` puts the data back and is called before each schedule, when no session has a transaction open; what the
    sessions' own backends keep (cached sequence values, advisory locks, temporary tables) is taken away here. `judge`
    is called after each schedule, before the next restore, and gives the names of what is wrong with it. `together` is
    told the sessions' backends. Raises UsageError for a plan, a replay text or a function that cannot be explored,
    HarnessError when the database cannot be used.
    """
    plan.check()
    if not 1 <= len(sessions) <= MOST_CALLS:
        raise UsageError(
            f"{len(sessions)} sessions cannot be explored.",
            tried=f"every order of the steps of 1 to {MOST_CALLS} sessions",
            next_step="explore fewer, or race them",
        )
    choices = () if plan.replay is None else _choices(plan.replay, len(sessions))
    with Reserve(dsn, len(sessions) + Opened.NEEDED, together) as reserve:
        explorer = _Explorer(reserve, sessions, plan, choices, restore, judge)
        try:
            return explorer.explored()
        finally:
            explorer.close()


def _choices(text: str, sessions: int) -> tuple[Choice, ...]:
    choices = read_replay(text)
    if max(choice.call for choice in choices) >= sessions:
        raise UsageError(
            f"The replay text {text!r} names a session that is not there.",
            tried=f"reading a letter for each of {sessions} sessions",
            next_step=f"use the letters A to {ascii_uppercase[sessions - 1]}",
        )
    return choices


LEVELS = ("read committed", "repeatable read", "serializable")


def strongest(said: Iterable[str]) -> str:
    """The strongest isolation level that is named in some texts; read committed, where none is."""
    texts = [" ".join(text.lower().split()) for text in said]
    return max((level for level in LEVELS if any(level in text for text in texts)), key=LEVELS.index, default=LEVELS[0])


NOT_DURABLE = b"SET synchronous_commit = off"
"""What is explored is the order of steps, not their speed: nobody has to wait for the disk."""


class Reserve:
    """Connections to a database; those that are needed in any case are opened beforehand and side by side."""

    def __init__(self, dsn: str, needed: int, together: Together | None = None) -> None:
        self._dsn = dsn
        self.together = together
        threads = ThreadPoolExecutor(needed, "connections")
        self._reading = threads.submit(self._read)
        self._opened = deque(threads.submit(connect, dsn) for _ in range(needed - 1))
        threads.shutdown(wait=False)
        self._taken = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close those that were not needed after all."""
        for each in self._opened:
            if each.exception() is None:
                each.result().close()
        if not self._taken and self._reading.exception() is None:
            self._reading.result()[0].close()

    def first(self) -> tuple[psycopg.Connection[Any], Mapping[str, Any]]:
        """The first one, and what it has read of the database (`catalogue_of`). Raises HarnessError, as `connect`."""
        found = self._reading.result()
        self._taken = True
        return found

    def connect(self) -> psycopg.Connection[Any]:
        """One more. Raises HarnessError where the server gives none."""
        if not self._opened:
            return connect(self._dsn)
        found = self._opened[0].result()
        self._opened.popleft()
        return found

    def _read(self) -> tuple[psycopg.Connection[Any], Mapping[str, Any]]:
        connection = connect(self._dsn)
        try:
            connection.execute(NOT_DURABLE)
            return connection, catalogue_of(connection)
        except BaseException:
            connection.close()
            raise


class Opened:
    """A database whose functions are rewritten, and a controller on it."""

    NEEDED = 2
    """Connections, beside one for each session."""

    def __init__(self, reserve: Reserve, texts: Sequence[str], sessions: int, plan: Plan, **more: Any) -> None:
        self.connect = reserve.connect
        self.connection, known = reserve.first()
        try:
            # A key space that the functions are unlikely to name; that one takes our keys all the same is found out.
            space = random.SystemRandom().randrange(1 << 20, 1 << 31)
            self.rewritten: Rewritten = rewrite(self.connection, known, texts, space)
            self.controller = Controller(
                self.connect,
                sessions,
                self.rewritten,
                space,
                seconds=plan.schedule_seconds,
                fatal=(Kind.DIE,) if plan.crash else (),
                together=reserve.together,
                **more,
            )
        except BaseException:
            self.connection.close()
            raise

    def close(self) -> None:
        """Close every connection and put the database's functions back."""
        self.controller.close()
        try:
            with suppress(psycopg.OperationalError):  # a lost connection: there is nothing to put back any more
                undo(self.connection, self.rewritten)
        finally:
            self.connection.close()


def unsplit(rewritten: Rewritten, controller: Controller) -> tuple[str, ...]:
    """What is one step and should be several, by its text or as it was seen."""
    blocks = [rewritten.steps[number] for number in sorted(controller.known.blocks)]
    return (
        *rewritten.unsplit,
        *(
            f"{step.function} line {step.line}: {step.text[:80]}: executes a DO block, which is one step"
            for step in blocks
        ),
    )


def own_findings(
    searches: Sequence[Search],
    plan: Plan,
    unsplit: Sequence[str],
    what: str,
    *,
    replay: bool,
) -> list[Finding]:
    """What an exploration can say of itself."""
    findings = []
    timeouts = [timeout for search in searches for timeout in search.timeouts]
    unsteady = [text for search in searches for text in search.unsteady]
    lost = [text for search in searches for text in search.lost]
    if not replay:
        schedules = sum(search.carried_out for search in searches)
        tried = bool(searches) and all(search.exhausted for search in searches)
        observed = f"{schedules} schedules, {sum(search.before_reduction for search in searches)} before reduction"
        remedy = "Give it more --seconds or --max-schedules, or fewer --calls."
        if any(search.dried_up for search in searches):
            remedy = "Search exhaustively: drawn at random, schedules are never known to be all there are."
        if timeouts:
            observed += f"; no end within {plan.schedule_seconds:g} s: {timeouts[0]}"
        if lost:
            observed += f"; {lost[0]}"
            remedy = "See in the server's log what ended it, and run it again; what ends its own backend can be raced."
        if not tried:
            observed = f"not exhausted: {observed}{_left(searches)}"
        elif unsplit:
            tried = False
            observed = f"not everything could be split into steps: {'; '.join(unsplit[:5])}; {observed}"
            remedy = "Race it under load, which reaches what happens within a step, or write it so that it splits."
        findings.append(
            Finding(
                "every_order_tried",
                f"Every distinct order of the steps of {what} was tried.",
                Truth.HELD if tried else Truth.UNDECIDED,
                observed,
                remedy="" if tried else remedy,
            )
        )
    if plan.times > 1 or not replay:
        repeated = sum(search.repeated for search in searches) or plan.times
        findings.append(
            Finding(
                "same_end_when_repeated",
                "A schedule that is repeated ends the same: the function is deterministic.",
                Truth.UNDECIDED if unsteady else Truth.HELD,
                f"not so: {', '.join(unsteady[:5])}" if unsteady else f"{repeated} repeated",
                remedy="Look for what the function decides by the clock, by random() or by what other keys left."
                if unsteady
                else "",
            )
        )
    return findings


def _left(searches: Sequence[Search]) -> str:
    """What was left untried, in figures."""
    said = []
    begun = [search for search in searches if search.begun and not search.exhausted]
    untried = sum(not search.begun for search in searches)
    for search in begun[:_SHOWN]:
        share, left = search.gone_through()
        if left:
            name = search.label.removesuffix(":")
            said.append(
                f"{f'case {name}' if name else 'first case'}: about {share:.0%} gone through, {left} choices left"
            )
    if len(begun) > _SHOWN:
        said.append(f"{len(begun) - _SHOWN} more cases not ended")
    bounds = [search.bounded for search in begun if search.bounded is not None]
    if begun and len(bounds) == len(begun):
        said.append(f"every order that interrupts a call at most {min(bounds)} times was tried in each case begun")
    if idle := [search for search in begun if search.dried_up]:
        said.append(f"what was drawn last had all been there before: nothing new came in {idle[0].idle} draws")
    if untried:
        said.append(f"{untried} cases not begun")
    return "".join(f"; {each}" for each in said)


_SHOWN = 3
"""Cases of which it is said how far they came."""

NOT_COVERED = (
    "what happens between the rows of one SQL statement, and inside the server",
    "the order in which calls read the clock",
    "the rows that a FOR loop over a query fetches after the first belong to the step before",
    "which of two calls woken at once goes first is up to the server: it is tried 40 times for both",
)


def exceeding(rewritten: Rewritten, controller: Controller) -> tuple[str, ...]:
    """The steps that touched more than their texts say."""
    found = []
    for key, access in controller.known.exceeding.items():
        if isinstance(key, int):
            step = rewritten.steps[key]
            more = sorted((access.reads | access.writes) - step.access.reads - step.access.writes)
            what = f"touched {', '.join(more)}" if more else "wrote more"
            found.append(f"{step.function}:{step.line} {what} beyond what its text says; it is taken to lock all of it")
    return tuple(found)


class _Explorer:
    """One exploration of sessions."""

    def __init__(
        self,
        reserve: Reserve,
        sessions: Sequence[Session],
        plan: Plan,
        choices: tuple[Choice, ...],
        restore: Callable[[], None],
        judge: Judge,
    ) -> None:
        self._started = time.monotonic()
        self._sessions = sessions
        self._plan = plan
        self._choices = choices
        self._restore = restore
        self._judge = judge
        texts = [s.read for session in sessions for s in session.statements if s.read]
        self._opened = Opened(reserve, texts, len(sessions), plan)
        touches = dict(zip(texts, self._opened.rewritten.texts, strict=True))
        commits_inside = self._opened.rewritten.commits_inside
        self._programs = [
            compiled(session, number, touches.__getitem__, self._opened.rewritten.check, commits_inside)
            for number, session in enumerate(sessions)
        ]

    def close(self) -> None:
        self._opened.close()

    def explored(self) -> SessionsExplored:
        plan, controller, rewritten = self._plan, self._opened.controller, self._opened.rewritten
        controller.books.level = self._level()
        search = Search(
            controller,
            self._ready,
            partial(scheduler_for, plan, self._choices, len(self._sessions)),
            self._alike,
            plan,
            controller.books.level == LEVELS[0],
        )
        red: dict[str, list[Run]] = {}
        last: Run | None = None
        for _, run in in_turn([search], self._started + plan.seconds):
            last = run
            for name in self._judge(told(run)):
                known = red.setdefault(name, [])
                known.append(run)
                known.sort(key=lambda each: each.length)
                del known[_KEPT:]
        undecided = unsplit(rewritten, controller)
        findings = own_findings([search], plan, undecided, "the sessions", replay=bool(self._choices))
        broken = {name: self._confirmed(name, runs, search) for name, runs in red.items()}
        return SessionsExplored(
            sessions=tuple(session.name for session in self._sessions),
            schedules=search.carried_out,
            before_reduction=search.before_reduction,
            exhausted=search.exhausted,
            undecided=undecided,
            findings=tuple(findings),
            broken={name: self._schedule(run) for name, run in broken.items()},
            replayed=self._schedule(last) if self._choices and last is not None else None,
            steps=tuple(f"{step.function}:{step.line}: {step.text}" for step in rewritten.steps),
            not_covered=(*NOT_COVERED, *rewritten.remarks, *exceeding(rewritten, controller)),
            seconds=time.monotonic() - self._started,
            timeouts=tuple(search.timeouts),
            unsteady=tuple(search.unsteady),
        )

    def _level(self) -> str:
        """The strongest isolation level that a transaction of the sessions may have."""
        default = self._opened.controller.isolation
        named = [s.read for session in self._sessions for s in session.statements if isolation_named(s.read)]
        return strongest([*(session.isolation or default for session in self._sessions), *named])

    def _ready(self) -> Asked:
        self._restore()
        return Asked(self._programs)

    def _alike(self, one: Run, other: Run) -> bool:
        def kinds(run: Run) -> list[Any]:
            answers = [[(a.command, a.code) for a in ending.told()] for ending in run.endings]
            return [[(event.choice, event.happenings) for event in run.events], answers]

        return kinds(one) == kinds(other)

    def _confirmed(self, name: str, runs: Sequence[Run], search: Search) -> Run:
        """The shortest of some schedules that is called the same again when it is repeated."""
        for run in runs:
            races = any(event.races for event in run.events)
            again = search.again([event.choice for event in run.events], races=races)
            if again is not None and name in self._judge(told(again)):
                return run
        return runs[0]

    def _schedule(self, run: Run) -> Schedule:
        labels = [[unit.label for unit in program.units] for program in self._programs]
        names = [session.name for session in self._sessions]
        units = [program.units for program in self._programs]
        lines = [[unit.line for unit in each] for each in units]
        returned = answered(units, [ending.told() for ending in run.endings])
        made = moves(run.events, self._opened.rewritten, labels, returned, lines)
        tables = written(self._opened.rewritten)
        choices = [event.choice for event in run.events]
        connection = self._opened.connection
        rows = watched(self._opened.controller, self._ready().programs, choices, lambda: read(connection, tables, None))
        made = made if rows is None else with_rows(made, rows)
        return Schedule(run.replay, "", 1, made, (), {}, tuple(names))


_KEPT = 20
"""The shortest red schedules kept of each name, should the first not be red again."""


def told(run: Run) -> SessionsRun:
    """A schedule as its judge sees it."""
    return SessionsRun(
        run.replay,
        tuple(ending.told() for ending in run.endings),
        run.serial,
        tuple(number for number, ending in enumerate(run.endings) if ending.used_up),
        tuple(number for number, ending in enumerate(run.endings) if ending.died),
    )
