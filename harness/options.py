"""The options, read once into a frozen value.

Command line beats environment beats `[tool.harness]` beats pytest's ini beats default.

Both faces take their options from the table here, and those of patterns from the patterns (`harness.load.patterns`), so
they cannot differ.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.files import check_writable


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is made with. Numbers that are None come from the profile."""

    server: str = "auto"
    database: str | None = None
    postgres_image: str = "postgres:17"
    migrations: tuple[Path, ...] = (Path("sql/migrations"),)
    seed: tuple[Path, ...] = (Path("sql/seed"),)
    setup: str | None = None
    platform: str = "auto"
    default_privileges: str = "open"
    apply_timeout: float = 600.0
    keep_going: bool = False
    contract: str = "scan_ticket"
    contract_option: tuple[str, ...] = ()
    run_as: str | None = None
    isolation: str | None = None
    setting: tuple[str, ...] = ()
    retry: tuple[str, ...] = ()
    invariants: tuple[Path, ...] = ()
    profile: str = "quick"
    load: Mapping[str, Any] = field(default_factory=dict)
    """The options of patterns that were given, by name; the patterns themselves say which there are."""
    pool_size: int | None = None
    timeout: float = 10.0
    record: Path | None = None
    html: Path | None = None
    markdown: Path | None = None
    sarif: Path | None = None
    code_quality: Path | None = None
    github_summary: bool = False
    http: bool = False
    postgrest: str | None = None
    postgrest_image: str = "postgrest/postgrest:v12.2.12"
    db_pool: int = 10
    configured: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """What the project's files say, by the option's name: a command that is called there takes it without a word."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What values an option takes, given as text or by a Python caller."""

    read: Callable[[str], Any]
    """Raises ValueError for a text that is none."""
    metavar: str
    fits: Callable[[Any], bool] = lambda value: True  # noqa: ARG005
    words: tuple[str, ...] = ()
    """The only ones there are; empty: as many as you like."""

    @property
    def denial(self) -> str:
        """What a value is that does not fit: `not a positive integer`, `neither yes nor no`."""
        name = self.metavar.lower()
        if " or " in name:
            return f"neither {name.replace(' or ', ' nor ')}"
        return f"not {'an' if name.startswith(('a', 'e', 'i', 'o', 'sql')) else 'a'} {name}"

    def check(self, name: str, value: Any) -> None:
        """Raises UsageError for a value that cannot be meant."""
        if not self.fits(value):
            next_step = f"give {' or '.join(self.words)}" if self.words else f"give another --{_flag(name)}"
            if _number(value) and value > MOST:
                raise UsageError(
                    f"{name} is {value:g}, which is more than anybody needs.", next_step=f"give {MOST} or less"
                )
            raise UsageError(f"{name} is {value}, which is {self.denial}.", next_step=next_step)


@dataclass(frozen=True, slots=True)
class Option:
    """One row of the table: how an option is named, read and explained."""

    name: str
    kind: Kind
    help: str
    repeatable: bool = False
    switch: bool = False
    """On the command line its name alone turns it on."""
    default: str = ""
    """As help shows it."""

    @property
    def flag(self) -> str:
        """As it stands on the command line: `--db-pool`."""
        return f"--{_flag(self.name)}"

    @property
    def variable(self) -> str:
        """Its environment variable; a repeatable one holds several values as PATH does."""
        return "HARNESS_" + self.name.upper()

    def read(self, text: str, source: str) -> Any:
        """The value of `text`. Raises UsageError that names the source."""
        try:
            value = self.kind.read(text)
            if self.kind.fits(value):
                return value
        except ValueError:
            pass
        words = self.kind.words
        next_step = f"give {' or '.join(words)}" if words else f"see {self.flag} in --help"
        if self.kind in (POSITIVE, POSITIVE_INT, NOT_NEGATIVE):
            next_step = f"give {MOST} at most, and {next_step}"
        raise UsageError(f"{source} is {text!r}, which is {self.kind.denial}.", next_step=next_step)


def _flag(name: str) -> str:
    return name.replace("_", "-")


PROFILES = ("quick", "seed", "soak")

FEWEST_PAIRS = 5
"""Of blocks by two doors: with fewer differences a bootstrap has too little to draw from."""

ISOLATION_LEVELS = ("read committed", "repeatable read", "serializable")


def _yes(text: str) -> bool:
    known = {"1": True, "yes": True, "true": True, "on": True, "0": False, "no": False, "false": False, "off": False}
    if text.lower() not in known:
        raise ValueError(text)
    return known[text.lower()]


def _whole(text: str) -> int:
    # int() takes "1_0" and "٣", which nobody means.
    if not text.strip().isascii() or "_" in text:
        raise ValueError(text)
    return int(text)


FILE = Kind(Path, "PATH")
YES = Kind(_yes, "YES OR NO", lambda value: isinstance(value, bool))
MOST = 1_000_000
"""Of any number: calls, rounds, seconds (eleven days), calls per second. More is a slip of the pen."""

POSITIVE_INT = Kind(_whole, "POSITIVE INTEGER", lambda value: type(value) is int and 1 <= value <= MOST)
POSITIVE = Kind(float, "POSITIVE NUMBER", lambda value: _number(value) and 0 < value <= MOST)
NOT_NEGATIVE = Kind(float, "NUMBER FROM 0", lambda value: _number(value) and 0 <= value <= MOST)
SHARE = Kind(float, "SHARE FROM 0 TO BELOW 1", lambda value: _number(value) and 0 <= value < 1)


def _number(value: Any) -> bool:
    return type(value) in (int, float)


def _assignment(text: str) -> str:
    name, equals, _ = text.partition("=")
    if not equals or not name.strip():
        raise ValueError(text)
    return text


def _sqlstate(text: str) -> str:
    if not re.fullmatch("[0-9A-Z]{5}", text):
        raise ValueError(text)
    return text


ASSIGNMENT = Kind(_assignment, "NAME=VALUE")
SQLSTATE = Kind(_sqlstate, "SQLSTATE")


def _named(metavar: str) -> Kind:
    return Kind(str, metavar)


def one_of(*words: str, metavar: str) -> Kind:
    """The kind of an option that takes one of some words."""
    return Kind(str, metavar, lambda value: value in words, words)


def _option(name: str, kind: Kind, help: str, **how: bool) -> Option:
    """A row for a field of `Options`, whose default is the field's."""
    [found] = [each for each in fields(Options) if each.name == name]
    default = found.default
    shown = " ".join(map(str, default)) if isinstance(default, tuple) else str(default)
    if isinstance(default, float):
        shown = f"{default:g}"
    return Option(name, kind, help, default="" if default in (None, (), False) else shown, **how)


OPTIONS: tuple[Option, ...] = (
    _option("server", _named("SERVER"), "auto, container, embedded, or a DSN"),
    _option(
        "database", _named("NAME"), "an empty database to work in, or NAME.SCHEMA, where the DSN's role may create none"
    ),
    _option("postgres_image", _named("IMAGE"), "image for the container"),
    _option("migrations", FILE, "file, or folder of *.sql; repeatable", repeatable=True),
    _option("seed", FILE, "file or folder applied after the migrations; repeatable", repeatable=True),
    _option("setup", _named("COMMAND"), "command that builds the schema first; DATABASE_URL tells it where"),
    _option(
        "platform",
        one_of("auto", "supabase", "none", metavar="PLATFORM"),
        "what the migrations were written for",
    ),
    _option(
        "default_privileges",
        one_of("open", "closed", metavar="OPEN OR CLOSED"),
        "of Supabase's API roles on public",
    ),
    _option("apply_timeout", POSITIVE, "seconds that one file may take"),
    _option("keep_going", YES, "apply what can be applied, and go on without what failed", switch=True),
    _option("contract", _named("NAME"), "a shipped contract, or module:attribute"),
    _option(
        "contract_option", ASSIGNMENT, "name of a table or column, as used=was_scanned; repeatable", repeatable=True
    ),
    _option(
        "run_as", _named("ROLE"), """role of the calls, with JWT claims if you like: 'authenticated {"sub": "..."}'"""
    ),
    _option(
        "isolation",
        one_of(*ISOLATION_LEVELS, metavar="LEVEL"),
        "isolation level of calls, and of sessions that name none",
    ),
    _option(
        "setting", ASSIGNMENT, "setting of the calls' transactions, as lock_timeout=1s; repeatable", repeatable=True
    ),
    _option("retry", SQLSTATE, "error on which a call is made again, as 40001; repeatable", repeatable=True),
    _option("invariants", FILE, "more queries that must return no row; repeatable", repeatable=True),
    _option("profile", one_of(*PROFILES, metavar="PROFILE"), "quick, seed or soak"),
    _option("pool_size", POSITIVE_INT, "a pool of so many connections between clients and server"),
    _option("timeout", POSITIVE, "seconds after which a call is cancelled"),
    _option("record", FILE, "write the record (JSON) there"),
    _option("html", FILE, "write one page with everything in pictures there"),
    _option("markdown", FILE, "write a comment for a pull request there"),
    _option("sarif", FILE, "write the findings as SARIF 2.1.0 there"),
    _option("code_quality", FILE, "write the findings as GitLab's code quality report there"),
    _option("github_summary", YES, "add to GitHub's job summary [default: where there is one]", switch=True),
    _option("http", YES, "repeat each pattern through PostgREST, and compare", switch=True),
    _option("postgrest", _named("FILE"), "the PostgREST binary [default: .postgrest, PATH, node_modules]"),
    _option("postgrest_image", _named("IMAGE"), "image of PostgREST beside a container"),
    _option("db_pool", POSITIVE_INT, "PostgREST's connections to the database"),
)


OUTPUTS = {
    "record": "record",
    "html": "page",
    "markdown": "comment",
    "sarif": "SARIF file",
    "code_quality": "code quality report",
}
"""Options that name a file to write, with what is written there."""


def outputs(options: Options) -> dict[str, Path]:
    """The files that a command is asked to write, by the option's name."""
    found = {name: getattr(options, name) for name in OUTPUTS}
    return {name: path for name, path in found.items() if path is not None}


def check_outputs(options: Options) -> None:
    """Find out before the runs whether what they lead to can be written. Raises UsageError with the reason."""
    seen: dict[Path, str] = {}
    for name, path in outputs(options).items():
        flag = "--" + name.replace("_", "-")
        check_writable(path, OUTPUTS[name], flag)
        if path.suffix.lower() in (".sql", ".py") and path.exists():
            raise UsageError(
                f"{flag} would overwrite {path}.",
                tried=f"a {OUTPUTS[name]} is neither SQL nor Python",
                next_step="give it another name, or take that file away first",
            )
        other = seen.setdefault(path.absolute(), flag)
        if other != flag:
            raise UsageError(f"{other} and {flag} name one file, {path}.", next_step="give each a file of its own")
    if options.github_summary and not os.environ.get("GITHUB_STEP_SUMMARY"):
        raise UsageError(
            "--github-summary has no summary to add to.",
            tried="the variable GITHUB_STEP_SUMMARY, which GitHub sets in each step",
            next_step="leave it out, or write the text to a file with --markdown",
        )


def resolve(
    command_line: Mapping[str, str | Sequence[str] | None],
    ini: Mapping[str, str | Sequence[str] | None],
    environment: Mapping[str, str] | None = None,
    of_patterns: Sequence[Option] = (),
    project: Mapping[str, str | Sequence[str] | None] | None = None,
) -> Options:
    """The options from their sources; `project` is `[tool.harness]`. Raises UsageError for what cannot be read."""
    environment = os.environ if environment is None else environment
    project = project or {}

    def found(options: Sequence[Option], given: Mapping[str, Any], variables: Mapping[str, str]) -> dict[str, Any]:
        """The farthest source's first: of two that say the same otherwise, such as when a burst ends, the last wins."""
        values = [(*near, each.name) for each in options for near in _given(each, given, ini, variables, project)]
        return {name: value for _, value, name in sorted(values, key=lambda each: -each[0])}

    values, load = found(OPTIONS, command_line, environment), found(of_patterns, command_line, environment)
    return Options(**values, load=load, configured=found((*OPTIONS, *of_patterns), {}, {}))


OF_CALLS = frozenset({"run_as", "isolation", "setting", "retry"})
"""Options that say as whom and how calls are made."""

OF_CONTRACTS = frozenset(
    {"contract", "contract_option", "invariants", "http", "postgrest", "postgrest_image", "db_pool"}
)
"""Options that a scenario has no use for."""


def as_words(options: Options, without: Collection[str] = (), **of_a_load: Any) -> list[str]:
    """The options that are not a default, as words of a command; those that belong to a load as they are given.

    Those that say where a report goes, and those `without` which the command is, are left out.
    """
    values: dict[str, Any] = {"profile": "quick", "http": False, "load": {}, "pool_size": None}
    values |= {**dict.fromkeys(OUTPUTS), "github_summary": False} | of_a_load
    given = replace(options, **values)
    words: list[str] = []
    for each in fields(Options):
        value = getattr(given, each.name)
        said = each.name not in values and each.name in options.configured
        if each.name in ("load", "configured", *without) or value is None or (value == each.default and not said):
            continue
        name = "--" + each.name.replace("_", "-")
        if isinstance(value, bool):
            words += [name] if value else []
            continue
        for one in value if isinstance(value, tuple) else (value,):
            words += [name, str(one)]
    return words


def _given(
    option: Option,
    command_line: Mapping[str, str | Sequence[str] | None],
    ini: Mapping[str, str | Sequence[str] | None],
    environment: Mapping[str, str],
    project: Mapping[str, str | Sequence[str] | None],
) -> Iterator[tuple[int, Any]]:
    """How far the nearest source is that has the option, and the value there; nothing where none has."""
    sources: tuple[tuple[str, str | Sequence[str] | None], ...] = (
        (option.flag, command_line.get(option.name)),
        (option.variable, environment.get(option.variable)),
        (f"{option.name} in [tool.harness]", project.get(option.name)),
        (f"harness_{option.name}", ini.get(option.name)),
    )
    for distance, (source, given) in enumerate(sources):
        if source == option.flag and given is not None and "" in (given if option.repeatable else (given,)):
            raise UsageError(f"{option.flag} is empty.", next_step="give it a value, or leave it out")
        if not given:
            continue
        if option.repeatable:
            texts = given.split(os.pathsep) if isinstance(given, str) else given
            yield distance, tuple(option.read(text, source) for text in texts)
        else:
            assert isinstance(given, str)
            yield distance, option.read(given, source)
        return
