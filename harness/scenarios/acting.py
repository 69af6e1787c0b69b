"""Sessions as they act: each on its own connection, statement by statement, as psql would send them.

What an actor does is a generator of the texts that it sends; each is given the server's answer. So one actor can be
driven to its end, for a serial run, and several side by side, for a race.
"""

from __future__ import annotations

import random
import re
import select
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from typing import Any

import pglast
import psycopg
from pglast import ast
from pglast.parser import ParseError
from psycopg import pq
from psycopg.pq import ConnStatus, DiagnosticField, ExecStatus, TransactionStatus

from harness.environment.identity import Identity, IdentityStatements
from harness.errors import HarnessError, UsageError
from harness.scenarios.scenario import Session
from harness.scenarios.variables import substituted, substituted_by_any
from harness.sqltext.scripts import Statement
from harness.verdict.observed import Answer

Play = Generator[str, list[pq.abc.PGresult], None]

_BEGINS = re.compile(r"(?:begin|start\s+transaction)\b", re.IGNORECASE)
_ENDS = re.compile(r"(?:commit|end|abort|rollback(?!\s+(?:work\s+|transaction\s+)?to\b)|prepare\s+transaction)\b", re.I)
OWN_LEVEL = re.compile(r"\bisolation\s+level\b|\b(?:default_)?transaction_isolation\b", re.IGNORECASE)
"""A session that chooses its isolation level itself."""
_NOT_IN_BLOCK = re.compile(
    r"(?:vacuum|create\s+(?:unique\s+)?index\s+concurrently|drop\s+index\s+concurrently|reindex\b.*\bconcurrently"
    r"|create\s+database|drop\s+database|alter\s+system|call|do)\b",
    re.IGNORECASE | re.DOTALL,
)
_LINGERS = (
    "CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; DEALLOCATE ALL; UNLISTEN *; "
    "SELECT pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES"
)
"""What a session leaves in its backend, which is used again. (DISCARD ALL would throw plans away, too.)"""


def transactions(session: Session) -> tuple[int, ...]:
    """How many statements each transaction of a session has; one outside of BEGIN is a transaction of its own."""
    return _transactions(session)[0]


def ends_open(session: Session) -> bool:
    """Whether a session's last transaction is neither committed nor rolled back."""
    return _transactions(session)[1]


def _transactions(session: Session) -> tuple[tuple[int, ...], bool]:
    lengths: list[int] = []
    inside = False
    for statement in session.statements:
        if inside:
            lengths[-1] += 1
        else:
            lengths.append(1)
        if _BEGINS.match(statement.text):
            inside = True
        elif _ENDS.match(statement.text):
            inside = False
    return tuple(lengths), inside


def orders_rows(text: str) -> bool:
    """Whether a statement says in which order its rows come, by something that the rows do not show."""
    try:
        [raw] = pglast.parse_sql(text)
    except (ParseError, ValueError):
        return False
    query: Any = raw.stmt
    if not isinstance(query, ast.SelectStmt) or not query.sortClause:
        return False
    targets: Any = query.targetList or ()
    keys: Any = query.sortClause
    shown = {name for target in targets for name in (_column(target.val), target.name) if name}
    # A constant is the number of a column that is shown.
    return not all(isinstance(k.node, ast.A_Const) or "*" in shown or _column(k.node) in shown for k in keys)


def _column(node: Any) -> str | None:
    """The name of a column that an expression is, `*` for all of them; None for anything else."""
    if not isinstance(node, ast.ColumnRef):
        return None
    fields: Any = node.fields
    return "*" if isinstance(fields[-1], ast.A_Star) else str(fields[-1].sval)


class Actor:
    """One session on a connection that is used for one run after another."""

    def __init__(self, session: Session, connect: Callable[[], psycopg.Connection[Any]]) -> None:
        self.session = session
        self._connect = connect
        self._connection: psycopg.Connection[Any] | None = None
        self.identity: IdentityStatements | None = None
        """The SQL of its role, claims and isolation level; None where it has none of its own."""
        self.answers: list[Answer] = []
        self.used_up = False
        """Its retries did not suffice."""
        self.repeated = 0
        """How often it ran something again."""
        self._variables: dict[str, str] = {}
        self.ordered = [orders_rows(substituted_by_any(s.text)) for s in session.statements]
        self._stopped = False

    @property
    def pgconn(self) -> pq.abc.PGconn:
        """The connection as libpq has it."""
        assert self._connection is not None
        return self._connection.pgconn

    @property
    def lost(self) -> bool:
        """Its connection has ended, or was never there."""
        return self._connection is None or self._connection.pgconn.status != ConnStatus.OK

    def begin(self) -> None:
        """Forget the last run; connect, where the connection is not there or was lost."""
        if self.lost:
            self.close()
            self._connection = connection = self._connect()
            wanted = replace(self.session.identity, isolation=self.session.isolation or None)
            if wanted != Identity() and self.identity is None:
                try:
                    self.identity = wanted.statements(connection)
                except HarnessError as error:
                    where = f"{self.session.statements[0].path}:{self.session.identity_line or self.session.line}"
                    raise UsageError(f"{where}: {error.what}", tried=error.tried, next_step=error.next_step) from error
        self.answers = []
        self.used_up = self._stopped = False
        self.repeated = 0
        self._variables = dict(self.session.variables)

    def end(self) -> None:
        """Leave nothing in the backend that the next run could see. An open transaction is rolled back."""
        if self.lost:
            return
        pgconn = self.pgconn
        try:
            if pgconn.transaction_status != TransactionStatus.IDLE:
                pgconn.exec_(b"ROLLBACK")
            if pgconn.exec_(_LINGERS.encode()).status == ExecStatus.FATAL_ERROR:
                self.close()
        except psycopg.OperationalError:  # it is lost, and the next run has another
            self.close()

    def close(self) -> None:
        """Close the connection, where there is one."""
        if self._connection is not None:
            self._connection.close()

    def play(self, start: int = 0, stop: int | None = None) -> Play:
        """Send the statements from `start` to before `stop`, keeping the answers."""
        statements = self.session.statements[start:stop]
        retry = self.session.retry
        first = len(self.answers)
        block = 0  # where the transaction that is open, or comes next, began
        at = tries = 0
        while at < len(statements) and not self._stopped:
            outside = self._idle()
            if outside:
                block = at
            answer = yield from self._one(statements[at], self.ordered[start + at], outside=outside)
            self.answers.append(answer)
            if self.lost:
                self._stopped = True
                return
            if answer.code is not None and retry is not None and answer.code in retry.codes:
                if tries < retry.times:
                    tries += 1
                    self.repeated += 1
                    if not self._idle():
                        yield "ROLLBACK"
                    yield f"SELECT pg_sleep({random.uniform(0, 0.004 * tries):.4f})"  # noqa: S311 - a pause
                    at = 0 if retry.session else block
                    del self.answers[first + at :]
                    continue
                self.used_up = True
            if answer.code is not None and self.session.stop_on_error:
                self._stopped = True
                return
            at += 1
            if self._idle() and not (retry is not None and retry.session):
                tries = 0

    def _idle(self) -> bool:
        return self.pgconn.transaction_status == TransactionStatus.IDLE

    def _one(
        self, statement: Statement, ordered: bool, *, outside: bool
    ) -> Generator[str, list[pq.abc.PGresult], Answer]:
        text = substituted(statement.text, self._variables)
        identity = self.identity
        if identity is None or not outside:
            results = yield text
        elif _BEGINS.match(text):
            level = "" if OWN_LEVEL.search(text) else identity.set_transaction
            results = yield text
            if more := "; ".join(each for each in (level, identity.local) if each):
                yield more
        elif _NOT_IN_BLOCK.match(text):
            if identity.session:
                yield identity.session
            results = yield text
            if identity.reset:
                yield identity.reset
        else:
            yield identity.begin
            results = yield text
            ended = yield ("COMMIT" if results and results[-1].status != ExecStatus.FATAL_ERROR else "ROLLBACK")
            if ended and ended[-1].status == ExecStatus.FATAL_ERROR:
                results = ended  # a deferred constraint, a serialization failure: it is this statement's
        answer = read_answer(results, ordered)
        if answer.code is None:
            keep(self._variables, statement.then, answer.columns, answer.rows)
        return answer


def keep(variables: dict[str, str], then: str, columns: Sequence[str], rows: Sequence[tuple[str | None, ...]]) -> None:
    """What `\\gset` does with an answer of one row: a variable for each column, none for NULL."""
    if not then.startswith("gset") or len(rows) != 1:
        return
    prefix = then.removeprefix("gset").strip()
    for name, value in zip(columns, rows[0], strict=True):
        if value is None:
            variables.pop(prefix + name, None)
        else:
            variables[prefix + name] = value


def read_answer(results: Sequence[pq.abc.PGresult], ordered: bool) -> Answer:
    """What a session saw of one statement."""
    if not results:
        return Answer(code="08006", message="the connection was lost")
    result = results[-1]
    if result.status == ExecStatus.TUPLES_OK:
        columns = range(result.nfields)
        return Answer(
            tuple((result.fname(c) or b"").decode() for c in columns),
            tuple(result.ftype(c) for c in columns),
            tuple(
                tuple(None if (v := result.get_value(row, c)) is None else v.decode(errors="replace") for c in columns)
                for row in range(result.ntuples)
            ),
            (result.command_status or b"").decode(),
            ordered=ordered,
        )
    if result.status in (ExecStatus.COMMAND_OK, ExecStatus.EMPTY_QUERY):
        return Answer(command=(result.command_status or b"").decode())
    code = result.error_field(DiagnosticField.SQLSTATE) or b"08006"
    message = result.error_field(DiagnosticField.MESSAGE_PRIMARY) or b"the connection was lost"
    return Answer(code=code.decode(), message=message.decode(errors="replace"))


class Driver:
    """Drives actors' plays on one thread: all that are given go on side by side until the last has ended."""

    def __init__(self, timeout: float, cancel: Callable[[int], None], blockers: Callable[[int], str]) -> None:
        """`timeout` is in seconds, for a statement; `cancel` ends a backend's; `blockers` says whom it waits for."""
        self._timeout = timeout
        self._cancel = cancel
        self._blockers = blockers
        self.hung: dict[int, str] = {}
        """Of the last plays, by place: those that did not end in time, and whom they waited for."""
        self.first_answer: dict[int, float] = {}
        """When the first answer had come, by this machine's clock."""
        self.last_sent: dict[int, float] = {}
        """When the last statement was sent."""

    def drive(
        self,
        plays: Sequence[tuple[Actor, Play]],
        pauses: Sequence[float] = (),
        gate: Callable[[Sequence[int]], bool] | None = None,
    ) -> None:
        """Send the first statement of each one right after another, each after its pause (in seconds); then go on.

        `gate` is asked, with the backends that have not answered, whether it has opened; until then it is asked again
        whenever nothing comes.
        """
        self.hung, self.first_answer, self.last_sent = {}, {}, {}
        poll = select.poll()
        by_socket: dict[int, int] = {}
        got: dict[int, list[pq.abc.PGresult]] = {}
        for place, (actor, play) in enumerate(plays):
            text = next(play, None)
            if text is None:
                continue
            if pauses and pauses[place]:
                _spin(pauses[place])
            by_socket[actor.pgconn.socket] = place
            poll.register(actor.pgconn.socket, select.POLLIN)
            got[place] = []
            self._send(place, actor, text)
        deadline = time.monotonic() + self._timeout
        ended: list[Actor] = []
        while got:
            ready = poll.poll(50 if gate is None else 1)
            if gate is not None and not ready and gate([plays[place][0].pgconn.backend_pid for place in got]):
                gate = None
            if not ready and gate is None:
                # A session's connection ends with it: what it still holds must not keep the others waiting.
                while ended:
                    ended.pop().end()
            for socket, _ in ready:
                place = by_socket[socket]
                actor, play = plays[place]
                if not _heard(actor.pgconn, got[place]):
                    continue
                deadline = time.monotonic() + self._timeout
                self.first_answer.setdefault(place, time.monotonic())
                results, got[place] = got[place], []
                try:
                    text = play.send(results)
                    while actor.lost:  # nobody is there to send it to
                        text = play.send([])
                except StopIteration:
                    poll.unregister(socket)
                    del got[place]
                    ended.append(actor)
                else:
                    self._send(place, actor, text)
            if time.monotonic() > deadline:
                for place in got:
                    self.hung.setdefault(place, self._blockers(plays[place][0].pgconn.backend_pid))
                for place in got:
                    self._cancel(plays[place][0].pgconn.backend_pid)
                deadline = time.monotonic() + self._timeout

    def _send(self, place: int, actor: Actor, text: str) -> None:
        self.last_sent[place] = time.monotonic()
        actor.pgconn.send_query(text.encode())


def _heard(pgconn: pq.abc.PGconn, got: list[pq.abc.PGresult]) -> bool:
    """Take in what came; whether a statement has ended with it."""
    try:
        pgconn.consume_input()
        while not pgconn.is_busy():
            result = pgconn.get_result()
            if result is None:
                return True
            if result.status in (ExecStatus.COPY_IN, ExecStatus.COPY_OUT):
                raise UsageError(
                    "A session copies from or to its client, which nobody is.",
                    next_step="write INSERT statements, or SELECT",
                )
            got.append(result)
    except psycopg.OperationalError:
        return True  # the connection is lost
    return False


def _spin(seconds: float) -> None:
    """Wait for less than a sleep could be trusted with."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass
