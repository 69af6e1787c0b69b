"""What a scenario is, as values: sessions, conditions, and what may differ. The reader makes them of a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from harness.contracts.declared import Load
from harness.environment.identity import Identity
from harness.sqltext.scripts import Statement

SUFFIX = ".race.sql"
"""How the name of a scenario's file ends."""

JUDGED = ("sessions", "transactions", "queries only")
"""What `judge:` may say."""

MOST_SESSIONS = 64
"""In one scenario."""

ANOMALIES = (
    "lost update", "write skew", "fuzzy read", "phantom read", "read skew", "double use", "overselling",
    "false refusal", "deadlock", "swallowed error", "unhandled 40001", "hang", "not serializable",
    "not split", "not exhausted", "did not overlap", "undeclared busy", "choice without order",
)  # fmt: skip
"""What a finding may be named, and `allow:` accept."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Errors after which a transaction, or the whole session, is run again, and how often."""

    codes: frozenset[str]
    times: int
    session: bool = False


@dataclass(frozen=True, slots=True)
class Session:
    """What one person does."""

    name: str
    number: int
    """Its place among those of an `x N`, from 1; its place in the file where there is no `x N`."""
    line: int
    statements: tuple[Statement, ...]
    identity: Identity = field(default_factory=Identity)
    identity_line: int = 0
    """Of its `as:`."""
    isolation: str = ""
    retry: Retry | None = None
    stop_on_error: bool = False
    given: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Variables of the setup, which are known when it has been run."""

    @property
    def variables(self) -> dict[str, str]:
        """psql variables with which a session begins: those of the setup, `:'session'`, `:number`."""
        return {**self.given, "session": self.name, "number": str(self.number)}


@dataclass(frozen=True, slots=True)
class Condition:
    """A query that must return no row (never), or only true (always), in every final state."""

    kind: str
    claim: str
    sql: str
    line: int


@dataclass(frozen=True, slots=True)
class Busy:
    """An answer that means: not now. One of `code` (with `like`), `no_row`, `nothing_changed`, `sql` is set."""

    name: str
    line: int
    text: str
    code: str = ""
    like: str | None = None
    no_row: bool = False
    nothing_changed: bool = False
    sql: str = ""


@dataclass(frozen=True, slots=True)
class Ignored:
    """A table, or a column of one, that is not compared."""

    name: str
    because: str
    line: int


@dataclass(frozen=True, slots=True)
class Allowed:
    """An anomaly that is accepted."""

    anomaly: str
    because: str
    line: int


@dataclass(frozen=True, slots=True)
class Scenario:
    """One scenario file as it was read."""

    path: Path
    claim: str
    setup: tuple[Statement, ...]
    sessions: tuple[Session, ...]
    conditions: tuple[Condition, ...] = ()
    busy: tuple[Busy, ...] = ()
    ignored: tuple[Ignored, ...] = ()
    allowed: tuple[Allowed, ...] = ()
    judge: str = ""
    load: Load | None = None
    """In place of sessions: a call that is put under load."""
    now: datetime | None = None
    """The moment at which it happens; None: as it comes."""
    variables: Mapping[str, str] = field(default_factory=dict, compare=False)
    """psql variables that `\\set` gives in the setup."""
    title: str = ""
    """What reports call it: its name, unless another file has that too."""

    def __post_init__(self) -> None:
        if not self.title:
            object.__setattr__(self, "title", self.name)

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self.path.name.removesuffix(SUFFIX)
