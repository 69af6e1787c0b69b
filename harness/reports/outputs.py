"""What a record becomes besides the text on the terminal: files, GitHub's summary, annotations on lines."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from harness.errors import HarnessError
from harness.files import write_whole
from harness.options import OUTPUTS, Options, outputs
from harness.records import Record, dumps
from harness.reports import code_quality, github, html, markdown, sarif

WRITERS: Mapping[str, Callable[[Record], str]] = {
    "record": dumps,
    "html": html.page,
    "markdown": markdown.comment,
    "sarif": lambda record: sarif.log(record, Path.cwd()),
    "code_quality": lambda record: code_quality.report(record, Path.cwd()),
}
"""By the option that names the file: the text that is written there."""


def write(record: Record, options: Options, say: Callable[[str], object], worker: str = "") -> None:
    """Write every file that the options name, and tell GitHub where it runs the command.

    `say` prints a line of annotation; `worker` is put into a file's name where several processes write one each. Each
    is done even where another cannot be. Raises the first HarnessError.
    """
    errors: list[HarnessError] = []
    for name, path in outputs(options).items():
        target = path.with_name(f"{path.stem}.{worker}{path.suffix}") if worker else path
        try:
            write_whole(target, WRITERS[name](record), OUTPUTS[name], "--" + name.replace("_", "-"))
        except HarnessError as error:
            errors.append(error)
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        try:
            with Path(summary).open("a", encoding="utf-8") as file:
                file.write(markdown.comment(record) + "\n")
        except OSError as error:
            errors.append(
                HarnessError(
                    f"The job summary {summary} cannot be written to.",
                    tried=str(error),
                    next_step="see to it that GITHUB_STEP_SUMMARY names a file of this step",
                )
            )
    if os.environ.get("GITHUB_ACTIONS") == "true":
        for line in github.workflow_commands(record, Path.cwd()):
            say(line)
    if errors:
        raise errors[0]
