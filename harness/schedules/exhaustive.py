"""Every schedule, depth first, by carrying each out from its start: the search has no state to go back to.

Partial-order reduction spares the schedules that differ only in the order of steps that commute. Races seen in a
schedule say where it must be taken up again with another choice (Flanagan and Godefroid, "Dynamic partial-order
reduction", 2005, with the initials of Abdulla et al., "Optimal dynamic partial order reduction", 2014), and sleep sets
(Godefroid, 1996) keep a choice from being tried again while nothing that depends on it has happened. Choices that no
race can suggest, that a wait runs out or that a call dies, are tried wherever they are possible.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from harness.plain import to_plain
from harness.schedules.trace import FATAL, Choice, Event, Happening, Kind, read_replay
from harness.schedules.ways import Foresight, Order
from harness.sqltext.access import Access

_ATTEMPTS = 3
"""How often a schedule is repeated whose beginning does not go as before."""

_RACE_ATTEMPTS = 40
"""The same, where it departed at a choice that let two waiting calls go on at once."""


@dataclass(slots=True)
class _Node:
    """A state on the way down: what was chosen in it, and what must still be."""

    enabled: tuple[Choice, ...]
    sleep: dict[Choice, Access]
    """Choices not to be tried: an order of steps that commute was tried already."""
    chosen: Choice
    todo: set[Choice]
    done: dict[Choice, Access] = field(default_factory=dict)
    event: Event | None = None
    wanted: tuple[Happening, ...] | None = None
    """What the chosen one must lead to, where it led to several things."""
    seen: set[tuple[Happening, ...]] = field(default_factory=set)
    """What the chosen one led to so far, tried out or still to be."""
    others: list[tuple[Happening, ...]] = field(default_factory=list)
    """What else it led to, still to be tried out."""
    preemptions: int = 0
    """Preemptions up to and with the chosen one."""

    def copy(self) -> _Node:
        """It as it is now, whatever becomes of it. What sleeps in a state stays the same."""
        return _Node(
            self.enabled,
            self.sleep,
            self.chosen,
            set(self.todo),
            dict(self.done),
            self.event,
            self.wanted,
            set(self.seen),
            list(self.others),
            self.preemptions,
        )


Mark = tuple[list[_Node], int, int, int, bool, int]


class Exhaustive:
    """Depth-first search, with or without reduction.

    With `max_preemptions`, only schedules that interrupt a call which could go on at most so often are tried
    (Musuvathi and Qadeer, "Iterative context bounding", 2007); nothing is reduced then, since a spared schedule may
    stand for one that needs fewer.
    """

    def __init__(self, *, reduction: bool = True, max_preemptions: int | None = None) -> None:
        self._reduction = reduction and max_preemptions is None
        self._max_preemptions = max_preemptions
        self._stack: list[_Node] = []
        self._started = False
        self._begun_elsewhere = False
        self._attempts = 0
        self._planned = 0
        """How deep the stack was when the schedule was planned that is carried out."""
        self._done: dict[int, None] | None = {}
        """What the calls did in each schedule, each for itself, as a hash: there may be a million. None: not known."""
        self.before_reduction = 0
        """Schedules that those carried out stand for, themselves included."""
        self.unsteady = False
        """A schedule that was repeated did not go as before, or one that nothing new can come of did something new."""

    def gone_through(self) -> tuple[float, int]:
        """How much of the tree of all choices was gone through, by what was seen of it, and choices left on the way."""
        share, weight, left = 0.0, 1.0, 0
        for node in self._stack:
            untried = sum(choice not in node.done and choice not in node.sleep for choice in node.todo) + 1
            weight /= len(node.done) + untried
            share += weight * len(node.done)
            left += untried - 1
        return share if self._stack else 1.0, left + bool(self._stack)

    def saved(self) -> dict[str, Any]:
        """Where it stands, as plain values; what was begun is begun anew."""
        return {
            "before_reduction": self.before_reduction,
            "unsteady": self.unsteady,
            "started": self._started,
            "path": [
                {
                    "enabled": [str(choice) for choice in node.enabled],
                    "sleep": {str(choice): to_plain(access) for choice, access in node.sleep.items()},
                    "chosen": str(node.chosen),
                    "todo": [str(choice) for choice in sorted(node.todo, key=_order)],
                    "done": {str(choice): to_plain(access) for choice, access in node.done.items()},
                    "wanted": to_plain(node.wanted),
                    "others": to_plain(node.others),
                    "preemptions": node.preemptions,
                }
                for node in self._stack
            ],
        }

    def go_on(self, saved: Mapping[str, Any]) -> None:
        """Begin where another search stood. Raises ValueError, TypeError or KeyError for what is no such place."""
        self.before_reduction, self.unsteady = int(saved["before_reduction"]), bool(saved["unsteady"])
        self._begun_elsewhere = bool(saved["started"])
        self._done = None
        for each in saved["path"]:
            (chosen,) = read_replay(each["chosen"])
            self._stack.append(
                _Node(
                    read_replay("".join(each["enabled"])),
                    {read_replay(choice)[0]: access_of(access) for choice, access in each["sleep"].items()},
                    chosen,
                    set(read_replay("".join(each["todo"]))) if each["todo"] else set(),
                    {read_replay(choice)[0]: access_of(access) for choice, access in each["done"].items()},
                    wanted=None if each["wanted"] is None else _happenings(each["wanted"]),
                    others=[_happenings(other) for other in each["others"]],
                    preemptions=int(each["preemptions"]),
                )
            )

    def mark(self) -> Mark:
        """Where it stands now, to come back to (`back_to`): what a schedule leads to may be foreseen wrongly."""
        stack = [node.copy() for node in self._stack]
        done = 0 if self._done is None else len(self._done)
        return stack, self._attempts, self._planned, self.before_reduction, self.unsteady, done

    def back_to(self, mark: Mark) -> None:
        """Stand where it stood at the mark, which is used up."""
        self._stack, self._attempts, self._planned, self.before_reduction, self.unsteady, done = mark
        while self._done is not None and len(self._done) > done:
            self._done.popitem()

    @property
    def exhausted(self) -> bool:
        return self._started and not self._stack and self._max_preemptions is None

    def another(self) -> bool:
        if self._begun_elsewhere:
            self._begun_elsewhere, self._started = False, True
        if not self._started or self._attempts:
            self._started = True
            return True
        return bool(self._stack)

    def choose(self, enabled: tuple[Choice, ...], events: Sequence[Event]) -> Choice | None:
        depth = len(events)
        if depth < len(self._stack):
            chosen = self._stack[depth].chosen
            return chosen if chosen in enabled else None
        return self._descend(enabled, events[-1] if events else None)

    def _descend(self, enabled: tuple[Choice, ...], last: Event | None, given: Choice | None = None) -> Choice | None:
        """Come to a new state, and choose in it, or take the choice that was made."""
        if last is not None:
            self._stack[-1].event = last
        sleep, depth = self._sleep(), len(self._stack)
        candidates = self._candidates(enabled, sleep, last.choice.call if last else -1, self._preemptions(depth))
        if not candidates:
            return None
        last_call = last.choice.call if last else -1
        chosen = given or _calm(candidates, last_call)
        if chosen not in candidates:
            return None
        todo = {c for c in candidates if c.kind is not Kind.STEP} if self._reduction else set(candidates)
        node = _Node(enabled, sleep, chosen, todo - {chosen})
        node.preemptions = self._preemptions(depth) + _preempts(chosen, enabled, last_call)
        self._stack.append(node)
        return chosen

    def plan(self, foresight: Foresight) -> Order | None:
        last, sleep = -1, dict[Choice, Access]()
        preemptions = self._preemptions(len(self._stack))
        for node in self._stack:
            if node.chosen.kind is not Kind.STEP or node.wanted is not None:
                return None
            last = node.chosen.call
            way = foresight.take(last)
            if way is None and node is not self._stack[-1]:
                return None
            if node.event is not None and (way is None or way.happenings(last) != node.event.happenings):
                return None
            sleep = _asleep(node.sleep | node.done, {last}, way.access) if way is not None else {}
        while enabled := foresight.enabled():
            candidates = self._candidates(enabled, sleep if self._reduction else {}, last, preemptions)
            if not candidates or (foresight.order and foresight.order[-1].way is None):
                foresight.to_the_end()
                break
            chosen = _calm(candidates, last)
            preemptions += _preempts(chosen, enabled, last)
            last = chosen.call
            way = foresight.take(last)
            sleep = _asleep(sleep, {last}, way.access) if way is not None else {}
        return None if foresight.waits else foresight.order

    def adopt(self, events: Sequence[Event]) -> bool | None:
        known = len(self._stack)
        before = self._stack[-1].event if self._stack else None
        for depth, event in enumerate(events):
            if depth < known:
                if self._stack[depth].chosen != event.choice:
                    return None
                continue
            last = events[depth - 1] if depth else None
            if self._descend(event.enabled, last, event.choice) is not None:
                continue
            last_call = last.choice.call if last else -1
            if not self._candidates(event.enabled, self._sleep(), last_call, self._preemptions(len(self._stack))):
                return False  # redundant from here on
            del self._stack[known:]
            if self._stack:
                self._stack[-1].event = before
            return None
        return True

    def ended(self, events: Sequence[Event], *, complete: bool) -> bool:
        departed = self._departed(events)
        if departed is not None:
            self._attempts += 1
            if self._attempts < self._patience(departed, events):
                return False
            self.unsteady = True
            del self._stack[departed + 1 :]
        elif not complete and self._is_new(events):
            self.unsteady = True
            self._attempts += 1
            if self._attempts < _ATTEMPTS:
                del self._stack[self._planned :]
                if self._stack:
                    self._stack[-1].event = None
                return False
        self._attempts = 0
        if complete and self._done is not None:
            self._done[_each_for_itself(events)] = None
        for node, event in zip(self._stack, events, strict=False):
            node.event = event
            node.seen.add(event.happenings)
        before = _before(events) if self._reduction else []
        if self._reduction:
            self._take_up_races(events, before)
        if complete:
            self.before_reduction += linear_extensions(before, events) if self._reduction else 1
        self._backtrack()
        return complete

    def _is_new(self, events: Sequence[Event]) -> bool:
        """Whether, in a schedule that was given up, the calls did what they never did in one that was not.

        It was given up since each order of its steps stands for one that was tried, in which each call then did the
        same: unless what a call does depends on more than the others, such as on chance.
        """
        if self._done is None or any(event.races or event.choice.kind is not Kind.STEP for event in events):
            return False
        return _each_for_itself(events) not in self._done

    def _departed(self, events: Sequence[Event]) -> int | None:
        """Where a part of the schedule that was carried out before went otherwise this time."""
        for depth, node in enumerate(self._stack):
            known = node.event.happenings if node.event is not None else node.wanted
            if known is None:
                return None
            if depth >= len(events) or events[depth].choice != node.chosen:
                return max(depth - 1, 0)
            if events[depth].happenings != known:
                return depth
        return None

    def _patience(self, departed: int, events: Sequence[Event]) -> int:
        """How often to try again; two outcomes of a race between waiting calls are both kept, to be tried out."""
        if departed >= len(events) or not events[departed].races:
            return _ATTEMPTS
        node, outcome = self._stack[departed], events[departed].happenings
        if outcome not in node.seen:
            node.seen.add(outcome)
            node.others.append(outcome)
        return _RACE_ATTEMPTS

    def _preemptions(self, depth: int) -> int:
        return self._stack[depth - 1].preemptions if depth else 0

    def _candidates(
        self, enabled: tuple[Choice, ...], sleep: Mapping[Choice, Access], last: int, preemptions: int
    ) -> list[Choice]:
        if self._max_preemptions is None or preemptions < self._max_preemptions:
            return [c for c in enabled if c not in sleep] if sleep else list(enabled)
        return [c for c in enabled if c not in sleep and not _preempts(c, enabled, last)]

    def _sleep(self) -> dict[Choice, Access]:
        """What sleeps in the state after the last node's event: what slept or was done there and commutes with it."""
        if not self._stack or not self._reduction:
            return {}
        parent = self._stack[-1]
        assert parent.event is not None
        event = parent.event
        dies = event.choice.kind in FATAL
        return _asleep(parent.sleep | parent.done, event.calls, event.access, dies=dies)

    def _take_up_races(self, events: Sequence[Event], before: Sequence[int]) -> None:
        """Where two steps were ordered by nothing but the schedule, see that the other order is tried too."""
        for later, event in enumerate(events):
            for earlier in range(min(later, len(self._stack))):
                # A call that the earlier one moved or woke could not have gone on before it. The other way round it
                # could: a call that waited, and was woken by the later one, might have come after it.
                if not before[later] >> earlier & 1 or event.choice.call in events[earlier].calls:
                    continue
                between = range(earlier + 1, later)
                if any(before[k] >> earlier & 1 and before[later] >> k & 1 for k in between):
                    continue
                free = [k for k in between if not before[k] >> earlier & 1] + [later]
                initials = {
                    Choice(events[k].choice.call)
                    for k in free
                    if not any(before[k] >> other & 1 for other in free if other < k)
                }
                node = self._stack[earlier]
                possible = initials & set(node.enabled)
                if not possible:
                    node.todo |= {c for c in node.enabled if c != node.chosen and c not in node.done}
                elif not possible & (node.todo | set(node.done) | {node.chosen}):
                    node.todo.add(min(possible))

    def _backtrack(self) -> None:
        """Go up to the deepest state with something left to choose, and choose it."""
        self._go_up()
        self._planned = len(self._stack)

    def _go_up(self) -> None:
        while self._stack:
            node = self._stack[-1]
            if node.event is not None:
                node.done[node.chosen] = node.event.access | node.done.get(node.chosen, Access())
            if node.others:
                node.wanted = node.others.pop()
                node.event = None
                return
            left = [c for c in sorted(node.todo, key=_order) if c not in node.done and c not in node.sleep]
            if left:
                last = self._stack[-2].chosen.call if len(self._stack) > 1 else -1
                node.chosen = left[0]
                node.todo.discard(left[0])
                node.event = node.wanted = None
                node.seen = set()
                node.preemptions = self._preemptions(len(self._stack) - 1) + _preempts(left[0], node.enabled, last)
                return
            self._stack.pop()


def access_of(plain: Mapping[str, Any]) -> Access:
    """Access from its plain form."""
    made: dict[str, Any] = {name: frozenset(each) if isinstance(each, list) else each for name, each in plain.items()}
    return Access(**made)


def _happenings(plain: Sequence[Sequence[Any]]) -> tuple[Happening, ...]:
    return tuple(
        Happening(call, what, tuple(detail) if isinstance(detail, list) else detail, at)
        for call, what, detail, at in plain
    )


def _each_for_itself(events: Sequence[Event]) -> int:
    """What each call did, in whatever order, as a hash."""
    did: dict[int, list[Hashable]] = {}
    for event in events:
        did.setdefault(event.choice.call, []).append((event.choice.kind, event.at))
        for call, *what in event.happenings:
            did.setdefault(call, []).append(tuple(what))
    return hash(tuple((call, tuple(did[call])) for call in sorted(did)))


def _preempts(choice: Choice, enabled: Sequence[Choice], last: int) -> bool:
    return choice.call != last and Choice(last) in enabled


def _calm(candidates: Sequence[Choice], last: int) -> Choice:
    """To go on with the same call first makes the schedules that come early, and are shown, the calm ones."""
    same = Choice(last)
    return same if same in candidates else candidates[0]


def _asleep(
    sleeping: Mapping[Choice, Access], calls: Set[int], access: Access, *, dies: bool = False
) -> dict[Choice, Access]:
    """Of what sleeps or was done in a state, what sleeps after something was done there that commutes with it."""
    return {
        choice: each
        for choice, each in sleeping.items()
        if choice.call not in calls and not each.conflicts(access) and not (choice.kind in FATAL and dies)
    }


def _order(choice: Choice) -> tuple[int, str]:
    return choice.call, choice.kind.value


def _before(events: Sequence[Event]) -> list[int]:
    """For each event, which others must come before it, as a bit mask (happens-before, transitive)."""
    masks: list[int] = []
    calls = [event.calls for event in events]
    dies = [event.choice.kind in FATAL for event in events]
    for later, event in enumerate(events):
        mask = 0
        # The nearest first: what must come before one that must come before it needs no look.
        for earlier in range(later - 1, -1, -1):
            if not mask >> earlier & 1 and (
                not calls[earlier].isdisjoint(calls[later])
                or events[earlier].access.conflicts(event.access)
                or (dies[earlier] and dies[later])
            ):
                mask |= 1 << earlier | masks[earlier]
        masks.append(mask)
    return masks


def linear_extensions(before: Sequence[int], events: Sequence[Event]) -> int:
    """How many orders of the events keep every event after those that must come before it.

    That is the number of interleavings which one schedule stands for. Counted over the sets of events that can have
    happened, of which there are few: a call's own events are in order.
    """
    ways: Mapping[int, int] = {0: 1}
    for _ in events:
        following: dict[int, int] = {}
        for done, count in ways.items():
            for position, needed in enumerate(before):
                if not done >> position & 1 and needed & ~done == 0:
                    reached = done | 1 << position
                    following[reached] = following.get(reached, 0) + count
        ways = following
    return sum(ways.values())
