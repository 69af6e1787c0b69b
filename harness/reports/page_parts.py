"""Parts of the page that several of its sections use: tables, commands, and how much of a record is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.reports.markup import Child, Markup, tag
from harness.verdict.findings import pluralize


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of a record a page shows; the next smaller ones are taken where it would be too large."""

    findings: int
    runs: int
    calls: int
    characters: int
    clients: bool


def left_out(number: int, thing: str) -> Markup:
    """A page that leaves something out says so."""
    if number <= 0:
        return Markup()
    return tag("p", f"This page leaves out {pluralize(number, thing)} that the record has.", class_="left-out")


def command_text(text: str) -> Markup:
    """A command, which a button copies."""
    return tag("span", tag("code", text), class_="command")


def page_table(
    title: str, head: Sequence[str], body: Sequence[Sequence[str]], *, truths: Sequence[str] = (), data: bool = False
) -> Markup:
    """A table in a box that can be scrolled; `truths` colours its rows, `data` says that its cells are answers."""
    lines = [
        tag("tr", [tag("td", cell) for cell in row], class_=truths[n] if n < len(truths) else None)
        for n, row in enumerate(body)
    ]
    made = tag(
        "table",
        tag("caption", title, class_="hidden"),
        tag("thead", tag("tr", [tag("th", name, scope="col") for name in head])),
        tag("tbody", lines),
        class_="data" if data else None,
    )
    return scroll_box(made, title)


def scroll_box(child: Child, label: str) -> Markup:
    """What may be wider than the screen is moved in a box of its own, also by keyboard."""
    return tag("div", child, class_="scroll", tabindex="0", role="group", aria_label=label)
