"""Drawn functions as contracts, on fresh keys: explored with looking ahead and choice by choice, all ends the same.

Nothing is put back between schedules there, so what is drawn looks at its own key's rows alone: statements that look at
whole tables are drawn again. What keys share all the same is what they lock: a total, a row that is referred to.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from harness import Contract, Effect, Function, UpTo
from harness.environment.servers import connect
from harness.schedules import Plan, explore
from harness.schedules.carried import Carried
from harness.schedules.judging import Judge
from harness.schedules.relaying import Relay, Relays
from tests.generated import Case, Drawn

KEYS = """
CREATE TABLE total (n integer); INSERT INTO total VALUES (0);
INSERT INTO a VALUES (1, 0), (2, 0); INSERT INTO b VALUES (1, 1, 0), (2, 1, 0); INSERT INTO c VALUES (1, 0), (2, 0);
CREATE SEQUENCE keys START 100 INCREMENT 100;
CREATE FUNCTION new_keys(count integer) RETURNS SETOF integer LANGUAGE sql
SET session_replication_role = replica AS $$
    WITH made AS (SELECT nextval('keys')::integer AS id FROM generate_series(1, count)),
         of_a AS (INSERT INTO a SELECT id, 1 FROM made), of_b AS (INSERT INTO b SELECT id, id, 1 FROM made),
         of_c AS (INSERT INTO c SELECT id, 11 FROM made)
    SELECT id FROM made $$;
"""
"""A hundred numbers for each key, in which what a function adds to its own stays. They are made without triggers."""

STATE = """
SELECT concat((SELECT array_agg((id - key, n) ORDER BY id) FROM a WHERE id / 100 = key / 100),
              (SELECT array_agg((id - key, a %% 100, n) ORDER BY id) FROM b WHERE id / 100 = key / 100),
              (SELECT array_agg((id - key, n) ORDER BY id) FROM c WHERE id / 100 = key / 100))
  FROM unnest(%s::integer[]) AS key
"""

CONTRACT = Contract(
    name="drawn",
    function=Function(
        "f0", key="p", statement="SELECT answer, answer IS NOT NULL AS ok FROM f0(:p::integer) AS answer",
        deciding=frozenset({"ok"}),
    ),
    new_keys="new_keys",
    labels={"accepted": Effect.APPLIED, "refused": Effect.REFUSED},
    classify=lambda row: "accepted" if row["ok"] else "refused",
    model=UpTo(4),
)  # fmt: skip

_WHOLE = re.compile(
    r"sum\(|count\(|max\(|plain\(|nextval|setval|last_value|LIMIT 1|FOR r IN|WHERE n = 2|SET n = n \+ 1;"
)

_RACED = "which of two that are woken at once goes first is the server's choice, and may be the same 40 times"

Endings = dict[str, object]
"""By a schedule's text: what each call was answered and when, and the rows that its keys are left with."""


class Keyed(Drawn):
    """Draws what looks at the rows of `p` alone, though it may lock others."""

    def key(self) -> str:
        return "p"

    def statement(self, depth: int) -> str:
        while _WHOLE.search(text := super().statement(depth)):
            pass
        return text

    def simple(self) -> str:
        if self.random.random() < 0.05:
            return "UPDATE total SET n = total.n + 1;"
        while _WHOLE.search(text := super().simple()):
            pass
        return text

    def helper(self, name: str) -> None:
        super().helper(name)
        while _WHOLE.search(self.setup[-1]):
            del self.setup[-1], self.helpers[-1]
            super().helper(name)

    def check(self) -> None:
        """Would look at a whole table."""

    def default(self) -> None:
        """Would look at a whole table, or at a sequence."""


def drawn(seed: int | str, most: tuple[int, ...] = (1, 2, 2, 3)) -> Case:
    """The case of a seed."""
    case = Keyed(random.Random(seed), most).case(str(seed))
    case.setup[:1] = [case.setup[0].replace(" UNIQUE", ""), KEYS]
    return case


@dataclass
class Compared:
    """What a case showed."""

    case: Case
    ahead: Endings
    alone: Endings
    begun_ahead: int
    """Relays that were begun behind another."""

    @property
    def differing(self) -> dict[str, tuple[object, object]]:
        """The schedules that end otherwise."""
        texts = {**self.ahead, **self.alone}
        both = {text: (self.ahead.get(text), self.alone.get(text)) for text in texts}
        return {
            text: (one, other) for text, (one, other) in both.items() if one != other and _RACED not in (one, other)
        }


class KeyedComparer:
    """Explores cases in one database."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.connection = connect(dsn)
        self.connection.execute("SET client_min_messages = error; SET synchronous_commit = off")

    def compared(self, case: Case, *, calls: int = 2, most: int = 400) -> Compared | None:
        """None where there are more schedules than `most` on one key or on two."""
        alone = self._explored(case, Plan(calls, reduction=False, relays=False, max_schedules=most))
        if alone is None:
            return None
        ahead = self._explored(case, Plan(calls, reduction=False, max_schedules=most))
        return Compared(case, ahead[0] if ahead else {}, alone[0], ahead[1]["ahead"] if ahead else 0)

    def _explored(self, case: Case, plan: Plan) -> tuple[Endings, Counter[str]] | None:
        for part in case.setup:
            self.connection.execute(part.encode())
        found: Endings = {}
        seen: Counter[str] = Counter()
        take, begin = Judge.take, Relays.begin

        def noted(judge: Judge, carried: Carried) -> None:
            calls = [(o.outcome.label, o.outcome.code, o.answer, o.called, o.returned) for o in carried.operations]
            keys = list(dict.fromkeys(o.key for o in carried.operations))
            state = self.connection.execute(STATE, [keys]).fetchall()
            found[carried.replay] = _RACED if any(event.races for event in carried.events) else (calls, state)
            take(judge, carried)

        def begun(relays: Relays, programs: Any, order: Any, behind: Relay | None = None) -> Relay | None:
            made = begin(relays, programs, order, behind)
            seen["ahead"] += behind is not None and made is not None
            return made

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(Judge, "take", noted)
            patched.setattr(Relays, "begin", begun)
            explored = explore(self.dsn, CONTRACT, plan)
        return (found, seen) if all(each.exhausted for each in explored.cases) else None

    def close(self) -> None:
        self.connection.close()


@contextmanager
def comparer(server_dsn: str, name: str = "keyed") -> Iterator[KeyedComparer]:
    """A database for comparing on a server."""
    with connect(server_dsn) as admin:
        admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
        admin.execute(f"CREATE DATABASE {name}".encode())
        made = KeyedComparer(psycopg.conninfo.make_conninfo(server_dsn, dbname=name))
        try:
            yield made
        finally:
            made.close()
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
