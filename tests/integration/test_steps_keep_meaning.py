"""The turnstiles change nothing that a function can see: each function answers the same before and after rewriting."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from harness.environment.database import Database
from harness.schedules.rewrite import Rewritten, catalogue_of, rewrite

SPACE = 7

FUNCTIONS = {
    "FOUND after an empty read": """
        PERFORM 1 FROM t WHERE false; v := v || FOUND; SELECT 1 INTO n FROM t WHERE id = 1; v := v || FOUND;
        IF EXISTS (SELECT FROM t) THEN v := v || FOUND; END IF;""",
    "ROW_COUNT with steps around": """
        UPDATE t SET n = t.n + 1; GET DIAGNOSTICS n = ROW_COUNT; v := v || n;
        INSERT INTO t VALUES (9, 9); GET DIAGNOSTICS n = ROW_COUNT; v := v || n;""",
    "ROW_COUNT read after the condition of an IF that queries": """
        UPDATE t SET n = 0; IF EXISTS (SELECT FROM t) THEN GET DIAGNOSTICS n = ROW_COUNT; v := v || n; END IF;""",
    "line numbers in PG_CONTEXT": """
        UPDATE t SET n = 1; GET DIAGNOSTICS v = PG_CONTEXT;

        INSERT INTO t VALUES (8, 8);  INSERT INTO t VALUES (7, 7); GET DIAGNOSTICS w = PG_CONTEXT; v := v || w;""",
    "SQLSTATE, SQLERRM and the stacked diagnostics in a handler": """
        BEGIN
            INSERT INTO t VALUES (1, 1);
        EXCEPTION WHEN unique_violation THEN
            GET STACKED DIAGNOSTICS w = CONSTRAINT_NAME; v := SQLSTATE || SQLERRM || w;
            PERFORM 1 FROM t; v := v || SQLSTATE;
        END;""",
    "a handler that raises again": """
        BEGIN
            BEGIN UPDATE t SET n = 1 / 0; EXCEPTION WHEN division_by_zero THEN PERFORM 1 FROM t; RAISE; END;
        EXCEPTION WHEN OTHERS THEN v := SQLSTATE; END;""",
    "ELSIF conditions that query, tried in order": """
        IF v = 'x' THEN v := 'a'; ELSIF (SELECT count(*) FROM t) = 0 THEN v := 'b';
        ELSIF EXISTS (SELECT FROM t WHERE id = 2) THEN v := 'c' || FOUND; ELSE v := 'd'; END IF;""",
    "a searched CASE whose conditions query": """
        CASE WHEN (SELECT count(*) FROM t) = 0 THEN v := 'a'; WHEN (SELECT count(*) FROM t) = 3 THEN v := 'b';
        ELSE v := 'c'; END CASE;""",
    "a CASE with a test expression, and none that fits": """
        BEGIN CASE (SELECT count(*) FROM t) WHEN 1, 2 THEN v := 'a'; END CASE;
        EXCEPTION WHEN case_not_found THEN v := SQLERRM; END;""",
    "WHILE, with CONTINUE and a label": """
        <<again>> WHILE (SELECT count(*) FROM t) < 6 LOOP
            n := n + 1; INSERT INTO t VALUES (10 + n, n); CONTINUE again WHEN n = 1; v := v || n;
        END LOOP again;""",
    "FOR over a query, over numbers, over an array, over EXECUTE": """
        FOR r IN SELECT id FROM t ORDER BY id LOOP v := v || r.id; END LOOP; v := v || FOUND;
        FOR i IN 1..(SELECT count(*) FROM t) LOOP v := v || i; EXIT WHEN i = 2; END LOOP;
        FOREACH n IN ARRAY (SELECT array_agg(id) FROM t) LOOP v := v || n; END LOOP;
        FOR r IN EXECUTE 'SELECT n FROM t WHERE id = $1' USING 2 LOOP v := v || r.n; END LOOP;""",
    "a cursor": """
        OPEN c; LOOP FETCH c INTO n; EXIT WHEN NOT FOUND; v := v || n; END LOOP; CLOSE c;
        FOR r IN c LOOP v := v || r.id; END LOOP;""",
    "EXECUTE ... INTO, and assignments that query": """
        EXECUTE 'SELECT count(*) FROM t' INTO n; v := v || n; n := (SELECT max(id) FROM t); v = v || n;""",
    "several statements on a line, comments, strings and quotes with semicolons": """
        v := v || ';'; /* ; UPDATE t */ UPDATE t SET n = 5 WHERE id = 1; -- BEGIN; UPDATE t
        v := v || $q$; END; $q$; SELECT t.n INTO n FROM t WHERE id = 1; v := v || n; NULL;
        v := v || $a$ $b$ ; $b$ $a$;""",
    "lock_timeout as the function sets it": """
        PERFORM set_config('lock_timeout', '70ms', true); PERFORM 1 FROM t; v := current_setting('lock_timeout');
        UPDATE t SET n = 1; v := v || current_setting('lock_timeout');""",
    "a subtransaction that is rolled back": """
        BEGIN INSERT INTO t VALUES (20, 1); RAISE EXCEPTION 'no'; EXCEPTION WHEN raise_exception THEN NULL; END;
        v := (SELECT count(*) FROM t)::text;""",
}

WRAPPER = """
CREATE FUNCTION probe() RETURNS text LANGUAGE plpgsql {attributes} AS $body$
DECLARE v text := ''; w text; n integer := 0; r record; c CURSOR FOR SELECT id FROM t ORDER BY id;
    first integer := (SELECT min(id) FROM t);
BEGIN
{body}
    RETURN v || first;
END $body$;
"""


@pytest.fixture
def connection(database: Database) -> psycopg.Connection[Any]:
    connected = database.connect()
    connected.execute("CREATE TABLE t (id integer PRIMARY KEY, n integer); INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)")
    return connected


def answer(connection: psycopg.Connection[Any]) -> Any:
    """What the function answers and leaves behind, in a transaction that is then undone."""
    with connection.transaction(force_rollback=True):
        told = connection.execute("SELECT probe()").fetchone()
        return told, connection.execute("SELECT * FROM t ORDER BY id").fetchall()


def rewritten(connection: psycopg.Connection[Any]) -> Rewritten:
    return rewrite(connection, catalogue_of(connection), ["SELECT probe()"], SPACE)


@pytest.mark.parametrize("body", FUNCTIONS.values(), ids=FUNCTIONS)
def test_a_rewritten_function_answers_as_before(connection: psycopg.Connection[Any], body: str) -> None:
    """A function and its rewritten copy, called alone, answer the same and leave the same."""
    connection.execute(WRAPPER.format(attributes="", body=body).encode())
    before = answer(connection)

    result = rewritten(connection)

    assert result.steps
    assert not [remark for remark in result.remarks if "one step" in remark]
    assert answer(connection) == before
    connection.close()


def test_a_search_path_of_the_functions_own_does_not_hide_the_turnstile(connection: psycopg.Connection[Any]) -> None:
    """With SET search_path, and with operators and functions of pg_catalog hidden by others, nothing changes."""
    connection.execute(
        """
        CREATE SCHEMA other; CREATE TABLE other.t AS SELECT 42 AS id, 42 AS n;
        CREATE FUNCTION other.pg_backend_pid() RETURNS integer LANGUAGE sql AS 'SELECT 1 / 0';
        CREATE FUNCTION other.ne(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT NULL::boolean';
        CREATE OPERATOR other.<> (LEFTARG = text, RIGHTARG = text, FUNCTION = other.ne);
        """
    )
    attributes = "SET search_path = other, pg_catalog"
    connection.execute(WRAPPER.format(attributes=attributes, body="UPDATE t SET n = 1; v := v || FOUND;").encode())
    with connection.transaction(force_rollback=True):
        before = connection.execute("SELECT probe()").fetchone()

    rewritten(connection)

    assert connection.execute("SELECT probe()").fetchone() == before == ("true42",)
    connection.close()


def test_security_definer_and_a_role_without_rights_may_pass(connection: psycopg.Connection[Any]) -> None:
    """A SECURITY DEFINER function keeps its owner's rights, and its caller needs none for the turnstile."""
    connection.execute("CREATE ROLE gatekeeper; CREATE ROLE visitor")
    try:
        connection.execute(WRAPPER.format(attributes="SECURITY DEFINER", body="v := current_user; UPDATE t SET n = 1;"))
        connection.execute("ALTER FUNCTION probe OWNER TO gatekeeper; GRANT ALL ON t TO gatekeeper")
        rewritten(connection)
        connection.execute("SET ROLE visitor")
        assert connection.execute("SELECT probe()").fetchone() == ("gatekeeper1",)
    finally:
        connection.execute("RESET ROLE; DROP OWNED BY gatekeeper; DROP ROLE gatekeeper, visitor")
        connection.close()


@pytest.mark.parametrize("volatility", ["STABLE", "IMMUTABLE"])
def test_a_function_that_is_not_volatile_stays_one_step(connection: psycopg.Connection[Any], volatility: str) -> None:
    """A STABLE or IMMUTABLE function reads with its caller's snapshot, so it is left alone, and said to be."""
    connection.execute(WRAPPER.format(attributes=volatility, body="SELECT count(*) INTO n FROM t; v := v || n;"))
    before = answer(connection)

    result = rewritten(connection)

    assert not result.steps
    assert any("not VOLATILE" in remark for remark in result.remarks)
    assert result.texts[0].reads == {"public.t"}
    assert answer(connection) == before
    connection.close()


@pytest.mark.parametrize(
    "body",
    [
        "AS $$ UPDATE t SET n = n + 1; INSERT INTO t VALUES (5); SELECT string_agg(n::text, '' ORDER BY id) FROM t $$",
        "BEGIN ATOMIC UPDATE t SET n = n + 1; SELECT string_agg(n::text, ',' ORDER BY id) FROM t; END",
    ],
    ids=["text", "BEGIN ATOMIC"],
)
def test_an_sql_function_is_split_by_statement(connection: psycopg.Connection[Any], body: str) -> None:
    """A LANGUAGE sql body gets a turnstile before each of its statements, and answers as before."""
    connection.execute(f"CREATE FUNCTION probe() RETURNS text LANGUAGE sql {body}".encode())
    before = answer(connection)

    result = rewritten(connection)

    assert len(result.steps) == (2 if "ATOMIC" in body else 3)
    assert answer(connection) == before
    connection.close()


def test_functions_and_triggers_that_it_reaches_are_rewritten_too(connection: psycopg.Connection[Any]) -> None:
    """A helper that is called and a trigger that is fired have steps of their own; others are left alone."""
    connection.execute(
        """
        CREATE FUNCTION helper() RETURNS integer LANGUAGE plpgsql AS 'BEGIN RETURN count(*) FROM t; END';
        CREATE FUNCTION unrelated() RETURNS integer LANGUAGE plpgsql AS 'BEGIN RETURN count(*) FROM t; END';
        CREATE FUNCTION touched() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM 1 FROM t; RETURN NEW; END';
        CREATE TRIGGER touched BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION touched();
        """
    )
    connection.execute(WRAPPER.format(attributes="", body="v := helper(); UPDATE t SET n = 2 WHERE id = 1;").encode())
    before = answer(connection)

    result = rewritten(connection)

    assert {step.function for step in result.steps} == {"probe()", "helper()", "touched()"}
    assert answer(connection) == before
    connection.close()
