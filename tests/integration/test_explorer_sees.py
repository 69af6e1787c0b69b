"""What a step touches is known wherever it happens, so that the order that breaks a function is never left out.

Each function here checks a cup before it is given away, then gives it away, in another way of writing; two calls give
it away twice in some order. Where a body cannot be split, nobody says that every order was tried.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from harness.environment.embedded import EmbeddedServer
from harness.environment.servers import connect
from harness.schedules import Plan, Session, SessionsExplored, SessionsRun, Statement, explore_sessions
from harness.verdict.findings import Truth

TABLES = """
CREATE SCHEMA bar; CREATE TYPE bar.size AS ENUM ('small', 'large');
CREATE TABLE cups (id integer PRIMARY KEY, free boolean NOT NULL, given integer NOT NULL);
CREATE TABLE gifts (cup integer, n integer);
CREATE VIEW free_cups AS SELECT id FROM cups WHERE free;
CREATE PROCEDURE give(p integer) LANGUAGE sql AS 'UPDATE cups SET free = false, given = given + 1 WHERE id = p';
CREATE FUNCTION is_free(p integer) RETURNS boolean LANGUAGE plpgsql
AS 'BEGIN RETURN (SELECT free FROM cups WHERE id = p); END';
CREATE SEQUENCE turns;
CREATE FUNCTION is_free_sql(p integer) RETURNS boolean LANGUAGE sql AS 'SELECT free FROM cups WHERE id = p';
CREATE FUNCTION is_free_returned(p integer) RETURNS boolean VOLATILE LANGUAGE sql
RETURN (SELECT free FROM cups WHERE id = p);
CREATE FUNCTION is_free_atomic(p integer) RETURNS boolean VOLATILE LANGUAGE sql
BEGIN ATOMIC SELECT free FROM cups WHERE id = p; END;
CREATE FUNCTION is_free_stable(p integer) RETURNS boolean STABLE LANGUAGE sql AS 'SELECT free FROM cups WHERE id = p';
CREATE VIEW asked AS SELECT id, is_free(id) AS free FROM generate_series(1, 3) AS id;
"""

GIVE = "UPDATE cups SET free = false, given = given + 1 WHERE id = p;"

BODIES = {
    "a variable of a type in another schema": """
        DECLARE s bar.size := 'small'; f boolean; BEGIN SELECT free INTO f FROM cups WHERE id = p;
        IF NOT f THEN RETURN; END IF; {give} END""",
    "WITH named like the table": """
        DECLARE f boolean; BEGIN WITH cups AS (SELECT free FROM public.cups WHERE id = p) SELECT free INTO f FROM cups;
        IF NOT f THEN RETURN; END IF; {give} END""",
    "IF over a function": "BEGIN IF is_free(p) THEN {give} END IF; END",
    "IF over a SQL function": "BEGIN IF is_free_sql(p) THEN {give} END IF; END",
    "IF over RETURN (SELECT ...)": "BEGIN IF is_free_returned(p) THEN {give} END IF; END",
    "IF over BEGIN ATOMIC": "BEGIN IF is_free_atomic(p) THEN {give} END IF; END",
    "IF over a STABLE function": "BEGIN IF is_free_stable(p) THEN {give} END IF; END",
    "IF over a view over a function": "BEGIN IF (SELECT free FROM asked WHERE id = p) THEN {give} END IF; END",
    "ELSIF": """
        BEGIN IF p < 0 THEN NULL; ELSIF EXISTS (SELECT FROM free_cups WHERE id = p) THEN {give} END IF; END""",
    "CASE with a test expression": """
        BEGIN CASE (SELECT count(*) FROM free_cups WHERE id = p) WHEN 1 THEN {give} ELSE NULL; END CASE; END""",
    "WHILE": "BEGIN WHILE (SELECT free FROM cups WHERE id = p) LOOP {give} END LOOP; END",
    "EXIT WHEN": "BEGIN LOOP EXIT WHEN NOT (SELECT free FROM cups WHERE id = p); {give} END LOOP; END",
    "a default in DECLARE": """
        DECLARE f boolean := (SELECT free FROM cups WHERE id = p); BEGIN IF f THEN {give} END IF; END""",
    "an array subscript": """
        DECLARE a integer[] := array[0, 0]; BEGIN a[(SELECT 1 + free::integer FROM cups WHERE id = p)] := 1;
        IF a[2] = 1 THEN {give} END IF; END""",
    "RAISE's arguments": """
        DECLARE m text; BEGIN BEGIN RAISE EXCEPTION '%', (SELECT free FROM cups WHERE id = p);
        EXCEPTION WHEN raise_exception THEN m := SQLERRM; END; IF m = 't' THEN {give} END IF; END""",
    "ASSERT": """
        BEGIN ASSERT (SELECT free FROM cups WHERE id = p); {give} EXCEPTION WHEN assert_failure THEN NULL; END""",
    "FOR over EXECUTE": """
        DECLARE r record; BEGIN FOR r IN EXECUTE 'SELECT free FROM ' || 'cups WHERE id = $1' USING p
        LOOP IF r.free THEN {give} END IF; END LOOP; END""",
    "a cursor and FETCH": """
        DECLARE c CURSOR FOR SELECT free FROM cups WHERE id = p; f boolean;
        BEGIN OPEN c; FETCH c INTO f; CLOSE c; IF f THEN {give} END IF; END""",
    "EXECUTE of a text put together": """
        DECLARE f boolean; BEGIN EXECUTE format('SELECT free FROM %I WHERE id = $1', 'cups') INTO f USING p;
        IF f THEN EXECUTE format('UPDATE %I SET free = false, given = given + 1 WHERE id = $1', 'cups') USING p;
        END IF; END""",
    "a function called by dynamic SQL alone": """
        DECLARE f boolean; BEGIN EXECUTE 'SELECT is_' || 'free($1)' INTO f USING p; IF f THEN {give} END IF; END""",
    "a procedure that is called": """
        BEGIN IF (SELECT free FROM cups WHERE id = p) THEN CALL give(p); END IF; END""",
}


@dataclass
class Bar:
    """A database with cups; what went wrong in a schedule is that cup 1 was given away twice."""

    dsn: str
    connection: psycopg.Connection[Any]

    def give(self, body: str, *more: str) -> SessionsExplored:
        for statement in more:
            self.connection.execute(statement.encode())
        body = body.replace("{give}", GIVE)
        self.connection.execute(f"CREATE FUNCTION take(p integer) RETURNS void LANGUAGE plpgsql AS $${body}$$".encode())
        return self.explore("SELECT take(1)", "SELECT take(1)")

    def explore(self, *statements: str, **plan: Any) -> SessionsExplored:
        sessions = [Session(name, (Statement(text),)) for name, text in zip("ab", statements, strict=True)]
        return explore_sessions(self.dsn, sessions, Plan(**plan), restore=self.restore, judge=self.judge)

    def restore(self) -> None:
        self.connection.execute("DELETE FROM gifts; DELETE FROM cups; SELECT setval('turns', 1)")
        self.connection.execute("DROP TABLE IF EXISTS made")
        self.connection.execute("INSERT INTO cups VALUES (1, true, 0), (2, true, 0)")

    def judge(self, run: SessionsRun) -> Iterable[str]:
        twice = self.connection.execute(
            "SELECT FROM cups WHERE given > 1 UNION ALL SELECT FROM gifts GROUP BY cup HAVING count(*) > 1"
        ).fetchone()
        return ["given twice"] if twice is not None else []


@pytest.fixture
def bar(server: EmbeddedServer) -> Iterator[Bar]:
    with connect(server.dsn) as admin:
        admin.execute("CREATE DATABASE bar")
        dsn = psycopg.conninfo.make_conninfo(server.dsn, dbname="bar")
        with connect(dsn) as connection:
            connection.execute("SET synchronous_commit = off")
            connection.execute(TABLES)
            yield Bar(dsn, connection)
        admin.execute("DROP DATABASE bar WITH (FORCE)")


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_check_then_act_is_broken_however_it_is_written(bar: Bar, body: str) -> None:
    """Wherever the check stands and whoever reads for it, the order is found in which two calls both pass it."""
    found = bar.give(body)
    assert "given twice" in found.broken
    assert found.exhausted
    assert not found.undecided


BEHIND = {
    "a CHECK constraint's function": (
        "BEGIN INSERT INTO gifts VALUES (p, 1); EXCEPTION WHEN check_violation THEN NULL; END",
        """CREATE FUNCTION ungiven(p integer) RETURNS boolean LANGUAGE plpgsql AS
           'BEGIN RETURN NOT EXISTS (SELECT FROM gifts WHERE cup = p); END';
           ALTER TABLE gifts ADD CHECK (ungiven(cup))""",
    ),
    "a column default's function": (
        "BEGIN INSERT INTO gifts (cup) VALUES (p); DELETE FROM gifts WHERE n > 1; END",
        """CREATE FUNCTION following() RETURNS integer LANGUAGE sql VOLATILE AS
           'SELECT 1 + count(*)::integer FROM gifts';
           ALTER TABLE gifts ALTER n SET DEFAULT following()""",
    ),
    "a trigger's function": (
        "BEGIN INSERT INTO gifts VALUES (p, 1); END",
        """CREATE FUNCTION only_once() RETURNS trigger LANGUAGE plpgsql AS
           'BEGIN IF EXISTS (SELECT FROM gifts WHERE cup = NEW.cup) THEN RETURN NULL; END IF; RETURN NEW; END';
           CREATE TRIGGER only_once BEFORE INSERT ON gifts FOR EACH ROW EXECUTE FUNCTION only_once()""",
    ),
    "a rule": (
        """BEGIN IF EXISTS (SELECT FROM free_cups WHERE id = p) THEN UPDATE free_cups SET id = p WHERE id = p;
           END IF; END""",
        """CREATE RULE giving AS ON UPDATE TO free_cups DO INSTEAD
           UPDATE cups SET free = false, given = given + 1 WHERE id = NEW.id""",
    ),
    "a sequence that is read": (
        """DECLARE n integer; BEGIN SELECT last_value INTO n FROM turns; PERFORM setval('turns', n + 1);
           INSERT INTO gifts SELECT 1, n WHERE n = 1; END""",
        "",
    ),
    "a cascade with a trigger at its end": (
        """BEGIN WITH r AS (INSERT INTO roots VALUES (pg_backend_pid())) INSERT INTO leaves VALUES (pg_backend_pid());
           DELETE FROM roots WHERE id = pg_backend_pid(); END""",
        """CREATE TABLE roots (id integer PRIMARY KEY);
           CREATE TABLE leaves (root integer REFERENCES roots ON DELETE CASCADE);
           CREATE FUNCTION fallen() RETURNS trigger LANGUAGE plpgsql AS
           'BEGIN IF (SELECT free FROM cups WHERE id = 1) THEN
            UPDATE cups SET given = given + 1, free = false WHERE id = 1; END IF; RETURN NULL; END';
           CREATE TRIGGER fallen AFTER DELETE ON leaves FOR EACH ROW EXECUTE FUNCTION fallen()""",
    ),
    "a partition": (
        """BEGIN IF NOT EXISTS (SELECT FROM parted_1) THEN INSERT INTO parted VALUES (p);
           INSERT INTO gifts VALUES (p, 1); DELETE FROM parted_1; END IF; END""",
        """CREATE TABLE parted (id integer) PARTITION BY LIST (id);
           CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1, 2)""",
    ),
    "a deferred trigger": (
        "BEGIN INSERT INTO gifts VALUES (p, 1); END",
        """CREATE FUNCTION undo() RETURNS trigger LANGUAGE plpgsql AS
           'BEGIN IF (SELECT count(*) FROM gifts WHERE cup = NEW.cup) > 1 THEN RAISE EXCEPTION ''taken''; END IF;
            RETURN NULL; END';
           CREATE CONSTRAINT TRIGGER undo AFTER INSERT ON gifts DEFERRABLE INITIALLY DEFERRED
           FOR EACH ROW EXECUTE FUNCTION undo()""",
    ),
}


@pytest.mark.parametrize(("body", "more"), BEHIND.values(), ids=BEHIND)
def test_what_happens_behind_a_statement_is_a_step_and_is_known(bar: Bar, body: str, more: str) -> None:
    """Constraints, defaults, triggers, rules, cascades, partitions and deferred work are split and seen as well."""
    found = bar.give(body, more)
    assert "given twice" in found.broken
    assert found.exhausted


RIGHT = {
    "plain": (
        "BEGIN PERFORM FROM cups WHERE id = p AND free FOR UPDATE; IF FOUND THEN {give} END IF; END",
        "",
    ),
    "behind a view": (
        "BEGIN PERFORM FROM free_cups WHERE id = p FOR UPDATE; IF FOUND THEN {give} END IF; END",
        "",
    ),
    "behind a wrapper": (
        "BEGIN PERFORM take_inside(p); END",
        """CREATE FUNCTION take_inside(p integer) RETURNS void LANGUAGE plpgsql AS
           'BEGIN IF (SELECT free FROM locked(p)) THEN CALL give(p); END IF; END';
           CREATE FUNCTION locked(p integer) RETURNS SETOF cups LANGUAGE sql AS
           'SELECT * FROM cups WHERE id = p FOR UPDATE'""",
    ),
    "in dynamic SQL": (
        """DECLARE f boolean; BEGIN
           EXECUTE format('SELECT free FROM %I WHERE id = $1 FOR UPDATE', 'cups') INTO f USING p;
           IF f THEN EXECUTE 'UPDATE ' || 'cups SET free = false, given = given + 1 WHERE id = $1' USING p;
           END IF; END""",
        "",
    ),
    "in a trigger": (
        "BEGIN INSERT INTO asks VALUES (p); END",
        """CREATE TABLE asks (cup integer);
           CREATE FUNCTION asked() RETURNS trigger LANGUAGE plpgsql AS
           'BEGIN PERFORM FROM cups WHERE id = NEW.cup AND free FOR UPDATE; IF FOUND THEN CALL give(NEW.cup); END IF;
            RETURN NULL; END';
           CREATE TRIGGER asked BEFORE INSERT ON asks FOR EACH ROW EXECUTE FUNCTION asked()""",
    ),
    "a guard in one statement": (
        "BEGIN UPDATE cups SET free = false, given = given + 1 WHERE id = p AND free; END",
        "",
    ),
    "an advisory lock": (
        "BEGIN PERFORM pg_advisory_xact_lock(p); IF is_free(p) THEN {give} END IF; END",
        "",
    ),
}


@pytest.mark.parametrize(("body", "more"), RIGHT.values(), ids=RIGHT)
def test_what_is_right_holds_however_it_is_written(bar: Bar, body: str, more: str) -> None:
    """The same protection behind a view, a wrapper, dynamic SQL or a trigger gets the same verdict: held, exhausted."""
    found = bar.give(body, more)
    assert not found.broken
    assert found.truth is Truth.HELD


def test_a_procedure_that_commits_is_as_many_transactions_as_it_says(bar: Bar) -> None:
    """What a procedure does before and after its COMMIT are transactions of their own, the last one ending with it."""
    bar.connection.execute(
        """CREATE PROCEDURE take_twice() LANGUAGE plpgsql AS $$ BEGIN
        PERFORM FROM cups WHERE id = 1 AND free FOR UPDATE; IF NOT FOUND THEN RETURN; END IF; COMMIT;
        UPDATE cups SET free = false, given = given + 1 WHERE id = 1; END $$"""
    )
    found = bar.explore("CALL take_twice()", "CALL take_twice()")
    assert found.exhausted
    assert "given twice" in found.broken
    texts = [move.text for move in found.broken["given twice"].moves]
    assert texts.count("COMMIT") == 2
    assert texts.count("the end, which commits") == 2


def test_a_statement_that_may_lock_several_rows_is_named(bar: Bar) -> None:
    """Held is said between statements: one that locks rows in an order of its own is left to race, and named."""
    found = bar.give("BEGIN UPDATE cups SET given = given WHERE given < 9; UPDATE cups SET given = 0 WHERE id = p; END")
    [named] = [remark for remark in found.not_covered if "may lock several rows" in remark]
    assert named.startswith(
        "take(integer) line 1: UPDATE cups SET given = given WHERE given < 9: may lock several rows"
    )


def test_so_is_one_that_locks_in_two_tables(bar: Bar) -> None:
    """Where one statement takes a row here and a row there, others come in between: that is left to race too."""
    found = bar.give(
        """BEGIN
            WITH c AS (UPDATE cups SET given = given WHERE id = p RETURNING id)
            INSERT INTO taken SELECT id FROM c ON CONFLICT DO NOTHING;
            UPDATE cups SET given = 0 WHERE id = p;
        END""",
        "CREATE TABLE taken (id integer PRIMARY KEY)",
    )
    [named] = [remark for remark in found.not_covered if "may lock several rows" in remark]
    assert "WITH c AS" in named


KNOWN = """CREATE FUNCTION known(p integer) RETURNS integer {0} LANGUAGE plpgsql AS
    'BEGIN RETURN (SELECT given FROM cups WHERE id = 2); END';"""
IS_KNOWN = """CREATE FUNCTION is_known(p integer) RETURNS boolean LANGUAGE plpgsql AS
    'BEGIN RETURN p = (SELECT given FROM cups WHERE id = 2); END';"""
OF_SLIPS = """CREATE TYPE slip AS (id integer);
    CREATE FUNCTION noted(s slip) RETURNS integer LANGUAGE plpgsql AS
    'BEGIN RETURN (SELECT given FROM cups WHERE id = 2); END';"""

TORN = {
    "a query of its own": ("y := (SELECT given FROM cups WHERE id = 2);", ""),
    "an operator": (
        "y := p !!! p;",
        f"""{OF_SLIPS} CREATE FUNCTION op(integer, integer) RETURNS integer LANGUAGE sql AS
        'SELECT noted(row(1)::slip)'; CREATE OPERATOR !!! (LEFTARG = integer, RIGHTARG = integer, FUNCTION = op)""",
    ),
    "a cast that nobody writes": (
        "y := s;",
        f"{OF_SLIPS} CREATE CAST (slip AS integer) WITH FUNCTION noted(slip) AS ASSIGNMENT",
    ),
    "a column that is a function": ("y := (s).noted;", OF_SLIPS),
    "a domain's constraint": (
        "BEGIN d := ARRAY[x]; y := x; EXCEPTION WHEN check_violation THEN y := x + 1; END;",
        f"{IS_KNOWN} CREATE DOMAIN known AS integer CHECK (VALUE IS NULL OR is_known(VALUE))",
    ),
    "an aggregate": (
        "y := known_of(1);",
        """CREATE FUNCTION step(s integer, p integer) RETURNS integer STABLE LANGUAGE plpgsql AS
           'BEGIN RETURN (SELECT given FROM cups WHERE id = 2); END';
           CREATE AGGREGATE known_of(integer) (SFUNC = step, STYPE = integer, INITCOND = '0')""",
    ),
    "a text that a function of the server carries out": (
        """y := (SELECT count(*) FROM ts_stat('SELECT to_tsvector(''simple'', repeat(''a'', given)) FROM cups
        WHERE id = 2'));""",
        "",
    ),
    "a variable named like a statement": ("close := (SELECT given FROM cups WHERE id = 2); y := close;", ""),
    "an array named like a statement": ("get[1] := (SELECT given FROM cups WHERE id = 2); y := get[1];", ""),
}


@pytest.mark.parametrize(("second", "more"), TORN.values(), ids=TORN)
def test_two_reads_are_two_steps_whatever_makes_the_second(bar: Bar, second: str, more: str) -> None:
    """Who reads two rows in two statements may see one of them before and one after somebody changed both."""
    if more:
        bar.connection.execute(more.encode())
    domain = "integer[]" if "known AS" not in more else "known[]"
    slip = "slip := row(1)" if "TYPE slip" in more else "integer"
    bar.connection.execute(
        f"""CREATE FUNCTION compare(p integer) RETURNS void LANGUAGE plpgsql AS $$
        DECLARE x integer; y integer; close integer; get integer[]; d {domain}; s {slip}; BEGIN
        x := (SELECT given FROM cups WHERE id = 1); {second}
        IF x <> y THEN INSERT INTO gifts VALUES (1, 1), (1, 2); END IF; END $$""".encode()
    )
    found = bar.explore("SELECT compare(1)", "UPDATE cups SET given = given + 1")
    assert "given twice" in found.broken
    assert found.exhausted


@pytest.mark.parametrize("before", ["", "PERFORM FROM cups; COMMIT;"], ids=["then COMMIT", "at its end"])
def test_what_a_procedure_defers_to_its_commit_is_a_step_before_it(bar: Bar, before: str) -> None:
    """A deferred check of a procedure with COMMIT inside, and its commit, are two steps; so it passes twice."""
    bar.connection.execute(BEHIND["a deferred trigger"][1].encode())
    bar.connection.execute(
        f"""CREATE PROCEDURE give_once() LANGUAGE plpgsql AS $$ BEGIN {before} INSERT INTO gifts VALUES (1, 1);
        {"" if before else "COMMIT;"} END $$;
        CREATE PROCEDURE give_inside() LANGUAGE plpgsql AS 'BEGIN CALL give_once(); END'""".encode()
    )
    found = bar.explore("CALL give_inside()", "CALL give_once()")
    assert "given twice" in found.broken
    assert found.exhausted


def test_creating_what_is_not_there_yet_is_broken(bar: Bar) -> None:
    """A look into the catalogue is a step, and so is what defines something."""
    found = bar.give(
        """BEGIN IF to_regclass('made') IS NULL THEN CREATE TABLE made (); END IF;
           EXCEPTION WHEN duplicate_table OR unique_violation THEN INSERT INTO gifts VALUES (1, 1), (1, 2); END"""
    )
    assert "given twice" in found.broken


def test_what_a_refused_statement_read_is_known(bar: Bar) -> None:
    """A statement that a policy refuses is tried before and after the change that lets it pass."""
    bar.connection.execute(
        """CREATE ROLE guest; CREATE TABLE visits (cup integer); ALTER TABLE visits ENABLE ROW LEVEL SECURITY;
        CREATE POLICY known ON visits FOR INSERT WITH CHECK (EXISTS (SELECT FROM cups WHERE id = cup AND given > 0));
        GRANT ALL ON cups, visits TO guest"""
    )
    answers = set()

    def judge(run: SessionsRun) -> Iterable[str]:
        answers.add(run.answers[0][1].code)
        return ()

    sessions = [
        ["BEGIN", "INSERT INTO visits VALUES (1)", "ROLLBACK"],
        ["BEGIN", "UPDATE cups SET given = 1 WHERE id = 1", "COMMIT"],
    ]
    explore_sessions(
        bar.dsn,
        [
            Session(str(n), tuple(map(Statement, texts)), local="SET LOCAL ROLE guest")
            for n, texts in enumerate(sessions)
        ],
        Plan(),
        restore=bar.restore,
        judge=judge,
    )
    bar.connection.execute("DROP OWNED BY guest; DROP ROLE guest")
    assert answers == {None, "42501"}


def test_a_wait_runs_out_where_a_session_says_so(bar: Bar) -> None:
    """Where a session sets lock_timeout itself, the schedule is tried in which its wait runs out; it ends with it."""
    answers = set()

    def judge(run: SessionsRun) -> Iterable[str]:
        answers.add((run.answers[0][1].code, run.answers[0][-1].rows))
        return ()

    update = "UPDATE cups SET given = 1 WHERE id = 1"
    sessions = [["SET lock_timeout = '10s'", update, "SHOW lock_timeout"], [update]]
    explore_sessions(
        bar.dsn,
        [Session(str(n), tuple(map(Statement, texts))) for n, texts in enumerate(sessions)],
        Plan(),
        restore=bar.restore,
        judge=judge,
    )
    assert {code for code, _ in answers} == {None, "55P03"}


def test_whoever_may_call_a_function_may_call_its_copy(bar: Bar) -> None:
    """Where EXECUTE is taken from PUBLIC by default, a role that may call the function is still let through."""
    bar.connection.execute("CREATE ROLE guest; ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC")
    bar.connection.execute(
        """CREATE FUNCTION take() RETURNS void LANGUAGE plpgsql AS 'BEGIN PERFORM FROM cups; END';
        GRANT SELECT ON cups TO guest; GRANT EXECUTE ON FUNCTION take() TO guest"""
    )
    codes = set()

    def judge(run: SessionsRun) -> Iterable[str]:
        codes.add(run.answers[0][0].code)
        return ()

    guest = Session("guest", (Statement("SELECT take()"),), begin="BEGIN; SET LOCAL ROLE guest")
    explore_sessions(bar.dsn, [guest, guest], Plan(), restore=bar.restore, judge=judge)
    bar.connection.execute("DROP OWNED BY guest; DROP ROLE guest")
    assert codes == {None}


UNSPLIT = {
    "a language that nobody here reads": (
        "BEGIN PERFORM take_secretly(p); END",
        """CREATE LANGUAGE secret HANDLER plpgsql_call_handler;
           CREATE FUNCTION take_secretly(p integer) RETURNS void LANGUAGE secret AS
           $secret$ BEGIN IF (SELECT free FROM cups WHERE id = p) THEN CALL give(p); END IF; END $secret$""",
    ),
    "several expressions in one statement": (
        """DECLARE m text; BEGIN BEGIN RAISE EXCEPTION '% %', (SELECT free FROM cups WHERE id = p),
           (SELECT given FROM cups WHERE id = p); EXCEPTION WHEN raise_exception THEN NULL; END; END""",
        "",
    ),
    "a DO block": (
        "BEGIN EXECUTE 'DO $do$ BEGIN IF is_free(1) THEN CALL give(1); END IF; END $do$'; END",
        "",
    ),
    "several statements in one text": (
        "BEGIN EXECUTE 'UPDATE cups SET given = 0; UPDATE cups SET given = given + 1'; END",
        "",
    ),
    "a DO block in a text put together": (
        "BEGIN EXECUTE 'DO ' || quote_literal('BEGIN IF is_free(1) THEN CALL give(1); END IF; END'); END",
        "",
    ),
}


@pytest.mark.parametrize(("body", "more"), UNSPLIT.values(), ids=UNSPLIT)
def test_what_cannot_be_split_is_undecided(bar: Bar, body: str, more: str) -> None:
    """A body that is one step and should be several is named, and nobody says that every order was tried."""
    found = bar.give(body, more)
    assert found.truth is Truth.UNDECIDED
    assert found.undecided


def test_what_touches_more_than_its_text_says_is_named(bar: Bar) -> None:
    """A step that is measured to touch what its text does not say is taken at its strongest, and the report says so."""
    found = bar.give(
        "BEGIN UPDATE gifts SET n = 1; UPDATE asking SET wish = p; IF p = 3 THEN PERFORM FROM cups; END IF; END",
        """CREATE TABLE wishes (cup integer REFERENCES cups ON DELETE CASCADE); CREATE TABLE asking AS SELECT 1 AS wish;
           CREATE RULE wishing AS ON UPDATE TO asking DO INSTEAD INSERT INTO wishes VALUES (NEW.wish)""",
    )
    assert any("beyond what its text says" in remark for remark in found.not_covered)


def test_functions_of_extensions_are_split_like_others(bar: Bar) -> None:
    """A queue or a helper that an extension brings, written in PL/pgSQL, is no blind spot."""
    bar.connection.execute("CREATE EXTENSION citext; ALTER EXTENSION citext ADD FUNCTION is_free(integer)")
    found = bar.give("BEGIN IF is_free(p) THEN {give} END IF; END")
    assert "given twice" in found.broken
    assert any(step.startswith("is_free(integer)") for step in found.steps)
