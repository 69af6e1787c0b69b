"""Judges schedules by the contract, as a run is judged, and finds the shortest schedule that breaks each claim.

Red is what was seen: the schedule that is shown for a claim broke it, and broke it again when it was carried out once
more on fresh keys. One in which the calls came one after the other is shown before any other: then no concurrency is
needed, and nobody should look for any. Else it is minimal: no single step can be moved to make it calmer and still red.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import psycopg

from harness.contracts.contract import Contract
from harness.contracts.invariants import Invariant
from harness.schedules.carried import Carried, CarriedHistory
from harness.schedules.trace import Choice, moved
from harness.targets import state
from harness.verdict.findings import SHOWN, Finding, Truth
from harness.verdict.invariants import judge as verdict_of
from harness.verdict.judge import judge_history

Connect = Callable[[], psycopg.Connection[Any]]
Again = Callable[[Carried, Sequence[Choice]], Carried | None]
"""Carries out, in the case of a schedule and on fresh keys, some choices; None where they cannot be made."""

_CANDIDATES = 5
"""Schedules that are tried again for a claim, the shortest first."""

_MOVES = 60
"""The most schedules tried to make one calmer."""

_REPEATED = 300
"""The most schedules repeated to find one that violates an invariant."""

_ALONE = "broken without any concurrency: also when the calls come one after the other"


def judge(
    carried: Sequence[Carried], contract: Contract, invariants: Sequence[Invariant], connect: Connect, again: Again
) -> tuple[list[Finding], dict[str, Carried]]:
    """Every claim as a finding, and the schedule that shows how each broken one is broken, by the finding's id.

    A broken finding's evidence is that of its schedule alone.
    """
    return _Judge(carried, contract, connect, again).judged(invariants)


@dataclass
class _Judge:
    carried: Sequence[Carried]
    contract: Contract
    connect: Connect
    again: Again

    def judged(self, invariants: Sequence[Invariant]) -> tuple[list[Finding], dict[str, Carried]]:
        shortest_first = sorted(self.carried, key=lambda schedule: schedule.length)
        reds: dict[str, list[Carried]] = {}
        findings = _judged(self.carried, self.contract)
        if any(finding.truth is Truth.BROKEN for finding in findings):
            for schedule in shortest_first:
                for finding in _judged([schedule], self.contract):
                    if finding.truth is Truth.BROKEN:
                        reds.setdefault(finding.id, []).append(schedule)
        broken: dict[str, Carried] = {}
        for at, finding in enumerate(findings):
            if finding.id in reds:
                broken[finding.id], findings[at] = self._shown(finding, reds[finding.id])
            elif finding.truth is Truth.HELD:
                findings[at] = replace(finding, observed=f"holds in {len(self.carried)} schedules")
        if any(schedule.died for schedule in self.carried):
            findings.append(_usable_after_crash(shortest_first, self.contract, broken))
        for invariant, finding in zip(invariants, self._asked(invariants), strict=True):
            if finding.truth is Truth.BROKEN:
                finding = self._of_invariant(invariant, finding, shortest_first, broken)
            findings.append(finding)
        return findings, broken

    def _shown(self, finding: Finding, reds: Sequence[Carried]) -> tuple[Carried, Finding]:
        """The schedule to show for a broken claim, and the claim with the evidence of that one."""

        def red(schedule: Carried) -> Finding | None:
            found = next((f for f in _judged([schedule], self.contract) if f.id == finding.id), None)
            return found if found is not None and found.truth is Truth.BROKEN else None

        observed = f"broken in {len(reds)} of {len(self.carried)} schedules"
        serial = [schedule for schedule in reds if schedule.serial]
        for candidate in [*serial[:1], *reds[:_CANDIDATES]]:
            repeated = self.again(candidate, candidate.choices)
            if repeated is None or red(repeated) is None:
                continue
            shown = candidate if candidate.serial else self._calmer(candidate, red)
            if shown.serial:
                observed = f"{_ALONE}; {observed}"
            evidence = red(shown)
            return shown, replace(finding, observed=observed, evidence=evidence.evidence if evidence else ())
        observed += "; not broken again when it was repeated"
        return reds[0], replace(finding, observed=observed)

    def _calmer(self, schedule: Carried, red: Callable[[Carried], Finding | None]) -> Carried:
        """A schedule that is as red, and in which no step can be moved to make it easier to follow."""
        tried = {schedule.choices}
        improved = True
        while improved:
            improved = False
            for choices in moved(schedule.choices):
                if choices in tried or len(tried) > _MOVES:
                    continue
                tried.add(choices)
                other = self.again(schedule, choices)
                if other is not None and other.length < schedule.length and red(other) is not None:
                    schedule, improved = other, True
                    break
        return schedule

    def _asked(self, invariants: Sequence[Invariant]) -> list[Finding]:
        if not invariants:
            return []
        with self.connect() as connection:
            connection.execute("DROP TABLE IF EXISTS harness.operations")
        found = state.ask(invariants, CarriedHistory(self.carried).operations(), self.connect)()
        return [verdict_of(*one) for one in zip(invariants, found, strict=True)]

    def _of_invariant(
        self, invariant: Invariant, finding: Finding, shortest_first: Sequence[Carried], broken: dict[str, Carried]
    ) -> Finding:
        """A violated invariant, with a schedule that violated it when it was repeated: rows that were not there before.

        An invariant may look at the whole database, so that its rows do not tell whose they are.
        """
        serial = [schedule for schedule in shortest_first if schedule.serial]
        suspects = self._suspects(invariant, shortest_first)
        for candidate in _each_once([*serial[: 2 * _CANDIDATES], *suspects, *shortest_first])[:_REPEATED]:
            before = self._violating(invariant, ())
            repeated = self.again(candidate, candidate.choices)
            if repeated is None:
                continue
            rows = list((self._violating(invariant, [repeated]) - before).elements())
            if rows:
                broken[finding.id] = repeated
                said = f"{_ALONE}; {finding.observed}" if repeated.serial else finding.observed
                return replace(finding, observed=said, evidence=tuple(json.loads(row) for row in rows[:SHOWN]))
        said = f"{finding.observed}; no single schedule does it when it is repeated: it adds up over many calls"
        return replace(finding, observed=said)

    def _suspects(self, invariant: Invariant, shortest_first: Sequence[Carried]) -> Sequence[Carried]:
        """The shortest schedule whose operations an invariant that reads `harness.operations` objects to."""
        if not self._violating(invariant, shortest_first) - self._violating(invariant, ()):
            return ()
        low, high = 0, len(shortest_first) - 1
        while low < high:
            middle = (low + high) // 2
            found = self._violating(invariant, shortest_first[: middle + 1]) - self._violating(invariant, ())
            low, high = (low, middle) if found else (middle + 1, high)
        return shortest_first[low : low + 1]

    def _violating(self, invariant: Invariant, carried: Sequence[Carried]) -> Counter[str]:
        """The rows that violate an invariant, where only some schedules' operations are known."""
        with self.connect() as connection:
            connection.execute("DROP TABLE IF EXISTS harness.operations")
        return state.violating(invariant, CarriedHistory(carried).operations(), self.connect)


def _each_once(carried: Iterable[Carried]) -> list[Carried]:
    return list({id(schedule): schedule for schedule in carried}.values())


def _judged(carried: Sequence[Carried], contract: Contract) -> list[Finding]:
    findings = judge_history(CarriedHistory(carried), contract)
    if all(f.truth is not Truth.UNDECIDED for f in findings):
        return findings
    # A call that was made to die is in doubt to its client, which is no error of the function: judge errors without.
    sure = [replace(c, operations=tuple(o for o in c.operations if o.client not in c.died)) for c in carried]
    again = {finding.id: finding for finding in judge_history(CarriedHistory(sure), contract)}
    return [again[f.id] if f.id == "no_unhandled_error" else f for f in findings]


def _usable_after_crash(carried: Sequence[Carried], contract: Contract, broken: dict[str, Carried]) -> Finding:
    """A call made after all others have ended must be accepted, or told that the key is used up; never busy."""
    name, claim = (
        "usable_after_crash",
        "After a call died, its key is still of use, or used up: never stuck in between.",
    )
    died = [schedule for schedule in carried if schedule.died]
    right = {contract.accepted, contract.repeated}
    stuck = [schedule for schedule in died if any(o.outcome.label not in right for o in schedule.probes)]
    if not stuck:
        return Finding(name, claim, Truth.HELD, f"holds in {len(died)} schedules in which a call died")
    broken[name] = stuck[0]
    return Finding(
        name,
        claim,
        Truth.BROKEN,
        f"broken in {len(stuck)} of {len(died)} schedules in which a call died",
        remedy="Keep every trace of a call inside its transaction: no session-level lock, no commit in the middle.",
    )


def explained(findings: Sequence[Finding], replays: Mapping[str, str], command: str) -> tuple[Finding, ...]:
    """Findings with the command that repeats each broken one."""
    return tuple(
        replace(finding, replay=f"{command} --replay {replays[finding.id]}") if finding.id in replays else finding
        for finding in findings
    )
