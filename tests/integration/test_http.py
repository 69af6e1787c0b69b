"""The function through a real PostgREST."""

from __future__ import annotations

import os
import signal
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from harness import Effect, Outcome
from harness.contracts.scan_ticket import SCAN_TICKET
from harness.environment.database import Database, Template
from harness.environment.embedded import EmbeddedServer
from harness.environment.postgrest import SupabaseRoles, Token
from harness.errors import HarnessError
from harness.load.patterns import Burst, Race, Rescan, Unknown
from harness.targets.http import HttpTarget
from harness.targets.http_serving import HttpOptions, open_http
from harness.targets.sql import SqlTarget
from harness.verdict.findings import Truth
from tests.conftest import MakeHarness

pytestmark = pytest.mark.usefixtures("roles")


@pytest.fixture
def target(server: EmbeddedServer, database: Database) -> Iterator[HttpTarget]:
    """The shipped function behind a PostgREST of the test's own."""
    with closing(open_http(server, database, SCAN_TICKET, HttpOptions())) as opened:
        yield opened


@pytest.fixture
def small(server: EmbeddedServer, database: Database) -> Iterator[HttpTarget]:
    """The same with one database connection, which a request waits for no longer than a second."""
    with closing(open_http(server, database, SCAN_TICKET, HttpOptions(pool=1, pool_timeout=1))) as opened:
        yield opened


def new_ticket(database: Database) -> uuid.UUID:
    with database.connect() as connection:
        row = connection.execute("SELECT harness.new_tickets(1)").fetchone()
    assert row is not None
    assert isinstance(row[0], uuid.UUID)
    return row[0]


def open_caller(target: HttpTarget, database: Database, **changed: Any) -> Any:
    arguments = [dict(variant.arguments(3)) | changed for variant in SCAN_TICKET.variants]
    return target.connect(3, arguments, overlap=False, warm_up=new_ticket(database))


def test_answers_are_the_same_as_by_sql(target: HttpTarget, database: Database) -> None:
    """A first scan, a second one and an unknown ticket get the same outcome and evidence through both doors."""
    sql = SqlTarget(database.dsn, SCAN_TICKET)
    arguments = [dict(variant.arguments(3)) for variant in SCAN_TICKET.variants]
    callers: list[tuple[Any, Any]] = [
        (target, open_caller(target, database)),
        (sql, sql.connect(3, arguments, overlap=False, warm_up=new_ticket(database))),
    ]
    told = []
    for first, second in (callers, callers[::-1]):
        ticket, unknown = new_ticket(database), uuid.uuid4()
        for door, caller in (first, second):
            outcome, raw = caller.call(door.encode_key(ticket), 0)
            told.append(
                (door.name, outcome.label, [door.decode_evidence(at, [value])[0] for at, value in enumerate(raw)])
            )
            assert caller.call(door.encode_key(unknown), 0)[0].label == "not_found"
    for _, caller in callers:
        caller.close()
    assert [(name, label) for name, label, _ in told] == [
        ("http", "accepted"), ("sql", "already_scanned"), ("sql", "accepted"), ("http", "already_scanned"),
    ]  # fmt: skip
    assert told[0][2] == told[1][2]
    assert told[2][2] == told[3][2]


def test_warming_a_connection_leaves_no_trace(target: HttpTarget, database: Database) -> None:
    """The calls that warm a connection are rolled back, counted nowhere, and their ticket stays fresh."""
    ticket = new_ticket(database)
    arguments = [dict(variant.arguments(0)) for variant in SCAN_TICKET.variants]
    caller = target.connect(0, arguments, overlap=True, warm_up=ticket)
    assert target.evidence().calls == 0
    with database.connect() as connection:
        assert connection.execute("SELECT count(*) FROM scan_logs").fetchone() == (0,)
    outcome, _ = caller.call(target.encode_key(ticket), 0)
    caller.close()
    assert outcome.label == "accepted"


@pytest.mark.parametrize(
    "pattern", [Burst(4, calls=20), Race(4, 24), Rescan(3, 4), Unknown(2, 5)], ids=lambda pattern: pattern.name
)
def test_every_pattern_holds_through_postgrest(make_harness: MakeHarness, pattern: Any) -> None:
    """The shipped function keeps its promise over HTTP, with the same judgement as by SQL."""
    result = make_harness().run(pattern, "http")
    assert result.record.target == "http"
    assert not result.verdict.broken
    assert [f.id for f in result.record.findings if f.truth is not Truth.HELD] in ([], ["race_overlapped"])


def test_a_race_is_timed_on_the_server(target: HttpTarget, database: Database) -> None:
    """Over HTTP, too, each call of a race says when it ran, by the server's own clock."""
    caller = target.connect(0, [dict(SCAN_TICKET.variants[0].arguments(0))], overlap=True, warm_up=new_ticket(database))
    answers = [caller.call(target.encode_key(new_ticket(database)), 0) for _ in range(2)]
    caller.close()
    first, second = (target.span(raw[-target.timing :]) for _, raw in answers)
    assert first.started < first.ended < second.started < second.ended
    assert first.transaction is not None
    assert second.transaction is not None
    assert (first.over_before(second), second.over_before(first)) == (True, False)


RAISING = """
CREATE OR REPLACE FUNCTION scan_ticket_atomic(
    p_ticket_id uuid, p_scanned_by uuid, p_device_id text DEFAULT NULL, p_scan_method text DEFAULT 'qr'
) RETURNS TABLE (success boolean, already_scanned boolean, scanned_at timestamptz, scanned_by uuid, error_message text)
LANGUAGE plpgsql AS $$ BEGIN {} END $$
"""


def replace_body(database: Database, body: str) -> None:
    with database.connect() as connection:
        connection.execute(RAISING.format(body).encode())


@pytest.mark.parametrize(
    ("code", "status"), [("55P03", 500), ("23505", 409), ("57014", 500), ("40P01", 500), ("P0001", 400), ("42501", 403)]
)
def test_an_sqlstate_comes_through_whatever_its_status(
    target: HttpTarget, database: Database, code: str, status: int
) -> None:
    """A failed call keeps its SQLSTATE; the status says little, and different versions say it differently."""
    with database.connect() as connection:
        connection.execute("CREATE SEQUENCE tries; GRANT ALL ON SEQUENCE tries TO service_role")
    replace_body(
        database,
        "IF nextval('tries') < 3 THEN RAISE EXCEPTION 'made to fail' USING ERRCODE = p_device_id; END IF;"
        "RETURN QUERY SELECT true, false, now(), p_scanned_by, NULL::text;",
    )
    caller = open_caller(target, database, p_device_id=code)
    outcome, _ = caller.call(target.encode_key(uuid.uuid4()), 0)
    caller.close()
    assert outcome == Outcome("failed", Effect.FAILED, code, "made to fail")
    assert target.evidence().statuses == {status: 1}


def test_postgrest_runs_a_call_again_after_a_serialization_failure(target: HttpTarget, database: Database) -> None:
    """PostgREST repeats a transaction that ends with 40001 until it does not, so the client never sees that code."""
    caller = open_caller(target, database)
    with database.connect() as connection:
        connection.execute("CREATE SEQUENCE tries; GRANT ALL ON SEQUENCE tries TO service_role")
    replace_body(
        database,
        "IF nextval('tries') < 3 THEN RAISE EXCEPTION 'made to fail' USING ERRCODE = '40001'; END IF;"
        "RETURN QUERY SELECT true, false, now(), p_scanned_by, NULL::text;",
    )
    outcome, _ = caller.call(target.encode_key(uuid.uuid4()), 0)
    caller.close()
    with database.connect() as connection:
        assert connection.execute("SELECT last_value FROM tries").fetchone() == (3,)
    assert outcome.label == "accepted"


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ("RETURN;", "no rows"),
        ("RETURN QUERY SELECT true, false, now(), p_scanned_by, NULL::text FROM generate_series(1, 2);", "2 rows"),
        ("RETURN QUERY SELECT NULL::boolean, false, now(), p_scanned_by, NULL::text;", "unreadable"),
    ],
)
def test_an_answer_that_is_none_is_a_failed_call(
    target: HttpTarget, database: Database, body: str, detail: str
) -> None:
    """No row, two rows and NULL are failed calls, as by SQL."""
    replace_body(database, body)
    caller = open_caller(target, database)
    outcome, _ = caller.call(target.encode_key(uuid.uuid4()), 0)
    caller.close()
    assert (outcome.effect, outcome.code) == (Effect.FAILED, "broken_answer")
    assert detail in (outcome.detail or "")


def probe_error(target: HttpTarget, token: Any, url: str | None = None) -> str:
    with pytest.raises(HarnessError) as raised:
        HttpTarget(url or target.url, token, SCAN_TICKET).probe()
    assert token.reveal() not in str(raised.value)
    return str(raised.value)


def test_a_token_or_address_that_is_wrong_is_explained(target: HttpTarget) -> None:
    """An expired or forged token, a role without rights or without existence, and a wrong path are each told apart."""
    postgrest = target.postgrest
    assert postgrest is not None
    assert "JWT expired" in probe_error(target, postgrest.token(lifetime=-100))
    assert "token is not accepted" in probe_error(target, Token(postgrest.token().reveal()[:-4] + "AAAA"))
    assert "403 42501" in probe_error(target, postgrest.token("authenticated"))
    assert "401 42501" in probe_error(target, postgrest.token("anon"))
    assert "role does not exist" in probe_error(target, postgrest.token("nobody"))
    assert "/rest/v1" in probe_error(target, postgrest.token(), target.url + "/rest/v1")


def test_a_function_that_is_not_exposed_is_explained(target: HttpTarget, database: Database) -> None:
    """The error names the schema that was searched and how to reload the schema cache."""
    with database.connect() as connection:
        connection.execute("DROP FUNCTION scan_ticket_atomic")
        connection.execute("NOTIFY pgrst, 'reload schema'")
    deadline = time.monotonic() + 10
    said = ""
    while not said and time.monotonic() < deadline:
        try:
            # The cache still knows the function, and the database says that it is gone.
            assert target.probe().code == "42883"
        except HarnessError as error:
            said = str(error)
    assert "public.scan_ticket_atomic" in said
    assert "reload schema" in said


def test_a_pool_that_is_exhausted_fails_the_call_with_its_code(small: HttpTarget, database: Database) -> None:
    """A request that found no connection in time is PGRST003 and failed, not in doubt: the function never ran."""
    ticket = new_ticket(database)
    first, second = open_caller(small, database), open_caller(small, database)
    replace_body(
        database,
        "PERFORM pg_advisory_lock(7); PERFORM pg_advisory_unlock(7);"
        "RETURN QUERY SELECT true, false, now(), p_scanned_by, NULL::text;",
    )
    found: list[Outcome] = []
    with database.connect() as connection:
        connection.execute("SELECT pg_advisory_lock(7)")
        waiting = threading.Thread(target=lambda: found.append(first.call(small.encode_key(ticket), 0)[0]))
        waiting.start()
        while connection.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone() == (0,):
            pass
        exhausted, _ = second.call(small.encode_key(ticket), 0)
        connection.execute("SELECT pg_advisory_unlock(7)")
        waiting.join()
    first.close()
    second.close()
    assert (exhausted.effect, exhausted.code) == (Effect.FAILED, "PGRST003")
    assert found[0].label == "accepted"
    assert small.evidence().statuses == {504: 1, 200: 1}


@pytest.mark.parametrize("killed", ["postgrest", "backend"])
def test_a_call_whose_server_dies_is_in_doubt(target: HttpTarget, database: Database, killed: str) -> None:
    """PostgREST killed, or its database session ended, under a call: nobody knows what became of it."""
    caller = open_caller(target, database)
    replace_body(
        database,
        "PERFORM pg_advisory_lock(7); RETURN QUERY SELECT true, false, now(), p_scanned_by, NULL::text;",
    )
    found: list[Outcome] = []
    with database.connect() as connection:
        connection.execute("SELECT pg_advisory_lock(7)")
        waiting = threading.Thread(target=lambda: found.append(caller.call(target.encode_key(uuid.uuid4()), 0)[0]))
        waiting.start()
        while connection.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone() == (0,):
            pass
        if killed == "postgrest":
            assert target.postgrest is not None
            assert target.postgrest.pid is not None
            os.kill(target.postgrest.pid, signal.SIGKILL)
        else:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE NOT granted")
        waiting.join()
    caller.close()
    assert found[0].effect is Effect.IN_DOUBT


def test_the_functions_own_time_is_counted_by_the_database(server: EmbeddedServer, template: Template) -> None:
    """Once PostgREST has stopped, the database says how often its sessions ran the function, and for how long."""
    with template.clone() as database:
        with closing(open_http(server, database, SCAN_TICKET, HttpOptions())) as target:
            caller = open_caller(target, database)
            for _ in range(5):
                caller.call(target.encode_key(new_ticket(database)), 0)
            caller.close()
            postgrest = target.postgrest
            assert postgrest is not None
        counted = postgrest.function_time("scan_ticket_atomic")
    assert counted is not None
    calls, seconds = counted
    assert calls == 1 + 6 + 5  # the probe, the warm-up, the calls
    assert 0 < seconds < 5


@pytest.mark.parametrize("killed", ["server", "postgrest"])
def test_a_run_whose_server_dies_accuses_nobody(
    make_harness: MakeHarness, monkeypatch: pytest.MonkeyPatch, killed: str
) -> None:
    """With the server or PostgREST killed under a burst, calls are in doubt and no claim is broken."""
    opened: list[HttpTarget] = []
    monkeypatch.setattr(HttpTarget, "probe", lambda self: opened.append(self))
    with EmbeddedServer() as server, SupabaseRoles(server):
        harness = make_harness(on=server)

        def kill() -> None:
            while not opened or not any(caller._counters.calls > 5 for caller in opened[0]._callers):
                time.sleep(0.01)
            target = opened[0]
            assert target.postgrest is not None
            pid = server.pid if killed == "server" else target.postgrest.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)

        helper = threading.Thread(target=kill)
        helper.start()
        result = harness.run(Burst(3, duration=2, pause=0.01), "http")
        helper.join()
    # A request may have waited for a connection until the pool gave up; that one is known to have had no effect.
    failed = Counter(
        (o.outcome.code, o.outcome.detail)
        for o in result.history.operations()
        if o.outcome.effect is Effect.FAILED and o.outcome.code != "PGRST003"
    )
    assert not failed
    assert any(o.outcome.effect is Effect.IN_DOUBT for o in result.history.operations())
    # Without either there is nothing that could be called: the environment failed, with status 3.
    assert result.record.server_lost
    lost = "the server" if killed == "server" else "PostgREST"
    assert f"{lost} was lost during the run; nothing after that could be judged" in result.record.notes
