"""Searches of several cases, on worlds without a database: who has how much of the time, and when one is over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from harness.schedules import search
from harness.schedules.control import Trace
from harness.schedules.exhaustive import Exhaustive
from harness.schedules.plan import Plan
from harness.schedules.search import Asked, Search, in_turn, scheduler_for
from harness.schedules.standing import Ending
from harness.schedules.trace import Choice, Event, Happening
from harness.sqltext.access import Access

T = Access(writes=frozenset({"t"}))


class Fake:
    """A controller on a clock of its own, on which each schedule takes a second. Programs are steps that never wait."""

    def __init__(self) -> None:
        self.now = 0.0
        self.outdated = 0
        self.known = self.relays = self

    def foresight(self, _: object) -> None:
        return None

    def reset(self) -> None:
        pass

    def run(self, programs: Sequence[Sequence[Access]], choose: Callable[..., Choice | None]) -> Trace:
        self.now += 1
        places = [0] * len(programs)
        events: list[Event] = []
        complete = True
        while enabled := tuple(Choice(n) for n, place in enumerate(places) if place < len(programs[n])):
            choice = choose(enabled, events) if complete else enabled[0]
            if choice is None:
                complete, choice = False, enabled[0]
            place = places[choice.call]
            places[choice.call] += 1
            done = (Happening(choice.call, "parks", "", place),)
            events.append(Event(choice, place, programs[choice.call][place], done, enabled))
        return Trace(tuple(events), tuple(Ending({}, 0, 0) for _ in programs), complete)


@pytest.fixture
def controller(monkeypatch: pytest.MonkeyPatch) -> Fake:
    fake = Fake()
    monkeypatch.setattr(search.time, "monotonic", lambda: fake.now)
    return fake


def searched(controller: Any, programs: Any, label: str = "", **plan: Any) -> Search:
    asked = Plan(**plan)

    def make() -> Any:
        return scheduler_for(asked, (), len(programs))

    return Search(controller, lambda: Asked(programs), make, lambda _, __: True, asked, label=label)


LARGE = [[T] * 5] * 3
SMALL = [[T] * 2] * 2


def test_no_case_is_left_without_its_share(controller: Fake) -> None:
    """Of twelve cases, eleven too large to be gone through, the last is exhausted, and no other has much more."""
    found = [searched(controller, LARGE, f"{n}:") for n in range(11)] + [searched(controller, SMALL, "last:")]
    tried = Counter(each.label for each, _ in in_turn(found, until=600))
    assert found[-1].exhausted
    assert tried["last:"] == 6
    assert not any(each.exhausted for each in found[:-1])
    of_large = [tried[each.label] for each in found[:-1]]
    assert min(of_large) > max(of_large) / 2


def test_what_is_too_large_is_gone_through_by_interruptions(controller: Fake) -> None:
    """A fault that takes two interruptions late in the tree is come to, which depth first comes last; it is said."""
    long = [[T] * 8] * 2
    late = "BBBAAABBBBBAAAAA"
    one = searched(controller, long)
    texts = [run.replay for _, run in in_turn([one], until=500)]
    assert late in texts
    assert (one.bounded, one.exhausted) == (2, False)
    assert len(texts) == len(set(texts)) == one.carried_out
    assert late not in [run.replay for run in searched(controller, long).schedules(controller.now + 500)]


def test_nothing_is_counted_twice(controller: Fake) -> None:
    """What was carried out by interruptions is no new schedule to the search that comes to it, and all are counted."""
    found = searched(controller, [[T] * 4] * 2)
    texts = [run.replay for _, run in in_turn([found], until=240)]
    assert found.exhausted
    assert found.bounded is not None
    assert len(texts) == len(set(texts)) == found.carried_out == 70


@pytest.mark.parametrize("kind", ["random", "pct"])
def test_a_search_at_random_ends_when_nothing_new_comes(controller: Fake, kind: str) -> None:
    """Two calls of two steps have six orders: soon after all were drawn it is over, long before its bound."""
    found = searched(controller, SMALL, search=kind)
    assert len(list(found.schedules(1e9))) == 6
    assert found.ended
    assert found.dried_up
    assert not found.exhausted
    assert controller.now < 100


def test_one_that_still_finds_goes_on_to_its_bound(controller: Fake) -> None:
    """With more orders than it may try, it tries as many as it may."""
    found = searched(controller, LARGE, search="random", max_schedules=300)
    assert len(list(found.schedules(1e9))) == 300
    assert not found.dried_up


def test_what_was_exhausted_in_ignorance_is_gone_through_again(controller: Fake) -> None:
    """A step seen in a later case to touch more makes the earlier one begin anew, with what is known by then."""
    free = Access(writes=frozenset({"u"}))
    first: list[list[Access]] = [[T] * 2, [free] * 2]
    one, other = searched(controller, first, "one:"), searched(controller, SMALL, "other:")
    tried = Counter[str]()
    for each, _ in in_turn([one, other], until=1000):
        if each is other and not controller.outdated:
            assert one.exhausted
            assert tried["one:"] == 1  # nothing in common: one order stands for all
            controller.outdated += 1
            first[1] = [T] * 2
            assert not one.exhausted
        tried[each.label] += 1
    assert one.exhausted
    assert other.exhausted
    assert tried == {"one:": 6, "other:": 6}


def test_it_is_not_said_to_be_exhausted_where_there_was_no_time_for_that(controller: Fake) -> None:
    """Out of time, what was gone through in ignorance is not exhausted."""
    found = searched(controller, [[T] * 2, [Access(writes=frozenset({"u"}))] * 2])
    list(in_turn([found], until=10))
    assert found.exhausted
    controller.outdated += 1
    list(in_turn([found], until=controller.now))
    assert not found.exhausted
    assert isinstance(found._scheduler, Exhaustive)


def test_what_is_gone_on_with_later_is_begun_anew_where_it_was_tried_in_ignorance(controller: Fake) -> None:
    """What an earlier search left out because it knew less is not left out by the one that goes on where it stood."""
    found = searched(controller, [[T] * 2, [Access(writes=frozenset({"u"}))] * 2])
    list(in_turn([found], until=10))
    assert found.saved() == {**Exhaustive().saved(), "before_reduction": 6, "started": True}
    controller.outdated += 1
    assert found.saved() == Exhaustive().saved()
