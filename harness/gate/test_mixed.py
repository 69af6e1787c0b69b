"""An evening at the gate: people arrive when they arrive, and some show a ticket that was shown before."""

from harness.run import Harness


def test_arrivals_with_duplicates_stay_fast_and_right(harness: Harness) -> None:
    """Poisson arrivals, 5 % of them with a duplicate: latency from the due time, and no one gets in twice."""
    result = harness.arrivals(rate=200, duration=2, duplicates=0.05)
    assert result.verdict.held, str(result.verdict)
    assert result.metrics.counts["race_conditions_caught"] > 0
