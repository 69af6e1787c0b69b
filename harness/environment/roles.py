"""The roles of Supabase on a server, for as long as somebody uses them.

Roles belong to the whole server: only what is missing is created, under a lock, and what was created is dropped at the
end by the last one who leaves.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg import sql

from harness.environment.own import is_loss
from harness.environment.servers import Server, address, connect
from harness.errors import HarnessError
from harness.signals import uninterrupted
from harness.sqltext import queries

_SQL = queries.own("harness.environment")


class SupabaseRoles:
    """anon, authenticated, service_role and the platform's others on a server, for as long as the context lasts.

    Enter it before the migrations are applied and leave it after the scratch databases are dropped. Runs that share a
    server hold a shared advisory lock; the last to leave drops the roles that runs have created.
    """

    def __init__(self, server: Server, *, create: bool = True) -> None:
        """Without `create` none is created, and unless `made` is told of one, none dropped."""
        self._dsn = server.dsn
        self._create = create
        self._connection: psycopg.Connection[Any] | None = None

    def names(self) -> set[str]:
        """Every role of the server."""
        assert self._connection is not None
        return {str(row[0]) for row in self._connection.execute(_SQL["roles"]).fetchall()}

    def made(self, names: Iterable[str]) -> None:
        """Mark roles that a migration created, so that they go with the others."""
        assert self._connection is not None
        for name in names:
            self._create = True
            with suppress(psycopg.errors.UndefinedObject, psycopg.errors.InsufficientPrivilege):
                self._connection.execute(sql.SQL(_SQL["mark_role"]).format(sql.Identifier(name)))

    def __enter__(self) -> Self:
        self._connection = connect(self._dsn)
        try:
            self._connection.execute(_SQL["use_roles"])
            if self._create:
                self._connection.execute(queries.text("harness.environment", "supabase_roles.sql"))
        except psycopg.Error as error:
            self._connection.close()
            if is_loss(error):
                raise
            raise HarnessError(
                f"The roles of Supabase cannot be created on {address(self._dsn)}.",
                tried=f"CREATE ROLE for those of anon, authenticated, service_role, authenticator and the platform's "
                f"others that are missing: {error.diag.message_primary or error} (SQLSTATE {error.sqlstate})",
                next_step="ALTER ROLE ... CREATEROLE for the role in the DSN, or have the roles created",
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._connection is None:
            return
        with uninterrupted(), suppress(psycopg.Error):  # a server that is gone has taken its roles with it
            self._connection.execute(_SQL["leave_roles"])
            alone = self._connection.execute(_SQL["alone_with_roles"]).fetchone()
            if self._create and alone is not None and alone[0]:
                self._connection.execute(queries.text("harness.environment", "supabase_roles_drop.sql"))
        self._connection.close()

    def close(self) -> None:
        """Leave without dropping anything: the server goes away, and the roles with it."""
        if self._connection is not None:
            self._connection.close()
