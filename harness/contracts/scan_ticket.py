"""The contract of `scan_ticket_atomic`: one ticket lets exactly one person in."""

from __future__ import annotations

import re
import uuid
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.contracts import claims
from harness.contracts.contract import Column, Contract, Effect, Function, Operation, Parameter, Variant

_BUSY = re.compile(r"being processed|concurren|lock not available|could not obtain lock", re.IGNORECASE)
_NOT_FOUND = re.compile(r"not found", re.IGNORECASE)


def _classify(row: Mapping[str, Any]) -> str | None:
    message = row["error_message"] or ""
    if row["success"] is None or not isinstance(message, str):
        return None
    if row["success"]:
        return "accepted"
    if row["already_scanned"]:
        return "already_scanned"
    if _BUSY.search(message):
        return "busy"
    if _NOT_FOUND.search(message):
        return "not_found"
    return "refused" if message else None


@dataclass(frozen=True, slots=True)
class _Scanned:
    by: uuid.UUID
    at: object


_UNKNOWN, _UNSCANNED = "unknown", "unscanned"


class ScanModel:
    """unscanned -> scanned by X, and never back."""

    def initial(self, exists: bool) -> Hashable:
        return _UNSCANNED if exists else _UNKNOWN

    def step(self, state: Hashable, operation: Operation) -> tuple[Hashable, ...]:
        label = operation.outcome.label
        if label == "accepted":
            scanner = operation.arguments["p_scanned_by"]
            if state is not _UNSCANNED or operation.answer.get("scanned_by") not in (None, scanner):
                return ()
            return (_Scanned(scanner, operation.answer.get("scanned_at")),)
        if operation.outcome.effect is Effect.IN_DOUBT:
            # The time of a scan whose answer was lost is not known: no later answer can contradict it.
            return (_Scanned(operation.arguments["p_scanned_by"], None),) if state is _UNSCANNED else ()
        if label == "already_scanned":
            if not isinstance(state, _Scanned):
                return ()
            told_by, told_at = operation.answer.get("scanned_by"), operation.answer.get("scanned_at")
            agrees = told_by in (None, state.by) and (told_at is None or state.at is None or told_at == state.at)
            return (state,) if agrees else ()
        if label == "not_found":
            return (state,) if state is _UNKNOWN else ()
        if label == "refused":
            return (state,) if state is not _UNSCANNED else ()  # for whatever reason, but a fresh ticket gives none
        return (state,) if state is not _UNKNOWN else ()


CLAIMS = (
    claims.at_most(
        1,
        id="at_most_one_accepted",
        statement="At most one call per ticket is accepted.",
        reason="{count} callers were let in on one ticket",
        remedy="Take the row lock before the check (SELECT ... FOR UPDATE), guard the UPDATE with NOT is_used, and "
        "keep a unique partial index on successful scans.",
    ),
    claims.at_least_one(
        id="at_least_one_accepted",
        statement="A scannable ticket that was called, and on which no call failed, lets one person in.",
        reason="nobody was let in on a scannable ticket",
        remedy="Look for a lock wider than the ticket (event row, advisory key) or a refusal that is given without a "
        "winner.",
    ),
    claims.others_refused(
        statement="Every call that is not accepted is refused by an answer, not by an error.",
        remedy="Handle lock_not_available and unique_violation in the function and answer with success = false.",
    ),
    claims.names_the_winner(
        "scanned_by",
        "p_scanned_by",
        refused="already_scanned",
        statement="An answer that names a scanner names the one who was let in.",
        reason="was let in as {own}, and told that it was {told}",
        remedy="Write p_scanned_by, and read scanned_by from the locked row, after the lock is held.",
    ),
    claims.busy_only_in_flight(
        statement="A busy answer is given only while another call on the same ticket is in flight.",
        reason="was told that the ticket is being processed while no other call on it was in flight",
        remedy="Lock the ticket's own row; a lock shared between tickets turns away people with valid tickets.",
    ),
)

_DEVICES = "device-{:02d}"


def _scanner(client: int) -> uuid.UUID:
    return uuid.UUID(int=0x5CA << 32 | client)


_SHARED_SCANNER = uuid.UUID("00000000-0000-0000-0000-0000000000aa")


def _variant(name: str, *, shared: bool, method: str | None) -> Variant:
    def arguments(client: int) -> Mapping[str, Any]:
        return {
            "p_scanned_by": _SHARED_SCANNER if shared else _scanner(client),
            "p_device_id": _DEVICES.format(client),
            "p_scan_method": method,
        }

    return Variant(name, arguments)


SCAN_TICKET = Contract(
    name="scan_ticket",
    description="ten scanners at one gate, and a ticket that lets exactly one person in",
    function=Function(
        name="scan_ticket_atomic",
        parameters=(
            Parameter("p_ticket_id", "uuid"),
            Parameter("p_scanned_by", "uuid"),
            Parameter("p_device_id", "text"),
            Parameter("p_scan_method", "text"),
        ),
        columns=(
            Column("success", "boolean"),
            Column("already_scanned", "boolean"),
            Column("scanned_at", "timestamp with time zone", evidence=True),
            Column("scanned_by", "uuid", evidence=True),
            Column("error_message", "text"),
        ),
        key="p_ticket_id",
    ),
    new_keys="harness.new_tickets",
    unknown_key=uuid.uuid4,
    # A race can hide on a rare branch: one scanner id for all callers as in the original load test, and every method.
    variants=(
        _variant("own scanner, qr", shared=False, method="qr"),
        _variant("shared scanner, qr", shared=True, method="qr"),
        _variant("own scanner, manual", shared=False, method="manual"),
        _variant("own scanner, nfc", shared=False, method="nfc"),
        _variant("own scanner, no method", shared=False, method=None),
    ),
    labels={
        "accepted": Effect.APPLIED,
        "already_scanned": Effect.REFUSED,
        "busy": Effect.REFUSED,
        "not_found": Effect.REFUSED,
        "refused": Effect.REFUSED,
    },
    detail="error_message",
    classify=_classify,
    model=ScanModel(),
    claims=CLAIMS,
    invariants=Path(__file__).with_suffix(".sql"),
    names={
        "tickets": "public.tickets",
        "ticket": "id",
        "status": "status",
        "used": "is_used",
        "scanned_at": "scanned_at",
        "scanned_by": "scanned_by",
        "logs": "public.scan_logs",
        "log_ticket": "ticket_id",
        "log_scanner": "scanned_by",
        "log_success": "scan_success",
    },
    thresholds={
        "scan_duration": ("p(95)<200",),
        "scan_errors": ("rate<0.001",),
        "successful_scans": ("count>0",),
        "checks": ("rate>0.95",),
    },
    metrics={
        "successful_scans": frozenset({"accepted"}),
        "already_scanned": frozenset({"already_scanned"}),
        "race_conditions_caught": frozenset({"already_scanned", "busy"}),
        "ticket_not_found": frozenset({"not_found"}),
    },
    duration_metric="scan_duration",
    error_metric="scan_errors",
    accepted="accepted",
    repeated="already_scanned",
    missing="not_found",
)

__all__ = ["CLAIMS", "SCAN_TICKET", "ScanModel"]
