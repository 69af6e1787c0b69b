"""The house: what `harness/__init__.py` says of its floors is so."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import harness

PACKAGE = Path(harness.__file__).parent
LINES = re.findall(r"^    ((?:\w+(?:\.py|/) +)+)", harness.__doc__ or "", re.MULTILINE)
FLOORS = {room: height for height, line in enumerate(reversed(LINES)) for room in re.findall(r"(\w+)(?:\.py|/)", line)}


def imported(file: Path) -> Iterator[str]:
    """The rooms that a file imports from when it is imported itself; not those under TYPE_CHECKING or in a function."""
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "harness":
            names = [f"harness.{each.name}" for each in node.names] if node.module == "harness" else [node.module or ""]
            yield from (name.split(".")[1] for name in names)


def test_every_room_stands_on_a_floor() -> None:
    """No file or folder is missing from the drawing, and nothing is drawn that is not there."""
    rooms = {path.stem for path in PACKAGE.glob("*.py")} | {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert rooms - {"__init__"} == set(FLOORS)


def test_a_file_imports_only_from_floors_below() -> None:
    """So there is no circle, and what is low can be used and tested without what is high."""
    wrong = []
    for file in PACKAGE.rglob("*.py"):
        room = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room != "__init__":
            wrong += [
                f"{file.relative_to(PACKAGE)} imports {other}"
                for other in imported(file)
                if other in FLOORS and other != room and FLOORS[other] >= FLOORS[room]
            ]
    assert not wrong


def test_no_file_is_imported_by_what_it_imports() -> None:
    """Within a room there is no circle either, over however many files."""
    files = {
        ".".join(("harness", *path.relative_to(PACKAGE).with_suffix("").parts)): path for path in PACKAGE.rglob("*.py")
    }
    files = {name.removesuffix(".__init__"): path for name, path in files.items()}
    imports: dict[str, set[str]] = {}
    for name, path in files.items():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "harness":
                module = node.module or ""
                found = {f"{module}.{each.name}" for each in node.names} & files.keys()
                named = {each.name for each in node.names if f"{module}.{each.name}" not in files}
                imports.setdefault(name, set()).update(found | ({module} if named else set()))
    TopologicalSorter(imports).prepare()  # raises CycleError, with the files in their order
    assert len(imports) > 100
