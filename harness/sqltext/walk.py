"""The statements of a PL/pgSQL body, by its tokens, as PL/pgSQL's own parser reads them (manual, chapter 41)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pglast.parser import ParseError, scan

from harness.sqltext import access
from harness.sqltext.access import Touched
from harness.sqltext.simple import CLOSING, OPENING, Cursors, Simple, Token


class UnsplittableError(Exception):
    """The body cannot be split; the message says why."""


COMMENTS = frozenset({"SQL_COMMENT", "C_COMMENT"})
"""Tokens that are none of a statement's."""


@dataclass(frozen=True, slots=True)
class Place:
    """A statement, as the tokens show it."""

    kind: str
    start: int
    """Where its label, or its first word, begins."""
    line: int
    """Line of its first word after the label, which is what the parser reports."""
    head: tuple[int, int]
    """The text that names it: a simple statement whole, a compound one up to its body."""
    guarded: bool
    touched: Touched
    """By its head."""
    returns: bool = False
    commits: bool = False
    dynamic: tuple[int, int] | None = None
    """Where the expression is whose value is executed."""
    parts: tuple[Touched, ...] = ()
    """By each of the expressions of its head that are evaluated one after the other, where there are several."""
    conditions: tuple[tuple[int, int], ...] = ()
    """ELSIF, and WHEN of a searched CASE after its first: where the word begins and where its condition ends."""
    conditions_touched: tuple[Touched, ...] = ()
    """By each of them."""
    ends: bool = False


@dataclass(frozen=True, slots=True)
class Declaration:
    """A variable whose first value is an expression."""

    start: int
    line: int
    text: str
    touched: Touched


class Walk:
    """Statements of a PL/pgSQL body by its tokens, in the order of the source. Raises UnsplittableError."""

    def __init__(self, body: str) -> None:
        self.body = body
        try:
            tokens = scan(body)
        except ParseError as error:
            raise UnsplittableError(f"its body could not be parsed ({error})") from error
        self.tokens = [
            Token(t.start, t.end + 1, body[t.start : t.end + 1].lower()) for t in tokens if t.name not in COMMENTS
        ]
        self.cursors = Cursors()
        self._read()
        if self.cursors.opened:
            self._read()  # what is opened further down may be fetched further up, in a loop

    def _read(self) -> None:
        self.at = 0
        self.places: list[Place] = []
        self.handlers: list[int] = []
        """Positions just after the THEN of each handler."""
        self.declarations: list[Declaration] = []
        self.end = 0
        """Where the END of the outermost block begins."""
        while self._word() == "#":  # compile options, each on a line of its own
            line = self._line(self.tokens[self.at].start)
            while self._line(self.tokens[self.at].start) == line:
                self.at += 1
        self._statement(guarded=False)
        if self.at < len(self.tokens) and self._word() != ";":
            raise UnsplittableError(f"its body could not be parsed at line {self._line(self.tokens[self.at].start)}")

    def touched(self) -> Touched:
        """All that the body touches."""
        total = Touched()
        for declaration in self.declarations:
            total |= declaration.touched
        for place in self.places:
            total |= place.touched
            total.ends |= place.ends
            for condition in place.conditions_touched:
                total |= condition
        total |= self.cursors.touched
        return total

    def _word(self, ahead: int = 0) -> str:
        at = self.at + ahead
        return self.tokens[at].word if at < len(self.tokens) else ""

    def _next(self) -> Token:
        if self.at >= len(self.tokens):
            raise UnsplittableError("its body could not be parsed: it ends too early")
        self.at += 1
        return self.tokens[self.at - 1]

    def _expect(self, word: str) -> Token:
        token = self._next()
        if token.word != word:
            line = self._line(token.start)
            raise UnsplittableError(f"its body could not be parsed: line {line} has {token.word!r}, {word!r} is due")
        return token

    def _line(self, position: int) -> int:
        return self.body.count("\n", 0, position) + 1

    def _until(self, *words: str) -> Token:
        """Skip to the first of the words outside of brackets, as PL/pgSQL itself does, and past it."""
        depth = 0
        while True:
            token = self._next()
            if depth == 0 and token.word in words:
                return token
            depth += (token.word in OPENING) - (token.word in CLOSING)

    def _statements(self, *ends: str, guarded: bool) -> str:
        """Read statements up to one of the words, which is left unread and returned."""
        while self._word() not in ends:
            self._statement(guarded=guarded)
        return self._word()

    def _statement(self, *, guarded: bool) -> None:
        start = self.tokens[self.at].start if self.at < len(self.tokens) else 0
        if self._word() == "<<":
            self._until(">>")
        word = self._word()
        if word in ("declare", "begin"):
            self._block(start, guarded)
        elif word == "if":
            self._if(start, guarded)
        elif word == "case":
            self._case(start, guarded)
        elif word in ("loop", "while", "for", "foreach"):
            self._loop(word, start, guarded)
        elif word == ";":
            self._next()
        else:
            begin = self.at
            last = self._until(";")
            inside = self.tokens[begin : self.at - 1]
            first = inside[0]
            if first.word == "null" and len(inside) == 1:
                return
            simple = Simple(self.body, inside, self.cursors)
            touched = simple.touched()
            word = "" if simple.assigns else first.word
            ends = word in ("commit", "rollback")
            self._place("simple", start, first, last.start, guarded, touched, simple, ends=ends)
            self.places[-1] = replace(self.places[-1], returns=word == "return", commits=word == "commit")

    def _place(
        self,
        kind: str,
        start: int,
        first: Token,
        head_end: int,
        guarded: bool,
        touched: Touched,
        simple: Simple | None = None,
        *,
        ends: bool = False,
    ) -> None:
        head = (first.start, head_end)
        line = self._line(first.start)
        parts, dynamic = (simple.parts, simple.dynamic) if simple else ([], None)
        self.places.append(
            Place(kind, start, line, head, guarded, touched, dynamic=dynamic, parts=tuple(parts), ends=ends)
        )

    def _block(self, start: int, guarded: bool) -> None:
        if self._word() == "declare":
            self._next()
            while self._word() != "begin":
                if self._word() == "declare":
                    self._next()
                    continue
                self._declaration()
        self._expect("begin")
        # Whether its statements are guarded is known only at its end; the places read meanwhile are then replaced.
        position = len(self.places)
        if self._statements("end", "exception", guarded=guarded) == "exception":
            self.places[position:] = [replace(place, guarded=True) for place in self.places[position:]]
            self._next()
            while self._word() == "when":
                self._next()
                self.handlers.append(self._until("then").end)
                self._statements("when", "end", guarded=guarded)
        self.end = self._expect("end").start
        if self.at < len(self.tokens):
            self._until(";")

    def _declaration(self) -> None:
        first = self.at
        start = self._next()
        cursor: int | None = None
        expression: int | None = None
        depth = 0
        while True:
            token = self._next()
            if token.word == ";" and depth == 0:
                break
            depth += (token.word in OPENING) - (token.word in CLOSING)
            if depth:
                continue
            is_cursor = any(t.word == "cursor" for t in self.tokens[first : self.at])
            if is_cursor and cursor is None and token.word in ("for", "is"):
                cursor = token.end
            elif expression is None and not is_cursor and token.word in (":=", "=", "default"):
                expression = token.end
        if cursor is not None:
            self.cursors.names.add(start.word)
            self.cursors.touched |= access.of_statement(self.body[cursor : token.start])
        elif expression is not None and self.tokens[first + 1].word != "alias":
            text = self.body[start.start : token.start]
            touched = access.of_expression(self.body[expression : token.start])
            self.declarations.append(Declaration(start.start, self._line(start.start), text, touched))

    def _if(self, start: int, guarded: bool) -> None:
        first = self._next()
        then = self._until("then")
        position = len(self.places)
        self._place("if", start, first, then.end, guarded, access.of_expression(self.body[first.end : then.start]))
        conditions, touched = [], []
        while True:
            end = self._statements("elsif", "elseif", "else", "end", guarded=guarded)
            token = self._next()
            if end in ("elsif", "elseif"):
                then = self._until("then")
                conditions.append((token.start, then.start))
                touched.append(access.of_expression(self.body[token.end : then.start]))
            elif end == "end":
                break
        self._expect("if")
        self._until(";")
        self._with_conditions(position, conditions, touched)

    def _case(self, start: int, guarded: bool) -> None:
        first = self._next()
        searched = self._word() == "when"
        test = Touched()
        parts: list[Touched] = []
        if not searched:
            begin = self.tokens[self.at].start
            when = self._until("when")
            self.at -= 1
            test = access.of_expression(self.body[begin : when.start])
            parts.append(access.of_expression(self.body[begin : when.start]))
        position = len(self.places)
        conditions, touched = [], []
        head_end = None
        while True:
            token = self._next()
            if token.word == "when":
                then = self._until("then")
                found = access.of_expression(self.body[token.end : then.start])
                if head_end is None:
                    head_end = then.end
                    test |= found
                    self._place("case", start, first, head_end, guarded, test)
                elif searched:
                    touched.append(found)
                    conditions.append((token.start, then.start))
                if not searched:
                    parts.append(found)
            elif token.word == "end":
                break
            elif token.word != "else":
                line = self._line(token.start)
                raise UnsplittableError(f"its body could not be parsed: line {line} has {token.word!r} in a CASE")
            self._statements("when", "else", "end", guarded=guarded)
        self._expect("case")
        self._until(";")
        if head_end is not None:
            self._with_conditions(position, conditions, touched)
            for part in parts[2:]:
                test |= part
            self.places[position] = replace(self.places[position], parts=tuple(parts))

    def _with_conditions(
        self, position: int, conditions: Sequence[tuple[int, int]], touched: Sequence[Touched]
    ) -> None:
        self.places[position] = replace(
            self.places[position], conditions=tuple(conditions), conditions_touched=tuple(touched)
        )

    def _loop(self, word: str, start: int, guarded: bool) -> None:
        first = self._next()
        begin = self.at
        head_end = first.end if word == "loop" else self._until("loop").end
        inside = self.tokens[begin : self.at - 1]
        touched = Touched()
        simple = Simple(self.body, inside, self.cursors)
        if word == "while":
            touched = access.of_expression(self.body[first.end : head_end - len("loop")])
        elif word == "for":
            touched = simple.of_for()
        elif word == "foreach":
            touched = simple.of_foreach()
        self._place(word, start, first, head_end, guarded, touched, simple)
        self._statements("end", guarded=guarded)
        self._expect("end")
        self._expect("loop")
        self._until(";")
