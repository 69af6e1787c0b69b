"""Values as a judge compares them: read from the server's text by type, and renamed, blanked or bounded where repeated
serial runs show that they depend on a sequence, on chance or on the clock.

A value is *marked* by what it did in several runs of one serial order. It moved with a sequence that was set
forward: generated, renamed one to one. It differs without that: a timestamp is blanked, a number that grew from run to
run drifts with the clock and must lie within the spread, everything else is random and renamed too. It never moved: it
is compared.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_JSON = frozenset({114, 3802})
_FLOATS = frozenset({700, 701})
_NUMBERS = frozenset({20, 21, 23, 26, 1700})
CLOCKS = frozenset({1082, 1083, 1114, 1184, 1266, 1186})
"""OIDs of dates, times and intervals."""
_BOOL, _UUID, _RECORD, _FIRST_OWN = 16, 2950, 2249, 16384
_ARRAYS = {
    1000: 16, 1005: 21, 1007: 23, 1016: 20, 1009: 25, 1015: 1043, 1014: 1042, 1021: 700, 1022: 701, 1115: 1114,
    1182: 1082, 1183: 1083, 1185: 1184, 1187: 1186, 1231: 1700, 1028: 26, 2951: 2950, 199: 114, 3807: 3802,
}  # fmt: skip
_LIKE_NUMBER = re.compile(r"-?\d+(\.\d+)?")
LIKE_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LIKE_MADE = re.compile(rf"{LIKE_UUID.pattern}|\d+")
_TIME = r"\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d(?::?\d\d)*)?"
_MOMENT = rf"\d{{4}}-\d\d-\d\d[ T](?:{_TIME}|\d\d:\d\d)"
_LIKE_CLOCK = re.compile(rf"{_MOMENT}|{_TIME}|\d\d:\d\d|\d{{4}}-\d\d-\d\d")
_CLOCK_WITHIN = re.compile(rf"{_MOMENT}|(?<![\d:]){_TIME}")
"""A time within a text."""
_DIGITS = re.compile(r"(\d+)")
RANDOM = "(random)"
"""The domain of values that chance made: one for all of them, since one token may be shown in many places."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """A value without parts. `kind`: number, float, clock, uuid, bool or text; `text` is the server's."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Row:
    """A row in parts: its shape (what is NULL, an array, a JSON object, and how they nest) and the leaves in it."""

    shape: str
    leaves: tuple[Leaf, ...]


def read_row(values: Sequence[str | None], types: Sequence[int]) -> Row:
    """A row of the server's texts, taken apart by the types' OIDs."""
    shape: list[str] = []
    leaves: list[Leaf] = []
    for text, type_ in zip(values, types, strict=True):
        _read(text, type_, shape, leaves)
        shape.append(",")
    return Row("".join(shape), tuple(leaves))


def leaf_columns(shape: str) -> list[int]:
    """For each leaf of a row of this shape, the place of its column."""
    found: list[int] = []
    column = depth = 0
    for sign in re.sub(r'"(?:\\.|[^"\\])*"', "", shape):  # without the keys of JSON objects
        depth += (sign in "{[(") - (sign in ")]}")
        if sign == "_":
            found.append(column)
        column += sign == "," and depth == 0
    return found


def _read(text: str | None, type_: int, shape: list[str], leaves: list[Leaf]) -> None:
    if text is None:
        shape.append("null")
    elif type_ in _JSON:
        try:
            _read_json(json.loads(text, parse_float=str, parse_int=str), shape, leaves)
        except ValueError:
            _leaf("text", text, shape, leaves)
    elif text[:1] == "{" and text[-1:] == "}" and (type_ in _ARRAYS or type_ >= _FIRST_OWN):
        shape.append("{")
        for each in _elements(text[1:-1], "{", "}"):
            _read(each, _ARRAYS.get(type_, 0), shape, leaves)
            shape.append(",")
        shape.append("}")
    elif text[:1] == "(" and text[-1:] == ")" and (type_ == _RECORD or type_ >= _FIRST_OWN):
        shape.append("(")
        for each in _elements(text[1:-1], "(", ")"):
            _read(each, 0, shape, leaves)
            shape.append(",")
        shape.append(")")
    else:
        _leaf(_kind(text, type_), text, shape, leaves)


def _read_json(value: Any, shape: list[str], leaves: list[Leaf]) -> None:
    match value:
        case dict():
            shape.append("{")
            made = [key for key in value if _LIKE_MADE.fullmatch(key)]
            for key in sorted(value.keys() - made):
                shape.append(json.dumps(key) + ":")
                _read_json(value[key], shape, leaves)
            # A key that may be generated is a value; which comes first must not depend on what chance made.
            for key in sorted(made, key=lambda key: (_LIKE_MADE.sub("", json.dumps(value[key])), len(key), key)):
                _leaf(_kind(key, 0), key, shape, leaves)
                shape.append(":")
                _read_json(value[key], shape, leaves)
            shape.append("}")
        case list():
            shape.append("[")
            for each in value:
                _read_json(each, shape, leaves)
            shape.append("]")
        case None:
            shape.append("null")
        case bool():
            _leaf("bool", "t" if value else "f", shape, leaves)
        case _:  # a number arrives as its text too; quotes around one say nothing that the field's name does not
            _leaf(_kind(value, 0), value, shape, leaves)


def _leaf(kind: str, text: str, shape: list[str], leaves: list[Leaf]) -> None:
    shape.append("_")
    leaves.append(Leaf(kind, text))


def _kind(text: str, type_: int) -> str:
    if type_ in _NUMBERS:
        return "number"
    if type_ in _FLOATS:
        return "float"
    if type_ in CLOCKS:
        return "clock"
    if type_ in (_BOOL, _UUID):
        return "bool" if type_ == _BOOL else "uuid"
    if type_ == 0:  # inside something that does not tell
        for kind, like in (("number", _LIKE_NUMBER), ("uuid", LIKE_UUID)):
            if like.fullmatch(text):
                return kind
    return "clock" if _LIKE_CLOCK.fullmatch(text) else "text"


def _elements(text: str, opened: str, closed: str) -> Iterator[str | None]:
    """The elements between the brackets of an array's or a record's text."""
    if not text and opened == "{":
        return
    null = "NULL" if opened == "{" else ""
    depth, quoted, plain, current = 0, False, True, ""
    at = 0
    while at < len(text):
        sign = text[at]
        if sign == "\\":
            at += 1
            current += text[at : at + 1]
        elif sign == '"' and depth == 0:
            if quoted and text[at + 1 : at + 2] == '"':
                current += '"'
                at += 1
            else:
                quoted, plain = not quoted, False
        elif quoted:
            current += sign
        elif sign == "," and depth == 0:
            yield None if plain and current == null else current
            current, plain = "", True
        else:
            depth += (sign == opened) - (sign == closed)
            current += sign
        at += 1
    yield None if plain and current == null else current


# What a leaf of a serial run may be compared as, after several runs.


@dataclass(frozen=True, slots=True)
class Plain:
    """It was the same in every run."""

    leaf: Leaf


@dataclass(frozen=True, slots=True)
class Generated:
    """It comes from a sequence, or from chance: renamed one to one within its domain."""

    domain: str
    text: str


@dataclass(frozen=True, slots=True)
class Clock:
    """The time of day: anything of its kind will do."""


@dataclass(frozen=True, slots=True)
class Spread:
    """It drifts with the clock: anything between the least and the most that was seen will do."""

    least: float
    most: float


@dataclass(frozen=True, slots=True)
class Parts:
    """A text with numbers in it, some of which are not the same in every run."""

    skeleton: tuple[str, ...]
    numbers: tuple[Plain | Generated | Spread | Chance, ...]


@dataclass(frozen=True, slots=True)
class Chance:
    """It differs from run to run, and some runs agree: a die, or a row that is chosen by a random key."""

    text: str


Mark = Plain | Generated | Clock | Spread | Parts | Chance


@dataclass(frozen=True, slots=True)
class Sample:
    """One run's text of a leaf, and how far each sequence was set forward in that run. Samples are in order of time."""

    text: str
    shifts: Mapping[str, int]
    at: float = 0.0
    """Seconds from the beginning of the check to the run."""


def mark(kind: str, samples: Sequence[Sample], place: str) -> Mark:
    """What a leaf is compared as, by what it was in several runs of one order. `place` names its column."""
    first = samples[0].text
    texts = {sample.text for sample in samples}
    if len(texts) == 1:
        return Plain(Leaf(kind, first))
    if kind == "clock":
        return Clock()
    if kind in ("number", "float"):
        return _mark_number(samples, place)
    pieces = [_DIGITS.split(without_times(sample.text)) for sample in samples]
    skeletons = {tuple(piece[::2]) for piece in pieces}
    if kind == "text" and len(skeletons) == 1:
        numbers = []
        for at in range(1, len(pieces[0]), 2):
            of_part = [Sample(piece[at], s.shifts, s.at) for piece, s in zip(pieces, samples, strict=True)]
            same = all(each.text == of_part[0].text for each in of_part)
            numbers.append(Plain(Leaf("text", of_part[0].text)) if same else _mark_number(of_part, place))
        return Parts(skeletons.pop(), tuple(numbers))
    return Chance(first) if _among_few(samples) else Generated(RANDOM, first)


def _among_few(samples: Sequence[Sample]) -> bool:
    """Whether runs with the same sequences differ, and others agree: a token of chance is never there twice."""
    alike = {sample.text for sample in samples if sample.shifts == samples[0].shifts}
    return len(alike) > 1 and len({sample.text for sample in samples}) < len(samples)


def without_times(text: str) -> str:
    """A text of which the times are left out: what stands beside them is compared."""
    return _CLOCK_WITHIN.sub("(a time)", text)


def _mark_number(samples: Sequence[Sample], place: str) -> Generated | Spread | Chance:
    try:
        values = [float(sample.text) for sample in samples]
    except ValueError:  # pragma: no cover - the server has no other numbers
        return Generated(RANDOM, samples[0].text)
    for name in samples[0].shifts:
        moved = [sample.shifts[name] - samples[0].shifts[name] for sample in samples]
        if any(moved) and [value - values[0] for value in values] == moved:
            return Generated(name, _number(samples[0].text))
    unmoved = [v for v, sample in zip(values, samples, strict=True) if sample.shifts == samples[0].shifts]
    if len(unmoved) > 1 and len(set(unmoved)) == 1:
        return Generated(place, _number(samples[0].text))  # something made of a sequence's value
    if values in (sorted(values), sorted(values, reverse=True)):
        return _spread(values, samples)
    return Chance(samples[0].text) if _among_few(samples) else Generated(RANDOM, _number(samples[0].text))


def _spread(values: Sequence[float], samples: Sequence[Sample]) -> Spread:
    """The bounds of a value that drifts. A result may be older than the first run of the order that explains it: the
    value is followed back to the beginning of the check, twice as fast as it drifted, since runs are short."""
    passed = samples[-1].at - samples[0].at
    back = 2 * (values[-1] - values[0]) / passed * samples[0].at if passed > 0 else 0.0
    bounds = (values[0] - back, *values)
    return Spread(min(bounds), max(bounds))


def _number(text: str) -> str:
    """A number as a name: `0007` and `7` are one."""
    return str(int(text)) if text.isdigit() else text


@dataclass(slots=True)
class Renaming:
    """The one-to-one renaming of generated values that a comparison has come to so far."""

    ordered: frozenset[str] = frozenset()
    """Domains whose order the SQL looks at: the renaming must keep it."""
    starts: Mapping[str, int] = field(default_factory=dict)
    """The last value of each sequence in the baseline: what was generated lies above it."""
    to: dict[tuple[str, str], str] = field(default_factory=dict)
    back: dict[tuple[str, str], str] = field(default_factory=dict)
    fixed: frozenset[str] = frozenset()
    """Texts that are the same in every run: nothing random is renamed to one of them."""
    loose: bool = False
    """Values that no mark allows to differ may be renamed too: what is left to compare is the structure."""
    chance: bool = False
    """What is chosen by chance among few may be anything."""
    gathered: bool = False
    """The elements of an array, and the signs of a text, have no order."""
    _trail: list[tuple[str, str, str]] = field(default_factory=list)

    def position(self) -> int:
        """Where it stands, for `undo`."""
        return len(self._trail)

    def undo(self, position: int) -> None:
        """Take back all that was renamed since then."""
        while len(self._trail) > position:
            domain, observed, expected = self._trail.pop()
            del self.to[domain, observed], self.back[domain, expected]

    def row(self, observed: Row, shape: str, marks: Sequence[Mark]) -> bool:
        """Whether a row can be the one that was expected; what it renames is kept, and undone by the caller."""
        if observed.shape != shape or len(observed.leaves) != len(marks):
            return False
        return all(self._leaf(leaf, expected) for leaf, expected in zip(observed.leaves, marks, strict=True))

    def _leaf(self, observed: Leaf, expected: Mark) -> bool:
        match expected:
            case Plain(leaf):
                if self.loose:
                    return self._pair("(any)", observed.text, leaf.text)
                return same(observed, leaf)
            case Generated(domain, text):
                return self._generated(domain, observed.text, text)
            case Chance(text):
                return self.chance or self.loose or self._generated(RANDOM, observed.text, text)
            case Clock():
                return observed.kind in ("clock", "text", "number")
            case Spread(least, most):
                return _within(observed.text, least, most)
            case Parts(skeleton, numbers):
                pieces = _DIGITS.split(without_times(observed.text))
                if tuple(pieces[::2]) != skeleton:
                    return False
                return all(
                    self._leaf(Leaf("text" if isinstance(n, Plain) else "number", piece), n)
                    for piece, n in zip(pieces[1::2], numbers, strict=True)
                )

    def _generated(self, domain: str, observed: str, expected: str) -> bool:
        name = _number(observed)
        if domain == RANDOM and observed in self.fixed and not self.loose:
            return False
        start = self.starts.get(domain)
        if start is not None and not (name.lstrip("-").isdigit() and int(name) > start):
            return False  # one that was there before
        return self._pair(domain, name, expected)

    def _pair(self, domain: str, observed: str, expected: str) -> bool:
        known, known_back = self.to.get((domain, observed)), self.back.get((domain, expected))
        if known is not None or known_back is not None:
            return known == expected and known_back == observed
        if domain in self.ordered:
            here = (_sort_key(observed), _sort_key(expected))
            for (other_domain, other), its in self.to.items():
                if other_domain == domain and (here[0] < _sort_key(other)) != (here[1] < _sort_key(its)):
                    return False
        self.to[domain, observed] = expected
        self.back[domain, expected] = observed
        self._trail.append((domain, observed, expected))
        return True


def _sort_key(text: str) -> tuple[float, str]:
    try:
        return float(text), ""
    except ValueError:
        return 0.0, text


def _within(text: str, least: float, most: float) -> bool:
    try:
        return least <= float(text) <= most
    except ValueError:
        return False


def same(one: Leaf, other: Leaf) -> bool:
    """Whether two values are equal; floats may differ in the last digits, which depend on the order of a sum."""
    if one.text == other.text:
        return True
    if "float" in (one.kind, other.kind):
        try:
            return math.isclose(float(one.text), float(other.text), rel_tol=1e-9)
        except ValueError:
            return False
    return False
