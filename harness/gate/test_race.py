"""Ten scanners, one ticket."""

from harness.run import Harness


def test_one_ticket_lets_exactly_one_person_in(harness: Harness) -> None:
    """Scanners released together on one ticket: exactly one gets in, and the others are told correctly."""
    result = harness.race()
    assert result.verdict.held, str(result.verdict)


def test_nine_of_ten_are_refused(harness: Harness) -> None:
    """In every round of ten plain callers on one ticket, one is accepted and nine are refused."""
    result = harness.race(clients=10, rounds=100, mixed=False)
    assert result.verdict.held, str(result.verdict)
    assert result.metrics.counts["successful_scans"] == 100
    assert result.metrics.counts["race_conditions_caught"] == 900
