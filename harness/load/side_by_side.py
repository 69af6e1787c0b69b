"""Side by side: patterns at the same time, each with its own clients and keys. The profile soak is one."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from harness.contracts.contract import Contract
from harness.errors import UsageError
from harness.load.burst import SHORT_PAUSE, Burst
from harness.load.crew import Client, Crew
from harness.load.firing import Jobs, Waits
from harness.load.pattern import Keys, Pattern
from harness.load.race import Race

_RACERS = 10
"""The most clients of a soak's race."""


@dataclass(frozen=True, slots=True)
class SideBySide(Pattern):
    """Patterns side by side, each with its own clients and keys: a race every second under a burst."""

    name: ClassVar[str] = "soak"

    parts: tuple[Pattern, ...]

    @classmethod
    def of(cls, profile: str, *given: Mapping[str, Any]) -> SideBySide:
        """A race every second, or as many rounds as are given, under a burst."""
        burst = Burst.of(profile, *given)
        assert burst.duration is not None
        if burst.pause < SHORT_PAUSE:
            raise UsageError(
                f"A soak needs a pause of at least {SHORT_PAUSE:g} s, to know its tickets beforehand.",
                next_step=f"give --pause {SHORT_PAUSE:g}",
            )
        rounds = next((g["rounds"] for g in reversed(given) if g.get("rounds")), max(int(burst.duration), 1))
        race = Race(min(burst.clients, _RACERS), rounds, pace=burst.duration / rounds)
        return cls((burst, race))

    @property
    def clients(self) -> int:  # type: ignore[override]
        """Those of all its parts."""
        return sum(part.clients for part in self.parts)

    @property
    def seconds(self) -> float | None:
        return self.parts[0].seconds

    def plan_values(self) -> dict[str, Any]:
        return {"parts": [{"pattern": part.name} | part.plan_values() for part in self.parts]}

    def words(self) -> list[str]:
        race = self.parts[-1]
        rounds = ["--rounds", str(race.rounds)] if isinstance(race, Race) else []
        return ["--profile", "soak", *self.parts[0].option_words(), *rounds]

    def overlap(self, client: int) -> bool:
        part, place = self._part(client)
        return part.overlap(place)

    def waits(self, client: int) -> Waits:
        part, place = self._part(client)
        return part.waits(place)

    def _part(self, client: int) -> tuple[Pattern, int]:
        for part in self.parts:
            if client < part.clients:
                return part, client
            client -= part.clients
        raise IndexError(client)

    def fresh_keys(self, rate: float | None) -> int | None:
        """Known without a rate: a burst in here has calls or a pause."""
        needed = [part.fresh_keys(rate) for part in self.parts]
        return None if None in needed else sum(n for n in needed if n is not None)

    def expected(self, contract: Contract) -> frozenset[str]:
        return frozenset().union(*(part.expected(contract) for part in self.parts))

    def prepare(self, crew: Crew, clients: Sequence[Client], keys: Keys) -> Jobs:
        jobs_of: dict[int, Jobs] = {}
        fresh, first = iter(keys.fresh), 0
        for part in self.parts:
            mine = clients[first : first + part.clients]
            share = list(itertools.islice(fresh, part.fresh_keys(None)))
            jobs = part.prepare(crew, mine, Keys(share))
            jobs_of.update((client.number, jobs) for client in mine)
            first += part.clients
        return lambda client: jobs_of[client.number](client)
