"""Errors that nobody foresaw become a sentence with a next step."""

from __future__ import annotations

import psycopg
import pytest

from harness.errors import explained


@pytest.mark.parametrize(
    ("error", "setting"),
    [
        (psycopg.errors.QueryCanceled("canceling statement due to statement timeout"), "statement_timeout"),
        (psycopg.errors.LockNotAvailable("canceling statement due to lock timeout"), "lock_timeout"),
        (psycopg.errors.IdleSessionTimeout("terminating connection"), "idle_session_timeout"),
        (psycopg.errors.IdleInTransactionSessionTimeout("terminating"), "idle_in_transaction_session_timeout"),
        (psycopg.errors.lookup("25P04")("terminating connection"), "transaction_timeout"),
    ],
)
def test_a_limit_of_the_server_that_cuts_the_harness_off_is_named(error: psycopg.Error, setting: str) -> None:
    """It is no defect of the harness; what set it, and what to do, is said."""
    told = explained(error)
    assert setting in told.what
    assert "ALTER DATABASE" in told.next_step


def test_a_statement_that_somebody_cancelled_met_no_limit() -> None:
    """The same SQLSTATE without the server's word of a timeout."""
    assert "timeout" not in str(explained(psycopg.errors.QueryCanceled("canceling statement due to user request")))
