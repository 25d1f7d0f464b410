"""Random inputs for a run without data: they compare implementations of one model and say nothing about its task."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edgekit.core.dataset import DataSetInfo, SplitInfo
from edgekit.core.types import TensorSpec
from edgekit.data.arrays import Array
from edgekit.data.feed import BLOCK_BYTES, storage_dtype, to_bfloat16, write_npy
from edgekit.data.parts import fixed_shape
from edgekit.data.read import describe, digest

# Small enough to be a valid index into any table of two rows or more.
_INTEGERS_BELOW = 2


def synthetic_data(inputs: list[TensorSpec], out: Path, samples: int, seed: int, integer: int = 0) -> DataSetInfo:
    """Write `samples` random samples as the split "selection" and nothing else: random data is never calibrated on.

    Floats are standard normal, bools and integers 0 or 1; all integers are `integer` where the model needs one beyond that.
    Raises InputRejected for an input that can't be fed.
    """
    folder = out / "selection"
    folder.mkdir(parents=True)
    files = {
        f"{i}.npy": _write(folder / f"{i}.npy", spec, samples, (seed, i), integer) for i, spec in enumerate(inputs)
    }
    notice = "no data given: outputs are compared on synthetic inputs, and nothing is calibrated on them"
    split = SplitInfo(samples, digest(files))
    return describe("synthetic", "cosine", False, {"selection": split}, {}, inputs, [notice], synthetic=True)


def _write(path: Path, spec: TensorSpec, samples: int, seed: tuple[int, int], integer: int) -> str:
    shape = fixed_shape(spec)
    return write_npy(path, storage_dtype(spec), (samples, *shape), _blocks(spec, shape, samples, seed, integer))


def _blocks(
    spec: TensorSpec, shape: tuple[int, ...], samples: int, seed: tuple[int, int], integer: int
) -> Iterator[Array]:
    rng = np.random.default_rng(seed)
    step = max(1, BLOCK_BYTES // max(1, 8 * int(np.prod(shape))))
    for start in range(0, samples, step):
        size = (min(step, samples - start), *shape)
        if spec.dtype == "bfloat16":
            yield to_bfloat16(rng.standard_normal(size))
        elif "float" in spec.dtype:
            yield rng.standard_normal(size)
        elif integer < _INTEGERS_BELOW or spec.dtype == "bool":
            yield rng.integers(0, _INTEGERS_BELOW, size)
        else:
            yield np.full(size, integer)
