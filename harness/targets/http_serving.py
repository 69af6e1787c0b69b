"""A scratch database served by a PostgREST of its own, with what the harness itself calls there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql

from harness.contracts.contract import Contract
from harness.environment.database import Database
from harness.environment.own import is_loss
from harness.environment.postgrest import DEFAULT_IMAGE, DEFAULT_POOL, PostgREST, Token, open_postgrest
from harness.environment.servers import Server, connect
from harness.errors import HarnessError, UsageError
from harness.sqltext import queries
from harness.targets.description import ROW, CallDescription, Typed, describe, split_name
from harness.targets.http import OVERLAP_SUFFIX, HttpTarget


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """How PostgREST is served beside a server."""

    postgrest: str | None = None
    """The binary to run; None: the container beside a container server, else the fetched one, PATH, node_modules."""
    image: str = DEFAULT_IMAGE
    pool: int = DEFAULT_POOL
    """PostgREST's connections to the database."""
    pool_timeout: float = 10.0
    """Seconds that a request waits for one of them."""


def open_http(server: Server, database: Database, contract: Contract, options: HttpOptions) -> HttpTarget:
    """Serve a scratch database by a PostgREST of its own, and probe it by one call; closing the target ends it.

    The roles of Supabase must be there (`SupabaseRoles`). Raises HarnessError when there is no PostgREST to be had, it
    does not become ready, or it does not expose the function, and UsageError for an identity that no token can say.
    """
    check_identity(contract)
    postgrest = open_postgrest(
        server,
        database,
        choice=options.postgrest,
        image=options.image,
        pool=options.pool,
        pool_timeout=options.pool_timeout,
    )
    # Before the start: PostgREST reads the schema once.
    description = _install(database.dsn, contract)
    postgrest.start()
    try:
        target = HttpTarget(
            postgrest.url,
            postgrest.token(),
            contract,
            rollback=True,
            overlap=True,
            postgrest=postgrest,
            description=description,
            token_of=None if contract.identity is None else lambda client: _token_of(contract, postgrest, client),
        )
        target.probe()
    except BaseException:
        postgrest.stop()
        raise
    return target


_SUPABASE = frozenset({"anon", "authenticated", "service_role"})


def check_identity(contract: Contract) -> None:
    """Raises UsageError where calls are to be made in a way that no token can say."""
    identity = contract.identity_of(0)
    if identity is None or (identity.isolation is None and not identity.settings):
        return
    what = "isolation level" if identity.isolation is not None else f"setting {next(iter(identity.settings))}"
    raise UsageError(
        f"PostgREST gives a call no {what}: a token says the role and its claims.",
        tried=f"calls as {identity}",
        next_step=f"ALTER ROLE {identity.role or 'service_role'} SET ... in a migration, which PostgREST applies, "
        "or leave --http out",
    )


def _token_of(contract: Contract, postgrest: PostgREST, client: int) -> Token:
    """The token that makes a client's calls those of the contract's identity."""
    identity = contract.identity_of(client)
    assert identity is not None
    role = identity.role or "service_role"
    if role not in _SUPABASE:
        postgrest.let_take(role)
    return postgrest.token(role, identity.claims)


def _install(dsn: str, contract: Contract) -> CallDescription:
    """Create `http_own.sql` in a scratch database; the description of the call there."""
    function = contract.function
    with connect(dsn) as connection:
        description = describe(connection, contract, function)
        if description.oid is None or description.procedure:
            return description
        columns = list(dict.fromkeys((*description.labels, *description.evidence)))
        of = [sql.SQL("g.") + sql.Identifier(c.name) for c in columns]
        query = sql.SQL(queries.text("harness.targets", "overlap.sql")).format(
            found=sql.SQL(", ").join(
                sql.SQL("f.") + sql.Identifier(name) for name in (ROW, *(c.name for c in columns))
            ),
            columns=sql.SQL(", ").join(of),
            call=sql.SQL(description.call),
            names=sql.SQL("({})").format(sql.SQL(", ").join(sql.Identifier(name) for name in description.columns)),
        )
        try:
            connection.execute(
                sql.SQL(queries.text("harness.targets", "http_own.sql")).format(
                    overlap=sql.Identifier(split_name(function.name)[1] + OVERLAP_SUFFIX),
                    parameters=_declared(description.parameters),
                    columns=_declared(columns),
                    body=sql.Literal(query.as_string(connection)),
                )
            )
        except psycopg.Error as error:
            if is_loss(error):
                raise
            raise HarnessError(
                f"The function {function.name} is not as the contract expects it.",
                tried=f"a call of {function}: {' '.join(str(error).split())} (SQLSTATE {error.sqlstate})",
                next_step="check --migrations, or give the contract that the function follows with --contract",
            ) from error
    return description


def _declared(entries: Sequence[Typed]) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(e.name) + sql.SQL(f" {e.kind.name}") for e in entries)
