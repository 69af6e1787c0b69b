"""Fixtures that several tests share: one embedded server for the whole session, and a `Harness` on it in no time."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from psycopg import sql

from harness import Contract, contracts
from harness.environment.container import ContainerServer
from harness.environment.database import Database, Template
from harness.environment.embedded import EmbeddedServer
from harness.environment.postgrest import find_binary
from harness.environment.roles import SupabaseRoles
from harness.environment.servers import Server, connect
from harness.errors import HarnessError
from harness.load import patterns
from harness.options import Options
from harness.run import Harness
from harness.scenarios import loads

ROOT = Path(__file__).parent.parent
MIGRATIONS = ROOT / "sql" / "migrations"
SEED = ROOT / "sql" / "seed"

MakeHarness = Callable[..., Harness]


EVERY_VERSION = {
    "test_apply.py": ["a_project_gets_in", "a_clone_has_what", "a_copy_of_a_clone", "migrations_run_without"],
    "test_given_database.py": ["it_is_filled_for_each_run"],
    "test_restore.py": [
        "rows_and_sequences_are_put_back_in_place[types", "rows_and_sequences_are_put_back_in_place[partitions",
        "what_rows_cannot_put_back_is_put_back_by_a_clone[a new table",
    ],
    "test_identity.py": ["a_transaction_runs_with", "nothing_is_read_before"],
    "test_as_whom.py": ["policies_hold_for_a_role_with_claims[None"],
    "test_shapes.py": [
        f"any_shape_is_called_as_it_is[{shape}]" for shape in ("ranges", "a composite row", "a procedure that commits")
    ],
    "test_broken_functions.py": ["a_broken_function_is_found_out[no_guard-race"],
    "test_steps_keep_meaning.py": [""],
    "test_schedules.py": [
        "a_broken_function_is_found_at_its_shortest_schedule[check_then_act", "hand_counted_schedules",
        "a_correct_function_holds_exhausted[guarded_update",
    ],
    "test_sessions_explored.py": ["steps_are_the_statements", "functions_are_put_back"],
    "test_check.py": [
        f"what_happens_together_is_called_what_it_is[{case}" for case in ("check then act", "row lock", "write skew")
    ],
    "test_now.py": ["every_way_to_ask_for_the_time", "what_reads_the_real_clock"],
    "test_http.py": ["every_pattern_holds_through_postgrest[race"],
}  # fmt: skip
"""What CI runs on PostgreSQL 15 as well, by how its name begins: of each floor what speaks to the server in a way that
versions may differ in (catalogue, statistics, locks, PL/pgSQL's own words, roles), and one verdict of each kind. All of
them take as long there as on 18: `make test-15` does that."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On another version only what runs on the session's server is worth running again."""
    for item in items:
        begins = EVERY_VERSION.get(item.path.name, [])
        if item.path.parent.name == "integration" and item.name.startswith(tuple(f"test_{each}" for each in begins)):
            item.add_marker("every_version")
    if os.environ.get("HARNESS_TEST_IMAGE"):
        kept = [item for item in items if "server" in getattr(item, "fixturenames", ()) and not _of_embedded(item)]
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept


OF_EMBEDDED = {
    "test_embedded.py": [""],
    "test_own_server.py": [""],
    "test_servers.py": ["the_embedded_server_is", "a_dsn_may_be_spelled"],
    "test_apply.py": ["stand_ins_keep_what_they_promise", "an_extension_that_the_dashboard"],
    "test_way_to_the_server.py": ["pgbouncer"],
    "test_quick.py": ["two_locks_in_two_orders_meet_in"],
    "test_bad_input.py": ["a_server_that_cannot_create_a_database"],
    "test_http.py": [
        "answers_are", "warming", "a_race_is_timed", "an_sqlstate", "postgrest_runs", "an_answer", "a_token",
        "a_function", "a_pool", "a_call_whose", "the_functions_own_time",
    ],
    "test_http_overload.py": [""], "test_overhead.py": [""], "test_postgrest.py": [""], "test_staging.py": [""],
}  # fmt: skip
"""What is the embedded server's own: its processes and how they are scheduled, its files, its DSN, the binary of
PostgREST beside it; and what goes by the extensions that a server has. Through PostgREST's container every pattern is
run on another version all the same.
"""


def _of_embedded(item: pytest.Item) -> bool:
    begins = OF_EMBEDDED.get(item.path.name, [])
    return item.name.startswith(tuple(f"test_{each}" for each in begins))


@pytest.fixture(autouse=True, scope="session")
def ctrl_c_counts() -> Iterator[None]:
    """A shell that starts these tests in the background has them ignore Ctrl-C, and tests raise it here."""
    before = signal.getsignal(signal.SIGINT)
    if before == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A server, booted once: embedded, or a container of the image that HARNESS_TEST_IMAGE names, of another version.

    Tests that stop a server boot their own. It waits for the disk, as a user's does: without that calls hardly meet.
    """
    if not (image := os.environ.get("HARNESS_TEST_IMAGE")):
        with EmbeddedServer() as booted:
            yield booted
        return
    with ContainerServer(image) as container:
        with connect(container.dsn) as connection:  # roles that tests make have no passwords
            (path,) = connection.execute("SHOW hba_file").fetchone() or ("",)
            trust = sql.SQL("COPY (VALUES ('local all all trust'), ('host all all all trust')) TO {}")
            connection.execute(trust.format(sql.Literal(path)))
            connection.execute("ALTER SYSTEM SET timezone = 'UTC'")  # Debian's is called Etc/UTC
            connection.execute("SELECT pg_reload_conf()")
        yield container


@pytest.fixture(scope="session")
def template(server: Server) -> Iterator[Template]:
    """The shipped migrations and seed."""
    with Template(server, [MIGRATIONS], [SEED]) as built:
        yield built


@contextmanager
def loaded(server: Server, file: Path) -> Iterator[tuple[Contract, Template]]:
    """The load that a file declares, and a template with the setup of that file and nothing else."""
    contract = loads.asked_for(Options(contract=str(file)))
    assert contract.declared is not None
    assert contract.declared.setup is not None
    template = Template(server, [], [])
    template.seeds = (contract.declared.setup,)
    with template:
        yield contract, template


@pytest.fixture
def database(template: Template) -> Iterator[Database]:
    """A fresh database with the shipped migrations and seed."""
    with template.clone() as cloned:
        yield cloned


@pytest.fixture
def make_harness(server: Server, template: Template) -> Iterator[MakeHarness]:
    """Builds a `Harness` without a boot: on the session's server, or on one that is given."""
    with ExitStack() as stack:

        def make(
            *more: Path,
            migrations: Sequence[Path] = (MIGRATIONS,),
            seed: Sequence[Path] = (SEED,),
            contract: Contract | None = None,
            on: Server | None = None,
            **options: object,
        ) -> Harness:
            """`more` are migrations applied after the others."""
            load = {option.name: options.pop(option.name) for option in patterns.options() if option.name in options}
            image = os.environ.get("HARNESS_POSTGREST_IMAGE", Options().postgrest_image)
            plain = Options(migrations=(*migrations, *more), seed=tuple(seed), load=load, postgrest_image=image)
            wanted = replace(plain, **options)  # type: ignore[arg-type]
            shipped = on is None and wanted.migrations == (MIGRATIONS,) and wanted.seed == (SEED,)
            built = template if shipped else stack.enter_context(Template(on or server, wanted.migrations, wanted.seed))
            return Harness(wanted, contract or contracts.asked_for(wanted), on or server, built)

        yield make


@pytest.fixture(scope="session")
def binary() -> Path:
    """PostgREST, for tests that start one; where there is none they are skipped, and say why."""
    try:
        return find_binary()
    except HarnessError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def roles(server: EmbeddedServer, binary: Path) -> Iterator[None]:  # noqa: ARG001 - skips without it
    """The roles that PostgREST acts as, on the session's server."""
    with SupabaseRoles(server):
        yield


@pytest.fixture
def databases(server: Server) -> Callable[[], set[str]]:
    """The names of all databases on the session's server: equal before and after, if nothing is left behind."""

    def names() -> set[str]:
        with connect(server.dsn) as connection:
            return {str(row[0]) for row in connection.execute("SELECT datname FROM pg_database").fetchall()}

    return names


def _heeds_signals() -> None:
    """Whatever started these tests may ignore Ctrl-C or a hang-up (nohup), and a child would inherit that."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@dataclass(frozen=True)
class Sandbox:
    """A folder that is a process's TMPDIR: whatever a command leaves on the machine, it leaves there."""

    tmp: Path

    def environment(self, **variables: str) -> dict[str, str]:
        # MAKE and MFLAGS too: under `make test ARGS=...` a make that a test runs would take over ARGS.
        ours = ("HARNESS_", "PYTEST_", "COV_", "PG", "COLUMNS", "MAKE", "MFLAGS", "ARGS")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
        kept["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
        return kept | {"TMPDIR": str(self.tmp)} | variables

    def run(
        self, *words: str | Path, cwd: Path = ROOT, timeout: float = 90, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [str(word) for word in words],
            cwd=cwd, env=self.environment(**variables), capture_output=True, text=True, timeout=timeout, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def start(self, *words: str | Path, cwd: Path = ROOT, **variables: str) -> subprocess.Popen[str]:
        """Start a command, in a session of its own as a terminal gives it."""
        return subprocess.Popen(
            [str(word) for word in words],
            cwd=cwd, env=self.environment(**variables), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            stdin=subprocess.DEVNULL, start_new_session=True,
            preexec_fn=_heeds_signals,
        )  # fmt: skip

    def left_behind(self) -> list[str]:
        """What is there that should not be: server directories, and processes that run on one."""
        directories = [path.name for path in self.tmp.glob("harness-pg-*")]
        processes = []
        for command in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                text = command.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue  # it ended while we looked
            if str(self.tmp) in text and "postgres" in text:
                processes.append(text)
        return directories + processes


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """Runs commands, and knows what they leave behind."""
    # Not in tmp_path: only root may look in there, and a Unix socket's path is short.
    folder = Path(tempfile.mkdtemp(prefix="hs-", dir="/tmp"))
    folder.chmod(0o755)
    yield Sandbox(folder)
    shutil.rmtree(folder, ignore_errors=True)
