"""Cases: which calls are explored together.

Those that are asked for are calls on one fresh key, or taking turns on two, with each of the contract's argument
variants; on a key with a capacity also after it was used up to its last use. Beside these are the edges, at which
functions break that hold in the middle: a key that does not exist, an argument that is NULL where the function says
that it may be, two keys of one owner, a call that is cancelled or dies at a step and is made again, and one call more.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from string import ascii_uppercase
from typing import Any

import psycopg

from harness.contracts.contract import Contract
from harness.errors import UsageError
from harness.schedules.plan import MOST_CALLS, Plan
from harness.schedules.trace import FATAL, Choice, Kind, read_replay
from harness.sqltext import queries
from harness.targets.sql import SqlTarget


@dataclass(frozen=True, slots=True)
class Setting:
    """A case to be explored: a variant of the contract by its place, and what its calls are made on and with."""

    variant: int
    keys: int
    """How many keys the calls take in turns."""
    used: int = 0
    """How many calls each key has had beforehand, one after the other."""
    missing: bool = False
    """The keys do not exist."""
    one_owner: bool = False
    """Each call has the arguments of the first, and is made as the same caller."""
    null: int = 0
    """The argument that is NULL, by its place among the variant's, from 1; 0: none."""
    retried: bool = False
    """One call, which is cancelled or dies at each step, and is made again by the same caller."""
    calls: int = 0
    """How many at once, where they are more than were asked for; 0: as many."""

    def prefix(self) -> str:
        """What a replay text says of it before a colon; nothing for the first variant on one fresh key."""
        numbers = [("v", self.variant + 1, 1), ("k", self.keys, 1), ("u", self.used, 0), ("n", self.null, 0)]
        text = "".join(f"{letter}{number}" for letter, number, usual in numbers if number != usual)
        text += "m" * self.missing + "o" * self.one_owner + "r" * self.retried
        text += f"c{self.calls}" if self.calls else ""
        return text and f"{text}:"

    def named(self, contract: Contract) -> str:
        """The case in words."""
        variant = contract.variants[self.variant]
        words = [variant.name]
        words += [f"{self.used} uses before"] * bool(self.used)
        words += [f"{self.argument(contract)} NULL"] if self.null else []
        words += ["a key that does not exist"] * self.missing
        words += ["of one owner"] * self.one_owner
        words += ["cancelled or dies, then retried"] * self.retried
        words += [f"{self.calls} calls"] * bool(self.calls)
        return ", ".join(words)

    @property
    def edge(self) -> bool:
        """It is beside what was asked for: what breaks there is shown only where nothing breaks in the middle."""
        return self.missing or self.one_owner or self.retried or bool(self.null or self.calls)

    @property
    def beyond(self) -> bool:
        """It has more calls than were asked for: what is not tried of it leaves nothing undecided."""
        return bool(self.calls)

    def at_once(self, plan: Plan) -> int:
        """How many calls it has, but for those before and after."""
        return 1 if self.retried else self.calls or plan.calls

    def fatal(self, plan: Plan) -> Sequence[Kind]:
        """What may come to one of its calls."""
        return FATAL if self.retried else (Kind.DIE,) if plan.crash else ()

    def argument(self, contract: Contract) -> str:
        """The parameter whose argument is NULL."""
        return list(contract.variants[self.variant].arguments(0))[self.null - 1]

    def caller(self, number: int) -> int:
        """The client as whom a call is made, and whose arguments it has."""
        return 0 if self.one_owner or self.retried else number

    def arguments(self, contract: Contract, number: int) -> dict[str, Any]:
        """Every argument but the key of its calls, by their place."""
        found = dict(contract.variants[self.variant].arguments(self.caller(number)))
        return found | ({self.argument(contract): None} if self.null else {})


def every(plan: Plan, contract: Contract) -> tuple[Setting, ...]:
    """The cases of an exploration, those at the edges after the others.

    Whether a NULL may stand for an argument only the server can say (`nullable`). Raises UsageError for a variant that
    the contract does not have.
    """
    names = [variant.name for variant in contract.variants]
    unknown = [name for name in plan.variants or () if name not in names]
    if unknown:
        raise UsageError(
            f"The contract {contract.name} has no variant named {unknown[0]!r}.",
            next_step=f"give one of: {'; '.join(names)}",
        )
    wanted = [at for at, name in enumerate(names) if plan.variants is None or name in plan.variants]
    # On a fresh key, and on one that has been used up to its last use.
    uses = (0, contract.capacity - 1) if contract.capacity > 1 else (0,)
    found = [Setting(at, keys, used) for at in wanted for keys in plan.keys if keys <= plan.calls for used in uses]
    if plan.edges and plan.deepens:
        found += [edge for at in wanted for edge in _edges(at, plan, contract)]
        # What needs three calls to break holds for two.
        found += [Setting(at, 1, calls=3) for at in wanted if plan.calls == 2]
    # One call more goes with the case that it is one more of.
    return tuple(each for each in found if plan.cases is None or replace(each, calls=0).prefix() in plan.cases)


def _edges(at: int, plan: Plan, contract: Contract) -> list[Setting]:
    variant = contract.variants[at]
    found = [Setting(at, 1, retried=True)]
    declared = contract.declared
    # A call may make a key that is not there, which is then as good as a fresh one; or nobody says what is right then.
    said = contract.missing in contract.labels and contract.missing != contract.accepted
    if said and (declared is None or declared.missing_keys is not None):
        found.append(Setting(at, 1, missing=True))
    if plan.calls > 1 and 2 in plan.keys and variant.function is None and _owners_differ(at, contract):
        found.append(Setting(at, 2, one_owner=True))
    for place, (name, value) in enumerate(variant.arguments(0).items(), 1):
        if value is not None and not any(each.arguments(0).get(name, value) is None for each in contract.variants):
            found.append(Setting(at, 1, null=place))
    return found


def _owners_differ(at: int, contract: Contract) -> bool:
    of = contract.variants[at].arguments
    return dict(of(0)) != dict(of(1)) or contract.identity_of(0) != contract.identity_of(1)


def nullable(setting: Setting, target: SqlTarget, connection: psycopg.Connection[Any]) -> bool:
    """Whether the function says of the argument that is to be NULL that it may be: by its default."""
    oid = target.calls(setting.variant, 1)[0].description.oid
    if oid is None:
        return False
    query = queries.own("harness.schedules", "cases.sql")["null_by_default"]
    found = {row[0] for row in connection.execute(query.encode(), {"routine": oid})}
    return setting.argument(target.contract) in found


def of_replay(plan: Plan, contract: Contract) -> tuple[Plan, tuple[Setting, ...], tuple[Choice, ...]]:
    """The one case and the choices that a replay text names. Raises UsageError for one that names none."""
    assert plan.replay is not None
    prefix, colon, text = plan.replay.rpartition(":")
    match = re.fullmatch(r"(?:v(\d+))?(?:k([12]))?(?:u(\d+))?(?:n(\d+))?(m?)(o?)(r?)(?:c([1-4]))?", prefix)
    choices = read_replay(text)
    variant = int(match[1] or 1) - 1 if match and (prefix or not colon) else -1
    if match is None or not 0 <= variant < len(contract.variants):
        raise UsageError(
            f"{plan.replay!r} names no case of the contract {contract.name}.",
            tried="reading v and a variant's number, k and the number of keys, u and their uses before, then a colon",
            next_step=f"copy the text after --replay from a report; there are {len(contract.variants)} variants",
        )
    _, keys, used, null, missing, one_owner, retried, more = match.groups()
    calls = max(choice.call for choice in choices) + 1
    if calls > MOST_CALLS:
        raise UsageError(
            f"The replay text {plan.replay!r} names a call {max(map(str, choices))[0]}.",
            tried=f"reading a letter for each of at most {MOST_CALLS} calls",
            next_step=f"use the letters A to {ascii_uppercase[MOST_CALLS - 1]}",
        )
    crash = any(choice.kind in FATAL for choice in choices)
    setting = Setting(
        variant, int(keys or 1), int(used or 0), bool(missing), bool(one_owner), int(null or 0), bool(retried),
        int(more or 0),
    )  # fmt: skip
    if setting.null > len(contract.variants[variant].arguments(0)):
        raise UsageError(
            f"{plan.replay!r} names no case of the contract {contract.name}.",
            tried=f"reading n and the place of an argument: the variant gives {setting.null - 1} at most",
            next_step="copy the text after --replay from a report",
        )
    return replace(plan, calls=calls, crash=crash, search="exhaustive"), (setting,), choices
