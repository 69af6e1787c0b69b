"""Errors that say what failed, what was tried and what to do next, and the exit status of each cause."""

from __future__ import annotations

import errno
import tempfile
import traceback
from enum import IntEnum
from functools import partial

from harness.text import LONGEST, printable


class ExitStatus(IntEnum):
    """Exit statuses of the console command, one per cause."""

    HELD = 0
    BROKEN = 1
    USAGE = 2
    ENVIRONMENT = 3
    UNDECIDED = 4
    INTERRUPTED = 130
    TERMINATED = 143


class HarnessError(Exception):
    """A run could not be made. It is never a judgement of the function under test.

    `what` failed, what was `tried`, and what to do `next_step`; each is one sentence or a short block of text.
    """

    exit_status: ExitStatus = ExitStatus.ENVIRONMENT

    def __init__(self, what: str, *, tried: str = "", next_step: str = "") -> None:
        self.what = printable(what, LONGEST)
        self.tried = printable(tried, LONGEST)
        self.next_step = printable(next_step, LONGEST)
        lines = [self.what]
        if tried:
            lines.append(f"  tried: {self.tried}")
        if next_step:
            lines.append(f"  next:  {self.next_step}")
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[object, ...]:
        # To another process and back.
        return partial(type(self), tried=self.tried, next_step=self.next_step), (self.what,)


_LIMITS = {
    "25P03": "idle_in_transaction_session_timeout", "25P04": "transaction_timeout", "55P03": "lock_timeout",
    "57P05": "idle_session_timeout",
}  # fmt: skip
"""Settings that end what a session does, by the SQLSTATE that says so."""


def limit_of(sqlstate: str | None, message: str) -> str | None:
    """The setting by which the server cut a session or a statement off, where it was one."""
    if sqlstate == "57014" and "statement timeout" in message:
        return "statement_timeout"
    return _LIMITS.get(sqlstate or "")


def explained(error: Exception) -> HarnessError:
    """An error that nobody foresaw, as one that says what to do; where it arose is written to a file."""
    said = " ".join(str(error).split()) or "no words"
    name = type(error).__name__
    if isinstance(error, MemoryError):
        return HarnessError(
            "There is not enough memory.", tried=said, next_step="ask for fewer clients, calls or rounds"
        )
    if limit := limit_of(getattr(error, "sqlstate", None), said):
        return HarnessError(
            f"The server cut off what the harness did: {limit}.",
            tried=said,
            next_step=f"raise {limit}: the migrations (ALTER DATABASE or ALTER ROLE ... SET), the role or the server "
            "set it; a run that met this was not judged",
        )
    if any(
        each.__module__.startswith("psycopg") and each.__name__ == "OperationalError" for each in type(error).__mro__
    ):
        return HarnessError(
            "The server ended a connection, or did not answer.",
            tried=said,
            next_step="see in the server's log what ended it; a run that met this was not judged",
        )
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return too_few_files(said)
    if isinstance(error, OSError):
        return HarnessError(
            "The system refused something.",
            tried=f"{name}: {said}",
            next_step="see whether a disk is full, a file may be read, or too few files may be open (ulimit -n)",
        )
    try:
        with tempfile.NamedTemporaryFile("w", prefix="harness-error-", suffix=".txt", delete=False) as file:
            file.write("".join(traceback.format_exception(error)))
        where = f"the details are in {file.name}"
    except OSError as full:
        where = f"the details could not be written: {full}"
    return HarnessError(
        "This is a defect of the harness, or of the contract; the run that met it was not judged.",
        tried=f"{name}: {said}",
        next_step=f"report it, unless the contract is at fault; {where}",
    )


def too_few_files(tried: str) -> HarnessError:
    """A limit of the system, which nothing but its figure has words for."""
    return HarnessError(
        "This process may not open as many files as that takes.",
        tried=tried,
        next_step="raise the limit (ulimit -n 1024), or give fewer --clients, or a --pool-size",
    )


class UsageError(HarnessError):
    """The command's words or a plan's numbers are wrong; nothing was started."""

    exit_status = ExitStatus.USAGE
