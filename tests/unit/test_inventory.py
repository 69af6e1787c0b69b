"""A second contract in memory: the core judges a function it was not made for."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import pytest

from harness import contracts
from harness.load.pattern import Pattern
from harness.load.patterns import Burst, Race, Rescan, Unknown
from harness.verdict.findings import Truth, truth_of
from tests.histories import findings, play
from tests.inventory import INVENTORY, STOCK


class Shop:
    """Takes stock under one lock."""

    def __init__(self, *, empty: bool = False) -> None:
        self.empty = empty
        self.lock = threading.Lock()
        self.stock: dict[Any, int] = {}

    def __call__(self, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        if self.empty:
            return {"taken": False, "remaining": None, "reason": "no such item"}
        with self.lock:
            left = self.stock.get(asked["p_item"], STOCK) - asked["p_quantity"]
            if left < 0:
                return {"taken": False, "remaining": None, "reason": "sold out"}
            self.stock[asked["p_item"]] = left
            return {"taken": True, "remaining": left, "reason": None}


@pytest.mark.parametrize("pattern", [Burst(4, calls=5), Race(8, 24), Rescan(4, 3)], ids=lambda p: p.name)
def test_a_right_counter_is_held(pattern: Pattern) -> None:
    """Five pieces go to five buyers, in every pattern, and everybody else is refused."""
    found = findings(play(pattern, Shop(), INVENTORY), pattern, INVENTORY)
    assert truth_of(found.values()) is Truth.HELD, [f for f in found.values() if f.truth is not Truth.HELD]


def test_an_unknown_item_is_refused() -> None:
    """Items that were never created are refused as such."""
    pattern = Unknown(3, 3)
    found = findings(play(pattern, Shop(empty=True), INVENTORY), pattern, INVENTORY)
    assert truth_of(found.values()) is Truth.HELD


def test_a_rescan_uses_an_item_up_and_then_asks_again() -> None:
    """With a capacity of five, a rescan makes five passes that are accepted and one that is not."""
    made = play(Rescan(4, 3), Shop(), INVENTORY)
    labels = {phase: {o.outcome.label for o in made.operations() if o.phase == phase} for phase in range(STOCK + 1)}
    assert labels == {phase: {"accepted"} for phase in range(STOCK)} | {STOCK: {"sold_out"}}


def test_overselling_is_found_out() -> None:
    """Eight buyers who all read the stock before one of them writes it get more than there was."""
    read, shop = threading.Barrier(8), dict[Any, int]()

    def oversell(asked: Mapping[str, Any]) -> Mapping[str, Any]:
        left = shop.get(asked["p_item"], STOCK) - asked["p_quantity"]
        read.wait(10)
        shop[asked["p_item"]] = left
        return {"taken": True, "remaining": left, "reason": None}

    pattern = Race(8, 3, mixed=False)
    found = findings(play(pattern, oversell, INVENTORY), pattern, INVENTORY)
    assert found["never_oversold"].truth is Truth.BROKEN
    assert found["linearizable"].truth is Truth.BROKEN
    assert found["no_unhandled_error"].truth is Truth.HELD


def test_a_contract_is_found_by_module_and_attribute() -> None:
    """A contract of one's own needs no registration."""
    assert contracts.load("tests.inventory:INVENTORY") is INVENTORY


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nonsense", "no contract named"),
        ("tests.nowhere:X", "could not be loaded"),
        ("tests.inventory:NOTHING", "could not be loaded"),
        ("tests.inventory:STOCK", "is a int, not a Contract"),
    ],
)
def test_a_contract_that_is_not_there_is_wrong_usage(name: str, says: str) -> None:
    """Each way to misname a contract is told with the way to name one."""
    from harness.errors import ExitStatus, UsageError

    with pytest.raises(UsageError, match=says) as caught:
        contracts.load(name)
    assert caught.value.exit_status is ExitStatus.USAGE
    assert "module:attribute" in caught.value.next_step
