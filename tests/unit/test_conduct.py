"""The conductor: what it keeps of a load, whatever becomes of it."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest

from harness.conduct import Fired, KeySource, Load, Told, conduct, judge, record_of
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
