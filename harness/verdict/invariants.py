"""What the database said to the invariants, judged."""

from __future__ import annotations

from harness.contracts.invariants import Invariant, Violations
from harness.verdict.findings import Finding, Truth, pluralize

_LIMIT = "0 rows"


def judge(invariant: Invariant, found: Violations) -> Finding:
    """Broken by the rows that violate it; undecided where it was not answered."""
    name, claim = f"invariant.{invariant.name}", invariant.claim
    place = f"{invariant.path}:{invariant.line}"
    if found.unanswered:
        observed = f"the database could not be asked: {found.unanswered}"
        return Finding(name, claim, Truth.UNDECIDED, observed, _LIMIT)
    if found.waited is not None:
        remedy = f"See what the query at {place} waits for, or let it read less."
        return Finding(name, claim, Truth.UNDECIDED, f"no answer within {found.waited:g} s", _LIMIT, remedy=remedy)
    if not found.count:
        return Finding(name, claim, Truth.HELD, "0 rows violate it", _LIMIT)
    remedy = f"The rows are those of the query at {place}; look at who writes these tables."
    return Finding(
        name,
        claim,
        Truth.BROKEN,
        f"{pluralize(found.count, 'row')} violate{'s' if found.count == 1 else ''} it",
        _LIMIT,
        found.rows,
        remedy,
    )
