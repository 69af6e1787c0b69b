"""Overlap: were the calls of a race really in progress at the same time, on the server's own word?

A race whose calls came one after the other proves nothing, whatever its answers were. A call is in progress until its
transaction has ended: what it changed is seen by nobody before the commit, and most of a short transaction is commit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

from harness.contracts.contract import Effect, Operation
from harness.targets.target import Span
from harness.verdict.findings import Finding, Truth, pluralize
from harness.verdict.metrics import percentile

CONFIDENCE = 0.95

ROUNDS = 100
"""Rounds that a remedy asks for: those of the quick profile."""

LEAST = 8
"""Overlapped plain rounds without which a race is too short to say anything: a fault that shows in three rounds of ten
may escape, 0.7^8 > 1 - 0.95."""

ENOUGH = 29
"""Overlapped plain rounds that decide a race: a fault that shows in one of ten would be seen, 0.9^29 < 1 - 0.95."""


@dataclass(frozen=True, slots=True)
class RoundOverlap:
    """One plain round: how far apart its calls started (by the client's clock), how many were in progress at once."""

    phase: int
    callers: int
    keys: int
    refused: int
    spread_us: float
    at_once: int
    inside: int
    """How many were inside the function at once, by the clock readings around it."""
    variant: str = ""
    """The argument variant of its calls."""


@dataclass(frozen=True, slots=True)
class VariantOverlap:
    """How often the calls of one argument variant met: its plain rounds, those that overlapped, and their bound."""

    name: str
    rounds: int
    overlapped: int
    escape_bound: float


@dataclass(frozen=True, slots=True)
class Overlap:
    """Start spread and overlap of a race's plain rounds. Held rounds that overlapped are counted apart."""

    rounds: tuple[RoundOverlap, ...]
    overlapped: int
    inside: int
    """Rounds in which two calls on one key were inside the function at once: a part of those that overlapped."""
    held_rounds: int
    spread_p50_us: float | None
    """Microseconds between the first start and the last of a plain round, as medians and 95th percentiles; None where
    there was no plain round."""
    spread_p95_us: float | None
    at_once_p50: float | None
    capacity: int
    """How many calls one fresh key accepts."""
    escape_bound: float
    """With no violation seen: the most, at 95 % confidence, that the chance per overlapped round can be."""
    variants: tuple[VariantOverlap, ...] = ()
    """The same for each argument variant that there is, also for one that had no plain round."""


def escape_bound(rounds: int) -> float:
    """Upper 95 % bound of a violation's chance per round after `rounds` rounds without one: 1 - 0.05^(1/n).

    The exact binomial (Clopper-Pearson) bound for zero events; close to 3/n (Hanley and Lippman-Hand, "If Nothing Goes
    Wrong, Is Everything All Right?", 1983).
    """
    return float(1 - (1 - CONFIDENCE) ** (1 / rounds)) if rounds else 1.0


def would_have_been_seen(bound: float) -> str:
    """The bound as a sentence, its percentage rounded up to two digits: a bound must not be said to be better."""
    percent = bound * 100
    digits = max(0, 1 - math.floor(math.log10(percent)))
    least = math.ceil(percent * 10**digits - 1e-9) / 10**digits
    return f"a fault that shows in {least:g} % or more of such rounds would have been seen (95 %)"


def most_at_once(spans: Iterable[Span], over_before: Callable[[Span, Span], bool] = Span.over_before) -> int:
    """The largest number of calls in progress at once: beside each, those that were not over when it started."""
    ordered = sorted(spans, key=attrgetter("started"))
    return max(
        (1 + sum(not over_before(earlier, later) for earlier in ordered[:at]) for at, later in enumerate(ordered)),
        default=0,
    )


def most_inside(spans: Iterable[Span]) -> int:
    """The largest number of calls that were inside the function at once, by the clock readings around it."""
    return most_at_once(spans, lambda earlier, later: earlier.ended <= later.started)


def measure(
    operations: Sequence[Operation],
    spans: Sequence[tuple[int, Hashable, Span]],
    capacity: int = 1,
    variants: Sequence[str] = (),
    variant_of: Mapping[int, int] | None = None,
) -> Overlap | None:
    """The overlap of a race's rounds; None when no call was timed on the server.

    `variants` are the names of the argument variants, and `variant_of` says which of them each round's calls had.

    Calls of a round overlap where the transactions of two on the same key were open at once on the server. Held rounds,
    where one was kept open on purpose, are counted apart.
    """
    if not spans:
        return None
    timed: dict[int, dict[Hashable, list[Span]]] = {}
    for phase, key, span in spans:
        timed.setdefault(phase, {}).setdefault(key, []).append(span)
    calls: dict[int, list[Operation]] = {}
    for operation in operations:
        if operation.phase in timed:
            calls.setdefault(operation.phase, []).append(operation)
    rounds: list[RoundOverlap] = []
    held = 0
    for phase, mine in sorted(calls.items()):
        at_once = max(most_at_once(each) for each in timed[phase].values())
        if any(o.held for o in mine):
            held += at_once >= 2
            continue
        starts = [o.called for o in mine]
        refused = sum(o.outcome.effect is Effect.REFUSED for o in mine)
        keys, spread = len({o.key for o in mine}), (max(starts) - min(starts)) / 1e3
        inside = max(most_inside(each) for each in timed[phase].values())
        variant = variants[variant_of[phase]] if variant_of else ""
        rounds.append(RoundOverlap(phase, len(mine), keys, refused, spread, at_once, inside, variant))
    overlapped = sum(r.at_once >= 2 for r in rounds)
    spreads = sorted(r.spread_us for r in rounds)
    return Overlap(
        tuple(rounds),
        overlapped,
        sum(r.inside >= 2 for r in rounds),
        held,
        percentile(spreads, 0.5) if rounds else None,
        percentile(spreads, 0.95) if rounds else None,
        percentile(sorted(float(r.at_once) for r in rounds), 0.5) if rounds else None,
        capacity,
        escape_bound(overlapped),
        tuple(_of_variant(name, [r for r in rounds if r.variant == name]) for name in variants),
    )


def _of_variant(name: str, rounds: Sequence[RoundOverlap]) -> VariantOverlap:
    overlapped = sum(r.at_once >= 2 for r in rounds)
    return VariantOverlap(name, len(rounds), overlapped, escape_bound(overlapped))


def judge(overlap: Overlap) -> Finding:
    """Held when enough plain rounds overlapped, and some of each argument variant; else undecided, never broken.

    Enough is half of a short race, and never less than `LEAST`. Held rounds do not stand in for them: they overlap
    because one transaction was kept open on purpose.
    """
    plain = len(overlap.rounds)
    needed = min(ENOUGH, max(LEAST, math.ceil(plain / 2)))
    apart = [each for each in overlap.variants if not each.overlapped]
    enough = overlap.overlapped >= needed
    observed = (
        f"{overlap.overlapped} of {pluralize(plain, 'round')} overlapped, {overlap.inside} of them inside the function"
        f", {overlap.held_rounds} more were held open"
    )
    if overlap.spread_p50_us is not None:
        observed += f"; starts within {overlap.spread_p50_us:.0f} us (median)"
    if len(overlap.variants) > 1 and overlap.overlapped:
        least = min(overlap.variants, key=lambda each: each.overlapped)
        observed += f"; least of {len(overlap.variants)} variants: {least.name}, {least.overlapped} of {least.rounds}"
    limit = f"at least {needed} rounds" + (", and one of each variant" if len(overlap.variants) > 1 else "")
    remedy = ""
    if plain < needed:
        remedy = (
            f"Make more rounds, with --rounds {ROUNDS} or so: these say nothing of a fault that does not show always."
        )
    elif not enough:
        remedy = "Raise --clients or --rounds, or use a machine with more than one core."
    elif apart:
        remedy = f"Make more rounds, with --rounds: calls of {' and '.join(each.name for each in apart)} never met."
    truth = Truth.UNDECIDED if remedy else Truth.HELD
    claim = "The calls of a race were in progress at the same time on the server."
    return Finding("race_overlapped", claim, truth, observed, limit, remedy=remedy)
