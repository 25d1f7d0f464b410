"""Golden samples: the inputs a bundle travels with, and what each output of the model is held to. Runs in the sandbox only.

- samples are spread over their split, or, where state goes from sample to sample, are its first ones with their sequence starts;
- an output's tolerance is the greatest of three figures:
  1. RANGE_SHARE of the output's range over the golden samples: other instruction sets sum in another order, and integer kernels may
     round one step the other way;
  2. TWICE the artifact's own greatest difference from the fp32 reference on these samples: what was judged good enough differs by
     so much from what it stands for, so a device that adds no more than as much again is not where the model goes wrong;
  3. ROUNDING of the output's greatest magnitude, floats only: what float32 cannot tell apart after some sums, where an output
     hardly varies over the samples;
- a decision is the greatest value along the last axis. It counts only where its margin is above twice the tolerance: every element
  may move by the tolerance, so a smaller margin could turn without any fault;
- answers that are not finite can be held to nothing: they are refused.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgekit.core.accuracy import OutputSet
from edgekit.core.deployment import ARGMAX, GoldenOutput
from edgekit.errors import InputRejected

RANGE_SHARE: Final = 1e-3
TWICE: Final = 2.0
# fp32 on another instruction set differs by some 1e-6 of a value (core/accuracy.py); ten times that.
ROUNDING: Final = 1e-5

FOLDER: Final = "golden"
ADVICE: Final = "name other samples with --data, or carry none with --golden none"

# An output with more decisions is held to its tolerance alone: each is a word of deployment.json.
MOST_DECISIONS: Final = 16384

Array = NDArray[Any]


@dataclass(frozen=True)
class Taken:
    """Golden inputs on disk: by name, and the sequence starts of those with state."""

    samples: int
    inputs: Mapping[str, Path]
    reset: Path | None


def take(inputs: dict[str, Path], reset: Path | None, state: bool, samples: int, out: Path) -> Taken:
    """Copy at most `samples` of the stacked `inputs`, [N, *shape] each, into `out` as `<i>.npy` and `reset.npy`."""
    out.mkdir(parents=True)
    total = min(len(_mapped(path)) for path in inputs.values())
    chosen = np.arange(min(samples, total)) if state or samples >= total else np.arange(samples) * total // samples
    taken = {name: out / f"{i}.npy" for i, name in enumerate(inputs)}
    for name, path in inputs.items():
        np.save(taken[name], np.ascontiguousarray(_mapped(path)[chosen]))
    starts = out / "reset.npy" if state and reset is not None else None
    if starts is not None and reset is not None:
        np.save(starts, np.ascontiguousarray(_mapped(reset)[chosen]))
    return Taken(len(chosen), taken, starts)


def expect(
    own: OutputSet, reference: OutputSet | None, decides: bool, scored: str | None, out: Path
) -> tuple[GoldenOutput, ...]:
    """Copy the artifact's answers into `out` as `expected-<k>.npy` and say what each output is held to.

    `reference` holds the fp32 model's answers to the same samples, None when the artifact is that model. With `decides` the first
    float output that has classes along its last axis, or the one called `scored`, is also held to its decisions. Raises
    InputRejected for answers that are not finite or that do not fit the reference's.
    """
    values = [_values(own, k) for k in range(len(own.names))]
    others = values if reference is None else [_values(reference, k) for k in range(len(own.names))]
    judge = _deciding(own, values, scored) if decides else None
    found = []
    for k, name in enumerate(own.names):
        place = out / f"expected-{k}.npy"
        shutil.copyfile(own.files[k], place)
        tolerance = _tolerance(name, values[k], others[k], own.dtypes[k])
        file = f"{FOLDER}/{place.name}"
        if k == judge:
            found.append(GoldenOutput(k, file, tolerance, ARGMAX, -1, _decided(values[k], tolerance)))
        else:
            found.append(GoldenOutput(k, file, tolerance))
    return tuple(found)


def stacked_as_one(one: OutputSet, stacked: OutputSet, reference: OutputSet | None) -> str:
    """How the answers of a batch differ from those of its samples alone, or an empty string.

    `one` and `reference` have an answer a sample, [N, 1, *shape]; `stacked` has one a batch, [N / B, B, *shape], of as many of the
    same samples. They are held to the tolerances of golden samples.
    """
    for k, name in enumerate(one.names):
        own, batch = _values(one, k), _values(stacked, k)
        other = own if reference is None else _values(reference, k)
        if one.shapes[k] is not None or stacked.shapes[k] is not None:
            return f"output '{name}' differs in shape from sample to sample"
        if own.ndim < 2 or own.shape[1] != 1 or batch.shape[2:] != own.shape[2:] or batch.size > own.size:
            return f"output '{name}' is {list(batch.shape[1:])} for a batch and {list(own.shape[1:])} for one sample"
        flat = batch.reshape(-1, 1, *batch.shape[2:])
        own, other = own[: len(flat)], other[: len(flat)]
        tolerance = _tolerance(name, own, other, one.dtypes[k])
        furthest = float(np.abs(flat - own).max(initial=0.0))
        if not furthest <= tolerance:
            return f"output '{name}' is off by {furthest:.3g}, more than {tolerance:.3g}"
    return ""


def _tolerance(name: str, values: Array, reference: Array, dtype: str) -> float:
    """The greatest allowed difference of any element. Raises InputRejected as `expect` does."""
    if not np.isfinite(values).all():
        raise InputRejected("holds numbers that are not finite in the golden answers", where=name, next_step=ADVICE)
    if values.shape != reference.shape:
        raise InputRejected("has another shape in the fp32 reference's answers", where=name, next_step=ADVICE)
    if not values.size:
        return 0.0
    off = np.abs(values - reference)
    furthest = float(np.max(off, where=np.isfinite(off), initial=0.0))
    rounding = ROUNDING * float(np.abs(values).max()) if "float" in dtype else 0.0
    return max(RANGE_SHARE * float(values.max() - values.min()), TWICE * furthest, rounding)


def _deciding(own: OutputSet, values: list[Array], scored: str | None) -> int | None:
    """The output whose greatest scores are the answer, as the metrics of classes have it; None when there is none."""
    for k, name in enumerate(own.names):
        scores = "float" in own.dtypes[k] and own.shapes[k] is None and values[k].ndim > 1 and values[k].shape[-1] > 1
        if scores and scored in (None, name):
            return k if values[k].size // values[k].shape[-1] <= MOST_DECISIONS else None
    return None


def _decided(values: Array, tolerance: float) -> tuple[bool, ...]:
    """Whether each decision's margin, its greatest value less the next, is above twice the tolerance."""
    highest = np.partition(values, values.shape[-1] - 2, axis=-1)[..., -2:]
    return tuple(bool(clear) for clear in (highest[..., 1] - highest[..., 0] > 2 * tolerance).ravel())


def _values(outputs: OutputSet, k: int) -> Array:
    """An output as float64; bfloat16 travels as uint16, the upper half of a float32."""
    stored = np.array(_mapped(outputs.files[k]))
    if outputs.dtypes[k] == "bfloat16":
        stored = (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(np.float64)


def _mapped(path: Path) -> Array:
    array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    return array
