"""Pictures as inline SVG: a schedule's lanes, a round's calls, latency, throughput, an overhead. Values in, SVG out.

Every picture can be read without colour (letters, dashes, words) and has its text in <title> and <desc>; colours come
from the page's style sheet, by class.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence

from harness.reports import rows
from harness.reports.markup import Child, Markup, tag
from harness.schedules.result import Move, Schedule
from harness.verdict.charts import SHARES, Bar, Charts

CHARACTER = 7.25
"""Width of a character of the monospaced font at 12 px."""

LINE = 16
"""Height of a line of text."""

_MOST_LINES = 7
"""Lines of a statement in its box; the list beside the picture has all of it."""


def picture(
    width: float, height: float, title: str, description: str, *children: Child, name: str, kind: str
) -> Markup:
    """An SVG with its text for those who do not see it; `name` is its id on the page."""
    return tag(
        "svg",
        tag("title", title, id=f"{name}-title"),
        tag("desc", description, id=f"{name}-desc"),
        *children,
        role="img",
        aria_labelledby=f"{name}-title {name}-desc",
        viewBox=f"0 0 {width:.0f} {height:.0f}",
        width=f"{width:.0f}",
        height=f"{height:.0f}",
        class_=kind,
    )


def text(x: float, y: float, said: Child, kind: str = "", anchor: str = "start") -> Markup:
    """Text at a place, in pixels from the upper left corner; `anchor` says which end of it stands there."""
    return tag("text", said, x=x, y=y, class_=kind or None, text_anchor=None if anchor == "start" else anchor)


# A schedule: a lane for each call, time goes down.


def lanes(found: Schedule, names: Sequence[str], name: str, wrong: rows.Turn | None = None) -> Markup:
    """The schedule's steps in the lanes of its calls; waits are arrows; `wrong` is where it goes wrong."""
    count = len(names)
    lane, gap, left, head = max(260.0, 760.0 / count), 24.0, 40.0, 44.0
    characters = int((lane - gap - 20) / CHARACTER)
    boxes: list[tuple[Move, list[tuple[str, str]], float, float]] = []
    y = head
    for move in found.moves:
        lines = _box(move, found, characters)
        height = len(lines) * LINE + 12.0
        boxes.append((move, lines, y, height))
        y += height + 12
    bottom = y + 4

    def middle(call: int) -> float:
        return left + call * lane + (lane - gap) / 2

    box, kind = ("doubtful", "doubt") if wrong is not None and wrong.doubt else ("fault", "wrong")
    drawn: list[Child] = [
        tag("defs", tag("marker", tag("path", d="M0 0L8 4L0 8z"), id=f"{name}-arrow", viewBox="0 0 8 8", refX=7, refY=4,
            markerWidth=8, markerHeight=8, orient="auto-start-reverse", class_="arrow"))
    ]  # fmt: skip
    for call, called in enumerate(names):
        x = middle(call)
        drawn.append(tag("line", x1=x, x2=x, y1=head - 8, y2=bottom, class_=f"life lane{call % 4}"))
        drawn.append(text(x, 24, called, f"name lane{call % 4}", "middle"))
    for wait in _waits(boxes):
        call, holder, begins, ends = wait
        x = middle(call)
        drawn.append(tag("line", x1=x, x2=x, y1=begins, y2=ends, class_="waiting"))
        towards = middle(holder) + (-1 if holder > call else 1) * (lane - gap) / 2
        start = x + (1 if holder > call else -1) * 6
        drawn.append(tag("line", x1=start, x2=towards, y1=begins + 6, y2=begins + 6, class_="wait",
                         marker_end=f"url(#{name}-arrow)"))  # fmt: skip
    for move, lines, top, height in boxes:
        x = left + move.call * lane
        goes_wrong = wrong is not None and move.number == wrong.step
        at_fault = goes_wrong and wrong is not None and move.call == wrong.call
        drawn.append(
            tag(
                "g",
                tag("title", f"Step {move.number}, {names[move.call]}: {' '.join(move.text.split())}"),
                text(left - 10, top + LINE + 1, str(move.number), "number", "end"),
                tag("rect", x=x, y=top, width=lane - gap, height=height, rx=4),
                [text(x + 10, top + LINE * (n + 1) + 1, said, how) for n, (said, how) in enumerate(lines)],
                text(x + 2, top - 3, wrong.mark, kind) if at_fault and wrong is not None else None,
                text(middle(wrong.call) + 10, top + LINE + 1, wrong.mark, kind)
                if goes_wrong and not at_fault and wrong is not None
                else None,
                class_=f"step lane{move.call % 4}" + (f" {box}" if at_fault else ""),
                data_step=str(move.number),
            )
        )
    said = "; ".join(
        f"step {move.number}: {names[move.call]}: {' '.join(move.text.split())}"
        + "".join(f", {result}" for result in move.results)
        for move in found.moves
    )
    return picture(
        left + count * lane - gap + 8, bottom + 8, f"Schedule {found.replay}: one lane for each call, time goes down",
        said, *drawn, name=name, kind="lanes",
    )  # fmt: skip


def _box(move: Move, schedule: Schedule, characters: int) -> list[tuple[str, str]]:
    """The lines of a step's box, each with its class."""
    place = rows.place(move, schedule)
    lines = textwrap.wrap((f"{place}: " if place else "") + " ".join(move.text.split()), characters) or [""]
    if len(lines) > _MOST_LINES:
        lines = [*lines[: _MOST_LINES - 1], "..."]
    found = [(line, "") for line in lines]
    for result in move.results:
        found += [(line, "result") for line in textwrap.wrap("→ " + result, characters)]
    return found


Boxes = Sequence[tuple[Move, list[tuple[str, str]], float, float]]


def _waits(boxes: Boxes) -> list[tuple[int, int, float, float]]:
    """(who waits, for whom, from, to), as heights in the picture: to where its end is told, or its own next step."""
    found = []
    for at, (move, _, top, height) in enumerate(boxes):
        for waiter, holder in rows.waits(move):
            ends = next(
                (
                    other_top + other_height / 2
                    for other, _, other_top, other_height in boxes[at + 1 :]
                    if other.call == waiter or any(r.startswith(f"{rows.letter(waiter)} ") for r in other.results)
                ),
                boxes[-1][2] + boxes[-1][3],
            )
            found.append((waiter, holder, top + height, ends))
    return found


# A round of a race: a bar for each call, time goes to the right.


def calls_of_a_round(bars: Sequence[Bar], name: str) -> Markup:
    """Who was inside the function when, whose transaction was still open, and what each was told."""
    left, width, row, right = 120.0, 520.0, 26.0, 360.0
    open_until = {
        bar.number: max([bar.ended_us, *(other.started_us for other in bars if bar.number in other.beside)])
        for bar in bars
    }
    last = max([*open_until.values(), 1])
    scale = width / last
    drawn: list[Child] = []
    bottom = 30 + row * len(bars)
    for tick in _ticks(0, last, 5):
        x = left + tick * scale
        drawn.append(tag("line", x1=x, x2=x, y1=22, y2=bottom, class_="grid"))
        drawn.append(text(x, 16, _microseconds(tick), "tick", "middle"))
    for n, bar in enumerate(bars):
        y = 28 + n * row
        x, w = left + bar.started_us * scale, max((bar.ended_us - bar.started_us) * scale, 2.0)
        until = left + open_until[bar.number] * scale
        kind = "applied" if bar.applied else "refused"
        mark = "✓ " if bar.applied else ""
        open_after = until - (x + w)
        held = f", transaction {bar.held_open}" if bar.held_open else ""
        told = f"{mark}{bar.outcome}{held}"
        said = f"{told}: {bar.answer}" if bar.answer else told
        drawn.append(
            tag(
                "g",
                tag("title", f"call #{bar.number} of client {bar.client}: {said}; {_beside(bar)}"),
                text(left - 10, y + 15, f"#{bar.number} client {bar.client}", "", "end"),
                tag("rect", x=x + w, y=y + 7, width=open_after, height=8, class_="open") if open_after > 0.5 else None,
                tag("rect", x=x, y=y + 2, width=w, height=18, rx=2, class_=kind),
                text(left + width + 12, y + 15, said if len(said) <= 46 else told[:46], kind),
            )
        )
    description = "; ".join(
        f"call #{bar.number} of client {bar.client} from {_microseconds(bar.started_us)} to "
        f"{_microseconds(bar.ended_us)}: {bar.outcome}, {_beside(bar)}"
        for bar in bars
    )
    return picture(
        left + width + right, bottom + 6, "The calls of one round, on the server's clock", description, *drawn,
        name=name, kind="round",
    )  # fmt: skip


def _beside(bar: Bar) -> str:
    if not bar.beside:
        return "no other call's transaction was open when it began"
    return f"the transactions of {', '.join(f'#{n}' for n in bar.beside)} were open when it began"


def _microseconds(value: float) -> str:
    return f"{value / 1000:g} ms" if value >= 1000 else f"{value:g} us"


# Latency, throughput, overhead.

_CHART = (720.0, 260.0)
_LEFT, _TOP, _BOTTOM = 56.0, 20.0, 40.0


def latency(charts: Charts, limits: Mapping[str, float], name: str) -> Markup:
    """The share of calls that were answered within so many milliseconds, with percentiles and thresholds."""
    values = [max(v, 0.01) for v in charts.percentiles]
    low = min(values)
    high = max([*values, *(limit for limit in limits.values() if limit < max(values) * 20)])
    width, height = _CHART
    span = math.log10(high / low) or 1.0
    right_of_it = 130.0  # room for the label of the last percentile: on its left it would lie on the curve

    def x(value: float) -> float:
        return _LEFT + (width - _LEFT - right_of_it) * math.log10(value / low) / span

    def y(share: float) -> float:
        return _TOP + (height - _TOP - _BOTTOM) * (1 - share)

    drawn: list[Child] = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        drawn.append(tag("line", x1=_LEFT, x2=width - right_of_it, y1=y(share), y2=y(share), class_="grid"))
        drawn.append(text(_LEFT - 8, y(share) + 4, f"{share:.0%}", "tick", "end"))
    for tick in _log_ticks(low, high):
        drawn.append(tag("line", x1=x(tick), x2=x(tick), y1=_TOP, y2=height - _BOTTOM, class_="grid"))
        drawn.append(text(x(tick), height - _BOTTOM + 16, f"{tick:g}", "tick", "middle"))
    drawn.append(text((width + _LEFT) / 2, height - 6, "milliseconds, by powers of ten", "tick", "middle"))
    points = " ".join(f"{x(v):.1f},{y(n / SHARES):.1f}" for n, v in enumerate(values))
    drawn.append(tag("polyline", points=points, class_="curve"))
    for label, share, below in (("p50", 0.5, 14), ("p95", 0.95, 34), ("p99", 0.99, 14)):
        value = values[round(share * SHARES)]
        drawn.append(tag("circle", cx=x(value), cy=y(share), r=4, class_="dot"))
        drawn.append(text(x(value) + 8, y(share) + below, f"{label} {value:.2f} ms", "label"))
    for label, limit in limits.items():
        if low <= limit <= high:
            right = x(limit) > width - right_of_it - 40
            drawn.append(tag("line", x1=x(limit), x2=x(limit), y1=_TOP, y2=height - _BOTTOM, class_="limit"))
            drawn.append(text(x(limit) + (-6 if right else 6), _TOP + 90, label, "limit", "end" if right else "start"))
    said = ", ".join(
        f"{share:.0%} of the calls within {values[round(share * SHARES)]:.2f} ms" for share in (0.5, 0.95, 0.99)
    )
    return picture(
        width, height, "Latency: the share of calls answered within a time", said, *drawn, name=name, kind="chart"
    )


_LEGEND = 40
"""Characters of an outcome's name beside its line; the description has all of it."""

_DASHES = ("none", "7 3", "2 3", "9 3 2 3", "4 4")


def throughput(charts: Charts, name: str) -> Markup:
    """Calls per second over the run, a line for each outcome."""
    rates = {label: [n / charts.bin_seconds for n in series] for label, series in charts.outcomes.items()}
    highest = max((rate for series in rates.values() for rate in series), default=1.0) or 1.0
    bins = max(map(len, rates.values()), default=1)
    width, height = _CHART
    shown = {label: label if len(label) <= _LEGEND else label[: _LEGEND - 3] + "..." for label in rates}
    right = 62 + CHARACTER * max(map(len, shown.values()), default=0)
    width += max(0.0, right - 150)

    def x(at: float) -> float:
        return _LEFT + (width - _LEFT - right) * at / max(bins - 1, 1)

    def y(rate: float) -> float:
        return _TOP + (height - _TOP - _BOTTOM) * (1 - rate / highest)

    drawn: list[Child] = []
    for tick in _ticks(0, highest, 4):
        drawn.append(tag("line", x1=_LEFT, x2=width - right, y1=y(tick), y2=y(tick), class_="grid"))
        drawn.append(text(_LEFT - 8, y(tick) + 4, f"{tick:g}", "tick", "end"))
    seconds = charts.bin_seconds * bins
    for tick in _ticks(0, seconds, 5):
        drawn.append(text(x(tick / seconds * (bins - 1)), height - _BOTTOM + 16, f"{tick:g}", "tick", "middle"))
    drawn.append(text((width - right + _LEFT) / 2, height - 6, "seconds since the start", "tick", "middle"))
    legend = 0.0
    for n, (label, series) in enumerate(sorted(rates.items(), key=lambda each: -sum(each[1]))):
        points = " ".join(f"{x(at):.1f},{y(rate):.1f}" for at, rate in enumerate(series))
        dash = _DASHES[n % len(_DASHES)]
        drawn.append(tag("polyline", points=points, class_=f"curve series{n % 5}", stroke_dasharray=dash))
        at = _TOP + 8 + legend
        drawn.append(tag("line", x1=width - right + 12, x2=width - right + 40, y1=at, y2=at,
                         class_=f"curve series{n % 5}", stroke_dasharray=dash))  # fmt: skip
        drawn.append(text(width - right + 46, at + 4, shown[label], "label"))
        legend += 18
    said = ", ".join(f"{label}: {sum(series):.0f} calls" for label, series in charts.outcomes.items())
    return picture(
        width, height, "Throughput: calls per second over the run, by outcome", said, *drawn, name=name, kind="chart"
    )


def clients(charts: Charts, name: str) -> Markup:
    """Calls over the run, a small line for each client."""
    highest = max((n for series in charts.clients.values() for n in series), default=1) or 1
    width, row, left = 720.0, 18.0, 80.0
    bins = max(map(len, charts.clients.values()), default=1)
    drawn: list[Child] = []
    for n, (client, series) in enumerate(sorted(charts.clients.items(), key=lambda each: int(each[0]))):
        base = 8 + (n + 1) * row
        points = " ".join(
            f"{left + (width - left - 100) * at / max(bins - 1, 1):.0f},{base - (row - 4) * count / highest:.1f}"
            for at, count in enumerate(series)
        )
        drawn.append(text(left - 10, base, f"client {client}", "tick", "end"))
        drawn.append(tag("polyline", points=points, class_="curve thin"))
        drawn.append(text(width - 92, base, f"{sum(series)} calls", "tick"))
    said = ", ".join(f"client {client}: {sum(series)} calls" for client, series in charts.clients.items())
    height = 16 + row * len(charts.clients)
    return picture(width, height, "Calls over the run, by client", said, *drawn, name=name, kind="chart")


def overhead(added: Sequence[Mapping[str, float]], name: str) -> Markup:
    """What HTTP adds at each percentile, with its 95 % confidence interval."""
    width, row, left = 720.0, 34.0, 70.0
    high = max([*(each["high"] for each in added), *(each["added"] for each in added), 0.001]) * 1.05
    low = min([0.0, *(each["low"] for each in added)])
    scale = (width - left - 40) / (high - low)

    def x(value: float) -> float:
        return left + (value - low) * scale

    bottom = 12 + row * len(added)
    drawn: list[Child] = []
    for tick in _ticks(low, high, 6):
        drawn.append(tag("line", x1=x(tick), x2=x(tick), y1=8, y2=bottom, class_="grid"))
        drawn.append(text(x(tick), bottom + 16, f"{tick:g} ms", "tick", "middle"))
    for n, each in enumerate(added):
        y = 12 + row * n + row / 2
        label = f"p{each['share'] * 100:g}"
        drawn.append(text(left - 10, y + 4, label, "", "end"))
        drawn.append(tag("line", x1=x(each["low"]), x2=x(each["high"]), y1=y, y2=y, class_="interval"))
        drawn.append(tag("circle", cx=x(each["added"]), cy=y, r=5, class_="dot"))
        drawn.append(text(x(each["added"]), y - 8, f"{each['added']:+.2f} ms", "label", "middle"))
    said = ", ".join(
        f"p{each['share'] * 100:g}: {each['added']:.2f} ms more, from {each['low']:.2f} to {each['high']:.2f}"
        for each in added
    )
    return picture(
        width, bottom + 26, "What HTTP adds, with 95 % confidence intervals", said, *drawn, name=name, kind="chart"
    )


def _ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers from low to high, some `about` of them."""
    if high <= low:
        return [low]
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * nice for nice in (1, 2, 5, 10) if power * nice >= rough)
    first = math.ceil(low / step)
    return [round(n * step, 10) for n in range(first, math.floor(high / step) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    wanted = (1,) if len(powers) > 5 else (1, 2, 5)
    return [n * 10.0**power for power in powers for n in wanted if low <= n * 10.0**power <= high]
