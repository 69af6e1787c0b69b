"""docs/contracts.md: its example is run as it stands, and no field of what a user writes is missing from it."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

import harness
from harness import ExitStatus
from harness.environment.embedded import EmbeddedServer
from tests.conftest import ROOT, Sandbox

PAGE = (ROOT / "docs" / "contracts.md").read_text()
ROWS = dict(re.findall(r"^\| `([\w.]+)` \| .* \| ([^|]*?) \|$", PAGE, re.MULTILINE))


@pytest.fixture
def project(sandbox: Sandbox) -> Path:
    """The page's files, each under the name in its first line."""
    for name, text in re.findall(r"^```\w+\n(?:--|#) ([\w/]+\.\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        path = sandbox.tmp / "project" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return sandbox.tmp / "project"


def test_the_example_runs(project: Path, sandbox: Sandbox, server: EmbeddedServer) -> None:
    """With the page's own command: every claim holds, the page's own among them."""
    [command] = re.findall(r"^harness run .*$", PAGE, re.MULTILINE)
    record = sandbox.tmp / "record.json"
    done = sandbox.run(
        *command.split(), "--record", record, cwd=project,
        HARNESS_SERVER=server.dsn, HARNESS_DURATION="0.3", HARNESS_ROUNDS="24",
    )  # fmt: skip
    # A race this short may be undecided.
    assert done.returncode in (ExitStatus.HELD, ExitStatus.UNDECIDED), done.stdout + done.stderr
    findings = {f["id"]: f["truth"] for run in json.loads(record.read_text())["runs"] for f in run["findings"]}
    assert findings["only_one"] == findings["invariant.the_winner_is_in_the_table"] == "held"


def test_the_example_finds_the_bug_that_it_is_about(project: Path, sandbox: Sandbox, server: EmbeddedServer) -> None:
    """Without the guard two customers redeem one coupon, and the page's claim says so."""
    migration = project / "migrations" / "0001_coupons.sql"
    migration.write_text(migration.read_text().replace(" AND c.used_by IS NULL", ""))
    words = ("--migrations", "migrations", "--seed", "seed", "--contract", "coupons:COUPONS", "--pattern", "race")
    done = sandbox.run("harness", "run", *words, "--rounds", "24", cwd=project, HARNESS_SERVER=server.dsn)
    assert done.returncode == ExitStatus.BROKEN, done.stdout + done.stderr
    assert "customers redeemed one coupon" in done.stdout


def test_the_test_that_is_shown_passes(project: Path, sandbox: Sandbox, server: EmbeddedServer) -> None:
    """With the options that the page names."""
    words = ("--harness-migrations", "migrations", "--harness-seed", "seed", "--harness-contract", "coupons:COUPONS")
    python = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error")
    done = sandbox.run("python", *python, *words, cwd=project, HARNESS_SERVER=server.dsn)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "kind", [harness.Contract, harness.Function, harness.Parameter, harness.Column, harness.Variant,
             harness.ErrorAnswer, harness.Retry, harness.Claim],
)  # fmt: skip
def test_every_field_is_explained_with_its_default(kind: Any) -> None:
    """No field of what a user fills in is missing, and what must be given is called required."""
    prefix = "" if kind is harness.Contract else f"{kind.__name__}."
    for field in dataclasses.fields(kind):
        shown = ROWS[f"{prefix}{field.name}"]
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        assert (shown == "required") is required, field.name
        if field.default is None or isinstance(field.default, (bool, int, float)):
            assert shown == str(field.default), field.name
