"""`:name` in a statement, as psql has it: found where it stands for a value, not in text, comments and casts."""

from __future__ import annotations

import re

_TOKEN = re.compile(
    r"""
      (?P<skip> --[^\n]* | /\*.*?\*/                                  # comments
        | [eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | "(?:[^"]|"")*"  # text and quoted names
        | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$                             # text between dollars
        | :: | :=                                                     # a cast, an assignment
        | (?<=[\w\])]):\w+ | \[[^\][:]*:[^\][]*\] )                   # slices of an array
    | :(?P<name>[A-Za-z_]\w*)
    """,
    re.VERBOSE | re.DOTALL,
)


def numbered(text: str) -> tuple[str, tuple[str, ...]]:
    """The statement with `$1`, `$2`, ... in place of its `:name`s, and the names in that order, each once."""
    names: list[str] = []

    def number(match: re.Match[str]) -> str:
        name = match["name"]
        if name is None:
            return match[0]
        if name not in names:
            names.append(name)
        return f"${names.index(name) + 1}"

    return _TOKEN.sub(number, text.strip().rstrip(";")), tuple(names)
