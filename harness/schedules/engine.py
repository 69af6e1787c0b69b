"""The engine: every case of a contract, schedule by schedule, judged by the contract that judges a run.

A case is one argument variant, with all calls on one fresh key, or taking turns on two. All schedules are carried out
first and judged together afterwards: keys are fresh, so nothing of one schedule is seen by another.
"""

from __future__ import annotations

import random
import re
import time
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from string import ascii_uppercase
from typing import Any

import psycopg
from psycopg import sql

from harness.contracts.contract import Contract, Operation, readable
from harness.environment.servers import connect
from harness.errors import HarnessError, UsageError
from harness.schedules import judging
from harness.schedules.carried import Carried, Setting
from harness.schedules.control import Answer, Choose, Controller, Prepared, ScheduleTimeoutError
from harness.schedules.exhaustive import Exhaustive
from harness.schedules.narrate import narrate
from harness.schedules.pct import Pct
from harness.schedules.random_walk import RandomWalk
from harness.schedules.replay import Replay
from harness.schedules.result import Case, Exploration
from harness.schedules.rewrite import rewrite
from harness.schedules.scheduler import Scheduler
from harness.schedules.trace import Choice, Kind, read_replay
from harness.targets.sql import Reader, SqlTarget
from harness.verdict.findings import Finding, Truth
from harness.verdict.invariants import Invariant

MOST_CALLS = 4
SEARCHES = ("exhaustive", "random", "pct")

RANDOM_SCHEDULES = 1000
"""Schedules of a random search in each case, where no other bound is given."""

_TWICE = 25
"""One of so many schedules is repeated, to see whether it ends the same."""

_RACE_ATTEMPTS = 40
"""How often a schedule is tried again in which the server decides which of two waiting calls goes on first."""

_KEYS_AT_ONCE = 256
_POSITION = 1_000_000
"""One position of a schedule in the operations' times, which are in nanoseconds."""

_NOT_COVERED = (
    "what happens between the rows of one SQL statement, and inside the server",
    "the order in which calls read the clock",
    "functions called by column defaults, CHECK constraints and row-level policies are not split",
    "the rows that a FOR loop over a query fetches after the first belong to the step before",
    f"which of two calls woken at once goes first is up to the server: it is tried {_RACE_ATTEMPTS} times for both",
)


@dataclass(frozen=True, slots=True)
class Plan:
    """How to explore."""

    calls: int = 2
    search: str = "exhaustive"
    """exhaustive, random or pct."""
    max_schedules: int | None = None
    """The most schedules of one case."""
    max_preemptions: int | None = None
    """The most interruptions of a call that could go on, in one schedule of an exhaustive search; None: no bound."""
    seconds: float = 60.0
    """For all cases together."""
    seed: int = 0
    """Of a random search."""
    crash: bool = False
    """Let one call die at each step."""
    replay: str | None = None
    """A replay text: carry out this schedule and no other."""
    times: int = 1
    """How often to carry out a replay."""
    variants: tuple[str, ...] | None = None
    """Names of the contract's variants to take; None: each."""
    keys: tuple[int, ...] = (1, 2)
    """How many keys the calls of a case share: 1, or 2 in turns."""
    schedule_seconds: float = 10.0
    """The most that one schedule may take."""
    reduction: bool = True
    """Spare schedules that differ only in the order of steps that commute."""
    command: str = "harness explore"
    """What a replay text is given to, after the word --replay."""


def explore(dsn: str, contract: Contract, plan: Plan, invariants: Sequence[Invariant] = ()) -> Exploration:
    """Explore the contract's function in a scratch database, whose copy of the function is rewritten in place.

    `invariants` are judged on the database that the schedules leave. Raises UsageError for a plan or a function that
    cannot be explored, HarnessError when the database cannot be used.
    """
    if plan.replay is not None:
        plan, settings, choices = _of_replay(plan, contract)
    else:
        settings, choices = _settings(plan, contract), ()
    _check(plan)
    explorer = _Explorer(dsn, contract, plan, choices)
    try:
        return explorer.explored(settings, invariants)
    finally:
        explorer.close()


def _check(plan: Plan) -> None:
    wrong = [
        (not 1 <= plan.calls <= MOST_CALLS, f"{plan.calls} calls", f"from 1 to {MOST_CALLS} calls"),
        (plan.search not in SEARCHES, f"a search named {plan.search!r}", f"one of {', '.join(SEARCHES)}"),
        (plan.max_schedules is not None and plan.max_schedules < 1, f"{plan.max_schedules} schedules", "1 or more"),
        (
            plan.max_preemptions is not None and plan.max_preemptions < 0,
            f"{plan.max_preemptions} preemptions",
            "0 or more",
        ),
        (plan.times < 1, f"{plan.times} repetitions", "1 or more"),
        (not plan.seconds > 0, f"{plan.seconds:g} seconds", "more than 0"),
        (not plan.schedule_seconds > 0, f"{plan.schedule_seconds:g} seconds for a schedule", "more than 0"),
        (not plan.keys or not set(plan.keys) <= {1, 2}, f"calls on {plan.keys} keys", "1, 2 or both"),
    ]
    for is_wrong, what, right in wrong:
        if is_wrong:
            raise UsageError(f"An exploration cannot be made with {what}.", next_step=f"give {right}")


def _settings(plan: Plan, contract: Contract) -> tuple[Setting, ...]:
    names = [variant.name for variant in contract.variants]
    unknown = [name for name in plan.variants or () if name not in names]
    if unknown:
        raise UsageError(
            f"The contract {contract.name} has no variant named {unknown[0]!r}.",
            next_step=f"give one of: {'; '.join(names)}",
        )
    wanted = [at for at, name in enumerate(names) if plan.variants is None or name in plan.variants]
    return tuple(Setting(at, keys) for at in wanted for keys in plan.keys if keys <= plan.calls)


def _of_replay(plan: Plan, contract: Contract) -> tuple[Plan, tuple[Setting, ...], tuple[Choice, ...]]:
    """The one case and the choices that a replay text names."""
    assert plan.replay is not None
    prefix, colon, text = plan.replay.rpartition(":")
    match = re.fullmatch(r"(?:v(\d+))?(?:k([12]))?", prefix)
    choices = read_replay(text)
    variant = int(match[1] or 1) - 1 if match and (prefix or not colon) else -1
    if match is None or not 0 <= variant < len(contract.variants):
        raise UsageError(
            f"{plan.replay!r} names no case of the contract {contract.name}.",
            tried="reading v and the number of a variant, k and the number of keys, then a colon",
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
        (Setting(variant, int(match[2] or 1)),),
        choices,
    )


class _Explorer:
    """One exploration, over its own connections."""

    def __init__(self, dsn: str, contract: Contract, plan: Plan, choices: tuple[Choice, ...]) -> None:
        self._started = time.monotonic()
        self._dsn = dsn
        self._contract = contract
        self._plan = plan
        self._choices = choices
        self._target = SqlTarget(dsn, contract)
        self._codec = self._target.codec
        self._reader = Reader(contract, self._codec, overlap=False)
        self._connection = self._connect()
        self._fresh: list[Hashable] = []
        self._carried: list[Carried] = []
        self._unsteady: list[str] = []
        self._repeated = 0
        self._timeouts: list[str] = []
        try:
            # A key space that the function is unlikely to name; that it takes our keys all the same is found out.
            space = random.SystemRandom().randrange(1 << 20, 1 << 31)
            self._rewritten = rewrite(self._connection, self._oid(), space)
            self._controller = Controller(
                self._connect,
                plan.calls,
                Prepared(self._target.statement, self._codec.parameter_oids, self._codec.formats),
                self._rewritten,
                space,
                seconds=plan.schedule_seconds,
                crash=plan.crash,
            )
        except BaseException:
            self._connection.close()
            raise

    def _connect(self) -> psycopg.Connection[Any]:
        """A connection that does not wait for the disk: what is explored is the order of steps, not their speed."""
        connection = connect(self._dsn)
        connection.execute("SET synchronous_commit = off")
        return connection

    def close(self) -> None:
        self._controller.close()
        self._connection.close()

    def explored(self, settings: Sequence[Setting], invariants: Sequence[Invariant]) -> Exploration:
        deadline = time.monotonic() + self._plan.seconds
        cases = tuple(self._case(setting, deadline) for setting in settings)
        findings, broken = judging.judge(self._carried, self._contract, invariants, self._connect)
        findings += self._own_findings(cases)
        schedules = {
            name: narrate(carried, self._contract, self._rewritten, self._connection)
            for name, carried in broken.items()
        }
        replayed = None
        if self._choices and self._carried:
            replayed = narrate(self._carried[0], self._contract, self._rewritten, self._connection)
        return Exploration(
            function=self._contract.function.name,
            calls=self._plan.calls,
            search="replay" if self._choices else self._plan.search,
            steps=tuple(f"{step.function}:{step.line}: {step.text}" for step in self._rewritten.steps),
            cases=cases,
            findings=judging.explained(findings, {n: s.replay for n, s in schedules.items()}, self._plan.command),
            broken=schedules,
            replayed=replayed,
            not_covered=self._not_covered(),
            seconds=time.monotonic() - self._started,
            seed=self._plan.seed if self._plan.search != "exhaustive" else None,
            timeouts=tuple(self._timeouts),
        )

    def _scheduler(self) -> Scheduler:
        if self._choices:
            return Replay(self._choices, self._plan.times)
        if self._plan.search == "random":
            return RandomWalk(self._plan.seed)
        if self._plan.search == "pct":
            return Pct(self._plan.seed, self._plan.calls)
        # Only where every statement has a snapshot of its own is it known which steps commute.
        reduction = self._plan.reduction and self._controller.isolation == "read committed"
        return Exhaustive(reduction=reduction, max_preemptions=self._plan.max_preemptions)

    def _case(self, setting: Setting, deadline: float) -> Case:
        scheduler = self._scheduler()
        most = self._plan.max_schedules or (None if self._plan.search == "exhaustive" else RANDOM_SCHEDULES)
        outcomes: Counter[str] = Counter()
        seen: set[str] = set()
        runs = 0
        cut = False
        while scheduler.another():
            if (most is not None and runs >= most) or time.monotonic() > deadline:
                cut = True
                break
            try:
                carried, complete = self._attempted(setting, scheduler)
            except ScheduleTimeoutError as timeout:
                self._timeouts.append(f"{setting.prefix()}{timeout}")
                self._controller.reset()
                cut = True
                break
            if not scheduler.ended(carried.events, complete=complete):
                continue
            runs += 1
            if self._choices and self._carried and not carried.ended_like(self._carried[0]):
                self._unsteady.append(carried.replay)
            if carried.replay in seen and not self._choices:
                continue  # drawn before
            seen.add(carried.replay)
            self._carried.append(carried.trimmed())
            outcomes[", ".join(o.outcome.label for o in carried.operations[: self._plan.calls])] += 1
            if runs % _TWICE == 1 and not self._choices:
                self._repeat(carried)
        before = scheduler.before_reduction if isinstance(scheduler, Exhaustive) else len(seen)
        if isinstance(scheduler, Exhaustive) and scheduler.unsteady:
            self._unsteady.append(f"{setting.prefix()}(a beginning that two schedules share)")
        variant = self._contract.variants[setting.variant].name
        return Case(variant, setting.keys, len(seen), before, scheduler.exhausted and not cut, dict(outcomes))

    def _attempted(self, setting: Setting, scheduler: Scheduler) -> tuple[Carried, bool]:
        """One schedule. A replay that departs is tried again: two calls that are let go at once may change places."""
        for attempts_left in reversed(range(_RACE_ATTEMPTS)):
            try:
                return self._carry_out(setting, scheduler.choose)
            except UsageError:
                if not (isinstance(scheduler, Replay) and scheduler.raced and attempts_left):
                    raise
                self._controller.reset()
        raise AssertionError("the last attempt returns or raises")

    def _repeat(self, carried: Carried) -> None:
        """Carry a schedule out once more; note when it does not end the same."""
        self._repeated += 1
        choices = [event.choice for event in carried.events]
        for _ in range(_RACE_ATTEMPTS if any(event.races for event in carried.events) else 1):
            try:
                again, _ = self._carry_out(carried.setting, Replay(choices).choose)
            except (UsageError, ScheduleTimeoutError):
                self._controller.reset()  # it departed in the middle, or hangs
            else:
                if again.ended_like(carried):
                    return
        self._unsteady.append(carried.replay)

    def _carry_out(self, setting: Setting, choose: Choose) -> tuple[Carried, bool]:
        keys = [self._key() for _ in range(min(setting.keys, self._plan.calls))]
        variant = self._contract.variants[setting.variant]
        arguments = [dict(variant.arguments(number)) for number in range(self._plan.calls)]
        parameters = []
        for number, values in enumerate(arguments):
            encoded = self._codec.encode(values)
            encoded[self._codec.key_at] = self._codec.encode_key(keys[number % len(keys)])
            parameters.append(encoded)
        trace = self._controller.run(parameters, choose)
        answers = list(trace.answers)
        if any(event.choice.kind is Kind.DIE for event in trace.events):
            for at in range(len(keys)):
                arguments.append(dict(variant.arguments(len(arguments))))
                answers.append(self._probe(arguments[-1], keys[at], len(trace.events) + 1 + at))
        # Probes come after the calls, and take the keys in turn like them.
        owners = [keys[number % len(keys)] for number in range(self._plan.calls)] + keys
        operations = self._operations(answers, owners, arguments)
        return Carried(setting, self._plan.calls, trace.events, tuple(operations)), trace.complete

    def _probe(self, arguments: Mapping[str, Any], key: Hashable, position: int) -> Answer:
        """One more call, on the controller's side, after all others have ended."""
        parameters = self._codec.encode(arguments)
        parameters[self._codec.key_at] = self._codec.encode_key(key)
        result = self._connection.pgconn.exec_params(
            self._target.statement, parameters, self._codec.parameter_oids, self._codec.formats, 1
        )
        return Answer(result, position, position)

    def _operations(
        self, answers: Sequence[Answer], keys: Sequence[Hashable], arguments: Sequence[dict[str, Any]]
    ) -> Iterator[Operation]:
        for number, answer in enumerate(answers):
            if answer.result is None:
                outcome, raw = self._reader.lost("its connection was terminated before it committed")
            else:
                outcome, raw = self._reader.read(answer.result, self._connection.pgconn)
            names = self._codec.order[self._codec.labels :]
            values = [self._codec.decode_evidence(column, [value])[0] for column, value in enumerate(raw)]
            evidence = dict(zip(names, values, strict=True)) if any(v is not None for v in values) else {}
            outcome, evidence = readable(outcome, evidence)
            yield Operation(
                number=number,
                client=number,
                key=keys[number],
                arguments=arguments[number],
                due=answer.began * _POSITION,
                called=answer.began * _POSITION,
                returned=answer.ended * _POSITION,
                outcome=outcome,
                answer=evidence,
                phase=len(self._carried),
                held=False,
                rolled_back=False,
                target="schedule",
            )

    def _key(self) -> Hashable:
        if not self._fresh:
            name = sql.Identifier(*self._contract.new_keys.split("."))
            query = sql.SQL("SELECT * FROM {}(%s::integer)").format(name)
            self._fresh = [row[0] for row in self._connection.execute(query, [_KEYS_AT_ONCE])]
            if not self._fresh:
                raise HarnessError(
                    f"{self._contract.new_keys} gave no keys.",
                    tried=f"asking for {_KEYS_AT_ONCE}",
                    next_step="check the seed file that defines it",
                )
        return self._fresh.pop()

    def _oid(self) -> int:
        function = self._contract.function
        signature = f"{function.name}({', '.join(parameter.type for parameter in function.parameters)})"
        row = self._connection.execute("SELECT %s::regprocedure::oid::bigint", [signature]).fetchone()
        assert row is not None
        return int(row[0])

    def _own_findings(self, cases: Sequence[Case]) -> list[Finding]:
        """What the exploration can say of itself."""
        findings = []
        if not self._choices:
            schedules = sum(case.schedules for case in cases)
            tried = bool(cases) and all(case.exhausted for case in cases)
            observed = f"{schedules} schedules, {sum(case.before_reduction for case in cases)} before reduction"
            if self._timeouts:
                observed += f"; no end within {self._plan.schedule_seconds:g} s: {self._timeouts[0]}"
            findings.append(
                Finding(
                    "every_order_tried",
                    f"Every distinct order of the steps of {self._plan.calls} calls was tried.",
                    Truth.HELD if tried else Truth.UNDECIDED,
                    observed if tried else f"not exhausted: {observed}",
                    remedy="" if tried else "Give it more --seconds or --max-schedules, or fewer --calls.",
                )
            )
        if self._plan.times > 1 or not self._choices:
            findings.append(
                Finding(
                    "same_end_when_repeated",
                    "A schedule that is repeated ends the same: the function is deterministic.",
                    Truth.UNDECIDED if self._unsteady else Truth.HELD,
                    f"not so: {', '.join(self._unsteady[:5])}"
                    if self._unsteady
                    else f"{self._repeated or self._plan.times} repeated",
                    remedy="Look for what the function decides by the clock, by random() or by what other keys left."
                    if self._unsteady
                    else "",
                )
            )
        return findings

    def _not_covered(self) -> tuple[str, ...]:
        return (
            f"more than {self._plan.calls} calls at once, and isolation levels other than {self._controller.isolation}",
            *_NOT_COVERED,
            *self._rewritten.remarks,
        )
