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
    """Process id of the run; empty where it may be of several."""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}, of a run that has ended" + (f" (process {self.pid})" if self.pid else "")


def create_database(connection: psycopg.Connection[Any], command: sql.Composed, name: str) -> None:
    """Have the command make a database, and write down who made it. Raises psycopg.Error.

    Both are sent at once: the server goes on with CREATE DATABASE when its client is killed, and would not be told
    whose the database is.
    """
    mark = sql.SQL(_SQL["mark_database"]).format(sql.Identifier(name), _owner())
    if not psycopg.Pipeline.is_supported():
        connection.execute(command)
        connection.execute(mark)
        return
    with connection.pipeline():
        connection.execute(command)
        connection.execute(mark)


def create_login(connection: psycopg.Connection[Any], command: sql.Composed, name: str) -> None:
    """Have the command make a login role, and write down who made it, or neither. Raises psycopg.Error."""
    with connection.transaction():
        connection.execute(command)
        connection.execute(sql.SQL(_SQL["mark_login"]).format(sql.Identifier(name), _owner()))


def _owner() -> sql.Literal:
    return sql.Literal(_MARK + json.dumps(remains.owner()))


def on_server(connection: psycopg.Connection[Any]) -> Iterator[Leftover]:
    """What dead runs have left on a server: databases first, since roles may own or use them."""
    for kind, name, comment in connection.execute(_SQL["marked"], [_MARK]).fetchall():
        with suppress(ValueError):
            owner = json.loads(str(comment).removeprefix(_MARK))
            if isinstance(owner, dict) and remains.dead(owner):
                yield Leftover(str(kind), str(name), str(owner["pid"]))


def platform_roles(connection: psycopg.Connection[Any]) -> Iterator[Leftover]:
    """The platform's roles that runs have created, where no run uses them, on whatever machine: each holds a lock."""
    alone = connection.execute(_SQL["alone_with_roles"]).fetchone()
    if alone is not None and alone[0]:
        for (name,) in connection.execute(_SQL["marked_roles"]).fetchall():
            yield Leftover("role", str(name), "")


def drop(connection: psycopg.Connection[Any], leftover: Leftover) -> None:
    """Raises psycopg.Error where the role may not, or something depends on one of the platform's roles."""
    if leftover.kind == "database":
        drop_database(connection, leftover.name)
        return
    if leftover.pid:  # a login; the platform's roles somebody may use by now
        with suppress(psycopg.Error):  # what it was granted in this database, where that is possible
            connection.execute(sql.SQL(_SQL["drop_owned"]).format(sql.Identifier(leftover.name)))
    connection.execute(sql.SQL(_SQL["drop_login"]).format(sql.Identifier(leftover.name)))


def drop_database(connection: psycopg.Connection[Any], name: str) -> None:
    """Drop it, whoever is connected. Raises psycopg.Error."""
    try:
        connection.execute(sql.SQL(_SQL["drop_database"]).format(sql.Identifier(name)))
    except psycopg.errors.InsufficientPrivilege:
        connection.execute(_SQL["own_sessions_in"], [name])
        connection.execute(sql.SQL(_SQL["drop_database_without_force"]).format(sql.Identifier(name)))
