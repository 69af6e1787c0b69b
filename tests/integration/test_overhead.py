"""The paired comparison on a real server."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from harness.contracts.scan_ticket import SCAN_TICKET
from harness.environment.database import Database
from harness.environment.embedded import EmbeddedServer
from harness.experiments.overhead import overhead
from harness.records import dumps, loads
from harness.targets.http_serving import HttpOptions, open_http
from harness.verdict.findings import Truth
from tests.conftest import MakeHarness

pytestmark = pytest.mark.usefixtures("roles")


def test_a_comparison_says_what_http_adds_and_where_the_time_goes(make_harness: MakeHarness) -> None:
    """One run gives both doors' latencies with an interval, their throughput, the time's parts, and the verdict."""
    harness = make_harness()
    record = overhead(harness, HttpOptions(), clients=4, pairs=5, seconds=0.15, rounds=24)
    details = record.details
    assert [each["share"] for each in details["added"]] == [0.5, 0.95, 0.99]
    median = details["added"][0]
    assert median["low"] <= median["added"] <= median["high"]
    assert median["added"] == pytest.approx(median["http"] - median["sql"])
    assert all(rate > 0 for rate in details["rates"].values())
    anatomy = details["anatomy"]
    assert 0 < anatomy["function_ms"] < anatomy["http_ms"]
    assert anatomy["function_ms"] + anatomy["around_ms"] == pytest.approx(anatomy["http_ms"])
    assert set(anatomy["server_timing"]) == {"jwt", "parse", "plan", "transaction", "response"}
    assert details["outcomes"]["race mixed"].keys() == {"sql", "http"}
    assert not [f for f in record.findings if f.truth is Truth.BROKEN]
    assert harness.record("overhead").runs == (record,)
    assert loads(dumps(harness.record("overhead"))).runs == (record,)


def test_what_server_timing_counts_is_found_out(server: EmbeddedServer, database: Database) -> None:
    """PostgREST 12.0 gives CPU time in microseconds for milliseconds of elapsed time; a known pause shows it."""
    with closing(open_http(server, database, SCAN_TICKET, HttpOptions())) as target:
        assert target.postgrest is not None
        clock = target.server_clock()
        assert clock is not None
        if target.postgrest.describe().version.startswith("12.0."):
            assert (clock.unit, clock.counts) == (1e-6, "CPU time of the whole process")


def test_a_function_that_is_broken_is_found_broken_by_the_comparison(make_harness: MakeHarness, tmp_path: Path) -> None:
    """A comparison judges what it saw: a function that lets two in is broken, whichever door they came through."""
    (tmp_path / "0003_broken.sql").write_text(
        "DROP INDEX scan_logs_one_success_per_ticket;"
        "CREATE OR REPLACE FUNCTION scan_ticket_atomic(p_ticket_id uuid, p_scanned_by uuid,"
        " p_device_id text DEFAULT NULL, p_scan_method text DEFAULT 'qr') RETURNS TABLE (success boolean,"
        " already_scanned boolean, scanned_at timestamptz, scanned_by uuid, error_message text) LANGUAGE sql AS"
        " $$ SELECT true, false, clock_timestamp(), p_scanned_by, NULL::text $$;"
    )
    harness = make_harness(tmp_path / "0003_broken.sql")
    record = overhead(harness, HttpOptions(), clients=4, pairs=5, seconds=0.1, rounds=12)
    broken = {f.id for f in record.findings if f.truth is Truth.BROKEN}
    assert {"at_most_one_accepted", "http_outcomes_equivalent"} <= broken
