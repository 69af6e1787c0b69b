"""CONTRIBUTING's walks are true: what they tell to write is taken from there, and works."""

from __future__ import annotations

import json
import re
import sys

import pytest

from harness.environment.embedded import EmbeddedServer
from harness.errors import ExitStatus
from tests.conftest import MIGRATIONS, ROOT, Sandbox

MAIN = "import again; from harness.cli import main; main()"


@pytest.fixture
def walked(sandbox: Sandbox) -> Sandbox:
    """A folder with the walk's pattern in it, where the line that registers it is an import."""
    [code] = re.findall(r"```python\n(\"\"\"Again:.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    (sandbox.tmp / "again.py").write_text(code)
    return sandbox


def test_a_pattern_of_one_file_and_one_line_is_in_the_help_runs_and_is_judged(
    walked: Sandbox, server: EmbeddedServer
) -> None:
    """Its name, sentence and option are in the help; its run has the claims, and the command that repeats it."""
    shown = walked.run(sys.executable, "-c", MAIN, "run", "--help", PYTHONPATH=str(walked.tmp))
    assert "again" in re.findall(r"\w+", shown.stdout.partition("--pattern [")[2].partition("]")[0])
    assert "Every client calls each of its keys, and calls it again." in shown.stdout
    assert "--pairs POSITIVE INTEGER" in shown.stdout

    record = walked.tmp / "record.json"
    words = ("run", "--server", server.dsn, "--pattern", "again", "--clients", "3", "--pairs", "4", "--record", record)
    done = walked.run(sys.executable, "-c", MAIN, *words, PYTHONPATH=str(walked.tmp))
    assert done.returncode == ExitStatus.HELD, done.stdout + done.stderr
    [run] = json.loads(record.read_text())["runs"]
    assert (run["kind"], run["plan"]["pairs"]) == ("again", 4)
    assert run["metrics"]["counts"] | {"accepted": 12, "already_scanned": 12} == run["metrics"]["counts"]
    assert {"at_most_one_accepted", "linearizable"} <= {finding["id"] for finding in run["findings"]}
    assert run["repeat"].startswith("harness run --pattern again --clients 3 --pairs 4")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--pattern", "race", "--pairs", "4"), "--pairs is for --pattern again."),
        (("--pattern", "again", "--pairs", "0"), "--pairs is '0', which is not a positive integer."),
    ],
)
def test_a_new_option_is_checked_as_the_others_are(walked: Sandbox, words: tuple[str, ...], says: str) -> None:
    """Without another word in the faces."""
    done = walked.run(sys.executable, "-c", MAIN, "run", "--migrations", MIGRATIONS, *words, PYTHONPATH=str(walked.tmp))
    assert done.returncode == ExitStatus.USAGE
    assert says in done.stderr
