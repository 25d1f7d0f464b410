"""A run as Markdown for a pull request: the verdict, the requirements, the candidates; the rest folded away.

- GitHub's flavour, nothing but text, tables and `<details>`; it is as well read as it stands.
- Names of models, layers and data are untrusted: `safe` leaves nothing in them that formats, links, mentions or ends a cell.
- Its first line is a mark that no renderer shows, by which a job finds its own earlier comment.
"""

import html
import re
from collections.abc import Iterable, Iterator, Sequence

from edgekit.core.dossier import Dossier
from edgekit.core.explain.evidence import Part
from edgekit.core.explain.explanation import explain
from edgekit.core.run import Run
from edgekit.errors import printable
from edgekit.report import overview, tables
from edgekit.report.overview import MARK, MET, MISSED
from edgekit.report.tables import Column, Table

MOST_ROWS = 40

# What formats, or ends a cell, stands behind a backslash; what opens a tag or an entity is one itself.
_ACTIVE = str.maketrans({**{c: f"\\{c}" for c in "\\`*_[]~|#$"}, "<": "&lt;", ">": "&gt;", "&": "&amp;"})
# What GitHub makes links of without being asked, issues (first: the joiner has a # of its own), people and addresses: a joiner that
# nobody sees goes where `|` stands.
_LINKED = {r"#(?=\d)": "#|", r"@": "@|", r"(?<=:)//": "/|/", r"(?i:(?<=www)\.)": "|."}
# What makes a list or a line of it at the start of an item.
_LINE_START = re.compile(r"^(?=[-+](\s|$)|[-=]+$)")
_NUMBERED = re.compile(r"^(\d+)(?=[.)](\s|$))")
_JOINER = "&#8288;"
_SIGNS = {MET: "✅", MISSED: "❌"}


def render(dossier: Dossier) -> str:
    """The Markdown of a run."""
    run = dossier.run
    told = explain(run).sentences
    parts = [
        f"{MARK}\n## {'✅' if run.satisfies_constraints else '❌'} {safe(run.model_name)} on {safe(run.target.name)}",
        f"**{safe(overview.verdict(run))}.**",
        "\n".join(f"⚠️ {safe(caveat)}" for caveat in overview.caveats(run)),
        "\n".join(safe(sentence.text) for sentence in told if sentence.part is Part.BINDS),
        _small(f"{run.target.summary}; {run.threads} threads; {overview.evidence(run)}; run {dossier.name}"),
        _requirements(run),
        _listed(run.lessons),
        *_comparison(run),
        *_folded("Why", _listed(s.text for s in told if s.part not in (Part.BINDS, Part.LEARNT))),
        *_folded("Candidates", _table(tables.candidates(run), bold=run.choice.chosen)),
        *_settings(run),
        *_profiles(dossier),
        *_folded("Not built", _listed(f"{name}: {why}" for name, why in run.left_out.items())),
        *_folded("Environment", _environment(run)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def safe(text: object) -> str:
    """`text` as text: nothing in it is Markdown, HTML, a link or a mention, and it stays within a line and a cell."""
    plain = _apart(printable(str(text)).strip().translate(_ACTIVE))
    return _NUMBERED.sub(r"\1\\", _LINE_START.sub(r"\\", plain))


def _apart(text: str) -> str:
    for linked, apart in _LINKED.items():
        text = re.sub(linked, apart.replace("|", _JOINER), text)
    return text


def _small(text: str) -> str:
    return f"<sub>{safe(text)}</sub>"


def _listed(lines: Iterable[str]) -> str:
    return "\n".join(f"- {safe(line)}" for line in lines)


def _folded(title: str, body: str) -> Iterator[str]:
    """Nothing where there is nothing to fold. The title's line is HTML, in which no Markdown counts."""
    if body:
        yield f"<details><summary>{_apart(html.escape(printable(title)))}</summary>\n\n{body}\n\n</details>"


def _rows(headings: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[bool]) -> str:
    """A table of finished cells."""
    line = (f"| {' | '.join(cells)} |" for cells in (headings, ["--:" if r else ":--" for r in right], *rows))
    return "\n".join(line)


def _table(made: Table, *, bold: str | None = None, columns: Sequence[str] | None = None) -> str:
    """At most MOST_ROWS rows, of the `columns` that are named or all; the row called `bold` stands out."""
    if not made.rows:
        return ""
    shown = [i for i, column in enumerate(made.columns) if columns is None or column.heading in columns]
    rows = []
    for row in made.rows[:MOST_ROWS]:
        cells = [safe(row.cells[i].words) for i in shown]
        cells[0] = f"**{cells[0]}**" if row.cells[0].words == bold else cells[0]
        rows.append(cells)
    right = [_is_figure(made.columns[i]) for i in shown]
    more = len(made.rows) - MOST_ROWS
    note = f"\n\n{more} more are in the HTML report" if more > 0 else ""
    return _rows([safe(made.columns[i].heading) for i in shown], rows, right) + note


def _is_figure(column: Column) -> bool:
    return column.kind in ("number", "share")


def _requirements(run: Run) -> str:
    checks = overview.checks(run)
    if not checks:
        return ""
    rows = [
        [
            safe(c.requirement),
            safe(c.asked),
            safe(c.found),
            f"{_SIGNS.get(c.verdict, '⚠️')} {safe(c.verdict)}",
            safe(c.room),
        ]
        for c in checks
    ]
    return (
        _rows(["requirement", "asked", "found", "verdict", "room"], rows, [False] * 5)
        + f"\n\n{_small(overview.wishes(run))}"
    )


def _comparison(run: Run) -> Iterator[str]:
    best, changes = overview.subject(run), overview.changes(run)
    if best is not None and changes:
        rows = [[safe(c.figure), safe(c.before), safe(c.after), safe(c.whole)] for c in changes]
        yield _rows(["", "as given", safe(best.name), "change"], rows, [False, True, True, True])


def _settings(run: Run) -> Iterator[str]:
    """What a search over settings picked, and its points."""
    if run.exploration is None:
        return
    columns = ("setting", "p50 ms", "p99 ms", "samples per s", "memory", "cold ms", "drop")
    made = tables.settings(run.exploration, tables.chosen_setting(run))
    picked = _table(tables.picked(run))
    yield from _folded("Settings", f"{picked}\n\n{_table(made, columns=columns)}".strip())


def _profiles(dossier: Dossier) -> Iterator[str]:
    """Each profile in a line, its layers folded."""
    for profiled in dossier.profiles:
        p, f = profiled.profile, profiled.profile.figures
        said = f"{p.recipe} on {p.device}, {p.scenario.kind}"
        if f is not None:
            said += f": {f.inferences_per_s:.4g}/s, {f.trust.verdict.value} ({f.trust.reason})"
        yield from _folded(f"Profile: {said}", _table(tables.timed_layers(p.layers)) or "No layers were timed.")


def _environment(run: Run) -> str:
    lines = [
        f"{heading}: {key}: {value}"
        for heading, found in tables.environment(run).items()
        for key, value in found.items()
    ]
    return _listed([*lines, *(f"note: {notice}" for notice in run.notices)])
