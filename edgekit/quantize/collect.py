"""Histograms of a model's activations over calibration data: streamed, in groups of bounded bytes. Runs in the sandbox only.

- One session a group, on a pruned copy of the model whose outputs are the group's tensors, over all samples; then the next group.
  Memory is one group's activations, whatever the number of samples and of tensors.
- State is carried from an output to its input within a sequence; every group carries its own, the same.
- What is known so far is saved every CHECKPOINT_S in one atomic step, with a digest of all that decides the result. A collection
  that finds its own checkpoint goes on from there and ends with the same bytes; any other checkpoint is ignored.
- The result depends on model, data, threads and ONNX Runtime, not on the groups: every budget gives the same file.
"""

import glob
import hashlib
import json
import os
import time
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime as ort

from edgekit.core.calibration import Collected, NonFinite
from edgekit.data.arrays import Array
from edgekit.errors import InputRejected
from edgekit.models.external import DATA_FILE
from edgekit.quantize.activations import PartialSession, measure
from edgekit.quantize.groups import (
    DEFAULT_GROUP_BYTES,
    declared,
    fed_inputs,
    grouped,
    in_order,
    left_out,
    needed_nodes,
    outline,
)
from edgekit.quantize.histogram import EMPTY, Histogram, add, from_arrays, to_arrays
from edgekit.quantize.progress import report
from edgekit.quantize.samples import Samples
from edgekit.store import disk_errors, sha256_file

CHECKPOINT_S = 30.0
PROGRESS_S = 1.0


def collect(
    model: Path,
    feeds: Path,
    tensors: tuple[str, ...],
    out: Path,
    state: dict[str, str] | None = None,
    budget_bytes: int = DEFAULT_GROUP_BYTES,
    threads: int = 2,
    checkpoint: Path | None = None,
    checkpoint_s: float = CHECKPOINT_S,
    progress: Path | None = None,
) -> Collected:
    """Write the histograms of `tensors` over all samples in `feeds` to `out`, which `load` reads.

    `state` maps an output to the input it is fed back to. `budget_bytes` bounds the activations fetched in one run. `checkpoint`
    is the file to go on from, and to save to every `checkpoint_s` seconds; it is removed at the end. To `progress` a line of JSON
    is appended about every second: {"done", "total"} in inferences, and "eta_s".

    Raises InputRejected when the feeds do not fit the model, a sample cannot be run, or no tensor is left; ResourceLimit; DiskFull.
    """
    samples = Samples(feeds, fed_inputs(outline(model).graph), state or {})
    plan = make_plan(model, tensors, samples, budget_bytes, threads)
    key = _key(plan, samples, threads) if checkpoint else ""
    work = _resumed(checkpoint, key, samples) if checkpoint else None
    work = work or _Work(dict.fromkeys(plan.tensors, EMPTY))
    clock = _Clock(plan, len(samples), progress, work)
    saved = time.monotonic()
    for _ in _steps(plan, samples, work, threads):
        clock.tick(work)
        if checkpoint and time.monotonic() - saved >= checkpoint_s:
            _write(checkpoint, work.to_arrays(key, samples))
            saved = time.monotonic()
    clock.report(work)
    _write(out, to_arrays(work.histograms))
    if checkpoint:
        checkpoint.unlink(missing_ok=True)
        _sweep(checkpoint)
    return Collected(len(samples), plan.tensors, plan.left_out, work.nonfinite(), len(plan.parts), clock.runs)


def load(path: Path) -> dict[str, Histogram]:
    """The histograms by tensor name that `collect` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        return from_arrays(arrays)


# ---------------------------------------------------------------------------------------------------------------- plan


@dataclass(frozen=True)
class Part:
    """One session's tensors; `fed` are inputs, which need none. `share` is its part of the whole work, for the ETA."""

    fetched: tuple[str, ...]
    fed: tuple[str, ...]
    share: float


@dataclass(frozen=True)
class Plan:
    """Which tensors of `model` are collected, in which parts, and why others are not."""

    model: Path
    tensors: tuple[str, ...]
    left_out: Mapping[str, str]
    parts: tuple[Part, ...]


def make_plan(model: Path, tensors: tuple[str, ...], samples: Samples, budget_bytes: int, threads: int) -> Plan:
    """Cut `tensors` into groups by the shapes the model records, else by those of the first sample. Raises InputRejected."""
    loaded = outline(model)
    unmade = sorted(set(samples.state) - {name for node in loaded.graph.node for name in node.output})
    if unmade:
        raise InputRejected(f"has no output '{unmade[0]}' to carry state from", where=str(model))
    reasons = left_out(loaded, tensors)
    ordered = in_order(loaded.graph, set(tensors) - set(reasons))
    known = {name: size.bytes for name, size in declared(loaded).items() if size.elem_type and size.bytes is not None}
    unknown = [name for name in ordered if name not in known]
    measured, refused = measure(model, unknown, samples, threads) if unknown else ({}, {})
    reasons |= refused
    fed = tuple(name for name in ordered if name in samples.inputs)
    sizes = {n: measured.get(n, known.get(n, 0)) for n in ordered if n not in samples.inputs and n not in refused}
    if not sizes and not fed:
        first = "".join(f": '{name}' {reason}" for name, reason in list(reasons.items())[:1])
        raise InputRejected(f"no tensor can be calibrated{first}", where=str(model))
    names = grouped(sizes, budget_bytes) or ((),)
    nodes = [len(needed_nodes(loaded.graph, (*group, *samples.state))) for group in names]
    shares = _shares(nodes, [sum(sizes[name] for name in group) for group in names])
    parts = tuple(Part(group, () if i else fed, shares[i]) for i, group in enumerate(names))
    return Plan(model, (*fed, *sizes), reasons, parts)


def _shares(nodes: list[int], fetched: list[int]) -> list[float]:
    """Each part's share of the work: half by the nodes it runs, half by the bytes it fetches."""
    return [(n / max(1, sum(nodes)) + size / max(1, sum(fetched))) / 2 for n, size in zip(nodes, fetched, strict=True)]


# ---------------------------------------------------------------------------------------------------------------- work


@dataclass
class _Work:
    """How far a collection has come: what was counted, the next part and sample, and the state carried to it."""

    histograms: dict[str, Histogram]
    part: int = 0
    sample: int = 0
    carried: dict[str, Array] = field(default_factory=dict)
    first_bad: dict[str, int] = field(default_factory=dict)

    def count(self, name: str, values: Array) -> None:
        """Add the tensor's values in the current sample."""
        before = self.histograms[name]
        self.histograms[name] = after = add(before, np.asarray(values))
        if after.nonfinite > before.nonfinite:
            self.first_bad.setdefault(name, self.sample)

    def nonfinite(self) -> tuple[NonFinite, ...]:
        """Tensors with values that are not finite."""
        return tuple(NonFinite(n, sample, self.histograms[n].nonfinite) for n, sample in self.first_bad.items())

    def to_arrays(self, key: str, samples: Samples) -> dict[str, Array]:
        """What a checkpoint holds."""
        place = {"part": self.part, "sample": self.sample, "first_bad": self.first_bad, "key": key}
        carried = {f"carried.{i}": self.carried[n] for i, n in enumerate(samples.state.values()) if n in self.carried}
        packed = np.frombuffer(msgspec.json.encode(place), np.uint8)
        return {**to_arrays(self.histograms), "place": packed, **carried}


def _steps(plan: Plan, samples: Samples, work: _Work, threads: int) -> Iterator[None]:
    """Do what is left, yielding after every inference, when `work` is whole."""
    for part in plan.parts[work.part :]:
        yield from _part_steps(plan.model, part, samples, work, threads)
        work.part, work.sample, work.carried = work.part + 1, 0, {}


def _part_steps(model: Path, part: Part, samples: Samples, work: _Work, threads: int) -> Iterator[None]:
    outputs = tuple(dict.fromkeys((*part.fetched, *samples.state)))
    session = PartialSession(model, outputs, threads) if outputs else None
    for index in range(work.sample, len(samples)):
        feed = samples.feed(index, work.carried)
        fetched = dict(zip(outputs, session.run(feed, index), strict=True)) if session else {}
        for name in part.fed:
            work.count(name, feed[name])
        for name in part.fetched:
            work.count(name, fetched[name])
        work.carried = {taker: fetched[giver] for giver, taker in samples.state.items()}
        work.sample = index + 1
        del feed, fetched  # before the next run, or two samples' activations are held
        yield


class _Clock:
    """Counts inferences and appends progress to a file, at most every PROGRESS_S."""

    def __init__(self, plan: Plan, samples: int, path: Path | None, work: _Work) -> None:
        self.runs = 0
        self._plan = plan
        self._samples = samples
        self._path = path
        self._before = self._fraction(work)
        self._started = self._reported = time.monotonic()

    def _fraction(self, work: _Work) -> float:
        parts = self._plan.parts
        begun = parts[work.part].share * work.sample / self._samples if work.part < len(parts) else 0.0
        return sum(part.share for part in parts[: work.part]) + begun

    def tick(self, work: _Work) -> None:
        """After an inference."""
        self.runs += 1
        if time.monotonic() - self._reported >= PROGRESS_S:
            self.report(work)

    def report(self, work: _Work) -> None:
        """Append a line; the rest is taken to be as fast as what this call has done."""
        self._reported = time.monotonic()
        fraction = self._fraction(work)
        spent = self._reported - self._started
        rest = spent * (1 - fraction) / (fraction - self._before) if fraction > self._before else 0.0
        done = work.part * self._samples + work.sample
        report(self._path, done, len(self._plan.parts) * self._samples, rest)


# ---------------------------------------------------------------------------------------------------------- checkpoint


def _key(plan: Plan, samples: Samples, threads: int) -> str:
    """A digest of all that decides the result, and of the parts, which a place in the work refers to."""
    data = plan.model.with_name(DATA_FILE)
    files = [plan.model, *samples.files, *([data] if data.exists() else [])]
    parts = [[part.fetched, part.fed] for part in plan.parts]
    decides = [[sha256_file(path) for path in files], samples.state, parts, threads, ort.__version__]
    return hashlib.sha256(json.dumps(decides).encode()).hexdigest()


def _resumed(checkpoint: Path, key: str, samples: Samples) -> _Work | None:
    """The work a checkpoint holds; None when there is none, it is another collection's, or it cannot be read."""
    try:
        with checkpoint.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            place = msgspec.json.decode(arrays["place"].tobytes())
            if place["key"] != key:
                return None
            names = list(samples.state.values())
            carried = {name: arrays[f"carried.{i}"] for i, name in enumerate(names) if f"carried.{i}" in arrays}
            return _Work(from_arrays(arrays), place["part"], place["sample"], carried, place["first_bad"])
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, msgspec.DecodeError):
        return None


def _write(path: Path, arrays: Mapping[str, Array]) -> None:
    """An .npz, complete or absent; the same arrays make the same bytes."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with disk_errors(path), partial.open("wb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]  # no array is called allow_pickle
            stream.flush()
            os.fsync(stream.fileno())
            partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _sweep(path: Path) -> None:
    """Remove what killed processes were writing to take the place of `path`."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        if not _runs(left.name.split(".")[-2]):
            left.unlink(missing_ok=True)


def _runs(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        pass
    return True
