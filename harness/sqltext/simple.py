"""What one PL/pgSQL statement without a body touches: the SQL in it is parsed by PostgreSQL's parser."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pglast import parse_sql
from pglast.parser import ParseError, scan

from harness.sqltext import access
from harness.sqltext.access import Touched

OPENING = frozenset({"(", "["})
CLOSING = frozenset({")", "]"})
_ASSIGNING = frozenset({":=", "="})


@dataclass(frozen=True, slots=True)
class Token:
    """A word of a body, by its place in it."""

    start: int
    end: int
    """Exclusive."""
    word: str
    """In lower case; quoted identifiers and strings keep their quotes, so they equal no keyword."""


@dataclass
class Cursors:
    """The cursors of a body, declared with their queries or opened for one."""

    names: set[str] = field(default_factory=set)
    touched: Touched = field(default_factory=Touched)
    """What their queries touch; where they are used, that is touched."""
    opened: bool = False


class Simple:
    """The SQL in one statement without a body, or in the head of a loop."""

    def __init__(self, body: str, tokens: Sequence[Token], cursors: Cursors) -> None:
        self.body = body
        self.tokens = tokens
        self.cursors = cursors
        self.parts: list[Touched] = []
        self.dynamic: tuple[int, int] | None = None

    @property
    def assigns(self) -> bool:
        """Whether the first word is a variable, whatever it says: so PL/pgSQL takes words that are not reserved."""
        return len(self.tokens) > 1 and self.tokens[1].word in (*_ASSIGNING, ".", "[")

    def touched(self) -> Touched:
        """What it touches; `parts` then has its expressions, if several, and `dynamic` what it executes."""
        word, rest = self.tokens[0].word, self.tokens[1:]
        second = rest[0].word if rest else ""
        match "" if self.assigns else word:
            case "return" if second == "query":
                return self._query(rest[1:])
            case "return":
                return self._expression(rest[1:] if second == "next" else rest)
            case "perform":
                return access.of_statement(f"SELECT {self._text(rest)}")
            case "execute":
                return self._dynamic(rest)
            case "raise":
                return self._raised(rest)
            case "open":
                return self._opened(rest)
            case "fetch" | "move":
                into = self._find(rest, "into")
                return self._fetched(rest[:into][-1:])
            case "close":
                return Touched()
            case "exit" | "continue":
                at = self._find(rest, "when")
                return Touched() if at is None else self._expression(rest[at + 1 :])
            case "assert":
                return self._expression(rest)
            case "get" | "commit" | "rollback":
                return Touched()
        assigned = self._assignment()
        return self._statement(self.tokens) if assigned is None else assigned

    def of_for(self) -> Touched:
        """What the head of a FOR touches."""
        """The head of a FOR loop, between FOR and LOOP."""
        at = self._find(self.tokens, "in")
        if at is None:
            return Touched(unread=True)
        rest = self.tokens[at + 1 :]
        if self._find(rest, "..") is not None:
            total = Touched()
            for piece in self._pieces(rest[1:] if rest and rest[0].word == "reverse" else rest, "..", "by"):
                total |= self._expression(piece)
            return total
        if rest and rest[0].word == "execute":
            return self._dynamic(rest[1:])
        if rest and rest[0].word in ("select", "with", "values", "table", "insert", "update", "delete", "merge", "("):
            return access.of_statement(self._text(rest))
        if rest and rest[0].word in ("show", "explain"):
            return Touched(unread=True)
        total = self._fetched(rest[:1])
        total |= self._expression(rest) if len(rest) > 1 else Touched()  # the cursor's arguments
        return total

    def of_foreach(self) -> Touched:
        """What the head of a FOREACH touches."""
        at = self._find(self.tokens, "array")
        return Touched(unread=True) if at is None else self._expression(self.tokens[at + 1 :])

    def _fetched(self, name: Sequence[Token]) -> Touched:
        """What is touched where a cursor is used; one that comes from elsewhere may do anything."""
        known = bool(name) and name[0].word in self.cursors.names
        total = Touched(unread=not known)
        total |= self.cursors.touched
        self.parts.append(total)
        return total

    def _query(self, rest: Sequence[Token]) -> Touched:
        if rest and rest[0].word == "execute":
            return self._dynamic(rest[1:])
        return access.of_statement(self._text(rest))

    def _dynamic(self, rest: Sequence[Token]) -> Touched:
        """EXECUTE of a constant text is as good as the text; of anything else, nothing is known."""
        query, *others = self._pieces(rest, "into", "using")
        if not query:
            return Touched(unread=True)
        total = Touched()
        if len(query) == 1:
            total |= _of_constant(self._text(query))
            self.parts.append(_of_constant(self._text(query)))
        else:
            total |= self._expression(query)
            total.dynamic = True
            self.parts.append(Touched(dynamic=True))
            self.dynamic = (query[0].start, query[-1].end)
        for piece in others:
            total |= self._expression(piece[1:] if piece and piece[0].word == "strict" else piece)
        return total

    def _raised(self, rest: Sequence[Token]) -> Touched:
        total = Touched()
        using = self._find(rest, "using")
        for piece in self._pieces(rest if using is None else rest[:using], ",")[1:]:
            total |= self._expression(piece)
        for piece in () if using is None else self._pieces(rest[using + 1 :], ","):
            at = next((n for n, token in enumerate(piece) if token.word in _ASSIGNING), -1)
            total |= self._expression(piece[at + 1 :])
        return total

    def _opened(self, rest: Sequence[Token]) -> Touched:
        at = self._find(rest, "for")
        if at is not None:
            query = self._query(rest[at + 1 :])
            self.cursors.names.add(rest[0].word)
            self.cursors.touched |= query
            self.cursors.opened = True
            return query
        total = self._fetched(rest[:1])
        total |= self._expression(rest) if len(rest) > 1 else Touched()
        return total

    def _assignment(self) -> Touched | None:
        """The expressions of an assignment, those in its target's brackets too; None: it is none."""
        depth, begin = 0, 0
        brackets: list[Sequence[Token]] = []
        for at, token in enumerate(self.tokens):
            if depth == 0 and at and token.word in _ASSIGNING:
                total = self._expression(self.tokens[at + 1 :])
                for inside in brackets:
                    for piece in self._pieces(inside, ":"):
                        total |= self._expression(piece)
                return total
            if token.word == "[":
                begin = at + 1 if depth == 0 else begin
                depth += 1
            elif token.word == "]":
                depth -= 1
                if depth == 0:
                    brackets.append(self.tokens[begin:at])
            elif depth == 0 and at and token.word != "." and self.tokens[at - 1].word != ".":
                return None
        return None

    def _statement(self, tokens: Sequence[Token]) -> Touched:
        """A statement of SQL, without PL/pgSQL's INTO."""
        at = next(
            (
                at
                for at, token in self._outside(tokens)
                if token.word == "into" and at and tokens[at - 1].word not in ("insert", "merge")
            ),
            None,
        )
        if at is None:
            return access.of_statement(self._text(tokens))
        end = at + 1
        if end < len(tokens) and tokens[end].word == "strict":
            end += 1
        subscripts = Touched()
        while end < len(tokens):
            end += 1  # a name
            while end < len(tokens) and tokens[end].word in (".", "["):
                if tokens[end].word == ".":
                    end += 2
                    continue
                close = self._closing(tokens, end)
                subscripts |= self._expression(tokens[end + 1 : close])
                end = close + 1
            if end >= len(tokens) or tokens[end].word != ",":
                break
            end += 1
        rest = self.body[tokens[end].start : tokens[-1].end] if end < len(tokens) else ""
        found = access.of_statement(f"{self.body[tokens[0].start : tokens[at].start]} {rest}")
        self.parts.append(access.of_statement(f"{self.body[tokens[0].start : tokens[at].start]} {rest}"))
        found |= subscripts
        return found

    def _closing(self, tokens: Sequence[Token], opening: int) -> int:
        depth = 0
        for at in range(opening, len(tokens)):
            depth += (tokens[at].word in OPENING) - (tokens[at].word in CLOSING)
            if depth == 0:
                return at
        return len(tokens) - 1

    def _expression(self, tokens: Sequence[Token]) -> Touched:
        if not tokens:
            return Touched()
        touched = access.of_expression(self._text(tokens))
        if any(not (token.word == "." or token.word[0].isalnum() or token.word[0] in "_\"'$") for token in tokens):
            self.parts.append(touched)  # more than a variable or a constant
        return touched

    def _text(self, tokens: Sequence[Token]) -> str:
        return self.body[tokens[0].start : tokens[-1].end] if tokens else ""

    def _find(self, tokens: Sequence[Token], word: str) -> int | None:
        """The first place of a word outside of brackets."""
        return next((at for at, token in self._outside(tokens) if token.word == word), None)

    def _pieces(self, tokens: Sequence[Token], *words: str) -> list[Sequence[Token]]:
        """The tokens between some words outside of brackets."""
        pieces, begin = [], 0
        for at, token in self._outside(tokens):
            if token.word in words:
                pieces.append(tokens[begin:at])
                begin = at + 1
        return [*pieces, tokens[begin:]]

    def _outside(self, tokens: Iterable[Token]) -> Iterator[tuple[int, Token]]:
        depth = 0
        for at, token in enumerate(tokens):
            depth -= token.word in CLOSING
            if depth == 0:
                yield at, token
            depth += token.word in OPENING


def _of_constant(text: str) -> Touched:
    """What a constant text that is executed touches."""
    try:
        if scan(text)[0].name == "SCONST":
            statement: Any = parse_sql(f"SELECT {text}")[0].stmt
            return access.of_executed(statement.targetList[0].val.val.sval)
    except ParseError:
        pass
    return Touched(unread=True)
