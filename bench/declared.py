"""A burst by the contract of a file (contracts/scan_ticket.race.sql) against the same by that of Python: calls per
second, and what it takes to have the distinct answers read by the server afterwards."""

import dataclasses
import time

from bench._support import ROOT, fire, harness_burst, median, median_ratio, new, opened, paired
from harness.load.patterns import Burst
from harness.options import Options
from harness.scenarios import loads
from harness.targets import conditions

SECONDS = 3.0
PAIRS = 7
FILE = ROOT / "harness/contracts/scan_ticket.race.sql"


def main() -> None:
    contract = loads.asked_for(dataclasses.replace(Options(), contract=str(FILE)))
    with opened() as found:
        keys = int(20_000 * SECONDS)
        burst = Burst(10, SECONDS)
        pairs = paired(
            lambda: harness_burst(found, burst, keys, contract), lambda: harness_burst(found, burst, keys), PAIRS
        )
        for file, python in pairs:
            print(
                f"file {file.rate:7.0f} calls/s {file.cpu_us:5.1f} us CPU   "
                f"Python {python.rate:7.0f} calls/s {python.cpu_us:5.1f} us CPU"
            )
        print(f"calls/s: {median_ratio(pairs, 'rate'):.3f} x Python's (median of {PAIRS} pairs; at least 0.95)")
        print(f"client CPU per call: {median_ratio(pairs, 'cpu_us'):.3f} x Python's")
        times = []
        for _ in range(PAIRS):
            with found.template.clone() as database:
                crew, _, _ = fire(database, Burst(10, calls=500), new(database, 5000), contract)
                started = time.perf_counter()
                conditions.settle(crew.logs, contract, database.connect)
                times.append(time.perf_counter() - started)
        print(f"reading the answers of 5000 calls afterwards: {median(times) * 1000:.1f} ms")
