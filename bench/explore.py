"""Exploration of the shipped function: schedules per second, time to exhaust, and isolationtester on the same steps.

isolationtester runs the statements as they stand in explore.spec; here they run inside the function, and all that it
touches is measured. Both sides' steps never block, and both carry out each of the 70 orders five times, here with the
arguments of five variants; starting up counts on both sides. Processor time, of client and server together, is steadier
than the clock where others use the machine too. Without isolationtester (Debian: postgresql-server-dev-all, or
postgresql-15) that part is left out.
"""

import os
import resource
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from bench._support import median, opened
from harness.environment.database import Database
from harness.run import Harness
from harness.schedules import Exploration, Plan, explore

RUNS = 5
SPEC = Path(__file__).with_name("explore.spec")
FIRST = ("own scanner, qr",)


def main() -> None:
    with opened() as found:
        one = [explored(found, Plan(calls=2, variants=FIRST, keys=(1,))) for _ in range(RUNS)]
        show("two calls on one ticket", one, "under 0.25 s")
        every = [explored(found, Plan()) for _ in range(RUNS)]
        show("two calls, every variant, on one and two tickets", every, "under 0.35 s")
        three = [explored(found, Plan(calls=3, variants=FIRST, keys=(1,))) for _ in range(RUNS)]
        show("three calls on one ticket", three, "under 0.4 s")
        side_by_side(found)
        against_isolationtester(found)


def side_by_side(found: Harness) -> None:
    """The longest search, by one process and by two; all that belongs to it counts, the start of the processes too."""
    took = []
    for jobs in (1, 2):
        started = time.perf_counter()
        explored = found.explore(calls=3, seconds=300, jobs=jobs, edges=False).exploration
        took.append(time.perf_counter() - started)
        assert explored.exhausted, explored.summary()
    print(
        f"three calls, every variant, on one and two tickets: {explored.schedules} schedules in {took[0]:.1f} s "
        f"(under 20 s); with two jobs in {took[1]:.1f} s, {took[0] / took[1]:.2f} times as fast (at least 1.7, where "
        f"one leaves processors idle: here are {os.cpu_count()})"
    )


def against_isolationtester(found: Harness) -> None:
    whole = Plan(calls=2, keys=(2,), reduction=False)
    tester = find_isolationtester()
    postmaster = postmaster_of(found)
    ours, theirs = [], []
    for _ in range(RUNS):
        with found.template.clone() as database:
            ours.append(rate(postmaster, lambda: through_the_engine(found, database, whole).schedules))
        if tester is not None:
            with found.template.clone() as database:
                theirs.append(rate(postmaster, lambda: permutations(tester, database.dsn)))
    print(f"never blocking, nothing reduced: {median([o.rate for o in ours]):.0f} schedules/s", end=", ")
    print(f"{median([o.cpu_ms for o in ours]):.2f} ms of processor time each (median of {RUNS})")
    if not theirs:
        print("isolationtester: not found, left out")
        return
    print(f"isolationtester, the same statements: {median([t.rate for t in theirs]):.0f} permutations/s", end=", ")
    print(f"{median([t.cpu_ms for t in theirs]):.2f} ms of processor time each")
    pairs = list(zip(ours, theirs, strict=True))
    by_clock = median([o.rate / t.rate for o, t in pairs])
    by_cpu = median([t.cpu_ms / o.cpu_ms for o, t in pairs])
    print(f"schedules/s : permutations/s = {by_clock:.2f} (median of {RUNS} pairs; at least 3)", end=", ")
    print(f"by processor time {by_cpu:.2f}")


@dataclass(frozen=True)
class Rate:
    """How fast schedules were carried out: by the clock, and processor time of client and server for each."""

    rate: float
    cpu_ms: float


def rate(postmaster: int, carry_out: Callable[[], int]) -> Rate:
    started, cpu = time.perf_counter(), cpu_seconds(postmaster)
    count = carry_out()
    return Rate(count / (time.perf_counter() - started), (cpu_seconds(postmaster) - cpu) / count * 1e3)


def cpu_seconds(postmaster: int) -> float:
    """Of this process and its children, and of the server with all that it ever started."""
    mine = sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if stat.parent.name == str(postmaster):
                ticks += sum(map(int, fields[11:15]))
            elif fields[1] == str(postmaster):
                ticks += sum(map(int, fields[11:13]))
    return mine + ticks / os.sysconf("SC_CLK_TCK")


def postmaster_of(found: Harness) -> int:
    with found.template.clone() as database, database.connect() as connection:
        row = connection.execute("SHOW data_directory").fetchone()
    assert row is not None
    return int(Path(row[0], "postmaster.pid").read_text().split()[0])


def through_the_engine(found: Harness, database: Database, plan: Plan) -> Exploration:
    return explore(database.dsn, found.contract, plan, found.invariants, together=found.template.together())


def explored(found: Harness, plan: Plan) -> Exploration:
    """One exploration with all that belongs to it: rewriting, connections, judgement."""
    with found.template.clone() as database:
        result = through_the_engine(found, database, plan)
    assert result.truth.value != "broken", result.summary()
    return result


def show(what: str, taken: list[Exploration], goal: str = "") -> None:
    seconds = median([t.seconds for t in taken])
    one = taken[0]
    aim = f"; {goal}" if goal else ""
    end = "exhausted" if all(t.exhausted for t in taken) else "not exhausted"
    print(
        f"{what}: {one.schedules} schedules ({one.before_reduction} before reduction) {end} in {seconds:.2f} s "
        f"(median of {len(taken)}{aim}), {one.schedules / seconds:.0f}/s"
    )


def find_isolationtester() -> Path | None:
    """Debian's; the newest, if there are several."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/lib/pgxs/src/test/isolation/isolationtester"))
    return found[-1] if found else None


def permutations(tester: Path, dsn: str) -> int:
    """Carry out all 70 permutations five times; how many were."""
    steps = ([f"{name}_{step}" for step in ("read", "update", "insert", "commit")] for name in "ab")
    first, second = steps
    orders = []
    for places in combinations(range(8), 4):
        a, b = iter(first), iter(second)
        orders.append("permutation " + " ".join(next(a) if at in places else next(b) for at in range(8)))
    spec = "\n".join([SPEC.read_text(), *orders * 5, ""])
    done = subprocess.run([tester, dsn], input=spec, capture_output=True, text=True, check=True)
    return done.stdout.count("starting permutation")


if __name__ == "__main__":
    main()
