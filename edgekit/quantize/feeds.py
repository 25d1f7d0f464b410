"""Calibration feeds for a quantizer that runs a model by itself, state carried as in inference. Runs in the sandbox only.

- what a state input holds after the first sample is what the float model made of the samples before, found here in ONNX Runtime:
  no quantizer feeds outputs back, and ranges found on initial values alone clip all that comes after;
- a quantizer goes over the samples several times: every iteration begins anew, and none is held.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from edgekit.data.arrays import Array
from edgekit.quantize.activations import PartialSession
from edgekit.quantize.samples import Samples


class Feeds(Iterable[dict[str, Array]]):
    """Up to `most` of the `samples` by input name, `model` being the float one: spread over all, or with state the first ones.

    Class folders come class by class, so that the first ones would be of some classes only; state needs what came before.
    Raises InputRejected when the model cannot be run on a sample, ResourceLimit.
    """

    def __init__(self, model: Path, samples: Samples, most: int) -> None:
        self._samples = samples
        self._count = min(most, len(samples))
        self._session = PartialSession(model, tuple(samples.state), threads=1) if samples.state else None

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[dict[str, Array]]:
        if self._session is None:
            rows = np.linspace(0, len(self._samples) - 1, self._count).astype(int)
            return (self._samples.feed(int(row), {}) for row in rows)
        return self._carried(self._session)

    def _carried(self, session: PartialSession) -> Iterator[dict[str, Array]]:
        carried: dict[str, Array] = {}
        for index in range(self._count):
            feed = self._samples.feed(index, carried)
            yield feed
            carried = dict(zip(self._samples.state.values(), session.run(feed, index), strict=True))
