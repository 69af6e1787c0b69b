"""What the measurements share: a server with the shipped function, pgbench on it, and CPU clocks."""

from __future__ import annotations

import re
import resource
import statistics
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import harness.run
from harness.contracts.contract import Contract
from harness.contracts.scan_ticket import SCAN_TICKET
from harness.environment.database import Database
from harness.environment.embedded import _binaries
from harness.load.crew import Crew
from harness.load.pattern import Keys, Pattern
from harness.options import Options
from harness.targets import conditions
from harness.targets.sql import _WARM_UPS, SqlTarget

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Measured:
    """One run: calls per second, client CPU in microseconds per call, p95 in milliseconds."""

    rate: float
    cpu_us: float
    p95_ms: float


@contextmanager
def opened() -> Iterator[harness.run.Harness]:
    """A harness on an embedded server with the shipped migrations and seed."""
    options = Options(server="embedded", migrations=(ROOT / "sql/migrations",), seed=(ROOT / "sql/seed",))
    with harness.run.open_harness(options) as found:
        with found.template.clone() as database, database.connect() as connection:
            # It would come to the tables of runs that are over, and fall on whichever is measured then.
            connection.execute("ALTER SYSTEM SET autovacuum = off")
            connection.execute("SELECT pg_reload_conf()")
        yield found


def _cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def fire(
    database: Database,
    pattern: Pattern,
    keys: Sequence[Hashable],
    contract: Contract = SCAN_TICKET,
    run_beside: Callable[[int, int], None] | None = None,
) -> tuple[Crew, float, float]:
    """Fire a pattern without judging it; the crew, its wall seconds and its CPU seconds."""
    target = SqlTarget(database.dsn, contract, run_beside=run_beside)
    crew = Crew(contract, lambda client: target, pattern.clients, timeout=10, overlap=pattern.overlap)
    crew.open(new(database, pattern.clients))
    _checkpoint(database)
    crew.fire(pattern, Keys(keys))
    cpu = time.process_time() - crew.cpu_started
    last = max(log.returned[-1] for log in crew.logs)
    crew.close()
    return crew, (last - crew.started) / 1e9, cpu


def harness_burst(
    found: harness.run.Harness, pattern: Pattern, keys: int, contract: Contract = SCAN_TICKET
) -> Measured:
    """A burst through the firing loop; every answer is classified."""
    with found.template.clone() as database:
        # In the order in which pgbench's clients come to them: random ids would cost the server more.
        mine = [f"00000000-0000-0000-0002-{id_}" for id_ in _ids(database, pattern.clients, keys)]
        crew, seconds, cpu = fire(database, pattern, [uuid.UUID(id_) for id_ in mine], contract)
        conditions.settle(crew.logs, contract, database.connect)
    took = sorted(r - c for log in crew.logs for c, r in zip(log.called, log.returned, strict=True))
    assert all(o.label == "accepted" for log in crew.logs for o in log.outcomes)
    return Measured(len(took) / seconds, cpu / len(took) * 1e6, took[int(len(took) * 0.95)] / 1e6)


def pgbench(found: harness.run.Harness, seconds: float, clients: int, keys: int, *, pause_ms: int = 0) -> Measured:
    """The same function and server under pgbench -M prepared -j 2, each call on a ticket of its own.

    A pause is part of pgbench's transaction and of the times in its log: it is taken out as long as it really took, by
    the median of transactions that do nothing else.
    """
    script = (
        "\\set n :n + 1\n"
        "SELECT * FROM scan_ticket_atomic(('00000000-0000-0000-0002-' || "
        "(100000000000::bigint + :client_id::bigint * 1000000000 + :n))::uuid, "
        "'00000000-0000-0000-0000-0000000000aa', 'device-01', 'qr');\n"
    )
    pause = f"\\sleep {pause_ms} ms\n" if pause_ms else ""
    with found.template.clone() as database:
        _ids(database, clients, keys)
        _checkpoint(database)
        before = _cpu_of_children()
        said, times = _run_pgbench(database, script + pause, clients, seconds)
        cpu = _cpu_of_children() - before
        with database.connect() as connection:
            row = connection.execute("SELECT count(*) FROM scan_logs").fetchone()
        assert row is not None
        paused = statistics.median(_run_pgbench(database, pause, clients, 2.0)[1]) if pause else 0.0
    tps = re.search(r"tps = ([\d.]+)", said)
    calls = re.search(r"actually processed: (\d+)", said)
    assert tps is not None
    assert calls is not None
    assert row[0] == int(calls[1]), "pgbench's calls were not all accepted"
    return Measured(float(tps[1]), cpu / int(calls[1]) * 1e6, (sorted(times)[int(len(times) * 0.95)] - paused) / 1e3)


def _run_pgbench(database: Database, script: str, clients: int, seconds: float) -> tuple[str, list[int]]:
    """What pgbench said, and the microseconds of every transaction, by its own log.

    Without the first ones of each client, in which its connection's caches fill: the harness's clients are warmed.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "script.sql")
        path.write_text(script)
        done = subprocess.run(
            [
                _binaries()[0] / "pgbench", "-n", "-M", "prepared", "-c", str(clients), "-j", "2", "-T", f"{seconds:g}",
                "-D", "n=0", "-f", path, "-l", "--log-prefix", Path(folder, "log"), database.dsn,
            ],
            capture_output=True, text=True, check=True, cwd=folder,
        )  # fmt: skip
        lines = [line for log in Path(folder).glob("log.*") for line in log.read_text().splitlines()]
    transactions = [(int(number), int(took)) for _, number, took, *_ in map(str.split, lines)]
    return done.stdout, [took for number, took in transactions if number >= _WARM_UPS]


def paired(
    first: Callable[[], Measured], second: Callable[[], Measured], times: int
) -> list[tuple[Measured, Measured]]:
    """Run the two in turn, the order changing from pair to pair, so that a drift of the machine evens out."""
    pairs = []
    for number in range(times):
        if number % 2:
            b = second()
            a = first()
        else:
            a = first()
            b = second()
        pairs.append((a, b))
    return pairs


def median_ratio(pairs: Sequence[tuple[Measured, Measured]], field: str) -> float:
    return statistics.median(getattr(a, field) / getattr(b, field) for a, b in pairs)


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def _ids(database: Database, clients: int, count: int) -> list[str]:
    """Make tickets whose ids a pgbench script can count through; the last group of each id, client after client."""
    with database.connect() as connection:
        connection.execute(
            "INSERT INTO tickets (id, event_id, ticket_type) "
            "SELECT ('00000000-0000-0000-0002-' || (100000000000 + c * 1000000000 + n))::uuid, "
            "       '00000000-0000-0000-0000-000000000001', 'GA' "
            "  FROM generate_series(1, %s::bigint) n, generate_series(0, %s::bigint - 1) c",
            [count // clients, clients],
        )
    return [
        str(100_000_000_000 + c * 1_000_000_000 + n) for n in range(1, count // clients + 1) for c in range(clients)
    ]


def new(database: Database, count: int) -> list[Hashable]:
    with database.connect() as connection:
        return [row[0] for row in connection.execute("SELECT * FROM harness.new_tickets(%s)", [count]).fetchall()]


def _checkpoint(database: Database) -> None:
    """Start both sides of a pair from the same state of the write-ahead log."""
    with database.connect() as connection:
        connection.execute("CHECKPOINT")
