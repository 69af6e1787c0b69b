"""Databases and login roles on somebody's server that a run made and could not drop: it was killed, or the server was.

Each has a comment that says which process made it. What belongs to a living run, or to one on another machine, is never
touched.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from harness.environment import remains
from harness.sqltext import queries

_SQL = queries.own("harness.environment")
_MARK = "pg-concurrency-harness: "


@dataclass(frozen=True, slots=True)
class Leftover:
    """One thing that a dead run made."""

    kind: str
    """`database`, `role`, `container` or `folder`, or the `contents` of a database."""
    name: str
    pid: str
    """Process id of the run."""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}, of a run that has ended (process {self.pid})"


def mark_database(connection: psycopg.Connection[Any], name: str) -> None:
    """Write down who made a database."""
    _mark(connection, "mark_database", name)


def mark_login(connection: psycopg.Connection[Any], name: str) -> None:
    """Write down who made a login role."""
    _mark(connection, "mark_login", name)


def _mark(connection: psycopg.Connection[Any], query: str, name: str) -> None:
    text = sql.Literal(_MARK + json.dumps(remains.owner()))
    connection.execute(sql.SQL(_SQL[query]).format(sql.Identifier(name), text))


def on_server(connection: psycopg.Connection[Any]) -> Iterator[Leftover]:
    """What dead runs have left on a server: databases first, since roles may own or use them."""
    for kind, name, comment in connection.execute(_SQL["marked"], [_MARK]).fetchall():
        with suppress(ValueError):
            owner = json.loads(str(comment).removeprefix(_MARK))
            if isinstance(owner, dict) and remains.dead(owner):
                yield Leftover(str(kind), str(name), str(owner["pid"]))


def drop(connection: psycopg.Connection[Any], leftover: Leftover) -> None:
    """Raises psycopg.Error where the role may not."""
    if leftover.kind == "role":
        with suppress(psycopg.Error):  # what it was granted in this database, where that is possible
            connection.execute(sql.SQL(_SQL["drop_owned"]).format(sql.Identifier(leftover.name)))
        connection.execute(sql.SQL(_SQL["drop_login"]).format(sql.Identifier(leftover.name)))
        return
    drop_database(connection, leftover.name)


def drop_database(connection: psycopg.Connection[Any], name: str) -> None:
    """Drop it, whoever is connected. Raises psycopg.Error."""
    try:
        connection.execute(sql.SQL(_SQL["drop_database"]).format(sql.Identifier(name)))
    except psycopg.errors.InsufficientPrivilege:
        connection.execute(_SQL["own_sessions_in"], [name])
        connection.execute(sql.SQL(_SQL["drop_database_without_force"]).format(sql.Identifier(name)))
