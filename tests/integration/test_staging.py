"""Staging against a real PostgREST, as a project would run it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from harness.contracts.scan_ticket import SCAN_TICKET
from harness.environment.database import Database
from harness.environment.embedded import EmbeddedServer
from harness.environment.postgrest import SupabaseRoles
from harness.records import dumps
from harness.staging import Staging, read_staging, run_staging
from harness.targets.http_serving import HttpOptions, open_http
from harness.verdict.findings import Truth


@pytest.fixture
def staging(server: EmbeddedServer, database: Database, binary: Path, tmp_path: Path) -> Iterator[Staging]:
    """The ticket file of the original test, with tickets of a database behind a PostgREST."""
    with database.connect() as connection:
        found = [str(row[0]) for row in connection.execute("SELECT harness.new_tickets(16)").fetchall()]
    entries = [{"id": ticket, "event_id": str(uuid.UUID(int=1)), "type": "GA"} for ticket in found[1:]]
    file = tmp_path / "tickets.json"
    file.write_text(json.dumps({"tickets": entries, "raceTestTicket": {"id": found[0]}}))
    with (
        SupabaseRoles(server),
        closing(open_http(server, database, SCAN_TICKET, HttpOptions(postgrest=str(binary)))) as target,
    ):
        assert target.postgrest is not None
        token = target.postgrest.token().reveal()
        yield read_staging(target.url, file, {"SUPABASE_SERVICE_ROLE_KEY": token, "TEST_SCANNER_ID": str(uuid.uuid4())})


def test_real_tickets_are_scanned_once_and_the_verdict_says_what_it_could_not_see(
    staging: Staging, database: Database
) -> None:
    """Fifteen tickets burst, one is raced by ten; what the API shows is judged, the rest is named."""
    record = run_staging(staging, SCAN_TICKET, command="harness run", pause=0)
    burst, race = record.runs
    assert burst.metrics is not None
    assert burst.metrics.counts["successful_scans"] == 15
    assert race.metrics is not None
    assert race.metrics.counts["successful_scans"] == 1
    assert race.metrics.counts["race_conditions_caught"] == 9
    held = {f.id for f in race.findings if f.truth is Truth.HELD}
    assert {"at_most_one_accepted", "true_winner", "linearizable"} <= held
    assert record.truth is Truth.HELD
    assert any("same time on the server" in note for note in race.notes)
    with database.connect() as connection:
        assert connection.execute("SELECT count(*), count(DISTINCT scanned_by) FROM scan_logs").fetchone() == (16, 1)
    assert staging.token.reveal() not in dumps(record)


def test_a_second_run_accuses_nobody(staging: Staging) -> None:
    """Tickets that the first run used up say nothing in the second, and a note says so."""
    run_staging(staging, SCAN_TICKET, command="harness run", pause=0)
    burst, race = run_staging(staging, SCAN_TICKET, command="harness run", pause=0).runs
    assert "left out: 15 tickets used before this run" in burst.notes[0]
    assert "left out: 1 ticket used before this run" in race.notes[0]
    assert not [f for r in (burst, race) for f in r.findings if f.truth is Truth.BROKEN]
