"""A database that somebody gives, in place of scratch databases: for a role that may create none.

It is empty, or holds what a dead run of the harness left. Everything happens in it, one run after another; before each
it is emptied and filled again, and at the end it is left as it was found: objects, extensions, privileges, settings.
What was there stands in the comment of a mark, so that a run that is killed is cleaned up after by the next one.
A schema can be given in its place, to a role that may write nowhere else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from harness.environment import remains
from harness.environment.servers import address, connect
from harness.errors import HarnessError
from harness.signals import uninterrupted
from harness.sqltext import queries

_SQL = queries.own("harness.environment", "given.sql")
_MARK = "harness_mark"
_OURS = "pg-concurrency-harness, in a given database"
"""application_name of sessions that may be ended when it is emptied."""
_SHOWN = 5
"""Objects of a database in use that are named."""
_ROUNDS = 5
"""Times that what is left is dropped: an object may depend on one that comes after it."""


@dataclass(frozen=True, slots=True)
class _Found:
    """What a database had before."""

    objects: tuple[tuple[str, str], ...]
    """What each is and its name, as DROP takes them."""
    owners: Mapping[str, str]
    """Of schemas, by name."""
    extensions: Mapping[str, str]
    """The schema of each."""
    privileges: frozenset[tuple[str, ...]]
    """On schemas and on the database: what and on what, to whom, whether it may be handed on."""
    defaults: frozenset[tuple[str, ...]]
    """Default privileges: how the statement begins, and the same."""
    settings: tuple[str, ...]
    """Statements that give the database its settings and its limit again."""

    def __str__(self) -> str:
        """As the mark's comment keeps it."""
        said = {n: v if isinstance(v, dict) else [*v] for n, v in asdict(self).items()}
        return json.dumps({"by": remains.owner(), **said})

    @classmethod
    def read(cls, comment: str) -> _Found:
        """Raises ValueError, KeyError or TypeError for a text that is none."""
        said = json.loads(comment)
        return cls(
            tuple((str(kind), str(name)) for kind, name in said["objects"]),
            {str(name): str(owner) for name, owner in said["owners"].items()},
            {str(name): str(schema) for name, schema in said["extensions"].items()},
            frozenset(map(tuple, said["privileges"])),
            frozenset(map(tuple, said["defaults"])),
            tuple(map(str, said["settings"])),
        )


class GivenDatabase:
    """A given database, ours while the context lasts."""

    def __init__(self, dsn: str, name: str) -> None:
        """`dsn` names the server and the role; `name` is NAME or NAME.SCHEMA. Nothing is done yet."""
        parts = conninfo_to_dict(dsn)
        self.name, _, schema = name.partition(".")
        self.schema = schema or None
        more = {"dbname": self.name, "application_name": _OURS}
        if self.schema is not None:
            path = sql.Identifier(self.schema).as_string(None)
            more["options"] = f"{parts.get('options', '')} -c search_path={_escaped(path)}".strip()
        self.dsn = make_conninfo("", **{**parts, **more})
        self._connection: psycopg.Connection[Any] | None = None
        self._before: _Found | None = None
        self.pid = ""
        """Process id of the run that had it, where that is dead."""

    def clear(self) -> None:
        """Take away what a dead run has left. Raises HarnessError."""
        with self:
            pass

    @property
    def description(self) -> str:
        """What it is, for reports."""
        return f"the schema {self.schema} of the database {self.name}" if self.schema else f"the database {self.name}"

    @property
    def _run(self) -> psycopg.Connection[Any]:
        assert self._connection is not None
        return self._connection

    def __enter__(self) -> Self:
        # Not named as those of runs are: this one empties, and is not ended by it.
        self._connection = connect(make_conninfo(self.dsn, application_name="pg-concurrency-harness"))
        try:
            self._take()
        except BaseException:
            self._connection.close()
            self._connection = None
            raise
        return self

    def _take(self) -> None:
        """Lock it, see that it is empty, or ours, and mark it. Raises HarnessError where it is neither."""
        row = self._run.execute(_SQL["lock_given"]).fetchone()
        if row != (True,):
            raise HarnessError(
                f"Another run of the harness is using {self.description}.",
                tried=f"its lock on {address(self.dsn)}",
                next_step="wait for it, or give each run a database of its own",
            )
        self._run.execute("SET lock_timeout = '30s'")
        self._refuse_without_rights()
        row = self._run.execute(_SQL["given_mark"], [self.schema]).fetchone()
        if row is not None and row[0]:
            with suppress(ValueError, KeyError, TypeError):
                self._before = _Found.read(row[0])
        if self._before is not None:
            self.empty()
            return
        objects = self._objects()
        if used := [f"{kind} {name}" for _, uses, kind, name in objects if uses]:
            shown = ", ".join(used[:_SHOWN]) + (f" and {len(used) - _SHOWN} more" if len(used) > _SHOWN else "")
            raise HarnessError(
                f"{self.description[0].upper()}{self.description[1:]} is not empty, and not the harness's.",
                tried=f"looking for what no extension brought: {shown}",
                next_step="give an empty one: everything in it is dropped between the runs and at the end",
            )
        there = tuple((kind, name) for *_, kind, name in objects)
        self._before = _Found(
            there, self._owners(), self._extensions(), self._privileges(), self._defaults()[0], self._settings()
        )
        self._mark(self._before)

    def _refuse_without_rights(self) -> None:
        row = self._run.execute(_SQL["given_rights"], [self.schema]).fetchone()
        assert row is not None
        role, create, _, in_schema = row
        if self.schema is None:
            if not create:
                raise HarnessError(
                    f"The role {role!r} may create nothing in {self.description}.",
                    tried="has_database_privilege(..., 'CREATE')",
                    next_step=f'GRANT CREATE ON DATABASE "{self.name}" TO "{role}", or '
                    f'ALTER DATABASE "{self.name}" OWNER TO "{role}", or give a schema of it: --database '
                    f"{self.name}.SCHEMA",
                )
            return
        if not in_schema:
            raise HarnessError(
                f"The role {role!r} may create nothing in {self.description}."
                if in_schema is not None
                else f"There is no schema {self.schema} in the database {self.name}.",
                tried="has_schema_privilege(..., 'CREATE')",
                next_step=f'CREATE SCHEMA "{self.schema}" AUTHORIZATION "{role}", by somebody who may',
            )
        outside = [str(each[0]) for each in self._run.execute(_SQL["given_outside"], {"schema": self.schema})]
        if create:
            outside.insert(0, "create schemas")
        if outside:
            raise HarnessError(
                f"The role {role!r} could change more of the database {self.name} than the schema {self.schema}.",
                tried=f"what it may do outside: {', '.join(outside)}",
                next_step="give a role that may write to this schema only, or an empty database: migrations name "
                "schemas, and nothing would keep them inside this one",
            )

    def _mark(self, before: _Found) -> None:
        text = sql.Literal(str(before))
        if self.schema is None:
            commands = sql.SQL("CREATE SCHEMA {mark}; COMMENT ON SCHEMA {mark} IS {text}").format(
                mark=sql.Identifier(_MARK), text=text
            )
        else:
            commands = sql.SQL("CREATE TABLE {mark} (); COMMENT ON TABLE {mark} IS {text}").format(
                mark=sql.Identifier(self.schema, _MARK), text=text
            )
        with self._run.transaction():
            self._run.execute(commands)

    def empty(self) -> None:
        """Put it back to what it was, but for the mark. Raises HarnessError where something cannot be dropped."""
        assert self._before is not None
        run, before = self._run, self._before
        run.execute(_SQL["given_sessions"], [_OURS])
        error: psycopg.Error | None = None
        for _ in range(_ROUNDS):
            here = [each for each in self._objects() if each[2:] not in before.objects]
            if not here:
                break
            for _, _, kind, name in here:
                try:
                    run.execute(_drop(kind, name).encode(), prepare=False)
                except psycopg.Error as why:
                    error = why
        left = [f"{kind} {name}" for _, _, kind, name in self._objects() if (kind, name) not in before.objects]
        if left:
            raise HarnessError(
                f"{self.description[0].upper()}{self.description[1:]} cannot be emptied.",
                tried=f"dropping {', '.join(left[:_SHOWN])}: {' '.join(str(error).split())}",
                next_step="have its owner, or a superuser, drop what is left in it",
            )
        if self.schema is None:
            self._put_back(before)

    def _put_back(self, before: _Found) -> None:
        """Schemas that are gone, owners, privileges and settings."""
        for name in before.owners.keys() - self._owners().keys():
            self._run.execute(f"CREATE SCHEMA {name}".encode())
        for name, owner in before.owners.items() - self._owners().items():
            self._try(f"ALTER SCHEMA {name} OWNER TO {owner}")
        for name in before.extensions.keys() - self._extensions().keys():
            try:
                self._run.execute(f"CREATE EXTENSION {name} WITH SCHEMA {before.extensions[name]} CASCADE".encode())
            except psycopg.Error as error:
                raise HarnessError(
                    f"The extension {name}, which was in {self.description}, was dropped and cannot be put back.",
                    tried=" ".join(str(error).split()),
                    next_step="have a superuser create it; take what drops it out of the files",
                ) from error
        now = self._privileges()
        for each in now - before.privileges:
            self._try(_revoke(*each))
        for each in before.privileges - now:
            self._try(_grant(*each))
        here, plain = self._defaults()
        known = {(begins, right.partition(" ON ")[2]) for begins, right, *_ in before.defaults}
        wanted = before.defaults | {each for each in plain if (each[0], each[1].partition(" ON ")[2]) not in known}
        for begins, *right in here - wanted:
            self._try(f"{begins} {_revoke(*right)}")
        for begins, *right in wanted - here:
            self._try(f"{begins} {_grant(*right)}")
        if (settings := self._settings()) != before.settings:
            of_roles = [text.partition(" SET ")[0] for text in settings if text.startswith("ALTER ROLE ")]
            reset = ["ALTER DATABASE {} RESET ALL", "ALTER DATABASE {} CONNECTION LIMIT -1"]
            for command in (*reset, *(f"{each} RESET ALL" for each in dict.fromkeys(of_roles)), *before.settings):
                self._try(command)

    def _try(self, command: str) -> None:
        """Run it; what the role may not take back, it could not have given either."""
        text = command.replace("{}", sql.Identifier(self.name).as_string(self._run), 1)
        with suppress(psycopg.errors.InsufficientPrivilege):
            self._run.execute(text.encode(), prepare=False)

    def _objects(self) -> list[tuple[int, bool, str, str]]:
        rows = self._run.execute(_SQL["given_objects"], {"schema": self.schema}).fetchall()
        return [(row[0], row[1], str(row[2]), str(row[3])) for row in rows]

    def _owners(self) -> dict[str, str]:
        return {str(name): str(owner) for name, owner in self._run.execute(_SQL["given_owners"])}

    def _extensions(self) -> dict[str, str]:
        return {str(name): str(schema) for name, schema in self._run.execute(_SQL["given_extensions"])}

    def _privileges(self) -> frozenset[tuple[str, ...]]:
        return frozenset(self._run.execute(_SQL["given_privileges"]))

    def _defaults(self) -> tuple[frozenset[tuple[str, ...]], frozenset[tuple[str, ...]]]:
        """Default privileges as they are, and as they would be if nobody had said anything."""
        rows = self._run.execute(_SQL["given_default_rights"]).fetchall()
        now = frozenset(row[1:] for row in rows if row[0] == "now")
        return now, frozenset(row[1:] for row in rows if row[0] == "plain")

    def _settings(self) -> tuple[str, ...]:
        text = queries.text("harness.environment", "kept_settings.sql")
        found = (str(row[0]) for row in self._run.execute(text.encode()))
        return tuple(each for each in found if each.startswith("ALTER "))  # privileges stand with the schemas'

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._connection is None:
            return
        with uninterrupted():
            try:
                # One that is gone is out of reach; the mark stays, and the next run empties it.
                with suppress(psycopg.OperationalError):
                    self.empty()
                    mark = sql.Identifier(_MARK) if self.schema is None else sql.Identifier(self.schema, _MARK)
                    what = sql.SQL("SCHEMA" if self.schema is None else "TABLE")
                    self._run.execute(sql.SQL("DROP {} {}").format(what, mark))
            finally:
                self._connection.close()
                self._connection = None


def left(dsn: str) -> GivenDatabase | None:
    """The database of a DSN, where a run that is dead was given it; None for any other. Raises HarnessError."""
    with connect(dsn) as connection:
        found = GivenDatabase(dsn, connection.info.dbname)
        row = connection.execute(_SQL["given_mark"], [None]).fetchone()
        if row is None or not row[0] or connection.execute(_SQL["lock_given"]).fetchone() != (True,):
            return None
    with suppress(ValueError, KeyError, TypeError):
        found.pid = str(json.loads(row[0])["by"]["pid"])
        return found
    return None


def _drop(kind: str, name: str) -> str:
    if kind == "large object":
        return f"SELECT lo_unlink({int(name)})"
    return f"DROP {kind} IF EXISTS {name} CASCADE"


def _revoke(right: str, grantee: str, option: str) -> str:
    del option
    return f"REVOKE {right} FROM {grantee}"


def _grant(right: str, grantee: str, option: str) -> str:
    return f"GRANT {right} TO {grantee}{option}"


def _escaped(word: str) -> str:
    """As libpq's `options` wants it."""
    return word.replace("\\", "\\\\").replace(" ", "\\ ")
