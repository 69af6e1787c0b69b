"""Where the project's files define a function."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import pglast
from pglast.parser import ParseError

from harness.sqltext.scripts import Script, Statement

_CREATES = re.compile(r"CREATE\s+(OR\s+REPLACE\s+)?(FUNCTION|PROCEDURE)\b", re.IGNORECASE)


def definition(scripts: Sequence[Script], function: str, parameters: int) -> Statement | None:
    """The statement that defines the function last, of those with so many input parameters where there are some.

    None where no statement does, as for a function that a DO block creates. `function` may name its schema.
    """
    schema, _, name = function.rpartition(".")
    # Splitting and parsing take their time, and only few of a project's files know the name.
    statements = (s for script in scripts if name in script.text for s in script.statements())
    found = [
        (statement, inputs)
        for statement in statements
        for defined, inputs in _defined(statement)
        if defined[-1] == name and (not schema or len(defined) == 1 or defined[-2] == schema)
    ]
    fitting = [statement for statement, inputs in found if inputs == parameters]
    of_any_kind = fitting or [statement for statement, _ in found]
    return of_any_kind[-1] if of_any_kind else None


def _defined(statement: Statement) -> Iterator[tuple[list[str], int]]:
    """The name, as its parts, and the number of input parameters of the function that a statement creates."""
    if not _CREATES.match(statement.text):
        return
    try:
        parsed: Any = pglast.parse_sql(statement.text)[0].stmt
    except ParseError:
        return
    inputs = [p for p in parsed.parameters or () if p.mode.name in ("FUNC_PARAM_DEFAULT", "FUNC_PARAM_IN",
              "FUNC_PARAM_INOUT", "FUNC_PARAM_VARIADIC")]  # fmt: skip
    yield [part.sval for part in parsed.funcname], len(inputs)
