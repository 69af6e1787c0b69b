"""Metrics of a history, named as in the original load test."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from harness.contracts.contract import Contract, Effect
from harness.history import WARM_UP, History
from harness.plain import LEFT_OUT

FAST = 200.0
"""Milliseconds within which a call passes the check `under 200 ms`."""


@dataclass(frozen=True, slots=True)
class Trend:
    """Durations in milliseconds, with exact percentiles over all calls; None where there is no call."""

    count: int
    rate: float
    """Calls per second."""
    avg: float | None
    min: float | None
    med: float | None
    p90: float | None
    p95: float | None
    p99: float | None
    max: float | None
    p95_interval: tuple[float, float] | None = None
    """The 95 % confidence interval of `p95`, as if calls were independent; None where they are too few."""


@dataclass(frozen=True, slots=True)
class Metrics:
    """What a run's calls add up to, without warm-up calls. Held transactions count, and their durations do not."""

    calls: int
    seconds: float
    trends: Mapping[str, Trend]
    """Outcome label (and `all`) -> its durations."""
    counts: Mapping[str, int]
    """Metric or outcome label -> calls."""
    rates: Mapping[str, float]
    """Metric -> share of calls, from 0 to 1."""
    checks: Mapping[str, tuple[int, int]]
    """Check -> (passed, failed)."""
    late: int
    """Arrivals that could not start in time."""
    outcomes: Mapping[str, int] = field(default_factory=dict)
    """Outcome label -> calls; the part of `counts` that adds up to all calls."""
    lost: int = 0
    """Calls whose answer the environment took. They count in no rate and no check."""
    durations: Sequence[float] = field(default=(), compare=False, repr=False, metadata=LEFT_OUT)
    """Sorted, in milliseconds; what the duration metric's percentiles are taken from. As many as there were calls, so
    they are not kept in the record: the trends say what they come to."""


def too_many_lost(lost: int, calls: int) -> bool:
    """Whether so many calls were lost to the environment that the others are no fair picture: more than one in 20."""
    return lost * 20 > calls


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of the values lie, with linear interpolation, as k6 computes p(N).

    Hyndman and Fan, "Sample Quantiles in Statistical Packages", 1996, definition 7. NaN when there are none.
    """
    if not ordered:
        return math.nan
    at = share * (len(ordered) - 1)
    below = math.floor(at)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (at - below)


def interval(ordered: Sequence[float], share: float) -> tuple[float, float] | None:
    """The 95 % confidence interval of the share's percentile, from the values' ranks; None where they are too few.

    How many of n values lie below the true percentile is binomial, whatever the distribution is; its normal
    approximation (Hahn and Meeker, "Statistical Intervals", 1991, section 5.2). Calls that were slow together, as
    behind one checkpoint, are no independent draws: the true interval is wider then.
    """
    count = len(ordered)
    middle, spread = count * share, 1.96 * math.sqrt(count * share * (1 - share))
    low, high = math.floor(middle - spread), math.ceil(middle + spread)
    if low < 0 or high >= count:
        return None
    return ordered[low], ordered[high]


def trend(ordered: Sequence[float], seconds: float) -> Trend:
    """The trend of sorted durations, in milliseconds."""
    if not ordered:
        return Trend(0, 0.0, *[None] * 7)
    return Trend(
        len(ordered),
        len(ordered) / seconds if seconds else 0.0,
        math.fsum(ordered) / len(ordered),
        ordered[0],
        percentile(ordered, 0.5),
        percentile(ordered, 0.90),
        percentile(ordered, 0.95),
        percentile(ordered, 0.99),
        ordered[-1],
        interval(ordered, 0.95),
    )


def measure(history: History, contract: Contract, expected: frozenset[str], late_after: float) -> Metrics:
    """The metrics of a history; `expected` are the labels its pattern should lead to.

    A call that was due more than `late_after` seconds before it started counts as late.
    """
    labels: Counter[str] = Counter()
    durations: dict[str, list[float]] = {}
    failed = late = fast = answered = as_expected = lost = 0
    late_ns, fast_ns = int(late_after * 1e9), int(FAST * 1e6)
    first, last = 2**62, 0
    held_phases = history.held_phases()
    for _, phase, due, called, returned, outcome in history.calls():
        if phase == WARM_UP:
            continue
        labels[outcome.label] += 1
        first = min(first, due)
        if outcome.effect is Effect.IN_DOUBT:
            lost += outcome.lost
            failed += not outcome.lost
            continue
        last = max(last, returned)
        failed += outcome.effect is Effect.FAILED
        answered += outcome.effect is not Effect.FAILED
        as_expected += outcome.label in expected
        late += called - due > late_ns
        took = returned - due
        if phase in held_phases:
            fast += 1  # it was made to wait on purpose
            continue
        fast += took < fast_ns
        durations.setdefault(outcome.label, []).append(took / 1e6)
    calls = labels.total()
    kept = calls - lost  # an answer that the environment took is neither a success nor an error
    seconds = max(last - first, 0) / 1e9 if calls else 0.0
    everything = sorted(value for values in durations.values() for value in values)
    checks = {
        "has an answer": (answered, kept - answered),
        "expected outcome": (as_expected, kept - as_expected),
        "under 200 ms": (fast, kept - fast),
    }
    passed = sum(p for p, _ in checks.values())
    counts = {name: sum(labels[label] for label in counted) for name, counted in contract.metrics.items()}
    return Metrics(
        calls,
        seconds,
        {"all": trend(everything, seconds)}
        | {label: trend(sorted(values), seconds) for label, values in sorted(durations.items())},
        dict(sorted(labels.items())) | counts | {contract.error_metric: failed},
        {contract.error_metric: failed / kept if kept else 0.0, "checks": passed / (3 * kept) if kept else 0.0}
        | {name: count / calls if calls else 0.0 for name, count in counts.items()},
        checks,
        late,
        dict(sorted(labels.items())),
        lost,
        everything,
    )
