"""Files into a template: any number, in their tool's order, as whom and with what the platform has."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from harness.environment.applying import Applied
from harness.environment.database import ApplyPlan, Database, Template
from harness.environment.embedded import EmbeddedServer
from harness.errors import HarnessError

Apply = Callable[..., tuple[Applied, Database]]


@pytest.fixture
def apply(server: EmbeddedServer, tmp_path: Path) -> Iterator[Apply]:
    """Applies texts as the files of a folder, and gives what became of them and a clone."""
    with ExitStack() as stack:

        def make(files: dict[str, str], *, folder: str = "sql", **plan: Any) -> tuple[Applied, Database]:
            for name, text in files.items():
                path = tmp_path / folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(text.encode())
            template = Template(server, [tmp_path / folder], [], plan=ApplyPlan(**plan))
            stack.enter_context(template)
            return template.applied, stack.enter_context(template.clone())

        yield make


def ask(database: Database, query: str) -> Any:
    with database.connect() as connection:
        row = connection.execute(query.encode()).fetchone()
        return None if row is None else row[0]


@pytest.mark.parametrize("count", [1, 7, 300])
def test_any_number_of_files_is_applied(count: int, apply: Apply) -> None:
    """Each in a session of its own, as pg_dump's files need it."""
    text = (
        "SELECT pg_catalog.set_config('search_path', '', false);\nCREATE TABLE public.t{0} (id integer PRIMARY KEY);\n"
    )
    applied, database = apply({f"{n:03}.sql": text.format(n) for n in range(count)})
    assert (applied.applied, applied.files, applied.failures) == (count, count, ())
    assert ask(database, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == count


def test_going_on_lists_what_failed_and_what_followed_from_it(apply: Apply) -> None:
    """What can be applied is, the rest of a file too; a failure that names what an earlier one makes says so."""
    applied, database = apply(
        {
            "1.sql": "CREATE TABLE a (id nonsense);\nCREATE TABLE b (id integer);\n",
            "2.sql": "INSERT INTO b VALUES (1);\nINSERT INTO a VALUES (1);\nINSERT INTO b VALUES (2);\n",
        },
        keep_going=True,
    )
    assert applied.applied == 0
    assert not applied.whole
    first, second = applied.failures
    assert (first.path.name, first.line, first.sqlstate, first.follows) == ("1.sql", 1, "42704", "")
    assert (second.path.name, second.line, second.sqlstate, second.follows) == ("2.sql", 2, "42P01", "1.sql:1")
    assert ask(database, "SELECT sum(id) FROM b") == 3


def test_without_going_on_the_first_failure_ends_it(apply: Apply) -> None:
    """With file, line, SQLSTATE, statement and what to do."""
    with pytest.raises(HarnessError, match=r"1\.sql:2: .*SQLSTATE 42P01") as raised:
        apply({"1.sql": "SELECT 1;\nINSERT INTO nothing VALUES (1);\n"})
    assert "INSERT INTO nothing" in raised.value.tried
    assert raised.value.next_step


# -- a schema that another tool builds

BUILDS = (
    f"{sys.executable} -c \"import os, psycopg; psycopg.connect(os.environ['DATABASE_URL'], autocommit=True).execute("
)


@pytest.mark.parametrize("platform", ["none", "supabase"])
def test_a_command_builds_the_schema_and_the_files_come_after_it(platform: str, apply: Apply) -> None:
    """It is told where by DATABASE_URL, runs as the migrations do, and its output is kept."""
    applied, database = apply(
        {"1.sql": "INSERT INTO made VALUES (current_user);"},
        setup=f"{BUILDS}'CREATE TABLE made (by name)')\" && psql_like=$PGHOST:$PGDATABASE && echo built in $psql_like",
        platform=platform,
    )
    assert applied.whole
    assert "built in /" in "".join(applied.notes)
    owner = ask(database, "SELECT tableowner FROM pg_tables WHERE tablename = 'made'")
    assert owner == applied.role == ask(database, "SELECT by FROM made")


@pytest.mark.parametrize(
    ("command", "says", "shown"),
    [
        ("echo not today; exit 7", "failed with status 7", "not today"),
        ("echo nothing to do", "changed nothing in the database", "nothing to do"),
        ("echo wait; sleep 600", "was not done after 1 s", "wait"),
    ],
)
def test_a_command_that_builds_nothing_is_refused_with_its_words(
    command: str, says: str, shown: str, apply: Apply
) -> None:
    """A failure, a command that took another database, one that waits forever."""
    with pytest.raises(HarnessError, match=says) as raised:
        apply({"1.sql": "SELECT 1;"}, setup=command, limit=1.0)
    assert shown in raised.value.tried
    assert raised.value.next_step
