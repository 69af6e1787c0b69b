"""What a pattern knows of a target."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from harness.contracts.contract import Outcome


@dataclass(frozen=True, slots=True)
class Span:
    """When one call ran, by the server's own clock, in microseconds."""

    started: int
    ended: int


class Caller(Protocol):
    """One client's connection, opened and warmed; used by one thread, except `cancel` and `abort`."""

    def call(self, key: Any, variant: int) -> tuple[Outcome, Sequence[Any]]:
        """Call the function once with an encoded key; the outcome and the raw evidence columns.

        A refusal, an SQL error and a lost connection are outcomes; nothing is raised for them.
        """
        ...

    def begin(self) -> bool:
        """Open a transaction that the next call runs in; False where this target has none."""
        ...

    def end(self, *, commit: bool) -> bool:
        """End that transaction; False when its end could not be confirmed."""
        ...

    @property
    def alive(self) -> bool:
        """Whether another call makes sense on this connection."""
        ...

    @property
    def spans(self) -> Sequence[Span | None]:
        """With overlap measured: when each call ran on the server, in order of the calls."""
        ...

    def cancel(self) -> None:
        """Ask the server, from another thread, to give up the call in flight."""
        ...

    def abort(self) -> None:
        """Cut the connection, from another thread, so that the call in flight ends in doubt."""
        ...

    def close(self) -> None: ...


Answer = tuple[Outcome, Sequence[Any]]
"""What a call gives: its outcome and the raw evidence columns."""


@runtime_checkable
class Duplex(Caller, Protocol):
    """A caller whose call can be sent and its answer received apart, so that one thread can serve several."""

    def beside(self, first: Caller) -> None:
        """From now on one thread serves both, so what reads the answers may be shared: it stays in the cache."""
        ...

    def fileno(self) -> int:
        """Of the socket that becomes readable when an answer, or the end of the connection, is there."""
        ...

    def send(self, key: Any, variant: int) -> None:
        """Send the call; what goes wrong is received as its answer."""
        ...

    def receive(self) -> Answer | None:
        """The answer; None while only a part of it is there. Called when the socket is readable."""
        ...


class Target(Protocol):
    """A way to reach the function under test."""

    @property
    def name(self) -> str:
        """`sql`, `http` or `memory`."""
        ...

    def connect(
        self, client: int, arguments: Sequence[Mapping[str, Any]], *, overlap: bool, warm_up: Hashable
    ) -> Caller:
        """Open and warm one client's connection; called by the client's own thread.

        `arguments` are those of each variant, without the key. `warm_up` is a fresh key of this client's own, to warm
        the connection with where that leaves no trace.
        """
        ...

    def encode_key(self, key: Hashable) -> Any:
        """The key as `Caller.call` takes it: encoded once, before the start."""
        ...

    def decode_key(self, raw: Any) -> Hashable: ...

    def decode_evidence(self, raw: Sequence[Any]) -> Sequence[Any]:
        """The evidence columns of one answer as Python values."""
        ...

    def details(self) -> dict[str, Any]:
        """What a record keeps of this target's own, as plain values; asked once, after the run."""
        ...

    def close(self) -> None:
        """End what the target itself holds, such as a pool; callers are closed by whoever opened them."""
        ...
