"""The records of calibration: what was made ready to be quantized, and what was seen of its activations."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Flattened:
    """A model made ready to be quantized: `file` in the folder that was given, and what is to be known of it.

    `tensors` are the activations whose ranges quantizing it may ask for; `peak_bytes` is an estimate from above of the memory that
    collecting them takes, whatever the number of samples.
    """

    file: str
    notes: tuple[str, ...]
    tensors: tuple[str, ...]
    peak_bytes: int


@dataclass(frozen=True)
class NonFinite:
    """A tensor that held `count` values that are NaN or infinite, the first of them in sample `sample`."""

    tensor: str
    sample: int
    count: int


@dataclass(frozen=True)
class Collected:
    """A finished collection of `tensors`. `left_out` says by name why a wanted tensor is not among them; `runs` counts the
    inferences of this call, less than samples * groups when it went on from a checkpoint."""

    samples: int
    tensors: tuple[str, ...]
    left_out: Mapping[str, str]
    nonfinite: tuple[NonFinite, ...]
    groups: int
    runs: int
