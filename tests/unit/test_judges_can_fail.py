"""Every judge can fail: a deliberately broken function for each claim, and a right one for which all of them hold.

The functions are Python, the threads and the patterns are the real ones.
"""

from __future__ import annotations

import itertools
import threading
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from harness import BROKEN_ANSWER
from harness.contracts.scan_ticket import SCAN_TICKET
from harness.load.pattern import Pattern
from harness.load.patterns import Arrivals, Burst, Race, Rescan, Unknown
from harness.load.side_by_side import SideBySide
from harness.targets.memory import SqlError
from harness.verdict.findings import Truth, truth_of
from tests.histories import Function, Gate, answer, findings, history, play

CALLERS = 4
ROUNDS = 10
RACE = Race(CALLERS, ROUNDS, mixed=False)
BURST = Burst(CALLERS, calls=10)
RESCAN = Rescan(CALLERS, calls=5)
RIGHT_PATTERNS: tuple[Pattern, ...] = (
    BURST,
    Burst(CALLERS, calls=5, pause=0.001),
    RACE,
    Race(CALLERS, 60),
    RESCAN,
    Arrivals(CALLERS, rate=500, duration=0.2, duplicates=0.2),
    SideBySide((Burst(2, calls=20), Race(2, 20))),
)


def check_then_act() -> Function:
    """All callers of a round look at the ticket before one of them marks it."""
    looked, scanned = threading.Barrier(CALLERS), set[Any]()

    def scan(asked: Mapping[str, Any]) -> Mapping[str, Any]:
        used = asked["p_ticket_id"] in scanned
        looked.wait(10)
        scanned.add(asked["p_ticket_id"])
        if used:
            return answer(already=True)
        return answer(success=True, by=asked["p_scanned_by"])

    return scan


def always_busy() -> Function:
    return lambda asked: answer(message="Ticket is being processed")  # noqa: ARG005


def losers_raise() -> Function:
    """NOWAIT without a handler: a lost race is an SQL error."""
    gate = Gate()

    def scan(asked: Mapping[str, Any]) -> Mapping[str, Any]:
        told = gate(asked)
        if not told["success"]:
            raise SqlError("55P03", "could not obtain lock on row in relation tickets")
        return told

    return scan


def everyone_is_told_himself() -> Function:
    gate = Gate()

    def scan(asked: Mapping[str, Any]) -> Mapping[str, Any]:
        told = gate(asked)
        return {**told, "scanned_by": asked["p_scanned_by"]} if told["already_scanned"] else told

    return scan


def busy_after_the_scan() -> Function:
    """A lock that is never given back."""
    gate = Gate()

    def scan(asked: Mapping[str, Any]) -> Mapping[str, Any]:
        told = gate(asked)
        return answer(message="lock not available") if told["already_scanned"] else told

    return scan


def wrong_time() -> Function:
    """The loser is told the right winner and a time at which nobody was let in."""
    gate, times = Gate(), itertools.count(1000)

    def scan(asked: Mapping[str, Any]) -> Mapping[str, Any]:
        told = gate(asked)
        return {**told, "scanned_at": next(times)} if told["already_scanned"] else told

    return scan


def not_found_though_it_is_there() -> Function:
    return lambda asked: answer(message="Ticket not found")  # noqa: ARG005


def found_though_it_is_not_there() -> Function:
    return lambda asked: answer(success=True, by=asked["p_scanned_by"])


def refused_at_once() -> Function:
    """Everyone is told that somebody else was first."""
    return lambda asked: answer(already=True)  # noqa: ARG005


def raises(code: str) -> Callable[[], Function]:
    def function() -> Function:
        def scan(asked: Mapping[str, Any]) -> Mapping[str, Any]:  # noqa: ARG001
            raise SqlError(code, "on purpose")

        return scan

    return function


def null_success() -> Function:
    return lambda asked: answer(success=None)  # noqa: ARG005


def unreadable() -> Function:
    return lambda asked: answer(message=None)  # noqa: ARG005


def refused_for_no_reason() -> Function:
    return lambda asked: answer(message="computer says no")  # noqa: ARG005


BROKEN = [
    # (what is wrong, pattern that shows it, findings that must be broken, findings that must not be)
    (check_then_act, RACE, {"at_most_one_accepted", "linearizable"}, {"losers_are_refused", "no_unhandled_error"}),
    (always_busy, RACE, {"at_least_one_accepted"}, {"at_most_one_accepted", "losers_are_refused"}),
    (losers_raise, RESCAN, {"losers_are_refused", "no_unhandled_error"}, {"at_most_one_accepted", "no_deadlock"}),
    (everyone_is_told_himself, RESCAN, {"true_winner", "linearizable"}, {"at_most_one_accepted"}),
    (busy_after_the_scan, RESCAN, {"busy_only_while_in_flight"}, {"at_most_one_accepted", "linearizable"}),
    (wrong_time, RESCAN, {"linearizable"}, {"true_winner", "at_most_one_accepted", "losers_are_refused"}),
    (not_found_though_it_is_there, BURST, {"linearizable", "at_least_one_accepted"}, {"no_unhandled_error"}),
    (found_though_it_is_not_there, Unknown(CALLERS, 3), {"linearizable"}, {"at_most_one_accepted"}),
    (refused_at_once, RACE, {"linearizable", "at_least_one_accepted"}, {"at_most_one_accepted"}),
    (raises("40P01"), RACE, {"no_deadlock", "losers_are_refused"}, {"no_unhandled_error"}),
    (raises("P0001"), RACE, {"no_unhandled_error", "losers_are_refused"}, {"no_deadlock"}),
    (null_success, BURST, {"no_unhandled_error", "threshold.scan_errors.rate<0.001"}, {"no_deadlock"}),
    (unreadable, BURST, {"no_unhandled_error", "threshold.scan_errors.rate<0.001"}, {"no_deadlock"}),
    (refused_for_no_reason, BURST, {"at_least_one_accepted", "linearizable"}, {"no_unhandled_error"}),
    (raises("P0001"), BURST, {"threshold.scan_errors.rate<0.001", "threshold.checks.rate>0.95"}, {"no_deadlock"}),
    (refused_at_once, BURST, {"threshold.successful_scans.count>0"}, {"threshold.scan_errors.rate<0.001"}),
    (always_busy, BURST, {"threshold.checks.rate>0.95", "busy_only_while_in_flight"}, {"linearizable"}),
]


@pytest.mark.parametrize(("make", "pattern", "broken", "sound"), BROKEN, ids=lambda v: getattr(v, "__name__", ""))
def test_a_broken_function_is_found_out(
    make: Callable[[], Function], pattern: Pattern, broken: set[str], sound: set[str]
) -> None:
    """Each kind of bug breaks the claims that are about it, with evidence, and leaves the others alone."""
    found = findings(play(pattern, make()), pattern)
    for name in broken:
        assert found[name].truth is Truth.BROKEN, found[name]
        assert found[name].evidence, name
        assert found[name].remedy, name
    for name in sound:
        assert found[name].truth is not Truth.BROKEN, found[name]


def test_the_table_of_broken_functions_breaks_every_claim() -> None:
    """No judgement of a history is left out of the table above."""
    judged = {name for _, _, broken, _ in BROKEN for name in broken}
    every = {name for pattern in (RACE, BURST) for name in findings(play(pattern, Gate()), pattern)}
    # A duration is broken by hand in test_thresholds: here it would take a sleep.
    assert every - judged == {"threshold.scan_duration.p(95)<200"}


@pytest.mark.parametrize("pattern", RIGHT_PATTERNS, ids=lambda p: p.name)
def test_every_claim_holds_of_a_right_function(pattern: Pattern) -> None:
    """A function that keeps its promise is found to keep it, whatever the pattern."""
    found = findings(play(pattern, Gate()), pattern)
    assert truth_of(found.values()) is Truth.HELD, [f for f in found.values() if f.truth is not Truth.HELD]


def test_an_unknown_ticket_is_held_to_its_own_answer() -> None:
    """For tickets that were never created, not_found is right and nobody has to be let in."""
    pattern, gate = Unknown(CALLERS, 5), Gate()
    made = play(pattern, lambda asked: gate(asked) if gate.unknown else answer(message="Ticket not found"))
    assert len(made) == CALLERS * 5
    assert truth_of(findings(made, pattern).values()) is Truth.HELD


def test_a_lost_connection_leaves_its_call_undecided() -> None:
    """A call whose answer never came proves neither a scan nor its absence: no claim is broken, none wrongly held."""
    gate = Gate()

    def scan(asked: Mapping[str, Any]) -> Mapping[str, Any]:
        gate(asked)
        raise ConnectionError("server closed the connection unexpectedly")

    found = findings(play(BURST, scan), BURST)
    assert found["no_unhandled_error"].truth is Truth.UNDECIDED
    assert found["linearizable"].truth is Truth.HELD
    assert found["at_least_one_accepted"].truth is not Truth.BROKEN
    assert found["threshold.scan_errors.rate<0.001"].truth is Truth.UNDECIDED


@pytest.mark.parametrize(("lost", "truth"), [(1, Truth.HELD), (3, Truth.UNDECIDED)])
def test_what_the_environment_took_is_not_held_against_the_function(lost: int, truth: Truth) -> None:
    """A killed backend's call is no error of the function's; when too many are lost, the others are no fair picture."""
    calls = 0

    def scan(asked: Mapping[str, Any]) -> Mapping[str, Any]:
        nonlocal calls
        calls += 1
        if calls % 4 == 0 and calls <= 4 * lost:
            raise ConnectionError("terminating connection due to administrator command")
        return answer(success=True, by=asked["p_scanned_by"])

    found = findings(play(Burst(4, calls=10), scan), Burst(4, calls=10))
    assert found["no_unhandled_error"].truth is truth, found["no_unhandled_error"]
    assert f"{lost} " in found["no_unhandled_error"].observed
    assert found["threshold.scan_errors.rate<0.001"].truth is Truth.HELD
    assert Truth.BROKEN not in {f.truth for f in found.values()}


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        ("42501", "Grant the role of the calls"),
        ("23505", "does an argument come again?"),
        ("57014", "a longer statement_timeout"),
        ("55P03", "Handle lock_not_available"),
        ("40001", "--retry 40001"),
        ("P0001", "errors=(ErrorAnswer('P0001'"),
        ("23514", "Handle the condition in the function"),
        (BROKEN_ANSWER, "of several rows let a statement make one"),
        ("42883", "Mend the function"),
    ],
)
def test_a_remedy_fits_the_error(code: str, remedy: str) -> None:
    """What to do about missing rights, or an argument that repeats, is not what to do about a condition."""
    assert remedy in findings(play(BURST, raises(code)()), BURST)["no_unhandled_error"].remedy


def test_an_unreadable_answer_says_what_it_was() -> None:
    """An answer that cannot be classified is kept with the values that it had."""
    made = play(Burst(1, calls=1), lambda asked: answer(success=None, message="hm"))  # noqa: ARG005
    (operation,) = made.operations()
    assert operation.outcome.code == BROKEN_ANSWER
    assert "success=None" in (operation.outcome.detail or "")


def test_nothing_judged_is_undecided() -> None:
    """A history without a call proves nothing."""
    empty = findings(history(), BURST)
    assert {f.truth for f in empty.values()} == {Truth.UNDECIDED}
    assert truth_of(()) is Truth.UNDECIDED


def test_a_defect_in_a_client_thread_is_raised() -> None:
    """An exception that is none of the function's own ends the run and is not swallowed by its thread."""

    def scan(asked: Mapping[str, Any]) -> Mapping[str, Any]:  # noqa: ARG001
        raise RuntimeError("a defect of the test")

    with pytest.raises(RuntimeError, match="a defect of the test"):
        play(Burst(3, calls=2), scan)


def test_keys_are_as_the_contract_makes_them() -> None:
    """Unknown keys are fresh uuids, so that no ticket can have them."""
    made = {SCAN_TICKET.unknown_key() for _ in range(100)}
    assert len(made) == 100
    assert all(isinstance(key, uuid.UUID) for key in made)
