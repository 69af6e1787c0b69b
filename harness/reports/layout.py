"""Lines of text for a terminal or a pipe: paragraphs with a label, tables, lanes. Values in, lines out."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import NamedTuple

GAP = 2
"""Blanks between two columns."""


class Line(NamedTuple):
    """One line as it is printed, and how: `held`, `broken`, `undecided`, `bold`, `dim`, or nothing."""

    text: str
    style: str = ""


def wrap(text: str, width: int | None) -> list[str]:
    """The text in lines of that width; None: in one. A word, such as a UUID or a path, is never cut."""
    if width is None:
        return [" ".join(text.splitlines())]
    return textwrap.wrap(text, max(width, 1), break_long_words=False, break_on_hyphens=False) or [""]


def paragraph(first: str, text: str, width: int | None, style: str = "", *, rest: str | None = None) -> list[Line]:
    """The text after `first`; lines that follow begin with `rest`, or as far in as the text does."""
    indent = " " * len(first) if rest is None else rest
    lines = wrap(text, None if width is None else width - max(len(first), len(indent)))
    return [Line((first if n == 0 else indent) + line, style) for n, line in enumerate(lines)]


def table(rows: Sequence[Sequence[str]], width: int | None, *, wrapped: Iterable[int]) -> list[list[str]]:
    """Each row's lines, its cells in columns; those named by `wrapped` share what room there is.

    A row is one line where the width is None.
    """
    if not rows:
        return []
    columns = list(zip(*rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    if width is not None:
        words = [max((len(word) for cell in column for word in cell.split()), default=0) for column in columns]
        widths = _fitted(widths, words, width - GAP * (len(widths) - 1), list(wrapped))
    made = []
    for row in rows:
        cells = [
            wrap(cell, None if width is None or len(cell) <= w else w) for cell, w in zip(row, widths, strict=True)
        ]
        lines = [
            (" " * GAP).join(text.ljust(w) for text, w in zip(texts, widths, strict=True)).rstrip()
            for texts in zip_longest(*cells, fillvalue="")
        ]
        made.append(lines)
    return made


def _fitted(widths: list[int], narrowest: Sequence[int], room: int, wrapped: list[int]) -> list[int]:
    """The widths with the widest of those that may be wrapped made narrower, one after the other, until all fit.

    None becomes narrower than its longest word.
    """
    widths = list(widths)
    while sum(widths) > room and (left := [i for i in wrapped if widths[i] > narrowest[i]]):
        widths[max(left, key=lambda i: widths[i])] -= 1
    return widths
