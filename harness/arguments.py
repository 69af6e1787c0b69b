"""What the commands of the console share of their command lines: options, and how they are read."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence, Set
from enum import Enum
from pathlib import Path
from typing import Any

import click

from harness import configuration
from harness.load import patterns
from harness.options import MOST, OF_CALLS, OF_CONTRACTS, OPTIONS, OUTPUTS, Option, Options, resolve

TABLE = (*OPTIONS, *patterns.options())
"""What every command may take."""

OF_A_LOAD = frozenset({"profile", "pool_size", "timeout", *(option.name for option in patterns.options())})
"""Options that an exploration has no use for."""

OF_A_CALL = OF_A_LOAD | set(OUTPUTS) | OF_CALLS | OF_CONTRACTS | {"github_summary"}
"""Options that applying files has no use for."""


class Shown(Enum):
    """How much is printed of a record."""

    VERDICT = "the verdict"
    SCREEN = "what fits one screen where everything held"
    FIGURES = "every figure"


SHOWN = "harness.shown"
"""Where the context keeps how much is printed."""


def _shown_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """-v and -q; what prints the record finds them in the context, so that a command need not hand them on."""
    choices = (
        ("-v", "--verbose", Shown.FIGURES, "print all figures of every run"),
        ("-q", "--quiet", Shown.VERDICT, "print the verdict alone"),
    )

    def keep(value: Shown) -> Callable[[click.Context, click.Parameter, bool], None]:
        def kept(context: click.Context, _: click.Parameter, given: bool) -> None:
            if given and context.meta.setdefault(SHOWN, value) is not value:
                raise click.UsageError("--verbose and --quiet are opposites.", context)

        return kept

    for short, name, value, text in reversed(choices):
        command = click.option(short, name, is_flag=True, expose_value=False, callback=keep(value), help=text)(command)
    return command


def shared_options(
    command: Callable[..., Any], *, without: Set[str] = frozenset(), shown: bool = True
) -> Callable[..., Any]:
    """The options of all commands, without those that this one has no use for; `shown`: it prints a record."""
    command = _shown_options(command) if shown else command
    for option in reversed([option for option in TABLE if option.name not in without]):
        default = f"  [default: {option.default}]" if option.default else ""
        command = click.option(
            option.flag,
            option.name,
            help=f"{option.help}; {option.variable}{default}",
            **_how(option),
        )(command)
    return command


def changed_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What goes by a change: --changed-since and --last-record."""
    command = click.option(
        "--last-record",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="record that says what was touched, for --changed-since  [default: that of --record, where it is there]",
    )(command)
    text = "run only what the changes since this commit of git can matter to"
    return click.option("--changed-since", metavar="REF", help=text)(command)


def _how(option: Option) -> dict[str, Any]:
    if option.switch:
        return {"is_flag": True, "flag_value": "yes", "default": None}
    metavar = f"[{'|'.join(option.kind.words)}]" if option.kind.words else option.kind.metavar
    return {"multiple": option.repeatable, "metavar": metavar}


class _Seconds(click.FloatRange):
    """A number of seconds; click takes `nan` for one."""

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        found = super().convert(value, parameter, context)
        return found if found == found else self.fail(f"{value} is not a number of seconds.", parameter, context)


SECONDS = _Seconds(0, MOST, min_open=True)


NUMBER = click.IntRange(1, MOST)


def resolved(given: Mapping[str, Any], of_patterns: Sequence[Option] = ()) -> Options:
    """The options from the command line, the environment and the project's files, whose folders join the path."""
    found = configuration.read(Path.cwd(), TABLE)
    for folder in map(str, found.path):
        if folder not in sys.path:
            sys.path.append(folder)
    return resolve(given, found.ini, of_patterns=of_patterns, project=found.project)


def given_of_load(options: Options, *names: str) -> dict[str, Any]:
    """Those of the options that were given: where they were not, the callee has defaults of its own."""
    return {name: options.load[name] for name in names if name in options.load}
