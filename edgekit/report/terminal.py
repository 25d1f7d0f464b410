"""Tables and lines for a terminal, from records alone."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edgekit.core.accuracy import Accuracy
from edgekit.core.choose import figures
from edgekit.core.facts import EngineLibrary
from edgekit.core.findings import best_try
from edgekit.core.results import GOLDEN, Figures, Origin, Outcome, Proof, VerdictCode
from edgekit.core.run import Run
from edgekit.core.search import Search
from edgekit.core.targets import source_of
from edgekit.core.types import ModelInfo, Target
from edgekit.errors import printable

MISSING = "-"
MOST_KEPT = 5  # layers that a line names

# How the names of recipes begin.
ENGINE_PREFIX = {"onnxruntime": "ort", "openvino": "ov"}

# Columns that go, in this order, where a terminal is too narrow for all: throughput is about the inverse of p50.
DISPENSABLE = ("per s", "p99 ms", "memory", "size")
LONGEST_HEADING = 10


def clean(text: object) -> str:
    """Untrusted text made safe for a terminal: no control characters, no markup."""
    return escape(printable(str(text)))


def size(value: int | None) -> str:
    """Bytes in the largest fitting binary unit."""
    if value is None:
        return MISSING
    for limit, unit in ((1 << 30, "GiB"), (1 << 20, "MiB")):
        if value >= limit:
            amount = value / limit
            return f"{amount:.1f} {unit}" if amount < 10 else f"{amount:.0f} {unit}"
    return f"{value / 1024:.0f} KiB"


def milliseconds(value: float | None) -> str:
    """Three significant digits, plain notation."""
    if value is None:
        return MISSING
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def count(value: int) -> str:
    """1234567 as 1.23 M."""
    for limit, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if value >= limit:
            return f"{value / limit:.3g} {unit}"
    return str(value)


def print_run(console: Console, run: Run, folder: str, settings: Iterable[str] = ()) -> None:
    """The candidates, why each other one was not chosen, the choice, what the run teaches, and what to do next.

    `settings` are lines on the search over settings.
    """
    console.print(run_heading(run), highlight=False)
    console.print(_candidate_table(run, console.width), crop=False)
    for line in (*_reasons(run), *_notes(run)):
        console.print(line, highlight=False)
    console.print()
    steps = (f"next: {clean(step)}" for step in run.next_steps)
    for line in (*verdict_lines(run, folder), *finding_lines(run), *search_lines(run), *settings, *steps):
        console.print(line, highlight=False, soft_wrap=True)  # paths and commands stay whole, to be copied


def run_heading(run: Run) -> str:
    """What was optimized, for which target, with which engines."""
    threads = f"{run.threads} thread{'s' if run.threads != 1 else ''}"
    engines = ", ".join(
        f"{ENGINE_PREFIX.get(name, name)} is {name} {v}" for name, v in sorted(run.target.engines.items())
    )
    title = f"[bold]{clean(run.model_name)}[/] for [bold]{clean(run.target.name)}[/], {threads}; {clean(engines)}"
    return f"{title}\n{clean(run.target.summary)}"


def _candidate_table(run: Run, width: int) -> Table:
    """One line a candidate, no cell cut short: in a narrow terminal columns go instead. `ratio` is to the p50 of fp32 as given."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    outcomes = sorted(run.outcomes, key=lambda o: _order(run, o))
    cells = {heading: [cell(o) for o in outcomes] for heading, cell in _columns(run).items()}
    widths = {heading: max(map(len, [*heading.split("\n"), *column])) for heading, column in cells.items()}
    for heading in DISPENSABLE:
        if sum(widths.values()) + len(widths) > width:
            widths.pop(heading, None)
    for heading, least in widths.items():
        left = heading in ("recipe", "")
        table.add_column(heading, justify="left" if left else "right", no_wrap=True, min_width=least)
    for i, outcome in enumerate(outcomes):
        style = "bold green" if outcome.name == run.choice.chosen else "red" if _has_collapsed(outcome) else ""
        table.add_row(*(clean(cells[heading][i]) for heading in widths), style=style)
    return table


def _columns(run: Run) -> dict[str, Callable[[Outcome], str]]:
    """Heading -> how a candidate's cell is written."""
    predicted = run.target_origin is Origin.PREDICTED
    mark = "\npredicted" if predicted else ""

    def figure(write: Callable[[Figures], str]) -> Callable[[Outcome], str]:
        def cell(outcome: Outcome) -> str:
            numbers = figures(outcome, run.target_origin)
            return write(numbers) if numbers is not None else MISSING

        return cell

    def latency(percentile: str) -> Callable[[Outcome], str]:
        return lambda o: milliseconds(getattr(o.measurement.latency_ms, percentile)) if o.measurement else MISSING

    columns: dict[str, Callable[[Outcome], str]] = {
        "recipe": lambda o: o.name,
        _broken(clean(run.data.metric)): lambda o: f"{o.accuracy.value:.4f}" if o.accuracy else MISSING,
        "drop": lambda o: f"{o.accuracy.drop:+.4f}" if o.accuracy else MISSING,
        "size": lambda o: size(o.artifact.size_bytes) if o.artifact else MISSING,
        f"memory{mark}": figure(lambda n: size(n.peak_memory_bytes)),
        f"p50 ms{mark}": figure(lambda n: milliseconds(n.p50_ms)),
        "p99 ms": latency("p99"),
        "per s": figure(lambda n: f"{n.throughput_ips:.4g}"),
        "p50 ms\nhost": latency("p50"),
        "ratio": figure(lambda n: f"{n.ratio:.2f}"),
        "": lambda o: _short_verdict(run, o),
    }
    if predicted:  # one number stands for the whole distribution, and its inverse for throughput
        del columns["p99 ms"], columns["per s"]
    if not _has_host_figures(run):
        del columns["p50 ms\nhost"]
    return columns


def _broken(heading: str) -> str:
    """A long name over several lines, at its hyphens: what stands below it is short."""
    return heading if len(heading) <= LONGEST_HEADING else heading.replace("-", "-\n")


def _has_host_figures(run: Run) -> bool:
    return any(o.measurement is not None and o.measurement.origin is Origin.HOST for o in run.outcomes)


def _order(run: Run, outcome: Outcome) -> tuple[bool, bool, float]:
    numbers = figures(outcome, run.target_origin)
    return (outcome.blocked is not None, numbers is None, numbers.ratio if numbers else 0.0)


def _short_verdict(run: Run, outcome: Outcome) -> str:
    """One word; the reasons stand below the table. What collapsed says so beside its figures, however fast it is."""
    if _has_collapsed(outcome):
        return VerdictCode.COLLAPSED.value
    if outcome.name == run.choice.chosen:
        return "chosen"
    return "out" if outcome.blocked is not None or _rejection(run, outcome) else ""


def _has_collapsed(outcome: Outcome) -> bool:
    return any(verdict.code is VerdictCode.COLLAPSED for verdict in outcome.verdicts)


def _rejection(run: Run, outcome: Outcome) -> str:
    """Why the candidate may not be chosen; empty for one that is only not the best."""
    return "" if outcome.name in run.choice.feasible else run.choice.rejected.get(outcome.name, "")


def _reasons(run: Run) -> Iterator[str]:
    """Why candidates fell out, and what was left out, those with one reason together."""
    said: dict[str, list[str]] = {}
    for outcome in run.outcomes:
        remarks = [f"{v.code.value}: {v.reason}" for v in outcome.verdicts]
        if outcome.blocked is None and outcome.name != run.choice.chosen and _rejection(run, outcome):
            remarks.append(f"rejected: {_rejection(run, outcome)}")
        for text in remarks:
            said.setdefault(text, []).append(outcome.name)
    for name, reason in run.left_out.items():
        said.setdefault(f"left out: {reason}", []).append(name)
    for text, names in said.items():
        yield f"[dim]{clean(', '.join(names))}:[/] {clean(text)}"


def _notes(run: Run) -> Iterator[str]:
    for notice in run.notices:
        yield f"[dim]note: {clean(notice)}[/]"
    if run.noise is not None:
        yield f"[dim]noise of this race (A/A): ratio {run.noise.ratio:.3f}, up to {run.noise.spread:.3f}[/]"
    if run.target_origin is Origin.PREDICTED:
        yield (
            f"[yellow]predicted: figures of {clean(run.target.name)} by the cost model, not measured; "
            "accuracy and size are measured here with the engine version of the target[/]"
        )


def verdict_lines(run: Run, folder: str) -> Iterator[str]:
    """What was chosen and how it does on unseen data and on the device, or what the nearest lacks."""
    choice = run.choice
    if choice.chosen is None:
        yield f"[bold red]nothing fits[/]: {clean(choice.reason)}"
        if choice.nearest is not None:
            yield f"nearest: [bold]{clean(choice.nearest)}[/], which lacks: {clean('; '.join(choice.lacks))}"
    else:
        yield f"[bold green]chosen[/] [bold]{clean(choice.chosen)}[/]: {clean(choice.reason)}"
        if run.evaluation is not None:
            yield f"on unseen evaluation data: {describe_accuracy(run.evaluation)}"
        if run.proof is not None:
            yield from proof_lines(run.proof)
        if choice.unproven:
            yield f"[yellow]unproven[/], resting on a prediction: {clean(', '.join(choice.unproven))}"
        if run.artifact_files:
            yield f"artifact: {clean(folder)}/{clean(run.artifact_files[0])}"


def finding_lines(run: Run) -> Iterator[str]:
    """What the run teaches, one line a sentence."""
    for text in run.lessons:
        yield f"- {clean(text)}"


def search_lines(run: Run) -> Iterator[str]:
    """One line a search for a mixed precision."""
    for search in run.searches:
        yield f"[dim]search from {clean(search.parent)}: {clean(_searched(search))}[/]"


def _searched(search: Search) -> str:
    if not search.tries:
        return search.ended
    count, held = len(search.tries), sum(t.held for t in search.tries)
    tried = f"{count} {'try' if count == 1 else 'tries'}, {held} held"
    best = best_try(search)
    if best is None:
        return f"{tried}; {search.ended}"
    of = f" of {len(search.attribution.layers)}" if search.attribution is not None else ""
    more = ", ..." if len(best.kept) > MOST_KEPT else ""
    layers = f" ({', '.join(best.kept[:MOST_KEPT])}{more})" if best.kept else ""
    return f"{tried}; {search.best} keeps {len(best.kept)}{of} layers in floating point{layers}; {search.ended}"


def proof_lines(proof: Proof, reference: str = "") -> Iterator[str]:
    """How the artifact's answers on the device agree with this host's; `reference` "here": they were scored against those."""
    a = proof.agreement
    equal = "bit for bit" if a.identical == a.samples else f"within {a.max_abs_diff:.2g}"
    like = "as expected" if proof.split == GOLDEN else "as here"
    yield (
        f"on {clean(proof.device)}{' (emulated)' if proof.emulated and 'emulated' not in proof.device else ''}: "
        f"{a.samples} {clean(proof.split)} samples answered {like} {equal}, {a.flipped} of {a.decisions} decisions flipped"
    )
    if a.nonfinite:
        yield f"[red]{a.nonfinite} values are finite here and not there[/]"
    if proof.accuracy is not None and reference:
        there = f"{clean(proof.accuracy.metric)} of its answers {proof.accuracy.value:.4f}"
        yield f"{there}, {reference} {proof.accuracy.reference_value:.4f}"
    elif proof.accuracy is not None:
        yield f"its own answers: {describe_accuracy(proof.accuracy)}"


def describe_accuracy(a: Accuracy) -> str:
    """One line: value against the reference, the drop with its 95% interval and n."""
    return (
        f"{clean(a.metric)} {a.value:.4f} against {a.reference_value:.4f}, "
        f"drop {a.drop:+.4f} (95% {a.ci_low:+.4f} to {a.ci_high:+.4f}, n={a.n}, {clean(a.kind)})"
    )


def print_model(console: Console, model: ModelInfo, name: str) -> None:
    """What `inspect` found."""
    console.print(
        f"[bold]{clean(name)}[/]  opset {model.opset}, IR {model.ir_version}, {size(model.file_bytes)}, {clean(model.producer)}"
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("", "tensor", "dtype", "shape"):
        table.add_column(heading)
    for kind, specs in (("input", model.inputs), ("output", model.outputs)):
        for spec in specs:
            table.add_row(kind, clean(spec.name), spec.dtype, clean("x".join(map(str, spec.shape)) or "scalar"))
    console.print(table)
    console.print(
        f"{count(model.params)} parameters ({size(model.weight_bytes)}), {count(model.macs)} MACs, "
        f"activations peak at {size(model.peak_activation_bytes)}",
        highlight=False,
    )
    ops = sorted(model.op_counts.items(), key=lambda item: (-item[1], item[0]))
    console.print("operators: " + ", ".join(f"{clean(op)} {n}" for op, n in ops), highlight=False)
    for engine in sorted(model.refusals):
        for reason in model.refusals[engine]:
            console.print(f"[yellow]{clean(engine)} refuses it:[/] {clean(reason)}", highlight=False)
    for notice in model.notices:
        console.print(f"[dim]note: {clean(notice)}[/]", highlight=False)


def print_targets(console: Console, targets: Sequence[Target]) -> None:
    """One line a target."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("target", "arch", "cores", "RAM", "glibc", "summary"):
        table.add_column(heading, no_wrap=heading != "summary")
    for t in targets:
        table.add_row(clean(t.name), t.arch, str(t.cores), size(t.ram_bytes), clean(t.glibc), clean(t.summary))
    console.print(table)


def print_target(console: Console, target: Target) -> None:
    """Every figure of a target beside its source."""
    console.print(f"[bold]{clean(target.name)}[/]: {clean(target.summary)} ({target.arch})")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("figure", "value", "source"):
        table.add_column(heading, overflow="fold")
    for key, value in _figures_of(target):
        table.add_row(clean(key), clean(value), clean(source_of(target, key) or MISSING))
    console.print(table)


def _figures_of(target: Target) -> Iterator[tuple[str, str]]:
    """Key path, as in the target's file, and value."""
    yield "isa", " ".join(target.isa)
    for index, cluster in enumerate(target.clusters):
        for key, value in asdict(cluster).items():
            yield f"clusters.{index}.{key}", f"{value:g}" if isinstance(value, float) else str(value)
    yield "ram_mib", f"{target.ram_bytes >> 20}"
    yield "storage_mib", f"{target.storage_bytes >> 20}" if target.storage_bytes else "unknown"
    yield "glibc", target.glibc
    yield "bandwidth_gb_s", f"{target.bandwidth_bytes_per_s / 1e9:g}"
    for engine, version in target.engines.items():
        yield f"engines.{engine}", version
    for key, value in asdict(target.numeric).items():
        yield f"numeric.{key}", str(value).lower()
    if target.emulation_cpu:
        yield "emulation_cpu", target.emulation_cpu


def print_engines(console: Console, rows: Iterable[EngineLibrary]) -> None:
    """One line a pinned library closure."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("engine", "version", "arch", "size", "where"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(row.engine, row.version, row.arch, size(row.size_bytes), clean(row.folder or "not here"))
    console.print(table)
