"""Predict latency on a target that is not at hand. A roofline summed over layers: a ranking with honest units, not a measurement.

    t(layer) = max(MACs / (peak rate x EFFICIENCY), bytes moved / (bandwidth x EFFICIENCY)) + NODE_OVERHEAD

- The peak rate is that of the target's fastest cluster for the element type, times the threads that fit on it
  (Williams, Waterman, Patterson: "Roofline", CACM 52(4), 2009).
- Where the ISA has no dot product, int8 is never predicted faster than fp32: public reports of int8 losing to fp32 on
  Cortex-A53 and A72 outnumber the wins, and a wrong "int8 is faster" is the costlier mistake.
- Half precision is predicted no faster than fp32 for ONNX Runtime: its CPU kernels cast around most operators.
- The engines are told apart by memory only: the model knows nothing of their kernels.
"""

from dataclasses import dataclass

from edgekit.core.results import Prediction
from edgekit.core.types import Artifact, Candidate, Cluster, LayerCost, ModelInfo, Recipe, Target

# Share of the architectural peak that dense kernels reach: 0.3 to 0.6 for fp32 convolution nets measured on x86. One share is
# taken for every target, so that it moves all predictions alike and no ranking.
EFFICIENCY = 0.4

# Dispatch of one node, from a profile of a chain of small nodes on x86, about 1 us; small cores run it slower, by clock.
NODE_OVERHEAD_CYCLES = 4000

# What a conversion between fp32 and a narrow type costs over the same layer in fp32, when no arithmetic gets faster by it.
CONVERSION_PENALTY = 1.05

DOT_PRODUCT_FEATURES = frozenset({"asimddp", "i8mm", "avx_vnni", "avx512_vnni", "amx_int8"})

_MAC_OPS = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm", "FusedConv", "FusedMatMul", "FusedGemm"})


def has_dot_product(target: Target) -> bool:
    """Whether int8 arithmetic is faster than fp32 by the ISA itself."""
    return bool(DOT_PRODUCT_FEATURES & set(target.isa))


def fastest_cluster(target: Target) -> Cluster:
    """The cluster an inference is pinned to: the highest fp32 rate of one core."""
    return max(target.clusters, key=lambda c: c.fp32_macs_per_cycle * c.max_mhz)


def predict(
    model: ModelInfo, target: Target, candidate: Candidate, artifact: Artifact, host_peak_bytes: int | None
) -> Prediction:
    """Latency by the roofline above; memory is the peak of the same artifact and engine version on this host."""
    recipe = candidate.build.recipe
    machine = _Machine(target, fastest_cluster(target), candidate.run.threads)
    share = artifact.quantized_ops / artifact.quantizable_ops if artifact.quantizable_ops else 0.0
    seconds, reference = 0.0, 0.0
    for layer in model.layers:
        full = machine.seconds(layer, machine.cluster.fp32_macs_per_cycle, 4)
        seconds += _as_built(layer, full, recipe, candidate.run.precision, share, machine)
        reference += full
    overhead = NODE_OVERHEAD_CYCLES / (machine.cluster.max_mhz * 1e6)  # a model without layers still costs a call
    seconds, reference = max(seconds, overhead), max(reference, overhead)
    p50_ms = seconds * 1e3
    rule = f"roofline of {machine.cores} x {machine.cluster.cpu}, efficiency {EFFICIENCY}; memory as on this host"
    return Prediction(p50_ms, seconds / reference, 1e3 / p50_ms, host_peak_bytes, rule)


@dataclass(frozen=True)
class _Machine:
    """The cores an inference gets."""

    target: Target
    cluster: Cluster
    threads: int

    @property
    def cores(self) -> int:
        return min(self.threads, self.cluster.cores)

    def seconds(self, layer: LayerCost, macs_per_cycle: float, element_bytes: int) -> float:
        hertz = self.cluster.max_mhz * 1e6
        compute = layer.macs / (macs_per_cycle * hertz * self.cores * EFFICIENCY)
        moved = (layer.weight_elements + layer.activation_elements) * element_bytes
        return max(compute, moved / (self.target.bandwidth_bytes_per_s * EFFICIENCY)) + NODE_OVERHEAD_CYCLES / hertz


def _as_built(layer: LayerCost, full: float, recipe: Recipe, hint: str, share: float, machine: _Machine) -> float:
    """The layer's time in the recipe's arithmetic, where `full` is its time in fp32 and `share` the part that was quantized."""
    if recipe.precision == "fp16":
        return full * CONVERSION_PENALTY
    if layer.op not in _MAC_OPS:
        return full
    rest = full
    if hint == "bf16":
        rest = machine.seconds(layer, 2 * machine.cluster.fp32_macs_per_cycle, 2)
    if recipe.precision != "int8":
        return rest
    if has_dot_product(machine.target):
        narrow = machine.seconds(layer, machine.cluster.int8_macs_per_cycle, 1)
    else:
        narrow = full * CONVERSION_PENALTY
    return share * narrow + (1 - share) * rest
