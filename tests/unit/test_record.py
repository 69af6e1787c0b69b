"""The record: one value, one JSON form, and what it adds up to."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest

from harness.contracts.scan_ticket import SCAN_TICKET
from harness.environment.servers import ServerDescription, address, command_line
from harness.errors import ExitStatus, HarnessError
from harness.records import SCHEMA_VERSION, AppliedFile, Record, RunRecord
from harness.verdict.findings import Finding, Truth
from harness.verdict.metrics import measure
from tests.histories import call, history

HELD = Finding("a", "A.", Truth.HELD, "yes")
BROKEN = Finding("b", "B.", Truth.BROKEN, "no", evidence=({"value": math.nan, "key": Path("x")},), replay="harness run")
UNDECIDED = Finding("c", "C.", Truth.UNDECIDED, "who knows")


def run(*findings: Finding, **more: object) -> RunRecord:
    metrics = measure(history(call("accepted", 0, 1)), SCAN_TICKET, frozenset({"accepted"}), 0.01)
    empty = measure(history(), SCAN_TICKET, frozenset(), 0.01) if more.pop("empty", False) else metrics
    return RunRecord("burst", "sql", {"clients": 10}, empty, None, findings, **more)  # type: ignore[arg-type]


def record(*runs: RunRecord, interrupted: bool = False) -> Record:
    environment = ServerDescription("embedded", "18.0", "asked for", "host=/tmp", {"fsync": "on"}, 2)
    return Record(
        "0.1.0", "2030-01-01T00:00:00+00:00", "harness run", "quick", "scan_ticket", environment,
        (AppliedFile("sql/a.sql", "ab" * 32),), (), runs, interrupted,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("made", "truth", "status"),
    [
        (record(run(HELD)), Truth.HELD, ExitStatus.HELD),
        (record(run(HELD), run(HELD, BROKEN)), Truth.BROKEN, ExitStatus.BROKEN),
        (record(run(UNDECIDED), run(BROKEN)), Truth.BROKEN, ExitStatus.BROKEN),
        (record(run(HELD), run(UNDECIDED)), Truth.UNDECIDED, ExitStatus.UNDECIDED),
        (record(run(HELD), run()), Truth.UNDECIDED, ExitStatus.UNDECIDED),
        (record(), Truth.UNDECIDED, ExitStatus.UNDECIDED),
        (record(run(HELD), interrupted=True), Truth.UNDECIDED, ExitStatus.UNDECIDED),
        (record(run(BROKEN), interrupted=True), Truth.BROKEN, ExitStatus.BROKEN),
        (record(run(HELD, server_lost=True)), Truth.HELD, ExitStatus.ENVIRONMENT),
    ],
)
def test_a_record_adds_up_to_one_truth_and_one_exit_status(made: Record, truth: Truth, status: ExitStatus) -> None:
    """Broken outweighs undecided outweighs held; nothing judged, or not to the end, is never held."""
    assert (made.truth, made.exit_status) == (truth, status)


def test_the_json_form_has_every_section() -> None:
    """Schema version, environment, migrations with their sha256, plan, metrics and findings with evidence."""
    value = json.loads(record(run(HELD, BROKEN)).to_json())
    assert value["schema_version"] == SCHEMA_VERSION == 1
    assert value["environment"]["settings"] == {"fsync": "on"}
    assert value["migrations"] == [{"path": "sql/a.sql", "sha256": "ab" * 32}]
    assert value["truth"] == "broken"
    (made,) = value["runs"]
    assert made["plan"] == {"clients": 10}
    assert set(made["metrics"]["trends"]["accepted"]) == {
        "count", "rate", "avg", "min", "med", "p90", "p95", "p99", "max",
    }  # fmt: skip
    assert [f["truth"] for f in made["findings"]] == ["held", "broken"]
    assert made["findings"][1]["replay"] == "harness run"


def test_what_could_not_be_measured_has_no_value_in_json() -> None:
    """NaN is no JSON: null stands for it."""
    text = record(run(BROKEN, empty=True)).to_json()
    assert "NaN" not in text
    assert "Infinity" not in text
    assert json.loads(text)["runs"][0]["metrics"]["trends"]["all"]["p95"] is None


def test_single_durations_are_not_in_the_json() -> None:
    """There may be a million of them, and the trends say what they come to."""
    assert "durations" not in json.loads(record(run(HELD)).to_json())["runs"][0]["metrics"]


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://me:s3cret@db.example:5433/app",
        "postgresql://me@db.example/app?password=s3cret&sslpassword=s3cret",
        "host=db.example user=me password=s3cret",
        "host=db.example password='s3cret' sslpassword=s3cret passfile=/s3cret",
    ],
)
def test_an_address_has_no_password(dsn: str) -> None:
    """What is shown and stored of a DSN is where it leads, and never a secret."""
    assert "s3cret" not in address(dsn)
    assert "db.example" in address(dsn)


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["harness", "run", "--clients", "3"], "harness run --clients 3"),
        (["harness", "--server", "postgresql://me:s3cret@h/d"], "harness --server 'user=me dbname=d host=h'"),
        (["harness", "--server=postgresql://me:s3cret@h/d"], "harness '--server=user=me dbname=d host=h'"),
        (["pytest", "--harness-server=host=h password=s3cret"], "pytest --harness-server=host=h"),
        (["harness", "--server", "postgresql+psycopg://me:s3cret@h/d"], "harness --server 'user=me dbname=d host=h'"),
        (["harness", "--server", "postgresql://me:s3cret@["], "harness --server 'an unreadable DSN'"),
    ],
)
def test_a_command_is_kept_without_passwords(words: list[str], shown: str) -> None:
    """The record says how it was made, and can be published."""
    assert command_line(words) == shown


def test_an_unreadable_dsn_is_not_shown_at_all() -> None:
    """It may hold a password anywhere."""
    assert address("postgresql://me:s3cret@[") == "an unreadable DSN"


def test_a_record_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """No half of it is ever seen under its name, and nothing else is left beside it."""
    made = record(run(HELD))
    made.write(tmp_path / "r.json")
    assert (tmp_path / "r.json").read_text() == made.to_json()
    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]


def test_a_record_that_cannot_be_written_says_where(tmp_path: Path) -> None:
    """The error names the path and the option."""
    with pytest.raises(HarnessError) as caught:
        record(run(HELD)).write(tmp_path / "missing" / "r.json")
    assert "missing" in caught.value.what
    assert "--record" in caught.value.next_step


def test_a_broken_finding_keeps_its_place_when_replaced() -> None:
    """Findings are frozen values: a report cannot change what was judged."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        HELD.truth = Truth.BROKEN  # type: ignore[misc]
