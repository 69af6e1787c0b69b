"""Steps: a copy of a function's body with a turnstile before each statement that touches data. Text in, text out.

PL/pgSQL is parsed twice. `pglast.parse_plpgsql` gives the statements and their SQL, but no positions; a walk over the
tokens of `pglast`'s scanner gives exact positions, but not what a token means. Both list the statements in the order
of the source, so they are matched one by one, and a body on which they disagree is left alone and named as one step.

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
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from pglast import parse_plpgsql, parse_sql
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


@dataclass(frozen=True, slots=True)
class Split:
    """A rewritten body. `Split.steps[i]` waits at turnstile number `first + i`."""

    body: str
    steps: tuple[Found, ...]
    touched: Touched
    """All that the body touches."""
    remarks: tuple[str, ...]
    """What could not be split, and why."""


class UnsplittableError(Exception):
    """The body cannot be split; the message says why."""


def body_of(definition: str, source: str) -> str:
    """The body within a function's CREATE statement; `source` is its `prosrc`, empty for the form BEGIN ATOMIC."""
    if source:
        return source
    _, found, body = definition.partition("BEGIN ATOMIC")
    return body.rpartition("END")[0] if found else ""


def touched_by(language: str, definition: str, body: str) -> Touched:
    """All that a function's body touches; everything, where it cannot be read.

    `definition` is its whole CREATE statement, as `pg_get_functiondef` gives it, and `body` the source in it.
    """
    try:
        if language == "sql":
            return access.of_statement(body)
        if language != "plpgsql":
            return Touched(everything=True)
        total = Touched()
        for node in _declared_and_statements(_parsed(definition)):
            total |= _touched(node, Touched())
        return total
    except UnsplittableError:
        return Touched(everything=True)


def split(language: str, definition: str, body: str, *, first: int, functions: Set[str]) -> Split:
    """Put a turnstile before each statement of a body that touches data.

    `functions` are the names of the functions of the database that may touch data, so that a statement that calls one
    is a step; `first` is the number of the first turnstile. Raises UnsplittableError.
    """
    if language == "plpgsql":
        return _Plpgsql(definition, body, first, functions).split()
    if language == "sql":
        return _split_sql(body, first, functions)
    raise UnsplittableError(f"it is written in {language}, which cannot be split")


def _turnstile(number: int) -> str:
    return f"{TURNSTILE_SCHEMA}.turnstile({number})"


def _split_sql(body: str, first: int, functions: Set[str]) -> Split:
    """Turnstiles between the statements of a LANGUAGE sql body: more statements, whose results are discarded.

    Each statement of a VOLATILE SQL function has a snapshot of its own, so the meaning stays (manual, section 36.5).
    """
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
    conditions: tuple[tuple[int, int], ...] = ()
    """ELSIF and WHEN: where the word begins and where its condition ends."""


@dataclass(frozen=True, slots=True)
class _Declaration:
    start: int
    line: int
    expression: str
    text: str


class _Walk:
    """Statements of a PL/pgSQL body by its tokens, in the order of the source (manual, chapter 41)."""

    def __init__(self, body: str) -> None:
        self.body = body
        try:
            tokens = scan(body)
        except ParseError as error:
            raise UnsplittableError(f"its body could not be read ({error})") from error
        self.tokens = [
            _Token(t.start, t.end + 1, body[t.start : t.end + 1].lower()) for t in tokens if t.name not in _COMMENTS
        ]
        self.at = 0
        self.places: list[_Place] = []
        self.handlers: list[int] = []
        """Positions just after the THEN of each handler."""
        self.declarations: list[_Declaration] = []
        while self._word() == "#":  # compile options, each on a line of its own
            line = self._line(self.tokens[self.at].start)
            while self._line(self.tokens[self.at].start) == line:
                self.at += 1
        self._statement(guarded=False)

    def _word(self, ahead: int = 0) -> str:
        at = self.at + ahead
        return self.tokens[at].word if at < len(self.tokens) else ""

    def _next(self) -> _Token:
        if self.at >= len(self.tokens):
            raise UnsplittableError("its body ends too early")
        self.at += 1
        return self.tokens[self.at - 1]

    def _expect(self, word: str) -> _Token:
        token = self._next()
        if token.word != word:
            raise UnsplittableError(f"line {self._line(token.start)} has {token.word!r} where {word!r} is due")
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
        else:
            first = self._next()
            if first.word == ";":
                return
            last = self._until(";") if first.word not in _OPENING else self._skip_bracketed()
            if first.word == "null" and self.tokens[self.at - 2] is first:
                return  # a NULL statement, which the parser drops
            self._place("simple", start, first, last.start, guarded)

    def _skip_bracketed(self) -> _Token:
        self.at -= 1
        return self._until(";")

    def _place(
        self,
        kind: str,
        start: int,
        first: _Token,
        head_end: int,
        guarded: bool,
        conditions: Sequence[tuple[int, int]] = (),
    ) -> None:
        place = _Place(kind, start, self._line(first.start), (first.start, head_end), guarded, tuple(conditions))
        self.places.append(place)

    def _block(self, start: int, guarded: bool) -> None:
        if self._word() == "declare":
            self._next()
            while self._word() != "begin":
                if self._word() == "declare":
                    self._next()
                    continue
                self._declaration()
        first = self._expect("begin")
        # Whether its statements are guarded is known only at its end; the places read meanwhile are then replaced.
        position = len(self.places)
        self._place("block", start, first, first.end, guarded)
        if self._statements("end", "exception", guarded=guarded) == "exception":
            self.places[position + 1 :] = [
                _Place(p.kind, p.start, p.line, p.head, True, p.conditions) for p in self.places[position + 1 :]
            ]
            self._next()
            while self._word() == "when":
                self._next()
                self.handlers.append(self._until("then").end)
                self._statements("when", "end", guarded=guarded)
        self._expect("end")
        if self.at < len(self.tokens):
            self._until(";")

    def _declaration(self) -> None:
        first = self.at
        start = self._next()
        is_cursor = False
        expression = None
        depth = 0
        while True:
            token = self._next()
            if token.word == ";" and depth == 0:
                break
            depth += (token.word in _OPENING) - (token.word in _CLOSING)
            is_cursor |= token.word == "cursor"
            if depth == 0 and expression is None and token.word in (":=", "=", "default"):
                expression = token.end
        if expression is not None and not is_cursor and self.tokens[first + 1].word != "alias":
            text = self.body[start.start : token.start]
            self.declarations.append(
                _Declaration(start.start, self._line(start.start), self.body[expression : token.start], text)
            )

    def _if(self, start: int, guarded: bool) -> None:
        first = self._next()
        then = self._until("then")
        position = len(self.places)
        self._place("if", start, first, then.end, guarded)
        conditions = []
        while True:
            end = self._statements("elsif", "elseif", "else", "end", guarded=guarded)
            token = self._next()
            if end in ("elsif", "elseif"):
                conditions.append((token.start, self._until("then").start))
            elif end == "end":
                break
        self._expect("if")
        self._until(";")
        place = self.places[position]
        self.places[position] = _Place("if", start, place.line, place.head, guarded, tuple(conditions))

    def _case(self, start: int, guarded: bool) -> None:
        first = self._next()
        searched = self._word() == "when"
        if not searched:
            self._until("when")
            self.at -= 1
        position = len(self.places)
        conditions = []
        head_end = None
        while True:
            token = self._next()
            if token.word == "when":
                then = self._until("then")
                if head_end is None:
                    head_end = then.end
                    self._place("case", start, first, head_end, guarded)
                elif searched:
                    conditions.append((token.start, then.start))
            elif token.word == "end":
                break
            elif token.word != "else":
                raise UnsplittableError(f"line {self._line(token.start)} has {token.word!r} in a CASE statement")
            self._statements("when", "else", "end", guarded=guarded)
        self._expect("case")
        self._until(";")
        place = self.places[position]
        self.places[position] = _Place("case", start, place.line, place.head, guarded, tuple(conditions))

    def _loop(self, word: str, start: int, guarded: bool) -> None:
        first = self._next()
        head_end = first.end if word == "loop" else self._until("loop").end
        self._place(word, start, first, head_end, guarded)
        self._statements("end", guarded=guarded)
        self._expect("end")
        self._expect("loop")
        self._until(";")


_KINDS = {
    "PLpgSQL_stmt_block": "block",
    "PLpgSQL_stmt_if": "if",
    "PLpgSQL_stmt_case": "case",
    "PLpgSQL_stmt_loop": "loop",
    "PLpgSQL_stmt_while": "while",
    "PLpgSQL_stmt_foreach_a": "foreach",
    "PLpgSQL_stmt_fori": "for",
    "PLpgSQL_stmt_fors": "for",
    "PLpgSQL_stmt_forc": "for",
    "PLpgSQL_stmt_dynfors": "for",
}
_BODIES = frozenset(
    {"body", "then_body", "else_body", "elsif_list", "case_when_list", "else_stmts", "stmts", "exceptions", "action"}
)
"""Keys of a statement's tree under which other statements, or conditions tried later, are found."""
_ONCE_MORE = {"PLpgSQL_if_elsif": "cond", "PLpgSQL_case_when": "expr"}


@dataclass(frozen=True, slots=True)
class _Node:
    """A statement, as the parser shows it."""

    type: str
    fields: dict[str, Any]

    @property
    def kind(self) -> str:
        return _KINDS.get(self.type, "simple")


def _parsed(definition: str) -> Any:
    try:
        return parse_plpgsql(definition)[0]["PLpgSQL_function"]
    except (ParseError, KeyError, IndexError) as error:
        raise UnsplittableError(f"its body could not be parsed ({error})") from error


def _statement_nodes(tree: Any) -> Iterator[_Node]:
    """Every statement with a line, in the order of the source; those without one are the parser's own."""
    if isinstance(tree, list):
        for item in tree:
            yield from _statement_nodes(item)
    elif isinstance(tree, dict):
        for key, value in tree.items():
            if key.startswith("PLpgSQL_stmt_") and "lineno" in value:
                yield _Node(key, value)
            yield from _statement_nodes(value)


def _declared_and_statements(function: Any) -> Iterator[_Node]:
    for datum in function.get("datums", ()):
        for value in datum.values():
            if "default_val" in value or "cursor_explicit_expr" in value:
                yield _Node("PLpgSQL_declaration", value)
    for statement in _statement_nodes(function["action"]):
        yield statement
        for condition in _later_conditions(statement):
            yield _Node("PLpgSQL_condition", condition)


def _later_conditions(statement: _Node) -> list[dict[str, Any]]:
    """The conditions of an IF or a CASE after its first, each as a node of its own."""
    found = [
        {_ONCE_MORE[kind]: value[_ONCE_MORE[kind]]}
        for key in ("elsif_list", "case_when_list")
        for item in statement.fields.get(key, ())
        for kind, value in item.items()
    ]
    return found[1:] if statement.kind == "case" else found


def _expressions(tree: Any, *, top: bool = True) -> Iterator[tuple[str, str, int]]:
    """The SQL in one statement, without that of the statements inside it: (field, text, parse mode)."""
    if isinstance(tree, list):
        for item in tree:
            yield from _expressions(item)
    elif isinstance(tree, dict):
        for key, value in tree.items():
            if isinstance(value, dict) and "PLpgSQL_expr" in value:
                expression = value["PLpgSQL_expr"]
                yield key, expression["query"], expression.get("parseMode", 0)
            elif key == "PLpgSQL_expr":
                yield key, value["query"], value.get("parseMode", 0)
            elif key not in _BODIES or not top:
                yield from _expressions(value)


_DYNAMIC = {"PLpgSQL_stmt_dynexecute": "query", "PLpgSQL_stmt_dynfors": "query"}
_CURSOR_USES = frozenset({"PLpgSQL_stmt_open", "PLpgSQL_stmt_fetch", "PLpgSQL_stmt_forc", "PLpgSQL_stmt_close"})


def _touched(node: _Node, cursors: Touched) -> Touched:
    """What one statement touches by itself; `cursors` is what the function's declared cursors read."""
    total = Touched()
    for field, text, mode in _expressions(node.fields):
        if field == "dynquery" or _DYNAMIC.get(node.type) == field:
            total |= _of_dynamic(text)
        elif mode == 0:
            total |= access.of_statement(text)
        elif mode == 2:
            total |= access.of_expression(text)
        else:
            total |= access.of_expression(re.split(r":?=", text, maxsplit=1)[1])
    if node.kind == "case":
        for kind, value in node.fields["case_when_list"][0].items():
            total |= access.of_expression(value[_ONCE_MORE[kind]]["PLpgSQL_expr"]["query"])
    if node.type in _CURSOR_USES:
        total |= cursors
    return total


def _of_dynamic(expression: str) -> Touched:
    """EXECUTE of a constant text is as good as the text; of anything else, nothing is known."""
    try:
        tokens = [token for token in scan(expression) if token.name not in _COMMENTS]
        if len(tokens) == 1 and tokens[0].name == "SCONST":
            statement: Any = parse_sql(f"SELECT {expression}")[0].stmt
            return access.of_statement(statement.targetList[0].val.val.sval)
    except ParseError:
        pass
    return Touched(everything=True)


def _collapsed(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


class _Plpgsql:
    """The two views of one PL/pgSQL body, matched, and the insertions that follow."""

    def __init__(self, definition: str, body: str, first: int, functions: Set[str]) -> None:
        self.body = body
        self.first = first
        self.functions = functions
        self.tree = _parsed(definition)
        self.steps: list[Found] = []
        self.insertions: list[tuple[int, str, int]] = []
        """(position, text, how much of the body it takes the place of)."""
        self.remarks: list[str] = []

    def split(self) -> Split:
        walk = _Walk(self.body)
        nodes = list(_statement_nodes(self.tree["action"]))
        seen = [(place.kind, place.line) for place in walk.places]
        told = [(node.kind, node.fields["lineno"]) for node in nodes]
        if seen != told:
            differing = (a[1] for a, b in zip_longest(seen, told, fillvalue=("", 0)) if a != b)
            line = next(differing)
            raise UnsplittableError(f"its statements could not be told apart at line {line}")
        cursors = Touched()
        for datum in self.tree.get("datums", ()):
            for value in datum.values():
                if "cursor_explicit_expr" in value:
                    cursors |= access.of_statement(value["cursor_explicit_expr"]["PLpgSQL_expr"]["query"])
        for declaration in walk.declarations:
            self._declaration(declaration)
        for place, node in zip(walk.places, nodes, strict=True):
            self._statement(place, node, cursors)
        for handler in walk.handlers:
            self._insert(handler, f" IF {TURNSTILE_SCHEMA}.caught(SQLSTATE) THEN END IF;")
        total = Touched()
        for found in self.steps:
            total |= found.touched
        return Split(self._rewritten(), tuple(self.steps), total, tuple(self.remarks))

    def _rewritten(self) -> str:
        pieces, done = [], 0
        for position, text, replaced in sorted(self.insertions, key=lambda insertion: insertion[0]):
            pieces += [self.body[done:position], text]
            done = position + replaced
        return "".join(pieces) + self.body[done:]

    def _insert(self, position: int, text: str, replaced: int = 0) -> None:
        self.insertions.append((position, text, replaced))

    def _step(self, line: int, text: str, touched: Touched, guarded: bool) -> str:
        """Add a step and give its turnstile."""
        self.steps.append(Found(line, _collapsed(text), touched, guarded))
        return _turnstile(self.first + len(self.steps) - 1)

    def _declaration(self, declaration: _Declaration) -> None:
        touched = access.of_expression(declaration.expression)
        if touched.matters(self.functions):
            turnstile = self._step(declaration.line, declaration.text, touched, guarded=False)
            name = f"harness_turnstile_{self.first + len(self.steps) - 1}"
            self._insert(declaration.start, f"{name} boolean := {turnstile}; ")

    def _statement(self, place: _Place, node: _Node, cursors: Touched) -> None:
        touched = _touched(node, cursors)
        head = self.body[place.head[0] : place.head[1]]
        if touched.everything and node.type != "PLpgSQL_stmt_commit":
            self.remarks.append(f"line {place.line}: {_collapsed(head)[:80]}: what it touches is not known beforehand")
        if touched.matters(self.functions):
            turnstile = self._step(place.line, head, touched, place.guarded)
            if place.kind == "while":
                self._while(place, turnstile)
            else:
                self._insert(place.start, f"IF {turnstile} THEN END IF; ")
        later = _later_conditions(node)
        if place.kind == "case" and not place.conditions:
            for condition in later:
                if _touched(_Node("PLpgSQL_condition", condition), cursors).matters(self.functions):
                    self.remarks.append(f"line {place.line}: the values of a CASE are compared in one step")
                    break
            return
        for (start, end), condition in zip(place.conditions, later, strict=True):
            touched = _touched(_Node("PLpgSQL_condition", condition), cursors)
            if touched.matters(self.functions):
                text = self.body[start:end]
                word = text.split(maxsplit=1)[0]
                line = self.body.count("\n", 0, start) + 1
                self._insert(start, f"{word} {self._step(line, text, touched, place.guarded)} THEN ")

    def _while(self, place: _Place, turnstile: str) -> None:
        """The condition of a WHILE is evaluated before every pass, so it moves into the loop."""
        start, end = place.head
        self._insert(start, f"LOOP IF {turnstile} THEN END IF; IF ", len("while"))
        self._insert(end - len("loop"), "THEN ELSE EXIT; END IF;", len("loop"))
