"""Scenarios that are shipped: twelve trades, each broken and mended, and the anomalies of Hermitage."""

from __future__ import annotations

from pathlib import Path

from harness.errors import UsageError
from harness.scenarios.scenario import SUFFIX

FOLDER = Path(__file__).parent


def names() -> tuple[str, ...]:
    """What `harness new --example` can copy."""
    return tuple(sorted(path.name.removesuffix(SUFFIX) for path in FOLDER.glob(f"*{SUFFIX}")))


def text(name: str) -> str:
    """One of them. Raises UsageError with their names for one that is not there."""
    if name not in names():
        raise UsageError(f"No scenario {name!r} is shipped.", next_step=f"give one of {', '.join(names())}")
    return (FOLDER / f"{name}{SUFFIX}").read_text(encoding="utf-8")
