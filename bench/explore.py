"""Exploration of the shipped function: schedules per second, time to exhaust, and isolationtester on the same steps.

isolationtester runs the statements as they stand in explore.spec; here they run inside the function, each call with a
step more (its start). Both sides' steps never block. Without isolationtester (Debian: postgresql-server-dev-all, or
postgresql-15) that part is left out.
"""

import subprocess
import time
from pathlib import Path

from bench._support import median, opened
from harness.run import Harness
from harness.schedules import Exploration, Plan, explore

RUNS = 5
SPEC = Path(__file__).with_name("explore.spec")
FIRST = ("own scanner, qr",)


def main() -> None:
    with opened() as found:
        two = [explored(found, Plan(calls=2, variants=FIRST, keys=(1,))) for _ in range(RUNS)]
        show("two calls on one ticket", two, "under 0.5 s")
        show("two calls, every variant, on one and two tickets", [explored(found, Plan()) for _ in range(RUNS)])
        show("three calls on one ticket", [explored(found, Plan(calls=3, variants=FIRST, keys=(1,)))] * 1, "under 3 s")
        whole = Plan(calls=2, variants=FIRST, keys=(2,), reduction=False)
        tester = find_isolationtester()
        ours, theirs = [], []
        for _ in range(RUNS):
            taken = explored(found, whole)
            ours.append(taken.schedules / taken.seconds)
            if tester is not None:
                theirs.append(permutations_per_second(found, tester))
        print(f"never blocking, nothing reduced: {median(ours):.0f} schedules/s (median of {RUNS}; at least 300)")
        if theirs:
            ratio = median([a / b for a, b in zip(ours, theirs, strict=True)])
            print(f"isolationtester, the same statements: {median(theirs):.0f} permutations/s")
            print(f"schedules/s : permutations/s = {ratio:.2f} (median of {RUNS} pairs; at least 0.8)")
        else:
            print("isolationtester: not found, left out")


def explored(found: Harness, plan: Plan) -> Exploration:
    """One exploration with all that belongs to it: rewriting, connections, judgement."""
    with found.template.clone() as database:
        result = explore(database.dsn, found.contract, plan, found.invariants)
    assert result.truth.value == "held", result.summary()
    assert result.exhausted
    return result


def show(what: str, taken: list[Exploration], goal: str = "") -> None:
    seconds = median([t.seconds for t in taken])
    one = taken[0]
    aim = f"; {goal}" if goal else ""
    print(
        f"{what}: {one.schedules} schedules ({one.before_reduction} before reduction) exhausted in {seconds:.2f} s "
        f"(median of {len(taken)}{aim}), {one.schedules / seconds:.0f}/s"
    )


def find_isolationtester() -> Path | None:
    """Debian's; the newest, if there are several."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/lib/pgxs/src/test/isolation/isolationtester"))
    return found[-1] if found else None


def permutations_per_second(found: Harness, tester: Path) -> float:
    with found.template.clone() as database, SPEC.open() as spec:
        started = time.perf_counter()
        done = subprocess.run([tester, database.dsn], stdin=spec, capture_output=True, text=True, check=True)
        took = time.perf_counter() - started
    return done.stdout.count("starting permutation") / took


if __name__ == "__main__":
    main()
