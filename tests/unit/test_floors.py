"""The house: what `harness/__init__.py` says of its floors is so."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
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
