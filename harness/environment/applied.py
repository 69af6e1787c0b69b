"""What became of the files: what was applied, what failed, and what to do about it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psycopg

from harness.environment import platforms
from harness.environment.description import GONE_ON
from harness.errors import HarnessError, limit_of
from harness.sqltext.scripts import Statement

NAME = r'("(?:[^"]|"")+"|[\w$]+)'
"""A name in a statement, quoted or not."""

EXTENSION = re.compile(rf"CREATE\s+EXTENSION\s+(?:IF\s+NOT\s+EXISTS\s+)?{NAME}", re.IGNORECASE)

_OF_ROW = re.compile(r"^COPY .*, line (\d+)", re.MULTILINE)
_UNSET = re.compile(r'syntax error at or near ":"')
_VARIABLE = re.compile(r""":['"]?(\w+)""")

MISSING_NAME = re.compile(
    r'(?:type|operator class) "?([\w.]+)(?:\[\])*"? does not exist|function ([\w".]+)\(.*\) does not exist'
)
_CREATES = re.compile(
    r"(?:CREATE\s+(?:OR\s+REPLACE\s+)?(?:UNIQUE\s+|TEMP\s+|TEMPORARY\s+|UNLOGGED\s+|GLOBAL\s+|LOCAL\s+|CONSTRAINT\s+|"
    r"MATERIALIZED\s+|RECURSIVE\s+|FOREIGN\s+)*(?:TABLE|VIEW|INDEX|SEQUENCE|TYPE|DOMAIN|FUNCTION|PROCEDURE|AGGREGATE|SCHEMA|"
    r"TRIGGER|POLICY|EXTENSION|ROLE)|ADD\s+COLUMN|RENAME\s+TO)\s+(?:CONCURRENTLY\s+)?(?:IF\s+NOT\s+EXISTS\s+)?"
    r'((?:"[^"]+"|[\w$]+)(?:\s*\.\s*(?:"[^"]+"|[\w$]+))*)',
    re.IGNORECASE,
)
_QUOTED = re.compile(r'"([^"]+)"|function ([\w.]+)\(')

_SHOWN = 1200
"""Characters of a statement that an error shows."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One statement that could not be applied."""

    path: Path
    line: int
    message: str
    sqlstate: str | None
    statement: str
    next_step: str
    follows: str = ""
    """`FILE:LINE` of a failure before it that this one comes from, where it names what that one was to create."""

    @property
    def error(self) -> HarnessError:
        """As the error that ends a run."""
        shown = self.statement if len(self.statement) <= _SHOWN else self.statement[:_SHOWN] + "\n..."
        follows = f"; it follows from {self.follows}" if self.follows else ""
        if not self.line:  # of the file as a whole
            return HarnessError(self.message, tried=shown, next_step=self.next_step)
        return HarnessError(
            f"{self.path}:{self.line}: {self.message} (SQLSTATE {self.sqlstate or 'none'}){follows}",
            tried="\n    " + shown.replace("\n", "\n    "),
            next_step=self.next_step,
        )


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of all files."""

    files: int
    applied: int
    """Migration files in which no statement failed."""
    platform: str
    """Which, and by what it was recognised."""
    role: str
    """As whom the migrations ran."""
    order: tuple[str, ...] = ()
    """For each folder, in what order its files were taken, and which were left out."""
    stand_ins: tuple[platforms.StandIn, ...] = ()
    notes: tuple[str, ...] = ()
    failures: tuple[Failure, ...] = ()
    seeds: tuple[int, int] = (0, 0)
    """How many seed files were applied, of how many; `files` and `applied` are the migrations'."""

    @property
    def beside(self) -> tuple[str, ...]:
        """What stood in for what the server lacks, and what was done for the files."""
        stand_ins = (f"stand-in: {each.name}: {each.says}" for each in self.stand_ins)
        return (*stand_ins, *(f"note: {note}" for note in self.notes))

    @property
    def prelude(self) -> tuple[str, ...]:
        """What was there beside the files, and what is missing of them: sentences that every report shows.

        Empty where that is nothing: no platform, no stand-in, nothing supplied, nothing that failed.
        """
        found = [*self.beside]
        if self.failures:
            first = self.failures[0]
            failed = f"{len(self.failures)} of the files' statements failed"
            found.append(f"{GONE_ON}: {failed}; first {first.path}:{first.line}: {first.message}")
        if not found and self.platform.startswith("none"):
            return ()
        return (f"platform: {self.platform}; migrations ran as {self.role}", *found)

    @property
    def causes(self) -> tuple[tuple[str, int, int], ...]:
        """Each message, how many statements failed with it and in how many files; the most frequent first."""
        messages = Counter(failure.message for failure in self.failures)
        files = {message: len({f.path for f in self.failures if f.message == message}) for message in messages}
        return tuple((message, count, files[message]) for message, count in messages.most_common())

    @property
    def whole(self) -> bool:
        """Whether every file and every statement of it was applied."""
        return not self.failures and self.applied == self.files and self.seeds[0] == self.seeds[1]


def failure_of(
    statement: Statement, error: psycopg.Error, earlier: Sequence[Failure], *, ours: bool, outlasted: float | None
) -> Failure:
    """What an error of the server means for who wrote the statement.

    `ours`: the server was booted here; `outlasted`: the seconds after which the file was cancelled, if it was.
    """
    position = int(error.diag.statement_position or 0)
    line = statement.line + statement.text.count("\n", 0, max(position - 1, 0))
    if statement.data is not None and (row := _OF_ROW.search(error.diag.context or "")):
        line = statement.line + statement.text.count("\n") + int(row[1])
    hint = f" ({error.diag.message_hint})" if error.diag.message_hint else ""
    message = f"{error.diag.message_primary or str(error).strip()}{hint}"
    next_step = "mend the statement; nothing of this database is kept"
    if outlasted is not None:
        message = f"the file was not done after {outlasted:g} s, and was cancelled: {message}"
        next_step = "see what it waits for, or give --apply-timeout more seconds"
    elif found := EXTENSION.match(statement.text):
        if isinstance(error, (psycopg.errors.FeatureNotSupported, psycopg.errors.UndefinedFile)):
            message = f"the extension {unquoted(found[1])} is not on this server, and there is no stand-in for it"
            next_step = "use a server that has it (--postgres-image, or a DSN), or --keep-going to go on without it"
        elif "base type" in message:  # of a stand-in's
            name = unquoted(found[1])
            message = f"the extension {name} is not on this server, and its stand-in needs a superuser"
            next_step = "have it installed there, give the DSN of a superuser, or --keep-going to go on without it"
    elif error.sqlstate == "42601" and _UNSET.search(message):
        found = _VARIABLE.match(statement.text, position - 1)
        name = found[1] if found else "..."
        message = f"nothing sets the variable {name} of psql: {message}"
        next_step = f"\\set {name} in the file, or in one that includes it with \\ir"
    elif (named := MISSING_NAME.search(message)) and (missing := extension_of(named)):
        next_step = f"CREATE EXTENSION {missing} in a file before this one (a dump of one schema leaves it out)"
    elif "ICU is not supported" in message:
        next_step = "use a server with ICU: --server container, or a DSN; the embedded one has none"
    elif limit := limit_of(error.sqlstate, message):
        next_step = f"raise {limit}, which this file or the server sets"
    elif error.sqlstate == "42501":
        next_step = "grant that to the role, or give the DSN of one that may"
        if ours:
            next_step = "see whether the platform allows it: what only a superuser may, it does not"
    elif error.sqlstate in ("42P01", "42703", "3F000", "42883", "42704"):
        next_step = "see that what it names is created by a file before this one"
    return Failure(
        statement.path, line, message, error.sqlstate, statement.text, next_step, _follows(message, statement, earlier)
    )


def _follows(message: str, statement: Statement, earlier: Sequence[Failure]) -> str:
    names = {(a or b).rpartition(".")[2] for a, b in _QUOTED.findall(message)}
    for each in earlier:
        if names & _made_by(each.statement):
            same = each.path.name == statement.path.name and each.path != statement.path
            named = f"{each.path.parent.name}/" if same else ""  # every one of Prisma's is called migration.sql
            return f"{named}{each.path.name}:{each.line}"
    return ""


@cache
def _made_by(statement: str) -> frozenset[str]:
    return frozenset(unquoted(re.split(r"\s*\.\s*", name)[-1]) for name in _CREATES.findall(statement))


def extension_of(named: re.Match[str]) -> str | None:
    """The extension that a missing type, operator class or function is of, where that is known."""
    return platforms.OF_NAME.get((named[1] or named[2]).replace('"', "").lower().rpartition(".")[2])


def unquoted(name: str) -> str:
    """A name as the catalogue has it: without its quotes, or in small letters."""
    return name[1:-1].replace('""', '"') if name[:1] == '"' else name.lower()
