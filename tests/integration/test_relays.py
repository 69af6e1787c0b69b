"""Schedules that are handed to the server whole: what comes of them is what comes of them choice by choice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from harness.environment.embedded import EmbeddedServer
from harness.schedules import Plan, Session, SessionsRun, Statement, explore_sessions, relay
from harness.schedules.relaying import Relay, Relays
from tests.generated import RESET, RESTORE, STATE, TABLES, Comparer, comparer

PLAIN = TABLES.format(on_delete="CASCADE", deferred="", unique="")
DEFERRED = TABLES.format(on_delete="CASCADE", deferred="DEFERRABLE INITIALLY DEFERRED", unique="")


def function(body: str, declared: str = "") -> str:
    return (
        "CREATE FUNCTION f(p integer) RETURNS text LANGUAGE plpgsql AS $$\n"
        f"DECLARE x integer := 0; {declared}\nBEGIN {body} RETURN x; END $$"
    )


CALLS = (("SELECT f(1)",), ("SELECT f(1)",))

CASES: dict[str, tuple[list[str], Sequence[Sequence[str]]]] = {
    "nobody waits": (
        [PLAIN, function("SELECT n INTO x FROM a WHERE id = p; UPDATE b SET n = x WHERE id = p; x := nextval('s');")],
        (("SELECT f(1)",), ("SELECT f(2)",)),
    ),
    "a lock is waited for": (
        [PLAIN, function("SELECT n INTO x FROM a WHERE id = 1 FOR UPDATE; UPDATE a SET n = x + 1 WHERE id = 1;")],
        CALLS,
    ),
    "each waits for the other": (
        [PLAIN, function("UPDATE a SET n = n + 1 WHERE id = p; UPDATE a SET n = n + 1 WHERE id = 3 - p;")],
        (("SELECT f(1)",), ("SELECT f(2)",)),
    ),
    "a deadlock is handled": (
        [
            PLAIN,
            function(
                "UPDATE a SET n = n + 1 WHERE id = p;"
                "BEGIN UPDATE a SET n = n + 1 WHERE id = 3 - p; EXCEPTION WHEN OTHERS THEN x := 7; END;"
            ),
        ],
        (("SELECT f(1)",), ("SELECT f(2)",)),
    ),
    "an error ends it": (
        [PLAIN, function("PERFORM n FROM a WHERE id = p FOR UPDATE NOWAIT; UPDATE a SET n = n + 1 WHERE id = p;")],
        CALLS,
    ),
    "an error is handled": (
        [
            PLAIN,
            function(
                "BEGIN PERFORM n FROM a WHERE id = p FOR UPDATE NOWAIT; UPDATE a SET n = n + 1 WHERE id = p;"
                "EXCEPTION WHEN lock_not_available THEN SELECT n + 100 INTO x FROM a WHERE id = p; END;"
                "UPDATE b SET n = x WHERE id = 2;"
            ),
        ],
        (("SELECT f(1)",), ("SELECT f(1)",)),
    ),
    "what is read decides what is done": (
        [
            PLAIN,
            function(
                "SELECT n INTO x FROM a WHERE id = 1;"
                "IF x = 1 THEN UPDATE a SET n = 5 WHERE id = 1; PERFORM n FROM c; ELSE PERFORM n FROM b; END IF;"
            ),
        ],
        CALLS,
    ),
    "it fails at the commit": (
        [DEFERRED, function("INSERT INTO b VALUES (p + 10, 9, 1); SELECT n INTO x FROM a WHERE id = 1;")],
        CALLS,
    ),
    "a text is put together": (
        [PLAIN, function("EXECUTE format('UPDATE %I SET n = n + 1 WHERE id = $1', 'a') USING p; PERFORM n FROM a;")],
        (("SELECT f(1)",), ("SELECT f(2)",)),
    ),
    "a lock is kept beyond the transaction": (
        [PLAIN, function("PERFORM pg_try_advisory_lock(p); SELECT n INTO x FROM a WHERE id = 1;")],
        (("SELECT f(1)",), ("SELECT f(2)",)),
    ),
    "all locks are let go": (
        [PLAIN, function("PERFORM pg_advisory_unlock_all(); UPDATE a SET n = n + 1 WHERE id = p; PERFORM n FROM a;")],
        (("SELECT f(1)",), ("SELECT f(2)",)),
    ),
    "its patience is short": (
        [
            PLAIN,
            function("SET LOCAL lock_timeout = '20ms'; SELECT n INTO x FROM a WHERE id = 1; UPDATE b SET n = x + n;"),
        ],
        (("SELECT f(1)",), ("SELECT n FROM a", "SELECT n FROM c")),
    ),
    "settings are reset": (
        [PLAIN, function("RESET ALL; SELECT n INTO x FROM a WHERE id = 1; UPDATE b SET n = x WHERE id = p;")],
        (("SELECT f(1)",), ("SELECT f(2)",)),
    ),
    "several transactions": (
        [PLAIN],
        (
            ("BEGIN", "SELECT n FROM a WHERE id = 1", "UPDATE b SET n = n + 1 WHERE id = 1", "COMMIT"),
            ("UPDATE a SET n = 9 WHERE id = 1", "INSERT INTO a VALUES (1, 1)", "SELECT n FROM b WHERE id = 1"),
        ),
    ),
    "it goes on in a transaction that has failed": (
        [PLAIN],
        (
            ("BEGIN", "INSERT INTO a VALUES (1, 1)", "SELECT n FROM c", "COMMIT", "SELECT n FROM a"),
            ("UPDATE a SET n = 9 WHERE id = 2",),
        ),
    ),
}


@pytest.fixture(scope="module")
def on(server: EmbeddedServer) -> Iterator[Comparer]:
    with comparer(server.dsn) as made:
        yield made


def tried(on: Comparer, setup: Sequence[str], calls: Sequence[Sequence[str]], *, relays: bool) -> dict[str, str]:
    """How every schedule ended, by its text."""
    for part in setup:
        on.connection.execute(part.encode())
    on.connection.execute(RESET.encode())
    endings = {}

    def judge(run: SessionsRun) -> tuple[str, ...]:
        state = on.connection.execute(STATE).fetchone()
        endings[run.replay] = str([[(a.command, a.code, a.rows) for a in told] for told in run.answers]) + str(state)
        return ()

    sessions = [Session(str(n), tuple(map(Statement, statements))) for n, statements in enumerate(calls)]
    plan = Plan(reduction=False, relays=relays, seconds=60)
    found = explore_sessions(
        on.dsn, sessions, plan, restore=lambda: on.connection.execute(RESTORE) and None, judge=judge
    )
    assert found.exhausted
    assert not found.unsteady
    return endings


@pytest.fixture
def relayed(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each schedule that was handed over, whether it could be gone through."""
    seen: list[bool] = []
    collect = Relays.collect

    def noted(self: Relays, relay: Relay) -> object:
        events, answers = collect(self, relay)
        seen.append(events is not None)
        return events, answers

    monkeypatch.setattr(Relays, "collect", noted)
    return seen


@pytest.mark.parametrize("name", CASES)
def test_a_relay_ends_as_choice_by_choice(on: Comparer, relayed: list[bool], name: str) -> None:
    """The same schedules are tried, and each ends with the same answers and the same state."""
    setup, calls = CASES[name]
    by_choice = tried(on, setup, calls, relays=False)
    assert not relayed
    assert tried(on, setup, calls, relays=True) == by_choice
    assert relayed


def test_nearly_every_schedule_is_handed_over_where_nobody_waits(on: Comparer, relayed: list[bool]) -> None:
    """The controller comes in for none of 70 schedules of two calls that do not meet, once it has seen them."""
    setup, calls = CASES["nobody waits"]
    tried(on, setup, calls, relays=True)
    assert relayed.count(True) >= 70
    assert relayed.count(False) <= 1


def test_a_relay_that_takes_other_turns_is_caught(on: Comparer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the server lets one session after the other go, whatever was planned, schedules end otherwise."""
    setup, calls = CASES["what is read decides what is done"]
    made = relay.scripts

    def one_after_the_other(turns: Sequence[tuple[int, Sequence[int], int | None]], *rest: Any, **more: Any) -> object:
        return made(sorted(turns, key=lambda turn: turn[0]), *rest, **more)

    by_choice = tried(on, setup, calls, relays=False)
    monkeypatch.setattr(relay, "scripts", one_after_the_other)
    assert tried(on, setup, calls, relays=True) != by_choice


@pytest.mark.parametrize("name", ["a lock is waited for", "each waits for the other", "a deadlock is handled"])
def test_what_a_failed_relay_leaves_does_no_harm(on: Comparer, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Cancelled while it gave a relay up, a session keeps its script, and stops at each turnstile all the same."""

    setup, calls = CASES[name]
    by_choice = tried(on, setup, calls, relays=False)
    monkeypatch.setattr(relay, "giving_up", lambda _: [*relay.LETTING_GO[:-1], relay.END])
    assert tried(on, setup, calls, relays=True) == by_choice
