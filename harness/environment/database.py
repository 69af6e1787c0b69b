"""Scratch databases: a template that holds migrations and seed, and a clone of it for each run.

Runs share nothing, and what the template costs is paid once.
"""

from __future__ import annotations

import itertools
import os
import secrets
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from harness.environment import migrations as files
from harness.environment.own import Connection
from harness.environment.servers import Server, connect
from harness.errors import HarnessError
from harness.signals import uninterrupted
from harness.sqltext import queries
from harness.sqltext.scripts import Script

_SQL = queries.own("harness.environment")


@dataclass(frozen=True, slots=True)
class Database:
    """A scratch database; leaving the context drops it, whoever is still connected."""

    dsn: str
    name: str
    _maintenance: str

    def engine(self) -> Any:
        """A SQLAlchemy engine on this database, without a pool of its own."""
        from sqlalchemy import create_engine
        from sqlalchemy.pool import NullPool

        return create_engine("postgresql+psycopg://", creator=lambda: Connection.connect(self.dsn), poolclass=NullPool)

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        """An autocommit connection. Raises HarnessError when the server is gone."""
        return connect(self.dsn)

    def clone(self, name: str) -> Database:
        """A database of that name with everything that this one has, to which nobody may be connected meanwhile."""
        command = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        with connect(self._maintenance) as connection:
            connection.execute(command.format(sql.Identifier(name), sql.Identifier(self.name)))
        parts = conninfo_to_dict(self.dsn)
        return Database(make_conninfo("", **{**parts, "dbname": name}), name, self._maintenance)

    def drop(self) -> None:
        with connect(self._maintenance) as connection:
            connection.execute(_drop(self.name))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # A server that is gone has taken the database with it, or out of reach; the run itself says so.
        with uninterrupted(), suppress(HarnessError, psycopg.OperationalError):
            self.drop()


def _drop(name: str) -> sql.Composed:
    return sql.SQL(_SQL["drop_database"]).format(sql.Identifier(name))


_KEPT = 8
"""Databases of runs that are over, kept until there are more."""


class Template:
    """The database that runs are cloned from: migrations, then seed, each file in one transaction."""

    def __init__(
        self, server: Server, migrations: Sequence[Path], seeds: Sequence[Path], *, server_goes: bool = False
    ) -> None:
        """Nothing is created yet. `server_goes`: the server is thrown away right after, so nothing needs dropping.

        Raises HarnessError when a path is missing or a folder is empty.
        """
        self._server = server
        self._server_goes = server_goes
        self.migrations: tuple[Script, ...] = files.find(migrations, "migrations", "--migrations")
        self.seeds: tuple[Script, ...] = files.find(seeds, "seed", "--seed")
        self._prefix = f"harness_{os.getpid()}_{secrets.token_hex(6)}"
        self._numbers = itertools.count(1)
        self._made: Future[Database] | None = None
        self._finished: list[Database] = []
        self._tidying: threading.Thread | None = None

    @property
    def _database(self) -> Database:
        return self._named(f"{self._prefix}_template")

    def clone(self) -> Database:
        """A fresh database with everything that the template holds."""
        made, self._made = self._made, None
        if made is None or made.exception() is not None:
            return self._clone()  # and what went wrong on the thread is said now, if it still does
        return made.result()

    @contextmanager
    def lent(self) -> Iterator[Database]:
        """A clone for one run.

        On a server that is thrown away it is dropped later, in `tidy`: a drop is a checkpoint, and takes its time.
        """
        with ExitStack() as stack:
            database = self.clone()
            if self._server_goes:
                stack.callback(self._finished.append, database)
            else:
                stack.enter_context(database)
            yield database

    def tidy(self) -> None:
        """Make the next clone, drop old ones, on a thread: called while the server has little to do."""
        if self._made is None:
            self._made = made = Future[Database]()
            self._tidying = threading.Thread(target=self._tidy, args=(made,), name="tidy", daemon=True)
            self._tidying.start()

    def _tidy(self, made: Future[Database]) -> None:
        try:
            while len(self._finished) > _KEPT:
                self._finished.pop(0).drop()
            made.set_result(self._clone())
        except BaseException as error:
            made.set_exception(error)

    def _clone(self) -> Database:
        database = self._named(f"{self._prefix}_{next(self._numbers)}")
        self._create(database, self._database.name)
        return database

    def _create(self, database: Database, template: str) -> None:
        command = sql.SQL(_SQL["create_database"])
        with connect(self._server.dsn) as connection:
            try:
                connection.execute(command.format(sql.Identifier(database.name), sql.Identifier(template)))
            except psycopg.Error as error:
                raise HarnessError(
                    "No scratch database can be created on the server.",
                    tried=f"CREATE DATABASE: {' '.join(str(error).split())} (SQLSTATE {error.sqlstate or 'none'})",
                    next_step="give the DSN of a server, and a role, that can create one",
                ) from error

    def __enter__(self) -> Self:
        try:
            self._create(self._database, "template0")
            with self._database.connect() as connection:
                for script in (*self.migrations, *self.seeds):
                    files.apply(connection, script)
                    # As if each had its own: pg_dump, for one, empties the search_path and leaves it so.
                    connection.execute("DISCARD ALL")
            self.tidy()  # the first run's, too, is made while something else is done
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._server_goes:
            return
        with uninterrupted(), suppress(HarnessError, psycopg.OperationalError), connect(self._server.dsn) as connection:
            if self._tidying is not None:
                self._tidying.join()  # else a clone might appear after the others are gone
            # Clones, too: Ctrl-C may come when one is made and its own context not yet entered.
            names = connection.execute(_SQL["databases_of_a_template"], [f"{self._prefix}_"]).fetchall()
            for (name,) in names:
                connection.execute(_drop(str(name)))

    def _named(self, name: str) -> Database:
        dsn = self._server.dsn
        parts = conninfo_to_dict(dsn)
        return Database(make_conninfo("", **{**parts, "dbname": name}), name, dsn)
