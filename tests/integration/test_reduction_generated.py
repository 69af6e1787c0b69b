"""The judge of the reduction: functions that nobody wrote by hand, explored reduced and unreduced."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.environment.embedded import EmbeddedServer
from harness.schedules import Plan, Session, SessionsRun, Statement, explore_sessions
from harness.sqltext.access import Access
from tests.generated import RESTORE, TABLES, Case, Comparer, comparer, drawn

CASES = 200
SMALL = (1, 1, 2)
"""Statements of a function: more are drawn by `python -m tests.generated`."""

MOST = 20
"""Schedules of a case, unreduced; those with more are left to the longer run."""


@pytest.fixture(scope="module")
def on(server: EmbeddedServer) -> Iterator[Comparer]:
    with comparer(server.dsn) as made:
        yield made


def test_the_reduction_loses_no_ending_of_generated_functions(on: Comparer) -> None:
    """200 functions from a fixed seed have the same set of answers and final states, reduced and unreduced."""
    compared = number = whole = reduced = 0
    while compared < CASES:
        number += 1
        found = on.compared(drawn(f"ci.{number}", SMALL), most=MOST)
        if found is None:
            continue
        assert (found.missing, found.more, found.decided) == ([], [], True), found.case.script()
        compared += 1
        whole += found.whole.schedules
        reduced += found.reduced.schedules
    assert reduced < whole


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_nor_does_it_at_other_levels(on: Comparer, level: str) -> None:
    """Fifteen of them in transactions that keep their snapshot, and in serializable ones, aborted ones included."""
    compared = number = 0
    while compared < 15:
        number += 1
        found = on.compared(drawn(f"levels.{number}", SMALL), most=MOST, level=level)
        if found is not None:
            assert (found.missing, found.more, found.decided) == ([], [], True), found.case.script()
            compared += 1


LEVELS = {
    "a read that keeps an old snapshot": (
        "repeatable read",
        [["BEGIN", "SELECT n FROM a", "SELECT n FROM c", "COMMIT"], ["UPDATE c SET n = 5"]],
    ),
    "two of which either fails, by who commits last": (
        "serializable",
        [
            ["BEGIN", "SELECT sum(n) FROM a", "UPDATE c SET n = 5", "COMMIT"],
            ["BEGIN", "SELECT sum(n) FROM c", "UPDATE a SET n = 5", "COMMIT"],
        ],
    ),
    "three that depend on each other in a row": (
        "serializable",
        [
            ["SELECT sum(n) FROM a"],
            ["BEGIN", "SELECT sum(n) FROM c", "UPDATE a SET n = 5", "COMMIT"],
            ["DELETE FROM c"],
        ],
    ),
}


@pytest.mark.parametrize(("level", "texts"), LEVELS.values(), ids=LEVELS)
def test_what_only_a_level_above_read_committed_shows_is_kept(
    on: Comparer, monkeypatch: pytest.MonkeyPatch, level: str, texts: list[list[str]]
) -> None:
    """Snapshots and serialization failures: all endings are found reduced, which the rules of read committed lose."""
    on.prepare(Case("", [TABLES.format(on_delete="CASCADE", deferred="", unique="")], ()))
    local = f"SET TRANSACTION ISOLATION LEVEL {level}"
    begin = f"BEGIN ISOLATION LEVEL {level}"
    sessions = [
        Session(str(number), tuple(map(Statement, each)), begin=begin, local=local, isolation=level)
        for number, each in enumerate(texts)
    ]
    whole, endings = on.explored(sessions, Plan(reduction=False))
    reduced, found = on.explored(sessions, Plan())
    assert whole.exhausted
    assert reduced.exhausted
    assert found == endings
    assert reduced.schedules < whole.schedules
    monkeypatch.setattr("harness.schedules.sessions.strongest", lambda said: "read committed")  # noqa: ARG005
    assert on.explored(sessions, Plan())[1] < endings


def test_either_call_may_be_the_victim_of_a_deadlock(on: Comparer) -> None:
    """Two waits that close a circle are tried in both orders, though the steps have no table in common."""
    on.prepare(Case("", [TABLES.format(on_delete="CASCADE", deferred="", unique="")], ()))
    lock = "SELECT pg_advisory_xact_lock(1)"
    sessions = [
        Session(str(number), tuple(map(Statement, ["BEGIN", *texts, "COMMIT"])))
        for number, texts in enumerate([[lock, "INSERT INTO c VALUES (7)"], ["INSERT INTO c VALUES (7)", lock]])
    ]
    victims = set()

    def judge(run: SessionsRun) -> tuple[str, ...]:
        codes = [[answer.code for answer in told] for told in run.answers]
        victims.update(number for number, each in enumerate(codes) if "40P01" in each)
        return ()

    explore_sessions(on.dsn, sessions, Plan(), restore=lambda: on.connection.execute(RESTORE) and None, judge=judge)
    assert victims == {0, 1}


@pytest.mark.parametrize("forgotten", ["ends", "writes"])
def test_a_reduction_that_forgets_a_conflict_is_caught(
    on: Comparer, monkeypatch: pytest.MonkeyPatch, forgotten: str
) -> None:
    """Where commits are taken to commute with reads, or writes with writes, an ending is missing soon."""

    def conflicts(one: Access, other: Access) -> bool:
        if forgotten == "ends":
            return not one.writes.isdisjoint(other.writes)
        return not (one.ends.isdisjoint(other.reads) and one.reads.isdisjoint(other.ends))

    monkeypatch.setattr(Access, "conflicts", conflicts)
    assert any(
        found.missing
        for number in range(60)
        if (found := on.compared(drawn(f"ci.{number}", SMALL), most=MOST)) is not None
    )
