"""What the pictures of a run are drawn from."""

from __future__ import annotations

from harness.verdict import charts
from harness.verdict.findings import Finding, Truth
from tests.histories import call, history


def test_every_call_that_ended_is_in_one_interval_of_its_outcome_and_client() -> None:
    """The sums over time are those of the run; percentiles rise from the fastest to the slowest."""
    made = history(*(call("accepted" if n % 3 else "busy", n, n + 5, client=n % 4) for n in range(500)))
    found = charts.measure(made.calls(), sorted(float(n) for n in range(500)))
    assert {label: sum(each) for label, each in found.outcomes.items()} == {"accepted": 333, "busy": 167}
    assert {client: sum(each) for client, each in found.clients.items()} == dict.fromkeys("0123", 125)
    assert all(len(each) == charts.BINS for each in found.outcomes.values())
    assert found.percentiles[0] == 0
    assert found.percentiles[-1] == 499
    assert list(found.percentiles) == sorted(found.percentiles)


def test_no_call_makes_no_points() -> None:
    """An interrupted run that made none still has a record."""
    found = charts.measure((), ())
    assert (found.percentiles, found.outcomes, found.clients, found.round) == ((), {}, {}, ())


def test_the_round_that_breaks_a_claim_is_the_one_that_is_drawn() -> None:
    """Else the one with most calls at once; else none."""
    broken = Finding("a", "A.", Truth.BROKEN, "no", evidence=({"reason": "x", "operations": [{"phase": 7}]},))
    assert charts.telling_round([broken], {1: 2, 3: 9}) == 7
    assert charts.telling_round([], {1: 2, 3: 9}) == 3
    assert charts.telling_round([], {}) is None
