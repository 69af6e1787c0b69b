"""Statements of an identity on a real server: what PostgREST would set is set, for as long as it should be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from harness.environment.database import Database
from harness.environment.embedded import EmbeddedServer
from harness.environment.identity import Identity
from harness.environment.servers import connect
from harness.errors import HarnessError

ROLE = "harness_test_clerk"

ALWAYS = f"""
CREATE ROLE {ROLE};
ALTER ROLE {ROLE} SET statement_timeout = '7s';
ALTER ROLE {ROLE} SET lock_timeout = '3s';
ALTER ROLE {ROLE} SET log_min_duration_statement = '1h';
ALTER ROLE {ROLE} SET search_path = "Odd, one", public;
ALTER ROLE {ROLE} SET app.desk = 'it''s 4';
ALTER ROLE {ROLE} SET default_transaction_isolation = 'repeatable read';
"""


@pytest.fixture(scope="module", autouse=True)
def role(server: EmbeddedServer) -> Iterator[None]:
    with connect(server.dsn) as connection:
        connection.execute(ALWAYS)
        yield
        connection.execute(f"DROP ROLE {ROLE}")


@pytest.fixture
def clerk(database: Database) -> Iterator[psycopg.Connection[Any]]:
    with database.connect() as connection:
        connection.execute(f"ALTER ROLE {ROLE} IN DATABASE {database.name} SET lock_timeout = '4s'")
        yield connection
        connection.execute(f"ALTER ROLE {ROLE} IN DATABASE {database.name} RESET lock_timeout")


def now(connection: psycopg.Connection[Any], *names: str) -> list[str]:
    return [str(connection.execute("SELECT current_setting(%s, true)", [name]).fetchone()[0]) for name in names]  # type: ignore[index]


SHOWN = ("role", "statement_timeout", "lock_timeout", "search_path", "app.desk", "log_min_duration_statement")
APPLIED = [ROLE, "7s", "4s", '"Odd, one", public', "it's 4", "1h"]


def test_a_transaction_runs_with_the_roles_own_settings(clerk: psycopg.Connection[Any]) -> None:
    """SET ROLE alone does not apply them; those for this database beat the role's others; all end with it."""
    before = now(clerk, *SHOWN)
    statements = Identity(ROLE, {"sub": "a"}).statements(clerk)
    clerk.execute(statements.begin.encode())
    assert now(clerk, *SHOWN) == APPLIED
    assert now(clerk, "request.jwt.claims", "transaction_isolation") == [
        f'{{"role": "{ROLE}", "sub": "a"}}',
        "repeatable read",
    ]
    clerk.execute("COMMIT")
    assert now(clerk, *SHOWN[:4]) == before[:4]
    assert now(clerk, "request.jwt.claims") == [""]


def test_nothing_is_read_before_the_transactions_own_first_statement(
    clerk: psycopg.Connection[Any], database: Database
) -> None:
    """What somebody commits after BEGIN is still seen at repeatable read, and SET TRANSACTION may still come."""
    statements = Identity(ROLE, {}, settings={"search_path": "public", "temp_tablespaces": ""}).statements(clerk)
    clerk.execute(f"BEGIN; {statements.local}".encode())
    clerk.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
    with database.connect() as other:
        other.execute("CREATE TABLE meanwhile AS SELECT 1 AS n")
        other.execute(f"GRANT SELECT ON meanwhile TO {ROLE}")
    assert clerk.execute("SELECT n FROM meanwhile").fetchone() == (1,)
    clerk.execute("ROLLBACK")


def test_what_cannot_run_in_a_block_has_it_for_the_session_and_no_longer(clerk: psycopg.Connection[Any]) -> None:
    """A procedure that commits, for one: set before it, reset after it."""
    before = now(clerk, *SHOWN[:4], "transaction_isolation")
    statements = Identity(ROLE, settings={"lock_timeout": "9s"}).statements(clerk)
    clerk.execute(statements.session.encode())
    assert now(clerk, *SHOWN) == [ROLE, "7s", "9s", '"Odd, one", public', "it's 4", "1h"]
    assert now(clerk, "transaction_isolation") == ["repeatable read"]
    clerk.execute(statements.reset.encode())
    assert now(clerk, *SHOWN[:4], "transaction_isolation") == before


def test_the_owner_has_settings_and_claims_too(clerk: psycopg.Connection[Any]) -> None:
    """Without a role only what was asked for changes."""
    statements = Identity(claims={"sub": "a"}, isolation="serializable", settings={"work_mem": "5MB"}).statements(clerk)
    assert statements.bypasses_policies
    clerk.execute(statements.begin.encode())
    shown = now(clerk, "role", "request.jwt.claims", "transaction_isolation", "work_mem")
    assert shown == ["none", '{"sub": "a"}', "serializable", "5MB"]
    clerk.execute("ROLLBACK")
    nothing = Identity().statements(clerk)
    assert (nothing.begin, nothing.local, nothing.session, nothing.reset) == ("BEGIN", "", "", "")


@pytest.mark.parametrize(
    ("identity", "what"),
    [
        (Identity("nobody_at_all"), "There is no role 'nobody_at_all'"),
        (
            Identity(settings={"statement_timeout": "soon"}),
            "does not let anything run as the owner, statement_timeout=soon",
        ),
        (Identity(settings={"no_such_setting": "1"}), "does not let anything run"),
    ],
)
def test_what_the_server_does_not_take_is_said_before_anything_runs(
    identity: Identity, what: str, clerk: psycopg.Connection[Any]
) -> None:
    """With what was tried, and the connection stays of use."""
    with pytest.raises(HarnessError, match=what):
        identity.statements(clerk)
    assert now(clerk, "role") == ["none"]


def test_a_session_that_may_not_take_a_role_says_so(clerk: psycopg.Connection[Any]) -> None:
    """Also a role's own settings that only a superuser may make are left out, and named."""
    clerk.execute("CREATE ROLE harness_test_porter")
    try:
        clerk.execute("SET SESSION AUTHORIZATION harness_test_porter")
        with pytest.raises(HarnessError, match=f"The role '{ROLE}' may not be taken"):
            Identity(ROLE).statements(clerk)
        clerk.execute("RESET SESSION AUTHORIZATION")
        clerk.execute(f"GRANT {ROLE} TO harness_test_porter")
        clerk.execute("SET SESSION AUTHORIZATION harness_test_porter")
        statements = Identity(ROLE).statements(clerk)
        assert statements.left_out == ("log_min_duration_statement",)
        assert not statements.bypasses_policies
    finally:
        clerk.execute("RESET SESSION AUTHORIZATION")
        clerk.execute("DROP ROLE harness_test_porter")
