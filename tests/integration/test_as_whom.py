"""Calls are made as a role with claims, at an isolation level, with settings and retries."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import Contract, Function, Retry, UpTo, at_least_one, at_most, others_refused
from harness.contracts import asked_for
from harness.environment.database import Template
from harness.environment.embedded import EmbeddedServer
from harness.environment.identity import Identity
from harness.environment.roles import SupabaseRoles
from harness.errors import HarnessError, UsageError
from harness.options import Options
from harness.run import Harness
from harness.verdict.findings import Truth

LOCKERS = Path(__file__).parent / "shapes" / "lockers.sql"
POLICIES = "row-level policies of public.lockers held nobody back"


def locker(function: str, **more: Any) -> Contract:
    return Contract(
        name=function,
        function=Function(function, key="p_locker"),
        new_keys="harness.new_lockers",
        classify=lambda row: "accepted" if row[function] else "refused",
        model=UpTo(1),
        claims=(at_most(1), at_least_one(), others_refused()),
        **more,
    )


def customer(client: int) -> Identity:
    return Identity("authenticated", {"sub": f"00000000-0000-0000-0000-{client + 1:012}"})


@pytest.fixture(scope="module")
def lockers(server: EmbeddedServer) -> Iterator[Callable[[Contract], Harness]]:
    image = os.environ.get("HARNESS_POSTGREST_IMAGE", Options().postgrest_image)
    options = Options(migrations=(LOCKERS,), seed=(), postgrest_image=image)
    with SupabaseRoles(server), Template(server, [LOCKERS], []) as template:
        yield lambda contract: Harness(options, contract, server, template)


@pytest.mark.parametrize("pool", [None, 4])
def test_policies_hold_for_a_role_with_claims(lockers: Callable[[Contract], Harness], pool: int | None) -> None:
    """The function relies on row-level security, and holds for those whom that security is for."""
    harness = lockers(locker("claim_locker", identity=customer))
    object.__setattr__(harness, "options", Options(migrations=(LOCKERS,), seed=(), pool_size=pool))
    for result in (harness.race(clients=4, rounds=24), harness.burst(clients=3, calls=10)):
        assert not result.verdict.broken, result.verdict
        assert not [note for note in result.record.notes if POLICIES in note]
    if pool is None:
        assert harness.race(clients=4, rounds=24).record.overlap.overlapped >= 1


def test_a_run_that_passes_policies_by_says_so(lockers: Callable[[Contract], Harness]) -> None:
    """As the owner the function breaks, and the report says whom nobody held back, and how to call as a user."""
    result = lockers(locker("claim_locker")).race(clients=4, rounds=12)
    assert result.verdict["at_most_applied"].truth is Truth.BROKEN
    [note] = [note for note in result.record.notes if POLICIES in note]
    assert "--run-as ROLE" in note
    bypassing = lockers(locker("claim_locker", identity=Identity("service_role"))).burst(clients=2, calls=2)
    assert [note for note in bypassing.record.notes if "a role that bypasses them" in note or "42501" in note] or (
        bypassing.verdict["no_unhandled_error"].truth is Truth.BROKEN  # it was granted nothing here
    )


def test_explore_calls_as_the_same_role(lockers: Callable[[Contract], Harness]) -> None:
    """Held as a customer; as the owner the same orders break it."""
    assert not lockers(locker("claim_locker", identity=customer)).explore(seconds=30).verdict.broken
    assert lockers(locker("claim_locker")).explore(seconds=30).verdict["at_most_applied"].truth is Truth.BROKEN


def test_what_the_command_line_asks_for_is_what_a_call_sees(lockers: Callable[[Contract], Harness]) -> None:
    """Role, claims of each client's own, level and settings, in each call's own transaction."""
    options = Options(
        contract="tests.integration.test_as_whom:SEEN",
        run_as='authenticated {"sub": ":client"}',
        isolation="repeatable read",
        setting=("lock_timeout=3s",),
    )
    result = lockers(asked_for(options)).race(clients=2, rounds=4, mixed=False)
    seen = {(o.client, o.answer["settings_seen"]) for o in result.history.operations() if o.phase > 0}
    assert seen == {
        (client, f"authenticated 00000000-0000-0000-0000-{client + 1:012} repeatable read 3s") for client in (0, 1)
    }


SEEN = locker("settings_seen")


@pytest.mark.usefixtures("binary")
def test_through_postgrest_a_token_makes_each_client_the_same_person(lockers: Callable[[Contract], Harness]) -> None:
    """Role and claims of the contract go into the token, so that policies hold over HTTP as they do by SQL."""
    result = lockers(locker("claim_locker", identity=customer)).race(clients=3, rounds=6, target="http")
    assert not result.verdict.broken, result.verdict
    seen = lockers(locker("settings_seen", identity=customer)).race(clients=2, rounds=2, mixed=False, target="http")
    assert {(o.client, o.answer["settings_seen"]) for o in seen.history.operations() if o.phase > 0} == {
        (client, f"authenticated 00000000-0000-0000-0000-{client + 1:012} read committed 0") for client in (0, 1)
    }


@pytest.mark.usefixtures("binary")
@pytest.mark.parametrize(
    ("identity", "says"),
    [
        (Identity("authenticated", isolation="serializable"), "PostgREST gives a call no isolation level"),
        (Identity(settings={"lock_timeout": "1s"}), "PostgREST gives a call no setting lock_timeout"),
    ],
)
def test_what_no_token_can_say_is_refused_over_http(
    identity: Identity, says: str, lockers: Callable[[Contract], Harness]
) -> None:
    """Nothing of a contract is dropped in silence: an isolation level and settings are the role's own there."""
    with pytest.raises(UsageError, match=says) as caught:
        lockers(locker("claim_locker", identity=identity)).race(clients=2, rounds=1, target="http")
    assert "ALTER ROLE" in caught.value.next_step


def test_a_conflict_is_tried_again(lockers: Callable[[Contract], Harness]) -> None:
    """Reading and then writing is right at serializable, where whoever conflicts comes again, and is counted."""
    serial = Identity(isolation="serializable")
    patient = lockers(locker("claim_by_hand", identity=serial, retry=Retry(("40001",), most=20))).race(
        clients=3, rounds=36
    )
    assert not patient.verdict.broken, patient.verdict
    assert [note for note in patient.record.notes if "made again after 40001" in note]
    impatient = lockers(locker("claim_by_hand", identity=serial)).race(clients=3, rounds=36)
    assert impatient.verdict["no_unhandled_error"].truth is Truth.BROKEN
    careless = lockers(locker("claim_by_hand")).race(clients=3, rounds=36)
    assert careless.verdict["at_most_applied"].truth is Truth.BROKEN


@pytest.mark.parametrize(
    ("options", "kind", "says"),
    [
        ({"run_as": "nobody_of_that_name"}, HarnessError, "There is no role 'nobody_of_that_name'"),
        ({"run_as": "two words"}, UsageError, "is neither a role"),
        ({"setting": ("work_mem=much",)}, HarnessError, "does not let anything run as the owner, work_mem=much"),
        ({"contract_option": ("door=1",)}, UsageError, "has no option 'door'"),
    ],
)
def test_what_cannot_be_asked_for_is_said(
    options: dict[str, Any], kind: type[HarnessError], says: str, lockers: Callable[[Contract], Harness]
) -> None:
    """Before a call is made."""
    with pytest.raises(kind, match=says):
        lockers(asked_for(Options(contract="tests.integration.test_as_whom:SEEN", **options))).burst(clients=1, calls=1)
