"""Runs on a terminal: a list of them, and what changed between two."""

import time
from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console
from rich.table import Table

from edgekit.core.choose import figures
from edgekit.core.delta import COLD_START, LATENCY, MEMORY, SCORE, SIZE, TAIL, Delta, Shown
from edgekit.core.results import Origin
from edgekit.core.run import Run
from edgekit.core.rundiff import CandidateDelta, RunDiff
from edgekit.errors import printable
from edgekit.report.terminal import MISSING, clean, milliseconds, size

_COLOURS = {Shown.BETTER: "green", Shown.WORSE: "red"}
_MS = (LATENCY, TAIL, COLD_START)
_BYTES = (MEMORY, SIZE)

CHANGE = "change (95%)"

HEADINGS = ("run", "written", "model", "target", "chosen", "p50 ms", "memory", "size", "score")
NUMBERS = frozenset(HEADINGS[5:])
# Columns that go, in this order, where a terminal is too narrow for all.
DISPENSABLE = ("score", "memory", "size", "written", "model")

Row = tuple[str, float, Run | None, str]  # folder, when written (seconds since 1970), record, why it can't be read


def print_runs(console: Console, runs: Iterable[Row]) -> None:
    """One line a run, no cell cut short: in a narrow terminal columns go instead. Then the folders that can't be read."""
    known, broken = [], []
    for folder, written_s, run, error in runs:
        if run is None:
            broken.append((folder, error))
        else:
            known.append((folder, time.strftime("%Y-%m-%d %H:%M", time.gmtime(written_s)), *_cells(run)))
    console.print(_run_table(known, console.width) if known else "no runs here", crop=False)
    for folder, error in broken:
        console.print(f"[yellow]{clean(folder)}[/]: {clean(error)}", highlight=False, soft_wrap=True)


def _run_table(rows: Sequence[tuple[str, ...]], width: int) -> Table:
    widths = {heading: max(len(heading), *(len(row[i]) for row in rows)) for i, heading in enumerate(HEADINGS)}
    for heading in DISPENSABLE:
        if sum(widths.values()) + len(widths) > width:
            del widths[heading]
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    for heading, least in widths.items():
        table.add_column(heading, justify="right" if heading in NUMBERS else "left", no_wrap=True, min_width=least)
    for row in rows:
        table.add_row(*(clean(row[HEADINGS.index(heading)]) for heading in widths))
    return table


def _cells(run: Run) -> Iterator[str]:
    """A "~" marks what was predicted."""
    yield from (printable(run.model_name), printable(run.target.name), printable(run.choice.chosen or "nothing fits"))
    outcome = run.outcome(run.choice.chosen) if run.choice.chosen else None
    numbers = figures(outcome, run.target_origin) if outcome is not None else None
    mark = "~" if numbers is not None and numbers.origin is Origin.PREDICTED else ""
    yield f"{mark}{milliseconds(numbers.p50_ms)}" if numbers is not None else MISSING
    yield f"{mark}{size(numbers.peak_memory_bytes)}" if numbers is not None else MISSING
    yield size(numbers.size_bytes) if numbers is not None else MISSING
    yield f"{run.evaluation.value:.4f}" if run.evaluation is not None else MISSING


def print_diff(console: Console, diff: RunDiff) -> None:
    """What was given and decided differently, then the figures of both choices, then the candidates of both."""
    console.print(f"[bold]{clean(diff.before)}[/] -> [bold]{clean(diff.after)}[/]", highlight=False, soft_wrap=True)
    if not diff.changes:
        console.print("given and decided alike")
    for change in diff.changes:
        console.print(
            f"[dim]{clean(change.what)}:[/] {clean(change.before)} -> {clean(change.after)}",
            highlight=False,
            soft_wrap=True,
        )
    console.print(_figure_table(diff.figures))
    for basis, names in _bases(diff.figures).items():
        console.print(f"[dim]{', '.join(names)}:[/] {clean(basis)}", highlight=False, soft_wrap=True)
    if diff.candidates:
        console.print(_candidate_table(diff.candidates))
        for basis, names in _bases([c.ratio for c in diff.candidates]).items():
            if basis and len(names) == len(diff.candidates):
                console.print(f"[dim]ratios:[/] {clean(basis)}", highlight=False, soft_wrap=True)
    for which, alone in (("first", diff.only_before), ("second", diff.only_after)):
        if alone:
            console.print(f"[dim]only in the {which}:[/] {clean(', '.join(alone))}", highlight=False, soft_wrap=True)


def _figure_table(deltas: Sequence[Delta]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    for heading in ("figure", "before", "after", CHANGE, ""):
        table.add_column(heading, justify="left" if heading in ("figure", "") else "right", no_wrap=heading != CHANGE)
    for delta in deltas:
        name, *values, _ = figure_cells(delta)
        table.add_row(clean(name), *values, _verdict(delta))
    return table


def figure_cells(delta: Delta) -> tuple[str, str, str, str, str]:
    """A figure of two runs: its name, both values, the change with its interval, and what may be said of it."""
    name = f"{delta.figure} ({delta.unit})" if delta.figure == SCORE else delta.figure
    before, after = (_value(delta, value) for value in (delta.before, delta.after))
    return name, before, after, _change(delta), delta.shown.value


def _candidate_table(candidates: Sequence[CandidateDelta]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    for heading in ("candidate", "bytes", "ratio before", "after", CHANGE, ""):
        left = heading in ("candidate", "bytes", "")
        table.add_column(heading, justify="left" if left else "right", no_wrap=heading != CHANGE)
    for c in candidates:
        values = (MISSING if v is None else f"{v:.2f}" for v in (c.ratio.before, c.ratio.after))
        same = "same" if c.same_bytes else "other"
        table.add_row(clean(c.name), same, *values, _change(c.ratio), _verdict(c.ratio))
    return table


def _bases(deltas: Sequence[Delta]) -> dict[str, list[str]]:
    said: dict[str, list[str]] = {}
    for delta in deltas:
        said.setdefault(delta.basis, []).append(delta.figure)
    return said


def _value(delta: Delta, value: float | None) -> str:
    if value is None:
        return MISSING
    if delta.figure in _MS:
        return f"{milliseconds(value)} ms"
    return size(int(value)) if delta.figure in _BYTES else f"{value:.4f}" if delta.figure == SCORE else f"{value:.4g}/s"


def _change(delta: Delta) -> str:
    if delta.change is None:
        return MISSING
    shape = "{:+.4f}" if delta.figure == SCORE else "{:+.1%}"
    if delta.figure == SIZE and delta.before is not None and delta.after is not None and abs(delta.change) < 0.001:
        return f"{delta.after - delta.before:+.0f} bytes"
    if delta.low is None or delta.high is None or delta.low == delta.high:
        return shape.format(delta.change)
    return f"{shape.format(delta.change)} ({shape.format(delta.low)} to {shape.format(delta.high)})"


def _verdict(delta: Delta) -> str:
    colour = _COLOURS.get(delta.shown)
    return f"[{colour}]{delta.shown.value}[/]" if colour else delta.shown.value
