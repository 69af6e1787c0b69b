"""A ticket that was scanned before, and one that nobody sold."""

from harness.run import Harness


def test_a_scanned_ticket_is_refused_with_the_true_winner(harness: Harness) -> None:
    """Every second scan is refused, and names the scanner who was first."""
    result = harness.rescan()
    assert result.verdict.held, str(result.verdict)
    assert result.metrics.counts["already_scanned"] == result.metrics.counts["accepted"]
    refused = [o for o in result.history.operations() if o.outcome.label == "already_scanned"]
    assert all(o.answer["scanned_by"] for o in refused), "somebody was not told who was first"


def test_an_unknown_ticket_is_not_found(harness: Harness) -> None:
    """A ticket that is not in the database is refused as not found."""
    result = harness.unknown()
    assert result.verdict.held, str(result.verdict)
    assert result.metrics.counts["not_found"] == result.metrics.calls
