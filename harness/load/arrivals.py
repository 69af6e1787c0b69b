"""Arrivals: how long people wait who come when they come."""

from __future__ import annotations

import random
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from harness.contracts.contract import Contract
from harness.load.crew import Client, Crew
from harness.load.firing import JobOrWait, Jobs, Waits, clock
from harness.load.pattern import Keys, Pattern, clients_setting, register, setting, targets_of
from harness.options import POSITIVE, SHARE, one_of


@register
@dataclass(frozen=True, slots=True)
class Arrivals(Pattern):
    """Open loop: calls are due at a rate, at times that do not wait for answers.

    Latency counts from the due time, so that a server that stands still cannot hide behind clients that wait for it
    (coordinated omission; Tene, "How NOT to Measure Latency", 2013).
    """

    name: ClassVar[str] = "arrivals"

    clients: int = clients_setting()
    rate: float = setting(100.0, POSITIVE, "calls per second")
    """Calls per second of all clients together."""
    duration: float = setting(3.0, POSITIVE, "seconds")
    distribution: str = setting("poisson", one_of("poisson", "constant", metavar="DISTRIBUTION"), "when they come")
    """`poisson` or `constant`."""
    duplicates: float = setting(0.0, SHARE, "share of the calls that repeat a key")
    """Share of calls that repeat a key that was due before."""
    seed: int = 1

    @property
    def seconds(self) -> float:
        return self.duration

    def schedule(self) -> tuple[tuple[float, int], ...]:
        """(seconds after the start, number of its key) of every call, the same for the same seed."""
        choose = random.Random(self.seed)  # noqa: S311 - a repeatable plan, not a secret
        due, fresh = 0.0, 0
        found: list[tuple[float, int]] = []
        while True:
            due += choose.expovariate(self.rate) if self.distribution == "poisson" else 1 / self.rate
            if due >= self.duration:
                return tuple(found)
            if fresh and choose.random() < self.duplicates:
                found.append((due, choose.randrange(fresh)))
            else:
                found.append((due, fresh))
                fresh += 1

    def fresh_keys(self, rate: float | None) -> int:
        return len({key for _, key in self.schedule()})

    def waits(self, client: int) -> Waits:
        return Waits.CLOCK

    def expected(self, contract: Contract) -> frozenset[str]:
        if self.duplicates:
            return contract.of_fresh_keys
        return frozenset({contract.accepted})

    def prepare(self, crew: Crew, clients: Sequence[Client], keys: Keys) -> Jobs:
        variants = len(crew.contract.variants)
        (target,) = targets_of(clients)
        encoded = [target.encode_key(key) for key in keys.fresh]
        shared = iter([(int(due * 1e9), encoded[key], at % variants) for at, (due, key) in enumerate(self.schedule())])

        def jobs(client: Client) -> Generator[JobOrWait, None, None]:  # noqa: ARG001
            for due, key, variant in shared:
                due_at = crew.started + due
                ahead = due_at - clock()
                if ahead > 0:
                    crew.stopped.wait(ahead / 1e9)
                yield due_at, key, variant, 0

        return jobs
