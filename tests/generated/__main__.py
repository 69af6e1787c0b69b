"""`python -m tests.generated COUNT [--seed N] [--dsn DSN]`: more cases than CI draws.

With `--keyed` they are contracts on fresh keys, explored with looking ahead and choice by choice (keyed.py).
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from harness.environment.embedded import EmbeddedServer
from harness.errors import HarnessError
from tests.generated import comparer, drawn, keyed


@contextmanager
def served(dsn: str | None) -> Iterator[str]:
    if dsn is not None:
        yield dsn
        return
    with EmbeddedServer() as server:
        yield server.dsn


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", default="0")
    parser.add_argument("--dsn")
    parser.add_argument("--from", dest="first", type=int, default=0)
    parser.add_argument("--most", type=int, default=400, help="schedules of a case, unreduced")
    parser.add_argument("--level", default="read committed", help="isolation level of both calls")
    parser.add_argument("--keyed", action="store_true", help="contracts on fresh keys, looking ahead or not")
    parser.add_argument("--calls", type=int, default=2, help="of --keyed")
    given = parser.parse_args()
    if given.keyed:
        return _keyed(given)
    compared = wrong = skipped = unsteady = schedules = reduced = 0
    started = time.monotonic()
    with served(given.dsn) as dsn, comparer(dsn, f"generated_{given.seed}_{os.getpid()}") as on:
        for number in range(given.first, given.first + given.count):
            case = drawn(f"{given.seed}.{number}")
            try:
                found = on.compared(case, most=given.most, level=given.level)
            except HarnessError as error:
                print(f"== {case.seed}: {error}\n{case.script()}", flush=True)
                wrong += 1
                continue
            if found is None:
                skipped += 1
                continue
            if found.whole.unsteady or found.reduced.unsteady:
                unsteady += 1
                print(f"-- {case.seed}: unsteady {found.whole.unsteady[:2]} {found.reduced.unsteady[:2]}", flush=True)
            compared += 1
            schedules += found.whole.schedules
            reduced += found.reduced.schedules
            if found.missing or found.more or not found.reduced.exhausted:
                wrong += 1
                print(f"== {case.seed}: {found.whole.schedules} and {found.reduced.schedules} schedules", flush=True)
                print("   missing:", *found.missing[:3], sep="\n     ")
                print("   more:", *found.more[:3], sep="\n     ")
                print(case.script(), flush=True)
    print(
        f"{compared} compared, {wrong} differ, {unsteady} unsteady, {skipped} skipped (over {given.most} schedules); "
        f"{schedules} schedules unreduced, {reduced} reduced; {time.monotonic() - started:.0f} s"
    )
    return 1 if wrong else 0


def _keyed(given: argparse.Namespace) -> int:
    compared = wrong = skipped = schedules = ahead = 0
    started = time.monotonic()
    with served(given.dsn) as dsn, keyed.comparer(dsn, f"keyed_{given.seed}_{os.getpid()}") as on:
        for number in range(given.first, given.first + given.count):
            case = keyed.drawn(f"{given.seed}.{number}")
            found = on.compared(case, calls=given.calls, most=given.most)
            if found is None:
                skipped += 1
                continue
            compared += 1
            schedules += len(found.alone)
            ahead += found.begun_ahead
            if found.differing:
                wrong += 1
                print(f"== {case.seed}: {len(found.differing)} of {len(found.alone)} schedules", flush=True)
                print(*list(found.differing.items())[:3], case.script(), sep="\n   ", flush=True)
    print(
        f"{compared} compared, {wrong} differ, {skipped} skipped (over {given.most} schedules); {schedules} schedules, "
        f"{ahead} begun ahead; {time.monotonic() - started:.0f} s"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
