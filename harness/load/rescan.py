"""Rescan: what is answered once a key is used up."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from harness.contracts.contract import Contract
from harness.history import NEVER
from harness.load.crew import Client, Crew
from harness.load.firing import TOGETHER, JobOrWait, Jobs, Waits, clock
from harness.load.pattern import (
    Keys,
    Pattern,
    clients_setting,
    limit_setting,
    overtime_setting,
    register,
    setting,
    targets_of,
)
from harness.options import POSITIVE_INT


@register
@dataclass(frozen=True, slots=True)
class Rescan(Pattern):
    """Every key is used up, then called again by another client, who must be told the true winner."""

    name: ClassVar[str] = "rescan"
    profiles: ClassVar[frozenset[str]] = frozenset({"quick"})

    clients: int = clients_setting()
    calls: int = setting(10, POSITIVE_INT, "calls per client", lifts="limit")
    """Keys per client."""
    limit: float | None = limit_setting()
    overtime: float | None = overtime_setting()

    def fresh_keys(self, rate: float | None) -> int:
        return self.clients * self.calls

    def waits(self, client: int) -> Waits:
        return Waits.OTHERS

    def expected(self, contract: Contract) -> frozenset[str]:
        return frozenset({contract.accepted, contract.repeated})

    def prepare(self, crew: Crew, clients: Sequence[Client], keys: Keys) -> Jobs:
        variants = len(crew.contract.variants)
        (target,) = targets_of(clients)
        encoded = [target.encode_key(key) for key in keys.fresh]

        def jobs(client: Client) -> Generator[JobOrWait, None, None]:
            each = NEVER if self.limit is None else int(self.limit * 1e9 / (crew.contract.capacity + 1))
            for phase in range(crew.contract.capacity + 1):
                # The same keys in every pass, each time from the next client.
                whose = (client.number + phase) % self.clients
                for number, key in enumerate(encoded[whose * self.calls : (whose + 1) * self.calls]):
                    if number and clock() > crew.started + each * (phase + 1):
                        break
                    yield 0, key, number % variants, phase
                yield TOGETHER

        return jobs
