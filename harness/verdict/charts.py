"""What the pictures of a run are drawn from: percentiles, calls over time, and the calls of one round.

A run may have made a million calls; a record keeps of them what a picture of some hundred points needs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.contracts.contract import Effect
from harness.history import WARM_UP, CallTimes, History
from harness.targets.target import Span
from harness.verdict.findings import Finding, Truth, flatten
from harness.verdict.metrics import percentile

SHARES = 200
"""Steps of the curve of percentiles: one for each half percent."""

BINS = 60
"""Points of a line over time."""

MOST_CLIENTS = 50
"""Clients with a line of their own."""

MOST_BARS = 24
"""Calls drawn of one round."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One call of a round, on the server's clock."""

    number: int
    """In the history, as in a finding's evidence."""
    client: int
    key: str
    outcome: str
    answer: str
    started_us: int
    """Microseconds since the first call of the round began on the server."""
    ended_us: int
    """When the function returned; its transaction ended after that."""
    applied: bool
    """Whether it was let in: it is the winner, or one of several."""
    beside: tuple[int, ...]
    """The calls on the same key whose transactions had not ended when it began, by its snapshot."""
    held_open: str = ""
    """`committed` or `rolled back` where its transaction was kept open on purpose after the answer."""


@dataclass(frozen=True, slots=True)
class Charts:
    """The points of a run's pictures."""

    percentiles: tuple[float, ...]
    """Durations in milliseconds below which 0 %, 0.5 %, ... 100 % of the timed calls lie; empty where there is none."""
    bin_seconds: float
    """Width of each of the intervals below."""
    outcomes: Mapping[str, tuple[int, ...]]
    """Outcome label -> the calls that ended in each interval."""
    clients: Mapping[str, tuple[int, ...]]
    """Client -> the calls that ended in each interval, of the first ones."""
    round: tuple[Bar, ...] = ()
    """The calls of one round of a race: one that breaks a claim, or the one with most of them at once."""


def measure(calls: Iterable[CallTimes], durations: Sequence[float], bars: Sequence[Bar] = ()) -> Charts:
    """The charts of a run; `durations` are sorted, in milliseconds."""
    ended = [
        (call.returned, call.outcome.label, call.client)
        for call in calls
        if call.phase != WARM_UP and call.outcome.effect is not Effect.IN_DOUBT
    ]
    last = max((returned for returned, _, _ in ended), default=0)
    width = max(last, 1) / BINS
    by_outcome: dict[str, Counter[int]] = {}
    by_client: dict[int, Counter[int]] = {}
    for returned, label, client in ended:
        at = min(int(returned / width), BINS - 1)
        by_outcome.setdefault(label, Counter())[at] += 1
        if client < MOST_CLIENTS:
            by_client.setdefault(client, Counter())[at] += 1
    return Charts(
        tuple(round(percentile(durations, n / SHARES), 3) for n in range(SHARES + 1)) if durations else (),
        round(width / 1e9, 6),
        {label: _series(found) for label, found in sorted(by_outcome.items())},
        {str(client): _series(found) for client, found in sorted(by_client.items())},
        tuple(bars),
    )


def _series(found: Counter[int]) -> tuple[int, ...]:
    return tuple(found[at] for at in range(BINS))


def telling_round(findings: Iterable[Finding], most_at_once: Mapping[int, int]) -> int | None:
    """The round to draw: that of the first broken claim, else the one in which most calls were in progress at once."""
    for finding in findings:
        for piece in finding.evidence if finding.truth is Truth.BROKEN else ():
            for operation in piece.get("operations") or ():
                if operation["phase"] >= 0:
                    return int(operation["phase"])
    return max(most_at_once, key=lambda phase: most_at_once[phase], default=None)


def bars(history: History, phase: int, span_of: Callable[[Sequence[Any]], Span]) -> list[Bar]:
    """The calls of a round whose times on the server are known, in order of their start.

    `span_of` reads the columns that follow a call's answer and say when it ran.
    """
    spans = {
        (client, called - history.zero): span_of(timing)
        for log in history.logs
        for client, called, timing in log.timings_of(phase)
    }
    calls = (o for o in history.operations() if o.phase == phase)
    found = [(o, spans[o.client, o.called]) for o in calls if (o.client, o.called) in spans]
    found.sort(key=lambda each: each[1].started)
    zero = found[0][1].started if found else 0
    return [
        Bar(
            o.number,
            o.client,
            str(o.key),
            o.outcome.label + (f" {o.outcome.code}" if o.outcome.code else ""),
            flatten(o.answer),
            span.started - zero,
            max(span.ended - zero, span.started - zero),
            o.outcome.effect is Effect.APPLIED and not o.rolled_back,
            tuple(
                other.number
                for other, theirs in found
                if other.key == o.key and theirs.started < span.started and not theirs.over_before(span)
            ),
            ("rolled back" if o.rolled_back else "committed") if o.held else "",
        )
        for o, span in found[:MOST_BARS]
    ]
