"""The claims of the scan_ticket contract on histories made by hand: those that threads do not produce at will."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping

import pytest

from harness import FAILED, Effect, ErrorAnswer, KeyHistory, Retry
from harness.contracts.scan_ticket import CLAIMS, SCAN_TICKET
from harness.errors import UsageError
from harness.verdict.findings import SHOWN, Truth
from harness.verdict.judge import judge_history
from tests.histories import answer, call, history, on_one_key

CASES = [
    # (what happened, history, claims that it violates)
    ("one in, one refused", on_one_key(call("accepted", 0, 1), call("already_scanned", 2, 3, "B", told="A")), set()),
    ("two in", on_one_key(call("accepted", 0, 1), call("accepted", 0, 1, "B")), {"at_most_one_accepted"}),
    (
        "the winner was rolled back and somebody else got in",
        on_one_key(call("accepted", 0, 5, rolled_back=True), call("busy", 1, 2, "B"), call("accepted", 6, 7, "B")),
        set(),
    ),
    (
        "two in besides the one rolled back",
        on_one_key(call("accepted", 0, 1, rolled_back=True), call("accepted", 2, 3, "B"), call("accepted", 4, 5, "C")),
        {"at_most_one_accepted"},
    ),
    ("the winner was rolled back, nobody came", on_one_key(call("accepted", 0, 5, rolled_back=True)), set()),
    ("nobody in", on_one_key(call("busy", 0, 2), call("busy", 1, 3, "B")), {"at_least_one_accepted"}),
    ("nobody in, but one call failed", on_one_key(call("busy", 0, 2), call("failed", 1, 3)), {"losers_are_refused"}),
    ("nobody in, but one is in doubt", on_one_key(call("busy", 0, 2), call("in_doubt", 1, 3)), set()),
    ("nobody in on a ticket that is not there", on_one_key(call("not_found", 0, 1), exists=False), set()),
    (
        "told of one who was not let in",
        on_one_key(call("accepted", 0, 1), call("already_scanned", 2, 3, "B", told="C")),
        {"true_winner"},
    ),
    (
        "told of one whose scan was rolled back",
        on_one_key(
            call("accepted", 0, 1, rolled_back=True),
            call("already_scanned", 2, 3, "B", told="A"),
            call("accepted", 4, 5, "B"),
        ),
        {"true_winner"},
    ),
    (
        "told of one who is in doubt",
        on_one_key(call("in_doubt", 0, 1), call("already_scanned", 2, 3, "B", told="A")),
        set(),
    ),
    ("let in as somebody else", on_one_key(call("accepted", 0, 1, told="B")), {"true_winner"}),
    ("not told of anyone", on_one_key(call("accepted", 0, 1), call("already_scanned", 2, 3, "B")), set()),
    ("busy alone", on_one_key(call("accepted", 0, 1), call("busy", 2, 3, "B")), {"busy_only_while_in_flight"}),
    ("busy beside another", on_one_key(call("accepted", 0, 3), call("busy", 2, 4, "B")), set()),
    ("busy long after one in doubt", on_one_key(call("in_doubt", 0, 1), call("busy", 50, 51, "B")), set()),
    (
        "busy before one in doubt was called",
        on_one_key(call("busy", 0, 1, "B"), call("in_doubt", 2, 3)),
        {"busy_only_while_in_flight"},
    ),
    ("busy while one was held open", on_one_key(call("accepted", 0, 9, held=True), call("busy", 5, 6, "B")), set()),
]


@pytest.mark.parametrize(("told", "violated"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_each_claim_is_violated_by_just_what_it_forbids(told: KeyHistory, violated: set[str]) -> None:
    """One key's history, and the claims that it violates: no more and no less."""
    assert {claim.id for claim in CLAIMS if list(claim.judge(told))} == violated


def test_evidence_shows_the_calls_that_prove_it() -> None:
    """Somebody who reads the finding sees who was let in, when, and what they were told."""
    made = history(call("accepted", 0, 1, "A", client=3), call("accepted", 2, 3, "B", client=4, code="x"))
    finding = next(f for f in judge_history(made, SCAN_TICKET) if f.id == "at_most_one_accepted")
    (proof,) = finding.evidence
    assert proof["reason"] == "2 callers were let in on one ticket"
    assert [(o["client"], o["called_ms"], o["returned_ms"]) for o in proof["operations"]] == [
        (3, 0.0, 1.0),
        (4, 2.0, 3.0),
    ]


@pytest.mark.parametrize(
    ("told", "observed"),
    [
        (("A", "A"), "holds for 2 already_scanned answers"),
        (("A", None), "holds for 2 already_scanned answers, 1 of which leave scanned_by empty"),
        ((), "not exercised: no already_scanned answer was given"),
    ],
)
def test_silence_is_not_taken_for_a_true_answer(told: tuple[str | None, ...], observed: str) -> None:
    """How many answers named nobody is said beside the claim that those who are named are the right ones."""
    refused = [call("already_scanned", 2 + n, 2.5 + n, "B", told=each) for n, each in enumerate(told)]
    findings = {f.id: f for f in judge_history(history(call("accepted", 0, 1), *refused), SCAN_TICKET)}
    assert (findings["true_winner"].truth, findings["true_winner"].observed) == (Truth.HELD, observed)


def test_evidence_is_cut_and_the_count_is_whole() -> None:
    """Of many violations a handful is kept, and all are counted."""
    keys = [uuid.UUID(int=n) for n in range(SHOWN + 3)]
    made = history(*(call("accepted", n, n + 0.1, key=key) for key in keys for n in (0, 1)))
    finding = next(f for f in judge_history(made, SCAN_TICKET) if f.id == "at_most_one_accepted")
    assert finding.observed == f"{SHOWN + 3} violations"
    assert len(finding.evidence) == SHOWN


def test_a_deadlock_is_told_apart_from_other_errors() -> None:
    """40P01 is a finding of its own, with a remedy of its own."""
    found = {f.id: f for f in judge_history(history(call("failed", 0, 1, code="40P01")), SCAN_TICKET)}
    assert found["no_deadlock"].truth is Truth.BROKEN
    assert "one order" in found["no_deadlock"].remedy
    assert found["no_unhandled_error"].truth is Truth.HELD


ANSWERS = [
    (answer(success=True), "accepted", Effect.APPLIED),
    (answer(success=True, already=True), "accepted", Effect.APPLIED),
    (answer(already=True, message="Ticket already scanned"), "already_scanned", Effect.REFUSED),
    (answer(message="Ticket is being processed by another scanner"), "busy", Effect.REFUSED),
    (answer(message="Concurrent scan detected"), "busy", Effect.REFUSED),
    (answer(message="lock not available"), "busy", Effect.REFUSED),
    (answer(message="could not obtain lock on row in relation"), "busy", Effect.REFUSED),
    (answer(message="Ticket not found"), "not_found", Effect.REFUSED),
    (answer(success=None), FAILED, Effect.FAILED),
    (answer(message=None), FAILED, Effect.FAILED),
    (answer(message="no idea"), "refused", Effect.REFUSED),
]


@pytest.mark.parametrize(("row", "label", "effect"), ANSWERS)
def test_every_answer_has_its_label(row: Mapping[str, object], label: str, effect: Effect) -> None:
    """The table of answers of the design, with the losers of NOWAIT counted as refused, too."""
    seen = {c.name: row[c.name] for c in SCAN_TICKET.function.columns if not c.evidence}
    outcome = SCAN_TICKET.outcome(seen)
    assert (outcome.label, outcome.effect) == (label, effect)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: ErrorAnswer("P001", "refused"), "'P001' in ErrorAnswer"),
        (lambda: ErrorAnswer("refused", "P0001"), "'refused' in ErrorAnswer"),
        (lambda: ErrorAnswer("P0001", "refused", "(gone"), r"message pattern '\(gone' .* cannot be read"),
        (lambda: Retry(("40001", "deadlock")), "'deadlock' in Retry"),
        (lambda: Retry(most=0), r"most=0.* cannot be meant"),
        (lambda: Retry(pause=float("nan")), r"pause=nan\) cannot be meant"),
    ],
)
def test_an_error_that_is_an_answer_is_named_by_its_sqlstate(make: Callable[[], object], says: str) -> None:
    """Five characters; anything else would match no error, and so never be an answer."""
    with pytest.raises(UsageError, match=says):
        make()
