"""Files that a command leaves: found out before the runs whether they can be written, written whole or not at all."""

from __future__ import annotations

import os
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
            return
    except OSError as error:  # a name that is too long, a folder that may not be looked into
        why = str(error)
    raise UsageError(f"The {what} cannot be written to {path}.", tried=why, next_step=f"give another {option}")


def write_whole(path: Path, text: str, what: str, option: str) -> None:
    """Write the text beside the file, then put it in its place: a disk that is full leaves the old file as it was.

    Raises HarnessError when that cannot be done.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise HarnessError(
            f"The {what} cannot be written to {path}.", tried=str(error), next_step=f"give another {option}"
        ) from error
