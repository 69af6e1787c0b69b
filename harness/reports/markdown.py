"""A comment for a pull request, and GitHub's job summary: Markdown of at most so many characters."""

from __future__ import annotations

import re

from harness.records import Record
from harness.reports import rows, terminal
from harness.reports.layout import Line, paragraph
from harness.reports.rows import SIGNS, Told
from harness.verdict.findings import pluralize

LARGEST = 65_536
"""Characters of a comment on GitHub."""

MARKER = "<!-- pg-concurrency-harness -->"
"""First line: whoever posts the comment finds the one before by it, and replaces it."""

_WIDTH = 96
"""Columns of a block of code on a forge's page."""


def comment(record: Record) -> str:
    """The comment; what does not fit is left out from the end, and counted."""
    told = rows.told(record.runs)
    for findings in (20, 5, 1):
        made = _comment(record, told, findings)
        if len(made) <= LARGEST:
            return made
    note = "\n```\n\nThis comment was cut: the record has all of it.\n"
    return made[: LARGEST - len(note)] + note


def _comment(record: Record, told: list[Told], findings: int) -> str:
    lines = [MARKER, f"### {SIGNS[record.truth]} {record.truth.value}: {_headline(record, told)}", ""]
    for said in rows.disagreements(record.runs):
        lines += [escape(f"Two ways disagree: {said}"), ""]
    for number, each in enumerate(told[:findings]):
        lines += _finding(each, record, whole=number == 0)
    if len(told) > findings:
        lines += [f"and {pluralize(len(told) - findings, 'more finding')}.", ""]
    head, *body = rows.columns([rows.row(run) for run in record.runs[:50]])
    lines += [f"| {' | '.join(('', *head[1:]))} |", "|---" * len(head) + "|"]
    lines += [f"| {' | '.join(map(escape, cells))} |" for cells in body]
    if len(record.runs) > 50:
        lines += ["", f"and {pluralize(len(record.runs) - 50, 'more run')}."]
    for run in record.runs[:50]:
        if (matrix := rows.matrix(run)) is not None:
            lines += ["", escape(matrix.title), ""]
            lines += ["| " + " | ".join(map(escape, matrix.head)) + " |", "|---" * len(matrix.head) + "|"]
            lines += ["| " + " | ".join(map(escape, cells)) + " |" for cells in matrix.body]
            lines += ["", escape(matrix.sentence)]
    left = rows.not_tried(record)
    if left:
        lines += ["", "<details><summary>What was not tried</summary>", ""]
        lines += [f"- {escape(sentence)}" for sentence in left[:20]]
        lines += ["", "</details>"]
    lines += ["", escape(f"{rows.server(record)}; {rows.applied(record)}"), ""]
    return "\n".join(lines)


def _headline(record: Record, told: list[Told]) -> str:
    if record.unfinished:
        return escape(record.unfinished)
    if told:
        return escape(rows.title(told[0]))
    return f"every claim held in {pluralize(len(record.runs), 'run')}" if record.runs else "nothing was judged"


def _finding(each: Told, record: Record, *, whole: bool) -> list[str]:
    """The text of the terminal in a block of code: it is what a person sees in a console as well."""
    claim = each.finding.claim
    said = [] if rows.title(each) == claim else paragraph("  ", claim, _WIDTH)
    body = _block([*said, *terminal.finding_body(each, _WIDTH, record.sources)])
    if whole:
        return [*body, ""]
    found = each.finding
    head = _html(f"{SIGNS[found.truth]} {found.truth.value}: {rows.title(each)}")
    return [f"<details><summary>{head}</summary>", "", *body, "", "</details>", ""]


def _block(lines: list[Line]) -> list[str]:
    texts = [line.text for line in lines]
    longest = max((len(run) for text in texts for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}text", *texts, fence]


def escape(text: str) -> str:
    """Text that is text in Markdown: no link, no heading, no HTML, nobody mentioned."""
    # A word joiner after @ and #: no person and no issue is called by an answer.
    flat = _html(" ".join(text.split())).replace("@", "@\u2060").replace("#", "#\u2060")
    return re.sub(r"([\\`*_{}\[\]()!|~])", r"\\\1", flat)


def _html(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
