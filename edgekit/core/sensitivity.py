"""What each layer of a model costs in accuracy when it is quantized, and in which order layers are given back. Pure.

- A unit is what is quantized or kept as one: an operator of arithmetic, or all operators of one passing type (Add, Sigmoid...),
  which cost little alone and are many; where they cost much, each of them. What only views or clips a result goes with its maker.
- Noise adds up: quantization errors of different layers are taken as independent, so their powers at the output add.
  Nagel et al., "A White Paper on Neural Network Quantization" (2021), section 4.6, and Wu et al., "Integer Quantization for Deep
  Learning Inference" (2020), section 5, rank layers by quantizing one at a time and give back the worst first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

# A unit that computes nothing still costs time: it is weighed as this share of the model's work at least.
LEAST_SHARE = 0.002


@dataclass(frozen=True)
class TensorNoise:
    """A tensor's own quantization: `sqnr_db` is its signal over the error of rounding and clipping it, in dB."""

    name: str
    low: float
    high: float
    sqnr_db: float


@dataclass(frozen=True)
class Unit:
    """What is quantized or kept as one. `share` is its part of the model's multiply-accumulates."""

    name: str
    op: str
    nodes: tuple[str, ...]
    share: float


@dataclass(frozen=True)
class Sensitivity:
    """What one unit costs.

    `alone_noise` is the noise power at the worst output over that output's signal power when only this unit is quantized, of the
    outputs that are scored; of integer outputs, where there are no others, the share of values that differ. `alone_drop` is the
    metric's drop then; `kept_drop` and `kept_noise` are when all but this unit are quantized. None where not measured.
    `activations` and `weight_sqnr_db` are of its own tensors.
    """

    unit: Unit
    alone_noise: float
    alone_drop: float | None = None
    kept_drop: float | None = None
    kept_noise: float | None = None
    activations: tuple[TensorNoise, ...] = ()
    weight_sqnr_db: float | None = None


@dataclass(frozen=True)
class Attribution:
    """Which layers cost the accuracy of one fully quantized recipe, the costliest first.

    `full_noise` and `full_drop` are of everything quantized, by `metric` on `samples` samples of the selection split.
    `ranges` names the method that gave activations their ranges, `range_noise` the full noise by each method that was tried.
    """

    recipe: str
    metric: str
    samples: int
    ranges: str
    full_noise: float
    full_drop: float | None
    layers: tuple[Sensitivity, ...]
    range_noise: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def ranked(layers: Sequence[Sensitivity]) -> tuple[Sensitivity, ...]:
    """The costliest first: by noise at the output, then by name for a settled order."""
    return tuple(sorted(layers, key=lambda s: (-s.alone_noise, s.unit.name)))


def give_back_order(layers: Sequence[Sensitivity]) -> tuple[Sensitivity, ...]:
    """The order in which units return to full precision: most noise removed for the work that it costs first.

    The greedy order of a knapsack: noise over share of work.
    """
    return tuple(sorted(layers, key=lambda s: (-s.alone_noise / max(s.unit.share, LEAST_SHARE), s.unit.name)))


def noise_left(order: Sequence[Sensitivity], kept: int) -> float:
    """The predicted noise when the first `kept` units of `order` stay in full precision."""
    return sum(s.alone_noise for s in order[kept:])
