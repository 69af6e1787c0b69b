"""Judges schedules by the contract, as a run is judged, and finds the shortest schedule that breaks each claim."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import psycopg

from harness.contracts.contract import Contract
from harness.contracts.invariants import Invariant
from harness.schedules.carried import Carried, CarriedHistory
from harness.targets import state
from harness.verdict.findings import Finding, Truth
from harness.verdict.invariants import judge as verdict_of
from harness.verdict.judge import judge_history

Connect = Callable[[], psycopg.Connection[Any]]


def judge(
    carried: Sequence[Carried], contract: Contract, invariants: Sequence[Invariant], connect: Connect
) -> tuple[list[Finding], dict[str, Carried]]:
    """Every claim as a finding, and the shortest schedule that breaks it, by the finding's id.

    A broken finding's evidence is that of its shortest schedule alone.
    """
    shortest_first = sorted(carried, key=lambda schedule: schedule.length)
    broken: dict[str, Carried] = {}
    alone: dict[str, Finding] = {}
    counts: dict[str, int] = {}
    findings = _judged(carried, contract)
    if any(finding.truth is Truth.BROKEN for finding in findings):
        for schedule in shortest_first:
            for finding in _judged([schedule], contract):
                if finding.truth is Truth.BROKEN:
                    broken.setdefault(finding.id, schedule)
                    alone.setdefault(finding.id, finding)
                    counts[finding.id] = counts.get(finding.id, 0) + 1
    findings = [
        _counted(
            replace(finding, evidence=alone.get(finding.id, finding).evidence), len(carried), counts.get(finding.id)
        )
        for finding in findings
    ]
    if any(schedule.died for schedule in carried):
        findings.append(_usable_after_crash(shortest_first, contract, broken))
    asked = _ask(invariants, carried, connect) if invariants else []
    for invariant, finding in zip(invariants, asked, strict=True):
        if finding.truth is Truth.BROKEN:
            broken[finding.id] = _first_violating(invariant, shortest_first, connect)
            [only] = _ask([invariant], [broken[finding.id]], connect)
            finding = replace(finding, evidence=only.evidence or finding.evidence)
        findings.append(finding)
    return findings, broken


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


def _counted(finding: Finding, schedules: int, broken: int | None) -> Finding:
    if broken is not None:
        return replace(finding, observed=f"broken in {broken} of {schedules} schedules")
    if finding.truth is Truth.HELD:
        return replace(finding, observed=f"holds in {schedules} schedules")
    return finding


def _ask(invariants: Sequence[Invariant], carried: Sequence[Carried], connect: Connect) -> list[Finding]:
    with connect() as connection:
        connection.execute("DROP TABLE IF EXISTS harness.operations")
    asked = state.ask(invariants, CarriedHistory(carried).operations(), connect)()
    return [verdict_of(invariant, found) for invariant, found in zip(invariants, asked, strict=True)]


def _first_violating(invariant: Invariant, carried: Sequence[Carried], connect: Connect) -> Carried:
    """The shortest schedule among whose keys the invariant is violated.

    An invariant that joins `harness.operations` sees only the schedules stored there, so halving finds it. One that
    looks at the whole database is broken by any of them, and the shortest schedule stands for all.
    """
    low, high = 0, len(carried) - 1
    while low < high:
        middle = (low + high) // 2
        [finding] = _ask([invariant], carried[: middle + 1], connect)
        low, high = (low, middle) if finding.truth is Truth.BROKEN else (middle + 1, high)
    return carried[low]


def explained(findings: Sequence[Finding], replays: Mapping[str, str], command: str) -> tuple[Finding, ...]:
    """Findings with the command that repeats each broken one."""
    return tuple(
        replace(finding, replay=f"{command} --replay {replays[finding.id]}") if finding.id in replays else finding
        for finding in findings
    )
