"""What is known of steps: what each touched, by its text and by all that was ever measured of it.

Where a step is found to touch more than was known when an earlier choice was made, a search is outdated, and has to be
begun again.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from harness.plain import to_plain
from harness.schedules import measure
from harness.schedules.exhaustive import access_of
from harness.schedules.measure import Keeps
from harness.schedules.program import NOTHING
from harness.schedules.rewrite import Rewritten
from harness.sqltext.access import Access

_MOST_READINGS = 10_000


class Knowledge:
    """Of the steps of one database's functions, by their keys."""

    def __init__(self, rewritten: Rewritten) -> None:
        self.rewritten = rewritten
        self._learned: dict[Hashable, Access] = {}
        """What was measured of each step, in all schedules."""
        self._told_of: dict[Hashable, Access] = {}
        """What each step was taken to touch when it was last carried out."""
        self._readings: dict[tuple[str, str], tuple[Access, bool, set[Keeps]]] = {}
        """Readings repeat themselves from schedule to schedule."""
        self.exceeding: dict[Hashable, Access] = {}
        """Steps that touched what their text does not say, with what that was."""
        self._executed: dict[Hashable, Access] = {}
        """What the texts touch that some steps have executed."""
        self.blocks: set[int] = set()
        """Steps that executed a DO block."""
        self.outdated = 0
        """How often a step was found to touch something that was not known when an earlier choice was made."""
        self.version = 0
        """Of what is known: it grows with it."""

    def plain(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {
            name: [[to_plain(key), to_plain(access)] for key, access in known.items()]
            for name, known in self._known_of()
        }

    def know(self, knowledge: Mapping[str, Any]) -> None:
        """Know what another controller of the same functions knew."""
        for name, known in self._known_of():
            for key, access in knowledge[name]:
                of = tuple(key) if isinstance(key, list) else key
                known[of] = known.get(of, NOTHING) | access_of(access)

    def knew(self, knowledge: Mapping[str, Any]) -> bool:
        """Whether whoever knew that knew all that is known here, so that what it left out was left out well."""
        for key, access in knowledge["told"]:
            told = self._told_of.get(tuple(key) if isinstance(key, list) else key, NOTHING)
            if not access_of(access).covers(told):
                return False
        return True

    def _known_of(self) -> tuple[tuple[str, dict[Hashable, Access]], ...]:
        return (
            ("learned", self._learned),
            ("told", self._told_of),
            ("executed", self._executed),
            ("exceeding", self.exceeding),
        )

    def of_step(self, number: int) -> Access:
        """What a step inside a function touches as far as its text says, and the texts that it has executed."""
        return self.rewritten.steps[number].access | self._executed.get(number, NOTHING)

    def learn(self, key: Hashable, text: Access, found: Access) -> Access:
        """What a step touched, by its text and by all that was ever measured of it."""
        known = self._learned.get(key, NOTHING)
        if not known.covers(found):
            known = self._learned[key] = known | found
            self.version += 1
        told = self._told_of.get(key)
        access = self._known(key, text)
        if told is None or not told.covers(access):
            self.outdated += told is not None
            self._told_of[key] = access
        return access

    def _known(self, key: Hashable, text: Access) -> Access:
        """What a step that is measured touches."""
        measured = self._learned.get(key, NOTHING)
        if text.unread:
            text = Access(text.reads, text.writes, text.ends, text.everything)
            return text | measured.at_its_strongest(self.rewritten.traceless)
        if not text.covers(measured):
            self.version += key not in self.exceeding
            self.exceeding[key] = measured
            return text | measured.at_its_strongest(self.rewritten.traceless)
        return text | measured

    def unmeasured(self, key: Hashable, text: Access) -> Access:
        """What a step touches that waits, or failed: it is not measured yet, or will not be."""
        access = text | self._learned.get(key, NOTHING)
        told = self._told_of.get(key)
        if told is None:
            self._told_of[key] = access
        elif access.unread or not told.covers(access):
            self._told_of[key] = told | access
        return access

    def executes(self, key: Hashable, text: str) -> Access:
        """A step is about to carry out a text that was put together: what that touches, as all that it ever did."""
        access, block = self.rewritten.read(text)
        before = self._executed.get(key, NOTHING)
        known = self._executed[key] = before | access
        self.version += known != before
        if block and isinstance(key, int):
            self.blocks.add(key)
        return known

    def between(self, before: str, after: str) -> tuple[Access, bool, set[Keeps]]:
        """What was touched between two readings, whether others could notice it, and what the backend keeps of it."""
        known = self._readings.get((before, after))
        if known is None:
            one, other = measure.read(before), measure.read(after)
            found = measure.between(one, other, self.rewritten.relations)
            noticed = one.counters != other.counters or bool(found.writes) or found.everything
            known = found, noticed, measure.kept(other, self.rewritten.relations)
            if len(self._readings) < _MOST_READINGS:
                self._readings[before, after] = known
        return known
