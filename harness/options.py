"""The options, read once into a frozen value. Command line beats environment beats ini file beats default.

Both faces take their options from the table here, so they cannot differ.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from harness.errors import UsageError


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is made with. Numbers that are None come from the profile."""

    server: str = "auto"
    postgres_image: str = "postgres:17"
    migrations: tuple[Path, ...] = (Path("sql/migrations"),)
    seed: tuple[Path, ...] = (Path("sql/seed"),)
    platform: str = "auto"
    default_privileges: str = "open"
    apply_timeout: float = 600.0
    contract: str = "scan_ticket"
    invariants: tuple[Path, ...] = ()
    profile: str = "quick"
    clients: int | None = None
    duration: float | None = None
    pause: float | None = None
    rounds: int | None = None
    pool_size: int | None = None
    timeout: float = 10.0
    record: Path | None = None
    http: bool = False
    postgrest: str | None = None
    postgrest_image: str = "postgrest/postgrest:v12.2.12"
    db_pool: int = 10


@dataclass(frozen=True, slots=True)
class Option:
    """One row of the table: how an option is named, read and explained."""

    name: str
    convert: Callable[[str], Any]
    help: str
    metavar: str
    repeatable: bool = False
    switch: bool = False
    """On the command line its name alone turns it on."""

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """Its environment variable; a repeatable one holds several values as PATH does."""
        return "HARNESS_" + self.name.upper()

    @property
    def default(self) -> Any:
        return next(field.default for field in fields(Options) if field.name == self.name)

    def read(self, text: str, source: str) -> Any:
        """The value of `text`. Raises UsageError that names the source."""
        try:
            return self.convert(text)
        except ValueError as error:
            raise UsageError(
                f"{source} is {text!r}, which is no {self.metavar.lower()}.", next_step=f"see {self.flag} in --help"
            ) from error


PROFILES = ("quick", "seed", "soak")


def _one_of(*words: str) -> Callable[[str], str]:
    def convert(text: str) -> str:
        if text not in words:
            raise ValueError(text)
        return text

    return convert


def _profile(text: str) -> str:
    if text not in PROFILES:
        raise ValueError(text)
    return text


def _positive_int(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError(text)
    return value


def _yes(text: str) -> bool:
    known = {"1": True, "yes": True, "true": True, "on": True, "0": False, "no": False, "false": False, "off": False}
    if text.lower() not in known:
        raise ValueError(text)
    return known[text.lower()]


def _not_negative(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ValueError(text)
    return value


OPTIONS: tuple[Option, ...] = (
    Option("server", str, "auto, container, embedded, or a DSN", "SERVER"),
    Option("postgres_image", str, "image for the container", "IMAGE"),
    Option("migrations", Path, "file, or folder of *.sql; repeatable", "PATH", repeatable=True),
    Option("seed", Path, "file or folder applied after the migrations; repeatable", "PATH", repeatable=True),
    Option("platform", _one_of("auto", "supabase", "none"), "what the migrations were written for", "PLATFORM"),
    Option("default_privileges", _one_of("open", "closed"), "of Supabase's API roles on public", "OPEN OR CLOSED"),
    Option("apply_timeout", _positive, "seconds that one file may take", "POSITIVE NUMBER"),
    Option("contract", str, "a shipped contract, or module:attribute", "NAME"),
    Option("invariants", Path, "more queries that must return no row; repeatable", "PATH", repeatable=True),
    Option("profile", _profile, "quick, seed or soak", "PROFILE"),
    Option("clients", _positive_int, "concurrent clients", "POSITIVE INTEGER"),
    Option("duration", _positive, "seconds of a burst", "POSITIVE NUMBER"),
    Option("pause", _not_negative, "seconds after each call of a burst", "NUMBER FROM 0"),
    Option("rounds", _positive_int, "rounds of a race", "POSITIVE INTEGER"),
    Option("pool_size", _positive_int, "a pool of so many connections between clients and server", "POSITIVE INTEGER"),
    Option("timeout", _positive, "seconds after which a call is cancelled", "POSITIVE NUMBER"),
    Option("record", Path, "write the record (JSON) there", "PATH"),
    Option("http", _yes, "repeat each pattern through PostgREST, and compare", "YES OR NO", switch=True),
    Option("postgrest", str, "the PostgREST binary [default: .postgrest, PATH, node_modules]", "FILE"),
    Option("postgrest_image", str, "image of PostgREST beside a container", "IMAGE"),
    Option("db_pool", _positive_int, "PostgREST's connections to the database", "POSITIVE INTEGER"),
)


def resolve(
    command_line: Mapping[str, str | Sequence[str] | None],
    ini: Mapping[str, str | Sequence[str] | None],
    environment: Mapping[str, str] | None = None,
) -> Options:
    """The options from their sources. Raises UsageError for a value that cannot be read."""
    environment = os.environ if environment is None else environment
    values: dict[str, Any] = {}
    for option in OPTIONS:
        sources: tuple[tuple[str, str | Sequence[str] | None], ...] = (
            (option.flag, command_line.get(option.name)),
            (option.variable, environment.get(option.variable)),
            (f"harness_{option.name}", ini.get(option.name)),
        )
        for source, given in sources:
            if source == option.flag and given is not None and "" in (given if option.repeatable else (given,)):
                raise UsageError(f"{option.flag} is empty.", next_step="give it a value, or leave it out")
            if not given:
                continue
            if option.repeatable:
                texts = given.split(os.pathsep) if isinstance(given, str) else given
                values[option.name] = tuple(option.read(text, source) for text in texts)
            else:
                assert isinstance(given, str)
                values[option.name] = option.read(given, source)
            break
    return Options(**values)
