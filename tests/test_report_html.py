"""The HTML report as text: nothing breaks out of it, it needs nothing else, and it says what the records say."""

import base64
import hashlib
import html
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import pytest

from edgekit.core.choose import choose
from edgekit.core.dossier import Dossier
from edgekit.core.explain.explanation import Explanation
from edgekit.core.results import Origin, Outcome, Verdict, VerdictCode
from edgekit.core.types import LatencyBudget, Requirements
from edgekit.report.html import render, tags
from tests.records import candidate, predicted
from tests.report_desk import HOSTILE, dossier, exploration, hostile, profiled, run, search

MAX_BYTES = 3 << 20
ASSETS = resources.files("edgekit.report.html") / "assets"


class Seen(HTMLParser):
    """Elements, attributes and text of a page, as a browser would cut them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] in ("script", "style") and self.cdata_elem:
            self.scripts.append((self.elements[-1][1], data))
        else:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def attributes(self, name: str) -> list[str]:
        return [value or "" for _, attrs in self.elements for key, value in attrs.items() if key == name]


def data_of(page: str) -> dict[str, dict[str, object]]:
    found = re.search(r'<script type="application/json" id="charts">(.*?)</script>', page, re.S)
    assert found
    return dict(json.loads(found[1]))


# -------------------------------------------------------------------------------------------------------------- injection


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_becomes_markup(name: str) -> None:
    plain, page = Seen(render(dossier())), render(hostile(name))
    seen = Seen(page)
    assert {tag for tag, _ in seen.elements} <= {tag for tag, _ in plain.elements}
    assert {key for _, attrs in seen.elements for key in attrs} == {key for _, attrs in plain.elements for key in attrs}
    assert sum(tag == "script" for tag, _ in seen.elements) == 2
    assert set(seen.attributes("href")) == set(plain.attributes("href")), "an address from a record"
    assert data_of(page).keys() == data_of(render(dossier())).keys()
    assert "\x1b" not in page and "\u202e" not in page and "\x00" not in page


def test_the_check_sees_markup_that_breaks_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: without the escape, a name is an element."""
    monkeypatch.setattr(tags, "text", lambda value: tags.Html(value))
    monkeypatch.setattr(tags, "printable", str)
    seen = Seen(render(hostile(HOSTILE[1])))
    assert any("onerror" in attrs for _, attrs in seen.elements)


def test_the_data_block_cannot_end_its_element() -> None:
    block = tags.json_block("x", {"</script>": "<!--<script>&", "l": "\u2028\u2029\ud800"})
    inner = block.removeprefix('<script type="application/json" id="x">').removesuffix("</script>")
    assert not set(inner) & set("<>&\u2028\u2029")
    assert json.loads(inner) == {"</script>": "<!--<script>&", "l": "\u2028\u2029\ud800"}
    with pytest.raises(ValueError):
        tags.json_block("x", float("nan"))


def test_a_tag_escapes_whatever_it_did_not_make() -> None:
    assert tags.tag("p", "<b>", tags.tag("br"), None, 1.5) == "<p>&lt;b&gt;<br>1.5</p>"
    assert tags.tag("p", title='"><b>') == '<p title="&quot;&gt;&lt;b&gt;"></p>'
    assert tags.tag("input", hidden=True, value=None, data_x=0) == '<input hidden data-x="0">'


# ------------------------------------------------------------------------------------------------------------ one file


def test_it_loads_nothing_and_only_its_own_script_may_run() -> None:
    page = render(dossier())
    seen = Seen(page)
    for key in ("src", "srcset", "data", "action", "style", "background", "poster"):
        assert not seen.attributes(key), key
    assert not any(key.startswith("on") for _, attrs in seen.elements for key in attrs)
    assert all(link.startswith("#") for link in seen.attributes("href"))
    assert {link[1:] for link in seen.attributes("href")} <= set(seen.attributes("id"))
    assert not {"link", "iframe", "object", "embed", "base", "form", "img"} & {tag for tag, _ in seen.elements}
    (policy,) = (a["content"] for tag, a in seen.elements if tag == "meta" and "http-equiv" in a)
    rules = dict(rule.split(" ", 1) for rule in str(policy).split("; "))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    for element in ("script", "style"):
        (own,) = re.findall(rf"<{element}>(.*?)</{element}>", page, re.S)
        digest = base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()
        assert rules[f"{element}-src"] == f"'sha256-{digest}'"


def test_the_same_records_give_the_same_bytes() -> None:
    assert render(dossier()) == render(dossier())


def test_identities_are_there_once() -> None:
    found = Seen(render(dossier())).attributes("id")
    assert len(found) == len(set(found))


def test_the_vendored_files_are_those_that_are_written_down() -> None:
    said = dict(
        re.findall(r"\| ([0-9a-f]{64}) \| `(.+?)` \|", (ASSETS / "SOURCES.md").read_text())[i][::-1] for i in range(3)
    )
    for name, digest in said.items():
        assert hashlib.sha256((ASSETS / name).read_bytes()).hexdigest() == digest
    assert "v1.6.32" in (ASSETS / "uPlot.iife.min.js").read_text()[:80]
    text = html.unescape(render(dossier()))
    assert (ASSETS / "uPlot.LICENSE").read_text().splitlines()[0] in text, "the licence travels with the library"


def test_a_large_run_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """3,000 settings, 1,500 layers of long names, profiles of 200,000 queries; its sentences are few however large it is."""
    monkeypatch.setattr("edgekit.report.html.page.explain", lambda _: Explanation((), ()))
    named = "/encoder/layers.11/attention/self/query"
    p = profiled(2000)
    long = replace(p, starts_ns=p.starts_ns * 100, latencies_ns=p.latencies_ns * 100)
    many = replace(p.profile, layers=p.profile.layers * 75)
    record = run(exploration=exploration(3000), searches=(search(1500, named), search(1500, named)))
    page = render(Dossier(record, "x", (long, replace(long, profile=many))))
    assert len(page.encode()) <= MAX_BYTES
    assert "2000 more points are in run.json" in page and "1200 more layers are in run.json" in page


# ---------------------------------------------------------------------------------------------------------- what it says


def test_it_leads_with_the_decision_and_holds_every_figure() -> None:
    seen = Seen(render(dossier()))
    text = seen.text
    assert text.index("requirements met") < text.index(
        "ort-int8 is 2.50x as fast as the model as given (95% 2.45 to 2.55) and 75% smaller"
    )
    order = (
        "Binding requirement",
        "Why others lost",
        "Every candidate that works",
        "Every candidate that was built",
        "Environment and",
    )
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    for said in ("p99 latency", "at most 5 ms", "accuracy drop", "at most 64 MiB", "collapsed", "openvino refuses it"):
        assert said in text, said
    for said in (
        "the data sheet",
        "a notice",
        "do this",
        "sweet spot",
        "kernel",
        "hottest",
        "floating point",
        MODEL_SHA,
    ):
        assert said in text, said


MODEL_SHA = "0" * 64


def test_every_chart_has_its_place_and_every_place_its_chart() -> None:
    page = render(dossier())
    assert sorted(Seen(page).attributes("data-chart")) == sorted(data_of(page))
    assert {"accuracy", "memory", "rate", "histogram", "timeline", "profile-0-conditions"} <= set(data_of(page))


def test_nothing_that_fits_says_what_the_nearest_lacks() -> None:
    asked = Requirements(latency=LatencyBudget(0.01))
    made = run(requirements=asked, exploration=None)
    made = replace(made, choice=choose(made.outcomes, asked, Origin.TARGET, 1.03), satisfies_constraints=False)
    text = Seen(render(Dossier(made, "x"))).text
    assert "requirements not met" in text and "Nothing meets the requirements on board. Nearest is" in text
    assert "missed" in text and "x the limit" in text


def test_a_prediction_is_called_one() -> None:
    asked = Requirements(latency=LatencyBudget(5.0))
    given = (predicted("ort-fp32", 1.0), predicted("ort-int8", 0.4))
    choice = choose(given, asked, Origin.PREDICTED)
    made = run(requirements=asked, outcomes=given, choice=choice, target_origin=Origin.PREDICTED, exploration=None)
    text = Seen(render(Dossier(made, "x"))).text
    assert "2.50x as fast as the model as given (predicted)" in text and "not measured" in text and "unproven" in text
    assert "p50 ms (predicted)" in text and "p99 ms" not in text


def test_a_run_with_next_to_nothing_is_a_page_too() -> None:
    broken = Outcome(candidate("ort-fp32"), verdicts=(Verdict(VerdictCode.DOES_NOT_RUN, "illegal instruction"),))
    choice = choose((broken,), Requirements(), Origin.TARGET)
    bare = run(
        outcomes=(broken,), choice=choice, satisfies_constraints=False, searches=(), findings=(), exploration=None
    )
    bare = replace(bare, noise=None, evaluation=None, next_steps=(), notices=(), left_out={})
    text = Seen(render(Dossier(bare, "x"))).text
    assert "Nothing meets the requirements" in text and "illegal instruction" in text
    assert "Too few candidates work" in text


def test_the_files_of_the_page_are_in_the_package() -> None:
    assert {Path(str(entry)).name for entry in ASSETS.iterdir()} == {
        "SOURCES.md",
        "report.css",
        "report.js",
        "uPlot.LICENSE",
        "uPlot.iife.min.js",
        "uPlot.min.css",
    }
