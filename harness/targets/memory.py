"""Target memory: a Python function in place of the database, for unit tests of judgement.

A function with a known bug is enough to show that a judge says so; nothing measured here says anything of Postgres.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

from harness.contracts.contract import FAILED, IN_DOUBT, Contract, Effect, Outcome
from harness.targets.target import Caller, Span

Function = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Takes every argument by name, returns the answer's columns by name; SqlError and ConnectionError become outcomes."""


class SqlError(Exception):
    """What the function raises in place of an error of the server."""

    def __init__(self, sqlstate: str, message: str = "") -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


class MemoryTarget:
    """Calls `function` on a thread for each client."""

    name = "memory"
    slow = False

    def __init__(self, contract: Contract, function: Function) -> None:
        self.contract = contract
        self.function = function
        self.evidence_names = tuple(c.name for c in contract.function.columns if c.evidence)

    def connect(
        self,
        client: int,
        arguments: Sequence[Mapping[str, Any]],
        *,
        overlap: bool,
        warm_up: Hashable,
    ) -> Caller:
        return _MemoryCaller(self, arguments)

    def encode_key(self, key: Hashable) -> Any:
        return key

    def decode_key(self, raw: Any) -> Hashable:
        key: Hashable = raw
        return key

    def decode_evidence(self, column: int, raw: Sequence[Any]) -> Sequence[Any]:
        return raw

    timing = 0

    def span(self, timing: Sequence[Any]) -> Span:
        """Nothing is timed: there is no server."""
        raise NotImplementedError

    def notes(self) -> Iterator[str]:
        """Nothing was looked up."""
        return iter(())

    def details(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        """Nothing is held."""


class _MemoryCaller:
    alive = True
    began = 0

    def __init__(self, target: MemoryTarget, arguments: Sequence[Mapping[str, Any]]) -> None:
        self._target = target
        self._arguments = arguments

    def call(self, key: Any, variant: int) -> tuple[Outcome, Sequence[Any]]:
        target = self._target
        nothing = (None,) * len(target.evidence_names)
        try:
            answer = target.function({target.contract.function.key: key, **self._arguments[variant]})
        except SqlError as error:
            return Outcome(FAILED, Effect.FAILED, error.sqlstate, str(error)), nothing
        except ConnectionError as error:
            return Outcome(IN_DOUBT, Effect.IN_DOUBT, "connection_lost", str(error)), nothing
        labels = {name: value for name, value in answer.items() if name not in target.evidence_names}
        return target.contract.outcome(labels), [answer[name] for name in target.evidence_names]

    def begin(self) -> bool:
        return False

    def end(self, *, commit: bool) -> bool | None:
        return False

    def cancel(self) -> None:
        """A Python function cannot be cancelled."""

    def abort(self) -> None:
        """Nor cut off."""

    def close(self) -> None:
        """Nothing is held."""
