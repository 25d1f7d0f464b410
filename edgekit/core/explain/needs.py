"""The needs of a run with their places in run.json, and the least limit that would admit a candidate. Pure.

- Whether a need is met is said by `core.needs` alone.
- A loosened limit is one that a user would type: three digits, rounded so that it is met.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from edgekit.core import needs as core
from edgekit.core.accuracy import is_equivalent
from edgekit.core.explain.evidence import Evidence, Reading, Rule, Unit, byte_unit, pointer, written
from edgekit.core.explain.readings import Readings
from edgekit.core.needs import Kind, ruling
from edgekit.core.types import LatencyBudget, Requirements

_UNITS: Mapping[Kind, Unit] = {
    Kind.DROP: Unit.METRIC,
    Kind.LATENCY: Unit.MS,
    Kind.THROUGHPUT: Unit.PER_SECOND,
    Kind.COLD_START: Unit.MS,
    Kind.MEMORY: Unit.BYTES,
    Kind.SIZE: Unit.BYTES,
}

# Where run.json holds each limit; a throughput may also be called for by what comes.
_KEYS: Mapping[Kind, tuple[str, ...]] = {
    Kind.DROP: ("max_drop",),
    Kind.LATENCY: ("latency", "limit_ms"),
    Kind.THROUGHPUT: ("min_throughput_ips",),
    Kind.COLD_START: ("max_cold_start_ms",),
    Kind.MEMORY: ("max_memory_bytes",),
    Kind.SIZE: ("max_size_bytes",),
}


@dataclass(frozen=True)
class Need(core.Need):
    """One stated requirement, and where under `requirements` run.json holds it."""

    keys: tuple[str, ...] = ()

    @property
    def unit(self) -> Unit:
        return _UNITS[self.kind]

    @property
    def asked(self) -> Evidence:
        """The limit as it was asked for."""
        rule = Rule.CALLED_FOR if self.keys == ("sources",) else Rule.SUM
        return Evidence(self.told(self.limit), self.limit, (pointer("requirements", *self.keys),), rule=rule)

    @property
    def option(self) -> str:
        """What states it: an option, or the rate at which requests come."""
        return self.kind if self.keys == _KEYS[self.kind] else "a rate of"

    def told(self, limit: float) -> str:
        """A limit in words: "20 ms"."""
        return f"{limit:g}" if self.unit is Unit.METRIC else written(limit, self.unit)

    def excess(self, limit: float) -> float:
        """How many times what was asked a loosened limit is, >= 1; infinite where nothing was allowed."""
        near, far = sorted((self.limit, limit))
        return far / near if near > 0 else math.inf


@dataclass(frozen=True)
class Limit:
    """A limit as typed: `option` with its flag, `value` as edgekit reads it; `evidence` writes it within a sentence."""

    option: str
    value: float
    evidence: Evidence


def needs(requirements: Requirements) -> tuple[Need, ...]:
    """All that were stated, and max-drop, which always is."""
    return tuple(
        Need(need.kind, need.limit, need.percentile, _keys(need, requirements)) for need in core.needs(requirements)
    )


def _keys(need: core.Need, r: Requirements) -> tuple[str, ...]:
    if need.kind is not Kind.THROUGHPUT or need.limit == r.min_throughput_ips:
        return _KEYS[need.kind]
    return ("arrivals", "rate_ips") if r.arrivals is not None and r.arrivals.rate_ips is not None else ("sources",)


def reading(readings: Readings, name: str, need: Need) -> Reading | None:
    """The candidate's own figure; None where it is not known."""
    match need.kind:
        case Kind.DROP:
            return readings.accuracy(name, "drop")
        case Kind.LATENCY:
            return readings.latency(name, need.percentile)
        case Kind.THROUGHPUT:
            return readings.throughput(name)
        case Kind.MEMORY:
            return readings.memory(name)
        case Kind.SIZE:
            return readings.size(name)
        case Kind.COLD_START:
            return readings.cold_start(name)


def met(readings: Readings, name: str, need: core.Need) -> bool:
    """Whether the candidate may be chosen by the need."""
    return ruling(need, readings.figures(name), readings.judged(name)).admits


def admitting(readings: Readings, name: str, need: Need) -> Limit | None:
    """The tightest limit that the candidate meets; None where none would do or its figure is not known."""
    if need.kind is Kind.DROP:
        return _admitting_drop(readings, name)
    own = reading(readings, name, need)
    if own is None or own.value <= 0:
        return None
    text, value = _TYPED[need.unit](own.value)
    percentile = f"{need.percentile}:" if need.percentile else ""
    return Limit(f"{need.option} {percentile}{text}", value, Evidence(text, own.value, own.paths, rule=Rule.LIMIT))


def _admitting_drop(readings: Readings, name: str) -> Limit | None:
    """A drop must be at most max-drop and its interval end at twice that, unless it is the reference but for rounding."""
    a = readings.judged(name)
    drop, high = readings.accuracy(name, "drop"), readings.accuracy(name, "ci_high")
    if a is None or drop is None or high is None or a.collapsed or a.nonfinite:
        return None
    paths = drop.paths if is_equivalent(a) else (*drop.paths, *high.paths)
    least = max(0.0, a.drop) if is_equivalent(a) else max(0.0, a.drop, a.ci_high / 2)
    text = _rounded(least, ROUND_CEILING)
    return Limit(f"{Kind.DROP} {text}", float(text), Evidence(text, least, paths, rule=Rule.LEAST_DROP))


def loosened(requirements: Requirements, need: Need, limit: float | None) -> Requirements:
    """The requirements with another limit, or without it: None."""
    match need.kind:
        case Kind.DROP:
            return replace(requirements, max_drop=math.inf if limit is None else limit)
        case Kind.LATENCY:
            budget = LatencyBudget(limit, need.percentile) if limit is not None else None
            return replace(requirements, latency=budget)
        case Kind.THROUGHPUT:
            return replace(requirements, min_throughput_ips=limit, arrivals=None, sources=None)
        case Kind.MEMORY:
            return replace(requirements, max_memory_bytes=None if limit is None else round(limit))
        case Kind.SIZE:
            return replace(requirements, max_size_bytes=None if limit is None else round(limit))
        case Kind.COLD_START:
            return replace(requirements, max_cold_start_ms=limit)


# --------------------------------------------------------------------------------------------------------- as it is typed


def _rounded(value: float, rounding: str, digits: int = 3) -> str:
    """To `digits` significant ones, plain."""
    if value == 0:
        return "0"
    step = Decimal(1).scaleb(math.floor(math.log10(abs(value))) - digits + 1)
    text = format(Decimal(value).quantize(step, rounding=rounding), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _milliseconds(value: float) -> tuple[str, float]:
    text = _rounded(value, ROUND_CEILING)
    return f"{text}ms", float(text)


def _rate(value: float) -> tuple[str, float]:
    text = _rounded(value, ROUND_FLOOR)
    return text, float(text)


def _bytes(value: float) -> tuple[str, float]:
    scale, unit = byte_unit(value)
    text = _rounded(value / scale, ROUND_CEILING)
    return f"{text}{unit}", round(float(text) * scale)


# How a limit that admits a figure is typed, and the value that edgekit reads of it.
_TYPED: Mapping[Unit, Callable[[float], tuple[str, float]]] = {
    Unit.MS: _milliseconds,
    Unit.PER_SECOND: _rate,
    Unit.BYTES: _bytes,
}
