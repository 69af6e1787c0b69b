"""The judgement of a comparison, on made-up blocks and histories."""

from __future__ import annotations

import random
from typing import Any

import pytest

from harness import Operation
from harness.contracts.scan_ticket import SCAN_TICKET
from harness.errors import UsageError
from harness.experiments import overhead as experiment
from harness.experiments.overhead import HTTP, SQL, Block, added_latency, interval, overhead
from harness.history import History
from harness.verdict.findings import Finding, Truth
from tests.histories import call, history


def block(target: str, *durations: float) -> Block:
    return Block(target, len(durations), 1.0, tuple(sorted(durations)), 0.1, None)


def test_blocks_alternate_so_that_drift_meets_both_doors_alike() -> None:
    """The order is A B B A A B B A: each door is first as often as the other."""
    assert experiment._order(4) == [SQL, HTTP, HTTP, SQL, SQL, HTTP, HTTP, SQL]


def test_added_latency_is_the_mean_difference_of_pairs() -> None:
    """What HTTP adds at a percentile is the difference of the blocks' percentiles, and the interval holds it."""
    blocks = []
    for drift in (0.0, 1.0, 2.0, 3.0, 4.0, 5.0):
        blocks += [block(SQL, *(drift + n / 100 for n in range(101))), block(HTTP, *(drift + 2 for _ in range(101)))]
    median, high = added_latency(blocks, (0.5, 0.95))
    assert (median.sql, median.http, median.added) == pytest.approx((3.0, 4.5, 1.5))
    # However much both doors drift, the pairs' differences do not.
    assert (median.low, median.high) == pytest.approx((1.5, 1.5))
    assert high.added == pytest.approx(2 - 0.95)


def test_the_interval_is_the_same_for_the_same_seed() -> None:
    """A figure that is repeated from the same blocks does not change."""
    values = [1.0, 1.5, 0.7, 1.1, 1.4, 2.0]
    assert interval(values) == interval(values)
    assert interval(values)[0] < sum(values) / 6 < interval(values)[1]


def test_values_without_spread_have_an_interval_without_width() -> None:
    """Where every pair says the same there is nothing to draw."""
    assert interval([2.0] * 6) == (2.0, 2.0)


@pytest.mark.parametrize("skewed", [False, True])
def test_the_interval_covers_the_true_value_about_as_often_as_it_says(
    monkeypatch: pytest.MonkeyPatch, skewed: bool
) -> None:
    """In 90 % or more of simulated runs of eight pairs the interval holds the true difference, skewed or not."""
    monkeypatch.setattr(experiment, "_RESAMPLES", 400)
    draw = random.Random(7)
    true = 1.1972 if skewed else 1.0  # exp(0.6^2 / 2)
    hits = 0
    for _ in range(300):
        values = [draw.lognormvariate(0, 0.6) if skewed else draw.gauss(1, 0.3) for _ in range(8)]
        low, high = interval(values)
        hits += low <= true <= high
    assert hits >= 270


def raced(name: str, found: History, truth: Truth = Truth.HELD) -> Any:
    return experiment._Raced(name, found, Finding("race_overlapped", "", truth, ""))


def through(target: str, *operations: Operation) -> History:
    return history(*(o._replace(target=target) for o in operations))


WIN, LOSE, BUSY = call("accepted", 0, 2, "A"), call("already_scanned", 3, 4, "B", told="A"), call("busy", 1, 2, "C")
ERROR = call("failed", 1, 2, "C", code="42501")


@pytest.mark.parametrize(
    ("sql", "http", "overlapped", "truth"),
    [
        ((WIN, LOSE), (WIN, BUSY), Truth.HELD, Truth.HELD),
        ((WIN, LOSE), (WIN, LOSE, ERROR), Truth.HELD, Truth.BROKEN),
        ((WIN, LOSE), (WIN, WIN._replace(client=1), LOSE), Truth.HELD, Truth.BROKEN),
        ((WIN, LOSE), (BUSY, BUSY._replace(client=1)), Truth.HELD, Truth.BROKEN),
        ((WIN, LOSE), (WIN, BUSY), Truth.UNDECIDED, Truth.UNDECIDED),
    ],
    ids=["another refusal", "an error at one door", "two winners", "no winner", "no overlap"],
)
def test_doors_are_equivalent_by_classes_and_winners(
    sql: tuple[Operation, ...], http: tuple[Operation, ...], overlapped: Truth, truth: Truth
) -> None:
    """Which refusal a loser gets is timing; an error, a second winner or none at one door only is a difference."""
    bursts = [through(SQL, WIN), through(HTTP, WIN)]
    races = [raced(SQL, through(SQL, *sql)), raced(HTTP, through(HTTP, *http), overlapped)]
    found = experiment._equivalent(bursts, races, SCAN_TICKET)
    assert found.truth is truth
    assert bool(found.evidence) is (truth is Truth.BROKEN)


@pytest.mark.parametrize("plan", [{"pairs": 4}, {"clients": 3}])
def test_a_comparison_too_small_to_say_anything_is_refused(plan: dict[str, int]) -> None:
    """Too few pairs or clients are refused before anything is started."""
    with pytest.raises(UsageError):
        overhead(None, None, **plan)  # type: ignore[arg-type]
