"""The serial orders of a scenario's sessions: run when they are asked for, and remembered."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from harness.checking.conditions import Conditions
from harness.checking.wording import short
from harness.checking.world import World
from harness.errors import HarnessError, UsageError
from harness.verdict.observed import Answer, SerialRun, TooManyError, Unit
from harness.verdict.serial import ALL_UP_TO

SECONDS = 20.0
"""For all serial runs of one scenario; what needs more of them is undecided."""

_STRIDE = 1009
"""How far sequences are set forward in every second serial run: each by another multiple, to be told apart."""

_CLOCK = re.compile(
    r"\b(?:now|clock_timestamp|statement_timestamp|transaction_timestamp|timeofday)\s*\(|\bcurrent_(?:date|time)"
    r"|\blocaltime",
    re.IGNORECASE,
)

_UNCOUNTED = re.compile(r"\b(?:truncate|setval|lo_\w+|dblink\w*|refresh|notify|pg_notify)\b", re.IGNORECASE)
"""What changes something that no counter tells of."""

FAILS_ALONE = "fails already when it is alone"

_WRONG_SQL = re.compile(r"42(?!501)...|26000|0A000")
"""SQLSTATEs of a statement that is wrong by itself: a syntax error, an unknown name, a feature that is not there."""


class SerialOrders:
    """Serial runs of one scenario: the judge's oracle (verdict/serial.py)."""

    def __init__(self, world: World, conditions: Conditions) -> None:
        self.world = world
        self.scenario = world.scenario
        self.conditions = conditions
        self.runs_of: dict[tuple[Unit, ...], list[SerialRun]] = {}
        self._beginnings: dict[tuple[Unit, ...], tuple[Unit, ...]] = {}
        """Of orders that were run: the beginnings, each with the first order that has it."""
        self._idle: set[tuple[Unit, ...]] = set()
        """Orders, without those that changed nothing, whose last session changed nothing when its turn came."""
        self._found: dict[tuple[Unit, ...], tuple[Unit, ...]] = {}
        """By those that had changed something before it, with the session at the end: an order in which it ran."""
        uncounted = any(map(_UNCOUNTED.search, world.reach.texts))
        self._counts = world.control.info.server_version >= 150000 and not uncounted
        """Whatever a session changes, a counter of the server says so."""
        self.reads: dict[int, frozenset[str]] = {}
        self.writes: dict[int, frozenset[str]] = {}
        """Tables that each session read, and wrote."""
        self.violations: dict[int, tuple[Unit, ...]] = {}
        """Conditions that do not hold after an order of all sessions, by place, with the first such order."""
        self._seconds = 0.0

    def runs(self, order: tuple[Unit, ...], at_least: int = 1) -> Sequence[SerialRun]:
        """Serial runs of an order; at least two, the second with the sequences set forward."""
        made = self.runs_of.setdefault(order, [])
        while len(made) < max(at_least, 2):
            if self._seconds > SECONDS and len(order) > 1:
                if not made:
                    del self.runs_of[order]
                raise TooManyError
            began = time.monotonic()
            made.append(self._serial_run(order, len(made)))
            self._seconds += time.monotonic() - began
        if order not in self._beginnings:
            self._note_beginnings(order)
        return made

    def _note_beginnings(self, order: tuple[Unit, ...]) -> None:
        whole = all(place < 0 for _, place in order)
        for length in range(1, len(order) + 1):
            self._beginnings.setdefault(order[:length], order)
            if whole:
                self._found.setdefault(self._changed_by(order[:length]), order)

    def beginning(self, order: tuple[Unit, ...]) -> tuple[Unit, ...] | None:
        """An order that was run and begins with this one; None where there is none."""
        return order if order in self.runs_of else self._beginnings.get(order)

    def alike(self, order: tuple[Unit, ...]) -> tuple[Unit, ...] | None:
        """An order that was run in which the last session of this one found all as it does here; None: not known."""
        return self._found.get(self._changed_by(order)) if all(place < 0 for _, place in order) else None

    def _changed_by(self, order: tuple[Unit, ...]) -> tuple[Unit, ...]:
        """The last of an order after those that are not known to have changed nothing."""
        changed: tuple[Unit, ...] = ()
        for unit in order[:-1]:
            if (*changed, unit) not in self._idle:
                changed = (*changed, unit)
        return (*changed, order[-1])

    def idle(self, order: tuple[Unit, ...]) -> bool:
        """Whether the last session of an order is known to have changed nothing when its turn came."""
        return self._changed_by(order) in self._idle

    def _shifts(self, number: int) -> dict[str, int]:
        assert self.world.baseline is not None
        if number % 2 == 0:
            return {sequence.name: 0 for sequence in self.world.baseline.sequences}
        shifts = {}
        for place, sequence in enumerate(self.world.baseline.sequences):
            steps = _STRIDE * (place + 1)
            room = abs(sequence.most - sequence.last) // abs(sequence.increment)
            shifts[sequence.name] = steps if room > 2 * steps else 0
        return shifts

    def _serial_run(self, order: tuple[Unit, ...], number: int) -> SerialRun:
        assert self.world.baseline is not None
        steps = self._shifts(number)
        self.world.baseline.restore(steps)
        began = time.monotonic() - self.world.started
        increments = {sequence.name: sequence.increment for sequence in self.world.baseline.sequences}
        shifts = {name: step * increments[name] for name, step in steps.items()}
        driver = self.world.driver()
        if number and self.world.reach.tells_connections:
            for actor in self.world.actors:  # what a connection is called by must differ from run to run
                actor.close()
        answers: dict[Unit, tuple[Answer, ...]] = {}
        begun: set[int] = set()
        # What the first units of an order touch was measured when they were all of one.
        known_to = max(n for n in range(len(order)) if n == 0 or order[:n] in self._beginnings)
        before: Mapping[str, tuple[int, int]] = {}
        stood: Mapping[str, int | None] = {}
        for at, (session, place) in enumerate(order):
            if number == 0 and at == known_to:
                # Of everybody: what was done when nothing was measured would be counted to a later turn.
                self._flush(range(len(self.world.actors)))
                before, stood = self.world.counters(), self.world.sequences()
            actor = self.world.actors[session]
            if session not in begun:
                begun.add(session)
                actor.begin()
            known = len(actor.answers)
            if place < 0:
                driver.drive([(actor, actor.play())])
            else:
                start = sum(self.world.lengths[session][:place])
                driver.drive([(actor, actor.play(start, start + self.world.lengths[session][place]))])
            answers[session, place] = tuple(actor.answers[known:])
            if self.world.lost(actor):
                raise HarnessError(
                    f"The connection of the session {actor.session.name} was lost.",
                    tried=f"{' then '.join(map(self.world.unit, order[: at + 1]))}: {actor.answers[-1].message}",
                    next_step="see in the server's log what ended it; what the others were judged by is not whole",
                )
            if driver.hung and place >= 0 and not all(driver.hung.values()):
                raise TooManyError  # it waits for nobody: it is slow, and its answer was cancelled
            if driver.hung and place < 0:
                raise UsageError(
                    f"{self.scenario.path}:{actor.session.line}: the session {actor.session.name} does not end when "
                    f"the sessions run one after another.",
                    tried=f"{' then '.join(map(self.world.unit, order[: at + 1]))}, {self.world.options.timeout:g} s",
                    next_step="mend the statement that waits, or give a longer --timeout",
                )
            if all(later != session for later, _ in order[at + 1 :]):
                actor.end()
            if number == 0 and at >= known_to:
                after = self._measure(session, before)
                standing = self.world.sequences()
                changed = {name for name, (_, n) in after.items() if n != before.get(name, (0, 0))[1]}
                if self._counts and place < 0 and not changed and standing == stood:
                    self._idle.add(self._changed_by(order[: at + 1]))
                before, stood = after, standing
        state = self.world.state()
        everybody = len({session for session, _ in order}) == len(self.world.sessions)
        if number == 0 and everybody and (self.scenario.judge == "transactions" or all(at < 0 for _, at in order)):
            # A final state is one in which everybody has ended: of some of the sessions alone nothing was claimed.
            for place in self.conditions.violated():
                self.violations.setdefault(place, order)
        return SerialRun(answers, state, shifts, began)

    def _flush(self, sessions: Iterable[int]) -> None:
        """Have the server count what these sessions did by now; before PostgreSQL 15 it counts whenever it does."""
        if self.world.control.info.server_version < 150000:
            return
        for session in sessions:
            if not (actor := self.world.actors[session]).lost:
                actor.pgconn.exec_(b"SELECT pg_stat_force_next_flush()")

    def _measure(self, session: int, before: Mapping[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
        """Note which tables a session touched, by the server's own counters, and give what these are now."""
        self._flush([session])
        after = self.world.counters()
        scanned = {name for name, (scans, _) in after.items() if scans > before.get(name, (0, 0))[0]}
        changed = {name for name, (_, changes) in after.items() if changes > before.get(name, (0, 0))[1]}
        self.reads[session] = self.reads.get(session, frozenset()) | scanned
        self.writes[session] = self.writes.get(session, frozenset()) | changed
        return after

    def alone(self) -> None:
        """Each session alone: what fails already then is said first, and wrong SQL is not a scenario."""
        for place, session in enumerate(self.world.sessions):
            answers = self.runs(((place, -1),))[0].answers[place, -1]
            for at, answer in enumerate(answers):
                if answer.code is None:
                    continue
                statement = session.statements[at]
                where = f"{statement.path}:{statement.line}: the session {session.name} {FAILS_ALONE}"
                if _WRONG_SQL.fullmatch(answer.code):
                    raise UsageError(
                        f"{where}: {answer.message} (SQLSTATE {answer.code})",
                        tried=short(statement.text),
                        next_step="mend the statement, or what it names",
                    )
                self.world.note(f"{where}: {answer.message} (SQLSTATE {answer.code}): {short(statement.text)}")
                break
        answers_of_all = [a for runs in self.runs_of.values() for given in runs[0].answers.values() for a in given]
        for number, busy in enumerate(self.scenario.busy):
            self.conditions.ask_once(number, busy, answers_of_all)

    def beforehand(self) -> None:
        """Serial orders that are run before anybody meets.

        Of all sessions, from the first to the last and back, for what must never be so: then it is no race. Where
        clocks are read, every order that may explain a result: a value that drifts lies between runs before and after.
        """
        everybody = tuple((place, -1) for place in range(len(self.world.sessions)))
        orders = [everybody, everybody[::-1]]
        if any(_CLOCK.search(text) for text in self.world.reach.texts):
            if len(everybody) <= ALL_UP_TO:
                sizes = range(2, len(everybody) + 1)
                orders = [order for size in sizes for order in itertools.permutations(everybody, size)]
        elif not self.scenario.conditions:
            return
        for order in orders:
            with suppress(TooManyError):
                self.runs(order)
