"""The patterns there are, and what the faces draw from their descriptions. A new pattern is a file, and a line here."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Set
from typing import Any

from harness.contracts.contract import Contract
from harness.contracts.declared import Load, Planned
from harness.errors import UsageError
from harness.load.arrivals import Arrivals as Arrivals
from harness.load.burst import Burst as Burst
from harness.load.pattern import PATTERNS, Pattern, Setting
from harness.load.race import Race as Race
from harness.load.rescan import Rescan as Rescan
from harness.load.side_by_side import SideBySide
from harness.load.unknown import Unknown as Unknown
from harness.options import Option

SOAK = "soak"
"""The profile whose patterns run side by side."""


def of_profile(profile: str, given: Mapping[str, Any]) -> tuple[Pattern, ...]:
    """The profile's patterns, with what was given of their settings."""
    if profile == SOAK:
        return (SideBySide.of(profile, given),)
    return tuple(pattern.of(profile, given) for pattern in PATTERNS.values() if profile in pattern.profiles)


def of_contract(contract: Contract, profile: str, given: Mapping[str, Any]) -> tuple[Pattern, ...]:
    """The patterns that a contract's file names, else those of the profile, with what was given of their settings.

    Without keys that are missing, none calls one. Raises UsageError for a line that names no pattern or no setting.
    """
    load = contract.declared
    if load is not None and load.patterns:
        return tuple(_planned(load, each, profile, given) for each in load.patterns)
    found = of_profile(profile, given)
    if load is None or load.missing_keys is not None:
        return found
    return tuple(pattern for pattern in found if not pattern.unknown_keys)


def check_keys(contract: Contract, plans: Collection[Pattern]) -> None:
    """Raises UsageError where a pattern calls keys that are not there, and the contract's file gives none."""
    load = contract.declared
    if load is None or load.missing_keys is not None:
        return
    if wants := next((plan.name for plan in plans if plan.unknown_keys), None):
        raise UsageError(
            f"The pattern {wants} calls keys that are not there, and {load.path} gives none.",
            next_step="write a query for :count of them below `-- missing keys:`",
        )


def _planned(load: Load, planned: Planned, profile: str, given: Mapping[str, Any]) -> Pattern:
    place = load.place(planned.line)
    pattern = PATTERNS.get(planned.name)
    if pattern is None:
        raise UsageError(f"{place}: there is no pattern {planned.name!r}.", next_step=f"write {', '.join(PATTERNS)}")
    settings = {name: about.kind for name, about in pattern.settings().items() if about.kind is not None}
    values: dict[str, Any] = {}
    for name, text in planned.settings:
        kind = settings.get(name)
        if kind is None:
            raise UsageError(
                f"{place}: the pattern {planned.name} has no setting {name!r}.",
                next_step=f"write {', '.join(settings)}",
            )
        values[name] = Option(name, kind, "").read(text, f"{place}: {name}")
    try:
        return pattern.of(profile, values, given)
    except UsageError as error:
        raise UsageError(f"{place}: {error.what}", tried=error.tried, next_step=error.next_step) from error


def options() -> tuple[Option, ...]:
    """The options of all patterns, each once, with the patterns that have a use for it."""
    return tuple(_option(name, found) for name, found in _by_name().items())


def check_used(given: Set[str], chosen: Collection[str], profile: str) -> None:
    """Raises UsageError for an option given on the command line that would change nothing.

    `chosen` are the names of the patterns that are asked for; empty: those of the profile.
    """
    found = _by_name()
    if "profile" in given and chosen and not any(_profiled(PATTERNS[name]) for name in chosen):
        profiled = [name for name, pattern in PATTERNS.items() if _profiled(pattern)]
        raise UsageError(_is_for("profile", profiled), next_step="add the pattern, or leave it out")
    for option, users in found.items():
        used = users.keys() & set(chosen) if chosen else any(about.by_profile for about in users.values())
        if option in given and not used and len(users) < len(PATTERNS):
            raise UsageError(_is_for(option, users), next_step="add the pattern, or leave it out")
    for option, users in found.items():
        for name, about in users.items():
            other = about.instead_of
            if {option, other} <= given and name in chosen and not (found[other].keys() - {name}) & set(chosen):
                raise UsageError(f"--{option} and --{other} both say when a {name} ends.", next_step="give one of them")
    if chosen and profile == SOAK:
        raise UsageError(
            "The profile soak is a burst and a race side by side, and takes no --pattern.",
            next_step="leave --pattern out, or give --profile quick or seed",
        )


def _is_for(option: str, users: Collection[str]) -> str:
    return f"--{option} is for --pattern {' or '.join(sorted(users))}."


def _by_name() -> dict[str, dict[str, Setting]]:
    """Option -> pattern -> what the pattern says of it."""
    found: dict[str, dict[str, Setting]] = {}
    for name, pattern in PATTERNS.items():
        for option, about in pattern.settings().items():
            if about.kind is not None:
                found.setdefault(option, {})[name] = about
    return found


def _option(name: str, users: Mapping[str, Setting]) -> Option:
    [first, *others] = users.values()
    assert first.kind is not None
    assert all(each.kind == first.kind for each in others), f"patterns differ about what {name} is"
    help = first.help if len(users) == len(PATTERNS) else f"{first.help} ({', '.join(users)})"
    plain = {f"{each:g}" if isinstance(each, float) else str(each): None for each in _defaults(name, users)}
    profiles: dict[str, dict[str, None]] = {}
    for each in users.values():
        for profile, value in each.by_profile.items():
            if f"{value:g}" not in plain:
                profiles.setdefault(profile, {})[f"{value:g}"] = None
    texts = [*plain, *(f"{' or '.join(values)} in {profile}" for profile, values in profiles.items())]
    return Option(name, first.kind, help, default=", ".join(texts))


def _defaults(name: str, users: Collection[str]) -> list[Any]:
    found = (PATTERNS[user].default_of(name) for user in users)
    return [default for default in found if default is not None]


def _profiled(pattern: type[Pattern]) -> bool:
    """Whether the profile changes anything of it."""
    return any(about.by_profile for name, about in pattern.settings().items() if name != "clients")
