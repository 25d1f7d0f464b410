"""Which layers cost the accuracy: a table for each search of a run.

- The costliest layer comes first. Those that the best mixed precision keeps in floating point are always shown and marked.
- Noise is told in dB, as the signal over it (SQNR), and as a share of what all layers make alone, which adds up to 100 %.
- A column that nothing was measured for is left out; figures are never cut short. Of names the ends are shown, as much as there is
  room for and tells them apart. They come from the model: they are escaped.
"""

import math
from collections.abc import Callable, Collection, Iterator, Sequence

from rich.console import Console
from rich.table import Table

from edgekit.core.findings import best_try
from edgekit.core.recipes import RECIPES
from edgekit.core.run import Run
from edgekit.core.search import Search
from edgekit.core.sensitivity import Attribution, Sensitivity
from edgekit.report.terminal import MISSING, clean

MOST_LAYERS = 20
LEAST_NAME = 12

Cell = Callable[[Sensitivity], str]


def print_layers(console: Console, run: Run) -> None:
    """A table for each search that ranked the layers; for one that did not, and for a run without a search, the reason."""
    if not run.searches:
        console.print(clean(_why_none(run)), highlight=False, soft_wrap=True)
    for index, search in enumerate(run.searches):
        if index:
            console.print()
        if search.attribution is None:
            why = f"[bold]{clean(search.parent)}[/]: layers were not ranked: {clean(search.ended)}"
            console.print(why, highlight=False, soft_wrap=True)
        else:
            _print_ranked(console, search, search.attribution)


def _why_none(run: Run) -> str:
    static = [o for o in run.outcomes if o.candidate.build.recipe.needs_calibration]
    if static:
        return "layers were not ranked: this run searched for no mixed precision"
    reasons = {run.left_out[name]: None for name, r in RECIPES.items() if r.needs_calibration and name in run.left_out}
    return f"layers were not ranked: no static int8 candidate was built{': ' if reasons else ''}{'; '.join(reasons)}"


def _print_ranked(console: Console, search: Search, attribution: Attribution) -> None:
    best = best_try(search)
    kept = set(best.kept) if best is not None else set()
    for line in _header(search, attribution):
        console.print(line, highlight=False, soft_wrap=True)
    console.print(_table(attribution, kept, console.width), crop=False)
    for line in _below(search, attribution, kept):
        console.print(line, highlight=False, soft_wrap=True)


def _header(search: Search, a: Attribution) -> Iterator[str]:
    drop = f", {clean(a.metric)} drop {a.full_drop:.4f}" if a.full_drop is not None else ""
    methods = ", ".join(f"{clean(name)} {_db(noise)}" for name, noise in a.range_noise.items())
    yield (
        f"[bold]{clean(search.parent)}[/]: what each layer costs when it is quantized alone, "
        f"{clean(a.metric)} on {a.samples} sample{'' if a.samples == 1 else 's'} of selection"
    )
    yield f"everything quantized, in simulation: SQNR {_db(a.full_noise)} dB{drop}; activation ranges by {clean(a.ranges)}"
    if methods:
        yield f"SQNR in dB by range method: {methods}"


def _table(a: Attribution, kept: Collection[str], width: int) -> Table:
    """The layers' names get what `width` leaves beside the figures."""
    columns = _columns(a, kept)
    shown = [s for index, s in enumerate(a.layers) if index < MOST_LAYERS or s.unit.name in kept]
    cells = {heading: [cell(s) for s in shown] for heading, cell in columns.items()}
    widths = {heading: max(map(len, (*heading.split("\n"), *texts))) for heading, texts in cells.items()}
    room = max(LEAST_NAME, width - sum(widths.values()) - len(widths))
    names = tails([layer.unit.name for layer in shown], room)
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    table.add_column("layer", overflow="fold", min_width=LEAST_NAME)
    for heading, least in widths.items():
        left = heading in ("op", "")
        table.add_column(heading, justify="left" if left else "right", overflow="fold", min_width=least)
    for layer, name, *row in zip(shown, names, *cells.values(), strict=True):
        table.add_row(*map(clean, (name, *row)), style="bold green" if layer.unit.name in kept else "")
    return table


def _columns(a: Attribution, kept: Collection[str]) -> dict[str, Cell]:
    """Heading -> how a layer's cell is written, beside its name."""
    whole = sum(layer.alone_noise for layer in a.layers)
    columns: dict[str, tuple[bool, Cell]] = {
        "op": (True, lambda s: s.unit.op),
        "MACs": (True, lambda s: f"{s.unit.share:.1%}"),
        "SQNR\ndB": (True, lambda s: _db(s.alone_noise)),
        "noise\nshare": (whole > 0, lambda s: f"{s.alone_noise / whole:.1%}"),
        "drop\nalone": (any(s.alone_drop is not None for s in a.layers), lambda s: _drop(s.alone_drop)),
        "drop\nif kept": (any(s.kept_drop is not None for s in a.layers), lambda s: _drop(s.kept_drop)),
        "worst\nact. dB": (any(s.activations for s in a.layers), _worst_activation),
        "": (bool(kept), lambda s: "kept" if s.unit.name in kept else ""),
    }
    return {heading: cell for heading, (known, cell) in columns.items() if known}


def _below(search: Search, a: Attribution, kept: Collection[str]) -> Iterator[str]:
    rest = [layer for layer in a.layers[MOST_LAYERS:] if layer.unit.name not in kept]
    if rest:
        whole = sum(layer.alone_noise for layer in a.layers)
        noise = f", {sum(layer.alone_noise for layer in rest) / whole:.1%} of the noise" if whole > 0 else ""
        yield f"{len(rest)} more{noise}; --json has them all"
    if kept:
        yield f"kept: in floating point in [bold]{clean(search.best or '')}[/]"
    yield f"[dim]{clean(search.ended)}[/]"
    for note in a.notes:
        yield f"[dim]note: {clean(note)}[/]"


def _worst_activation(layer: Sensitivity) -> str:
    worst = min((tensor.sqnr_db for tensor in layer.activations), default=None)
    return f"{worst:.1f}" if worst is not None else MISSING


def _db(noise: float) -> str:
    """Noise power over signal power as the signal over it."""
    return f"{-10 * math.log10(noise):.1f}" if noise > 0 else "inf"


def _drop(value: float | None) -> str:
    return f"{value:+.4f}" if value is not None else MISSING


def tails(names: Sequence[str], room: int) -> list[str]:
    """The ends of layers' names, which tell them from their neighbours: `room` characters, more where those are alike."""
    longest = max(map(len, names), default=room)
    for most in range(room, longest):
        ends = [name if len(name) <= most else f"…{name[1 - most :]}" for name in names]
        if len(set(ends)) == len(set(names)):
            return ends
    return list(names)
