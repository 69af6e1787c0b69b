"""`python -m bench.http`: client CPU per request and requests/s of the HTTP client, against http.client and pycurl.

All three send the same calls to the same PostgREST, ten clients each, in blocks that alternate within one run; only
the ratios mean something on another machine. Goal: at most 100 us of client CPU where http.client takes 145 us (0.69 of
it), and at least its requests/s.
"""

from __future__ import annotations

import http.client
import itertools
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from harness import Effect
from harness.contracts.scan_ticket import SCAN_TICKET
from harness.environment.database import Database, Template
from harness.environment.embedded import EmbeddedServer
from harness.environment.postgrest import PostgREST, SupabaseRoles, Token
from harness.environment.servers import connect
from harness.load.crew import Crew
from harness.load.firing import clock
from harness.load.pattern import Keys
from harness.load.patterns import Burst
from harness.targets.http import HttpTarget
from harness.targets.http_serving import HttpOptions, open_http

CLIENTS = 10
SECONDS = 2.0
ROUNDS = 5
MOST = 4000
"""Requests/s that no client reaches here: so many tickets are made."""
SQL = Path(__file__).parents[1] / "sql"

Calls = Callable[[Iterator[str], float], int]
"""One thread: call with fresh tickets until a reading of perf_counter; the number of calls."""

Block = Callable[[Iterator[str]], tuple[float, float]]
"""One block of all clients: requests/s, and microseconds of this process's CPU per request."""

_REST = b'","p_scanned_by":"00000000-0000-0000-0000-0000000000aa","p_device_id":"device-00","p_scan_method":"qr"}'


def _body(ticket: str) -> bytes:
    return b'{"p_ticket_id":"' + ticket.encode() + _REST


def _with_http_client(url: str, token: Token) -> Calls:
    headers = {"Authorization": f"Bearer {token.reveal()}", "Content-Type": "application/json"}

    def calls(tickets: Iterator[str], end: float) -> int:
        connection = http.client.HTTPConnection(urlsplit(url).netloc)
        done = 0
        while time.perf_counter() < end:
            connection.request("POST", "/rpc/scan_ticket_atomic", _body(next(tickets)), headers)
            answer = connection.getresponse()
            assert json.loads(answer.read())[0]["success"] is True
            done += 1
        connection.close()
        return done

    return calls


def _with_pycurl(url: str, token: Token) -> Calls:
    import pycurl

    def calls(tickets: Iterator[str], end: float) -> int:
        curl, head, body = pycurl.Curl(), bytearray(), bytearray()
        curl.setopt(pycurl.URL, f"{url}/rpc/scan_ticket_atomic")
        curl.setopt(
            pycurl.HTTPHEADER, [f"Authorization: Bearer {token.reveal()}", "Content-Type: application/json", "Expect:"]
        )
        curl.setopt(pycurl.WRITEFUNCTION, body.extend)
        curl.setopt(pycurl.HEADERFUNCTION, head.extend)
        curl.setopt(pycurl.NOSIGNAL, 1)
        done = 0
        while time.perf_counter() < end:
            head.clear()
            body.clear()
            curl.setopt(pycurl.COPYPOSTFIELDS, _body(next(tickets)))
            curl.perform()
            assert json.loads(body)[0]["success"] is True
            done += 1
        curl.close()
        return done

    return calls


def _on_threads(calls: Calls) -> Block:
    def block(tickets: Iterator[str]) -> tuple[float, float]:
        done: list[int] = []
        cpu, started = time.process_time(), time.perf_counter()
        threads = [
            threading.Thread(target=lambda: done.append(calls(tickets, started + SECONDS))) for _ in range(CLIENTS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(done) / (time.perf_counter() - started), (time.process_time() - cpu) / sum(done) * 1e6

    return block


def _with_harness(target: HttpTarget) -> Block:
    """The run as it is: a crew fires a burst, every answer is classified and written down."""
    burst = Burst(CLIENTS, duration=SECONDS)

    def block(tickets: Iterator[str]) -> tuple[float, float]:
        crew = Crew(SCAN_TICKET, lambda _: target, CLIENTS, timeout=10, overlap=burst.overlap)
        crew.open([next(tickets) for _ in range(CLIENTS)])
        keys = Keys(list(itertools.islice(tickets, int(MOST * SECONDS))))
        crew.fire(burst, keys)
        cpu, seconds = time.process_time() - crew.cpu_started, (clock() - crew.started) / 1e9
        crew.close()
        outcomes = [outcome for log in crew.logs for outcome in log.outcomes]
        assert all(outcome.effect is Effect.APPLIED for outcome in outcomes)
        return len(outcomes) / seconds, cpu / len(outcomes) * 1e6

    return block


def _tickets(database: Database, count: int) -> Iterator[str]:
    with connect(database.dsn) as connection:
        found = [str(row[0]) for row in connection.execute("SELECT harness.new_tickets(%s)", [count]).fetchall()]
        connection.execute("VACUUM ANALYZE")
    return iter(found)


def _clients(postgrest: PostgREST) -> dict[str, Block]:
    url, token = postgrest.url, postgrest.token()
    clients = {
        "http.client": _on_threads(_with_http_client(url, token)),
        "harness": _with_harness(HttpTarget(url, token, SCAN_TICKET)),
    }
    if find_spec("pycurl") is None:
        print("pycurl is not installed: left out")
    else:
        clients["pycurl"] = _on_threads(_with_pycurl(url, token))
    return clients


def main() -> int:
    with (
        EmbeddedServer() as server,
        SupabaseRoles(server),
        Template(server, [SQL / "migrations"], [SQL / "seed"]) as template,
        template.clone() as database,
        closing(open_http(server, database, SCAN_TICKET, HttpOptions())) as target,
    ):
        assert target.postgrest is not None
        print(f"{server.describe()}, {target.postgrest.describe()}, {CLIENTS} clients, {ROUNDS} x {SECONDS:.0f} s each")
        clients = _clients(target.postgrest)
        tickets = _tickets(database, int(MOST * SECONDS * (ROUNDS + 1) * len(clients)))
        figures: dict[str, list[tuple[float, float]]] = {name: [] for name in clients}
        clients["http.client"](tickets)  # warms PostgREST's pool for all
        for number in range(ROUNDS):
            names = list(clients)
            for name in names if number % 2 == 0 else reversed(names):
                figures[name].append(clients[name](tickets))
    base_rate, base_cpu = (statistics.median(f[at] for f in figures["http.client"]) for at in (0, 1))
    for name, blocks in figures.items():
        rate, cpu = (statistics.median(f[at] for f in blocks) for at in (0, 1))
        print(
            f"{name:<12} {rate:7.0f} requests/s ({rate / base_rate:.2f} x http.client)   "
            f"{cpu:6.1f} us client CPU per request ({cpu / base_cpu:.2f} x http.client)"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
