"""Annotations: workflow commands that put a finding on its line of a pull request."""

from __future__ import annotations

from pathlib import Path

from harness.records import Record
from harness.reports import places, rows
from harness.reports.rows import Told
from harness.verdict.findings import Truth

MOST = 10
"""Annotations of one kind that GitHub shows of a step."""


def workflow_commands(record: Record, root: Path) -> list[str]:
    """A line for each finding that is not held, broken ones first; no more than GitHub shows."""
    told = rows.told(record.runs)
    broken = [each for each in told if each.finding.truth is Truth.BROKEN]
    undecided = [each for each in told if each.finding.truth is not Truth.BROKEN]
    return [_annotation(each, record, root) for each in (*broken[:MOST], *undecided[:MOST])]


def _annotation(each: Told, record: Record, root: Path) -> str:
    finding, found = each.finding, places.of_finding(each, record.sources)
    place = "" if found is None else f"file={_property(places.relative(found[0], root))},line={found[1]},"
    parts = [
        *([finding.claim] if rows.title(each) != finding.claim else []),
        f"{finding.observed} ({each.run.kind})",
        *rows.proof(finding, each.run.unit, 3),
        *([f"schedule {each.schedule.replay}"] if each.schedule is not None else []),
        *([f"anomaly: {finding.anomaly}"] if finding.anomaly else []),
        *([f"remedy: {finding.remedy}"] if finding.remedy else []),
        *([f"repeat: {finding.replay}"] if finding.replay else []),
    ]
    command = "error" if finding.truth is Truth.BROKEN else "warning"
    title = _property(f"{finding.truth.value}: {rows.title(each)}")
    return f"::{command} {place}title={title}::{_data(chr(10).join(parts))}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
