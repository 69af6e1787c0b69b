"""What a function may do wrong within one call, and what a call may meet on its way: errors, silence, death."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from harness import Effect, Harness, Operation, Outcome
from harness.conduct import Actor
from harness.contracts import invariants
from harness.contracts.scan_ticket import SCAN_TICKET
from harness.environment.database import Database
from harness.environment.embedded import EmbeddedServer
from harness.environment.servers import connect
from harness.errors import ExitStatus, HarnessError
from harness.load.crew import Crew
from harness.load.pattern import Keys
from harness.load.patterns import Arrivals, Burst
from harness.run import Result
from harness.targets import state
from harness.targets.sql import SqlTarget
from harness.verdict.findings import Truth
from tests.conftest import SEED, MakeHarness

COLUMNS = "success boolean, already_scanned boolean, scanned_at timestamptz, scanned_by uuid, error_message text"
PARAMETERS = "p_ticket_id uuid, p_scanned_by uuid, p_device_id text DEFAULT NULL, p_scan_method text DEFAULT 'qr'"


@pytest.fixture
def function(tmp_path: Path) -> Callable[[str], Path]:
    """A migration that gives the function another body."""

    def make(body: str) -> Path:
        path = tmp_path / "other_body.sql"
        path.write_text(
            f"CREATE OR REPLACE FUNCTION scan_ticket_atomic({PARAMETERS}) RETURNS TABLE ({COLUMNS})\n"
            f"LANGUAGE plpgsql AS $$\n{body}\n$$;\n"
        )
        return path

    return make


ONE_ROW = "RETURN QUERY SELECT true, false, now(), p_scanned_by, NULL::text;"


@pytest.mark.parametrize(
    ("body", "code", "detail"),
    [
        ("BEGIN RAISE EXCEPTION 'gate is closed' USING ERRCODE = 'P0042'; END", "P0042", "gate is closed"),
        ("BEGIN PERFORM 1/0; END", "22012", "division by zero"),
        ("BEGIN RETURN; END", "broken_answer", "no rows instead of one"),
        (f"BEGIN {ONE_ROW} {ONE_ROW} END", "broken_answer", "2 rows instead of one"),
        (
            "BEGIN RETURN QUERY SELECT NULL::boolean, NULL::boolean, now(), p_scanned_by, NULL::text; END",
            "broken_answer",
            "success=None",
        ),
    ],
)
@pytest.mark.parametrize("pattern", ["burst", "race"])
def test_a_call_without_a_good_answer_has_failed(
    pattern: str, body: str, code: str, detail: str, function: Callable[[str], Path], make_harness: MakeHarness
) -> None:
    """An error, no row, two rows and NULL are findings with the code and the first call that met them."""
    harness = make_harness(function(body))
    result = harness.burst(clients=3, calls=5) if pattern == "burst" else harness.race(clients=3, rounds=5)
    finding = result.verdict["no_unhandled_error"]
    assert finding.truth is Truth.BROKEN
    assert code in finding.evidence[0]["reason"]
    assert detail in finding.evidence[0]["reason"]
    assert result.verdict["threshold.scan_errors.rate<0.001"].truth is Truth.BROKEN
    assert {o.outcome.label for o in result.history.operations()} == {"failed"}
    assert harness.record("test").exit_status is ExitStatus.BROKEN


@pytest.mark.parametrize("pattern", ["burst", "race", "rescan"])
def test_a_fresh_ticket_is_refused_for_no_reason(
    pattern: str, function: Callable[[str], Path], make_harness: MakeHarness
) -> None:
    """Any other message is a refusal of its own, kept as evidence; of a fresh ticket it is a wrong answer."""
    body = "BEGIN RETURN QUERY SELECT false, false, NULL::timestamptz, NULL::uuid, 'computer says no'::text; END"
    harness = make_harness(function(body))
    plans = {"burst": {"clients": 3, "calls": 5}, "race": {"clients": 3, "rounds": 5}, "rescan": {"calls": 2}}
    result = getattr(harness, pattern)(**plans[pattern])
    assert {o.outcome.label for o in result.history.operations()} == {"refused"}
    assert result.verdict["no_unhandled_error"].truth is Truth.HELD
    for name in ("at_least_one_accepted", "linearizable"):
        assert result.verdict[name].truth is Truth.BROKEN, result.verdict
    assert "computer says no" in str(result.verdict["at_least_one_accepted"].evidence)


@pytest.mark.parametrize("at", ["infinity", "0044-03-15 12:00:00+00 BC"])
@pytest.mark.parametrize("play", ["burst", "explore"])
def test_a_value_that_cannot_be_read_is_no_good_answer(
    play: str, at: str, function: Callable[[str], Path], make_harness: MakeHarness
) -> None:
    """A time that Python has no value for: the call has failed, and what could not be read is said."""
    body = f"BEGIN RETURN QUERY SELECT true, false, '{at}'::timestamptz, p_scanned_by, NULL::text; END"
    harness = make_harness(function(body))
    result = harness.burst(clients=2, calls=3) if play == "burst" else harness.explore(seconds=5)
    finding = result.verdict["no_unhandled_error"]
    assert finding.truth is Truth.BROKEN
    assert result.verdict["invariant.ticket_agrees_with_winner"].truth is Truth.HELD  # no winner was told anything
    assert "broken_answer: unreadable answer: scanned_at: timestamp too" in finding.evidence[0]["reason"]


def test_calls_that_came_too_late_are_told(function: Callable[[str], Path], make_harness: MakeHarness) -> None:
    """Arrivals at a function that cannot keep up are made late, counted, and not dropped."""
    body = f"BEGIN PERFORM pg_sleep(0.05); {ONE_ROW} END"
    plan = Arrivals(1, rate=100, duration=0.5, distribution="constant")
    result = make_harness(function(body)).run(plan)
    assert result.metrics.calls == len(plan.schedule())
    [note] = [note for note in result.record.notes if note.startswith("late by over 10 ms")]
    assert note.endswith(f": {result.metrics.late} calls")


def test_a_burst_that_ran_out_of_tickets_goes_on_with_more(
    make_harness: MakeHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rate was measured before it, and may rise."""
    monkeypatch.setattr("harness.load.burst.KEYS_MARGIN", 0.05)
    result = make_harness().burst(clients=2, duration=0.5)
    assert result.verdict.held, result.verdict
    assert not [note for note in result.record.notes if "used up" in note]
    assert max(o.called for o in result.history.operations()) > 0.4e9
    assert result.record.touched is not None, "whoever made the keys has gone"


def test_keys_can_be_asked_for_on_one_connection_again_and_again(make_harness: MakeHarness) -> None:
    """Each time as in a session of its own, however often: nothing that was prepared is counted on."""
    harness = make_harness()
    with harness.template.checkout() as database, database.connect() as connection:
        made = [key for _ in range(8) for key in harness.new_keys(connection, 3)]
    assert len(set(made)) == 24


@pytest.mark.parametrize("pool", [None, 2])
@pytest.mark.parametrize("play", ["burst", "paused burst", "race", "rescan"])
def test_an_error_at_commit_is_the_calls_error(
    play: str, pool: int | None, make_harness: MakeHarness, tmp_path: Path
) -> None:
    """After its answer, a call can still fail at the end of its transaction, by a deferred constraint for one."""
    late = tmp_path / "late.sql"
    late.write_text(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS\n"
        "$$ BEGIN RAISE EXCEPTION 'too late' USING ERRCODE = 'P0077'; END $$;\n"
        "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON scan_logs DEFERRABLE INITIALLY DEFERRED\n"
        "FOR EACH ROW WHEN (NEW.scan_success) EXECUTE FUNCTION refuse();\n"
    )
    harness = make_harness(late, pool_size=pool)
    runs: dict[str, Callable[[], Result]] = {
        "burst": lambda: harness.burst(clients=3, calls=5),
        "paused burst": lambda: harness.burst(clients=3, calls=5, pause=0.001),
        "race": lambda: harness.race(clients=3, rounds=12, mixed=False),
        "rescan": lambda: harness.rescan(clients=3, calls=2),
    }
    result = runs[play]()
    assert not [o for o in result.history.operations() if o.outcome.label == "accepted"]
    assert result.verdict["no_unhandled_error"].evidence[0]["reason"] == "P0077: too late"
    assert result.verdict["invariant.ticket_agrees_with_log"].truth is Truth.HELD


def test_a_call_that_waits_for_a_connection_till_its_timeout_is_no_fault_of_the_function(
    function: Callable[[str], Path], make_harness: MakeHarness
) -> None:
    """Both limits are the same, and the call never reached the function."""
    slow = function(f"BEGIN PERFORM pg_sleep(0.2); {ONE_ROW} END")
    result = make_harness(slow, pool_size=1, timeout=0.5).burst(clients=8, calls=1)
    codes = {o.outcome.code for o in result.history.operations()}
    assert codes == {None, "pool_timeout"}
    assert result.verdict["no_unhandled_error"].truth is Truth.HELD


def test_a_call_that_hangs_is_cancelled_and_reported(
    function: Callable[[str], Path], make_harness: MakeHarness
) -> None:
    """Every call is cancelled after the timeout, counted, and the run comes to its end in the time that this takes."""
    harness = make_harness(function(f"BEGIN PERFORM pg_sleep(60); {ONE_ROW} END"), timeout=0.5)
    began = time.monotonic()
    result = harness.burst(clients=3, calls=2)
    assert time.monotonic() - began < 6
    assert {o.outcome.code for o in result.history.operations()} == {"timeout"}
    assert len(result.history) == 6
    finding = result.verdict["no_unhandled_error"]
    assert finding.truth is Truth.BROKEN
    assert "timeout: no answer within 0.5 s" in finding.evidence[0]["reason"]
    assert "waits" in finding.remedy
    assert any("cancelled after 0.5 s: 6 calls" in note for note in result.record.notes)


def test_a_call_that_hangs_in_a_race_holds_nobody_up_for_ever(
    function: Callable[[str], Path], make_harness: MakeHarness
) -> None:
    """Rounds go on after the cancelled call, held rounds too."""
    harness = make_harness(function(f"BEGIN PERFORM pg_sleep(60); {ONE_ROW} END"), timeout=0.3)
    result = harness.race(clients=3, rounds=4)
    assert len({o.phase for o in result.history.operations()}) == 4
    assert result.verdict["no_unhandled_error"].truth is Truth.BROKEN


def test_a_call_that_ignores_its_cancellation_is_cut_off(
    function: Callable[[str], Path], make_harness: MakeHarness, server: EmbeddedServer
) -> None:
    """A call that swallows the cancel is in doubt once its connection is cut; its backend goes with the database."""
    stubborn = (
        f"BEGIN LOOP BEGIN PERFORM pg_sleep(60); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; {ONE_ROW} END"
    )
    harness = make_harness(function(stubborn), timeout=0.3)
    began = time.monotonic()
    result = harness.burst(clients=2, calls=1)
    assert time.monotonic() - began < 20
    assert {o.outcome.label for o in result.history.operations()} == {"in_doubt"}
    assert result.verdict["no_unhandled_error"].truth is Truth.UNDECIDED
    with connect(server.dsn) as connection:
        backends = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE datname LIKE 'harness\\_%'")
        assert backends.fetchone() == (0,)


def once_answered(calls: int, act: Callable[[], object]) -> Actor:
    """Somebody who does `act` when so many calls were answered."""

    def play(crew: Crew) -> None:
        while crew.calls < calls:
            if crew.stopped.wait(0.005):
                return
        act()

    return play


@pytest.mark.parametrize(
    ("pattern", "pool"),
    [("burst", None), ("race", None), ("arrivals", None), ("rescan", None), ("burst", 2), ("race", 2)],
)
def test_a_server_that_is_killed_leaves_calls_in_doubt(
    pattern: str, pool: int | None, make_harness: MakeHarness
) -> None:
    """Calls in flight are in doubt, nothing afterwards is judged held, and the status is that of the environment."""
    with EmbeddedServer() as own:
        harness = make_harness(on=own, pool_size=pool, timeout=1.0)
        kill = once_answered(50, own._process.kill if own._process else lambda: None)
        runs: dict[str, Callable[[], object]] = {
            # With a pause that spares the calibration: the n-th answer is one of the run itself.
            "burst": lambda: harness.burst(clients=4, duration=5, pause=0.01, beside=kill),
            "race": lambda: harness.race(clients=4, rounds=3000, beside=kill),
            "arrivals": lambda: harness.arrivals(clients=4, rate=500, duration=5, beside=kill),
            "rescan": lambda: harness.rescan(clients=4, calls=1500, beside=kill),
        }
        began = time.monotonic()
        runs[pattern]()
        took = time.monotonic() - began
    (made,) = harness.runs
    assert made.server_lost
    assert took < 15, took
    assert made.metrics is not None
    assert made.metrics.counts["in_doubt"] >= 1
    assert "the server was lost during the run; nothing after that could be judged" in made.notes
    assert any(note.startswith("in doubt: ") for note in made.notes)
    truths = {f.id: f.truth for f in made.findings}
    assert {truths[name] for name in truths if name.startswith("invariant.")} == {Truth.UNDECIDED}
    record = harness.record("test")
    assert record.exit_status is ExitStatus.ENVIRONMENT


def end_one(harness: Harness) -> Actor:
    """Somebody who terminates the backend of one of the calls, when 50 were answered."""

    def terminate() -> None:
        with connect(harness.server.dsn) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%scan_ticket_atomic%'"
                " AND datname LIKE 'harness\\_%' AND pid <> pg_backend_pid() LIMIT 1"
            )

    return once_answered(50, terminate)


def test_one_backend_that_is_terminated_leaves_one_client_out(make_harness: MakeHarness) -> None:
    """Its call is in doubt and the other clients go on; what its call did is found in the database, and agrees."""
    harness = make_harness()
    result = harness.burst(clients=4, duration=1.5, pause=0.01, beside=end_one(harness))
    operations = result.history.operations()
    (doubtful,) = [o for o in operations if o.outcome.label == "in_doubt"]
    assert doubtful.outcome.code in ("57P01", "connection_lost")
    assert max(o.called for o in operations) > doubtful.called
    assert not result.record.server_lost
    handled = result.verdict["no_unhandled_error"]
    assert (handled.truth, handled.observed.partition("; ")[2]) == (Truth.HELD, "1 more lost to the environment")
    assert result.verdict["invariant.ticket_agrees_with_log"].truth is Truth.HELD
    assert "in doubt: 1 call whose connection died before the answer" in result.record.notes


def test_a_crew_fires_again_without_a_client_whose_backend_was_terminated(database: Database) -> None:
    """As after a calibration, or between two blocks of a comparison: the others go on, nothing is raised."""
    target = SqlTarget(database.dsn, SCAN_TICKET)
    crew = Crew(SCAN_TICKET, lambda _: target, 3, timeout=10, overlap=lambda _: False)

    def fresh(count: int) -> Keys:
        with database.connect() as connection:
            return Keys([row[0] for row in connection.execute("SELECT * FROM harness.new_tickets(%s)", [count])])

    crew.open(fresh(3).fresh)
    try:
        with connect(database.dsn) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid() LIMIT 1"
            )
        (first,) = crew.fire(Burst(3, calls=4), fresh(12))
        (second,) = crew.fire(Burst(3, calls=4), fresh(12))
    finally:
        crew.close()
    assert crew.lost
    assert [o.effect for o in first.outcomes].count(Effect.IN_DOUBT) <= 1
    assert {o.label for o in second.outcomes} == {"accepted"}
    assert len(second) == 8


@pytest.mark.parametrize("pool", [None, 2])
@pytest.mark.parametrize("commit", [True, False])
def test_a_held_transaction_whose_backend_was_terminated_has_an_unknown_end(
    pool: int | None, commit: bool, database: Database
) -> None:
    """Whether a commit got through is not known, also where a pool has another connection to offer."""
    with database.connect() as connection:
        first, second = connection.execute("SELECT * FROM harness.new_tickets(2)").fetchall()
        target = SqlTarget(database.dsn, SCAN_TICKET, pool_size=pool)
        arguments = [dict(variant.arguments(0)) for variant in SCAN_TICKET.variants]
        caller = target.connect(0, arguments, overlap=True, warm_up=first[0])
        try:
            assert caller.begin()
            assert caller.call(target.encode_key(second[0]), 0)[0].label == "accepted"
            connection.execute(
                "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND state = 'idle in transaction'"
            )
            assert caller.end(commit=commit) is None
        finally:
            caller.close()
            target.close()


def test_a_race_goes_on_without_a_client_whose_backend_was_terminated(make_harness: MakeHarness) -> None:
    """Nobody waits for it: the rounds that are left are run by the others."""
    harness = make_harness()
    result = harness.race(clients=4, rounds=600, beside=end_one(harness))
    lost = {o.client for o in result.history.operations() if o.outcome.label == "in_doubt"}
    assert len(lost) <= 1
    assert max(o.phase for o in result.history.operations()) == 600
    assert result.verdict.truth is not Truth.BROKEN, result.verdict


def test_the_database_is_dropped_whoever_is_connected(make_harness: MakeHarness, server: EmbeddedServer) -> None:
    """A forgotten connection to a scratch database does not keep it."""
    harness = make_harness()
    with harness.template.clone() as database:
        forgotten = psycopg.connect(database.dsn)
    with connect(server.dsn) as connection:
        left = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [database.name]).fetchone()
    forgotten.close()
    assert left is None


def test_an_invariant_reads_every_value_as_it_was_answered(database: Database, tmp_path: Path) -> None:
    """What the text form of COPY and JSON give a meaning of its own comes through both."""
    odd = 'a\tb\nc\rd\\e"f, {g} \\N é'
    at, scanner = datetime(2030, 1, 1, 22, tzinfo=UTC), uuid.uuid4()
    answer = {"said": odd, odd: 1, "nothing": None, "true": True, "at": at, "by": scanner}
    operation = Operation(
        0,
        1,
        odd,
        {"asked": odd},
        0,
        0,
        1,
        Outcome(odd, Effect.FAILED, odd),
        answer,
        2,
        held=False,
        rolled_back=True,
        target="sql",
    )
    wanted = json.dumps(answer, default=str)
    query = sql.SQL(
        "SELECT * FROM harness.operations WHERE (answer, arguments, key, label, code, client, phase, rolled_back)"
        " IS DISTINCT FROM ({}::jsonb, {}::jsonb, {odd}, {odd}, {odd}, 1, 2, true)"
    ).format(wanted, json.dumps({"asked": odd}), odd=odd)
    path = tmp_path / "same.sql"
    path.write_text(query.as_string() + ";\nSELECT 'none was there' WHERE NOT EXISTS (SELECT FROM harness.operations);")
    asked = state.ask(invariants.load((path,)), [operation], database.connect)()
    assert [found.count for found in asked] == [0, 0], asked


def test_a_report_says_what_the_calls_really_ran_with(make_harness: MakeHarness, tmp_path: Path) -> None:
    """A migration may set an isolation level for the database: clones have it, and a held run says so."""
    setting = tmp_path / "settings.sql"
    setting.write_text(
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = serializable', "
        "current_database()); END $$;"
    )
    harness = make_harness(setting)
    result = harness.unknown(clients=2)
    assert "the calls ran with transaction_isolation = serializable" in " ".join(result.record.notes)
    assert not [note for note in make_harness().unknown(clients=2).record.notes if "ran with" in note]


def test_keys_that_are_not_made_in_time_are_an_error(make_harness: MakeHarness, tmp_path: Path) -> None:
    """A seed's function that waits for ever does not hold the run for ever."""
    slow = tmp_path / "slow.sql"
    slow.write_text(
        "CREATE OR REPLACE FUNCTION harness.new_tickets(count integer) RETURNS SETOF uuid LANGUAGE sql AS "
        "$$ SELECT gen_random_uuid() FROM pg_sleep(600) $$;"
    )
    with pytest.raises(HarnessError, match=r"new_tickets\(2\) had not ended after 1 s"):
        make_harness(seed=(SEED, slow), apply_timeout=1.0).unknown(clients=2)
