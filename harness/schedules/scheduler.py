"""What every strategy answers: another schedule? and, at each choice, who next?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from harness.schedules.trace import Choice, Event
from harness.schedules.ways import Foresight, Order


class Scheduler(Protocol):
    """A way to go through schedules. One schedule is carried out between `another` and `ended`."""

    def another(self) -> bool:
        """Whether there is another schedule to carry out."""
        ...

    def choose(self, enabled: tuple[Choice, ...], events: Sequence[Event]) -> Choice | None:
        """One of the choices that are possible after these events; None gives this schedule up as redundant."""
        ...

    def plan(self, foresight: Foresight) -> Order | None:
        """The whole next schedule as far as it can be foreseen, to be handed to the server; None: choice by choice."""
        ...

    def adopt(self, events: Sequence[Event]) -> bool | None:
        """Take what was carried out by a plan for what was chosen. False: this schedule is redundant; None: it is not
        the one that was planned, and is to be carried out choice by choice."""
        ...

    def ended(self, events: Sequence[Event], *, complete: bool) -> bool:
        """Learn how the schedule went; false when it is no part of the search: given up, or to be repeated.

        After a choice of None the events go on to a state where nothing runs; `complete` is then false.
        """
        ...

    @property
    def exhausted(self) -> bool:
        """Whether every distinct schedule was carried out."""
        ...
