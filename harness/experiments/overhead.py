"""What HTTP adds: the same plan by SQL and through PostgREST, in blocks that alternate on one database.

Blocks go A B B A A B B A ..., so that whatever drifts during the run (a growing table, a busy neighbour) meets both
doors alike; each pair of neighbours gives one difference, and the interval comes from a bootstrap over these.

Blocks, not calls, are the sample: calls of one block share its weather and are no independent draws. The bootstrap is
the studentized one (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 12): with the six to
sixteen pairs of a run the plain percentile interval holds the true value in 83-92 % of simulated runs instead of
95 %, this one in 93-96 % (`tests/unit/test_overhead.py`).
"""

from __future__ import annotations

import math
import os
import random
import time
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.conduct import Fired, KeySource, Load, calibrate, conduct, repeated_by, what_was_lost
from harness.contracts.contract import Contract, Effect, Operation
from harness.environment.database import Database
from harness.environment.postgrest import PostgREST
from harness.errors import HarnessError, UsageError
from harness.history import History
from harness.load.burst import KEYS_MARGIN, Burst
from harness.load.crew import Crew
from harness.load.pattern import Keys, Pattern
from harness.load.race import Race
from harness.options import FEWEST_PAIRS
from harness.records import RunRecord
from harness.run import Harness
from harness.targets import conditions, state
from harness.targets.http import PARTS, HttpTarget, ServerClock
from harness.targets.http_serving import HttpOptions, open_http
from harness.targets.sql import SqlTarget
from harness.targets.target import Target
from harness.verdict import invariants, overlap
from harness.verdict.findings import SHOWN, Finding, Truth, format_operation
from harness.verdict.judge import judge_history
from harness.verdict.metrics import percentile, too_many_lost

SHARES = (0.5, 0.95, 0.99)
_RESAMPLES = 4000
_CONFIDENCE = 0.95
SQL, HTTP = "sql", "http"


@dataclass(frozen=True, slots=True)
class Block:
    """One door's calls in one block."""

    target: str
    calls: int
    seconds: float
    durations: tuple[float, ...]
    """Sorted, in milliseconds."""
    client_cpu: float
    """CPU seconds of the harness's own process."""
    postgrest_cpu: float | None
    """CPU seconds of PostgREST, where its process can be seen from here."""


@dataclass(frozen=True, slots=True)
class Added:
    """The latency at one percentile, in milliseconds: the mean over blocks of each door's own percentile."""

    share: float
    sql: float
    http: float
    added: float
    low: float
    """95 % confidence interval of `added`."""
    high: float


@dataclass(frozen=True, slots=True)
class Anatomy:
    """Where the time of a call goes, as means per call: milliseconds of wall time, microseconds of CPU."""

    sql_ms: float
    http_ms: float
    function_ms: float | None
    """The function's own time in the database, for HTTP's calls, as the database counts it; None where it may not."""
    around_ms: float | None
    """The rest of an HTTP call: PostgREST, its transaction around the function, HTTP and the client."""
    server_timing: Mapping[str, float]
    """Means of PostgREST's Server-Timing parts, in milliseconds."""
    server_timing_counts: str
    """What those parts are: `wall time` or `CPU time of the whole process`, found out by a pause of known length.

    Empty where PostgREST gives none.
    """
    client_cpu_us: Mapping[str, float]
    postgrest_cpu_us: float | None


def overhead(
    harness: Harness,
    options: HttpOptions,
    *,
    clients: int = 10,
    pairs: int = 8,
    seconds: float = 1.0,
    rounds: int = 60,
) -> RunRecord:
    """Compare both doors on one fresh database; the record is kept in `harness.runs` as well.

    `pairs` of blocks of `seconds` each, then a race of `rounds` by SQL, one by HTTP, and one with every other client by
    HTTP. The record's `details` hold the comparison. Raises UsageError for too few pairs or clients, and HarnessError
    when there is no PostgREST.
    """
    if pairs < FEWEST_PAIRS:
        raise UsageError(
            f"{pairs} pairs of blocks are too few for an interval.", next_step=f"give {FEWEST_PAIRS} pairs or more"
        )
    if clients < 4:
        raise UsageError(
            f"{clients} clients cannot race by SQL and by HTTP at once.", next_step="give 4 clients or more"
        )
    plan = {"clients": clients, "pairs": pairs, "seconds": seconds, "rounds": rounds}
    repeat = harness.command("overhead", *(f"--{name}={value:g}" for name, value in plan.items()))
    with harness.template.checkout() as database:
        bench = _Bench(harness, database, options)
        blocks, anatomy, histories = bench.bursts(Burst(clients, duration=seconds), pairs)
        races = bench.races(Race(clients, rounds))
        merged = History([log for h in (*histories, *(r.history for r in races)) for log in h.logs], histories[0].zero)
        asked = state.ask(harness.invariants, merged.stream(), database.connect)
        findings = [
            *judge_history(merged, harness.contract),
            *(_renamed(r.overlapped, r.name) for r in races),
            _equivalent(histories, races, harness.contract),
            *(invariants.judge(query, found) for query, found in zip(harness.invariants, asked(), strict=True)),
        ]
    added = added_latency(blocks)
    record = RunRecord(
        kind="overhead",
        target=f"{SQL} and {HTTP}",
        plan=plan,
        metrics=None,
        overlap=None,
        findings=repeated_by(repeat, findings),
        notes=tuple(_notes(added, blocks, anatomy)),
        server_lost=any(race.lost for race in races),
        repeat=repeat,
        details={
            "added": [asdict(each) for each in added],
            "rates": {name: _rate(blocks, name) for name in (SQL, HTTP)},
            "anatomy": asdict(anatomy),
            "outcomes": {**_labels(histories), **{f"race {r.name}": _by_target(r.history) for r in races}},
            "http": bench.details,
        },
    )
    return harness.keep(record)


def added_latency(blocks: Sequence[Block], shares: Sequence[float] = SHARES, seed: int = 1) -> tuple[Added, ...]:
    """What HTTP adds at each percentile; the n-th sql block and the n-th http block are a pair."""
    found = []
    for share in shares:
        by_target = {name: [percentile(b.durations, share) for b in blocks if b.target == name] for name in (SQL, HTTP)}
        differences = [http - sql for sql, http in zip(by_target[SQL], by_target[HTTP], strict=True)]
        low, high = interval(differences, seed)
        sql, http = _mean(by_target[SQL]), _mean(by_target[HTTP])
        found.append(Added(share, sql, http, http - sql, low, high))
    return tuple(found)


def interval(values: Sequence[float], seed: int = 1) -> tuple[float, float]:
    """The 95 % confidence interval of the values' mean, by the studentized bootstrap; the same for the same seed."""
    draw = random.Random(seed)  # noqa: S311 - a repeatable figure, not a secret
    mean, error = _mean(values), _standard_error(values)
    ratios = []
    for _ in range(_RESAMPLES):
        sample = draw.choices(values, k=len(values))
        spread = _standard_error(sample)
        if spread > 0:
            ratios.append((_mean(sample) - mean) / spread)
    if not ratios:
        return mean, mean  # all values are the same
    ratios.sort()
    tail = (1 - _CONFIDENCE) / 2
    return mean - error * percentile(ratios, 1 - tail), mean - error * percentile(ratios, tail)


@dataclass(frozen=True, slots=True)
class _Raced:
    name: str
    history: History
    overlapped: Finding
    lost: bool = False


class _Bench:
    """Both doors on one database."""

    def __init__(self, harness: Harness, database: Database, options: HttpOptions) -> None:
        self._harness = harness
        self._database = database
        self._options = options
        self.details: dict[str, Any] = {}

    def bursts(self, plan: Burst, pairs: int) -> tuple[list[Block], Anatomy, list[History]]:
        """The alternating blocks, where their time went, and each door's history."""
        harness = self._harness
        with self._database.connect() as connection:
            harness.check_connections(Burst(plan.clients + self._options.pool, calls=1), connection)
        blocks: list[Block] = []
        with closing(self._sql()) as sql, closing(self._http()) as http:
            postgrest = http.postgrest
            assert postgrest is not None
            crews = {door.name: self._load(plan, door).crew() for door in (sql, http)}
            source = KeySource(self._new_keys, self._new_keys)
            try:
                for crew in crews.values():
                    crew.open(source.warm_up(plan.clients))
                rates = {name: calibrate(crew, source) for name, crew in crews.items()}
                keys = {name: self._keys(rate, plan, pairs) for name, rate in rates.items()}
                http.evidence()  # what the calibration left is not of the blocks
                for name in _order(pairs):
                    crew = crews[name]
                    blocks.append(self._block(plan, crew, next(keys[name]), postgrest))
                evidence = http.evidence()
                clock = http.server_clock()
                self.details = http.details(evidence)
            finally:
                for crew in crews.values():
                    crew.close()
        for crew in crews.values():
            conditions.settle(crew.logs, harness.contract, self._database.connect)
        # Its sessions are gone now, and have reported all that they counted.
        function = postgrest.function_time(harness.contract.function.name)
        timing = {part: _mean(evidence.server_timing[part]) for part in PARTS if evidence.server_timing[part]}
        return blocks, _anatomy(blocks, function, timing, clock), [crew.history(()) for crew in crews.values()]

    def races(self, plan: Race) -> list[_Raced]:
        """The race by SQL, by HTTP, and by both."""
        harness = self._harness
        found = []
        with closing(self._sql()) as sql, closing(self._http()) as http:
            doors: tuple[Target, Target] = (sql, http)
            for name, first, second in ((SQL, 0, 0), (HTTP, 1, 1), ("mixed", 0, 1)):
                load = self._load(plan, doors[first], doors[second])
                with self._database.connect() as connection:
                    fired = conduct(load, harness.keys(connection), _whole)
                measured = overlap.measure(fired.history.operations(), fired.spans, harness.contract.capacity)
                assert measured is not None
                lost = what_was_lost(fired, self._database.dsn) is not None
                found.append(_Raced(name, fired.history, overlap.judge(measured), lost))
        return found

    def _new_keys(self, count: int) -> list[Hashable]:
        with self._database.connect() as connection:
            return self._harness.new_keys(connection, count)

    def _sql(self) -> SqlTarget:
        return SqlTarget(self._database.dsn, self._harness.contract)

    def _http(self) -> HttpTarget:
        return open_http(self._harness.server, self._database, self._harness.contract, self._options)

    def _load(self, plan: Pattern, *doors: Target) -> Load:
        harness = self._harness
        return Load(plan, harness.contract, doors, harness.options.timeout, connect=self._database.connect)

    def _keys(self, rate: float, plan: Burst, blocks: int) -> Iterator[Keys]:
        """Fresh keys for each block, all made before the first: making them is work that a block would feel."""
        assert plan.duration is not None
        each = math.ceil(rate * plan.duration * KEYS_MARGIN) + plan.clients
        keys: list[Hashable] = self._new_keys(each * blocks)
        return iter([Keys(keys[at * each : (at + 1) * each]) for at in range(blocks)])

    def _block(self, plan: Burst, crew: Crew, keys: Keys, postgrest: PostgREST) -> Block:
        postgrest_cpu = _cpu(postgrest.pid)
        logs = crew.fire(plan, keys)
        if not any(client.opened.alive for client in crew.clients):
            raise _gone(postgrest)
        (log,) = logs
        client_cpu = time.process_time() - crew.cpu_started
        ended_cpu = _cpu(postgrest.pid)
        timed = zip(log.called, log.returned, log.outcomes, strict=True)
        durations = [(returned - called) / 1e6 for called, returned, outcome in timed if not outcome.lost]
        last = max(log.returned, default=crew.started)
        return Block(
            crew.clients[0].target.name,
            len(durations),
            (last - crew.started) / 1e9,
            tuple(sorted(durations)),
            client_cpu,
            None if postgrest_cpu is None or ended_cpu is None else ended_cpu - postgrest_cpu,
        )


def _gone(postgrest: PostgREST) -> HarnessError:
    return HarnessError(
        "Every client lost its connection, so there is nothing to compare.",
        tried=f"calls by SQL and through {postgrest.describe()}, whose process {postgrest.pid} was started here",
        next_step="see what ended the server or PostgREST, and run it again",
    )


def _whole(fired: Fired) -> Fired:
    return fired


def _order(pairs: int) -> list[str]:
    """A B, B A, A B, ..."""
    return [name for pair in range(pairs) for name in ((SQL, HTTP) if pair % 2 == 0 else (HTTP, SQL))]


def _anatomy(
    blocks: Sequence[Block], function: tuple[int, float] | None, timing: Mapping[str, float], clock: ServerClock | None
) -> Anatomy:
    mine = {name: [b for b in blocks if b.target == name] for name in (SQL, HTTP)}
    calls = {name: sum(b.calls for b in group) for name, group in mine.items()}
    wall = {name: math.fsum(d for b in group for d in b.durations) / calls[name] for name, group in mine.items()}
    own = None if function is None or not function[0] else function[1] / function[0] * 1000
    visible = [b.postgrest_cpu for b in mine[HTTP] if b.postgrest_cpu is not None]
    return Anatomy(
        wall[SQL],
        wall[HTTP],
        own,
        None if own is None else wall[HTTP] - own,
        {} if clock is None else {part: figure * clock.unit * 1000 for part, figure in timing.items()},
        "" if clock is None else clock.counts,
        {name: sum(b.client_cpu for b in group) / calls[name] * 1e6 for name, group in mine.items()},
        sum(visible) / calls[HTTP] * 1e6 if visible else None,
    )


def _cpu(pid: int | None) -> float | None:
    """CPU seconds of a process so far, where /proc tells."""
    if pid is None:
        return None
    try:
        # After the command's name in brackets, which may hold blanks: utime and stime are fields 14 and 15 of proc(5).
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _equivalent(histories: Sequence[History], races: Sequence[_Raced], contract: Contract) -> Finding:
    """Whether the function does the same through both doors, as far as a caller and the database can tell."""
    classes: dict[str, dict[str, set[str]]] = {"burst": {}, "race": {}}
    calls = lost = 0
    for kind, group in (("burst", histories), ("race", [r.history for r in races])):
        for history in group:
            for operation in history.stream():
                calls += 1
                lost += operation.outcome.lost
                if not operation.outcome.lost:
                    classes[kind].setdefault(operation.target, set()).add(_class_of(operation))
    evidence: list[dict[str, Any]] = [
        {"reason": f"{kind}: {', '.join(sorted(doors[SQL] ^ doors[HTTP]))} through one door only", "operations": []}
        for kind, doors in classes.items()
        if doors.get(SQL) != doors.get(HTTP)
    ]
    wrong = 0
    for race in races:
        for key in race.history.by_key():
            winners = [o for o in key.operations if o.outcome.label == contract.accepted and not o.rolled_back]
            excused = any(o.rolled_back or o.outcome.effect in (Effect.FAILED, Effect.IN_DOUBT) for o in key.operations)
            if len(winners) > contract.capacity or (not winners and not excused):
                wrong += 1
                if wrong <= SHOWN:
                    reason = f"race {race.name}: {len(winners)} winners on one ticket"
                    evidence.append({"reason": reason, "operations": [format_operation(o) for o in key.operations]})
    unproved = [r.name for r in races if r.overlapped.truth is not Truth.HELD]
    unfair = too_many_lost(lost, calls)
    truth = (
        Truth.BROKEN if wrong or (evidence and not unfair) else Truth.UNDECIDED if unproved or unfair else Truth.HELD
    )
    observed = "; ".join(
        f"{kind}: " + ", ".join(f"{door} {'/'.join(sorted(found))}" for door, found in sorted(doors.items()))
        for kind, doors in classes.items()
    )
    if unproved:
        observed += f"; too few rounds overlapped in the race: {', '.join(unproved)}"
    if lost:
        observed += f"; {lost} of {calls} calls lost to the environment"
    return Finding(
        "http_outcomes_equivalent",
        "The function does the same by SQL and by HTTP: the same classes of outcomes, and one winner per ticket by "
        "either door and with callers of both.",
        truth,
        observed,
        "the same classes, one winner",
        tuple(evidence),
        "Look at what differs between the doors: the role and its rights, the search path, PostgREST's pre-request "
        "function, its statement timeout, its transaction's isolation.",
    )


def _class_of(operation: Operation) -> str:
    """Effect, and for an error its code: which refusal a loser gets is a matter of timing, not of the door."""
    outcome = operation.outcome
    return outcome.effect.value if outcome.code is None else f"{outcome.effect.value} {outcome.code}"


def _renamed(finding: Finding, race: str) -> Finding:
    return Finding(f"{finding.id}.{race}", f"{finding.claim} ({race})", finding.truth, finding.observed, finding.limit)


def _by_target(history: History) -> dict[str, dict[str, int]]:
    found: dict[str, Counter[str]] = {}
    for operation in history.stream():
        found.setdefault(operation.target, Counter())[operation.outcome.label] += 1
    return {target: dict(sorted(labels.items())) for target, labels in sorted(found.items())}


def _labels(histories: Sequence[History]) -> dict[str, Any]:
    merged: dict[str, dict[str, int]] = {}
    for history in histories:
        merged |= _by_target(history)
    return {"burst": merged}


def _notes(added: Sequence[Added], blocks: Sequence[Block], anatomy: Anatomy) -> Iterator[str]:
    for each in added:
        yield (
            f"p{each.share * 100:g}: {each.sql:.2f} ms by SQL, {each.http:.2f} ms by HTTP; "
            f"HTTP adds {each.added:.2f} ms ({each.low:.2f} to {each.high:.2f} with 95 % confidence)"
        )
    yield f"throughput: {_rate(blocks, SQL):.0f}/s by SQL, {_rate(blocks, HTTP):.0f}/s by HTTP"
    where = f"of {anatomy.http_ms:.2f} ms by HTTP on average"
    if anatomy.function_ms is not None:
        where += f", {anatomy.function_ms:.2f} ms are the function's own and {anatomy.around_ms:.2f} ms around it"
    if anatomy.postgrest_cpu_us is not None:
        where += f"; PostgREST takes {anatomy.postgrest_cpu_us:.0f} us of CPU per call"
    yield where
    if anatomy.server_timing:
        parts = ", ".join(f"{part} {figure:.3f}" for part, figure in anatomy.server_timing.items())
        yield f"Server-Timing in ms ({anatomy.server_timing_counts}): {parts}"


def _rate(blocks: Sequence[Block], target: str) -> float:
    mine = [b for b in blocks if b.target == target]
    return sum(b.calls for b in mine) / sum(b.seconds for b in mine)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _standard_error(values: Sequence[float]) -> float:
    mean = _mean(values)
    return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values))
