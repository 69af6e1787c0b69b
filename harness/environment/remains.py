"""What a run leaves behind that had no time to clean up: after SIGKILL, a full memory, a power cut.

A guardian waits beside each booted server, PostgREST or folder of a run for the end of the pipe that the run holds: it
comes with the run's death, whatever that is, and then the guardian takes everything away. Should it be killed too, the
next run finds what is left by the owner that is recorded with it. This file is the guardian's program as well, so it
needs nothing but the standard library.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

OWNER = "owner.json"
"""In a server's folder: whose it is."""

_PATIENCE = 10.0
"""Seconds that a server gets to shut down, and initdb to come to its end: killed, it would leave shared memory."""

_PROGRAMS = ("postgres", "initdb")


def owner() -> dict[str, str | int]:
    """This process, so that another one can tell later whether it still lives."""
    return {"host": _host(), "pid": os.getpid(), "started": _started(os.getpid()) or ""}


def dead(found: dict[str, object]) -> bool:
    """Whether the process that is recorded so has ended. False where that cannot be known: on another machine."""
    try:
        pid = int(str(found["pid"]))
    except (KeyError, ValueError):
        return False
    if found.get("host") != _host():
        return False
    started = _started(pid)
    if started is not None:
        return started != found.get("started")
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return Path("/proc/self").exists()


def _host() -> str:
    """The machine as far as process ids mean the same: its name, this boot, this container."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def _started(pid: int) -> str | None:
    """When a process started; None where there is none, or the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def record(folder: Path) -> None:
    """Write down whose a folder is."""
    partial = folder / f"{OWNER}.partial"
    partial.write_text(json.dumps(owner()))
    partial.replace(folder / OWNER)


def left_in(*temporary: Path) -> Iterator[Path]:
    """Folders of servers there whose run is dead."""
    for folder in sorted(found for each in set(temporary) for found in each.glob("harness-pg-*")):
        with suppress(OSError, ValueError):
            found = json.loads((folder / OWNER).read_text())
            if isinstance(found, dict) and dead(found):
                yield folder


def remove(folder: Path) -> None:
    """End the server that runs in a folder, and remove the folder and the shared memory."""
    _await(lambda: not _processes(folder, "initdb"))
    shared = _shared_memory(folder)
    for number in (signal.SIGQUIT, signal.SIGCONT):  # one that was stopped heeds nothing before it goes on
        _signal(_processes(folder), number)
    if not _await(lambda: not _processes(folder)):
        while found := _processes(folder):
            _signal(found, signal.SIGKILL)
            time.sleep(0.02)
    release(shared)

    def gone() -> bool:
        shutil.rmtree(folder, ignore_errors=True)
        return not folder.exists()

    _await(gone)


def release(shared: int | None) -> None:
    """Give back a System V segment, which outlives a postmaster that was killed."""
    if shared is not None:
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).shmctl(shared, 0, None)  # IPC_RMID


def shared_memory(data: Path) -> int | None:
    """The id of the segment that a postmaster wrote down (`postmaster.pid`, line 7)."""
    with suppress(OSError, IndexError, ValueError):
        return int((data / "postmaster.pid").read_text().splitlines()[6].split()[1])
    return None


def _shared_memory(folder: Path) -> int | None:
    return next((found for data in folder.glob("data-*") if (found := shared_memory(data)) is not None), None)


def _processes(folder: Path, *programs: str) -> list[int]:
    """Processes of a server in a folder: by their arguments, or by where they run."""
    wanted = programs or _PROGRAMS
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            program = Path(words[0].partition(":")[0]).name
            if program in wanted and (
                any(word.startswith(f"{folder}/") for word in words)
                or f"{(entry / 'cwd').readlink()}/".startswith(f"{folder}/")
            ):
                found.append(int(entry.name))
    return found


def _signal(processes: list[int], number: int) -> None:
    for process in processes:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(process, number)


def _await(done: Callable[[], object]) -> bool:
    deadline = time.monotonic() + _PATIENCE
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


class Guardian:
    """A process that outlives this one for as long as it takes to clean up behind it."""

    def __init__(self, kind: str, what: str) -> None:
        """`folder PATH`: a server's folder; `process PID`: a process of ours."""
        reader, self._writer = os.pipe()
        try:
            started = _started(int(what)) if kind == "process" else ""
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-I", "-S", __file__, kind, what, started or ""],
                stdin=reader, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", start_new_session=True,
                env={},
            )  # fmt: skip
        except BaseException:
            os.close(self._writer)
            raise
        finally:
            os.close(reader)

    def dismiss(self) -> None:
        """Everything is cleaned up already."""
        writer, self._writer = self._writer, -1
        if writer >= 0:
            self._process.kill()
            self._process.wait()
            os.close(writer)


def _guard(kind: str, what: str, started: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while os.read(0, 1024):
        pass
    if kind == "folder":
        if Path(what).exists():
            remove(Path(what))
    elif _started(int(what)) == started:
        os.kill(int(what), signal.SIGKILL)


if __name__ == "__main__":
    _guard(*sys.argv[1:4])
