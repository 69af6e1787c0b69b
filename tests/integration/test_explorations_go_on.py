"""An exploration in several processes, one that was ended, and the one that goes on where it stood."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.environment.servers import Server
from harness.errors import UsageError
from harness.options import Options
from harness.run import Harness, open_harness
from harness.schedules import Exploration, Progress, engine
from harness.verdict.findings import Truth
from tests.conftest import MIGRATIONS, SEED

BROKEN = Path(__file__).parent / "functions" / "broken" / "insert_where_not_exists.sql"
VARIANTS = ("own scanner, qr", "shared scanner, qr")


@pytest.fixture(scope="module")
def opened(server: Server) -> Iterator[Harness]:
    with open_harness(Options(server=server.dsn, migrations=(MIGRATIONS,), seed=(SEED,))) as made:
        yield made


@pytest.fixture(scope="module")
def whole(opened: Harness) -> Exploration:
    return opened.explore(variants=VARIANTS).exploration


def counted(exploration: Exploration) -> list[tuple[object, ...]]:
    """Of all that was asked for: how much is tried of three calls is a matter of time."""
    asked = [case for case in exploration.cases if case.calls <= exploration.calls]
    return [(c.variant, c.keys, c.schedules, c.before_reduction, c.exhausted, c.outcomes) for c in asked]


def test_jobs_try_what_one_tries(opened: Harness, whole: Exploration) -> None:
    """Two processes carry out the same schedules of the same cases as one, and say the same of them."""
    far: list[Progress] = []
    found = opened.explore(variants=VARIANTS, jobs=2, said=far.append).exploration
    assert counted(found) == counted(whole)
    assert [(f.id, f.truth) for f in found.findings] == [(f.id, f.truth) for f in whole.findings]
    assert {case.variant for case in found.cases} == {case.variant for case in whole.cases}
    assert far[-1].cases >= 12  # of two variants: on one key and on two, and their edges


def test_jobs_find_what_one_finds(server: Server) -> None:
    """A broken function is broken in several processes too, with a schedule that repeats it."""
    options = Options(server=server.dsn, migrations=(MIGRATIONS, BROKEN), seed=(SEED,))
    with open_harness(options) as opened:
        found = opened.explore(variants=VARIANTS[:1], jobs=2).exploration
        assert found.truth is Truth.BROKEN
        schedule = found.broken["at_most_one_accepted"]
        again = opened.explore(replay=schedule.replay).exploration
        assert again.truth is Truth.BROKEN


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_ended_exploration_is_gone_on_with(opened: Harness, whole: Exploration, tmp_path: Path, jobs: int) -> None:
    """Ended in the middle it says what was left; gone on with, it has tried each schedule once, no more and no less."""
    first = opened.explore(variants=VARIANTS, max_schedules=9).exploration
    assert not first.exhausted
    claim = next(finding for finding in first.findings if finding.id == "every_order_tried")
    assert claim.truth is Truth.UNDECIDED
    assert "% gone through" in claim.observed
    record = tmp_path / "record.json"
    opened.record("harness explore").write(record)
    later = opened.explore(resume=record, jobs=jobs).exploration
    assert counted(later) == counted(whole)
    assert later.truth is Truth.HELD
    assert not later.unfinished


@pytest.mark.parametrize("at", [14, 20], ids=["at the end of a case", "in the middle of one"])
def test_ctrl_c_keeps_what_was_tried(
    opened: Harness, whole: Exploration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """What was tried by then is on record, undecided, and is gone on with."""
    monkeypatch.setattr(engine, "_SAY_EVERY", 0.0)

    def interrupt(far: Progress) -> None:
        if far.schedules == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        opened.explore(variants=VARIANTS, said=interrupt)
    assert opened.runs[-1].truth is Truth.UNDECIDED
    record = tmp_path / "record.json"
    opened.record("harness explore").write(record)
    assert counted(opened.explore(resume=record).exploration) == counted(whole)


def test_what_cannot_be_gone_on_with_is_refused(opened: Harness, tmp_path: Path) -> None:
    """A record of no exploration, of one that came to its end, or of other steps, is refused with a sentence."""
    del opened.runs[:]
    record = tmp_path / "record.json"
    opened.record("harness explore").write(record)
    with pytest.raises(UsageError, match="not a record of an exploration"):
        opened.explore(resume=record)
    opened.explore(variants=VARIANTS[:1])
    opened.record("harness explore").write(record)
    with pytest.raises(UsageError, match="left nothing to go on with"):
        opened.explore(resume=record)
    opened.explore(variants=VARIANTS[:1], max_schedules=5)
    opened.record("harness explore").write(record)
    text = record.read_text()
    record.write_text(text.replace("INSERT INTO scan_logs", "INSERT INTO others"))
    with pytest.raises(UsageError, match="cannot be gone on with"):
        opened.explore(resume=record)
