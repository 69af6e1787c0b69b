"""Schedules drawn at random: each choice is uniform among those that are possible."""

from __future__ import annotations

import random
from collections.abc import Sequence

from harness.schedules.trace import Choice, Event
from harness.schedules.ways import Foresight, Order


class RandomWalk:
    """Draws schedules from a seed until it is stopped."""

    exhausted = False

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - a search, not a secret

    def another(self) -> bool:
        return True

    def choose(self, enabled: tuple[Choice, ...], events: Sequence[Event]) -> Choice | None:
        return self._random.choice(enabled)

    def plan(self, foresight: Foresight) -> Order | None:
        return None

    def adopt(self, events: Sequence[Event]) -> bool | None:
        return None

    def ended(self, events: Sequence[Event], *, complete: bool) -> bool:
        return complete
