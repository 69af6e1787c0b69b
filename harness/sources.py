"""The SQL that runs were about, as a record keeps it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from harness.records import RunRecord, Source
from harness.sqltext.definitions import definition
from harness.sqltext.scripts import Script


def sources(
    scripts: Sequence[Script], runs: Sequence[RunRecord], functions: Mapping[str, int] | None = None
) -> Iterator[Source]:
    """The definitions of the functions that the runs' steps are in, and of others by name and number of parameters.

    A function that no file defines, as one that a DO block creates, has none.
    """
    names = dict(functions or {})
    for run in runs:
        explored = run.details.get("exploration") or {}
        steps = [str(step).partition(":")[0] for step in explored.get("steps", ())]
        steps += [move["function"] for each in (explored.get("broken") or {}).values() for move in each["moves"]]
        for signature in filter(None, steps):
            name, _, parameters = signature.partition("(")
            names.setdefault(name, parameters.count(",") + (parameters != ")"))
    for name, inputs in names.items():
        found = definition(scripts, name, inputs)
        if found is not None:
            yield Source(name, str(found.path), found.line, found.text)
