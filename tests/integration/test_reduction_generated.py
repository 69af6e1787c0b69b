"""The judge of the reduction: functions that nobody wrote by hand, explored reduced and unreduced."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.environment.embedded import EmbeddedServer
from harness.sqltext.access import Access
from tests.generated import Comparer, comparer, drawn

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
