"""The patterns' plans: what is called when, before anything is called."""

from __future__ import annotations

import itertools
import statistics
import uuid
from collections.abc import Mapping
from typing import Any

import pytest

from harness.contracts.scan_ticket import SCAN_TICKET
from harness.errors import ExitStatus, UsageError
from harness.load import patterns
from harness.load.crew import Crew
from harness.load.pattern import PATTERNS, Keys, Pattern
from harness.load.patterns import Arrivals, Burst, Race, Rescan, Unknown
from harness.load.race import EVIDENCE
from harness.load.side_by_side import SideBySide
from harness.options import PROFILES
from harness.targets.memory import MemoryTarget
from tests.histories import Gate, play


@pytest.mark.parametrize("variants", range(1, 14))
def test_every_kind_of_round_meets_every_variant(variants: int) -> None:
    """A race that is long enough tries each number of callers, keys and way to hold with each argument variant."""
    plan = Race(10, 12 * variants).plan(variants)
    kinds: dict[tuple[int, int, str | None], set[int]] = {}
    for each in plan:
        kinds.setdefault((len(each.callers), each.distinct_keys, each.hold), set()).add(each.variant)
    assert set(kinds) == {
        (10, 1, None), (2, 1, None), (3, 1, None), (10, 2, None), (10, 3, None),
        (2, 1, "commit"), (2, 1, "rollback"), (10, 1, "commit"), (10, 1, "rollback"),
    }  # fmt: skip
    assert all(met == set(range(variants)) for met in kinds.values()), kinds


def test_the_quick_race_tries_every_kind_with_every_variant() -> None:
    """The hundred rounds of the quick profile are long enough for the shipped contract."""
    plan = Race(10, 100).plan(len(SCAN_TICKET.variants))
    assert len({(len(r.callers), r.distinct_keys, r.hold, r.variant) for r in plan}) == 9 * len(SCAN_TICKET.variants)


def test_small_rounds_are_not_always_the_same_two_clients() -> None:
    """Every client takes part in rounds of two."""
    pairs = [r.callers for r in Race(10, 200).plan(5) if len(r.callers) == 2]
    assert {client for pair in pairs for client in pair} == set(range(10))


@pytest.mark.parametrize("clients", [2, 3, 4, 10])
def test_a_round_never_calls_more_clients_than_there_are(clients: int) -> None:
    """Callers are distinct, and every key of a round has at least two of them."""
    for each in Race(clients, 60).plan(5):
        assert len(set(each.callers)) == len(each.callers) <= clients
        assert min(each.keys.count(key) for key in set(each.keys)) >= 2
        assert set(each.keys) == set(range(each.distinct_keys))


def test_somebody_is_told_who_was_first_however_fast_the_others_are_refused() -> None:
    """After a commit that was held back, one of several calls when all others have their answers."""
    pattern = Race(6, 48)
    made = play(pattern, Gate())
    plan = enumerate(pattern.plan(len(SCAN_TICKET.variants)), 1)
    late = {number: each.late for number, each in plan if each.late is not None}
    assert len(late) == 4
    for number, client in late.items():
        *before, last = [o for o in made.operations() if o.phase == number]
        assert last.client == client
        assert last.outcome.label == "already_scanned"
        assert last.called >= max(o.returned for o in before)


def test_a_plain_race_is_all_clients_on_one_key() -> None:
    """Unmixed, as in the original load test: nothing varies, nothing is held."""
    for each in Race(10, 30, mixed=False).plan(5):
        assert (sorted(each.callers), set(each.keys), each.hold) == (list(range(10)), {0}, None)


def test_a_race_calls_what_it_planned() -> None:
    """Each round's callers are called once, on a key of their own round, and nobody is called besides."""
    pattern = Race(6, 48)
    made = play(pattern, Gate())
    seen: dict[int, set[object]] = {}
    for number, each in enumerate(pattern.plan(len(SCAN_TICKET.variants)), 1):
        mine = [o for o in made.operations() if o.phase == number]
        assert sorted(o.client for o in mine) == sorted(each.callers)
        seen[number] = {o.key for o in mine}
        assert len(seen[number]) == each.distinct_keys
    assert len(set().union(*seen.values())) == pattern.fresh_keys(None)


@pytest.mark.parametrize("pattern", [Race(4, 40), Rescan(4, 20), Burst(4, calls=50), Unknown(4, 50)])
def test_a_crew_that_is_stopped_makes_no_new_call(pattern: Any) -> None:
    """After Ctrl-C only the calls in flight come back, in whatever round, held ones too."""
    target = MemoryTarget(SCAN_TICKET, lambda asked: stopping(asked))
    crew = Crew(SCAN_TICKET, lambda _: target, 4, timeout=10, overlap=pattern.overlap)
    gate, made = Gate(), itertools.count(1)

    def stopping(asked: Mapping[str, Any]) -> Mapping[str, Any]:
        if next(made) == 30:
            crew.stopping = True
        return gate(asked)

    crew.open([uuid.uuid4() for _ in range(4)])
    keys = Keys([uuid.uuid4() for _ in range(pattern.fresh_keys(None))], [uuid.uuid4() for _ in range(200)])
    logs = crew.fire(pattern, keys)
    crew.close()
    assert 30 <= sum(map(len, logs)) < 34


def test_a_rounds_calls_start_after_those_of_the_round_before() -> None:
    """Rounds do not run into each other."""
    made = play(Race(4, 40, mixed=False), Gate())
    for number in range(1, 40):
        before = max(o.returned for o in made.operations() if o.phase == number)
        assert before <= min(o.called for o in made.operations() if o.phase == number + 1)


@pytest.mark.parametrize("distribution", ["poisson", "constant"])
def test_arrivals_come_at_their_rate(distribution: str) -> None:
    """A plan of 1000 calls/s for 20 s holds about 20,000 calls, in order, and is the same for the same seed."""
    plan = Arrivals(10, rate=1000, duration=20, distribution=distribution)
    schedule = plan.schedule()
    assert schedule == plan.schedule()
    due = [at for at, _ in schedule]
    assert due == sorted(due)
    assert 0 < due[0] <= due[-1] < 20
    assert len(due) == pytest.approx(20_000, rel=0.03)
    gaps = [b - a for a, b in itertools.pairwise(due)]
    # Poisson arrivals' gaps spread as much as their mean; constant ones do not spread.
    assert statistics.stdev(gaps) == pytest.approx(0.001 if distribution == "poisson" else 0, rel=0.05, abs=1e-9)


def test_arrivals_repeat_the_share_of_keys_that_was_asked_for() -> None:
    """Five percent of the calls are on a key that was due before, never on one that comes later."""
    schedule = Arrivals(10, rate=1000, duration=20, duplicates=0.05).schedule()
    seen, repeated = set[int](), 0
    for _, key in schedule:
        repeated += key in seen
        assert key <= len(seen)
        seen.add(key)
    assert repeated / len(schedule) == pytest.approx(0.05, rel=0.15)


def test_other_seeds_give_other_schedules() -> None:
    """The seed is what decides."""
    assert Arrivals(seed=1).schedule() != Arrivals(seed=2).schedule()


def test_a_burst_calls_every_key_once_and_every_variant() -> None:
    """Distinct keys, so many calls for each client, and the variants taken in turn."""
    made = play(Burst(4, calls=25), Gate()).operations()
    assert len({o.key for o in made}) == len(made) == 100
    assert [sum(o.client == c for o in made) for c in range(4)] == [25] * 4
    assert {o.arguments["p_scan_method"] for o in made} == {"qr", "manual", "nfc", None}


def test_a_rescan_asks_from_another_client() -> None:
    """Whoever was first on a key is not who asks again."""
    made = play(Rescan(3, 4), Gate()).operations()
    first = {o.key: o.client for o in made if o.phase == 0}
    again = {o.key: o.client for o in made if o.phase == 1}
    assert first.keys() == again.keys()
    assert all(first[key] != again[key] for key in first)


@pytest.mark.parametrize(
    ("pattern", "keys", "at_1000_per_second"),
    [
        (Burst(10, calls=7), 70, 70),
        (Burst(10, duration=1, pause=0.1), 110, 110),
        (Burst(10, duration=1, pause=0.008), None, 1260),
        (Burst(10, duration=1, pause=0.000001), None, 2010),
        (Burst(10, duration=1), None, 2010),
        (Race(10, 5, mixed=False), 5, 5),
        (Rescan(3, 4), 12, 12),
        (Unknown(3, 4), 0, 0),
        (SideBySide((Burst(10, duration=1, pause=0.1), Race(5, 3, mixed=False))), 113, 113),
    ],
)
def test_a_plan_knows_how_many_fresh_keys_it_needs(pattern: Any, keys: int | None, at_1000_per_second: int) -> None:
    """Keys are made before the start; a burst by duration that hardly pauses must learn the rate first."""
    assert pattern.fresh_keys(None) == keys
    assert pattern.fresh_keys(1000.0) == at_1000_per_second


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Burst(0, calls=1), "clients is 0"),
        (lambda: Burst(-3, calls=1), "clients is -3"),
        (lambda: Burst(1, calls=0), "calls is 0"),
        (lambda: Burst(1, duration=0), "duration is 0"),
        (lambda: Burst(1, duration=1, pause=-1), "pause is -1"),
        (lambda: Burst(1), "a duration or a number of calls"),
        (lambda: Burst(1, duration=1, calls=1), "a duration or a number of calls"),
        (lambda: Race(1, 1), "at least 2 clients"),
        (lambda: Race(0, 1), "clients is 0"),
        (lambda: Race(2, 0), "rounds is 0"),
        (lambda: Arrivals(rate=0), "rate is 0"),
        (lambda: Arrivals(distribution="normal"), "distribution is normal, which is not a distribution"),
        (lambda: Arrivals(duplicates=1.0), "duplicates is 1.0"),
        (lambda: Rescan(0), "clients is 0"),
        (lambda: Unknown(1, 0), "calls is 0"),
    ],
)
def test_a_plan_with_wrong_numbers_is_wrong_usage(make: Any, says: str) -> None:
    """Numbers that cannot be meant are refused before anything is started."""
    with pytest.raises(UsageError, match=says) as caught:
        make()
    assert caught.value.exit_status is ExitStatus.USAGE


@pytest.mark.parametrize("kind", PATTERNS.values(), ids=PATTERNS)
def test_a_pattern_made_from_nothing_has_its_own_defaults(kind: type[Pattern]) -> None:
    """In every profile it can be made without a word, and knows the command that makes it again."""
    for profile in PROFILES:
        made = kind.of(profile, {})
        words = dict(itertools.pairwise(made.words()))
        assert words["--pattern"] == kind.name
        assert words["--clients"] == str(made.clients)
        told = {
            option.name: option.read(words[option.flag], "") for option in patterns.options() if option.flag in words
        }
        assert kind.of(words.get("--profile", "quick"), told) == made or profile == "soak"


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ([{}], Burst(10, duration=3.0, overtime=1.5)),
        ([{"clients": 3, "rounds": 9, "pause": None}], Burst(3, duration=3.0, overtime=1.5)),
        ([{"calls": 5}], Burst(10, calls=5)),
        ([{"duration": 1.0}, {"calls": 5}], Burst(10, calls=5)),
        ([{"calls": 5}, {"duration": 1.0}], Burst(10, duration=1.0)),
        ([{"duration": 1.0, "calls": 5}], Burst(10, calls=5)),
        ([{"calls": 5, "duration": 1.0}], Burst(10, duration=1.0, overtime=1.5)),
    ],
)
def test_the_last_word_on_when_a_burst_ends_wins(given: list[dict[str, Any]], made: Burst) -> None:
    """Calls in place of seconds or the other way round, from the options and then by keyword."""
    assert Burst.of("quick", *given) == made


def test_the_original_load_test_is_the_profile_seed() -> None:
    """Ten clients, 60 s, 0.1 s after each call; then ten on one ticket, for as many rounds as make it evidence."""
    assert patterns.of_profile("seed", {}) == (Burst(10, 60.0, pause=0.1), Race(10, EVIDENCE, mixed=False))


def test_a_soak_races_every_second_under_its_burst() -> None:
    """Fifty clients for ten minutes, of whom the race takes ten more; or as is given."""
    assert patterns.of_profile("soak", {}) == (SideBySide((Burst(50, 600.0, pause=0.1), Race(10, 600, pace=1.0))),)
    given = {"clients": 4, "duration": 2.0, "rounds": 8}
    assert patterns.of_profile("soak", given) == (SideBySide((Burst(4, 2.0, pause=0.1), Race(4, 8, pace=0.25))),)
    with pytest.raises(UsageError, match=r"a pause of at least 0\.01 s"):
        patterns.of_profile("soak", {"pause": 0.0})
