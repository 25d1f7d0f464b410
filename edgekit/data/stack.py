"""Samples in batches: the same numbers, B samples to a request. Runs in the sandbox only."""

import shutil
from pathlib import Path

import numpy as np


def stack(folder: Path, out: Path, inputs: int, batch: int) -> int:
    """Lay the feeds of `folder`, `<i>.npy` of [N, 1, *shape] each, out in `out` as [N // batch, batch, *shape]; returns N // batch.

    Samples that fill no batch are left out. Raises ValueError for feeds whose samples are not one of a batch.
    """
    out.mkdir(parents=True, exist_ok=True)
    requests = 0
    for i in range(inputs):
        stored = np.load(folder / f"{i}.npy", mmap_mode="r", allow_pickle=False)
        if stored.ndim < 2 or stored.shape[1] != 1:
            raise ValueError(f"input {i} is {list(stored.shape[1:])}, not a batch of one")
        requests = len(stored) // batch
        whole = stored[: requests * batch].reshape(requests, batch, *stored.shape[2:])
        np.save(out / f"{i}.npy", whole)
    for labels in folder.glob("labels.npy"):
        shutil.copyfile(labels, out / labels.name)
    return requests
