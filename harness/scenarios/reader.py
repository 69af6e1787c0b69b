"""The reader of `NAME.race.sql`: plain SQL with headings in comments, read strictly.

`headings.py` cuts the file; here is what each heading says, kept in the `Scenario`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pglast
from pglast import ast
from pglast.parser import ParseError

from harness.environment.identity import Identity
from harness.errors import HarnessError, UsageError
from harness.options import ISOLATION_LEVELS
from harness.scenarios.headings import Section, cut, distance, wrong
from harness.scenarios.load_headings import LoadHeadings
from harness.scenarios.scenario import (
    ANOMALIES,
    JUDGED,
    MOST_SESSIONS,
    SUFFIX,
    Allowed,
    Busy,
    Condition,
    Ignored,
    Retry,
    Scenario,
    Session,
)
from harness.scenarios.variables import gset_names, with_any
from harness.sqltext.scripts import Script, Statement, check_text

_TO_CLIENT = re.compile(r"COPY\b.*\bTO\s+STDOUT\b", re.IGNORECASE | re.DOTALL)
_SQLSTATE = re.compile(r"[0-9A-Z]{5}")


def find(paths: Sequence[Path]) -> tuple[Path, ...]:
    """The scenario files at `paths`; a folder gives all in it and below. Raises UsageError where there is none."""
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            files = sorted(path.rglob(f"*{SUFFIX}"))
            if not files:
                raise UsageError(
                    f"The folder {path} holds no scenario.",
                    next_step=f"put a file named NAME{SUFFIX} there; `harness new` lists some to start from",
                )
        elif path.is_file():
            files = [path]
        else:
            raise UsageError(f"There is no scenario at {path}.", next_step="name a file or a folder that exists")
        found |= dict.fromkeys(files)
    return tuple(found)


def read(path: Path) -> Scenario:
    """Read a scenario file. Raises UsageError with file, line and what was meant."""
    try:
        check_text(path, path.read_bytes())
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read.", tried=str(error), next_step="name a file that may be read"
        ) from error
    except HarnessError as error:
        raise UsageError(error.what, tried=error.tried, next_step=error.next_step) from error
    return _Reader(path, text).scenario()


class _Reader(LoadHeadings):
    def __init__(self, path: Path, text: str) -> None:
        super().__init__()
        self.path = path
        self.text = text.replace("\r\n", "\n")
        self.claim = ""
        self.setup: list[Statement] = []
        self.sessions: list[Session] = []
        self.conditions: list[Condition] = []
        self.busy: list[Busy] = []
        self.ignored: list[Ignored] = []
        self.allowed: list[Allowed] = []
        self.judge = ""
        self.now: datetime | None = None
        self.variables: dict[str, str] = {}
        """Of the setup, by `\\set`."""
        self.of_file = Session("", 0, 0, ())
        """What holds for every session that says nothing else."""
        self.count: int | None = None
        """How many of the session that is being read."""
        self.open = False
        """A session was begun, and headings of a session belong to it."""

    def scenario(self) -> Scenario:
        head, sections = cut(self.path, self.text)
        if statement := next(self._statements(head, 1), None):
            raise self._error(
                statement.line, "A statement comes before the first heading.", "put it below `-- setup` or a session"
            )
        for section in sections:
            handler: Callable[[Section], None] = getattr(self, "_" + section.word.replace(" ", "_"))
            handler(section)
            self.lines[section.word] = section.line
        self._end_session()
        if not self.claim:
            raise self._error(1, "The scenario has no claim.", "begin the file with `-- scenario: ` and one sentence")
        load = self.load()
        if not self.sessions and load is None:
            raise self._error(1, "The scenario has no session.", "add `-- session: NAME` with the statements below it")
        names = [session.name for session in self.sessions]
        if twice := next((name for name in names if names.count(name) > 1), None):
            line = [session.line for session in self.sessions if session.name == twice][-1]
            raise self._error(line, f"Two sessions are named {twice}.", "give each a name of its own, or write `x 2`")
        if len(self.sessions) > MOST_SESSIONS:
            raise self._error(
                self.sessions[0].line, f"There are {len(self.sessions)} sessions.", f"take at most {MOST_SESSIONS}"
            )
        if self.judge == "queries only" and not self.conditions:
            raise self._error(1, "`judge: queries only` leaves nothing to judge.", "add a query with never: or always:")
        return Scenario(
            self.path,
            self.claim,
            tuple(self.setup),
            tuple(self._with_defaults(session) for session in self.sessions),
            tuple(self.conditions),
            tuple(self.busy),
            tuple(self.ignored),
            tuple(self.allowed),
            self.judge,
            load,
            self.now,
            self.variables,
        )

    def _with_defaults(self, session: Session) -> Session:
        default = self.of_file
        return replace(
            session,
            identity=session.identity if session.identity != Identity() else default.identity,
            identity_line=session.identity_line or default.identity_line,
            isolation=session.isolation or default.isolation,
            retry=session.retry or default.retry,
        )

    def _statements(self, body: str, line: int, variables: dict[str, str] | None = None) -> Iterator[Statement]:
        variables = {} if variables is None else variables
        try:
            # So that a statement's line, and an error's, is that of the file.
            for statement in Script(self.path, "\n" * (line - 1) + body).statements(variables):
                yield statement
                for name in gset_names(statement.text, statement.then):
                    variables.pop(name, None)  # from here on it is what was answered
        except UsageError:
            raise
        except HarnessError as error:
            raise UsageError(
                f"{self.path}:{line}: what follows this heading cannot be split into statements.",
                tried=f"{error.what} {error.tried}".strip(),
                next_step=error.next_step,
            ) from error

    def _scenario(self, section: Section) -> None:
        if self.claim:
            raise self._error(section.line, "A file holds one scenario, and this is the second.", "make it two files")
        if not section.rest:
            raise self._error(section.line, "The scenario's claim is empty.", "say in one sentence what must be true")
        self._empty(section)
        self.claim = section.rest

    def _setup(self, section: Section) -> None:
        self._end_session()
        made = list(self._statements(section.body, section.body_line, self.variables))
        if to_client := next((each for each in made if _TO_CLIENT.match(each.text)), None):
            raise self._error(to_client.line, "COPY to the client has no client in a setup.", "leave the statement out")
        self.setup += made
        self.setup_bodies.append((section.start, section.body))

    def _session(self, section: Section) -> None:
        self._end_session()
        match = re.fullmatch(r"([\w-]+)(?:\s+x\s*(\d+))?", section.rest)
        if match is None or match[2] == "0":
            raise self._error(
                section.line,
                f"{section.rest!r} is not a session's name." if section.rest else "The session has no name.",
                "write `session: alice`, or `session: scanner x 10` for ten of them",
            )
        self.count = int(match[2]) if match[2] else None
        self.sessions.append(Session(match[1], len(self.sessions) + 1, section.line, ()))
        self.open = True
        self._add(section)

    def _add(self, section: Section) -> None:
        """Statements of the open session."""
        session = self.sessions[-1]
        statements = tuple(self._statements(section.body, section.body_line))
        stop = re.search(r"^\s*\\set\s+ON_ERROR_STOP\s+(on|1|true|yes)\s*$", section.body, re.MULTILINE | re.IGNORECASE)
        self.sessions[-1] = replace(
            session,
            statements=(*session.statements, *statements),
            stop_on_error=session.stop_on_error or stop is not None,
        )

    def _end_session(self) -> None:
        if not self.open:
            return
        self.open = False
        session = self.sessions.pop()
        if not session.statements:
            raise self._error(session.line, f"The session {session.name} has no statement.", "put its SQL below it")
        if self.count is None:
            self.sessions.append(session)
            return
        self.sessions += [
            replace(session, name=f"{session.name}-{number}", number=number) for number in range(1, self.count + 1)
        ]

    def _of_session(self, section: Section, **values: object) -> None:
        """Keep what a heading says, of the open session or of the file; statements below it are the session's."""
        if not self.open:
            self._empty(section)
            self.of_file = replace(self.of_file, **values)  # type: ignore[arg-type]
            return
        if self.sessions[-1].statements:
            raise self._error(
                section.line, f"`{section.word}:` stands below a statement.", "put it right below `session:`"
            )
        self.sessions[-1] = replace(self.sessions[-1], **values)  # type: ignore[arg-type]
        self._add(section)

    def _as(self, section: Section) -> None:
        try:
            identity = Identity.read(section.rest)
        except UsageError as error:
            raise self._error(section.line, error.what, error.next_step) from error
        self._of_session(section, identity=identity, identity_line=section.line)

    def _isolation(self, section: Section) -> None:
        if section.rest.lower() not in ISOLATION_LEVELS:
            raise self._error(
                section.line, f"{section.rest!r} is not an isolation level.", f"write {', '.join(ISOLATION_LEVELS)}"
            )
        self._of_session(section, isolation=section.rest.lower())

    def _retry(self, section: Section) -> None:
        match = re.fullmatch(r"([0-9A-Z]{5}(?:[,\s]+[0-9A-Z]{5})*)\s+up to\s+(\d+)(?: times)?", section.rest)
        if match is None or not 1 <= int(match[2]) <= 1000:
            raise self._error(
                section.line,
                f"{section.rest!r} does not say which errors are retried and how often.",
                "write `retry: 40001 40P01 up to 5`",
            )
        codes = frozenset(re.findall(_SQLSTATE, match[1]))
        self._of_session(section, retry=Retry(codes, int(match[2]), section.word == "retry session"))

    _retry_session = _retry

    def _busy(self, section: Section) -> None:
        self._end_session()
        self._empty(section)
        self.busy.append(self._condition(section, "busy"))

    def _condition(self, section: Section, name: str) -> Busy:
        """What `[NAME] when CONDITION` says; `name` where there is none."""
        match = re.fullmatch(r"(?:([\w -]+?)\s+)?when\s+(.+)", section.rest)
        if match is None:
            raise self._error(
                section.line,
                f"{section.rest!r} does not say when an answer means {section.word}.",
                f"write `{section.word}: when error 55P03`, `{section.word}: when no row`, or SQL over the answer's "
                "columns after `when`",
            )
        condition = match[2].rstrip(";").strip()
        busy = Busy(match[1] or name, section.line, condition)
        if condition == "no row":
            return replace(busy, no_row=True)
        if condition == "nothing changed":
            return replace(busy, nothing_changed=True)
        if error := re.fullmatch(r"error\s+(\S+?)(?:\s+like\s+('(?:[^']|'')*'))?", condition, re.IGNORECASE):
            if not _SQLSTATE.fullmatch(error[1]):
                raise self._error(section.line, f"{error[1]!r} is not an SQLSTATE.", "give five signs, such as 55P03")
            return replace(busy, code=error[1], like=error[2][1:-1].replace("''", "'") if error[2] else None)
        if condition == "error":
            raise self._error(
                section.line,
                f"`error` alone does not say which error means {section.word}.",
                f"write `{section.word}: when error 55P03`; for a column of that name, `error IS TRUE`",
            )
        self._parsed(f"SELECT ({condition})", section.line, condition)
        return replace(busy, sql=condition)

    def _never(self, section: Section) -> None:
        self._end_session()
        statements = list(self._statements(section.body, section.body_line))
        if len(statements) != 1:
            raise self._error(
                section.line,
                f"`{section.word}:` has {len(statements)} statements below it.",
                "put one query there; give each query a heading of its own",
            )
        [statement] = statements
        [parsed] = self._parsed(with_any(statement.text), statement.line, statement.text)
        if not isinstance(parsed.stmt, ast.SelectStmt) or parsed.stmt.intoClause is not None:
            raise self._error(statement.line, f"`{section.word}:` needs a query.", "write a SELECT")
        self.conditions.append(Condition(section.word, section.rest, statement.text, statement.line))

    _always = _never

    def _parsed(self, sql: str, line: int, shown: str) -> tuple[ast.RawStmt, ...]:
        try:
            parsed: tuple[ast.RawStmt, ...] = pglast.parse_sql(sql)
        except ParseError as error:
            raise self._error(line, f"{shown!r} does not parse: {error.args[0]}.", "mend the SQL") from error
        return parsed

    def _ignore(self, section: Section) -> None:
        self._end_session()
        self._empty(section)
        name, because = self._because(section, "ignore: scan_logs because it is a log of attempts")
        if not re.fullmatch(r'("[^"]+"|[\w$]+)(\.("[^"]+"|[\w$]+)){0,2}', name):
            raise self._error(section.line, f"{name!r} is not a table or column.", "write TABLE or TABLE.COLUMN")
        parts = [part[1:-1] if part[0] == '"' else part.lower() for part in re.findall(r'"[^"]+"|[\w$]+', name)]
        self.ignored.append(Ignored(".".join(parts), because, section.line))

    def _allow(self, section: Section) -> None:
        self._end_session()
        self._empty(section)
        name, because = self._because(section, "allow: write skew because two doctors are enough")
        if name not in ANOMALIES:
            near = sorted((distance(name, each), each) for each in ANOMALIES)[0]
            meant = f"write `{near[1]}`" if near[0] <= 2 else f"use one of {', '.join(ANOMALIES)}"
            raise self._error(section.line, f"There is no anomaly {name!r}.", meant)
        self.allowed.append(Allowed(name, because, section.line))

    def _because(self, section: Section, example: str) -> tuple[str, str]:
        name, word, because = section.rest.partition(" because ")
        if not word or not because.strip() or not name.strip():
            raise self._error(section.line, f"`{section.word}:` has no reason.", f"write `{example}`")
        return name.strip(), because.strip()

    def _judge(self, section: Section) -> None:
        self._end_session()
        self._empty(section)
        if section.rest not in JUDGED:
            raise self._error(section.line, f"{section.rest!r} cannot be judged.", f"write one of {', '.join(JUDGED)}")
        if self.judge:
            raise self._error(section.line, "There are two lines `judge:`.", "keep one of them")
        self.judge = section.rest

    def _now(self, section: Section) -> None:
        self._end_session()
        self._empty(section)
        if self.now is not None:
            raise self._error(section.line, "There are two lines `now:`.", "keep one: a scenario is at one moment")
        try:
            moment = datetime.fromisoformat(section.rest.strip("'"))
        except ValueError as error:
            raise self._error(
                section.line, f"{section.rest!r} is not a moment.", "write `now: 2030-01-01 12:00:00+00`"
            ) from error
        self.now = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)

    def _empty(self, section: Section) -> None:
        if statement := next(self._statements(section.body, section.body_line), None):
            raise self._error(
                statement.line,
                f"A statement stands below `{section.word}:`, to which it does not belong.",
                "put it below setup, a session, never: or always:",
            )

    def _error(self, line: int, what: str, next_step: str) -> UsageError:
        return wrong(self.path, line, what, next_step)
