"""The reader of `NAME.race.sql`: plain SQL with headings in comments, read strictly.

A heading is a comment at the very beginning of a line, outside of any statement: `-- word: rest`. What follows belongs
to it up to the next one. A word that is no heading's is an error, not a comment: one that is misspelt would change what
is judged, and nobody would see it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pglast
from pglast import ast
from pglast.parser import ParseError
from pglast.visitors import Visitor

from harness.contracts.declared import Load
from harness.environment.identity import Identity
from harness.errors import HarnessError, UsageError
from harness.options import ISOLATION_LEVELS
from harness.scenarios.loads import SUFFIX, LoadHeadings
from harness.sqltext.scripts import Script, Statement, check_text

JUDGED = ("sessions", "transactions", "queries only")

MOST_SESSIONS = 64

ANOMALIES = (
    "lost update", "write skew", "fuzzy read", "phantom read", "read skew", "double use", "overselling",
    "false refusal", "deadlock", "swallowed error", "unhandled 40001", "hang", "not serializable",
    "not split", "not exhausted", "did not overlap", "undeclared busy", "choice without order",
)  # fmt: skip
"""What a finding may be named, and `allow:` accept."""

_TOKEN = re.compile(
    r"--[^\n]*|/\*|(?<![\w$])[eE]'(?:\\.|''|[^'\\])*'|'(?:''|[^'])*'|\"(?:\"\"|[^\"])*\"|(?<![\w$])\$(\w*)\$.*?\$\1\$",
    re.DOTALL,
)
_HEADING = re.compile(r"--[ \t]*([a-z]+(?: [a-z]+)?)[ \t]*:(?!:)[ \t]*(.*?)[ \t]*$")
_LONE_WORDS = re.compile(r"--[ \t]*([a-z][a-z ]*?)[ \t]*$")
_TO_CLIENT = re.compile(r"COPY\b.*\bTO\s+STDOUT\b", re.IGNORECASE | re.DOTALL)
_SQLSTATE = re.compile(r"[0-9A-Z]{5}")
_VARIABLE = re.compile(r"(?<![:\w]):('|\"|)(\w+)\1")


@dataclass(frozen=True, slots=True)
class Heading:
    """One row of the reference: how a heading is written, and what it means."""

    word: str
    form: str
    meaning: str


HEADINGS: tuple[Heading, ...] = (
    Heading("scenario", "scenario: SENTENCE", "The claim, in one sentence; it names the test."),
    Heading(
        "setup",
        "setup",
        "Statements that are run once, as the owner, and committed: the baseline of every try.",
    ),
    Heading(
        "session",
        "session: NAME [x N]",
        "What one person does, on a connection of its own. `x 10` makes ten of them; `:'session'` is the name of each, "
        "`:number` its number. A statement outside BEGIN commits by itself. `SELECT ... \\gset` puts a row's columns "
        "into variables; those that the setup sets are known to all. After an error the session goes on as psql does; "
        "`\\set ON_ERROR_STOP on` ends it there.",
    ),
    Heading(
        "as",
        "as: ROLE [{JWT claims}]",
        "Each transaction is made as PostgREST would make it: as this role, with its settings and claims.",
    ),
    Heading(
        "isolation",
        "isolation: LEVEL",
        "read committed (the default), repeatable read or serializable; for the file, or for one session.",
    ),
    Heading(
        "retry",
        "retry: SQLSTATE... up to N",
        "The transaction, or the single statement, is run again after these errors, as an application would.",
    ),
    Heading(
        "retry session",
        "retry session: SQLSTATE... up to N",
        "All of the session is run again; refused where an earlier transaction of it has committed.",
    ),
    Heading(
        "busy",
        "busy: [NAME] when CONDITION",
        "An answer that means: not now, somebody else is at it. CONDITION is SQL over the answer's columns, or "
        "`error SQLSTATE [LIKE 'text']`, `no row` (of a query), `nothing changed` (of a command).",
    ),
    Heading("never", "never: [SENTENCE]", "A query that must return no row, whatever the order."),
    Heading("always", "always: [SENTENCE]", "A query of which every value must be true, whatever the order."),
    Heading(
        "ignore",
        "ignore: TABLE[.COLUMN] because REASON",
        "Not compared, and may be written by one who was busy, such as a log of attempts.",
    ),
    Heading(
        "judge",
        "judge: UNIT",
        "The unit that must look as if it had run alone: sessions, transactions, or queries only (nothing but never "
        "and always).",
    ),
    Heading(
        "now",
        "now: TIMESTAMP",
        "The moment at which all of it happens, setup included: the clock stands still there. UTC without a zone.",
    ),
    Heading("allow", "allow: ANOMALY because REASON", "Accepts one finding; the reason stands in the report."),
    Heading(
        "load",
        "load: [NAME]",
        "In place of sessions: a call that clients make again and again; [load.md](load.md) tells of it and the next "
        "eight.",
    ),
    Heading("keys", "keys:", "A query that makes `:count` fresh keys, and returns them."),
    Heading("missing keys", "missing keys:", "A query that returns `:count` keys that are not there."),
    Heading("applied", "applied: [NAME] when CONDITION", "An answer of a load: the call did what it was asked for."),
    Heading("refused", "refused: [NAME] when CONDITION", "It said no, as the key is used up; nothing was changed."),
    Heading("missing", "missing: [NAME] when CONDITION", "It said no, because there is no such key."),
    Heading("capacity", "capacity: at most N applied per key", "How many calls a key grants; 1 without the line."),
    Heading(
        "threshold",
        "threshold: [METRIC] EXPRESSION",
        "`p(95)<200`, of durations in milliseconds; `errors rate<0.001`; `accepted count>0`, of a name of yours.",
    ),
    Heading(
        "pattern",
        "pattern: NAME [SETTING VALUE]...",
        "A pattern that is run, as `race rounds 40 clients 6`; without such lines those of the profile.",
    ),
)


def reference() -> str:
    """The headings as a Markdown table: docs/scenarios.md has it."""
    rows = [f"| `{each.form}` | {each.meaning.replace('|', chr(92) + '|')} |" for each in HEADINGS]
    return "\n".join(["| heading | meaning |", "|---|---|", *rows])


@dataclass(frozen=True, slots=True)
class Retry:
    """Errors after which a transaction, or the whole session, is run again, and how often."""

    codes: frozenset[str]
    times: int
    session: bool = False


@dataclass(frozen=True, slots=True)
class Session:
    """What one person does."""

    name: str
    number: int
    """Its place among those of an `x N`, from 1; its place in the file where there is no `x N`."""
    line: int
    statements: tuple[Statement, ...]
    identity: Identity = field(default_factory=Identity)
    identity_line: int = 0
    """Of its `as:`."""
    isolation: str = ""
    retry: Retry | None = None
    stop_on_error: bool = False
    given: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Variables of the setup, which are known when it has been run."""

    @property
    def variables(self) -> dict[str, str]:
        """psql variables with which a session begins: those of the setup, `:'session'`, `:number`."""
        return {**self.given, "session": self.name, "number": str(self.number)}


@dataclass(frozen=True, slots=True)
class Condition:
    """A query that must return no row (never), or only true (always), in every final state."""

    kind: str
    claim: str
    sql: str
    line: int


@dataclass(frozen=True, slots=True)
class Busy:
    """An answer that means: not now. One of `code` (with `like`), `no_row`, `nothing_changed`, `sql` is set."""

    name: str
    line: int
    text: str
    code: str = ""
    like: str | None = None
    no_row: bool = False
    nothing_changed: bool = False
    sql: str = ""


@dataclass(frozen=True, slots=True)
class Ignored:
    """A table, or a column of one, that is not compared."""

    name: str
    because: str
    line: int


@dataclass(frozen=True, slots=True)
class Allowed:
    """An anomaly that is accepted."""

    anomaly: str
    because: str
    line: int


@dataclass(frozen=True, slots=True)
class Scenario:
    """One scenario file as it was read."""

    path: Path
    claim: str
    setup: tuple[Statement, ...]
    sessions: tuple[Session, ...]
    conditions: tuple[Condition, ...] = ()
    busy: tuple[Busy, ...] = ()
    ignored: tuple[Ignored, ...] = ()
    allowed: tuple[Allowed, ...] = ()
    judge: str = ""
    load: Load | None = None
    """In place of sessions: a call that is put under load."""
    now: datetime | None = None
    """The moment at which it happens; None: as it comes."""
    variables: Mapping[str, str] = field(default_factory=dict, compare=False)
    """psql variables that `\\set` gives in the setup."""
    title: str = ""
    """What reports call it: its name, unless another file has that too."""

    def __post_init__(self) -> None:
        if not self.title:
            object.__setattr__(self, "title", self.name)

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self.path.name.removesuffix(SUFFIX)


@dataclass(frozen=True, slots=True)
class _Section:
    word: str
    rest: str
    line: int
    body: str
    body_line: int
    start: int
    """Where its body begins in the text."""


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
        for section in self._sections():
            handler: Callable[[_Section], None] = getattr(self, "_" + section.word.replace(" ", "_"))
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

    def _sections(self) -> Iterator[_Section]:
        """The file cut at its headings."""
        found: list[tuple[str, str, int, int, int]] = []
        for start, end in self._comments():
            line = self.text.count("\n", 0, start) + 1
            heading = self._heading(self.text[start:end], line)
            if heading is not None:
                found.append((*heading, line, start, end))
        head = self.text[: found[0][3]] if found else self.text
        if statement := next(self._statements(head, 1), None):
            raise self._error(
                statement.line, "A statement comes before the first heading.", "put it below `-- setup` or a session"
            )
        for at, (word, rest, line, _, end) in enumerate(found):
            following = found[at + 1][3] if at + 1 < len(found) else len(self.text)
            yield _Section(word, rest, line, self.text[end:following], line, end)

    def _comments(self) -> Iterator[tuple[int, int]]:
        """Comments at the beginning of a line, outside of quotes, bodies and other comments."""
        at = 0
        while match := _TOKEN.search(self.text, at):
            start, at = match.span()
            if match.group().startswith("--") and (start == 0 or self.text[start - 1] == "\n"):
                yield match.span()
            elif match.group() == "/*":
                depth = 1
                for edge in re.finditer(r"/\*|\*/", self.text[at:]):
                    depth += 1 if edge.group() == "/*" else -1
                    if not depth:
                        at += edge.end()
                        break

    def _heading(self, comment: str, line: int) -> tuple[str, str] | None:
        """A comment's word and the rest, if it is a heading. Raises UsageError for one that is misspelt."""
        words = {heading.word for heading in HEADINGS}
        match = _HEADING.match(comment)
        if match is None:
            alone = _LONE_WORDS.match(comment)
            first = alone[1].split()[0] if alone else ""
            if alone and alone[1] == "setup":
                return "setup", ""
            if alone and len(alone[1].split()) == 1 and distance(first, "setup") <= 2:
                raise self._error(line, f"{comment.strip()!r} is no heading.", "write `-- setup`")
            if alone and first in words:
                raise self._error(
                    line,
                    f"{comment.strip()!r} begins like a heading and has no colon.",
                    f"write `-- {first}: ...`, or begin a comment with another word",
                )
            return None
        word, rest = match[1], match[2]
        if word == "setup" and rest:
            raise self._error(line, "`setup` takes nothing on its line.", "put the statements below it")
        if word in words:
            return word, rest
        near = sorted((distance(word, each), each) for each in words)[0]
        if near[0] <= 2:
            raise self._error(line, f"There is no heading {word!r}.", f"write `{near[1]}:`")
        raise self._error(
            line,
            f"There is no heading {word!r}.",
            f"use one of {', '.join(sorted(words))}; a comment that is none begins with a capital or is indented",
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

    def _scenario(self, section: _Section) -> None:
        if self.claim:
            raise self._error(section.line, "A file holds one scenario, and this is the second.", "make it two files")
        if not section.rest:
            raise self._error(section.line, "The scenario's claim is empty.", "say in one sentence what must be true")
        self._empty(section)
        self.claim = section.rest

    def _setup(self, section: _Section) -> None:
        self._end_session()
        made = list(self._statements(section.body, section.body_line, self.variables))
        if to_client := next((each for each in made if _TO_CLIENT.match(each.text)), None):
            raise self._error(to_client.line, "COPY to the client has no client in a setup.", "leave the statement out")
        self.setup += made
        self.setup_bodies.append((section.start, section.body))

    def _session(self, section: _Section) -> None:
        self._end_session()
        match = re.fullmatch(r"([\w-]+)(?:\s+x\s*(\d+))?", section.rest)
        if match is None or match[2] == "0":
            raise self._error(
                section.line,
                f"{section.rest!r} is no session's name." if section.rest else "The session has no name.",
                "write `session: alice`, or `session: scanner x 10` for ten of them",
            )
        self.count = int(match[2]) if match[2] else None
        self.sessions.append(Session(match[1], len(self.sessions) + 1, section.line, ()))
        self.open = True
        self._add(section)

    def _add(self, section: _Section) -> None:
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

    def _of_session(self, section: _Section, **values: object) -> None:
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

    def _as(self, section: _Section) -> None:
        try:
            identity = Identity.read(section.rest)
        except UsageError as error:
            raise self._error(section.line, error.what, error.next_step) from error
        self._of_session(section, identity=identity, identity_line=section.line)

    def _isolation(self, section: _Section) -> None:
        if section.rest.lower() not in ISOLATION_LEVELS:
            raise self._error(
                section.line, f"{section.rest!r} is no isolation level.", f"write {', '.join(ISOLATION_LEVELS)}"
            )
        self._of_session(section, isolation=section.rest.lower())

    def _retry(self, section: _Section) -> None:
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

    def _busy(self, section: _Section) -> None:
        self._end_session()
        self._empty(section)
        self.busy.append(self._condition(section, "busy"))

    def _condition(self, section: _Section, name: str) -> Busy:
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
                raise self._error(section.line, f"{error[1]!r} is no SQLSTATE.", "give five signs, such as 55P03")
            return replace(busy, code=error[1], like=error[2][1:-1].replace("''", "'") if error[2] else None)
        if condition == "error":
            raise self._error(
                section.line,
                f"`error` alone does not say which error means {section.word}.",
                f"write `{section.word}: when error 55P03`; for a column of that name, `error IS TRUE`",
            )
        self._parsed(f"SELECT ({condition})", section.line, condition)
        return replace(busy, sql=condition)

    def _never(self, section: _Section) -> None:
        self._end_session()
        statements = list(self._statements(section.body, section.body_line))
        if len(statements) != 1:
            raise self._error(
                section.line,
                f"`{section.word}:` has {len(statements)} statements below it.",
                "put one query there; give each query a heading of its own",
            )
        [statement] = statements
        [parsed] = self._parsed(_with_any(statement.text), statement.line, statement.text)
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

    def _ignore(self, section: _Section) -> None:
        self._end_session()
        self._empty(section)
        name, because = self._because(section, "ignore: scan_logs because it is a log of attempts")
        if not re.fullmatch(r'("[^"]+"|[\w$]+)(\.("[^"]+"|[\w$]+)){0,2}', name):
            raise self._error(section.line, f"{name!r} is no table or column.", "write TABLE or TABLE.COLUMN")
        parts = [part[1:-1] if part[0] == '"' else part.lower() for part in re.findall(r'"[^"]+"|[\w$]+', name)]
        self.ignored.append(Ignored(".".join(parts), because, section.line))

    def _allow(self, section: _Section) -> None:
        self._end_session()
        self._empty(section)
        name, because = self._because(section, "allow: write skew because two doctors are enough")
        if name not in ANOMALIES:
            near = sorted((distance(name, each), each) for each in ANOMALIES)[0]
            meant = f"write `{near[1]}`" if near[0] <= 2 else f"use one of {', '.join(ANOMALIES)}"
            raise self._error(section.line, f"There is no anomaly {name!r}.", meant)
        self.allowed.append(Allowed(name, because, section.line))

    def _because(self, section: _Section, example: str) -> tuple[str, str]:
        name, word, because = section.rest.partition(" because ")
        if not word or not because.strip() or not name.strip():
            raise self._error(section.line, f"`{section.word}:` has no reason.", f"write `{example}`")
        return name.strip(), because.strip()

    def _judge(self, section: _Section) -> None:
        self._end_session()
        self._empty(section)
        if section.rest not in JUDGED:
            raise self._error(section.line, f"{section.rest!r} cannot be judged.", f"write one of {', '.join(JUDGED)}")
        if self.judge:
            raise self._error(section.line, "There are two lines `judge:`.", "keep one of them")
        self.judge = section.rest

    def _now(self, section: _Section) -> None:
        self._end_session()
        self._empty(section)
        if self.now is not None:
            raise self._error(section.line, "There are two lines `now:`.", "keep one: a scenario is at one moment")
        try:
            moment = datetime.fromisoformat(section.rest.strip("'"))
        except ValueError as error:
            raise self._error(
                section.line, f"{section.rest!r} is no moment.", "write `now: 2030-01-01 12:00:00+00`"
            ) from error
        self.now = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)

    def _empty(self, section: _Section) -> None:
        if statement := next(self._statements(section.body, section.body_line), None):
            raise self._error(
                statement.line,
                f"A statement stands below `{section.word}:`, to which it does not belong.",
                "put it below setup, a session, never: or always:",
            )

    def _error(self, line: int, what: str, next_step: str) -> UsageError:
        return UsageError(f"{self.path}:{line}: {what}", next_step=next_step)


def substituted(text: str, variables: dict[str, str]) -> str:
    """The text with psql's variables put in: `:'x'` a literal, `:"x"` a name, `:x` as it is; unknown ones stay."""

    def put(name: str, quote: str) -> str:
        value = variables.get(name)
        if value is None:
            return f":{quote}{name}{quote}"
        if quote == "'":
            escaped = value.replace("'", "''")
            return f" E'{escaped}'".replace("\\", "\\\\") if "\\" in value else f"'{escaped}'"
        return '"' + value.replace('"', '""') + '"' if quote else value

    return replaced(text, put)


def replaced(text: str, put: Callable[[str, str], str]) -> str:
    """The text with what `put` gives, of its name and its quote, in the place of each variable."""
    pieces = _pieces(text)
    return "".join(_VARIABLE.sub(lambda m: put(m[2], m[1]), piece) if plain else piece for plain, piece in pieces)


def substituted_by_any(text: str) -> str:
    """The text with a value for each variable, as an example to read; empty where one is a name, which says what is
    touched."""
    matches = [match for plain, piece in _pieces(text) if plain for match in _VARIABLE.finditer(piece)]
    return "" if any(m[1] == '"' for m in matches) else _with_any(text)


def _with_any(text: str) -> str:
    return substituted(text, dict.fromkeys(_names(text), "1"))


def unset_variable(text: str, known: Collection[str]) -> str:
    """A variable without which a statement is no SQL, and that is none of `known`; empty where there is none."""
    names = _names(text) - set(known)
    if not names or _is_sql(substituted(text, dict.fromkeys(known, "1"))) or not _is_sql(_with_any(text)):
        return ""
    return str(min(names))


def _is_sql(text: str) -> bool:
    try:
        pglast.parse_sql(text)
    except ParseError:
        return False
    return True


def has_variables(text: str) -> bool:
    """Whether a statement names variables, so that its text is only known when it is run."""
    return any(plain and _VARIABLE.search(piece) for plain, piece in _pieces(text))


def is_used(name: str, text: str) -> bool:
    """Whether a statement uses a variable."""
    return name in _names(text)


def known_after(statement: Statement, known: Collection[str]) -> set[str] | None:
    """The variables that are set behind a statement; None where only its answer tells (`SELECT * ... \\gset`)."""
    names = _gset_targets(statement.text, statement.then)
    return None if None in names else {*known, *(name for name in names if name)}


def gset_names(text: str, then: str) -> tuple[str, ...]:
    """The variables that `\\gset` after a query sets, as far as its text says."""
    return tuple(name for name in _gset_targets(text, then) if name)


def _gset_targets(text: str, then: str) -> tuple[str | None, ...]:
    if not then.startswith("gset"):
        return ()
    try:
        [raw] = pglast.parse_sql(_with_any(text))
    except (ParseError, ValueError):
        return (None,)
    targets: Any = getattr(raw.stmt, "returningList", None) or getattr(raw.stmt, "targetList", None) or (None,)
    prefix = then.removeprefix("gset").strip()
    names = (target and (target.name or _column_name(target.val)) for target in targets)
    return tuple(prefix + name if name else None for name in names)


def _column_name(value: Any) -> str | None:
    """What the server calls a column that has no name of its own; None where it takes more to tell."""
    parts: Any = value.fields if isinstance(value, ast.ColumnRef) else getattr(value, "funcname", None)
    return getattr(parts[-1], "sval", None) if parts else None


def _names(text: str) -> set[str]:
    return {match[2] for plain, piece in _pieces(text) if plain for match in _VARIABLE.finditer(piece)}


def _pieces(text: str) -> Iterator[tuple[bool, str]]:
    """The text in pieces, with whether each is outside of quotes, where a colon may begin a variable."""
    at = 0
    for token in _TOKEN.finditer(text):
        if token.group().startswith(("'", '"')) and _VARIABLE.match(text, token.start() - 1):
            continue
        yield True, text[at : token.start()]
        yield False, token.group()
        at = token.end()
    yield True, text[at:]


def columns_of(condition: str) -> set[str]:
    """The columns that a condition names, without what they are qualified by."""
    return {node.fields[-1].sval for node in _nodes(condition, ast.ColumnRef) if hasattr(node.fields[-1], "sval")}


def operators_of(condition: str) -> list[str]:
    """The operators in a condition, without those that are words."""
    names = {node.name[-1].sval for node in _nodes(condition, ast.A_Expr)}
    return sorted(name for name in names if not re.search(r"\w", name))


def _nodes(condition: str, kind: type[ast.Node]) -> list[Any]:
    found: list[Any] = []

    class Found(Visitor):
        def visit(self, ancestors: object, node: ast.Node) -> None:
            if isinstance(node, kind):
                found.append(node)

    Found()(pglast.parse_sql(f"SELECT ({condition})"))
    return found


def distance(one: str, other: str) -> int:
    """Levenshtein's distance."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]
