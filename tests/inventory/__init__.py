"""A second contract, for a function of another shape: an inventory counter that must not oversell.

It is written as a user would write one. That it works, in memory and on Postgres, shows that the core knows nothing
of tickets.
"""

from __future__ import annotations

import uuid
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any

from harness import Claim, Column, Contract, Effect, Function, KeyHistory, Operation, Parameter, Variant, Violation

FOLDER = Path(__file__).parent
STOCK = 5


def _classify(row: Mapping[str, Any]) -> str | None:
    if row["taken"]:
        return "accepted"
    return {"sold out": "sold_out", "no such item": "no_such_item"}.get(row["reason"])


class StockModel:
    """So many pieces are left; None: there is no such item."""

    def initial(self, exists: bool) -> Hashable:
        return STOCK if exists else None

    def step(self, state: Hashable, operation: Operation) -> tuple[Hashable, ...]:
        quantity = operation.arguments["p_quantity"]
        enough = isinstance(state, int) and state >= quantity
        left = state - quantity if isinstance(state, int) else None
        if operation.outcome.effect is Effect.IN_DOUBT:
            return (left,) if enough else ()
        match operation.outcome.label:
            case "accepted":
                return (left,) if enough and operation.answer["remaining"] == left else ()
            case "sold_out":
                return (state,) if state is not None and not enough else ()
            case _:
                return (state,) if state is None else ()


def _never_oversold(history: KeyHistory) -> Iterator[Violation]:
    accepted = tuple(o for o in history.operations if o.outcome.label == "accepted" and not o.rolled_back)
    sold = sum(o.arguments["p_quantity"] for o in accepted)
    if sold > STOCK:
        yield Violation(f"{sold} pieces of {STOCK} were sold", accepted)


def _variant(name: str, buyer: int | None) -> Variant:
    return Variant(name, lambda client: {"p_quantity": 1, "p_buyer": uuid.UUID(int=client if buyer is None else buyer)})


INVENTORY = Contract(
    name="inventory",
    function=Function(
        "take_stock",
        parameters=(Parameter("p_item", "uuid"), Parameter("p_quantity", "integer"), Parameter("p_buyer", "uuid")),
        columns=(Column("taken", "boolean"), Column("remaining", "integer", evidence=True), Column("reason", "text")),
        key="p_item",
    ),
    new_keys="harness.new_items",
    unknown_key=uuid.uuid4,
    variants=(_variant("own buyer", None), _variant("shared buyer", 99)),
    labels={"accepted": Effect.APPLIED, "sold_out": Effect.REFUSED, "no_such_item": Effect.REFUSED},
    classify=_classify,
    model=StockModel(),
    claims=(
        Claim(
            "never_oversold",
            "No more is sold of an item than there was.",
            "Guard the UPDATE with stock >= p_quantity.",
            _never_oversold,
        ),
    ),
    invariants=FOLDER / "invariants.sql",
    thresholds={"take_duration": ("p(95)<200",), "take_errors": ("rate<0.001",), "sales": ("count>0",)},
    metrics={"sales": frozenset({"accepted"}), "sold_out_answers": frozenset({"sold_out"})},
    duration_metric="take_duration",
    error_metric="take_errors",
    accepted="accepted",
    repeated="sold_out",
    missing="no_such_item",
    capacity=STOCK,
)
