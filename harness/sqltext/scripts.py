"""A file of SQL as psql reads it: statements with their lines, backslash commands, COPY data, and no down part.

Read with bytes and from a memory map, so that a file of any size costs no memory.
"""

from __future__ import annotations

import hashlib
import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import HarnessError

Source = bytes | mmap.mmap

_MAPPED = 1 << 20
"""Bytes from which on a file is mapped and not read."""

_STRING = rb"'[^']*(?:''[^']*)*'?"
_MARKER = (
    rb"--[ \t]*(?:(?:\+goose|\+migrate|\+micrate)[ \t]+|migrate:|//[ \t]*@|!)(?P<marker>up|down|undo|do)s?\b[^\r\n]*"
    rb"|--[ \t]*(?P<plain>up|down)[ \t]+migration\b[^\r\n]*"
)
"""goose, sql-migrate, micrate, dbmate, MyBatis, Play; node-pg-migrate."""
_TOKENS = (
    rb"(?P<comment>--[^\r\n]*)"
    rb"|(?P<block>/\*)"
    rb"|(?P<quoted>(?<![\w$\x80-\xff])[eE]'[^'\\]*(?:(?:\\.|'')[^'\\]*)*'?|" + _STRING + rb'|"[^"]*(?:""[^"]*)*"?)'
    rb"|(?P<dollar>(?<![\w$\x80-\xff])\$(?:[A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]*)?\$)"
    rb"|(?P<end>;)|(?P<open>[(])|(?P<close>[)])|(?P<meta>\\)"
    rb"|(?P<variable>(?<![:\w\x80-\xff]):(?:'\w+'|\"\w+\"|\{\?\w+\}|\w+))"
)
_TOKEN = re.compile(_TOKENS, re.DOTALL)
_TOKEN_OR_WORD = re.compile(_TOKENS + rb"|(?P<word>[A-Za-z_\x80-\xff][\w$\x80-\xff]*)", re.DOTALL)
_COMMENT_EDGE = re.compile(rb"/\*|\*/")
_SPACE = re.compile(rb"\s*")
_LINE = re.compile(rb"[^\r\n]*(?:\r?\n|\r|\Z)")
_DOWN_OR_UP = re.compile(rb"^[ \t]*(?:" + _MARKER + rb")", re.IGNORECASE | re.MULTILINE)
_UP_BEFORE = re.compile(rb"^[ \t]*--[ \t]*up[ \t]+migration\b", re.IGNORECASE | re.MULTILINE)
_ROUTINE = re.compile(rb"CREATE\s+(?:OR\s+REPLACE\s+)?(?:FUNCTION|PROCEDURE)\b", re.IGNORECASE)
_FROM_STDIN = re.compile(r"COPY\b.*\bFROM\s+STDIN\b", re.IGNORECASE | re.DOTALL)
_COPY_END = re.compile(rb"^\\\.[ \t]*(?:\r?\n|\r|\Z)", re.MULTILINE)
_CLIENT_COPY = re.compile(
    r"(?P<what>.+?)\s+from\s+(?:'(?P<quoted>(?:[^']|'')*)'|(?P<plain>\S+))(?P<options>.*)", re.IGNORECASE | re.DOTALL
)
_WORDS = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|\S+""")

_WITHOUT_EFFECT = frozenset({
    "restrict", "unrestrict", "echo", "qecho", "warn", "timing", "pset", "x", "a", "t", "f", "H", "C", "T", "conninfo",
    "encoding", "errverbose", "gdesc", "h", "help", "copyright", "l", "list", "p", "print", "r", "reset", "s", "z",
})  # fmt: skip
"""Backslash commands that change what psql shows, or guard it, and nothing in the database."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of a file; `line` is that of its first word, `leading` the comments right above it."""

    path: Path
    line: int
    text: str
    leading: str
    data: memoryview | None = None
    """What COPY ... FROM STDIN reads: the lines after it, or the file of a \\copy."""
    then: str = ""
    """What psql does with the answer: `gexec` runs its values, `gset PREFIX` keeps them as variables."""


@dataclass(frozen=True, slots=True)
class Script:
    """One SQL file as it was applied."""

    path: Path
    content: str | Source
    notes: list[str] = field(default_factory=list, compare=False, repr=False)
    """What in it was left out, and why: backslash commands without effect here, the down part."""

    @staticmethod
    def read(path: Path) -> Script:
        """The file at `path`. Raises HarnessError for one that cannot be read, or is not text in UTF-8."""
        try:
            with path.open("rb") as file:
                if path.stat().st_size >= _MAPPED:
                    source: Source = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                else:
                    source = file.read()
        except OSError as error:
            raise HarnessError(
                f"{path} cannot be read.",
                tried=str(error),
                next_step="check that the file is there and that you may read it",
            ) from error
        check_text(path, source)
        return Script(path, source)

    @property
    def source(self) -> Source:
        """The file's bytes."""
        return self.content.encode() if isinstance(self.content, str) else self.content

    @property
    def text(self) -> str:
        """The whole of it."""
        return self.content if isinstance(self.content, str) else bytes(self.content).decode(errors="replace")

    @property
    def sha256(self) -> str:
        """As `sha256sum` prints it."""
        return hashlib.sha256(self.source).hexdigest()

    def statements(self, variables: dict[str, str] | None = None) -> Iterator[Statement]:
        """The file's statements in order, and those of files that it includes.

        `variables` are psql's; `\\set` adds to them, and who runs the statements may. Raises HarnessError, at the
        place, for an unclosed quote and for a backslash command that makes no sense here.
        """
        return _Reader(self, {} if variables is None else variables, ()).statements()


class _Reader:
    def __init__(self, script: Script, variables: dict[str, str], including: tuple[Path, ...]) -> None:
        self.script = script
        self.source = script.source
        self.variables = variables
        self.including = (*including, script.path.resolve())
        self.at = 3 if self.source[:3] == b"\xef\xbb\xbf" else 0
        self.line = 1
        self.counted = self.at
        """Up to where newlines have been counted into `line`."""
        self.conditions: list[tuple[bool, bool]] = []
        """For each open \\if: whether this branch is taken, whether one was."""
        self.ended = False

    def statements(self) -> Iterator[Statement]:
        self.leading = self.at
        while not self.ended and self.at < len(self.source):
            yield from self._next()
        if self.conditions and not self.ended:
            raise self._error("\\if has no \\endif.", "close it with \\endif")

    def _next(self) -> Iterator[Statement]:
        """Read up to the end of one statement or one backslash command."""
        source = self.source
        start, depth, blocks = -1, 0, 0
        pieces: list[tuple[int, int, str]] = []
        token = _TOKEN
        end = self.at
        while True:
            if start < 0:
                self.at = _match(_SPACE, source, self.at).end()
            found = token.search(source, self.at)
            before = len(source) if found is None else found.start()
            kind = "" if found is None else found.lastgroup
            if before > self.at and (stripped := _end(source, self.at, before)) > self.at:
                if start < 0:
                    start = self.at
                    if _ROUTINE.match(source, start):
                        token = _TOKEN_OR_WORD
                        continue
                end = stripped
            if found is None:
                self.at = len(source)
                break
            if start < 0 and kind in ("quoted", "dollar", "open", "close", "variable", "word"):
                start = before
                if kind == "word" and _ROUTINE.match(source, start):
                    token = _TOKEN_OR_WORD
            self.at = found.end()
            if kind == "comment":
                self._skip_down(found)
                continue
            if kind == "block":
                self._skip_comment(before)
                continue
            if kind == "meta":
                yield from self._command(start, end, pieces)
                return
            if kind == "end" and depth <= 0 and blocks <= 0:
                break
            if kind == "quoted":
                self._check_closed(found)
            elif kind == "dollar":
                close = source.find(found.group(), self.at)
                if close < 0:
                    raise self._unclosed(before, found.group().decode())
                self.at = close + len(found.group())
            elif kind == "open":
                depth += 1
            elif kind == "close":
                depth -= 1
            elif kind == "word":
                word = found.group().lower()
                if word == b"begin" or (word == b"case" and blocks):
                    blocks += 1
                elif word == b"end" and blocks:
                    blocks -= 1
            elif kind == "variable":
                replaced = self._variable(found.group().decode())
                if replaced is not None:
                    pieces.append((before, self.at, replaced))
            end = self.at
        if start >= 0:
            yield from self._statement(start, end, pieces)
        self.leading = self.at

    def _statement(
        self, start: int, end: int, pieces: list[tuple[int, int, str]], then: str = ""
    ) -> Iterator[Statement]:
        text, leading = self._text(start, end, pieces), self._text(self.leading, start, [])
        line = self._line_of(start)
        data: memoryview | None = None
        if _FROM_STDIN.match(text):
            first = _match(_LINE, self.source, self.at).end()
            last = _COPY_END.search(self.source, first)
            data = memoryview(self.source)[first : len(self.source) if last is None else last.start()]
            self.at = len(self.source) if last is None else last.end()
        if self._taken:
            yield Statement(self.script.path, line, text, leading.lstrip(";"), data, then)

    @property
    def _taken(self) -> bool:
        return all(taken for taken, _ in self.conditions)

    def _text(self, start: int, end: int, pieces: list[tuple[int, int, str]]) -> str:
        parts, at = [], start
        for first, last, replaced in pieces:
            parts += [self.source[at:first].decode(errors="replace"), replaced]
            at = last
        return "".join([*parts, self.source[at:end].decode(errors="replace")])

    def _line_of(self, at: int) -> int:
        while self.counted < at:  # in pieces: a slice of a memory map is a copy
            piece = self.source[self.counted : min(at, self.counted + _MAPPED)]
            self.line += piece.count(b"\n")
            self.counted += len(piece)
        return self.line

    def _skip_down(self, comment: re.Match[bytes]) -> None:
        """Go on behind the down part, where the comment begins one."""
        marker = _DOWN_OR_UP.match(self.source, self._line_start(comment.start()))
        if marker is None or not _is_down(marker):
            return
        if marker["plain"] and not _UP_BEFORE.search(self.source, 0, comment.start()):
            return  # prose: who writes the one marker writes the other before it
        for following in _DOWN_OR_UP.finditer(self.source, self.at):
            if not _is_down(following):
                self.at = following.end()
                break
        else:
            self.at = len(self.source)
        self.script.notes.append("the down part of a file is not applied")

    def _line_start(self, at: int) -> int:
        return self.source.rfind(b"\n", 0, at) + 1

    def _skip_comment(self, start: int) -> None:
        depth = 1
        while depth:
            edge = _COMMENT_EDGE.search(self.source, self.at)
            if edge is None:
                raise self._unclosed(start, "/*")
            depth += 1 if edge.group() == b"/*" else -1
            self.at = edge.end()

    def _check_closed(self, found: re.Match[bytes]) -> None:
        text = found.group()
        quote = text[text.find(b'"' if text[:1] == b'"' else b"'") :]
        if len(quote) < 2 or quote[-1:] != quote[:1]:
            raise self._unclosed(found.start(), quote[:1].decode())

    def _unclosed(self, at: int, what: str) -> HarnessError:
        return HarnessError(
            f"{self.script.path} cannot be split into statements.",
            tried=f"line {self._line_of(at)}: {what} is not closed",
            next_step="look for an unclosed quote, comment or $$",
        )

    def _error(self, what: str, next_step: str, at: int | None = None) -> HarnessError:
        line = self._line_of(len(self.source) if at is None else at)
        return HarnessError(f"{self.script.path}:{line}: {what}", next_step=next_step)

    # -- what only psql knows

    def _variable(self, text: str) -> str | None:
        """The text for `:name`, `:'name'`, `:"name"` or `:{?name}`; None where it is not a variable of psql."""
        name = text[1:].strip("'\"{}?")
        if text[1] == "{":
            return "TRUE" if name in self.variables else "FALSE"
        if name not in self.variables:
            return None  # an array slice, a JSON path, a time
        value = self.variables[name]
        if text[1] == "'":
            return "'" + value.replace("'", "''") + "'"
        return '"' + value.replace('"', '""') + '"' if text[1] == '"' else value

    def _command(self, start: int, end: int, pieces: list[tuple[int, int, str]]) -> Iterator[Statement]:
        """A backslash command, up to the end of its line; `start` is that of a statement before it, or less than 0."""
        at = self.at - 1
        line = _match(_LINE, self.source, self.at)
        self.at = line.end()
        words = line.group().decode(errors="replace").strip()
        name, _, rest = words.partition(" ")
        if name.startswith("."):  # the end of COPY data that nobody reads
            name = "."
        rest = rest.strip()
        if start >= 0 and name.rstrip("x") in ("g", "gset", "gexec", ""):
            then = f"gset {rest}" if name == "gset" else "gexec" if name == "gexec" else ""
            yield from self._statement(start, end, pieces, then)
        elif start >= 0:
            raise self._error(
                f"The backslash command \\{name} stands inside a statement.",
                "end the statement before it with a semicolon",
                at,
            )
        elif name in ("if", "elif", "else", "endif"):
            self._condition(name, rest, at)
        elif self._taken:
            yield from self._obey(name, rest, at)
        self.leading = self.at

    def _condition(self, name: str, rest: str, at: int) -> None:
        if name == "if":
            truth = self._truth(rest, at) if self._taken else False
            self.conditions.append((truth, truth))
            return
        if not self.conditions:
            raise self._error(f"\\{name} has no \\if.", "begin with \\if, or take it out", at)
        _, had = self.conditions.pop()
        if name == "elif":
            truth = not had and self._taken and self._truth(rest, at)
            self.conditions.append((truth, had or truth))
        elif name == "else":
            self.conditions.append((not had, True))

    def _truth(self, text: str, at: int) -> bool:
        value = self._expanded(text).lower()
        for meaning, spellings in ((True, ("true", "yes", "on", "1")), (False, ("false", "no", "off", "0"))):
            if value and any(s.startswith(value) for s in spellings) and value != "o":
                return meaning
        raise self._error(f"\\if needs true or false, and has {value!r}.", "set the variable with \\set", at)

    def _expanded(self, text: str) -> str:
        """The words of a command as psql joins them: variables filled in, quotes taken off."""
        joined = []
        for word in _WORDS.findall(text):
            if word.startswith(":"):
                value = self._variable(word)
                joined.append(word if value is None else value)
            elif word[:1] == "'" and word[-1:] == "'" and len(word) > 1:
                joined.append(word[1:-1].replace("''", "'").replace("\\n", "\n"))
            else:
                joined.append(word)
        return "".join(joined)

    def _obey(self, name: str, rest: str, at: int) -> Iterator[Statement]:
        if name == "set":
            variable, _, value = rest.partition(" ")
            if variable:
                self.variables[variable] = self._expanded(value.strip())
        elif name == "unset":
            self.variables.pop(rest, None)
        elif name in ("i", "include", "ir", "include_relative"):
            yield from self._include(self._expanded(rest), relative=name.startswith(("ir", "include_")), at=at)
        elif name == "copy":
            yield from self._client_copy(rest, at)
        elif name in ("q", "quit"):
            self.ended = True
        elif name in ("c", "connect"):
            self.script.notes.append("\\connect is left out: everything goes to the scratch database")
        elif name in ("g", "gx", "gexec", "gset", ".", ""):
            pass  # there is no statement before it
        elif name.rstrip("+S").startswith(("d", "sf", "sv")) or name.rstrip("+") in _WITHOUT_EFFECT:
            self.script.notes.append(f"\\{name} has no effect here")
        else:
            raise self._error(
                f"The backslash command \\{name} makes no sense in a file that is applied here.",
                "take it out, or do what it does beforehand",
                at,
            )

    def _include(self, name: str, *, relative: bool, at: int) -> Iterator[Statement]:
        folder = self.script.path.resolve().parent
        # psql looks in the folder that it was started in, the project's most likely.
        places = [folder] if relative else [Path(), folder, *folder.parents]
        path = next((place / name for place in places if (place / name).is_file()), folder / name)
        if path.resolve() in self.including:
            raise self._error(f"{path} includes itself.", "take the \\i out", at)
        if not path.is_file():
            raise self._error(f"There is no file {name} to include.", "mend the path behind \\i or \\ir", at)
        included = Script.read(path)
        yield from _Reader(included, self.variables, self.including).statements()
        self.script.notes.extend(included.notes)

    def _client_copy(self, rest: str, at: int) -> Iterator[Statement]:
        parts = _CLIENT_COPY.match(rest)
        if parts is None:
            self.script.notes.append("\\copy to a file is left out")
            return
        text = f"COPY {parts['what']} FROM STDIN{parts['options'].rstrip().rstrip(';')}"
        name = parts["quoted"] if parts["quoted"] is not None else parts["plain"]
        line = self._line_of(at)
        if name.lower() in ("stdin", "pstdin"):
            last = _COPY_END.search(self.source, self.at)
            data = memoryview(self.source)[self.at : len(self.source) if last is None else last.start()]
            self.at = len(self.source) if last is None else last.end()
        else:
            path = Path(name) if Path(name).is_file() else self.script.path.parent / name
            if not path.is_file():
                raise self._error(f"There is no file {name} to copy from.", "mend the path behind \\copy", at)
            data = memoryview(Script.read(path).source)
        yield Statement(self.script.path, line, text, "", data)


def _is_down(marker: re.Match[bytes]) -> bool:
    return (marker["marker"] or marker["plain"]).lower() in (b"down", b"undo")


def _match(pattern: re.Pattern[bytes], source: Source, at: int) -> re.Match[bytes]:
    """A match of a pattern that also matches nothing."""
    found = pattern.match(source, at)
    assert found is not None
    return found


def _end(source: Source, start: int, end: int) -> int:
    """`end` without the white space before it."""
    while end > start and source[end - 1] in b" \t\r\n\f\v":
        end -= 1
    return end


def check_text(path: Path, source: Source) -> None:
    """Raises HarnessError for what is not text in UTF-8, with the byte at fault."""
    size = 1 << 20
    at = 0
    while at < len(source):
        piece = source[at : at + size]
        nul = piece.find(b"\0")
        if nul >= 0:
            wide = source[:2] in (b"\xff\xfe", b"\xfe\xff")
            raise HarnessError(
                f"{path} is not text: byte {at + nul} is NUL.",
                tried="reading it as UTF-8",
                next_step="save it as UTF-8 (it is UTF-16)"
                if wide
                else "a dump in the custom format becomes SQL by `pg_restore -f FILE.sql`; else name another file",
            )
        try:
            piece.decode()
            at += len(piece)
        except UnicodeDecodeError as error:
            # The last character of a piece may go on in the next.
            if error.end >= len(piece) > size - 4 and error.start > 0 and at + len(piece) < len(source):
                at += error.start
                continue
            place = at + error.start
            line = source[:place].count(b"\n") + 1
            raise HarnessError(
                f"{path} cannot be read: it is not UTF-8.",
                tried=f"byte {place}, on line {line}, is 0x{source[place]:02x}",
                next_step=f"save it as UTF-8, for instance with `iconv -f latin1 -t utf8 {path.name}`",
            ) from error
