"""The page in a real browser: no errors, no sideways scrolling, every control works."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from report import judgements
from report.browser import Browser, find
from steelyard.report.study_page import write_page
from steelyard.study.judgement import Judgement

CHROMIUM = find()
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium found: install chromium to test the page in a browser"),
]
SCREENS = {"phone": 390, "desk": 1280}
CHARTS = "[...document.querySelectorAll('svg.plot')].filter(chart => chart.getBoundingClientRect().width)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM is not None
    with Browser(CHROMIUM) as found:
        yield found


def opened(browser: Browser, folder: Path, judgement: Judgement, width: int, dark: bool = False) -> Browser:
    write_page(judgement, folder / "study.html")
    browser.open(folder / "study.html", width=width, dark=dark)
    return browser


@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.parametrize("name", judgements.ALL)
def test_no_errors_no_requests_no_sideways_scrolling(browser: Browser, tmp_path: Path, name: str, screen: str) -> None:
    opened(browser, tmp_path, judgements.ALL[name](), SCREENS[screen])
    assert browser.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert browser.run("document.documentElement.clientWidth") == SCREENS[screen]
    # Everything open, every setting and curve shown once.
    browser.run("document.querySelectorAll('details').forEach(part => { part.open = true })")
    for index in range(browser.run("document.querySelectorAll('[data-show]').length")):
        browser.run(f"document.querySelectorAll('[data-show]')[{index}].click()")
        assert browser.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert browser.problems == []
    assert len(browser.requests) == 1


@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.parametrize("name", ["digits", "seven", "twelve", "unequal"])
def test_labels_of_a_chart_neither_overlap_nor_leave_the_screen(
    browser: Browser, tmp_path: Path, name: str, screen: str
) -> None:
    opened(browser, tmp_path, judgements.ALL[name](), SCREENS[screen])
    found = browser.run(
        "(() => { const bad = [], wide = document.documentElement.clientWidth;"
        f"for (const chart of {CHARTS}) {{"
        " const texts = [...chart.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()]);"
        " texts.forEach(([name, a], i) => {"
        "  if (a.left < 0 || a.right > wide) bad.push(name + ' leaves the screen');"
        "  texts.slice(i + 1).forEach(([other, b]) => {"
        "   const x = Math.min(a.right, b.right) - Math.max(a.left, b.left);"
        "   const y = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);"
        "   if (x > 1 && y > 3) bad.push(name + ' on ' + other + ': ' + chart.getAttribute('aria-label').slice(0, 50))"
        "  }) }) } return bad })()"
    )
    assert found == []


def test_settings_and_curves_switch(browser: Browser, tmp_path: Path) -> None:
    opened(browser, tmp_path, judgements.digits(), 1280)

    def shown(selector: str) -> int:
        script = f"[...document.querySelectorAll('{selector}')].filter(part => part.offsetHeight).length"
        return int(browser.run(script))

    assert shown('#table [data-setting="0"]') == 0
    assert shown('#table [data-setting="1"]') == 1
    browser.run("document.querySelector('[data-show=setting][data-value=\"0\"]').click()")
    assert shown('#table [data-setting="0"]') == 1
    assert shown('#table [data-setting="1"]') == 0
    assert shown('#curves [data-curve="loss"]') == 0
    browser.run("document.querySelector('[data-show=curve][data-value=loss]').click()")
    assert shown('#curves [data-curve="loss"]') == 1
    assert shown('#curves [data-curve="validation"]') == 0


def test_the_read_out_tells_the_values_of_the_judgement(browser: Browser, tmp_path: Path) -> None:
    judgement = judgements.digits()
    opened(browser, tmp_path, judgement, 1280)
    chart = "document.querySelector('[data-setting=\"1\"] [data-curve=validation] svg.curves')"
    browser.run(f"{chart}.focus()")
    browser.run(f"{chart}.dispatchEvent(new KeyboardEvent('keydown', {{key: 'ArrowLeft'}}))")
    text = browser.run("document.querySelector('.tip').innerText")
    curve = next(curve for curve in judgement.curves if (curve.method, curve.setting) == ("equal", 1))
    assert f"epoch {judgement.epochs - 1}" in text
    assert f"{100 * curve.validation['left'][-2]:.4g}" in text.replace("\n", " ").split()
    assert browser.run(f"{chart}.querySelectorAll('.readout circle').length") == len(judgement.methods)


def test_theme_follows_the_system_and_the_button(browser: Browser, tmp_path: Path) -> None:
    colour = "getComputedStyle(document.documentElement).backgroundColor"
    opened(browser, tmp_path, judgements.digits(), 1280)
    light = browser.run(colour)
    opened(browser, tmp_path, judgements.digits(), 1280, dark=True)
    dark = browser.run(colour)
    assert light != dark
    browser.run("document.querySelector('.theme').click()")
    assert browser.run(colour) == light
    browser.run("localStorage.clear()")


def test_highlighting_a_method_fades_the_others(browser: Browser, tmp_path: Path) -> None:
    opened(browser, tmp_path, judgements.digits(), 1280)
    browser.run("document.querySelector('[data-light=m][data-value=\"2\"]').click()")
    browser.run("new Promise(done => setTimeout(done, 300))")
    path = "getComputedStyle(document.querySelector('[data-curve=validation] path[data-m=\"{}\"]')).opacity"
    assert float(browser.run(path.format(2))) == 1
    assert float(browser.run(path.format(1))) < 0.3


def test_text_has_contrast_in_both_themes(browser: Browser, tmp_path: Path) -> None:
    script = (
        "(() => { const parse = c => c.match(/[\\d.]+/g).map(Number);"
        "const lum = c => { const [r, g, b] = parse(c).map(v => { v /= 255;"
        " return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4 });"
        " return .2126 * r + .7152 * g + .0722 * b };"
        "const paper = lum(getComputedStyle(document.documentElement).backgroundColor);"
        "return ['.note', '.facts', '.legend .gain', '.legend .hurt', '.legend .same', 'h2'].map(s => {"
        " const ink = lum(getComputedStyle(document.querySelector(s)).color);"
        " return (Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05) }) })()"
    )
    for dark in (False, True):
        opened(browser, tmp_path, judgements.digits(), 1280, dark=dark)
        assert min(browser.run(script)) >= 4.5


def test_paper_shows_every_setting(browser: Browser, tmp_path: Path) -> None:
    opened(browser, tmp_path, judgements.digits(), 1280)
    browser.send("Emulation.setEmulatedMedia", media="print")
    hidden = browser.run(
        "[...document.querySelectorAll('[data-setting], [data-curve]')].filter(p => !p.offsetHeight).length"
    )
    assert hidden == 0
    assert browser.run("document.querySelector('.bar').offsetHeight") == 0
    browser.send("Emulation.setEmulatedMedia", media="screen")
