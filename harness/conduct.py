"""The one conductor: plan -> crew -> history -> findings -> run record.

Whoever makes a load goes through here: runs, staging, the paired comparison, the overload. They differ in what they
vary (the doors, where keys come from, what is asked afterwards), and not in how they run.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn, TypeVar

from harness.contracts.contract import OUT_OF_TIME, Contract, Effect
from harness.contracts.invariants import Invariant, Violations
from harness.environment.own import CONNECT_TIMEOUT
from harness.environment.postgrest import PostgREST
from harness.environment.servers import connect
from harness.errors import HarnessError
from harness.history import WARM_UP, History
from harness.load.burst import CALIBRATION_CALLS, KEYS_MARGIN, Burst
from harness.load.crew import INTERRUPTED, MOST_KEPT, Crew, Done, without_collections
from harness.load.firing import clock
from harness.load.pattern import LATE, Keys, Pattern
from harness.load.race import PROOF, Race
from harness.records import RunRecord
from harness.signals import uninterrupted
from harness.targets import conditions
from harness.targets.state import Connect
from harness.targets.target import SLOW, Span, Target
from harness.verdict import charts, invariants, overlap, thresholds
from harness.verdict.findings import Finding, Truth, pluralize
from harness.verdict.judge import judge_history
from harness.verdict.metrics import Metrics, measure

T = TypeVar("T")

Progress = Callable[[str, int, float | None], None]
"""Told, about ten times a second: the pattern's name, the calls made so far, and the share of its time that is over
(None: its end depends on its calls)."""

_ACTOR_PATIENCE = 10.0
"""Seconds that an actor may go on after the load."""

Actor = Callable[[Crew], None]
"""Somebody beside the load, on a thread of its own from its start to its end: it kills a server at the n-th answer, or
changes the schema under traffic. It looks at `crew.stopped`, and at `crew.calls` for how many were answered."""


@dataclass(frozen=True, slots=True)
class KeySource:
    """Where a load's keys come from."""

    fresh: Callable[[int], Sequence[Hashable]]
    """So many keys that no call has used; fewer where there are no more."""
    warm_up: Callable[[int], Sequence[Hashable]]
    """So many keys to warm connections with, one each."""
    close: Callable[[], object] = lambda: None
    """No more are wanted: the load begins, or, of a burst that goes by the clock, is over."""
    missing: Callable[[int], Sequence[Hashable]] | None = None
    """So many keys that are not there; None: the contract gives each by itself."""


@dataclass(frozen=True, slots=True)
class Load:
    """What is to be fired: a plan, at a function, through doors that the clients take in turn."""

    pattern: Pattern
    contract: Contract
    doors: Sequence[Target]
    timeout: float
    """Seconds for one call."""
    progress: Progress | None = None
    beside: Actor | None = None
    connect: Connect | None = None
    """To the database, where a contract from a file has its answers read after the load."""

    def crew(self) -> Crew:
        """Its clients, not yet connected."""
        doors, progress, seconds = self.doors, self.progress, self.pattern.seconds

        def tell(calls: int) -> None:
            assert progress is not None
            over = None if seconds is None else min((clock() - crew.started) / 1e9 / seconds, 1.0)
            progress(self.pattern.name, calls, over)

        crew = Crew(
            self.contract,
            lambda client: doors[client % len(doors)],
            self.pattern.clients,
            timeout=self.timeout,
            overlap=self.pattern.overlap,
            progress=None if progress is None else tell,
        )
        return crew


@dataclass(frozen=True, slots=True)
class Fired:
    """What a load left; of one that was interrupted, until then."""

    load: Load
    history: History
    spans: Sequence[tuple[int, Hashable, Span]]
    lost: bool = False
    """Whether a client's connection was lost."""
    timeouts: int = 0
    """Calls that outlasted the timeout and were cancelled."""
    notes: tuple[str, ...] = ()
    interrupted: bool = False


@dataclass(frozen=True, slots=True)
class Judged:
    """What a history comes to."""

    metrics: Metrics
    overlap: overlap.Overlap | None
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Lost:
    """What a run needs and lost: it need not be asked again."""

    what: str
    error: HarnessError

    def again(self) -> NoReturn:
        """In place of a connection. Raises what was said when it was last asked."""
        raise self.error


@dataclass(frozen=True, slots=True)
class Told:
    """What a record says beyond the load and its findings."""

    repeat: str = ""
    plan: Mapping[str, Any] = field(default_factory=dict)
    """Beyond the pattern's own."""
    notes: tuple[str, ...] = ()
    lost: Lost | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@without_collections()
def conduct(load: Load, keys: KeySource, keep: Callable[[Fired], T]) -> T:
    """Connect, warm, calibrate where that is needed, fire, and give what came of it to `keep`.

    Ctrl-C, also one while it is kept, has it kept as interrupted, then raised again. Raises HarnessError when the load
    cannot be made.
    """
    crew = load.crew()
    unknown: list[Hashable] = []
    notes: list[str] = []

    def fired(*, interrupted: bool) -> Fired:
        conditions.settle(crew.logs, load.contract, load.connect)
        history = crew.history(unknown)
        return Fired(load, history, crew.spans(), crew.lost, crew.timeouts, tuple(notes), interrupted)

    try:
        try:
            crew.open(keys.warm_up(load.pattern.clients))
            wanted = _fresh_keys(load.pattern, crew, keys)
            unknown += _unknown(load, keys)
            used_up = ""
            if isinstance(load.pattern, Burst) and load.pattern.duration is not None:
                with _beside(load.beside, crew):
                    used_up = _burst(load, load.pattern.duration, crew, keys, wanted)
                keys.close()
            else:
                fresh = keys.fresh(wanted)
                keys.close()
                with _beside(load.beside, crew):
                    crew.fire(load.pattern, Keys(fresh, unknown))
            notes += _ended_early(load.pattern, crew, used_up)
        finally:
            crew.close()
        return keep(fired(interrupted=False))
    except KeyboardInterrupt:
        # What was seen until then is kept, and marked.
        with uninterrupted():
            keep(fired(interrupted=True))
        raise


_CALIBRATION = 0.5
"""Seconds of that burst: calls that are slow need not be many to tell their rate."""


def calibrate(crew: Crew, keys: KeySource) -> float:
    """The rate, in calls per second, of a short burst that no figure is taken from."""
    clients = len(crew.clients)
    probe = Burst(clients, calls=CALIBRATION_CALLS, longest=_CALIBRATION, phase=WARM_UP)
    if all(client.target.slow for client in crew.clients):
        return clients / SLOW
    calls = sum(map(len, crew.fire(probe, Keys(keys.fresh(clients * CALIBRATION_CALLS)))))
    return calls / ((clock() - crew.started) / 1e9)


def judge(
    fired: Fired,
    asked: Callable[[], Sequence[Violations]] | None = None,
    queries: Sequence[Invariant] = (),
    *,
    with_thresholds: bool = True,
) -> Judged:
    """The findings on a load: thresholds, the contract's claims, overlap, invariants.

    `asked` gives the database's answers to `queries`; it is called last, so that the server works meanwhile.
    """
    contract, history = fired.load.contract, fired.history
    expected = fired.load.pattern.expected(contract)
    claims = judge_history(history, contract)  # first: it decodes the answers, which tell whether one can be read
    metrics = measure(history, contract, expected, LATE)
    overlapped = None
    if fired.spans:
        variants = [variant.name for variant in contract.variants]
        variant_of = {phase: each for log in history.logs for phase, each in zip(log.phases, log.variants, strict=True)}
        overlapped = overlap.measure(history.operations(), fired.spans, contract.capacity, variants, variant_of)
    findings = thresholds.judge(metrics, contract, expected) if with_thresholds else []
    findings += claims
    if overlapped is not None:
        findings.append(overlap.judge(overlapped))
    if asked is not None:
        findings += [invariants.judge(query, found) for query, found in zip(queries, asked(), strict=True)]
    return Judged(metrics, overlapped, tuple(findings))


def record_of(fired: Fired, judged: Judged, told: Told, *, kind: str = "") -> RunRecord:
    """The record of one load; what is not held carries the command that repeats it."""
    load, history, metrics = fired.load, fired.history, judged.metrics
    findings = repeated_by(told.repeat, judged.findings)
    rounds = () if judged.overlap is None else judged.overlap.rounds
    telling = charts.telling_round(findings, {each.phase: each.at_once for each in rounds})
    bars = () if telling is None else charts.bars(history, telling, load.doors[0].span)
    return RunRecord(
        kind=kind or load.pattern.name,
        target=" and ".join(dict.fromkeys(door.name for door in load.doors)),
        plan=load.pattern.plan_values() | dict(told.plan),
        metrics=metrics,
        overlap=judged.overlap,
        findings=findings,
        notes=(*fired.notes, *told.notes, *_notes(fired, metrics, lost=told.lost)),
        server_lost=told.lost is not None,
        interrupted=fired.interrupted,
        repeat=told.repeat,
        details=told.details,
        charts=charts.measure(history.calls(), metrics.durations, bars),
    )


def repeated_by(command: str, findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """The findings; those that are not held, and have none of their own, with the command that repeats them."""
    return tuple(f if f.truth is Truth.HELD or f.replay else replace(f, replay=command) for f in findings)


def what_was_lost(fired: Fired, dsn: str) -> Lost | None:
    """What the load needs and does not answer any more, where one of its clients lost its connection."""
    if not fired.lost:
        return None
    try:
        connect(dsn, seconds=min(fired.load.timeout, CONNECT_TIMEOUT)).close()
    except HarnessError as error:
        return Lost("the server", error)
    for door in fired.load.doors:
        if isinstance(postgrest := getattr(door, "postgrest", None), PostgREST) and not postgrest.answers():
            return Lost("PostgREST", HarnessError("PostgREST answers no more.", tried=postgrest.how))
    return None


def _unknown(load: Load, keys: KeySource) -> Sequence[Hashable]:
    count = load.pattern.unknown_keys
    return [load.contract.unknown_key() for _ in range(count)] if keys.missing is None else keys.missing(count)


def _fresh_keys(pattern: Pattern, crew: Crew, keys: KeySource) -> int:
    """How many fresh keys the pattern needs, after a short burst where that depends on the calls' rate."""
    wanted = pattern.fresh_keys(None)
    if wanted is None:
        wanted = pattern.fresh_keys(calibrate(crew, keys))
    assert wanted is not None
    return wanted


_FIRST_KEYS = 500
"""How many keys are asked for first: each may be a table of its own, and one transaction can lock only so many."""

_WORTH_IT = 0.02
"""The share of a burst's duration that is worth making more keys for."""


def _burst(load: Load, seconds: float, crew: Crew, keys: KeySource, wanted: int) -> str:
    """Fire a burst that goes by the clock; why it ended before its time, where it had no more keys.

    When calls come faster than in the calibration, and use its keys up, the burst stops, more are made, and it goes on
    as if nothing had been: still nothing of the harness writes while calls are in flight. Making keys may take as long
    as the burst itself, and no longer.
    """
    patience = max(seconds, 1.0)
    made, making = set[Hashable](), 0.0
    while True:
        ended, spent, earlier = clock(), 0, tuple(crew.logs)
        if made:
            spent = ended - crew.started
            left = seconds - spent / 1e9
            if crew.lost or crew.full or crew.out_of_time or crew.stopping or left < _WORTH_IT * seconds:
                return ""
            if making > patience:
                return f"{load.contract.new_keys} made {len(made) / making:.0f} a second"
            wanted = math.ceil(len(made) / spent * 1e9 * left * KEYS_MARGIN) + load.pattern.clients
        try:
            fresh = _made(keys, wanted, patience - making)
        except HarnessError as error:
            if not made:
                raise
            return f"there were no more: {error.what}"
        if not made.isdisjoint(fresh):
            return f"{load.contract.new_keys} gave the same again"
        made.update(fresh)
        making += (clock() - ended) / 1e9
        crew.fire(load.pattern, Keys(fresh), spent=spent)
        if spent:
            for log in earlier:
                log.put_off(crew.started + spent - ended)


def _made(keys: KeySource, count: int, seconds: float) -> list[Hashable]:
    """So many fresh keys, or those that could be made in so many seconds."""
    made, size, began = list(keys.fresh(min(_FIRST_KEYS, count))), _FIRST_KEYS, clock()
    while len(made) < count and (clock() - began) / 1e9 < seconds:
        size *= 2
        more = keys.fresh(min(size, count - len(made)))
        if not set(made).isdisjoint(more):
            return list(keys.fresh(count))  # one that counts from 1 each time
        made += more
    return made


def _ended_early(pattern: Pattern, crew: Crew, used_up: str) -> Iterator[str]:
    """Why less was done than was planned, in sentences."""
    if crew.lost and not crew.out_of_time:
        return
    if crew.full:
        yield (
            f"it ended before its time, when the calls' answers had filled {MOST_KEPT // 2**20} MB: "
            "let the contract name the columns that matter and no others, or its statement select them"
        )
        return
    took = (clock() - crew.started) / 1e9
    if isinstance(pattern, Race) and pattern.limit is not None:
        made = max((phase for log in crew.logs for phase in log.phases), default=0)
        if made < pattern.rounds:
            why = f"calls had failed in {PROOF} of them" if pattern.proved(crew) else f"{pattern.limit:g} s were over"
            yield f"{made} of {pattern.rounds} rounds were made, then {why}; give --rounds to have them all"
    if isinstance(pattern, Burst) and pattern.seconds is not None and used_up:
        made = sum(phase != WARM_UP for log in crew.logs for phase in log.phases)
        yield (
            f"it ended after {took:.1f} of {pattern.seconds:g} s, when all {made} fresh keys were used up: {used_up}; "
            "give --calls to set their number"
        )


@contextmanager
def _beside(actor: Actor | None, crew: Crew) -> Iterator[None]:
    """Let the actor play while the load is fired; an error of its own is raised when it is over."""
    if actor is None:
        yield
        return
    errors: list[BaseException] = []
    ended = Done()

    def play() -> None:
        try:
            actor(crew)
        except BaseException as error:
            errors.append(error)
        finally:
            ended.set()

    threading.Thread(target=play, name="actor", daemon=True).start()
    try:
        yield
    finally:
        crew.stopped.set()
        if not ended.wait(_ACTOR_PATIENCE):
            errors.append(HarnessError(f"What ran beside the load did not end within {_ACTOR_PATIENCE:g} s of it."))
    if errors:
        raise errors[0]


def _notes(fired: Fired, metrics: Metrics, *, lost: Lost | None) -> Iterator[str]:
    doubts = [call.outcome.code for call in fired.history.calls() if call.outcome.effect is Effect.IN_DOUBT]
    given_up, late = doubts.count(INTERRUPTED), doubts.count(OUT_OF_TIME)
    doubtful = len(doubts) - given_up - late
    if lost is not None:
        yield f"{lost.what} was lost during the run; nothing after that could be judged"
    if doubtful:
        yield f"in doubt: {pluralize(doubtful, 'call')} whose connection died before the answer"
    if given_up:
        yield f"in doubt: {pluralize(given_up, 'call')} given up when the run was ended"
    if late:
        over = f"when the time was over, {fired.load.pattern.patience:g} s after the start"
        how = "with --calls or --rounds each has the time of --timeout"
        yield f"in doubt: {pluralize(late, 'call')} without an answer {over}; {how}"
    if fired.timeouts:
        yield f"cancelled after {fired.load.timeout:g} s: {pluralize(fired.timeouts, 'call')}"
    if metrics.late:
        yield f"late by over {LATE * 1000:g} ms, which counts as latency: {pluralize(metrics.late, 'call')}"
