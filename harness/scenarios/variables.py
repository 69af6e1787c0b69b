"""psql's variables in a statement: where they stand, what takes their place, and what sets them."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from typing import Any

import pglast
from pglast import ast
from pglast.parser import ParseError

from harness.sqltext.scripts import Statement

TOKEN = re.compile(
    r"--[^\n]*|/\*|(?<![\w$])[eE]'(?:\\.|''|[^'\\])*'|'(?:''|[^'])*'|\"(?:\"\"|[^\"])*\"|(?<![\w$])\$(\w*)\$.*?\$\1\$",
    re.DOTALL,
)

_VARIABLE = re.compile(r"(?<![:\w]):('|\"|)(\w+)\1")


def substituted(text: str, variables: dict[str, str]) -> str:
    """The text with psql's variables put in: `:'x'` a literal, `:"x"` a name, `:x` as it is; unknown ones stay."""

    def put(name: str, quote: str) -> str:
        value = variables.get(name)
        if value is None:
            return f":{quote}{name}{quote}"
        if quote == "'":
            escaped = value.replace("'", "''")
            return f" E'{escaped}'".replace("\\", "\\\\") if "\\" in value else f"'{escaped}'"
        return '"' + value.replace('"', '""') + '"' if quote else value

    return replaced(text, put)


def replaced(text: str, put: Callable[[str, str], str]) -> str:
    """The text with what `put` gives, of its name and its quote, in the place of each variable."""
    pieces = _pieces(text)
    return "".join(_VARIABLE.sub(lambda m: put(m[2], m[1]), piece) if plain else piece for plain, piece in pieces)


def substituted_by_any(text: str) -> str:
    """The text with a value for each variable, as an example to read; empty where one is a name, which says what is
    touched."""
    matches = [match for plain, piece in _pieces(text) if plain for match in _VARIABLE.finditer(piece)]
    return "" if any(m[1] == '"' for m in matches) else with_any(text)


def with_any(text: str) -> str:
    """The text with a 1 for each variable: enough to see whether it parses, and as what."""
    return substituted(text, dict.fromkeys(_names(text), "1"))


def unset_variable(text: str, known: Collection[str]) -> str:
    """A variable without which a statement is no SQL, and that is none of `known`; empty where there is none."""
    names = _names(text) - set(known)
    if not names or _is_sql(substituted(text, dict.fromkeys(known, "1"))) or not _is_sql(with_any(text)):
        return ""
    return str(min(names))


def _is_sql(text: str) -> bool:
    try:
        pglast.parse_sql(text)
    except ParseError:
        return False
    return True


def has_variables(text: str) -> bool:
    """Whether a statement names variables, so that its text is only known when it is run."""
    return any(plain and _VARIABLE.search(piece) for plain, piece in _pieces(text))


def is_used(name: str, text: str) -> bool:
    """Whether a statement uses a variable."""
    return name in _names(text)


def known_after(statement: Statement, known: Collection[str]) -> set[str] | None:
    """The variables that are set behind a statement; None where only its answer tells (`SELECT * ... \\gset`)."""
    names = _gset_targets(statement.text, statement.then)
    return None if None in names else {*known, *(name for name in names if name)}


def gset_names(text: str, then: str) -> tuple[str, ...]:
    """The variables that `\\gset` after a query sets, as far as its text says."""
    return tuple(name for name in _gset_targets(text, then) if name)


def _gset_targets(text: str, then: str) -> tuple[str | None, ...]:
    if not then.startswith("gset"):
        return ()
    try:
        [raw] = pglast.parse_sql(with_any(text))
    except (ParseError, ValueError):
        return (None,)
    targets: Any = getattr(raw.stmt, "returningList", None) or getattr(raw.stmt, "targetList", None) or (None,)
    prefix = then.removeprefix("gset").strip()
    names = (target and (target.name or _column_name(target.val)) for target in targets)
    return tuple(prefix + name if name else None for name in names)


def _column_name(value: Any) -> str | None:
    """What the server calls a column that has no name of its own; None where it takes more to tell."""
    parts: Any = value.fields if isinstance(value, ast.ColumnRef) else getattr(value, "funcname", None)
    return getattr(parts[-1], "sval", None) if parts else None


def _names(text: str) -> set[str]:
    return {match[2] for plain, piece in _pieces(text) if plain for match in _VARIABLE.finditer(piece)}


def _pieces(text: str) -> Iterator[tuple[bool, str]]:
    """The text in pieces, with whether each is outside of quotes, where a colon may begin a variable."""
    at = 0
    for token in TOKEN.finditer(text):
        if token.group().startswith(("'", '"')) and _VARIABLE.match(text, token.start() - 1):
            continue
        yield True, text[at : token.start()]
        yield False, token.group()
        at = token.end()
    yield True, text[at:]
