"""Whether observed rows are expected ones: paired so that generated values can be renamed one to one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.verdict.observed import TooManyError
from harness.verdict.values import Leaf, Mark, Plain, Renaming, Row, leaf_columns

MOST_STEPS = 20_000
"""Rows tried in one comparison; above that it is given up, and undecided."""

_LONG = 5
"""Digits of a number that chance does not make twice: a shorter one may be there by accident."""


@dataclass(frozen=True, slots=True)
class ExpectedRows:
    """Rows of one answer or table as they are expected: a shape and a mark for each leaf."""

    place: str
    ordered: bool
    rows: tuple[tuple[str, tuple[Mark, ...]], ...]


@dataclass(frozen=True, slots=True)
class _Wanted:
    """An expected row that is to be found among those in the slots; in an ordered answer it has its place."""

    slots: list[Row | None]
    shape: str
    marks: tuple[Mark, ...]
    fixed: int | None = None


def rows_match(pieces: Sequence[tuple[ExpectedRows, list[Row]]], renaming: Renaming) -> bool:
    """Whether all observed rows can be paired with expected ones under one renaming. Leaves `renaming` as it was."""
    start = renaming.position()
    renaming.fixed = frozenset(
        each.leaf.text
        for expected, _ in pieces
        for _, marks in expected.rows
        for each in marks
        if isinstance(each, Plain)
        and (each.leaf.kind in ("text", "uuid") or (each.leaf.kind == "number" and len(each.leaf.text) >= _LONG))
    )
    todo: list[_Wanted] = []
    if renaming.gathered:
        pieces = [each for expected, rows in pieces for each in _scattered(expected, rows)]
    for expected, rows in pieces:
        if len(expected.rows) != len(rows):
            return False
        if expected.ordered:
            slots: list[Row | None] = list(rows)
            todo += [_Wanted(slots, shape, marks, at) for at, (shape, marks) in enumerate(expected.rows)]
            continue
        plain = Counter(row for row in rows)
        left = []
        for shape, marks in expected.rows:
            row = _as_row(shape, marks)
            if row is not None and plain[row] > 0:
                plain[row] -= 1
            else:
                left.append((shape, marks))
        slots = list(plain.elements())
        if len(slots) != len(left):
            return False
        if (
            left
            and not (renaming.loose or renaming.chance)
            and all(_as_row(*each) is not None and not _floats(each[1]) for each in left)
        ):
            return False
        todo += [_Wanted(slots, shape, marks) for shape, marks in left]
    try:
        return _place(todo, renaming)
    finally:
        renaming.undo(start)


def _scattered(expected: ExpectedRows, rows: list[Row]) -> Iterator[tuple[ExpectedRows, list[Row]]]:
    """Rows without their arrays, and the elements of each column's arrays as rows of their own, which have no order."""
    wanted: dict[int, list[tuple[str, tuple[Mark, ...]]]] = {}
    found: dict[int, list[Row]] = {}
    kept: list[tuple[str, tuple[Mark, ...]]] = []
    for shape, marks in expected.rows:
        places = _gathered_columns(shape)
        kept.append(
            (shape, tuple(_shuffled(m) for m, at in zip(marks, leaf_columns(shape), strict=True) if at not in places))
        )
        for each, at in zip(marks, leaf_columns(shape), strict=True):
            if at in places:
                wanted.setdefault(at, []).append(("_", (each,)))
    left = []
    for row in rows:
        places = _gathered_columns(row.shape)
        columns = leaf_columns(row.shape)
        of_row = [_shuffled_leaf(leaf) for leaf, at in zip(row.leaves, columns, strict=True) if at not in places]
        left.append(Row(row.shape, tuple(of_row)))
        for leaf, at in zip(row.leaves, columns, strict=True):
            if at in places:
                found.setdefault(at, []).append(Row("_", (leaf,)))
    yield ExpectedRows(expected.place, expected.ordered, tuple(kept)), left
    for at in sorted(wanted.keys() | found.keys()):
        yield ExpectedRows(f"{expected.place}.{at}", False, tuple(wanted.get(at, ()))), found.get(at, [])


def _gathered_columns(shape: str) -> frozenset[int]:
    """The places of the columns that are arrays or JSON."""
    found = set()
    column = depth = 0
    for sign in re.sub(r'"(?:\\.|[^"\\])*"', "", shape):
        if sign in "{[" and depth == 0:
            found.add(column)
        depth += (sign in "{[(") - (sign in ")]}")
        column += sign == "," and depth == 0
    return frozenset(found)


def _shuffled(each: Mark) -> Mark:
    return Plain(_shuffled_leaf(each.leaf)) if isinstance(each, Plain) else each


def _shuffled_leaf(leaf: Leaf) -> Leaf:
    return Leaf(leaf.kind, "".join(sorted(leaf.text))) if leaf.kind == "text" else leaf


def _as_row(shape: str, marks: tuple[Mark, ...]) -> Row | None:
    """The row itself, where nothing in it may differ."""
    if all(isinstance(each, Plain) for each in marks):
        return Row(shape, tuple(each.leaf for each in marks if isinstance(each, Plain)))
    return None


def _floats(marks: tuple[Mark, ...]) -> bool:
    return any(isinstance(each, Plain) and each.leaf.kind == "float" for each in marks)


def _place(todo: Sequence[_Wanted], renaming: Renaming) -> bool:
    """Backtracking over which observed row is which expected one, without recursion: there may be many rows."""
    steps = 0
    placed: list[tuple[int, Row, int]] = []  # slot, the row that was in it, and how long the renaming was before it
    following = 0
    while len(placed) < len(todo):
        wanted = todo[len(placed)]
        for slot in (
            range(following, len(wanted.slots)) if wanted.fixed is None else ((wanted.fixed,) * (not following))
        ):
            row = wanted.slots[slot]
            if row is None:
                continue
            steps += 1
            if steps > MOST_STEPS:
                raise TooManyError
            before = renaming.position()
            if renaming.row(row, wanted.shape, wanted.marks):
                wanted.slots[slot] = None
                placed.append((slot, row, before))
                following = 0
                break
            renaming.undo(before)
        else:
            if not placed:
                return False
            slot, row, before = placed.pop()
            renaming.undo(before)
            todo[len(placed)].slots[slot] = row
            following = slot + 1
    return True
