"""A scenario at each isolation level, without and with retry: what a level would mend, and what it would cost.

On a small table the planner reads everything, and at serializable such a reading conflicts with any write of the table,
whichever row it is of: sessions on different rows are retried, and would not be on a large one. So statistics are made
once and pinned, and the column with retry is made a second time with enable_seqscan = off; retries that are gone then
say nothing but that the table is too small. For the same reason retries are counted, and no rate is made of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.check import NOTHING_RACED, WAYS, Checks
from harness.checking import exploring
from harness.checking.exploring import MOST_SESSIONS
from harness.checking.orders import FAILS_ALONE
from harness.errors import UsageError
from harness.options import ISOLATION_LEVELS
from harness.records import RunRecord
from harness.scenarios.acting import OWN_LEVEL
from harness.scenarios.scenario import Retry, Scenario
from harness.signals import heed
from harness.verdict.findings import Truth

RETRY = Retry(frozenset({"40001", "40P01"}), 10)
"""What is retried where the file says nothing."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A scenario at one isolation level, without or with retry."""

    truth: str
    """held, broken or undecided."""
    anomaly: str
    """What it is called where it is not held."""
    tries: int
    """Schedules and rounds."""
    retried: int
    """Those in which a session had to run something again."""
    repeated: int
    """How often, in all of them."""


@dataclass(frozen=True, slots=True)
class Level:
    """One row of the matrix."""

    level: str
    without: Cell
    with_retry: Cell
    by_index: Cell
    """With retry and enable_seqscan = off: as on tables that are too large to be read whole."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """What each isolation level makes of a scenario."""

    retry: str
    """What is retried, and how often at most, in the columns with retry."""
    by: tuple[str, ...]
    levels: tuple[Level, ...]


def check_at_each_level(
    checks: Checks, scenario: Scenario, *, by: Sequence[str] = (), seconds: float = exploring.SECONDS
) -> RunRecord:
    """Check a scenario as it is, and beside it at each level, which is put into the record's `details`.

    The verdict is that of the file as it stands. Exploring ends after `seconds`, at each level after half of them.
    Raises UsageError where a session chooses its level itself.
    """
    refuse_own_level(scenario)
    run = checks.check(scenario, by=by or WAYS, seconds=seconds)
    ways = tuple(by) or (("explore",) if len(scenario.sessions) <= MOST_SESSIONS else ("race",))
    retry = next((s.retry for s in scenario.sessions if s.retry is not None), RETRY)

    def cell(level: str, *, again: bool = False, settings: str = "") -> Cell:
        heed()
        sessions = tuple(
            replace(s, isolation=level, retry=(s.retry or retry) if again else None) for s in scenario.sessions
        )
        tried = replace(scenario, sessions=sessions)
        made, retried = checks.aside(tried, by=ways, seconds=seconds / 2, settings=settings)
        open_ = [each for each in made.findings if each.truth is made.truth is not Truth.HELD]
        truth, anomaly = made.truth, next((each.anomaly for each in open_ if each.anomaly), "")
        if truth is Truth.HELD and (nothing := _nothing_tried(made, run)):
            truth, anomaly = Truth.UNDECIDED, nothing
        times = sum(n > 0 for n in retried.values())
        return Cell(truth.value, anomaly, len(retried), times, sum(retried.values()))

    levels = tuple(
        Level(level, cell(level), cell(level, again=True), cell(level, again=True, settings="-c enable_seqscan=off"))
        for level in ISOLATION_LEVELS
    )
    matrix = Matrix(f"{' '.join(sorted(retry.codes))} up to {retry.times}", ways, levels)
    checks.runs[-1] = replace(run, test=checks.test, details={**run.details, "matrix": matrix})
    return checks.runs[-1]


def _nothing_tried(made: RunRecord, as_it_is: RunRecord) -> str:
    """Why what holds at a level says nothing of it: there a session does not work, or nothing happens."""
    if any(FAILS_ALONE in note and note not in as_it_is.notes for note in made.notes):
        return "a session fails there already when it is alone"
    return "nothing raced" if any(note.startswith(NOTHING_RACED) for note in made.notes) else ""


def refuse_own_level(scenario: Scenario) -> None:
    """Raises UsageError where a session chooses its level itself."""
    for session in scenario.sessions:
        for statement in session.statements:
            if OWN_LEVEL.search(statement.text):
                raise UsageError(
                    f"{statement.path}:{statement.line}: the session {session.name} chooses its isolation level "
                    "itself, so that no other can be tried.",
                    tried=" ".join(statement.text.split())[:100],
                    next_step="leave the level out of the statement: `isolation:` says it for a file or for a session",
                )
