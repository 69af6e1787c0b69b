"""Many attacks, and how many: `python -m tests.chaos --signals 100 --servers 20 --sigkills 20 --frozen 5`."""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from harness.environment.container import engine_answers
from harness.environment.embedded import EmbeddedServer
from harness.environment.postgrest import FETCHED
from tests.chaos.attacks import Chaos
from tests.conftest import Sandbox

MANY = {
    "signals": 100,
    "backends": 10,
    "sessions": 10,
    "servers": 20,
    "sigkills": 20,
    "frozen": 5,
    "outputs": 5,
    "postgrests": 5,
    "containers": 4,
    "disks": 5,
}
"""How many attacks of each kind; one on backends kills ten."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, many in MANY.items():
        parser.add_argument(f"--{name}", type=int, default=many)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    asked = parser.parse_args()
    print(f"seed {asked.seed}", flush=True)
    failed = 0
    with EmbeddedServer() as server:
        folder = Path(tempfile.mkdtemp(prefix="hs-", dir="/tmp"))
        folder.chmod(0o755)
        chaos = Chaos(Sandbox(folder), server, random.Random(asked.seed))
        attacks: dict[str, Callable[[], str]] = {
            "signals": chaos.signal,
            "backends": chaos.kill_backends,
            "sessions": chaos.kill_sessions,
            "servers": chaos.kill_server,
            "sigkills": chaos.sigkill,
            "frozen": chaos.freeze_server,
            "outputs": chaos.outputs,
            "disks": chaos.fill_disk,
        }
        if FETCHED.exists():
            attacks["postgrests"] = chaos.kill_postgrest
        if engine_answers():
            attacks["containers"] = chaos.kill_container
        for name, attack in attacks.items():
            seen: Counter[str] = Counter()
            for _ in range(getattr(asked, name)):
                try:
                    seen[attack()] += 1
                except Exception:
                    failed += 1
                    seen["FAILED"] += 1
                    traceback.print_exc()
            print(f"{name}: {sum(seen.values())} made; {dict(seen)}", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
