"""Is the history of each key linearizable against the contract's model?

The search of Wing and Gong ("Testing and verifying concurrent objects", 1993) with Lowe's memo of visited
configurations ("Testing for linearizability", 2017), one key at a time: linearizability is a local property (Herlihy
and Wing, 1990), so the keys can be judged apart.

A refused operation changes no state, so one that may go next can be taken at once, without trying other orders: any
witness that takes it later stays one when it is moved to the front. So a race of ten with nine refusals branches only
over who was accepted. That does not hold for every operation that happens to change nothing now: a cell that holds 0,
set(0) and set(1) at once, then a read of 0. Taking set(0) first, because it changes nothing, misses the witness.

Failed and rolled-back operations have no effect and are left out; one in doubt may take effect at any time after its
call, or never.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Hashable, Iterable, Sequence
from itertools import pairwise
from operator import attrgetter

from harness.contracts.contract import Effect, KeyHistory, Model, Operation
from harness.verdict.findings import SHOWN, SHOWN_OPERATIONS, Finding, Truth, format_operation

TIME_LIMIT = 10.0
"""Seconds for all keys of one history."""

_LOOK_AT_CLOCK = 512
"""Configurations between two looks at the clock."""


_CALLED = attrgetter("called")


class _OutOfTime(Exception):  # noqa: N818 - it ends a search, it is no error
    pass


def linearizable(model: Model, history: KeyHistory, deadline: float) -> bool | None:
    """Whether one key's operations fit into a sequence that the model allows; None when time ran out."""
    operations = [o for o in history.operations if o.outcome.effect is not Effect.FAILED and not _undone(o)]
    state = model.initial(history.exists)
    if len(operations) > 1:
        operations.sort(key=_CALLED)
        if any(after.called <= before.returned for before, after in pairwise(operations)):
            try:
                return _search(model, state, operations, deadline)
            except _OutOfTime:
                return None
    # One after the other: there is one order only. (Of operations in doubt, which never return, only the last can be.)
    states: Collection[Hashable] = (state,)
    for operation in operations:
        if operation.outcome.effect is Effect.IN_DOUBT:
            continue
        if len(states) == 1:  # nearly always, and hashing a state costs more than the step
            (state,) = states
            states = model.step(state, operation)
        else:
            states = {after for before in states for after in model.step(before, operation)}
    return bool(states)


def _undone(operation: Operation) -> bool:
    return operation.rolled_back and operation.outcome.effect is Effect.APPLIED


def _search(model: Model, state: Hashable, operations: Sequence[Operation], deadline: float) -> bool:
    """Depth first over configurations (first pending position, which later ones are done, state)."""
    optional = [o.outcome.effect is Effect.IN_DOUBT for o in operations]
    refused = [o.outcome.effect is Effect.REFUSED for o in operations]
    end = len(operations)
    seen: set[tuple[int, int, Hashable]] = set()
    stack: list[tuple[int, int, Hashable]] = [(0, 0, state)]
    visited = 0
    while stack:
        low, done, state = stack.pop()
        while True:
            while done & 1:
                low, done = low + 1, done >> 1
            if (low, done, state) in seen:
                break
            seen.add((low, done, state))
            visited += 1
            if visited % _LOOK_AT_CLOCK == 0 and time.monotonic() > deadline:
                raise _OutOfTime
            taken = None
            branches: list[tuple[int, Hashable]] = []
            finished, bound, at = True, None, low
            # An operation may go next unless another one that is pending returned before it was called.
            while at < end and (bound is None or operations[at].called <= bound):
                if not done >> (at - low) & 1:
                    operation = operations[at]
                    finished = finished and optional[at]
                    bound = operation.returned if bound is None else min(bound, operation.returned)
                    for after in model.step(state, operation):
                        if refused[at] and after == state:
                            taken = at
                            break
                        branches.append((at, after))
                    if taken is not None:
                        break
                at += 1
            if taken is not None:
                done |= 1 << (taken - low)
                continue
            if finished and at == end:
                return True
            stack.extend((low, done | 1 << (at - low), after) for at, after in reversed(branches))
            break
    return False


class Judge:
    """One finding over all keys, taken some at a time."""

    def __init__(self, model: Model, time_limit: float = TIME_LIMIT) -> None:
        self._model, self._limit = model, time_limit
        self._spent = 0.0
        self._keys = self._broken = self._out_of_time = self._misled = 0
        self._evidence: list[dict[str, object]] = []

    def take(self, histories: Iterable[KeyHistory]) -> None:
        """Look at some keys; what was spent on those before counts against the limit."""
        began = time.monotonic()
        deadline = began + self._limit - self._spent
        for history in histories:
            self._keys += 1
            answer = linearizable(self._model, history, deadline)
            if answer is None:
                self._out_of_time += 1
            elif not answer:
                self._broken += 1
                self._misled += _misled(history)
                if len(self._evidence) < SHOWN:
                    operations = [format_operation(o) for o in history.operations[:SHOWN_OPERATIONS]]
                    reason = "no order of these calls explains their answers"
                    self._evidence.append({"reason": reason, "operations": operations})
        self._spent += time.monotonic() - began

    def finding(self) -> Finding:
        """What the keys taken so far come to."""
        keys, broken, out_of_time = self._keys, self._broken, self._out_of_time
        truth = Truth.BROKEN if broken else Truth.UNDECIDED if out_of_time or not keys else Truth.HELD
        observed = f"{keys - broken - out_of_time} of {keys} keys linearizable"
        if out_of_time:
            observed += f", {out_of_time} not decided in {self._limit:g} s"
        return Finding(
            "linearizable",
            "Each key's history could have come from the calls taking effect one at a time.",
            truth,
            observed,
            "every key",
            tuple(self._evidence),
            "" if not broken else _OF_WHAT_WAS_ROLLED_BACK if self._misled == broken else _STALE,
        )


_STALE = "An answer was worked out from a state that another call had already changed: take the lock before reading."
_OF_WHAT_WAS_ROLLED_BACK = (
    "Calls were refused for the sake of one that was then rolled back. Where the answer means no more than 'not now' "
    "(SKIP LOCKED, NOWAIT), say so: UpTo(1, busy=frozenset({'refused'})), or `busy: when ...` in a load's file; else "
    "let the function wait for the row."
)


def _misled(history: KeyHistory) -> bool:
    """Whether a call on the key was refused while one was in progress that was rolled back."""
    gone = [o for o in history.operations if o.rolled_back and o.outcome.effect is Effect.APPLIED]
    refused = [o for o in history.operations if o.outcome.effect is Effect.REFUSED]
    return any(g.called <= r.returned and r.called <= g.returned for g in gone for r in refused)
