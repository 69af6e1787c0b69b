"""What became of the files, in plain lines: for `harness apply`."""

from __future__ import annotations

from collections.abc import Iterator

from harness.environment.applied import Applied
from harness.verdict.findings import pluralize

_WHOLE = 40
"""Failures that are shown with their statement."""

_CAUSES = 12
"""Causes that are summed up."""


def lines(applied: Applied) -> Iterator[str]:
    """The report, its sum in the last line; texts of the server as they came."""
    yield f"platform: {applied.platform}; migrations ran as {applied.role}"
    for order in applied.order:
        yield f"order: {order}"
    yield from applied.beside
    for failure in applied.failures[:_WHOLE]:
        yield f"failed: {failure.error}"
    for failure in applied.failures[_WHOLE:]:
        yield f"failed: {failure.path}:{failure.line}: {failure.message}"
    if len(applied.failures) > 1:
        yield "causes:"
        for message, statements, files in applied.causes[:_CAUSES]:
            yield f"  {pluralize(statements, 'statement')} in {pluralize(files, 'file')}: {message}"
        if (more := len(applied.causes) - _CAUSES) > 0:
            yield f"  and {more} more"
    seeds = f" and {applied.seeds[0]} of {applied.seeds[1]} seed files" if applied.seeds[1] else ""
    yield f"applied {applied.applied} of {applied.files} files{seeds}"
