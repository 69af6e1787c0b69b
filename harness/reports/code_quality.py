"""GitLab's code quality report: a list of issues, each on a line of a file.

https://docs.gitlab.com/ci/testing/code_quality/#code-quality-report-format
"""

from __future__ import annotations

import json
from pathlib import Path

from harness.records import Record
from harness.reports import places, rows
from harness.verdict.findings import Truth

MOST = 5_000


def report(record: Record, root: Path) -> str:
    """The report's text. One that is in no file is shown on the first migration: GitLab takes none without a place."""
    first = next((file.path for file in (*record.migrations, *record.seeds)), "migrations")
    issues = []
    for each in rows.told(record.runs)[:MOST]:
        finding = each.finding
        path, line = places.of_finding(each, record.sources) or (first, 1)
        remedy = f" {finding.remedy}" if finding.remedy else ""
        issues.append(
            {
                "description": f"{finding.truth.value}: {finding.claim} {finding.observed}.{remedy}",
                "check_name": finding.id,
                "fingerprint": places.fingerprint(finding),
                "severity": "critical" if finding.truth is Truth.BROKEN else "minor",
                "location": {"path": places.relative(path, root), "lines": {"begin": line}},
            }
        )
    return json.dumps(issues, indent=2) + "\n"
