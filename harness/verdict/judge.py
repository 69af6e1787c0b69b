"""The judgement of one history: every claim of the contract as a finding."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from harness.contracts.contract import NOT_REACHED, TIMEOUT, Claim, Contract, Effect, KeyHistory, Operation, Violation
from harness.history import History
from harness.verdict import linearizability
from harness.verdict.findings import SHOWN, SHOWN_OPERATIONS, Finding, Truth, counted, shown
from harness.verdict.metrics import too_many_lost

DEADLOCK = "40P01"


def judge_history(history: History, contract: Contract) -> list[Finding]:
    """What the operations alone prove, database or not: the contract's claims, linearizability, errors."""
    histories = list(history.by_key())
    operations = history.operations()
    return [
        *(_judged_claim(claim, histories) for claim in contract.claims),
        linearizability.judge(contract.model, histories),
        _no_deadlock(operations),
        _no_unhandled_error(operations),
    ]


def _judged_claim(claim: Claim, histories: Sequence[KeyHistory]) -> Finding:
    count = 0
    evidence: list[dict[str, object]] = []
    for history in histories:
        for violation in claim.judge(history):
            count += 1
            if len(evidence) < SHOWN:
                evidence.append(_evidence(violation))
    if not histories:
        return Finding(claim.id, claim.statement, Truth.UNDECIDED, "no call was made")
    if not count:
        observed = f"holds on {counted(len(histories), 'key')}"
        if claim.concerns is not None:
            given = [o for history in histories for o in history.operations if o.outcome.label == claim.concerns]
            observed = _holds_for(claim, given)
        return Finding(claim.id, claim.statement, Truth.HELD, observed)
    return Finding(
        claim.id, claim.statement, Truth.BROKEN, counted(count, "violation"), "none", tuple(evidence), claim.remedy
    )


def _holds_for(claim: Claim, given: Sequence[Operation]) -> str:
    """How many answers the claim speaks of: nobody should take silence for a proof."""
    kind = f"{claim.concerns} answer"
    if not given:
        return f"not exercised: no {kind} was given"
    silent = sum(o.answer.get(claim.naming) is None for o in given) if claim.naming else 0
    observed = f"holds for {counted(len(given), kind)}"
    return f"{observed}, {silent} of which leave {claim.naming} empty" if silent else observed


def _evidence(violation: Violation) -> dict[str, object]:
    return {
        "reason": violation.reason,
        "operations": [shown(operation) for operation in violation.operations[:SHOWN_OPERATIONS]],
    }


def _no_deadlock(operations: Sequence[Operation]) -> Finding:
    victims = [o for o in operations if o.outcome.code == DEADLOCK]
    return _errors(
        "no_deadlock",
        "No call ends as the victim of a deadlock (40P01).",
        victims,
        len(operations),
        "Take locks in one order in every path, and the strong one first: FOR UPDATE, not FOR SHARE and then UPDATE.",
    )


def _no_unhandled_error(operations: Sequence[Operation]) -> Finding:
    others = NOT_REACHED | {DEADLOCK}
    failed = [o for o in operations if o.outcome.effect is Effect.FAILED and o.outcome.code not in others]
    finding = _errors(
        "no_unhandled_error",
        "No call ends with an error that the function should have handled.",
        failed,
        len(operations),
        "Find out what it waits for: take locks with NOWAIT or a lock_timeout, and answer when there is none."
        if failed and all(o.outcome.code == TIMEOUT for o in failed)
        else "Handle the condition in the function, or let it be an answer of its own.",
    )
    lost = sum(o.outcome.lost for o in operations)
    late = sum(o.outcome.effect is Effect.IN_DOUBT for o in operations) - lost
    if finding.truth is not Truth.HELD or not (lost or late):
        return finding
    if late or too_many_lost(lost, len(operations)):
        kinds = [f"{lost} lost to the environment"] * bool(lost) + [f"{late} given up for their time"] * bool(late)
        observed = f"{lost + late} of {len(operations)} calls in doubt: {', '.join(kinds)}"
        return Finding(finding.id, finding.claim, Truth.UNDECIDED, observed, "none")
    observed = f"none in {len(operations) - lost} calls; {lost} more lost to the environment"
    return Finding(finding.id, finding.claim, Truth.HELD, observed, "none")


def _errors(name: str, claim: str, failed: Sequence[Operation], calls: int, remedy: str) -> Finding:
    if not calls:
        return Finding(name, claim, Truth.UNDECIDED, "no call was made")
    if not failed:
        return Finding(name, claim, Truth.HELD, f"none in {calls} calls", "none")
    kinds: dict[tuple[str | None, str | None], Operation] = {}
    for operation in failed:
        kinds.setdefault((operation.outcome.code, operation.outcome.detail), operation)
    evidence = tuple(
        {"reason": f"{code}: {detail}", "operations": [shown(first)]}
        for (code, detail), first in islice(kinds.items(), SHOWN)
    )
    return Finding(name, claim, Truth.BROKEN, f"{len(failed)} of {calls} calls", "none", evidence, remedy)
