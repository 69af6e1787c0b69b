"""Claims and a sequential model for any function: they go by what a call did, not by what the contract calls it.

A call was applied, refused, has failed, or is in doubt (`Effect`). A contract names the claims that it makes; each
comes with a remedy that a contract may word better.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass

from harness.contracts.contract import NOT_REACHED, Claim, Effect, KeyHistory, Operation, Violation


@dataclass(frozen=True, slots=True)
class UpTo:
    """The sequential model of a key that so many calls are granted, and none after them.

    The n-th call is applied if fewer than `capacity` were before it, and refused otherwise. A refusal with the label
    `busy` is right at any time; one with the label `missing` on a key that is not there, and nowhere else.
    """

    capacity: int = 1
    busy: frozenset[str] = frozenset()
    missing: str | None = None

    def initial(self, exists: bool) -> Hashable:
        """How many calls were applied so far; None for a key that is not there."""
        return 0 if exists else None

    def step(self, state: Hashable, operation: Operation) -> tuple[Hashable, ...]:
        """The state after the operation; nothing where its answer is not one that the state gives."""
        outcome = operation.outcome
        if outcome.effect in (Effect.APPLIED, Effect.IN_DOUBT):
            return (state + 1,) if isinstance(state, int) and state < self.capacity else ()
        if outcome.label in self.busy:
            return (state,) if state is not None else ()
        if state is None or outcome.label == self.missing:
            return (state,) if state is None and self.missing in (None, outcome.label) else ()
        return (state,) if isinstance(state, int) and state >= self.capacity else ()


def applied(history: KeyHistory) -> list[Operation]:
    """The operations that were applied, and whose transaction was not rolled back on purpose."""
    return [o for o in history.operations if o.outcome.effect is Effect.APPLIED and not o.rolled_back]


def any_with(history: KeyHistory, *effects: Effect) -> bool:
    """Whether a call on the key had one of the effects."""
    return any(o.outcome.effect in effects for o in history.operations)


def at_most(
    capacity: int = 1,
    *,
    id: str = "at_most_applied",
    statement: str = "",
    reason: str = "{count} calls were applied on one key",
    remedy: str = "Take the row lock before the check (SELECT ... FOR UPDATE), or guard the UPDATE by what it saw.",
) -> Claim:
    """No more calls are applied on a key than it has room for."""

    def judge(history: KeyHistory) -> Iterator[Violation]:
        found = applied(history)
        if len(found) > capacity:
            yield Violation(reason.format(count=len(found)), tuple(found))

    return Claim(id, statement or f"At most {_calls(capacity)} applied on a key.", remedy, judge)


def at_least_one(
    *,
    id: str = "at_least_one_applied",
    statement: str = "A key that was called, and on which no call failed, is granted to one call.",
    reason: str = "no call was applied on a fresh key",
    remedy: str = "Look for a lock wider than the key's own row, or a refusal that is given without a winner.",
) -> Claim:
    """Somebody gets what all want, unless a call failed or is in doubt."""

    def judge(history: KeyHistory) -> Iterator[Violation]:
        if not history.exists:
            return
        for operation in history.operations:
            # Refusals given while a winner's transaction was open are right, also where that transaction went away.
            if operation.outcome.effect is not Effect.REFUSED or operation.rolled_back:
                return
        yield Violation(reason, tuple(history.operations))

    return Claim(id, statement, remedy, judge)


def others_refused(
    *,
    id: str = "losers_are_refused",
    statement: str = "Every call that is not applied is refused by an answer, not by an error.",
    remedy: str = "Handle the error in the function and answer it, or name it as a refusal in the contract.",
) -> Claim:
    """Nobody is told no by an error that is no answer."""

    def judge(history: KeyHistory) -> Iterator[Violation]:
        for operation in history.operations:
            outcome = operation.outcome
            if outcome.effect is Effect.FAILED and outcome.code not in NOT_REACHED:
                reason = f"answered with an error instead of a refusal: {outcome.code} {outcome.detail or ''}".rstrip()
                yield Violation(reason, (operation,))

    return Claim(id, statement, remedy, judge)


def names_the_winner(
    column: str,
    argument: str,
    *,
    refused: str,
    id: str = "true_winner",
    statement: str = "An answer that names somebody names the one whose call was applied.",
    reason: str = "was applied as {own}, and told that it was {told}",
    remedy: str = "Read who was first from the locked row, after the lock is held.",
) -> Claim:
    """The evidence column says who passed the argument of the call that was applied, to winners and to refused ones."""

    def judge(history: KeyHistory) -> Iterator[Violation]:
        winners = [o.arguments[argument] for o in applied(history)]
        for operation in history.operations:
            told = operation.answer.get(column)
            if told is None:
                continue
            if operation.outcome.effect is Effect.APPLIED:
                if told == (own := operation.arguments[argument]):
                    continue
                why = reason.format(own=own, told=told)
            elif operation.outcome.label == refused and told not in winners:
                first = ", ".join(dict.fromkeys(str(winner) for winner in winners)) or "nobody"
                why = f"was told that {told} was first; {first} was"
            else:
                continue
            if any_with(history, Effect.IN_DOUBT):
                return  # an answer that was lost may have been the winner's
            yield Violation(why, (operation,))

    return Claim(id, statement, remedy, judge, refused, column)


def busy_only_in_flight(
    label: str = "busy",
    *,
    id: str = "busy_only_while_in_flight",
    statement: str = "A busy answer is given only while another call on the same key is in flight.",
    reason: str = "was told that the key is busy while no other call on it was in flight",
    remedy: str = "Lock the key's own row; a lock shared between keys turns away callers of free ones.",
) -> Claim:
    """Not now, somebody else is at it: said only when somebody else is."""

    def judge(history: KeyHistory) -> Iterator[Violation]:
        for operation in history.operations:
            if operation.outcome.label != label or operation.rolled_back:
                continue
            overlapping = (
                o
                for o in history.operations
                if o is not operation
                and o.called < operation.returned
                and (o.returned > operation.called or o.outcome.effect is Effect.IN_DOUBT)
            )
            if next(overlapping, None) is None:
                yield Violation(reason, (operation,))

    return Claim(id, statement, remedy, judge, label)


def _calls(number: int) -> str:
    return "one call is" if number == 1 else f"{number} calls are"
