"""A race: the sessions are released together, round after round, and the server shows that they met."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

from harness.checking.orders import SerialOrders
from harness.checking.world import World
from harness.environment.restore import Baseline
from harness.errors import HarnessError
from harness.scenarios.acting import Driver
from harness.scenarios.telling import Result
from harness.sqltext import queries
from harness.verdict.findings import Truth, pluralize

ROUNDS = 30
"""Rounds of a race in which the server shows that sessions met; then it has had its chance."""

MOST_ROUNDS = 200
SECONDS = 3.0
"""Of rounds that did not meet, so many, or for so long, are tried."""

MOST_LOST = 5
"""Rounds that the environment may spoil."""

_GATES = ("", "SHARE", "", "EXCLUSIVE")
"""By turns, how a round's sessions are held up at once: SHARE stops whoever writes, EXCLUSIVE also who locks rows."""

_GATE_SECONDS = 0.1


class _Gate:
    """A lock on tables, held until every session that has not ended waits for it, or for another session.

    It delays sessions and does nothing else to them, so that whatever they do could have happened without it; and while
    it is held, the server says that they are under way at the same time.
    """

    def __init__(self, connection: psycopg.Connection[Any], tables: Sequence[sql.Identifier], mode: str) -> None:
        self._connection = connection
        self._until = time.monotonic() + _GATE_SECONDS
        self.waited = 0
        """How many waited at once."""
        lock = sql.SQL("BEGIN; LOCK TABLE {} IN {} MODE").format(sql.SQL(", ").join(tables), sql.SQL(mode))
        connection.execute(lock.as_bytes(connection), prepare=False)

    def __call__(self, running: Sequence[int]) -> bool:
        row = self._connection.execute(queries.own("harness.scenarios", "checks.sql")["waiting"], [running]).fetchone()
        assert row is not None
        self.waited = max(self.waited, row[0])
        if row[0] < len(running) and time.monotonic() < self._until:
            return False
        self.open()
        return True

    def open(self) -> None:
        """Let them go on."""
        if self._connection.info.transaction_status != TransactionStatus.IDLE:
            self._connection.execute("COMMIT")


class Race:
    """The race of one scenario's sessions."""

    def __init__(self, world: World, orders: SerialOrders, judged: Callable[..., Result]) -> None:
        """`judged` judges what is in the database when a round is over."""
        self.world = world
        self.orders = orders
        self.judged = judged
        self.rounds = self.met = 0
        self.random = random.Random(16)  # noqa: S311 - pauses between sessions

    def run(self) -> None:
        """Make rounds until enough of them met or the time is up; ten are enough where one is broken."""
        driver = self.world.driver()
        until = time.monotonic() + SECONDS
        broken_since = 0
        lost = 0
        while self.met < ROUNDS and self.rounds < MOST_ROUNDS and time.monotonic() < until:
            result = self._round(driver)
            if result is None:
                lost += 1
                if lost > MOST_LOST:
                    raise HarnessError(
                        f"In {lost} rounds a session's connection was lost.",
                        tried=f"{self.rounds} more, in which none was",
                        next_step="see in the server's log what ended them",
                    )
                continue
            self.rounds += 1
            broken_since += result.judgement.truth is Truth.BROKEN
            if broken_since and self.rounds >= 10:
                break
        if lost:
            self.world.note(f"not judged: {pluralize(lost, 'round')} in which a session's connection was lost")

    def _round(self, driver: Driver) -> Result | None:
        """One round; by turns all at once, a little apart, and held up by a lock on the tables till all wait for it.

        None where the environment took a session's connection: what that left is nobody's result.
        """
        assert self.world.baseline is not None
        self.world.baseline.restore()
        for actor in self.world.actors:
            actor.begin()
        order = list(range(len(self.world.actors)))
        self.random.shuffle(order)
        plays = [(self.world.actors[place], self.world.actors[place].play()) for place in order]
        mode = _GATES[self.rounds % len(_GATES)]
        gate = self._gate(mode) if mode else None
        if gate is not None:
            try:
                driver.drive(plays, gate=gate)
            finally:
                gate.open()
        else:
            apart = 0.0 if self.rounds % 4 == 0 else self.random.choice((5e-5, 2e-4, 1e-3))
            driver.drive(plays, [self.random.uniform(0, apart) for _ in order])
        if any(map(self.world.lost, self.world.actors)):
            for actor in self.world.actors:
                actor.end()
            return None
        self.met += (gate is not None and gate.waited > 1) or self._overlapped(driver, order)
        answers = {(place, -1): tuple(actor.answers) for place, actor in enumerate(self.world.actors)}
        hung = {(order[at], -1): whom for at, whom in driver.hung.items()}
        used_up = frozenset((place, -1) for place, actor in enumerate(self.world.actors) if actor.used_up)
        self.world.retried[f"round {self.rounds}"] = sum(actor.repeated for actor in self.world.actors)
        for actor in self.world.actors:
            actor.end()
        return self.judged(answers, "race", hung=hung, used_up=used_up)

    def _gate(self, mode: str) -> _Gate | None:
        """A lock on the tables that the sessions write; None where there is none, or it cannot be had."""
        if not isinstance(self.world.baseline, Baseline):
            return None
        written = frozenset().union(*self.orders.writes.values())
        tables = [
            table.quoted for table in self.world.baseline.tables if not self.orders.writes or table.name in written
        ]
        return _Gate(self.world.control, tables, mode) if tables else None

    def _overlapped(self, driver: Driver, order: Sequence[int]) -> bool:
        """Whether two sessions were under way at the same time, for which there are two proofs.

        Each had its first answer before the other's last statement was sent; or, by the server's clock, each one's last
        statement began before the other's ended.
        """
        pids = {self.world.actors[place].pgconn.backend_pid: at for at, place in enumerate(order)
                if not self.world.actors[place].lost}  # fmt: skip
        query = queries.own("harness.scenarios", "checks.sql")["last_statements"]
        rows = self.world.control.execute(query, [list(pids)]).fetchall()
        spans = {pids[pid]: (began, ended) for pid, began, ended in rows if began is not None and ended is not None}
        for one, other in itertools.combinations(range(len(order)), 2):
            first, last = driver.first_answer, driver.last_sent
            if one in first and other in first and first[one] < last[other] and first[other] < last[one]:
                return True
            if one in spans and other in spans and spans[one][0] < spans[other][1] and spans[other][0] < spans[one][1]:
                return True
        return False
