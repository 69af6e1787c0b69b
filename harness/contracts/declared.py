"""A contract that a file declares: the `load:` section of a scenario, as data, and the `Contract` made of it.

Nothing here reads a file or asks a server. How an answer is to be read is SQL, which only the server can evaluate:
while calls are fired an answer stays what it is (`Answered`), and the distinct ones are put to the server afterwards
(`harness.targets.conditions`).
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.contracts import claims
from harness.contracts.contract import (
    Answered,
    Claim,
    Contract,
    Effect,
    ErrorAnswer,
    Function,
    KeysQuery,
    Outcome,
    Retry,
    Variant,
)
from harness.contracts.invariants import Invariant
from harness.environment.identity import Identity
from harness.sqltext.scripts import Script

KEY, CLIENT, CLIENT_ID, NUMBER = "key", "client", "client_id", "n"
VARIABLES = (KEY, CLIENT, CLIENT_ID, NUMBER)
"""What a call may name: the key that calls contend for, the client's number, a UUID of its own, and how many calls it
has made, this one included."""

KINDS = {"applied": "accepted", "refused": "refused", "busy": "busy", "missing": "missing"}
"""What an answer can mean, with the label that it has where the line gives no name."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One line `KIND: [NAME] when CONDITION`; one of `code`, `no_row`, `sql` says when."""

    kind: str
    label: str
    line: int
    text: str
    """The condition as it stands there."""
    code: str = ""
    message: str | None = None
    """Regular expression for the error's message."""
    no_row: bool = False
    sql: str = ""
    columns: frozenset[str] = frozenset()
    """Columns of the answer that `sql` names."""


@dataclass(frozen=True, slots=True)
class Call:
    """One way to call."""

    name: str
    line: int
    function: Function
    values: Mapping[str, Any]
    """Its parameters that are no variables, by name."""
    variables: Mapping[str, str]
    """Its parameters that are, other than the key: parameter -> variable."""

    def arguments(self, client: int) -> Mapping[str, Any]:
        """Every argument of a client but the key and the call's number."""
        known = {CLIENT: client, CLIENT_ID: client_id(client)}
        given = {name: known[variable] for name, variable in self.variables.items() if variable in known}
        return {**self.values, **given}


@dataclass(frozen=True, slots=True)
class Planned:
    """One line `pattern:`, as it stands there."""

    line: int
    name: str
    settings: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Load:
    """What a file says of a load."""

    path: Path
    line: int
    claim: str
    calls: tuple[Call, ...]
    keys: KeysQuery
    rules: tuple[Rule, ...]
    missing_keys: KeysQuery | None = None
    capacity: int = 1
    thresholds: Mapping[str, tuple[str, ...]] | None = None
    patterns: tuple[Planned, ...] = ()
    conditions: tuple[Invariant, ...] = ()
    """Its never: and always:, asked after the load."""
    setup: Script | None = None
    """Applied after the migrations and the seed."""
    identity: Identity | None = None
    retry: Retry | None = None
    ask: Callable[[Mapping[str, Any]], Outcome] | None = None
    """Reads an answer at once, where calls are not fired but carried out one by one; None: afterwards."""

    def place(self, line: int) -> str:
        """The file and the line of its heading, as a report names it."""
        return f"{self.path}:{line}"

    def read(self, row: Mapping[str, Any]) -> Outcome:
        """What a row comes to: nothing yet, unless there is somebody to ask at once."""
        return Answered(row=row) if self.ask is None else self.ask(row)

    def labels(self, kind: str) -> tuple[str, ...]:
        """The labels of a kind, each once, in the file's order."""
        return tuple(dict.fromkeys(rule.label for rule in self.rules if rule.kind == kind))


def client_id(client: int) -> str:
    """A UUID of a client's own, the same in every run."""
    return str(uuid.UUID(int=client + 1))


def contract_of(load: Load) -> Contract:
    """The contract that a file declares."""
    applied, refused, busy, missing = map(load.labels, KINDS)
    no_row = next((rule.label for rule in load.rules if rule.no_row), None)
    functions = [call.function for call in load.calls]
    one = functions[0] if all(each == functions[0] for each in functions) else None
    return Contract(
        name=load.path.name,
        description=load.claim,
        function=functions[0],
        new_keys=load.keys,
        variants=tuple(
            Variant(call.name, call.arguments, None if one else lambda _, call=call: call.function)  # type: ignore[misc]
            for call in load.calls
        ),
        labels={rule.label: Effect.APPLIED if rule.kind == "applied" else Effect.REFUSED for rule in load.rules},
        classify=lambda _: None,
        model=claims.UpTo(load.capacity, frozenset(busy), missing[0] if missing else None),
        claims=(
            claims.at_most(load.capacity),
            claims.at_least_one(),
            claims.others_refused(
                remedy="Handle the error in SQL, or add the line that says what the answer means: "
                "`refused: when CONDITION`, `refused: when error CODE`."
            ),
            *(_busy(label, len(busy) > 1) for label in busy),
        ),
        thresholds=load.thresholds or {},
        metrics={rule.label: frozenset({rule.label}) for rule in load.rules},
        accepted=applied[0],
        repeated=refused[0] if refused else KINDS["refused"],
        missing=(missing or refused or (KINDS["missing"],))[0],
        capacity=load.capacity,
        no_row=no_row,
        errors=tuple(ErrorAnswer(rule.code, rule.label, rule.message) for rule in load.rules if rule.code),
        identity=_identity(load.identity),
        retry=load.retry,
        declared=load,
    )


def _busy(label: str, several: bool) -> Claim:
    return claims.busy_only_in_flight(label, id=f"busy_only_while_in_flight{f'.{label}' if several else ''}")


def _identity(given: Identity | None) -> Identity | Callable[[int], Identity] | None:
    """As whom a client calls: each somebody else, where the claims name `:client`."""
    if given is None or given.claims is None or ":client" not in json.dumps(given.claims):
        return given

    def identity(client: int) -> Identity:
        return replace(given, claims=json.loads(json.dumps(given.claims).replace(":client", client_id(client))))

    return identity
