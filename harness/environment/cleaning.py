"""`harness clean`: what runs have left that were killed, on this machine or on somebody's server."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

from harness.environment import given, leftovers, remains
from harness.environment.leftovers import Leftover
from harness.environment.servers import connect
from harness.errors import HarnessError


def clean(server: str | None, *, dry_run: bool) -> Iterator[Leftover]:
    """What dead runs have left, each given back when it has been removed, or with `dry_run` only named.

    On the server of a DSN its databases and roles, and what is in the DSN's own database where that was given; with
    None what was booted on this machine. Raises HarnessError.
    """
    if server is None:
        yield from _here(dry_run=dry_run)
        return
    if (left := given.left(server)) is not None:
        if not dry_run:
            left.clear()
        yield Leftover("contents", left.name, left.pid)
    with connect(server) as connection:
        yield from _dropped(connection, list(leftovers.on_server(connection)), dry_run=dry_run)
        yield from _dropped(connection, list(leftovers.platform_roles(connection)), dry_run=dry_run)


def _dropped(connection: psycopg.Connection[Any], found: list[Leftover], *, dry_run: bool) -> Iterator[Leftover]:
    for leftover in found:
        if not dry_run:
            try:
                leftovers.drop(connection, leftover)
            except psycopg.errors.DependentObjectsStillExist:
                continue  # one of the platform's roles that somebody uses by now
            except psycopg.Error as error:
                raise HarnessError(
                    f"The {leftover.kind} {leftover.name} cannot be dropped.",
                    tried=" ".join(str(error).split()),
                    next_step="give the DSN of the role that made it, or of a superuser",
                ) from error
        yield leftover


def _here(*, dry_run: bool) -> Iterator[Leftover]:
    for folder in remains.left_in(Path(tempfile.gettempdir()), Path("/tmp")):  # noqa: S108
        owner = json.loads((folder / remains.OWNER).read_text())
        if not dry_run:
            remains.remove(folder)
        yield Leftover("folder", str(folder), str(owner["pid"]))
    from harness.environment import container

    if container.engine_answers():
        for leftover in container.left():
            if not dry_run:
                container.remove(leftover)
            yield leftover
