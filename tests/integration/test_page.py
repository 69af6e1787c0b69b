"""The page in a real browser: it asks for nothing, complains of nothing, can be stepped through and read by anybody."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.records import Record, dumps, read
from harness.reports import html
from harness.verdict.charts import Bar, Charts
from harness.verdict.findings import Finding, Truth
from tests.browser import AXE, Chromium, chromium, needed
from tests.samples import (
    broken_finding,
    broken_record,
    checked_record,
    doubtful_record,
    explored_record,
    held_record,
    load,
    record,
)

SPITE = "<script>document.title = 'owned'</script><img src=x onerror=\"document.title = 'owned'\">"


def charts() -> Charts:
    bars = tuple(Bar(n, n, "k", "accepted", SPITE, n * 90, 400 + n * 150, n < 3, tuple(range(n))) for n in range(5))
    series = tuple(n % 7 for n in range(60))
    return Charts(
        tuple(0.5 + n / 10 for n in range(201)), 0.05, {"accepted": series, SPITE: series}, {"0": series}, bars
    )


def spiteful() -> Record:
    """Whatever a function answers, however its tests and files are named."""
    calls = [dict(o, answer={SPITE: SPITE}, key=SPITE) for o in broken_finding().evidence[0]["operations"]]
    finding = broken_finding(claim=SPITE, observed=SPITE, remedy=SPITE, replay=SPITE, anomaly=SPITE, id=SPITE,
                             evidence=({"reason": SPITE, "operations": calls},))  # fmt: skip
    run = load("race", {SPITE: 3}, findings=(finding,), charts=charts(), notes=(SPITE,), test=SPITE)
    return record(run, *explored_record().runs, command=SPITE, contract=SPITE)


def long_names() -> Record:
    """Paths, outcomes and tests without a blank, and figures of every size."""
    name = "a_name_that_has_no_blank_and_is_longer_than_a_telephone_is_wide/"
    made = charts()
    long = dataclasses.replace(
        made, outcomes={name * 2: made.outcomes["accepted"]}, percentiles=(0.01, *made.percentiles)
    )
    run = load("burst", {name: 3}, charts=long, test=name * 2, notes=(name * 3,))
    sources = tuple(dataclasses.replace(each, path=name * 2) for each in checked_record().sources)
    return record(run, contract=name * 2, sources=sources, command=name * 4)


PAGES = {
    "held": held_record,
    "broken": broken_record,
    "explored": explored_record,
    "checked": checked_record,
    "spiteful": spiteful,
    "undecided": lambda: record(load("race", {}, findings=(Finding("a", "A.", Truth.UNDECIDED, "?", remedy="More."),))),
    "doubtful": doubtful_record,
    "long names": long_names,
    "charts": lambda: record(load("burst", {"accepted": 9}, charts=charts())),
}


DARK = {"explored", "charts", "doubtful"}
"""Pages that have every colour between them."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    for name, made in PAGES.items():
        (folder / f"{name}.html").write_text(html.page(made()))
    return {name: folder / f"{name}.html" for name in PAGES}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_asks_for_nothing_and_complains_of_nothing(name: str, browser: Chromium, pages: dict[str, Path]) -> None:
    """The file itself is all that is loaded; what a function answers is text, and no script of it runs."""
    browser.open(pages[name])
    assert browser.requests == [pages[name].as_uri()]
    assert browser.complaints == []
    assert browser.evaluate("document.title") != "owned"
    assert browser.evaluate("document.querySelectorAll('img, iframe, link, script[src]').length") == 0
    assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_barrier_would_be_found(browser: Chromium, tmp_path: Path) -> None:
    """A page without a language, with a picture that says nothing and grey letters on grey."""
    path = tmp_path / "bad.html"
    path.write_text(
        "<!DOCTYPE html><title>x</title><p style='color:#999;background:#aaa'>grey<svg role=img width=9 height=9></svg>"
    )
    found = barriers(browser.open(path))
    for rule in ("html-has-lang", "color-contrast", "svg-img-alt"):
        assert any(each.startswith(rule) for each in found)


@pytest.mark.parametrize(
    ("name", "dark"), [(name, dark) for name in PAGES for dark in (False, True) if not dark or name in DARK]
)
def test_a_page_has_no_barrier(name: str, dark: bool, browser: Chromium, pages: dict[str, Path]) -> None:
    """axe-core finds no violation of WCAG 2.1 A and AA: contrast, names, landmarks, keyboard."""
    browser.open(pages[name], dark=dark)
    browser.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    assert barriers(browser) == []


def barriers(browser: Chromium) -> list[str]:
    """What axe-core complains of in the page that is open."""
    needed(AXE.exists(), "axe-core", "make page-tools")
    browser.evaluate(AXE.read_text())
    rules = "{runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice']}"
    found = "r.violations.map(v => v.id + ': ' + v.nodes.slice(0, 3).map(n => n.html))"
    return list(browser.evaluate(f"axe.run({rules}).then(r => {found})"))


def test_a_schedule_can_be_gone_through_by_button_and_by_key(browser: Chromium, pages: dict[str, Path]) -> None:
    """Each step is told in words, in the picture and in the list; the ends are ends."""
    browser.open(pages["explored"])

    def now() -> str:
        return str(browser.evaluate("document.querySelector('.now').textContent"))

    def marked(when: str) -> list[str]:
        steps = f"[...document.querySelectorAll('svg [data-step][data-when={when}]')].map(e => e.dataset.step)"
        return list(browser.evaluate(steps))

    assert now() == ""
    browser.evaluate("document.querySelector('[data-go=next]').focus()")
    browser.evaluate("document.querySelector('[data-go=next]').click()")
    assert now().startswith("Step 1 of 8: call A: start")
    browser.press("ArrowRight")
    assert now().startswith("Step 2 of 8: call A, line 7: SELECT * INTO v_ticket")
    assert (marked("past"), marked("now"), len(marked("later"))) == (["1"], ["2"], 6)
    browser.press("End")
    assert "call A goes on" not in now()
    assert now().startswith("Step 8 of 8: call A: commit")
    assert browser.evaluate("document.querySelector('[data-go=next]').ariaDisabled") == "true"
    browser.press("ArrowLeft")
    assert "✗ call A goes on with what it saw at step 2, and not with what call B has just committed" in now()
    browser.press("Escape")
    assert now() == ""


def test_without_javascript_all_of_it_can_be_read(browser: Chromium, pages: dict[str, Path]) -> None:
    """Picture, steps and commands are there; buttons that would do nothing are not."""
    browser.open(pages["explored"], script=False)
    text = browser.send("DOM.getDocument", depth=-1)
    found = browser.send("DOM.getOuterHTML", nodeId=text["root"]["nodeId"])["outerHTML"]
    assert "<button" in found
    assert '<div class="controls" hidden' in found
    assert len(re.findall(r'data-step="\d', found)) == 16
    assert ">Copy<" not in found


def test_rows_are_those_after_the_step(browser: Chromium, tmp_path: Path) -> None:
    """Where the schedule has them: the last ones before the step that is shown, and all of them in the whole."""
    run = explored_record().runs[0]
    plain = dict(run.details["exploration"])
    schedule = dict(plain["broken"]["at_most_one_accepted"])
    moves = [dict(move) for move in schedule["moves"]]
    moves[1]["rows"] = {"tickets": [{"id": 1, "is_used": False}]}
    moves[6]["rows"] = {"tickets": [{"id": 1, "is_used": True}]}
    plain["broken"] = {"at_most_one_accepted": schedule | {"moves": moves}}
    path = tmp_path / "rows.html"
    path.write_text(html.page(record(dataclasses.replace(run, details={"exploration": plain}))))
    browser.open(path)
    shown = "[...document.querySelectorAll('.rows')].filter(e => !e.hidden).map(e => e.dataset.rows)"
    assert browser.evaluate(shown) == ["2", "7"]
    for step, rows in ((1, []), (2, ["2"]), (6, ["2"]), (7, ["7"]), (8, ["7"])):
        browser.evaluate("document.querySelector('[data-go=first]').click()")
        for _ in range(step - 1):
            browser.evaluate("document.querySelector('[data-go=next]').click()")
        assert browser.evaluate(shown) == rows, step


def test_a_narrow_screen_scrolls_pictures_and_not_the_page(browser: Chromium, pages: dict[str, Path]) -> None:
    """A telephone held upright."""
    for path in pages.values():
        browser.open(path, width=360)
        assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth"), path


def test_on_paper_nothing_is_cut_off(browser: Chromium, pages: dict[str, Path]) -> None:
    """Nobody can scroll there: wide tables and the SQL are wrapped."""
    for name, path in pages.items():
        browser.open(path, width=760)
        browser.send("Emulation.setEmulatedMedia", media="print")
        browser.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
    browser.send("Emulation.setEmulatedMedia", media="")


def test_no_text_of_a_picture_is_cut_off(browser: Chromium, pages: dict[str, Path]) -> None:
    """Each lies within its picture, however long an outcome's name is."""
    outside = (
        "[...document.querySelectorAll('svg text')].filter(t => { const svg = t.ownerSVGElement, box = t.getBBox();"
        " return box.x < 0 || box.x + box.width > svg.viewBox.baseVal.width })"
        ".map(t => t.ownerSVGElement.id + t.textContent)"
    )
    for name, path in pages.items():
        assert browser.open(path).evaluate(outside) == [], name


def test_a_command_is_copied_by_a_button(browser: Chromium, pages: dict[str, Path]) -> None:
    """Or, where a page from disk may not, selected, so that a key does it."""
    browser.open(pages["explored"])
    copied = browser.evaluate(
        "new Promise(done => { const b = document.querySelector('.command button'); b.click();"
        " setTimeout(() => done(b.textContent + ' ' + getSelection().toString()), 200) })"
    )
    assert copied.strip() == "Copied" or copied == "Selected harness explore --replay AABBBAA"


def test_a_record_of_50_mb_makes_a_page_under_its_limit(tmp_path: Path) -> None:
    """Read, sampled, written."""
    answer = {"payload": "what a function that returns documents answers " * 80}
    calls = [dict(call, answer=answer) for call in broken_finding().evidence[0]["operations"]]
    evidence = tuple({"reason": f"{n}", "operations": calls} for n in range(5))
    findings = tuple(broken_finding(id=f"claim.{n}", evidence=evidence) for n in range(800))
    path = tmp_path / "huge.json"
    path.write_text(dumps(record(load("race", {"accepted": 9}, findings=findings))))
    assert path.stat().st_size > 50_000_000
    assert len(html.page(read(path)).encode()) <= html.LARGEST
