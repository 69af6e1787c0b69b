"""`pytest harness/` with the quick profile on the embedded server: whole seconds, and those that are not load.

Seconds are of this machine in these minutes: pgbench's rate, measured beside them, says how fast it is.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench._support import ROOT, median, opened, pgbench

RUNS = 3


YARDSTICK = 14_000
"""Calls per second of pgbench on the machine that the bounds were set on."""


def main() -> None:
    totals, rest = [], []
    # A machine that is set up keeps what it compiled.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with opened() as found:
        speed = pgbench(found, 3.0, 10, 60_000).rate / YARDSTICK
    for _ in range(RUNS):
        with tempfile.TemporaryDirectory() as folder:
            record = Path(folder, "record.json")
            command = [sys.executable, "-m", "pytest", "-q", "harness/", "--harness-server", "embedded"]
            started = time.perf_counter()
            subprocess.run(
                [*command, "--harness-record", record], cwd=ROOT, check=True, stdout=subprocess.DEVNULL, env=environment
            )
            totals.append(time.perf_counter() - started)
            runs = json.loads(record.read_text())["runs"]
        load = sum(run["metrics"]["seconds"] for run in runs if run["metrics"])
        load += sum(run["details"].get("exploration", {}).get("seconds", 0.0) for run in runs)
        rest.append(totals[-1] - load)
        print(f"{totals[-1]:.1f} s, {load:.1f} s of it load")
    print(f"whole: {median(totals):.1f} s (median of {RUNS}; under 15), not load: {median(rest):.1f} s (under 3)")
    print(f"this machine now: {speed:.2f} x the calls/s of the one the bounds were set on")
