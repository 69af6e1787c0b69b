"""Patterns: what is called when. Each is a plan (a frozen value) and the generator of one client's jobs.

Nothing of the harness writes to the tables while calls are in flight: fresh keys are made before the start, because a
foreign-key check alone can make a lone NOWAIT caller busy.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Generator, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from harness.contracts.contract import FAILED, IN_DOUBT, Contract, Effect, Outcome
from harness.errors import UsageError
from harness.load.firing import TOGETHER, Client, Crew, Job, Jobs, Step, Wait, Waits, clock
from harness.targets.target import Target

CALIBRATION_CALLS = 30
"""Calls per client before a burst by duration, to learn how many fresh keys it may use up."""

KEYS_MARGIN = 1.6
"""Fresh keys made per key that the calibrated rate would use up."""

SHORT_PAUSE = 0.01
"""Seconds from which on it is the pause that says how many calls can come, and not how long they take."""

_NEVER = 2**62
"""A clock reading that does not come."""

LATE = 0.01
"""Seconds after its due time from which an arrival counts as not started in time."""


class Keys:
    """The keys of one run: fresh ones, encoded once, and some that were never created."""

    def __init__(self, fresh: Sequence[Hashable], unknown: Sequence[Hashable] = ()) -> None:
        self.fresh = fresh
        self.unknown = unknown


class Pattern(Protocol):
    """A plan. `prepare` runs once, in the main thread, before the start; the jobs on the thread that fires them."""

    name: ClassVar[str]

    @property
    def clients(self) -> int: ...

    def overlap(self, client: int) -> bool:
        """Whether this client's calls are timed on the server, too."""
        ...

    def waits(self, client: int) -> Waits:
        """What this client's jobs wait for."""
        ...

    def fresh_keys(self, rate: float | None) -> int | None:
        """How many fresh keys the plan needs; None: not known without a calibrated `rate` in calls/s."""
        ...

    @property
    def unknown_keys(self) -> int: ...

    def expected(self, contract: Contract) -> frozenset[str]:
        """The labels that a call of this pattern should end with."""
        ...

    def prepare(self, crew: Crew, clients: Sequence[Client], keys: Keys) -> Jobs: ...


def _targets(clients: Sequence[Client]) -> tuple[Target, ...]:
    return tuple({client.target.name: client.target for client in clients}.values())


def _positive(**numbers: float | None) -> None:
    for name, number in numbers.items():
        if number is not None and not number > 0:
            raise UsageError(f"{name} is {number}; it must be more than 0.", next_step=f"give another --{name}")


@dataclass(frozen=True, slots=True)
class Burst:
    """Distinct keys, closed loop: each client calls again as soon as its answer is there, after `pause` seconds."""

    name: ClassVar[str] = "burst"
    unknown_keys: ClassVar[int] = 0

    clients: int = 10
    duration: float | None = None
    """Seconds; the last calls may end later."""
    calls: int | None = None
    """Calls per client; one of `duration` and `calls` is given."""
    pause: float = 0.0
    """Seconds after each call."""
    phase: int = 0
    """Phase its calls belong to; `WARM_UP` keeps them out of the metrics."""

    def __post_init__(self) -> None:
        _positive(clients=self.clients, duration=self.duration, calls=self.calls)
        if self.pause < 0:
            raise UsageError(f"pause is {self.pause}; it must be 0 or more.", next_step="give another --pause")
        if (self.duration is None) == (self.calls is None):
            raise UsageError("A burst takes a duration or a number of calls, one of both.")

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

    def overlap(self, client: int) -> bool:
        return False

    def waits(self, client: int) -> Waits:
        return Waits.NOTHING

    def expected(self, contract: Contract) -> frozenset[str]:
        return frozenset({contract.accepted})

    def prepare(self, crew: Crew, clients: Sequence[Client], keys: Keys) -> Jobs:
        variants = list(range(len(crew.contract.variants)))
        (target,) = _targets(clients)
        shared = iter([target.encode_key(key) for key in keys.fresh])

        def jobs(client: Client) -> Generator[Step, None, None]:
            # next() on a list iterator is one step under the interpreter's lock: clients draw without a lock of ours.
            deadline = _NEVER if self.duration is None else crew.started + int(self.duration * 1e9)
            phase, pause = self.phase, Wait(self.pause) if self.pause else None
            turn = client.number % len(variants)
            for variant in itertools.islice(itertools.cycle(variants[turn:] + variants[:turn]), self.calls):
                if clock() >= deadline:
                    return
                key = next(shared, None)
                if key is None:
                    return
                yield 0, key, variant, phase
                if pause:
                    yield pause

        return jobs


@dataclass(frozen=True, slots=True)
class Round:
    """One release of a race: who calls which of its keys with which argument variant.

    In a held round the first caller goes ahead, and its transaction stays open, then commits or rolls back, while the
    others call. After a commit the last of several comes late: however fast the others were refused, somebody has to
    be told who was first.
    """

    callers: tuple[int, ...]
    keys: tuple[int, ...]
    """For each caller, which of the round's keys it calls."""
    variant: int
    hold: str | None = None
    """None, `commit` or `rollback`."""

    @property
    def distinct_keys(self) -> int:
        return max(self.keys) + 1

    @property
    def late(self) -> int | None:
        """Who calls when the held transaction has ended and all others have their answers."""
        return self.callers[-1] if self.hold == "commit" and len(self.callers) > 2 else None


# What decides whether a race shows: how many callers, on how many keys, and whether one stays inside for a while. Some
# bugs never show with ten plain callers and always with two. (callers or None for all, keys, hold)
_KINDS: tuple[tuple[int | None, int, str | None], ...] = (
    (None, 1, None),
    (2, 1, None),
    (None, 1, None),
    (2, 1, "commit"),
    (3, 1, None),
    (None, 2, None),
    (None, 1, None),
    (2, 1, "rollback"),
    (None, 1, "commit"),
    (None, 3, None),
    (None, 1, None),
    (None, 1, "rollback"),
)


@dataclass(frozen=True, slots=True)
class Race:
    """Many rounds; in each, callers are released together on one fresh key (or a few of one event)."""

    name: ClassVar[str] = "race"
    unknown_keys: ClassVar[int] = 0

    clients: int = 10
    rounds: int = 100
    hold: float = 0.02
    """Longest time, in seconds, that a held round's first transaction stays open for the others."""
    mixed: bool = True
    """Vary the rounds; False: every client on one key in every round, and nothing held."""
    pace: float = 0.0
    """Seconds between two rounds."""

    def __post_init__(self) -> None:
        _positive(clients=self.clients, rounds=self.rounds)
        if self.clients < 2:
            raise UsageError("A race takes at least 2 clients.", next_step="give another --clients")

    def plan(self, variants: int) -> tuple[Round, ...]:
        """The rounds, the same every time. Each variant meets each kind of round."""
        kinds = _KINDS if self.mixed else _KINDS[:1]
        rounds = []
        for number in range(self.rounds):
            wanted, keys, hold = kinds[number % len(kinds)]
            size = min(wanted or self.clients, self.clients)
            # Turn the clients round, so that small rounds are not always the same two.
            callers = tuple((number + place) % self.clients for place in range(size))
            distinct = min(keys, size // 2)
            variant = (number % len(kinds) + number // len(kinds)) % variants
            rounds.append(Round(callers, tuple(place % distinct for place in range(size)), variant, hold))
        return tuple(rounds)

    def fresh_keys(self, rate: float | None) -> int:
        return sum(r.distinct_keys for r in self.plan(1))

    def overlap(self, client: int) -> bool:
        return True

    def waits(self, client: int) -> Waits:
        return Waits.OTHERS

    def expected(self, contract: Contract) -> frozenset[str]:
        return frozenset(contract.labels) - {contract.missing}

    def prepare(self, crew: Crew, clients: Sequence[Client], keys: Keys) -> Jobs:
        rounds = self.plan(len(crew.contract.variants))
        places = {client.number: place for place, client in enumerate(clients)}
        fresh = iter(keys.fresh)
        encoded: list[dict[str, list[Any]]] = []
        for each in rounds:
            mine = list(itertools.islice(fresh, each.distinct_keys))
            encoded.append({t.name: [t.encode_key(k) for k in mine] for t in _targets(clients)})

        def jobs(client: Client) -> Generator[Step, None, None]:
            me = places[client.number]
            for number, each in enumerate(rounds):
                if self.pace:
                    # Whoever is asked first waits; no call is in flight now.
                    crew.stopped.wait(crew.started / 1e9 + number * self.pace - clock() / 1e9)
                first, late = me == each.callers[0], me == each.late
                if each.hold is not None and not first:
                    yield TOGETHER  # the first has its answer
                    if late:
                        yield TOGETHER  # the others have theirs, and the first has committed
                if me in each.callers:
                    key = encoded[number][client.target.name][each.keys[each.callers.index(me)]]
                    job = (0, key, each.variant, number + 1)
                    if each.hold is not None and first:
                        yield from self._held(client, job, commit=each.hold == "commit")
                    else:
                        yield job
                if each.late is not None and not late:
                    yield TOGETHER
                yield TOGETHER

        return jobs

    def _held(self, client: Client, job: Job, *, commit: bool) -> Generator[Step, None, None]:
        caller, log = client.opened, client.log
        before = log.last(client.number)
        client.since = clock()  # like a call, it may have to be cancelled
        opened = caller.begin()
        client.since = 0
        committed = True
        try:
            yield job
            yield TOGETHER
            if opened:
                yield Wait(self.hold, early=True)  # while the others call
        finally:
            # Also when the run was stopped meanwhile.
            at = log.last(client.number)
            if opened and at is not None and at != before:
                committed = _ended(client, at, commit=commit)
        if not committed:
            # The winner went away: the ticket must be scannable, or scanned by one of the others.
            yield job


def _ended(client: Client, at: int, *, commit: bool) -> bool:
    """End a held transaction, and say of its call, written down at that position, what became of it."""
    log = client.log
    client.since = clock()
    ended = client.opened.end(commit=commit)
    client.since = 0
    if ended is None:
        log.outcomes[at] = Outcome(IN_DOUBT, Effect.IN_DOUBT, "connection_lost", "lost while held open")
    elif not ended and log.outcomes[at].effect is Effect.APPLIED:
        log.outcomes[at] = Outcome(FAILED, Effect.FAILED, "commit_failed", "COMMIT ended in a rollback")
    committed = bool(ended) and commit
    log.amend(at, clock(), rolled_back=not committed)
    return committed


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Open loop: calls are due at times that do not wait for answers, at `rate` per second.

    Latency counts from the due time, so that a server that stands still cannot hide behind clients that wait for it
    (coordinated omission; Tene, "How NOT to Measure Latency", 2013).
    """

    name: ClassVar[str] = "arrivals"
    unknown_keys: ClassVar[int] = 0

    clients: int = 10
    rate: float = 100.0
    """Calls per second of all clients together."""
    duration: float = 3.0
    distribution: str = "poisson"
    """`poisson` or `constant`."""
    duplicates: float = 0.0
    """Share of calls that repeat a key that was due before."""
    seed: int = 1

    def __post_init__(self) -> None:
        _positive(clients=self.clients, rate=self.rate, duration=self.duration)
        if self.distribution not in ("poisson", "constant"):
            raise UsageError(f"There is no distribution {self.distribution!r}.", next_step="poisson or constant")
        if not 0 <= self.duplicates < 1:
            raise UsageError(f"duplicates is {self.duplicates}; it is a share from 0 to below 1.")

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

    def overlap(self, client: int) -> bool:
        return False

    def waits(self, client: int) -> Waits:
        return Waits.CLOCK

    def expected(self, contract: Contract) -> frozenset[str]:
        if self.duplicates:
            return frozenset(contract.labels) - {contract.missing}
        return frozenset({contract.accepted})

    def prepare(self, crew: Crew, clients: Sequence[Client], keys: Keys) -> Jobs:
        variants = len(crew.contract.variants)
        (target,) = _targets(clients)
        encoded = [target.encode_key(key) for key in keys.fresh]
        shared = iter([(int(due * 1e9), encoded[key], at % variants) for at, (due, key) in enumerate(self.schedule())])

        def jobs(client: Client) -> Generator[Step, None, None]:  # noqa: ARG001
            for due, key, variant in shared:
                due_at = crew.started + due
                ahead = due_at - clock()
                if ahead > 0:
                    crew.stopped.wait(ahead / 1e9)
                yield due_at, key, variant, 0

        return jobs


@dataclass(frozen=True, slots=True)
class Rescan:
    """Every key is used up by one client, then called again by another, which must be told the true winner."""

    name: ClassVar[str] = "rescan"
    unknown_keys: ClassVar[int] = 0

    clients: int = 10
    calls: int = 10
    """Keys per client."""

    def __post_init__(self) -> None:
        _positive(clients=self.clients, calls=self.calls)

    def fresh_keys(self, rate: float | None) -> int:
        return self.clients * self.calls

    def overlap(self, client: int) -> bool:
        return False

    def waits(self, client: int) -> Waits:
        return Waits.OTHERS

    def expected(self, contract: Contract) -> frozenset[str]:
        return frozenset({contract.accepted, contract.repeated})

    def prepare(self, crew: Crew, clients: Sequence[Client], keys: Keys) -> Jobs:
        variants = len(crew.contract.variants)
        (target,) = _targets(clients)
        encoded = [target.encode_key(key) for key in keys.fresh]

        def jobs(client: Client) -> Generator[Step, None, None]:
            for phase in range(crew.contract.capacity + 1):
                # The same keys in every pass, each time from the next client.
                whose = (client.number + phase) % self.clients
                for number, key in enumerate(encoded[whose * self.calls : (whose + 1) * self.calls]):
                    yield 0, key, number % variants, phase
                yield TOGETHER

        return jobs


@dataclass(frozen=True, slots=True)
class Unknown:
    """Keys that were never created: every call must be told so."""

    name: ClassVar[str] = "unknown"

    clients: int = 10
    calls: int = 10

    def __post_init__(self) -> None:
        _positive(clients=self.clients, calls=self.calls)

    @property
    def unknown_keys(self) -> int:
        return self.clients * self.calls

    def fresh_keys(self, rate: float | None) -> int:
        return 0

    def overlap(self, client: int) -> bool:
        return False

    def waits(self, client: int) -> Waits:
        return Waits.NOTHING

    def expected(self, contract: Contract) -> frozenset[str]:
        return frozenset({contract.missing})

    def prepare(self, crew: Crew, clients: Sequence[Client], keys: Keys) -> Jobs:
        variants = len(crew.contract.variants)
        (target,) = _targets(clients)
        encoded = [target.encode_key(key) for key in keys.unknown]

        def jobs(client: Client) -> Generator[Step, None, None]:
            mine = encoded[client.number * self.calls : (client.number + 1) * self.calls]
            for number, key in enumerate(mine):
                yield 0, key, number % variants, 0

        return jobs


@dataclass(frozen=True, slots=True)
class Together:
    """Patterns side by side, each with its own clients and keys: a race every second under a burst."""

    name: ClassVar[str] = "soak"

    parts: tuple[Burst | Race, ...]

    @property
    def clients(self) -> int:
        return sum(part.clients for part in self.parts)

    @property
    def unknown_keys(self) -> int:
        return 0

    def overlap(self, client: int) -> bool:
        part, place = self._part(client)
        return part.overlap(place)

    def waits(self, client: int) -> Waits:
        part, place = self._part(client)
        return part.waits(place)

    def _part(self, client: int) -> tuple[Burst | Race, int]:
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
