"""A schedule that was carried out, with what its calls were asked and returned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.contracts.contract import Operation
from harness.history import History
from harness.schedules.cases import Setting
from harness.schedules.trace import Choice, Event, Kind, replay_text, switches


@dataclass(frozen=True, slots=True)
class Carried:
    """One schedule.

    Its operations' times are positions in it, so that they do not depend on the clock: as many milliseconds as the
    choice that began or ended the call has in the schedule, the first having 1.
    """

    setting: Setting
    calls: int
    events: tuple[Event, ...]
    operations: tuple[Operation, ...]
    before: tuple[Operation, ...] = ()
    """The calls that the keys have had beforehand."""
    cancelled: frozenset[int] = frozenset()
    """The calls that were cancelled, and had nothing to show for themselves."""
    rolled_back: bool = True
    """Of a call that died or ended in an error nothing is left: it cannot have committed anything before."""

    @property
    def replay(self) -> str:
        """The text that `--replay` takes to carry it out again."""
        return self.setting.prefix() + replay_text([event.choice for event in self.events])

    @property
    def choices(self) -> tuple[Choice, ...]:
        """Who went on at each step, in order."""
        return tuple(event.choice for event in self.events)

    @property
    def serial(self) -> bool:
        """Whether the calls came one after the other."""
        return switches(self.events) == len({event.choice.call for event in self.events}) - 1

    @property
    def died(self) -> frozenset[int]:
        """The calls that were made to die."""
        return frozenset(event.choice.call for event in self.events if event.choice.kind is Kind.DIE)

    @property
    def nothing_left(self) -> bool:
        """Whether there was one call, of which nothing is left: the key must be as fresh to the one after it."""
        return self.setting.retried and self.rolled_back and bool(self.died | self.cancelled)

    @property
    def judged(self) -> tuple[Operation, ...]:
        """The operations that the contract is asked about, in order."""
        gone = self.died | self.cancelled if self.nothing_left else ()
        found = [operation for operation in self.operations if operation.client not in gone]
        return tuple(sorted((*self.before, *found), key=lambda o: o.called))

    @property
    def probes(self) -> tuple[Operation, ...]:
        """The calls made after the end of a schedule in which one died."""
        return tuple(operation for operation in self.operations if operation.client >= self.calls)

    @property
    def length(self) -> tuple[int, int, int]:
        """How much there is to follow: what the server decides, choices, turns from one call to another."""
        return sum(event.races for event in self.events), len(self.events), switches(self.events)

    def ended_like(self, other: Carried) -> bool:
        """Whether the same things happened, and the calls ended the same."""

        def kinds(carried: Carried) -> list[Any]:
            return [(e.choice, e.happenings) for e in carried.events] + [
                (o.outcome.label, o.outcome.code) for o in carried.operations
            ]

        return kinds(self) == kinds(other)


class CarriedHistory(History):
    """The operations of some schedules, as every judge reads a history."""

    def __init__(self, carried: Sequence[Carried]) -> None:
        missing = [o.key for schedule in carried if schedule.setting.missing for o in schedule.operations]
        super().__init__((), unknown_keys=missing)
        found = (operation for schedule in carried for operation in schedule.judged)
        self._operations = tuple(operation._replace(number=number) for number, operation in enumerate(found))

    def __len__(self) -> int:
        return len(self.operations())
