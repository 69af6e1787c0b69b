"""As whom something runs: a role, its JWT claims, an isolation level, session settings; and the SQL that applies them.

A call or a transaction is made as PostgREST would make it: after BEGIN, the role's own settings, the role, and
`request.jwt.claims`, each for this transaction only. All of it by SET LOCAL, never by a SELECT (set_config is one): a
SELECT takes the snapshot of a repeatable read transaction before its first own statement, and forbids SET TRANSACTION
after it.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError, UsageError
from harness.options import ISOLATION_LEVELS
from harness.sqltext.queries import own, text

if TYPE_CHECKING:
    import psycopg

CLAIMS = "request.jwt.claims"
"""The setting in which PostgREST puts a caller's claims, as JSON."""

_NAME = re.compile(r"[A-Za-z_][\w$]*(\.[A-Za-z_][\w$]*)*")
"""A setting's name, as `SET` takes it."""

_LISTS = frozenset({"search_path", "temp_tablespaces"})
"""Settings that are lists of names: each name is given to SET by itself, or the whole list is taken for one name."""

_SESSIONS_END = 2.0
"""Seconds to wait for the sessions of a run to end."""

_LISTED = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([^,"\s]+))\s*(?:,|$)')


@dataclass(frozen=True, slots=True)
class Identity:
    """As whom, and how, a transaction runs. What is None or empty is left as the connection has it."""

    role: str | None = None
    """A role of the server, as `authenticated`; None: whoever is connected, the owner of the scratch database."""
    claims: Mapping[str, Any] | None = field(default=None, hash=False)
    """The JWT's claims, as `{"sub": "..."}`; `role` is added, as a token that chooses a role must have it."""
    isolation: str | None = None
    """One of `ISOLATION_LEVELS`; None: the role's own default_transaction_isolation, else the connection's."""
    settings: Mapping[str, str] = field(default_factory=dict, hash=False)
    """More settings by name, as `{"lock_timeout": "1s"}`; they beat the role's own."""

    def __post_init__(self) -> None:
        """Raises UsageError for an isolation level, a role, claims or a setting that cannot be one."""
        if self.isolation is not None and self.isolation not in ISOLATION_LEVELS:
            raise UsageError(
                f"There is no isolation level {self.isolation!r}.",
                next_step=f"give one of {', '.join(ISOLATION_LEVELS)}",
            )
        if self.role is not None and (not self.role or self.role.lower() == "none" or "\0" in self.role):
            raise UsageError(f"{self.role!r} is not a role's name.", next_step="give the name of a role of the server")
        for name in self.settings:
            if not _NAME.fullmatch(name):
                raise UsageError(f"{name!r} is not a setting's name.", next_step="give name=value, as lock_timeout=1s")
        if self.claims is not None:
            try:
                self._claims_text()
            except (TypeError, ValueError) as error:
                raise UsageError(
                    "The JWT claims cannot be written as JSON.", tried=str(error), next_step="use plain JSON values"
                ) from error

    @classmethod
    def read(cls, words: str, *, isolation: str | None = None, settings: Mapping[str, str] | None = None) -> Identity:
        """The identity that `ROLE {JWT claims}` names, as `as:` and --run-as spell it; the claims may be left out.

        Raises UsageError for a text that is not so.
        """
        role, brace, rest = words.strip().partition("{")
        role = role.strip()
        claims = None
        wrong = "is neither a role nor a role and claims"
        next_step = (
            'write ROLE, or ROLE {JWT claims}, as: authenticated {"sub": "00000000-0000-0000-0000-00000000000a"}'
        )
        if len(role) > 1 and role[0] == role[-1] == '"':
            role = role[1:-1].replace('""', '"')
        elif not role or re.search(r"[\s\"',;]", role):
            raise UsageError(f"{words!r} {wrong}.", next_step=next_step)
        if brace:
            try:
                claims = json.loads(brace + rest)
            except ValueError as error:
                raise UsageError(
                    f"The claims of {words!r} are no JSON.", tried=str(error), next_step=next_step
                ) from error
        return cls(role, claims, isolation, dict(settings or {}))

    def __str__(self) -> str:
        """As a report names it: `authenticated {"sub": "a"}, repeatable read, lock_timeout=1s`."""
        who = self.role or "the owner"
        claims = "" if self.claims is None else f" {json.dumps(self.claims)}"
        more = [] if self.isolation is None else [self.isolation]
        return ", ".join([f"{who}{claims}", *more, *(f"{name}={value}" for name, value in self.settings.items())])

    def statements(self, connection: psycopg.Connection[Any]) -> IdentityStatements:
        """The SQL that applies it in the database of a connection, whose sessions are to run as it.

        The catalogue is asked once, here; the statements are good for every session of the same user there. Raises
        HarnessError for a role that is not there or may not be taken.
        """
        stored, bypasses = ([], _bypasses(connection)) if self.role is None else self._own_settings(connection)
        isolation = self.isolation
        wanted: dict[str, tuple[str, str]] = {}
        left_out = []
        for name, value, allowed in stored:
            if name.lower() == "default_transaction_isolation":
                isolation = isolation or value  # SET LOCAL would come too late for this transaction
            elif allowed:
                wanted[name.lower()] = (name, value)
            else:
                left_out.append(name)
        wanted |= {name.lower(): (name, value) for name, value in self.settings.items()}
        claims = self._claims_text()
        # The role comes last but for the claims: what a superuser may set, the role may not.
        assignments = [f"{_quoted_name(n)} = {_quoted_value(n, v, connection)}" for n, v in wanted.values()]
        names = [_quoted_name(n) for n, _ in wanted.values()]
        if self.role is not None:
            assignments.append(f"role = {_literal(self.role, connection)}")
            names.append("role")
        if claims is not None:
            assignments.append(f"{CLAIMS} = {_literal(claims, connection)}")
            names.append(CLAIMS)
        by_default = [] if isolation is None else [f"default_transaction_isolation = {_literal(isolation, connection)}"]
        self._try(assignments, connection)
        return IdentityStatements(
            isolation=isolation,
            for_transaction=tuple(f"SET LOCAL {assignment}" for assignment in assignments),
            for_session=tuple(f"SET {assignment}" for assignment in [*by_default, *assignments]),
            # In reverse: what a superuser may set, the role may not reset.
            undone=tuple(
                f"RESET {n}" for n in [*reversed(names), *["default_transaction_isolation"] * len(by_default)]
            ),
            bypasses_policies=bypasses,
            left_out=tuple(left_out),
        )

    def _try(self, assignments: Sequence[str], connection: psycopg.Connection[Any]) -> None:
        """Have the server take the settings once, so that a wrong one is said before anything runs."""
        import psycopg

        from harness.environment.own import is_loss

        local = "; ".join(f"SET LOCAL {assignment}" for assignment in assignments)
        try:
            with connection.transaction(force_rollback=True):
                if local:
                    connection.execute(local.encode(), prepare=False)
        except psycopg.Error as error:
            if is_loss(error):
                raise
            raise HarnessError(
                f"The server does not let anything run as {self}.",
                tried=f"{local}\n    {' '.join(str(error).split())} (SQLSTATE {error.sqlstate})",
                next_step="give a setting that it knows, with a value that it takes",
            ) from error

    def _own_settings(self, connection: psycopg.Connection[Any]) -> tuple[list[tuple[str, str, bool]], bool]:
        row = connection.execute(text("harness.environment", "identity.sql"), {"role": self.role}).fetchone()
        if row is None:
            raise HarnessError(
                f"There is no role {self.role!r} on the server.",
                tried="pg_roles",
                next_step="let a migration or the seed create it; anon, authenticated and service_role are there on a "
                "server that the harness boots",
            )
        may_be_taken, bypasses, settings = row
        if not may_be_taken:
            raise HarnessError(
                f"The role {self.role!r} may not be taken by {connection.info.user!r}.",
                tried=f"SET ROLE {self.role}",
                next_step=f"GRANT {self.role} TO {connection.info.user}, or connect as a superuser",
            )
        return settings, bypasses

    def _claims_text(self) -> str | None:
        if self.claims is None:
            return None if self.role is None else json.dumps({"role": self.role})
        if not isinstance(self.claims, Mapping):
            raise TypeError(f"they are a {type(self.claims).__name__}, and not an object")
        own = {} if self.role is None else {"role": self.role}
        return json.dumps({**own, **self.claims}, allow_nan=False)


@dataclass(frozen=True, slots=True)
class IdentityStatements:
    """The SQL that applies an identity; a text is statements joined by `; `, to be sent as one simple query."""

    isolation: str | None
    """The isolation level; None: the connection's own."""
    for_transaction: tuple[str, ...]
    """Statements that apply all the rest to the transaction that was begun."""
    for_session: tuple[str, ...]
    """The same, the level included, for a statement that cannot run inside a transaction block."""
    undone: tuple[str, ...]
    """Statements that take that back."""
    bypasses_policies: bool
    """Whether the role is a superuser or has BYPASSRLS: row-level security does not hold it back."""
    left_out: tuple[str, ...]
    """Settings of the role's own that this session may not make, and that do not apply."""

    @property
    def local(self) -> str:
        """To be sent after BEGIN, and after a SET TRANSACTION that follows it: for this transaction. May be empty."""
        return "; ".join(self.for_transaction)

    @property
    def session(self) -> str:
        """The same for a statement that cannot run inside a transaction block: sent before it. May be empty."""
        return "; ".join(self.for_session)

    @property
    def reset(self) -> str:
        """To be sent after that statement, whatever became of it. May be empty."""
        return "; ".join(self.undone)

    @property
    def set_transaction(self) -> str:
        """The isolation level as a statement, for a BEGIN that is somebody else's. May be empty."""
        return "" if self.isolation is None else f"SET TRANSACTION ISOLATION LEVEL {self.isolation.upper()}"

    @property
    def begin(self) -> str:
        """BEGIN, the isolation level and all the rest: one simple query begins a transaction as this identity."""
        return f"{self.only_begin}; {self.local}" if self.local else self.only_begin

    @property
    def only_begin(self) -> str:
        """BEGIN with the isolation level, and nothing else."""
        return "BEGIN" if self.isolation is None else f"BEGIN ISOLATION LEVEL {self.isolation.upper()}"


def bypassed_policies(connection: psycopg.Connection[Any], applied: IdentityStatements | None) -> Iterator[str]:
    """A sentence where the tables that a run touched have policies that did not hold its calls back.

    To be asked in the run's own database when its sessions have ended. `applied`: as whom calls were made; None: as the
    connection's user.
    """
    queries = own("harness.environment")
    if not connection.execute(queries["tables_with_policies"]).fetchall():
        return
    deadline = time.monotonic() + _SESSIONS_END
    while time.monotonic() < deadline:
        row = connection.execute(queries["other_sessions"]).fetchone()
        if row is None or not row[0]:
            break
        time.sleep(0.01)
    whole = _bypasses(connection) if applied is None else applied.bypasses_policies
    tables = [
        str(name)
        for name, forced, touched in connection.execute(queries["tables_with_policies"]).fetchall()
        if touched and (whole or (applied is None and not forced))
    ]
    if tables:
        who = "the owner of the scratch database" if applied is None else "a role that bypasses them"
        yield (
            f"row-level policies of {', '.join(tables)} held nobody back: calls were made as {who}; "
            "give --run-as ROLE, or Contract(identity=...), to call as a user would"
        )


def _bypasses(connection: psycopg.Connection[Any]) -> bool:
    row = connection.execute(own("harness.environment")["role_bypasses"]).fetchone()
    return bool(row and row[0])


def _quoted_name(name: str) -> str:
    # Quoted part by part: a name such as app.user is no keyword of SET.
    return ".".join(f'"{part}"' for part in name.split("."))


def _quoted_value(name: str, value: str, connection: psycopg.Connection[Any]) -> str:
    if name.lower() not in _LISTS:
        return _literal(value, connection)
    names = [quoted.replace('""', '"') if plain is None else plain.lower() for quoted, plain in _listed(value)]
    return ", ".join(_literal(each, connection) for each in names) or "''"


def _listed(value: str) -> list[tuple[str, str | None]]:
    return [(match[1] or "", match[2]) for match in _LISTED.finditer(value)]


def _literal(text: str, connection: psycopg.Connection[Any]) -> str:
    from psycopg import sql

    return sql.Literal(text).as_string(connection).strip()
