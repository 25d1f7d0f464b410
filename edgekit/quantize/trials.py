"""Trials of an attribution: variants of a model on the same samples, what they answer, and what is known of them already.

- Samples are spread evenly over the split, which may be sorted by class; where order matters (state, sequences), the first ones.
- Noise is that of the outputs that count (`scored_outputs`): of the one that the metric is shown, of states only without others.
- One inference is held at a time: noise is summed sample by sample, outputs go to disk as they come, for the metric. Where they are
  large (segmentation), fewer samples are looked at: STORED_BYTES bounds what lies there.
- Every trial that ends is saved in one atomic step with a digest of all that decides the results. An attribution that finds its
  own checkpoint does not repeat what is in it, and ends with the same figures; any other checkpoint is ignored.
"""

import json
import math
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime as ort
from onnx import ModelProto, TensorProto

from edgekit.core.accuracy import MetricOptions, OutputSet
from edgekit.data.outputs import Outputs
from edgekit.data.score import score
from edgekit.errors import InputRejected
from edgekit.models.runtime import ERRORS, Array, raise_if_out_of_memory, reason, run_session
from edgekit.quantize.progress import report
from edgekit.quantize.samples import RESET, Samples
from edgekit.store import write_atomic

LABELS = "labels.npy"
FEWEST_SAMPLES = 4

# Of the reference's outputs as of a variant's; the place may be memory.
STORED_BYTES = 256 << 20

_HEADER_BYTES = 256


@dataclass(frozen=True)
class Trial:
    """What one variant answers: noise power over signal power of the worst output, and the metric's drop.

    Where no output that counts is float, the noise is the share of values that differ.
    """

    noise: float
    drop: float | None


@dataclass(frozen=True)
class Scoring:
    """What the drop is measured by: a metric on the labels, if any, that lie beside the feeds."""

    feeds: Path
    metric: str
    options: MetricOptions


# --------------------------------------------------------------------------------------------------------------- ledger


class Ledger:
    """Trials by name, as they end; those that `checkpoint` knows under `key` are not run again."""

    def __init__(self, key: str, total: int, checkpoint: Path | None, progress: Path | None) -> None:
        self._key = key
        self._total = total
        self._checkpoint = checkpoint
        self._progress = progress
        self._known = _read(checkpoint, key) if checkpoint else {}
        self._done = self._ran = 0
        self._started = time.monotonic()

    def trial(self, name: str, run: Callable[[], Trial]) -> Trial:
        """The trial called `name`, run if it is not known."""
        if name not in self._known:
            self._known[name] = run()
            self._ran += 1
            if self._checkpoint:
                trials = {known: [trial.noise, trial.drop] for known, trial in self._known.items()}
                write_atomic(self._checkpoint, json.dumps({"key": self._key, "trials": trials}).encode())
        self._done += 1
        self._report()
        return self._known[name]

    def expect(self, more: int) -> None:
        """So many more trials are to come than was known."""
        self._total += more

    def close(self) -> None:
        """The attribution is complete: nothing is left to go on from."""
        if self._checkpoint:
            self._checkpoint.unlink(missing_ok=True)

    def _report(self) -> None:
        left = max(0, self._total - self._done)
        eta_s = (time.monotonic() - self._started) / max(1, self._ran) * left
        report(self._progress, self._done, self._total, eta_s)


class _Saved(msgspec.Struct):
    key: str
    trials: dict[str, tuple[float, float | None]]


def _read(checkpoint: Path, key: str) -> dict[str, Trial]:
    """The trials a checkpoint holds; none when there is none, it is another attribution's, or it cannot be read."""
    try:
        saved = msgspec.json.decode(checkpoint.read_bytes(), type=_Saved)
    except (OSError, msgspec.DecodeError):
        return {}
    return {name: Trial(*found) for name, found in saved.trials.items()} if saved.key == key else {}


# ---------------------------------------------------------------------------------------------------------------- bench


class Bench:
    """Runs variants of one model on some samples and compares their outputs with the float model's.

    `rows` are those samples: `count` of them, or fewer (but FEWEST_SAMPLES) where their outputs would be too large to store.
    Raises InputRejected when the float model cannot be run on them, ResourceLimit.
    """

    def __init__(self, flat: ModelProto, samples: Samples, scoring: Scoring, count: int, scratch: Path) -> None:
        self._feeds = samples
        self._scoring = scoring
        self.rows: Sequence[int] = (0,)
        self._scratch = scratch
        self._all = [port.name for port in flat.graph.output]
        self._names = tuple(port.name for port in flat.graph.output if _is_numeric(port.type.tensor_type.elem_type))
        one = sum(path.stat().st_size for path in self._run(flat, "reference", None).files)
        stored = max(FEWEST_SAMPLES, STORED_BYTES // max(1, one))
        ordered = bool(samples.state) or (scoring.feeds / RESET).exists()
        self.rows = rows_of(len(samples), min(count, stored), ordered)
        self._reference_set = self._run(flat, "reference", None)
        self._counted = scored_outputs(
            dict(zip(self._reference_set.names, self._reference_set.dtypes, strict=True)),
            scoring.options.output,
            samples.state,
        )
        self._reference = Outputs(self._reference_set)
        self.note = self._refusal()

    @property
    def samples(self) -> int:
        """How many samples each variant runs on."""
        return len(self.rows)

    def trial(self, variant: ModelProto) -> Trial:
        """What a variant answers."""
        noise = _Noise(self._counted)
        found = self._run(variant, "variant", noise, stored=not self.note)
        return Trial(noise.worst(), None if self.note else self._drop(found))

    def _run(self, model: ModelProto, name: str, noise: "_Noise | None", stored: bool = True) -> OutputSet:
        names = self._names if stored else ()
        writers = {output: _NpyWriter(self._scratch / f"{name}.{i}.npy") for i, output in enumerate(names)}
        try:
            session = _open(model)
            carried: dict[str, Array] = {}
            for index, row in enumerate(self.rows):
                answer = run_session(session, self._feeds.feed(row, carried))
                named = dict(zip(self._all, answer, strict=True))
                carried = {fed: named[made] for made, fed in self._feeds.state.items()}
                for output, writer in writers.items():
                    writer.add(named[output])
                if noise is not None:
                    noise.add(named, self._reference.read(slice(index, index + 1)))
        except ERRORS as error:
            raise InputRejected(f"attribution could not run the {name}: {reason(error)}") from error
        finally:  # a file half written is closed too
            shapes = tuple(writer.close() for writer in writers.values())
        dtypes = tuple(str(writer.dtype) for writer in writers.values())
        return OutputSet(names, dtypes, tuple(writer.path for writer in writers.values()), shapes)

    def _refusal(self) -> str:
        """Why no drop can be had of these samples, if so: the metric's word on the reference itself."""
        if ":" in self._scoring.metric:
            return f"{self._scoring.metric} is not asked while layers are ranked: they are ranked by noise"
        try:
            self._score(self._reference_set)
        except InputRejected as error:
            return f"{self._scoring.metric} has no value on {self.samples} samples: {error.what}"
        return ""

    def _drop(self, found: OutputSet) -> float | None:
        """None for outputs the metric has no value for."""
        try:
            return self._score(found)
        except InputRejected:
            return None

    def _score(self, found: OutputSet) -> float:
        labels, reset = self._cut(LABELS), self._cut(RESET)
        scoring = self._scoring
        judged = score(found, self._reference_set, scoring.metric, "selection", labels, reset, options=scoring.options)
        return judged.drop

    def _cut(self, file: str) -> Path | None:
        """The same rows of a split's labels or sequence starts."""
        whole = self._scoring.feeds / file
        if not whole.exists():
            return None
        cut = self._scratch / file
        if not cut.exists():
            stored = np.load(whole, mmap_mode="r", allow_pickle=False)
            np.save(cut, stored[[row for row in self.rows if row < len(stored)]])  # too few are refused by `score`
        return cut


def _open(model: ModelProto) -> ort.InferenceSession:
    """A session that takes QuantizeLinear and DequantizeLinear as they stand, on one thread.

    Otherwise ORT would round weights behind them again, a scale a tensor (WeightBiasQuantization), and pick int8 kernels.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    try:
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except ERRORS as error:
        raise_if_out_of_memory(error)
        raise


def _is_numeric(elem_type: int) -> bool:
    return elem_type not in (TensorProto.UNDEFINED, TensorProto.STRING)


def rows_of(available: int, count: int, ordered: bool) -> tuple[int, ...]:
    """Which `count` of the `available` samples are looked at: the first ones where order matters, else spread evenly."""
    if ordered:
        return tuple(range(min(count, available)))
    return tuple(np.linspace(0, available - 1, min(count, available)).round().astype(int).tolist())


def scored_outputs(dtypes: Mapping[str, str], shown: str | None, state: Mapping[str, str]) -> tuple[str, ...]:
    """The outputs whose noise counts, of those in `dtypes`: the one that the metric is `shown`, else all that are no states.

    Of these the float ones; integers, such as the end of an ArgMax, where there are none. States count where there is nothing else.
    """
    if shown is not None and shown in dtypes:
        return (shown,)
    answers = [name for name in dtypes if name not in state] or list(dtypes)
    return tuple([name for name in answers if np.dtype(dtypes[name]).kind == "f"] or answers)


class _Noise:
    """Noise power over signal power of each of the `counted` outputs, summed over samples; what is finite in the reference counts.

    A value that is not finite any more is as wrong as none at all, and so is an output of another shape. Of an output that is not
    float it is the share of values that differ.
    """

    def __init__(self, counted: Sequence[str]) -> None:
        self._counted = counted
        self._noise: dict[str, float] = {}
        self._signal: dict[str, float] = {}

    def add(self, found: dict[str, Array], reference: dict[str, Array]) -> None:
        """A sample's outputs; the reference's have a leading axis of one sample."""
        for name in self._counted:
            stored = reference[name][0]
            if stored.dtype.kind == "f":
                base = np.where(np.isfinite(stored), stored, 0).astype(np.float64)
                signal, noise = float((base * base).sum()), _error(found[name], stored, base)
            else:
                signal, noise = float(stored.size), _differing(found[name], stored)
            self._signal[name] = self._signal.get(name, 0.0) + signal
            self._noise[name] = self._noise.get(name, 0.0) + noise

    def worst(self) -> float:
        """Of the output where it is largest; 0 without outputs."""
        return max((_ratio(noise, self._signal[name]) for name, noise in self._noise.items()), default=0.0)


def _differing(found: Array, stored: Array) -> float:
    """How many values differ; all of them in another shape."""
    return float(np.count_nonzero(found != stored) if found.shape == stored.shape else stored.size)


def _error(found: Array, stored: Array, base: Array) -> float:
    if found.shape != stored.shape:
        return float((base * base).sum())
    error = np.where(np.isfinite(stored), np.where(np.isfinite(found), found, 0).astype(np.float64) - base, 0.0)
    return float((error * error).sum())


def _ratio(noise: float, signal: float) -> float:
    return noise / signal if signal > 0 else float(noise > 0)


class _NpyWriter:
    """An .npy that grows by samples: [samples, *shape], or flat when their shapes differ, as `ekrun` leaves outputs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.dtype = np.dtype(np.float32)
        self._shapes: list[tuple[int, ...]] = []
        self._stream = path.open("wb")
        self._stream.write(bytes(_HEADER_BYTES))

    def add(self, values: Array) -> None:
        """A sample."""
        self.dtype = values.dtype
        self._shapes.append(values.shape)
        self._stream.write(np.ascontiguousarray(values).tobytes())

    def close(self) -> tuple[tuple[int, ...], ...] | None:
        """Complete the file; each sample's shape when they differ."""
        alike = len(set(self._shapes)) <= 1
        shape = (len(self._shapes), *self._shapes[0]) if alike and self._shapes else (self._elements(),)
        header = str({"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": shape})
        room = _HEADER_BYTES - len(np.lib.format.magic(1, 0)) - 2
        self._stream.seek(0)
        self._stream.write(np.lib.format.magic(1, 0) + struct.pack("<H", room) + f"{header:<{room - 1}}\n".encode())
        self._stream.close()
        return None if alike else tuple(self._shapes)

    def _elements(self) -> int:
        return sum(math.prod(shape) for shape in self._shapes)
