"""Where the turnstiles are put: text in, text out."""

from __future__ import annotations

import pytest

from harness.sqltext import access
from harness.sqltext.access import Access, ForeignKey
from harness.sqltext.plpgsql import Split, split, touched_by
from harness.sqltext.walk import UnsplittableError

T = "harness_schedules.turnstile"


def put(body: str, *functions: str) -> Split:
    """Split a PL/pgSQL body."""
    return split("plpgsql", body, first=0, functions=set(functions))


LOOKALIKE = """DECLARE "b;n" text; BEGIN -- DELETE FROM t;
    /* BEGIN */ RAISE NOTICE $q$; DELETE FROM t; $q$; "b;n" := '; DELETE FROM t;'; END"""

CASES = {
    "a statement": ("BEGIN UPDATE t SET n = 1; END", f"BEGIN IF {T}(0) THEN END IF; UPDATE t SET n = 1; END"),
    "two on a line": (
        "BEGIN DELETE FROM t; DELETE FROM t; END",
        f"BEGIN IF {T}(0) THEN END IF; DELETE FROM t; IF {T}(1) THEN END IF; DELETE FROM t; END",
    ),
    "none where no data is touched": (
        "DECLARE n int := 1 + 1; BEGIN n := n + 1; PERFORM length('x'); IF n > 1 THEN RAISE NOTICE 'n'; END IF; END",
        "DECLARE n int := 1 + 1; BEGIN n := n + 1; PERFORM length('x'); IF n > 1 THEN RAISE NOTICE 'n'; END IF; END",
    ),
    "an assignment that queries": (
        "DECLARE n int; BEGIN n := (SELECT 1 FROM t); END",
        f"DECLARE n int; BEGIN IF {T}(0) THEN END IF; n := (SELECT 1 FROM t); END",
    ),
    "a declaration that queries": (
        "DECLARE n int := (SELECT 1 FROM t); BEGIN NULL; END",
        f"DECLARE harness_turnstile_0 boolean := {T}(0); n int := (SELECT 1 FROM t); BEGIN NULL; END",
    ),
    "IF and ELSIF": (
        "BEGIN IF EXISTS (SELECT FROM t) THEN NULL; ELSIF EXISTS (SELECT FROM u) THEN NULL; END IF; END",
        (
            f"BEGIN IF {T}(0) THEN END IF; IF EXISTS (SELECT FROM t) THEN NULL; ELSIF {T}(1) THEN "
            "ELSIF EXISTS (SELECT FROM u) THEN NULL; END IF; END"
        ),
    ),
    "a searched CASE": (
        "BEGIN CASE WHEN EXISTS (SELECT FROM t) THEN NULL; WHEN EXISTS (SELECT FROM u) THEN NULL; END CASE; END",
        (
            f"BEGIN IF {T}(0) THEN END IF; CASE WHEN EXISTS (SELECT FROM t) THEN NULL; WHEN {T}(1) THEN "
            "WHEN EXISTS (SELECT FROM u) THEN NULL; END CASE; END"
        ),
    ),
    "WHILE, whose condition is tried again": (
        "BEGIN WHILE EXISTS (SELECT FROM t) LOOP NULL; END LOOP; END",
        f"BEGIN LOOP IF {T}(0) THEN END IF; IF  EXISTS (SELECT FROM t) THEN ELSE EXIT; END IF; NULL; END LOOP; END",
    ),
    "a loop over a query, with a label": (
        "DECLARE r record; BEGIN <<l>> FOR r IN SELECT 1 FROM t LOOP NULL; END LOOP l; END",
        f"DECLARE r record; BEGIN IF {T}(0) THEN END IF; <<l>> FOR r IN SELECT 1 FROM t LOOP NULL; END LOOP l; END",
    ),
    "a handler": (
        "BEGIN INSERT INTO t VALUES (1); EXCEPTION WHEN no_data_found OR others THEN DELETE FROM t; END",
        (
            f"BEGIN IF {T}(0) THEN END IF; INSERT INTO t VALUES (1); EXCEPTION WHEN no_data_found OR others THEN "
            f"IF harness_schedules.caught(SQLSTATE) THEN END IF; IF {T}(1) THEN END IF; DELETE FROM t; END"
        ),
    ),
    "nested blocks": (
        "BEGIN DECLARE n int; BEGIN BEGIN PERFORM 1 FROM t; END; END; END",
        f"BEGIN DECLARE n int; BEGIN BEGIN IF {T}(0) THEN END IF; PERFORM 1 FROM t; END; END; END",
    ),
    "comments, strings and quotes that look like statements": (
        LOOKALIKE,
        LOOKALIKE,
    ),
    "EXECUTE": ("BEGIN EXECUTE 'DELETE FROM t'; END", f"BEGIN IF {T}(0) THEN END IF; EXECUTE 'DELETE FROM t'; END"),
    "a call of a function that touches data": (
        "BEGIN PERFORM g(1); END",
        f"BEGIN IF {T}(0) THEN END IF; PERFORM g(1); END",
    ),
    "lock functions, which touch no table": (
        "BEGIN PERFORM pg_advisory_xact_lock(1); END",
        f"BEGIN IF {T}(0) THEN END IF; PERFORM pg_advisory_xact_lock(1); END",
    ),
}


@pytest.mark.parametrize(("body", "expected"), CASES.values(), ids=CASES)
def test_where_turnstiles_are_put(body: str, expected: str) -> None:
    """Each kind of statement gets its turnstile where it changes neither the meaning nor the line numbers."""
    done = put(body, "g")
    assert done.body == expected
    assert done.body.count("\n") == body.count("\n")


def test_steps_say_line_and_text() -> None:
    """A step has the line that the server would name in an error's context, and the statement on one line."""
    done = put("\nBEGIN\n  UPDATE t\n     SET n = 1; PERFORM 1\n FROM u;\nEND")
    assert [(step.line, step.text) for step in done.steps] == [(3, "UPDATE t SET n = 1"), (4, "PERFORM 1 FROM u")]


def test_steps_in_a_block_with_a_handler_are_guarded() -> None:
    """Statements before the EXCEPTION clause are guarded, those in handlers and outside are not."""
    done = put("BEGIN DELETE FROM a; BEGIN DELETE FROM b; EXCEPTION WHEN OTHERS THEN DELETE FROM c; END; END")
    assert [step.guarded for step in done.steps] == [False, True, False]


def test_dynamic_sql_tells_its_text() -> None:
    """EXECUTE of a text that is put together tells that text when it runs; of a constant, it is known beforehand."""
    done = put("BEGIN EXECUTE 'DELETE FROM ' || 't' USING 1; EXECUTE 'DELETE FROM t'; END")
    assert [step.touched.dynamic for step in done.steps] == [True, False]
    assert [step.tells for step in done.steps] == [True, False]
    assert "EXECUTE harness_schedules.dynamic(('DELETE FROM ' || 't')::pg_catalog.text) USING 1;" in done.body
    assert done.steps[1].touched.reads == {"t"}


@pytest.mark.parametrize(
    ("language", "body", "reason"),
    [
        ("plpgsql", "BEGIN IF true THEN END", "could not be parsed"),
        ("sql", "SELEC 1", "could not be parsed"),
        ("plpython3u", "plpy.execute('DELETE FROM t')", "cannot be split"),
        ("c", "symbol", "cannot be split"),
    ],
)
def test_what_cannot_be_split_says_why(language: str, body: str, reason: str) -> None:
    """A body with an error, or in another language, is not split, with the reason, and may touch anything."""
    with pytest.raises(UnsplittableError, match=reason):
        split(language, body, first=0, functions=set())
    assert touched_by(language, body).unread


def of(sql: str, *keys: ForeignKey) -> Access:
    return access.of_statement(sql).access({table: keys for key in keys for table in (key.table, key.referenced)})


def reads(*tables: str) -> Access:
    return Access(reads=frozenset(tables))


KEY = ForeignKey("logs", frozenset({"ticket_id"}), "tickets", frozenset({"id"}))


@pytest.mark.parametrize(
    ("sql", "read", "written"),
    [
        ("SELECT 1", "", ""),
        ("SELECT * FROM a JOIN b USING (id) WHERE EXISTS (SELECT FROM c)", "a b c", ""),
        ("SELECT * FROM a, b FOR UPDATE OF a", "a b", "a b"),
        ("WITH x AS (DELETE FROM a RETURNING *) SELECT * FROM x, b", "a b", "a"),
        ("INSERT INTO logs SELECT * FROM a", "logs a", "logs tickets"),
        ("INSERT INTO a VALUES (1) ON CONFLICT (id) DO UPDATE SET n = 2", "a", "a"),
        ("UPDATE logs SET ticket_id = 1", "logs", "logs tickets"),
        ("UPDATE logs SET note = 1", "logs", "logs"),
        ("UPDATE tickets SET id = 1", "tickets", "tickets logs"),
        ("UPDATE tickets SET used = true", "tickets", "tickets"),
        ("DELETE FROM tickets", "tickets", "tickets logs"),
        ("MERGE INTO a USING b ON a.id = b.id WHEN MATCHED THEN DELETE", "a b", "a"),
        ("SELECT pg_advisory_lock(1)", "", access.ADVISORY_LOCKS),
        ("SELECT nextval('s')", "", access.SEQUENCES),
        ("NOTIFY x", "", access.NOTIFICATIONS),
    ],
)
def test_what_a_statement_touches(sql: str, read: str, written: str) -> None:
    """Tables read and written, rows locked, and the tables at which foreign keys make the server look."""
    found = of(sql, KEY)
    written_tables = {written} if written.startswith("(") else set(written.split())
    assert (found.reads, found.writes) == (set(read.split()), written_tables)
    assert not found.everything


@pytest.mark.parametrize("sql", ["TRUNCATE a", "LOCK TABLE a", "CREATE TABLE a (n int)", "DO 'BEGIN END'", "nonsense"])
def test_what_may_touch_anything(sql: str) -> None:
    """Data definition, table locks, anonymous blocks and what cannot be parsed conflict with all that touches data."""
    assert of(sql).everything or of(sql).unread
    assert of(sql).conflicts(reads("z"))
    assert not of(sql).conflicts(Access())


@pytest.mark.parametrize(
    ("statement", "tables"),
    [
        ("WITH x AS (SELECT 1 AS n) INSERT INTO t SELECT n FROM x", {"t"}),
        ("WITH x AS (SELECT n FROM u) INSERT INTO t SELECT n FROM x RETURNING n INTO STRICT v, w.a", {"t", "u"}),
        ("INSERT INTO t VALUES (1) RETURNING n INTO v", {"t"}),
        ("SELECT n INTO STRICT v FROM t WHERE id = 1", {"t"}),
        ("SELECT n, m INTO v[1], w.a FROM t", {"t"}),
        ("SELECT n FROM t INTO v", {"t"}),
        ("MERGE INTO t USING u ON t.id = u.id WHEN MATCHED THEN DELETE", {"t", "u"}),
        ("UPDATE t SET n = 1 WHERE id = 1 RETURNING n INTO v", {"t"}),
        ("v := (SELECT n FROM t)", {"t"}),
        ("v[(SELECT n FROM t)] := 1", {"t"}),
        ("w.a = (SELECT n FROM t)", {"t"}),
        ("RAISE NOTICE '%', (SELECT n FROM t) USING HINT = (SELECT n FROM u)", {"t", "u"}),
        ("RETURN QUERY SELECT n FROM t", {"t"}),
        ("RETURN NEXT (SELECT n FROM t)", {"t"}),
        ("OPEN c FOR SELECT n FROM t", {"t"}),
        ("OPEN c FOR EXECUTE 'SELECT n FROM t'", {"t"}),
        ("EXIT WHEN EXISTS (SELECT FROM t)", {"t"}),
        ("EXECUTE 'SELECT n FROM t' INTO v USING (SELECT n FROM u)", {"t", "u"}),
    ],
)
def test_what_a_statement_of_plpgsql_reads(statement: str, tables: set[str]) -> None:
    """Each kind of statement is read in full, wherever PL/pgSQL's own words stand in it."""
    touched = touched_by("plpgsql", f"BEGIN {statement}; END")
    assert touched.reads == tables
    assert not touched.unread
