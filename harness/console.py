"""From a command to its exit status: errors and signals, the record printed and written whatever happens."""

from __future__ import annotations

import io
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click

from harness.arguments import SHOWN, Shown
from harness.errors import ExitStatus, HarnessError, explained
from harness.options import Options
from harness.progress import Bar
from harness.records import Record
from harness.signals import ENDING, ended_by, ending, heed
from harness.text import harmless


@contextmanager
def guarded() -> Iterator[None]:
    """Errors become a message and an exit status; SIGTERM and SIGHUP end a run as Ctrl-C does."""

    came: list[int] = []

    def end(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001
        came.append(number)
        raise KeyboardInterrupt

    try:
        with ended_by(end):
            try:
                yield
            except Exception as error:
                if came:  # what came of the signal, where it struck
                    raise KeyboardInterrupt from error
                raise
    except Exception as error:
        told = _told(error)  # a status of 1 would say that a claim is broken
        say(f"error: {told}")
        sys.exit(told.exit_status)
    except KeyboardInterrupt:
        for number in ENDING:
            signal.signal(number, signal.SIG_IGN)  # there is nothing left to end, and the exit status is decided
        if came[:1] not in ([], [signal.SIGINT]):
            say("terminated; everything that was started has been removed")
            sys.exit(ExitStatus.TERMINATED)
        say("interrupted; everything that was started has been removed")
        sys.exit(ExitStatus.INTERRUPTED)


def make_runs(
    opened: Any, options: Options, runs: Callable[[Any], object], bar: Bar | None = None, what: str = ""
) -> NoReturn:
    """Make the runs, write and print the record whatever happens, and end with its exit status.

    A bar shows `what` is done, where the runs do not say it themselves.
    """
    from harness.environment.servers import command_line
    from harness.signals import uninterrupted

    shown = bar or Bar()

    def finish(*, interrupted: bool = False, cut_short: str = "") -> Record:
        shown.stop()
        command = command_line(["harness", *sys.argv[1:]])
        record: Record = opened.record(command, interrupted=interrupted, cut_short=cut_short)
        publish(record, options)
        return record

    with shown:
        shown.runs = opened.runs
        if what:
            shown.show(what)
        try:
            runs(opened)
            heed()
        except KeyboardInterrupt:
            with uninterrupted():  # somebody impatient would lose the record
                finish(interrupted=True)
            raise
        except (Exception, SystemExit) as error:
            if ending():  # what came of the signal, where it struck
                with uninterrupted():
                    finish(interrupted=True)
                raise KeyboardInterrupt from error
            told = _told(error)
            if not opened.runs and told.exit_status is ExitStatus.USAGE:
                raise told from error
            say(f"error: {told}")
            # Those before it, or that there is none.
            sys.exit(finish(cut_short=told.what.rstrip(".") + shown.so_far()).exit_status)
        sys.exit(finish().exit_status)


def _told(error: BaseException) -> HarnessError:
    """Any error as one that says what to do."""
    if isinstance(error, HarnessError):
        return error
    if isinstance(error, SystemExit):  # its status would be taken for a verdict
        return HarnessError(
            "The contract, or a module that it imports, ended the program.",
            tried=f"a call of it, which raised SystemExit({error.code!r})",
            next_step="have it return an answer, or raise an error",
        )
    return explained(error) if isinstance(error, Exception) else explained(RuntimeError(repr(error)))


def publish(record: Record, options: Options) -> None:
    """Print the record and write what is asked for; each is done even where another cannot be."""
    from harness.reports import outputs

    try:
        _print(record)
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the interpreter fails on it once more
        raise HarnessError(
            "The report cannot be printed.",
            tried=f"standard output: {error}",
            next_step="free the disk, let the next program read all of it, or give --record",
        ) from error
    finally:
        outputs.write(record, options, click.echo)


def _print(record: Record) -> None:
    """The report, as wide as the terminal; into a pipe without colour, on lines that are not wrapped."""
    from harness.reports import figures, terminal

    shown = click.get_current_context().meta.get(SHOWN, Shown.SCREEN)
    tty = sys.stdout.isatty()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a locale that has no such sign is no reason to lose a verdict
    plain = "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
    if shown is Shown.FIGURES:
        from rich.console import Console

        if tty:
            figures.print_record(record, Console(highlight=False, color_system=None if plain else "auto"))
            return
        console = Console(highlight=False, width=_PIPED, color_system=None)
        with console.capture() as captured:
            figures.print_record(record, console)
        # Tables fill their lines with blanks.
        click.echo(harmless("\n".join(line.rstrip() for line in captured.get().splitlines())))
        return
    width = shutil.get_terminal_size().columns if tty else None
    lines = (terminal.verdict if shown is Shown.VERDICT else terminal.screen)(record, width)
    texts = ((harmless(line.text), line.style) for line in lines)
    click.echo("\n".join(text if plain else click.style(text, **_STYLES[style]) for text, style in texts))


_PIPED = 10_000
"""Columns of a table into a pipe: none is ever wrapped."""


_STYLES: Mapping[str, Mapping[str, Any]] = {
    "": {},
    "bold": {"bold": True},
    "dim": {"dim": True},
    "held": {"fg": "green"},
    "broken": {"fg": "red", "bold": True},
    "undecided": {"fg": "magenta"},  # yellow cannot be read on white
}


def say_environment(environment: Any, prelude: tuple[str, ...] = ()) -> None:
    """On standard error: what server it is, and what was put into the database before the migrations."""
    for line in (f"{environment}", *prelude):
        say(line)


def attach_streams() -> None:
    """Where a standard stream is closed, nothing that is opened later may take its number and get what is printed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - for as long as the process lives


def say(text: str) -> None:
    """On standard error; where that is closed or full, the exit status has to do."""
    with suppress(OSError, ValueError):
        click.echo(harmless(text), err=True)
