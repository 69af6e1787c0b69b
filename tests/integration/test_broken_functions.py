"""Broken variants of scan_ticket_atomic, each found out on a real Postgres by a real race or burst.

The variants are in scan_ticket/*.sql, applied after the shipped migrations; each says in its first lines what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.contracts.scan_ticket import SCAN_TICKET
from harness.load.patterns import Race
from harness.run import Harness, Result
from harness.verdict.findings import Truth
from tests.conftest import MakeHarness

VARIANTS = Path(__file__).parent / "scan_ticket"

Play = Callable[[Harness], Result]


def race(harness: Harness) -> Result:
    return harness.race(clients=6, rounds=36)


def long_race(harness: Harness) -> Result:
    """For what shows only where two calls are inside the function at once: on a busy machine few are."""
    return harness.race(clients=10, rounds=120)


def burst(harness: Harness) -> Result:
    return harness.burst(clients=4, calls=50)


def rescan(harness: Harness) -> Result:
    return harness.rescan(clients=4, calls=5)


def unknown(harness: Harness) -> Result:
    return harness.unknown(clients=4, calls=5)


def arrivals(harness: Harness) -> Result:
    return harness.arrivals(clients=4, rate=300, duration=0.5, duplicates=0.1)


BROKEN = [
    # (variant, pattern that shows it, findings that must be broken, findings that must not be)
    (
        "check_then_act",
        race,
        {"at_most_one_accepted", "linearizable", "invariant.one_log_per_accepted"},
        {"no_deadlock"},
    ),
    ("lock_after_check", race, {"at_most_one_accepted", "linearizable"}, {"no_unhandled_error"}),
    ("no_guard", race, {"at_most_one_accepted", "invariant.one_log_per_accepted"}, {"no_unhandled_error"}),
    ("no_guard", rescan, {"at_most_one_accepted", "invariant.one_log_per_accepted"}, {"no_unhandled_error"}),
    ("event_lock", long_race, {"at_least_one_accepted"}, {"at_most_one_accepted", "invariant.ticket_agrees_with_log"}),
    ("event_lock", burst, {"busy_only_while_in_flight", "at_least_one_accepted"}, {"at_most_one_accepted"}),
    ("error_escapes", race, {"losers_are_refused", "no_unhandled_error"}, {"at_most_one_accepted", "linearizable"}),
    ("wrong_winner", rescan, {"true_winner", "linearizable"}, {"at_most_one_accepted", "no_unhandled_error"}),
    ("wrong_winner", race, {"true_winner"}, {"at_most_one_accepted"}),
    (
        "wrong_scanner",
        burst,
        {"true_winner", "linearizable"},
        {"at_most_one_accepted", "invariant.ticket_agrees_with_log"},
    ),
    ("deadlock", long_race, {"no_deadlock", "losers_are_refused"}, {"at_most_one_accepted"}),
    ("no_log", burst, {"invariant.one_log_per_accepted", "invariant.ticket_agrees_with_log"}, {"linearizable"}),
    ("logs_twice", burst, {"invariant.one_log_per_accepted", "invariant.ticket_agrees_with_log"}, {"linearizable"}),
    ("logs_and_refuses", burst, {"invariant.no_log_without_accepted", "at_least_one_accepted"}, {"no_deadlock"}),
    ("wrong_time", burst, {"invariant.ticket_agrees_with_winner"}, {"invariant.ticket_agrees_with_log"}),
    ("status_stays", burst, {"invariant.status_agrees_with_use"}, {"invariant.ticket_agrees_with_log", "linearizable"}),
    ("conflict_is_a_scan", race, {"linearizable"}, {"at_most_one_accepted", "no_unhandled_error"}),
]


@pytest.mark.parametrize(("variant", "play", "broken", "sound"), BROKEN)
def test_a_broken_function_is_found_out(
    variant: str, play: Play, broken: set[str], sound: set[str], make_harness: MakeHarness
) -> None:
    """Each bug breaks the findings that are about it, with evidence and a command that repeats it."""
    result = play(make_harness(VARIANTS / f"{variant}.sql"))
    verdict = result.verdict
    assert verdict.truth is Truth.BROKEN
    for name in broken:
        assert verdict[name].truth is Truth.BROKEN, verdict
        assert verdict[name].evidence
        assert f"{variant}.sql" in verdict[name].replay
    for name in sound:
        assert verdict[name].truth is Truth.HELD, verdict


def test_every_variant_is_in_the_table() -> None:
    """No broken function lies there unused."""
    assert {path.stem for path in VARIANTS.glob("*.sql")} == {variant for variant, *_ in BROKEN}


def test_every_invariant_of_the_contract_can_fail() -> None:
    """Each query is broken by at least one variant."""
    from harness.contracts import invariants

    names = {f"invariant.{i.name}" for i in invariants.load((), SCAN_TICKET)}
    assert names <= {name for _, _, broken, _ in BROKEN for name in broken}


@pytest.mark.parametrize("play", [burst, rescan, unknown, arrivals])
def test_the_shipped_function_holds(play: Play, make_harness: MakeHarness) -> None:
    """Every claim, threshold and invariant holds of scan_ticket_atomic in every pattern."""
    result = play(make_harness())
    assert result.verdict.held, result.verdict


def test_the_shipped_function_holds_in_a_long_race(make_harness: MakeHarness) -> None:
    """Every kind of round with every argument variant, ten callers: nothing breaks, and the rounds did overlap."""
    result = make_harness().race(clients=10, rounds=100)
    assert result.verdict.held, result.verdict
    assert result.record.overlap is not None
    assert result.record.overlap.held_rounds >= 30
    assert result.metrics.counts["successful_scans"] >= result.metrics.counts["race_conditions_caught"] / 9


def test_held_rounds_prove_what_plain_rounds_miss(make_harness: MakeHarness) -> None:
    """A function that takes a lock conflict for a scan is right in every plain round, and found out by a rollback."""
    harness = make_harness(VARIANTS / "conflict_is_a_scan.sql")
    plain = harness.race(clients=6, rounds=60, mixed=False)
    assert plain.verdict["linearizable"].truth is Truth.HELD, plain.verdict
    held = harness.race(clients=6, rounds=12)
    assert held.verdict["linearizable"].truth is Truth.BROKEN
    told = held.verdict["linearizable"].evidence[0]["operations"]
    assert any(operation.get("held_open") == "rolled back" for operation in told)


def test_a_held_rollback_leaves_the_ticket_to_somebody_else(make_harness: MakeHarness) -> None:
    """After the winner went away, exactly one call on the ticket stands, and the database agrees with it."""
    result = make_harness().race(clients=6, rounds=24)
    undone = {o.key for o in result.history.operations() if o.rolled_back}
    assert undone
    for history in result.history.by_key():
        if history.key in undone:
            standing = [o for o in history.operations if o.outcome.label == "accepted" and not o.rolled_back]
            assert len(standing) == 1
    assert result.verdict["invariant.ticket_agrees_with_log"].truth is Truth.HELD


def test_a_race_always_tells_somebody_who_was_first(make_harness: MakeHarness) -> None:
    """However fast the losers are refused: one caller comes when the winner's transaction has been committed."""
    race = Race(6, 12)
    late = {n: each.late for n, each in enumerate(race.plan(len(SCAN_TICKET.variants)), 1) if each.late is not None}
    operations = make_harness().run(race).history.operations()
    assert late
    for number, client in late.items():
        *before, last = [o for o in operations if o.phase == number]
        (winner,) = [o for o in before if o.held]
        assert last.client == client
        assert last.outcome.label == "already_scanned"
        assert last.called >= winner.returned
