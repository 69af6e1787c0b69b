"""Records as runs leave them, small: what the reports are drawn from in tests."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

from harness.environment.description import ServerDescription
from harness.records import AppliedFile, Record, RunRecord, Source
from harness.schedules.result import Called, Case, Exploration, Move, Schedule
from harness.verdict.findings import Finding, Location, Truth
from harness.verdict.metrics import Metrics, trend
from harness.verdict.overlap import Overlap, RoundOverlap

KEY = "24befad4-a518-d343-0c19-44c1bc2ead20"
SCANNERS = tuple(f"00000000-0000-0000-0000-05ca0000000{n}" for n in range(4))
WHERE = Location("sql/migrations/0002_scan.sql", 5, "scan_ticket_atomic")
READ = "SELECT * INTO v_ticket FROM tickets WHERE id = p_ticket_id"
WRITE = "UPDATE tickets SET is_used = true, status = 'used', scanned_at = v_now WHERE id = p_ticket_id"


@cache
def very_many() -> Record:
    """A run with a hundred thousand broken claims."""
    where = broken_finding(evidence=())
    many = tuple(dataclasses.replace(where, id=f"claim.{n}", claim=f"Claim {n}.") for n in range(100_000))
    return record(load("race", {"accepted": 9}, findings=many))


def record(*runs: RunRecord, **changed: Any) -> Record:
    environment = ServerDescription("embedded", "18.0", "asked for", "host=/tmp", {"fsync": "on"}, 2)
    files = (AppliedFile("sql/migrations/0001_tables.sql", "ab" * 32), AppliedFile(WHERE.file or "", "cd" * 32))
    made = Record(
        "0.1.0", "2030-01-01T00:00:00+00:00", "harness run", "quick", "scan_ticket", environment, files,
        (AppliedFile("sql/seed/tickets.sql", "ef" * 32),), runs,
    )  # fmt: skip
    return dataclasses.replace(made, **changed)


def held(number: int = 12) -> tuple[Finding, ...]:
    names = ("at_most_one_accepted", "losers_are_refused", "linearizable")
    found = [
        Finding(f"{names[n % 3]}.{n}", f"Claim {n} is kept.", Truth.HELD, "holds on 100 keys") for n in range(number)
    ]
    return (*found, Finding("threshold.scan_duration.p(95)<200", "scan_duration: p(95)<200", Truth.HELD, "p(95)=7 ms"))


def load(kind: str, outcomes: dict[str, int], *, findings: tuple[Finding, ...] = held(), **changed: Any) -> RunRecord:
    calls = sum(outcomes.values())
    durations = sorted(1 + (n * 7919 % 1000) / 100 for n in range(calls))
    each = trend(durations, 2.0)
    metrics = Metrics(
        calls, 2.0, {"all": each}, outcomes | {"successful_scans": 3}, {}, {"has an answer": (calls, 0)}, 0, outcomes
    )
    rounds = tuple(RoundOverlap(n, 10, 1, 9, 40.0, 3, 2) for n in range(60))
    overlap = Overlap(rounds, 60, 20, 30, 40.0, 95.0, 3.0, 1, 0.0487) if kind == "race" else None
    made = RunRecord(
        kind, "sql", {"clients": 10, "pause": 0.0}, metrics, overlap, findings, repeat=f"harness run --pattern {kind}"
    )
    return dataclasses.replace(made, **changed)


def held_record() -> Record:
    """As the quick profile of `harness run` leaves it."""
    return record(
        load("burst", {"accepted": 10471}),
        load("race", {"accepted": 140, "already_scanned": 53, "busy": 559}),
        load("rescan", {"accepted": 100, "already_scanned": 100}),
        load("unknown", {"not_found": 100}),
    )


def operation(number: int, outcome: str = "accepted") -> dict[str, Any]:
    return {
        "number": number, "client": number, "key": KEY, "arguments": {"p_scanned_by": SCANNERS[number]},
        "called_ms": 0.2 + number / 10, "returned_ms": 4.0 + number, "outcome": outcome,
        "answer": {"scanned_at": "2026-11-26 02:52:14.001380+00:00", "scanned_by": SCANNERS[number]},
        "target": "sql", "phase": 1,
    }  # fmt: skip


def broken_finding(**changed: Any) -> Finding:
    made = Finding(
        "at_most_one_accepted", "At most one call per ticket is accepted.", Truth.BROKEN, "98 violations", "none",
        ({"reason": "3 callers were let in on one ticket", "operations": [operation(n) for n in range(3)]},),
        "Take the row lock before the check.", "harness run --pattern race --rounds 100", WHERE,
    )  # fmt: skip
    return dataclasses.replace(made, **changed)


def broken_record() -> Record:
    """A race that let three people in."""
    others = (
        Finding("linearizable", "Each key's history has an order.", Truth.BROKEN, "1 of 9 keys", location=WHERE),
        Finding("race_overlapped", "The calls overlapped.", Truth.UNDECIDED, "0 of 3 rounds", remedy="Raise --rounds."),
    )
    race = load("race", {"accepted": 647, "already_scanned": 105}, findings=(*held(), broken_finding(), *others))
    return record(load("burst", {"accepted": 8466}), race)


def move(number: int, call: int, text: str, line: int = 0, *results: str) -> Move:
    return Move(number, call, "AB"[call], "scan_ticket_atomic" if line else "", line, text, results)


def schedule() -> Schedule:
    """Both calls read before either writes."""
    answer = {"scanned_at": "2026-11-26 02:52:20.395235+00:00", "scanned_by": SCANNERS[0]}
    return Schedule(
        "AABBBAA", "own scanner, qr", 1,
        (
            move(1, 0, "start"), move(2, 0, READ, 7), move(3, 1, "start"), move(4, 1, READ, 7),
            move(5, 1, WRITE, 12, "returns accepted"), move(6, 0, WRITE, 12, "waits for B"),
            move(7, 1, "commit", 0, "A goes on", "A returns accepted"), move(8, 0, "commit"),
        ),
        (Called(0, KEY, {}, "accepted", answer), Called(1, KEY, {}, "accepted", answer | {"scanned_by": SCANNERS[1]})),
        {"tickets": ({"id": KEY, "status": "used", "scanned_by": SCANNERS[0]},)},
    )  # fmt: skip


def explored_record(**changed: Any) -> Record:
    """An exploration that found a schedule."""
    found = Exploration(
        "scan_ticket_atomic", 2, "exhaustive",
        (f"scan_ticket_atomic(uuid):7: {READ}", f"scan_ticket_atomic(uuid):12: {WRITE}"),
        (Case("own scanner, qr", 1, 8, 92, True, {"accepted, accepted": 6, "accepted, already_scanned": 2}),),
        (), {"at_most_one_accepted": schedule()}, None, ("more than 2 calls at once",), 1.0,
    )  # fmt: skip
    finding = broken_finding(observed="broken in 6 of 8 schedules", replay="harness explore --replay AABBBAA")
    run = RunRecord(
        "explore", "sql", {"calls": 2}, None, None, (finding, *held(3)), unit="step", repeat="harness explore",
        details={"exploration": found},
    )  # fmt: skip
    return record(dataclasses.replace(run, **changed))


SCENARIO = """\
-- scenario: nobody is paid twice
-- setup
CREATE TABLE payouts (id int PRIMARY KEY, paid int NOT NULL DEFAULT 0);
INSERT INTO payouts VALUES (7);
CREATE FUNCTION pay(p_id int) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT paid FROM payouts WHERE id = p_id) > 0 THEN RETURN 'no'; END IF;
    UPDATE payouts SET paid = paid + 100 WHERE id = p_id;
    RETURN 'paid';
END $$;
-- session: clerk x 2
SELECT pay(7);
"""


def checked_record(**changed: Any) -> Record:
    """A scenario whose sessions a schedule breaks; one waits, and goes wrong when the other lets it go on."""
    read, write = "IF (SELECT paid FROM payouts WHERE id = p_id) > 0 THEN", "UPDATE payouts SET paid = paid + 100"

    def step(number: int, call: int, text: str, line: int, *results: str) -> Move:
        return Move(number, call, "AB"[call], "pay(integer)" if line else "", line, text, results)

    moves = (
        step(1, 0, read, 3), step(2, 1, read, 3), step(3, 0, write, 4, "gets pay=paid"),
        step(4, 1, write, 4, "waits for A"), step(5, 0, "commit", 0, "B gets pay=paid"), step(6, 1, "commit", 0),
    )  # fmt: skip
    names = ("clerk-1", "clerk-2")
    found = Schedule("ABABAB", "", 1, moves, (), {}, names)
    lines = ("clerk-1: SELECT pay(7) -> pay=paid", "clerk-2: SELECT pay(7) -> pay=paid")
    finding = Finding(
        "pay.one_after_another", "What happens together is explained by one after another.", Truth.BROKEN,
        "no serial order gives this: overselling (3 of 9 tries)", anomaly="overselling",
        evidence=({"reason": "what they were told, and what was left:", "lines": lines},),
        remedy="Put the check into the UPDATE's WHERE.", replay="harness check pay.race.sql --replay ABABAB",
        location=Location("pay.race.sql", 11),
    )  # fmt: skip
    never = dataclasses.replace(finding, id="pay.never_1", claim="Never: more than 100 is paid.")
    order = {"order": "clerk-1, clerk-2", "differs": "clerk-2 would be told pay=no", "answers": {"clerk-2": "pay=no"}}
    checked = {
        "name": "pay", "scenario": "nobody is paid twice", "file": "pay.race.sql", "sessions": names, "by": ["explore"],
        "serial_orders": 4, "rounds": 10, "met": 5, "schedules": 8, "results": 3, "exhausted": True, "not_covered": (),
    }  # fmt: skip
    run = RunRecord(
        "check", "sql", {"file": "pay.race.sql"}, None, None, (finding, never, *held(3)),
        repeat="harness check pay.race.sql",
        details={
            "check": checked, "sessions": names, "statements": {name: ["SELECT pay(7);"] for name in names},
            "serial_orders": {finding.id: [order]}, "exploration": {"broken": {finding.id: found}},
        },
    )  # fmt: skip
    function = SCENARIO[SCENARIO.index("CREATE FUNCTION") : SCENARIO.index("-- session")]
    sources = (Source("pay", "pay.race.sql", 5, function), Source("", "pay.race.sql", 1, SCENARIO))
    return record(dataclasses.replace(run, **changed), sources=sources, contract="", profile="")


def doubtful_record() -> Record:
    """A scenario whose second session is turned away, and nothing says that this means busy."""
    lock, write = "PERFORM FROM payouts WHERE id = p_id FOR UPDATE NOWAIT", "UPDATE payouts SET paid = paid + 100"
    moves = (
        Move(1, 0, "A", "pay(integer)", 3, lock, (), {"payouts": ({"id": 7, "paid": 0},)}),
        Move(2, 0, "A", "pay(integer)", 4, write, ("gets pay=paid",)),
        Move(3, 1, "B", "pay(integer)", 3, lock, ("gets error 55P03, which is handled", "gets pay=try again")),
        Move(4, 1, "B", "", 0, "commit", ()),
        Move(5, 0, "A", "", 0, "commit", (), {"payouts": ({"id": 7, "paid": 100},)}),
    )
    made = checked_record()
    run = made.runs[0]
    found = Schedule("AABBA", "", 1, moves, (), {}, ("clerk-1", "clerk-2"))
    finding = dataclasses.replace(
        run.findings[0], truth=Truth.UNDECIDED, anomaly="undeclared busy",
        observed="clerk-2 is told pay=try again, which it never is one after another; does it mean busy? (3 of 9)",
        remedy="Say `busy: pay when pay = 'try again'` if it does.",
    )  # fmt: skip
    details = {**run.details, "serial_orders": {}, "exploration": {"broken": {finding.id: found}}}
    return dataclasses.replace(made, runs=(dataclasses.replace(run, findings=(finding, *held(3)), details=details),))
