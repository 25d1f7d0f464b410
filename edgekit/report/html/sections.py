"""The sections of a page in the order in which they are read: the decision first, what it rests on after it."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from edgekit.core.dossier import Dossier, Profiled
from edgekit.core.explain.evidence import Part
from edgekit.core.explain.explanation import Explanation
from edgekit.core.profile import Layer
from edgekit.core.recipes import REFERENCE
from edgekit.core.results import Origin, Proof
from edgekit.core.run import Run
from edgekit.core.search import Search
from edgekit.core.trust import TrustVerdict
from edgekit.report import overview, tables
from edgekit.report.html import charts, parts
from edgekit.report.html.charts import Chart
from edgekit.report.html.tags import Html, join, tag
from edgekit.report.overview import MET, MISSED, Change, Check
from edgekit.report.profile import load_line
from edgekit.report.tables import Cell, Column, Row, Table
from edgekit.report.terminal import MISSING, milliseconds, size

_PAIRED = " The ratio of p50 is paired by the rounds of the race, so it is not quite that of the two medians."
_KINDS = {MET: "good", MISSED: "bad"}
_LEGEND = (
    ("chosen", "chosen"),
    ("front", "on the Pareto front of all figures"),
    ("reference", "the model as given"),
    ("feasible", "meets the requirements"),
    ("rejected", "misses a requirement"),
)
_SETTINGS_LEGEND = (
    ("chosen", "chosen"),
    ("picked", "best in one direction, the knee, or the sweet spot"),
    ("front", "on the Pareto front of all figures"),
    ("feasible", "another setting"),
)


def head(dossier: Dossier) -> Html:
    """What was optimized for what, and whether the figures are the target's own."""
    run = dossier.run
    met = (
        parts.badge("requirements met", "good")
        if run.satisfies_constraints
        else parts.badge("requirements not met", "bad")
    )
    measured = run.target_origin is Origin.TARGET
    origin = parts.badge("measured" if measured else run.target_origin.value, "plain" if measured else "warn")
    doubts = [parts.badge("unproven", "warn")] if run.choice.unproven else []
    doubts += [parts.badge("random inputs", "warn")] if run.data.synthetic else []
    where = f"{run.target.summary}; {run.threads} thread{'' if run.threads == 1 else 's'}; {overview.evidence(run)}"
    title = tag("h1", run.model_name, tag("span", f" on {run.target.name}"))
    return tag("header", tag("p", met, origin, *doubts, class_="badges"), title, tag("p", where, class_="note"))


# --------------------------------------------------------------------------------------------------------------- summary


def summary(run: Run, told: Explanation) -> Html:
    """The verdict, what binds, the figures that matter as cards, the requirements, what the run teaches, what to do next."""
    best, cards = overview.subject(run), overview.changes(run)
    return parts.section(
        "summary",
        "Summary",
        tag("p", f"{overview.verdict(run)}.", class_="verdict"),
        *(tag("p", caveat, class_="warn") for caveat in overview.caveats(run)),
        *(tag("p", sentence.text) for sentence in told.sentences if sentence.part is Part.BINDS),
        tag("div", *map(_card, cards), class_="cards"),
        tag(
            "p",
            f"{best.name} beside the model as given; coloured where a difference is shown.{_predicted(run)}",
            class_="note",
        )
        if best is not None and cards
        else None,
        _requirements(run),
        tag("h3", "What the run teaches") if run.findings else None,
        parts.listed(run.lessons),
        tag("h3", "Next") if run.next_steps else None,
        parts.listed(run.next_steps),
    )


def _predicted(run: Run) -> str:
    return "" if run.target_origin is Origin.TARGET else " Time and memory are predicted, not measured."


def _card(change: Change) -> Html:
    kind = {True: "good", False: "bad", None: ""}[change.better]
    before = (
        f" {'of' if change.change.endswith('x') else 'from'} {change.before}"
        if change.change
        else "as given: not known"
    )
    return tag(
        "div",
        tag("p", change.figure, class_="what"),
        tag("p", change.after, class_="value"),
        tag("p", tag("span", change.change, class_=kind or None), before, class_="from"),
        tag("p", change.interval, class_="from") if change.interval else None,
        class_="card",
    )


def _requirements(run: Run) -> Html:
    rows = tuple(_check(check) for check in overview.checks(run))
    headings = (Column("requirement", "name"), *(Column(h, "words") for h in ("asked", "found", "verdict", "room")))
    best = overview.subject(run)
    caption = f"Requirements against {best.name if best is not None else 'nobody'}; {overview.wishes(run)}"
    return parts.table(Table(headings, rows), "requirements", caption)


def _check(check: Check) -> Row:
    words = (check.requirement, check.asked, check.found, check.verdict, check.room)
    return Row(tuple(map(Cell, words)), _KINDS.get(check.verdict, "warn"))


def why(told: Explanation) -> Html | None:
    """The explanation's sentences under their headings; those that the summary has are not said again."""
    rest = [sentence for sentence in told.sentences if sentence.part not in (Part.BINDS, Part.LEARNT)]
    blocks = [
        join([tag("h3", part.value.capitalize()), parts.listed(sentence.text for sentence in sentences)])
        for part, sentences in groupby(rest, key=lambda sentence: sentence.part)
    ]
    return parts.section("why", "Why", *blocks) if blocks else None


# ------------------------------------------------------------------------------------------------------------ trade-offs


def tradeoffs(run: Run) -> tuple[Html, list[Chart]]:
    """Candidates two figures at a time, and the points of a search over settings where there was one."""
    made = list(charts.tradeoffs(run))
    note = (
        f"Every candidate that works, two figures at a time.{_predicted(run)} Point at one, or touch it, for its name."
    )
    found: list[Html | None] = [tag("p", note), _legend(_LEGEND, made), parts.charts(made)]
    if run.exploration is not None:
        more = list(charts.explored(run.exploration, tables.chosen_setting(run), run.requirements.max_drop))
        made += more
        heading = tag("h3", "Settings: threads (t), streams (s), batch (b), cores, options")
        found += [heading, _picks(run), _legend(_SETTINGS_LEGEND, more), parts.charts(more)]
    body = join(found) if made else tag("p", "Too few candidates work to compare them.")
    return parts.section("trade-offs", "Trade-offs", body), made


def _legend(groups: Sequence[tuple[str, str]], made: Sequence[Chart]) -> Html | None:
    """How spots are drawn, common to all plots of a kind; only of what is there."""
    there = {spot[3] for chart in made for spot in chart.data["spots"]}
    keys = [tag("li", words, class_=f"key {group}") for group, words in groups if group in there]
    return tag("ul", *keys, class_="legend") if keys else None


def _picks(run: Run) -> Html | None:
    """What the search over settings picked, and how far it got."""
    e = run.exploration
    if e is None:
        return None
    told = f"{len(e.points)} of {e.space} settings were measured in {e.seconds:.0f} s (seed {e.seed}); {e.ended}"
    return join([tag("p", told, class_="note"), parts.table(tables.picked(run), "picks", "What the search picked")])


def candidates(run: Run) -> Html:
    """Every candidate with its figures and why it was chosen or not; and what was not built."""
    statuses = ("chosen", "feasible", "rejected", "collapsed", "out")
    made = parts.table(tables.candidates(run), "candidates", "Every candidate that was built", statuses)
    reasons: dict[str, list[str]] = {}
    for name, why in run.left_out.items():
        reasons.setdefault(why, []).append(name)
    left = parts.listed(f"{', '.join(names)}: {why}" for why, names in reasons.items())
    return parts.section("candidates", "Candidates", made, tag("h3", "Not built") if left else None, left)


def settings(run: Run) -> Html | None:
    """Every point of a search over settings."""
    if run.exploration is None:
        return None
    made = tables.settings(run.exploration, tables.chosen_setting(run))
    return parts.section(
        "settings", "Settings", parts.table(made, "points", "Every point", ("picked", "front", "measured", "dropped"))
    )


# --------------------------------------------------------------------------------------------------- latency and memory


def latency(run: Run) -> tuple[Html | None, list[Chart]]:
    """How the latencies of the race are spread and how they moved."""
    made = list(charts.latencies(run))
    where = "" if run.target_origin is Origin.TARGET else f" Measured on this host, not on {run.target.name}."
    words = f"Raw latencies of the race: {_sides(run)}.{where}"
    return (parts.section("latency", "Latency", tag("p", words), parts.charts(made)) if made else None), made


def _sides(run: Run) -> str:
    names = [o.name for o in (overview.subject(run), overview.reference(run)) if o is not None and o.measurement]
    return " and ".join(dict.fromkeys(names)) or MISSING


def memory(run: Run) -> Html | None:
    """Resident set by phase."""
    made = tables.memory(run)
    if not made.rows:
        return None
    return parts.section("memory", "Memory", parts.table(made, "phases", "Resident set of a clean process, by phase"))


def profiles(dossier: Dossier) -> tuple[Html | None, list[Chart]]:
    """Each profile: its verdict, its figures, time and heat, and its layers."""
    made: list[Chart] = []
    blocks: list[Html] = []
    for index, profiled in enumerate(dossier.profiles):
        own = list(charts.profile_charts(profiled, index))
        made += own
        blocks.append(_profile(profiled, index, own, _given(dossier, profiled)))
    return (parts.section("profiles", "Profiles", *blocks) if blocks else None), made


def _given(dossier: Dossier, profiled: Profiled) -> Sequence[Layer]:
    """The layers of another profile, on the same device, that is of the model as given; empty without one."""
    device = profiled.profile.device
    others = (p.profile for p in dossier.profiles if p is not profiled)
    return next((p.layers for p in others if p.recipe == REFERENCE and p.device == device), ())


def _profile(profiled: Profiled, index: int, own: list[Chart], given: Sequence[Layer]) -> Html:
    p, f = profiled.profile, profiled.profile.figures
    kind = "good" if f is not None and f.trust.verdict is TrustVerdict.TRUSTED else "warn"
    trust = parts.badge(f.trust.verdict.value, kind) if f is not None else parts.badge("answers only", "plain")
    layers = tables.timed_layers(p.layers, given)
    return tag(
        "article",
        tag("h3", f"{p.recipe} on {p.device}, {p.scenario.kind} ", trust),
        tag("p", f.trust.reason) if f is not None else None,
        parts.figures(dict(_profile_figures(profiled))),
        parts.charts(own),
        parts.table(layers, f"layers-{index}", f"Layers of {p.recipe} as executed") if layers.rows else None,
        parts.listed([*p.notices, *(f.trust.notices if f is not None else ())]),
    )


def _profile_figures(profiled: Profiled) -> Iterator[tuple[str, str]]:
    p, f = profiled.profile, profiled.profile.figures
    if f is not None:
        stats = f.trust.latency_ms
        known = [(name, getattr(stats, name)) for name in ("p50", "p90", "p99", "max")]
        yield "latency", ", ".join(f"{name} {milliseconds(value)} ms" for name, value in known if value is not None)
        yield "throughput", f"{f.inferences_per_s:.4g}/s, {f.cpu_share:.2f} cores busy"
        if f.trust.sustained is not None:
            s = f.trust.sustained
            yield "last minute to first", f"{s.ratio:.3f} (95% {s.low:.3f} to {s.high:.3f})"
        if f.trust.conditions.hottest_c is not None:
            yield "hottest", f"{f.trust.conditions.hottest_c:.0f} °C"
    for name, load in (("first load", p.cold), ("next load", p.warm)):
        if load is not None:
            yield name, load_line(load)
    if p.memory is not None:
        yield "peak memory", size(p.memory.peak)


# ------------------------------------------------------------------------------------------------- original and chosen


def comparison(run: Run) -> Html | None:
    """The model as given beside the chosen artifact: figures, answers, and the answers on a device."""
    best = overview.subject(run)
    changes = overview.changes(run)
    if best is None or not changes:
        return None
    headings = (Column("figure", "name"), *(Column(h, "words") for h in ("as given", best.name, "change")))
    rows = tuple(Row(tuple(map(Cell, (c.figure, c.before, c.after, c.whole)))) for c in changes)
    return parts.section(
        "comparison",
        "As given against chosen",
        parts.table(
            Table(headings, rows), "changes", f"The model as given, and {best.name}.{_predicted(run) or _PAIRED}"
        ),
        tag("h3", "Answers"),
        parts.figures(dict(_answers(run))),
    )


def _answers(run: Run) -> Iterator[tuple[str, str]]:
    best = overview.subject(run)
    a = best.accuracy if best is not None else None
    if a is not None:
        yield "on the selection split", overview.accuracy_cost(a)
        yield "worst cosine", f"{a.worst_cosine:.6f}"
        yield "SQNR of the worst output", f"{a.sqnr_db:.1f} dB" if a.sqnr_db is not None else "no float output differs"
        yield "largest difference", f"{a.max_abs_diff:.3g}"
        for name, cosine in a.output_cosine.items():
            yield f"cosine of {name}", f"{cosine:.6f}"
    if run.evaluation is not None:
        yield "on unseen evaluation data", overview.accuracy_cost(run.evaluation)
    if run.proof is not None:
        yield f"on {run.proof.device}", _proof(run.proof)


def _proof(proof: Proof) -> str:
    a = proof.agreement
    equal = "bit for bit" if a.identical == a.samples else f"within {a.max_abs_diff:.2g}"
    return f"{a.samples} {proof.split} samples answered as here {equal}, {a.flipped} of {a.decisions} decisions flipped"


def layers(dossier: Dossier) -> Html:
    """Which layers cost the accuracy, where a search ranked them, and where the work is."""
    run = dossier.run
    ranked = [_ranked(dossier, search, index) for index, search in enumerate(run.searches)]
    made = tables.operators(run)
    work = parts.table(made, "operators", "Where the work is, by operator") if made.rows else None
    return parts.section("layers", "Layers", *ranked, work)


def _ranked(dossier: Dossier, search: Search, index: int) -> Html:
    a = search.attribution
    if a is None:
        return tag("p", f"{search.parent}: layers were not ranked: {search.ended}.", class_="note")
    owner = {search.best, search.parent}
    timed = next((p for p in dossier.profiles if p.profile.recipe in owner), None)
    made = tables.sensitivity(search, a, dossier.run.choice.chosen, timed)
    drop = f", {a.metric} drop {a.full_drop:.4f}" if a.full_drop is not None else ""
    words = f"{search.parent}: what each layer costs when it is quantized alone, on {a.samples} samples{drop}. {search.ended}."
    shown = parts.table(made, f"ranked-{index}", f"Layers of {search.parent}", ("floating point", "quantized"))
    return join([tag("p", words), shown, parts.listed(a.notes)])


# ----------------------------------------------------------------------------------------------------------- environment


def environment(run: Run) -> Html:
    """What the run rests on, with the sources of the target's figures."""
    blocks = [
        tag("div", tag("h3", heading), parts.figures(found), class_="facts")
        for heading, found in tables.environment(run).items()
        if found
    ]
    sources = parts.figures(dict(sorted(run.target.sources.items())))
    more = (
        tag("details", tag("summary", "Where the target's figures come from"), sources) if run.target.sources else None
    )
    notices = [tag("h3", "Notices"), parts.listed(run.notices)] if run.notices else []
    return parts.section(
        "environment", "Environment and provenance", tag("div", *blocks, class_="grid"), more, *notices
    )
