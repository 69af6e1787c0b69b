"""The SQL on the page, with the words that lock or guard and the steps marked in it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from harness.records import Record, Source
from harness.reports import places, rows
from harness.reports.markup import Child, Markup, join, tag
from harness.reports.page_parts import Limits, left_out, scroll_box
from harness.reports.rows import Told

_LOCKS = re.compile(
    r"\bFOR\s+(?:NO\s+KEY\s+)?(?:UPDATE|SHARE)\b|\bFOR\s+KEY\s+SHARE\b|\bNOWAIT\b|\bSKIP\s+LOCKED\b|\bLOCK\s+TABLE\b"
    r"|\bpg_(?:try_)?advisory\w*",
    re.IGNORECASE,
)
_GUARDS = re.compile(
    r"\bON\s+CONFLICT\b|\bEXCEPTION\s+WHEN\b|\bEXCEPTION\b|\bWHEN\s+\w*violation\b|\block_not_available\b|\bUNIQUE\b"
    r"|\bIF\s+(?:NOT\s+)?FOUND\b",
    re.IGNORECASE,
)


def sql_section(record: Record, told: Sequence[Told], limits: Limits) -> Markup:
    """The text of each function, and of each scenario."""
    if not record.sources:
        return Markup()
    first = next((each for each in told if each.schedule is not None), None)
    # A function that stands in a scenario is shown there.
    whole = {source.path for source in record.sources if not source.function}
    shown = [source for source in record.sources if not source.function or source.path not in whole]
    texts = [(source, _steps_on(source, record, first, limits)) for source in shown[:10]]
    of = (
        f" (a letter is a column of schedule {first.schedule.replay}, a number its step)"
        if first is not None and first.schedule is not None
        else ""
    )
    return tag(
        "section",
        tag("h2", "The SQL", id="sql"),
        tag(
            "p",
            "Marked: ",
            tag("mark", "words that lock", class_="lock"),
            ", ",
            tag("mark", "words that guard", class_="guard"),
            f", and in the margin the steps that can be interleaved{of}." if any(marks for _, marks in texts) else ".",
        ),
        [_source(source, marks, limits) for source, marks in texts],
        left_out(len(shown) - 10, "text"),
        aria_labelledby="sql",
    )


def _steps_on(source: Source, record: Record, told: Told | None, limits: Limits) -> dict[int, list[str]]:
    """By line of the text, from 0: that a step begins there, and which ones of the schedule do."""
    first = places.body_line(source.text[: limits.characters])  # lines of a body count from where it begins
    marks: dict[int, list[str]] = {}
    if first is not None and source.function:
        for run in record.runs:
            for step in (run.details.get("exploration") or {}).get("steps", ()):
                name, _, rest = str(step).partition(":")
                line = rest.partition(":")[0]
                if name.partition("(")[0] == source.function and line.isdigit():
                    marks.setdefault(first + int(line) - 1, [])
    if told is not None and told.schedule is not None:
        for move in told.schedule.moves:
            place = places.of_a_step(move, record.sources, told.finding) if move.line else None
            if place is not None and place[0] == source.path and place[1] >= source.line:
                marks.setdefault(place[1] - source.line, []).append(f"{rows.letter(move.call)}{move.number}")
    return marks


def _source(source: Source, marks: Mapping[int, Sequence[str]], limits: Limits) -> Markup:
    text = source.text[: limits.characters]
    lines = [
        tag(
            "tr",
            tag("td", str(source.line + n), class_="number"),
            tag("td", "step " + " ".join(marks[n]) if n in marks else "", class_="margin") if marks else None,
            tag("td", tag("code", _marked(line))),
            class_="at-step" if n in marks else None,
        )
        for n, line in enumerate(text.split("\n"))
    ]
    title = f"The definition of {source.function}" if source.function else f"The scenario {source.path}"
    head = tag("tr", [tag("th", name, scope="col") for name in (("line", "step", "SQL") if marks else ("line", "SQL"))])
    made = tag("table", tag("caption", title, class_="hidden"), tag("thead", head), tag("tbody", lines), class_="sql")
    return join(
        [
            tag("h3", f"{source.function}, {source.path}:{source.line}" if source.function else source.path),
            scroll_box(made, title),
            left_out(len(source.text) - limits.characters, "character"),
        ]
    )


def _marked(line: str) -> Iterator[Child]:
    """The line with its words that lock or guard marked."""
    found = sorted(
        [(m.start(), m.end(), "lock") for m in _LOCKS.finditer(line)]
        + [(m.start(), m.end(), "guard") for m in _GUARDS.finditer(line)]
    )
    at = 0
    for start, end, kind in found:
        if start >= at:
            yield line[at:start]
            yield tag("mark", line[start:end], class_=kind)
            at = end
    yield line[at:]
