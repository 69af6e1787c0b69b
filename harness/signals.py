"""Ctrl-C, SIGTERM and SIGHUP end a run, and what they must not come between.

No signal is lost: one that comes at a bad moment is handled right after it. One ending is enough: while a run is being
ended, further signals wait for that, so that somebody impatient loses neither the record nor what is cleaned up.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that end a run: Ctrl-C, a process manager, a terminal that goes away."""

PATIENCE = 30.0
"""Seconds that an ending may take before the next signal counts again."""

_ending_since: float | None = None


def ending() -> bool:
    """Whether a signal has ended this run: whatever error comes up then is a consequence of it."""
    return _ending_since is not None


_early: list[int] = []


def defer_until_handled() -> None:
    """Keep the ending signals for `ended_by`, while modules are imported: there one ends in a traceback, or is lost.

    The callbacks of the import system's weak references swallow what is raised in them.
    """
    for number in ENDING:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda number, _frame: _early.append(number))


_asked_to_end: Callable[[], bool] | None = None


def heed_also(asked_to_end: Callable[[], bool]) -> None:
    """In a process that works for another: what tells that it is to end. Signals are the other's."""
    global _asked_to_end
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
    _asked_to_end = asked_to_end


def heed() -> None:
    """Called where a run takes its next step. Raises KeyboardInterrupt when a signal has ended it.

    An exception that a signal raises inside a finalizer, a weak reference's callback or one of a library is lost there.
    """
    if ending() or (_asked_to_end is not None and _asked_to_end()):
        raise KeyboardInterrupt


@contextmanager
def ended_by(handler: Callable[[int, FrameType | None], NoReturn]) -> Iterator[None]:
    """Have the ending signals handled so; one that is ignored, as under nohup, stays ignored."""
    global _ending_since

    def once(number: int, frame: FrameType | None) -> None:
        global _ending_since
        now = time.monotonic()
        if _ending_since is not None and now < _ending_since + PATIENCE:
            return
        _ending_since = now
        handler(number, frame)

    def unless_lost(tell: Callable[..., object]) -> Callable[..., None]:
        """What CPython and Cython print of an exception that is lost: of this one `heed` reminds the run."""

        def told(*lost: Any) -> None:
            value = lost[0].exc_value if len(lost) == 1 else lost[1]
            if not (ending() and isinstance(value, KeyboardInterrupt)):
                tell(*lost)

        return told

    hooks = sys.excepthook, sys.unraisablehook
    sys.excepthook, sys.unraisablehook = unless_lost(hooks[0]), unless_lost(hooks[1])
    before = {number: signal.signal(number, once) for number in ENDING if signal.getsignal(number) != signal.SIG_IGN}
    try:
        if _early:
            once(_early[0], None)
        yield
    finally:
        for number, handled in before.items():
            signal.signal(number, handled)
        sys.excepthook, sys.unraisablehook = hooks
        _ending_since = None


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Do something in one: a signal that comes meanwhile is handled right after.

    To make something and remember it, for a child whose starting was interrupted would be known to nobody; and to clean
    up, for what was not taken away would stay.
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
