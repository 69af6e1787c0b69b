"""What PostgREST adds, and that the function does the same through it."""

from collections.abc import Callable

import pytest

from harness.records import RunRecord
from harness.verdict.findings import Truth


@pytest.mark.harness_targets("sql")
def test_the_function_does_the_same_through_postgrest(harness_overhead: Callable[..., RunRecord]) -> None:
    """By SQL, by HTTP and with callers of both, the outcomes are of the same classes, with one winner per ticket."""
    compared = harness_overhead(pairs=6, seconds=0.5, rounds=100)
    assert compared.truth is Truth.HELD, [f for f in compared.findings if f.truth is not Truth.HELD]
