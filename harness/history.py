"""The history: every call of a run with its outcome and its times, the raw evidence that all judgement reads.

While calls are fired each thread appends to its own `Log`, a handful of flat columns: no object is built, formatted or
locked per call, and an operation costs well under 200 bytes. `History` puts the logs together afterwards and yields
`Operation` values, decoded as they are asked for: all together they would take thrice what the logs do.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from itertools import accumulate, chain, pairwise, repeat
from operator import itemgetter
from typing import Any, NamedTuple

from harness.contracts.contract import Answered, Effect, KeyHistory, Operation, Outcome, Unreadable, readable

WARM_UP = -1
"""Phase of calls made before the start; they are judged like any other and left out of the metrics."""

_NUMBER = itemgetter(0)
"""Where `number` stands in an operation."""

_AT_ONCE = 1000
"""Operations decoded at once, in whole keys: enough for the columns to be read in C, few enough for the caches."""

LONG = 8192
"""Bytes of a value that is long: what is asked of each call must not be many times as much as what it did."""

_LOOKED_AT = 200
"""Calls that are looked at between two looks at how much was kept."""

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

    def put_off(self, nanoseconds: int) -> None:
        """Have its calls made that much later, as if a pause after them had not been. No more are written."""
        for times in (self.due, self.called, self.returned):
            times[:] = array("q", [each + nanoseconds for each in times])

    def amend(self, position: int, ended: int, *, rolled_back: bool) -> None:
        """Say of a call that its transaction was held open, and ended at `ended`."""
        self.amended[position] = (ended, rolled_back)


class LongAnswers:
    """How much a log keeps of answers that are long. Asked while calls are written, on another thread."""

    __slots__ = ("_answers", "_bytes", "_log", "_seen")

    def __init__(self, log: Log) -> None:
        self._log = log
        self._seen = 0
        self._bytes = 0
        self._answers = set[int]()
        """Those that are read after the load, by identity: calls may share one."""

    def bytes(self) -> int:
        """Those of all values longer than LONG, of the answers written so far."""
        log, end = self._log, len(self._log)
        # Many calls between two looks have short answers, of which a few tell.
        every = 1 + (end - self._seen) // _LOOKED_AT
        for at in range(self._seen, end, every):
            values = log.evidence[at * log.stride : at * log.stride + len(log.evidence_names)]
            outcome = log.outcomes[at]
            if type(outcome) is Answered and id(outcome) not in self._answers:
                self._answers.add(id(outcome))
                values += outcome.row.values()
            self._bytes += every * sum(length for value in values if (length := _length(value)) > LONG)
        self._seen = end
        return self._bytes


def _length(value: Any) -> int:
    """Of a text, of bytes, or of JSON that was read already, as a text; of all else, which is short, 0."""
    if isinstance(value, (dict, list)):
        return len(repr(value))
    return len(value) if isinstance(value, (bytes, str)) else 0


class CallTimes(NamedTuple):
    """What the figures of a run need of a call: neither its key nor its answer. Times as an operation's."""

    client: int
    phase: int
    due: int
    called: int
    returned: int
    outcome: Outcome


class History:
    """All operations of a run, in order of `called`."""

    def __init__(self, logs: Sequence[Log], zero: int = 0, unknown_keys: Sequence[Hashable] = ()) -> None:
        """`zero` is the clock's reading at the start; `unknown_keys` are those that were never created."""
        self.logs = tuple(logs)
        self.zero = zero
        self.unknown_keys = frozenset(unknown_keys)
        self._operations: tuple[Operation, ...] | None = None
        self._unread: Sequence[Mapping[int, Outcome]] | None = None
        """For each log, position -> outcome of a call whose evidence nobody can read; None until all were decoded."""

    def __len__(self) -> int:
        return sum(len(log) for log in self.logs)

    def operations(self) -> tuple[Operation, ...]:
        """Every operation, decoded; worked out once and kept: of very many ask for `stream`."""
        if self._operations is None:
            self._operations = tuple(sorted(self.stream(), key=_NUMBER))
        return self._operations

    def stream(self) -> Iterator[Operation]:
        """Every operation, one key after the other, decoded as they are asked for and not kept."""
        return (operation for key in self.by_key() for operation in key.operations)

    def by_key(self) -> Iterator[KeyHistory]:
        """The operations of each key, keys in order of their first call."""
        return chain.from_iterable(self.batches())

    def batches(self) -> Iterator[list[KeyHistory]]:
        """`by_key`, some thousand operations at a time, decoded as they are asked for and not kept."""
        if self._operations is not None:
            keys: dict[Hashable, list[Operation]] = {}
            for operation in self._operations:
                keys.setdefault(operation.key, []).append(operation)
            yield [KeyHistory(key, key not in self.unknown_keys, mine) for key, mine in keys.items()]
            return
        unread: list[dict[int, Outcome]] = [{} for _ in self.logs]
        for batch in _batches(self.logs):
            operations = self._decoded(batch, unread)
            yield [
                KeyHistory(key := batch.keys[start], key not in self.unknown_keys, operations[start:end])
                for start, end in pairwise(batch.bounds)
            ]
        self._unread = unread

    def calls(self) -> Iterator[CallTimes]:
        """Every call, those of one log after those of another."""
        if self._operations is not None:
            return (CallTimes(o.client, o.phase, o.due, o.called, o.returned, o.outcome) for o in self._operations)
        if self._unread is None:
            for _ in self.batches():
                pass
        assert self._unread is not None
        return chain.from_iterable(
            _calls(log, self.zero, unread) for log, unread in zip(self.logs, self._unread, strict=True)
        )

    def held_phases(self) -> set[int]:
        """The phases in which a transaction was held open, so that calls were made to wait."""
        if self._operations is not None:
            return {operation.phase for operation in self._operations if operation.held}
        return {log.phases[position] for log in self.logs for position in log.amended}

    def _decoded(self, batch: _Batch, unread: Sequence[dict[int, Outcome]]) -> list[Operation]:
        """The batch's operations, in its order."""
        if len(self.logs) == 1:
            return _operations(self.logs[0], self.zero, batch, unread[0])
        firsts = list(accumulate((len(log) for log in self.logs), initial=0))
        whose = [bisect_right(firsts, position) - 1 for position in batch.positions]
        parts = [_Batch([], [], [], []) for _ in self.logs]
        for mine, number, position, key in zip(whose, batch.numbers, batch.positions, batch.keys, strict=True):
            parts[mine].numbers.append(number)
            parts[mine].positions.append(position - firsts[mine])
            parts[mine].keys.append(key)
        made = [
            iter(_operations(log, self.zero, part, found))
            for log, part, found in zip(self.logs, parts, unread, strict=True)
        ]
        return [next(made[mine]) for mine in whose]


class _Batch(NamedTuple):
    """Calls to decode together: all of some keys, one key after the other."""

    numbers: list[int]
    """Each call's place among all of them, in order of `called`."""
    positions: list[int]
    """Its place in the logs, one log after the other."""
    keys: list[Hashable]
    bounds: list[int]
    """Where each key begins, and the end."""


def _batches(logs: Sequence[Log]) -> Iterator[_Batch]:
    called = array("q")
    decoded: list[Hashable] = []
    for log in logs:
        called.extend(log.called)
        decoded += map(log.decode_key, log.keys)
    places = array("q", sorted(range(len(called)), key=called.__getitem__))
    del called
    # Keys are numbered as they are met, so that one object stands for a key from here on.
    met: dict[Hashable, int] = {}
    key_of = array("q", [met.setdefault(decoded[place], len(met)) for place in places])
    del decoded
    keys = list(met)
    del met
    by_key = array("q", sorted(range(len(places)), key=key_of.__getitem__))
    at = 0
    while at < len(by_key):
        end = min(at + _AT_ONCE, len(by_key))
        while end < len(by_key) and key_of[by_key[end]] == key_of[by_key[end - 1]]:
            end += 1
        numbers = list(by_key[at:end])
        whose = [key_of[number] for number in numbers]
        bounds = [0, *(n for n, (one, other) in enumerate(pairwise(whose), 1) if one != other), end - at]
        yield _Batch(numbers, [places[number] for number in numbers], [keys[mine] for mine in whose], bounds)
        at = end


def _operations(log: Log, zero: int, batch: _Batch, unread: dict[int, Outcome]) -> list[Operation]:
    """The log's calls at the batch's positions, with arguments and answers decoded, column by column.

    One expression and the plain tuple's constructor, nothing beside the values that are kept, and no value twice: there
    may be a million of them.
    """
    assert not log.due or len(log.due) == len(log), "a log is of one loop, closed or open"
    amended, in_doubt, new, target, positions = log.amended, Effect.IN_DOUBT, tuple.__new__, log.target, batch.positions
    clients = [log.clients[at] for at in positions]
    outcomes, answers = _answered(log, positions, unread)
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
            batch.numbers,
            clients,
            batch.keys,
            [log.arguments[client][log.variants[at]] for client, at in zip(clients, positions, strict=True)],
            [(log.due or log.called)[at] for at in positions],
            [log.called[at] for at in positions],
            [log.returned[at] for at in positions],
            outcomes,
            answers,
            [log.phases[at] for at in positions],
            [amended.get(at) for at in positions] if amended else repeat(None),
            strict=False,
        )
    ]


def _answered(
    log: Log, positions: Sequence[int], unread: dict[int, Outcome]
) -> tuple[Sequence[Outcome], Sequence[dict[str, Any]]]:
    """The outcome of each call and its evidence columns by name; empty where no answer came.

    The outcomes of calls whose evidence nobody can read are written into `unread` as well.
    """
    names, stride = log.evidence_names, log.stride
    outcomes = [log.outcomes[at] for at in positions]
    nothing = (None,) * len(names)
    columns = [
        log.decode_evidence(column, [log.evidence[at * stride + column] for at in positions])
        for column in range(len(names))
    ]
    none: dict[str, Any] = {}  # one for all calls without an answer
    if not columns:
        return outcomes, [none] * len(positions)
    answers = [none if row == nothing else dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    if any(Unreadable in set(map(type, column)) for column in columns):
        for index, position in enumerate(positions):
            outcome, answers[index] = readable(outcomes[index], answers[index])
            if outcome is not outcomes[index]:
                outcomes[index] = unread[position] = outcome
    return outcomes, answers


def _calls(log: Log, zero: int, unread: Mapping[int, Outcome]) -> Iterator[CallTimes]:
    in_doubt, amended, new = Effect.IN_DOUBT, log.amended, tuple.__new__
    for at, (client, phase, due, called, returned, outcome) in enumerate(
        zip(log.clients, log.phases, log.due or log.called, log.called, log.returned, log.outcomes, strict=False)
    ):
        if at in unread:
            outcome = unread[at]
        held = amended.get(at) if amended else None
        ended = NEVER if outcome.effect is in_doubt else (held[0] if held else returned) - zero
        yield new(CallTimes, (client, phase, due - zero, called - zero, ended, outcome))
