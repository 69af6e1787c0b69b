"""`pytest harness/` with the quick profile on the embedded server: whole seconds, and those that are not load."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench._support import ROOT, median

RUNS = 3


def main() -> None:
    totals, rest = [], []
    for _ in range(RUNS):
        with tempfile.TemporaryDirectory() as folder:
            record = Path(folder, "record.json")
            command = [sys.executable, "-m", "pytest", "-q", "harness/", "--harness-server", "embedded"]
            started = time.perf_counter()
            subprocess.run([*command, "--harness-record", record], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
            totals.append(time.perf_counter() - started)
            runs = json.loads(record.read_text())["runs"]
        load = sum(run["metrics"]["seconds"] for run in runs if run["metrics"])
        load += sum(run["details"].get("exploration", {}).get("seconds", 0.0) for run in runs)
        rest.append(totals[-1] - load)
        print(f"{totals[-1]:.1f} s, {load:.1f} s of it load")
    print(f"whole: {median(totals):.1f} s (median of {RUNS}; under 15), not load: {median(rest):.1f} s (under 3)")
