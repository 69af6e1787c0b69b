"""The seed profile's load (10 clients, 0.1 s pause after each call): p95 against pgbench's own log at the same rate."""

from bench._support import harness_burst, median_ratio, opened, paired, pgbench
from harness.load.patterns import Burst

SECONDS = 10.0
PAIRS = 5


def main() -> None:
    with opened() as found:
        keys = int(10 * SECONDS / 0.1) + 20
        pairs = paired(
            lambda: harness_burst(found, Burst(10, SECONDS, pause=0.1), keys),
            lambda: pgbench(found, SECONDS, 10, keys, pause_ms=100),
            PAIRS,
        )
        for ours, theirs in pairs:
            print(f"harness p95 {ours.p95_ms:5.2f} ms   pgbench p95 {theirs.p95_ms:5.2f} ms")
        print(f"p95: {median_ratio(pairs, 'p95_ms'):.2f} x pgbench (median of {PAIRS} pairs; 0.9 to 1.1)")
