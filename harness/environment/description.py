"""What a server was, as a record keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

GONE_ON = "gone on without (--keep-going)"
"""How the sentence begins that says which of the files' statements failed."""


@dataclass(frozen=True, slots=True)
class ServerDescription:
    """What a figure must be read with: which server, how it is set, on how many cores."""

    kind: str
    version: str
    """Of PostgreSQL; empty where only its API is in reach."""
    why: str
    """Why this kind was taken."""
    address: str
    """Where it is, without a password."""
    settings: Mapping[str, str]
    cores: int
    """Cores of the machine the harness runs on."""

    def __str__(self) -> str:
        if not self.version:
            return f"{self.kind}: {self.why}"
        return f"PostgreSQL {self.version} ({self.kind}: {self.why})"


@dataclass(frozen=True, slots=True)
class Touched:
    """What a run touched, by name without schema, in small letters."""

    tables: tuple[str, ...]
    """Scanned or written, as the server counted."""
    functions: tuple[str, ...]
    """Called, as the server counted."""
    reached: tuple[str, ...]
    """What cannot be counted, and what stands in the text of something that ran: views, types, policies' functions."""
    of: str = ""
    """The sha256 of the scenario's file; empty where it was a function by its contract."""

    def __contains__(self, name: str) -> bool:
        return name in self.tables or name in self.functions or name in self.reached
