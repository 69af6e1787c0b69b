"""Ways: what each session did in earlier schedules, by its own history. From it the next schedule is foreseen.

A way is a session's history so far, as a place in a tree: its children are what it did from there, in some schedule or
other. Which of them it will do depends on what the other sessions have done, so the last one in the same state of all
sessions is foreseen, else the last one at all. To foresee wrongly costs time, and nothing else: what a session really
did is told afterwards.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from harness.schedules.measure import Keeps
from harness.schedules.program import Program
from harness.schedules.trace import Choice, Event, Happening
from harness.sqltext.access import Access

_MOST_STATES = 20_000
_MOST_WAYS = 50_000

_NONE = Access()

Own = tuple[tuple[str, str | tuple[int, ...], int], ...]
"""The happenings of one session, without its number."""


@dataclass(frozen=True, slots=True)
class Done:
    """What a session did in one choice, beside the event."""

    passed: tuple[int, ...]
    """Turnstiles that it went through without a choice: on the way to its first step."""
    key: Hashable
    """Which step it did."""
    certain: bool
    """What it touched is known: it was measured, and its text tells all of it."""
    version: int
    """Of what is known of steps."""
    keeps: frozenset[Keeps]
    """What its backend may have kept so far."""


@dataclass(slots=True)
class Way:
    """A session's history, and what its last part was."""

    number: int
    passed: tuple[int, ...] = ()
    own: Own = ()
    at: int = 0
    key: Hashable = None
    access: Access = _NONE
    alone: bool = True
    """Nothing but this session moved, and it waited for nobody."""
    certain: bool = False
    version: int = 0
    """Of what was known of steps when `access` was told."""
    keeps: frozenset[Keeps] = frozenset()
    ended: bool = False
    fails: bool = False
    following: dict[tuple[tuple[int, ...], Own], Way] = field(default_factory=dict)
    last: Way | None = None
    risky: bool = False
    """Something that came next once took others, or a wait."""

    _told: dict[int, tuple[Happening, ...]] = field(default_factory=dict)
    _events: dict[tuple[int, tuple[Choice, ...]], Event] = field(default_factory=dict)

    def event(self, call: int, enabled: tuple[Choice, ...]) -> Event:
        """As it is told of a session, where so much is enabled."""
        known = self._events.get((call, enabled))
        if known is None or known.access is not self.access:
            known = Event(Choice(call), self.at, self.access, self.happenings(call), enabled)
            self._events[call, enabled] = known
        return known

    def happenings(self, call: int) -> tuple[Happening, ...]:
        """As they are told of a session."""
        known = self._told.get(call)
        if known is None:
            known = self._told[call] = tuple(Happening(call, *rest) for rest in self.own)
        return known


State = tuple[Way, ...]


@dataclass
class Ways:
    """The ways of all sessions that were seen."""

    _roots: dict[Hashable, Way] = field(default_factory=dict)
    _seen: dict[tuple[int, ...], Way] = field(default_factory=dict)
    _count: int = 0

    def start(self, keys: Sequence[Hashable]) -> State:
        """Where sessions start whose first units have these keys."""
        if self._count > _MOST_WAYS:
            self._roots.clear()
            self._seen.clear()
            self._count = 0
        return tuple(self._roots.get(key) or self._roots.setdefault(key, self._new()) for key in keys)

    def foreseen(self, state: State, call: int) -> tuple[Way | None, bool]:
        """What a session will do, as far as can be known (None: it never was there), and whether it might wait."""
        known = self._seen.get((call, *[way.number for way in state]))
        if known is not None:
            return known, not known.alone
        return state[call].last, state[call].risky

    def known(self, way: Way, passed: tuple[int, ...], event: Event) -> Way | None:
        """What came of a choice, if the session had done so before."""
        return way.following.get((passed, _own(event.choice.call, event)))

    def after(self, state: State, event: Event, done: Done) -> State:
        """Learn what came of a choice; the state after it."""
        moved = list(state)
        for call in event.calls:
            passed = done.passed if call == event.choice.call else ()
            own = _own(call, event)
            before = state[call]
            way = before.following.get((passed, own))
            if way is None:
                way = before.following[passed, own] = self._new()
                way.passed, way.own, way.at, way.key = passed, own, event.at, done.key
                way.fails = any(what == "fails" for what, _, _ in own)
                way.ended = own[-1][0] in ("commits", "dies", "fails")
            way.alone = len(event.calls) == 1 and own[-1][0] not in ("waits", "dies") and not event.choice.kind.value
            before.risky |= not way.alone
            way.access = event.access
            way.certain |= done.certain
            way.version, way.keeps = done.version, way.keeps | done.keeps
            moved[call] = way
        self.went(state, event.choice.call, moved[event.choice.call])
        return tuple(moved)

    def went(self, state: State, call: int, way: Way) -> State:
        """Note that a session did so in a state; the state after it, where nobody else moved."""
        state[call].last = way
        if len(self._seen) > _MOST_STATES:
            self._seen.clear()
        self._seen[(call, *[each.number for each in state])] = way
        return (*state[:call], way, *state[call + 1 :])

    def _new(self) -> Way:
        self._count += 1
        return Way(self._count)


def start(ways: Ways, programs: Sequence[Program]) -> State:
    """Where the sessions of these programs start."""
    return ways.start([program.units[0].key if program.units else None for program in programs])


class Leg(NamedTuple):
    """A part of a plan: whose turn it is, and what it is foreseen to do (None: it never was there)."""

    call: int
    way: Way | None


Order = Sequence[Leg]
"""A plan for a schedule: whose turn it is. The last turn of a session lasts until it has ended."""


@dataclass
class Foresight:
    """Goes through the states of a schedule that is still to be carried out."""

    ways: Ways
    state: State
    ended: set[int] = field(default_factory=set)
    order: list[Leg] = field(default_factory=list)
    waits: bool = False
    """Somebody may wait, or something else happen that takes the controller."""

    def enabled(self) -> tuple[Choice, ...]:
        """Whose turn it may be next, as far as is foreseen."""
        return tuple(Choice(call) for call in range(len(self.state)) if call not in self.ended)

    def take(self, call: int) -> Way | None:
        """Give a session a turn; None where what it will do is not known."""
        way, waits = self.ways.foreseen(self.state, call)
        self.waits |= waits
        self.order.append(Leg(call, way))
        if way is not None:
            self.state = (*self.state[:call], way, *self.state[call + 1 :])
        if way is None or way.ended:
            self.ended.add(call)
        return way

    def to_the_end(self) -> None:
        """Let one session after the other go on to its end."""
        for choice in self.enabled():
            while choice.call not in self.ended:
                self.take(choice.call)


def _own(call: int, event: Event) -> Own:
    return tuple((h.what, h.detail, h.at) for h in event.happenings if h.call == call)
