"""The tables of a report, from records alone: what each column is called, what each cell says, and what it is sorted by.

- A cell's `value` is what it is sorted by: a number, or None for what is not known, which comes last either way.
- Nothing here is escaped: the writers do that, as names are untrusted.
- A long table is cut to what matters, and says how much was left out.
"""

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from edgekit.core.choose import figures
from edgekit.core.dossier import Profiled
from edgekit.core.findings import best_try
from edgekit.core.profile import Layer
from edgekit.core.results import Origin, Outcome, VerdictCode
from edgekit.core.run import Run
from edgekit.core.search import Search
from edgekit.core.sensitivity import Attribution, Sensitivity
from edgekit.core.tradeoffs import Exploration, Point, key
from edgekit.core.types import RunConfig
from edgekit.report.overview import evidence, reference, setting, subject
from edgekit.report.terminal import ENGINE_PREFIX, MISSING, count, milliseconds, size

MOST_POINTS = 1000
MOST_LAYERS = 300

Kind = Literal["name", "words", "prose", "number", "share"]  # a share, 0 to 1, may be drawn as a bar


@dataclass(frozen=True)
class Column:
    """A heading, what it means where that does not explain itself, and how its cells are set."""

    heading: str
    kind: Kind = "number"
    hint: str = ""


@dataclass(frozen=True)
class Cell:
    """What stands there, what it is sorted by, and what stands small below it; words are sorted by themselves."""

    words: str
    value: float | None = None
    below: str = ""


@dataclass(frozen=True)
class Row:
    """`status` is one of the words a table is filtered by, `marked` whether the row stands out."""

    cells: tuple[Cell, ...]
    status: str = ""
    marked: bool = False


@dataclass(frozen=True)
class Table:
    """`note` says what was left out."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    note: str = ""


UNKNOWN = Cell(MISSING)


def number(value: float | None, write: Callable[[float], str], interval: tuple[float, float] | None = None) -> Cell:
    """A cell of a number with its 95 % interval below it; a dash where it is not known or not finite."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    below = f"{write(interval[0])} to {write(interval[1])}" if interval is not None else ""
    return Cell(write(value), float(value), below)


def in_bytes(value: float | None) -> Cell:
    """A cell of a size."""
    return number(value, lambda v: size(round(v)))


# ------------------------------------------------------------------------------------------------------------ candidates


def status(run: Run, outcome: Outcome) -> str:
    """`chosen`, `feasible`, `rejected` for missing a requirement, or `out` for what does not work."""
    if outcome.name == run.choice.chosen:
        return "chosen"
    if outcome.blocked is not None:
        return "collapsed" if outcome.blocked.code is VerdictCode.COLLAPSED else "out"
    return "feasible" if outcome.name in run.choice.feasible else "rejected"


def remark(run: Run, outcome: Outcome) -> str:
    """Why it was chosen, or was not, and what else is to be said of it."""
    own = run.choice.reason if outcome.name == run.choice.chosen else run.choice.rejected.get(outcome.name, "")
    verdicts = (f"{v.code.value}: {v.reason}" for v in outcome.verdicts)
    return "; ".join(dict.fromkeys(part for part in (own, *verdicts) if part))


def candidates(run: Run) -> Table:
    """Every candidate, the fastest first, those that do not work last."""
    predicted = run.target_origin is Origin.PREDICTED
    kind = " (predicted)" if predicted else ""
    columns = [
        Column("candidate", "name"),
        Column("status", "words", "front: no other one is better in time, throughput, memory, size and drop at once"),
        Column(f"p50 ms{kind}", hint="median time of a request"),
        *(
            []
            if predicted
            else [Column("p99 ms", hint="99 of 100 requests were faster; a dash where too few were run to say")]
        ),
        Column("ratio", hint=f"p50 over that of the model as given, paired within the rounds of one race{kind}"),
        Column("drop", hint=f"how much worse {run.data.metric} is than the model as given's, on the selection split"),
        Column(f"per s{kind}", hint="samples a second, as it is run"),
        Column("size", hint="of the artifact, without the engine"),
        Column(f"memory{kind}", hint="peak resident set of a clean process"),
        *([] if predicted else [Column("cold ms", hint="from the process's start to its first answer")]),
        Column("why", "prose"),
    ]
    rows = [_candidate_row(run, outcome, predicted) for outcome in sorted(run.outcomes, key=lambda o: _order(run, o))]
    return Table(tuple(columns), tuple(rows))


def _order(run: Run, outcome: Outcome) -> tuple[bool, bool, float]:
    numbers = figures(outcome, run.target_origin)
    return (outcome.blocked is not None, numbers is None, numbers.ratio if numbers is not None else 0.0)


def _candidate_row(run: Run, outcome: Outcome, predicted: bool) -> Row:
    f, m, a = figures(outcome, run.target_origin), outcome.measurement, outcome.accuracy
    interval = m.ratio_interval if m is not None and not predicted else None
    said = status(run, outcome)
    cells = [
        Cell(outcome.name, below=_own_setting(run, outcome)),
        Cell(said, below="front" if outcome.name in run.choice.front else ""),
        number(f.p50_ms if f else None, milliseconds),
        *([] if predicted else [number(m.latency_ms.p99 if m else None, milliseconds)]),
        number(f.ratio if f else None, "{:.2f}".format, interval),
        number(a.drop if a else None, "{:+.4f}".format, (a.ci_low, a.ci_high) if a else None),
        number(f.throughput_ips if f else None, "{:.4g}".format),
        in_bytes(outcome.artifact.size_bytes if outcome.artifact else None),
        in_bytes(f.peak_memory_bytes if f else None),
        *([] if predicted else [number(m.load.process_to_first_inference_ms if m else None, milliseconds)]),
        Cell(remark(run, outcome)),
    ]
    return Row(tuple(cells), said, said == "chosen")


def _own_setting(run: Run, outcome: Outcome) -> str:
    """How it is run, where that is not one stream of single samples on the run's threads."""
    said = setting(outcome.candidate.run)
    return "" if said == setting(RunConfig(run.threads)) else said


# -------------------------------------------------------------------------------------------------------------- settings


def chosen_setting(run: Run) -> str:
    """Key of the point as which the chosen candidate is run; empty where the search over settings has none such."""
    best = next((o for o in run.outcomes if o.name == run.choice.chosen), None)
    if best is None or run.exploration is None:
        return ""
    own = best.candidate.run
    how = (own.threads, own.streams, own.batch, own.cores)

    def is_it(point: Point) -> bool:
        s = point.setting
        same = (s.threads, s.streams, s.batch, s.cores) == how and s.options.items() <= own.options.items()
        return same and point.candidate == best.name

    # A point names the options that differ from its candidate's own: of two that fit, the one that names more.
    found = sorted(filter(is_it, run.exploration.points), key=lambda p: len(p.setting.options))
    return key(found[-1]) if found else ""


def picks(exploration: Exploration, chosen: str = "") -> dict[str, list[str]]:
    """Key of a point -> what it is the pick for; one point may be several. `chosen` is the key of the point that is run."""
    named = {
        "chosen": chosen,
        "sweet spot": exploration.sweet_spot,
        "lowest latency": exploration.latency_choice,
        "highest throughput": exploration.throughput_choice,
        "knee": exploration.knee,
    }
    found: dict[str, list[str]] = {}
    for word, name in named.items():
        if name:
            found.setdefault(name, []).append(word)
    return found


def picked(run: Run) -> Table:
    """What a search over settings picked, the chosen one first; no rows without a search."""
    e = run.exploration
    found = {key(point): point for point in e.points} if e is not None else {}
    named = picks(e, chosen_setting(run)) if e is not None else {}
    columns = (
        Column("best for", "name"),
        Column("setting", "words"),
        Column("p50 ms"),
        Column("samples per s"),
        Column("memory"),
        Column("cold ms"),
    )
    rows = tuple(
        Row(
            (
                Cell(", ".join(words)),
                Cell(name),
                number(p.latency_ms.p50, milliseconds),
                number(p.throughput_ips, "{:.4g}".format, p.throughput_interval),
                in_bytes(p.peak_memory_bytes),
                number(p.cold_start_ms, milliseconds),
            ),
            marked="chosen" in words,
        )
        for name, words in named.items()
        if (p := found.get(name)) is not None
    )
    return Table(columns, rows)


def settings(exploration: Exploration, own: str = "") -> Table:
    """The points of a search over settings, those that were picked and the front first; `own` is the key of the one that is run."""
    chosen, front = picks(exploration, own), set(exploration.front)
    columns = (
        Column("setting", "name", "candidate, threads (t), streams (s), batch (b), cores and engine options"),
        Column("p50 ms", hint="of one request, which with batch B is B samples"),
        Column("p99 ms"),
        Column("samples per s"),
        Column("ratio", hint="p50 over the reference point's, paired by rounds"),
        Column("memory"),
        Column("cold ms"),
        Column("size"),
        Column("drop"),
        Column(
            "ended",
            "prose",
            "after how many rounds and why; front: no other point is better in every direction at once",
        ),
    )
    points = sorted(
        exploration.points, key=lambda p: (key(p) != own, key(p) not in chosen, key(p) not in front, -p.throughput_ips)
    )
    rows = tuple(_point_row(p, chosen.get(key(p), []), key(p) in front) for p in points[:MOST_POINTS])
    return Table(columns, rows, _left_out(len(points), MOST_POINTS, "points"))


def _point_row(p: Point, words: Sequence[str], on_front: bool) -> Row:
    cells = (
        Cell(key(p), below=", ".join(words)),
        number(p.latency_ms.p50, milliseconds),
        number(p.latency_ms.p99, milliseconds),
        number(p.throughput_ips, "{:.4g}".format, p.throughput_interval),
        number(p.ratio, "{:.2f}".format, p.ratio_interval),
        in_bytes(p.peak_memory_bytes),
        number(p.cold_start_ms, milliseconds),
        in_bytes(p.size_bytes),
        number(p.drop, "{:+.4f}".format),
        Cell(f"{p.ended}; {p.rounds} round{'' if p.rounds == 1 else 's'}", below="front" if on_front else ""),
    )
    return Row(cells, "picked" if words else "front" if on_front else p.ended.partition(":")[0], "chosen" in words)


def _left_out(found: int, most: int, what: str) -> str:
    return f"{found - most} more {what} are in run.json" if found > most else ""


# ---------------------------------------------------------------------------------------------------------------- memory

_PHASES = {
    "baseline": "baseline_rss",
    "after load": "after_load_rss",
    "peak of the load": "peak_load_rss",
    "peak of inference": "peak_inference_rss",
}


def memory(run: Run) -> Table:
    """Resident set by phase, of the model as given and of the chosen candidate; each as a share of the largest."""
    sides = {o.name: o.measurement.memory for o in (reference(run), subject(run)) if o is not None and o.measurement}
    known = {name: [getattr(m, field) for field in _PHASES.values()] for name, m in sides.items()}
    largest = max((value for values in known.values() for value in values if value is not None), default=0)
    rows = [
        Row((Cell(phase), Cell(name), in_bytes(values[i]), _share_of(values[i], largest)))
        for i, phase in enumerate(_PHASES)
        for name, values in known.items()
    ]
    columns = (
        Column("phase", "name"),
        Column("candidate", "words"),
        Column("resident set"),
        Column("of the largest", "share"),
    )
    return Table(columns, tuple(rows) if largest else ())


def _share_of(value: float | None, whole: float) -> Cell:
    return Cell(f"{value / whole:.0%}", value / whole) if value is not None and whole > 0 else UNKNOWN


# ---------------------------------------------------------------------------------------------------------------- layers


def operators(run: Run) -> Table:
    """Where the model's work and weights are, by operator, the most work first."""
    sums: dict[str, list[int]] = {}
    for layer in run.model.layers:
        found = sums.setdefault(layer.op, [0, 0, 0, 0])
        for i, more in enumerate((1, layer.macs, layer.weight_elements, layer.activation_elements)):
            found[i] += more
    whole = sum(values[1] for values in sums.values())
    ordered = sorted(sums.items(), key=lambda item: (-item[1][1], -item[1][3], item[0]))
    rows = tuple(
        Row(
            (
                Cell(op),
                number(nodes, "{:.0f}".format),
                number(macs, _count),
                _share_of(macs, whole),
                number(weights, _count),
                number(moved, _count),
            )
        )
        for op, (nodes, macs, weights, moved) in ordered
    )
    columns = (
        Column("operator", "name"),
        Column("nodes"),
        Column("MACs"),
        Column("share of MACs", "share"),
        Column("weights"),
        Column("activations", hint="elements read and written"),
    )
    return Table(columns, rows)


def _count(value: float) -> str:
    return count(round(value))


def sensitivity(search: Search, attribution: Attribution, chosen: str | None, profiled: Profiled | None) -> Table:
    """What each layer costs when only it is quantized, what became of it, and the time it takes where a profile tells."""
    best = best_try(search)
    kept = set(best.kept) if best is not None else set()
    whole = sum(layer.alone_noise for layer in attribution.layers)
    times = _times(attribution.layers, profiled)
    precision = f"in {search.best}" if best is not None and search.best else f"in {search.parent}"
    columns = [
        Column("layer", "name"),
        Column("operator", "words"),
        Column(
            precision, "words", "the one chosen" if chosen in (search.best, search.parent) else "not the one chosen"
        ),
        Column("share of MACs", "share"),
        *([Column("share of time", "share", "of the profile's layers that bear its nodes' names")] if times else []),
        Column("SQNR dB", hint="signal over the error at the worst output, when only this layer is quantized"),
        Column("share of noise", "share", "of what all layers make, each alone"),
        Column("drop alone", hint=f"of {attribution.metric}, when only this layer is quantized"),
        Column("worst activation dB", hint="the lowest SQNR of its own tensors"),
    ]
    shown = [s for i, s in enumerate(attribution.layers) if i < MOST_LAYERS or s.unit.name in kept]
    rows = tuple(_layer_row(s, s.unit.name in kept, whole, times) for s in shown)
    return Table(tuple(columns), rows, _left_out(len(attribution.layers), len(shown), "layers"))


def _layer_row(s: Sensitivity, kept: bool, whole: float, times: Mapping[str, float]) -> Row:
    worst = min((tensor.sqnr_db for tensor in s.activations), default=None)
    cells = [
        Cell(s.unit.name),
        Cell(s.unit.op),
        Cell("floating point" if kept else "quantized"),
        Cell(f"{s.unit.share:.1%}", s.unit.share),
        *([_share_of(times.get(s.unit.name), 1.0)] if times else []),
        number(-10 * math.log10(s.alone_noise) if s.alone_noise > 0 else None, "{:.1f}".format),
        _share_of(s.alone_noise, whole),
        number(s.alone_drop, "{:+.4f}".format),
        number(worst, "{:.1f}".format),
    ]
    return Row(tuple(cells), "floating point" if kept else "quantized", kept)


# What ONNX Runtime hangs onto a node's name for what it made of it; of its own layout it takes the output's name.
_SUFFIX = re.compile(r"(_quant|(_output_\d+)?_nchwc|_kernel_time)$")


def _times(layers: Sequence[Sensitivity], profiled: Profiled | None) -> dict[str, float]:
    """Unit -> its share of a profile's time; only of units whose nodes are found there by name."""
    if profiled is None:
        return {}
    owner = {node: layer.unit.name for layer in layers for node in layer.unit.nodes}
    shares: dict[str, float] = {}
    for timed in profiled.profile.layers:
        node = _owner(timed.name, owner)
        if node is not None:
            shares[owner[node]] = shares.get(owner[node], 0.0) + timed.share
    return shares


def _node(name: str) -> str:
    """A layer's name without what ONNX Runtime hangs onto its node's."""
    return _SUFFIX.sub("", name)


def _owner(name: str, known: Collection[str]) -> str | None:
    """The node that a layer was made of, if it is known; OpenVINO adds `/WithoutBiases` and the like to its name."""
    name = _node(name)
    while name not in known and "/" in name:
        name = name.rpartition("/")[0]
    return name if name in known else None


def timed_layers(layers: Sequence[Layer], given: Sequence[Layer] = ()) -> Table:
    """The layers of a profile as executed, the slowest first; beside them those of the model as given that bear the same names."""
    before = _sums(given)
    columns = (
        Column("layer", "name"),
        Column("operator", "words"),
        Column("kernel", "words", "the kernel (OpenVINO) or the execution provider (ONNX Runtime) that ran it"),
        Column("precision", "words", "by the kernel's or the operator's name, where that tells"),
        Column("us", hint="mean time of an inference"),
        *([Column("us as given", hint="of the same name in the profile of the model as given")] if before else []),
        Column("share of time", "share"),
    )
    rows = tuple(_timed_row(layer, before) for layer in layers[:MOST_LAYERS])
    return Table(columns, rows, _left_out(len(layers), MOST_LAYERS, "layers"))


def _sums(layers: Sequence[Layer]) -> dict[str, float]:
    """Microseconds by layer, under the names of the model's nodes."""
    found: dict[str, float] = {}
    for layer in layers:
        name = _node(layer.name)
        found[name] = found.get(name, 0.0) + layer.mean_us
    return found


def _timed_row(layer: Layer, before: Mapping[str, float]) -> Row:
    node = _owner(layer.name, before)
    cells = [
        Cell(layer.name),
        Cell(layer.op),
        Cell(layer.exec_type.removesuffix("ExecutionProvider")),
        Cell(_precision(layer)),
        number(layer.mean_us, "{:.1f}".format),
        *([number(before[node] if node is not None else None, "{:.1f}".format)] if before else []),
        Cell(f"{layer.share:.1%}", layer.share),
    ]
    return Row(tuple(cells))


# The element type at the end of an OpenVINO kernel's name, and ONNX Runtime's operators that compute in integers.
_KERNEL_TYPE = re.compile(r"_(i8|u8|f16|bf16|f32)$", re.IGNORECASE)
_INTEGER_OP = re.compile(r"^QLinear|Integer|^QGemm$|^QAttention$|^DynamicQuantizeMatMul$")


def _precision(layer: Layer) -> str:
    kernel = _KERNEL_TYPE.search(layer.exec_type)
    if kernel is not None:
        return {"i8": "int8", "u8": "int8", "f16": "fp16", "f32": "fp32"}.get(kernel[1].lower(), kernel[1].lower())
    return "int8" if _INTEGER_OP.search(layer.op) else MISSING


# ----------------------------------------------------------------------------------------------------------- environment


def environment(run: Run) -> dict[str, dict[str, str]]:
    """What the run rests on, by heading: key and value."""
    d, t = run.device, run.target
    engines = ", ".join(f"{ENGINE_PREFIX.get(name, name)} is {name} {v}" for name, v in sorted(t.engines.items()))
    best = subject(run)
    return {
        "Model": {
            "name": run.model_name,
            "SHA-256": run.model_sha256,
            "inputs": "; ".join(f"{s.name} {s.dtype} {'x'.join(map(str, s.shape))}" for s in run.model.inputs),
            "outputs": "; ".join(f"{s.name} {s.dtype} {'x'.join(map(str, s.shape))}" for s in run.model.outputs),
            "work": f"{_count(run.model.macs)} MACs, {_count(run.model.params)} parameters ({size(run.model.weight_bytes)})",
        },
        "Target": {
            "name": f"{t.name}: {t.summary}",
            "time and memory": evidence(run),
            "cores": f"{t.cores}, {t.arch}, glibc {t.glibc}",
            "memory": size(t.ram_bytes),
            "engines": engines,
        },
        "Measured on": {
            "CPU": f"{d.cpu_model or 'unknown'}, {d.arch}{', emulated' if d.emulated else ''}",
            "threads": f"{run.threads} used, {d.usable_threads} usable",
            "memory": size(d.ram_bytes),
            "kernel": d.kernel or MISSING,
            "C library": f"glibc {d.glibc}" if d.glibc else MISSING,
            "governor": d.governor or "not told",
            "noise (A/A)": f"ratio {run.noise.ratio:.3f}, up to {run.noise.spread:.3f}" if run.noise else MISSING,
        },
        "Data": {
            "name": f"{run.data.name}{' (drawn at random)' if run.data.synthetic else ''}",
            "metric": run.data.metric,
            "SHA-256": run.data.sha256,
            **{f"{name} split": f"{s.samples} samples, {s.sha256}" for name, s in run.data.splits.items()},
        },
        "Artifact": _artifact(best),
        "Versions": {"edgekit": run.edgekit_version, **dict(sorted(run.versions.items()))},
    }


def _artifact(best: Outcome | None) -> dict[str, str]:
    if best is None or best.artifact is None:
        return {}
    spec, config = best.artifact.spec, best.candidate.run
    found = {
        "recipe": f"{best.name}: {spec.recipe.engine} {spec.engine_version}, {spec.recipe.precision}",
        "steps": ", ".join(step.name for step in spec.recipe.steps) or "none",
        "runs with": setting(config),
        "options": ", ".join(f"{k}={v}" for k, v in sorted(config.options.items())) or "none",
        **{file.path: f"{size(file.size_bytes)}, SHA-256 {file.sha256}" for file in best.artifact.files},
    }
    if best.measurement is not None and best.measurement.settings_in_force:
        forced = sorted(best.measurement.settings_in_force.items())
        found["settings in force"] = ", ".join(f"{k}={v}" for k, v in forced)
    return found
