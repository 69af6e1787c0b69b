"""Probabilistic concurrency testing: random priorities, changed at a few random places.

Burckhardt et al., "A randomized scheduler with probabilistic guarantees of finding bugs", 2010: a bug that needs d
orderings of steps is found by one schedule with a probability of at least 1 / (n * k^(d-1)), for n calls and k steps.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from harness.schedules.trace import Choice, Event, Kind
from harness.schedules.ways import Foresight, Order


class Pct:
    """Runs the possible call of highest priority; at `depth - 1` random steps the running one becomes the lowest."""

    exhausted = False

    def __init__(self, seed: int, calls: int, depth: int = 3) -> None:
        self._random = random.Random(seed)  # noqa: S311 - a search, not a secret
        self._calls = calls
        self._depth = depth
        self._longest = 2 * calls
        """Most steps of a schedule so far: the places to change at are drawn from as many."""
        self._priorities: list[int] = []
        self._changes: dict[int, int] = {}

    def another(self) -> bool:
        self._priorities = [self._depth + number for number in range(self._calls)]
        self._random.shuffle(self._priorities)
        places = self._random.sample(range(1, self._longest), min(self._depth - 1, self._longest - 1))
        self._changes = {place: low for low, place in enumerate(places)}
        return True

    def choose(self, enabled: tuple[Choice, ...], events: Sequence[Event]) -> Choice | None:
        place = len(events)
        if place in self._changes:
            self._priorities[events[-1].choice.call] = self._changes[place]
        best = max(enabled, key=lambda choice: self._priorities[choice.call])
        others = [choice for choice in enabled if choice.call == best.call and choice.kind is not Kind.STEP]
        # A wait that runs out and a death are no matter of priority: seldom enough not to hide the steps behind them.
        return self._random.choice(others) if others and self._random.random() < 1 / self._longest else best

    def plan(self, foresight: Foresight) -> Order | None:
        return None

    def adopt(self, events: Sequence[Event]) -> bool | None:
        return None

    def ended(self, events: Sequence[Event], *, complete: bool) -> bool:
        self._longest = max(self._longest, len(events))
        return complete
