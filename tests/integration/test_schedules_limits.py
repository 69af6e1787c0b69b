"""Exploration at its edges: deaths, waits that run out, what cannot be explored and what cannot be decided."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from harness import Contract, Function, UpTo, Variant, contracts
from harness.contracts import invariants
from harness.environment.database import Database
from harness.errors import HarnessError, UsageError
from harness.history import NEVER
from harness.schedules import Exploration, Plan, connections, engine, explore
from harness.schedules.carried import Carried
from harness.schedules.control import Controller
from harness.schedules.trace import Kind
from harness.verdict.findings import Truth

FUNCTIONS = Path(__file__).parent / "functions"
SCAN: Contract = contracts.load("scan_ticket")

HEAD = """
CREATE OR REPLACE FUNCTION scan_ticket_atomic(
    p_ticket_id uuid, p_scanned_by uuid, p_device_id text DEFAULT NULL, p_scan_method text DEFAULT 'qr'
) RETURNS TABLE (success boolean, already_scanned boolean, scanned_at timestamptz, scanned_by uuid, error_message text)
LANGUAGE plpgsql {attributes} AS $$
#variable_conflict use_column
DECLARE v_ticket tickets%ROWTYPE; v_now timestamptz := clock_timestamp();
BEGIN
{before}
    SELECT * INTO v_ticket FROM tickets WHERE id = p_ticket_id FOR UPDATE;
    IF v_ticket.is_used THEN
        RETURN QUERY SELECT false, true, v_ticket.scanned_at, v_ticket.scanned_by, 'Ticket already scanned'::text;
        RETURN;
    END IF;
    UPDATE tickets SET is_used = true, status = 'used', scanned_at = v_now, scanned_by = p_scanned_by
     WHERE id = p_ticket_id;
    INSERT INTO scan_logs (ticket_id, scanned_by, scanned_at, scan_success)
    VALUES (p_ticket_id, p_scanned_by, v_now, true);
    RETURN QUERY SELECT true, false, v_now, p_scanned_by, NULL::text;
{after}
END $$;
"""


def scan(before: str = "", after: str = "", attributes: str = "") -> str:
    """A correct function, with something more before, after or around its body."""
    return HEAD.format(before=before, after=after, attributes=attributes)


def tried(database: Database, sql: str = "", **plan: object) -> Exploration:
    with database.connect() as connection:
        connection.execute(sql.encode())
    wanted: dict[str, Any] = {"variants": ("own scanner, qr",), "keys": (1,)} | plan
    return explore(database.dsn, SCAN, Plan(**wanted), invariants.load((), SCAN))


def truths(exploration: Exploration) -> dict[str, Truth]:
    return {finding.id: finding.truth for finding in exploration.findings}


def outcomes(exploration: Exploration) -> set[str]:
    return {outcome for case in exploration.cases for outcome in case.outcomes}


def test_a_call_may_die_at_every_step_of_the_shipped_function(database: Database) -> None:
    """With one call made to die at each of its steps, every claim holds, and the ticket is of use afterwards."""
    found = tried(database, crash=True)
    assert found.truth is Truth.HELD
    assert found.exhausted
    assert truths(found)["usable_after_crash"] is Truth.HELD
    # Whoever died, the other came to all it can come to.
    assert {"in_doubt, accepted", "in_doubt, busy"} <= outcomes(found)


def test_what_a_death_leaves_stuck_is_found(database: Database) -> None:
    """A mark that no rollback takes back, as in a sequence, keeps a ticket busy after a death."""
    with database.connect() as connection:
        connection.execute("CREATE SEQUENCE last_taken MINVALUE -9223372036854775808")
    mark = """
        IF (SELECT last_value FROM last_taken) = hashtext(p_ticket_id::text) THEN
            RETURN QUERY SELECT false, false, NULL::timestamptz, NULL::uuid, 'is being processed'::text; RETURN;
        END IF;
        PERFORM setval('last_taken', hashtext(p_ticket_id::text));"""
    answer = "    RETURN QUERY SELECT true, false"
    function = scan(mark).replace(answer, f"PERFORM setval('last_taken', 0);\n{answer}")
    found = tried(database, function, calls=1, crash=True)
    assert truths(found)["usable_after_crash"] is Truth.BROKEN
    schedule = found.broken["usable_after_crash"]
    assert schedule.replay.endswith("!")
    assert [call.label for call in schedule.calls] == ["in_doubt", "busy"]
    assert any("sequence" in remark for remark in found.not_covered)


def test_a_lock_timeout_is_explored_both_ways(database: Database) -> None:
    """A call that waits with a lock_timeout is let wait to the end, and let run out of time, without waiting it out."""
    handler = """
    EXCEPTION WHEN lock_not_available THEN
        RETURN QUERY SELECT false, false, NULL::timestamptz, NULL::uuid, 'is being processed'::text;"""
    started = time.monotonic()
    found = tried(database, scan(after=handler, attributes="SET lock_timeout = '1h'"))
    assert found.truth is Truth.HELD
    assert found.exhausted
    assert {"accepted, already_scanned", "accepted, busy"} <= outcomes(found)
    assert time.monotonic() - started < 30


def test_a_lock_timeout_is_replayed(database: Database) -> None:
    """A wait that runs out has its mark in the replay text, and is replayed 5 times of 5."""
    found = tried(database, scan(attributes="SET lock_timeout = '1h'"))
    assert truths(found)["losers_are_refused"] is Truth.BROKEN  # 55P03, which nobody handles here
    schedule = found.broken["losers_are_refused"]
    assert "~" in schedule.replay
    assert any("runs out" in move.text for move in schedule.moves)


def test_a_statement_timeout_is_explored_both_ways(database: Database) -> None:
    """A statement_timeout set for the database ends a wait at once when it is its turn to, and not by the clock."""
    with database.connect() as connection:
        connection.execute(f"ALTER DATABASE {database.name} SET statement_timeout = '1h'".encode())
    found = tried(database, scan())
    assert {"accepted, failed", "accepted, already_scanned"} <= outcomes(found)
    assert found.broken["no_unhandled_error"].calls[1].code == "57014"


def test_a_statement_that_never_ends_leaves_it_undecided(database: Database) -> None:
    """After the time for one schedule the exploration says where it stood, and that nothing is decided."""
    found = tried(database, scan("LOOP v_now := clock_timestamp(); END LOOP;"), schedule_seconds=0.5)
    assert found.truth is Truth.UNDECIDED
    assert not found.exhausted
    assert "A is running" in found.timeouts[0]
    with database.connect() as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND state = 'active'", [database.name]
        ).fetchone()
    assert row == (1,)


def test_too_little_time_or_too_few_schedules_is_undecided(database: Database) -> None:
    """A search that was cut short does not say held."""
    found = tried(database, max_schedules=3)
    assert (found.truth, found.schedules, found.exhausted) == (Truth.UNDECIDED, 3, False)
    assert truths(found)["every_order_tried"] is Truth.UNDECIDED
    assert truths(found)["at_most_one_accepted"] is Truth.HELD


@pytest.mark.parametrize(("search", "most"), [("random", 20), ("pct", 6)])  # more than there are end with the clock
def test_a_random_search_finds_a_bug_and_never_says_held(database: Database, search: str, most: int) -> None:
    """A random search finds the check-then-act, the same one again with the same seed, and cannot exhaust."""
    broken = (FUNCTIONS / "broken" / "check_then_act.sql").read_text()
    found = tried(database, broken, search=search, max_schedules=most)
    assert found.truth is Truth.BROKEN
    assert not found.exhausted
    assert found.seed == 0


@pytest.mark.parametrize(
    "notification", ["NOTIFY gate;", "LISTEN gate; UNLISTEN gate;", "PERFORM pg_notify('gate', '');"]
)
def test_sleeping_notifying_and_counting_are_supported_and_said(database: Database, notification: str) -> None:
    """pg_sleep, NOTIFY, LISTEN and a sequence do not stop the search; what they mean for it is in the report."""
    with database.connect() as connection:
        connection.execute("CREATE SEQUENCE numbers")
    found = tried(database, scan(f"PERFORM pg_sleep(0.001); PERFORM nextval('numbers'); {notification}"))
    assert found.truth is Truth.HELD
    said = " ".join(found.not_covered)
    assert "sleeps" in said
    assert "sequence" in said
    assert "notifies" in said


def test_an_overloaded_name_is_told_by_its_parameters(database: Database) -> None:
    """Of two functions of one name, the contract's is explored."""
    other = "CREATE FUNCTION scan_ticket_atomic(p uuid) RETURNS integer LANGUAGE plpgsql AS 'BEGIN RETURN 1; END';"
    found = tried(database, scan() + other)
    assert found.truth is Truth.HELD
    assert all("(uuid,uuid,text,text)" in step for step in found.steps)


def test_a_function_that_takes_the_turnstiles_keys_is_refused(database: Database) -> None:
    """A function that locks the advisory keys that it finds in pg_locks is refused with the reason."""
    grab = """
        PERFORM pg_advisory_lock(classid::bigint::integer, objid::bigint::integer)
           FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid();"""
    with pytest.raises(UsageError, match="takes or holds the advisory locks by which"):
        tried(database, scan(grab))


def test_a_function_that_looks_at_locks_is_undecided(database: Database) -> None:
    """A function that counts the locks in pg_locks counts those by which it is controlled, and is not said to hold."""
    found = tried(database, scan("PERFORM count(*) FROM pg_catalog.pg_locks WHERE locktype = 'advisory';"))
    assert found.truth is Truth.UNDECIDED
    (tried_all,) = (finding for finding in found.findings if finding.id == "every_order_tried")
    assert "reads pg_locks, and sees the locks by which its own steps are controlled" in tried_all.observed


def test_a_function_that_acts_through_dblink_is_refused(database: Database) -> None:
    """A statement on another connection cannot be made to wait its turn, so the function is refused."""
    fake = "CREATE FUNCTION dblink_exec(text, text) RETURNS text LANGUAGE sql AS 'SELECT NULL::text';"
    with pytest.raises(UsageError, match="dblink_exec: it acts through a connection of its own"):
        tried(database, fake + scan("PERFORM dblink_exec('', 'SELECT 1');"))


PROCEDURE = """
    DROP FUNCTION scan_ticket_atomic;
    CREATE PROCEDURE scan_ticket_atomic(p_ticket_id uuid, p_scanned_by uuid, INOUT ok boolean DEFAULT NULL)
    LANGUAGE plpgsql AS $$ BEGIN {body} END $$"""
USED = """UPDATE tickets SET is_used = true, status = 'used', scanned_at = now(), scanned_by = p_scanned_by
           WHERE id = p_ticket_id"""
GUARDED = f"{USED} AND NOT is_used; ok := FOUND;"
LOOKS = "SELECT NOT is_used INTO ok FROM tickets WHERE id = p_ticket_id FOR UPDATE;"


@pytest.mark.parametrize(
    ("body", "truth"),
    [
        (GUARDED, Truth.HELD),
        (f"{GUARDED} COMMIT; UPDATE tickets SET scanned_at = now() WHERE id = p_ticket_id AND ok;", Truth.HELD),
        (f"{LOOKS} {USED};", Truth.HELD),
        (f"{LOOKS} COMMIT; {USED};", Truth.BROKEN),
    ],
)
def test_a_procedure_is_explored_transaction_by_transaction(body: str, truth: Truth, database: Database) -> None:
    """A lock is gone with the COMMIT in the middle; what was committed before a call died stands, and is no fault."""
    with database.connect() as connection:
        connection.execute(PROCEDURE.format(body=body).encode())
    desk = Contract(
        name="procedure",
        function=Function("scan_ticket_atomic", key="p_ticket_id"),
        new_keys="harness.new_tickets",
        variants=(Variant("call", lambda client: {"p_scanned_by": uuid.UUID(int=client)}),),
        classify=lambda row: "accepted" if row["ok"] else "refused",
        model=UpTo(1),
    )
    found = explore(database.dsn, desk, Plan(crash=True, keys=(1,), seconds=30), [])
    truths = {finding.id: finding.truth for finding in found.findings}
    assert truths["linearizable"] is truth, found.findings
    assert (truths["every_order_tried"], truths["no_unhandled_error"]) == (Truth.HELD, Truth.HELD)


def test_a_language_that_cannot_be_split_is_one_step_and_said(database: Database) -> None:
    """A function in a language that nobody here reads stays whole, and what would hold is undecided for it."""
    with database.connect() as connection:
        connection.execute("CREATE LANGUAGE secret HANDLER plpgsql_call_handler VALIDATOR plpgsql_validator")
    found = tried(database, scan().replace("LANGUAGE plpgsql", "LANGUAGE secret"))
    assert found.truth is Truth.UNDECIDED
    [observed] = [finding.observed for finding in found.findings if finding.id == "every_order_tried"]
    assert "written in secret, which cannot be split" in observed


WRONG_PLANS = [
    ({"calls": 0}, "0 calls"),
    ({"calls": 5}, "5 calls"),
    ({"search": "lucky"}, "a search named 'lucky'"),
    ({"max_schedules": 0}, "0 schedules"),
    ({"max_preemptions": -1}, "-1 preemptions"),
    ({"seconds": 0}, "0 seconds"),
    ({"schedule_seconds": -1}, "-1 seconds for a schedule"),
    ({"keys": (3,)}, "calls on"),
    ({"variants": ("none such",)}, "no variant named 'none such'"),
    ({"replay": "hello"}, "is not a replay text"),
    ({"replay": "v9:AABB"}, "names no case"),
    ({"replay": "x1:AABB"}, "names no case"),
    ({"replay": "AAAB"}, "at step 4 B cannot go on|at step 5 the text ends"),
    ({"replay": "AAAAAAAAAAAA"}, "every call has ended|at step"),
    ({"replay": "ABAB!B"}, "does not fit the function"),
    ({"replay": "A~"}, r"at step 1 A~ cannot go on[\s\S]*possible next: A"),
]


@pytest.mark.parametrize(("plan", "said"), WRONG_PLANS, ids=[str(plan) for plan, _ in WRONG_PLANS])
def test_a_wrong_plan_is_refused(database: Database, plan: dict[str, object], said: str) -> None:
    """Numbers, names and replay texts that fit nothing are refused, saying what is right or where they depart."""
    with pytest.raises(UsageError, match=said):
        tried(database, **plan)


def test_a_missing_function_and_keys_are_refused(database: Database) -> None:
    """Without the function, or without fresh keys from the seed, the error says what is missing."""
    with database.connect() as connection:
        connection.execute(
            "CREATE FUNCTION no_keys(integer) RETURNS SETOF uuid LANGUAGE sql AS 'SELECT NULL::uuid LIMIT 0'"
        )
    with pytest.raises(HarnessError, match=r"no_keys\(256\) returned 0 distinct keys"):
        explore(database.dsn, replace(SCAN, new_keys="no_keys"), Plan())
    with database.connect() as connection:
        connection.execute("DROP FUNCTION scan_ticket_atomic")
    with pytest.raises(HarnessError, match="no function scan_ticket_atomic"):
        explore(database.dsn, SCAN, Plan())


@pytest.fixture
def plain_role(database: Database) -> Iterator[str]:
    """The DSN of a role without any privilege beside owning what the function needs."""
    with database.connect() as connection:
        connection.execute("CREATE ROLE plain LOGIN")
        connection.execute(f"GRANT CREATE ON DATABASE {database.name} TO plain".encode())
        connection.execute("ALTER SCHEMA harness OWNER TO plain; ALTER FUNCTION harness.new_tickets OWNER TO plain")
        for table in ("events", "tickets", "scan_logs"):
            connection.execute(f"ALTER TABLE {table} OWNER TO plain".encode())
        connection.execute("GRANT CREATE ON SCHEMA public TO plain")
    yield make_conninfo(database.dsn, user="plain")
    with database.connect() as connection:
        connection.execute("REASSIGN OWNED BY plain TO CURRENT_USER; DROP OWNED BY plain; DROP ROLE plain")


def test_a_role_that_is_no_superuser_can_explore(database: Database, plain_role: str) -> None:
    """Without the right to set log_lock_waits, waits are found by asking the server, and the answers are the same."""
    with database.connect() as connection:
        connection.execute(scan().encode())
        connection.execute("ALTER FUNCTION scan_ticket_atomic OWNER TO plain")
    with psycopg.connect(plain_role):
        pass
    plan = Plan(variants=("own scanner, qr",), keys=(1,))
    found = explore(plain_role, SCAN, plan, invariants.load((), SCAN))
    assert found.truth is Truth.HELD
    assert found.exhausted
    assert outcomes(found) == {"accepted, already_scanned", "already_scanned, accepted"}


def test_a_call_that_went_on_while_the_server_was_asked_is_not_taken_for_waiting(
    database: Database, plain_role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked at every moment, the server tells of turnstiles that a call has gone through by then."""
    monkeypatch.setattr(connections, "ASK_AFTER", 0.0)
    with database.connect() as connection:
        connection.execute(scan().encode())
        connection.execute("ALTER FUNCTION scan_ticket_atomic OWNER TO plain")
    found = explore(plain_role, SCAN, Plan(variants=("own scanner, qr",)), invariants.load((), SCAN))
    assert found.truth is Truth.HELD
    assert found.exhausted


def test_a_function_that_is_not_deterministic_is_said_to_be(database: Database) -> None:
    """A function that tosses a coin is explored without an end that could be trusted, and the report says so."""
    found = tried(database, scan("IF random() < 0.5 THEN PERFORM 1 FROM events; END IF;"), max_schedules=400)
    assert truths(found)["same_end_when_repeated"] is Truth.UNDECIDED
    assert found.truth is Truth.UNDECIDED


def raising(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have one of the notices that tell what steps do raise, somewhere in the middle."""
    noticed, notices = Controller._noticed, iter(range(5))

    def cut(self: Controller, *told: Any) -> None:
        if next(notices, None) == 4:
            raise error
        noticed(self, *told)

    monkeypatch.setattr(Controller, "_noticed", cut)


def test_what_goes_wrong_while_a_notice_is_taken_in_is_not_forgotten(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The driver would print a traceback and go on, in a schedule of which nobody knows where it stands."""
    raising(psycopg.OperationalError("invalid socket"), monkeypatch)
    with pytest.raises(psycopg.OperationalError, match="invalid socket"):
        tried(database)
    assert not caplog.records


def test_a_signal_while_a_notice_is_taken_in_ends_the_exploration(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not lost in there."""
    raising(KeyboardInterrupt(), monkeypatch)
    assert tried(database).interrupted


def test_a_call_that_died_was_under_way_from_its_first_step(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not from the beginning of time: beside two others that overlap, it would have had to take effect before them."""
    carried: list[Carried] = []
    as_carried = engine._Explorer._as_carried

    def kept(self: engine._Explorer, *run: Any, **how: Any) -> Carried:
        carried.append(as_carried(self, *run, **how))
        return carried[-1]

    monkeypatch.setattr(engine._Explorer, "_as_carried", kept)
    found = tried(database, crash=True, calls=3, max_schedules=40)
    died = [(each, event.choice.call) for each in carried for event in each.events if event.choice.kind is Kind.DIE]
    assert died
    for schedule, call in died:
        began = next(at for at, event in enumerate(schedule.events, 1) if event.choice.call == call)
        operation = schedule.operations[call]
        assert (operation.called, operation.returned) == (began * 1_000_000, NEVER)
    assert not [finding for finding in found.findings if finding.truth is Truth.BROKEN]
