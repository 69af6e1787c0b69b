"""Staging: what a run against somebody else's API is made with, and what it refuses."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from harness.contracts import invariants
from harness.contracts.scan_ticket import SCAN_TICKET
from harness.errors import ExitStatus, HarnessError, UsageError
from harness.records import Record, dumps
from harness.reports import terminal
from harness.staging import confirm, read_staging, run_staging
from harness.verdict.findings import Truth
from tests.local_server import HANG, answer, answering

KEY = "eyJhbGciOiJIUzI1NiJ9.secret.signature"
EVENT, OTHER_EVENT = str(UUID(int=1)), str(UUID(int=2))
SCANNER = str(UUID(int=3))
TICKETS = [str(UUID(int=number)) for number in range(100, 104)]
RACE = str(UUID(int=199))
ENVIRONMENT = {"SUPABASE_URL": "https://project.supabase.co/", "SUPABASE_SERVICE_ROLE_KEY": KEY}


def ticket_file(folder: Path, content: Any = None) -> Path:
    """The file format of the original load test."""
    path = folder / "tickets.json"
    entries = [{"id": ticket, "event_id": EVENT, "type": "GA"} for ticket in TICKETS]
    written = {"tickets": entries, "raceTestTicket": {"id": RACE}} if content is None else content
    path.write_text(written if isinstance(written, str) else json.dumps(written))
    return path


def test_the_files_and_variables_of_the_original_test_are_understood(tmp_path: Path) -> None:
    """The base URL gets /rest/v1, and the file's tickets, the race ticket and the scanner are taken over."""
    environment = ENVIRONMENT | {"TEST_EVENT_ID": EVENT, "TEST_SCANNER_ID": SCANNER}
    staging = read_staging(None, ticket_file(tmp_path), environment)
    assert staging.url == "https://project.supabase.co/rest/v1"
    assert staging.tickets == tuple(UUID(ticket) for ticket in TICKETS)
    assert (staging.race_ticket, staging.scanner) == (UUID(RACE), UUID(SCANNER))
    assert KEY not in repr(staging)


def test_an_option_goes_before_the_environment(tmp_path: Path) -> None:
    """--http-url is taken as it is, and RACE_TEST_TICKET_ID goes before the file's race ticket."""
    environment = ENVIRONMENT | {"RACE_TEST_TICKET_ID": TICKETS[0]}
    staging = read_staging("http://127.0.0.1:3000/", ticket_file(tmp_path), environment)
    assert staging.url == "http://127.0.0.1:3000"
    assert staging.race_ticket == UUID(TICKETS[0])
    assert staging.race_ticket not in staging.tickets


@pytest.mark.parametrize(
    ("content", "environment", "what"),
    [
        (None, {"SUPABASE_URL": ""}, "No address"),
        (None, {"SUPABASE_SERVICE_ROLE_KEY": " "}, "No token"),
        (None, {"SUPABASE_SERVICE_ROLE_KEY": "two words"}, "token"),
        (None, {"TEST_EVENT_ID": "my-event"}, "TEST_EVENT_ID"),
        (None, {"TEST_EVENT_ID": OTHER_EVENT}, "no ticket of the event"),
        ("{", {}, "cannot be read as JSON"),
        ([], {}, "no list of tickets"),
        ({"tickets": []}, {}, "no list of tickets"),
        ({"tickets": [{"id": "REPLACE_WITH_TICKET_ID"}]}, {}, "placeholder.*REPLACE_WITH"),
        ({"tickets": [{"id": str(UUID(int=0))}]}, {}, "placeholder"),
        ({"tickets": [{}]}, {}, "placeholder"),
        ({"tickets": [{"id": TICKETS[0]}], "raceTestTicket": {"id": "your-ticket"}}, {}, "placeholder: raceTestTicket"),
        ({"tickets": [{"id": TICKETS[0]}, {"id": TICKETS[0]}]}, {}, "more than once"),
    ],
)
def test_what_is_missing_or_a_placeholder_is_refused_with_the_steps(
    tmp_path: Path, content: Any, environment: Mapping[str, str], what: str
) -> None:
    """Nothing is called before the set-up is whole; the error says how to make it so."""
    with pytest.raises(UsageError, match=what) as raised:
        read_staging(None, ticket_file(tmp_path, content), {**ENVIRONMENT, **environment})
    assert raised.value.next_step
    assert KEY not in str(raised.value)


def test_the_sample_is_refused_until_it_holds_real_ids() -> None:
    """It has the form that is read, and zeros for ids; the refusal names it."""
    sample = Path(__file__).parents[2] / "sql" / "seed" / "tickets.json"
    with pytest.raises(UsageError, match=r"holds a placeholder: tickets\[0\]\.id") as caught:
        read_staging(None, sample, ENVIRONMENT)
    assert "sql/seed/tickets.json" in (caught.value.tried or "")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """No file, and none that is there, are usage errors."""
    with pytest.raises(UsageError, match="No tickets are given"):
        read_staging(None, None, ENVIRONMENT)
    with pytest.raises(UsageError, match="cannot be read"):
        read_staging(None, tmp_path / "none.json", ENVIRONMENT)


@pytest.mark.parametrize(("said", "goes_on"), [("y", True), (" YES ", True), ("", False), ("n", False), (None, False)])
def test_real_tickets_are_scanned_only_after_a_yes(tmp_path: Path, said: str | None, goes_on: bool) -> None:
    """It asks first; where nobody can be asked, it needs --yes."""
    staging = read_staging(None, ticket_file(tmp_path), ENVIRONMENT)
    asked: list[str] = []

    def ask(question: str) -> str:
        asked.append(question)
        assert said is not None
        return said

    confirm(staging, yes=True, ask=None)
    if goes_on:
        confirm(staging, yes=False, ask=ask)
    else:
        with pytest.raises(UsageError):
            confirm(staging, yes=False, ask=None if said is None else ask)
    assert all("4 real tickets and the race ticket" in question for question in asked)


def row(**columns: Any) -> bytes:
    whole = {"success": False, "already_scanned": False, "scanned_at": None, "scanned_by": None, "error_message": None}
    return answer(json.dumps([whole | columns]))


NOT_FOUND = row(error_message="Ticket not found")
USED = row(already_scanned=True, scanned_by=str(UUID(int=9)), scanned_at="2026-01-01T00:00:00+00:00")


def test_used_and_unknown_tickets_are_left_out_and_said(tmp_path: Path) -> None:
    """A ticket used before the run is no evidence against the function; a note says how many there were."""
    file = ticket_file(tmp_path, {"tickets": [{"id": ticket} for ticket in TICKETS[:3]]})
    won = row(success=True, scanned_by=SCANNER, scanned_at="2026-01-01T00:00:00+00:00")
    # The probe, then one call per ticket.
    with answering(NOT_FOUND, USED, NOT_FOUND, won) as server:
        staging = read_staging(server.url, file, ENVIRONMENT | {"TEST_SCANNER_ID": SCANNER})
        record = run_staging(staging, SCAN_TICKET, command="harness run", clients=1, pause=0)
    (burst,) = record.runs
    assert [note.partition(":")[0] for note in burst.notes[:2]] == ["left out", "left out"]
    assert all("1 ticket " in note for note in burst.notes[:2])
    assert not [f for f in burst.findings if f.truth is Truth.BROKEN]
    assert all(json.loads(r.partition(b"\r\n\r\n")[2])["p_scanned_by"] == SCANNER for r in server.requests[1:])
    assert KEY not in dumps(record)


WON = row(success=True, scanned_by=SCANNER, scanned_at="2026-01-01T00:00:00+00:00")


def one_ticket(folder: Path, *answers: bytes) -> Record:
    """A run on one fresh ticket, with these answers to the probe and the calls."""
    with answering(*answers) as server:
        file = ticket_file(folder, {"tickets": [{"id": TICKETS[0]}]})
        staging = read_staging(server.url, file, ENVIRONMENT | {"TEST_SCANNER_ID": SCANNER})
        return run_staging(staging, SCAN_TICKET, command="x", pause=0)


def test_what_can_be_observed_is_judged_and_what_could_not_be_seen_is_named(tmp_path: Path) -> None:
    """A run whose every answer was right is held, and says of each claim on the database that it was not seen."""
    record = one_ticket(tmp_path, NOT_FOUND, WON)
    (burst,) = record.runs
    assert (record.truth, record.exit_status) == (Truth.HELD, ExitStatus.HELD)
    (note,) = [note for note in burst.notes if "not seen" in note]
    claims = [query.claim for query in invariants.load((), SCAN_TICKET)]
    assert claims
    assert all(claim in note for claim in claims)
    assert not [f for f in burst.findings if f.id.startswith("invariant.")]
    text = "\n".join(line.text for line in terminal.screen(record, None))
    assert "verdict: held" in text
    assert "unknown" not in text


def test_a_wrong_answer_is_broken_whatever_could_not_be_seen(tmp_path: Path) -> None:
    """Somebody else stands on a ticket that this caller was let in on."""
    other = row(success=True, scanned_by=str(UUID(int=9)), scanned_at="2026-01-01T00:00:00+00:00")
    assert one_ticket(tmp_path, NOT_FOUND, other).truth is Truth.BROKEN


def test_where_no_ticket_was_fresh_nothing_was_observed(tmp_path: Path) -> None:
    """Held is only said of what was tried."""
    assert one_ticket(tmp_path, NOT_FOUND, USED).truth is Truth.UNDECIDED


def test_an_api_that_does_not_take_the_token_is_said_before_a_ticket_is_scanned(tmp_path: Path) -> None:
    """The probe calls with a ticket that does not exist; nothing else is sent when that is refused."""
    with answering(answer('{"message":"Invalid API key"}', "401 Unauthorized")) as server:
        staging = read_staging(server.url, ticket_file(tmp_path), ENVIRONMENT)
        with pytest.raises(HarnessError, match="does not accept the token"):
            run_staging(staging, SCAN_TICKET, command="x")
    assert len(server.requests) == 1
    assert not any(ticket.encode() in server.requests[0] for ticket in TICKETS)


def test_ctrl_c_leaves_a_record_of_what_was_scanned(tmp_path: Path) -> None:
    """Real tickets are used up by then, so the record so far is kept and marked, and the race is not begun."""
    won = row(success=True, scanned_by=SCANNER, scanned_at="2026-01-01T00:00:00+00:00")
    with answering(NOT_FOUND, won, HANG) as server:
        staging = read_staging(server.url, ticket_file(tmp_path), ENVIRONMENT)

        def interrupt() -> None:
            while len(server.requests) < 3:
                server.has_request.wait(5)
            signal.raise_signal(signal.SIGINT)

        helper = threading.Thread(target=interrupt)
        helper.start()
        record = run_staging(staging, SCAN_TICKET, command="x", clients=1, pause=0)
        helper.join()
    assert record.interrupted
    (burst,) = record.runs
    assert burst.metrics is not None
    assert burst.metrics.counts["successful_scans"] == 1
    assert burst.metrics.counts.get("in_doubt") == 1, (burst.metrics.counts, server.requests, burst.notes)
