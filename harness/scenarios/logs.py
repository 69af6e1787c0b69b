"""PostgreSQL's own log, read as what its sessions sent: stderr with a prefix, csvlog or jsonlog, in any language of it.

A file of any size is read line by line and once; what is kept are the statements of the time that is asked for. Cut at
its beginning or its end it is read from the first whole entry to the last.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from itertools import chain, islice
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.scenarios.log_words import LANGUAGES, Words

MOST_STATEMENTS = 20_000
"""Kept of one log. A scenario has some ten: more are the log of a whole day."""

PREFIX = "%m [%p] %q%u@%d "
"""A log_line_prefix that says all that is needed."""

_LOOK_AT = 2000
"""Lines by which a log is known."""


@dataclass(slots=True)
class Logged:
    """One statement as it was logged."""

    when: str
    text: str
    values: dict[int, str | None] = field(default_factory=dict)
    """Of $1, $2, ..., as text; None is NULL."""
    error: str = ""
    """What it ended in, in the log's words."""
    ended: bool = False
    """It was logged after its end."""


@dataclass(slots=True)
class LoggedSession:
    """What one session sent in the time that is asked for."""

    name: str
    """Its id in the log."""
    database: str = ""
    statements: list[Logged] = field(default_factory=list)
    prepared: dict[str, None] = field(default_factory=dict)
    """Texts of PREPARE statements that it used."""


@dataclass(frozen=True, slots=True)
class Log:
    """A log as it was read."""

    kind: str
    """`stderr`, `csvlog` or `jsonlog`."""
    sessions: tuple[LoggedSession, ...]
    first: str
    """Time of the first entry of the file; empty where it has none."""
    last: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Entry:
    """One entry: of stderr a message and, each as an entry of its own, what follows it."""

    when: str
    session: str
    part: str
    """`LOG`, `ERROR` (any error), `OTHER`, or `DETAIL`, `STATEMENT`, `CONTEXT` of the message before."""
    text: str
    database: str = ""


def read(path: Path, start: str = "", stop: str = "", prefix: str = "") -> Log:
    """The sessions of a log between two times, as the log itself spells them (a beginning of one will do).

    `prefix` is its log_line_prefix, where that cannot be found from its lines. Raises UsageError for a file that is no
    log of PostgreSQL, or says nothing by which sessions can be told apart, or holds no statement.
    """
    try:
        with path.open("rb") as plain, gzip.open(plain) if plain.peek(2)[:2] == b"\x1f\x8b" else plain as file:
            return _read(path, (line.decode("utf-8", "replace") for line in file), start, stop, prefix)
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(
            f"The log {path} cannot be read.", tried=str(error), next_step="name a file that you may read"
        ) from error


def _read(path: Path, lines: Iterator[str], start: str, stop: str, prefix: str) -> Log:
    head = list(islice(lines, _LOOK_AT))
    if head:
        head[0] = head[0].removeprefix("\ufeff")
    notes: Counter[str] = Counter()
    kind = _kind(head)
    window = _Window(kind, _as_logged(start), _as_logged(stop))
    rest = window.lines(chain(head, lines))
    if kind == "csvlog":
        entries = _of_csv(rest, notes)
    elif kind == "jsonlog":
        entries = _of_json(rest, notes)
    else:
        entries = _of_stderr(rest, _Prefix.given(prefix) if prefix else _Prefix.found(path, head), notes)
    collected = _Collector(path, window)
    for entry in entries:
        collected.take(entry)
    return collected.log(kind, notes)


def _kind(head: Sequence[str]) -> str:
    csv_lines = sum(bool(_CSV_START.match(line)) for line in head)
    json_lines = sum(line.startswith("{") and '"timestamp"' in line for line in head)
    plain = sum(bool(_entry().match(line)) for line in head if not line.startswith(("{", "\t")))
    return max((json_lines, "jsonlog"), (csv_lines, "csvlog"), (plain - csv_lines, "stderr"))[1]


_LATE = 10_000
"""Lines after the end of the time that is asked for, from which on nothing of it can come any more."""


class _Window:
    """The time that is asked for. Lines that begin with a time outside of it need not be looked at any further."""

    def __init__(self, kind: str, start: str, stop: str) -> None:
        self.start, self.stop = start, stop
        self.first = self.last = ""
        """Times of the first and the last line that were seen."""
        self.skipped = 0
        self._at = len('{"timestamp":"') if kind == "jsonlog" else 0

    def lines(self, lines: Iterable[str]) -> Iterator[str]:
        """Those that may be of the time, with what belongs to them."""
        if not (self.start or self.stop):
            yield from lines
            return
        at, longest, skipping, late = self._at, self._at + len("2026-11-26 08:20:36.242"), False, 0
        for line in lines:
            when = line[at:longest]
            if when[:2] == "20" and when[4:5] == "-":
                self.first = self.first or when
                self.last = when
                after = bool(self.stop) and when[: len(self.stop)] > self.stop
                late = late + 1 if after else 0
                if late > _LATE:
                    return
                skipping = after or when < self.start[: longest - at]
            if skipping:
                self.skipped += 1
            else:
                yield line

    def inside(self, when: str) -> bool:
        """Whether an entry is of the time; one without a time where none is asked for."""
        if not when:
            return not (self.start or self.stop)
        return self.start <= when and (not self.stop or when[: len(self.stop)] <= self.stop)


# -- the three forms

_TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:[.,]\d+)?(?: (?:[A-Za-z]{1,5}|[+-]\d\d(?::?\d\d)?))?"
_CSV_START = re.compile(rf'{_TIME},(?:"(?:[^"]|"")*")?,')
_COLUMNS = 23
"""Of csvlog in the oldest version that has the harness; later ones have more, at the end."""


def _of_csv(lines: Iterable[str], notes: Counter[str]) -> Iterator[_Entry]:
    for record in _records(lines, notes):
        try:
            [row] = csv.reader([record], strict=True)
        except (csv.Error, ValueError):
            row = []
        if len(row) < _COLUMNS - 1:
            notes["an entry that is cut, or no entry, left out"] += 1
            continue
        part = _severity(row[11], row[12])
        yield _Entry(row[0], row[5], part, row[13], row[2])
        for text, kind in ((row[14], "DETAIL"), (row[18], "CONTEXT"), (row[19], "STATEMENT")):
            if text:
                yield _Entry(row[0], row[5], kind, text, row[2])


def _records(lines: Iterable[str], notes: Counter[str]) -> Iterator[str]:
    """Records, each of one line or more: one begins with a time, where no quote is open."""
    record, quotes = "", 0
    for line in lines:
        begins = _CSV_START.match(line) is not None
        if not record:
            if not begins:
                notes["lines before the first whole entry left out"] += 1
                continue
        elif begins and quotes % 2 == 0:
            yield record
            record, quotes = "", 0
        record += line
        quotes += line.count('"')
    if record:
        yield record


def _of_json(lines: Iterable[str], notes: Counter[str]) -> Iterator[_Entry]:
    for line in lines:
        try:
            found: dict[str, Any] = json.loads(line)
            when, session = str(found["timestamp"]), str(found.get("session_id") or found.get("pid") or "")
        except (ValueError, KeyError, TypeError):
            if line.strip():
                notes["an entry that is cut, or no entry, left out"] += 1
            continue
        database = str(found.get("dbname") or "")
        part = _severity(str(found.get("error_severity") or ""), str(found.get("state_code") or ""))
        yield _Entry(when, session, part, str(found.get("message") or ""), database)
        for name, kind in (("detail", "DETAIL"), ("context", "CONTEXT"), ("statement", "STATEMENT")):
            if text := found.get(name):
                yield _Entry(when, session, kind, str(text), database)


def _severity(word: str, code: str) -> str:
    """By the SQLSTATE, which has no language, else by the word."""
    if code and code != "00000":
        return "OTHER" if code[:2] in ("00", "01", "02") else "ERROR"
    return _PARTS.get(word, "LOG")


_WRAPPED = re.compile(r"[\w.-]+\s*\| ")
"""What docker compose puts before each line."""

_SYSLOG = re.compile(r".{0,100}?\w\[\d+\]: \[\d+-(\d+)\] (.*)", re.DOTALL)
"""What syslog puts before each piece of an entry, with the piece's number."""


def _of_stderr(lines: Iterable[str], prefix: _Prefix, notes: Counter[str]) -> Iterator[_Entry]:
    entry = _entry()
    current: tuple[str, str, str, str] | None = None
    texts: list[str] = []
    for raw in lines:
        line = raw.rstrip("\r\n")
        if wrapped := _WRAPPED.match(line):
            line = line[wrapped.end() :]
        piece = _SYSLOG.match(line)
        if piece is not None and piece[1] != "1":
            if current is not None and piece[2].startswith(("#011", "\t")):
                texts.append(piece[2].removeprefix("#011").removeprefix("\t"))
            elif current is not None:  # a long line was cut
                texts[-1] += piece[2]
            continue
        if line.startswith(("\t", " ")):  # a tab goes before it; some who ship logs make it a blank
            if current is not None:
                texts.append(line[1:])
            continue
        match = entry.match(line)
        if match is None:
            notes["lines that are no entry left out"] += 1
            continue
        if current is not None:
            yield _Entry(current[0], current[1], current[2], "\n".join(texts), current[3])
        when, session, database = prefix.read(match["prefix"])
        current = (when, session, _PARTS[match["word"]], database)
        texts = [match["text"]]
    if current is not None:
        yield _Entry(current[0], current[1], current[2], "\n".join(texts), current[3])


_CLASSES = ("LOG", "ERROR", "ERROR", "ERROR", "OTHER", "OTHER", "OTHER", "OTHER")
_KINDS = ("DETAIL", "OTHER PART", "OTHER PART", "CONTEXT", "STATEMENT", "OTHER PART")


def _known_parts() -> dict[str, str]:
    found: dict[str, str] = {}
    for words in LANGUAGES.values():
        # A part's word wins nowhere: English has them all, and is first.
        for word, part in chain(zip(words.severities, _CLASSES, strict=True), zip(words.parts, _KINDS, strict=True)):
            found.setdefault(word, part)
    return found | {f"DEBUG{level}": "OTHER" for level in range(1, 6)} | {"LOCATION": "OTHER PART"}


_PARTS = _known_parts()
"""Every language's word for a severity, or for what follows a message."""


@cache
def _entry() -> re.Pattern[str]:
    """An entry of stderr: what stands before the word, the word, the text; between them, if verbose, an SQLSTATE."""
    words = "|".join(sorted(map(re.escape, _PARTS), key=len, reverse=True))
    code = r"(?:(?=[A-Z]*\d)[0-9A-Z]{5}: )?"
    return re.compile(rf"(?P<prefix>.{{0,400}}?)(?<!\w)(?P<word>{words}) ?: +{code}(?P<text>.*)", re.DOTALL)


# -- the prefix

_SESSION_ID = r"(?<![\w.])[0-9a-f]{8}\.[0-9a-f]{1,8}(?![\w.])"
_PIDS = (
    r"\[(\d+)(?:[-:][\d/-]+)?\]",
    r"(?i:\b(?:pid|process|proc|p)\b)\s*[=:]?\s*(\d+)",
    r"(?<![\w.:(-])(\d{2,10})(?![\w.:)-])",
)
"""Where the process stands in a prefix: `[123]`, `pid=123`, or a number by itself."""


class _Prefix:
    """Reads time and session from what stands before an entry's word."""

    def __init__(self, pattern: re.Pattern[str] | None, session: re.Pattern[str] | None = None) -> None:
        self._pattern = pattern
        self._session = session
        self._time = re.compile(_TIME)

    @staticmethod
    def given(prefix: str) -> _Prefix:
        """By a log_line_prefix. Raises UsageError for one without a session or a process."""
        escapes = {
            "m": rf"(?P<m>{_TIME})", "t": rf"(?P<t>{_TIME})", "n": r"(?P<n>\d+\.\d+)", "s": _TIME,
            "c": r"(?P<c>[0-9a-f]+\.[0-9a-f]+)", "p": r"(?P<p>\d+)", "d": r"(?P<d>\S*?)", "u": r"\S*?", "a": r".*?",
            "r": r"\S*?", "h": r"\S*?", "L": r"\S*?", "b": r"[\w ]*?", "P": r"\d*", "i": r"[A-Z ]*?", "e": r"\w{5}",
            "l": r"\d+", "v": r"[\d/]*", "x": r"\d+", "Q": r"-?\d+", "%": "%",
        }  # fmt: skip
        text, optional = "", False
        seen: set[str] = set()
        for piece in re.finditer(r"%(-?\d*)([a-zA-Z%])|([^%]+)|%", prefix):
            if piece[3] is not None:
                text += re.escape(piece[3])
            elif piece[2] == "q":
                text, optional = text + "(?:", True
            elif piece[2] is not None:
                wanted = escapes.get(piece[2], r".*?")
                text += (
                    rf"\s*{wanted}\s*"
                    if piece[1]
                    else re.sub(r"\(\?P<\w>", "(?:", wanted)
                    if piece[2] in seen
                    else wanted
                )
                seen.add(piece[2])
        if not seen & {"c", "p"}:
            raise UsageError(
                f"The prefix {prefix!r} has no session.",
                tried="reading %c, the session's id, or %p, its process",
                next_step=f"without either, sessions cannot be told apart: log with log_line_prefix = '{PREFIX}'",
            )
        return _Prefix(re.compile(text + (")?" if optional else "") + r"\s*$"))

    @staticmethod
    def found(path: Path, head: Sequence[str]) -> _Prefix:
        """By the lines. Raises UsageError where they are no log, or have nothing that can be a session."""
        matches = [found for line in head if not line.startswith("\t") and (found := _entry().match(_unwrapped(line)))]
        logged = [match for match in matches if _sent(match["text"]) is not None]
        if not matches:
            raise UsageError(
                f"{path} is not a log of PostgreSQL.",
                tried=f"reading it as csvlog, jsonlog, or lines with LOG: in one of {len(LANGUAGES)} languages",
                next_step="name a file that the server's logging wrote, with lc_messages = C at best",
            )
        for pattern in (_SESSION_ID, *_PIDS):
            session = re.compile(pattern)
            having = sum(session.search(match["prefix"]) is not None for match in logged or matches)
            if having >= max(1, len(logged or matches) - 1):  # the first may be cut
                return _Prefix(None, session)
        shown = (logged or matches)[0][0].strip()[:100]
        raise UsageError(
            f"{path} says nothing by which sessions can be told apart.",
            tried=f"looking for a session's id or a process before the word: {shown}",
            next_step=f"log with log_line_prefix = '{PREFIX}', or say what the prefix is with --log-line-prefix",
        )

    def read(self, text: str) -> tuple[str, str, str]:
        """Time, session and database; what is not there is empty."""
        if self._pattern is not None:
            match = self._pattern.search(text)
            if match is None:
                return "", "", ""
            groups = match.groupdict()
            when = groups.get("m") or groups.get("t") or _of_epoch(groups.get("n"))
            return when, groups.get("c") or groups.get("p") or "", groups.get("d") or ""
        assert self._session is not None
        time = self._time.search(text)
        rest = text if time is None else text[: time.start()] + " " + text[time.end() :]
        found = self._session.search(rest)
        return (time[0] if time else ""), ("" if found is None else found[1] if found.re.groups else found[0]), ""


def _unwrapped(line: str) -> str:
    wrapped = _WRAPPED.match(line)
    return line[wrapped.end() :] if wrapped else line


def _of_epoch(text: str | None) -> str:
    if not text:
        return ""
    return datetime.fromtimestamp(float(text), UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + " UTC"


# -- what a message says


@dataclass(frozen=True, slots=True)
class _Form:
    """One way in which a statement is logged, in one language."""

    kind: str
    """`statement`, `execute`, or `left out`: a step of the extended protocol that runs nothing."""
    pattern: re.Pattern[str]
    ended: bool


def _forms(words: Words) -> Iterator[_Form]:
    number, name = r"[\d.,]+", r"[^:]*?"

    def compiled(text: str, *pieces: str) -> re.Pattern[str]:
        parts = [r"\s+".join(map(re.escape, part.split(" "))) for part in text.split("%s")]
        filled = "".join(part + piece for part, piece in zip(parts, (*pieces, ""), strict=False))
        return re.compile(filled.replace(r"\s+\s+", r"\s+"), re.DOTALL)

    text = "(?P<sql>.*)"
    for verb, kind in ((words.fetch, "left out"), (words.execute, "execute")):
        timed = words.timed_execute.replace("%s%s%s:", "%s:").replace("%s%s%s", "%s")
        yield _Form(kind, compiled(timed, number, re.escape(verb), name, text), True)
        yield _Form(kind, compiled("%s %s: %s", re.escape(verb), name, text), False)
    for bare in (words.parse, words.bind):
        yield _Form("left out", compiled(bare.replace("%s%s%s", "%s"), number, name, text), True)
    yield _Form("statement", compiled(words.timed, number, text), True)
    yield _Form("statement", compiled(words.statement, text), False)


_FORMS = {language: tuple(_forms(words)) for language, words in LANGUAGES.items()}
_BEGINS = re.compile(
    "|".join(
        {
            re.escape(text.partition("%s")[0].strip())
            for words in LANGUAGES.values()
            for text in (
                words.statement,
                words.timed,
                words.timed_execute,
                words.execute,
                words.fetch,
                words.parse,
                words.bind,
            )
        }
    )
)
"""How a message begins that may hold a statement: most do not, and are looked at no further."""
_VALUES = re.compile(r"\$(\d+) = (?:NULL|'((?:[^']|'')*)')")
_PREPARED = re.compile(
    "|".join(sorted({re.escape(w.prepare.partition("%s")[0].strip()) for w in LANGUAGES.values()}))
    + r"\s*(?=prepare\b)",
    re.IGNORECASE,
)
_last_language = ["en"]


def _sent(message: str) -> tuple[str, str, bool] | None:
    """What a message says that was sent: kind, SQL, whether it had ended; None for any other message."""
    if _BEGINS.match(message) is None:
        return None
    for language in dict.fromkeys([*_last_language, *_FORMS]):
        for form in _FORMS[language]:
            match = form.pattern.fullmatch(message)
            if match is not None:
                _last_language[:] = [language]
                return form.kind, match["sql"], form.ended
    return None


class _Collector:
    """Puts entries together to statements, session by session."""

    def __init__(self, path: Path, window: _Window) -> None:
        self._path = path
        self._window = window
        self._sessions: dict[str, LoggedSession] = {}
        self._last: dict[str, Logged | None] = {}
        """Of each session, the statement that what comes next belongs to."""
        self._failed: dict[str, tuple[str, dict[int, str | None]]] = {}
        """Of each session, the error that was said last and what of it is known."""
        self._bound: dict[str, Logged] = {}
        """Of each session, what was parsed or bound last."""
        self._first = self._latest = ""
        self._kept = self._nameless = self._outside = 0

    def take(self, entry: _Entry) -> None:
        if entry.when:
            self._first = self._first or entry.when
            self._latest = entry.when
        inside = self._window.inside(entry.when)
        name = entry.session
        match entry.part:
            case "LOG":
                self._failed.pop(name, None)
                self._last[name] = None
                found = _sent(entry.text)
                if found is None:
                    return
                kind, sql, ended = found
                if not inside:
                    self._outside += 1
                elif not name:
                    self._nameless += 1
                elif kind != "left out":
                    self._last[name] = self._add(entry, Logged(entry.when, sql, ended=ended))
                else:  # of one that fails, its values stand here alone
                    self._last[name] = self._bound[name] = Logged(entry.when, sql, ended=True)
            case "ERROR":
                if inside and name:
                    self._failed[name] = (entry.text, {})
                    running = self._last.get(name)
                    if running is not None and not running.ended and not running.error:
                        running.error = entry.text
            case "DETAIL" | "CONTEXT":
                self._more(entry, name)
            case "STATEMENT":
                if inside and name in self._failed:
                    self._of_error(entry, name)

    def _more(self, entry: _Entry, name: str) -> None:
        values = {int(n): None if text is None else text.replace("''", "'") for n, text in _values(entry.text)}
        if name in self._failed:
            self._failed[name][1].update(values)
            return
        statement = self._last.get(name)
        if statement is None or entry.part != "DETAIL":
            return
        statement.values = values
        if prepared := _PREPARED.match(entry.text):
            self._sessions[name].prepared.setdefault(entry.text[prepared.end() :])

    def _of_error(self, entry: _Entry, name: str) -> None:
        error, values = self._failed.pop(name)
        running = self._last.get(name)
        if running is not None and running.text.strip() == entry.text.strip() and running.error in ("", error):
            if not running.ended:
                running.error = error
                return
        elif running is not None and running.error == error:
            running.error = ""  # it was another statement's
        self._last[name] = None
        bound = self._bound.get(name)
        if not values and bound is not None and bound.text.strip() == entry.text.strip():
            values = bound.values
        self._add(entry, Logged(entry.when, entry.text, values, error, ended=True))

    def _add(self, entry: _Entry, statement: Logged) -> Logged:
        session = self._sessions.setdefault(entry.session, LoggedSession(entry.session, entry.database))
        session.statements.append(statement)
        self._kept += 1
        if self._kept > MOST_STATEMENTS:
            raise UsageError(
                f"{self._path} has more than {MOST_STATEMENTS} statements from {self._first} to {self._latest}.",
                next_step="say with --from and --to when it happened",
            )
        return statement

    def log(self, kind: str, notes: Counter[str]) -> Log:
        """All that was collected. Raises UsageError where nothing was."""
        if not self._sessions:
            raise self._nothing(kind)
        told = [f"{what}: {count}" for what, count in notes.items()]
        if self._nameless:
            told.append(f"statements without a session left out: {self._nameless}")
        return Log(kind, tuple(self._sessions.values()), self._first, self._latest, tuple(told))

    def _nothing(self, kind: str) -> UsageError:
        if self._nameless:
            return UsageError(
                f"{self._path} says of no statement whose it was.",
                tried=f"{self._nameless} statements, whose lines do not fit the prefix",
                next_step="give the log_line_prefix of the server that wrote it with --log-line-prefix",
            )
        first, last = self._window.first or self._first, self._window.last or self._latest
        if first and (self._outside or self._window.skipped):
            return UsageError(
                f"{self._path} has no statement in that time; it goes from {first} to {last}.",
                next_step="give other --from and --to, spelled as in the log",
            )
        if (self._window.start or self._window.stop) and not first:
            return UsageError(
                f"{self._path} has no times, so --from and --to choose nothing.",
                next_step="leave them out, or log with %m in log_line_prefix",
            )
        return UsageError(
            f"{self._path} ({kind}) holds no statement.",
            tried=f"its entries from {self._first or 'the beginning'} to {self._latest or 'the end'}",
            next_step="log with log_statement = all, or log_min_duration_statement = 0",
        )


def _as_logged(time: str) -> str:
    """A time as logs spell it: `2026-11-26T08:00` is meant as well."""
    return re.sub(r"(?<=\d)T(?=\d)", " ", time.strip())


def _values(text: str) -> Iterator[tuple[str, str | None]]:
    for match in _VALUES.finditer(text):
        yield match[1], match[2]
