"""The search, on a world without a database: calls whose steps touch named tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from math import factorial

import pytest

from harness.errors import UsageError
from harness.schedules.exhaustive import Exhaustive
from harness.schedules.pct import Pct
from harness.schedules.random_walk import RandomWalk
from harness.schedules.relay import Gates, Script, scripts
from harness.schedules.replay import Replay
from harness.schedules.scheduler import Scheduler
from harness.schedules.trace import Choice, Event, Happening, Kind, read_replay, replay_text, top
from harness.schedules.ways import Done, Foresight, Ways
from harness.sqltext.access import Access

World = Sequence[Sequence[Access]]
"""For each call, what each of its steps touches. Steps never block."""


def read(*tables: str) -> Access:
    return Access(reads=frozenset(tables))


def write(*tables: str) -> Access:
    return Access(writes=frozenset(tables))


def end(*tables: str) -> Access:
    return Access(ends=frozenset(tables))


@dataclass
class Seen:
    texts: list[str]
    outcomes: set[tuple[tuple[tuple[str, ...], ...], ...]]
    scheduler: Scheduler


def carry_out(world: World, scheduler: Scheduler, most: int = 10_000, *, odd: int = 0) -> Seen:
    """Carry out every schedule. The outcome: what each step could tell of the steps before it.

    In the `odd`th one, by chance, the second call ends with its first step and touches nothing.
    """
    seen = Seen([], set(), scheduler)
    number = 0
    while scheduler.another() and len(seen.texts) < most:
        number += 1
        places = [0] * len(world)
        log: list[tuple[int, int]] = []
        events: list[Event] = []
        complete = True
        while enabled := tuple(Choice(call) for call, place in enumerate(places) if place < len(world[call])):
            choice = scheduler.choose(enabled, events) if complete else enabled[0]
            if choice is None:
                complete, choice = False, enabled[0]
            place = places[choice.call]
            log.append((choice.call, place))
            leaves = number == odd and choice.call == 1
            places[choice.call] = len(world[choice.call]) if leaves else place + 1
            touched = Access() if leaves else world[choice.call][place]
            came = Happening(choice.call, "commits" if leaves else "parks", "", place)
            events.append(Event(choice, place, touched, (came,), enabled))
        if scheduler.ended(events, complete=complete):
            seen.texts.append(replay_text([event.choice for event in events]))
            if number != odd:
                seen.outcomes.add(_told(world, log))
    return seen


def _told(world: World, log: Sequence[tuple[int, int]]) -> tuple[tuple[tuple[str, ...], ...], ...]:
    """For every step, the conflicting steps of other calls that came before it."""
    return tuple(
        tuple(
            tuple(
                f"{other}.{at}"
                for other, at in sorted(log[: log.index((call, place))])
                if other != call and world[other][at].conflicts(world[call][place])
            )
            for place in range(len(steps))
        )
        for call, steps in enumerate(world)
    )


def test_two_calls_of_two_steps_have_six_orders() -> None:
    """Without reduction, the orders of two calls with two steps each are these six, each once."""
    seen = carry_out([[write("t")] * 2] * 2, Exhaustive(reduction=False))
    assert sorted(seen.texts) == sorted({"".join(p) for p in permutations("AABB")})
    assert len(seen.texts) == 6
    assert seen.scheduler.exhausted


@pytest.mark.parametrize(
    ("world", "schedules", "before"),
    [
        # Nothing in common: one order stands for all 20.
        ([[write("a")] * 3, [write("b")] * 3], 1, 20),
        ([[read("t")] * 3, [read("t")] * 3], 1, 20),
        # A read does not see a write that is not committed.
        ([[read("t")], [write("t")]], 1, 2),
        # It sees it after the commit: before or after that.
        ([[read("t")], [write("t"), end("t")]], 2, 3),
        # One step each in common, the steps around them free: which of the two comes first.
        ([[read("a"), write("t"), read("a")], [read("b"), write("t"), read("b")]], 2, 20),
        # Everything in common: every order counts.
        ([[write("t")] * 2, [write("t")] * 2], 6, 6),
        ([[write("t")] * 2, [write("t")] * 2, [write("t")] * 2], 90, 90),
        # Three calls, each pair with a table of its own: who is first in each pair, without a circle.
        ([[write("ab", "ac")], [write("ab", "bc")], [write("ac", "bc")]], 6, 6),
        # What is not known conflicts with all that touches anything, and with nothing that does not.
        ([[Access(everything=True)], [read("t")], [Access()]], 2, 6),
    ],
)
def test_hand_counted_schedules(world: World, schedules: int, before: int) -> None:
    """With reduction, so many schedules are carried out and stand for so many, both counted by hand."""
    scheduler = Exhaustive()
    seen = carry_out(world, scheduler)
    assert len(seen.texts) == schedules
    assert scheduler.before_reduction == before
    assert scheduler.exhausted
    assert not scheduler.unsteady


WORLDS: list[World] = [
    [[read("t"), write("t"), end("t")], [read("t"), write("t"), end("t")]],
    [[read("a"), write("b"), end("b")], [read("b"), write("a"), end("a")]],
    [[write("a"), write("b"), end("a", "b")], [write("b"), read("c"), end("b")], [read("a"), write("c"), end("c")]],
    [[read("a", "b"), write("c"), end("c")], [write("a"), end("a")], [write("b"), read("c"), end("b")]],
    [[write("l"), read("t"), end("l")]] * 3,
]


@pytest.mark.parametrize("world", WORLDS)
def test_reduction_loses_no_outcome(world: World) -> None:
    """All that steps can tell of each other in any order shows in the reduced search, once, and the counts agree."""
    whole = carry_out(world, Exhaustive(reduction=False))
    scheduler = Exhaustive()
    reduced = carry_out(world, scheduler)
    lengths = [len(steps) for steps in world]
    orders = factorial(sum(lengths))
    for length in lengths:
        orders //= factorial(length)
    assert len(whole.texts) == orders == scheduler.before_reduction
    assert reduced.outcomes == whole.outcomes
    assert len(reduced.texts) == len(reduced.outcomes) < len(whole.texts)
    assert not scheduler.unsteady


@pytest.mark.parametrize("odd", [2, 4, 6])
def test_an_order_that_chance_made_look_like_another_is_tried_again(odd: int) -> None:
    """A call left early, touching nothing, so that nothing new seemed to come of the order: it is, and that is said."""
    world = [[read("t"), write("t"), end("t")]] * 2
    scheduler = Exhaustive()
    seen = carry_out(world, scheduler, odd=odd)
    assert scheduler.unsteady
    assert seen.outcomes == carry_out(world, Exhaustive(reduction=False)).outcomes


@pytest.mark.parametrize("world", WORLDS)
def test_a_search_repeats_no_schedule(world: World) -> None:
    """No schedule is carried out twice, with or without reduction."""
    for reduction in (True, False):
        texts = carry_out(world, Exhaustive(reduction=reduction)).texts
        assert len(texts) == len(set(texts))


def carry_out_by_plans(world: World, scheduler: Exhaustive, lengths: Sequence[int] | None = None) -> Seen:
    """The same, each schedule by its plan. The first `lengths` steps of calls are foreseen, if they are given."""
    seen, ways = Seen([], set(), scheduler), Ways()
    start = ways.start(range(len(world)))
    for call, steps in enumerate(world):  # as if each had been seen alone before
        state = start
        for place in range(len(steps) if lengths is None else lengths[call]):
            state = ways.after(state, _event(world, call, place), _DONE)
    while scheduler.another() and len(seen.texts) < 10_000:
        order = scheduler.plan(Foresight(ways, ways.start(range(len(world)))))
        assert order is not None
        last = {leg.call: at for at, leg in enumerate(order)}
        places, log, events = [0] * len(world), list[tuple[int, int]](), list[Event]()
        state = start
        for at, leg in enumerate(order):
            while places[leg.call] < len(world[leg.call]):
                enabled = tuple(Choice(call) for call, place in enumerate(places) if place < len(world[call]))
                event = replace(_event(world, leg.call, places[leg.call]), enabled=enabled)
                state = ways.after(state, event, _DONE)
                log.append((leg.call, places[leg.call]))
                events.append(event)
                places[leg.call] += 1
                if at != last[leg.call]:
                    break
        complete = scheduler.adopt(events)
        assert complete is not None
        if scheduler.ended(events, complete=complete):
            seen.texts.append(replay_text([event.choice for event in events]))
            seen.outcomes.add(_told(world, log))
    return seen


_DONE = Done((), None, certain=True, version=0, keeps=frozenset())


def _event(world: World, call: int, place: int) -> Event:
    what = "commits" if place + 1 == len(world[call]) else "parks"
    return Event(Choice(call), place, world[call][place], (Happening(call, what, "", place),), ())


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("reduction", [True, False])
def test_schedules_by_plan_are_those_by_choice(world: World, reduction: bool) -> None:
    """A search whose schedules are planned as a whole tries the same schedules as one that chooses step by step."""
    by_choice = carry_out(world, Exhaustive(reduction=reduction))
    by_plan = carry_out_by_plans(world, Exhaustive(reduction=reduction))
    assert by_plan.texts == by_choice.texts
    assert by_plan.outcomes == by_choice.outcomes
    assert by_plan.scheduler.exhausted


@pytest.mark.parametrize("world", WORLDS)
def test_a_plan_that_foresees_nothing_is_a_schedule_all_the_same(world: World) -> None:
    """Without any knowledge of the calls each plan runs one after the other to its end; nothing is left out by that."""
    by_choice = carry_out(world, Exhaustive(reduction=False))
    by_plan = carry_out_by_plans(world, Exhaustive(reduction=False), [0] * len(world))
    assert sorted(by_plan.texts) == sorted(by_choice.texts)


def test_a_plan_keeps_the_bound_on_preemptions() -> None:
    """With one preemption allowed, plans have one at most."""
    world = [[write("t")] * 3] * 2
    once = carry_out_by_plans(world, Exhaustive(max_preemptions=1))
    assert sorted(once.texts) == sorted(["AAABBB", "BBBAAA", "ABBBAA", "AABBBA", "BAAABB", "BBAAAB"])


def test_what_does_not_fit_is_not_adopted() -> None:
    """Choices other than those that the search has already made are no schedule of it, and change nothing in it."""
    world = [[write("t")] * 2] * 2
    scheduler = Exhaustive()
    other = [_event(world, call, place) for call, place in ((1, 0), (1, 1), (0, 0), (0, 1))]
    assert carry_out(world, scheduler).scheduler.exhausted
    scheduler = Exhaustive()
    scheduler.another()
    first = [replace(_event(world, 0, 0), enabled=(Choice(0), Choice(1)))]
    assert scheduler.adopt(first) is True
    assert scheduler.adopt(other) is None


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("reduction", [True, False])
def test_a_saved_search_goes_on_where_it_stood(world: World, reduction: bool) -> None:
    """Ended after any number of schedules and written as JSON, it tries the others once, and counts all of them."""
    whole = carry_out(world, Exhaustive(reduction=reduction))
    for most in (1, 2, len(whole.texts) // 2, len(whole.texts) - 1):
        begun = Exhaustive(reduction=reduction)
        first = carry_out(world, begun, most)
        later = Exhaustive(reduction=reduction)
        later.go_on(json.loads(json.dumps(begun.saved())))
        assert first.texts + carry_out(world, later).texts == whole.texts
        assert later.before_reduction == whole.scheduler.before_reduction  # type: ignore[attr-defined]
        share, left = begun.gone_through()
        assert 0 <= share < 1
        assert left > 0
    assert whole.scheduler.gone_through() == (1.0, 0)  # type: ignore[attr-defined]


def test_a_search_that_came_to_its_end_has_nothing_to_go_on_with() -> None:
    """Saved and gone on with, it is exhausted at once."""
    ended = Exhaustive()
    carry_out(WORLDS[0], ended)
    later = Exhaustive()
    later.go_on(ended.saved())
    assert not later.another()
    assert later.exhausted


def test_a_script_has_a_gate_for_each_change_of_turns() -> None:
    """A, A, B, A: A opens a gate where its second turn ends and waits there for B's; what it goes through has none."""
    turns = [(0, (7,), 1), (0, (), 2), (1, (), None), (0, (), None)]
    gates = [Gates(0), Gates(1)]
    (a, b), end = scripts(turns, 1, gates) or ((), ())
    (first, last), (b_gate,) = Gates(0).names(1, 2), Gates(1).names(1, 1)
    assert a == Script(
        f"{last} {{7,0,0}} {{1,0,0}} {{2,{first},{b_gate}}}", 0, [first, last], [(7, True), (1, False), (2, False)]
    )
    assert b == Script(f"{b_gate}", first, [b_gate], [])
    assert end == (0, last)


def test_a_relay_behind_another_waits_for_its_end() -> None:
    """Its first turn waits at the gate that the last turn of the other opens, unless both are the same session's."""
    gates = [Gates(0), Gates(1)]
    _, end = scripts([(0, (), None), (1, (), None)], 1, gates) or ((), (0, 0))
    (a, b), _ = scripts([(0, (), None), (1, (), None)], 2, gates, end) or ((), ())
    assert (a.awaited, b.awaited) == (end[1], a.opens[0])
    (a, b), _ = scripts([(1, (), None), (0, (), None)], 2, gates, end) or ((), ())
    assert (b.awaited, a.awaited) == (0, b.opens[0])


def test_no_gate_is_of_two_sets_nor_of_two_sessions() -> None:
    """A gate that is shut again for a later relay is none of those that others wait at now."""
    names = [Gates(session).names(number, 60) for session in range(4) for number in range(4)]
    assert len({gate for each in names for gate in each}) == 4 * 4 * 60
    assert Gates(0).names(4, 60) == Gates(0).names(0, 60)


def test_preemption_bound() -> None:
    """With no preemption allowed the calls run one after the other; with one, one call is interrupted once."""
    world = [[write("t")] * 3] * 2
    assert sorted(carry_out(world, Exhaustive(max_preemptions=0)).texts) == ["AAABBB", "BBBAAA"]
    once = carry_out(world, Exhaustive(max_preemptions=1))
    assert sorted(once.texts) == sorted(["AAABBB", "BBBAAA", "ABBBAA", "AABBBA", "BAAABB", "BBAAAB"])
    assert not once.scheduler.exhausted


@pytest.mark.parametrize("make", [lambda seed: RandomWalk(seed), lambda seed: Pct(seed, 3)], ids=["random", "pct"])
def test_a_seed_gives_the_same_schedules(make) -> None:  # type: ignore[no-untyped-def]
    """The same seed draws the same schedules, another seed others, and neither claims to have tried all."""
    world = [[write("t")] * 4] * 3
    assert carry_out(world, make(1), 50).texts == carry_out(world, make(1), 50).texts
    assert carry_out(world, make(1), 50).texts != carry_out(world, make(2), 50).texts
    assert not make(1).exhausted


def test_pct_reaches_every_order_of_a_small_space() -> None:
    """Priorities that change at enough random places come to all 20 orders of two calls with three steps."""
    world = [[write("t")] * 3] * 2
    found = {text for depth in range(1, 7) for text in carry_out(world, Pct(0, 2, depth), 1000).texts}
    assert len(found) == 20


def test_replay_text_is_read_as_it_is_written() -> None:
    """Steps, waits that run out and deaths survive the way to text and back."""
    choices = (Choice(0), Choice(1), Choice(1, Kind.LAPSE), Choice(0, Kind.DIE), Choice(2))
    assert replay_text(choices) == "ABB~A!C"
    assert read_replay("ABB~A!C") == choices


@pytest.mark.parametrize("text", ["", "aabb", "AB B", "~A", "A!!", "12"])
def test_what_is_no_replay_text_is_refused(text: str) -> None:
    """A text of other letters or marks is refused with what was expected."""
    with pytest.raises(UsageError, match="not a replay text"):
        read_replay(text)


def test_replay_says_where_it_departs() -> None:
    """A text that asks for a step that is not there names the step, what came before it and what is possible."""
    world = [[write("t")] * 2] * 2
    with pytest.raises(UsageError, match=r"at step 3 A cannot go on[\s\S]*AA so far; possible next: B"):
        carry_out(world, Replay(read_replay("AAABB")))
    with pytest.raises(UsageError, match="at step 4 the text ends"):
        carry_out(world, Replay(read_replay("AAB")))
    with pytest.raises(UsageError, match="every call has ended after step 4"):
        carry_out(world, Replay(read_replay("AABBB")))
    assert carry_out(world, Replay(read_replay("ABBA"), times=20)).texts == ["ABBA"] * 20


def test_a_world_that_changes_is_called_unsteady() -> None:
    """When the same choices lead to other things in another schedule, the search goes on and says so."""

    scheduler = Exhaustive()

    count = 0
    while scheduler.another() and count < 200:
        count += 1
        events: list[Event] = []
        places = [0, 0]
        while enabled := tuple(Choice(c) for c in (0, 1) if places[c] < 2):
            choice = scheduler.choose(enabled, events)
            if choice is None:
                break
            places[choice.call] += 1
            # What the first step leads to depends on nothing but the run's number.
            what = f"run {count}" if len(events) == 0 else "parks"
            events.append(Event(choice, top(0), write("t"), (Happening(choice.call, what),), enabled))
        scheduler.ended(events, complete=len(events) == 4)
    assert scheduler.unsteady
    assert count < 200
