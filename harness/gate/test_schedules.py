"""Two scanners at one ticket, step by step: every order of the statements inside the function, not a lucky one."""

import pytest

from harness.run import Harness


@pytest.mark.harness_targets("sql")
def test_every_order_of_two_calls_holds(harness: Harness) -> None:
    """Two calls, on one ticket and on two of one event, in every argument variant and every order of their steps."""
    result = harness.explore(calls=2, edges=False)
    assert result.verdict.held, result.exploration
    assert result.exploration.exhausted
