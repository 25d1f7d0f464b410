"""The pieces a page is made of: tables, charts' places, lists of figures, badges. Markup only, no decisions."""

import re
from collections.abc import Iterable, Mapping, Sequence

from edgekit.report.html.charts import Chart
from edgekit.report.html.tags import Html, join, tag
from edgekit.report.tables import Cell, Column, Row, Table

FILTER_FROM = 10  # a shorter table is read faster than it is filtered
BREAK = Html("<wbr>")
_BREAKS = re.compile(r"(?<=[/.=])")  # a long name may be broken after one of these
SHORT = 24  # characters up to which a name stays in one line


def section(identity: str, title: str, *children: object) -> Html:
    """A part of the page that the navigation leads to."""
    return tag("section", tag("h2", title), *children, id=identity)


def badge(word: str, kind: str) -> Html:
    """A word that stands out; `kind` is good, bad, warn or plain."""
    return tag("span", word, class_=f"badge {kind}")


def table(made: Table, identity: str, caption: str, statuses: Sequence[str] = ()) -> Html:
    """A table that the script sorts, and filters where it is long. `statuses` are words to filter by."""
    head = tag("tr", *(_heading(column) for column in made.columns))
    body = (_row(row, made.columns) for row in made.rows)
    whole = tag(
        "table",
        tag("caption", tag("span", caption)),
        tag("thead", head),
        tag("tbody", *body),
        id=f"{identity}-table",
        class_="data",
    )
    controls = _controls(made, identity, statuses) if len(made.rows) >= FILTER_FROM else None
    note = tag("p", made.note, class_="note") if made.note else None
    shown = tag("div", whole, class_="scroll", tabindex="0", role="region", aria_label=caption)
    return join([controls, shown, note, _hints(made)])


def _hints(made: Table) -> Html | None:
    """What columns mean that do not say it themselves: a phone has no pointer, and paper has none either."""
    found = {column.heading: column.hint for column in made.columns if column.hint}
    if any(row.cells[i].below for row in made.rows for i, c in enumerate(made.columns) if c.kind == "number"):
        found["small figures"] = "the 95% interval"
    return tag("details", tag("summary", "What the columns mean"), figures(found), class_="hints") if found else None


def _heading(column: Column) -> Html:
    """The script makes a button of it; until then it is a heading."""
    kind = "text" if column.kind in ("name", "words", "prose") else "figure"
    return tag("th", column.heading, scope="col", class_=kind, title=column.hint or None)


def _row(row: Row, columns: Sequence[Column]) -> Html:
    cells = (_cell(cell, column) for cell, column in zip(row.cells, columns, strict=True))
    return tag("tr", *cells, class_="marked" if row.marked else None, data_status=row.status or None)


def _cell(cell: Cell, column: Column) -> Html:
    below = Html(f" {tag('small', cell.below)}") if cell.below else None
    if column.kind == "name":
        words = join(_BREAKS.split(cell.words), BREAK)
        return tag("th", words, below, scope="row", class_="short" if len(cell.words) <= SHORT else None)
    if column.kind in ("words", "prose"):
        return tag("td", cell.words, below, class_="prose" if column.kind == "prose" else None)
    if column.kind == "share" and cell.value is not None:
        return tag("td", bar(cell.value), tag("span", cell.words), class_="figure", data_value=cell.value)
    return tag("td", cell.words, below, class_="figure", data_value=cell.value)


def bar(share: float) -> Html:
    """A share, 0 to 1, as a bar; its width is an attribute, as the page allows no style in the markup."""
    width = f"{min(max(share, 0.0), 1.0):.1%}"
    return tag("svg", tag("rect", width=width, height="100%"), class_="bar", aria_hidden="true")


def _controls(made: Table, identity: str, statuses: Sequence[str]) -> Html:
    present = [word for word in statuses if any(row.status == word for row in made.rows)]
    choices = [tag("option", "all", value=""), *(tag("option", word, value=word) for word in present)]
    chooser = tag("label", "status ", tag("select", *choices, data_statuses=identity)) if present else None
    words = tag("label", "filter ", tag("input", type="search", data_filter=identity, placeholder="a word of the row"))
    shown = tag("span", class_="shown", data_shown=identity, role="status")
    return tag("div", words, chooser, shown, class_="controls")


def chart(made: Chart) -> Html:
    """The place of a chart; the script draws it."""
    place = tag("div", class_="plot", data_chart=made.name, role="img", aria_label=f"{made.title}. {made.caption}")
    return tag("figure", tag("h3", made.title), place, tag("figcaption", made.caption))


def charts(made: Sequence[Chart]) -> Html | None:
    """Charts side by side where there is room; None without any."""
    return tag("div", *map(chart, made), class_="charts") if made else None


def figures(found: Mapping[str, str]) -> Html:
    """Keys and values."""
    return tag("dl", *(tag("div", tag("dt", key), tag("dd", value)) for key, value in found.items()))


def listed(lines: Iterable[str]) -> Html | None:
    """Sentences one below the other; None without any."""
    items = [tag("li", line) for line in lines]
    return tag("ul", *items) if items else None
