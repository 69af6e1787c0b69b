"""`now: TIMESTAMP`: a scenario at a chosen moment, at which time stands still in its scratch database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from harness.check import Checks
from harness.environment.database import Template
from harness.environment.embedded import EmbeddedServer
from harness.environment.servers import ExternalServer
from harness.errors import UsageError
from harness.options import Options
from harness.records import RunRecord
from harness.scenarios import reader
from harness.scenarios.clock import standing_still
from harness.verdict.findings import Truth

MIGRATION = """
CREATE TABLE leases (
    name text PRIMARY KEY, holder text, until timestamptz NOT NULL,
    made timestamptz DEFAULT now(), stamped timestamptz DEFAULT CURRENT_TIMESTAMP
);
CREATE FUNCTION take(who text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    UPDATE leases SET holder = who, until = CURRENT_TIMESTAMP + interval '1 minute' WHERE until <= now();
    RETURN FOUND;
END $$;
CREATE FUNCTION take_late(who text) RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog, public AS $$
BEGIN
    IF (SELECT until FROM leases) > clock_timestamp() THEN
        RETURN false;
    END IF;
    UPDATE leases SET holder = who, until = now() + interval '1 minute';
    RETURN true;
END $$;
CREATE MATERIALIZED VIEW due AS SELECT name FROM leases WHERE until::date <= CURRENT_DATE;
CREATE TABLE hits (at timestamptz NOT NULL DEFAULT now());
CREATE DOMAIN past AS timestamptz CHECK (VALUE <= CURRENT_TIMESTAMP);
CREATE TABLE seen (at past, CHECK (at < CURRENT_TIMESTAMP));
"""


@pytest.fixture(scope="module")
def checks(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checks]:
    migration = tmp_path_factory.mktemp("now") / "001.sql"
    migration.write_text(MIGRATION)
    with Template(server, [migration], []) as template:
        yield Checks(Options(timeout=5.0), server, template)


def tried(checks: Checks, folder: Path, text: str, by: tuple[str, ...] = ("explore",)) -> RunRecord:
    path = folder / "tried.race.sql"
    path.write_text(f"-- scenario: it holds\n{text}")
    return checks.check(reader.read(path), by=by)


LEASE = """
-- setup
INSERT INTO leases (name, holder, until) VALUES ('mail', 'old', '2030-01-01 12:00:00+00');
-- session: worker x 2
SELECT {take}(:'session') AS mine;
-- always: nobody takes a lease before its end, and one does from then on
SELECT (holder = 'old') = (now() < '2030-01-01 12:00:00+00') AND until <= now() + interval '1 minute' FROM leases;
"""
WINDOW = """
-- setup
INSERT INTO hits SELECT '2030-01-01 12:00:00+00'::timestamptz + n * interval '20 s' FROM generate_series(0, 1) AS n;
-- session: client x 2
BEGIN;
{lock}INSERT INTO hits SELECT WHERE (SELECT count(*) FROM hits WHERE at > now() - interval '1 minute') < 3;
COMMIT;
"""
EXPIRY = """
-- setup
CREATE TABLE codes (code text PRIMARY KEY, used boolean DEFAULT false, expires date NOT NULL);
INSERT INTO codes VALUES ('SUMMER', false, '2030-08-31');
-- session: guest x 2
{take}
-- never: a code of yesterday is used
SELECT FROM codes WHERE used AND expires < CURRENT_DATE;
"""
TAKE_CODE = "UPDATE codes SET used = true WHERE NOT used AND expires >= CURRENT_DATE RETURNING code;"
TAKE_READ_CODE = """BEGIN;
SELECT NOT used AND expires >= CURRENT_DATE AS good FROM codes \\gset
UPDATE codes SET used = true WHERE :'good'::boolean RETURNING code;
COMMIT;"""
LOCK = "LOCK TABLE hits IN EXCLUSIVE MODE;\n"

MOMENTS = {
    "a lease, a moment before its end": ("2030-01-01 11:59:59.999999", LEASE.format(take="take_late"), Truth.HELD),
    "a lease, at its end": ("2030-01-01 12:00", LEASE.format(take="take_late"), Truth.BROKEN),
    "a lease, at its end, taken in one statement": ("2030-01-01T13:00+01:00", LEASE.format(take="take"), Truth.HELD),
    "a code on its last day": ("2030-08-31 23:59:59", EXPIRY.format(take=TAKE_READ_CODE), Truth.BROKEN),
    "a code on its last day, in one statement": ("2030-08-31 23:59:59", EXPIRY.format(take=TAKE_CODE), Truth.HELD),
    "a code a day later": ("2030-09-01", EXPIRY.format(take=TAKE_READ_CODE), Truth.HELD),
    "a window with room for one more": ("2030-01-01 12:00:59", WINDOW.format(lock=""), Truth.BROKEN),
    "a window with room for one more, locked": ("2030-01-01 12:00:59", WINDOW.format(lock=LOCK), Truth.HELD),
    "a window with room for both": ("2030-01-01 12:01:01", WINDOW.format(lock=""), Truth.HELD),
}


@pytest.mark.parametrize("case", MOMENTS)
def test_leases_expiries_and_windows_are_tried_at_a_chosen_moment(case: str, checks: Checks, tmp_path: Path) -> None:
    """A moment before the limit and at it are told apart, in each of the ways in which SQL asks for the time."""
    moment, text, truth = MOMENTS[case]
    run = tried(checks, tmp_path, f"-- now: {moment}\n{text}")
    assert run.truth is truth, (run.findings, run.notes)
    assert any("time stands still at 20" in note for note in run.notes)


ASKED = """
-- now: 2030-01-01 12:00:00.5+00
-- setup
INSERT INTO leases (name, until) VALUES ('a', now());
CREATE FUNCTION asked() RETURNS timestamptz LANGUAGE sql AS 'SELECT CURRENT_TIMESTAMP';
-- session: one x 2
SELECT now(), transaction_timestamp(), statement_timestamp(), clock_timestamp(), pg_catalog.now(), CURRENT_TIMESTAMP,
    LOCALTIMESTAMP, CURRENT_TIMESTAMP(3), asked(), (SELECT made FROM leases), (SELECT stamped FROM leases);
SELECT CURRENT_DATE, LOCALTIMESTAMP(0), timeofday(), age('2029-12-31'::timestamptz) AS a, age('2029-12-31'::timestamp);
-- always: it is then
SELECT every(at = '2030-01-01 12:00:00.5+00')
  FROM unnest(ARRAY[now(), clock_timestamp(), asked(), CURRENT_TIMESTAMP]) AS at;
-- always: the rows say so
SELECT until = made AND stamped = made AND made = '2030-01-01 12:00:00.5+00' FROM leases;
-- always: days say so
SELECT CURRENT_DATE = '2030-01-01' AND age('2029-12-31'::timestamp) = '1 day'
    AND timeofday() LIKE 'Tue Jan 01 12:00:00.5%' AND LOCALTIME = '12:00:00.5' AND CURRENT_TIME = '12:00:00.5+00';
"""


def test_every_way_to_ask_for_the_time_gives_the_moment(checks: Checks, tmp_path: Path) -> None:
    """Functions, words of the grammar, defaults that were stored before, bodies; and nothing is masked as a clock."""
    run = tried(checks, tmp_path, ASKED)
    assert run.truth is Truth.HELD, run.findings
    assert not run.details["check"]["masked"]


STORED = """
-- now: 2030-01-01 23:30+00
-- setup
CREATE DOMAIN stamped AS timestamptz DEFAULT CURRENT_TIMESTAMP;
CREATE TABLE t (id int PRIMARY KEY, old date DEFAULT ('now'::text)::date, at stamped);
CREATE FUNCTION given(p date DEFAULT CURRENT_DATE, q timestamptz DEFAULT now()) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN RETURN p = '2030-01-01' AND q = now(); END $$;
CREATE FUNCTION cast_now() RETURNS timestamptz LANGUAGE sql AS $$ SELECT CAST('now' AS timestamptz) $$;
CREATE PROCEDURE keep(INOUT at timestamptz DEFAULT LOCALTIMESTAMP) LANGUAGE plpgsql AS $$ BEGIN at := at; END $$;
CREATE VIEW early WITH (security_barrier) AS SELECT id, CURRENT_DATE AS today FROM t WHERE at <= CURRENT_TIMESTAMP;
CREATE ROLE now_reader;
ALTER TABLE t ENABLE ROW LEVEL SECURITY;
CREATE POLICY due ON t USING (at <= CURRENT_TIMESTAMP);
GRANT SELECT, UPDATE ON t TO now_reader;
INSERT INTO t (id) VALUES (1);
INSERT INTO t (id, at) VALUES (2, '2030-01-02');
-- session: reader x 2
-- as: now_reader
UPDATE t SET old = old + 1;
-- always: definitions say so
SELECT given(), cast_now() = now(), date 'tomorrow' = '2030-01-02', array_agg(id) = '{1}', every(today = '2030-01-01')
  FROM early;
-- always: rows say so
SELECT every(old = CASE id WHEN 1 THEN date '2030-01-03' ELSE '2030-01-01' END AND (at = now() OR id = 2)) FROM t;
-- always: views are what they were
SELECT reloptions = '{security_barrier=true}' FROM pg_class WHERE relname = 'early';
"""


def test_what_was_defined_before_asks_for_the_moment_too(checks: Checks, tmp_path: Path) -> None:
    """Defaults of columns, domains and parameters, views, policies, literals: they are defined again."""
    try:
        run = tried(checks, tmp_path, STORED, by=("race",))
    finally:
        with psycopg.connect(checks.server.dsn, autocommit=True) as admin:
            admin.execute("DROP ROLE IF EXISTS now_reader")
    assert run.truth is Truth.HELD, run.findings
    assert not [note for note in run.notes if "real clock" in note]


def test_a_day_is_that_of_the_sessions_time_zone(checks: Checks, tmp_path: Path) -> None:
    """CURRENT_DATE, age() and timeofday() as the server gives them."""
    text = (
        "-- now: 2030-01-01 23:30+00\n-- session: a x 2\nSELECT 1;\n-- always: Tokyo is a day ahead\n"
        "SELECT set_config('TimeZone', 'Asia/Tokyo', true) = 'Asia/Tokyo', CURRENT_DATE = '2030-01-02',\n"
        "    age('2030-01-01'::timestamp) = '1 day', timeofday() = 'Wed Jan 02 08:30:00.000000 2030 JST';\n"
    )
    run = tried(checks, tmp_path, text)
    assert next(each for each in run.findings if "always" in each.id).truth is Truth.HELD, run.findings


REAL = """
-- now: 2030-01-01
-- setup
CREATE FUNCTION built() RETURNS timestamptz LANGUAGE plpgsql AS $$
DECLARE at timestamptz := 'now';
BEGIN
    EXECUTE 'SELECT CURRENT_TIMESTAMP' INTO at;
    RETURN at;
END $$;
-- session: a
SELECT * FROM {table};
SELECT built() > '2000-01-01', 'today' <> 'CURRENT_DATE';
-- session: b
SELECT 1;
"""


def test_what_reads_the_real_clock_all_the_same_is_named(checks: Checks, tmp_path: Path) -> None:
    """A view that keeps its rows, a check, what is assigned or executed; what nobody reads is not named."""
    notes = tried(checks, tmp_path, REAL.format(table="due, seen"), by=("race",)).notes
    said = [note for note in notes if "real clock" in note]
    for what in (
        "view due",
        "domain past of seen",
        "check seen_at_check of seen",
        "'now'",
        "'today'",
        "'SELECT CURRENT_TIMESTAMP'",
    ):
        assert [note for note in said if note.startswith(f"{what} reads the real clock")], said
    assert len(said) == 6, said
    notes = tried(checks, tmp_path, REAL.format(table="hits"), by=("race",)).notes
    assert not any("view due" in note for note in notes)


def test_a_role_that_may_not_replace_the_clock_is_told_so(server: EmbeddedServer, tmp_path: Path) -> None:
    """On somebody else's server: what is needed, and nothing is left."""
    with psycopg.connect(server.dsn, autocommit=True) as admin:
        admin.execute("CREATE ROLE now_plain LOGIN CREATEDB PASSWORD 'x'")
        try:
            dsn = make_conninfo(server.dsn, user="now_plain", password="x")
            with ExternalServer(dsn) as theirs, Template(theirs, [], []) as template:
                checks = Checks(Options(timeout=5.0), theirs, template)
                with pytest.raises(UsageError, match="`now:` needs a superuser"):
                    tried(checks, tmp_path, "-- now: 2030-01-01\n-- session: a\nSELECT 1;\n")
        finally:
            admin.execute("DROP ROLE now_plain")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("SELECT CURRENT_DATE + 1", "SELECT pg_catalog.now()::date + 1"),
        (
            "SELECT current_timestamp(0), 'é', localtime",
            "SELECT pg_catalog.now()::timestamptz(0), 'é', pg_catalog.now()::time",
        ),
        (
            "SELECT 'CURRENT_DATE', \"current_date\" -- CURRENT_DATE",
            "SELECT 'CURRENT_DATE', \"current_date\" -- CURRENT_DATE",
        ),
        ("SELECT 'now'::timestamptz, 'now'::text, 'now'", "SELECT pg_catalog.now()::timestamptz, 'now'::text, 'now'"),
        (
            "SELECT ('NOW'::text)::date, date 'today'",
            "SELECT (pg_catalog.now()::text)::date, (pg_catalog.now()::date)::date",
        ),
        ("SELECT CAST('yesterday' AS date)", "SELECT CAST((pg_catalog.now()::date - 1) AS date)"),
        ("SELECT 'unclosed CURRENT_DATE", "SELECT 'unclosed CURRENT_DATE"),
    ],
)
def test_words_of_the_grammar_become_calls(text: str, wanted: str) -> None:
    """Where they are words: not in strings, names and comments."""
    assert standing_still(text) == wanted
