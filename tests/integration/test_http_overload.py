"""More clients than PostgREST has connections, on a real server."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.experiments.overload import overload
from harness.targets.http_serving import HttpOptions
from harness.verdict.findings import Truth
from tests.conftest import MakeHarness

pytestmark = pytest.mark.usefixtures("roles")


def test_a_queue_at_the_pool_changes_no_outcome(make_harness: MakeHarness) -> None:
    """Five clients per connection wait, and the function keeps its promise all the same."""
    record = overload(make_harness(), HttpOptions(pool=2), clients=10, rounds=12)
    assert record.details["turned_away"] == 0
    assert not [f for f in record.findings if f.truth is Truth.BROKEN]
    assert "10 clients on a pool of 2" in record.notes[0]


def test_calls_turned_away_are_counted_as_what_they_are(make_harness: MakeHarness, tmp_path: Path) -> None:
    """A slow function exhausts the pool: 504s are counted, are no fault of the function, and left no trace."""
    slow = (
        "ALTER FUNCTION scan_ticket_atomic RENAME TO scan_ticket_fast;"
        "CREATE FUNCTION scan_ticket_atomic(p_ticket_id uuid, p_scanned_by uuid, p_device_id text DEFAULT NULL,"
        " p_scan_method text DEFAULT 'qr') RETURNS TABLE (success boolean, already_scanned boolean,"
        " scanned_at timestamptz, scanned_by uuid, error_message text) LANGUAGE sql AS $$"
        " SELECT pg_sleep(0.4);"
        " SELECT * FROM scan_ticket_fast(p_ticket_id, p_scanned_by, p_device_id, p_scan_method) $$;"
    )
    (tmp_path / "0003_slow.sql").write_text(slow)
    harness = make_harness(tmp_path / "0003_slow.sql")
    record = overload(harness, HttpOptions(pool=1, pool_timeout=1), clients=6, rounds=1)
    statuses = record.details["http"]["statuses"]
    assert record.details["turned_away"] == statuses["504"] > 0
    assert record.metrics is not None
    assert record.metrics.counts["failed"] == statuses["504"]
    assert not [f for f in record.findings if f.truth is Truth.BROKEN]
    assert "504 PGRST003" in record.notes[0]


def test_as_many_connections_as_clients_are_no_overload(make_harness: MakeHarness) -> None:
    """A plan that cannot overload anything is refused."""
    with pytest.raises(UsageError, match="do not overload"):
        overload(make_harness(), HttpOptions(pool=10), clients=10)
