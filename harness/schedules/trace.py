"""What happened in one schedule: its choices and what each led to. Frozen values that every part here shares."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from string import ascii_uppercase
from typing import NamedTuple

from harness.errors import UsageError
from harness.sqltext.access import Access


class Kind(Enum):
    """What is chosen for a call. The value is its mark in a replay text, after the call's letter."""

    STEP = ""
    """It goes on, up to its next turnstile: it starts, runs a statement, or commits."""
    LAPSE = "~"
    """The time it is willing to wait for a lock runs out."""
    DIE = "!"
    """Its connection is terminated where it stands."""
    CANCEL = "x"
    """Its statement is cancelled where it stands; its connection stays."""

    __hash__ = object.__hash__  # there is one of each; an enum's own is slow, and choices are looked up all the time


FATAL = (Kind.DIE, Kind.CANCEL)
"""What ends a call before its end, of which a schedule has one at most."""


_MARKS = {kind: kind.value for kind in Kind}
"""Looked up here, since an enum's own value is slow to come by."""


class Choice(NamedTuple):
    """One decision of a schedule: what happens next, and to which call (counted from 0)."""

    call: int
    kind: Kind = Kind.STEP

    def __str__(self) -> str:
        return ascii_uppercase[self.call] + _MARKS[self.kind]


def replay_text(choices: Sequence[Choice]) -> str:
    """The choices as text, such as `AABBA`: a letter for each step of a call, with the mark of the choice's kind."""
    return "".join(map(str, choices))


def read_replay(text: str) -> tuple[Choice, ...]:
    """The choices of a replay text. Raises UsageError when it is not one."""
    if not re.fullmatch(r"([A-Z][~!x]?)+", text):
        raise UsageError(
            f"{text!r} is not a replay text.",
            tried="reading one letter for each step, followed by ~ where a wait runs out, ! where a call dies "
            "or x where it is cancelled",
            next_step="copy the text after --replay from a report, such as AABBA",
        )
    return tuple(
        Choice(ascii_uppercase.index(letter), Kind(mark)) for letter, mark in re.findall(r"([A-Z])([~!x]?)", text)
    )


def top(unit: int) -> int:
    """The position before a unit of a session's program; steps inside functions have the numbers from 0."""
    return -1 - unit


def moved(choices: Sequence[Choice]) -> Iterator[tuple[Choice, ...]]:
    """The same choices with one of them moved over some of other calls', so that each call's own stay in order."""
    for at, choice in enumerate(choices):
        for step in (-1, 1):
            to = at + step
            while 0 <= to < len(choices) and choices[to].call != choice.call:
                without = [*choices[:at], *choices[at + 1 :]]
                yield (*without[:to], choice, *without[to:])
                to += step


class Happening(NamedTuple):
    """What a choice led to for one call, the chosen one or one that it woke."""

    call: int
    what: str
    """parks (inside a function), returns (parks before its next unit), waits, fails, commits (it has ended), dies, or
    caught (a handler was entered)."""
    detail: str | tuple[int, ...] = ""
    """SQLSTATE of fails and caught; the calls that waits is for; "" else."""
    at: int = 0
    """The step at which it parks."""


@dataclass(frozen=True, slots=True)
class Event:
    """One choice carried out."""

    choice: Choice
    at: int
    """Which step it did: its number, or the position of a unit (`top`)."""
    access: Access
    """What was touched by all calls that ran in it."""
    happenings: tuple[Happening, ...]
    enabled: tuple[Choice, ...]
    """What could have been chosen."""

    @property
    def calls(self) -> frozenset[int]:
        """The calls that ran in it: the chosen one and those it woke."""
        return frozenset({self.choice.call, *(happening.call for happening in self.happenings)})

    @property
    def races(self) -> bool:
        """Whether it let two waiting calls go on at once: which of them comes first is then up to the server."""
        return len(self.happenings) > 1 and len(self.calls - {self.choice.call}) > 1


def switches(events: Sequence[Event]) -> int:
    """How often the schedule turns from one call to another: fewer are easier to follow."""
    return sum(a.choice.call != b.choice.call for a, b in pairwise(events))
