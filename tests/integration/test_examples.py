"""The shipped scenarios: each trade is broken as it is mostly written, and holds as it is mended; Hermitage's anomalies
show at the levels at which PostgreSQL is known to allow them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.check import Checks
from harness.environment.database import Template
from harness.environment.embedded import EmbeddedServer
from harness.options import Options
from harness.scenarios import examples, reader
from harness.verdict.findings import Truth

TRADES = {
    "booking": "overselling",
    "coupon": "overselling",
    "idempotency_key": "double use",
    "invoice_numbers": "",
    "job_queue": "double use",
    "last_admin": "write skew",
    "last_seat": "double use",
    "one_time_token": "double use",
    "rate_limit": "overselling",
    "stock": "lost update",
    "transfer": "",
    "two_accounts": "write skew",
}
"""Each trade, with the name that its fault must be given; nothing where it shows in several ways."""

LEVELS = ("read committed", "repeatable read", "serializable")
ALLOWED_AT = {
    "g0": (),
    "g1a": (),
    "g1b": (),
    "g1c": (),
    "otv": (),
    "pmp": LEVELS[:1],
    "p4": LEVELS[:1],
    "g_single": LEVELS[:1],
    "g2_item": LEVELS[:2],
    "g2": LEVELS[:2],
}
"""PostgreSQL's own row of Hermitage's table (https://github.com/ept/hermitage): where each anomaly may show."""


@pytest.fixture(scope="module")
def checks(server: EmbeddedServer) -> Iterator[Checks]:
    with Template(server, [], []) as template:
        yield Checks(Options(timeout=5.0), server, template)


def _path(name: str) -> Path:
    return examples.FOLDER / f"{name}.race.sql"


@pytest.mark.parametrize("trade", TRADES)
def test_a_trade_is_broken_and_mended(trade: str, checks: Checks) -> None:
    """What is mostly written is called broken, by its name; the mended one holds, with every order tried."""
    run = checks.check(reader.read(_path(f"{trade}_broken")))
    assert run.truth is Truth.BROKEN
    if TRADES[trade]:
        assert run.findings[0].anomaly == TRADES[trade], run.findings[0]
    run = checks.check(reader.read(_path(trade)))
    assert run.truth is Truth.HELD, run.findings
    assert run.details["check"]["exhausted"]


@pytest.mark.parametrize("anomaly", ALLOWED_AT)
def test_an_anomaly_shows_where_postgres_allows_it(anomaly: str, checks: Checks) -> None:
    """The table of Hermitage comes out, level by level."""
    scenario = reader.read(_path(f"hermitage_{anomaly}"))
    for level in LEVELS:
        # Three sessions have many orders where none may be spared: each is tried where statements have snapshots.
        way = "race" if anomaly == "otv" and level != LEVELS[0] else "explore"
        run = checks.check(scenario, by=(way,), isolation=level)
        wanted = Truth.BROKEN if level in ALLOWED_AT[anomaly] else Truth.HELD
        assert run.truth is wanted, (level, run.findings)


def test_every_shipped_scenario_is_in_a_test() -> None:
    """No example is shipped that nobody has tried."""
    tried = {*TRADES, *(f"{trade}_broken" for trade in TRADES), *(f"hermitage_{name}" for name in ALLOWED_AT)}
    assert set(examples.names()) == tried
