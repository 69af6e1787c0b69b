"""The shipped contract on somebody else's gate: other tables, other columns, other words for a used ticket."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.verdict.findings import Truth
from tests.conftest import MakeHarness

GATE = Path(__file__).parent / "other_names" / "gate.sql"
NAMES = (
    "tickets=entries",
    "ticket=no",
    "status=state",
    "used=went_in",
    "scanned_at=went_at",
    "scanned_by=guard",
    "logs=books.journal",
    "log_ticket=entry",
    "log_scanner=guard",
    "log_success=fine",
)


def test_the_contract_holds_under_other_names(make_harness: MakeHarness) -> None:
    """By load and in every order; no word of a status is the contract's, and a flag may be NULL."""
    harness = make_harness(migrations=[GATE], seed=[], contract_option=NAMES)
    for result in (harness.race(clients=4, rounds=12), harness.burst(clients=3, calls=5), harness.unknown(calls=2)):
        assert not result.verdict.broken, result.verdict
        assert result.verdict["invariant.ticket_agrees_with_winner"].truth is Truth.HELD
    assert not harness.explore(seconds=20, variants=["own scanner, qr"]).verdict.broken


def test_what_goes_wrong_is_seen_under_other_names(make_harness: MakeHarness, tmp_path: Path) -> None:
    """A journal that forgets, and a status that stays."""
    forgets = tmp_path / "forgets.sql"
    forgets.write_text(
        "CREATE RULE forget AS ON INSERT TO books.journal DO INSTEAD NOTHING;\n"
        "CREATE FUNCTION stays() RETURNS trigger LANGUAGE plpgsql AS\n"
        "$$ BEGIN NEW.state := OLD.state; RETURN NEW; END $$;\n"
        "CREATE TRIGGER stays BEFORE UPDATE ON entries FOR EACH ROW EXECUTE FUNCTION stays();\n"
    )
    verdict = make_harness(forgets, migrations=[GATE], seed=[], contract_option=NAMES).burst(clients=3, calls=5).verdict
    assert verdict["invariant.one_log_per_accepted"].truth is Truth.BROKEN
    assert verdict["invariant.status_agrees_with_use"].truth is Truth.BROKEN


def test_a_house_without_a_status_leaves_that_out(make_harness: MakeHarness) -> None:
    """An option that is empty: there is no such column, and what is said of it is not asked."""
    names = [each for each in NAMES if not each.startswith("status=")] + ["status="]
    result = make_harness(migrations=[GATE], seed=[], contract_option=tuple(names)).burst(clients=2, calls=2)
    assert result.verdict.held, result.verdict
    assert "invariant.status_agrees_with_use" not in {f.id for f in result.record.findings}


def test_a_name_that_is_not_there_is_said_with_what_to_do(make_harness: MakeHarness) -> None:
    """Which query, what the server says, and the option that mends it; no view has to be made."""
    harness = make_harness(migrations=[GATE], seed=[], contract_option=NAMES[:-1])
    with pytest.raises(HarnessError, match=r"scan_success(.|\n)*--contract-option NAME=VALUE"):
        harness.burst(clients=2, calls=2)
