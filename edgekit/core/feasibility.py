"""What no configuration can meet, by arithmetic, before anything is built. Pure.

    seconds of one inference >= max(convolution MACs / peak + matrix MACs / peak, (weight bytes - caches) / bandwidth)
    inferences a second      <= all cores' peak / MACs
    memory, storage          >= weights x bits of the narrowest precision

- A bound is strict: the best instructions at the highest clock with nothing lost, on all the cores that may be used. What is not
  known bounds nothing (`core.peaks`), so that nothing is refused that could be met. Measuring decides the rest.
- Only convolutions and matrix products count: recurrent layers may be given shorter sequences, an Einsum may take fewer steps. The
  time and memory of a model with an If or a Loop have no bound: which part of it runs is not known.
- Weights are those of the layers that count; what several layers share counts once.
- The model is taken at its word: where it computes the same thing twice, so does the bound.
- The precisions are those of the candidates that were planned; a model that is narrow already may run in any.
"""

import decimal
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from edgekit.core.peaks import bandwidth, cache_bytes, peak, ram_bytes, storage_bytes
from edgekit.core.plan import BF16_FEATURES
from edgekit.core.types import Candidate, ModelInfo, Requirements, Target
from edgekit.errors import RequirementsNotMet

CONVOLUTIONS = frozenset({"Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "FusedConv", "NhwcFusedConv"})
MATRIX_PRODUCTS = frozenset(
    {"MatMul", "Gemm", "MatMulInteger", "QLinearMatMul", "FusedMatMul", "FusedGemm", "QGemm", "MatMulNBits"}
)
UNKNOWN_PATHS = frozenset({"If", "Loop", "Scan"})

# A recipe's precision -> the arithmetic it may run in, and the bits its narrowest weights take. Engines quantize activations for
# int8 and int4 weights as they run.
_ARITHMETIC = {"fp16": "fp16", "bf16": "bf16", "int8": "int8", "int8-weights": "int8", "int4-weights": "int8"}
_WEIGHT_BITS = {"fp16": 16, "fp16-weights": 16, "bf16": 16, "int8": 8, "int8-weights": 8, "int4-weights": 4}


@dataclass(frozen=True)
class Bound:
    """What is at least needed (`least`) of what is allowed (`limit`), in `unit`, and the sum it comes from.

    Of a throughput `limit` is what is asked for and `least` the most that can be reached.
    """

    requirement: str
    limit: float
    least: float
    unit: str
    sum: str

    @property
    def holds(self) -> bool:
        """Whether arithmetic leaves the requirement open."""
        return self.least >= self.limit if self.requirement == "throughput" else self.least <= self.limit

    @property
    def text(self) -> str:
        """The limit, the sum, and what comes of it."""
        most = self.requirement == "throughput"
        edge = _rounded(self.least, up=not most)
        return f"{self.requirement} {self.limit:.4g} {self.unit}: {self.sum} = {edge} {self.unit} at {'most' if most else 'least'}"

    @property
    def relaxed(self) -> str:
        """The requirement as far relaxed as it has to be."""
        most = self.requirement == "throughput"
        return f"{self.requirement} to {_rounded(self.least, up=not most)} {self.unit} or {'less' if most else 'more'}"


def bounds(
    model: ModelInfo,
    target: Target,
    requirements: Requirements,
    candidates: Sequence[Candidate],
    measured_ram_bytes: int | None = None,
) -> tuple[Bound, ...]:
    """A bound for each stated requirement that has one; `measured_ram_bytes` is the memory of a machine that is the target.

    Such a machine may be a variant with more of it than the target's file says: then its memory's bandwidth is not known either.
    """
    case = _Case(model, target, requirements, candidates, measured_ram_bytes)
    return (*case.of_time(), *case.of_throughput(), *case.of_memory(), *case.of_storage())


def require_possible(
    model: ModelInfo,
    target: Target,
    requirements: Requirements,
    candidates: Sequence[Candidate],
    measured_ram_bytes: int | None = None,
) -> None:
    """Raise RequirementsNotMet, with the sums, when arithmetic alone shows that nothing can meet the requirements."""
    broken = [b for b in bounds(model, target, requirements, candidates, measured_ram_bytes) if not b.holds]
    if broken:
        raise RequirementsNotMet(
            "no configuration of this model can meet " + "; nor ".join(b.text for b in broken),
            where=target.name,
            next_step="relax " + " and ".join(b.relaxed for b in broken),
        )


class _Case:
    """One question, with what all its bounds share."""

    def __init__(
        self, model: ModelInfo, target: Target, asked: Requirements, candidates: Sequence[Candidate], ram: int | None
    ) -> None:
        self.model, self.target, self.asked, self.measured_ram = model, target, asked, ram
        self.kinds = _kinds(model, target, asked, candidates)
        self.settled = not any(_plain(op) in UNKNOWN_PATHS for op in model.op_counts)
        self.conv_macs = sum(layer.macs for layer in model.layers if _plain(layer.op) in CONVOLUTIONS)
        self.matrix_macs = sum(layer.macs for layer in model.layers if _plain(layer.op) in MATRIX_PRODUCTS)
        self.weight_bytes, self.weight_text = _weights(model, candidates)

    def of_time(self) -> Iterator[Bound]:
        """Of one inference: no request, first or later, is faster."""
        if not self.settled:
            return
        sums = [found for found in (self._compute_ms(), self._traffic_ms()) if found is not None]
        if not sums:
            return
        least, how = max(sums)
        if self.asked.latency is not None:
            yield Bound("latency", self.asked.latency.limit_ms, least, "ms", how)
        if self.asked.max_cold_start_ms is not None:
            yield Bound("cold start", self.asked.max_cold_start_ms, least, "ms", how)

    def of_throughput(self) -> Iterator[Bound]:
        """Of all cores together, however many requests they work on; weights may be read once for all of them."""
        found = self._compute_ms() if self.settled else None
        if found is not None and self.asked.needed_ips is not None:
            yield Bound("throughput", self.asked.needed_ips, 1e3 / found[0], "a second", f"1 / ({found[1]})")

    def of_memory(self) -> Iterator[Bound]:
        """Weights that every inference reads are in memory, at their narrowest."""
        there = ram_bytes(self.target) if self.measured_ram is None else self.measured_ram
        limit = min((m for m in (self.asked.max_memory_bytes, there) if m is not None), default=None)
        if self.settled and limit is not None:
            yield _of_bytes("memory", limit, self.weight_bytes, self.weight_text)

    def of_storage(self) -> Iterator[Bound]:
        """The weights are in the artifact, at their narrowest."""
        limit = min((m for m in (self.asked.max_size_bytes, storage_bytes(self.target)) if m is not None), default=None)
        if limit is not None:
            yield _of_bytes("storage", limit, self.weight_bytes, self.weight_text)

    def _compute_ms(self) -> tuple[float, str] | None:
        """The time of all products on all cores that may be used."""
        seconds, parts = 0.0, []
        for macs, conv in ((self.conv_macs, True), (self.matrix_macs, False)):
            if macs:
                most = peak(self.target, self.kinds, conv, self.asked.max_cores, self.measured_ram is not None)
                seconds += macs / most.macs_per_s
                what = "convolutions" if conv else "matrix products"
                parts.append(f"{_number(macs)} MACs of {what} / ({most.text})")
        return (seconds * 1e3, " + ".join(parts)) if parts else None

    def _traffic_ms(self) -> tuple[float, str] | None:
        """The time to read the weights that no cache can hold from one inference to the next."""
        speed, held = bandwidth(self.target), cache_bytes(self.target)
        if speed is None or held is None or self.measured_ram is not None or self.weight_bytes <= held:
            return None
        text = f"({self.weight_text} - {held / 2**20:.3g} MiB of caches) / {speed / 1e9:.3g} GB/s"
        return (self.weight_bytes - held) / speed * 1e3, text


def _of_bytes(requirement: str, limit: float, least: float, how: str) -> Bound:
    """A bound of bytes, in the unit that suits what is needed."""
    unit, size = next((u, s) for u, s in (("MiB", 2**20), ("KiB", 2**10), ("B", 1)) if least >= s or s == 1)
    return Bound(requirement, limit / size, least / size, unit, how)


def _kinds(model: ModelInfo, target: Target, asked: Requirements, candidates: Sequence[Candidate]) -> Collection[str]:
    """Every arithmetic that a candidate may run in. bf16 also comes by an engine's option, where the ISA has it."""
    if _is_narrow(model):
        return ("fp32", "fp16", "bf16", "int8")
    kinds = {_ARITHMETIC.get(c.build.recipe.precision, "fp32") for c in candidates}
    kinds |= {"bf16" for c in candidates if c.run.precision == "bf16"}
    if BF16_FEATURES & set(target.isa) and "bf16" not in asked.forbid:
        kinds.add("bf16")
    return sorted({"fp32", *kinds})


def _is_narrow(model: ModelInfo) -> bool:
    """Whether something in it is stored in less than 32 bits already."""
    return model.weight_bytes < 4 * model.params


def _weights(model: ModelInfo, candidates: Sequence[Candidate]) -> tuple[float, str]:
    """Bytes of the weights that convolutions and matrix products read, at the fewest bits a candidate stores, and the sum.

    Elements are counted by layer; what layers share is not more than the model holds beside the weights of its other layers.
    """
    counted = sum(layer.weight_elements for layer in model.layers if _counts(layer.op))
    others = sum(layer.weight_elements for layer in model.layers if not _counts(layer.op))
    elements = min(counted, max(model.params - others, 0))
    planned = min((_WEIGHT_BITS.get(c.build.recipe.precision, 32) for c in candidates), default=32)
    bits = min(planned, 8 * model.weight_bytes / model.params) if model.params else planned
    return elements * bits / 8, f"{_number(elements)} weights x {bits:.3g} bits"


def _counts(op: str) -> bool:
    return _plain(op) in CONVOLUTIONS or _plain(op) in MATRIX_PRODUCTS


def _plain(op: str) -> str:
    """An operator's name without its domain."""
    return op.rpartition(".")[2]


def _number(count: int) -> str:
    return f"{count / 1e6:.4g} M" if count >= 100_000 else str(count)


def _rounded(value: float, *, up: bool) -> str:
    """Four digits, to the side on which what is asked for by it is not refused again."""
    context = decimal.Context(prec=4, rounding=decimal.ROUND_CEILING if up else decimal.ROUND_FLOOR)
    return f"{context.create_decimal_from_float(value):f}"
