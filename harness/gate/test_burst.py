"""Ten scanners, ten different tickets at once."""

from harness.run import Harness


def test_everyone_with_an_own_ticket_gets_in_fast(harness: Harness) -> None:
    """Distinct tickets scanned at once all get in, with p(95) under 200 ms and near-zero errors."""
    result = harness.burst()
    assert result.verdict.held, str(result.verdict)
    assert result.metrics.counts["accepted"] == result.metrics.calls
