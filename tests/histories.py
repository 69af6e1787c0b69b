"""Histories made by hand, in a notation short enough for tables, and histories made by Python functions on threads."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from harness import Contract, Effect, KeyHistory, Operation, Outcome
from harness.contracts.scan_ticket import SCAN_TICKET
from harness.history import NEVER, History
from harness.load.crew import Crew
from harness.load.pattern import Keys, Pattern
from harness.targets.memory import MemoryTarget
from harness.verdict import thresholds
from harness.verdict.findings import Finding
from harness.verdict.judge import judge_history
from harness.verdict.metrics import measure

TICKET = uuid.UUID(int=1)
MILLISECOND = 1_000_000


def person(name: str) -> uuid.UUID:
    """The scanner with that one-letter name."""
    return uuid.UUID(int=ord(name))


def call(
    label: str,
    called: float,
    returned: float,
    by: str = "A",
    *,
    told: str | None = None,
    at: str | None = None,
    code: str | None = None,
    client: int = 0,
    phase: int = 0,
    held: bool = False,
    rolled_back: bool = False,
    due: float | None = None,
    key: uuid.UUID = TICKET,
) -> Operation:
    """One scan by `by`, from `called` to `returned` in milliseconds; `told` is the winner it was told of."""
    effect = {"failed": Effect.FAILED, "in_doubt": Effect.IN_DOUBT}.get(label) or SCAN_TICKET.labels[label]
    answer = {"scanned_by": None if told is None else person(told), "scanned_at": at}
    return Operation(
        0,
        client,
        key,
        {"p_scanned_by": person(by), "p_device_id": None, "p_scan_method": "qr"},
        int((called if due is None else due) * MILLISECOND),
        int(called * MILLISECOND),
        NEVER if effect is Effect.IN_DOUBT else int(returned * MILLISECOND),
        Outcome(label, effect, code),
        {} if told is None and at is None else answer,
        phase,
        held or rolled_back,
        rolled_back,
        "memory",
    )


def history(*operations: Operation, unknown: tuple[uuid.UUID, ...] = ()) -> History:
    """A history of operations made by hand."""
    made = History([], 0, unknown)
    ordered = sorted(operations, key=lambda o: o.called)
    made._operations = tuple(o._replace(number=number) for number, o in enumerate(ordered))
    return made


def on_one_key(*operations: Operation, exists: bool = True) -> KeyHistory:
    return KeyHistory(TICKET, exists, sorted(operations, key=lambda o: o.called))


Function = Callable[[Mapping[str, Any]], Mapping[str, Any]]


def play(pattern: Pattern, function: Function, contract: Contract = SCAN_TICKET) -> History:
    """Run a pattern with its real threads against a Python function."""
    target = MemoryTarget(contract, function)
    crew = Crew(contract, lambda client: target, pattern.clients, timeout=30, overlap=pattern.overlap)  # noqa: ARG005
    unknown = [contract.unknown_key() for _ in range(pattern.unknown_keys)]
    keys = Keys([uuid.uuid4() for _ in range(pattern.fresh_keys(None) or 0)], unknown)
    crew.open([uuid.uuid4() for _ in range(pattern.clients)])
    try:
        crew.fire(pattern, keys)
    finally:
        crew.close()
    return crew.history(unknown)


def findings(made: History, pattern: Pattern, contract: Contract = SCAN_TICKET) -> dict[str, Finding]:
    """Every finding on a history that needs no database, by its id."""
    expected = pattern.expected(contract)
    metrics = measure(made, contract, expected, late_after=0.01)
    found = [*thresholds.judge(metrics, contract, expected), *judge_history(made, contract)]
    return {finding.id: finding for finding in found}


class Gate:
    """A `scan_ticket_atomic` in Python that keeps its promise; each broken one below changes one thing of it."""

    def __init__(self) -> None:
        self.locks: dict[Any, threading.Lock] = {}
        self.scanned: dict[Any, tuple[uuid.UUID, int]] = {}
        self.unknown: set[Any] = set()
        self.clock = 0

    def __call__(self, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        ticket, scanner = asked["p_ticket_id"], asked["p_scanned_by"]
        if ticket in self.unknown:
            return answer(message="Ticket not found")
        lock = self.locks.setdefault(ticket, threading.Lock())  # one step under the interpreter's lock
        if not lock.acquire(blocking=False):
            return answer(message="Ticket is being processed by another scanner")
        try:
            winner = self.scanned.get(ticket)
            if winner is not None:
                return answer(already=True, by=winner[0], at=winner[1])
            self.clock += 1
            self.scanned[ticket] = (scanner, self.clock)
            return answer(success=True, by=scanner, at=self.clock)
        finally:
            lock.release()


def answer(
    *,
    success: bool | None = False,
    already: bool = False,
    by: uuid.UUID | None = None,
    at: object = None,
    message: str | None = None,
) -> Mapping[str, Any]:
    return {
        "success": success,
        "already_scanned": already,
        "scanned_at": at,
        "scanned_by": by,
        "error_message": message,
    }
