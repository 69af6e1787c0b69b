"""Text from elsewhere, such as a server's message or a function's answer, as it may be shown."""

from __future__ import annotations

import os
import re

LONGEST = 4000
"""Characters of one text that are kept: a function may answer with a million."""


def printable(text: str, most: int | None = None) -> str:
    """The text with what a terminal would obey made visible, and of a longer one than `most` its beginning."""
    shown = text if most is None else text[:most]
    if not shown.isprintable():
        shown = "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in shown.replace("\r\n", "\n"))
    if most is None or max(len(text), len(shown)) <= most:
        return shown
    cut = f"... (cut: {len(text)} characters)"
    return shown[: most - len(cut)] + cut


def harmless(text: str) -> str:
    """Text for a terminal or a log, which must not obey it.

    GitHub takes `::name::` at the beginning of a line, and `##[name]` anywhere, for a command of the workflow: one in
    an answer could put annotations anywhere, or stop those that are meant. A word joiner makes text of it.
    """
    text = printable(text)
    if os.environ.get("GITHUB_ACTIONS") != "true":
        return text
    return re.sub(r"^(\s*:)(?=:)|##(?=\[)", lambda found: f"{found[0]}\u2060", text, flags=re.MULTILINE)
