"""`harness doctor`: what is there, what is not, and what to do, with a status that says whether a run can be made."""

from __future__ import annotations

from harness.environment.embedded import EmbeddedServer
from harness.errors import ExitStatus
from tests.conftest import Sandbox


def test_what_is_there_is_said_and_what_is_not_has_a_remedy(sandbox: Sandbox) -> None:
    """The embedded server boots; no Docker engine answers, which --server auto can do without."""
    done = sandbox.run("harness", "doctor", cwd=sandbox.tmp, DOCKER_HOST="unix:///nowhere")
    assert done.returncode == ExitStatus.HELD, done.stdout + done.stderr
    assert "✓ embedded server          PostgreSQL 18" in done.stdout
    assert "- docker engine            no engine answers" in done.stdout
    assert "next: start Docker" in done.stdout
    assert "- migrations               none at sql/migrations, supabase/migrations" in done.stdout
    assert sandbox.left_behind() == []


def test_what_is_asked_for_and_not_there_is_an_environment_that_fails(sandbox: Sandbox) -> None:
    """A container without an engine; a server that does not answer; a PostgREST that is none."""
    done = sandbox.run("harness", "doctor", "--server", "container", DOCKER_HOST="unix:///nowhere")
    assert done.returncode == ExitStatus.ENVIRONMENT
    assert "✗ docker engine" in done.stdout
    words = ("--server", "postgresql://me:s3cret@127.0.0.1:1/x", "--http", "--postgrest", "/nowhere")
    done = sandbox.run("harness", "doctor", *words)
    assert done.returncode == ExitStatus.ENVIRONMENT
    assert "✗ server                   No connection to user=me dbname=x host=127.0.0.1 port=1." in done.stdout
    assert "✗ postgrest                --postgrest /nowhere is not an executable file." in done.stdout
    assert "s3cret" not in done.stdout + done.stderr
    done = sandbox.run(
        "harness", "doctor", "--server", "embedded", "--migrations", "sql/migrations", "--migrations", "/no"
    )
    assert done.returncode == ExitStatus.ENVIRONMENT
    assert "✗ migrations               none at /no\n" in done.stdout
    assert "Traceback" not in done.stderr


def test_the_rights_on_a_dsn_are_told(server: EmbeddedServer, sandbox: Sandbox) -> None:
    """Version, role, what it may, how many connections are free."""
    done = sandbox.run("harness", "doctor", "--server", server.dsn)
    assert done.returncode == ExitStatus.HELD, done.stdout + done.stderr
    assert "is superuser; " in done.stdout
    assert "connections are free" in done.stdout
