"""The history: every call of a run with its outcome and its times, the raw evidence that all judgement reads.

While calls are fired each thread appends to its own `Log`, a handful of flat columns: no object is built, formatted or
locked per call, and an operation costs well under 200 bytes. `History` puts the logs together afterwards and yields
`Operation` values, decoded as they are asked for.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import islice, repeat
from operator import itemgetter
from typing import Any

from harness.contracts.contract import Effect, KeyHistory, Operation, Outcome, Unreadable, readable

WARM_UP = -1
"""Phase of calls made before the start; they are judged like any other and left out of the metrics."""

_NUMBER = itemgetter(0)
"""Where `number` stands in an operation."""

NEVER = 2**62
"""`returned` of a call whose answer never came."""


Write = Callable[[int, int, int, int, Any, int, int, Outcome, Sequence[Any]], None]


class Log:
    """What clients of one target did, in columns. Keys and evidence are kept as the target gave them, decoded later.

    The clients that one thread fires write into one log: its few columns stay in the processor's cache.
    """

    __slots__ = (
        "amended",
        "arguments",
        "called",
        "clients",
        "decode_evidence",
        "decode_key",
        "due",
        "evidence",
        "evidence_names",
        "keys",
        "outcomes",
        "phases",
        "returned",
        "stride",
        "target",
        "variants",
        "write",
    )

    def __init__(
        self,
        target: str,
        arguments: Mapping[int, Sequence[Mapping[str, Any]]],
        evidence_names: Sequence[str],
        decode_key: Callable[[Any], Hashable],
        decode_evidence: Callable[[int, Sequence[Any]], Sequence[Any]],
        *,
        timing: int = 0,
    ) -> None:
        """`timing`: how many columns follow the evidence of each call that say when it ran on the server."""
        self.target = target
        self.arguments = arguments
        """Each client's arguments in each variant, without the key."""
        self.evidence_names = tuple(evidence_names)
        self.decode_key = decode_key
        self.decode_evidence = decode_evidence
        self.stride = len(self.evidence_names) + timing
        self.clients = array("H")
        self.keys: list[Any] = []
        self.variants = array("B")
        self.phases = array("i")
        self.due = array("q")
        """Empty in a closed loop, where each call is due when it is called."""
        self.called = array("q")
        self.returned = array("q")
        self.outcomes: list[Outcome] = []
        self.evidence: list[Any] = []
        """The evidence and timing columns of all calls, one call after the other; None where a call had no answer."""
        self.amended: dict[int, tuple[int, bool]] = {}
        """Position -> (end of its transaction, rolled back), for calls whose transaction was held open."""

        # Made here once: the firing loop writes a call with one function call.
        self.write = self._writer()

    def __len__(self) -> int:
        return len(self.returned)

    def last(self, client: int, called: int | None = None) -> int | None:
        """Position of the client's last call, or of the one it made then; None where there is none."""
        for position in range(len(self) - 1, -1, -1):
            if self.clients[position] == client and called in (None, self.called[position]):
                return position
        return None

    def timings(self) -> Iterator[tuple[int, Any, Sequence[Any]]]:
        """(phase, key, timing columns) of every call whose time on the server is known."""
        stride, names = self.stride, len(self.evidence_names)
        for position, (phase, key) in enumerate(zip(self.phases, self.keys, strict=True)):
            timing = self.evidence[position * stride + names : (position + 1) * stride]
            if timing and timing[0] is not None:
                yield phase, key, timing

    def timings_of(self, phase: int) -> Iterator[tuple[int, int, Sequence[Any]]]:
        """(client, called, timing columns) of every call of that phase whose time on the server is known."""
        stride, names = self.stride, len(self.evidence_names)
        for position, each in enumerate(self.phases):
            timing = self.evidence[position * stride + names : (position + 1) * stride] if each == phase else ()
            if timing and timing[0] is not None:
                yield self.clients[position], self.called[position], timing

    def _writer(self) -> Write:
        client_append = self.clients.append
        called_append, returned_append, due_append = self.called.append, self.returned.append, self.due.append
        key_append, variant_append, phase_append = self.keys.append, self.variants.append, self.phases.append
        outcome_append, evidence_extend = self.outcomes.append, self.evidence.extend

        def write(
            client: int,
            called: int,
            returned: int,
            due: int,
            key: Any,
            variant: int,
            phase: int,
            outcome: Outcome,
            evidence: Sequence[Any],
        ) -> None:
            """Write down a call; `due` is 0 in a closed loop."""
            client_append(client)
            called_append(called)
            if due:
                due_append(due)
            key_append(key)
            variant_append(variant)
            phase_append(phase)
            outcome_append(outcome)
            evidence_extend(evidence)
            # Last: whoever looks from another thread counts the call once this is there.
            returned_append(returned)

        return write

    def amend(self, position: int, ended: int, *, rolled_back: bool) -> None:
        """Say of a call that its transaction was held open, and ended at `ended`."""
        self.amended[position] = (ended, rolled_back)


class History:
    """All operations of a run, in order of `called`."""

    def __init__(self, logs: Sequence[Log], zero: int = 0, unknown_keys: Sequence[Hashable] = ()) -> None:
        """`zero` is the clock's reading at the start; `unknown_keys` are those that were never created."""
        self.logs = tuple(logs)
        self.zero = zero
        self.unknown_keys = frozenset(unknown_keys)
        self._operations: tuple[Operation, ...] | None = None

    def __len__(self) -> int:
        return sum(len(log) for log in self.logs)

    def operations(self) -> tuple[Operation, ...]:
        """Every operation, decoded; worked out once."""
        if self._operations is None:
            numbers = iter(_in_order_of_calls(self.logs))
            found = [o for log in self.logs for o in _operations(log, self.zero, islice(numbers, len(log)))]
            found.sort(key=_NUMBER)
            self._operations = tuple(found)
        return self._operations

    def by_key(self) -> Iterator[KeyHistory]:
        """The operations of each key, keys in order of their first call."""
        keys: dict[Hashable, list[Operation]] = {}
        for operation in self.operations():
            keys.setdefault(operation.key, []).append(operation)
        for key, operations in keys.items():
            yield KeyHistory(key, key not in self.unknown_keys, operations)


def _in_order_of_calls(logs: Sequence[Log]) -> array[int]:
    """For each call of the logs, one log after the other, its place among all of them."""
    called = array("q")
    for log in logs:
        called.extend(log.called)
    numbers = array("q", bytes(called.itemsize * len(called)))
    for number, position in enumerate(sorted(range(len(called)), key=called.__getitem__)):
        numbers[position] = number
    return numbers


def _operations(log: Log, zero: int, numbers: Iterable[int]) -> list[Operation]:
    """The log's calls as they were written, with keys, arguments and answers decoded, column by column.

    One expression and the plain tuple's constructor, nothing beside the values that are kept, and no value twice: there
    may be a million of them.
    """
    assert not log.due or len(log.due) == len(log), "a log is of one loop, closed or open"
    amended, in_doubt, new, target = log.amended, Effect.IN_DOUBT, tuple.__new__, log.target
    outcomes, answers = _answered(log)
    return [
        new(
            Operation,
            (
                number,
                client,
                key,
                arguments,
                (at := called - zero) if due == called else due - zero,
                at if due == called else called - zero,
                NEVER if outcome.effect is in_doubt else (held[0] if held else returned) - zero,
                outcome,
                answer,
                phase,
                held is not None,
                held is not None and held[1],
                target,
            ),
        )
        for number, client, key, arguments, due, called, returned, outcome, answer, phase, held in zip(
            numbers,
            log.clients,
            map(log.decode_key, log.keys),
            [log.arguments[client][variant] for client, variant in zip(log.clients, log.variants, strict=True)],
            log.due or log.called,
            log.called,
            log.returned,
            outcomes,
            answers,
            log.phases,
            [amended.get(position) for position in range(len(log))] if amended else repeat(None),
            strict=False,
        )
    ]


def _answered(log: Log) -> tuple[Sequence[Outcome], Sequence[dict[str, Any]]]:
    """The outcome of each call and its evidence columns by name; empty where no answer came."""
    names = log.evidence_names
    nothing = (None,) * len(names)
    columns = [log.decode_evidence(at, log.evidence[at :: log.stride]) for at in range(len(names))]
    if not columns:
        return log.outcomes, [{}] * len(log)
    none: dict[str, Any] = {}  # one for all calls without an answer
    answers = [none if row == nothing else dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    if not any(type(value) is Unreadable for column in columns for value in column):
        return log.outcomes, answers
    calls = list(map(readable, log.outcomes, answers))
    return [outcome for outcome, _ in calls], [answer for _, answer in calls]
