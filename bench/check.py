"""Checking scenarios: every order of two sessions of four statements, all that are shipped, and a large table."""

import tempfile
import time
from pathlib import Path

from bench._support import median, opened
from harness.check import Checks
from harness.environment.database import Template
from harness.options import Options
from harness.records import RunRecord
from harness.scenarios import examples, reader

RUNS = 3
SETUP = """\
-- scenario: a measurement
-- setup
CREATE TABLE a (id int PRIMARY KEY, n int);
CREATE TABLE b (id int PRIMARY KEY, n int);
INSERT INTO a VALUES (1, 0), (2, 0);
INSERT INTO b VALUES (1, 0), (2, 0);
"""
SESSION = "-- session: {}\nBEGIN;\n{}COMMIT;\n"
READS = "".join(f"SELECT n FROM {table} WHERE id = {{0}};\n" for table in "abab")
HALF = """\
SELECT n FROM a WHERE id = {0};
UPDATE {1} SET n = n + 1 WHERE id = {0};
SELECT n FROM b WHERE id = 1;
SELECT 1;
"""
LARGE = """\
CREATE TABLE large (id int PRIMARY KEY, n int);
INSERT INTO large SELECT g, g FROM generate_series(1, 1000000) AS g;
"""


def main() -> None:
    with opened() as found, Template(found.server, [], []) as template:
        checks = Checks(Options(timeout=5.0), found.server, template)
        reads, half = (
            SETUP + SESSION.format("one", text.format(1, "a")) + SESSION.format("two", text.format(2, "b"))
            for text in (READS, HALF)
        )
        runs = [timed(checks, reads, by=("explore",), reduction=False) for _ in range(RUNS)]
        schedules, seconds = runs[0][0].details["check"]["schedules"], median([each for _, each in runs])
        print(f"two sessions of four statements, nothing reduced: {schedules} schedules in {seconds:.2f} s (under 2 s)")
        print(f"judged schedules with the restore: {schedules / seconds:.0f}/s (at least 150)")
        runs = [timed(checks, half, by=("explore",)) for _ in range(RUNS)]
        schedules, seconds = runs[0][0].details["check"]["schedules"], median([each for _, each in runs])
        print(f"where half of the statements commute: {schedules} schedules in {seconds:.2f} s (under 0.7 s)")
        began = time.perf_counter()
        names = (examples.names() * 2)[:60]
        for name in names:
            checks.check(reader.read(examples.FOLDER / f"{name}.race.sql"))
        print(f"{len(names)} scenarios of the shipped kind: {time.perf_counter() - began:.1f} s (under 60 s)")
        small = timed(checks, half, by=("explore",))[1]
        large = timed(checks, half.replace("-- setup\n", f"-- setup\n{LARGE}"), by=("explore",))[1]
        filled = filling(template)
        print(f"with a table of 1,000,000 rows that no session names: {large - filled:.2f} s, without: {small:.2f} s")


def timed(checks: Checks, text: str, **how: object) -> tuple[RunRecord, float]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "measured.race.sql")
        path.write_text(text)
        scenario = reader.read(path)
        began = time.perf_counter()
        run = checks.check(scenario, **how)  # type: ignore[arg-type]
        return run, time.perf_counter() - began


def filling(template: Template) -> float:
    """Seconds that the large table takes to be made."""
    with template.clone() as database, database.connect() as connection:
        began = time.perf_counter()
        connection.execute(LARGE.encode(), prepare=False)
        return time.perf_counter() - began
