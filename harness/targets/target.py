"""What a pattern knows of a target."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from harness.contracts.contract import Outcome, Unreadable

SLOW = 0.5
"""Seconds of a call from which on warming a connection changes nothing that anybody would notice."""


@dataclass(frozen=True, slots=True)
class Span:
    """When one call ran, by the server's own clock in microseconds, and what its transaction saw of the others."""

    started: int
    ended: int
    """When the function returned; its transaction ended after that."""
    transaction: int | None = None
    """Its transaction's id; None where it has none, having written nothing."""
    running: frozenset[int] = frozenset()
    """The ids below `next_transaction` of the transactions that were in progress when it started."""
    next_transaction: int = 0
    """Transactions from this id on had not ended when it started; 0: not known."""

    def over_before(self, other: Span) -> bool:
        """Whether this call's transaction had ended when `other` started.

        By `other`'s snapshot, the server's own word on who was in progress (manual, "pg_snapshot Components"). The
        clock readings inside the call cannot tell: after them comes the commit, which is most of a short transaction.
        """
        mine = self.transaction
        if mine is None or not other.next_transaction:
            return self.ended <= other.started
        return mine < other.next_transaction and mine not in other.running


class _Decoded(dict[bytes | None, Any]):
    """Values by their bytes, some of them remembered: ten clients name ten scanners a hundred thousand times."""

    _MOST = 256

    def __init__(self, load: Callable[[Any], Any]) -> None:
        super().__init__({None: None})
        self._load = load

    def __missing__(self, raw: bytes | None) -> Any:
        value = self._load(raw)
        if len(self) < self._MOST:
            self[raw] = value
        return value


def decoder(load: Callable[[Any], Any], errors: type[Exception]) -> Callable[[bytes | None], Any]:
    """Loads one value after the other; `Unreadable` where that raises one of the errors."""
    known = _Decoded(load)

    def decode(raw: bytes | None) -> Any:
        try:
            return known[raw]
        except errors as error:
            return Unreadable(str(error))

    return decode


def decoded(load: Callable[[Any], Any], raw: Sequence[Any], errors: type[Exception]) -> list[Any]:
    """Each value loaded; `Unreadable` where that raises one of the errors."""

    def readable(value: Any) -> Any:
        try:
            return load(value)
        except errors as error:
            return Unreadable(str(error))

    try:
        if type(next((value for value in raw if value is not None), None)) is bytes:
            return list(map(_Decoded(load).__getitem__, raw))
        return [None if value is None else load(value) for value in raw]
    except errors:
        return [None if value is None else readable(value) for value in raw]


class Caller(Protocol):
    """One client's connection, opened and warmed; used by one thread at a time, except `cancel` and `abort`."""

    def call(self, key: Any, variant: int) -> tuple[Outcome, Sequence[Any]]:
        """Call the function once with an encoded key; the outcome and the raw evidence and timing columns.

        A refusal, an SQL error and a lost connection are outcomes; nothing is raised for them.
        """
        ...

    def begin(self) -> bool:
        """Open a transaction that the next call runs in; False where this target has none."""
        ...

    def end(self, *, commit: bool) -> bool | None:
        """End that transaction; False when it ended otherwise, None when the connection was lost and nobody knows."""
        ...

    @property
    def began(self) -> int:
        """When the call in flight got a connection, as `time.perf_counter_ns` reads; 0 where it has its own."""
        ...

    @property
    def alive(self) -> bool:
        """Whether another call makes sense on this connection."""
        ...

    def cancel(self) -> None:
        """Ask the server, from another thread, to give up the call in flight."""
        ...

    def abort(self) -> None:
        """Cut the connection, from another thread, so that the call in flight ends in doubt."""
        ...

    def close(self) -> None:
        """Close the connection. Called once, by whoever opened it."""
        ...


Answer = tuple[Outcome, Sequence[Any]]
"""What a call gives: its outcome, and the raw evidence columns followed by the timing ones."""


@runtime_checkable
class Duplex(Protocol):
    """A caller whose call can be sent and its answer received apart, so that one thread can serve several."""

    def beside(self, first: Duplex) -> None:
        """From now on one thread serves both, so what reads the answers may be shared: it stays in the cache."""
        ...

    def fileno(self) -> int:
        """Of the socket that becomes readable when an answer, or the end of the connection, is there."""
        ...

    def send(self, key: Any, variant: int) -> bool:
        """Send the call; False where there is no connection any more. What else goes wrong is received."""
        ...

    def receive(self) -> Any:
        """What came, for `read`; None while only a part of it is there. Called when the socket is readable."""
        ...

    def read(self, received: Any) -> Answer:
        """The answer in what was received: apart, so that it can wait while the next call is on its way."""
        ...


class Target(Protocol):
    """A way to reach the function under test."""

    @property
    def name(self) -> str:
        """`sql`, `http` or `memory`."""
        ...

    @property
    def slow(self) -> bool:
        """Whether warming showed calls longer than `SLOW`: no burst is needed beforehand to know their rate."""
        ...

    def connect(
        self, client: int, arguments: Sequence[Mapping[str, Any]], *, overlap: bool, warm_up: Hashable
    ) -> Caller:
        """Open and warm one client's connection; called by the client's own thread.

        `arguments` are those of each variant, without the key. `warm_up` is a fresh key of this client's own, to warm
        the connection with where that leaves no trace.
        """
        ...

    @property
    def evidence_names(self) -> tuple[str, ...]:
        """Names of the columns that are kept of each answer, in the order in which callers give them."""
        ...

    def encode_key(self, key: Hashable) -> Any:
        """The key as `Caller.call` takes it: encoded once, before the start."""
        ...

    def decode_key(self, raw: Any) -> Hashable:
        """The key as the contract and the history have it, from `encode_key`'s form."""
        ...

    def decode_evidence(self, column: int, raw: Sequence[Any]) -> Sequence[Any]:
        """The values of one evidence column, of many answers, as Python values; `Unreadable` where there is none."""
        ...

    @property
    def timing(self) -> int:
        """How many timing columns the answer has where overlap is measured; 0 where the target cannot."""
        ...

    def span(self, timing: Sequence[Any]) -> Span:
        """What the timing columns of one answer say."""
        ...

    def notes(self) -> Iterator[str]:
        """What a report should say beside the findings, in sentences; asked once, after the run."""
        ...

    def details(self) -> dict[str, Any]:
        """What a record keeps of this target's own, as plain values; asked once, after the run."""
        ...

    def close(self) -> None:
        """End what the target itself holds, such as a pool; callers are closed by whoever opened them."""
        ...
