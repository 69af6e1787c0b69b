"""Explorations side by side: a process for each job, each with a database of its own, and cases dealt out among them.

A process is started anew and reads the options as this one did. It obeys no signal: that a run ends is told to all of
them, and what each has tried by then is reported.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import connection
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Event
from typing import TYPE_CHECKING

from harness import signals
from harness.errors import HarnessError
from harness.options import Options
from harness.signals import uninterrupted

if TYPE_CHECKING:
    from harness.schedules import Exploration, Plan, Progress
    from harness.schedules.connections import Together

_LOOK = 0.2
"""Seconds after which it is looked whether the run was ended."""


def explored(
    options: Options,
    dsns: Sequence[str],
    plan: Plan,
    parts: Sequence[Sequence[str]],
    earlier: Exploration | None,
    said: Callable[[Progress], object],
    together: Sequence[Together | None],
) -> Exploration:
    """Explore the cases of each part, by their prefixes, in one of the databases, all at the same time.

    With an `earlier` exploration each goes on where that one stood. `said` is told how far they have come all in all,
    and `together`, one for each part, the backends of its sessions.
    Where a signal ends the run, what was tried by then is given.
    """
    from harness.schedules import Progress, joined

    context = multiprocessing.get_context("spawn")
    ended, told = context.Event(), context.SimpleQueue()
    far: dict[int, Progress] = {}
    with ProcessPoolExecutor(len(parts), context, _begin, (ended, told)) as executor:
        with _blocked():
            futures: list[Future[Exploration]] = [
                executor.submit(_explore, options, dsn, replace(plan, cases=tuple(part)), earlier, at, one)
                for at, (dsn, part, one) in enumerate(zip(dsns, parts, together, strict=True))
            ]
        left = set(futures)
        try:
            while left:
                left = wait(left, _LOOK).not_done
                while not told.empty():
                    at, progress = told.get()
                    far[at] = progress
                found = dict.fromkeys(name for each in far.values() for name in each.found)
                said(
                    Progress(
                        sum(map(len, parts)),
                        sum(each.done for each in far.values()),
                        sum(each.schedules for each in far.values()),
                        tuple(found),
                    )
                )
                if any(future.done() and future.exception() for future in futures):
                    ended.set()
        except KeyboardInterrupt:
            pass  # what they have tried by now is told
        finally:
            ended.set()
        try:
            return joined([future.result() for future in futures])
        except BrokenProcessPool as error:
            raise HarnessError(
                "A process of the exploration is gone.",
                tried=f"{len(parts)} jobs side by side: {error}",
                next_step="see whether the system ended it, for want of memory perhaps; give fewer --jobs",
            ) from error


def dealt(cases: Sequence[str], weights: Sequence[int], jobs: int) -> list[list[str]]:
    """The cases in as many heaps at most, of about the same weight; each in the order that they came in."""
    heaps: list[list[int]] = [[] for _ in range(min(jobs, len(cases)))]
    for at in sorted(range(len(cases)), key=lambda at: -weights[at]):
        min(heaps, key=lambda heap: sum(weights[each] for each in heap)).append(at)
    return [[cases[at] for at in sorted(heap)] for heap in heaps]


@contextmanager
def _blocked() -> Iterator[None]:
    """Processes that are started inherit it: they do not know yet that signals are not for them."""
    with uninterrupted():
        signal.pthread_sigmask(signal.SIG_BLOCK, signals.ENDING)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, signals.ENDING)


_told: SimpleQueue[tuple[int, Progress]] | None = None
"""Where a process tells how far it has come."""


def _begin(ended: Event, told: SimpleQueue[tuple[int, Progress]]) -> None:
    global _told
    _told = told
    signals.heed_also(ended.is_set)
    threading.Thread(target=_end_with_the_parent, name="the parent", daemon=True).start()


def _end_with_the_parent() -> None:
    """When the process is gone for which this one works, nobody is left to tell."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _explore(
    options: Options, dsn: str, plan: Plan, earlier: Exploration | None, number: int, together: Together | None
) -> Exploration:
    from harness.contracts import invariants
    from harness.scenarios import loads
    from harness.schedules import explore

    def said(progress: Progress) -> None:
        if _told is not None:
            _told.put((number, progress))

    contract = loads.asked_for(options)
    asked = invariants.load(options.invariants, contract)
    return explore(dsn, contract, plan, asked, earlier=earlier, said=said, together=together)
