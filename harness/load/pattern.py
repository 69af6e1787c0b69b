"""What a pattern is: a plan (a frozen value) that says what is called when, and describes itself.

A pattern is one file: a dataclass whose fields are its settings, registered under its name. From the description the
faces draw their options, help and checks, the fixture its keyword arguments, and a record the command that repeats it.

Nothing of the harness writes to the tables while calls are in flight: fresh keys are made before the start, because a
foreign-key check alone can make a lone NOWAIT caller busy.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar, Self, TypeVar

from harness.contracts.contract import Contract
from harness.errors import UsageError
from harness.load.crew import Client, Crew
from harness.load.firing import Jobs, Waits
from harness.options import POSITIVE, POSITIVE_INT, PROFILES, Kind
from harness.targets.target import Target

LATE = 0.01
"""Seconds after its due time from which an arrival counts as not started in time."""


class Keys:
    """The keys of one run: fresh ones, encoded once, and some that were never created."""

    def __init__(self, fresh: Sequence[Hashable], unknown: Sequence[Hashable] = ()) -> None:
        self.fresh = fresh
        self.unknown = unknown


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """What a pattern says of one of its fields."""

    kind: Kind | None
    """None: it is for Python callers, and no option."""
    help: str
    instead_of: str
    """The setting whose default falls away when this one is given."""
    lifts: str
    """The setting that has no default any more when this one is given, and may be given beside it."""
    by_profile: Mapping[str, Any]
    """Its default in profiles that have one of their own."""


def setting(
    default: Any, kind: Kind | None = None, help: str = "", *, instead_of: str = "", lifts: str = "", **by_profile: Any
) -> Any:
    """A field of a pattern. With a `kind` it is an option of the command line, the environment and the ini file.

    `by_profile` gives it other defaults in some profiles; only an option that has such is taken without --pattern.
    """
    return dataclasses.field(default=default, metadata={"setting": Setting(kind, help, instead_of, lifts, by_profile)})


def clients_setting(**by_profile: Any) -> Any:
    """The field `clients`, which every pattern has."""
    return setting(10, POSITIVE_INT, "concurrent clients", instead_of="", **by_profile)


def limit_setting(*, quick: float = 1.5) -> Any:
    """The field `limit`: seconds after which nothing more is begun; None: all is done."""
    return setting(None, POSITIVE, "seconds at most, however many rounds or calls are left", quick=quick)


def overtime_setting() -> Any:
    """The field `overtime`: seconds that calls in flight get when the time is over; None: as long as one may take."""
    return setting(None, quick=1.5)


MOST_CALLS = 10_000_000
"""Of one run. Each is kept with its key, its times and its answer until the run is judged."""


class Pattern(ABC):
    """A plan. `prepare` runs once, in the main thread, before the start; the jobs on the thread that fires them.

    Its docstring's first line is what help says of it.
    """

    __slots__ = ()

    name: ClassVar[str]
    profiles: ClassVar[frozenset[str]] = frozenset()
    """The profiles that it is a part of."""
    clients: int

    def __post_init__(self) -> None:
        """Check every setting. Raises UsageError that names the first wrong one."""
        for name, about in self.settings().items():
            value = getattr(self, name)
            if about.kind is not None and value is not None:
                about.kind.check(name, value)
        if self.planned > MOST_CALLS:
            raise UsageError(
                f"The pattern {self.name} would make {self.planned:g} calls, and {MOST_CALLS} fit into the memory.",
                next_step="give fewer clients, calls or rounds, a smaller rate, or a shorter duration",
            )

    @property
    def planned(self) -> float:
        """Calls that are planned beforehand, each with its key."""
        each = getattr(self, "calls", None) or getattr(self, "rounds", None)
        if each is not None:
            return float(self.clients * each)
        return float(getattr(self, "rate", 0) * (self.seconds or 0))

    @classmethod
    def summary(cls) -> str:
        """What it does, in one sentence: its docstring's first line."""
        return (cls.__doc__ or "").strip().partition("\n")[0]

    @classmethod
    def settings(cls) -> dict[str, Setting]:
        """What it says of its fields, by name; fields that it says nothing of are for Python callers."""
        assert dataclasses.is_dataclass(cls)
        return {f.name: f.metadata["setting"] for f in dataclasses.fields(cls) if "setting" in f.metadata}

    @classmethod
    def default_of(cls, name: str, profile: str = "") -> Any:
        """The default of a setting, in a profile where that has one of its own."""
        [found] = [field for field in dataclasses.fields(cls) if field.name == name]  # type: ignore[arg-type]
        return cls.settings()[name].by_profile.get(profile, found.default)

    @classmethod
    def of(cls, profile: str, *given: Mapping[str, Any]) -> Self:
        """The pattern with what was given of its settings, the last word winning, and the profile's defaults else.

        What it has no use for, and what is None, is passed over.
        """
        settings = cls.settings()
        names = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
        values = {name: cls.default_of(name, profile) for name in settings}
        for words in given:
            mine = {name: value for name, value in words.items() if name in names and value is not None}
            places = list(mine)
            for name, about in settings.items():
                if about.instead_of and name in mine:
                    last = max({name, about.instead_of} & mine.keys(), key=places.index)
                    other = about.instead_of if last == name else name
                    values[other] = None
                    mine.pop(other, None)
                elif about.instead_of in mine:
                    values[name] = None
                if about.lifts and name in mine:
                    values[about.lifts] = None
            values |= mine
        return cls(**values)

    @property
    def seconds(self) -> float | None:
        """How long it takes, where that is planned; None where its end depends on its calls."""
        return None

    @property
    def patience(self) -> float | None:
        """Seconds after the start at which calls in flight are given up; None: as long as one call may take."""
        limit, overtime = getattr(self, "limit", None) or self.seconds, getattr(self, "overtime", None)
        return None if limit is None or overtime is None else limit + overtime

    def overlap(self, client: int) -> bool:
        """Whether this client's calls are timed on the server, too."""
        return False

    def waits(self, client: int) -> Waits:
        """What this client's jobs wait for."""
        return Waits.NOTHING

    def fresh_keys(self, rate: float | None) -> int | None:
        """How many fresh keys the plan needs; None: not known without a calibrated `rate` in calls/s."""
        return 0

    @property
    def unknown_keys(self) -> int:
        """How many keys it needs that were never created."""
        return 0

    @abstractmethod
    def expected(self, contract: Contract) -> frozenset[str]:
        """The labels that a call of this pattern should end with."""

    @abstractmethod
    def prepare(self, crew: Crew, clients: Sequence[Client], keys: Keys) -> Jobs:
        """The jobs of each client."""

    def plan_values(self) -> dict[str, Any]:
        """The plan as a record keeps it."""
        return dataclasses.asdict(self)  # type: ignore[call-overload,no-any-return]

    def words(self) -> list[str]:
        """The words of a command that runs it again: `--pattern race --clients 10`."""
        # What is not an option can only be said by a profile that has it so.
        hidden = [name for name, about in self.settings().items() if about.kind is None]
        fits = [p for p in PROFILES if all(getattr(self, name) == self.default_of(name, p) for name in hidden)]
        profile = ["--profile", fits[0]] if fits and fits[0] != PROFILES[0] else []
        return ["--pattern", self.name, *profile, *self.option_words()]

    def option_words(self) -> list[str]:
        """Its options as words of a command, each that has a value."""
        return [
            word
            for name, about in self.settings().items()
            if about.kind is not None and (value := getattr(self, name)) is not None
            for word in (f"--{name.replace('_', '-')}", f"{value:.15g}" if type(value) is float else str(value))
        ]


P = TypeVar("P", bound=type[Pattern])

PATTERNS: dict[str, type[Pattern]] = {}
"""By name; the faces offer these, in this order."""


def register(pattern: P) -> P:
    """Offer a pattern under its name."""
    PATTERNS[pattern.name] = pattern
    return pattern


def targets_of(clients: Sequence[Client]) -> tuple[Target, ...]:
    """The targets that the clients go through, each once."""
    return tuple({client.target.name: client.target for client in clients}.values())
