"""Steps: a copy of a function's body with a turnstile before each statement that touches data. Text in, text out.

A PL/pgSQL body is walked by its tokens, as PL/pgSQL's own parser reads it (manual, chapter 41): statements, and the SQL
in them, of whatever type the variables are. What is read there in SQL is parsed by PostgreSQL's parser; a piece that
it refuses may touch anything. A body whose statements do not end where they should is left alone, and named.

A turnstile is a call of the function `turnstile(step)`, which answers false. Where it is put is decided by what it
must not change:

    IF turnstile(3) THEN END IF; UPDATE ...   a condition, since PERFORM would set FOUND and SELECT INTO would set
                                              ROW_COUNT; on the statement's own line, so that line numbers stay
    ELSIF turnstile(4) THEN ELSIF (SELECT ...) THEN
    WHEN turnstile(5) THEN WHEN (SELECT ...) THEN
    LOOP IF turnstile(6) THEN END IF; IF (SELECT ...) THEN ELSE EXIT; END IF;      was WHILE (SELECT ...) LOOP
    harness_turnstile_7 boolean := turnstile(7); n int := (SELECT ...);            in DECLARE

It never becomes a part of an expression that reads: that expression's snapshot would then be older than the wait.
A handler begins with `caught(SQLSTATE)`, which reports and does not wait.

Only VOLATILE functions are split. The statements of a STABLE or IMMUTABLE one all see the snapshot of the query that
called it, and may not write, so nothing could be seen between them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any

from pglast import parse_sql
from pglast.parser import ParseError, scan

from harness.sqltext import access
from harness.sqltext.access import Touched

TURNSTILE_SCHEMA = "harness_schedules"
"""Schema of the functions `turnstile` and `caught` (see turnstile.sql)."""


@dataclass(frozen=True, slots=True)
class Found:
    """A place in a body where a call waits for its turn."""

    line: int
    """Line within the body, counted as the server counts it in error contexts."""
    text: str
    """The statement, or the head of it, with white space collapsed."""
    touched: Touched
    guarded: bool
    """It is inside a block with an EXCEPTION clause, whose locks go when a statement fails."""
    ends: bool = False
    """It ends the transaction: COMMIT or ROLLBACK in a procedure, or may end it: the end of such a procedure."""
    final: bool = False
    """It is that end."""
    checks: bool = False
    """It has what is deferred to the commit done."""
    tells: bool = False
    """What it executes is put together when it runs, and is then told to the controller."""


@dataclass(frozen=True, slots=True)
class Split:
    """A rewritten body. `Split.steps[i]` waits at turnstile number `first + i`."""

    body: str
    steps: tuple[Found, ...]
    touched: Touched
    """All that the body touches."""
    remarks: tuple[str, ...]
    """What is a step, and is not known beforehand."""
    unsplit: tuple[str, ...] = ()
    """What is one step and should be several, and why."""


class UnsplittableError(Exception):
    """The body cannot be split; the message says why."""


def body_of(definition: str, source: str) -> str:
    """The body within a function's CREATE statement; `source` is its `prosrc`, empty for a body that SQL has parsed."""
    if source:
        return source
    if found := re.search(r"^(RETURN .*)\Z", definition, re.MULTILINE | re.DOTALL):
        return found[1].rstrip()
    _, atomic, body = definition.partition("BEGIN ATOMIC")
    return body.rpartition("END")[0] if atomic else ""


def touched_by(language: str, body: str) -> Touched:
    """All that a function's body touches; unread, where it cannot be read."""
    try:
        if language == "sql":
            return access.of_statement(_statements_of(body))
        if language == "plpgsql":
            return _Walk(body).touched()
    except UnsplittableError:
        pass
    return Touched(unread=True)


def split(
    language: str,
    body: str,
    *,
    first: int,
    functions: Set[str],
    committing: Set[str] = frozenset(),
    deferred: bool = False,
) -> Split:
    """Put a turnstile before each statement of a body that touches data.

    `functions` are the names of the functions of the database that may touch data, so that a statement that calls one
    is a step; `committing` those of procedures that end transactions; `first` is the number of the first turnstile.
    With `deferred`, what may be deferred to a COMMIT inside is made a step before it. Raises UnsplittableError.
    """
    if language == "plpgsql":
        return _Plpgsql(body, first, functions, committing, deferred=deferred).split()
    if language == "sql":
        return _split_sql(body, first, functions)
    raise UnsplittableError(f"it is written in {language}, which cannot be split")


def _turnstile(number: int) -> str:
    return f"{TURNSTILE_SCHEMA}.turnstile({number})"


_RETURN = re.compile(r"\s*RETURN\b", re.IGNORECASE)


def _statements_of(body: str) -> str:
    """A body in the form `RETURN expression` as the query that it is."""
    returned = _RETURN.match(body)
    return f"SELECT {body[returned.end() :]}" if returned else body


def _split_sql(body: str, first: int, functions: Set[str]) -> Split:
    """Turnstiles between the statements of a LANGUAGE sql body: more statements, whose results are discarded.

    Each statement of a VOLATILE SQL function has a snapshot of its own, so the meaning stays (manual, section 36.5).
    The form `RETURN expression` has room for no other statement, and becomes BEGIN ATOMIC.
    """
    if returned := _RETURN.match(body):
        expression = body[returned.end() :].strip()
        touched = access.of_expression(expression)
        if not touched.matters(functions):
            return Split(body, (), touched, ())
        found = Found(1, _collapsed(body), touched, guarded=False)
        return Split(f"BEGIN ATOMIC SELECT {_turnstile(first)}; SELECT {expression}; END", (found,), touched, ())
    try:
        statements = parse_sql(body)
    except ParseError as error:
        raise UnsplittableError(f"its SQL body could not be parsed ({error})") from error
    total, done = Touched(), 0
    steps: list[Found] = []
    pieces: list[str] = []
    for raw in statements:
        start = raw.stmt_location or 0
        end = start + raw.stmt_len if raw.stmt_len else len(body)
        text = body[start:end]
        tokens = [token for token in scan(text) if token.name not in _COMMENTS]
        if not tokens:
            continue
        start += tokens[0].start
        touched = access.of_statement(text)
        total |= touched
        if touched.matters(functions):
            pieces += [body[done:start], f"SELECT {_turnstile(first + len(steps))}; "]
            done = start
            steps.append(Found(body.count("\n", 0, start) + 1, _collapsed(body[start:end]), touched, guarded=False))
    return Split("".join(pieces) + body[done:], tuple(steps), total, ())


_COMMENTS = frozenset({"SQL_COMMENT", "C_COMMENT"})
_OPENING = frozenset({"(", "["})
_CLOSING = frozenset({")", "]"})


@dataclass(frozen=True, slots=True)
class _Token:
    start: int
    end: int
    """Exclusive."""
    word: str
    """In lower case; quoted identifiers and strings keep their quotes, so they equal no keyword."""


@dataclass(frozen=True, slots=True)
class _Place:
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
class _Declaration:
    start: int
    line: int
    text: str
    touched: Touched


@dataclass
class _Cursors:
    """The cursors of a body, declared with their queries or opened for one."""

    names: set[str] = field(default_factory=set)
    touched: Touched = field(default_factory=Touched)
    """What their queries touch; where they are used, that is touched."""
    opened: bool = False


class _Walk:
    """Statements of a PL/pgSQL body by its tokens, in the order of the source (manual, chapter 41)."""

    def __init__(self, body: str) -> None:
        self.body = body
        try:
            tokens = scan(body)
        except ParseError as error:
            raise UnsplittableError(f"its body could not be parsed ({error})") from error
        self.tokens = [
            _Token(t.start, t.end + 1, body[t.start : t.end + 1].lower()) for t in tokens if t.name not in _COMMENTS
        ]
        self.cursors = _Cursors()
        self._read()
        if self.cursors.opened:
            self._read()  # what is opened further down may be fetched further up, in a loop

    def _read(self) -> None:
        self.at = 0
        self.places: list[_Place] = []
        self.handlers: list[int] = []
        """Positions just after the THEN of each handler."""
        self.declarations: list[_Declaration] = []
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

    def _next(self) -> _Token:
        if self.at >= len(self.tokens):
            raise UnsplittableError("its body could not be parsed: it ends too early")
        self.at += 1
        return self.tokens[self.at - 1]

    def _expect(self, word: str) -> _Token:
        token = self._next()
        if token.word != word:
            line = self._line(token.start)
            raise UnsplittableError(f"its body could not be parsed: line {line} has {token.word!r}, {word!r} is due")
        return token

    def _line(self, position: int) -> int:
        return self.body.count("\n", 0, position) + 1

    def _until(self, *words: str) -> _Token:
        """Skip to the first of the words outside of brackets, as PL/pgSQL itself does, and past it."""
        depth = 0
        while True:
            token = self._next()
            if depth == 0 and token.word in words:
                return token
            depth += (token.word in _OPENING) - (token.word in _CLOSING)

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
            simple = _Simple(self.body, inside, self.cursors)
            touched = simple.touched()
            word = "" if simple.assigns else first.word
            ends = word in ("commit", "rollback")
            self._place("simple", start, first, last.start, guarded, touched, simple, ends=ends)
            self.places[-1] = replace(self.places[-1], returns=word == "return", commits=word == "commit")

    def _place(
        self,
        kind: str,
        start: int,
        first: _Token,
        head_end: int,
        guarded: bool,
        touched: Touched,
        simple: _Simple | None = None,
        *,
        ends: bool = False,
    ) -> None:
        head = (first.start, head_end)
        line = self._line(first.start)
        parts, dynamic = (simple.parts, simple.dynamic) if simple else ([], None)
        self.places.append(
            _Place(kind, start, line, head, guarded, touched, dynamic=dynamic, parts=tuple(parts), ends=ends)
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
            depth += (token.word in _OPENING) - (token.word in _CLOSING)
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
            self.declarations.append(_Declaration(start.start, self._line(start.start), text, touched))

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
        simple = _Simple(self.body, inside, self.cursors)
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


_ASSIGNING = frozenset({":=", "="})


class _Simple:
    """The SQL in one statement without a body, or in the head of a loop."""

    def __init__(self, body: str, tokens: Sequence[_Token], cursors: _Cursors) -> None:
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
        at = self._find(self.tokens, "array")
        return Touched(unread=True) if at is None else self._expression(self.tokens[at + 1 :])

    def _fetched(self, name: Sequence[_Token]) -> Touched:
        """What is touched where a cursor is used; one that comes from elsewhere may do anything."""
        known = bool(name) and name[0].word in self.cursors.names
        total = Touched(unread=not known)
        total |= self.cursors.touched
        self.parts.append(total)
        return total

    def _query(self, rest: Sequence[_Token]) -> Touched:
        if rest and rest[0].word == "execute":
            return self._dynamic(rest[1:])
        return access.of_statement(self._text(rest))

    def _dynamic(self, rest: Sequence[_Token]) -> Touched:
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

    def _raised(self, rest: Sequence[_Token]) -> Touched:
        total = Touched()
        using = self._find(rest, "using")
        for piece in self._pieces(rest if using is None else rest[:using], ",")[1:]:
            total |= self._expression(piece)
        for piece in () if using is None else self._pieces(rest[using + 1 :], ","):
            at = next((n for n, token in enumerate(piece) if token.word in _ASSIGNING), -1)
            total |= self._expression(piece[at + 1 :])
        return total

    def _opened(self, rest: Sequence[_Token]) -> Touched:
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
        brackets: list[Sequence[_Token]] = []
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

    def _statement(self, tokens: Sequence[_Token]) -> Touched:
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

    def _closing(self, tokens: Sequence[_Token], opening: int) -> int:
        depth = 0
        for at in range(opening, len(tokens)):
            depth += (tokens[at].word in _OPENING) - (tokens[at].word in _CLOSING)
            if depth == 0:
                return at
        return len(tokens) - 1

    def _expression(self, tokens: Sequence[_Token]) -> Touched:
        if not tokens:
            return Touched()
        touched = access.of_expression(self._text(tokens))
        if any(not (token.word == "." or token.word[0].isalnum() or token.word[0] in "_\"'$") for token in tokens):
            self.parts.append(touched)  # more than a variable or a constant
        return touched

    def _text(self, tokens: Sequence[_Token]) -> str:
        return self.body[tokens[0].start : tokens[-1].end] if tokens else ""

    def _find(self, tokens: Sequence[_Token], word: str) -> int | None:
        """The first place of a word outside of brackets."""
        return next((at for at, token in self._outside(tokens) if token.word == word), None)

    def _pieces(self, tokens: Sequence[_Token], *words: str) -> list[Sequence[_Token]]:
        """The tokens between some words outside of brackets."""
        pieces, begin = [], 0
        for at, token in self._outside(tokens):
            if token.word in words:
                pieces.append(tokens[begin:at])
                begin = at + 1
        return [*pieces, tokens[begin:]]

    def _outside(self, tokens: Iterable[_Token]) -> Iterator[tuple[int, _Token]]:
        depth = 0
        for at, token in enumerate(tokens):
            depth -= token.word in _CLOSING
            if depth == 0:
                yield at, token
            depth += token.word in _OPENING


def _of_constant(text: str) -> Touched:
    """What a constant text that is executed touches."""
    try:
        if scan(text)[0].name == "SCONST":
            statement: Any = parse_sql(f"SELECT {text}")[0].stmt
            return access.of_executed(statement.targetList[0].val.val.sval)
    except ParseError:
        pass
    return Touched(unread=True)


def _collapsed(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


class _Plpgsql:
    """The insertions that split one PL/pgSQL body."""

    def __init__(self, body: str, first: int, functions: Set[str], committing: Set[str], *, deferred: bool) -> None:
        self.body = body
        self.first = first
        self.functions = functions
        self.committing = committing
        self.deferred = deferred
        self.steps: list[Found] = []
        self.insertions: list[tuple[int, str, int]] = []
        """(position, text, how much of the body it takes the place of)."""
        self.remarks: list[str] = []
        self.unsplit: list[str] = []

    def split(self) -> Split:
        walk = _Walk(self.body)
        for declaration in walk.declarations:
            self._declaration(declaration)
        for place in walk.places:
            self._statement(place)
        if any(place.ends or not place.touched.calls.isdisjoint(self.committing) for place in walk.places):
            # What it did since its last COMMIT is committed when it returns, if nobody goes on after it.
            ends = [(place.start, place.guarded) for place in walk.places if place.returns] + [(walk.end, False)]
            for at, guarded in ends:
                line = self.body.count("\n", 0, at) + 1
                check = "" if guarded else self._deferred(line)
                turnstile = self._step(line, "the end, which commits", Touched(), guarded=False, ends=True, final=True)
                self._insert(at, f"{check}IF {turnstile} THEN END IF; ")
        for handler in walk.handlers:
            self._insert(handler, f" IF {TURNSTILE_SCHEMA}.caught(SQLSTATE) THEN END IF;")
        steps, remarks, unsplit = tuple(self.steps), tuple(self.remarks), tuple(self.unsplit)
        return Split(self._rewritten(), steps, walk.touched(), remarks, unsplit)

    def _rewritten(self) -> str:
        pieces, done = [], 0
        for position, text, replaced in sorted(self.insertions, key=lambda insertion: insertion[0]):
            pieces += [self.body[done:position], text]
            done = position + replaced
        return "".join(pieces) + self.body[done:]

    def _insert(self, position: int, text: str, replaced: int = 0) -> None:
        self.insertions.append((position, text, replaced))

    def _deferred(self, line: int) -> str:
        """What makes a step of that which is deferred to the commit."""
        if not self.deferred:
            return ""
        turnstile = self._step(line, "what is deferred to the commit", Touched(), guarded=False, checks=True)
        return f"IF {turnstile} THEN END IF; SET CONSTRAINTS ALL IMMEDIATE; "

    def _step(self, line: int, text: str, touched: Touched, guarded: bool, **more: bool) -> str:
        """Add a step and give its turnstile."""
        self.steps.append(Found(line, _collapsed(text), touched, guarded, **more))
        return _turnstile(self.first + len(self.steps) - 1)

    def _declaration(self, declaration: _Declaration) -> None:
        if declaration.touched.matters(self.functions):
            turnstile = self._step(declaration.line, declaration.text, declaration.touched, guarded=False)
            name = f"harness_turnstile_{self.first + len(self.steps) - 1}"
            self._insert(declaration.start, f"{name} boolean := {turnstile}; ")

    def _statement(self, place: _Place) -> None:
        touched = place.touched
        head = self.body[place.head[0] : place.head[1]]
        if place.dynamic is not None:
            # Whatever its type is, EXECUTE takes its text.
            self._insert(place.dynamic[0], f"{TURNSTILE_SCHEMA}.dynamic((")
            self._insert(place.dynamic[1], ")::pg_catalog.text)")
        if touched.block:
            reason = "a DO block, or several statements in one text, is one step"
            self.unsplit.append(f"line {place.line}: {_collapsed(head)[:80]}: {reason}")
        if touched.everything or touched.unread:
            self.remarks.append(f"line {place.line}: {_collapsed(head)[:80]}: what it touches is not known beforehand")
        if touched.matters(self.functions) or place.ends:
            check = self._deferred(place.line) if place.commits else ""
            turnstile = self._step(
                place.line, head, touched, place.guarded, ends=place.ends, tells=place.dynamic is not None
            )
            if place.kind == "while":
                self._while(place, turnstile)
            else:
                self._insert(place.start, f"{check}IF {turnstile} THEN END IF; ")
        if sum(part.matters(self.functions) for part in place.parts) > 1:
            reason = "evaluates several expressions that touch data, one after the other"
            self.unsplit.append(f"line {place.line}: {_collapsed(head)[:80]}: {reason}")
        for (start, end), condition in zip(place.conditions, place.conditions_touched, strict=True):
            if condition.matters(self.functions):
                text = self.body[start:end]
                word = text.split(maxsplit=1)[0]
                line = self.body.count("\n", 0, start) + 1
                self._insert(start, f"{word} {self._step(line, text, condition, place.guarded)} THEN ")

    def _while(self, place: _Place, turnstile: str) -> None:
        """The condition of a WHILE is evaluated before every pass, so it moves into the loop."""
        start, end = place.head
        self._insert(start, f"LOOP IF {turnstile} THEN END IF; IF ", len("while"))
        self._insert(end - len("loop"), "THEN ELSE EXIT; END IF;", len("loop"))
