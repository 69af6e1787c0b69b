"""A few attacks of each kind; `python -m tests.chaos` makes hundreds."""

from __future__ import annotations

import random

import pytest

from harness.environment.embedded import EmbeddedServer
from tests.chaos.attacks import Chaos
from tests.conftest import Sandbox


@pytest.fixture
def chaos(sandbox: Sandbox, server: EmbeddedServer, request: pytest.FixtureRequest) -> Chaos:
    return Chaos(sandbox, server, random.Random(request.node.name))


@pytest.mark.parametrize("number", range(6))
def test_a_signal_at_any_moment_ends_a_run_and_leaves_nothing(number: int, chaos: Chaos) -> None:  # noqa: ARG001
    """Exit status 130 or 143, no traceback, an undecided record; neither processes nor folders nor databases."""
    chaos.signal()


@pytest.mark.parametrize("number", range(3))
def test_what_sigkill_leaves_is_taken_away(number: int, chaos: Chaos) -> None:  # noqa: ARG001
    """By the guardian, or on somebody's server by `harness clean`."""
    chaos.sigkill()


def test_killed_backends_break_no_claim(chaos: Chaos) -> None:
    """Their calls are lost, and counted; the function is not blamed."""
    chaos.kill_backends(5)


def test_a_killed_server_is_the_environments_fault(chaos: Chaos) -> None:
    """Exit status 3, in every command."""
    chaos.kill_server()


def test_a_frozen_server_ends_the_run(chaos: Chaos) -> None:
    """It answers nobody, and nobody waits for it for ever."""
    chaos.freeze_server()


@pytest.mark.parametrize("number", range(2))
def test_outputs_that_take_nothing_get_a_sentence(number: int, chaos: Chaos) -> None:  # noqa: ARG001
    """Full, or closed."""
    chaos.outputs()
