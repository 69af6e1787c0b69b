"""A user's project to run the two faces on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.conftest import Sandbox

EXAMPLE = Path(__file__).parent / "example"


@pytest.fixture
def example(sandbox: Sandbox) -> Path:
    """A copy of the example project: its own migrations, a seed, and one test of three lines."""
    return Path(shutil.copytree(EXAMPLE, sandbox.tmp / "example"))


# The example's own test is run by pytest in the copy, with the options that a user gives.
collect_ignore = ["example"]
