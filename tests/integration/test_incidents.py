"""Ten faults that real projects reported, each in at most 15 lines of SQL: broken as reported, held as mended."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.check import Checks
from harness.environment.database import Template
from harness.environment.embedded import EmbeddedServer
from harness.options import Options
from harness.scenarios import reader
from harness.verdict.findings import Truth

INCIDENTS = sorted((Path(__file__).parent / "incidents").glob("*.sql"))
"""Their first line says whose issue it is; the words and the SQL are ours."""


@pytest.fixture(scope="module")
def checks(server: EmbeddedServer) -> Iterator[Checks]:
    with Template(server, [], []) as template:
        yield Checks(Options(timeout=5.0), server, template)


@pytest.mark.parametrize("incident", INCIDENTS, ids=lambda path: path.stem)
def test_an_incident_is_broken_as_reported_and_held_as_mended(incident: Path, checks: Checks, tmp_path: Path) -> None:
    """Without a contract, and without a line of Python."""
    _, _, scenarios = incident.read_text().partition("\n")
    for text, truth in zip(scenarios.split("-- mended\n"), (Truth.BROKEN, Truth.HELD), strict=True):
        assert len(text.splitlines()) <= 15
        path = tmp_path / f"{incident.stem}.race.sql"
        path.write_text(text)
        run = checks.check(reader.read(path), by=("explore",))
        assert run.truth is truth, run.findings
