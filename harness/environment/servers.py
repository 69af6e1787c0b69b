"""Servers: a container, embedded binaries or an external DSN, with one face.

A server is a context manager with `dsn` (its maintenance database), `version` and `describe()`. Durability is never
switched off: a latency measured without fsync and synchronous_commit is no evidence.
"""

from __future__ import annotations

import math
import os
import re
import resource
import secrets
import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from harness.environment import leftovers
from harness.environment.description import ServerDescription as ServerDescription
from harness.environment.own import CONNECT_TIMEOUT, Connection, dsn_parameters
from harness.environment.pulse import Pulse
from harness.errors import HarnessError, too_few_files
from harness.signals import heed, uninterrupted
from harness.sqltext import queries

MAX_CONNECTIONS = 300
"""max_connections of the servers that are booted here; an external server has its own."""

DEADLOCK_TIMEOUT = "50ms"
"""deadlock_timeout of the same: at the default of a second, a hundred rounds that end in deadlocks take minutes."""

OLDEST = 13
"""Oldest supported major version: the first with DROP DATABASE ... WITH (FORCE)."""

_SETTINGS = (
    "deadlock_timeout",
    "default_transaction_isolation",
    "fsync",
    "full_page_writes",
    "max_connections",
    "shared_buffers",
    "synchronous_commit",
    "wal_sync_method",
)


class Server(ABC):
    """A running Postgres. Leaving the context ends what was started and nothing else."""

    kind: str
    why: str = "asked for"

    def __init__(self) -> None:
        self.token = f"harness-{secrets.token_hex(8)}"
        """Its `cluster_name`, where it is started here: how it is known to be that one."""
        self.call_timeout = 10.0
        """Seconds that a call may take: a server that is silent for longer than that, within reason, is given up."""
        self._pulse: Pulse | None = None

    @property
    @abstractmethod
    def dsn(self) -> str:
        """Connection URI or conninfo of the maintenance database, for a role that may create databases."""

    @abstractmethod
    def start(self) -> None:
        """Boot it, or see that it answers. Raises HarnessError."""

    @abstractmethod
    def stop(self) -> None:
        """End it and remove what it left; nothing where it was never started."""

    def run_beside(self, backend: int, number: int) -> None:  # noqa: B027 - most cannot
        """Let a backend run beside those of other numbers, and not after them, where its process can be told so.

        What decides a race is what runs at the same instant. Elsewhere the system's scheduler decides alone.
        """

    def together(self, number: int) -> Callable[[int], None] | None:
        """What lets backends, by their process ids, run on one processor, which has that number; None: nothing can.

        Sessions that take turns hand the turn on in a quarter of the time then.
        """
        return None

    def verify(self, connection: psycopg.Connection[Any]) -> None:
        """That the server at the other end is the one that was started here, before anything is written to it.

        Raises HarnessError.
        """
        found = connection.execute("SELECT current_setting('cluster_name')").fetchone()
        if found != (self.token,):
            raise HarnessError(
                f"Another server than the one that was started answers at {address(self.dsn)}.",
                tried=f"cluster_name, which is {found and found[0]!r} there and was set to {self.token!r} here",
                next_step="nothing was written to it; please report this, with the output of `env | grep ^PG`",
            )

    @property
    def version(self) -> str:
        """`server_version` without the packager's suffix, such as `17.2`."""
        return self.describe().version

    def describe(self) -> ServerDescription:
        """What it is and how it is set, as a record keeps it. Raises HarnessError where it does not answer."""
        with connect(self.dsn) as connection:
            rows = connection.execute(
                queries.own("harness.environment")["settings"],
                [list(_SETTINGS)],
            ).fetchall()
        settings = {str(name): str(value) for name, value in rows}
        version = settings.pop("server_version").split()[0]
        return ServerDescription(self.kind, version, self.why, address(self.dsn), settings, os.cpu_count() or 1)

    def __enter__(self) -> Self:
        heed()  # one that came while modules were imported, whose locks have weak references
        try:
            self.start()
            self._pulse = Pulse(self.dsn, self.call_timeout)
            self._pulse.start()
        except BaseException:
            with uninterrupted():
                self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with uninterrupted():
            if self._pulse is not None:
                self._pulse.stop()
            self.stop()


class ExternalServer(Server):
    """A server that somebody else runs. Only scratch databases are created there, and dropped again."""

    kind = "external"

    def __init__(self, dsn: str, database: str | None = None) -> None:
        """`database`: the one that is given, NAME or NAME.SCHEMA; then no other is created there."""
        super().__init__()
        # SQLAlchemy's spelling of the same address is taken too.
        self._dsn = dsn.replace("postgresql+psycopg://", "postgresql://", 1)
        self.database = database

    @property
    def dsn(self) -> str:
        return self._dsn

    def start(self) -> None:
        try:
            conninfo_to_dict(self._dsn)
        except psycopg.ProgrammingError as error:
            raise HarnessError(
                "The server's DSN cannot be read.",
                tried=re.sub('".*?"', '"..."', " ".join(str(error).split())),  # what it quotes may be a password
                next_step="give postgresql://user:password@host:port/database, or auto, container or embedded",
            ) from error
        if self.database is not None:
            self._dsn = make_conninfo(self._dsn, dbname=self.database.partition(".")[0])
        with connect(self._dsn) as connection:
            if connection.info.server_version < OLDEST * 10000:
                raise HarnessError(
                    f"The server is PostgreSQL {connection.info.parameter_status('server_version')}.",
                    next_step=f"use version {OLDEST} or newer",
                )
            row = connection.execute(queries.own("harness.environment")["may_create_databases"]).fetchone()
            self._refuse_pooler(connection)
            left = sum(1 for _ in leftovers.on_server(connection))
            if left:
                self.why += f"; {left} left here by runs that were killed: see `harness clean --server`"
        if self.database is None and (row is None or not row[1]):
            role = row[0] if row else "?"
            raise HarnessError(
                f"The role {role!r} may not create databases on {address(self._dsn)}.",
                tried="rolcreatedb and rolsuper in pg_roles",
                next_step=f'ALTER ROLE "{role}" CREATEDB, or give the DSN of a role that has it, or an empty database '
                "to work in: --database NAME",
            )

    def _refuse_pooler(self, connection: psycopg.Connection[Any]) -> None:
        """A pooler in transaction mode gives each transaction whatever backend is free: no session is one's own.

        While somebody else holds the backend that answered last, it must give another. Raises HarnessError.
        """
        backend = queries.own("harness.environment")["backend"]
        before = connection.execute(backend).fetchone()
        with connect(self._dsn, autocommit=False) as other:
            other.execute(backend)
            after = connection.execute(backend).fetchone()
        if before != after:
            raise HarnessError(
                f"{address(self._dsn)} is a connection pooler in transaction mode.",
                tried="pg_backend_pid() twice in one session: it was answered by two backends",
                next_step="give the DSN of the server itself (the direct port: 5432 and not 6543 at Supabase), or the "
                "pooler's session mode",
            )

    def stop(self) -> None:
        """Nothing to stop: it is not ours."""


def connect(dsn: str, *, autocommit: bool = True, seconds: float = CONNECT_TIMEOUT) -> Connection:
    """One connection, within so many seconds. Raises HarnessError with the server's words, never with a password."""
    try:
        return Connection.connect(dsn, autocommit=autocommit, connect_timeout=math.ceil(seconds))
    except psycopg.Error as error:
        if (most := _files_short()) is not None:  # libpq has no words for it
            raise too_few_files(f"another connection to {address(dsn)}; `ulimit -n` is {most}") from error
        told = " ".join(str(error).split())
        next_step = "check that the server runs and that host, port, user, password and database are right"
        if "too many connections" in told or "connection slots" in told:
            next_step = (
                "give the role, the database or the server more connections (CONNECTION LIMIT, max_connections), "
            )
            next_step += "or give fewer --clients, or a pool with --pool-size"
        if "permission denied for database" in told:
            next_step = "GRANT CONNECT to the role, and take out of the migrations what revokes it"
        raise HarnessError(f"No connection to {address(dsn)}.", tried=told, next_step=next_step) from error


_FOR_A_CONNECTION = 4
"""Files that may be open at once while one is made."""


def _files_short() -> int | None:
    """How many files this process may open, where hardly any is left."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    try:
        used = len(list(Path("/dev/fd").iterdir()))
    except OSError:
        used = most
    return most if used > most - _FOR_A_CONNECTION else None


def free_connections(connection: psycopg.Connection[Any]) -> tuple[int, int]:
    """How many more clients may connect now, and how many in all: the server, the role and the database have limits."""
    row = connection.execute(queries.own("harness.environment")["free_connections"]).fetchone()
    assert row is not None
    return row[0], row[1]


def address(dsn: str) -> str:
    """The DSN as it may be shown: without its password."""
    try:
        parts = dsn_parameters(conninfo_to_dict(dsn))
    except psycopg.ProgrammingError:
        return "an unreadable DSN"
    return make_conninfo("", **{k: v for k, v in parts.items() if k not in ("password", "sslpassword", "passfile")})


def command_line(words: Sequence[str]) -> str:
    """A command as it may be shown and stored: the DSNs in it without their passwords."""
    return shlex.join(without_password(word) for word in words)


def without_password(word: str) -> str:
    """A word of a command; one that is a DSN, or an option with one, without its password."""
    flag, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    if "://" not in value and "password" not in value:
        return word
    return f"{flag}{equals}{address(value.replace('postgresql+psycopg://', 'postgresql://', 1))}"
