"""The conductor: what it keeps of a load, whatever becomes of it."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable

import pytest

from harness.conduct import Fired, KeySource, Load, Told, _made, conduct, judge, record_of
from harness.contracts.scan_ticket import SCAN_TICKET
from harness.errors import HarnessError
from harness.load.crew import Crew
from harness.load.patterns import Burst, Race, Rescan
from harness.targets.memory import MemoryTarget
from harness.verdict.findings import Truth
from tests.histories import Gate


def fresh(count: int) -> list[uuid.UUID]:
    return [uuid.uuid4() for _ in range(count)]


def whole(fired: Fired) -> Fired:
    return fired


def a_load(function: Callable[..., object] | None = None, **more: object) -> Load:
    target = MemoryTarget(SCAN_TICKET, function or Gate())  # type: ignore[arg-type]
    return Load(Burst(3, calls=200), SCAN_TICKET, (target,), 10.0, **more)  # type: ignore[arg-type]


def test_a_load_is_fired_judged_and_put_on_record() -> None:
    """Every call is in the history, every claim has a finding, and what is held carries no command."""
    record = conduct(
        Load(Rescan(3, 5), SCAN_TICKET, (MemoryTarget(SCAN_TICKET, Gate()),), 10.0),
        KeySource(fresh, fresh),
        lambda fired: record_of(fired, judge(fired), Told(repeat="again", notes=("said",))),
    )
    assert (record.kind, record.target, record.repeat, record.notes) == ("rescan", "memory", "again", ("said",))
    assert record.metrics is not None
    assert record.metrics.calls == 30
    assert record.truth is Truth.HELD
    assert not any(finding.replay for finding in record.findings)


def test_what_is_broken_carries_the_command_that_repeats_it() -> None:
    """A gate that lets everybody in."""

    def open_gate(asked: dict[str, object]) -> dict[str, object]:
        return {
            "success": True, "already_scanned": False, "scanned_at": 1,
            "scanned_by": asked["p_scanned_by"], "error_message": None,
        }  # fmt: skip

    record = conduct(
        Load(Race(3, 12), SCAN_TICKET, (MemoryTarget(SCAN_TICKET, open_gate),), 10.0),  # type: ignore[arg-type]
        KeySource(fresh, fresh),
        lambda fired: record_of(fired, judge(fired), Told(repeat="again")),
    )
    broken = [finding for finding in record.findings if finding.truth is Truth.BROKEN]
    assert "at_most_one_accepted" in {finding.id for finding in broken}
    assert {finding.replay for finding in broken} == {"again"}


def test_keys_are_made_before_the_load_and_the_source_is_closed_by_then() -> None:
    """Nothing of the harness asks the database for anything while calls are in flight."""
    happened: list[str] = []

    def make(count: int) -> list[uuid.UUID]:
        happened.append(f"{count} keys")
        return fresh(count)

    def gate(asked: object) -> object:
        if happened[-1] != "call":
            happened.append("call")
        return Gate()(asked)  # type: ignore[arg-type]

    conduct(a_load(gate), KeySource(make, make, lambda: happened.append("closed")), whole)
    assert [each for each in happened if each != "call"] == ["3 keys", "600 keys", "closed"]
    assert happened[-1] == "call"


def a_burst(seconds: float) -> Load:
    return Load(Burst(3, duration=seconds), SCAN_TICKET, (MemoryTarget(SCAN_TICKET, Gate()),), 10.0)


def test_a_burst_that_has_used_its_keys_up_goes_on_with_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are made while no call is in flight, and that time is none of the burst's."""
    monkeypatch.setattr("harness.load.burst.KEYS_MARGIN", 0.01)
    made: list[int] = []

    def fresh_ones(count: int) -> list[uuid.UUID]:
        made.append(count)
        return fresh(count)

    fired = conduct(a_burst(0.3), KeySource(fresh_ones, fresh), whole)
    operations = [o for o in fired.history.operations() if o.phase == 0]
    assert len(made) > 2, "the calibration's, the first, and more"
    assert len({o.key for o in operations}) == len(operations)
    assert [o.number for o in operations] == sorted(o.number for o in operations)
    assert operations[0].called >= 0
    assert 0.25e9 < operations[-1].called < 0.35e9
    assert fired.notes == ()


def test_a_burst_whose_keys_come_again_ends_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """A seed that counts from one each time has no fresh keys after the first."""
    monkeypatch.setattr("harness.load.burst.KEYS_MARGIN", 0.01)
    counting = KeySource(lambda count: [uuid.UUID(int=n) for n in range(count)], fresh)
    fired = conduct(a_burst(0.3), counting, whole)
    [note] = fired.notes
    assert re.match(
        r"it ended after 0\.\d of 0\.3 s, when all \d+ fresh keys were used up: .* gave the same again", note
    )


def test_many_keys_are_asked_for_some_at_a_time() -> None:
    """A seed that makes a table for each key could not lock them all in one transaction."""
    asked: list[int] = []

    def fresh_ones(count: int) -> list[uuid.UUID]:
        asked.append(count)
        return fresh(count)

    assert len(_made(KeySource(fresh_ones, fresh), 4000, 60.0)) == 4000
    assert asked == [500, 1000, 2000, 500]


def test_somebody_may_act_beside_the_load() -> None:
    """From its start, at the n-th answer for one, and is told when it is over."""
    seen: list[int] = []

    def actor(crew: Crew) -> None:
        crew.stopped.wait(30)
        seen.append(crew.calls)

    fired = conduct(a_load(beside=actor), KeySource(fresh, fresh), whole)
    assert seen == [len(fired.history)] == [600]


def test_an_error_of_the_actor_is_raised_when_the_load_is_over() -> None:
    """What it was to do was not done, so nothing is judged."""

    def actor(_: Crew) -> None:
        raise HarnessError("no server to kill")

    with pytest.raises(HarnessError, match="no server to kill"):
        conduct(a_load(beside=actor), KeySource(fresh, fresh), lambda _: pytest.fail("was kept"))


@pytest.mark.parametrize("when", ["while it is fired", "while it is kept"])
def test_a_load_that_is_interrupted_is_kept_and_marked(when: str) -> None:
    """Ctrl-C comes again afterwards, for whoever else is to end."""
    kept: list[bool] = []

    def keep(fired: Fired) -> None:
        kept.append(fired.interrupted)
        if when == "while it is kept" and not fired.interrupted:
            raise KeyboardInterrupt

    def no_keys(count: int) -> list[uuid.UUID]:
        if when == "while it is fired":
            raise KeyboardInterrupt
        return fresh(count)

    with pytest.raises(KeyboardInterrupt):
        conduct(a_load(), KeySource(no_keys, fresh), keep)
    assert kept == ([True] if when == "while it is fired" else [False, True])
