"""Personal data in statements, replaced one to one: equal stays equal, different stays different, all else as it was.

What is replaced is the text of constants. Each word in it has one stand-in wherever it comes, so that what was found by
a part of it still is; words that the schema itself knows (statuses, keys of JSON) stay.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import pglast
from pglast.parser import ParseError, scan

_QUOTED = re.compile(r"'((?:[^']|'')*)'")
_WORD = re.compile(r"[^\W\d_]+")
_PIECES = re.compile(
    r"(?P<time>\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d(?::?\d\d)?)?)?\b"
    r"|\b\d\d?:\d\d(?::\d\d(?:\.\d+)?)?\b)"
    r"|(?P<uuid>\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b)"
    r"|(?P<mail>[\w.+-]+@[\w-]+(?:\.[\w-]+)+)"
    r"|(?P<address>\b\d{1,3}(?:\.\d{1,3}){3}\b)"
    r"|(?P<bytes>\\x(?:[0-9a-fA-F]{2})+\b)"
    r"|(?P<hex>\b(?=[a-f]*\d)(?=\d*[a-f])[0-9a-f]{16,}\b)"
    r"|(?P<groups>(?<![\d.])\d{2,}(?:[ /-]\d{2,}){2,}(?![\d.]))"
    r"|(?P<digits>(?<![\d.])\d{7,}(?!\.?\d))"
    r"|(?P<word>[^\W\d_]+)"
)
_PLAIN = frozenset({
    "true", "false", "null", "t", "f", "y", "n", "yes", "no", "on", "off", "utc", "gmt", "infinity", "today", "now",
    "tomorrow", "yesterday", "epoch", "day", "days", "hour", "hours", "minute", "minutes", "second", "seconds", "week",
    "weeks", "month", "months", "year", "years", "ms", "id", "uuid", "sub", "role", "aud", "exp", "iat", "iss", "email",
    "phone",
})  # fmt: skip
"""Words of values that are nobody's, and keys of JWT claims."""

_SETTING = re.compile(r"request\.[\w.]+|search_path|role|\w+_timeout|app\.\w+")
"""A value that names a setting, and is no text."""

LONG = 7
"""Digits from which a number is replaced, in quotes or not: shorter ones are counted with."""

SAID = (
    "names, addresses and long numbers are replaced one to one; times, numbers of less than "
    f"{LONG} digits and words that the schema knows are as they were: read it before you give it away"
)


class Anonymous:
    """Replaces; one of these for all statements that belong together."""

    def __init__(self, texts: Iterable[str], whole: Iterable[str] = ()) -> None:
        """`texts`: SQL of the schema, in whose constants the words stand that may stay; `whole`: values that may."""
        known = {word.lower() for text in texts for quoted in _QUOTED.findall(text) for word in _WORD.findall(quoted)}
        self._known = known | _PLAIN
        self._whole = frozenset(whole)
        self._used: set[str] = set()
        self._stands_for: dict[tuple[str, str], str] = {}
        self._counts: dict[str, int] = {}

    def statement(self, sql: str) -> str:
        """The statement with other constants, and without comments. What cannot be read is replaced as one text."""
        try:
            tokens = scan(sql)
        except ParseError:
            return self.text(sql)
        pieces, at = [], 0
        for token in tokens:
            piece = sql[token.start : token.end + 1]
            pieces.append(sql[at : token.start])
            at = token.end + 1
            if token.name in ("SQL_COMMENT", "C_COMMENT"):
                continue
            if token.name in ("SCONST", "USCONST"):
                piece = _literal(self.text(_value(piece)))
            elif token.name in ("ICONST", "FCONST") and len(piece) >= LONG and piece.isdigit():
                piece = self._replaced("digits", piece)
            pieces.append(piece)
        return "".join([*pieces, sql[at:]])

    def text(self, value: str) -> str:
        """A value's text with each piece of it replaced."""
        if value in self._whole or _SETTING.fullmatch(value):
            return value
        return _PIECES.sub(lambda match: self._replaced(match.lastgroup or "", match[0]), value)

    def _replaced(self, kind: str, piece: str) -> str:
        if kind == "time" or (kind == "word" and (piece.lower() in self._known or len(piece) == 1)):
            return piece
        # What differs only in its case still does: it may be compared without.
        case = next((each for each in (str.lower, str.capitalize, str.upper) if each(piece) == piece), None)
        key = kind, piece if case is None else piece.lower()
        made = self._stands_for.get(key)
        while made is None:
            self._counts[kind] = number = self._counts.get(kind, 0) + 1
            stand_in = _STAND_INS[kind](number, piece)
            if stand_in not in self._known and stand_in not in self._used:
                made = self._stands_for[key] = stand_in
                self._used.add(stand_in)
        return made if case is None else case(made)


def _digits(number: int, piece: str) -> str:
    """A number with as many digits, and small enough for the type that the other had."""
    return f"{'0' if piece[0] == '0' else '1'}{number:0{len(piece) - 1}}"


def _groups(number: int, piece: str) -> str:
    """Digits in groups, as of a telephone or a card, in the same groups."""
    digits = iter(f"{number:0{sum(map(str.isdigit, piece))}}")
    return "".join(next(digits) if sign.isdigit() else sign for sign in piece)


def _hex(number: int, piece: str) -> str:
    start = "\\x" if piece.startswith("\\x") else ""
    return f"{start}{number:0{len(piece) - len(start)}x}"


_STAND_INS: dict[str, Callable[[int, str], str]] = {
    "uuid": lambda number, _: f"00000000-0000-4000-8000-{number:012x}",
    "mail": lambda number, _: f"person{number}@example.com",
    "address": lambda number, _: f"192.0.{2 + number // 250}.{number % 250 + 1}",
    "bytes": _hex,
    "hex": _hex,
    "groups": _groups,
    "digits": _digits,
    "word": lambda number, piece: _letters(number, len(piece)),
}


def _letters(number: int, length: int) -> str:
    """A word for each number, no longer than the one that it stands for, which has two letters at least.

    `wordaa`, `wordab`, ...: two letters from the first on, so that of some hundred none begins another one.
    """
    text = ""
    number += 25
    while number >= 0:
        text = chr(97 + number % 26) + text
        number = number // 26 - 1
    return "word"[: max(0, length - len(text))] + text


def _value(literal: str) -> str:
    """What a constant's text is, however it is quoted."""
    try:
        [statement] = pglast.parse_sql(f"SELECT {literal}")
        return str(statement.stmt.targetList[0].val.val.sval)  # type: ignore[union-attr]
    except (ParseError, AttributeError, TypeError, ValueError):
        return literal.strip("'")


def _literal(text: str) -> str:
    escaped = text.replace("'", "''")
    return f"E'{escaped}'".replace("\\", "\\\\") if "\\" in text else f"'{escaped}'"
