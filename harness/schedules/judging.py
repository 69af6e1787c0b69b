"""Judges schedules by the contract, as a run is judged, and finds the shortest schedule that breaks each claim.

Red is what was seen: the schedule that is shown for a claim broke it, and broke it again when it was carried out once
more on fresh keys. One in which the calls came one after the other is shown before any other: then no concurrency is
needed, and nobody should look for any. Else it is minimal: no single step can be moved to make it calmer and still red.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import psycopg

from harness.contracts.contract import Contract, Operation
from harness.contracts.invariants import Invariant
from harness.schedules.carried import Carried, CarriedHistory
from harness.schedules.cases import Setting
from harness.schedules.trace import Choice, moved, read_replay
from harness.signals import uninterrupted
from harness.sqltext import queries
from harness.targets import state
from harness.verdict.findings import SHOWN, Finding, Truth
from harness.verdict.invariants import judge as verdict_of
from harness.verdict.judge import judge_history

Connect = Callable[[], psycopg.Connection[Any]]
Again = Callable[[Setting, Sequence[Choice], bool], Carried | None]
"""Carries out, in a case and on fresh keys, some choices; None where they cannot be made. The last: in it the server
decides which of two calls comes first."""

_MOST_TRIED = 5000
"""Schedules of each kind, the shortest ones, that may be repeated to find one that violates an invariant."""

_AT_ONCE = 256
"""Schedules that are judged together; then nothing is kept of them but the shortest red ones."""

_KEPT = 20
"""The shortest red schedules kept of each claim."""

_CANDIDATES = 5
"""Schedules that are tried again for a claim, the shortest first."""

_MOVES = 60
"""The most schedules tried to make one calmer."""

_REPEATED = 200
"""The most schedules repeated to find one that violates an invariant, in the middle and at the edges."""

_SQL = queries.own("harness.schedules", "judging.sql")

_ALONE = "broken without any concurrency: also when the calls come one after the other"


class _Tried(NamedTuple):
    """What is kept of a schedule, where there are invariants."""

    setting: Setting
    text: str
    length: tuple[int, int, int]
    serial: bool
    phase: int
    """Of its operations."""


@dataclass
class _Claim:
    """What the schedules so far say of one claim."""

    finding: Finding
    judged: int = 0
    reds: list[Carried] = field(default_factory=list)
    """The shortest ones."""
    serial: Carried | None = None
    """The shortest of those in which the calls came one after the other."""
    broken: int = 0

    def take(self, finding: Finding, schedules: int) -> None:
        """What some more schedules say of it."""
        self.judged += schedules
        if _SEVERITY[finding.truth] > _SEVERITY[self.finding.truth]:
            self.finding = finding

    def add(self, schedule: Carried) -> None:
        """One that breaks it."""
        self.broken += 1
        self.reds.append(schedule)
        self.reds.sort(key=_first_shown)
        del self.reds[_KEPT:]
        if schedule.serial and (self.serial is None or _first_shown(schedule) < _first_shown(self.serial)):
            self.serial = schedule


def _text(schedule: Carried) -> str:
    """Its replay text without the case."""
    return schedule.replay.rpartition(":")[2]


def _first_shown(schedule: Carried) -> tuple[bool, tuple[int, int, int]]:
    """What is at no edge, then what is short."""
    return schedule.setting.edge, schedule.length


_SEVERITY = {Truth.HELD: 0, Truth.UNDECIDED: 1, Truth.BROKEN: 2}


@dataclass
class Judge:
    """Takes schedules as they are carried out, and gives every claim as a finding in the end."""

    contract: Contract
    invariants: Sequence[Invariant]
    connection: psycopg.Connection[Any]
    """To where the operations are kept, which the invariants look at."""
    connect: Connect
    taken: int = 0
    """Schedules so far."""
    _numbered: int = 0
    """Their operations."""
    _waiting: list[Carried] = field(default_factory=list)
    """Those that are still to be judged."""
    _beside: list[Operation] = field(default_factory=list)
    """What else was called, which an invariant sees as well: to be added to the operations."""
    _claims: dict[str, _Claim] = field(default_factory=dict)
    _usable: _Claim | None = None
    _tried: list[_Tried] = field(default_factory=list)
    _at_once: set[str] = field(default_factory=set)
    """Invariants that were violated after the first schedule, in which the calls came one after the other."""

    def __post_init__(self) -> None:
        if self.invariants:
            state.made(self.connection)

    @property
    def broken(self) -> tuple[str, ...]:
        """The claims that were seen broken so far."""
        return tuple(name for name, claim in self._claims.items() if claim.broken)

    def holds(self) -> bool:
        """Whether every claim holds so far, the invariants too."""
        self.look()
        return not self.broken and all(finding.truth is Truth.HELD for finding in self._asked())

    def beside(self, operations: Iterable[Operation]) -> None:
        """Calls that were made beside the schedules: not judged, but an invariant that looks for them finds them."""
        if self.invariants:
            self._beside += operations

    def _known(self, operations: Sequence[Operation]) -> None:
        """Let the invariants know of some operations, and of those beside them: all, or none when a signal comes."""
        with uninterrupted():
            beside, self._beside = self._beside, []
            found = [o._replace(number=number) for number, o in enumerate((*operations, *beside), self._numbered)]
            self._numbered += len(found)
            state.add(found, self.connection)

    def take(self, schedule: Carried) -> None:
        """One more."""
        if self.invariants:
            length, serial = schedule.length, schedule.serial
            self._tried.append(_Tried(schedule.setting, _text(schedule), length, serial, self.taken))
            if len(self._tried) > 4 * _MOST_TRIED:
                self._tried = [tried for edge in (False, True) for tried in self._shortest(edge)[:_MOST_TRIED]]
        self.taken += 1
        self._waiting.append(schedule)
        if len(self._waiting) == _AT_ONCE:
            self.look()
        if self.taken == 1 and self.invariants and schedule.serial:
            self.look()
            found = zip(self.invariants, self._asked(), strict=True)
            self._at_once = {invariant.name for invariant, finding in found if finding.truth is Truth.BROKEN}

    def look(self) -> None:
        """Judge what has come together."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        findings = _judged(waiting, self.contract)
        for finding in findings:
            self._claims.setdefault(finding.id, _Claim(finding)).take(finding, len(waiting))
        if any(finding.truth is Truth.BROKEN for finding in findings):
            for schedule in waiting:
                for finding in _judged([schedule], self.contract):
                    if finding.truth is Truth.BROKEN:
                        self._claims[finding.id].add(schedule)
        self._look_after(waiting)
        if self.invariants:
            self._known(CarriedHistory(waiting).operations())

    def _look_after(self, schedules: Sequence[Carried]) -> None:
        """A call made after one that was ended must be accepted, or told that the key is used up; never busy.

        Not where there is no such key: to say so is right.
        """
        ended = [each for each in schedules if (each.died or each.cancelled) and not each.setting.missing]
        if not ended:
            return
        if self._usable is None:
            self._usable = _Claim(Finding(*_USABLE, Truth.HELD, ""))
        self._usable.judged += len(ended)
        for schedule in ended:
            # Where the only call on a key was rolled back, it is as fresh as it was.
            right = {self.contract.accepted} | (set() if schedule.nothing_left else {self.contract.repeated})
            if any(probe.outcome.label not in right for probe in schedule.probes):
                self._usable.add(schedule)

    def judged(self, again: Again) -> tuple[list[Finding], dict[str, Carried]]:
        """Every claim as a finding, and the schedule that shows how each broken one is broken, by the finding's id.

        A broken finding's evidence is that of its schedule alone.
        """
        self.look()
        broken: dict[str, Carried] = {}
        findings: list[Finding] = []
        if not self._claims:
            findings = judge_history(CarriedHistory([]), self.contract)
        for name, claim in self._claims.items():
            if claim.broken:
                broken[name], finding = self._shown(claim, again)
            elif claim.finding.truth is Truth.HELD:
                finding = replace(claim.finding, observed=f"holds in {claim.judged} schedules")
            else:
                finding = claim.finding
            findings.append(finding)
        if self._usable is not None:
            findings.append(self._usable_after_crash(self._usable, broken))
        for invariant, finding in zip(self.invariants, self._asked(), strict=True):
            if finding.truth is Truth.BROKEN:
                finding = self._of_invariant(invariant, finding, broken, again)
            findings.append(finding)
        return findings, broken

    def _shown(self, claim: _Claim, again: Again) -> tuple[Carried, Finding]:
        """The schedule to show for a broken claim, and the claim with the evidence of that one."""

        def red(schedule: Carried) -> Finding | None:
            found = next((f for f in _judged([schedule], self.contract) if f.id == claim.finding.id), None)
            return found if found is not None and found.truth is Truth.BROKEN else None

        def repeated(schedule: Carried, choices: Sequence[Choice]) -> Carried | None:
            return again(schedule.setting, choices, any(event.races for event in schedule.events))

        observed = f"broken in {claim.broken} of {claim.judged} schedules"
        serial = [] if claim.serial is None else [claim.serial]
        candidates = sorted([*serial, *claim.reds[:_CANDIDATES]], key=lambda red: red.setting.edge)
        for candidate in candidates:
            other = repeated(candidate, candidate.choices)
            if other is None or red(other) is None:
                continue
            shown = candidate if candidate.serial else self._calmer(candidate, red, repeated)
            if shown.serial:
                observed = f"{_ALONE}; {observed}"
            evidence = red(shown)
            return shown, replace(claim.finding, observed=observed, evidence=evidence.evidence if evidence else ())
        observed += "; not broken again when it was repeated"
        return claim.reds[0], replace(claim.finding, observed=observed)

    def _calmer(
        self,
        schedule: Carried,
        red: Callable[[Carried], Finding | None],
        repeated: Callable[[Carried, Sequence[Choice]], Carried | None],
    ) -> Carried:
        """A schedule that is as red, and in which no step can be moved to make it easier to follow."""
        tried = {schedule.choices}
        improved = True
        while improved:
            improved = False
            for choices in moved(schedule.choices):
                if choices in tried or len(tried) > _MOVES:
                    continue
                tried.add(choices)
                other = repeated(schedule, choices)
                if other is not None and other.length < schedule.length and red(other) is not None:
                    schedule, improved = other, True
                    break
        return schedule

    def _asked(self) -> list[Finding]:
        if self.invariants:
            self._known(())
        found = state.ask(self.invariants, None, self.connect)()
        return [verdict_of(*one) for one in zip(self.invariants, found, strict=True)]

    def _of_invariant(
        self, invariant: Invariant, finding: Finding, broken: dict[str, Carried], again: Again
    ) -> Finding:
        """A violated invariant, with a schedule that violated it when it was repeated: rows that were not there before.

        An invariant may look at the whole database, so that its rows do not tell whose they are.
        """
        with self.connect() as connection:
            connection.execute(_SQL["keep_operations"].encode())
        middle, edges = self._shortest(edge=False), self._shortest(edge=True)
        suspects = self._suspects(invariant, [*middle, *edges])
        reds = {(red.setting, _text(red)) for claim in self._claims.values() for red in claim.reds}
        likely: list[_Tried] = []
        for found in (middle, edges):
            likely += [tried for tried in found if tried.serial][: 2 * _CANDIDATES]
            likely += [tried for tried in suspects if tried.setting.edge is (found is edges)]
            likely += [tried for tried in found if (tried.setting, tried.text) in reds][:_KEPT]
        for candidate in _each_once([*likely, *middle[:_REPEATED], *edges[:_REPEATED]]):
            before = self._violating(invariant, ())
            repeated = again(candidate.setting, read_replay(candidate.text), candidate.length[0] > 0)
            if repeated is None:
                continue
            with self.connect() as connection:
                state.made(connection)
            self._known(())
            after = state.violating(invariant, self.connect)
            rows = list((after - before).elements())
            # Of a whole table, such as a total that is wrong: what is violated is changed by every call from then on.
            changed = before.total() >= after.total() and invariant.name not in self._at_once
            if not rows or (changed and repeated.serial):
                continue
            broken[finding.id] = repeated
            said = f"{_ALONE}; {finding.observed}" if repeated.serial else finding.observed
            said += "; whether by this schedule cannot be told: it was before" if changed else ""
            return replace(finding, observed=said, evidence=tuple(json.loads(row) for row in rows[:SHOWN]))
        said = f"{finding.observed}; no single schedule does it when it is repeated: it adds up over many calls"
        return replace(finding, observed=said)

    def _shortest(self, edge: bool) -> list[_Tried]:
        """Those at the edges, or the others, the shortest first."""
        return sorted((tried for tried in self._tried if tried.setting.edge is edge), key=lambda tried: tried.length)

    def _suspects(self, invariant: Invariant, shortest_first: Sequence[_Tried]) -> Sequence[_Tried]:
        """The shortest schedule whose operations an invariant that reads `harness.operations` objects to."""
        nothing = self._violating(invariant, ())
        if not self._violating(invariant, shortest_first) - nothing:
            return ()
        low, high = 0, len(shortest_first) - 1
        while low < high:
            middle = (low + high) // 2
            found = self._violating(invariant, shortest_first[: middle + 1]) - nothing
            low, high = (low, middle) if found else (middle + 1, high)
        return shortest_first[low : low + 1]

    def _violating(self, invariant: Invariant, schedules: Sequence[_Tried]) -> Counter[str]:
        """The rows that violate an invariant, where only some schedules' operations are known."""
        with self.connect() as connection:
            state.made(connection)
            connection.execute(_SQL["known_operations"].encode(), [[schedule.phase for schedule in schedules]])
        return state.violating(invariant, self.connect)

    def _usable_after_crash(self, claim: _Claim, broken: dict[str, Carried]) -> Finding:
        if not claim.broken:
            return replace(claim.finding, observed=f"holds in {claim.judged} schedules in which one was")
        broken[claim.finding.id] = claim.reds[0]
        return replace(
            claim.finding,
            truth=Truth.BROKEN,
            observed=f"broken in {claim.broken} of {claim.judged} schedules in which one was",
            remedy="Keep every trace of a call inside its transaction: no session-level lock, no commit in the middle.",
        )


_USABLE = (
    "usable_after_crash",
    "After a call died or was cancelled, its key is still of use, or used up: never stuck in between.",
)


def _each_once(schedules: Iterable[_Tried]) -> list[_Tried]:
    return list({schedule.phase: schedule for schedule in schedules}.values())


def _judged(schedules: Sequence[Carried], contract: Contract) -> list[Finding]:
    findings = judge_history(CarriedHistory(schedules), contract)
    if all(f.truth is not Truth.UNDECIDED for f in findings):
        return findings
    # A call that was made to die is in doubt to its client, which is no error of the function: judge errors without.
    sure = [
        replace(c, operations=tuple(o for o in c.operations if o.client not in c.died | c.cancelled)) for c in schedules
    ]
    again = {finding.id: finding for finding in judge_history(CarriedHistory(sure), contract)}
    return [again[f.id] if f.id == "no_unhandled_error" else f for f in findings]


def explained(findings: Sequence[Finding], replays: Mapping[str, str], command: str) -> tuple[Finding, ...]:
    """Findings with the command that repeats each broken one."""
    return tuple(
        replace(finding, replay=f"{command} --replay {replays[finding.id]}") if finding.id in replays else finding
        for finding in findings
    )
