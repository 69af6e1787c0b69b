"""Overlap: a race whose calls never ran at the same time proves nothing."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from harness.targets.target import Span
from harness.verdict import overlap
from harness.verdict.findings import Truth
from tests.histories import TICKET, call

OTHER = uuid.UUID(int=2)


@pytest.mark.parametrize(
    ("spans", "most"),
    [
        ([], 0),
        ([(0, 1)], 1),
        ([(0, 2), (1, 3)], 2),
        ([(0, 1), (1, 2)], 1),
        ([(0, 1), (2, 3)], 1),
        ([(0, 9), (1, 3), (2, 4), (5, 6)], 3),
        ([(0, 9), (1, 2), (3, 4), (5, 6)], 2),
        ([(0, 5)] * 4, 4),
    ],
)
def test_calls_at_once_are_those_that_share_an_instant(spans: list[tuple[int, int]], most: int) -> None:
    """Calls that only touch did not run at the same time."""
    assert overlap.most_at_once([Span(*span) for span in spans]) == most
    assert overlap.most_inside([Span(*span) for span in spans]) == most


def after(*running: int, following: int) -> dict[str, Any]:
    """The snapshot of a call that started while these transactions ran, and before the one that follows."""
    return {"running": frozenset(running), "next_transaction": following}


@pytest.mark.parametrize(
    ("second", "most"),
    [
        (Span(20, 30, 8, **after(7, following=8)), 2),  # seven had returned, and not committed
        (Span(20, 30, 8, **after(following=8)), 1),  # seven had committed
        (Span(5, 30, 8, **after(following=7)), 2),  # seven came later
        (Span(20, 30, None, **after(7, following=8)), 2),  # a loser that wrote nothing
        (Span(5, 30, None, **after(following=8)), 1),
    ],
)
def test_a_call_is_in_progress_until_its_transaction_has_ended(second: Span, most: int) -> None:
    """The server's snapshot says who was in progress, whatever the clock readings inside the calls were."""
    first = Span(0, 10, 7, **after(following=7))
    assert overlap.most_at_once([first, second]) == most
    assert overlap.most_inside([first, second]) == (2 if second.started < 10 else 1)  # whatever the snapshot says


@pytest.mark.parametrize(
    ("rounds", "bound"),
    [(0, 1.0), (1, 0.95), (10, 0.2589), (59, 0.0495), (100, 0.02951), (300, 0.009936)],
)
def test_the_escape_bound_is_the_exact_binomial_one(rounds: int, bound: float) -> None:
    """1 - 0.05^(1/n), as tables give it for no event in n trials; about 3/n."""
    assert overlap.escape_bound(rounds) == pytest.approx(bound, rel=1e-3)


def race(*rounds: bool, held: int = 0) -> overlap.Overlap:
    """A race with a plain round of two for each truth (did they overlap?), and some held rounds."""
    operations, spans = [], []
    for phase, overlapped in enumerate(rounds, 1):
        operations += [
            call("accepted", phase, phase + 0.3, phase=phase),
            call("busy", phase + 0.1, phase + 0.4, phase=phase),
        ]
        spans += [(phase, TICKET, Span(0, 10)), (phase, TICKET, Span(5, 15) if overlapped else Span(20, 30))]
    for phase in range(len(rounds) + 1, len(rounds) + 1 + held):
        operations += [
            call("accepted", phase, phase + 1, phase=phase, held=True),
            call("busy", phase, phase, phase=phase),
        ]
        spans += [(phase, TICKET, Span(0, 5)), (phase, TICKET, Span(2, 3))]
    found = overlap.measure(operations, spans)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("measured", "truth"),
    [
        (race(*[True] * 8), Truth.HELD),
        (race(*[True] * 7), Truth.UNDECIDED),  # too few to say anything
        (race(*[True] * 8, *[False] * 8), Truth.HELD),
        (race(*[True] * 8, *[False] * 9), Truth.UNDECIDED),
        (race(False, False), Truth.UNDECIDED),
        (race(False, False, held=1), Truth.UNDECIDED),
        (race(False, held=3), Truth.UNDECIDED),
        (race(*[False] * 67, held=33), Truth.UNDECIDED),
        (race(held=3), Truth.UNDECIDED),
        (race(*[True] * 8, held=9), Truth.HELD),
        (race(True, True, held=9), Truth.UNDECIDED),
        (race(*[True] * 29, *[False] * 71), Truth.HELD),
        (race(*[True] * 28, *[False] * 72), Truth.UNDECIDED),
    ],
)
def test_a_race_that_did_not_overlap_is_undecided(measured: overlap.Overlap, truth: Truth) -> None:
    """Half of a short race's plain rounds must have overlapped, at least 8, of a long one's 29; no held one counts."""
    finding = overlap.judge(measured)
    assert finding.truth is truth
    assert bool(finding.remedy) is (truth is Truth.UNDECIDED)
    assert "would have been seen" not in finding.observed  # whether that may be said depends on the other claims


def test_one_argument_variant_that_never_met_is_not_hidden_by_those_that_did() -> None:
    """Nine variants with calls at the same time do not stand for the tenth, whose calls came one after the other."""
    operations, spans, variants = [], [], {}
    for phase in range(1, 101):
        variants[phase] = phase % 10
        operations += [call("accepted", phase, phase + 0.3, phase=phase), call("busy", phase, phase + 0.4, phase=phase)]
        spans += [(phase, TICKET, Span(0, 10)), (phase, TICKET, Span(5, 15) if phase % 10 else Span(20, 30))]
    names = [f"way {number}" for number in range(10)]
    measured = overlap.measure(operations, spans, 1, names, variants)
    assert measured is not None
    assert [each.overlapped for each in measured.variants] == [0, *[10] * 9]
    assert [each.escape_bound for each in measured.variants] == [1, *[overlap.escape_bound(10)] * 9]
    finding = overlap.judge(measured)
    assert finding.truth is Truth.UNDECIDED
    assert "least of 10 variants: way 0, 0 of 10" in finding.observed
    assert "calls of way 0 never met" in finding.remedy


@pytest.mark.parametrize(
    ("rounds", "share"),
    [(1, "95 %"), (5, "46 %"), (28, "11 %"), (29, "9.9 %"), (66, "4.5 %"), (300, "1 %"), (3000, "0.1 %")],
)
def test_the_bound_is_said_with_two_digits_and_never_better_than_it_is(rounds: int, share: str) -> None:
    """Rounded up: 4.438 % is 4.5 %, since a fault of 4.4 % might have escaped."""
    bound = overlap.escape_bound(rounds)
    said = f"a fault that shows in {share} or more of such rounds would have been seen (95 %)"
    assert overlap.would_have_been_seen(bound) == said
    assert float(share.partition(" ")[0]) >= bound * 100


def test_the_bound_counts_the_rounds_that_put_the_claim_to_the_test() -> None:
    """Overlapped rounds count; rounds whose calls ran one after the other, and held ones, do not."""
    assert race(True, True, False, held=2).escape_bound == overlap.escape_bound(2)


def test_start_spread_is_between_the_first_and_the_last_call_of_a_round() -> None:
    """By the client's clock, in microseconds."""
    assert race(True, True).spread_p50_us == pytest.approx(100)


def test_calls_that_were_not_timed_on_the_server_say_nothing() -> None:
    """Without the server's clock there is no overlap to report."""
    assert overlap.measure([call("accepted", 0, 1)], []) is None


def test_calls_on_two_tickets_do_not_overlap_each_other() -> None:
    """Only calls on the same key contend, so two at once on different keys prove nothing."""
    operations = [call("accepted", 1, 2, phase=1), call("accepted", 1, 2, phase=1, key=OTHER)]
    measured = overlap.measure(operations, [(1, TICKET, Span(0, 10)), (1, OTHER, Span(0, 10))])
    assert measured is not None
    assert (measured.overlapped, measured.rounds[0].at_once) == (0, 1)


def test_a_held_round_whose_others_came_too_late_proves_nothing() -> None:
    """A transaction that had ended on the server before another call ran there was held open for nobody."""
    operations = [call("accepted", 1, 5, phase=1, held=True), call("already_scanned", 3, 6, phase=1)]
    measured = overlap.measure(operations, [(1, TICKET, Span(0, 1)), (1, TICKET, Span(2, 3))])
    assert measured is not None
    assert (measured.held_rounds, overlap.judge(measured).truth) == (0, Truth.UNDECIDED)
