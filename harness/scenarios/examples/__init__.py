"""Scenarios that are shipped: twelve trades, each broken and mended, and the anomalies of Hermitage."""

from __future__ import annotations

from pathlib import Path

from harness.scenarios.reader import SUFFIX

FOLDER = Path(__file__).parent


def names() -> tuple[str, ...]:
    """What `harness new --example` can copy."""
    return tuple(sorted(path.name.removesuffix(SUFFIX) for path in FOLDER.glob(f"*{SUFFIX}")))
