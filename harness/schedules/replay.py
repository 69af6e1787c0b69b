"""One schedule, as its text says."""

from __future__ import annotations

from collections.abc import Sequence

from harness.errors import UsageError
from harness.schedules.trace import Choice, Event, Kind, replay_text
from harness.schedules.ways import Foresight, Order


class Replay:
    """Carries out the choices of a replay text, a number of times. A text that is too short is no schedule."""

    exhausted = False

    def __init__(self, choices: Sequence[Choice], times: int = 1, *, gives_up: bool = False) -> None:
        """`gives_up`: where the text departs from what is possible, the schedule is given up, and the calls go on."""
        self.choices = tuple(choices)
        self._gives_up = gives_up
        self._left = times
        self.raced = False
        """Whether two waiting calls were let go at once, so that the server decided what came next."""

    def another(self) -> bool:
        self._left -= 1
        return self._left >= 0

    def choose(self, enabled: tuple[Choice, ...], events: Sequence[Event]) -> Choice | None:
        """Raises UsageError at the step where the text departs from what is possible, unless it gives up there."""
        at = len(events)
        self.raced = any(event.races for event in events)
        if at < len(self.choices) and self.choices[at] in enabled:
            return self.choices[at]
        if self._gives_up:
            return None
        due = f"{self.choices[at]} cannot go on" if at < len(self.choices) else "the text ends"
        raise UsageError(
            f"The replay text {replay_text(self.choices)} does not fit the function: at step {at + 1} {due}.",
            tried=f"{replay_text([event.choice for event in events]) or 'nothing'} so far; "
            f"possible next: {', '.join(map(str, enabled))}",
            next_step="explore again: the function, or the number of calls, is not what the text was made with",
        )

    def plan(self, foresight: Foresight) -> Order | None:
        for choice in self.choices:
            if choice.kind is not Kind.STEP or choice not in foresight.enabled() or foresight.take(choice.call) is None:
                break
        foresight.to_the_end()
        return None if foresight.waits else foresight.order

    def adopt(self, events: Sequence[Event]) -> bool | None:
        return True if tuple(event.choice for event in events) == self.choices else None

    def ended(self, events: Sequence[Event], *, complete: bool) -> bool:
        """Raises UsageError when the calls ended before the text did."""
        if len(events) < len(self.choices):
            raise UsageError(
                f"The replay text {replay_text(self.choices)} does not fit the function: every call has ended after "
                f"step {len(events)}.",
                next_step="explore again: the function, or the number of calls, is not what the text was made with",
            )
        return complete
