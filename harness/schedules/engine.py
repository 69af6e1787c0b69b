"""The engine of contracts: every case, schedule by schedule, judged by the contract that judges a run.

A case is one argument variant, with all calls on one fresh key, or taking turns on two. A call is a session of one
statement. All schedules are carried out first and judged together afterwards: keys are fresh, so nothing of one
schedule is seen by another.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from string import ascii_uppercase
from typing import Any

from harness.contracts.contract import Contract, Effect, Operation, readable
from harness.contracts.invariants import Invariant
from harness.environment.servers import connect
from harness.errors import UsageError
from harness.history import NEVER
from harness.schedules import judging
from harness.schedules.carried import Carried, CarriedHistory, Setting
from harness.schedules.control import Answer, Prepared
from harness.schedules.narrate import narrate
from harness.schedules.plan import MOST_CALLS, SEARCHES, Plan
from harness.schedules.program import Program, Query, call, call_alone
from harness.schedules.result import Case, Exploration, Schedule
from harness.schedules.search import Run, Search, scheduler_for
from harness.schedules.sessions import LEVELS, NOT_COVERED, Opened, exceeding, own_findings, strongest, unsplit
from harness.schedules.trace import Choice, Kind, read_replay
from harness.schedules.watch import Rows, read, renamed, watched, with_rows, written
from harness.targets import conditions
from harness.targets.codec import Reader
from harness.targets.description import split_name
from harness.targets.keys import new_keys
from harness.targets.sql import SqlTarget
from harness.targets.sql_caller import Route
from harness.verdict.findings import Truth
from harness.verdict.judge import judge_history

__all__ = ["MOST_CALLS", "SEARCHES", "Plan", "explore"]

_KEYS_AT_ONCE, _MOST_KEYS_AT_ONCE = 256, 1024
_POSITION = 1_000_000
"""One position of a schedule in the operations' times, which are in nanoseconds."""


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
) -> Exploration:
    """Explore the contract's function in a scratch database, whose copy of the function is rewritten in place.

    `invariants` are judged on the database that the schedules leave. With an `earlier` exploration by the same plan,
    which did not come to its end, it goes on where that one stood, and what is given is of both. `said` is told how far
    it has come. A signal that ends it leaves what was tried by then. Raises UsageError for a plan or a function that
    cannot be explored, HarnessError when the database cannot be used.
    """
    if plan.replay is not None:
        plan, settings, choices = _of_replay(plan, contract)
    else:
        settings, choices = _settings(plan, contract), ()
    plan.check()
    contract = conditions.at_once(contract, partial(connect, dsn))
    explorer = _Explorer(dsn, contract, plan, choices)
    explorer.said = said
    try:
        if earlier is not None:
            explorer.go_on_after(earlier)
        return explorer.explored(settings, invariants)
    finally:
        explorer.close()


def _settings(plan: Plan, contract: Contract) -> tuple[Setting, ...]:
    names = [variant.name for variant in contract.variants]
    unknown = [name for name in plan.variants or () if name not in names]
    if unknown:
        raise UsageError(
            f"The contract {contract.name} has no variant named {unknown[0]!r}.",
            next_step=f"give one of: {'; '.join(names)}",
        )
    wanted = [at for at, name in enumerate(names) if plan.variants is None or name in plan.variants]
    every = _each(wanted, plan, contract)
    return every if plan.cases is None else tuple(setting for setting in every if setting.prefix() in plan.cases)


def cases_of(plan: Plan, contract: Contract) -> tuple[tuple[str, int], ...]:
    """The cases of an exploration: what goes before a colon in their replay texts, and how much there is in each."""
    return tuple((setting.prefix(), 4 if setting.keys > 1 else 1) for setting in _settings(plan, contract))


def _each(wanted: Sequence[int], plan: Plan, contract: Contract) -> tuple[Setting, ...]:
    # On a fresh key, and on one that has been used up to its last use.
    uses = (0, contract.capacity - 1) if contract.capacity > 1 else (0,)
    return tuple(Setting(at, keys, used) for at in wanted for keys in plan.keys if keys <= plan.calls for used in uses)


def _of_replay(plan: Plan, contract: Contract) -> tuple[Plan, tuple[Setting, ...], tuple[Choice, ...]]:
    """The one case and the choices that a replay text names."""
    assert plan.replay is not None
    prefix, colon, text = plan.replay.rpartition(":")
    match = re.fullmatch(r"(?:v(\d+))?(?:k([12]))?(?:u(\d+))?", prefix)
    choices = read_replay(text)
    variant = int(match[1] or 1) - 1 if match and (prefix or not colon) else -1
    if match is None or not 0 <= variant < len(contract.variants):
        raise UsageError(
            f"{plan.replay!r} names no case of the contract {contract.name}.",
            tried="reading v and a variant's number, k and the number of keys, u and their uses before, then a colon",
            next_step=f"copy the text after --replay from a report; there are {len(contract.variants)} variants",
        )
    crash = any(choice.kind is Kind.DIE for choice in choices)
    calls = max(choice.call for choice in choices) + 1
    if calls > MOST_CALLS:
        raise UsageError(
            f"The replay text {plan.replay!r} names a call {max(map(str, choices))[0]}.",
            tried=f"reading a letter for each of at most {MOST_CALLS} calls",
            next_step=f"use the letters A to {ascii_uppercase[MOST_CALLS - 1]}",
        )
    return (
        replace(plan, calls=calls, crash=crash, search="exhaustive"),
        (Setting(variant, int(match[2] or 1), int(match[3] or 0)),),
        choices,
    )


class _Explorer:
    """One exploration, over its own connections."""

    def __init__(self, dsn: str, contract: Contract, plan: Plan, choices: tuple[Choice, ...]) -> None:
        self._started = time.monotonic()
        self._contract = contract
        self._plan = plan
        self._choices = choices
        self._target = SqlTarget(dsn, contract)
        self._fresh: list[Hashable] = []
        self._next_keys = _KEYS_AT_ONCE
        self._keys: list[Hashable] = []
        """Of the schedule that was carried out last."""
        self._before: tuple[Operation, ...] = ()
        """The calls that they had before it."""
        self._carried: list[Carried] = []
        self._found: list[tuple[Setting, Search, Counter[str]]] = []
        """The cases that were begun."""
        self._cases = 0
        self._interrupted = False
        self._broken: dict[str, None] = {}
        self._earlier: dict[str, dict[str, Any]] = {}
        """By prefix, where the cases of an earlier exploration stood."""
        self.said: Callable[[Progress], object] = lambda _: None
        called = [self._target.calls(variant, plan.calls) for variant in range(len(contract.variants))]
        self._routes = list({route.plain: route for routes in called for route in routes}.values())
        self._readers = {
            r.plain: Reader(contract, r.codec, self._target.evidence_names, overlap=False) for r in self._routes
        }
        texts = [route.description.statement.decode() for route in self._routes]
        prepared = [Prepared(r.plain, r.description.statement, r.codec.parameter_oids) for r in self._routes]
        self._opened = Opened(dsn, texts, plan.calls, plan, prepared=prepared)
        self._connection = self._opened.connection
        self._opened.controller.level = strongest([self._isolation()])
        self._begins = [self._begin(number) for number in range(plan.calls)]
        self._rewritten = self._opened.rewritten
        self._accesses = dict(zip((route.plain for route in self._routes), self._rewritten.texts, strict=True))
        self._calls_of = cache(self._target.calls)

    def close(self) -> None:
        self._opened.close()

    def explored(self, settings: Sequence[Setting], invariants: Sequence[Invariant]) -> Exploration:
        deadline = time.monotonic() + self._plan.seconds
        self._cases = len(settings)
        try:
            for at, setting in enumerate(settings):
                # What one case leaves of its share of the time, those after it have.
                share = (deadline - time.monotonic()) / (len(settings) - at)
                self._case(setting, time.monotonic() + share)
        except KeyboardInterrupt:  # what was tried by now is judged; whoever asked ends the run then
            self._interrupted = True
            self._opened.controller.reset()
        searches = [search for _, search, _ in self._found]
        by_setting = {setting: search for setting, search, _ in self._found}

        def again(carried: Carried, choices: Sequence[Choice]) -> Carried | None:
            races = any(event.races for event in carried.events)
            run = by_setting[carried.setting].again(choices, races=races)
            return None if run is None else self._as_carried(carried.setting, run, probing=True).trimmed()

        cases = tuple(self._told(*found) for found in self._found)
        findings, broken = judging.judge(self._carried, self._contract, invariants, self._opened.connect, again)
        what = f"{self._plan.calls} calls"
        replay = bool(self._choices)
        undecided = unsplit(self._rewritten, self._opened.controller)
        own = own_findings(searches, self._plan, undecided, what, replay=replay, untried=len(settings) - len(searches))
        findings += own
        schedules = {name: self._narrated(carried) for name, carried in broken.items()}
        return Exploration(
            function=self._contract.function.name,
            calls=self._plan.calls,
            search="replay" if self._choices else self._plan.search,
            steps=tuple(f"{step.function}:{step.line}: {step.text}" for step in self._rewritten.steps),
            cases=cases,
            findings=judging.explained(findings, {n: s.replay for n, s in schedules.items()}, self._plan.command),
            broken=schedules,
            replayed=self._narrated(self._carried[0]) if self._choices and self._carried else None,
            not_covered=self._not_covered(),
            seconds=time.monotonic() - self._started,
            seed=self._plan.seed if self._plan.search != "exhaustive" else None,
            timeouts=tuple(timeout for search in searches for timeout in search.timeouts),
            unfinished=self._unfinished(settings),
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
                self._opened.controller.know(saved["known"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UsageError(
                "The exploration of that record cannot be gone on with.",
                tried=f"finding where it stood: {error}",
                next_step="explore anew: the function, the calls or the harness are not those of the record",
            ) from error

    def _unfinished(self, settings: Sequence[Setting]) -> dict[str, Any]:
        """What it takes to go on; nothing where all was tried, or where that cannot be."""
        saved = {setting.prefix(): search.saved() for setting, search, _ in self._found}
        whole = len(saved) == len(settings) and all(search.exhausted for _, search, _ in self._found)
        if None in saved.values() or self._choices or (whole and self._plan.cases is None):
            return {}
        known = self._opened.controller.knowledge()
        return {
            setting.prefix(): {
                "runs": search.runs,
                "outcomes": dict(outcomes),
                "search": saved[setting.prefix()],
                "known": known,
            }
            for setting, search, outcomes in self._found
        }

    def _told(self, setting: Setting, search: Search, outcomes: Mapping[str, int]) -> Case:
        name = setting.named(self._contract.variants[setting.variant].name)
        share, left = search.gone_through()
        return Case(
            name,
            setting.keys,
            search.runs,
            search.before_reduction,
            search.exhausted,
            dict(outcomes),
            share,
            left,
        )

    def _narrated(self, carried: Carried) -> Schedule:
        labels = [unit.label for unit in self._programs(carried.setting, [None])[0].units]
        schedule = narrate(carried, self._contract, self._rewritten, labels, self._connection)
        rows = self._rows(carried)
        return schedule if rows is None else replace(schedule, moves=with_rows(schedule.moves, rows))

    def _rows(self, carried: Carried) -> tuple[Rows, ...] | None:
        """The rows that everybody sees after each step, from a repetition on fresh keys that are called by the old."""
        keys = [self._key() for _ in range(min(carried.setting.keys, self._plan.calls))]
        names = {str(keys[n % len(keys)]): str(o.key) for n, o in enumerate(carried.operations[: self._plan.calls])}
        tables = written(self._rewritten)
        return watched(
            self._opened.controller,
            self._programs(carried.setting, keys),
            [event.choice for event in carried.events],
            lambda: renamed(read(self._connection, tables, list(names)), names),
        )

    def _case(self, setting: Setting, deadline: float) -> None:
        def programs() -> Sequence[Program]:
            self._keys = [self._key() for _ in range(min(setting.keys, self._plan.calls))]
            self._before = self._used(setting)
            return self._programs(setting, self._keys)

        def alike(one: Run, other: Run) -> bool:
            return self._as_carried(setting, one).ended_like(self._as_carried(setting, other))

        scheduler = partial(scheduler_for, self._plan, self._choices, self._plan.calls)
        controller = self._opened.controller
        read_committed = controller.level == LEVELS[0]
        search = Search(controller, programs, scheduler, alike, self._plan, deadline, read_committed, setting.prefix())
        outcomes: Counter[str] = Counter()
        earlier = self._earlier.get(setting.prefix())
        if earlier is not None and self._opened.controller.knew(earlier["known"]):
            search.runs, search.unfinished = earlier["runs"], earlier["search"]
            outcomes.update(earlier["outcomes"])
        self._found.append((setting, search, outcomes))
        first = len(self._carried)
        for run in search.schedules():
            carried = self._as_carried(setting, run, probing=True)
            self._carried.append(carried.trimmed())
            outcomes[", ".join(o.outcome.label for o in carried.operations[: self._plan.calls])] += 1
            self._say(len(self._found) - 1)
        if self._carried[first:]:
            findings = judge_history(CarriedHistory(self._carried[first:]), self._contract)
            self._broken |= {finding.id: None for finding in findings if finding.truth is Truth.BROKEN}
        self._say(len(self._found))

    def _say(self, done: int) -> None:
        schedules = sum(search.runs for _, search, _ in self._found)
        self.said(Progress(self._cases, done, schedules, tuple(self._broken)))

    def _programs(self, setting: Setting, keys: Sequence[Hashable]) -> list[Program]:
        variant = self._contract.variants[setting.variant]
        programs = []
        for number, route in enumerate(self._calls_of(setting.variant, self._plan.calls)):
            codec, key = route.codec, keys[number % len(keys)]
            encoded, formats = codec.encode(dict(variant.arguments(number)), call=setting.used + 1)
            encoded[codec.key_at] = None if key is None else codec.encode_key(key)
            query = Query("", route.plain, encoded, formats, int(codec.result_format))
            access = self._accesses[route.plain]
            if self._ends_transactions(route):
                statements = self._target.identity(self._connection, self._contract.identity_of(number))
                before, after = ((), ()) if statements is None else (statements.for_session, statements.undone)
                programs.append(call_alone(query, "start", access, before, after))
                continue
            retry = self._contract.retry
            again = (frozenset(retry.sqlstates), retry.most) if retry is not None else (frozenset(), 0)
            programs.append(call(query, "start", access, self._rewritten.check, self._begins[number], *again))
        return programs

    def _ends_transactions(self, route: Route) -> bool:
        name = split_name(route.description.function.name)[1]
        return route.description.procedure and name in self._rewritten.commits_inside

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
        keys = self._keys
        variant = self._contract.variants[setting.variant]
        arguments = [dict(variant.arguments(number)) for number in range(self._plan.calls)]
        answers = list(run.answers)
        if probing and any(event.choice.kind is Kind.DIE for event in run.events):
            for at in range(len(keys)):
                arguments.append(dict(variant.arguments(len(arguments))))
                probe = self._calls_of(setting.variant, len(arguments))[-1]
                position = len(run.events) + 1 + at
                answers.append(self._probe(probe, arguments[-1], keys[at], position, call=setting.used + 2))
        # Probes come after the calls, and take the keys in turn like them.
        owners = [keys[number % len(keys)] for number in range(self._plan.calls)] + list(keys)
        routes = self._calls_of(setting.variant, len(arguments))
        operations = self._operations(answers, owners, arguments, routes)
        return Carried(setting, self._plan.calls, run.events, tuple(operations), self._before)

    def _used(self, setting: Setting) -> tuple[Operation, ...]:
        """Call each key as often as the case wants it used beforehand, one call after the other."""
        if not setting.used:
            return ()
        variant = self._contract.variants[setting.variant]
        arguments = [dict(variant.arguments(number)) for number in range(setting.used * len(self._keys))]
        owners = [self._keys[number % len(self._keys)] for number in range(len(arguments))]
        # All of them come before the first position, which is 1.
        at = [number / (len(arguments) + 1) for number in range(len(arguments))]
        routes = self._calls_of(setting.variant, len(arguments))
        answers = [self._probe(*one) for one in zip(routes, arguments, owners, at, strict=True)]
        clients = range(self._plan.calls + len(self._keys), self._plan.calls + len(self._keys) + len(arguments))
        found = self._operations(answers, owners, arguments, routes)
        return tuple(o._replace(client=client) for o, client in zip(found, clients, strict=True))

    def _probe(
        self, route: Route, arguments: Mapping[str, Any], key: Hashable, position: float, *, call: int = 1
    ) -> Answer:
        """One more call, on the controller's side, after all others have ended; `call`: which one of its client's."""
        codec = route.codec
        parameters, formats = codec.encode(arguments, call=call)
        parameters[codec.key_at] = codec.encode_key(key)
        result = self._connection.pgconn.exec_params(
            route.description.statement, parameters, codec.parameter_oids, formats, int(codec.result_format)
        )
        return Answer({0: result}, position, position)

    def _operations(
        self,
        answers: Sequence[Answer],
        keys: Sequence[Hashable],
        arguments: Sequence[dict[str, Any]],
        routes: Sequence[Route],
    ) -> Iterator[Operation]:
        for number, answer in enumerate(answers):
            result = answer.results.get(0)
            reader = self._readers[routes[number].plain]
            if answer.died or result is None:
                outcome, raw = reader.lost("its connection was terminated before it committed")
            else:
                outcome, raw = reader.read(result, self._connection.pgconn)
            names = self._target.evidence_names
            values = [self._target.decode_evidence(column, [value])[0] for column, value in enumerate(raw)]
            evidence = dict(zip(names, values, strict=True)) if any(v is not None for v in values) else {}
            outcome, evidence = readable(outcome, evidence)
            ended = int(answer.ended * _POSITION)
            if outcome.effect is Effect.IN_DOUBT and self._ends_transactions(routes[number]):
                ended = NEVER  # what it had committed before it died stands: the call may have taken effect
            yield Operation(
                number=number,
                client=number,
                key=keys[number],
                arguments=arguments[number],
                due=int(answer.began * _POSITION),
                called=int(answer.began * _POSITION),
                returned=ended,
                outcome=outcome,
                answer=evidence,
                phase=len(self._carried),
                held=False,
                rolled_back=False,
                target="schedule",
            )

    def _key(self) -> Hashable:
        if not self._fresh:
            with self._opened.connect() as connection:  # of its own: what a session prepared is given up for each call
                self._fresh = new_keys(connection, self._contract.new_keys, self._next_keys)
            # A long search connects less often; a short one, or one of slow keys, does not make many that it leaves.
            self._next_keys = min(2 * self._next_keys, _MOST_KEYS_AT_ONCE)
        return self._fresh.pop()

    def _not_covered(self) -> tuple[str, ...]:
        isolation = self._isolation()
        return (
            f"more than {self._plan.calls} calls at once, and isolation levels other than {isolation}",
            *NOT_COVERED,
            *self._rewritten.remarks,
            *exceeding(self._rewritten, self._opened.controller),
        )
