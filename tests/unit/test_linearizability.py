"""The search for a witness: tiny histories with known verdicts, and a comparison with trying every order."""

from __future__ import annotations

import itertools
import random
import time
import uuid
from collections.abc import Hashable, Iterator, Sequence

import pytest

from harness import Effect, KeyHistory, Model, Operation, Outcome
from harness.contracts.scan_ticket import ScanModel
from harness.history import NEVER
from harness.verdict import linearizability
from harness.verdict.findings import Finding, Truth
from harness.verdict.linearizability import linearizable
from tests.histories import call, on_one_key
from tests.inventory import StockModel

SOON = 10.0

LEGAL = {
    "one scan": [call("accepted", 0, 1)],
    "scan, then a refusal": [call("accepted", 0, 1, "A"), call("already_scanned", 2, 3, "B", told="A")],
    "a refusal that began before the scan returned": [
        call("accepted", 0, 5, "A"),
        call("already_scanned", 1, 2, "B", told="A"),
    ],
    "a refusal without a name": [call("accepted", 0, 1, "A"), call("already_scanned", 2, 3, "B")],
    "calls that touch count as concurrent": [
        call("already_scanned", 0, 1, "B", told="A"),
        call("accepted", 1, 2, "A"),
    ],
    "busy while the other one is inside": [call("accepted", 0, 5, "A"), call("busy", 1, 2, "B")],
    "busy before anyone got in": [call("busy", 0, 1, "B"), call("accepted", 2, 3, "A")],
    "the winner rolled back, then another": [
        call("accepted", 0, 5, "A", rolled_back=True),
        call("busy", 1, 2, "B"),
        call("accepted", 6, 7, "B"),
    ],
    "failed calls have no effect": [call("failed", 0, 1, "A", code="40001"), call("accepted", 2, 3, "B")],
    "in doubt, and it did take effect": [
        call("in_doubt", 0, 1, "A"),
        call("already_scanned", 2, 3, "B", told="A"),
    ],
    "in doubt, and it did not": [call("in_doubt", 0, 1, "A"), call("accepted", 2, 3, "B")],
    "in doubt, and it took effect late": [
        call("in_doubt", 0, 1, "A"),
        call("busy", 2, 3, "B"),
        call("already_scanned", 4, 5, "B", told="A"),
    ],
    "two in doubt, one of them won": [
        call("in_doubt", 0, 1, "A"),
        call("in_doubt", 0, 1, "B"),
        call("already_scanned", 4, 5, "C", told="B"),
    ],
    "the time agrees": [
        call("accepted", 0, 1, "A", at="noon"),
        call("already_scanned", 2, 3, "B", told="A", at="noon"),
    ],
}

ILLEGAL = {
    "two let in, one after the other": [call("accepted", 0, 1, "A"), call("accepted", 2, 3, "B")],
    "two let in at once": [call("accepted", 0, 3, "A"), call("accepted", 1, 2, "B")],
    "the same person twice": [call("accepted", 0, 1, "A"), call("accepted", 2, 3, "A")],
    "refused before anyone was let in": [
        call("already_scanned", 0, 1, "B"),
        call("accepted", 2, 3, "A"),
    ],
    "refused, and nobody was let in": [call("already_scanned", 0, 1, "B")],
    "the wrong winner": [call("accepted", 0, 1, "A"), call("already_scanned", 2, 3, "B", told="B")],
    "the wrong time": [
        call("accepted", 0, 1, "A", at="noon"),
        call("already_scanned", 2, 3, "B", told="A", at="midnight"),
    ],
    "a ticket that is there was not found": [call("not_found", 0, 1)],
    "a dirty read: refused because of a scan that was rolled back": [
        call("accepted", 0, 5, "A", rolled_back=True),
        call("already_scanned", 1, 2, "B", told="A"),
    ],
    "in doubt, and called only after the refusal": [
        call("already_scanned", 0, 1, "B", told="A"),
        call("in_doubt", 2, 3, "A"),
    ],
    "one in doubt cannot have won twice": [
        call("in_doubt", 0, 1, "A"),
        call("already_scanned", 2, 3, "B", told="A"),
        call("accepted", 4, 5, "B"),
    ],
    "two winners were named": [
        call("in_doubt", 0, 1, "A"),
        call("in_doubt", 0, 1, "B"),
        call("already_scanned", 4, 5, "C", told="A"),
        call("already_scanned", 6, 7, "C", told="B"),
    ],
}


@pytest.mark.parametrize("name", LEGAL)
def test_a_history_that_some_order_explains_is_linearizable(name: str) -> None:
    """One order of the calls, within their times, leads to exactly these answers."""
    assert linearizable(ScanModel(), on_one_key(*LEGAL[name]), time.monotonic() + SOON) is True


@pytest.mark.parametrize("name", ILLEGAL)
def test_a_history_that_no_order_explains_is_not_linearizable(name: str) -> None:
    """No order of the calls, within their times, leads to these answers."""
    assert linearizable(ScanModel(), on_one_key(*ILLEGAL[name]), time.monotonic() + SOON) is False


@pytest.mark.parametrize(("label", "truth"), [("not_found", True), ("accepted", False), ("busy", False)])
def test_a_ticket_that_was_never_created_can_only_be_not_found(label: str, truth: bool) -> None:
    """The state of an unknown key allows one answer."""
    assert linearizable(ScanModel(), on_one_key(call(label, 0, 1), exists=False), time.monotonic() + SOON) is truth


class Register:
    """A cell that is set and read: setting it to what it holds already leaves the state as it is, and yet matters."""

    def initial(self, exists: bool) -> Hashable:
        return 0

    def step(self, state: Hashable, operation: Operation) -> tuple[Hashable, ...]:
        value = operation.arguments["value"]
        if operation.outcome.label == "read":
            return (state,) if state == value else ()
        return (value,)


def _made(number: int, label: str, effect: Effect, called: int, returned: int, **arguments: object) -> Operation:
    answer = {"remaining": arguments.pop("remaining", None)}
    return Operation(
        number, number, 0, arguments, called, called, NEVER if effect is Effect.IN_DOUBT else returned,
        Outcome(label, effect), answer, 0, False, False, "memory",
    )  # fmt: skip


def _times(choose: random.Random) -> tuple[int, int]:
    called = choose.randrange(12)
    return called, called + 1 + choose.randrange(6)


def _scan(choose: random.Random, number: int) -> Operation:  # noqa: ARG001
    label = choose.choice(["accepted", "already_scanned", "already_scanned", "busy", "in_doubt"])
    called, returned = _times(choose)
    told = choose.choice(["A", "B", None]) if label == "already_scanned" else None
    return call(label, called, returned, choose.choice("AB"), told=told, rolled_back=choose.random() < 0.1)


def _take(choose: random.Random, number: int) -> Operation:
    called, returned = _times(choose)
    label = choose.choice(["accepted", "accepted", "sold_out", "in_doubt"])
    effect = {"accepted": Effect.APPLIED, "sold_out": Effect.REFUSED, "in_doubt": Effect.IN_DOUBT}[label]
    return _made(
        number, label, effect, called, returned, p_quantity=choose.choice([1, 2, 3]), remaining=choose.randrange(5)
    )


def _cell(choose: random.Random, number: int) -> Operation:
    called, returned = _times(choose)
    label = choose.choice(["set", "set", "read"])
    effect = Effect.REFUSED if label == "read" else choose.choice([Effect.APPLIED, Effect.APPLIED, Effect.IN_DOUBT])
    return _made(number, label, effect, called, returned, value=choose.randrange(2))


def _orders(operations: Sequence[Operation]) -> Iterator[tuple[Operation, ...]]:
    """Every order of the operations that took effect, those in doubt in or out, that keeps to their times."""
    sure = [o for o in operations if o.outcome.effect is not Effect.IN_DOUBT]
    doubtful = [o for o in operations if o.outcome.effect is Effect.IN_DOUBT]
    for some in itertools.chain.from_iterable(
        itertools.combinations(doubtful, count) for count in range(len(doubtful) + 1)
    ):
        for order in itertools.permutations([*sure, *some]):
            if all(later.returned >= earlier.called for earlier, later in itertools.combinations(order, 2)):
                yield order


def _by_trying_every_order(model: Model, history: KeyHistory) -> bool:
    undone = [o for o in history.operations if o.rolled_back and o.outcome.effect is Effect.APPLIED]
    counted = [o for o in history.operations if o.outcome.effect is not Effect.FAILED and o not in undone]
    for order in _orders(counted):
        states = {model.initial(history.exists)}
        for operation in order:
            states = {after for state in states for after in model.step(state, operation)}
        if states:
            return True
    return False


@pytest.mark.parametrize(
    ("model", "random_operation"),
    [(ScanModel(), _scan), (StockModel(), _take), (Register(), _cell)],
    ids=["ticket", "stock", "register"],
)
def test_the_search_agrees_with_trying_every_order(model: Model, random_operation: object) -> None:
    """On small random histories the search finds a witness exactly when one of all the orders is one.

    The register is there for the search's shortcut: an operation that changes nothing now may be the one that a later
    read needs.
    """
    choose = random.Random(2)
    verdicts = {True: 0, False: 0}
    for _ in range(1500):
        operations = [random_operation(choose, number) for number in range(choose.randint(2, 5))]  # type: ignore[operator]
        history = KeyHistory(0, True, sorted(operations, key=lambda o: o.called))
        expected = _by_trying_every_order(model, history)
        assert linearizable(model, history, time.monotonic() + SOON) is expected, "\n".join(map(str, operations))
        verdicts[expected] += 1
    assert min(verdicts.values()) > 100, verdicts  # both answers were really asked for


def judged(model: Model, histories: Sequence[KeyHistory], time_limit: float = SOON) -> Finding:
    """The finding over keys that come all at once."""
    judge = linearizability.Judge(model, time_limit)
    judge.take(histories)
    return judge.finding()


def test_a_search_that_runs_out_of_time_is_undecided() -> None:
    """With its time used up, a search that is not over says that it does not know."""
    # Fourteen sets in any order and a read of a value that none of them leaves: every subset is a configuration.
    sets = [_made(n, "set", Effect.APPLIED, 0, 100, value=n) for n in range(1, 15)]
    history = KeyHistory(0, True, [*sets, _made(15, "read", Effect.REFUSED, 101, 102, value=99)])
    assert linearizable(Register(), history, time.monotonic() - 1) is None
    finding = judged(Register(), [history], time_limit=0)
    assert finding.truth is Truth.UNDECIDED
    assert "1 not decided in 0 s" in finding.observed


def test_a_counterexample_outweighs_a_search_without_an_answer() -> None:
    """One key that is surely wrong breaks the claim, whatever could not be decided of the others."""
    sets = [_made(n, "set", Effect.APPLIED, 0, 100, value=n) for n in range(1, 15)]
    long = KeyHistory(0, True, [*sets, _made(15, "read", Effect.REFUSED, 101, 102, value=99)])
    wrong = KeyHistory(1, True, [_made(0, "read", Effect.REFUSED, 0, 1, value=7)])
    finding = judged(Register(), [long, wrong], time_limit=0)
    assert finding.truth is Truth.BROKEN
    assert finding.evidence


def test_a_race_of_many_is_judged_in_no_time() -> None:
    """Who was accepted is all that a race branches over: 200 callers at once are no search of 200! orders."""
    calls = [call("already_scanned", 0, 10, "B", told="A") for _ in range(100)]
    calls += [call("busy", 0, 10, "C") for _ in range(99)] + [call("accepted", 0, 10, "A")]
    assert linearizable(ScanModel(), on_one_key(*calls), time.monotonic() + SOON) is True


def test_keys_are_judged_apart() -> None:
    """Two scans of two tickets are no double scan."""
    finding = judged(
        ScanModel(),
        [KeyHistory(uuid.UUID(int=n), True, [call("accepted", n, n + 1, key=uuid.UUID(int=n))]) for n in range(2)],
    )
    assert finding.truth is Truth.HELD
    assert finding.observed == "2 of 2 keys linearizable"


def test_a_refusal_for_the_sake_of_what_was_rolled_back_is_told_apart() -> None:
    """A queue that skips locked rows is right: its contract says too much. A check that came too early is not."""
    gone = call("accepted", 0, 5, "A", rolled_back=True)
    skipped = on_one_key(gone, call("already_scanned", 1, 2, "B"), call("accepted", 6, 7, "B"))
    twice = on_one_key(call("accepted", 0, 5, "A"), call("accepted", 1, 2, "B"))
    assert "SKIP LOCKED" in judged(ScanModel(), [skipped]).remedy
    assert "take the lock before reading" in judged(ScanModel(), [skipped, twice]).remedy
