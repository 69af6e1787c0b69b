"""The bar while a command takes its time."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from rich.progress import Progress

    from harness.records import RunRecord


class Bar:
    """A bar while something takes its time, with what is found so far; nothing where the output is no terminal."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self.runs: Sequence[RunRecord] = ()
        """Those that are made already."""
        self._shown = 0.0
        self._so_far = "", 0
        """What was told last, and after how many runs."""

    def so_far(self) -> str:
        """What was under way and how far it had come, in brackets; empty where nobody told."""
        said, runs = self._so_far
        return f" ({said})" if said and runs == len(self.runs) else ""

    def __enter__(self) -> Self:
        if self._bar is None and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[said]}"),
            )
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.add_task("booting", said="", total=None)
            self._bar.start()
        return self

    def calls(self, pattern: str, calls: int, over: float | None) -> None:
        """A pattern has made so many calls, and this share of its time is over."""
        self.show(pattern, f"{calls} calls", over)
        self._so_far = f"{pattern}: {calls} calls", len(self.runs)

    def tries(self, what: str, done: str, over: float, tries: int, red: int) -> None:
        """So many tries of a scenario have been judged, and so many of them were broken."""
        said = f"{tries} {'try' if tries == 1 else 'tries'}" + (f", {red} broken" if red else "")
        if self._bar is not None and time.monotonic() > self._shown + 0.1:
            self._shown = time.monotonic()
            self.show(what, f"{done}, {said}", over)
        self._so_far = f"{what}: {said}", len(self.runs)

    def cases(self, far: Any) -> None:
        """An exploration has come so far (`schedules.Progress`)."""
        said = f"{far.done} of {far.cases} cases, {far.schedules} orders tried"
        said += f"; broken: {', '.join(far.found)}" if far.found else ""
        if self._bar is not None and (time.monotonic() > self._shown + 0.1 or far.done == far.cases):
            self._shown = time.monotonic()
            self.show("exploring", said, far.done / far.cases)
        self._so_far = f"exploring: {said}", len(self.runs)

    def show(self, what: str, said: str = "", over: float | None = None) -> None:
        """What is done now; `over` is the share of it that is done, None where nobody knows."""
        self._so_far = "", 0
        if self._bar is None:
            return
        found = Counter(run.truth.value for run in self.runs)
        so_far = ", ".join(f"{n} {truth}" for truth, n in found.items())
        said = "; ".join(part for part in (said, f"so far {so_far}" if so_far else "") if part)
        [task] = self._bar.task_ids
        total = None if over is None else 1.0
        self._bar.update(task, description=what, said=said, total=total, completed=over or 0.0)
        self._bar.start()

    def stop(self) -> None:
        """Take it away, so that something else can be printed; `show` brings it back."""
        if self._bar is not None:
            self._bar.stop()

    def __exit__(self, *_: object) -> None:
        self.stop()
