"""What is done so that files apply here: what a statement lacks is supplied where that is safe to do, and said.

A role that a dump names, an extension that was turned on in a dashboard, what the platform has already; and what names
a database, or makes one, means the scratch database.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

from harness.environment import platforms
from harness.environment.applied import EXTENSION, MISSING_NAME, NAME, extension_of, unquoted
from harness.sqltext import queries
from harness.sqltext.scripts import Script

Connection = psycopg.Connection[Any]

_SQL = queries.own("harness.environment", "supplying.sql")

_BOOKKEEPING = queries.own("harness.environment.preludes", "bookkeeping.sql")
"""Tables of tools, by name."""

_DUPLICATES = (
    psycopg.errors.DuplicateSchema, psycopg.errors.DuplicateTable, psycopg.errors.DuplicateObject,
    psycopg.errors.DuplicateFunction, psycopg.errors.DuplicateColumn, psycopg.errors.InvalidTableDefinition,
)  # fmt: skip

_OBJECTS = (
    r"(CREATE|ALTER|DROP|COMMENT\s+ON)\s+(OR\s+REPLACE\s+)?(UNIQUE\s+)?(TABLE|VIEW|MATERIALIZED|INDEX|SEQUENCE|TYPE|"
    r"FUNCTION|PROCEDURE|SCHEMA|COLUMN|CONSTRAINT|AGGREGATE|ROUTINE|CAST|OPERATOR|LANGUAGE|TEXT)\b"
)

BEYOND: tuple[tuple[str, str], ...] = (
    ("extensions", r"(CREATE|ALTER|DROP|COMMENT\s+ON)\s+EXTENSION\b"),
    ("event triggers", r"(CREATE|ALTER|DROP|COMMENT\s+ON)\s+EVENT\s+TRIGGER\b"),
    ("publications", r"(CREATE|ALTER|DROP)\s+(PUBLICATION|SUBSCRIPTION)\b"),
    ("policies and triggers on the platform's tables", r"(CREATE|ALTER|DROP|COMMENT\s+ON)\s+(POLICY|TRIGGER)\b"),
    ("settings and memberships of roles", r"(CREATE|ALTER|DROP|COMMENT\s+ON)\s+(ROLE|USER|GROUP)\b"),
    ("settings of the database", r"(ALTER|COMMENT\s+ON)\s+DATABASE\b"),
    ("foreign data", r"(CREATE|ALTER|DROP|IMPORT)\s+(FOREIGN|SERVER|USER\s+MAPPING)\b"),
    ("owners", r"ALTER\s+.*\bOWNER\s+TO\b|REASSIGN\s+OWNED\b"),
    ("privileges", r"(GRANT|REVOKE|ALTER\s+DEFAULT\s+PRIVILEGES|SECURITY\s+LABEL)\b"),
    ("what the platform owns", _OBJECTS),
    ("DO blocks that do such a thing", r"DO\b"),
    ("settings", r"(SET|RESET)\b"),
)  # fmt: skip
"""What Supabase lets `postgres` do beyond its rights: what it is, and how a statement of the kind begins.

Such a statement is tried with the rights that there are, and only where they do not suffice made by the superuser."""

_BEYOND = tuple((what, re.compile(begins, re.IGNORECASE | re.DOTALL)) for what, begins in BEYOND)

_OF_DATABASE = tuple(
    re.compile(begins + NAME, re.IGNORECASE | re.DOTALL)
    for begins in (
        r"(ALTER\s+DATABASE\s+)", r"(COMMENT\s+ON\s+DATABASE\s+)", r"((?:GRANT|REVOKE)\b[^;]*?\bON\s+DATABASE\s+)",
        r"(ALTER\s+(?:ROLE|USER)\s+\S+\s+IN\s+DATABASE\s+)", r"(SECURITY\s+LABEL\s+ON\s+DATABASE\s+)",
    )
)  # fmt: skip
_WHOLE_DATABASE = re.compile(r"(CREATE|DROP)\s+DATABASE\b", re.IGNORECASE)
_MOVES_DATABASE = re.compile(r"ALTER\s+DATABASE\s+\S+\s+(OWNER|RENAME|SET\s+TABLESPACE|REFRESH)\b", re.IGNORECASE)
_DROP_SCHEMA = re.compile(rf"DROP\s+SCHEMA\s+(?:IF\s+EXISTS\s+)?{NAME}", re.IGNORECASE)
_PLACEHOLDER = re.compile(r"CREATE\s+OR\s+REPLACE\s+VIEW\s+\S+\s+AS\s+SELECT\s+NULL::", re.IGNORECASE)

_TOUCHES_EXTENSION = re.compile(rf"(?:ALTER|DROP|COMMENT\s+ON)\s+EXTENSION\s+(?:IF\s+EXISTS\s+)?{NAME}", re.IGNORECASE)
_INTO_SCHEMA = re.compile(rf"\bSCHEMA\s+{NAME}", re.IGNORECASE)
_VERSION = re.compile(r"\bVERSION\s+('[^']*'|\"[^\"]*\"|\S+)", re.IGNORECASE)
_CREATE_ROLE = re.compile(r"CREATE\s+(ROLE|USER|GROUP)\b(?!\s+MAPPING)", re.IGNORECASE)
_ROLE_CREATED = re.compile(rb'CREATE\s+(?:ROLE|USER|GROUP)\s+("[^"]+"|[\w$]+)', re.IGNORECASE)
_SETS_ROLE = re.compile(rf"(ALTER\s+(?:ROLE|USER)\s+{NAME})(\s+(?:SET|RESET)\b.*)", re.IGNORECASE | re.DOTALL)
_SETTING = re.compile(r"SET\s+(SESSION\s+|LOCAL\s+)?[\w.\"]+\s*(=|TO\b)", re.IGNORECASE)
_MEANS_POSTGRES = re.compile(
    rf"\b(OWNER\s+TO|AUTHORIZATION|FOR\s+(?:ROLE|USER))\s+(?:{platforms.ROLE}\b|\"{platforms.ROLE}\")", re.IGNORECASE
)

_MISSING_ROLE = re.compile(r'role "(.*)" does not exist')
_MISSING_SCHEMA = re.compile(r'schema "([^"]*)" does not exist|relation "([^".]*)\.[^"]*" does not exist')
_MISSING_TABLE = re.compile(r'relation "(?:public\.)?(\w+)" does not exist')
_MISSING_METHOD = re.compile(r'access method "(\w+)" does not exist')
_PLAIN_INDEX = re.compile(r"CREATE\s+INDEX\b", re.IGNORECASE)

_MISSING_CLASS = re.compile(r'has no default operator class for access method "(gist|gin)"')

_PLATFORM_SCHEMA = re.compile(
    r'(?<![\w."])"?(?P<schema>' + "|".join(sorted(platforms.SCHEMAS | {"public"})) + r')"?(?:\s*\.|\s|$)', re.IGNORECASE
)
MAY_LACK = re.compile(
    rf'\b"?(?:{"|".join(platforms.IN_SCHEMA)})"?\s*\.|\b(?:{"|".join(_BOOKKEEPING)})\b', re.IGNORECASE
)
"""What rows may go to that is supplied where it is not there."""


@dataclass(slots=True)
class Supplier:
    """What is done so that files apply here, through the connection that applies them.

    `role` is whom the statements run as, where that is not the one who is connected: then that one is a superuser, and
    `beyond` says that it may step in, as the platform does.
    """

    connection: Connection
    role: str | None = None
    beyond: bool = False
    ours: bool = True
    """Whether the server was booted here: on somebody else's, settings of roles stay within the database."""
    notes: Counter[str] = field(default_factory=Counter)
    stood_in: set[str] = field(default_factory=set)
    """Extensions whose stand-in's script was run."""
    roles_made: set[str] = field(default_factory=set)

    def sent(self, text: str) -> str | None:
        """What is sent for a statement; None where the scratch database takes the place of what it does."""
        if _WHOLE_DATABASE.match(text) or _MOVES_DATABASE.match(text):
            self.notes["CREATE, DROP and moves of a database are left out: the scratch database takes its place"] += 1
            return None
        if self.beyond and (dropped := _DROP_SCHEMA.match(text)) and unquoted(dropped[1]) in platforms.SCHEMAS:
            self.notes[f"DROP SCHEMA {dropped[1]} is left out: it is the platform's"] += 1
            return None
        ours = f'"{self.connection.info.dbname}"'
        for named in _OF_DATABASE:
            if found := named.match(text):
                if found[2].lower() not in ("current_database", ours):
                    self.notes[f"what names the database {unquoted(found[2])} is sent to the scratch database"] += 1
                text = found[1] + ours + text[found.end() :]
                break
        if not self.ours and (sets := _SETS_ROLE.match(text)) and unquoted(sets[2]) not in self.roles_made:
            # The role is somebody else's: the setting holds in the scratch database and its clones, and goes with them.
            text = f"{sets[1]} IN DATABASE {ours}{sets[3]}"
        return text

    def remember(self, text: str) -> None:
        """Note what a statement made."""
        if _CREATE_ROLE.match(text) and (name := re.search(rf"(?:ROLE|USER|GROUP)\s+{NAME}", text, re.IGNORECASE)):
            self.roles_made.add(unquoted(name[1]))

    def supply(self, error: psycopg.Error, text: str, execute: Callable[[str], None]) -> bool:
        """Supply what a statement lacks and run it again, or leave it out; whether either was done.

        Raises psycopg.Error where it fails again.
        """

        def again(text: str = text) -> bool:
            execute(text)
            self.remember(text)
            return True

        message = error.diag.message_primary or str(error)
        if (isinstance(error, _DUPLICATES) or "is already a partition" in message) and self._is_there(text):
            return True
        if _PLACEHOLDER.match(text) and isinstance(
            error, (psycopg.errors.UndefinedObject, psycopg.errors.InvalidSchemaName)
        ):
            return True  # pg_dump --clean, of a view that is dropped next
        if self.beyond and isinstance(error, psycopg.errors.InvalidGrantOperation):
            self.notes["left out: privileges granted back to whom the object belongs to"] += 1
            return True
        if created := EXTENSION.match(text):
            return self._stand_in(error, text, unquoted(created[1]), again)
        if (touched := _TOUCHES_EXTENSION.match(text)) and self._only_stands_in(unquoted(touched[1])):
            self.notes[f"ALTER, DROP and COMMENT on the stand-in for {unquoted(touched[1])} are left out"] += 1
            return True
        if (missing := _MISSING_ROLE.search(message)) and not re.match(r"(DROP|ALTER)\s+(ROLE|USER|GROUP)", text, re.I):
            return self._make_role(missing[1], again)
        if isinstance(error, psycopg.errors.UndefinedObject) and _SETTING.match(text) and "configuration" in message:
            self.notes[f"left out, this server has no such setting: {text}"] += 1
            return True
        if (
            (missing := _MISSING_TABLE.search(message))
            and missing[1] in _BOOKKEEPING
            and not re.match("DROP", text, re.I)
        ):
            self.connection.execute(_BOOKKEEPING[missing[1]].encode())
            self._anew()
            self.notes[f"the table {missing[1]}, in which a tool keeps its books, was made, and is empty"] += 1
            return again()
        if self.beyond and "security label provider" in message:
            self.notes[f"left out, nothing is encrypted here: {message}"] += 1
            return True
        if (method := _MISSING_METHOD.search(message)) and _PLAIN_INDEX.match(text):
            self.notes[f"left out: indexes by {method[1]}, which this server has not; only speed depends on them"] += 1
            return True
        schema = _MISSING_SCHEMA.search(message)
        if self.beyond and schema and (schema[1] or schema[2]) in platforms.IN_SCHEMA:
            return self._turn_on(platforms.IN_SCHEMA[schema[1] or schema[2]], again)
        if self.beyond and (lacking := _MISSING_CLASS.search(message)):
            return self._turn_on(f"btree_{lacking[1]}", again)
        if self.beyond and (named := MISSING_NAME.search(message)) and (extension := extension_of(named)):
            into = (named[1] or named[2]).replace('"', "").lower().rpartition(".")[0]
            return self._turn_on(extension, again, into)
        if self.beyond and not self.role and isinstance(error, psycopg.errors.InsufficientPrivilege):
            renamed = _MEANS_POSTGRES.sub(r"\1 CURRENT_USER", text)
            if renamed != text:
                self.notes[f"{platforms.ROLE}, whom statements name, is taken to be who is connected"] += 1
                return again(renamed)
        if self.beyond and self.role and isinstance(error, psycopg.errors.InsufficientPrivilege):
            for what, begins in _BEYOND:
                if begins.match(text):
                    with self._as_admin():
                        again()
                        if begins.pattern.startswith("DO") or what == "foreign data":
                            self.connection.execute(_SQL["hand_over"].encode())
                    self.notes[f"beyond the rights of {self.role}, as the platform allows: {what}"] += 1
                    return True
        return False

    def _is_there(self, text: str) -> bool:
        """Leave out what makes something that the platform, or the server, has already."""
        if _CREATE_ROLE.match(text):
            self.notes["a role that is there already is taken as it is"] += 1
            return True
        if re.match(r"CREATE\s+SCHEMA\s+\"?public\b", text, re.I):
            return True
        makes = re.match(r"(CREATE|ALTER)\b", text, re.I)
        if self.beyond and makes and (
            re.match(r"CREATE\s+PUBLICATION\s+\"?supabase_realtime", text, re.I)
            or ((head := _PLATFORM_SCHEMA.search(text[:300])) and head["schema"].lower() != "public")
        ):  # fmt: skip
            self.notes["what a dump makes of the platform's own is there already"] += 1
            return True
        return False

    def _stand_in(self, error: psycopg.Error, text: str, name: str, again: Callable[..., bool]) -> bool:
        """What a CREATE EXTENSION lacks: the right to, the version, its schema, the extension itself."""
        if isinstance(error, psycopg.errors.InsufficientPrivilege) and self.role is not None:
            with self._as_admin():
                return again()
        if isinstance(error, psycopg.errors.InvalidParameterValue) and _VERSION.search(text):
            with self._as_admin():
                return again(_VERSION.sub("", text))  # a version that this server has not
        into = _INTO_SCHEMA.search(text)
        if isinstance(error, psycopg.errors.InvalidSchemaName) and into and self.beyond:
            # The real one brings its schema.
            with self._as_admin():
                self.connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(unquoted(into[1]))))
                return again(_VERSION.sub("", text))
        stand_in = platforms.stand_ins().get(name)
        if stand_in is None:
            return False
        if isinstance(error, psycopg.errors.InvalidSchemaName) and stand_in.schema:
            # A dump empties the search_path, and the real one's own file says to which schema it goes.
            with self._as_admin():
                platforms.create_extension(self.connection, name, "public")
            return True
        lacking = isinstance(error, (psycopg.errors.FeatureNotSupported, psycopg.errors.UndefinedFile))
        if lacking or isinstance(error, psycopg.errors.InsufficientPrivilege):  # which the platform would let him
            if name in self.stood_in:
                return True
            with self._as_admin():
                platforms.run_stand_in(self.connection, name, unquoted(into[1]) if into else None)
            self.stood_in.add(name)
            return True
        if "required extension" in str(error):
            with self._as_admin():
                for required in stand_in.requires:
                    platforms.create_extension(self.connection, required, "extensions" if self.beyond else None)
                return again()
        return False

    def _only_stands_in(self, extension: str) -> bool:
        found = self.connection.execute(_SQL["extension"], [extension]).fetchone()
        return extension in platforms.stand_ins() and (found is None or found[0] == platforms.STAND_IN)

    def _turn_on(self, extension: str, again: Callable[[], bool], schema: str = "") -> bool:
        """An extension that no file creates: projects turn it on in the dashboard."""
        stand_in = platforms.stand_ins().get(extension)
        there = self.connection.execute(_SQL["extension"], [extension]).fetchone() is not None
        if there or extension in self.stood_in:
            return False
        with self._as_admin():
            real = platforms.create_extension(
                self.connection, extension, None if stand_in is not None and stand_in.schema else schema or "extensions"
            )
        self._anew()
        if not real:
            self.stood_in.add(extension)
        self.notes[f"{extension} is created by no file before its use; taken as turned on in the dashboard"] += 1
        return again()

    def _make_role(self, name: str, again: Callable[[], bool]) -> bool:
        with self._as_admin():
            try:
                self.connection.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(name)))
                if self.role is None and not self.ours:
                    self.connection.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(sql.Identifier(name)))
                elif self.role is not None:
                    grant = sql.SQL("GRANT {} TO {} WITH ADMIN OPTION")
                    self.connection.execute(grant.format(sql.Identifier(name), sql.Identifier(self.role)))
            except psycopg.errors.InsufficientPrivilege:
                return False
        self._anew()
        self.roles_made.add(name)
        self.notes[f"the role {name} does not exist, and was created without rights"] += 1
        return again()

    def _anew(self) -> None:
        """What was supplied stays, also where the statement then lacks something else."""
        if self.connection.info.transaction_status == TransactionStatus.INTRANS:
            self.connection.execute("RELEASE SAVEPOINT harness; SAVEPOINT harness")

    @contextmanager
    def _as_admin(self) -> Iterator[None]:
        """As the one who is connected, and then as before. After an error the transaction's end sets it back."""
        if self.role is None:
            yield
            return
        self.connection.execute("SET SESSION AUTHORIZATION DEFAULT")
        try:
            yield
        finally:
            if self.connection.info.transaction_status != TransactionStatus.INERROR:
                self.become(self.role)

    def become(self, role: str) -> None:
        """Go on as this role."""
        self.connection.execute(sql.SQL("SET SESSION AUTHORIZATION {}").format(sql.Identifier(role)))


def roles_created(script: Script) -> set[str]:
    """The roles that a file creates, in whatever kind of statement."""
    found = _ROLE_CREATED.findall(script.source)
    return {unquoted(name.decode(errors="replace")) for name in found}
