"""The page as a whole: sections in order, navigation, styles and script inline, and the policy that lets nothing else run."""

import base64
import hashlib
from functools import cache
from importlib import resources

from edgekit.core.dossier import Dossier
from edgekit.core.explain.explanation import explain
from edgekit.report.html import sections
from edgekit.report.html.charts import Chart
from edgekit.report.html.tags import Html, join, json_block, tag
from edgekit.report.overview import MARK

_STYLES = ("uPlot.min.css", "report.css")
_SCRIPTS = ("uPlot.iife.min.js", "report.js")


def render(dossier: Dossier) -> str:
    """The file's text."""
    body, charts = _body(dossier)
    style, script = _inline("style", _STYLES), _inline("script", _SCRIPTS)
    title = f"{dossier.run.model_name} on {dossier.run.target.name}"
    page = tag(
        "html",
        tag(
            "head",
            tag("meta", charset="utf-8"),
            tag("meta", http_equiv="Content-Security-Policy", content=_policy()),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("meta", name="color-scheme", content="light dark"),
            tag("meta", name="generator", content=f"edgekit {dossier.run.edgekit_version}"),
            tag("title", f"edgekit: {title}"),
            style,
        ),
        tag("body", *body, json_block("charts", {chart.name: chart.data for chart in charts}), script),
        lang="en",
    )
    return f"<!doctype html>\n{MARK}\n{page}\n"


def _body(dossier: Dossier) -> tuple[list[Html], list[Chart]]:
    run = dossier.run
    told = explain(run)
    tradeoffs, drawn = sections.tradeoffs(run)
    latency, timed = sections.latency(run)
    profiles, profiled = sections.profiles(dossier)
    found = {
        "summary": sections.summary(run, told),
        "why": sections.why(told),
        "trade-offs": tradeoffs,
        "candidates": sections.candidates(run),
        "settings": sections.settings(run),
        "comparison": sections.comparison(run),
        "latency": latency,
        "memory": sections.memory(run),
        "profiles": profiles,
        "layers": sections.layers(dossier),
        "environment": sections.environment(run),
    }
    shown = {name: section for name, section in found.items() if section is not None}
    links = tag("nav", *(tag("a", name.capitalize(), href=f"#{name}") for name in shown), aria_label="Sections")
    none = tag(
        "noscript",
        tag("p", "Charts, sorting and filters need JavaScript; all figures are here without.", class_="note"),
    )
    main = tag("main", none, *shown.values())
    return [sections.head(dossier), links, main, _footer(dossier)], [*drawn, *timed, *profiled]


def _footer(dossier: Dossier) -> Html:
    made = f"edgekit {dossier.run.edgekit_version}, from the run {dossier.name}, run.json schema {dossier.run.schema}."
    licence = tag("details", tag("summary", "Charts by uPlot, MIT licence"), tag("pre", Html(_escaped_licence())))
    return tag("footer", tag("p", made), licence)


# ---------------------------------------------------------------------------------------------------------------- inline


@cache
def _asset(name: str) -> str:
    return resources.files(__package__).joinpath("assets", name).read_text("utf-8")


def _escaped_licence() -> str:
    """Its lines stay lines; it is a file of edgekit's own."""
    return str(join(_asset("uPlot.LICENSE").splitlines(), Html("\n")))


@cache
def _inlined(names: tuple[str, ...]) -> str:
    """Files one after the other; a file that could end its element is a defect."""
    whole = "\n".join(_asset(name).rstrip("\n") for name in names)
    assert "</s" not in whole.lower(), names
    return whole


def _inline(element: str, names: tuple[str, ...]) -> Html:
    return Html(f"<{element}>{_inlined(names)}</{element}>")


def _digest(names: tuple[str, ...]) -> str:
    digest = hashlib.sha256(_inlined(names).encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _policy() -> str:
    """Nothing is loaded or sent; only the style and the script of this file count, by their digests."""
    rules = {
        "default-src": "'none'",
        "style-src": _digest(_STYLES),
        "script-src": _digest(_SCRIPTS),
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())
