"""The baseline of a scenario: what every try starts from, put back in place between tries.

Tables that the SQL may write are copied once; afterwards those that differ are put back from their copies, with
triggers and foreign keys out of the way (session_replication_role), and the sequences set back. What that cannot put
back is put back by a clone of the database: new or changed tables and functions, refreshed materialized views, large
objects, a role that may not set session_replication_role. Which it is, and why, is said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import psycopg
from psycopg import sql
from psycopg.pq import ExecStatus

from harness.environment import own
from harness.errors import HarnessError
from harness.sqltext import queries

COPIES = "harness_baseline"
"""The schema of the copies."""

SMALL = 1000
"""Rows up to which a table is read whole and compared here; larger ones are compared by the server."""

BY_DIFFERENCE = 5000
"""Rows from which on only the difference is put back, where the table has a primary key."""

_VACUUM_EVERY = 500
"""Restores after which the dead rows that they leave are cleared away."""


@dataclass(frozen=True, slots=True)
class BaseTable:
    """A table with rows of its own; a partition is one, a partitioned table is none."""

    oid: int
    schema: str
    table: str
    columns: tuple[str, ...]
    types: tuple[int, ...]
    stored: tuple[str, ...]
    """Columns that are not generated from others."""
    key: tuple[str, ...]
    """The primary key's columns."""
    always: tuple[tuple[str, str], ...]
    """Triggers that fire in replica mode too, with how they are enabled: A or R."""
    rows: int = 0

    @property
    def name(self) -> str:
        """With its schema, unless that is public."""
        return self.table if self.schema == "public" else f"{self.schema}.{self.table}"

    @property
    def quoted(self) -> sql.Identifier:
        """As SQL names it."""
        return sql.Identifier(self.schema, self.table)

    @property
    def copy(self) -> sql.Identifier:
        """Where its rows are kept."""
        return sql.Identifier(COPIES, f"t{self.oid}")

    def as_text(self) -> sql.Composed:
        """Its columns, each as text."""
        return sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(name)) for name in self.columns)


@dataclass(frozen=True, slots=True)
class BaseSequence:
    """A sequence as it is in the baseline."""

    schema: str
    sequence: str
    increment: int
    most: int
    last: int
    called: bool

    @property
    def name(self) -> str:
        """With its schema, unless that is public."""
        return self.sequence if self.schema == "public" else f"{self.schema}.{self.sequence}"


@dataclass(frozen=True, slots=True)
class Changes:
    """The rows in which a table differs from the baseline: of each, + or - and its values as text."""

    columns: tuple[str, ...]
    types: tuple[int, ...]
    rows: tuple[tuple[str | None, ...], ...]


class NotInPlaceError(Exception):
    """The baseline cannot be put back in place; the text says why."""


class Baseline:
    """The baseline of one scratch database, on a connection of its own.

    Nothing else may be connected while it is made. `written` names the tables (schema, table) that may be written.
    """

    def __init__(self, connection: psycopg.Connection[Any], written: Iterable[tuple[str, str]] | None) -> None:
        """Copy the tables. `written` None: any may be. Raises NotInPlaceError where only a clone will do."""
        self._connection = connection
        self._queries = queries.own("harness.environment", "restore.sql")
        try:
            connection.execute("SET session_replication_role = replica")
        except psycopg.errors.InsufficientPrivilege as error:
            raise NotInPlaceError("the role may not set session_replication_role") from error
        # The harness's own reading and writing is as the owner of everything, whatever the policies say.
        connection.execute("SET row_security = off")
        every = self._tables()
        wanted = None if written is None else set(written)
        self.tables = tuple(t for t in every if wanted is None or (t.schema, t.table) in wanted)
        self.sequences = self._sequences()
        self._copy()
        self._rows = {t.oid: Counter(self._read(t)) for t in self.tables if t.rows <= SMALL}
        self._versions = {t.oid: self._version(t) for t in self.tables if t.rows > SMALL}
        self._catalogue = self._fingerprint()
        self._restores = 0
        self._changed: set[int] = set()
        self._looked = True
        """Whether `_changed` is of what is in the database now."""

    def _tables(self) -> tuple[BaseTable, ...]:
        found = []
        for row in self._connection.execute(self._queries["tables"]).fetchall():
            oid, schema, table, columns, types, stored, key, always, _ = row
            found.append(
                BaseTable(oid, schema, table, tuple(columns), tuple(types), tuple(stored), tuple(key or ()),
                          tuple((name, how) for name, how in always or ()))
            )  # fmt: skip
        return tuple(found)

    def _sequences(self) -> tuple[BaseSequence, ...]:
        found = self._connection.execute(self._queries["sequences"]).fetchall()
        if not found:
            return ()
        values = self._connection.execute(self._sequence_values((s, n) for s, n, _, _ in found)).fetchall()
        return tuple(BaseSequence(*row, *value) for row, value in zip(found, values, strict=True))

    @staticmethod
    def _sequence_values(names: Iterable[tuple[str, str]]) -> sql.Composed:
        each = [
            sql.SQL("SELECT {at} AS at, last_value, is_called FROM {name}").format(
                at=sql.Literal(at), name=sql.Identifier(*name)
            )
            for at, name in enumerate(names)
        ]
        return sql.SQL("SELECT last_value, is_called FROM ({}) AS s ORDER BY at").format(
            sql.SQL(" UNION ALL ").join(each)
        )

    def _copy(self) -> None:
        execute = self._connection.execute
        execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(COPIES)))
        counted = []
        for table in self.tables:
            create = sql.SQL("CREATE UNLOGGED TABLE {} AS SELECT * FROM ONLY {}")
            execute(create.format(table.copy, table.quoted))
            row = execute(sql.SQL("SELECT count(*) FROM {}").format(table.copy)).fetchone()
            assert row is not None
            counted.append(replace(table, rows=row[0]))
        self.tables = tuple(counted)

    def _read(self, table: BaseTable) -> list[tuple[str | None, ...]]:
        return self._connection.execute(
            sql.SQL("SELECT {} FROM ONLY {}").format(table.as_text(), table.quoted)
        ).fetchall()

    def _version(self, table: BaseTable) -> object:
        """Changes when any row does, by the transactions that wrote the rows that are there."""
        return self._connection.execute(
            sql.SQL("SELECT count(*), sum(xmin::text::bigint) FROM ONLY {}").format(table.quoted)
        ).fetchone()

    def _fingerprint(self) -> object:
        """Changes when a table, an index, a function or a large object comes, goes or is rewritten."""
        return self._connection.execute(self._queries["fingerprint"]).fetchone()

    @property
    def connection(self) -> psycopg.Connection[Any]:
        """The baseline's own."""
        return self._connection

    def accept_catalogue(self) -> None:
        """Take tables and functions as they are now for the baseline's: the explorer has rewritten functions."""
        self._catalogue = self._fingerprint()

    def changes(self) -> dict[str, Changes]:
        """The tables that differ from the baseline, and how. Raises NotInPlaceError where more than rows changed."""
        if self._fingerprint() != self._catalogue:
            raise NotInPlaceError("the sessions change tables, functions, materialized views or large objects")
        found = {}
        self._changed, self._looked = set(), True
        for table, rows in self._current():
            if rows is not None:
                here, base = Counter(rows), self._rows[table.oid]
                if here == base:
                    continue
                signed = [("+", *row) for row in (here - base).elements()]
                signed += [("-", *row) for row in (base - here).elements()]
            else:
                if self._version(table) == self._versions[table.oid]:
                    continue
                signed = self._difference(table)
                self._changed.add(table.oid)
                if not signed:
                    continue
            self._changed.add(table.oid)
            types = (25, *table.types)
            found[table.name] = Changes(("change", *table.columns), types, tuple(signed))
        return found

    def _current(self) -> Iterable[tuple[BaseTable, list[tuple[str | None, ...]] | None]]:
        """The rows of each small table, all of them asked for at once; None for a large one."""
        small = [table for table in self.tables if table.rows <= SMALL]
        texts = [sql.SQL("SELECT {} FROM ONLY {}").format(t.as_text(), t.quoted) for t in small]
        pgconn = self._connection.pgconn
        pgconn.send_query(sql.SQL("; ").join(texts).as_bytes(self._connection) if texts else b"")
        failed = None
        for table in small:
            result = own.next_result(pgconn)
            if result is None or result.status != ExecStatus.TUPLES_OK:
                failed = result
                break
            rows = [
                tuple(
                    None if (value := result.get_value(row, column)) is None else value.decode()
                    for column in range(result.nfields)
                )
                for row in range(result.ntuples)
            ]
            yield table, rows
        while own.next_result(pgconn) is not None:
            pass
        if failed is not None:
            raise HarnessError("The final state cannot be read.", tried=failed.get_error_message())
        for table in self.tables:
            if table.rows > SMALL:
                yield table, None

    def _difference(self, table: BaseTable) -> list[tuple[str | None, ...]]:
        columns = table.as_text()
        query = sql.SQL(
            "(SELECT '+', * FROM (SELECT {c} FROM ONLY {t} EXCEPT ALL SELECT {c} FROM {b}) AS a) UNION ALL "
            "(SELECT '-', * FROM (SELECT {c} FROM {b} EXCEPT ALL SELECT {c} FROM ONLY {t}) AS r)"
        ).format(c=columns, t=table.quoted, b=table.copy)
        return self._connection.execute(query).fetchall()

    def restore(self, shifts: Mapping[str, int] | None = None) -> None:
        """Put back the rows and sequences that differ.

        `shifts` sets sequences forward by so many steps. Raises NotInPlaceError where it cannot be done.
        """
        if not self._looked:
            self.changes()
        commands: list[sql.Composable] = []
        for table in self.tables:
            if table.oid in self._changed:
                commands += self._put_back(table)
        commands += self._sequence_commands(shifts or {})
        if commands:
            text = sql.SQL("; ").join([sql.SQL("BEGIN"), *commands, sql.SQL("COMMIT")])
            try:
                self._connection.execute(text.as_bytes(self._connection), prepare=False)
            except psycopg.Error as error:
                self._connection.rollback()
                raise NotInPlaceError(f"rows cannot be put back: {' '.join(str(error).split())}") from error
        for table in self.tables:
            if table.oid in self._changed and table.rows > SMALL:
                self._versions[table.oid] = self._version(table)
        self._restores += 1
        if self._restores % _VACUUM_EVERY == 0:
            for table in self.tables:
                self._connection.execute(sql.SQL("VACUUM {}").format(table.quoted))
        self._changed, self._looked = set(), False

    def _put_back(self, table: BaseTable) -> Iterable[sql.Composable]:
        columns = sql.SQL(", ").join(map(sql.Identifier, table.stored))
        target = {"t": table.quoted, "b": table.copy, "c": columns}
        for trigger, _ in table.always:
            yield sql.SQL("ALTER TABLE {} DISABLE TRIGGER {}").format(table.quoted, sql.Identifier(trigger))
        insert = "INSERT INTO {t} ({c}) OVERRIDING SYSTEM VALUE SELECT {c} FROM {b} AS b"
        if table.rows > BY_DIFFERENCE and table.key:
            same = sql.SQL(" AND ").join(sql.SQL("t.{k} = b.{k}").format(k=sql.Identifier(name)) for name in table.key)
            yield sql.SQL(
                "DELETE FROM ONLY {t} AS t WHERE NOT EXISTS (SELECT FROM {b} AS b WHERE {same} AND b::text = t::text)"
            ).format(same=same, **target)
            yield sql.SQL(insert + " WHERE NOT EXISTS (SELECT FROM ONLY {t} AS t WHERE {same})").format(
                same=same, **target
            )
        else:
            yield sql.SQL("DELETE FROM ONLY {t}").format(**target)
            yield sql.SQL(insert).format(**target)
        for trigger, how in table.always:
            yield sql.SQL("ALTER TABLE {} ENABLE {} TRIGGER {}").format(
                table.quoted, sql.SQL("ALWAYS" if how == "A" else "REPLICA"), sql.Identifier(trigger)
            )

    def _sequence_commands(self, shifts: Mapping[str, int]) -> Iterable[sql.Composable]:
        if not self.sequences:
            return
        names = ((s.schema, s.sequence) for s in self.sequences)
        values = self._connection.execute(self._sequence_values(names)).fetchall()
        for sequence, (last, called) in zip(self.sequences, values, strict=True):
            wanted = sequence.last + shifts.get(sequence.name, 0) * sequence.increment
            if (last, called) != (wanted, sequence.called):
                yield sql.SQL("SELECT setval({}, {}, {})").format(
                    sql.Literal(sql.Identifier(sequence.schema, sequence.sequence).as_string(self._connection)),
                    sql.Literal(wanted),
                    sql.Literal(sequence.called),
                )


class Cloned:
    """The baseline of a scratch database that is put back by a clone of the whole of it.

    `connect` opens a connection to the scratch database; `anew` drops it, and creates it again as it was.
    """

    def __init__(self, connect: Callable[[], psycopg.Connection[Any]], anew: Callable[[], None]) -> None:
        self._connect = connect
        self._anew = anew
        self._queries = queries.own("harness.environment", "restore.sql")
        self._connection = connect()
        self.unreadable: tuple[str, ...] = ()
        """Tables that the role may not read, so that what becomes of them is not known."""
        self._rows = self._read()
        self.sequences: tuple[BaseSequence, ...] = ()

    @property
    def connection(self) -> psycopg.Connection[Any]:
        """To the scratch database as it is now."""
        return self._connection

    def _read(self) -> dict[str, tuple[tuple[str, ...], tuple[int, ...], Counter[tuple[str | None, ...]]]]:
        found = {}
        unreadable = []
        for oid, schema, name, columns, types, *_, may in self._connection.execute(self._queries["tables"]).fetchall():
            table = BaseTable(oid, schema, name, tuple(columns), tuple(types), (), (), ())
            if not may:
                unreadable.append(table.name)
                continue
            rows = self._connection.execute(
                sql.SQL("SELECT {} FROM ONLY {}").format(table.as_text(), table.quoted)
            ).fetchall()
            found[table.name] = (table.columns, table.types, Counter(rows))
        self.unreadable = tuple(unreadable)
        return found

    def changes(self) -> dict[str, Changes]:
        """The tables that differ from the baseline, and how; one that is new, gone or altered differs in its rows."""
        here = self._read()
        found = {}
        for name in sorted(here.keys() | self._rows.keys()):
            columns, types, rows = here.get(name) or (*self._rows[name][:2], Counter())
            base = self._rows[name][2] if name in self._rows else Counter()
            if name in self._rows and columns != self._rows[name][0]:
                base = Counter()  # its columns were changed, and rows of the two kinds cannot stand side by side
            signed = [("+", *row) for row in (rows - base).elements()]
            signed += [("-", *row) for row in (base - rows).elements()]
            if signed or (name in here) != (name in self._rows):
                found[name] = Changes(("change", *columns), (25, *types), tuple(signed))
        return found

    def restore(self, shifts: Mapping[str, int] | None = None) -> None:
        """A new clone; whoever was connected is connected no more."""
        del shifts
        self._connection.close()
        self._anew()
        self._connection = self._connect()

    def accept_catalogue(self) -> None:
        """Nothing to do: every clone has all of it."""
