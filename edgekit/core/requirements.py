"""Parse stated requirements: `20ms`, `p50:20ms`, `128MiB`, `--forbid bf16`. Pure text to records."""

import difflib
import math
import re

from edgekit.core.types import LatencyBudget
from edgekit.errors import UsageError

PERCENTILES = ("p50", "p90", "p95", "p99")

# Decimal and binary units mean what IEC 80000-13 says: 1 MB = 10^6 bytes, 1 MiB = 2^20 bytes.
_BYTE_UNITS = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
}
_TIME_UNITS_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
_DURATION_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0}
_NUMBER = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*")


def parse_bytes(text: str, option: str) -> int:
    """`"128MiB"` to bytes. Raises UsageError naming `option`."""
    value, unit = _split(text, option, "128MiB")
    if unit.lower() not in _BYTE_UNITS:
        raise UsageError(
            f"'{text}' needs a unit: B, kB, MB, GB, KiB, MiB or GiB", where=option, next_step="for example 128MiB"
        )
    return round(value * _BYTE_UNITS[unit.lower()])


def parse_latency(text: str, option: str = "--latency-budget") -> LatencyBudget:
    """`"20ms"` (p99) or `"p50:20ms"` to a budget. Raises UsageError."""
    percentile, colon, rest = text.partition(":")
    if not colon:
        percentile, rest = "p99", text
    if percentile not in PERCENTILES:
        raise UsageError(
            f"unknown percentile '{percentile}'", where=option, next_step=f"use one of {', '.join(PERCENTILES)}"
        )
    value, unit = _split(rest, option, "20ms")
    if unit not in _TIME_UNITS_MS:
        raise UsageError(f"'{rest}' needs a unit: us, ms or s", where=option, next_step="for example 20ms")
    return LatencyBudget(value * _TIME_UNITS_MS[unit], percentile)


def parse_duration(text: str, option: str) -> float:
    """`"90s"` or `"30m"` to seconds. Raises UsageError naming `option`."""
    value, unit = _split(text, option, "30m")
    if unit not in _DURATION_UNITS_S:
        raise UsageError(f"'{text}' needs a unit: s, m or h", where=option, next_step="for example 30m")
    return value * _DURATION_UNITS_S[unit]


def parse_time_budget(text: str, option: str = "--time-budget") -> float:
    """`"90s"`, `"30m"`, `"2h"` or plain seconds to seconds. Raises UsageError naming `option`."""
    value, unit = _split(text, option, "30m")
    if unit and unit not in _DURATION_UNITS_S:
        raise UsageError(f"'{text}' has another unit than s, m or h", where=option, next_step="for example 30m")
    return positive(value * _DURATION_UNITS_S.get(unit, 1.0), option)


def positive(value: float, option: str) -> float:
    """`value` if it is finite and above zero. Raises UsageError."""
    if not math.isfinite(value) or value <= 0:
        raise UsageError(f"{value} is not a positive number", where=option)
    return value


def not_negative(value: float, option: str) -> float:
    """`value` if it is finite and not below zero. Raises UsageError."""
    if not math.isfinite(value) or value < 0:
        raise UsageError(f"{value} is not zero or a positive number", where=option)
    return value


def parse_forbid(words: tuple[str, ...], known: tuple[str, ...]) -> tuple[str, ...]:
    """Each word must be a recipe, a precision or an engine. Raises UsageError with the nearest known word."""
    for word in words:
        if word not in known:
            near = difflib.get_close_matches(word, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            raise UsageError(f"nothing is called '{word}'", where="--forbid", next_step=hint)
    return words


def _split(text: str, option: str, example: str) -> tuple[float, str]:
    match = _NUMBER.fullmatch(text)
    if not match:
        raise UsageError(f"'{text}' is not a number with a unit", where=option, next_step=f"for example {example}")
    return positive(float(match[1]), option), match[2]
