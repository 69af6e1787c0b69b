"""The record: the one value a run leaves, and its JSON form. Every report is drawn from it and from nothing else.

One format holds every kind of run: what all kinds have are fields, and what only one has are plain values in `details`,
so a new kind of run is no new format. A field with a default may be added; one that changes its meaning or goes away
makes a new format.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.environment.description import ServerDescription, Touched
from harness.errors import ExitStatus, UsageError
from harness.files import write_whole
from harness.plain import from_plain, schema, to_plain
from harness.text import LONGEST, printable
from harness.verdict.charts import Charts
from harness.verdict.findings import Finding, Truth, truth_of
from harness.verdict.metrics import Metrics
from harness.verdict.overlap import Overlap

FORMAT = 2


@dataclass(frozen=True, slots=True)
class AppliedFile:
    """A migration or seed file as it was applied."""

    path: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Source:
    """The statement that defines a function, as it was applied, or a scenario's file."""

    function: str
    """Its name, without parameters; empty: it is a whole file."""
    path: str
    line: int
    """Line in the file of the statement's first word, from 1."""
    text: str


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run on one database: what was planned, measured and found."""

    kind: str
    """A pattern's name, or what else was run: `explore`, `overhead`, `overload`."""
    target: str
    """The door that the calls went through: `sql` or `http`."""
    plan: Mapping[str, Any]
    """What the run was made with, by name."""
    metrics: Metrics | None
    """None where no load was fired."""
    overlap: Overlap | None
    """None where no calls were timed on the server."""
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()
    """What a reader must know: keys that ran out, calls that timed out, clients whose connection died."""
    server_lost: bool = False
    interrupted: bool = False
    test: str = ""
    """The pytest test that made it."""
    repeat: str = ""
    """The command that makes this run again."""
    unit: str = "ms"
    """Of the times of its operations: `ms`, or `step` where there is no clock, only positions in a schedule."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """What only this kind of run has."""
    charts: Charts | None = None
    """What the pictures of its calls are drawn from; None where no load was fired."""
    touched: Touched | None = None
    """What it touched, as measured; None where that cannot be known."""

    def __post_init__(self) -> None:
        """Plain values at once: what a report draws from the value and from its file is the same."""
        for name in ("plan", "details"):
            object.__setattr__(self, name, _printable(to_plain(getattr(self, name))))
        plain = tuple(
            dataclasses.replace(
                f, observed=printable(f.observed, LONGEST), evidence=tuple(_printable(to_plain(e)) for e in f.evidence)
            )
            for f in self.findings
        )
        object.__setattr__(self, "findings", plain)
        object.__setattr__(self, "notes", tuple(_printable(list(self.notes))))

    @property
    def truth(self) -> Truth:
        """Broken if one finding is, else undecided if one is or there is none, else held.

        Undecided for a run that did not come to its end: what it would still have shown is not known.
        """
        return Truth.UNDECIDED if self.interrupted or self.server_lost else truth_of(self.findings)


@dataclass(frozen=True, slots=True)
class Record:
    """All runs of one command on one server."""

    harness_version: str
    created: str
    """ISO 8601, UTC."""
    command: str
    profile: str
    """Empty where the command takes none."""
    contract: str
    """Empty where nothing was called by contract."""
    environment: ServerDescription
    migrations: tuple[AppliedFile, ...]
    seeds: tuple[AppliedFile, ...]
    runs: tuple[RunRecord, ...]
    interrupted: bool = False
    format: int = FORMAT
    sources: tuple[Source, ...] = ()
    """The definitions of the functions that were put to the test, where a file defines them."""
    prelude: tuple[str, ...] = ()
    """What was there beside the files: the platform, as whom migrations ran, each stand-in, what was supplied."""
    cut_short: str = ""
    """The error that ended the command before its last run was made; empty where none did."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "prelude", tuple(_printable(list(self.prelude))))

    @property
    def unfinished(self) -> str:
        """Why it did not come to its end, and so is undecided whatever was found until then; empty where it did."""
        if self.interrupted:
            return "interrupted"
        if self.cut_short:
            return f"cut short: {self.cut_short.rstrip('.')}"
        return "what it needs was lost" if any(run.server_lost for run in self.runs) else ""

    @property
    def truth(self) -> Truth:
        """Broken if one run is broken, else undecided if one is, else held; always undecided where it did not end."""
        if self.unfinished:
            return Truth.UNDECIDED
        truths = {run.truth for run in self.runs}
        if Truth.BROKEN in truths:
            return Truth.BROKEN
        if Truth.UNDECIDED in truths or not self.runs:
            return Truth.UNDECIDED
        return Truth.HELD

    @property
    def exit_status(self) -> ExitStatus:
        """That of the command which made it."""
        if self.cut_short or any(run.server_lost for run in self.runs):
            return ExitStatus.ENVIRONMENT
        return {
            Truth.HELD: ExitStatus.HELD,
            Truth.BROKEN: ExitStatus.BROKEN,
            Truth.UNDECIDED: ExitStatus.UNDECIDED,
        }[self.truth]

    def write(self, path: Path) -> None:
        """Write the JSON, whole or not at all. Raises HarnessError when the path cannot be written."""
        write_whole(path, dumps(self), "record", "--record")


def _printable(value: Any) -> Any:
    """A plain value whose texts, of whatever server or function, no report need be afraid of."""
    if isinstance(value, str):
        return printable(value, LONGEST)
    if isinstance(value, list):
        return [_printable(each) for each in value]
    if isinstance(value, dict):
        return {name: _printable(each) for name, each in value.items()}
    return value


def dumps(record: Record) -> str:
    """The record as JSON; durations in milliseconds, null for what could not be measured.

    `truth` and `exit_status` stand in it for readers that do not add up the findings themselves.
    """
    value: dict[str, Any] = {
        "format": record.format,
        "truth": record.truth.value,
        "exit_status": int(record.exit_status),
    }
    value |= to_plain(record)
    for run, plain in zip(record.runs, value["runs"], strict=True):
        plain["truth"] = run.truth.value
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def loads(text: str, name: str = "The text") -> Record:
    """The record in a JSON text; `loads(dumps(record)) == record`.

    Raises UsageError, which speaks of it by `name`, for what is not a record of this format.
    """
    again = "make the record again with this version: the option --record PATH of check, run, explore and others"
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{name} is no JSON that can be read.", tried=str(error), next_step=again) from error
    found = value.get("format", value.get("schema_version")) if isinstance(value, dict) else None
    if type(found) is not int:
        raise UsageError(f"{name} is not a record of the harness.", tried='its member "format"', next_step=again)
    if found != FORMAT:
        older = found < FORMAT
        raise UsageError(
            f"{name} is a record of format {found}, and this version of the harness reads format {FORMAT}.",
            tried=f"it was written by version {value.get('harness_version', 'unknown')}",
            next_step=again if older else "read it with a newer version of the harness",
        )
    try:
        return from_plain(Record, value, "record")
    except ValueError as error:
        raise UsageError(
            f"{name} is not a whole record of format {FORMAT}.", tried=str(error), next_step=again
        ) from error


def read(path: Path) -> Record:
    """The record in a file. Raises UsageError when it cannot be read or holds none."""
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_LONGEST_TEXT + 1)  # a device may have no end
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The record {path} cannot be read.", tried=str(error), next_step="name a record") from error
    if len(text) > _LONGEST_TEXT:
        raise UsageError(f"{path} is too long for a record.", tried=f"{_LONGEST_TEXT} signs", next_step="name a record")
    return loads(text, str(path))


_LONGEST_TEXT = 200_000_000
"""Signs of a record that is read: none that was ever written came near it."""


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the format, as it is published in `harness/record.schema.json`."""
    made = schema(Record)
    truths = {"enum": [each.value for each in Truth]}
    definitions = made["$defs"]
    definitions["Record"]["properties"] |= {
        "format": {"const": FORMAT},
        "truth": truths,
        "exit_status": {"enum": sorted({int(each) for each in ExitStatus})},
    }
    definitions["Record"]["required"] += ["format", "truth", "exit_status"]
    definitions["RunRecord"]["properties"]["truth"] = truths
    definitions["RunRecord"]["required"].append("truth")
    title = f"A record of pg-concurrency-harness, format {FORMAT}"
    return {"$schema": made.pop("$schema"), "title": title, **made}
