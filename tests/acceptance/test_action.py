"""The GitHub action, its steps run as GitHub runs them: environment variables and files; `gh` is played."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.environment.embedded import EmbeddedServer
from tests.conftest import ROOT, Sandbox

ACTION = (ROOT / "action.yml").read_text()
HELD = """-- scenario: the last use of a coupon is used once
-- setup
CREATE TABLE coupons (code text PRIMARY KEY, uses_left int NOT NULL);
INSERT INTO coupons VALUES ('LAST', 1);
-- session: person x 2
UPDATE coupons SET uses_left = uses_left - 1 WHERE code = 'LAST' AND uses_left > 0;
-- never: a coupon is used more often than it may be
SELECT code FROM coupons WHERE uses_left < 0;
"""
BROKEN = HELD.replace(" AND uses_left > 0", "")
GH = """#!/usr/bin/env bash
echo "$@" >>"$GH_LOG"
case "$*" in
    *--paginate*) cat "$GH_COMMENTS" ;;
    *) for word; do [[ $word != body=@* ]] || cat "${word#body=@}" >"$GH_POSTED"; done ;;
esac
"""


class Runner:
    """A job of GitHub's, as far as the action sees it."""

    def __init__(self, folder: Path, dsn: str) -> None:
        self.temp, self.work = folder / "temp", folder / "work"
        for each in (self.temp / "harness-venv" / "bin", self.work, folder / "bin"):
            each.mkdir(parents=True)
        # What action/install makes; `.ci/wheel` shows that the package can be installed.
        (self.temp / "harness-venv" / "bin" / "harness").symlink_to(Path(sys.executable).parent / "harness")
        (folder / "bin" / "gh").write_text(GH)
        (folder / "bin" / "gh").chmod(0o755)
        self.output, self.summary = folder / "output", folder / "summary"
        self.posted, self.comments, self.log = folder / "posted", folder / "comments", folder / "log"
        for each in (self.output, self.summary, self.comments):
            each.touch()
        self.inputs = {"command": "check", "arguments": "", "migrations": "", "server": dsn}
        self.environment = {
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "HOME": os.environ["HOME"], "LANG": "C.UTF-8",
            "GITHUB_ACTIONS": "true", "GITHUB_OUTPUT": str(self.output), "GITHUB_STEP_SUMMARY": str(self.summary),
            "GITHUB_ACTION_PATH": str(ROOT), "GITHUB_REPOSITORY": "me/shop", "RUNNER_TEMP": str(self.temp),
            "GH_LOG": str(self.log), "GH_POSTED": str(self.posted), "GH_COMMENTS": str(self.comments),
        }  # fmt: skip

    def step(self, script: str, **inputs: str) -> subprocess.CompletedProcess[str]:
        """A step, with its inputs as action.yml maps them."""
        (mapped,) = re.findall(
            rf"run: '\"\$GITHUB_ACTION_PATH/action/{script}\"'\n      env:\n((?:        .*\n)+)", ACTION
        )
        names = set(re.findall(r"INPUT_\w+", mapped))
        given = {f"INPUT_{name.upper()}": value for name, value in inputs.items()}
        assert names == set(given)
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", f'"$GITHUB_ACTION_PATH/action/{script}"'],
            cwd=self.work, env=self.environment | given, text=True, capture_output=True, check=False,
        )  # fmt: skip

    def outputs(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.output.read_text().splitlines())


@pytest.fixture
def runner(sandbox: Sandbox, server: EmbeddedServer) -> Runner:
    if shutil.which("bash") is None:
        pytest.skip("no bash")
    made = Runner(sandbox.tmp, server.dsn)
    (made.work / "migrations.sql").write_text("SELECT 1;\n")
    (made.work / "it's held.race.sql").write_text(HELD)
    (made.work / "broken.race.sql").write_text(BROKEN)
    return made


def test_a_red_verdict_is_on_its_line_in_the_summary_and_in_one_comment(runner: Runner) -> None:
    """Annotations on the console, files for later steps; a second run replaces the comment of the first."""
    given = runner.inputs | {"arguments": "broken.race.sql --by explore", "migrations": "migrations.sql"}
    done = runner.step("check", **given)
    assert done.returncode == 0, done.stdout + done.stderr
    found = runner.outputs()
    assert (found["status"], found["verdict"]) == ("1", "broken"), done.stdout
    assert re.search(r"^::error file=broken\.race\.sql,line=\d+,title=broken", done.stdout, re.MULTILINE)
    assert "✗ broken" in runner.summary.read_text()
    for name in ("record", "html", "sarif", "comment"):
        assert Path(found[name]).stat().st_size > 100
    runner.step("comment", comment=found["comment"], pull_request="7")
    assert "POST repos/me/shop/issues/7/comments" in runner.log.read_text()
    assert runner.posted.read_text() == Path(found["comment"]).read_text()
    runner.comments.write_text("4711\n")
    runner.step("comment", comment=found["comment"], pull_request="7")
    assert "PATCH repos/me/shop/issues/comments/4711" in runner.log.read_text()


def test_arguments_are_words_as_in_a_shell_and_nothing_of_them_is_run(runner: Runner) -> None:
    """A name with a blank and a quote; a command in the arguments stays a word."""
    words = '"it\'s held.race.sql" --by explore'
    done = runner.step("check", **runner.inputs | {"arguments": words, "migrations": "migrations.sql"})
    assert runner.outputs()["verdict"] == "held", done.stdout + done.stderr
    runner.output.write_text("")
    runner.step("check", **runner.inputs | {"arguments": "'$(touch owned)' `touch owned` ; touch owned"})
    assert runner.outputs()["status"] == "2"
    assert not (runner.work / "owned").exists()


def test_no_arguments_are_no_word_and_half_a_quote_is_said(runner: Runner) -> None:
    """`command: run` with nothing more has no empty word; words that cannot be cut are not half taken."""
    (runner.work / "broken.race.sql").unlink()
    (runner.work / "it's held.race.sql").unlink()
    done = runner.step("check", **runner.inputs | {"command": "run", "arguments": " \n", "migrations": "none.sql"})
    assert "none.sql" in done.stderr, done.stderr
    assert "is not a scenario" not in done.stderr
    runner.output.write_text("")
    done = runner.step("check", **runner.inputs | {"arguments": "tests 'half"})
    assert "cannot be cut into words" in done.stdout
    assert (done.returncode, runner.outputs()["status"]) == (0, "2")


def test_every_input_is_used_and_no_input_stands_in_a_script() -> None:
    """An input in `run:` would be carried out; in an environment variable it is data."""
    inputs = re.findall(r"^  ([\w-]+):$", ACTION[: ACTION.index("outputs:")], re.MULTILINE)
    assert len(inputs) == 8
    for name in inputs:
        assert f"inputs.{name} " in ACTION or f"inputs.{name}}}" in ACTION or f"inputs.{name} }}}}" in ACTION
    for script in re.findall(r"run: (.*)", ACTION):
        assert "${{" not in script
