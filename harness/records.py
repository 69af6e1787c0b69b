"""The record: the one value a run leaves, and its JSON form. Every report is drawn from it and from nothing else."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from harness.environment.servers import ServerDescription
from harness.errors import ExitStatus, HarnessError, UsageError
from harness.verdict.findings import Finding, Truth, truth_of
from harness.verdict.metrics import Metrics
from harness.verdict.overlap import Overlap

SCHEMA_VERSION = 1
"""Raised when a field changes its meaning or goes away; new fields leave it as it is."""


def time_unit(pattern: str) -> str:
    """What the times of a run's operations count: an exploration has no clock, only steps."""
    return "step" if pattern == "explore" else "ms"


@dataclass(frozen=True, slots=True)
class AppliedFile:
    """A migration or seed file as it was applied."""

    path: str
    sha256: str


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One pattern on one database: what was planned, measured and found."""

    pattern: str
    target: str
    plan: Mapping[str, Any]
    metrics: Metrics | None
    overlap: Overlap | None
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()
    """What a reader must know: keys that ran out, calls that timed out, clients whose connection died."""
    server_lost: bool = False
    interrupted: bool = False
    test: str = ""
    """The pytest test that made it."""
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What only this kind of run has, as plain JSON values."""

    @property
    def truth(self) -> Truth:
        return truth_of(self.findings)


@dataclass(frozen=True, slots=True)
class Record:
    """All runs of one command on one server."""

    harness_version: str
    created: str
    """ISO 8601, UTC."""
    command: str
    profile: str
    contract: str
    environment: ServerDescription
    migrations: tuple[AppliedFile, ...]
    seeds: tuple[AppliedFile, ...]
    runs: tuple[RunRecord, ...]
    interrupted: bool = False
    schema_version: int = SCHEMA_VERSION

    @property
    def truth(self) -> Truth:
        """Broken if one run is broken, else undecided if one is, else held; an interrupted record never held."""
        truths = {run.truth for run in self.runs}
        if Truth.BROKEN in truths:
            return Truth.BROKEN
        if Truth.UNDECIDED in truths or self.interrupted or not self.runs:
            return Truth.UNDECIDED
        return Truth.HELD

    @property
    def exit_status(self) -> ExitStatus:
        if any(run.server_lost for run in self.runs):
            return ExitStatus.ENVIRONMENT
        return {
            Truth.HELD: ExitStatus.HELD,
            Truth.BROKEN: ExitStatus.BROKEN,
            Truth.UNDECIDED: ExitStatus.UNDECIDED,
        }[self.truth]

    def to_json(self) -> str:
        """The record as JSON; durations in milliseconds, and no value for what could not be measured."""
        value = _plain(self)
        value["truth"] = self.truth.value
        for run, plain in zip(self.runs, value["runs"], strict=True):
            plain["truth"] = run.truth.value
            if plain["metrics"] is not None:
                del plain["metrics"]["durations"]  # as many as there were calls; the trends say what they come to
        return json.dumps(value, indent=2, sort_keys=False, allow_nan=False) + "\n"

    def write(self, path: Path) -> None:
        """Write the JSON, whole or not at all. Raises HarnessError when the path cannot be written."""
        partial = path.with_name(path.name + ".partial")
        try:
            partial.write_text(self.to_json(), encoding="utf-8")
            partial.replace(path)
        except OSError as error:
            raise HarnessError(
                f"The record cannot be written to {path}.", tried=str(error), next_step="give another --record"
            ) from error


def check_path(path: Path | None) -> None:
    """Find out before the runs what would only be found out after them. Raises UsageError with the reason."""
    if path is None:
        return
    folder = path.parent
    try:
        if path.is_dir():
            why = "it is a folder"
        elif not folder.is_dir():
            why = f"there is no folder {folder}"
        elif not os.access(folder, os.W_OK | os.X_OK):
            why = f"the folder {folder} may not be written to"
        else:
            return
    except OSError as error:  # a name that is too long, a folder that may not be looked into
        why = str(error)
    raise UsageError(f"The record cannot be written to {path}.", tried=why, next_step="give another --record")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
