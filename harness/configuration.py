"""What a project's files say about options: `[tool.harness]` in pyproject.toml, and pytest's ini.

Both faces read them, so that a command which pytest prints runs as it is printed. pytest reads its own ini; the command
looks for the file as pytest does: from the working folder upwards, the first that has a section for pytest.
"""

from __future__ import annotations

import configparser
import difflib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.options import ASSIGNMENT, FILE, Option

Values = Mapping[str, str | Sequence[str] | None]
"""Of options, by name, as text: what a command line would give."""

_SECTIONS = {
    "pytest.toml": "pytest",
    ".pytest.toml": "pytest",
    "pytest.ini": "pytest",
    ".pytest.ini": "pytest",
    "pyproject.toml": "",
    "tox.ini": "pytest",
    "setup.cfg": "tool:pytest",
}
"""Where pytest's settings may stand, in the order that pytest looks."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """What the files of a project say."""

    project: Values = field(default_factory=dict)
    """`[tool.harness]`; paths relative to the file are resolved."""
    ini: Values = field(default_factory=dict)
    """The `harness_*` keys of pytest's ini; likewise."""
    path: tuple[Path, ...] = ()
    """Folders that a contract's module may lie in: the working one, those of the files, what pytest's `pythonpath` and
    `testpaths` name, and `tests` in any of these."""


def read(folder: Path, options: Sequence[Option]) -> Configuration:
    """What is said for a command that is called in a folder. Raises UsageError for a file that cannot be read."""
    project, home = of_project(folder, options)
    ini: dict[str, str | Sequence[str] | None] = {}
    places = [] if home is None else [home]
    for file, section in _of_pytest(folder):
        for option in options:
            found = section.get(f"harness_{option.name}")
            if found:
                ini[option.name] = _texts(option, found, file.parent)
        places += [file.parent, *(file.parent / each for each in _lines(section.get("pythonpath")))]
        places += [file.parent / each for each in _lines(section.get("testpaths"))]
    return Configuration(project, ini, module_folders([folder, *places]))


def module_folders(places: Sequence[Path]) -> tuple[Path, ...]:
    """The folders and, after all of them, their `tests`: where pytest finds a module that a test beside it imports."""
    tests = [each / "tests" for each in places if (each / "tests").is_dir()]
    return tuple(dict.fromkeys([*places, *tests]))


def of_project(folder: Path, options: Sequence[Option]) -> tuple[Values, Path | None]:
    """The nearest `[tool.harness]`, from a folder upwards, and where it stands. Raises UsageError for a wrong key."""
    known = {option.name: option for option in options}
    for each in (folder, *folder.parents):
        file = each / "pyproject.toml"
        section = _table(_toml(file), "tool", "harness")
        if section is None:
            continue
        found: dict[str, str | Sequence[str] | None] = {}
        for key, value in section.items():
            option = known.get(key.replace("-", "_"))
            if option is None:
                near = difflib.get_close_matches(key.replace("-", "_"), known, 1)
                raise UsageError(
                    f"{file} has a key in [tool.harness] that is not an option: {key}.",
                    next_step=f"did you mean {near[0]}?" if near else "see harness run --help; --db-pool is db_pool",
                )
            found[option.name] = _checked(option, value, file)
        return found, each
    return {}, None


def _checked(option: Option, value: Any, file: Path) -> str | list[str]:
    """A value of TOML as text. Raises UsageError for a list where one value is due, and what is no value at all."""
    if option.kind is ASSIGNMENT and isinstance(value, dict):
        value = [f"{name}={each}" for name, each in value.items()]
    plain = (str, int, float, bool)
    if isinstance(value, plain) or (
        option.repeatable and isinstance(value, list) and all(isinstance(each, plain) for each in value)
    ):
        return _texts(option, value, file.parent)
    raise UsageError(
        f"{option.name} in [tool.harness] of {file} is {value!r}, which is {option.kind.denial}.",
        next_step=f"see {option.flag} in --help",
    )


def _texts(option: Option, value: Any, folder: Path) -> str | list[str]:
    if option.repeatable:
        return [_text(option, each, folder) for each in _lines(value)]
    return _text(option, value, folder)


def _text(option: Option, value: Any, folder: Path) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(folder / str(value).strip()) if option.kind is FILE else str(value).strip()


def _lines(value: Any) -> list[Any]:
    """The values of a key that may have several: a list, or lines of text."""
    if value is None:
        return []
    if isinstance(value, str):
        return [line.strip() for line in value.splitlines() if line.strip()]
    return list(value) if isinstance(value, list) else [value]


def _of_pytest(folder: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """The file that pytest would take for its ini, with its section; none where there is none."""
    for each in (folder, *folder.parents):
        for name, section in _SECTIONS.items():
            file = each / name
            found = _table(_toml(file), section) if name.endswith("pytest.toml") else None
            if name == "pyproject.toml":
                content = _toml(file)
                found = _table(content, "tool", "pytest", "ini_options")
                if found is None:
                    found = _table(content, "tool", "pytest")
            elif not name.endswith(".toml"):
                found = _ini(file, section)
            # pytest takes a file of its own name even where it says nothing.
            if found is not None or ("pytest." in name and file.is_file()):
                yield file, found or {}
                return


def _table(content: Mapping[str, Any] | None, *names: str) -> Mapping[str, Any] | None:
    for name in names:
        content = content.get(name) if isinstance(content, Mapping) else None
    return content if isinstance(content, Mapping) else None


def _toml(file: Path) -> Mapping[str, Any] | None:
    """The content of a file, None where there is none."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    except (OSError, ValueError) as error:
        raise _unreadable(file, error) from error


def _ini(file: Path, section: str) -> Mapping[str, str] | None:
    parser = configparser.RawConfigParser(strict=False)
    try:
        if not file.is_file() or not parser.read(file, encoding="utf-8"):
            return None
    except (OSError, ValueError, configparser.Error) as error:
        raise _unreadable(file, error) from error
    return dict(parser[section]) if parser.has_section(section) else None


def _unreadable(file: Path, error: Exception) -> UsageError:
    return UsageError(
        f"{file}, which may say how the harness is run, cannot be read.", tried=str(error), next_step="mend the file"
    )
