"""Thresholds in k6's notation: `p(95)<200`, `avg<=50`, `rate<0.001`, `count>0`.

The grammar is k6's (documentation, "Thresholds"): an aggregation, an operator, a number.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from harness.contracts.contract import FAILED, IN_DOUBT, Contract
from harness.errors import UsageError
from harness.verdict.findings import Finding, Truth
from harness.verdict.metrics import Metrics, percentile, too_many_lost

_EXPRESSION = re.compile(
    r"^\s*(?P<what>avg|min|med|max|count|rate|p\((?P<percent>\d+(?:\.\d+)?)\))\s*"
    r"(?P<operator><=|>=|===|==|!=|<|>)\s*(?P<limit>-?\d+(?:\.\d+)?)\s*$"
)
_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "===": operator.eq,
    "!=": operator.ne,
}


@dataclass(frozen=True, slots=True)
class Threshold:
    """One parsed expression over one metric."""

    metric: str
    expression: str
    what: str
    percent: float | None
    compare: str
    limit: float


def parse(metric: str, expression: str) -> Threshold:
    """Parse one expression. Raises UsageError when it is not k6's notation."""
    match = _EXPRESSION.match(expression)
    if match is None:
        raise UsageError(
            f"The threshold {expression!r} of {metric} cannot be read.",
            next_step="write it as k6 does: p(95)<200, avg<50, min, med, max, rate<0.001 or count>0",
        )
    percent = match["percent"]
    if percent is not None and float(percent) > 100:
        raise UsageError(f"The threshold {expression!r} of {metric} asks for a percentile above 100.")
    return Threshold(
        metric,
        expression.strip(),
        match["what"].split("(")[0],
        None if percent is None else float(percent),
        match["operator"],
        float(match["limit"]),
    )


def check(contract: Contract) -> None:
    """Raises UsageError for a threshold that cannot be read or asks for what is not measured."""
    for metric, expressions in contract.thresholds.items():
        for expression in expressions:
            what = parse(metric, expression).what
            if metric == contract.duration_metric and what != "rate":
                continue
            if what in ("rate", "count") and metric in _named(contract, what):
                continue
            raise UsageError(
                f"The threshold {metric}: {expression} asks for something that is not measured.",
                next_step=f"{contract.duration_metric} has avg, min, med, max, p(N), count; "
                + "; ".join(f"{', '.join(sorted(_named(contract, each)))} have {each}" for each in ("rate", "count")),
            )


def _named(contract: Contract, what: str) -> set[str]:
    """The metrics that have a rate, or a count."""
    both = {contract.error_metric, *contract.metrics}
    return both | ({"checks"} if what == "rate" else {*contract.labels, FAILED, IN_DOUBT})


def judge(metrics: Metrics, contract: Contract, expected: frozenset[str]) -> list[Finding]:
    """One finding per threshold that the pattern can meet: no refused call is asked to be a successful scan."""
    return [_judged(threshold, metrics, contract) for threshold in asked(contract, expected)]


def asked(contract: Contract, expected: frozenset[str]) -> list[Threshold]:
    """The thresholds that are asked of a pattern whose calls should end with these labels."""
    found = []
    for metric, expressions in contract.thresholds.items():
        counted = contract.metrics.get(metric)
        if counted is None or counted & expected:
            found += [parse(metric, expression) for expression in expressions]
    return found


def _judged(threshold: Threshold, metrics: Metrics, contract: Contract) -> Finding:
    value = _value(threshold, metrics, contract)
    claim = f"{threshold.metric}: {threshold.expression}"
    name = f"threshold.{threshold.metric}.{threshold.expression.replace(' ', '')}"
    unit = " ms" if threshold.metric == contract.duration_metric and threshold.what != "count" else ""
    rate = threshold.what == "rate"
    limit = f"{threshold.compare}{_percent(threshold.limit) if rate else _number(threshold.limit)}{unit}"
    measured = _percent(value) if rate else _number(value)
    if math.isnan(value):
        return Finding(name, claim, Truth.UNDECIDED, "no call to measure", limit)
    held = _OPERATORS[threshold.compare](value, threshold.limit)
    if not held and too_many_lost(metrics.lost, metrics.calls):
        lost = f"{measured}{unit}, with {metrics.lost} of {metrics.calls} calls lost to the environment"
        return Finding(name, claim, Truth.UNDECIDED, lost, limit)
    shown = f"{threshold.what}{'' if threshold.percent is None else f'({threshold.percent:g})'}={measured}{unit}"
    return Finding(
        name,
        claim,
        Truth.HELD if held else Truth.BROKEN,
        shown,
        limit,
        () if held else ({"metric": threshold.metric, "value": value, "calls": metrics.calls},),
        "" if held else _REMEDIES.get(threshold.what, "Look at the outcomes that the metric counts."),
    )


def _percent(share: float) -> str:
    return f"{share * 100:.4g} %"


def _number(value: float) -> str:
    """Four digits, or all before the point: 23530, not 2.353e+04."""
    return f"{value:.4g}" if abs(value) < 10_000 else f"{value:.0f}"


_REMEDIES: Mapping[str, str] = {
    "p": "Look for waits: a lock that queues callers, a missing index, a synchronous trigger.",
    "avg": "Look for work in the function that every call pays for.",
    "max": "Look for single stalls: a lock held long, a checkpoint, a plan change.",
}


def _value(threshold: Threshold, metrics: Metrics, contract: Contract) -> float:
    metric, what = threshold.metric, threshold.what
    if metric == contract.duration_metric and what != "rate":
        ordered = metrics.durations
        if what == "count":
            return float(len(ordered))
        if not ordered:
            return math.nan
        if what == "avg":
            return math.fsum(ordered) / len(ordered)
        share = {"min": 0.0, "med": 0.5, "max": 1.0}.get(what)
        return percentile(ordered, (threshold.percent or 0.0) / 100 if share is None else share)
    if metrics.calls == metrics.lost:
        return math.nan
    return metrics.rates[metric] if what == "rate" else float(metrics.counts.get(metric, 0))
