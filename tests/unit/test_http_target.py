"""Target http against a local server: the answers that a real PostgREST cannot be made to give."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness import Effect, Operation, Outcome
from harness.contracts.scan_ticket import SCAN_TICKET
from harness.environment import own
from harness.environment.postgrest import Token
from harness.errors import HarnessError, UsageError
from harness.load.crew import Crew
from harness.load.pattern import Keys
from harness.load.patterns import Burst
from harness.targets import http_wire
from harness.targets.http import HttpTarget
from harness.targets.http_answers import json_body
from tests.local_server import CUT, HANG, Answer, LocalServer, answer, answering

SECRET = "eyJhbGciOiJIUzI1NiJ9.secret.signature"
TICKET = uuid.UUID(int=7)
ACCEPTED = {
    "success": True,
    "already_scanned": False,
    "scanned_at": "2026-01-02T03:04:05.12345+00:00",
    "scanned_by": "00000000-0000-0000-0000-0000000000aa",
    "error_message": None,
}
ROW = json.dumps([ACCEPTED])


def target_of(server: LocalServer) -> HttpTarget:
    return HttpTarget(server.url, Token(SECRET), SCAN_TICKET)


def burst_through(target: HttpTarget, burst: Burst) -> list[Operation]:
    """The operations of a burst whose clients are served side by side."""
    crew = Crew(SCAN_TICKET, lambda _: target, burst.clients, timeout=10, overlap=lambda _: False)
    crew.open([uuid.uuid4() for _ in range(burst.clients)])
    try:
        crew.fire(burst, Keys([uuid.uuid4() for _ in range(int(burst.planned))]))
    finally:
        crew.close()
    return list(crew.history(()).operations())


def open_caller(target: HttpTarget) -> Any:
    arguments = [dict(variant.arguments(0)) for variant in SCAN_TICKET.variants]
    return target.connect(0, arguments, overlap=False, warm_up=TICKET)


def outcomes(*answers: Answer, calls: int | None = None) -> list[Outcome]:
    """What the calls come to that are answered so, one after the other on one client."""
    with answering(*answers) as server:
        target = target_of(server)
        caller = open_caller(target)
        found = [caller.call(target.encode_key(TICKET), 0)[0] for _ in range(calls or len(answers))]
        caller.close()
        return found


@pytest.mark.parametrize(
    "whole",
    [
        answer(ROW),
        answer(ROW, chunked=True),
        answer(ROW, "200 OK", "Connection: close"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x;ext=1\r\n%s\r\n0\r\nTrailer: x\r\n\r\n"
        % (len(ROW), ROW.encode()),
        b"HTTP/1.0 200 OK\r\ntransfer-encoding:  identity\r\ncontent-length:%d\r\n\r\n%s" % (len(ROW), ROW.encode()),
    ],
    ids=["content-length", "chunked", "connection: close", "chunk extension and trailer", "lower case"],
)
@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_an_answer_is_read_however_it_is_framed_and_however_it_is_cut_into_packets(whole: bytes, size: int) -> None:
    """An answer means the same in one packet as in many."""
    pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
    assert [o.label for o in outcomes(pieces, pieces)] == ["accepted", "accepted"]


def test_an_answer_without_length_ends_with_its_connection() -> None:
    """An answer that says no length is whole when the server closes, and the next call opens a connection."""
    endless = b"HTTP/1.1 200 OK\r\n\r\n" + ROW.encode()
    assert [o.label for o in outcomes([endless, CUT], answer(ROW))] == ["accepted", "accepted"]


def test_a_call_is_sent_at_most_once() -> None:
    """A connection cut under a call leaves it in doubt; the call is not sent again, and the next one goes on."""
    with answering(answer(ROW), CUT, answer(ROW)) as server:
        target = target_of(server)
        caller = open_caller(target)
        keys = [uuid.UUID(int=number) for number in (1, 2, 3)]
        found = [caller.call(target.encode_key(key), 0)[0] for key in keys]
        caller.close()
    assert [o.label for o in found] == ["accepted", "in_doubt", "accepted"]
    assert found[1].code == "connection_lost"
    sent = [json.loads(request.partition(b"\r\n\r\n")[2])["p_ticket_id"] for request in server.requests]
    assert sent == [str(key) for key in keys]


@pytest.mark.parametrize(
    "pieces",
    [
        [answer(ROW)[:9], CUT],
        [answer(ROW)[:-1], CUT],
        [answer(ROW, chunked=True)[:-5], CUT],
        [b"SSH-2.0-OpenSSH_9.2\r\n\r\n", CUT],
        [b"HTTP/1.1 abc\r\n\r\n", CUT],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", CUT],
    ],
    ids=["in the head", "in the body", "before the last chunk", "not HTTP", "no status", "no chunk size"],
)
def test_an_incomplete_answer_leaves_the_call_in_doubt(pieces: list[bytes]) -> None:
    """Whatever was read of an answer that is not whole proves nothing."""
    (outcome,) = outcomes(pieces)
    assert (outcome.label, outcome.effect, outcome.code) == ("in_doubt", Effect.IN_DOUBT, "connection_lost")


def test_a_connection_closed_while_idle_is_opened_again_before_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server may close a connection that nobody uses; the next call does not run into it."""
    monkeypatch.setattr(http_wire, "_IDLE", -1.0)
    with answering([answer(ROW), CUT], answer(ROW)) as server:
        target = target_of(server)
        caller = open_caller(target)
        first = caller.call(target.encode_key(TICKET), 0)[0]
        assert server.closed_one.wait(5)
        second = caller.call(target.encode_key(TICKET), 0)[0]
        caller.close()
    assert (first.label, second.label) == ("accepted", "accepted")
    assert target.evidence().connections == 2


def test_a_cancelled_call_is_in_doubt_and_the_client_goes_on() -> None:
    """A call given up for its time is in doubt with the code timeout; the next one has a connection of its own."""
    with answering(HANG, answer(ROW)) as server:
        target = target_of(server)
        caller = open_caller(target)

        def give_up() -> None:
            assert server.has_request.wait(5)
            caller.cancel()

        helper = threading.Thread(target=give_up)
        helper.start()
        given_up, _ = caller.call(target.encode_key(TICKET), 0)
        helper.join()
        after, _ = caller.call(target.encode_key(TICKET), 0)
        caller.close()
    assert (given_up.label, given_up.code, after.label) == ("in_doubt", "timeout", "accepted")


def test_a_server_that_is_gone_ends_the_client_and_accuses_nobody() -> None:
    """A call that found no connection has no answer of the function: it is in doubt, and there is no next one."""
    with answering([answer(ROW), CUT]) as server:
        target = target_of(server)
        caller = open_caller(target)
        caller.call(target.encode_key(TICKET), 0)
        server.close()
        caller.call(target.encode_key(TICKET), 0)
        refused, _ = caller.call(target.encode_key(TICKET), 0)
        alive = caller.alive
        caller.close()
    assert not alive
    assert (refused.effect, refused.code) == (Effect.IN_DOUBT, "connection_refused")


def test_clients_side_by_side_on_one_thread_outlive_a_cut_connection() -> None:
    """Where one thread serves several clients by polling, a client whose connection was cut goes on with another."""
    with answering(answer(ROW), CUT, [answer(ROW)[:20], CUT], [answer(ROW), CUT], answer(ROW)) as server:
        operations = burst_through(target_of(server), Burst(3, calls=5))
    sent = [json.loads(request.partition(b"\r\n\r\n")[2])["p_ticket_id"] for request in server.requests]
    assert len(operations) == 15
    assert len(set(sent)) == len(sent) <= 15
    assert {o.outcome.label for o in operations} >= {"accepted", "in_doubt"}


def error(code: str, message: str = "it went wrong") -> str:
    return json.dumps({"code": code, "message": message, "details": None, "hint": None})


@pytest.mark.parametrize(
    ("whole", "label", "code"),
    [
        (answer(error("55P03"), "500 Internal Server Error"), "failed", "55P03"),
        (answer(error("23505"), "409 Conflict"), "failed", "23505"),
        (answer(error("40P01"), "500 Internal Server Error"), "failed", "40P01"),
        (answer(error("P0001"), "400 Bad Request"), "failed", "P0001"),
        (answer(error("PGRST003"), "504 Gateway Timeout"), "failed", "PGRST003"),
        (answer(error("", ""), "500 Internal Server Error"), "in_doubt", "no_code"),
        (answer(error("PGRST000"), "503 Service Unavailable"), "in_doubt", "PGRST000"),
        (answer(error("PGRST001"), "503 Service Unavailable"), "in_doubt", "PGRST001"),
        (answer(error("57P01"), "503 Service Unavailable"), "in_doubt", "57P01"),
        (answer(error("08006"), "503 Service Unavailable"), "in_doubt", "08006"),
        (answer(error("55P03"), "200 OK"), "failed", "55P03"),
        (answer("upstream timed out", "504 Gateway Timeout"), "in_doubt", "http_504"),
        (answer("<html>Bad gateway</html>", "502 Bad Gateway"), "in_doubt", "http_502"),
        (answer("", "302 Found", "Location: https://elsewhere.example/"), "failed", "http_302"),
        (answer("<!doctype html><title>Hello</title>"), "failed", "not_json"),
        (answer(""), "failed", "not_json"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "failed", "not_json"),
        (answer(b"\xff\xfe"), "failed", "not_json"),
        (answer('{"message":"no Route matched"}', "404 Not Found"), "failed", "http_404"),
        (answer("[]"), "failed", "broken_answer"),
        (answer(json.dumps([ACCEPTED, ACCEPTED])), "failed", "broken_answer"),
        (answer("[null]"), "failed", "broken_answer"),
        (answer("null"), "failed", "broken_answer"),
        (answer("3"), "failed", "broken_answer"),
        (answer(json.dumps([{**ACCEPTED, "success": None}])), "failed", "broken_answer"),
        (answer(json.dumps([{"success": True}])), "failed", "broken_answer"),
        (answer(json.dumps([{**ACCEPTED, "error_message": ["odd"]}])), "failed", "broken_answer"),
        (answer(json.dumps(ACCEPTED)), "accepted", None),
        (answer(ROW, "409 Conflict"), "accepted", None),
    ],
)
def test_the_body_decides_the_outcome_and_not_the_status_alone(whole: bytes, label: str, code: str | None) -> None:
    """The same status means a lost race, a broken function or a lost call: the body's code tells them apart."""
    (outcome,) = outcomes(whole)
    assert (outcome.label, outcome.code) == (label, code)


def test_the_checks_of_the_original_test_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Status is 200, has body, under 200 ms and valid JSON are metrics, whatever the outcomes were."""
    monkeypatch.setattr("harness.targets.http._SLOW", 60.0)
    with answering(answer(ROW), answer("<html>", "500 Oops"), answer(""), CUT, answer(ROW)) as server:
        target = target_of(server)
        caller = open_caller(target)
        for _ in range(5):
            caller.call(target.encode_key(TICKET), 0)
        caller.close()
        details = target.details()
    assert {name: count["passed"] for name, count in details["checks"].items()} == {
        "status is 200": 3,
        "has body": 3,
        "response time under 200 ms": 4,
        "valid JSON": 2,
    }
    assert details["statuses"] == {"0": 1, "200": 3, "500": 1}


def test_server_timing_is_kept_for_each_call() -> None:
    """Each call's Server-Timing header is kept, part by part."""
    header = "Server-Timing: jwt;dur=1.5, parse;dur=2, plan;dur=3.25, transaction;dur=4, response;dur=0.1, other;dur=9"
    with answering(answer(ROW, "200 OK", header)) as server:
        target = target_of(server)
        caller = open_caller(target)
        for _ in range(3):
            caller.call(target.encode_key(TICKET), 0)
        timing = target.evidence().server_timing
        caller.close()
    assert {part: list(figures) for part, figures in timing.items()} == {
        "jwt": [1.5] * 3,
        "parse": [2.0] * 3,
        "plan": [3.25] * 3,
        "transaction": [4.0] * 3,
        "response": [0.1] * 3,
    }


def test_evidence_is_decoded_to_the_same_values_as_by_sql() -> None:
    """A ticket's winner and time compare equal whichever door they came through."""
    with answering(answer(ROW)) as server:
        target = target_of(server)
        caller = open_caller(target)
        key = target.encode_key(TICKET)
        _, raw = caller.call(key, 0)
        caller.close()
    assert target.decode_key(key) == TICKET
    assert [target.decode_evidence(at, [value])[0] for at, value in enumerate(raw)] == [
        datetime(2026, 1, 2, 3, 4, 5, 123450, tzinfo=UTC),
        uuid.UUID("00000000-0000-0000-0000-0000000000aa"),
    ]


def test_arguments_become_json_as_postgres_reads_it() -> None:
    """Every value of a contract's arguments has a JSON form that PostgREST casts to the parameter's type."""
    day = datetime(2026, 1, 2, tzinfo=UTC)
    values = {"a": None, "b": True, "c": Decimal("1.50"), "d": TICKET, "e": day, "f": b"\1"}
    assert json.loads(json_body(values)) == {
        "a": None,
        "b": True,
        "c": "1.50",
        "d": str(TICKET),
        "e": "2026-01-02T00:00:00+00:00",
        "f": "\\x01",
    }


def test_the_token_is_sent_and_never_shown() -> None:
    """The token stands in the request's head and in no repr, outcome or error."""
    echo = answer(error("PGRST301", f"bad token {SECRET}"), "401 Unauthorized")
    with answering(echo) as server:
        target = HttpTarget(server.url, Token(SECRET), SCAN_TICKET, apikey=True)
        caller = open_caller(target)
        outcome, _ = caller.call(target.encode_key(TICKET), 0)
        with pytest.raises(HarnessError) as raised:
            target.probe()
        shown = [repr(x) for x in (target, caller, outcome, vars(target), vars(caller), target.details())]
        caller.close()
    head = server.requests[0].decode()
    assert f"Authorization: Bearer {SECRET}" in head
    assert f"apikey: {SECRET}" in head
    assert not [text for text in (*shown, str(raised.value)) if "secret.signature" in text]


@pytest.mark.parametrize("text", ["", "two words", "line\nbreak", "ключ"])
def test_a_token_that_cannot_stand_in_a_header_is_refused(text: str) -> None:
    """A token with a line break would end the header and start another."""
    with pytest.raises(UsageError, match="token"):
        Token(text)


@pytest.mark.parametrize(
    "url", ["", "localhost:3000", "ftp://host", "http://", "http://host:99999", "http://user:pw@host", "http://[::1"]
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    """An address is checked before anything is sent, and a password in it is not repeated."""
    with pytest.raises(UsageError, match="not an address of a PostgREST") as raised:
        HttpTarget(url, Token(SECRET), SCAN_TICKET)
    assert "pw" not in str(raised.value)


def _closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


def _tls_to_plain(server: LocalServer) -> str:
    return server.url.replace("http:", "https:")


def _own(server: LocalServer) -> str:
    return server.url


@pytest.mark.parametrize(
    ("whole", "url_of", "what"),
    [
        (answer(ROW), lambda _: _closed_port(), "No connection.*refused"),
        (answer(ROW), lambda _: "http://nobody.invalid", "No connection.*the name nobody.invalid"),
        ([b"HTTP/1.1 400 Bad Request\r\n\r\n", CUT], _tls_to_plain, "No connection.*TLS"),
        (CUT, _own, "cut before the answer"),
        (answer("<html>Welcome</html>"), _own, "no PostgREST behind the address.*HTML.*rest/v1"),
        (answer("", "301 Moved", "Location: https://x/"), _own, "no PostgREST behind.*redirected to https://x/"),
        (answer("{}", "404 Not Found"), _own, "no PostgREST behind the address.*404.*rest/v1"),
        (answer('{"message":"Invalid API key"}', "401 Unauthorized"), _own, "gateway does not accept the token"),
        (answer(error("PGRST303", "JWT expired"), "401 Unauthorized"), _own, "token is not accepted.*JWT expired"),
        (answer(error("PGRST302"), "401 Unauthorized"), _own, "no anonymous calls"),
        (answer(error("42501"), "403 Forbidden"), _own, "role may not do.*403 42501"),
        (answer(error("PGRST202"), "404 Not Found"), _own, "does not expose the function.*reload the schema cache"),
        (answer(error("PGRST106", "must be one of: api"), "406 Not Acceptable"), _own, "schema.*one of: api"),
    ],
)
def test_a_mistake_of_set_up_is_said_before_the_run(
    whole: Answer, url_of: Callable[[LocalServer], str], what: str
) -> None:
    """The probe turns a wrong address, token or function into an error that says what to do."""
    with answering(whole) as server:
        target = HttpTarget(url_of(server), Token(SECRET), SCAN_TICKET)
        with pytest.raises(HarnessError, match=f"(?s){what}") as raised:
            target.probe()
    assert raised.value.next_step


def test_an_error_of_the_function_itself_is_no_mistake_of_set_up() -> None:
    """A function that raises for an unknown key is judged by the run, not refused by the probe."""
    with answering(answer(error("P0002", "no such ticket"), "400 Bad Request")) as server:
        assert target_of(server).probe().code == "P0002"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1, with its key in the same file."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("openssl is not installed: no certificate")
    folder = tmp_path_factory.mktemp("tls")
    key, certificate, both = folder / "key.pem", folder / "certificate.pem", folder / "both.pem"
    subprocess.run(
        [
            program, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
            "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate,
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    both.write_text(key.read_text() + certificate.read_text())
    return both


def test_calls_over_tls_are_answered_and_their_connection_is_kept(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a trusted certificate calls go as they do without TLS, on one connection, alone or side by side."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    long = json.dumps([{**ACCEPTED, "padding": "x" * 40_000}])  # more than one TLS record
    with answering(answer(long), answer(ROW), certificate=certificate) as server:
        target = target_of(server)
        operations = burst_through(target, Burst(2, calls=4))
    assert [o.outcome.label for o in operations] == ["accepted"] * 8
    assert target.evidence().connections == 2


def test_a_certificate_that_nobody_vouches_for_is_refused(certificate: Path) -> None:
    """A self-signed certificate ends the probe before the token is sent."""
    with (
        answering(answer(ROW), certificate=certificate) as server,
        pytest.raises(HarnessError, match="TLS: self-signed certificate"),
    ):
        target_of(server).probe()
    assert server.requests == []


@pytest.mark.parametrize(
    ("unit", "counts", "figures"),
    [
        (1e-3, "wall time", ("50.4", "150.2")),
        (1e-6, "wall time", ("50400.1", "150200")),
        (1e-3, "CPU time of the whole process", ("0.8", "1.1")),
        (1e-6, "CPU time of the whole process", ("812.5", "1130.2")),
    ],
)
def test_the_unit_of_server_timing_is_found_out_in_every_version(
    unit: float, counts: str, figures: tuple[str, str]
) -> None:
    """Versions differ in what the header counts: a pause of known length tells them apart."""

    class Pausing(LocalServer):
        def before_answer(self, request: bytes) -> None:
            time.sleep(json.loads(request.partition(b"\r\n\r\n")[2])["seconds"] * 1.01)

    server = Pausing(*(answer("true", "200 OK", f"Server-Timing: transaction;dur={figure}") for figure in figures))
    found = target_of(server).server_clock()
    server.close()
    assert found is not None
    assert (found.unit, found.counts) == (unit, counts)


def test_a_server_without_server_timing_has_no_clock() -> None:
    """Where the header is missing nothing is made up."""
    with answering(answer("true")) as server:
        assert target_of(server).server_clock() is None


def test_no_call_is_made_through_a_postgrest_whose_server_has_stopped_answering() -> None:
    """PostgREST lives on when its server is stopped: each call would outlast its timeout, and a run go on for ever."""
    database = "postgresql://someone@/postgres?host=/run/frozen&port=5432"
    with answering(answer(ROW), answer(ROW)) as server:
        target = target_of(server)
        target.postgrest = SimpleNamespace(maintenance=database)  # type: ignore[assignment]
        caller, key = open_caller(target), target.encode_key(TICKET)
        try:
            assert caller.call(key, 0)[0].label == "accepted"
            own.cut(database, "the server has not answered")
            assert not caller.send(key, 0)
        finally:
            own.answers(database)
            caller.close()
