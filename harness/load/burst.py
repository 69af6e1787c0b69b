"""Burst: how fast is it, when nobody wants the same key."""

from __future__ import annotations

import itertools
import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from harness.contracts.contract import Contract
from harness.errors import UsageError
from harness.history import NEVER
from harness.load.crew import Client, Crew
from harness.load.firing import JobOrWait, Jobs, Wait, clock
from harness.load.pattern import Keys, Pattern, clients_setting, overtime_setting, register, setting, targets_of
from harness.options import NOT_NEGATIVE, POSITIVE, POSITIVE_INT

CALIBRATION_CALLS = 30
"""Calls per client before a burst by duration, to learn how many fresh keys it may use up."""

KEYS_MARGIN = 2.0
"""Fresh keys made per key that the calibrated rate would use up."""

SHORT_PAUSE = 0.01
"""Seconds from which on it is the pause that says how many calls can come, and not how long they take."""


@register
@dataclass(frozen=True, slots=True)
class Burst(Pattern):
    """Distinct keys in a closed loop: a client calls again when its answer is there, after a pause."""

    name: ClassVar[str] = "burst"
    profiles: ClassVar[frozenset[str]] = frozenset({"quick", "seed"})

    clients: int = clients_setting(soak=50)
    duration: float | None = setting(None, POSITIVE, "seconds", quick=3.0, seed=60.0, soak=600.0)
    """Seconds; the last calls may end later."""
    calls: int | None = setting(None, POSITIVE_INT, "calls per client", instead_of="duration", lifts="overtime")
    """Calls per client; one of `duration` and `calls` is given."""
    pause: float = setting(0.0, NOT_NEGATIVE, "seconds after each call", seed=0.1, soak=0.1)
    """Seconds after each call."""
    overtime: float | None = overtime_setting()
    longest: float | None = None
    """Seconds after which no call is begun, however many are left."""
    phase: int = 0
    """Phase its calls belong to; `WARM_UP` keeps them out of the metrics."""

    def __post_init__(self) -> None:
        Pattern.__post_init__(self)
        if (self.duration is None) == (self.calls is None):
            raise UsageError("A burst takes a duration or a number of calls, one of both.")

    @property
    def seconds(self) -> float | None:
        return self.duration

    def fresh_keys(self, rate: float | None) -> int | None:
        if self.calls is not None:
            return self.clients * self.calls
        assert self.duration is not None
        # Even calls that take no time cannot come faster than the pause lets them.
        most = self.clients * (math.ceil(self.duration / self.pause) + 1) if self.pause else None
        if most is not None and self.pause >= SHORT_PAUSE:
            return most
        if rate is None:
            return None
        wanted = math.ceil(rate * self.duration * KEYS_MARGIN) + self.clients
        return wanted if most is None else min(wanted, most)

    def expected(self, contract: Contract) -> frozenset[str]:
        return frozenset({contract.accepted})

    def prepare(self, crew: Crew, clients: Sequence[Client], keys: Keys) -> Jobs:
        variants = list(range(len(crew.contract.variants)))
        (target,) = targets_of(clients)
        shared = iter([target.encode_key(key) for key in keys.fresh])

        def jobs(client: Client) -> Generator[JobOrWait, None, None]:
            # next() on a list iterator is one step under the interpreter's lock: clients draw without a lock of ours.
            seconds = self.duration if self.longest is None else self.longest
            deadline = NEVER if seconds is None else crew.started + int(seconds * 1e9)
            phase, pause = self.phase, Wait(self.pause) if self.pause else None
            turn = client.number % len(variants)
            for variant in itertools.islice(itertools.cycle(variants[turn:] + variants[:turn]), self.calls):
                if clock() >= deadline:
                    return  # and of calls that are slow, the first alone tells the rate
                key = next(shared, None)
                if key is None:
                    return
                yield 0, key, variant, phase
                if pause:
                    yield pause

        return jobs
