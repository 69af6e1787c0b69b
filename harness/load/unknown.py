"""Unknown: what is answered where there is no such key."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from harness.contracts.contract import Contract
from harness.load.crew import Client, Crew
from harness.load.firing import JobOrWait, Jobs, clock
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
class Unknown(Pattern):
    """Keys that were never created: every call must be told so."""

    name: ClassVar[str] = "unknown"
    profiles: ClassVar[frozenset[str]] = frozenset({"quick"})

    clients: int = clients_setting()
    calls: int = setting(10, POSITIVE_INT, "calls per client", lifts="limit")
    limit: float | None = limit_setting()
    overtime: float | None = overtime_setting()

    @property
    def unknown_keys(self) -> int:
        return self.clients * self.calls

    def expected(self, contract: Contract) -> frozenset[str]:
        return frozenset({contract.missing})

    def prepare(self, crew: Crew, clients: Sequence[Client], keys: Keys) -> Jobs:
        variants = len(crew.contract.variants)
        (target,) = targets_of(clients)
        encoded = [target.encode_key(key) for key in keys.unknown]

        def jobs(client: Client) -> Generator[JobOrWait, None, None]:
            mine = encoded[client.number * self.calls : (client.number + 1) * self.calls]
            for number, key in enumerate(mine):
                if number and self.limit is not None and clock() > crew.started + int(self.limit * 1e9):
                    return
                yield 0, key, number % variants, 0

        return jobs
