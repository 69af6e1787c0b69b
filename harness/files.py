"""Files that a command leaves: found out before the runs whether they can be written, written whole or not at all."""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from pathlib import Path

from harness.errors import HarnessError, UsageError


def check_writable(path: Path, what: str, option: str) -> None:
    """Find out before the runs what would only be found out after them. Raises UsageError with the reason."""
    folder = path.parent
    try:
        if path.is_dir():
            why = "it is a folder"
        elif not folder.is_dir():
            why = f"there is no folder {folder}"
        elif not os.access(folder, os.W_OK | os.X_OK):
            why = f"the folder {folder} may not be written to"
        else:
            _try(path)
            return
    except OSError as error:  # a name that is too long, a folder that may not be looked into, a disk without a room
        why = str(error)
    raise UsageError(f"The {what} cannot be written to {path}.", tried=why, next_step=f"give another {option}")


def _try(path: Path) -> None:
    """Make the file that the text will be written to first, and take it away again.

    Some folders say yes and mean no.
    """
    if (partial := _partial(path)) is not None:
        there = partial.exists()
        with partial.open("ab"):
            pass
        if not there:
            partial.unlink()


def write_whole(path: Path, text: str, what: str, option: str) -> None:
    """Write the text beside the file, then put it in its place: a disk that is full leaves the old file as it was.

    Raises HarnessError when that cannot be done.
    """
    try:
        if not _put_in_place(path, text):
            _written(path, text)
    except OSError as error:
        raise HarnessError(
            f"The {what} cannot be written to {path}.", tried=str(error), next_step=f"give another {option}"
        ) from error


_DESCRIPTORS = {"/dev/stdout": 1, "/dev/stderr": 2}


def _put_in_place(path: Path, text: str) -> bool:
    """Write beside a regular file, or where nothing is, and rename; whether that was possible."""
    partial = _partial(path)
    if partial is None:
        return False
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path.resolve())
    except OSError:
        with suppress(OSError):
            partial.unlink()
        raise
    return True


def _partial(path: Path) -> Path | None:
    """The file beside, of one that is regular or not there yet; a link is followed. None: a device or a pipe."""
    if _descriptor(path) is not None:
        return None
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(path.stat().st_mode):
            return None  # it would become a file
    target = path.resolve()
    return target.with_name(target.name + ".partial")


def _written(path: Path, text: str) -> None:
    number = _descriptor(path)
    # A pipe that nobody reads refuses at once; one that somebody does takes its time.
    opened = os.open(path, os.O_WRONLY | os.O_NONBLOCK) if number is None else os.dup(number)
    if number is None:
        os.set_blocking(opened, True)
    with os.fdopen(opened, "w", encoding="utf-8") as file:
        file.write(text)


def _descriptor(path: Path) -> int | None:
    """The number of an open descriptor that a path names."""
    text = str(path)
    match = re.fullmatch(r"/(?:dev|proc/self)/fd/(\d+)", text)
    return int(match[1]) if match else _DESCRIPTORS.get(text)
