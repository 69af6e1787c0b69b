"""Scenarios are judged without a contract: each kind of result, of value and of answer is called what it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest

from harness.check import Checks
from harness.checking.world import World
from harness.environment.database import Template
from harness.environment.embedded import EmbeddedServer
from harness.environment.servers import connect
from harness.errors import HarnessError, UsageError
from harness.options import Options
from harness.records import RunRecord
from harness.scenarios import reader
from harness.scenarios.acting import Actor, Driver, Play
from harness.verdict.findings import Finding, Truth

Check = Callable[..., RunRecord]


@pytest.fixture(scope="module")
def bare(server: EmbeddedServer) -> Iterator[Template]:
    """No migrations: a scenario's setup makes what it needs."""
    with Template(server, [], []) as template:
        yield template


@pytest.fixture
def checks(server: EmbeddedServer, bare: Template) -> Checks:
    return Checks(Options(timeout=5.0), server, bare)


@pytest.fixture
def check(checks: Checks, tmp_path: Path) -> Check:
    """Checks a scenario's text."""

    def made(text: str, **how: object) -> RunRecord:
        path = tmp_path / "tried.race.sql"
        path.write_text(text if "-- scenario:" in text else f"-- scenario: it holds\n{text}")
        return checks.check(reader.read(path), **how)  # type: ignore[arg-type]

    return made


def finding(run: RunRecord, name: str = "one_after_another") -> Finding:
    return next(each for each in run.findings if each.id == f"tried.{name}")


STOCK = """
-- setup
CREATE TABLE stock (item int PRIMARY KEY, n int NOT NULL);
CREATE TABLE sales (id bigint GENERATED ALWAYS AS IDENTITY, item int, who text, at timestamptz DEFAULT now());
INSERT INTO stock VALUES (1, 1), (2, 5);
CREATE FUNCTION buy(p_item int, p_who text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE left_over int;
BEGIN
    SELECT n INTO left_over FROM stock WHERE item = p_item {lock};
    IF left_over < 1 THEN RETURN 'sold out'; END IF;
    {between}
    UPDATE stock SET n = {n} WHERE item = p_item;
    INSERT INTO sales (item, who) VALUES (p_item, p_who);
    RETURN 'sold';
{handler}
END $$;
"""


def stock(lock: str = "", n: str = "n - 1", between: str = "", handler: str = "") -> str:
    return STOCK.replace("{lock}", lock).replace("{n}", n).replace("{between}", between).replace("{handler}", handler)


TWO = "-- session: alice\nSELECT buy(1, 'alice');\n-- session: bob\nSELECT buy(1, 'bob');\n"
NEVER = "-- never: more is sold than there was\nSELECT * FROM stock WHERE n < 0;\n"
COUNTER = "-- setup\nCREATE TABLE c (id int PRIMARY KEY, n int);\nINSERT INTO c VALUES (1, 0), (2, 0);\n"

TOKENS = """
-- setup
CREATE TABLE taken (who text, token text);
CREATE TABLE spare (token text);
INSERT INTO spare VALUES (md5(random()::text));
CREATE FUNCTION take(w text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE x text;
BEGIN
    SELECT token INTO x FROM spare;
    INSERT INTO taken VALUES (w, x);
    UPDATE spare SET token = md5(random()::text);
    RETURN x;
END $$;
-- session: a
SELECT take('a');
-- session: b
SELECT take('b');
"""
INVOICES = """
-- setup
CREATE SEQUENCE numbers;
CREATE TABLE invoices (id serial PRIMARY KEY, number text, who text);
-- session: one x 3
INSERT INTO invoices (number, who)
VALUES ('INV-' || lpad(nextval('numbers')::text, 4, '0'), :'session') RETURNING id, number;
"""

QUEUE = """
-- setup
CREATE TABLE jobs (id bigserial PRIMARY KEY, state text NOT NULL DEFAULT 'todo');
CREATE TABLE events (id bigserial PRIMARY KEY, job bigint NOT NULL);
INSERT INTO jobs DEFAULT VALUES;
INSERT INTO jobs DEFAULT VALUES;
CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO events (job) VALUES (NEW.id);
    RETURN NEW;
END $$;
CREATE TRIGGER noted AFTER UPDATE ON jobs FOR EACH ROW EXECUTE FUNCTION noted();
CREATE FUNCTION next_job() RETURNS bigint LANGUAGE sql AS $$
    UPDATE jobs SET state = 'doing' WHERE id = (
        SELECT j.id FROM jobs AS j WHERE j.state = 'todo' ORDER BY j.id LIMIT 1 FOR UPDATE SKIP LOCKED)
    RETURNING id;
$$;
-- session: worker x 2
SELECT next_job();
"""
OUTBOX = """
-- setup
CREATE TABLE outbox (id bigserial PRIMARY KEY, body text);
CREATE TABLE consumer (last_id bigint);
CREATE TABLE consumed (body text);
INSERT INTO consumer VALUES (0);
-- session: writer x 2
INSERT INTO outbox (body) VALUES (:'session');
-- session: reader
BEGIN;
INSERT INTO consumed SELECT body FROM outbox WHERE id > (SELECT last_id FROM consumer) ORDER BY id;
UPDATE consumer SET last_id = coalesce((SELECT max(id) FROM outbox), 0);
COMMIT;
"""

CASES: dict[str, tuple[str, Truth, str]] = {
    "a log's ids, in whatever order": (QUEUE, Truth.HELD, ""),
    "ids by whose order a reader goes": (OUTBOX, Truth.BROKEN, ""),
    "check then act": (stock() + TWO + NEVER, Truth.BROKEN, "overselling"),
    "lost update": (stock(n="left_over - 1") + TWO.replace("(1,", "(2,"), Truth.BROKEN, "lost update"),
    "row lock": (stock("FOR UPDATE") + TWO + NEVER, Truth.HELD, ""),
    "busy, declared": (stock("FOR UPDATE NOWAIT") + TWO + "-- busy: when error 55P03\n", Truth.HELD, ""),
    "busy, undeclared": (stock("FOR UPDATE NOWAIT") + TWO, Truth.UNDECIDED, "undeclared busy"),
    "busy, undeclared, by transaction": (
        COUNTER
        + "-- judge: transactions\n-- session: one x 2\nBEGIN;\nSELECT n FROM c WHERE id = 1 FOR UPDATE NOWAIT;\n"
        + "UPDATE c SET n = n + 1 WHERE id = 1;\nCOMMIT;\nSELECT 1;\n",
        Truth.UNDECIDED,
        "undeclared busy",
    ),
    "busy in words": (
        stock("FOR UPDATE NOWAIT", handler="EXCEPTION WHEN lock_not_available THEN RETURN 'come back';")
        + TWO
        + "-- busy: when buy = 'come back'\n",
        Truth.HELD,
        "",
    ),
    "busy in words, undeclared": (
        stock("FOR UPDATE NOWAIT", handler="EXCEPTION WHEN lock_not_available THEN RETURN 'come back';") + TWO,
        Truth.UNDECIDED,
        "undeclared busy",
    ),
    "counting in the row": (
        COUNTER + "-- session: one x 3\nUPDATE c SET n = n + 1 WHERE id = 1;\n",
        Truth.HELD,
        "",
    ),
    "counting in the client, in one transaction": (
        COUNTER
        + "-- session: one x 2\nBEGIN;\nSELECT n FROM c WHERE id = 1;\n"
        + "UPDATE c SET n = 1 WHERE id = 1 AND n = 0;\nCOMMIT;\n",
        Truth.BROKEN,
        "",
    ),
    "write skew": (
        COUNTER
        + "-- session: one\nBEGIN ISOLATION LEVEL REPEATABLE READ;\n"
        + "UPDATE c SET n = 1 WHERE id = 1 AND (SELECT sum(n) FROM c) = 0;\nCOMMIT;\n"
        + "-- session: two\nBEGIN ISOLATION LEVEL REPEATABLE READ;\n"
        + "UPDATE c SET n = 1 WHERE id = 2 AND (SELECT sum(n) FROM c) = 0;\nCOMMIT;\n",
        Truth.BROKEN,
        "write skew",
    ),
    "a serialization failure, unhandled": (
        COUNTER
        + "-- isolation: repeatable read\n-- session: one x 2\nBEGIN;\nSELECT n FROM c WHERE id = 1;\n"
        + "UPDATE c SET n = n + 1 WHERE id = 1;\nCOMMIT;\n",
        Truth.UNDECIDED,
        "unhandled 40001",
    ),
    "a serialization failure, retried": (
        COUNTER
        + "-- isolation: repeatable read\n-- retry: 40001 up to 5\n-- session: one x 2\nBEGIN;\n"
        + "SELECT n FROM c WHERE id = 1;\nUPDATE c SET n = n + 1 WHERE id = 1;\nCOMMIT;\n",
        Truth.HELD,
        "",
    ),
    "deadlock": (
        COUNTER
        + "-- session: one\nBEGIN;\nUPDATE c SET n = 1 WHERE id = 1;\nUPDATE c SET n = 1 WHERE id = 2;\nCOMMIT;\n"
        + "-- session: two\nBEGIN;\nUPDATE c SET n = 2 WHERE id = 2;\nUPDATE c SET n = 2 WHERE id = 1;\nCOMMIT;\n",
        Truth.BROKEN,
        "deadlock",
    ),
    "a torn read": (
        COUNTER
        + "-- session: writer\nBEGIN;\nUPDATE c SET n = 1 WHERE id = 1;\nUPDATE c SET n = 1 WHERE id = 2;\nCOMMIT;\n"
        + "-- session: reader\nBEGIN;\nSELECT n FROM c WHERE id = 1;\nSELECT n FROM c WHERE id = 2;\nCOMMIT;\n",
        Truth.BROKEN,
        "read skew",
    ),
    "two reads": (
        COUNTER
        + "-- session: writer\nUPDATE c SET n = 1 WHERE id = 1;\n"
        + "-- session: reader\nBEGIN;\nSELECT n FROM c WHERE id = 1;\nSELECT n FROM c WHERE id = 1;\nCOMMIT;\n",
        Truth.BROKEN,
        "fuzzy read",
    ),
    "two transactions, and nobody says which unit": (
        COUNTER
        + "-- session: writer\nUPDATE c SET n = 1 WHERE id = 1;\n"
        + "-- session: reader\nSELECT n FROM c WHERE id = 1;\nSELECT n FROM c WHERE id = 1;\n",
        Truth.UNDECIDED,
        "not serializable",
    ),
    "two transactions, each a unit": (
        COUNTER
        + "-- session: writer\nUPDATE c SET n = 1 WHERE id = 1;\n-- judge: transactions\n"
        + "-- session: reader\nSELECT n FROM c WHERE id = 1;\nSELECT n FROM c WHERE id = 1;\n",
        Truth.HELD,
        "",
    ),
    "one random token for two": (TOKENS, Truth.BROKEN, ""),
    "one random number for two": (
        TOKENS.replace("md5(random()::text)", "(random() * 1e9)::int")
        .replace(" text", " int")
        .replace("(w int", "(w text")
        .replace("who int", "who text"),
        Truth.BROKEN,
        "",
    ),
    "a random number for each": (
        TOKENS.replace("md5(random()::text)", "(random() * 1e9)::int")
        .replace(" text", " int")
        .replace("(w int", "(w text")
        .replace("who int", "who text")
        .replace("FROM spare;", "FROM spare FOR UPDATE;"),
        Truth.HELD,
        "",
    ),
    "numbers made of a sequence": (INVOICES, Truth.HELD, ""),
    "a clock in a number": (
        COUNTER + "-- session: one x 2\nUPDATE c SET n = extract(epoch FROM clock_timestamp())::int WHERE id = :number "
        "RETURNING n, now(), clock_timestamp()::text;\n",
        Truth.HELD,
        "",
    ),
    "each takes away what the other's rule counts on": (
        COUNTER
        + "-- session: one\nDELETE FROM c WHERE id = 1 AND (SELECT count(*) FROM c) > 1;\n"
        + "-- session: two\nDELETE FROM c WHERE id = 2 AND (SELECT count(*) FROM c) > 1;\n",
        Truth.BROKEN,
        "write skew",
    ),
    "each looks, and puts down what the other looked for": (
        COUNTER
        + "CREATE FUNCTION book(p int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN\n"
        + "    IF EXISTS (SELECT FROM c WHERE n = 9) THEN RAISE 'taken'; END IF;\n"
        + "    INSERT INTO c VALUES (p, 9);\n    RETURN p;\nEND $$;\n-- session: one x 2\nSELECT book(:number + 10);\n",
        Truth.BROKEN,
        "write skew",
    ),
    "a voucher that both find free": (
        COUNTER
        + "CREATE TABLE orders (who text);\n-- session: one x 2\nBEGIN;\n"
        + "SELECT n < 1 AS free FROM c WHERE id = 1 \\gset\n"
        + "UPDATE c SET n = n + 1 WHERE id = 1 AND :'free'::boolean;\n"
        + "INSERT INTO orders SELECT :'session' WHERE :'free'::boolean;\nCOMMIT;\n",
        Truth.BROKEN,
        "double use",
    ),
    "what the setup keeps is known to sessions and conditions": (
        COUNTER
        + "\\set most 2\nINSERT INTO c VALUES (7, 0) RETURNING id AS it \\gset\n"
        + "SELECT format('INSERT INTO c VALUES (%s, 0)', i) FROM generate_series(8, 9) AS i \\gexec\n"
        + "UPDATE c SET n = n + 1 WHERE id = :it;\n"
        + "-- session: one x 2\nUPDATE c SET n = n + 1 WHERE id = :it AND n < :most;\n"
        + "-- never: one is not counted\nSELECT FROM c WHERE id = :it AND n <> :'most'::int\n"
        + "-- always:\nSELECT count(*) = 5 FROM c;\n",
        Truth.HELD,
        "",
    ),
    "what a session keeps beats what the setup set": (
        COUNTER
        + "\\set had 5\n-- session: one x 2\nBEGIN;\nSELECT n AS had FROM c WHERE id = 1 FOR UPDATE \\gset\n"
        + "UPDATE c SET n = :had + 1 WHERE id = 1;\nCOMMIT;\n"
        + "-- always:\nSELECT n = 2 FROM c WHERE id = 1;\n",
        Truth.HELD,
        "",
    ),
    "a process id": (
        COUNTER + "-- session: one x 2\nUPDATE c SET n = n * 0 + pg_backend_pid() WHERE id = :number RETURNING n;\n",
        Truth.HELD,
        "",
    ),
    "generated keys of a JSON object": (
        COUNTER
        + "CREATE TABLE j (id serial, doc jsonb);\n-- session: one x 2\n"
        + "INSERT INTO j (doc) SELECT jsonb_build_object(\n"
        + "gen_random_uuid()::text, jsonb_build_object('who', :'session'), 'n', 1) RETURNING id, doc;\n",
        Truth.HELD,
        "",
    ),
    "a log of attempts": (
        COUNTER
        + "CREATE TABLE log (id serial, who text);\n-- session: one x 2\nINSERT INTO log (who) VALUES (:'session');\n"
        "BEGIN;\nSELECT n FROM c WHERE id = 1 FOR UPDATE NOWAIT;\nUPDATE c SET n = n + 1 WHERE id = 1;\nCOMMIT;\n"
        "-- busy: when error 55P03\n-- ignore: log because it is a log of attempts\n",
        Truth.HELD,
        "",
    ),
    "the same log, compared": (
        COUNTER
        + "CREATE TABLE log (id serial, who text);\n-- session: one x 2\nINSERT INTO log (who) VALUES (:'session');\n"
        "BEGIN;\nSELECT n FROM c WHERE id = 1 FOR UPDATE NOWAIT;\nUPDATE c SET n = n + 1 WHERE id = 1;\nCOMMIT;\n"
        "-- busy: when error 55P03\n-- judge: sessions\n",
        Truth.BROKEN,
        "",
    ),
    "a stale figure that stands in a text beside a time, and nowhere else": (
        COUNTER
        + "CREATE TABLE log (line text);\nCREATE FUNCTION note() RETURNS void LANGUAGE plpgsql AS $$\n"
        + "DECLARE had int;\nBEGIN\n    SELECT n INTO had FROM c WHERE id = 1;\n"
        + "    UPDATE c SET n = n + 1 WHERE id = 1;\n"
        + "    INSERT INTO log VALUES (clock_timestamp() || ' there were ' || had);\nEND $$;\n"
        + "-- session: one x 2\nSELECT note();\n",
        Truth.BROKEN,
        "",
    ),
    "rows that are gathered in no order": (
        COUNTER
        + "-- session: one\nBEGIN;\nINSERT INTO c VALUES (11, 0);\nINSERT INTO c VALUES (13, 0);\nCOMMIT;\n"
        + "-- session: two\nINSERT INTO c VALUES (12, 0);\n-- session: reader\nSELECT array_agg(id) FROM c;\n",
        Truth.UNDECIDED,
        "choice without order",
    ),
    "a figure that is lost, gathered in no order": (
        COUNTER
        + "-- session: one x 2\nBEGIN;\nSELECT array_agg(n) AS had, sum(n) AS s FROM c \\gset\n"
        + "UPDATE c SET n = :s + 1 WHERE id = 1;\nCOMMIT;\n",
        Truth.BROKEN,
        "",
    ),
    "an empty text is not NULL in a row's text": (
        COUNTER
        + "CREATE TYPE pair AS (a text, b text);\n-- session: reader\nBEGIN;\n"
        + "SELECT ROW(CASE WHEN n = 0 THEN '' END, 'x')::pair AS p FROM c WHERE id = 1;\n"
        + "SELECT ROW(CASE WHEN n = 0 THEN '' END, 'x')::pair AS p FROM c WHERE id = 1;\nCOMMIT;\n"
        + "-- session: writer\nUPDATE c SET n = n + 1 WHERE id = 1;\n",
        Truth.BROKEN,
        "fuzzy read",
    ),
    "everybody is turned down": (
        COUNTER + "-- session: one x 2\nUPDATE c SET n = 1 WHERE id = 1 AND n > 7;\n",
        Truth.HELD,
        "",
    ),
    "allowed": (
        stock()
        + TWO
        + "-- allow: overselling because it is made up for\n-- allow: double use because it is made up for\n",
        Truth.HELD,
        "",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_happens_together_is_called_what_it_is(case: str, check: Check) -> None:
    """Each scenario gets its verdict, and each fault its name."""
    text, truth, anomaly = CASES[case]
    run = check(text)
    found = finding(run)
    assert found.truth is truth, (found, run.notes)
    if anomaly:
        assert found.anomaly == anomaly, found


def test_a_die_is_no_fault(check: Check) -> None:
    """What it shows may lie among what serial runs showed; else nobody can tell. Broken it is never."""
    run = check(
        COUNTER + "-- session: one x 3\nINSERT INTO c VALUES (10 + :number, (random() * 2)::int) RETURNING n;\n"
    )
    found = finding(run)
    assert found.truth is Truth.HELD or found.anomaly == "choice without order", found


def test_a_condition_may_ask_about_what_is_ignored(check: Check) -> None:
    """What is not compared is asked about all the same: two results that are else alike are two for a condition."""
    once = "INSERT INTO c SELECT 9, 0 WHERE NOT EXISTS (SELECT FROM c WHERE id = 9);\n"
    run = check(
        COUNTER.replace("PRIMARY KEY", "")
        + f"-- session: one x 2\n{once}-- ignore: c because it is tried here\n-- judge: queries only\n"
        + "-- never: it is there twice\nSELECT FROM c WHERE id = 9 HAVING count(*) > 1;\n",
        by=("explore",),
    )
    assert finding(run, "never_1").truth is Truth.BROKEN, run.findings


def test_a_role_that_is_not_there_is_said_with_its_line(check: Check) -> None:
    """`as:` of a role that nobody created is a mistake in the file."""
    with pytest.raises(UsageError, match=r"tried\.race\.sql:6: There is no role 'nobody_at_all'"):
        check(COUNTER + "-- session: one x 2\n-- as: nobody_at_all\nSELECT n FROM c;\n")


ODD = {
    "COPY data in the setup": (
        "COPY c FROM stdin;\n3\t0\n\\.\n-- session: a x 2\nUPDATE c SET n = n + 1 WHERE id = 3 RETURNING n;\n"
        "-- always: the row is there\nSELECT count(*) = 3 FROM c;\n"
    ),
    "temporary tables": "-- session: s x 2\nCREATE TEMP TABLE x AS SELECT 1;\nUPDATE c SET n = n + 1 WHERE id = 1;\n",
    "a cursor that is held": (
        "-- session: s\nBEGIN;\nDECLARE k CURSOR WITH HOLD FOR SELECT id FROM c;\nCOMMIT;\nFETCH 1 FROM k;\n"
        "-- session: t\nUPDATE c SET n = n + 1 WHERE id = 1;\n"
    ),
    "LISTEN and NOTIFY": (
        "-- session: a\nLISTEN ch;\nUPDATE c SET n = n + 1 WHERE id = 1;\n"
        "-- session: b\nUPDATE c SET n = n + 1 WHERE id = 1;\nNOTIFY ch;\n"
    ),
    "VACUUM": "-- session: a\nVACUUM c;\n-- session: b\nUPDATE c SET n = n + 1 WHERE id = 1;\n",
    "a session that ends its own backend": (
        "-- session: a\nSELECT pg_terminate_backend(pg_backend_pid());\n-- session: b\nUPDATE c SET n = 1;\n"
    ),
    "an answer of a megabyte": (
        "-- session: a\nSELECT repeat('x', 1000000) AS x;\n-- session: b\nUPDATE c SET n = n + 1 WHERE id = 1;\n"
    ),
    "a lock that the end of a session lets go of": (
        "-- session: s x 2\nSELECT pg_advisory_lock(1);\nUPDATE c SET n = n + 1 WHERE id = 1;\n"
    ),
    "variables": (
        "-- session: s x 2\nSELECT id AS it FROM c WHERE id = :number \\gset\n"
        "UPDATE c SET n = n + 1 WHERE id = :it RETURNING :'session' AS who;\n"
    ),
}


AT_ITS_END = {
    "advisory locks go": "-- session: s x 2\nSELECT pg_advisory_lock(1);\nUPDATE c SET n = n + 1 WHERE id = 1;\n",
    "what is open is rolled back": (
        "-- session: a\nBEGIN;\nUPDATE c SET n = 1 WHERE id = 1;\n"
        "-- session: b\nUPDATE c SET n = n + 1 WHERE id = 1 RETURNING n;\n"
    ),
    "settings, roles, channels, cursors and prepared statements go": (
        "-- session: a\nSHOW work_mem;\nSET work_mem = '77MB';\nPREPARE q AS UPDATE c SET n = n + 1 WHERE id = 1;\n"
        "EXECUTE q;\nBEGIN;\nDECLARE k CURSOR WITH HOLD FOR SELECT id FROM c;\nCOMMIT;\n"
        "SELECT pg_listening_channels();\nLISTEN ch;\n"
        "-- session: b\nSELECT current_user = session_user AS me;\nUPDATE c SET n = n + 1 WHERE id = 1;\n"
        "SET ROLE pg_monitor;\n"
    ),
}


@pytest.mark.parametrize("case", AT_ITS_END)
def test_a_session_s_end_is_a_step(case: str, check: Check) -> None:
    """Its connection closes with it: nobody waits for what it held, and the next try finds nothing of it."""
    run = check(COUNTER + AT_ITS_END[case])
    assert {each.truth for each in run.findings} == {Truth.HELD}, run.findings
    assert run.details["check"]["exhausted"]
    assert any("a ends in a transaction" in note for note in run.notes) == ("rolled back" in case)


def test_a_table_that_a_session_alters_is_compared(check: Check) -> None:
    """What differs in its columns differs in all of its rows; an order that loses an update is still found."""
    text = COUNTER + "-- session: a\nUPDATE c SET n = n + 1 WHERE id = 1;\n-- session: b\nALTER TABLE c ADD z int;\n"
    run = check(text, by=("race",))
    assert finding(run).truth is Truth.HELD
    assert run.details["check"]["restored"].startswith("by a clone")
    lost = "BEGIN;\nSELECT n AS had FROM c WHERE id = 1 \\gset\nUPDATE c SET n = :had + 1 WHERE id = 1;\nCOMMIT;\n"
    both = f"-- session: a\n{lost}-- session: b\n{lost}ALTER TABLE c ADD z int;\n-- judge: sessions\n"
    assert finding(check(COUNTER + both, by=("race",))).truth is Truth.BROKEN


def test_a_statement_made_of_answers_is_read_like_any_other(check: Check) -> None:
    """Its tables are known before its values are: sessions that touch different ones need one order."""
    tables = "".join(f"CREATE TABLE t{n} (n int);\nINSERT INTO t{n} VALUES (1);\n" for n in (1, 2))
    mine = "BEGIN;\nSELECT n AS had FROM t{0} \\gset\nUPDATE t{0} SET n = :had + 1;\nCOMMIT;\n"
    text = COUNTER + tables + "-- session: a\n" + mine.format(1) + "-- session: b\n" + mine.format(2)
    run = check(text, by=("explore",))
    assert finding(run).truth is Truth.HELD
    assert run.details["check"]["schedules"] == 1
    lost = finding(check(COUNTER + tables + "-- session: a x 2\n" + mine.format(1), by=("explore",)))
    assert (lost.truth, lost.anomaly) == (Truth.BROKEN, "lost update")


def test_what_acts_through_dblink_is_raced(check: Check) -> None:
    """Its connection is its own and cannot be made to wait its turn: that is said, and race alone is made."""
    fake = "CREATE FUNCTION dblink_exec(text) RETURNS text LANGUAGE sql AS 'SELECT NULL::text';\n"
    run = check(COUNTER + fake + "-- session: a x 2\nSELECT dblink_exec('x');\nUPDATE c SET n = n + 1 WHERE id = 1;\n")
    assert run.details["check"]["by"] == ["race"]
    assert any("dblink is raced, and not explored" in note for note in run.notes)


def test_a_scenario_in_which_nothing_happens_says_so(check: Check) -> None:
    """Nobody changed anything, and everybody is told the same: held, with a word of doubt; a change takes it away."""
    sessions = "-- session: a x 2\nUPDATE c SET n = n + 1 WHERE id = {};\n"
    doubts = [
        [note for note in check(COUNTER + sessions.format(row)).notes if "nothing happened that could race" in note]
        for row in (9, 1)
    ]
    assert [len(each) for each in doubts] == [1, 0]


def test_results_that_differ_in_made_up_ids_alone_are_judged_once(check: Check) -> None:
    """A row's random id, and a time, tell no result from another; which of two rows that were there was taken does."""
    tables = (
        "CREATE TABLE doors (id uuid PRIMARY KEY, free boolean);\n"
        "CREATE TABLE notes (id uuid, door uuid, at timestamptz);\n"
        "INSERT INTO doors VALUES ('00000000-0000-4000-8000-000000000001', true), "
        "('00000000-0000-4000-8000-000000000002', true);\n"
    )
    take = (
        "BEGIN;\nSELECT id AS door FROM doors WHERE free ORDER BY id LIMIT 1 \\gset\n"
        "UPDATE doors SET free = false WHERE id = :'door';\n"
        "INSERT INTO notes VALUES (gen_random_uuid(), :'door', now()) RETURNING id;\nCOMMIT;\n"
    )
    run = check(COUNTER + tables + f"-- session: a x 2\n{take}")
    assert finding(run).truth is Truth.BROKEN
    assert run.details["check"]["results"] == 3  # first a's door and then b's, the other way round, one for both
    assert run.details["check"]["schedules"] > 5


@pytest.mark.parametrize("case", ODD)
def test_what_is_odd_is_supported(case: str, check: Check) -> None:
    """Each runs, is judged, and leaves nothing to the next try."""
    run = check(COUNTER + ODD[case], by=("race",))
    assert finding(run).truth is Truth.HELD, run.findings
    assert not [note for note in run.notes if "fails already" in note and "backend" not in case]


REFUSED = {
    "a variable that nothing sets": (
        "-- session: a\nSELECT 1 AS one \\gset\nUPDATE c SET n = :one + :two;\n",
        ":7: the variable :two is not set here.",
        "\\gset",
    ),
    "a variable of the setup that nothing sets": (
        "UPDATE c SET n = :n;\n-- session: a\nSELECT 1;\n",
        ":5: the variable :n is not set here.",
        "",
    ),
    "wrong SQL": ("-- session: a\nSELECT nope FROM c;\n", ":6: the session a fails already when it is alone", "42703"),
    "COPY": ("-- session: a\nCOPY c FROM STDIN;\n\\.\n", ":6: COPY from or to the client", ""),
    "a prepared transaction": ("-- session: a\nBEGIN;\nPREPARE TRANSACTION 'x';\n", ":7: A prepared transaction", ""),
    "a setup that does not commit": ("BEGIN;\n-- session: a\nSELECT 1;\n", ":5: the setup begins a transaction", ""),
    "a setup that fails": ("SELECT nope();\n-- session: a\nSELECT 1;\n", ":5: the setup fails", "42883"),
    "a condition that fails": (
        "-- session: a\nSELECT 1;\n-- never: x\nSELECT 1/0;\n",
        ":8: the query of `never:`",
        "22012",
    ),
    "busy that cannot be asked": (
        "-- session: a x 2\nSELECT n FROM c;\n-- busy: when n = nope()\n",
        ":7: the condition of `busy:` cannot be evaluated",
        "42883",
    ),
    "busy with an operator that is not there": (
        "-- session: a x 2\nUPDATE c SET n = 1;\n-- busy: when n >>> 1\n",
        ":7: the condition of `busy:` cannot be evaluated: there is no operator >>>",
        "",
    ),
    "a table that is not there, ignored": (
        "-- session: a\nSELECT 1;\n-- ignore: cc because it is a log\n",
        ":7: `ignore:` names what is not there: there is no table cc",
        "did you mean c?",
    ),
    "a column that is not there, ignored": (
        "-- session: a\nSELECT 1;\n-- ignore: c.m because it is a log\n",
        ":7: `ignore:` names what is not there: c has no column m",
        "",
    ),
    "a session that is retried after a commit": (
        "-- retry session: 40001 up to 2\n-- session: a\nSELECT 1;\nSELECT 2;\n",
        ":6: `retry session:` would run what is committed once more",
        "",
    ),
    "a session that does not end alone": (
        "-- session: a\nSELECT pg_sleep(9);\n",
        ":5: the session a does not end when the sessions run one after another",
        "",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_judged_is_refused(case: str, check: Check, checks: Checks) -> None:
    """File, line, what is wrong and what the server said; nothing is left behind."""
    text, what, code = REFUSED[case]
    checks.options = Options(timeout=1.0)
    with pytest.raises(UsageError) as error:
        check(COUNTER + text)
    assert what in error.value.what
    assert code in str(error.value)


def test_what_never_holds_is_broken_without_any_concurrency(check: Check) -> None:
    """A query that finds something where all sessions ended one after another says so."""
    run = check(COUNTER + "-- session: a x 2\nUPDATE c SET n = 5;\n-- never: five\nSELECT * FROM c WHERE n = 5;\n")
    assert "without any concurrency: after a-1, then a-2" in finding(run, "never_1").observed
    assert finding(run).truth is Truth.HELD


@pytest.mark.parametrize("judge", ["", "-- judge: queries only\n"])
def test_what_is_always_so_is_asked_when_everybody_has_ended(judge: str, check: Check) -> None:
    """A sum that both add to is not yet there after the setup, or after one of the two."""
    text = COUNTER + judge + "-- session: a x 2\nUPDATE c SET n = n + 1 WHERE id = 1;\n"
    assert finding(check(text + "-- always: both\nSELECT n = 2 FROM c WHERE id = 1;\n"), "always_1").truth is Truth.HELD
    run = check(text + "-- always: one\nSELECT n = 1 FROM c WHERE id = 1;\n")
    assert "without any concurrency: after a-1, then a-2" in finding(run, "always_1").observed


def test_an_order_of_transactions_is_a_race_of_sessions(check: Check) -> None:
    """A condition fails between their transactions by concurrency alone; who uses what it was told is one unit."""
    spend = (
        "SELECT n >= 0 AS enough FROM c WHERE id = 1 \\gset\n"
        "UPDATE c SET n = n - 1 WHERE id = 1 AND :'enough'::boolean;\n"
    )
    run = check(
        COUNTER + f"-- session: a x 2\n{spend}-- never: below\nSELECT * FROM c WHERE n < -1;\n", by=("explore",)
    )
    assert (found := finding(run, "never_1")).truth is Truth.BROKEN
    assert "without any concurrency" not in found.observed
    assert "a-1 uses what an earlier transaction was told (:enough)" in finding(run).remedy


def test_a_partitioned_table_is_ignored_with_its_partitions(check: Check) -> None:
    """The rows are the partitions'; a log that is compared tells who was busy, one that is ignored does not."""
    text = (
        COUNTER + "CREATE TABLE log (who text) PARTITION BY LIST (who);\n"
        "CREATE TABLE log_all PARTITION OF log DEFAULT;\n-- session: a x 2\nINSERT INTO log VALUES (:'session');\n"
        "BEGIN;\nSELECT n FROM c WHERE id = 1 FOR UPDATE NOWAIT;\nUPDATE c SET n = n + 1 WHERE id = 1;\nCOMMIT;\n"
        "-- busy: when error 55P03\n-- judge: sessions\n"
    )
    assert finding(check(text)).truth is Truth.BROKEN
    assert finding(check(text + "-- ignore: log because it is a log of attempts\n")).truth is Truth.HELD


def test_a_condition_that_no_answer_can_meet_is_named(check: Check) -> None:
    """A column that no answer has is likely misspelt."""
    run = check(COUNTER + "-- session: a x 2\nSELECT n FROM c;\n-- busy: when stauts = 'x'\n")
    assert any("can mean no answer: none has a column stauts" in note for note in run.notes)


def test_a_session_that_hangs_is_a_finding(check: Check, checks: Checks) -> None:
    """Two that try for each other's lock for ever end one after another, and not together."""
    checks.options = Options(timeout=0.5)
    wait = "DO $$ BEGIN WHILE NOT pg_try_advisory_lock({}) LOOP PERFORM pg_sleep(0.01); END LOOP; END $$;\n"
    one = "-- session: {}\nSELECT pg_advisory_lock({});\nSELECT pg_sleep(0.05);\n"
    text = one.format("a", 1) + wait.format(2) + one.format("b", 2) + wait.format(1)
    found = finding(check(COUNTER + text, by=("race",)))
    assert (found.truth, found.anomaly) == (Truth.BROKEN, "hang")


def test_two_files_of_one_name_are_told_apart(checks: Checks, tmp_path: Path) -> None:
    """The second one's findings have the folder's name."""
    names = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / "same.race.sql"
        path.write_text("-- scenario: same\n-- session: a\nSELECT 1;\n-- session: b\nSELECT 1;\n")
        names.append(checks.check(reader.read(path), by=("race",)).findings[0].id)
    assert names == ["same.one_after_another", "two/same.one_after_another"]


ENDS = "EXECUTE 'SELECT pg_termin' || 'ate_backend(pg_backend_pid())';"
"""Not to be read from the text: as if an administrator had done it."""

MET = (
    "CREATE FUNCTION step() RETURNS void LANGUAGE plpgsql AS $$\nDECLARE a int; b int;\nBEGIN\n"
    "  SELECT n INTO a FROM c WHERE id = 1;\n  SELECT n INTO b FROM c WHERE id = 1;\n"
    f"  IF a <> b THEN {ENDS} END IF;\n  UPDATE c SET n = n + 1 WHERE id = 1;\nEND $$;\n"
)
"""Its connection ends where somebody came in between."""


def test_a_schedule_whose_connection_was_lost_is_not_judged(check: Check) -> None:
    """What it left is nobody's result: the search ends there, and says that it did not try every order."""
    run = check(COUNTER + MET + "-- session: s x 2\nSELECT step();\n", by=("explore",))
    assert {f.truth for f in run.findings} == {Truth.HELD, Truth.UNDECIDED}
    assert "the connection of " in finding(run, "every_order_tried").observed


@pytest.mark.parametrize(
    "text",
    [
        f"DO $$ BEGIN {ENDS} END $$;\n-- session: s x 2\nUPDATE c SET n = n + 1 WHERE id = 1;\n",
        "-- session: s\nUPDATE c SET n = 1;\n-- never: n is low\nSELECT pg_terminate_backend(pg_backend_pid());\n",
        f"-- session: s x 2\nDO $$ BEGIN {ENDS} END $$;\n",
    ],
    ids=["in the setup", "in a condition", "in a serial order"],
)
def test_a_connection_that_is_lost_is_no_mistake_of_the_scenario(text: str, check: Check) -> None:
    """It is the environment's fault: neither wrong usage, nor a result that others are judged by."""
    with pytest.raises((psycopg.OperationalError, HarnessError)) as raised:
        check(COUNTER + text)
    assert not isinstance(raised.value, UsageError)


def test_rounds_that_lose_a_connection_are_made_again(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are counted, and not judged."""
    lost = iter([False] * 12 + [True])
    monkeypatch.setattr(World, "lost", lambda *_: next(lost, False))
    run = check(COUNTER + "-- session: s x 2\nUPDATE c SET n = n + 1 WHERE id = 1;\n", by=("race",))
    assert finding(run).truth is Truth.HELD
    assert "not judged: 1 round in which a session's connection was lost" in run.notes


def test_a_backend_that_ends_between_two_rounds_spoils_one(
    check: Check, server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What would be sent next, behind the transaction's beginning, is sent to nobody."""
    drive, ended = Driver.drive, []

    def without_one(self: Driver, plays: Sequence[tuple[Actor, Play]], *how: Any, **more: Any) -> None:
        if len(plays) == 2 and not ended:
            ended.append(plays[0][0].pgconn.backend_pid)
            with connect(server.dsn) as connection:
                connection.execute("SELECT pg_terminate_backend(%s, 5000)", ended)
        drive(self, plays, *how, **more)

    monkeypatch.setattr(Driver, "drive", without_one)
    add = "-- isolation: repeatable read\n-- retry: 40001 up to 20\n-- session: s x 2\nUPDATE c SET n = n + 1;\n"
    run = check(COUNTER + add, by=("race",))
    assert ended
    assert finding(run).truth is Truth.HELD
    assert "not judged: 1 round in which a session's connection was lost" in run.notes
