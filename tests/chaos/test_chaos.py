"""A few attacks of each kind; `python -m tests.chaos` makes hundreds."""

from __future__ import annotations

import os
import random

import pytest

from harness.environment.container import why_not
from harness.environment.embedded import EmbeddedServer
from harness.environment.postgrest import FETCHED
from tests.chaos.attacks import COMMANDS, Chaos
from tests.conftest import Sandbox


@pytest.fixture
def chaos(sandbox: Sandbox, server: EmbeddedServer, request: pytest.FixtureRequest) -> Chaos:
    return Chaos(sandbox, server, random.Random(request.node.name), patience=1.5)


@pytest.mark.parametrize("number", range(6))
def test_a_signal_at_any_moment_ends_a_run_and_leaves_nothing(number: int, chaos: Chaos) -> None:  # noqa: ARG001
    """Exit status 130 or 143, no traceback, an undecided record; neither processes nor folders nor databases."""
    chaos.signal()


@pytest.mark.parametrize("number", range(2))
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
    chaos.freeze_server(COMMANDS[0])  # the others wait for longer, by default


@pytest.mark.parametrize("number", range(2))
def test_outputs_that_take_nothing_get_a_sentence(number: int, chaos: Chaos) -> None:  # noqa: ARG001
    """Full, or closed."""
    chaos.outputs()


@pytest.mark.skipif(not FETCHED.exists(), reason="no PostgREST: make postgrest")
def test_a_killed_postgrest_is_the_environments_fault(chaos: Chaos) -> None:
    """Exit status 3, its login role is dropped, and nobody is blamed for the calls that it took along."""
    chaos.kill_postgrest()


def test_a_killed_container_is_the_environments_fault(chaos: Chaos) -> None:
    """Killed or paused: exit status 3, and the container is removed."""
    image = os.environ.get("HARNESS_POSTGRES_IMAGE", "postgres:17")
    reason = why_not(image)
    if reason is not None and os.environ.get("HARNESS_REQUIRE_CONTAINER"):
        pytest.fail(reason)
    if reason is not None:
        pytest.skip(f"needs Docker and the image {image}: {reason}")
    chaos.kill_container()


def test_a_full_disk_is_said(chaos: Chaos) -> None:
    """In a sentence, and nothing is left on it."""
    if chaos.fill_disk().startswith("skipped"):
        pytest.skip("only root may mount a small disk")
