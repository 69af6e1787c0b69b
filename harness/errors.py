"""Errors that say what failed, what was tried and what to do next, and the exit status of each cause."""

from __future__ import annotations

from enum import IntEnum


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
        self.what = what
        self.tried = tried
        self.next_step = next_step
        lines = [what]
        if tried:
            lines.append(f"  tried: {tried}")
        if next_step:
            lines.append(f"  next:  {next_step}")
        super().__init__("\n".join(lines))


class UsageError(HarnessError):
    """The command's words or a plan's numbers are wrong; nothing was started."""

    exit_status = ExitStatus.USAGE
