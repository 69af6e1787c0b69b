"""SQL files of a project: found, and put in the order that the tool they were written for would take."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError
from harness.sqltext.scripts import Script

_FLYWAY = re.compile(r"(?P<kind>[VRUB])(?P<version>[\d._]*?)__(?P<name>.+)\.sql", re.IGNORECASE)
_NUMBERED = re.compile(r"(?P<number>\d+)(?P<rest>.*)\.sql", re.DOTALL)
_SUPABASE = re.compile(r"(\d+_|\d{14}-).*\.sql", re.DOTALL)
_SYSTEM = re.compile(
    r"[._-](?P<system>postgres(?:ql)?|pgsql|cockroach(?:db)?|mysql|mariadb|sqlite3?|mssql|oracle)(?=[._-])"
)
"""The database system that a file is for, where there is one for each (pop, fizz)."""
_UP = re.compile(r"(?P<name>.*)[._-]up\.sql", re.IGNORECASE | re.DOTALL)
_STAMP = 8
"""Digits from which on a number is taken for a time."""
_DOWN = re.compile(r"(?P<name>.*)[._-](down|undo|rollback)\.sql", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Files:
    """The files of one option, in the order that they are applied in."""

    scripts: tuple[Script, ...]
    order: tuple[str, ...]
    """For each folder, a sentence: which order was recognised, and what was left out."""
    unreadable: tuple[tuple[Path, HarnessError], ...] = ()
    """Files that are no text, where going on was asked for."""


def find(paths: Sequence[Path], what: str, option: str, *, keep_going: bool = False) -> Files:
    """The scripts at `paths`, in the order given; a folder gives its own in the order of the tool that they are of.

    Raises HarnessError for a path that is missing, a folder without .sql files and a file that cannot be read.
    """
    scripts: list[Script] = []
    unreadable: list[tuple[Path, HarnessError]] = []
    order: list[str] = []
    for path in paths:
        if path.is_dir():
            files, said = _ordered(path, what, option)
            order.append(f"{path}: {said}")
        elif path.is_file():
            files = [path]
        else:
            raise HarnessError(
                f"No {what} at {path}: there is no such file or folder.",
                tried=str(path.absolute()),
                next_step=f"name a folder or .sql file that exists with {option}",
            )
        for file in files:
            try:
                scripts.append(Script.read(file))
            except HarnessError as error:
                if not keep_going:
                    raise
                unreadable.append((file, error))
    return Files(tuple(scripts), tuple(order), tuple(unreadable))


def _ordered(folder: Path, what: str, option: str) -> tuple[list[Path], str]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise HarnessError(
            f"The {what} folder {folder} cannot be read.", tried=str(error), next_step="check who may read it"
        ) from error
    for plan in (folder / "sqitch.plan", folder.parent / "sqitch.plan"):
        if plan.is_file() and (plan.parent == folder or folder.name == "deploy"):
            return _planned(plan)
    listed = _listed(folder, what)
    if listed is not None:
        return listed
    inner = folder / "migrations"
    if inner.is_dir() and (any(inner.glob("*.sql")) or any(inner.glob("*/*.sql"))):
        # A tool's own folder was named, which holds seeds and settings too.
        files, said = _ordered(inner, what, option)
        return files, f"its folder migrations, {said}"
    files = [entry for entry in entries if entry.suffix.lower() == ".sql" and entry.is_file()]
    folders = [entry for entry in entries if entry.is_dir() and any(entry.glob("*.sql"))]
    if not files and folders:
        kept, said = _one_folder_a_migration(folders, what, option)
        return kept, said + _not_looked_into(entries, folders)
    if len(_of_migrations(folders)) > len(files):
        kept, said = _one_folder_a_migration(_of_migrations(folders), what, option)
        return kept, f"{said}; left out, beside the folders: {', '.join(file.name for file in files)}"
    if not files:
        inside = sorted({str(found.parent) for found in folder.rglob("*.sql") if found.is_file()})[:3]
        raise HarnessError(
            f"The {what} folder {folder} holds no .sql file.",
            tried=f"there are some in {', '.join(inside)}" if inside else "*.sql in it and in its folders",
            next_step=f"put the files there, or name another folder or file with {option}",
        )
    downs = [file for file in files if _is_down(file)]
    left_out = {file: "a down part" for file in downs if len(downs) < len(files)}
    files = [file for file in files if file not in left_out]
    files, of_others = _of_postgres(files)
    left_out |= of_others
    for recognise in (_flyway, _supabase, _numbers):
        found = recognise(files, folder)
        if found is not None:
            kept, said = found
            left_out |= dict.fromkeys(set(files) - set(kept), "not named as the others")
            break
    else:
        kept, said = files, "in name order"
    if downs and any(_UP.fullmatch(file.name) for file in kept):
        said += ", up parts only"
    if left_out:
        names = [file.name for file in left_out]
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        said += f"; left out, {' or '.join(sorted(set(left_out.values())))}: {shown}"
    return kept, said + _not_looked_into(entries, [])


def _not_looked_into(entries: Sequence[Path], looked_into: Sequence[Path]) -> str:
    """Folders with SQL somewhere in them whose files are not taken: said, or they would be missed by nobody."""
    folders = [each for each in entries if each.is_dir() and each not in looked_into and any(each.rglob("*.sql"))]
    folders += [
        inner
        for each in looked_into
        for inner in sorted(each.iterdir())
        if inner.is_dir() and any(inner.rglob("*.sql"))
    ]
    if not folders:
        return ""
    names = [each.name if each in entries else f"{each.parent.name}/{each.name}" for each in folders]
    return f"; not looked into: {', '.join(names[:3])}" + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _planned(plan: Path) -> tuple[list[Path], str]:
    """As Sqitch deploys: the changes of a plan. What one was before it was reworked lies at its name and the tag."""
    changes: list[str] = []
    tags: dict[int, str] = {}
    for line in plan.read_text(encoding="utf-8", errors="replace").splitlines():
        words = line.split("#")[0].split()
        if words and words[0].startswith("@"):
            tags[len(changes)] = words[0]
        elif words and not words[0].startswith("%"):
            changes.append(words[0].lstrip("+"))
    files = []
    for at, name in enumerate(changes):
        tag = next((tags[place] for place in sorted(tags) if place > at), "") if name in changes[at + 1 :] else ""
        path = plan.parent / "deploy" / f"{name}{tag}.sql"
        if not path.is_file():
            raise HarnessError(
                f"The change {name} of {plan} has no file.",
                tried=str(path),
                next_step="put it there, or name the files themselves with --migrations",
            )
        files.append(path)
    return files, "as sqitch.plan deploys them"


def _listed(folder: Path, what: str) -> tuple[list[Path], str] | None:
    """The files that Supabase's config.toml lists: seeds of a project's folder, or its declarative schemas."""
    declared = what != "seed" and folder.name == "schemas"
    home = folder.parent if declared else folder
    config = home / "config.toml"
    if not config.is_file() or not (declared or what == "seed"):
        return None
    try:
        said = tomllib.loads(config.read_text(encoding="utf-8")).get("db", {})
    except (OSError, ValueError):
        return None  # whatever it is, it lists nothing
    section, key = ("migrations", "schema_paths") if declared else ("seed", "sql_paths")
    patterns = said.get(section, {}).get(key) or ([] if declared else ["./seed.sql"])
    found: dict[Path, None] = {}
    nothing = []
    for pattern in map(str, patterns):
        matches = _matches(home, pattern)
        found |= dict.fromkeys(matches)
        nothing += [] if matches else [pattern]
    if not found:
        if not declared:
            return None
        found = dict.fromkeys(sorted(folder.rglob("*.sql")))
        return (list(found), "all below it, by path (config.toml lists none)") if found else None
    order = f"as {key} of {config} lists them" if said.get(section, {}).get(key) else "seed.sql, as Supabase takes it"
    return list(found), order + (f"; there is no {', '.join(nothing)}" if nothing else "")


def _matches(home: Path, pattern: str) -> list[Path]:
    """What a pattern of config.toml means, in name order; a folder means all that is in it."""
    try:
        matches = sorted(home.glob(pattern.removeprefix("./")))
    except (ValueError, NotImplementedError):
        return []
    files = [file for match in matches for file in (sorted(match.rglob("*.sql")) if match.is_dir() else [match])]
    return [file for file in files if file.suffix.lower() == ".sql"]


def _of_postgres(files: Sequence[Path]) -> tuple[list[Path], dict[Path, str]]:
    """Of files for several database systems those for PostgreSQL, and those without a system where there is no such."""
    systems = {file: match["system"] for file in files if (match := _SYSTEM.search(file.name))}
    own = {file for file, system in systems.items() if system in ("postgres", "postgresql", "pgsql")}
    if not own or len(own) == len(systems):
        return list(files), {}
    replaced = {_SYSTEM.sub("", file.name) for file in own}
    kept = [file for file in files if file in own or (file not in systems and file.name not in replaced)]
    return kept, {file: "for another database system" for file in files if file not in kept}


def _is_down(file: Path) -> bool:
    """x.down.sql; x_rollback.sql and the like only where there is a part to go up: else it is a migration's name."""
    named = _DOWN.fullmatch(file.name)
    if named is None or file.name.lower().endswith(".down.sql"):
        return named is not None
    ups = (f"{named['name']}{end}" for end in (".sql", ".up.sql", "_up.sql", "-up.sql", "_do.sql", ".do.sql"))
    return any((file.parent / up).is_file() for up in ups)


def _of_migrations(folders: Sequence[Path]) -> list[Path]:
    """Those that hold one migration each: up.sql (Diesel, Hasura) or migration.sql (Prisma)."""
    return [each for each in folders if any((each / name).is_file() for name in ("up.sql", "migration.sql"))]


def _one_folder_a_migration(folders: Sequence[Path], what: str, option: str) -> tuple[list[Path], str]:
    """As Prisma has them: a folder with a migration.sql for each."""
    stamps = [re.match(r"[\d-]*", each.name)[0].replace("-", "") for each in folders]  # type: ignore[index]
    if all(len(stamp) >= _STAMP for stamp in stamps):
        # Diesel reads 2017-09-23-182408 and 20170923182408 alike.
        folders = [folder for _, folder in sorted(zip(stamps, folders, strict=True))]
    files = []
    for folder in folders:
        inside = [file for file in sorted(folder.glob("*.sql")) if not _DOWN.fullmatch(file.name)]
        inside = [file for file in inside if file.stem.lower() not in ("down", "undo", "rollback")]
        if len(inside) > 1 and not all(each.name[:1].isdigit() for each in folders):
            raise HarnessError(
                f"The {what} folder {folder.parent} holds folders with several .sql files each.",
                tried=f"{folder} holds {', '.join(file.name for file in inside[:3])}",
                next_step=f"name the folder whose files are the {what} with {option}; it may be given more than once",
            )
        files += inside
    if len(files) > len(folders):
        names = {file.name for file in files}
        if len(names) == len(files) and all(name[:1].isdigit() for name in names):
            return sorted(
                files, key=lambda file: file.name
            ), "numbered files in several folders, in the files' name order"
        return files, "numbered folders, and the files of each in name order"
    return files, "one folder a migration (Prisma, Diesel), in name order"


def _flyway(files: Sequence[Path], _: Path) -> tuple[list[Path], str] | None:
    """Versions by number, then the repeatable ones by name; undo files are left out."""
    parts = {file: match for file in files if (match := _FLYWAY.fullmatch(file.name))}
    versioned = {f: m for f, m in parts.items() if m["kind"].upper() in "VB" and m["version"].strip("._")}
    if not versioned or len(parts) * 2 < len(files):
        return None
    repeated = [file for file, match in parts.items() if match["kind"].upper() == "R"]

    def version(file: Path) -> list[int]:
        return [int(number) for number in re.split("[._]", versioned[file]["version"].strip("._"))]

    ordered = sorted(versioned, key=version) + sorted(repeated, key=lambda file: parts[file]["name"])
    return ordered, "versions, then repeatable ones (Flyway)"


def _supabase(files: Sequence[Path], folder: Path) -> tuple[list[Path], str] | None:
    """As its command line takes them: <timestamp>_name.sql in name order, and no other file.

    But for <timestamp>-name.sql: Lovable writes and applies those itself, and what follows needs their tables.
    """
    if "supabase" not in folder.absolute().parts:
        return None
    kept = [file for file in files if _SUPABASE.fullmatch(file.name)]
    return (kept, "timestamps, in name order (Supabase)") if kept else None


def _numbers(files: Sequence[Path], _: Path) -> tuple[list[Path], str] | None:
    """Numbers of different length by value: 2 comes before 10. Timestamps sort as names do."""
    numbers = {file: match["number"] for file in files if (match := _NUMBERED.fullmatch(file.name))}
    if len(numbers) < len(files):
        return None
    if len({len(number) for number in numbers.values()}) == 1 or max(map(len, numbers.values())) > 6:
        stamps = all(len(number) >= 8 for number in numbers.values())
        return list(files), "timestamps, in name order" if stamps else "numbers, in name order"
    key: Callable[[Path], tuple[int, str]] = lambda file: (int(numbers[file]), file.name)  # noqa: E731
    return sorted(files, key=key), "numbers, by value"
