"""What every strategy answers: another schedule? and, at each choice, who next?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from harness.schedules.trace import Choice, Event


class Scheduler(Protocol):
    """A way to go through schedules. One schedule is carried out between `another` and `ended`."""

    def another(self) -> bool:
        """Whether there is another schedule to carry out."""
        ...

    def choose(self, enabled: tuple[Choice, ...], events: Sequence[Event]) -> Choice | None:
        """One of the choices that are possible after these events; None gives this schedule up as redundant."""
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
