"""Ctrl-C, SIGTERM and SIGHUP end a run, and what they must not come between."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that end a run: Ctrl-C, a process manager, a terminal that goes away."""


@contextmanager
def ended_by(handler: Callable[[int, FrameType | None], NoReturn]) -> Iterator[None]:
    """SIGTERM and SIGHUP are handled so, as Ctrl-C already is; one that is ignored, as under nohup, stays ignored."""
    numbers = [n for n in ENDING if n != signal.SIGINT and signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, handled in before.items():
            signal.signal(number, handled)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Make something and remember it, in one: a signal that comes meanwhile is handled right after.

    Else a child that was started, and whose starting was interrupted, would be known to nobody.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread is interrupted
        return
    came: list[int] = []
    before = {number: signal.signal(number, lambda number, _frame: came.append(number)) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for signalled in came:
            signal.raise_signal(signalled)


@contextmanager
def shielded() -> Iterator[None]:
    """Clean up undisturbed: a second Ctrl-C must not leave a container behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
