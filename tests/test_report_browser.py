"""The HTML report as a person meets it, in headless Chromium without a network: charts, no complaints, tables, phone, print."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edgekit.report.html import render
from tests.browser import Page, browser, needs_browser
from tests.report_desk import HOSTILE, dossier, hostile

pytestmark = needs_browser

# Whether a chart's canvas holds more than one colour.
DRAWN = """
[...document.querySelectorAll("[data-chart]")].map(place => {
  const canvas = place.querySelector("canvas");
  if (!canvas) return [place.dataset.chart, false];
  const pixels = new Uint32Array(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.buffer);
  return [place.dataset.chart, new Set(pixels).size > 8];
})
"""


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with browser() as opened:
        yield opened


@pytest.fixture
def shown(page: Page, tmp_path: Path) -> Page:
    """A report of everything, at 1280 pixels in the light."""
    return shows(page, tmp_path, render(dossier()))


def shows(page: Page, folder: Path, text: str, width: int = 1280, scheme: str = "light", **how: object) -> Page:
    file = folder / "report.html"
    file.write_text(text)
    page.errors.clear()
    page.requests.clear()
    page.resize(width, **how)
    page.prefer(scheme)
    page.open(file)
    return page


def column(page: Page, table: str, index: int) -> list[str]:
    """The visible cells of a column, without what stands small below."""
    rows = f"[...document.querySelectorAll('#{table}-table tbody tr')].filter(row => !row.hidden)"
    words = (
        "[...cell.childNodes].filter(node => node.nodeName !== 'SMALL').map(node => node.textContent).join('').trim()"
    )
    return list(page.evaluate(f"{rows}.map(row => row.cells[{index}]).map(cell => {words})"))


def click_heading(page: Page, table: str, index: int) -> str:
    return str(
        page.evaluate(
            f"(() => {{ const cell = document.querySelectorAll('#{table}-table thead th')[{index}];"
            " cell.querySelector('button').click(); return cell.getAttribute('aria-sort'); })()"
        )
    )


# ---------------------------------------------------------------------------------------------------------------- charts


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_chart_is_drawn_and_nothing_complains(page: Page, tmp_path: Path, scheme: str) -> None:
    shows(page, tmp_path, render(dossier()), scheme=scheme)
    drawn = dict(page.evaluate(DRAWN))
    assert len(drawn) >= 12
    assert all(drawn.values()), drawn
    assert page.errors == []
    assert page.requests == [(tmp_path / "report.html").as_uri()], "it asked for something else"


def test_the_checks_see_a_complaint_a_blocked_script_and_a_missing_chart(page: Page, tmp_path: Path) -> None:
    """Negative controls."""
    good = render(dossier())
    shows(page, tmp_path, good.replace("</body>", "<script>document.title = 'run'</script></body>"))
    assert page.evaluate("document.title") != "run"
    assert any("Content Security Policy" in error for error in page.errors)
    shows(page, tmp_path, good.replace("</body>", '<img src="http://evil.example/x.png"></body>'))
    assert page.errors, "an image from elsewhere was let in"
    shows(page, tmp_path, good.replace('"kind":"histogram"', '"kind":"nothing"'))
    assert page.errors and not all(dict(page.evaluate(DRAWN)).values())


def test_a_changed_script_does_not_run(page: Page, tmp_path: Path) -> None:
    shows(page, tmp_path, render(dossier()).replace('"use strict";', '"use strict"; window.broken = 1;', 1))
    assert page.evaluate("window.broken === undefined")
    assert page.evaluate("document.querySelectorAll('canvas').length") == 0


def test_without_the_script_everything_is_still_there_to_read(page: Page, tmp_path: Path) -> None:
    text = render(dossier())
    shows(page, tmp_path, text[: text.rindex("<script>")])
    words = page.evaluate("document.body.innerText")
    for said in ("2.50x as fast", "ort-int8-dynamic", "the data sheet", "peak of inference", "/block/conv0/Conv"):
        assert said in words or said in page.evaluate("document.body.textContent"), said


def test_a_spot_tells_its_name_when_it_is_pointed_at(shown: Page) -> None:
    shown.evaluate("document.querySelector('[data-chart=accuracy]').scrollIntoView({block: 'center'})")
    where = shown.evaluate(
        "(() => { const data = JSON.parse(document.getElementById('charts').textContent).accuracy;"
        " const place = document.querySelector('[data-chart=accuracy] .u-over').getBoundingClientRect();"
        " return [place.left, place.top, place.width, place.height]; })()"
    )
    told = set()
    left, top, width, height = where
    for i in range(1, 20):
        for j in range(1, 12):
            shown.hover(left + width * i / 20, top + height * j / 12)
            tip = shown.evaluate(
                "(tip => tip.hidden ? '' : tip.textContent)(document.querySelector('[data-chart=accuracy] .tip'))"
            )
            told.add(tip.partition(":")[0])
    assert {"ort-int8", "ort-fp32"} <= told
    assert shown.errors == []


# ---------------------------------------------------------------------------------------------------------------- tables


def test_a_table_sorts_by_number_both_ways_and_keeps_the_unknown_last(shown: Page) -> None:
    names = column(shown, "candidates", 0)
    assert click_heading(shown, "candidates", 2) == "ascending"
    rising = [float(cell) for cell in column(shown, "candidates", 2) if cell != "-"]
    assert rising == sorted(rising) and len(set(rising)) > 2
    assert click_heading(shown, "candidates", 2) == "descending"
    falling = [float(cell) for cell in column(shown, "candidates", 2) if cell != "-"]
    assert falling == rising[::-1]
    assert sorted(column(shown, "candidates", 0)) == sorted(names)
    click_heading(shown, "candidates", 0)
    assert column(shown, "candidates", 0) == sorted(names)


def test_sizes_are_sorted_as_bytes_and_not_as_words(shown: Page) -> None:
    click_heading(shown, "points", 5)
    values = shown.evaluate(
        "[...document.querySelectorAll('#points-table tbody tr')].map(row => Number(row.cells[5].dataset.value))"
    )
    assert values == sorted(values) and len(set(values)) > 5


def test_what_is_not_known_comes_last_either_way(page: Page, tmp_path: Path) -> None:
    made = dossier()
    first, *rest = made.run.outcomes
    assert first.measurement is not None
    load = replace(first.measurement.load, process_to_first_inference_ms=None)
    blind = replace(first, measurement=replace(first.measurement, load=load))
    shows(page, tmp_path, render(replace(made, run=replace(made.run, outcomes=(blind, *rest)))))
    for _ in range(2):
        click_heading(page, "candidates", 9)
        assert column(page, "candidates", 9)[-1] == "-"


def test_a_table_filters_by_words_and_by_status(shown: Page) -> None:
    def fill(selector: str, value: str, event: str) -> str:
        return str(
            shown.evaluate(
                f"(() => {{ const box = document.querySelector('{selector}'); box.value = {value!r};"
                f" box.dispatchEvent(new Event('{event}')); return document.querySelector('[data-shown=points]').textContent; }})()"
            )
        )

    every = len(column(shown, "points", 0))
    assert fill("[data-filter=points]", "b4 T2", "input") != f"{every} of {every}"
    assert all("t2" in name and "b4" in name for name in column(shown, "points", 0))
    assert fill("[data-filter=points]", "nothing has this", "input") == f"0 of {every}"
    assert column(shown, "points", 0) == []
    fill("[data-filter=points]", "", "input")
    fill("[data-statuses=points]", "picked", "change")
    assert 0 < len(column(shown, "points", 0)) < every


# ------------------------------------------------------------------------------------------------------ phone and print


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_the_page_is_no_wider_than_the_screen(page: Page, tmp_path: Path, width: int) -> None:
    shows(page, tmp_path, render(dossier()), width, mobile=width < 768)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    widths = page.evaluate("[...document.querySelectorAll('canvas')].map(c => c.getBoundingClientRect().right)")
    assert max(widths) <= width


def test_a_turned_phone_draws_its_charts_anew(page: Page, tmp_path: Path) -> None:
    shows(page, tmp_path, render(dossier()), 390)
    before = page.evaluate("document.querySelector('canvas').width")
    page.resize(844)
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert page.evaluate("document.querySelector('canvas').width") > before
    assert page.errors == []


def test_it_prints_in_light_colours_from_a_dark_screen(page: Page, tmp_path: Path) -> None:
    shows(page, tmp_path, render(dossier()), scheme="dark")
    page.evaluate(
        "addEventListener('beforeprint', () => { window.printed ="
        " getComputedStyle(document.documentElement).getPropertyValue('--card').trim(); })"
    )
    dark = page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--card').trim()")
    page.pdf(tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
    assert (dark, page.evaluate("window.printed")) == ("#1b2128", "#ffffff")
    assert page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--card').trim()") == dark
    assert page.errors == []


# -------------------------------------------------------------------------------------------------------------- injection


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_runs(page: Page, tmp_path: Path, name: str) -> None:
    shows(page, tmp_path, render(hostile(name)))
    assert page.evaluate("window.broken === undefined")
    assert page.errors == []
    assert len(page.requests) == 1
    assert all(dict(page.evaluate(DRAWN)).values())


def test_the_check_sees_a_script_that_runs(page: Page, tmp_path: Path) -> None:
    """Negative control: the same name as markup, without the policy."""
    (tmp_path / "bare.html").write_text(f"<!doctype html><body>{HOSTILE[0].removeprefix('</script>')}</body>")
    page.open(tmp_path / "bare.html")
    assert page.evaluate("window.broken") == 1
