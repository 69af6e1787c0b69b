"""A second contract on Postgres: the core runs and judges a function it was not made for."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from harness.reports.figures import print_record
from harness.run import Harness
from harness.verdict.findings import Truth
from tests.conftest import MakeHarness
from tests.inventory import FOLDER, INVENTORY


@pytest.fixture
def shop(make_harness: MakeHarness) -> Harness:
    return make_harness(migrations=[FOLDER / "migrations"], seed=[FOLDER / "seed"], contract=INVENTORY)


@pytest.mark.parametrize("pattern", ["burst", "race", "rescan", "unknown", "arrivals"])
def test_a_right_counter_holds(pattern: str, shop: Harness) -> None:
    """Five pieces go to five buyers, in every pattern, and what was sold agrees with what is left."""
    result = {
        "burst": lambda: shop.burst(clients=4, calls=25),
        "race": lambda: shop.race(clients=8, rounds=96),
        "rescan": lambda: shop.rescan(clients=3, calls=4),
        "unknown": lambda: shop.unknown(clients=3, calls=4),
        "arrivals": lambda: shop.arrivals(clients=4, rate=200, duration=0.5, duplicates=0.3),
    }[pattern]()
    assert result.verdict.held, result.verdict


def test_the_report_expects_as_many_refusals_as_the_stock_leaves(shop: Harness) -> None:
    """Of eight buyers of five pieces three are refused, and the report says so of each plain round."""
    shop.race(clients=8, rounds=10, mixed=False)
    console = Console(record=True, width=160, file=StringIO())
    print_record(shop.record("test"), console)
    report = console.export_text()
    assert "3 of 8 refused in each of 10 plain rounds of all clients on one key" in report
    assert "3 of 8 in 10 rounds" in report


def test_overselling_is_found_out(make_harness: MakeHarness) -> None:
    """A function that works the new stock out from an old one sells more than there was."""
    shop = make_harness(
        FOLDER / "oversells.sql", migrations=[FOLDER / "migrations"], seed=[FOLDER / "seed"], contract=INVENTORY
    )
    verdict = shop.race(clients=8, rounds=36).verdict
    for name in ("never_oversold", "linearizable", "invariant.sales_agree_with_stock"):
        assert verdict[name].truth is Truth.BROKEN, verdict
    assert verdict["no_unhandled_error"].truth is Truth.HELD
    assert verdict["invariant.one_sale_per_accepted"].truth is Truth.HELD
