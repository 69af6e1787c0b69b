"""A server that is gone is told to those who cannot see it."""

from __future__ import annotations

import time

import pytest

from harness.environment import own, pulse
from harness.environment.pulse import Pulse


def test_a_server_that_is_gone_is_silent_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Callers behind a PostgREST, which lives on, would make all of a plan's calls against nobody."""
    monkeypatch.setattr(pulse, "_EVERY", 0.01)
    dsn = own.own_dsn(user="somebody", dbname="postgres", host="/nowhere", port="5432")
    watch = Pulse(dsn, 1.0)
    watch.start()
    try:
        deadline = time.monotonic() + 30
        while not own.is_silent(dsn):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        watch.stop()
    assert not own.is_silent(dsn)
