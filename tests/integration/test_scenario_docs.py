"""docs/scenarios.md and the README's first screen: every scenario in them is run, and the reference is the reader's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.check import Checks
from harness.environment.database import Template
from harness.environment.embedded import EmbeddedServer
from harness.options import Options
from harness.scenarios import headings, reader
from harness.scenarios.scenario import ANOMALIES
from harness.verdict.findings import Truth
from tests.conftest import ROOT

DOCS = (ROOT / "docs" / "scenarios.md").read_text()
README = (ROOT / "README.md").read_text()


def _scenarios(text: str) -> list[str]:
    return [block for block in re.findall(r"^```sql\n(.*?)^```$", text, re.M | re.S) if "-- scenario:" in block]


EXPECTED = {
    "docs": list(zip(_scenarios(DOCS), [Truth.BROKEN, *[Truth.HELD] * 4], strict=True)),
    "README": list(zip(_scenarios(README), [Truth.BROKEN], strict=True)),
}


@pytest.mark.parametrize("place", EXPECTED)
def test_each_scenario_is_what_the_page_says(place: str, server: EmbeddedServer, tmp_path: Path) -> None:
    """The first is broken; the others hold."""
    with Template(server, [], []) as template:
        checks = Checks(Options(timeout=5.0), server, template)
        for text, truth in EXPECTED[place]:
            path = tmp_path / "example.race.sql"
            path.write_text(text)
            run = checks.check(reader.read(path))
            assert run.truth is truth, (text, run.findings)


def test_the_reference_is_the_readers_own() -> None:
    """Every heading is on the page as the table of headings has it, and every anomaly that can be allowed."""
    assert headings.reference() in DOCS, (
        "write it again: python -c 'from harness.scenarios.headings import reference; ...'"
    )
    page = " ".join(DOCS.split())
    assert all(f" {name}," in page or f" {name}." in page for name in ANOMALIES)
