"""`--changed-since REF`: which scenarios a change can matter to. What is in doubt is checked."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.environment import migrations
from harness.environment.choice import SUPABASE_MIGRATIONS
from harness.errors import UsageError
from harness.options import Options
from harness.sqltext import reach


@dataclass(frozen=True, slots=True)
class Chosen:
    """The scenario files to check, and those left out."""

    wanted: tuple[Path, ...]
    left_out: tuple[Path, ...]
    why: str
    """Why nothing was left out, or what changed."""


def choose(scenarios: Sequence[Path], since: str, options: Options) -> Chosen:
    """The scenarios that were changed since the commit, or that reach what its later migrations changed.

    Raises UsageError where there is no such commit, or no repository.
    """
    root = Path(_git("rev-parse", "--show-toplevel", since=since).strip())
    commit = _git("rev-parse", "--verify", "--quiet", f"{since}^{{commit}}", since=since).strip()
    names = _git("diff", "--name-only", "-z", commit, "--", root=root, since=since)
    names += _git("ls-files", "--others", "--exclude-standard", "-z", root=root, since=since)
    touched = {root / name for name in names.split("\0") if name}
    all_of_them = tuple(scenarios)

    folders = options.migrations if any(p.exists() for p in options.migrations) else (SUPABASE_MIGRATIONS,)
    present = [path for path in folders if path.exists()]
    seeds = [path.resolve() for path in options.seed]
    if any(_within(path, seeds) for path in touched):
        return Chosen(all_of_them, (), "the seed has changed")
    files = migrations.find(present, "migrations", "--migrations").scripts if present else ()
    of_migrations = [
        path for path in touched if path.suffix == ".sql" and _within(path, [p.resolve() for p in folders])
    ]

    current = {script.path.resolve(): reach.parts(script.text, script.path.name) for script in files}
    reached = reach.reach(list(current.values()))
    changed: set[str] = set()
    for path in of_migrations:
        before = reach.parts(_old(path, root, commit), path.name)
        targets, unsure = reach.changed(before, current.get(path.resolve(), ()))
        if unsure:
            return Chosen(all_of_them, (), unsure)
        changed |= targets
    if changed and reached.unsure:
        return Chosen(all_of_them, (), reached.unsure)
    wanted = [
        path
        for path in scenarios
        if path.resolve() in touched or _matters(path.read_text(errors="replace"), reached, changed)
    ]
    what = ", ".join(sorted(changed)[:8]) + (" and more" if len(changed) > 8 else "")
    return Chosen(
        tuple(wanted),
        tuple(path for path in scenarios if path not in wanted),
        f"changed since {since}: {what}" if changed else f"no migration has changed since {since}",
    )


def _matters(text: str, reached: reach.Reach, changed: set[str]) -> bool:
    words = {word.lower() for word in re.findall(r"[^\W\d][\w$]*", text)}
    if not changed:
        return False
    names = reached.from_words(words)
    # What was dropped is in no migration any more, and may be in the scenario all the same.
    return bool(changed & (names | words)) or bool(names & reached.dynamic) or "execute" in words


def _within(path: Path, folders: Sequence[Path]) -> bool:
    return any(path.resolve().is_relative_to(folder) for folder in folders)


def _old(path: Path, root: Path, commit: str) -> str:
    """The file as it was; nothing where it was not there."""
    name = path.relative_to(root).as_posix()
    done = subprocess.run(  # noqa: S603
        ["git", "show", f"{commit}:{name}"],  # noqa: S607
        cwd=root, capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    return done.stdout if done.returncode == 0 else ""


def _git(*words: str, since: str, root: Path | None = None) -> str:
    try:
        done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False)  # noqa: S603, S607
    except FileNotFoundError as error:
        raise UsageError("--changed-since needs git.", tried="PATH", next_step="install it, or leave it out") from error
    if done.returncode:
        raise UsageError(
            f"--changed-since {since} cannot be looked up.",
            tried=" ".join(f"git {' '.join(words)}: {done.stderr}".split()),
            next_step="name a commit, branch or tag of this repository; in CI fetch it first (fetch-depth: 0)",
        )
    return done.stdout
