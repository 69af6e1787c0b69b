"""The judgement of one history: every claim of the contract as a finding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from harness.contracts.contract import (
    BROKEN_ANSWER,
    NOT_REACHED,
    OUT_OF_TIME,
    TIMEOUT,
    Claim,
    Contract,
    Effect,
    KeyHistory,
    Operation,
    Violation,
)
from harness.history import History
from harness.verdict import linearizability
from harness.verdict.findings import SHOWN, SHOWN_OPERATIONS, Finding, Truth, format_operation, pluralize
from harness.verdict.metrics import too_many_lost

DEADLOCK = "40P01"


def judge_history(history: History, contract: Contract) -> list[Finding]:
    """What the operations alone prove, database or not: the contract's claims, linearizability, errors."""
    claims = [_OfClaim(claim) for claim in contract.claims]
    order = linearizability.Judge(contract.model)
    errors = _Errors()
    for batch in history.batches():
        for each in claims:
            each.take(batch)
        order.take(batch)
        errors.take(batch)
    return [*(each.finding() for each in claims), order.finding(), errors.deadlocks(), errors.unhandled()]


class _OfClaim:
    """What the keys so far say of one claim."""

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.keys = self.violations = 0
        self.evidence: list[dict[str, object]] = []
        self.given = self.silent = 0
        """Answers that the claim speaks of, and those of them that leave the column it looks at empty."""

    def take(self, batch: Sequence[KeyHistory]) -> None:
        self.keys += len(batch)
        for history in batch:
            for violation in self.claim.judge(history):
                self.violations += 1
                if len(self.evidence) < SHOWN:
                    self.evidence.append(_evidence(violation))
        label, column = self.claim.concerns, self.claim.naming
        if label is not None:
            given = [o for history in batch for o in history.operations if o.outcome.label == label]
            self.given += len(given)
            self.silent += sum(o.answer.get(column) is None for o in given) if column else 0

    def finding(self) -> Finding:
        claim = self.claim
        if not self.keys:
            return Finding(claim.id, claim.statement, Truth.UNDECIDED, "no call was made")
        if not self.violations:
            return Finding(claim.id, claim.statement, Truth.HELD, self._holds())
        observed = pluralize(self.violations, "violation")
        return Finding(claim.id, claim.statement, Truth.BROKEN, observed, "none", tuple(self.evidence), claim.remedy)

    def _holds(self) -> str:
        """For how many answers: nobody should take silence for a proof."""
        if self.claim.concerns is None:
            return f"holds on {pluralize(self.keys, 'key')}"
        kind = f"{self.claim.concerns} answer"
        if not self.given:
            return f"not exercised: no {kind} was given"
        observed = f"holds for {pluralize(self.given, kind)}"
        return f"{observed}, {self.silent} of which leave {self.claim.naming} empty" if self.silent else observed


def _evidence(violation: Violation) -> dict[str, object]:
    return {
        "reason": violation.reason,
        "operations": [format_operation(operation) for operation in violation.operations[:SHOWN_OPERATIONS]],
    }


class _Kind:
    """Calls that ended with errors of one kind: how many, and the first with each code and message."""

    def __init__(self) -> None:
        self.count = 0
        self.first: dict[tuple[str | None, str | None], dict[str, object]] = {}

    def take(self, operation: Operation) -> None:
        self.count += 1
        told = (operation.outcome.code, operation.outcome.detail)
        if told not in self.first and len(self.first) < SHOWN:
            self.first[told] = format_operation(operation)

    def finding(self, name: str, claim: str, calls: int, remedy: str) -> Finding:
        if not calls:
            return Finding(name, claim, Truth.UNDECIDED, "no call was made")
        if not self.count:
            return Finding(name, claim, Truth.HELD, f"none in {pluralize(calls, 'call')}", "none")
        evidence = tuple(
            {"reason": f"{code}: {detail}", "operations": [first]} for (code, detail), first in self.first.items()
        )
        return Finding(name, claim, Truth.BROKEN, f"{self.count} of {calls} calls", "none", evidence, remedy)


_REMEDY = "Handle the condition in the function, or let it be an answer of its own."
_REMEDIES = {
    TIMEOUT: "Find out what it waits for: take locks with NOWAIT or a lock_timeout, and answer when there is none.",
    "42501": "Grant the role of the calls what the function needs (GRANT, SECURITY DEFINER), or give another --run-as.",
    "23505": "Handle unique_violation (ON CONFLICT, or an answer of its own). Or does an argument come again? What a "
    "Variant gives is made once for each client; what differs from call to call is the key.",
    "57014": "Find out what it waits for, or give the role or the calls a longer statement_timeout (--setting).",
    "55P03": "Handle lock_not_available in the function and answer that it is busy, or let the error be a refusal.",
    "40001": "Call again on this error, as an application must at this level (--retry 40001).",
    "P0001": "Where this RAISE is how the function says no, let the contract say so: errors=(ErrorAnswer('P0001', "
    "'refused', 'words of its message'),); else handle the condition in the function.",
    BROKEN_ANSWER: "Say in the contract what such an answer means: no_row='refused' for none, classify for any other; "
    "of several rows let a statement make one, as SELECT count(*) FROM f(...) does.",
}
"""By the code, where all errors have one."""
_WRONG = "Mend the function: what it names is not there, or has another type (class 42), whoever calls it and when."


class _Errors:
    """The calls so far that did not end with an answer."""

    def __init__(self) -> None:
        self.calls = self.lost = self.late = 0
        self.last_words = Counter[str]()
        """What was said of the calls whose answer was lost."""
        self.victims, self.others = _Kind(), _Kind()
        self.codes = set[str | None]()

    def take(self, batch: Sequence[KeyHistory]) -> None:
        self.calls += sum(len(history.operations) for history in batch)
        for operation in _without_answer(batch):
            outcome = operation.outcome
            if outcome.effect is Effect.IN_DOUBT:
                if outcome.lost and outcome.code != OUT_OF_TIME:
                    self.lost += 1
                    self.last_words[outcome.detail or outcome.code or "nothing was said"] += 1
                else:
                    self.late += 1
            if outcome.code == DEADLOCK:
                self.victims.take(operation)
            elif outcome.effect is Effect.FAILED and outcome.code not in NOT_REACHED:
                self.others.take(operation)
                self.codes.add(outcome.code)

    def deadlocks(self) -> Finding:
        return self.victims.finding(
            "no_deadlock",
            "No call ends as the victim of a deadlock (40P01).",
            self.calls,
            "Take locks in one order in every path, and the strong one first: FOR UPDATE, not FOR SHARE and then "
            "UPDATE.",
        )

    def _remedy(self) -> str:
        if len(self.codes) == 1 and (remedy := _REMEDIES.get(next(iter(self.codes)) or "")):
            return remedy
        wrong = all((code or "").startswith("42") and code != "42501" for code in self.codes)
        return _WRONG if wrong and self.codes else _REMEDY

    def unhandled(self) -> Finding:
        finding = self.others.finding(
            "no_unhandled_error",
            "No call ends with an error that the function should have handled.",
            self.calls,
            self._remedy(),
        )
        lost, late = self.lost, self.late
        if finding.truth is not Truth.HELD or not (lost or late):
            return finding
        if late or too_many_lost(lost, self.calls):
            kinds, remedy = [f"{late} given up for their time"] * bool(late), ""
            if lost:
                [(words, _)] = self.last_words.most_common(1)
                kinds.insert(0, f"{lost} lost to the environment ({words})")
                remedy = (
                    "See the server's log for what ended them; a function that ends its own backend looks the same."
                )
            observed = f"{lost + late} of {self.calls} calls in doubt: {', '.join(kinds)}"
            return replace(finding, truth=Truth.UNDECIDED, observed=observed, remedy=remedy)
        return replace(
            finding, observed=f"none in {pluralize(self.calls - lost, 'call')}; {lost} more lost to the environment"
        )


def _without_answer(batch: Sequence[KeyHistory]) -> Iterator[Operation]:
    failed, in_doubt = Effect.FAILED, Effect.IN_DOUBT
    for history in batch:
        for operation in history.operations:
            outcome = operation.outcome
            # A deadlock may be an answer that the contract names, and so have another effect.
            if outcome.code is not None or outcome.effect is failed or outcome.effect is in_doubt:
                yield operation
