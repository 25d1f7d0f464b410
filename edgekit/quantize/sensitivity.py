"""Attribution: which layers of a model cost its accuracy when it is quantized. Runs in the sandbox only.

- Each unit is quantized alone, in simulation, and the model run on the same few samples: its noise is what the outputs differ by,
  its drop what the metric loses. The worst ones are also left out of everything else. A run holds what one inference holds.
- Ranges come from the histograms of the whole calibration split; each range method is tried on everything quantized.
- Samples are of the selection split, as many as WORK_MACS allows: their number follows from the model, never from the clock.
- Nodes that no range holds stay float in every trial, as in what ships (`qdq.bounded`), and are in no unit.
- The order of units follows from the noise, which tells layers apart that flip no answer of a few samples.
- An attribution that was interrupted goes on from its checkpoint and ends with the same figures (`trials`).
"""

import functools
import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import ModelProto, numpy_helper

from edgekit.core.accuracy import MetricOptions
from edgekit.core.sensitivity import Attribution, Sensitivity, TensorNoise, Unit, ranked
from edgekit.core.types import NumericRules
from edgekit.errors import InputRejected
from edgekit.quantize import graphs
from edgekit.quantize.collect import load
from edgekit.quantize.groups import fed_inputs
from edgekit.quantize.histogram import Histogram
from edgekit.quantize.qdq import activation_grid, bounded, unbounded_note
from edgekit.quantize.ranges import MAX_SQNR_DB, METHODS, Range, find_ranges, sqnr_db
from edgekit.quantize.samples import Samples
from edgekit.quantize.simulate import Simulator, round_weight
from edgekit.quantize.trials import LABELS, Bench, Ledger, Scoring, Trial
from edgekit.quantize.units import followers, parts_of, planned_nodes, units_of
from edgekit.store import sha256_file

MOST_SAMPLES = 64

# Multiply-accumulates an attribution may take: 50 to 100 s of one core at the 10 to 20 G/s of float32 arithmetic, to which the
# sessions of its trials come. Where one sample a trial takes more, it is one sample a trial, and only what the order rests on.
WORK_MACS = 1e12

# So many of the worst units are also measured as the only one that is not quantized.
LEFT_OUT = 8

# A type's unit is taken apart when it alone makes more than this share of the noise: a few do at most.
TAKEN_APART = 1 / 8

# Above this share every method's answers are mostly noise, and which of them has the least is chance.
SATURATED = 0.5
LEAST_ERROR = "mse"  # the method that is right by each tensor, then

# A range method may lose so many answers more than the best before its noise no longer matters: fewer are chance.
CHANCE_ANSWERS = 2

_FORMAT = 2  # of the checkpoint's key: to be raised when the same subject would give other figures


@dataclass(frozen=True)
class Subject:
    """What is looked into: the flat model, histograms of its activations, the split's feeds and what they are scored by."""

    flat: Path
    histograms: Path
    feeds: Path
    state: Mapping[str, str]
    metric: str
    options: MetricOptions
    numeric: NumericRules
    ops: tuple[str, ...]
    arithmetic: tuple[str, ...]


def attribute(
    subject: Subject, recipe: str, macs: int, progress: Path | None = None, checkpoint: Path | None = None
) -> Attribution:
    """The units of `subject`, the costliest first. `macs` are the model's for one sample. Raises InputRejected, ResourceLimit.

    To `progress` a line of JSON is appended for each trial: {"done", "total", "eta_s"}. `checkpoint` is the file to go on from and
    to save to after each trial; it is removed at the end.
    """
    flat = onnx.load(str(subject.flat))
    histograms, floating = bounded(flat, load(subject.histograms), subject.ops)
    units = units_of(flat, subject.ops, subject.arithmetic, floating)
    if not units:
        raise InputRejected("has nothing to quantize", where=str(subject.flat))
    samples = Samples(subject.feeds, fed_inputs(flat.graph), subject.state)
    groups = followers(flat, subject.ops, floating)
    needed = len(METHODS) + len(units) + most_parts([len(parts_of(unit, groups)) for unit in units])
    left_out = LEFT_OUT if macs * (needed + LEFT_OUT) <= WORK_MACS else 0
    trials = len(METHODS) + len(units) + min(left_out, len(units))  # as far as is known
    count = samples_for(macs, needed + left_out, len(samples))
    key = _key(subject, samples, count) if checkpoint else ""
    ledger = Ledger(key, trials, checkpoint, progress)
    with tempfile.TemporaryDirectory() as scratch:
        scoring = Scoring(subject.feeds, subject.metric, subject.options)
        bench = Bench(flat, samples, scoring, count, Path(scratch))
        found = _Attributing(subject, flat, histograms, floating, ledger, bench).attributed(recipe, units, left_out)
    ledger.close()
    return found


def samples_for(macs: int, trials: int, available: int) -> int:
    """How many samples each of `trials` runs on: what WORK_MACS allows, 1 to MOST_SAMPLES, all if there are fewer."""
    affordable = int(WORK_MACS / (max(1, macs) * trials))
    return min(available, max(1, min(MOST_SAMPLES, affordable)))


def most_parts(parts: Sequence[int]) -> int:
    """How many trials taking units apart may come to, of units of so many `parts`: few can make more than TAKEN_APART each."""
    several = sorted((count for count in parts if count > 1), reverse=True)
    return sum(several[: round(1 / TAKEN_APART) - 1])


class _Attributing:
    """One attribution: trials of everything by each range method, of each unit alone, and of everything but one."""

    def __init__(
        self,
        subject: Subject,
        flat: ModelProto,
        histograms: Mapping[str, Histogram],
        floating: Mapping[str, str],
        ledger: Ledger,
        bench: Bench,
    ) -> None:
        self._subject = subject
        self._flat = flat
        self._histograms = histograms
        self._floating = floating
        self._ledger = ledger
        self._bench = bench
        self._everything = [node.name for node in planned_nodes(flat, subject.ops, floating)]
        self._ranges = functools.cache(self._find_ranges)

    def attributed(self, recipe: str, units: Sequence[Unit], left_out: int) -> Attribution:
        by_method = {m: self._trial(f"ranges {m}", m, self._everything) for m in METHODS}
        best = best_method(by_method, self._bench.samples)
        layers = self._taken_apart([self._alone(unit, best) for unit in units], best)
        self._ledger.expect(min(left_out, len(layers)) - min(left_out, len(units)))
        layers = [self._left_out(s, best) if i < left_out else s for i, s in enumerate(ranked(layers))]
        return Attribution(
            recipe=recipe,
            metric=self._subject.metric,
            samples=self._bench.samples,
            ranges=best,
            full_noise=by_method[best].noise,
            full_drop=by_method[best].drop,
            layers=tuple(layers),
            range_noise={method: trial.noise for method, trial in by_method.items()},
            notes=tuple(filter(None, [unbounded_note(self._floating), self._bench.note])),
        )

    def _trial(self, name: str, method: str, nodes: Sequence[str]) -> Trial:
        """A trial of these nodes quantized; the model is made only if it is to be run."""
        return self._ledger.trial(name, lambda: self._bench.trial(self._simulator(method).quantizing(nodes)))

    def _simulator(self, method: str) -> Simulator:
        return Simulator(self._flat, self._ranges(method), self._subject.numeric)

    def _find_ranges(self, method: str) -> Mapping[str, Range]:
        return find_ranges(self._histograms, method, activation_grid(self._subject.numeric))

    def _alone(self, unit: Unit, method: str) -> Sensitivity:
        trial = self._trial(f"alone {unit.name}", method, unit.nodes)
        return Sensitivity(
            unit,
            trial.noise,
            trial.drop,
            activations=self._tensors(unit, self._ranges(method)),
            weight_sqnr_db=self._weight_sqnr_db(unit),
        )

    def _taken_apart(self, layers: Sequence[Sensitivity], method: str) -> list[Sensitivity]:
        """Units of several nodes that make much of the noise, in parts: one node of them may make all of it."""
        groups = followers(self._flat, self._subject.ops, self._floating)
        whole = sum(s.alone_noise for s in layers)
        found: list[Sensitivity] = []
        for layer in layers:
            parts = parts_of(layer.unit, groups)
            if len(parts) < 2 or layer.alone_noise <= TAKEN_APART * whole:
                found.append(layer)
                continue
            self._ledger.expect(len(parts))
            found.extend(self._alone(part, method) for part in parts)
        return found

    def _left_out(self, layer: Sensitivity, method: str) -> Sensitivity:
        own = set(layer.unit.nodes)
        rest = [name for name in self._everything if name not in own]
        trial = self._trial(f"all but {layer.unit.name}", method, rest)
        return replace(layer, kept_drop=trial.drop, kept_noise=trial.noise)

    def _tensors(self, unit: Unit, ranges: Mapping[str, Range]) -> tuple[TensorNoise, ...]:
        """The unit's own activations, each with what rounding and clipping does to it."""
        codes = activation_grid(self._subject.numeric)
        named = set(unit.nodes)
        nodes = (node for node in self._flat.graph.node if node.name in named)
        touched = dict.fromkeys(name for node in nodes for name in (*node.input, *node.output) if name in ranges)
        return tuple(
            TensorNoise(n, ranges[n].low, ranges[n].high, sqnr_db(self._histograms[n], ranges[n], codes))
            for n in touched
        )

    def _weight_sqnr_db(self, unit: Unit) -> float | None:
        """Of the unit's weights the one that rounding hurts most; None without any."""
        stored = {tensor.name: tensor for tensor in self._flat.graph.initializer}
        named, numeric = set(unit.nodes), self._subject.numeric
        found = []
        for node in self._flat.graph.node:
            places = graphs.weight_inputs(node) if node.name in named else ()
            for name in (node.input[i] for i in places if i < len(node.input) and node.input[i] in stored):
                weight = numpy_helper.to_array(stored[name]).astype(np.float32)
                axis = graphs.channel_axis(node) % weight.ndim if numeric.per_channel and weight.ndim else None
                found.append(_sqnr_db(weight, round_weight(weight, axis, numeric.reduce_range)))
        return min(found, default=None)


def best_method(trials: Mapping[str, Trial], samples: int) -> str:
    """The range method of least noise, of those that lose no more answers of `samples` than chance may.

    A method whose answers the metric has no value for is none of those, unless it has none for any.
    Where all have collapsed, the one that errs least by each tensor: the layers that did it drown what the others say.
    """
    if min(trial.noise for trial in trials.values()) > SATURATED:
        return LEAST_ERROR
    drops = {method: trial.drop for method, trial in trials.items() if trial.drop is not None}
    bar = min(drops.values(), default=0.0) + CHANCE_ANSWERS / samples
    able = [method for method, drop in drops.items() if drop <= bar] or list(trials)
    return min(able, key=lambda method: trials[method].noise)


def _sqnr_db(exact: np.ndarray, rounded: np.ndarray) -> float:
    signal = float(np.square(exact, dtype=np.float64).sum())
    noise = float(np.square(exact.astype(np.float64) - rounded).sum())
    return MAX_SQNR_DB if noise == 0 or signal == 0 else min(MAX_SQNR_DB, float(10 * np.log10(signal / noise)))


def _key(subject: Subject, samples: Samples, count: int) -> str:
    """A digest of all that decides the figures."""
    labels = subject.feeds / LABELS
    files = [subject.flat, subject.histograms, *samples.files, *([labels] if labels.exists() else [])]
    decides = [
        _FORMAT,
        [sha256_file(path) for path in files],
        dict(subject.state),
        [subject.metric, asdict(subject.options), asdict(subject.numeric), subject.ops, subject.arithmetic],
        count,
        ort.__version__,
    ]
    return hashlib.sha256(json.dumps(decides).encode()).hexdigest()
