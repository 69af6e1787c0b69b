"""HTML and SVG as values: what is not markup already is escaped, so that an answer can never become part of a page."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import TypeAlias


class Markup(str):
    """Text that is HTML or SVG already."""

    __slots__ = ()


Child: TypeAlias = "str | float | Iterable[Child] | None"
"""What stands in an element: markup as it is, other text escaped, nothing for None, each of an iterable."""

_VOID = frozenset({"meta", "br", "path", "rect", "line", "circle", "polyline", "use", "col"})
"""Elements without content. (SVG's may be written so in HTML, too.)"""


LONGEST = 4_000
"""Characters of one text: a page is for reading, and the record has all of it."""


def tag(name: str, /, *children: Child, **attributes: str | float | bool | None) -> Markup:
    """An element. `class_` is written for class, `_` in other names stands for `-`; None and False leave one out."""
    written = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{html.escape(_text(value))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in _VOID and not children:
        return Markup(f"<{name}{written}/>")
    return Markup(f"<{name}{written}>{join(children)}</{name}>")


def join(children: Child) -> Markup:
    """The children one after the other."""
    if children is None:
        return Markup()
    if isinstance(children, Markup):
        return children
    if isinstance(children, (str, int, float)):
        return Markup(html.escape(_text(children)))
    return Markup("".join(map(join, children)))


def _text(value: str | float) -> str:
    """Numbers without more digits than a picture can show; no control characters, which HTML forbids."""
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    if isinstance(value, str) and len(value) > LONGEST:
        value = f"{value[:LONGEST]} ... (cut after {LONGEST} of {len(value)} characters: the record has all)"
    return "".join(c if c in "\t\n" or c.isprintable() or c == "\u00a0" else "\ufffd" for c in str(value))
