"""What lies at the edges: functions that hold for two calls on fresh keys, and break beside them in one way each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import Contract, Effect, Function, UpTo, Variant
from harness.contracts.invariants import Invariant
from harness.environment.database import Template
from harness.environment.identity import Identity
from harness.environment.servers import Server
from harness.schedules import Exploration, Plan, explore, settled
from harness.verdict.findings import Truth

HERE = Path(__file__).parent
GIFTS = Contract(
    name="gifts",
    function=Function("take", key="p_gift"),
    new_keys="harness.new_gifts",
    variants=(Variant("call", lambda client: {"p_person": client, "p_note": "thanks"}),),
    labels={"accepted": Effect.APPLIED, "refused": Effect.REFUSED},
    classify=lambda row: "accepted" if row["take"] else "refused",
    model=UpTo(1),
    missing="refused",
)
COUNTED = Invariant(
    "counted",
    "Of everybody it is known how many gifts they took.",
    """SELECT id, gifts - taken AS off
         FROM people, LATERAL (SELECT count(*) AS taken FROM gifts WHERE taken_by = people.id) AS counted
        WHERE gifts <> taken""",
    Path("counted.sql"),
    1,
)

KNOWN = Invariant(
    "known",
    "Whatever was taken was taken by a call that was told so.",
    """SELECT g.id
         FROM gifts AS g LEFT JOIN harness.operations AS o ON o.key = g.id::text AND o.label = 'accepted'
        WHERE g.taken_by IS NOT NULL AND o.key IS NULL""",
    Path("known.sql"),
    1,
)
TWICE = Invariant("twice", "A gift is taken once.", "SELECT id FROM gifts WHERE note = 'xx'", Path("twice.sql"), 1)

Explore = Callable[..., Exploration]


@pytest.fixture(scope="module")
def tried(server: Server) -> Iterator[Explore]:
    """Explores `take` with another body, of the same contract."""
    with Template(server, [HERE / "edges.sql"], []) as template:

        def run(body: str = "", contract: Contract = GIFTS, invariants: tuple[Invariant, ...] = (), **plan: Any) -> Any:
            with template.clone() as database:
                if body:
                    with database.connect() as connection:
                        connection.execute(
                            f"""
                            CREATE OR REPLACE FUNCTION take(p_gift uuid, p_person integer, p_note text DEFAULT NULL)
                            RETURNS boolean LANGUAGE plpgsql AS $$ DECLARE n integer; BEGIN {body} END $$""".encode()
                        )
                return explore(database.dsn, contract, Plan(**{"edges": True} | plan), invariants)

        yield run


def broken(found: Exploration) -> dict[str, str]:
    """The claims that broke, with the text of the schedule that shows how."""
    return {name: schedule.replay for name, schedule in found.broken.items()}


TAKE = "UPDATE gifts SET taken_by = p_person, note = p_note WHERE id = p_gift AND taken_by IS NULL; RETURN FOUND;"
UNGUARDED = """
    SELECT taken_by INTO n FROM gifts WHERE id = p_gift; IF n IS NOT NULL THEN RETURN false; END IF;
    UPDATE gifts SET taken_by = p_person, note = p_note WHERE id = p_gift; RETURN true;"""

AT_THE_EDGES = {
    "it makes what it does not find": (
        f"INSERT INTO gifts (id) VALUES (p_gift) ON CONFLICT DO NOTHING; {TAKE}",
        "linearizable",
        "m:",
    ),
    "the guard compares with NULL": (
        f"IF p_note IS NULL THEN {UNGUARDED} END IF; {TAKE}",
        "linearizable",
        "n2:",
    ),
    "its lock is its session's, which a cancelled call keeps": (
        """IF NOT pg_try_advisory_lock(hashtext(p_gift::text)) THEN RETURN false; END IF;
            UPDATE gifts SET taken_by = p_person WHERE id = p_gift AND taken_by IS NULL; n := FOUND::integer;
            PERFORM pg_advisory_unlock(hashtext(p_gift::text)); RETURN n = 1;""",
        "usable_after_crash",
        "r:",
    ),
    "its mark outlives its transaction": (
        f"""IF (SELECT last_value FROM last_taken) = hashtext(p_gift::text) THEN RETURN false; END IF;
            PERFORM setval('last_taken', hashtext(p_gift::text)); {TAKE}""",
        "usable_after_crash",
        "r:",
    ),
}


@pytest.mark.parametrize(("body", "claim", "prefix"), AT_THE_EDGES.values(), ids=AT_THE_EDGES)
def test_what_breaks_at_an_edge_is_found_there_and_nowhere_else(
    tried: Explore, body: str, claim: str, prefix: str
) -> None:
    """It holds, exhausted, for two calls on fresh keys; at the edge it breaks, and breaks again when it is replayed."""
    plain = tried(body, edges=False)
    assert (plain.truth, plain.exhausted) == (Truth.HELD, True), plain.findings
    found = broken(tried(body))
    assert found[claim].startswith(prefix), found
    again = tried(body, replay=found[claim])
    assert broken(again)[claim] == found[claim]


def test_what_breaks_in_the_middle_too_is_shown_there(tried: Explore) -> None:
    """A check without a lock, which makes a missing key's gift as well, is shown as the race of two calls."""
    body = """
        INSERT INTO gifts (id) VALUES (p_gift) ON CONFLICT DO NOTHING;
        SELECT taken_by INTO n FROM gifts WHERE id = p_gift; IF n IS NOT NULL THEN RETURN false; END IF;
        UPDATE gifts SET taken_by = p_person, note = coalesce(note, '') || 'x' WHERE id = p_gift; RETURN true;"""
    found = broken(tried(body, invariants=(TWICE,)))
    assert ":" not in found["linearizable"], found
    assert ":" not in found["invariant.twice"], found


FIRST = "IF NOT EXISTS (SELECT FROM people WHERE id = p_person + 100) THEN INSERT INTO people VALUES (p_person + 100);"


@pytest.mark.parametrize("body", [f"{FIRST} END IF;", f"{FIRST} ELSE PERFORM FROM people; END IF;"], ids=len)
def test_what_a_client_makes_once_is_made_beforehand(tried: Explore, body: str) -> None:
    """Steps that only a client's first call takes, or only its later ones: the fault behind them is found, and shown
    by a schedule that is red again in a database that nobody has called anything in. Without one it is not held, since
    of first calls one order was tried."""
    assert tried(f"{body} {TAKE}", edges=False).truth is Truth.UNDECIDED
    found = tried(f"{body} {UNGUARDED}", edges=False)
    assert (found.truth, found.exhausted) == (Truth.BROKEN, True)
    shown = broken(found)
    assert broken(tried(f"{body} {UNGUARDED}", replay=shown["linearizable"])) == {"linearizable": shown["linearizable"]}


TOTAL = Invariant(
    "total",
    "The total is how many gifts were taken.",
    "SELECT gifts FROM people WHERE id = 9 AND gifts <> (SELECT count(*) FROM gifts WHERE taken_by IS NOT NULL)",
    Path("total.sql"),
    1,
)


@pytest.mark.parametrize(("counts", "alone"), [(1, False), (2, True)])
def test_a_total_that_every_call_changes_is_not_blamed_on_any(tried: Explore, counts: int, alone: bool) -> None:
    """Once a race has made it wrong, it is wrong by other figures after calls that come one after the other; those are
    shown where they do it, which nothing but a fresh database tells."""
    body = UNGUARDED.replace("RETURN true", f"UPDATE people SET gifts = gifts + {counts} WHERE id = 9; RETURN true")
    found = tried(body, invariants=(TOTAL,), edges=False)
    (finding,) = (each for each in found.findings if each.id == "invariant.total")
    assert (finding.truth, "without any concurrency" in finding.observed) == (Truth.BROKEN, alone), finding
    shown = broken(found)["invariant.total"]
    assert broken(tried(body, invariants=(TOTAL,), replay=shown))["invariant.total"] == shown


def test_of_a_long_search_the_shortest_are_kept(tried: Explore, monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for two schedules of each kind, an invariant that broke is still shown by one that breaks it again."""
    monkeypatch.setattr("harness.schedules.judging._MOST_TRIED", 2)
    body = """
        SELECT coalesce(length(note), 0) INTO n FROM gifts WHERE id = p_gift; IF n > 0 THEN RETURN false; END IF;
        UPDATE gifts SET note = coalesce(note, '') || 'x' WHERE id = p_gift; RETURN true;"""
    assert "invariant.twice" in broken(tried(body, replace(GIFTS, model=UpTo(2)), (TWICE,)))


def test_a_function_without_a_fault_holds_at_the_edges(tried: Explore) -> None:
    """Each edge is a case of its own, tried in full; what is tried of three calls beside them is said as such."""
    found = tried()
    assert (found.truth, found.exhausted) == (Truth.HELD, True), found.findings
    assert [case.variant.removeprefix("call, ") for case in found.cases] == [
        "call",
        "call",
        "cancelled or dies, then retried",
        "a key that does not exist",
        "of one owner",
        "p_note NULL",
        "3 calls",
    ]
    assert all(case.exhausted for case in found.cases[:-1])
    assert found.schedules == sum(case.schedules for case in found.cases if case.calls == 2)
    assert "of 3" in settled(found).not_covered[0]


def test_an_argument_that_a_lone_call_is_refused_for_is_no_edge(tried: Explore) -> None:
    """Where a NULL is turned down though nobody else is there, the function is not accused of it; it is said."""
    found = tried(f"IF p_note IS NULL THEN RAISE not_null_violation; END IF; {TAKE}")
    assert found.truth is Truth.HELD, found.findings
    assert "call, p_note NULL: a call alone is answered failed (23502)" in found.not_covered


def test_a_key_that_does_not_exist_may_be_an_error(tried: Explore) -> None:
    """An error for a missing key, which the contract has no word for, is said; the function is not accused of it."""
    found = tried(f"IF NOT EXISTS (SELECT FROM gifts WHERE id = p_gift) THEN RAISE no_data_found; END IF; {TAKE}")
    assert found.truth is Truth.HELD, found.findings
    assert "call, a key that does not exist: a call alone is answered failed (P0002)" in found.not_covered


def test_a_call_is_made_again_by_who_made_it(tried: Explore) -> None:
    """The call after one that was cancelled or died has the same arguments, as a retry has."""
    found = tried(AT_THE_EDGES["its mark outlives its transaction"][0]).broken["usable_after_crash"]
    first, again = found.calls
    assert (first.arguments, first.key) == (again.arguments, again.key)


@pytest.mark.parametrize("handled", ["RETURN false", "RAISE 'try again'", "UPDATE people SET gifts = 9; RETURN false"])
def test_what_a_function_says_of_being_cancelled_is_no_fault(tried: Explore, handled: str) -> None:
    """One that answers a cancel by a no or by an error of its own is not accused of either."""
    body = f"PERFORM FROM people WHERE id = p_person; {TAKE} EXCEPTION WHEN query_canceled THEN {handled};"
    found = tried(body, keys=(1,))
    assert found.truth is Truth.HELD, found.findings


@pytest.mark.parametrize(
    "plan", [{"edges": False}, {"edges": False, "crash": True}, {}], ids=["calls", "crash", "edges"]
)
def test_an_invariant_knows_of_every_call(tried: Explore, plan: dict[str, Any]) -> None:
    """Schedules that are repeated, or come to nothing, leave rows too: an invariant finds the calls of each of them."""
    found = tried(f"PERFORM FROM people WHERE id = p_person; {TAKE}", invariants=(KNOWN,), **plan)
    assert found.truth is Truth.HELD, found.findings
    unknown = f"{TAKE[:-13]} UPDATE gifts SET taken_by = p_person WHERE id = p_gift; RETURN false;"
    assert "invariant.known" in broken(tried(unknown, replace(GIFTS, model=UpTo(9)), (KNOWN,), **plan))


def test_two_keys_of_one_owner_are_tried(tried: Explore) -> None:
    """An owner's count that is read and then written is wrong only where two gifts go to one person."""
    body = """
        UPDATE gifts SET taken_by = p_person WHERE id = p_gift AND taken_by IS NULL;
        IF NOT FOUND THEN RETURN false; END IF;
        SELECT gifts INTO n FROM people WHERE id = p_person {lock};
        UPDATE people SET gifts = n + 1 WHERE id = p_person; RETURN true;"""
    found = tried(body.format(lock=""), invariants=(COUNTED,))
    assert broken(found).keys() == {"invariant.counted"}
    assert found.broken["invariant.counted"].replay.startswith("k2o:")
    assert tried(body.format(lock="FOR NO KEY UPDATE"), invariants=(COUNTED,)).truth is Truth.HELD


def test_two_keys_of_one_owner_meet_in_a_deadlock(tried: Explore) -> None:
    """A foreign key shares the owner's row, which both then want to themselves."""
    body = """
        UPDATE gifts SET taken_by = p_person WHERE id = p_gift;
        PERFORM FROM people WHERE id = p_person FOR UPDATE; RETURN true;"""
    found = tried(body, replace(GIFTS, model=UpTo(9)))
    assert broken(found)["no_deadlock"].startswith("k2o:")


def test_three_calls_are_tried_where_two_hold(tried: Explore) -> None:
    """A function that gives away two things, for which a third has to come, is held for two calls and no more."""
    body = """
        UPDATE gifts SET note = coalesce(note, '') || 'x' WHERE id = p_gift RETURNING length(note) INTO n;
        RETURN n = 1 OR n = 3;"""
    assert tried(body, edges=False).truth is Truth.HELD
    found = tried(body)
    assert broken(found)["linearizable"].startswith("c3:")
    assert broken(tried(body, replay=broken(found)["linearizable"])).keys() >= {"linearizable"}


def test_what_comes_before_and_after_is_called_as_the_same_caller(tried: Explore) -> None:
    """The calls that use a key up, and the one that is made again, are made with the claims of the others."""
    contract = replace(GIFTS, identity=Identity(claims={"sub": "me"}), capacity=2, model=UpTo(2))
    body = """
        UPDATE gifts SET note = coalesce(note, '') || 'x' WHERE id = p_gift AND coalesce(length(note), 0) < 2
           AND current_setting('request.jwt.claims', true)::json ->> 'sub' = 'me';
        RETURN FOUND;"""
    assert tried(body, contract).truth is Truth.HELD
