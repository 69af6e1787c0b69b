"""Burst of 10 clients on unique tickets against pgbench -M prepared -c 10 -j 2, on the same function and server."""

from bench._support import harness_burst, median, median_ratio, opened, paired, pgbench
from harness.load.patterns import Burst

SECONDS = 5.0
PAIRS = 5


def main() -> None:
    with opened() as found:
        keys = int(20_000 * SECONDS)
        pairs = paired(
            lambda: harness_burst(found, Burst(10, SECONDS), keys),
            lambda: pgbench(found, SECONDS, 10, keys),
            PAIRS,
        )
        for ours, theirs in pairs:
            print(
                f"harness {ours.rate:7.0f} calls/s {ours.cpu_us:5.1f} us CPU p95 {ours.p95_ms:5.2f} ms   "
                f"pgbench {theirs.rate:7.0f} calls/s {theirs.cpu_us:5.1f} us CPU p95 {theirs.p95_ms:5.2f} ms"
            )
        print(f"calls/s: {median_ratio(pairs, 'rate'):.2f} x pgbench (median of {PAIRS} pairs; at least 1.0)")
        print(f"client CPU per call: {median_ratio(pairs, 'cpu_us'):.2f} x pgbench (at most 1.5)")
        print(f"harness median: {median([a.rate for a, _ in pairs]):.0f} calls/s")
