"""SARIF 2.1.0: the findings as code scanning reads them, with a schedule as a code flow.

https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

from harness.records import Record
from harness.reports import places, rows
from harness.reports.rows import Told
from harness.verdict.findings import Finding, Truth, pluralize

MOST = 5_000
"""Results: GitHub shows no more of a run."""

MOST_RULES = 20_000
"""Those of the results come first; GitHub refuses a log with more than 25,000."""


def log(record: Record, root: Path) -> str:
    """The log file's text. A broken claim is an error, an undecided one is open; of what held the rules are listed."""
    told = rows.told(record.runs)
    every = [*(each.finding for each in told[:MOST]), *(f for run in record.runs for f in run.findings)]
    findings = dict(itertools.islice({f.id: f for f in every}.items(), MOST_RULES))
    rules = {name: index for index, name in enumerate(findings)}
    results = [_result(each, record, root, rules) for each in told[:MOST]]
    run: dict[str, Any] = {
        "tool": {
            "driver": {
                "name": "pg-concurrency-harness",
                "version": record.harness_version,
                "rules": [_rule(finding) for finding in findings.values()],
            }
        },
        "columnKind": "unicodeCodePoints",
        "originalUriBaseIds": {"SRCROOT": {"description": {"text": "The root of the repository."}}},
        "invocations": [_invocation(record, len(told))],
        "results": results,
    }
    value = {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [run],
    }
    return json.dumps(value, indent=2) + "\n"


def _invocation(record: Record, told: int) -> dict[str, Any]:
    made: dict[str, Any] = {
        "commandLine": record.command,
        "executionSuccessful": not record.unfinished,
        "endTimeUtc": record.created.replace("+00:00", "Z"),
    }
    if told > MOST:
        text = f"{pluralize(told - MOST, 'finding')} are left out here: the record has all of them."
        made["toolExecutionNotifications"] = [{"level": "note", "message": {"text": text}}]
    return made


def _rule(finding: Finding) -> dict[str, Any]:
    made: dict[str, Any] = {
        "id": finding.id,
        "shortDescription": {"text": finding.claim},
        "defaultConfiguration": {"level": "error"},
    }
    if finding.remedy:
        made["help"] = {"text": finding.remedy}
    return made


def _result(each: Told, record: Record, root: Path, rules: dict[str, int]) -> dict[str, Any]:
    finding = each.finding
    broken = finding.truth is Truth.BROKEN
    parts = [f"{finding.truth.value}: {finding.claim} {finding.observed}", *rows.proof(finding, each.run.unit, 12)]
    parts += [f"anomaly: {finding.anomaly}"] if finding.anomaly else []
    parts += [f"remedy: {finding.remedy}"] if finding.remedy else []
    parts += [f"repeat: {finding.replay}"] if finding.replay else []
    made: dict[str, Any] = {
        "ruleId": finding.id,
        "ruleIndex": rules[finding.id],
        "kind": "fail" if broken else "open",
        "level": "error" if broken else "none",
        "message": {"text": "\n".join(parts)},
        "partialFingerprints": {"claimAndFunction/v1": places.fingerprint(finding)},
    }
    location, found = finding.location, places.of_finding(each, record.sources)
    place: dict[str, Any] = {}
    if found is not None:
        place["physicalLocation"] = _physical(*found, root)
    if location is not None and location.function:
        place["logicalLocations"] = [{"name": location.function, "kind": "function"}]
    if place:
        made["locations"] = [place]
    if each.schedule is not None and (flow := _flow(each, record, root)):
        made["codeFlows"] = [flow]
    return made


def _physical(path: str, line: int, root: Path) -> dict[str, Any]:
    inside = places.relative(path, root)
    if Path(inside).is_absolute():
        artifact: dict[str, Any] = {"uri": Path(inside).as_uri()}
    else:
        artifact = {"uri": quote(inside), "uriBaseId": "SRCROOT"}
    return {"artifactLocation": artifact, "region": {"startLine": max(line, 1)}}


def _flow(each: Told, record: Record, root: Path) -> dict[str, Any] | None:
    """A thread for each call; a step's place in the whole schedule is its executionOrder."""
    schedule = each.schedule
    assert schedule is not None
    names = rows.lanes(each.run, schedule)
    threads: dict[int, list[dict[str, Any]]] = {}
    for move in schedule.moves:
        text = ", ".join([f"step {move.number}, {names[move.call]}: {' '.join(move.text.split())}", *move.results])
        location: dict[str, Any] = {"message": {"text": text}}
        place = places.of_a_step(move, record.sources, each.finding)
        if place is not None:
            location["physicalLocation"] = _physical(*place, root)
        threads.setdefault(move.call, []).append({"location": location, "executionOrder": move.number})
    if not threads:
        return None
    return {
        "message": {"text": f"schedule {schedule.replay}"},
        "threadFlows": [{"id": names[call], "locations": steps} for call, steps in sorted(threads.items())],
    }
