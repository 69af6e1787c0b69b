"""Where a finding is, as a forge shows it: a path inside the repository, and a line of it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from harness.records import Source
from harness.reports import rows
from harness.reports.rows import Told
from harness.schedules.result import Move
from harness.verdict.findings import Finding


def relative(path: str, root: Path) -> str:
    """The path from the repository's root, with slashes; as it is where it lies outside."""
    found = Path(path)
    if found.is_absolute() and found.is_relative_to(root):
        found = found.relative_to(root)
    return found.as_posix()


def fingerprint(finding: Finding) -> str:
    """The same for the same claim on the same function, whatever line it has moved to."""
    location = finding.location
    parts = (finding.id, (location and location.function) or "", (location and location.file) or "")
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def body_line(text: str) -> int | None:
    """How many lines a function's definition has before the one on which its body begins; None where none is seen."""
    found = re.search(r"\bAS\s+(\$\w*\$|')", text, re.IGNORECASE)
    return text.count("\n", 0, found.end()) if found else None


def of_a_step(move: Move, sources: Sequence[Source], finding: Finding) -> tuple[str, int] | None:
    """File and line of a schedule's step; those of the finding where the step's function is in no file."""
    name, location = move.function.partition("(")[0], finding.location
    own = location.file if location is not None else None
    # Each scenario's setup may define a function of that name: what another's defines is not what ran here.
    scenarios = {source.path for source in sources if not source.function}
    named = [each for each in sources if name and each.function == name and each.path not in scenarios - {own}]
    for source in sorted(named, key=lambda each: each.path != own):
        begins = body_line(source.text)
        if move.line and begins is not None:
            return source.path, source.line + begins + move.line - 1
    if location is None or location.file is None:
        return None
    # A scenario's statement has its line in the file that the finding is in.
    return location.file, move.line if move.line and not move.function else location.line or 1


def of_finding(each: Told, sources: Sequence[Source]) -> tuple[str, int] | None:
    """File and line that a finding is shown on: of the step at which its schedule goes wrong, else its own."""
    if each.schedule is not None:
        turn = rows.turn_of(each.finding, each.schedule, rows.lanes(each.run, each.schedule))
        # Who goes wrong when another's step lets him go on has the statement before it, at which he waited.
        at = [m for m in each.schedule.moves if turn is not None and m.call == turn.call and m.number <= turn.step]
        place = of_a_step(at[-1], sources, each.finding) if at and at[-1].line else None
        if place is not None:
            return place
    location = each.finding.location
    return None if location is None or location.file is None else (location.file, location.line or 1)


def told(each: Told, sources: Sequence[Source]) -> str:
    """Where a finding is, in words: the step at which its schedule goes wrong, and what it is of."""
    location, found = each.finding.location, of_finding(each, sources)
    place = "" if found is None else f"{found[0]}:{found[1]}"
    rest = () if location is None else (location.function, location.step)
    return ", ".join(part for part in (place, *rest) if part)
