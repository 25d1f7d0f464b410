"""The Markdown report: what a pull request shows of it, by a CommonMark parser, and that names stay names."""

import io
import re
from html.parser import HTMLParser

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from edgekit.core.dossier import Dossier
from edgekit.core.findings import OF_THE_RACE
from edgekit.report.html.page import render as html_page
from edgekit.report.markdown import MOST_ROWS, render, safe
from edgekit.report.overview import MARK
from edgekit.report.terminal import print_run
from tests.report_desk import HOSTILE, dossier, exploration, hostile, run

GITHUB = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def elements(page: str) -> list[str]:
    found: list[str] = []

    class Seen(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.append(tag)
            found.extend(f"{tag}.{key}" for key, _ in attrs if key != "style")

    Seen().feed(page)
    return found


def text_of(name: str) -> str:
    """What a reader sees of a name."""
    page = GITHUB.render(f"- {safe(name)}")
    return re.sub(r"\u2060", "", re.sub(r"^<ul>\s*<li>|</li>\s*</ul>\s*$", "", page))


def test_findings_of_the_race_before_a_search_say_so_everywhere() -> None:
    for record, said in ((run(exploration=exploration()), True), (run(exploration=None), False)):
        screen = io.StringIO()
        made = Dossier(record, "the-run", ())
        print_run(Console(file=screen, width=500), record, "folder")
        assert record.findings, "a run without findings shows nothing"
        for page in (screen.getvalue(), render(made), html_page(made)):
            assert (OF_THE_RACE in page.replace("\u2060", "")) == said


def test_it_leads_with_the_verdict_and_folds_the_rest() -> None:
    page = render(dossier())
    assert page.startswith(f"{MARK}\n## ✅ model.onnx on board\n\n**ort-int8 is 2.50x as fast as the model as given")
    before = page[: page.index("<details>")]
    assert "| p99 latency | at most 5 ms |" in before and "✅ met" in before
    assert "| p50 latency |" in before and "2.50x" in before
    assert "Binding requirement" in before and "Why" not in before
    for said in (
        "**ort-int8** | chosen",
        "collapsed",
        "openvino refuses it",
        "sweet spot",
        "note: a notice",
        "ort-fp32 (2.50x)",
    ):
        assert said in page[len(before) :], said
    assert page.count("<details>") == page.count("</details>") == 6


def test_its_tables_are_tables() -> None:
    page = GITHUB.render(render(dossier()))
    assert page.count("<table>") == 6
    assert page.count("<th>ort-int8") == 0
    rows = [line for line in render(dossier()).splitlines() if line.startswith("|")]
    assert all(len(re.findall(r"(?<!\\)\|", row)) >= 4 for row in rows)


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_is_markdown_or_markup(name: str) -> None:
    plain, page = render(dossier()), render(hostile(name))
    assert set(elements(GITHUB.render(page))) <= set(elements(GITHUB.render(plain)))
    assert page.count("<details>") == plain.count("<details>")
    assert "\x1b" not in page and "\u202e" not in page
    counts = {len(re.findall(r"(?<!\\)\|", line)) for line in page.splitlines() if line.startswith("|")}
    assert counts == {len(re.findall(r"(?<!\\)\|", line)) for line in plain.splitlines() if line.startswith("|")}


@pytest.mark.parametrize(
    "name",
    [
        "a|b",
        "*a*",
        "_a_",
        "`a`",
        "[a](b)",
        "![a](b)",
        "# a",
        "- a",
        "1. a",
        "+ a",
        "---",
        "~~a~~",
        "\\*",
        "$a$",
        "x_y_z",
    ],
)
def test_a_name_is_read_as_it_is_written(name: str) -> None:
    assert text_of(name) == name


def test_the_check_sees_a_name_that_formats() -> None:
    """Negative control."""
    assert "<em>" in GITHUB.render("- *a*")


@pytest.mark.parametrize("name", ["@team", "see #12", "https://evil.example", "www.evil.example", "a@b.example"])
def test_nothing_is_linked_without_being_asked(name: str) -> None:
    written = safe(name)
    assert not re.search(r"@\w|#\d(?!288;)|://|www\.", written)
    assert text_of(name) == name


def test_a_long_table_is_cut_and_says_so() -> None:
    page = render(Dossier(run(exploration=exploration(MOST_ROWS + 9)), "x"))
    assert "9 more are in the HTML report" in page
