"""What a scenario starts from is put back exactly, whatever the schema is made of; else by a clone, and it is said."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from harness.environment.database import Database, Template
from harness.environment.embedded import EmbeddedServer
from harness.environment.restore import Baseline, Cloned, NotInPlaceError
from harness.environment.servers import connect


@pytest.fixture(scope="module")
def empty(server: EmbeddedServer) -> Iterator[Template]:
    with Template(server, [], []) as template:
        yield template


@pytest.fixture
def database(empty: Template) -> Iterator[Database]:
    """An empty scratch database."""
    with empty.clone() as cloned:
        yield cloned


def _everything(connection: psycopg.Connection[Any]) -> dict[str, list[str]]:
    """Every row of every table, view and sequence of the schema public."""
    names = connection.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'm', 'S', 'p')"
    ).fetchall()
    found = {}
    for (name,) in names:
        columns = "(last_value, is_called)" if name.endswith("seq") else "t"
        rows = connection.execute(f'SELECT {columns}::text FROM "{name}" AS t').fetchall()  # type: ignore[arg-type]
        found[name] = sorted(row[0] for row in rows)
    return found


def _cases(file: str) -> dict[str, tuple[str, str]]:
    """Setup and change by the name above them."""
    text = Path(__file__).with_name(file).read_text()
    found = re.findall(r"^-- ([a-z][^\n]*)\n(.*?)^-- change\n(.*?)(?=^-- [a-z]|\Z)", text, re.MULTILINE | re.DOTALL)
    return {name: (setup, change) for name, setup, change in found}


IN_PLACE = _cases("restore_in_place.sql")
BY_CLONE = _cases("restore_by_clone.sql")


@pytest.mark.parametrize("case", IN_PLACE)
def test_rows_and_sequences_are_put_back_in_place(case: str, database: Database) -> None:
    """After the restore everything is as before, the second time too, and what had changed was seen."""
    setup, change = IN_PLACE[case]
    with database.connect() as session, database.connect() as control:
        session.execute(setup.encode(), prepare=False)
        before = _everything(session)
        baseline = Baseline(control, None)
        for _ in range(2):
            session.execute(change.encode(), prepare=False)
            changed = _everything(session) != before
            assert changed
            if "SEQUENCE" not in setup:
                assert baseline.changes()
            baseline.restore()
            session.execute("DISCARD SEQUENCES")
            assert _everything(session) == before
            assert not baseline.changes()


def test_the_rows_are_awaited_without_stopping_other_threads(database: Database) -> None:
    """Else nobody could cut the connection to a server that is frozen, and no Ctrl-C would be heeded."""
    with database.connect() as session, database.connect() as control, database.connect() as watch:
        session.execute("CREATE TABLE t (n int)")
        baseline = Baseline(control, None)
        # A wait that keeps the other thread still is ended by the server.
        session.execute("SET idle_in_transaction_session_timeout = '5s'")
        session.execute("BEGIN")
        session.execute("LOCK TABLE t")

        over = threading.Event()

        def let_go_when_it_waits() -> None:
            waits = "SELECT 1 FROM pg_locks WHERE NOT granted AND pid = %s"
            while not watch.execute(waits, [control.info.backend_pid]).fetchone():
                assert not over.is_set(), "it waited, and nobody else could do anything meanwhile"
            session.execute("COMMIT")

        with ThreadPoolExecutor(1) as other:
            let_go = other.submit(let_go_when_it_waits)
            assert not baseline.changes()
            over.set()
            let_go.result()


def test_a_sequence_is_set_forward(database: Database) -> None:
    """A shift is so many steps of the sequence's own, and gone with the next restore."""
    with database.connect() as session, database.connect() as control:
        session.execute("CREATE SEQUENCE s INCREMENT BY 10")
        session.execute("CREATE SEQUENCE down INCREMENT BY -1")
        baseline = Baseline(control, None)
        baseline.restore({"s": 5, "down": 5})
        assert session.execute("SELECT nextval('s'), nextval('down')").fetchone() == (51, -6)
        baseline.restore()
        assert session.execute("SELECT nextval('s'), nextval('down')").fetchone() == (1, -1)


def test_a_table_that_nobody_writes_is_not_copied(database: Database) -> None:
    """Only what may be written is copied and read again."""
    with database.connect() as session, database.connect() as control:
        session.execute("CREATE TABLE t (n int)")
        session.execute("CREATE TABLE big (n int)")
        baseline = Baseline(control, [("public", "t")])
        assert [table.name for table in baseline.tables] == ["t"]


@pytest.mark.parametrize("case", BY_CLONE)
def test_what_rows_cannot_put_back_is_put_back_by_a_clone(case: str, empty: Template, database: Database) -> None:
    """That it cannot be done in place is seen; a clone does it, and sees what differs in rows."""
    setup, change = BY_CLONE[case]
    with database.connect() as session:
        if setup:
            session.execute(setup.encode(), prepare=False)
        before = _everything(session)
    with empty.copy(database, f"{database.name}_base") as base:
        with database.connect() as session, database.connect() as control:
            baseline = Baseline(control, None)
            session.execute(change.encode())
            with pytest.raises(NotInPlaceError):
                baseline.changes()

        def anew() -> None:
            empty.copy(base, database.name)

        cloned = Cloned(lambda: connect(database.dsn), anew)
        cloned.restore()
        assert _everything(cloned.connection) == before
        cloned.connection.close()
