"""What became of the files, in plain lines: for `harness apply`."""

from __future__ import annotations

from collections.abc import Iterator

from harness.environment.applying import Applied


def printable(text: str) -> str:
    """The text with what a terminal would obey made visible."""
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


def lines(applied: Applied) -> Iterator[str]:
    """The report, its sum in the last line."""
    yield f"platform: {applied.platform}; migrations ran as {applied.role}"
    for order in applied.order:
        yield f"order: {order}"
    for each in applied.stand_ins:
        yield f"stand-in: {each.name}: {each.says}"
    for note in applied.notes:
        yield f"note: {printable(note)}"
    for failure in applied.failures:
        yield printable(f"failed: {failure.error}")
    yield f"applied {applied.applied} of {applied.files} files"
