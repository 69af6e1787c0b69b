"""`--changed-since REF`: which scenarios a change can matter to. What is in doubt is checked.

Where the last record says what a scenario touched, as measured, it goes by that: what is not touched, and is in no text
of what ran, cannot have changed what came of it. Else it goes by text: from the scenario's words to what the migrations
say belongs together, which is wider.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import records
from harness.contracts import invariants
from harness.contracts.contract import Contract
from harness.environment import migrations
from harness.environment.choice import SUPABASE_MIGRATIONS
from harness.environment.description import Touched
from harness.errors import UsageError
from harness.options import Options, outputs
from harness.records import Record, RunRecord
from harness.scenarios.scenario import SUFFIX
from harness.sqltext import reach
from harness.sqltext.scripts import Script
from harness.verdict.findings import Truth


@dataclass(frozen=True, slots=True)
class Chosen:
    """The scenario files to check, and those left out."""

    wanted: tuple[Path, ...]
    left_out: tuple[Path, ...]
    why: str
    """Why nothing was left out, or what changed, and what was gone by."""


@dataclass(frozen=True, slots=True)
class Change:
    """What differs between a commit and the files as they are."""

    since: str
    root: Path
    """The repository; what lies outside of it may have changed."""
    files: frozenset[Path]
    """Every changed file of the repository."""
    names: frozenset[str]
    """What the changed migrations create, change or fill."""
    doubt: str
    """Why it is not known what the change does; empty where it is."""
    parts: tuple[tuple[reach.Part, ...], ...]
    """The migrations as they are."""
    versions: Mapping[str, frozenset[str | None]]
    """Of each migration and seed the sha256 now and at the commit; None: it is, or was, not there."""

    def __str__(self) -> str:
        if not self.names:
            return f"no migration has changed since {self.since}"
        shown = ", ".join(sorted(self.names)[:8]) + (" and more" if len(self.names) > 8 else "")
        return f"changed since {self.since}: {shown}"


def choose(scenarios: Sequence[Path], since: str, options: Options, last_record: Path | None = None) -> Chosen:
    """The scenarios that were changed since the commit, or that what changed since then can matter to.

    `last_record` says what each touched, and one that did not hold there is checked; without it, or where it lacks a
    scenario, the text decides. Raises UsageError where there is no such commit, no repository, or no such record.
    """
    change = _change(since, options)
    if change.doubt:
        return Chosen(tuple(scenarios), (), change.doubt)
    last, unfit = _last(last_record, change)
    measured = {str(run.plan.get("file")): run for run in last if run.kind == "check"}
    reached = reach.reach(change.parts)
    wanted: list[Path] = []
    not_held: list[Path] = []
    by_text: list[Path] = []
    for path in scenarios:
        content = path.read_bytes()
        text = content.decode(errors="replace")
        run = measured.get(str(path))
        of = hashlib.sha256(content).hexdigest()
        if path.resolve() in change.files or not path.resolve().is_relative_to(change.root):
            wanted.append(path)
        elif run is not None and run.touched is not None and run.touched.of == of:
            if run.truth is not Truth.HELD:
                not_held.append(path)
            if run.truth is not Truth.HELD or _touches(run.touched, change, text):
                wanted.append(path)
        else:
            by_text.append(path)
            if _by_text(text, reached, change):
                wanted.append(path)
    why = _why(change, reached, last_record, unfit, [path.name for path in by_text])
    if not_held:
        why += f"; not held in {last_record}: {', '.join(path.name for path in not_held)}"
    return Chosen(tuple(wanted), tuple(path for path in scenarios if path not in wanted), why)


def matters(contract: Contract, since: str, options: Options, last_record: Path | None = None) -> tuple[bool, str]:
    """Whether what changed since the commit can matter to a contract's function, and why; errors as of `choose`."""
    change = _change(since, options)
    if change.doubt:
        return True, change.doubt
    folders = [path.resolve() for path in _folders(options)]
    own = None if contract.declared is None else contract.declared.path.resolve()
    for path in sorted(change.files):  # the contract, its invariants, or what they import
        if path == own:
            return True, f"{path.name} has changed since {since}"
        if path.suffix in (".py", ".sql") and not path.name.endswith(SUFFIX) and not _within(path, folders):
            return True, f"{path.name} has changed since {since}"
    last, unfit = _last(last_record, change, contract.name)
    runs = [run for run in last if run.kind != "check" and run.touched is not None]
    text = " ".join([*contract.texts, *(each.query for each in invariants.load(options.invariants, contract))])
    reached = reach.reach(change.parts)
    name = contract.function.name
    if runs:
        if any(run.truth is not Truth.HELD for run in last):
            return True, f"{name} did not hold in {last_record}"
        why = _why(change, reached, last_record, unfit, [])
        return any(_touches(run.touched, change, text) for run in runs if run.touched is not None), why
    # The seed makes the keys: what it names is reached as well.
    text = " ".join([text, *(script.text for script in _scripts(options.seed, "seed"))])
    return _by_text(text, reached, change), _why(change, reached, last_record, unfit, [name])


def _touches(touched: Touched, change: Change, text: str) -> bool:
    """Whether what changed was touched, or is named by the text or by a function that was called."""
    words = set(_words(text))
    for part in (part for file in change.parts for part in file):
        if part.function and not part.targets.isdisjoint(touched.functions):
            words |= part.words
    return any(name in touched or name in words for name in change.names)


def _by_text(text: str, reached: reach.Reach, change: Change) -> bool:
    if not change.names:
        return False
    words = set(_words(text))
    names = reached.from_words(words)
    # What was dropped is in no migration any more, and may be in the scenario all the same.
    named = bool(change.names & (names | words))
    return bool(reached.unsure) or named or bool(names & reached.dynamic) or "execute" in words


def _why(change: Change, reached: reach.Reach, last_record: Path | None, unfit: str, by_text: Sequence[str]) -> str:
    """What changed, and what was gone by."""
    said = str(change)
    if change.names and last_record is not None:
        if not by_text:
            return f"{said}; by what was touched in {last_record}"
        shown = ", ".join(by_text[:3]) + (f" and {len(by_text) - 3} more" if len(by_text) > 3 else "")
        said += f"; by text, since {unfit or f'{last_record} does not say what they touch'}: {shown}"
    if change.names and by_text and reached.unsure:
        said += f"; {reached.unsure}"
    return said


def _last(path: Path | None, change: Change, contract: str = "") -> tuple[Sequence[RunRecord], str]:
    """The runs of the last record, and why it says nothing of these files; empty where it does.

    It must be one of the files as they are at the commit, or now: what else changed between is not known.
    """
    if path is None:
        return (), ""
    record: Record = records.read(path)
    recorded = {each.path: each.sha256 for each in (*record.migrations, *record.seeds)}
    for name in sorted(recorded.keys() | change.versions.keys()):
        if recorded.get(name) not in change.versions.get(name, frozenset({None})):
            return (), f"{path} was made with another {name}"
    if record.interrupted:
        return (), f"{path} was interrupted"
    if contract and record.contract != contract:
        return (), f"{path} is of the contract {record.contract or 'of no function'}"
    return [run for run in record.runs if run.target == "sql"], ""


def _folders(options: Options) -> Sequence[Path]:
    return options.migrations if any(p.exists() for p in options.migrations) else (SUPABASE_MIGRATIONS,)


def _scripts(paths: Sequence[Path], what: str) -> Sequence[Script]:
    present = [path for path in paths if path.exists()]
    return migrations.find(present, what, f"--{what}").scripts if present else ()


def _change(since: str, options: Options) -> Change:
    root = Path(_git("rev-parse", "--show-toplevel", since=since).rstrip("\n")).resolve()
    commit = _git("rev-parse", "--verify", "--quiet", f"{since}^{{commit}}", since=since).strip()
    names = _git("diff", "--name-only", "--no-renames", "-z", commit, "--", root=root, since=since)
    names += _git("ls-files", "--others", "--exclude-standard", "-z", root=root, since=since)
    folders = _folders(options)
    inside = [str(f) for f in map(Path.resolve, (*folders, *options.seed)) if f.exists() and f.is_relative_to(root)]
    if inside:  # what git is told to ignore is applied all the same
        names += _git("ls-files", "--others", "-z", "--", *inside, root=root, since=since)
    files = {(root / name).resolve() for name in names.split("\0") if name}

    scripts = _scripts(folders, "migrations")
    current = {script.path.resolve(): reach.parts(script.text, script.path.name) for script in scripts}
    versions: dict[str, set[str | None]] = {
        str(s.path): {s.sha256} for s in (*scripts, *_scripts(options.seed, "seed"))
    }
    changed: set[str] = set()
    doubts = _doubts(files, root, commit, options, scripts)
    linked = {script.path.resolve(): script.path for script in scripts}
    for path in sorted(files):
        folder = next((f for f in folders if path.suffix == ".sql" and path.is_relative_to(f.resolve())), None)
        if folder is None and path not in linked:
            continue
        before = _old(path, root, commit)
        parts = reach.parts((before or b"").decode(errors="replace"), path.name)
        targets, unsure = reach.changed(parts, current.get(path, ()))
        changed |= targets
        doubts += [unsure] if unsure else []
        name = linked[path] if folder is None else folder / path.relative_to(folder.resolve())
        known = versions.setdefault(str(name), {None})
        known.add(None if before is None else hashlib.sha256(before).hexdigest())
    return Change(
        since,
        root,
        frozenset(files),
        frozenset(changed),
        doubts[0] if doubts else "",
        tuple(current.values()),
        {name: frozenset(each) for name, each in versions.items()},
    )


def _doubts(files: set[Path], root: Path, commit: str, options: Options, scripts: Sequence[Script]) -> list[str]:
    """Why the migrations alone do not say what changed."""
    found = []
    seeds = [path.resolve() for path in options.seed]
    folders = [path.resolve() for path in _folders(options)]
    for folder in (*folders, *seeds):
        if folder.exists() and not folder.is_relative_to(root):
            found.append(f"{folder} lies outside of {root}, and what changed there is not known")
        if any(path.is_dir() and folder.is_relative_to(path) for path in files):
            found.append(f"{folder} is in a repository of its own, and what changed there is not known")
    # What says which files are applied, and in which order: a tool's journal, a plan, a list.
    homes = {folder.parent for folder in folders if folder != root}
    for path in sorted(files):
        listing = path.suffix not in (".sql", ".md") and _within(path, folders)
        if listing or (path.name in _LISTINGS and path.parent in homes):
            found.append(f"{path.name} has changed, and what it says of the migrations is not known")
    if any(_within(path, seeds) for path in files):
        found.append("the seed has changed")
    for name in ("pyproject.toml", "pytest.ini", "tox.ini", "setup.cfg"):
        path = root / name
        if path.resolve() in files and _settings(path.read_bytes() if path.exists() else b"") != _settings(
            _old(path, root, commit) or b""
        ):
            found.append(f"what {name} says of the harness has changed")
    written = {path.resolve() for path in outputs(options).values()}
    code = [path for path in files - written if path.suffix != ".md" and not path.name.endswith(SUFFIX)]
    elsewhere = [path for path in code if not _within(path, [*folders, *seeds])]
    if elsewhere and any(_INCLUDES.search(script.text) for script in scripts):
        found.append(f"{min(elsewhere).name} has changed, and may be a file that a migration includes")
    if options.setup is not None and code:
        found.append(f"{min(code).name} has changed, and what --setup makes of it is not known")
    return found


_LISTINGS = ("config.toml", "sqitch.plan")

_INCLUDES = re.compile(r"^\s*\\(?:i|ir|include|include_relative)\s", re.MULTILINE)


def _settings(text: bytes) -> object:
    """What a project's file may say of the harness; all of it where it is no TOML."""
    try:
        tool = tomllib.loads(text.decode()).get("tool", {})
    except ValueError:
        return text
    return tool.get("harness"), tool.get("pytest")


def _words(text: str) -> Sequence[str]:
    return [word.lower() for word in re.findall(r"[^\W\d][\w$]*", text)]


def _within(path: Path, folders: Sequence[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)


def _old(path: Path, root: Path, commit: str) -> bytes | None:
    """The file as it was; None where it was not there."""
    name = path.relative_to(root.resolve()).as_posix()
    done = subprocess.run(  # noqa: S603
        ["git", "show", f"{commit}:{name}"],  # noqa: S607
        cwd=root, capture_output=True, check=False,
    )  # fmt: skip
    return done.stdout if done.returncode == 0 else None


def _git(*words: str, since: str, root: Path | None = None) -> str:
    try:
        done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False)  # noqa: S603, S607
    except FileNotFoundError as error:
        raise UsageError("--changed-since needs git.", tried="PATH", next_step="install it, or leave it out") from error
    if done.returncode:
        raise UsageError(
            f"--changed-since {since} cannot be looked up.",
            tried=" ".join(f"git {' '.join(words)}: {done.stderr}".split()),
            next_step="run it in the repository, or leave it out"
            if "not a git repository" in done.stderr
            else "name a commit, branch or tag of this repository; in CI fetch it first (fetch-depth: 0)",
        )
    return done.stdout
