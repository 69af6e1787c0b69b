"""What a scenario's SQL can reach in a project's migrations, by text, and whether a change of these is among it.

It errs on one side only: what cannot be told is taken to be reached. Tables that one statement names together (a
foreign key, a view, a trigger, a policy) reach each other; a function reaches all that its text names, in strings as
well.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pglast
from pglast.parser import ParseError

_WORD = re.compile(r"[^\W\d][\w$]*")

_OF_RELATIONS = frozenset({
    "CreateStmt", "AlterTableStmt", "IndexStmt", "RuleStmt", "CreateTrigStmt", "CreatePolicyStmt", "AlterPolicyStmt",
    "ViewStmt", "CreateTableAsStmt", "TruncateStmt", "InsertStmt", "UpdateStmt", "DeleteStmt", "CopyStmt", "RenameStmt",
    "CreateSeqStmt", "AlterSeqStmt", "RefreshMatViewStmt",
})  # fmt: skip
"""Statements whose `relation`, `view`, `sequence` or `relations` they create, change or fill."""

_OF_NOTHING = frozenset({"TransactionStmt", "CommentStmt"})

_HARMLESS = frozenset({
    "GrantStmt", "AlterDefaultPrivilegesStmt", "CreateExtensionStmt", "CreateSchemaStmt", "VariableSetStmt", "DoStmt",
    "SelectStmt", "AlterOwnerStmt", "CreateRoleStmt", "AlterRoleStmt", "AlterRoleSetStmt", "GrantRoleStmt",
    "AlterPublicationStmt", "CreatePublicationStmt", "AlterFunctionStmt", "AlterObjectSchemaStmt", "AlterExtensionStmt",
    "AlterDatabaseSetStmt", "NotifyStmt", "VacuumStmt", "CheckPointStmt", "LockStmt", "ConstraintsSetStmt",
    "ReindexStmt",
})  # fmt: skip
"""Statements that, where they have not changed, make nothing that calls something else. DO is looked into."""


@dataclass(frozen=True, slots=True)
class Part:
    """A statement of a migration."""

    text: str
    targets: frozenset[str]
    """Names, without a schema, of what it creates, changes or fills."""
    function: bool
    unsure: str = ""
    """Why its targets are not known."""
    opaque: bool = False
    """It may make something by which one object reaches another, and nobody can tell what."""

    @property
    def words(self) -> frozenset[str]:
        """The words of its text, in lower case."""
        return frozenset(word.lower() for word in _WORD.findall(self.text))

    @property
    def dynamic(self) -> bool:
        """Whether it may run SQL that is put together as it runs."""
        return "execute" in self.words and not re.search(r"\bGRANT\s+EXECUTE\b|\bREVOKE\s+EXECUTE\b", self.text, re.I)


def parts(text: str, name: str) -> tuple[Part, ...]:
    """The statements of a file; one that is unsure where the file cannot be parsed."""
    try:
        parsed = json.loads(pglast.parser.parse_sql_json(text))
    except ParseError as error:
        return (Part(text, frozenset(), False, f"{name} cannot be read as SQL: {error.args[0]}", opaque=True),)
    encoded = text.encode()
    found = []
    for statement in parsed.get("stmts", ()):
        start = statement.get("stmt_location", 0)
        length = statement.get("stmt_len", len(encoded) - start)
        [(kind, value)] = statement["stmt"].items()
        piece = encoded[start : start + length].decode(errors="replace")
        found.append(_part(kind, value, piece, name))
    return tuple(found)


def _part(kind: str, value: Mapping[str, Any], text: str, name: str) -> Part:
    if kind in _OF_NOTHING:
        return Part("", frozenset(), False)
    if kind == "CreateFunctionStmt":
        return Part(text, frozenset({value["funcname"][-1]["String"]["sval"].lower()}), True)
    if kind in _OF_RELATIONS:
        relations = [value.get(each) for each in ("relation", "view", "sequence", "table")] + [
            each.get("RangeVar") for each in value.get("relations", ())
        ]
        into = value.get("into", {}).get("rel")
        targets = frozenset(each["relname"].lower() for each in (*relations, into) if each)
        if targets and (renamed := value.get("newname")):
            targets |= {renamed.lower()}
        # Whom it refers to is changed too: its rows cannot go any more. So is whom it inherits from, or is a part of.
        targets |= frozenset(_referred_to(value))
        if targets:
            return Part(text, targets, False)
    if kind in ("CreateEnumStmt", "CreateDomainStmt", "AlterEnumStmt"):
        names: Any = value.get("domainname") or value.get("typeName")
        return Part(text, frozenset({names[-1]["String"]["sval"].lower()}), False)
    if kind == "CompositeTypeStmt":
        return Part(text, frozenset({value["typevar"]["relname"].lower()}), False)
    if kind == "DefineStmt" and value.get("kind") != "OBJECT_OPERATOR":  # an aggregate calls functions
        return Part(text, frozenset({value["defnames"][-1]["String"]["sval"].lower()}), True)
    if kind == "DropStmt":
        dropped = {each.lower() for each in _strings(value.get("objects", ()))} - {"public"}
        return Part(text, frozenset(dropped), False)
    made = Part(text, frozenset(), False)
    creates = "create" in made.words and made.words & {"function", "procedure", "trigger", "view", "rule", "cast"}
    opaque = kind not in _HARMLESS or (kind == "DoStmt" and (bool(creates) or made.dynamic))
    what = re.sub(r"Stmt$", "", kind)
    return replace(
        made, unsure=f"{name} has a statement of which it is not known what it changes ({what})", opaque=opaque
    )


def _referred_to(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, each in value.items():
            if key == "pktable":
                yield each["relname"].lower()
            elif key == "inhRelations":
                yield from (parent["RangeVar"]["relname"].lower() for parent in each)
            else:
                yield from _referred_to(each)
    elif isinstance(value, list):
        for each in value:
            yield from _referred_to(each)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, each in value.items():
            if key == "sval":
                yield each
            else:
                yield from _strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from _strings(each)


@dataclass(frozen=True, slots=True)
class Reach:
    """The objects of a project's migrations, and which can reach which."""

    names: frozenset[str]
    edges: Mapping[str, frozenset[str]]
    dynamic: frozenset[str]
    """Functions that run SQL which is put together as they run."""
    unsure: str
    """Why nothing can be told; empty where it can."""

    def from_words(self, words: Iterable[str]) -> frozenset[str]:
        """All that is reached from a text with these words."""
        found = {word for word in words if word in self.names}
        todo = list(found)
        while todo:
            for name in self.edges.get(todo.pop(), ()):
                if name not in found:
                    found.add(name)
                    todo.append(name)
        return frozenset(found)


def reach(migrations: Sequence[Sequence[Part]]) -> Reach:
    """What can reach what in the migrations as they are."""
    every = [part for file in migrations for part in file]
    names = frozenset(name for part in every for name in part.targets)
    edges: dict[str, set[str]] = {}
    dynamic: set[str] = set()
    unsure = ""
    for part in every:
        others = part.words & names
        if part.opaque:
            unsure = unsure or part.unsure
        if part.function:
            dynamic |= part.targets if part.dynamic else set()
            for name in part.targets:
                edges.setdefault(name, set()).update(others)
            continue
        # Also of a statement that is not understood: what it names belongs together.
        for name in others:
            edges.setdefault(name, set()).update(others)
    return Reach(names, {name: frozenset(each) for name, each in edges.items()}, frozenset(dynamic), unsure)


def changed(before: Sequence[Part], after: Sequence[Part]) -> tuple[frozenset[str], str]:
    """The targets of the statements that stand in one version only, and why they are not all known, if so."""
    old, new = {part.text.strip() for part in before}, {part.text.strip() for part in after}
    differing = [p for p in before if p.text.strip() not in new] + [p for p in after if p.text.strip() not in old]
    unsure = next((part.unsure for part in differing if part.unsure), "")
    return frozenset(name for part in differing for name in part.targets), unsure
