"""How to explore: what was asked for, checked."""

from __future__ import annotations

from dataclasses import dataclass

from harness.errors import UsageError

MOST_CALLS = 4
SEARCHES = ("exhaustive", "random", "pct")

RANDOM_SCHEDULES = 1000
"""Schedules of a random search in each case, where no other bound is given."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How to explore."""

    calls: int = 2
    search: str = "exhaustive"
    """exhaustive, random or pct."""
    max_schedules: int | None = None
    """The most schedules of one case."""
    max_preemptions: int | None = None
    """The most interruptions of a call that could go on, in one schedule of an exhaustive search; None: no bound."""
    seconds: float = 60.0
    """For all cases together."""
    seed: int = 0
    """Of a random search."""
    crash: bool = False
    """Let one call die at each step."""
    replay: str | None = None
    """A replay text: carry out this schedule and no other."""
    times: int = 1
    """How often to carry out a replay."""
    variants: tuple[str, ...] | None = None
    """Names of the contract's variants to take; None: each."""
    cases: tuple[str, ...] | None = None
    """Of the cases that come of all this, those with these prefixes of replay texts; None: each."""
    keys: tuple[int, ...] = (1, 2)
    """How many keys the calls of a case share: 1, or 2 in turns."""
    edges: bool = False
    """Of an exhaustive search: also what lies at the edges (cases.py)."""
    schedule_seconds: float = 10.0
    """The most that one schedule may take."""
    reduction: bool = True
    """Spare schedules that differ only in the order of steps that commute."""
    relays: bool = True
    """Hand a schedule to the server whole where nobody is foreseen to wait; else it is carried out choice by choice."""
    command: str = "harness explore"
    """What a replay text is given to, after the word --replay."""

    @property
    def deepens(self) -> bool:
        """Whether a case that takes long is first gone through with few interruptions."""
        return self.search == "exhaustive" and self.max_preemptions is None and self.replay is None

    def check(self) -> None:
        """Raises UsageError for figures that make no sense."""
        wrong = [
            (not 1 <= self.calls <= MOST_CALLS, f"{self.calls} calls", f"from 1 to {MOST_CALLS} calls"),
            (self.search not in SEARCHES, f"a search named {self.search!r}", f"one of {', '.join(SEARCHES)}"),
            (
                self.max_schedules is not None and self.max_schedules < 1,
                f"{self.max_schedules} schedules",
                "1 or more",
            ),
            (
                self.max_preemptions is not None and self.max_preemptions < 0,
                f"{self.max_preemptions} preemptions",
                "0 or more",
            ),
            (self.times < 1, f"{self.times} repetitions", "1 or more"),
            (not self.seconds > 0, f"{self.seconds:g} seconds", "more than 0"),
            (not self.schedule_seconds > 0, f"{self.schedule_seconds:g} seconds for a schedule", "more than 0"),
            (not self.keys or not set(self.keys) <= {1, 2}, f"calls on {self.keys} keys", "1, 2 or both"),
        ]
        for is_wrong, what, right in wrong:
            if is_wrong:
                raise UsageError(f"An exploration cannot be made with {what}.", next_step=f"give {right}")
