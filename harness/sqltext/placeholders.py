"""`:name` in a statement, as psql has it: found where it stands for a value, not in text, comments and casts."""

from __future__ import annotations

import re
from collections.abc import Mapping

_TOKEN = re.compile(
    r"""
      (?P<skip> --[^\n]* | /\*.*?\*/                                  # comments
        | [eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | "(?:[^"]|"")*"  # text and quoted names
        | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$                             # text between dollars
        | :: | :=                                                     # a cast, an assignment
        | (?<=[\w\])]):\w+ | (?<![aA][rR][rR][aA][yY])\[[^\][:]*:[^\][]*\] )  # slices of an array
    | :(?P<name>[A-Za-z_]\w*)
    """,
    re.VERBOSE | re.DOTALL,
)


_NAMED = re.compile(r':"(\w+)"')


def named(text: str, names: Mapping[str, str]) -> str:
    """The text with each `:"name"` that `names` knows as a quoted name, a schema before it included."""

    def quoted(match: re.Match[str]) -> str:
        found = names.get(match[1])
        return match[0] if found is None else ".".join(f'"{part}"' for part in found.split("."))

    return _NAMED.sub(quoted, text)


def names_in(text: str) -> list[str]:
    """The names that stand in a text as `:"name"`."""
    return _NAMED.findall(text)


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
