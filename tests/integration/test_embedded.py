"""The embedded server: what it keeps from boot to boot, and how its backends are scheduled."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from harness import contracts
from harness.environment import cluster
from harness.environment.database import Template
from harness.environment.embedded import EmbeddedServer
from harness.environment.servers import connect
from harness.schedules import Plan, explore
from tests.conftest import Sandbox


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/pg-concurrency-harness"


@pytest.fixture
def initdb(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The data directories that initdb made."""
    made: list[Path] = []
    make = EmbeddedServer._make_cluster

    def counted(self: EmbeddedServer, binaries: Path, user: str | None, data: Path) -> None:
        made.append(data)
        make(self, binaries, user, data)

    monkeypatch.setattr(EmbeddedServer, "_make_cluster", counted)
    return made


def test_the_second_boot_copies_what_the_first_one_made(cache: Path, initdb: list[Path]) -> None:
    """One initdb for two servers, and what is done to one is not seen by the next."""
    with EmbeddedServer() as first, connect(first.dsn) as connection:
        connection.execute("CREATE TABLE left_behind ()")
    with EmbeddedServer() as second, connect(second.dsn) as connection:
        assert connection.execute("SELECT to_regclass('left_behind')").fetchone() == (None,)
    assert len(initdb) == 1
    assert len(list(cache.iterdir())) == 1


def test_two_servers_from_one_copy_run_side_by_side(cache: Path, initdb: list[Path]) -> None:
    """What is kept is unpacked, never started."""
    with EmbeddedServer(), EmbeddedServer() as second, EmbeddedServer() as third:
        assert second.pid != third.pid
    assert len(initdb) == 1
    assert len(list(cache.iterdir())) == 1


def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, initdb: list[Path]
) -> None:
    """A file stands where the folder should be: each boot calls initdb, and nothing is said of it."""
    blocked = tmp_path / "cache"
    blocked.touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    for _ in range(2):
        with EmbeddedServer() as server:
            connect(server.dsn).close()
    assert len(initdb) == 2


def test_no_home_is_made_for_a_user_who_has_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is kept then."""
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "nowhere"))
    assert cluster.place([]) is None


def test_a_kept_cluster_that_is_damaged_is_made_again(cache: Path, initdb: list[Path]) -> None:
    """Half an archive is not started, and the boot after that has a whole one."""
    with EmbeddedServer():
        (kept,) = cache.iterdir()
    os.truncate(kept, kept.stat().st_size // 2)
    for _ in range(2):
        with EmbeddedServer() as server:
            connect(server.dsn).close()
    assert len(initdb) == 2


def test_a_kept_cluster_that_does_not_start_is_made_again(cache: Path, initdb: list[Path], tmp_path: Path) -> None:
    """Whatever has happened to it: a boot that initdb would have made possible is not refused."""
    with EmbeddedServer():
        (kept,) = cache.iterdir()
    whole = tmp_path / "whole"
    assert cluster.unpacked(kept, whole, None)
    (whole / "pg_notify").rmdir()
    cluster.keep(whole, kept)
    for _ in range(2):
        with EmbeddedServer() as server:
            connect(server.dsn).close()
    assert len(initdb) == 2


def test_a_cluster_is_kept_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while it is written leaves nothing that a later boot could take for a cluster."""
    data, kept = tmp_path / "data", tmp_path / "cache/kept.tar"
    data.mkdir()
    (data / "PG_VERSION").write_text("18")

    def interrupted(number: int) -> None:  # noqa: ARG001
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cluster.keep(data, kept)
    assert list(kept.parent.iterdir()) == []


@pytest.mark.usefixtures("cache")
def test_what_initdb_would_make_otherwise_is_kept_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other arguments, other locales on the machine."""
    places = [cluster.place([]), cluster.place(["--locale=C"])]
    assert places[0] == cluster.place([])
    monkeypatch.setattr(cluster, "_locales", lambda: b"C\nde_DE.utf8\n")
    places.append(cluster.place([]))
    assert len(set(places)) == 3


@pytest.mark.usefixtures("cache")
def test_a_run_means_the_same_in_every_time_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's zone is that of the container, not that of the machine."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    with EmbeddedServer() as server, connect(server.dsn) as connection:
        assert connection.execute("SHOW timezone").fetchone() == ("UTC",)


@pytest.mark.skipif(sys.platform != "linux", reason="SCHED_BATCH is Linux's")
def test_a_backend_pushes_no_client_off_its_processor(server: EmbeddedServer) -> None:
    """Backends run under SCHED_BATCH, in which who wakes up preempts nobody."""
    with connect(server.dsn) as connection:
        assert os.sched_getscheduler(connection.info.backend_pid) == os.SCHED_BATCH


@pytest.mark.skipif(sys.platform != "linux", reason="where a process may run can be told on Linux only")
def test_sessions_that_take_turns_run_on_one_processor(server: EmbeddedServer, template: Template) -> None:
    """Each backend of an exploration's sessions is told of, and kept to the processor of that number."""
    ran: list[set[int]] = []
    place = server.together(1)
    assert place is not None

    def placed(backend: int) -> None:
        place(backend)
        ran.append(os.sched_getaffinity(backend))

    with template.clone() as database:
        explore(database.dsn, contracts.load("scan_ticket"), Plan(calls=3, keys=(1,), max_schedules=1), together=placed)
    cores = sorted(os.sched_getaffinity(0))
    assert ran == [{cores[1 % len(cores)]}] * 3


def test_two_servers_are_placed_apart_on_ext4(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the next one's files do not come to where those of the last one were just deleted."""
    kind = subprocess.run(["stat", "-f", "-c", "%T", sandbox.tmp], capture_output=True, text=True, check=False).stdout
    if kind.strip() != "ext2/ext3":
        pytest.skip(f"the file system is {kind.strip() or 'not known'}, not ext4")
    monkeypatch.setattr(tempfile, "tempdir", str(sandbox.tmp))
    with EmbeddedServer():
        (folder,) = sandbox.tmp.glob("harness-pg-*")
        shown = subprocess.run(["lsattr", "-d", folder], capture_output=True, text=True, check=True).stdout
    assert "T" in shown.split()[0]
