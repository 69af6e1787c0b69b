"""Staging: burst and race against a PostgREST that somebody else runs, with real ticket ids from a file.

It scans real tickets, so it asks first. Only the API is in reach: what needs the database is not judged, and each such
claim is named; the verdict is of what can be observed. A ticket that nobody gets in on is not held against the
function, because it may have been used before; where no ticket was fresh, nothing was observed: undecided.

The file and the environment variables are those of the original load test:
`{"tickets": [{"id": ..., "event_id": ..., "type": ...}], "raceTestTicket": {"id": ...}}`, and SUPABASE_URL,
SUPABASE_SERVICE_ROLE_KEY, TEST_EVENT_ID, TEST_SCANNER_ID, RACE_TEST_TICKET_ID.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import harness
from harness.conduct import Fired, KeySource, Load, Told, conduct, judge, record_of
from harness.contracts import invariants
from harness.contracts.contract import Contract, Effect, KeyHistory, Operation, Variant
from harness.environment.description import ServerDescription
from harness.environment.postgrest import Token
from harness.errors import UsageError
from harness.history import History
from harness.load.burst import Burst
from harness.load.pattern import Pattern
from harness.load.race import Race
from harness.records import Record, RunRecord
from harness.targets.http import HttpTarget
from harness.verdict.findings import Finding, Location, Truth, pluralize
from harness.verdict.metrics import Metrics

_SCANNER = "p_scanned_by"

SET_UP = """\
1. In the staging database, create an event and some scannable tickets, and one more for the race.
2. Write their ids to a copy of the sample, sql/seed/tickets.json:
   {"tickets": [{"id": "...", "event_id": "...", "type": "GA"}], "raceTestTicket": {"id": "..."}}.
   RACE_TEST_TICKET_ID may name the race ticket instead.
3. Set SUPABASE_URL (or give --http-url), SUPABASE_SERVICE_ROLE_KEY, TEST_SCANNER_ID, and TEST_EVENT_ID to take the
   tickets of one event only."""


@dataclass(frozen=True, slots=True)
class Staging:
    """What a staging run is made with."""

    url: str
    """Base of the API; for Supabase it ends in /rest/v1."""
    token: Token
    tickets: tuple[UUID, ...]
    race_ticket: UUID | None
    scanner: UUID | None
    """Who scans, where the database knows its scanners; None: the contract's own."""

    @property
    def question(self) -> str:
        """What must be answered with yes before anything is scanned."""
        race = "" if self.race_ticket is None else " and the race ticket"
        return f"This scans {len(self.tickets)} real tickets{race} at {self.url}. They are used up afterwards. Go on?"


def read_staging(http_url: str | None, tickets: Path | None, environment: Mapping[str, str] = os.environ) -> Staging:
    """Put the file, the option and the environment together. Raises UsageError with the set-up steps."""
    url = (http_url or "").rstrip("/")
    if not url:
        base = environment.get("SUPABASE_URL", "").rstrip("/")
        if not base:
            raise _incomplete("No address is given.", "--http-url and SUPABASE_URL")
        url = base if base.endswith("/rest/v1") else f"{base}/rest/v1"
    key = environment.get("SUPABASE_SERVICE_ROLE_KEY", "").strip()
    if not key:
        raise _incomplete("No token is given.", "SUPABASE_SERVICE_ROLE_KEY")
    if tickets is None:
        raise _incomplete("No tickets are given.", "--tickets")
    found, race = _read_tickets(tickets, _uuid(environment, "TEST_EVENT_ID"))
    race = _uuid(environment, "RACE_TEST_TICKET_ID") or race
    plain = tuple(ticket for ticket in found if ticket != race)
    return Staging(url, Token(key), plain, race, _uuid(environment, "TEST_SCANNER_ID"))


def confirm(staging: Staging, *, yes: bool, ask: Callable[[str], str] | None) -> None:
    """Ask before real tickets are scanned; `ask` is None where nobody can be asked. Raises UsageError for a no."""
    if yes:
        return
    if ask is None:
        raise UsageError(
            "Nobody can be asked whether real tickets may be scanned.",
            tried=staging.question,
            next_step="give --yes if they may",
        )
    if ask(f"{staging.question} [y/N] ").strip().lower() not in ("y", "yes"):
        raise UsageError("Nothing was scanned.", tried=staging.question, next_step="answer y, or give --yes")


def run_staging(
    staging: Staging, contract: Contract, *, command: str, clients: int = 10, pause: float = 0.1, timeout: float = 10.0
) -> Record:
    """Probe, burst over the tickets, race on the race ticket; `pause` and `timeout` are in seconds.

    Ctrl-C ends it with a record of what was scanned until then, marked interrupted. Raises HarnessError when the API
    cannot be reached or does not take the calls.
    """
    if clients < 1:
        raise UsageError(f"{clients} clients cannot call.", next_step="give 1 client or more")
    if contract.identity is not None:
        raise UsageError(
            "As whom calls are made through somebody else's API, its token says.",
            tried=f"calls as {contract.identity_of(0)}",
            next_step="give that user's token as SUPABASE_SERVICE_ROLE_KEY, and leave --run-as, --isolation and "
            "--setting out",
        )
    contract = _scanned_by(contract, staging.scanner)
    target = HttpTarget(staging.url, staging.token, contract, apikey=True)
    target.probe()
    runs: list[RunRecord] = []
    with suppress(KeyboardInterrupt):  # the record says so: tickets are used up by now, and which must not be lost
        if staging.tickets:
            crowd = min(clients, len(staging.tickets))
            burst = Burst(crowd, calls=math.ceil(len(staging.tickets) / crowd), pause=pause)
            _run(burst, target, contract, staging.tickets, timeout, runs.append)
        if staging.race_ticket is not None:
            race = Race(max(clients, 2), 1, mixed=False)
            _run(race, target, contract, [staging.race_ticket], timeout, runs.append)
    return Record(
        harness_version=harness.__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
        profile="staging",
        contract=contract.name,
        environment=ServerDescription(
            "http", "", "somebody else's, through its API", staging.url, {}, os.cpu_count() or 1
        ),
        migrations=(),
        seeds=(),
        runs=tuple(runs),
        interrupted=any(run.interrupted for run in runs),
    )


def _run(
    pattern: Pattern,
    target: HttpTarget,
    contract: Contract,
    tickets: Sequence[Hashable],
    timeout: float,
    keep: Callable[[RunRecord], object],
) -> None:
    # No fresh keys to warm up with: those calls could not be rolled back.
    keys = KeySource(lambda _: tickets, lambda count: [contract.unknown_key() for _ in range(count)])
    unseen = [query.claim for query in invariants.load((), contract)]
    if isinstance(pattern, Race):
        unseen.append("The calls of a race were in progress at the same time on the server.")

    def kept(fired: Fired) -> None:
        history = _Fresh(fired.history, contract)
        fired = dataclasses.replace(fired, history=history)
        judged = judge(fired)
        findings = [_measured(f, judged.metrics) for f in judged.findings]
        where = Location(function=contract.function.name)
        located = tuple(dataclasses.replace(f, location=where) for f in findings)
        told = Told(plan={"timeout": timeout}, notes=tuple(_notes(history, unseen)), details={"http": target.details()})
        keep(record_of(fired, dataclasses.replace(judged, findings=located), told))

    conduct(Load(pattern, contract, (target,), timeout), keys, kept)


def _measured(finding: Finding, metrics: Metrics) -> Finding:
    if metrics.calls or not finding.id.startswith("threshold."):
        return finding
    return dataclasses.replace(finding, truth=Truth.UNDECIDED, observed="no ticket was fresh")


class _Fresh(History):
    """A history without the tickets that say nothing: those used before the run, and those that are not there."""

    def __init__(self, whole: History, contract: Contract) -> None:
        super().__init__(whole.logs, whole.zero)
        self.left_out: Counter[str] = Counter()
        kept: list[Operation] = []
        for key in whole.by_key():
            reason = _says_nothing(key, contract)
            if reason is None:
                kept += key.operations
            else:
                self.left_out[reason] += 1
        self._operations = tuple(sorted(kept, key=lambda operation: operation.called))


def _says_nothing(key: KeyHistory, contract: Contract) -> str | None:
    if any(o.outcome.effect not in (Effect.REFUSED,) for o in key.operations):
        return None
    labels = {o.outcome.label for o in key.operations}
    if labels == {contract.missing}:
        return "not there: check the ids in the file"
    if contract.repeated in labels:
        return "used before this run: reset, or put fresh ones in the file"
    return None


def _notes(history: _Fresh, unseen: Sequence[str]) -> Iterator[str]:
    for reason, count in sorted(history.left_out.items()):
        yield f"left out: {pluralize(count, 'ticket')} {reason}"
    yield f"only the API was in reach; not seen, and not in the verdict: {' '.join(unseen)}"


def _scanned_by(contract: Contract, scanner: UUID | None) -> Contract:
    """The contract with every call made by one scanner, as the original test does."""
    if scanner is None:
        return contract

    def changed(variant: Variant) -> Variant:
        return Variant(variant.name, lambda client: {**variant.arguments(client), _SCANNER: scanner})

    return dataclasses.replace(contract, variants=tuple(changed(variant) for variant in contract.variants))


def _read_tickets(path: Path, event: UUID | None) -> tuple[list[UUID], UUID | None]:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as JSON.", tried=str(error), next_step=SET_UP) from error
    if not isinstance(content, dict) or not isinstance(content.get("tickets"), list) or not content["tickets"]:
        raise UsageError(f"{path} has no list of tickets.", tried='the member "tickets"', next_step=SET_UP)
    found = []
    for number, entry in enumerate(content["tickets"]):
        ticket = _id(path, f"tickets[{number}]", entry)
        if event is None or str(entry.get("event_id", "")).lower() == str(event):
            found.append(ticket)
    if len(set(found)) < len(found):
        raise UsageError(f"{path} names a ticket more than once.", next_step=SET_UP)
    if not found:
        raise UsageError(f"{path} has no ticket of the event {event}.", tried="TEST_EVENT_ID", next_step=SET_UP)
    race = content.get("raceTestTicket")
    return found, None if race is None else _id(path, "raceTestTicket", race)


def _id(path: Path, where: str, entry: Any) -> UUID:
    """The id of an entry; a nil UUID, or a word where one is due, is a placeholder."""
    text = entry.get("id") if isinstance(entry, dict) else entry
    try:
        found = UUID(str(text))
    except ValueError as error:
        raise _placeholder(path, where, text) from error
    if not found.int:
        raise _placeholder(path, where, text)
    return found


def _placeholder(path: Path, where: str, text: object) -> UsageError:
    return UsageError(
        f"{path} holds a placeholder: {where}.id is {text!r}, which is not a ticket's id.",
        tried="reading it as the sample, sql/seed/tickets.json, with real ids in place of its zeros",
        next_step=SET_UP,
    )


def _uuid(environment: Mapping[str, str], name: str) -> UUID | None:
    text = environment.get(name, "").strip()
    if not text:
        return None
    try:
        return UUID(text)
    except ValueError as error:
        raise UsageError(f"{name} is {text!r}, which is not a UUID.", next_step=SET_UP) from error


def _incomplete(what: str, looked: str) -> UsageError:
    return UsageError(what, tried=looked, next_step=SET_UP)
