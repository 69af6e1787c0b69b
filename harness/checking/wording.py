"""How a statement and a server's error are told in one line."""

from __future__ import annotations

import psycopg


def message(error: psycopg.Error) -> str:
    """What the server said, with its SQLSTATE."""
    return f"{error.diag.message_primary or ' '.join(str(error).split())} (SQLSTATE {error.sqlstate or 'none'})"


def short(text: str) -> str:
    """A statement on one line."""
    line = " ".join(text.split())
    return line if len(line) <= 100 else line[:97] + "..."
