"""Signals: none is lost, one ending is enough, and what they interrupt is not taken for a fault."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn
from unittest.mock import MagicMock

import pytest

from harness import contracts, signals
from harness.load.crew import Done
from harness.schedules.judging import Judge
from harness.signals import ENDING, ended_by, ending, heed, uninterrupted
from harness.targets import state


def interrupt(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001
    raise KeyboardInterrupt


@pytest.fixture(autouse=True)
def as_python_starts() -> Iterator[None]:
    """Whoever runs these tests may ignore Ctrl-C."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in ENDING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_during_a_cleanup_comes_right_after_it(number: signal.Signals) -> None:
    """It used to be ignored there: Ctrl-C while a database was dropped did nothing, and the run ended held."""
    cleaned: list[signal.Signals] = []

    def clean() -> None:
        with uninterrupted():
            signal.raise_signal(number)
            cleaned.append(number)

    with ended_by(interrupt), pytest.raises(KeyboardInterrupt):
        clean()
    assert cleaned == [number]


def test_further_signals_wait_for_the_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody impatient would lose the record; who has waited long enough is heard again."""
    with ended_by(interrupt):
        assert not ending()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert ending()
        for number in ENDING:
            signal.raise_signal(number)
        monkeypatch.setattr(signals, "PATIENCE", 0.0)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert not ending()


def test_what_is_ignored_stays_ignored() -> None:
    """As under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with ended_by(interrupt):
        signal.raise_signal(signal.SIGHUP)
        assert not ending()


def test_a_wait_that_is_interrupted_says_so_and_can_be_taken_up_again() -> None:
    """A threading.Event may raise "release unlocked lock" instead, and a test would fail for it."""
    done = Done()
    before = signal.signal(signal.SIGALRM, interrupt)
    for _ in range(50):
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - the signal may come before the wait
            signal.setitimer(signal.ITIMER_REAL, 0.002)
            done.wait(60)
    signal.signal(signal.SIGALRM, before)
    assert not done.wait(0)
    done.set()
    assert done.wait(0)
    assert done.wait(0)


class Finalized:
    """An object whose finalizer a signal strikes: what is raised there is lost, and CPython prints it."""

    def __init__(self, error: type[BaseException] | None = None) -> None:
        self.error = error

    def __del__(self) -> None:
        if self.error is not None:
            raise self.error
        signal.raise_signal(signal.SIGINT)


def test_an_interrupt_that_was_swallowed_is_heeded_at_the_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal would be lost, and the next ones wait for it. It leaves no traceback; another error does."""
    told: list[object] = []
    monkeypatch.setattr("sys.unraisablehook", lambda lost: told.append(lost.exc_type))
    monkeypatch.setattr("sys.excepthook", lambda *lost: told.append(lost[0]))
    with ended_by(interrupt):
        heed()
        del (found := [Finalized()])[:]
        assert not found
        sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)  # as Cython does first
        assert told == []
        del (found := [Finalized(ValueError)])[:]
        assert told == [ValueError]
        with pytest.raises(KeyboardInterrupt):
            heed()
    heed()
    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert told == [ValueError, KeyboardInterrupt]


def test_what_the_judge_stores_is_stored_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal in the middle left its connection in the middle of a COPY: what was tried by then was not judged."""
    stored: list[int] = []

    def add(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)
        stored.append(1)

    monkeypatch.setattr(state, "add", add)
    judge = Judge(contracts.load("scan_ticket"), (), MagicMock(), MagicMock())
    with ended_by(interrupt), pytest.raises(KeyboardInterrupt):
        judge._known(())
    assert stored
