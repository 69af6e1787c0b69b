"""The history: every call of a run with its outcome and its times, the raw evidence that all judgement reads.

While calls are fired each client appends to its own `Log`, a handful of flat columns: no object is built, formatted or
locked per call, and an operation costs well under 200 bytes. `History` puts the logs together afterwards and yields
`Operation` values, decoded as they are asked for.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from itertools import repeat
from operator import itemgetter
from typing import Any

from harness.contracts.contract import Effect, KeyHistory, Operation, Outcome

WARM_UP = -1
"""Phase of calls made before the start; they are judged like any other and left out of the metrics."""

_CALLED = itemgetter(4)
"""Where `called` stands in an operation without its number."""

NEVER = 2**62
"""`returned` of a call whose answer never came."""


Write = Callable[[int, int, int, Any, int, int, Outcome, Sequence[Any]], None]


class Log:
    """What one client did, in columns. `key` and `evidence` are kept as the target gave them and decoded later."""

    __slots__ = (
        "amended",
        "arguments",
        "called",
        "client",
        "decode_evidence",
        "decode_key",
        "due",
        "evidence",
        "evidence_names",
        "keys",
        "open_for",
        "outcomes",
        "phases",
        "returned",
        "target",
        "variants",
        "write",
    )

    def __init__(
        self,
        client: int,
        target: str,
        arguments: Sequence[Mapping[str, Any]],
        evidence_names: Sequence[str],
        decode_key: Callable[[Any], Hashable],
        decode_evidence: Callable[[Sequence[Any]], Sequence[Any]],
    ) -> None:
        self.client = client
        self.target = target
        self.arguments = arguments
        """The client's arguments in each variant, without the key."""
        self.evidence_names = tuple(evidence_names)
        self.decode_key = decode_key
        self.decode_evidence = decode_evidence
        self.keys: list[Any] = []
        self.variants = array("B")
        self.phases = array("i")
        self.due = array("q")
        """Empty in a closed loop, where each call is due when it is called."""
        self.called = array("q")
        self.returned = array("q")
        self.outcomes: list[Outcome] = []
        self.evidence: list[Any] = []
        """The evidence columns of all calls, one call after the other; None where a call had no answer."""
        self.amended: dict[int, tuple[int, bool]] = {}
        """Position -> (end of its transaction, rolled back), for calls whose transaction was held open."""
        self.open_for: dict[int, int] = {}
        """Position -> nanoseconds from its answer to the moment its transaction was told to end."""

        # Made here once: the firing loop writes a call with one function call.
        self.write = self._writer()

    def __len__(self) -> int:
        return len(self.returned)

    def like(self) -> Log:
        """An empty log of the same kind."""
        return Log(self.client, self.target, self.arguments, self.evidence_names, self.decode_key, self.decode_evidence)

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Each call as `write` takes it."""
        stride = len(self.evidence_names)
        evidence = zip(*[iter(self.evidence)] * stride, strict=True) if stride else repeat(())
        return zip(
            self.called, self.returned, self.due or repeat(0), self.keys, self.variants, self.phases, self.outcomes,
            evidence, strict=False,
        )  # fmt: skip

    def _writer(self) -> Write:
        called_append, returned_append, due_append = self.called.append, self.returned.append, self.due.append
        key_append, variant_append, phase_append = self.keys.append, self.variants.append, self.phases.append
        outcome_append, evidence_extend = self.outcomes.append, self.evidence.extend

        def write(
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

    def amend_last(self, ended: int, *, rolled_back: bool, open_for: int = 0) -> None:
        """Say of the last call that its transaction was held open `open_for` nanoseconds, and ended at `ended`."""
        self.amended[len(self.returned) - 1] = (ended, rolled_back)
        self.open_for[len(self.returned) - 1] = open_for


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
            rows = [row for log in self.logs for row in self._decoded(log)]
            rows.sort(key=_CALLED)
            # The plain tuple's constructor: there may be a million of them.
            new = tuple.__new__
            self._operations = tuple([new(Operation, (number, *row)) for number, row in enumerate(rows)])
        return self._operations

    def by_key(self) -> Iterator[KeyHistory]:
        """The operations of each key, keys in order of their first call."""
        keys: dict[Hashable, list[Operation]] = {}
        for operation in self.operations():
            keys.setdefault(operation.key, []).append(operation)
        for key, operations in keys.items():
            yield KeyHistory(key, key not in self.unknown_keys, operations)

    def _decoded(self, log: Log) -> Iterator[tuple[Any, ...]]:
        """The log's operations, without their numbers."""
        zero, names, stride, evidence = self.zero, log.evidence_names, len(log.evidence_names), log.evidence
        decode_key, decode_evidence, amended = log.decode_key, log.decode_evidence, log.amended
        client, target, arguments, in_doubt = log.client, log.target, log.arguments, Effect.IN_DOUBT
        no_answer: dict[str, Any] = {}
        dues = log.due or log.called
        assert len(dues) >= len(log), "a log is of one loop, closed or open"
        columns = zip(log.keys, log.variants, dues, log.called, log.returned, log.outcomes, log.phases, strict=False)
        for position, (key, variant, due, called, returned, outcome, phase) in enumerate(columns):
            ended, rolled_back = amended.get(position, (returned, False))
            raw = evidence[position * stride : (position + 1) * stride]
            yield (
                client,
                decode_key(key),
                arguments[variant],
                due - zero,
                called - zero,
                NEVER if outcome.effect is in_doubt else ended - zero,
                outcome,
                no_answer if raw.count(None) == stride else dict(zip(names, decode_evidence(raw), strict=True)),
                phase,
                position in amended,
                rolled_back,
                target,
            )
