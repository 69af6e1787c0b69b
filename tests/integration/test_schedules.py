"""Exploration on Postgres: what is broken is found at its shortest schedule, what is right holds, and replays agree."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness import Contract, contracts
from harness.contracts import invariants
from harness.environment.database import Database, Template
from harness.environment.embedded import EmbeddedServer
from harness.schedules import Exploration, Plan, explore
from harness.verdict.findings import Truth
from tests.inventory import INVENTORY

FUNCTIONS = Path(__file__).parent / "functions"
SCAN: Contract = contracts.load("scan_ticket")
QR = "own scanner, qr"
MANUAL = "own scanner, manual"

Explore = Callable[..., Exploration]


@pytest.fixture
def tried(template: Template) -> Explore:
    """Explores a function of the scan_ticket contract, given by its file or its SQL, in a database of its own."""

    def run(function: Path | str | None = None, **plan: object) -> Exploration:
        with template.clone() as database:
            if function is not None:
                text = function.read_text() if isinstance(function, Path) else function
                with database.connect() as connection:
                    connection.execute(text.encode())
            return on(database, **plan)

    return run


def on(database: Database, **plan: object) -> Exploration:
    wanted = {"variants": (QR,), "keys": (1,)} | plan
    return explore(database.dsn, SCAN, Plan(**wanted), invariants.load((), SCAN))  # type: ignore[arg-type]


def finding(exploration: Exploration, name: str) -> Truth:
    return next(f.truth for f in exploration.findings if f.id == name)


def broken(name: str) -> Path:
    return FUNCTIONS / "broken" / f"{name}.sql"


def correct(name: str) -> Path:
    return FUNCTIONS / "correct" / f"{name}.sql"


BROKEN = [
    ("check_then_act", {}, "at_most_one_accepted", 8),
    ("lock_after_check", {}, "at_most_one_accepted", 10),
    ("lock_released_before_commit", {}, "at_most_one_accepted", 12),
    ("share_lock", {}, "no_deadlock", 6),
    ("guard_on_rare_branch", {"variants": (QR, MANUAL)}, "at_most_one_accepted", 8),
    ("unique_index_on_wrong_columns", {}, "at_most_one_accepted", 8),
    ("needs_three_calls", {"calls": 3}, "at_most_one_accepted", 15),
    ("insert_where_not_exists", {}, "at_most_one_accepted", 6),
    ("check_in_helper_act_in_trigger", {}, "at_most_one_accepted", 10),
]


_FOUND: dict[str, Exploration] = {}


def explored_once(tried: Explore, name: str, plan: dict[str, object]) -> Exploration:
    """The exploration of a broken function, which two tests look at."""
    if name not in _FOUND:
        _FOUND[name] = tried(broken(name), **plan)
    return _FOUND[name]


@pytest.mark.parametrize(("name", "plan", "claim", "shortest"), BROKEN, ids=[case[0] for case in BROKEN])
def test_a_broken_function_is_found_at_its_shortest_schedule(
    tried: Explore, name: str, plan: dict[str, object], claim: str, shortest: int
) -> None:
    """Every seeded bug is found, and the schedule shown for it has no more steps than the bug needs."""
    found = explored_once(tried, name, plan)
    assert found.truth is Truth.BROKEN
    assert finding(found, claim) is Truth.BROKEN
    assert found.exhausted
    assert len(found.broken[claim].moves) == shortest


def test_a_bug_of_three_calls_does_not_show_with_two(tried: Explore) -> None:
    """The function that needs three calls holds for two, exhausted: the bound on the calls is a real one."""
    found = tried(broken("needs_three_calls"))
    assert found.truth is Truth.HELD
    assert found.exhausted


def test_a_bug_on_a_rare_branch_does_not_show_on_another(tried: Explore) -> None:
    """The rare branch is only come to by the variant that takes it, and the replay text names that variant."""
    assert tried(broken("guard_on_rare_branch"), variants=(QR,)).truth is Truth.HELD
    found = tried(broken("guard_on_rare_branch"), variants=(QR, MANUAL))
    assert found.broken["at_most_one_accepted"].replay.startswith("v3:")


CORRECT = [None, *(correct(path.stem) for path in sorted((FUNCTIONS / "correct").glob("*.sql")))]


@pytest.mark.parametrize("function", CORRECT, ids=lambda path: path.stem if path else "shipped")
def test_a_correct_function_holds_exhausted(tried: Explore, function: Path | None) -> None:
    """The shipped function and five others, each with another strategy, hold in every order, on one key and on two."""
    found = tried(function, keys=(1, 2))
    assert {f.id: f.truth for f in found.findings if f.truth is not Truth.HELD} == {}
    assert found.exhausted
    assert len(CORRECT) == 6


def test_the_shipped_function_holds_for_three_calls(tried: Explore) -> None:
    """Three calls on one ticket hold in every order."""
    found = tried(calls=3)
    assert found.truth is Truth.HELD
    assert found.exhausted


TINY = """
DROP INDEX scan_logs_one_success_per_ticket;
CREATE OR REPLACE FUNCTION scan_ticket_atomic(
    p_ticket_id uuid, p_scanned_by uuid, p_device_id text DEFAULT NULL, p_scan_method text DEFAULT 'qr'
) RETURNS TABLE (success boolean, already_scanned boolean, scanned_at timestamptz, scanned_by uuid, error_message text)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
{body}
END $$;
"""


LOCKING_READ = """
    RETURN QUERY SELECT true, false, now(), p_scanned_by, NULL::text FROM tickets WHERE id = p_ticket_id FOR UPDATE;
"""


def test_hand_counted_schedules_of_a_tiny_function(tried: Explore) -> None:
    """One locking read: two steps a call (read, commit), counted by hand.

    Without blocking there would be 4! / (2! 2!) = 6 orders. A call that reads second before the first one's commit
    waits, and its read then ends in that commit, after which only its own commit is left: A reads, B waits, A commits,
    B commits; or A reads, A commits, B reads, B commits. Two, and two more with the names exchanged. None of these
    steps commute.
    """
    tiny = TINY.format(body=LOCKING_READ)
    assert tried(tiny, reduction=False).schedules == 4
    reduced = tried(tiny)
    assert (reduced.schedules, reduced.before_reduction) == (4, 4)


def test_three_calls_that_queue_for_a_lock_are_counted_right(tried: Explore) -> None:
    """With two calls waiting for a third, and then for each other, the reduced search still stands for every order."""
    tiny = TINY.format(body=LOCKING_READ)
    reduced = tried(tiny, calls=3)
    whole = tried(tiny, calls=3, reduction=False)
    assert reduced.before_reduction == whole.schedules
    assert reduced.schedules <= whole.schedules
    assert reduced.exhausted
    assert whole.exhausted


def outcomes(exploration: Exploration) -> set[str]:
    return {outcome for case in exploration.cases for outcome in case.outcomes}


@pytest.mark.parametrize(
    "function",
    [None, *(path for path in sorted(FUNCTIONS.glob("*/*.sql")) if path.stem != "needs_three_calls")],
    ids=lambda path: path.stem if path else "shipped",
)
def test_reduction_loses_no_outcome(tried: Explore, function: Path | None) -> None:
    """The reduced search ends in the same outcomes, breaks the same claims and stands for as many interleavings."""
    plan = {"variants": (MANUAL,)} if function and function.stem == "guard_on_rare_branch" else {}
    reduced = tried(function, **plan)
    whole = tried(function, reduction=False, **plan)
    assert whole.exhausted
    assert outcomes(reduced) == outcomes(whole)
    assert set(reduced.broken) == set(whole.broken)
    assert reduced.before_reduction == whole.schedules
    assert reduced.schedules <= whole.schedules
    assert {n: len(s.moves) for n, s in reduced.broken.items()} == {n: len(s.moves) for n, s in whole.broken.items()}


@pytest.mark.parametrize(("name", "plan", "claim"), [case[:3] for case in BROKEN], ids=[case[0] for case in BROKEN])
def test_a_replay_ends_the_same_20_times_of_20(tried: Explore, name: str, plan: dict[str, object], claim: str) -> None:
    """The replay text of a broken claim breaks that claim again, with the same moves and answers, 20 times of 20."""
    found = explored_once(tried, name, plan).broken[claim]
    again = tried(broken(name), replay=found.replay, times=20)
    [judged] = [f for f in again.findings if f.id == claim]
    assert judged.observed == "broken in 20 of 20 schedules"
    assert finding(again, "same_end_when_repeated") is Truth.HELD
    assert again.replayed is not None
    assert again.replayed.moves == found.moves
    assert [call.label for call in again.replayed.calls] == [call.label for call in found.calls]


def test_a_contract_of_another_shape_is_explored(server: EmbeddedServer) -> None:
    """The inventory's function holds in every order; the one that reads its stock first is found."""
    folder = Path(__file__).parent.parent / "inventory"
    truths = []
    for more in ((), (folder / "oversells.sql",)):
        with Template(server, [folder / "migrations", *more], [folder / "seed"]) as built, built.clone() as database:
            found = explore(database.dsn, INVENTORY, Plan(keys=(1,)), invariants.load((), INVENTORY))
            truths.append(finding(found, "linearizable"))
            assert found.exhausted
    assert truths == [Truth.HELD, Truth.BROKEN]


def test_a_step_has_the_rows_that_everybody_sees_after_it(tried: Explore) -> None:
    """Before the first commit the ticket is unused and no scan is logged; then one, then two."""
    found = tried(broken("check_then_act"))
    schedule = found.broken["at_most_one_accepted"]
    seen = {move.number: move.rows for move in schedule.moves if move.rows}
    commits = [move.number for move in schedule.moves if move.text == "commit"]
    assert sorted(seen) == [1, *commits]
    assert [row["is_used"] for row in seen[1]["public.tickets"]] == [False]
    assert "public.scan_logs" not in seen[1]
    assert [len(seen[number]["public.scan_logs"]) for number in commits] == [1, 2]
    assert {row["id"] for rows in seen.values() for row in rows["public.tickets"]} == {schedule.calls[0].key}
