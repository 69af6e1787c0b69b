"""Race: what becomes of callers who want the same key at the same time."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from harness.contracts.contract import FAILED, IN_DOUBT, Contract, Effect, Outcome
from harness.errors import UsageError
from harness.history import NEVER, WARM_UP
from harness.load.crew import Client, Crew
from harness.load.firing import TOGETHER, Job, JobOrWait, Jobs, Wait, Waits, clock
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

EVIDENCE = 40
"""Rounds of the profile seed: the original load test makes one, which proves next to nothing."""

PROOF = 10
"""Rounds in which a call failed that are proof enough: in a race with a limit no more are made."""


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
        """How many keys the round's callers call."""
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


@register
@dataclass(frozen=True, slots=True)
class Race(Pattern):
    """Rounds in which callers are released together on one fresh key, or a few of one event."""

    name: ClassVar[str] = "race"
    profiles: ClassVar[frozenset[str]] = frozenset({"quick", "seed"})

    clients: int = clients_setting()
    rounds: int = setting(100, POSITIVE_INT, "rounds", lifts="limit", seed=EVIDENCE)
    limit: float | None = limit_setting(quick=4.0)
    overtime: float | None = overtime_setting()
    hold: float = 0.02
    """Longest time, in seconds, that a held round's first transaction stays open for the others."""
    mixed: bool = setting(True, seed=False)
    """Vary the rounds; False: every client on one key in every round, and nothing held."""
    pace: float = 0.0
    """Seconds between two rounds."""

    def __post_init__(self) -> None:
        Pattern.__post_init__(self)
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
        return contract.of_fresh_keys

    def prepare(self, crew: Crew, clients: Sequence[Client], keys: Keys) -> Jobs:
        rounds = self.plan(len(crew.contract.variants))
        places = {client.number: place for place, client in enumerate(clients)}
        fresh = iter(keys.fresh)
        encoded: list[dict[str, list[Any]]] = []
        for each in rounds:
            mine = list(itertools.islice(fresh, each.distinct_keys))
            encoded.append({t.name: [t.encode_key(k) for k in mine] for t in targets_of(clients)})

        over: dict[int, bool] = {}

        def jobs(client: Client) -> Generator[JobOrWait, None, None]:
            me = places[client.number]
            deadline = NEVER if self.limit is None else crew.started + int(self.limit * 1e9)
            for number, each in enumerate(rounds):
                # Decided once for a round, by whoever is asked first: all take part in it, or none.
                if over.setdefault(number, number > 0 and (clock() > deadline or self.proved(crew))):
                    return
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

    def proved(self, crew: Crew) -> bool:
        """Whether calls have failed in so many rounds that more would add nothing but their time."""
        if self.limit is None:
            return False
        rounds = set[int]()
        for log in crew.logs:
            rounds.update(
                phase for phase, o in zip(log.phases, log.outcomes, strict=False) if o.effect is Effect.FAILED
            )
        return len(rounds - {WARM_UP}) >= PROOF

    def _held(self, client: Client, job: Job, *, commit: bool) -> Generator[JobOrWait, None, None]:
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
