"""Percentiles, metrics, and thresholds in k6's notation."""

from __future__ import annotations

import dataclasses
import math
import random
import statistics

import pytest

from harness.contracts.scan_ticket import SCAN_TICKET
from harness.errors import ExitStatus, UsageError
from harness.history import WARM_UP
from harness.verdict import thresholds
from harness.verdict.findings import Truth
from harness.verdict.metrics import interval, measure, percentile, trend
from tests.histories import call, history

EXPECTED = frozenset({"accepted"})
QUICK = [call("accepted", n, n + 10) for n in range(99)]
SLOW = call("accepted", 100, 400)


def measured(*operations, expected=EXPECTED):
    return measure(history(*operations), SCAN_TICKET, expected, late_after=0.01)


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([5.0], 0.95, 5.0),
        ([1.0, 2.0], 0.5, 1.5),
        ([1.0, 2.0, 3.0, 4.0], 0.5, 2.5),
        ([float(n) for n in range(1, 101)], 0.95, 95.05),
        ([float(n) for n in range(1, 101)], 0.99, 99.01),
        ([float(n) for n in range(101)], 0.9, 90.0),
        ([3.0, 7.0], 0.0, 3.0),
        ([3.0, 7.0], 1.0, 7.0),
    ],
)
def test_a_percentile_interpolates_as_k6_does(values: list[float], share: float, expected: float) -> None:
    """Hyndman and Fan's definition 7, on values worked out by hand."""
    assert percentile(values, share) == pytest.approx(expected)


@pytest.mark.parametrize("count", [200, 1000])
def test_the_interval_of_the_p95_holds_the_true_one_in_19_of_20_samples(count: int) -> None:
    """Whatever the distribution: here exponential ones, whose true percentile is known."""
    draw, true = random.Random(1), math.log(20)
    samples = [sorted(draw.expovariate(1) for _ in range(count)) for _ in range(1000)]
    found = [interval(sample, 0.95) for sample in samples]
    assert 0.94 <= sum(low <= true <= high for low, high in filter(None, found)) / 1000 <= 0.98


def test_too_few_calls_have_no_interval() -> None:
    """An upper bound of the p95 would be a call slower than the slowest."""
    assert interval([1.0] * 99, 0.95) is None
    assert trend([], 1.0).p95_interval is None


def test_percentiles_agree_with_the_standard_library() -> None:
    """Exact over all values, whatever their number."""
    choose = random.Random(1)
    for count in (2, 3, 10, 1001):
        values = sorted(choose.expovariate(1) for _ in range(count))
        cuts = statistics.quantiles(values, n=100, method="inclusive")
        assert [percentile(values, n / 100) for n in range(1, 100)] == pytest.approx(cuts)


def test_no_value_has_no_percentile() -> None:
    """What was not measured is not a number, and never 0."""
    assert math.isnan(percentile([], 0.95))
    assert trend([], 1.0).p95 is None


def test_metrics_count_labels_under_the_names_of_the_original_load_test() -> None:
    """A lost race is already_scanned or busy, and both count as caught."""
    found = measured(
        call("accepted", 0, 1), call("already_scanned", 0, 2), call("busy", 0, 3), call("not_found", 0, 4),
        call("failed", 0, 5, code="P0001"), call("in_doubt", 0, 6),
    )  # fmt: skip
    assert found.calls == 6
    assert {name: found.counts[name] for name in SCAN_TICKET.metrics} == {
        "successful_scans": 1,
        "already_scanned": 1,
        "race_conditions_caught": 2,
        "ticket_not_found": 1,
    }
    assert found.counts["scan_errors"] == 1
    assert found.rates["scan_errors"] == pytest.approx(1 / 5)
    assert found.checks["has an answer"] == (4, 1)
    assert found.checks["expected outcome"] == (1, 4)


def test_warm_up_calls_are_not_measured() -> None:
    """A slow first call of a connection is no latency of the function."""
    found = measured(call("accepted", 0, 900, phase=WARM_UP), call("accepted", 1000, 1001))
    assert (found.calls, found.trends["all"].max) == (1, pytest.approx(1.0))


def test_held_rounds_count_and_their_durations_do_not() -> None:
    """Calls that were made to wait on purpose say nothing about how fast the function is."""
    found = measured(
        call("accepted", 0, 500, phase=1, held=True), call("busy", 1, 400, phase=1), call("accepted", 600, 602, phase=2)
    )
    assert found.calls == 3
    assert found.trends["all"].count == 1
    assert found.checks["under 200 ms"] == (3, 0)


def test_latency_counts_from_the_due_time() -> None:
    """A call that could not start for 300 ms took 300 ms longer, and is reported as late: no coordinated omission."""
    found = measured(call("accepted", 300, 301, due=0))
    assert found.trends["all"].max == pytest.approx(301)
    assert found.late == 1
    assert found.checks["under 200 ms"] == (0, 1)


def test_a_call_in_doubt_has_no_duration() -> None:
    """What never returned is an error and not a time."""
    found = measured(call("accepted", 0, 1), call("in_doubt", 0, 1))
    assert found.trends["all"].count == 1
    assert found.seconds == pytest.approx(0.001)


@pytest.mark.parametrize(
    ("text", "what", "percent", "compare", "limit"),
    [
        ("p(95)<200", "p", 95.0, "<", 200.0),
        ("p(99.9) <= 1.5", "p", 99.9, "<=", 1.5),
        (" avg<50 ", "avg", None, "<", 50.0),
        ("med>=1", "med", None, ">=", 1.0),
        ("rate<0.001", "rate", None, "<", 0.001),
        ("count>0", "count", None, ">", 0.0),
        ("count==10", "count", None, "==", 10.0),
        ("count===10", "count", None, "===", 10.0),
        ("max!=3", "max", None, "!=", 3.0),
        ("min>-1", "min", None, ">", -1.0),
    ],
)
def test_an_expression_is_read_as_k6_reads_it(
    text: str, what: str, percent: float | None, compare: str, limit: float
) -> None:
    """An aggregation, an operator, a number; white space does not matter."""
    found = thresholds.parse("m", text)
    assert (found.what, found.percent, found.compare, found.limit) == (what, percent, compare, limit)


@pytest.mark.parametrize(
    "text",
    ["", "p95<200", "p(95)", "p(95)<", "p(95)<x", "p(101)<200", "p(-1)<2", "avg<<3", "avg=3", "avg<3ms", "sum<3"],
)
def test_an_expression_that_k6_would_not_read_is_wrong_usage(text: str) -> None:
    """The error names the expression and the metric."""
    with pytest.raises(UsageError) as caught:
        thresholds.parse("scan_duration", text)
    assert caught.value.exit_status is ExitStatus.USAGE
    assert repr(text) in caught.value.what
    assert "scan_duration" in caught.value.what


THRESHOLDS = [
    # (thresholds, operations, truth)
    ({"scan_duration": ("p(95)<200",)}, QUICK, Truth.HELD),
    ({"scan_duration": ("p(95)<200",)}, [SLOW], Truth.BROKEN),
    ({"scan_duration": ("p(99)<200",)}, [*QUICK[:20], SLOW], Truth.BROKEN),
    ({"scan_duration": ("p(90)<200",)}, [*QUICK[:49], SLOW], Truth.HELD),
    ({"scan_duration": ("max<200",)}, [*QUICK, SLOW], Truth.BROKEN),
    ({"scan_duration": ("med<=10",)}, [*QUICK, SLOW], Truth.HELD),
    ({"scan_duration": ("min<10",)}, QUICK, Truth.BROKEN),
    ({"scan_duration": ("avg<12",)}, [*QUICK, SLOW], Truth.BROKEN),
    ({"scan_duration": ("avg<13",)}, [*QUICK, SLOW], Truth.HELD),
    ({"scan_duration": ("count>98",)}, QUICK, Truth.HELD),
    ({"scan_duration": ("p(95)<200",)}, [], Truth.UNDECIDED),
    ({"scan_errors": ("rate<0.001",)}, QUICK, Truth.HELD),
    ({"scan_errors": ("rate<0.001",)}, [*QUICK, call("failed", 0, 1, code="P0001")], Truth.BROKEN),
    ({"scan_errors": ("rate<0.001",)}, [*QUICK, call("in_doubt", 0, 1)], Truth.HELD),
    ({"scan_errors": ("rate<0.001",)}, [*QUICK, call("in_doubt", 0, 1, code="timeout")], Truth.BROKEN),
    ({"successful_scans": ("count>1000",)}, [*QUICK, *[call("in_doubt", 0, 1)] * 50], Truth.UNDECIDED),
    ({"scan_errors": ("rate<0.02",)}, [*QUICK, call("failed", 0, 1, code="P0001")], Truth.HELD),
    ({"scan_errors": ("rate<0.001",)}, [], Truth.UNDECIDED),
    ({"successful_scans": ("count>0",)}, QUICK, Truth.HELD),
    ({"successful_scans": ("count>0",)}, [call("busy", 0, 1)], Truth.BROKEN),
    ({"successful_scans": ("rate>0.5",)}, [*QUICK[:1], call("busy", 0, 1)], Truth.BROKEN),
    ({"busy": ("count<1",)}, QUICK, Truth.HELD),
    ({"busy": ("count<1",)}, [*QUICK, call("busy", 0, 1)], Truth.BROKEN),
    ({"checks": ("rate>0.95",)}, QUICK, Truth.HELD),
    ({"checks": ("rate>0.95",)}, [*QUICK[:5], call("busy", 0, 1)], Truth.BROKEN),
]


@pytest.mark.parametrize(("wanted", "operations", "truth"), THRESHOLDS)
def test_a_threshold_is_held_or_broken_by_what_was_measured(wanted, operations, truth) -> None:
    """Each aggregation, on histories on either side of the limit, and on none at all."""
    contract = dataclasses.replace(SCAN_TICKET, thresholds=wanted)
    thresholds.check(contract)
    (finding,) = thresholds.judge(measured(*operations), contract, EXPECTED)
    assert finding.truth is truth, finding
    assert bool(finding.evidence) is (truth is Truth.BROKEN)


def test_a_threshold_is_not_asked_of_a_pattern_that_cannot_meet_it() -> None:
    """Unknown tickets lead to no successful scan, so none is asked for."""
    found = thresholds.judge(measured(call("not_found", 0, 1)), SCAN_TICKET, frozenset({"not_found"}))
    assert "successful_scans" not in " ".join(f.id for f in found)


@pytest.mark.parametrize(
    ("metric", "text"), [("nothing", "count>0"), ("successful_scans", "p(95)<3"), ("checks", "avg<3")]
)
def test_a_threshold_on_what_is_not_measured_says_what_is(metric: str, text: str) -> None:
    """The error lists the metrics that there are."""
    contract = dataclasses.replace(SCAN_TICKET, thresholds={metric: (text,)})
    with pytest.raises(UsageError) as caught:
        thresholds.check(contract)
    assert "scan_duration" in caught.value.next_step
