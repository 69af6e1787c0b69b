"""A caller that makes a call again on some errors, as an application does: after a random pause, from its beginning."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from harness.contracts.contract import Effect, Retry
from harness.targets.target import Answer, Caller


class RetryingCaller:
    """One client; it sleeps between two tries, so it is fired on a thread of its own."""

    def __init__(self, caller: Caller, retry: Retry, made: Counter[str]) -> None:
        """`made` counts the tries after the first, by the SQLSTATE that caused them."""
        self._caller = caller
        self._retry = retry
        self._made = made
        self._held = False

    def call(self, key: Any, variant: int) -> Answer:
        answer = self._caller.call(key, variant)
        for _ in range(0 if self._held else self._retry.most):
            outcome = answer[0]
            if outcome.effect is not Effect.FAILED or outcome.code not in self._retry.sqlstates:
                break
            self._made[str(outcome.code)] += 1
            time.sleep(random.uniform(0, self._retry.pause))  # noqa: S311 - so that two do not meet again
            answer = self._caller.call(key, variant)
        return answer

    def begin(self) -> bool:
        """In a transaction that is held open nothing is tried again: it is the transaction that has failed."""
        self._held = self._caller.begin()
        return self._held

    def end(self, *, commit: bool) -> bool | None:
        self._held = False
        return self._caller.end(commit=commit)

    @property
    def began(self) -> int:
        return self._caller.began

    @property
    def alive(self) -> bool:
        return self._caller.alive

    def cancel(self) -> None:
        self._caller.cancel()

    def abort(self) -> None:
        self._caller.abort()

    def close(self) -> None:
        self._caller.close()


def made_again(tried: Mapping[str, int]) -> Iterator[str]:
    """What a report says of the calls that were made again, by the SQLSTATE that caused it."""
    for code, count in sorted(tried.items()):
        yield f"made again after {code}, as the contract has it: {count} call{'' if count == 1 else 's'}"
