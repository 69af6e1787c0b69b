"""The engine of contracts: every case, schedule by schedule, judged by the contract that judges a run.

A case is one argument variant, with all calls on one fresh key, or taking turns on two. A call is a session of one
statement. All schedules are carried out first and judged together afterwards: keys are fresh, so nothing of one
schedule is seen by another.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any

from psycopg.pq import DiagnosticField, ExecStatus

from harness.contracts.contract import Contract, Effect, Operation, readable
from harness.contracts.invariants import Invariant
from harness.environment.servers import connect
from harness.errors import UsageError
from harness.history import NEVER
from harness.schedules import cases, judging
from harness.schedules.carried import Carried
from harness.schedules.cases import Setting
from harness.schedules.connections import Prepared, Together
from harness.schedules.narrate import narrate
from harness.schedules.plan import MOST_CALLS, SEARCHES, Plan
from harness.schedules.program import Program, Query, call, call_alone, ends_transactions
from harness.schedules.result import Case, Exploration, Schedule, more_than
from harness.schedules.search import Asked, Run, Search, in_turn, scheduler_for
from harness.schedules.sessions import (
    LEVELS,
    NOT_COVERED,
    NOT_DURABLE,
    Opened,
    Reserve,
    exceeding,
    own_findings,
    strongest,
    unsplit,
)
from harness.schedules.standing import Ending
from harness.schedules.trace import FATAL, Choice, Kind
from harness.schedules.watch import Rows, read, renamed, watched, with_rows, written
from harness.targets import conditions
from harness.targets.codec import Codec, Reader
from harness.targets.keys import new_keys
from harness.targets.sql import SqlTarget
from harness.targets.sql_caller import Route

__all__ = ["MOST_CALLS", "SEARCHES", "Plan", "explore"]

_KEYS_AT_ONCE, _MOST_KEYS_AT_ONCE = 256, 1024

_BESIDE = 4
"""Connections of the explorer: to where the operations are kept, to make keys, to ask the invariants twice."""

_FIRST_CALLS = "what only the first calls ever make, such as a table: all schedules but the first find it made"

_PATIENCE = 2000
"""Milliseconds that a call beside a schedule waits for a lock."""

_SAY_EVERY = 0.1
"""Seconds between two times that it is said how far the exploration has come."""

_BEYOND = 1.0
"""Seconds for one call more than was asked for: so many, or as many as it took to try what was."""

_POSITION = 1_000_000
"""One position of a schedule in the operations' times, which are in nanoseconds."""


@dataclass
class _Case:
    """A case, and how far it has come."""

    setting: Setting
    search: Search
    outcomes: Counter[str] = field(default_factory=Counter)
    ahead: dict[str, str] = field(default_factory=dict)
    """How those ended that were carried out ahead of the search."""

    @property
    def of_the_search(self) -> Counter[str]:
        """The outcomes without those: who goes on with it carries them out again."""
        return self.outcomes - Counter(map(self.ahead.__getitem__, self.search.ahead))


@dataclass(frozen=True, slots=True)
class _Keys:
    """What the calls of a schedule are on."""

    keys: Sequence[Hashable]
    before: tuple[Operation, ...]
    """The calls that they had before it."""
    arguments: Sequence[Mapping[str, Any]]
    """Of each call."""


@dataclass(frozen=True, slots=True)
class _Made:
    """What a call of a case sends, whatever the key."""

    arguments: Mapping[str, Any]
    encoded: Sequence[bytes | None]
    codec: Codec
    program: Program


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an exploration has come."""

    cases: int
    done: int
    """Cases that are done."""
    schedules: int
    found: tuple[str, ...]
    """Claims that were seen broken so far, of those that are judged by the calls alone."""


def explore(
    dsn: str,
    contract: Contract,
    plan: Plan,
    invariants: Sequence[Invariant] = (),
    *,
    earlier: Exploration | None = None,
    said: Callable[[Progress], object] = lambda _: None,
    together: Together | None = None,
) -> Exploration:
    """Explore the contract's function in a scratch database, whose copy of the function is rewritten in place.

    `invariants` are judged on the database that the schedules leave. With an `earlier` exploration by the same plan,
    which did not come to its end, it goes on where that one stood, and what is given is of both. `said` is told how far
    it has come, `together` the backends of its sessions. A signal that ends it leaves what was tried by then. Raises
    UsageError for a plan or a function that cannot be explored, HarnessError when the database cannot be used.
    """
    if plan.replay is not None:
        plan, settings, choices = cases.of_replay(plan, contract)
    else:
        settings, choices = cases.every(plan, contract), ()
    plan.check()
    contract = conditions.at_once(contract, partial(connect, dsn))
    most = max(setting.at_once(plan) for setting in settings)
    with Reserve(dsn, most + Opened.NEEDED + _BESIDE, together) as reserve:
        explorer = _Explorer(dsn, reserve, contract, plan, choices, invariants, most)
        explorer.said = said
        try:
            if earlier is not None:
                explorer.go_on_after(earlier)
            return explorer.explored(settings)
        finally:
            explorer.close()


def cases_of(plan: Plan, contract: Contract) -> tuple[tuple[str, int], ...]:
    """The cases of an exploration: what goes before a colon in their replay texts, and how much there is in each."""
    return tuple((each.prefix(), 4 if each.keys > 1 else 1) for each in cases.every(plan, contract) if not each.beyond)


class _Explorer:
    """One exploration, over its own connections."""

    def __init__(
        self,
        dsn: str,
        reserve: Reserve,
        contract: Contract,
        plan: Plan,
        choices: tuple[Choice, ...],
        invariants: Sequence[Invariant],
        most: int,
    ) -> None:
        """`most`: the calls that may be under way at once."""
        self._started = time.monotonic()
        self._contract = contract
        self._plan = plan
        self._choices = choices
        self._target = SqlTarget(dsn, contract)
        self._fresh: list[Hashable] = []
        self._missing: list[Hashable] = []
        self._next_keys = _KEYS_AT_ONCE
        self._first: Carried | None = None
        """The schedule that was carried out first."""
        self._found: list[_Case] = []
        self._interrupted = False
        self._remarks: list[str] = []
        """Cases that were left out, or not judged in full, and why."""
        self._earlier: dict[str, dict[str, Any]] = {}
        """By prefix, where the cases of an earlier exploration stood."""
        self.said: Callable[[Progress], object] = lambda _: None
        self._last_said = 0.0
        called = [self._target.calls(variant, most) for variant in range(len(contract.variants))]
        self._routes = list({route.plain: route for routes in called for route in routes}.values())
        self._readers = {
            r.plain: Reader(contract, r.codec, self._target.evidence_names, overlap=False) for r in self._routes
        }
        self._evidence = [
            (name, self._target.evidence_decoder(column)) for column, name in enumerate(self._target.evidence_names)
        ]
        texts = [route.description.statement.decode() for route in self._routes]
        prepared = [Prepared(r.plain, r.description.statement, r.codec.parameter_oids) for r in self._routes]
        self._opened = Opened(reserve, texts, most, plan, prepared=prepared)
        self._connection = self._opened.connection
        self._opened.controller.books.level = strongest([self._isolation()])
        self._begins = [self._begin(number) for number in range(most)]
        # A call beside a schedule must end as well, and what is locked before it will stay so.
        self._connection.execute(f"SET statement_timeout = {math.ceil(plan.schedule_seconds * 1000)}".encode())
        self._connection.execute(f"SET lock_timeout = {_PATIENCE}".encode())
        self._judge = judging.Judge(contract, invariants, self._opened.connect(), self._opened.connect)
        self._judge.connection.execute(NOT_DURABLE)
        self._seed = self._opened.connect()
        """Of its own: what a session of it keeps is given up for each call."""
        self._rewritten = self._opened.rewritten
        self._accesses = dict(zip((route.plain for route in self._routes), self._rewritten.texts, strict=True))
        commits_inside = self._rewritten.commits_inside
        self._ending = {
            r.plain for r in self._routes if ends_transactions(r.description.statement.decode(), commits_inside)
        }
        """Calls that cannot be in a transaction, as of a procedure that commits."""
        self._calls_of = cache(self._target.calls)
        self._made: dict[tuple[Setting, int], _Made] = {}
        """What each call of a case sent the last time."""

    def close(self) -> None:
        self._judge.connection.close()
        self._seed.close()
        self._opened.close()

    def explored(self, settings: Sequence[Setting]) -> Exploration:
        deadline = time.monotonic() + self._plan.seconds
        asked = [setting for setting in settings if self._choices or not setting.beyond]
        beyond = [setting for setting in settings if setting not in asked]
        try:
            asked = [setting for setting in asked if self._choices or self._can_be_tried(setting)]
            begun = time.monotonic()
            cases = self._begun(asked)
            self._in_turn(cases, deadline)
            took = time.monotonic() - begun
            if beyond and all(case.search.exhausted for case in cases) and self._judge.holds():
                self._in_turn(self._begun(beyond), min(deadline, time.monotonic() + max(took, _BEYOND)))
                self._in_turn(cases, deadline)  # a step may have been seen to touch more than it was taken to
        except KeyboardInterrupt:  # what was tried by now is judged; whoever asked ends the run then
            self._interrupted = True
            self._opened.controller.reset()
        searches = [case.search for case in self._found if case.setting in asked]
        by_setting = {case.setting: case for case in self._found}

        def again(setting: Setting, choices: Sequence[Choice], races: bool) -> Carried | None:
            run = by_setting[setting].search.again(choices, races=races)
            if run is None:
                return None
            carried = self._as_carried(setting, run, probing=True)
            self._judge.beside(carried.judged)
            return carried

        told = tuple(self._told(case) for case in self._found if case.search.begun)
        findings, broken = self._judge.judged(again)
        what = f"{self._plan.calls} calls"
        replay = bool(self._choices)
        undecided = unsplit(self._rewritten, self._opened.controller)
        findings += own_findings(searches, self._plan, undecided, what, replay=replay)
        schedules = {name: self._narrated(carried) for name, carried in broken.items()}
        return Exploration(
            function=self._contract.function.name,
            calls=self._plan.calls,
            search="replay" if self._choices else self._plan.search,
            steps=tuple(f"{step.function}:{step.line}: {step.text}" for step in self._rewritten.steps),
            cases=told,
            findings=judging.explained(findings, {n: s.replay for n, s in schedules.items()}, self._plan.command),
            broken=schedules,
            replayed=self._narrated(self._first) if self._choices and self._first is not None else None,
            not_covered=self._not_covered(),
            seconds=time.monotonic() - self._started,
            seed=self._plan.seed if self._plan.search != "exhaustive" else None,
            timeouts=tuple(timeout for search in searches for timeout in search.timeouts),
            unfinished=self._unfinished(asked),
            interrupted=self._interrupted,
        )

    def go_on_after(self, earlier: Exploration) -> None:
        """Take over where an earlier exploration stood. Raises UsageError when that was of something else."""
        steps = tuple(f"{step.function}:{step.line}: {step.text}" for step in self._rewritten.steps)
        try:
            if earlier.steps != steps or earlier.calls != self._plan.calls:
                raise ValueError("its steps are others")
            self._earlier = {prefix: dict(saved) for prefix, saved in earlier.unfinished.items()}
            for saved in self._earlier.values():
                self._opened.controller.known.know(saved["known"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UsageError(
                "The exploration of that record cannot be gone on with.",
                tried=f"finding where it stood: {error}",
                next_step="explore anew: the function, the calls or the harness are not those of the record",
            ) from error

    def _unfinished(self, asked: Sequence[Setting]) -> dict[str, Any]:
        """What it takes to go on; nothing where all was tried, or where that cannot be."""
        begun = [case for case in self._found if case.search.begun and not case.setting.beyond]
        saved = {case.setting.prefix(): case.search.saved() for case in begun}
        whole = len(saved) == len(asked) and all(case.search.exhausted for case in begun)
        if None in saved.values() or self._choices or (whole and self._plan.cases is None):
            return {}
        known = self._opened.controller.known.plain()
        return {
            case.setting.prefix(): {
                "exhausted": case.search.exhausted,
                "runs": 0 if case.search.outdated else case.search.runs,
                "outcomes": {} if case.search.outdated else dict(case.of_the_search),
                "search": saved[case.setting.prefix()],
                "known": known,
            }
            for case in begun
        }

    def _told(self, case: _Case) -> Case:
        share, left = case.search.gone_through()
        return Case(
            case.setting.named(self._contract),
            case.setting.keys,
            case.search.carried_out,
            case.search.before_reduction,
            case.search.exhausted,
            dict(case.outcomes),
            share,
            left,
            case.setting.at_once(self._plan),
        )

    def _narrated(self, carried: Carried) -> Schedule:
        labels = [unit.label for unit in self._sent(carried.setting, 0).program.units]
        schedule = narrate(carried, self._contract, self._rewritten, labels, self._connection)
        rows = self._rows(carried)
        return schedule if rows is None else replace(schedule, moves=with_rows(schedule.moves, rows))

    def _rows(self, carried: Carried) -> tuple[Rows, ...] | None:
        """The rows that everybody sees after each step, from a repetition on fresh keys that are called by the old."""
        asked = self._ready(carried.setting)
        keys = asked.of.keys
        names = {str(keys[n % len(keys)]): str(o.key) for n, o in enumerate(carried.operations[: carried.calls])}
        tables = written(self._rewritten)
        return watched(
            self._opened.controller,
            asked.programs,
            [event.choice for event in carried.events],
            lambda: renamed(read(self._connection, tables, list(names)), names),
        )

    def _can_be_tried(self, setting: Setting) -> bool:
        """Whether a case at the edges makes sense for the function, as calls say that are made alone."""
        if setting.null and not cases.nullable(setting, self._target, self._connection):
            return False
        if not (setting.null or setting.one_owner or setting.missing):
            return True
        key = self._missing_key if setting.missing else self._key
        try:
            found = self._alone(setting, [key() for _ in range(setting.keys)])
        except UsageError as error:  # a key of another type
            self._remarks.append(f"{setting.named(self._contract)}: {error.what}")
            return False
        # A key that does not exist may be turned down in any way but by an error that the contract does not know.
        right = set(self._contract.labels) if setting.missing else {self._contract.accepted}
        wrong = [each for each in found if each.outcome.label not in right]
        if wrong:
            alone = "a call alone" if setting.keys == 1 else "one call after the other, one"
            self._remarks.append(f"{setting.named(self._contract)}: {alone} is answered {_answered(wrong[0])}")
        return not wrong

    def _alone(self, setting: Setting, keys: Sequence[Hashable]) -> list[Operation]:
        """A call on each key, one after the other."""
        routes = self._calls_of(setting.variant, len(keys))
        arguments = [setting.arguments(self._contract, number) for number in range(len(keys))]
        endings = [
            self._probe(route, given, key, number, setting.caller(number))
            for number, (route, given, key) in enumerate(zip(routes, arguments, keys, strict=True))
        ]
        found = list(self._operations(endings, keys, arguments, routes))
        self._judge.beside(found)
        return found

    def _early(self, setting: Setting) -> bool:
        """Whether a schedule of a case can be made ready without a word to the database: the keys are there."""
        declared = self._contract.declared
        if setting.missing and (declared is None or declared.missing_keys is None):
            return not setting.used
        return not setting.used and len(self._missing if setting.missing else self._fresh) >= setting.keys

    def _ready(self, setting: Setting) -> Asked:
        """What the calls of a case send, on keys that nobody has had."""
        calls = setting.at_once(self._plan)
        self._opened.controller.suit(calls, setting.fatal(self._plan))
        key = self._missing_key if setting.missing else self._key
        keys = [key() for _ in range(min(setting.keys, calls))]
        programs, arguments = [], []
        for number in range(calls):
            made = self._sent(setting, number)
            given = list(made.encoded)
            given[made.codec.key_at] = made.codec.encode_key(keys[number % len(keys)])
            programs.append(replace(made.program, parameters=given))
            arguments.append(made.arguments)
        return Asked(programs, _Keys(keys, self._used(setting, keys), arguments))

    def _begun(self, settings: Sequence[Setting]) -> list[_Case]:
        made = [self._case(setting) for setting in settings]
        self._found += made
        return made

    def _in_turn(self, cases: Sequence[_Case], until: float) -> None:
        """Go through the schedules of some cases."""
        of = {id(case.search): case for case in cases}
        for search, run in in_turn([case.search for case in cases], until):
            case = of[id(search)]
            carried = self._as_carried(case.setting, run, probing=True)
            self._first = self._first or carried
            self._judge.take(carried)
            ended = ", ".join(o.outcome.label for o in carried.operations[: carried.calls])
            case.outcomes[ended] += 1
            if run.replay in search.ahead:
                case.ahead[run.replay] = ended
            if time.monotonic() >= self._last_said + _SAY_EVERY:
                self._say()
        self._judge.look()
        self._say()

    def _case(self, setting: Setting) -> _Case:
        def alike(one: Run, other: Run) -> bool:
            return self._as_carried(setting, one).ended_like(self._as_carried(setting, other))

        search = Search(
            self._opened.controller,
            partial(self._ready, setting),
            partial(scheduler_for, self._plan, self._choices, setting.at_once(self._plan)),
            alike,
            self._plan,
            self._opened.controller.books.level == LEVELS[0],
            setting.prefix(),
            partial(self._beside, setting),
            partial(self._early, setting),
        )
        case = _Case(setting, search)
        earlier = self._earlier.get(setting.prefix())
        if earlier is not None and self._opened.controller.known.knew(earlier["known"]):
            search.runs, search.unfinished = earlier["runs"], earlier["search"]
            case.outcomes.update(earlier["outcomes"])
        return case

    def _say(self) -> None:
        self._last_said = time.monotonic()
        schedules = sum(case.search.carried_out for case in self._found)
        done = sum(case.search.ended for case in self._found)
        self.said(Progress(len(self._found), done, schedules, self._judge.broken))

    def _sent(self, setting: Setting, number: int) -> _Made:
        """What a call of a case sends. What the contract makes up for it may be another each time; mostly it is not."""
        arguments = setting.arguments(self._contract, number)
        known = self._made.get((setting, number))
        if known is None or known.arguments != arguments:
            route = self._calls_of(setting.variant, number + 1)[number]
            encoded, formats = route.codec.encode(arguments, call=setting.used + 1)
            query = Query("", route.plain, None, formats, int(route.codec.result_format))
            known = _Made(arguments, encoded, route.codec, self._program(route, query, setting.caller(number)))
            self._made[setting, number] = known
        return known

    def _program(self, route: Route, query: Query, caller: int) -> Program:
        access = self._accesses[route.plain]
        if self._ends_transactions(route):
            statements = self._target.identity(self._connection, self._contract.identity_of(caller))
            before, after = ((), ()) if statements is None else (statements.for_session, statements.undone)
            return call_alone(query, "start", access, before, after)
        retry = self._contract.retry
        again = (frozenset(retry.sqlstates), retry.most) if retry is not None else (frozenset[str](), 0)
        return call(query, "start", access, self._rewritten.check, self._begins[caller], *again)

    def _ends_transactions(self, route: Route) -> bool:
        return route.plain in self._ending

    def _begin(self, number: int) -> tuple[Query, ...]:
        """What begins a call's transaction: BEGIN, and what makes it that of somebody else."""
        statements = self._target.identity(self._connection, self._contract.identity_of(number))
        if statements is None:
            return (Query("BEGIN"),)
        return tuple(Query(text) for text in (statements.only_begin, *statements.for_transaction))

    def _isolation(self) -> str:
        levels = {
            self._target.identity(self._connection, self._contract.identity_of(n)) for n in range(self._plan.calls)
        }
        given = sorted({level.isolation for level in levels if level is not None and level.isolation})
        return ", ".join(given) or self._opened.controller.isolation

    def _as_carried(self, setting: Setting, run: Run, *, probing: bool = False) -> Carried:
        """A run with what its calls were asked and returned; after a death, what one more call on each key returns."""
        keys, calls = run.of.keys, setting.at_once(self._plan)
        arguments = list(run.of.arguments)
        endings = list(run.endings)
        fatal = [event.choice for event in run.events if event.choice.kind in FATAL]
        if probing and fatal:
            for at, key in enumerate(keys):
                number, position = len(arguments), len(run.events) + 1 + at
                arguments.append(setting.arguments(self._contract, number))
                probe = self._calls_of(setting.variant, number + 1)[-1]
                caller = setting.caller(number)
                endings.append(self._probe(probe, arguments[-1], key, position, caller, call=setting.used + 2))
        # Probes come after the calls, and take the keys in turn like them.
        owners = [keys[number % len(keys)] for number in range(calls)] + list(keys)
        routes = self._calls_of(setting.variant, len(arguments))
        cancelled = {choice.call for choice in fatal if choice.kind is Kind.CANCEL}
        operations = tuple(self._operations(endings, owners, arguments, routes, cancelled))
        cancelled &= {operation.client for operation in operations if operation.outcome.effect is Effect.IN_DOUBT}
        # It may have handled that, and committed what it did then.
        rolled_back = not (fatal and any(map(self._ends_transactions, routes)))
        rolled_back = rolled_back and all(_failed(endings[number]) for number in cancelled)
        return Carried(setting, calls, run.events, operations, run.of.before, frozenset(cancelled), rolled_back)

    def _beside(self, setting: Setting, endings: Sequence[Ending], of: _Keys) -> None:
        """Calls that were made beside the schedules are known to the invariants, which see what they left."""
        if not self._judge.invariants:
            return
        owners = [of.keys[number % len(of.keys)] for number in range(len(endings))]
        routes = self._calls_of(setting.variant, len(endings))
        operations = self._operations(endings, owners, of.arguments, routes)
        # Whoever died was rolled back, but for what a procedure had committed.
        left = [
            o for o, a, r in zip(operations, endings, routes, strict=True) if not a.died or self._ends_transactions(r)
        ]
        self._judge.beside((*of.before, *left))

    def _used(self, setting: Setting, keys: Sequence[Hashable]) -> tuple[Operation, ...]:
        """Call each key as often as the case wants it used beforehand, one call after the other."""
        if not setting.used:
            return ()
        calls = range(setting.used * len(keys))
        arguments = [setting.arguments(self._contract, number) for number in calls]
        owners = [keys[number % len(keys)] for number in calls]
        # All of them come before the first position, which is 1.
        at = [number / (len(calls) + 1) for number in calls]
        routes = self._calls_of(setting.variant, len(calls))
        callers = map(setting.caller, calls)
        endings = [self._probe(*one) for one in zip(routes, arguments, owners, at, callers, strict=True)]
        first = setting.at_once(self._plan) + len(keys)
        found = self._operations(endings, owners, arguments, routes)
        return tuple(o._replace(client=first + number) for number, o in enumerate(found))

    def _probe(
        self,
        route: Route,
        arguments: Mapping[str, Any],
        key: Hashable,
        position: float,
        caller: int,
        *,
        call: int = 1,
    ) -> Ending:
        """One more call, on the controller's side, while no other is under way; `call`: which one of its client's."""
        codec, pgconn = route.codec, self._connection.pgconn
        parameters, formats = codec.encode(arguments, call=call)
        parameters[codec.key_at] = codec.encode_key(key)
        identity = self._target.identity(self._connection, self._contract.identity_of(caller))
        before: Sequence[str] = ()
        after: Sequence[str] = ()
        if identity is not None and self._ends_transactions(route):
            before, after = identity.for_session, identity.undone
        elif identity is not None:
            before, after = (identity.only_begin, *identity.for_transaction), ("COMMIT",)
        for text in before:
            self._connection.execute(text.encode())
        result = pgconn.exec_params(
            route.description.statement, parameters, codec.parameter_oids, formats, int(codec.result_format)
        )
        for text in after:
            ended = pgconn.exec_(text.encode())
            if ended.status == ExecStatus.FATAL_ERROR and result.status != ExecStatus.FATAL_ERROR:
                result = ended  # what was deferred to the commit failed
        return Ending({0: result}, position, position)

    def _operations(
        self,
        endings: Sequence[Ending],
        keys: Sequence[Hashable],
        arguments: Sequence[Mapping[str, Any]],
        routes: Sequence[Route],
        cancelled: Set[int] = frozenset(),
    ) -> Iterator[Operation]:
        for number, ending in enumerate(endings):
            result = ending.results.get(0)
            reader = self._readers[routes[number].plain]
            if ending.died or result is None:
                outcome, raw = reader.lost("its connection was terminated before it committed")
            else:
                outcome, raw = reader.read(result, self._connection.pgconn)
                # An error, or a no, is the answer to being cancelled: it says nothing of the key.
                if number in cancelled and outcome.effect is not Effect.APPLIED:
                    outcome, raw = reader.lost("it was cancelled before it committed")
            found = {name: decode(value) for (name, decode), value in zip(self._evidence, raw, strict=True)}
            evidence = found if any(value is not None for value in found.values()) else {}
            outcome, evidence = readable(outcome, evidence)
            ended = int(ending.ended * _POSITION)
            if outcome.effect is Effect.IN_DOUBT:
                ended = NEVER  # as in every history: nobody must have come after it, and it may have taken effect
            yield Operation(
                number=number,
                client=number,
                key=keys[number],
                arguments=arguments[number],
                due=int(ending.began * _POSITION),
                called=int(ending.began * _POSITION),
                returned=ended,
                outcome=outcome,
                answer=evidence,
                phase=self._judge.taken,
                held=False,
                rolled_back=False,
                target="schedule",
            )

    def _key(self) -> Hashable:
        if not self._fresh:
            self._fresh = new_keys(self._seed, self._contract.new_keys, self._next_keys)
            # A long search connects less often; a short one, or one of slow keys, does not make many that it leaves.
            self._next_keys = min(2 * self._next_keys, _MOST_KEYS_AT_ONCE)
        return self._fresh.pop()

    def _missing_key(self) -> Hashable:
        declared = self._contract.declared
        if declared is None or declared.missing_keys is None:
            return self._contract.unknown_key()
        if not self._missing:
            self._missing = new_keys(self._seed, declared.missing_keys, _KEYS_AT_ONCE)
        return self._missing.pop()

    def _not_covered(self) -> tuple[str, ...]:
        return (
            f"{more_than(self._plan.calls)}, and isolation levels other than {self._isolation()}",
            *self._remarks,
            _FIRST_CALLS,
            *NOT_COVERED,
            *self._rewritten.remarks,
            *exceeding(self._rewritten, self._opened.controller),
        )


def _answered(operation: Operation) -> str:
    """What a call came to, in words."""
    outcome = operation.outcome
    return f"{outcome.label} ({outcome.code})" if outcome.code else outcome.label


def _failed(ending: Ending) -> bool:
    """Whether a call ended in an error, by which its transaction was rolled back."""
    result = ending.results.get(0)
    return result is None or result.error_field(DiagnosticField.SQLSTATE) is not None
