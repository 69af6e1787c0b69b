"""`harness run --dry-run`: what would run, on a machine where nothing could."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import ExitStatus
from tests.conftest import MIGRATIONS, SEED, Sandbox

NOBODY = "postgresql://me:hidden@127.0.0.1:1/db"
"""Where no server is: whoever connects fails."""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), ("run: burst (sql): 10 clients, as many calls as are answered, 3 s", "run: rescan (sql): ")),
        (("--pattern", "race", "--clients", "4", "--rounds", "1"), ("run: race (sql): 4 clients, 1 round, 4 calls, ",)),
        (("--pattern", "burst", "--calls", "5"), ("run: burst (sql): 10 clients, 50 calls, until all are answered",)),
        (
            ("--pattern", "arrivals", "--rate", "20", "--duration", "2"),
            ("run: arrivals (sql): 10 clients, about 40 calls, 2 s",),
        ),
        (("--profile", "soak"), ("run: soak (sql): burst: 50 clients, as many calls as are answered, 600 s; beside",)),
        (("--http",), ("run: race (http): ", "run: overhead: ")),
        (("--record", "r.json"), ("would write --record: r.json",)),
    ],
    ids=lambda value: " ".join(value)[:30],
)
def test_it_says_what_would_run_and_boots_nothing(
    words: tuple[str, ...], said: tuple[str, ...], sandbox: Sandbox
) -> None:
    """Server without its password, files in order, calls, seconds and thresholds; no connection is tried."""
    done = sandbox.run("harness", "run", "--dry-run", "--server", NOBODY, *words)
    assert done.returncode == ExitStatus.HELD, done.stderr
    assert done.stdout.startswith("server: ")
    assert "hidden" not in done.stdout
    found = done.stdout.splitlines()
    files = [Path(line.partition(". ")[2]).name for line in found if line.startswith("  ") and ". " in line]
    assert files == [path.name for folder in (MIGRATIONS, SEED) for path in sorted(folder.glob("*.sql"))]
    for each in said:
        assert any(line.startswith(each) for line in found), done.stdout
    assert any(line.startswith("  threshold scan_duration: p(95)<200") for line in found)
    assert found[-1] == "dry run: nothing was booted, and nothing was called"
    assert not (sandbox.tmp / "r.json").exists()


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("--migrations", "nowhere"), ExitStatus.ENVIRONMENT, "No migrations at nowhere"),
        (("--contract", "nowhere:X"), ExitStatus.USAGE, "could not be loaded"),
        (("--clients", "0"), ExitStatus.USAGE, "not a positive integer"),
        (("--http-url", "http://127.0.0.1:1", "--yes"), ExitStatus.USAGE, "--dry-run is not for"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, tuple) else "",
)
def test_what_can_be_seen_to_fail_fails(
    words: tuple[str, ...], status: ExitStatus, said: str, sandbox: Sandbox
) -> None:
    """A plan is not promised that the run itself would refuse; and with real tickets nothing is ever scanned."""
    done = sandbox.run("harness", "run", "--dry-run", "--server", NOBODY, *words)
    assert (done.returncode, done.stdout) == (status, "")
    assert said in done.stderr
