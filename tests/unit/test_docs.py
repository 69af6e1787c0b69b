"""What the pages of docs/ and the README name is there: commands, options, and the files that they link to."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from harness import cli
from tests.conftest import ROOT

PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]
OPTIONS = {
    name: {opt for each in command.params for opt in (*each.opts, *each.secondary_opts)} | {"--help", "-h"}
    for name, command in cli.main.commands.items()
}


def wrong(text: str) -> list[str]:
    """The commands of a page, in its blocks and within its lines, that the command line does not know."""
    shown = re.findall(r"`(harness [^`]+)`", text)
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    shown += [line for block in blocks for line in block.splitlines() if line.startswith("harness ")]
    return [line for line in shown if not _known(shlex.split(line, comments=True))]


def _known(words: list[str]) -> bool:
    if words[1].startswith("-"):
        return words[1:] == ["--version"]
    options = {word.partition("=")[0] for word in words[2:] if word.startswith("-")}
    return words[1] in OPTIONS and options <= OPTIONS[words[1]]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_is_there(page: Path) -> None:
    """Each command with its options, each option that is named alone, each file that is linked to."""
    text = page.read_text()
    assert wrong(text) == []
    alone = {each for each in re.findall(r"`(--[a-z][-a-z]+)", text) if not each.startswith("--harness-")}
    assert alone <= set().union(*OPTIONS.values())
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if not link.startswith("http")]
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize(
    "text", ["`harness chek .`", "`harness check . --htlm x`", "```sh\nharness run --round 3  # x\n```", "`harness -q`"]
)
def test_what_is_not_there_is_found(text: str) -> None:
    """A command and an option that are misspelt, in a line and in a block."""
    assert len(wrong(text)) == 1
