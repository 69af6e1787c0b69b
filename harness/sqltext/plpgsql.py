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
from collections.abc import Set
from dataclasses import dataclass

from pglast import parse_sql
from pglast.parser import ParseError, scan

from harness.sqltext import access
from harness.sqltext.access import Touched
from harness.sqltext.walk import COMMENTS, Declaration, Place, UnsplittableError, Walk

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
            return Walk(body).touched()
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
        tokens = [token for token in scan(text) if token.name not in COMMENTS]
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
        walk = Walk(self.body)
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

    def _declaration(self, declaration: Declaration) -> None:
        if declaration.touched.matters(self.functions):
            turnstile = self._step(declaration.line, declaration.text, declaration.touched, guarded=False)
            name = f"harness_turnstile_{self.first + len(self.steps) - 1}"
            self._insert(declaration.start, f"{name} boolean := {turnstile}; ")

    def _statement(self, place: Place) -> None:
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

    def _while(self, place: Place, turnstile: str) -> None:
        """The condition of a WHILE is evaluated before every pass, so it moves into the loop."""
        start, end = place.head
        self._insert(start, f"LOOP IF {turnstile} THEN END IF; IF ", len("while"))
        self._insert(end - len("loop"), "THEN ELSE EXIT; END IF;", len("loop"))
