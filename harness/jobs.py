"""Explorations side by side: a process for each job, each with a database of its own, and cases dealt out among them.

A process is started anew and reads the options as this one did. It obeys no signal: that a run ends is told to all of
them, and what each has tried by then is reported.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from dataclasses import replace
from multiprocessing.synchronize import Event
from typing import TYPE_CHECKING

from harness import signals
from harness.options import Options

if TYPE_CHECKING:
    from harness.schedules import Exploration, Plan

_LOOK = 0.2
"""Seconds after which it is looked whether the run was ended."""


def explored(
    options: Options,
    dsns: Sequence[str],
    plan: Plan,
    parts: Sequence[Sequence[str]],
    said: Callable[[int, int], object],
) -> Exploration:
    """Explore the cases of each part, by their prefixes, in one of the databases, all at the same time.

    `said` is told how many of how many parts are done. Where a signal ends the run, what was tried by then is given.
    """
    from harness.schedules import joined

    context = multiprocessing.get_context("spawn")
    ended = context.Event()
    with ProcessPoolExecutor(len(parts), context, _begin, (ended, os.getpid())) as executor:
        futures: list[Future[Exploration]] = [
            executor.submit(_explore, options, dsn, plan, tuple(part)) for dsn, part in zip(dsns, parts, strict=True)
        ]
        left = set(futures)
        try:
            while left:
                left = wait(left, _LOOK).not_done
                said(len(futures) - len(left), len(futures))
                if any(future.done() and future.exception() for future in futures):
                    ended.set()
        except KeyboardInterrupt:
            ended.set()
        return joined([future.result() for future in futures])


def dealt(cases: Sequence[str], weights: Sequence[int], jobs: int) -> list[list[str]]:
    """The cases in as many heaps at most, of about the same weight; each in the order that they came in."""
    heaps: list[list[int]] = [[] for _ in range(min(jobs, len(cases)))]
    for at in sorted(range(len(cases)), key=lambda at: -weights[at]):
        min(heaps, key=lambda heap: sum(weights[each] for each in heap)).append(at)
    return [[cases[at] for at in sorted(heap)] for heap in heaps]


def _begin(ended: Event, parent: int) -> None:
    signals.heed_also(lambda: ended.is_set() or os.getppid() != parent)


def _explore(options: Options, dsn: str, plan: Plan, cases: tuple[str, ...]) -> Exploration:
    from harness.contracts import invariants
    from harness.scenarios import loads
    from harness.schedules import explore

    contract = loads.asked_for(options)
    return explore(dsn, contract, replace(plan, cases=cases), invariants.load(options.invariants, contract))
