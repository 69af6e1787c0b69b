# ruff: noqa: ARG005, E501 - tables of contracts, a line for each
"""A function of any shape is called and judged as it is: no wrapper in SQL, no types in the contract.

shapes/desks.sql has a function for each shape; all of them take one desk for one person.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from psycopg.types.multirange import Multirange
from psycopg.types.range import Range

from harness import (
    Column,
    Contract,
    Effect,
    ErrorAnswer,
    Function,
    Parameter,
    UpTo,
    Variant,
    at_least_one,
    at_most,
    others_refused,
)
from harness.environment.database import Template
from harness.environment.embedded import EmbeddedServer
from harness.errors import HarnessError, UsageError
from harness.load.patterns import Burst, Rescan
from harness.options import Options
from harness.run import Harness
from harness.verdict.findings import Truth

DESKS = Path(__file__).parent / "shapes" / "desks.sql"
KEY = "p_desk"
NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)


def desk(
    function: Function, yes: Callable[[Any], bool] | str = "ok", *, give: dict[str, Any] | None = None, **more: Any
) -> Contract:
    """A contract for taking a desk: `yes` is what says that an answer is a yes, or the column that does."""
    said = (lambda row: bool(row[yes])) if isinstance(yes, str) else yes
    return Contract(
        **{
            "name": function.name,
            "function": function,
            "new_keys": "harness.new_desks",
            "variants": (Variant("call", lambda client: give or {}),),
            "classify": lambda row: "accepted" if said(row) else "refused",
            "model": UpTo(1),
            "claims": (at_most(1), at_least_one(), others_refused()),
            **more,
        }
    )


def named(name: str, *columns: Column, key: str = KEY, parameters: tuple[Parameter, ...] = (), **more: Any) -> Function:
    return Function(name, parameters, columns, key, **more)


OK = Column("ok")


@dataclass(frozen=True)
class Shape:
    """A contract, and what an answer must hold, by column."""

    contract: Contract
    answers: dict[str, Any]
    holds: bool = True
    """Its transactions can be held open, and its calls seen to overlap."""


def seen(name: str) -> Column:
    return Column(name, evidence=True)


GONE = ErrorAnswer("P0404", "refused", "is gone$")
SHAPES = {
    "a bare value": Shape(desk(named("bare"), "bare"), {"bare": True}),
    "void, no by RAISE": Shape(desk(named("silent"), lambda row: True, errors=(GONE,)), {}),
    "a set, no by no row": Shape(desk(named("rows_of_table"), lambda row: not row["free"], no_row="refused"), {"free": False}),
    "a table": Shape(desk(named("one_table", OK, seen("at")), give={"p_at": NOW}), {"at": NOW}),
    "OUT parameters": Shape(desk(named("outs", OK, seen("note"))), {"note": "x"}),
    "an INOUT parameter": Shape(desk(named("in_and_out", OK)), {}),
    "a composite row": Shape(desk(named("whole_row"), lambda row: row["free"] is False), {"owner": None}),
    "JSON in and out, as the key": Shape(
        desk(named("as_json", key="p_wish"), lambda row: row["as_json"]["ok"], new_keys="harness.new_wishes"),
        {"as_json": {"ok": True, "tags": ["a"]}},
    ),
    "an enum": Shape(desk(named("by_enum"), lambda row: row["by_enum"] == "yours", give={"p_hope": "yours"}), {"by_enum": "yours"}),
    "arrays": Shape(
        desk(named("arrays", OK, seen("n"), seen("hopes")), give={"p_n": [1, None, 3], "p_hopes": ["gone", "yours"]}),
        {"n": [1, None, 3], "hopes": ["gone", "yours"]},
    ),
    "a domain": Shape(desk(named("domains", OK, seen("floor")), give={"p_floor": 4}), {"floor": 4}),
    "ranges": Shape(
        desk(
            named("ranges", OK, seen("span"), seen("days")),
            give={"p_when": Range(NOW, None), "p_days": Multirange([Range(date(2026, 1, 1), date(2026, 1, 3))])},
        ),
        {"span": Range(NOW, None), "days": Multirange([Range(date(2026, 1, 1), date(2026, 1, 3))])},
    ),
    "bytea, interval, citext, money": Shape(
        desk(
            named("odds", OK, seen("key"), seen("lasts"), seen("word"), seen("cash")),
            give={"p_key": b"\x00\xff", "p_for": timedelta(hours=1), "p_word": "Hi", "p_cash": Decimal("1.5")},
        ),
        {"key": b"\x00\xff", "lasts": timedelta(hours=1), "word": "Hi", "cash": "$1.50"},
    ),
    "composite values": Shape(
        desk(
            named("composites", OK, seen("wish"), seen("n")),
            give={"p_wish": {"floor": 3, "tags": ['a"b', "c,d"]}, "p_more": [(1, None), (2, ["x"])]},
        ),
        {"wish": '(3,"{""a\\\\""b"",""c,d""}")', "n": 2},
    ),
    "VARIADIC composite values, as the key": Shape(
        desk(named("hoped_for", key="p_hopes"), "hoped_for", new_keys="harness.new_hopes"), {"hoped_for": True}
    ),
    "no names": Shape(desk(named("unnamed", key="$1"), "unnamed", give={"$2": "me"}), {"unnamed": True}),
    "mixed case": Shape(desk(named("mixedCase", key="pDesk"), "isOk"), {"isOk": True}),
    "a default": Shape(desk(named("desk_taken"), "desk_taken"), {"desk_taken": True}),
    "VARIADIC": Shape(desk(named("tagged", OK, seen("n")), give={"p_tags": ["a", "b"]}), {"n": 2}),
    "an overload": Shape(
        desk(
            named("overloaded", parameters=(Parameter(KEY), Parameter("p_n", "text"))),
            lambda row: row["overloaded"] is not None,
            give={"p_n": "1"},
        ),
        {"overloaded": "a text"},
    ),
    "an overload beside a VARIADIC one": Shape(
        desk(named("labelled"), lambda row: row["labelled"] is not None, give={"p_tags": ["a"]}),
        {"labelled": "with a note"},
    ),
    "any type": Shape(desk(named("any_type", OK, seen("x")), give={"p_x": Decimal("1.50")}), {"x": Decimal("1.50")}),
    "a schema of its own": Shape(desk(named("office.elsewhere"), "elsewhere"), {"elsewhere": True}),
    "a record": Shape(desk(named("a_record", Column("ok", "boolean"), Column("n", "integer", True))), {"n": 7}),
    "a procedure": Shape(desk(named("procedure"), "p_ok"), {"p_ok": True}),
    "a procedure that commits": Shape(desk(named("commits"), "p_ok"), {"p_ok": True}, holds=False),
    "SQL that answers": Shape(
        desk(
            named(
                "a statement",
                statement="UPDATE desks SET free = false, owner = :owner::text || ':no' WHERE id = :p_desk AND free RETURNING owner;",
            ),
            "owner",
            give={"owner": "me"},
            no_row="refused",
        ),
        {"owner": "me:no"},
    ),
    "SQL that counts": Shape(
        desk(named("an update", statement="UPDATE desks SET free = false WHERE id = :p_desk AND free"), lambda row: row["rows"] == 1),
        {},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def desks(server: EmbeddedServer) -> Iterator[Callable[[Contract], Harness]]:
    """A harness for a contract, all on one template."""
    options = Options(migrations=(DESKS,), seed=())
    with Template(server, [DESKS], []) as template:
        yield lambda contract: Harness(options, contract, server, template)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_any_shape_is_called_as_it_is(shape: Shape, desks: Callable[[Contract], Harness]) -> None:
    """One of those who race for a desk gets it, the others are refused, calls overlap, and answers come as values."""
    result = desks(shape.contract).race(clients=4, rounds=12)
    assert not result.verdict.broken, result.verdict
    applied = [o for o in result.history.operations() if o.outcome.effect is Effect.APPLIED and not o.rolled_back]
    assert len(applied) == len({o.key for o in result.history.operations()})
    assert {o.outcome.effect for o in result.history.operations()} == {Effect.APPLIED, Effect.REFUSED}
    for name, value in shape.answers.items():
        assert {repr(o.answer[name]) for o in applied} == {repr(value)}
    overlap = result.record.overlap
    assert overlap is not None
    assert overlap.overlapped >= 1
    assert (overlap.held_rounds > 0) is shape.holds


@pytest.mark.parametrize(
    "name",
    ["a bare value", "void, no by RAISE", "a set, no by no row", "JSON in and out, as the key", "SQL that counts"],
)
def test_explore_goes_by_the_same_description(name: str, desks: Callable[[Contract], Harness]) -> None:
    """Every order of two calls holds, whatever their shape."""
    explored = desks(SHAPES[name].contract).explore(seconds=30)
    assert not explored.verdict.broken, explored.verdict
    assert explored.exploration.cases


def test_a_function_that_looks_first_is_still_found_out(desks: Callable[[Contract], Harness]) -> None:
    """Nothing of this makes a judge blind: check, then act is broken in every order that explore tries."""
    explored = desks(desk(named("checked_first"), "checked_first")).explore(seconds=30)
    assert explored.verdict["at_most_applied"].truth is Truth.BROKEN


def test_two_functions_meet_in_one_contract(desks: Callable[[Contract], Harness]) -> None:
    """Some take a desk by one function and some by another; a desk still goes to one of them."""
    one, other = named("bare", Column("bare")), named("one_table", OK)

    def yes(row: Any) -> bool:
        return bool(row.get("bare", row.get("ok")))

    contract = replace(
        desk(one, yes),
        variants=(
            Variant(
                "both", lambda client: {"p_at": NOW} if client % 2 else {}, lambda client: other if client % 2 else one
            ),
        ),
    )
    result = desks(contract).race(clients=4, rounds=12)
    assert not result.verdict.broken, result.verdict
    applied = {o.client % 2 for o in result.history.operations() if o.outcome.effect is Effect.APPLIED}
    assert applied == {0, 1}


def test_the_overload_that_was_chosen_is_said(desks: Callable[[Contract], Harness]) -> None:
    """Of two functions of one name the report says which."""
    result = desks(SHAPES["an overload"].contract).burst(clients=2, calls=2)
    assert (
        "overloaded(uuid,text) is called; there are other functions of the name: overloaded(uuid,integer)"
        in result.record.notes
    )


def test_a_key_that_nobody_can_make_up_is_not_called(desks: Callable[[Contract], Harness]) -> None:
    """Of a composite type no key is known that is not there: the profile goes without that pattern, and says so."""
    harness = desks(SHAPES["VARIADIC composite values, as the key"].contract)
    made = []
    for pattern in harness.profile():
        made.append(pattern.name)
        harness.run(Burst(2, calls=2) if pattern.name == "burst" else Rescan(2, calls=2))
    assert made == ["burst", "race", "rescan"]
    assert "the pattern unknown was left out" in harness.runs[-1].notes[-1]
    with pytest.raises(UsageError, match="no keys to call that are not there"):
        harness.unknown(clients=2, calls=2)


WRONG: dict[str, tuple[Callable[[], Contract], type[HarnessError], str]] = {
    "an ambiguous overload": (
        lambda: desk(named("overloaded"), give={"p_n": "1"}),
        HarnessError,
        r"overloaded is ambiguous: 2 functions(.|\n)*Parameter\('p_n', 'integer'\)",
    ),
    "a value that is none of the type": (
        lambda: desk(named("domains", OK), give={"p_floor": "ground"}), UsageError, "cannot read the arguments of the variant",
    ),
    "a list where there is no array": (lambda: desk(named("domains", OK), give={"p_floor": [1]}), UsageError, "p_floor cannot take"),
    "an attribute too many": (
        lambda: desk(named("composites", OK), give={"p_wish": {"door": 1}, "p_more": []}), UsageError, "office.wish has no door",
    ),
    "a type that is not there": (
        lambda: desk(named("bare", parameters=(Parameter(KEY, "office.chair"),))), HarnessError, "no type 'office.chair'",
    ),
    "a parameter that is not there": (lambda: desk(named("bare"), give={"p_chair": 1}), HarnessError, "not as the contract expects it"),
    "a column that is not there": (lambda: desk(named("bare", Column("sure"))), HarnessError, "not as the contract expects it"),
    "a record without columns": (lambda: desk(named("a_record")), HarnessError, "columns that only its caller knows"),
    "any type, and none given": (lambda: desk(named("any_type", OK), give={"p_x": None}), HarnessError, "takes any type"),
    "SQL that does not parse": (lambda: desk(named("s", statement="SELEC :p_desk")), HarnessError, "42601"),
    "SQL with a name nobody gives": (lambda: desk(named("s", statement="SELECT :p_desk, :x")), UsageError, ":x, which is given no value"),
    "SQL without its key": (lambda: desk(named("s", statement="SELECT 1")), UsageError, "does not name its parameter p_desk"),
    "a function without a key": (lambda: desk(Function("bare")), UsageError, "key of bare is ''"),
    "an error that was applied": (
        lambda: desk(named("bare"), errors=(ErrorAnswer("P0001", "accepted"),)), UsageError, "rolled everything back",
    ),
    "a label that is not there": (lambda: desk(named("bare"), no_row="nobody"), UsageError, "which it does not have"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "kind", "says"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_called_is_said_before_anything_is_called(
    make: Callable[[], Contract], kind: type[HarnessError], says: str, desks: Callable[[Contract], Harness]
) -> None:
    """One sentence names the cause, and the next step is there."""
    with pytest.raises(kind, match=says) as caught:
        desks(make()).burst(clients=2, calls=1)
    assert caught.value.next_step


def test_a_label_that_classify_makes_up_is_no_answer(desks: Callable[[Contract], Harness]) -> None:
    """The call has failed, and the evidence says which label it was."""
    result = desks(replace(desk(named("bare")), classify=lambda row: "perhaps")).burst(clients=2, calls=2)
    finding = result.verdict["no_unhandled_error"]
    assert finding.truth is Truth.BROKEN
    assert "classify gave 'perhaps'" in finding.evidence[0]["reason"]
