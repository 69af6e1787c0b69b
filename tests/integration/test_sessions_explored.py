"""Sessions explored: statements of anybody's, in transactions of their own or not, judged by whoever asks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest

from harness.environment.embedded import EmbeddedServer
from harness.environment.servers import connect
from harness.errors import UsageError
from harness.schedules import Plan, Session, SessionsExplored, SessionsRun, Statement, explore_sessions

TABLES = """
CREATE TABLE seats (id integer PRIMARY KEY, left_over integer NOT NULL);
CREATE TABLE sold (seat integer NOT NULL REFERENCES seats, who text DEFAULT current_user);
CREATE FUNCTION sell(p integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE n integer;
BEGIN
    SELECT left_over INTO n FROM seats WHERE id = p;
    IF n = 0 THEN RETURN NULL; END IF;
    UPDATE seats SET left_over = n - 1 WHERE id = p;
    INSERT INTO sold (seat) VALUES (p);
    RETURN n - 1;
END $$;
"""


def session(name: str, *statements: str, **more: Any) -> Session:
    return Session(name, tuple(Statement(text) for text in statements), **more)


@dataclass
class World:
    """A database of one test, with what was seen in it."""

    dsn: str
    connection: psycopg.Connection[Any]
    endings: set[str] = field(default_factory=set)
    runs: list[SessionsRun] = field(default_factory=list)

    def explore(self, *sessions: Session, **plan: Any) -> SessionsExplored:
        self.endings.clear()
        self.runs.clear()
        return explore_sessions(self.dsn, sessions, Plan(**plan), restore=self.restore, judge=self.judge)

    def restore(self) -> None:
        self.connection.execute("DELETE FROM sold; DELETE FROM seats; INSERT INTO seats VALUES (1, 1), (2, 1)")

    def judge(self, run: SessionsRun) -> Iterable[str]:
        state = self.connection.execute("SELECT id, left_over, (SELECT count(*) FROM sold) FROM seats ORDER BY id")
        rows = state.fetchall()
        self.runs.append(run)
        self.endings.add(str(([[(a.command, a.code, a.rows) for a in told] for told in run.answers], rows)))
        return ["oversold"] if rows[0][2] > 1 and rows[1][1] == 1 else []


@pytest.fixture
def world(server: EmbeddedServer) -> Iterator[World]:
    with connect(server.dsn) as admin:
        admin.execute("CREATE DATABASE of_sessions")
        dsn = psycopg.conninfo.make_conninfo(server.dsn, dbname="of_sessions")
        with connect(dsn) as connection:
            connection.execute(TABLES)
            yield World(dsn, connection)
        admin.execute("DROP DATABASE of_sessions WITH (FORCE)")


def test_steps_are_the_statements_of_a_session_and_those_inside_its_functions(world: World) -> None:
    """A call beside a transaction of three statements: both are held back at each, and the schedule is repeatable."""
    by_hand = session(
        "by hand",
        "BEGIN",
        "SELECT left_over FROM seats WHERE id = 1",
        "UPDATE seats SET left_over = left_over - 1 WHERE id = 1",
        "INSERT INTO sold (seat) VALUES (1)",
        "COMMIT",
    )
    found = world.explore(session("by call", "SELECT sell(1)"), by_hand)
    assert found.exhausted
    schedule = found.broken["oversold"]
    assert schedule.sessions == ("by call", "by hand")
    assert {move.text.split()[0] for move in schedule.moves} == {"SELECT", "UPDATE", "INSERT", "COMMIT", "commit"}
    again = world.explore(session("by call", "SELECT sell(1)"), by_hand, replay=schedule.replay, times=5)
    assert {run.replay for run in world.runs} == {schedule.replay}
    assert again.replayed is not None
    assert again.replayed.moves == schedule.moves


@pytest.mark.parametrize(
    "other",
    [
        ("SELECT sell(1)",),
        ("BEGIN", "SELECT sell(1)", "COMMIT"),
        ("SELECT sell(2)", "SELECT sell(1)"),
        ("BEGIN", "SAVEPOINT s", "UPDATE seats SET left_over = 5", "ROLLBACK TO s", "SELECT sell(1)", "COMMIT"),
        ("BEGIN", "SELECT 1 / 0", "SELECT sell(1)", "COMMIT", "SELECT sell(1)"),
        ("SET lock_timeout = '1h'", "DO 'BEGIN PERFORM sell(1); END'"),
        ("VACUUM seats", "SELECT sell(1)"),
    ],
    ids=lambda statements: "; ".join(statements)[:40],
)
def test_reduction_loses_no_ending(world: World, other: tuple[str, ...]) -> None:
    """However a session is made of statements, the answers and final states of all orders are found reduced too."""
    sessions = session("one", "SELECT sell(1)"), session("other", *other)
    whole = world.explore(*sessions, reduction=False)
    endings = set(world.endings)
    reduced = world.explore(*sessions)
    assert whole.exhausted
    assert reduced.exhausted
    assert world.endings == endings
    assert reduced.schedules <= whole.schedules


def test_a_transaction_is_run_again_on_the_codes_that_its_session_names(world: World) -> None:
    """At repeatable read the loser's 40001 is retried from its BEGIN, and the answers are those of the last try."""
    again: dict[str, Any] = {"retry": frozenset({"40001"}), "retries": 5, "isolation": "repeatable read"}
    one = session("one", "SELECT sell(1)", begin="BEGIN ISOLATION LEVEL REPEATABLE READ", **again)
    two = session("two", "BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT sell(1)", "COMMIT", **again)
    found = world.explore(one, two)
    assert found.exhausted
    assert not found.broken
    assert any(answer.tries > 1 for run in world.runs for told in run.answers for answer in told)
    assert not any(answer.code for run in world.runs for told in run.answers for answer in told)


def test_a_statement_may_be_made_of_earlier_answers(world: World) -> None:
    """What psql does with \\gset: the text is made when it is due, of what the session has been told."""
    follow = Session(
        "follow",
        (Statement("SELECT max(id) FROM seats"), Statement(lambda told: f"SELECT sell({told[0].rows[0][0]})")),
    )
    found = world.explore(follow, session("other", "UPDATE seats SET left_over = 7 WHERE id = 2"))
    assert found.exhausted
    assert {run.answers[0][1].rows for run in world.runs} == {(("0",),), (("6",),)}


def test_functions_are_put_back_as_they_were(world: World) -> None:
    """After an exploration nothing of it is left in the database, so that it can be explored or called again."""
    definition = "SELECT pg_get_functiondef('sell'::regproc)"
    before = world.connection.execute(definition).fetchone()
    world.explore(session("one", "SELECT sell(1)"))
    assert world.connection.execute(definition).fetchone() == before
    assert world.connection.execute("SELECT FROM pg_namespace WHERE nspname = 'harness_schedules'").fetchone() is None


def test_too_many_sessions_and_wrong_letters_are_refused(world: World) -> None:
    """Five sessions, and a replay text with a letter too many, are refused with what is possible."""
    one = session("one", "SELECT 1")
    with pytest.raises(UsageError, match="5 sessions cannot be explored"):
        world.explore(*[one] * 5)
    with pytest.raises(UsageError, match="names a session that is not there"):
        world.explore(one, replay="AB")
