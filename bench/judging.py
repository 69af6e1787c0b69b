"""Judging a history of 100,000 operations: seconds, and memory per operation."""

import time
import tracemalloc
import uuid
from collections.abc import Sequence
from typing import Any

from bench._support import opened
from harness import Effect, Outcome
from harness.contracts.scan_ticket import SCAN_TICKET
from harness.history import History, Log
from harness.load.crew import without_collections
from harness.load.pattern import LATE
from harness.targets.sql import SqlTarget
from harness.verdict import thresholds
from harness.verdict.findings import Finding
from harness.verdict.judge import judge_history
from harness.verdict.metrics import measure

OPERATIONS = 100_000
CLIENTS = 10
ACCEPTED = Outcome("accepted", Effect.APPLIED)
REFUSED = Outcome("already_scanned", Effect.REFUSED)


def _history(target: SqlTarget) -> History:
    """Tickets scanned by one client and again by the next, as raw as the sql target leaves them."""
    arguments = {n: [dict(variant.arguments(n)) for variant in SCAN_TICKET.variants] for n in range(CLIENTS)}
    evidence = [c.name for c in SCAN_TICKET.function.columns if c.evidence]
    log = Log("sql", arguments, evidence, target.decode_key, target.decode_evidence)
    scanners = [arguments[client][0]["p_scanned_by"].bytes for client in range(CLIENTS)]
    for number in range(OPERATIONS // 2):
        key, at = uuid.uuid4().bytes, number.to_bytes(8)
        winner = number % CLIENTS
        for turn, outcome in enumerate((ACCEPTED, REFUSED)):
            client, called = (winner + turn) % CLIENTS, (number * 2 + turn + 1) * 1000
            log.write(client, called, called + 900, called, key, 0, 0, outcome, _copied((at, scanners[winner])))
    return History([log])


def _copied(values: Sequence[bytes]) -> tuple[Any, ...]:
    """Each answer's bytes are objects of its own, as they come from libpq."""
    return tuple(bytes(bytearray(value)) for value in values)


def _judged(history: History, labels: frozenset[str]) -> list[Finding]:
    claims = judge_history(history, SCAN_TICKET)  # in the conductor's order
    metrics = measure(history, SCAN_TICKET, labels, LATE)
    return [*thresholds.judge(metrics, SCAN_TICKET, labels), *claims]


def main() -> None:
    with opened() as found, found.template.clone() as database:
        target = SqlTarget(database.dsn, SCAN_TICKET)
        tracemalloc.start()
        history = _history(target)
        size = tracemalloc.get_traced_memory()[0]
        labels = frozenset(SCAN_TICKET.labels)
        _judged(history, labels)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        history = _history(target)
        with without_collections():
            started = time.perf_counter()
            findings = _judged(history, labels)
            seconds = time.perf_counter() - started
    assert all(f.truth.value == "held" for f in findings)
    print(f"{OPERATIONS} operations judged in {seconds:.2f} s (under 2)")
    print(f"memory: {size / OPERATIONS:.0f} bytes per operation kept (under 200), {peak / OPERATIONS:.0f} at the peak")
