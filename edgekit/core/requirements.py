"""Parse stated requirements, one value at a time: `20ms`, `p50:20ms`, `128MiB`, `16kHz`, `0-3`, `latency=2,memory=1`. Pure.

Every function takes the name of the option, or of the key in a file, that the value was given for, and raises UsageError with it.
"""

import math
import re
from collections.abc import Mapping
from itertools import pairwise

from edgekit.core.tomltable import suggest
from edgekit.core.types import LatencyBudget, Prefer
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
_RATE_UNITS_HZ = {"": 1.0, "hz": 1.0, "fps": 1.0, "khz": 1e3}
_NUMBER = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*")
_CPUS = re.compile(r"(\d{1,4})(?:-(\d{1,4}))?")

MOST_BYTES = 1 << 60  # an exbibyte: more than any machine has, and still a number of 64 bits


def parse_bytes(text: str, option: str) -> int:
    """`"128MiB"` to bytes. Raises UsageError naming `option`."""
    value, unit = _split(text, option, "128MiB")
    if unit.lower() not in _BYTE_UNITS:
        raise UsageError(
            f"'{text}' needs a unit: B, kB, MB, GB, KiB, MiB or GiB", where=option, next_step="for example 128MiB"
        )
    found = value * _BYTE_UNITS[unit.lower()]
    if not 1 <= found <= MOST_BYTES:
        raise UsageError(f"'{text}' is not between 1 byte and 2^60", where=option, next_step="for example 128MiB")
    return round(found)


def parse_latency(text: str, option: str = "--latency-budget") -> LatencyBudget:
    """`"20ms"` (p99) or `"p50:20ms"` to a budget. Raises UsageError."""
    percentile, colon, rest = text.partition(":")
    if not colon:
        return LatencyBudget(parse_milliseconds(text, option))
    return LatencyBudget(parse_milliseconds(rest, option), parse_percentile(percentile, option))


def parse_percentile(text: str, option: str) -> str:
    """One of PERCENTILES. Raises UsageError naming `option`."""
    return parse_word(text, option, PERCENTILES, "percentile")


def parse_milliseconds(text: str, option: str) -> float:
    """`"20ms"`, `"500us"` or `"2s"` to milliseconds. Raises UsageError naming `option`."""
    value, unit = _split(text, option, "20ms")
    if unit not in _TIME_UNITS_MS:
        raise UsageError(f"'{text}' needs a unit: us, ms or s", where=option, next_step="for example 20ms")
    return value * _TIME_UNITS_MS[unit]


def parse_rate(text: str, option: str) -> float:
    """`"30"`, `"30fps"`, `"16kHz"` to how many a second. Raises UsageError naming `option`."""
    value, unit = _split(text, option, "30")
    if unit.lower() not in _RATE_UNITS_HZ:
        raise UsageError(f"'{text}' is no rate", where=option, next_step="a number, or one with fps, Hz or kHz")
    return value * _RATE_UNITS_HZ[unit.lower()]


def parse_word(text: str, option: str, known: tuple[str, ...], what: str) -> str:
    """`text` if it is one of `known`. Raises UsageError with the likeliest of them; `what` is what the word names."""
    if text not in known:
        close = suggest(text, known)
        hint = f"did you mean {close}?" if close else f"use one of {', '.join(known)}"
        raise UsageError(f"unknown {what} '{text}'", where=option, next_step=hint)
    return text


def parse_cpus(text: str, option: str) -> tuple[int, str]:
    """`"0-3,6"` to how many cpus that is, and the list. Raises UsageError naming `option`."""
    spans = [_CPUS.fullmatch(part.strip()) for part in text.split(",")]
    bounds = [(int(span[1]), int(span[2] or span[1])) for span in spans if span is not None]
    rising = all(low <= high for low, high in bounds) and all(a[1] < b[0] for a, b in pairwise(bounds))
    if len(bounds) != len(spans) or not rising:
        hint = 'a number of cores, or a list of cpus such as "0-3" or "0,2-3"'
        raise UsageError(f"'{text}' is no rising list of cpus", where=option, next_step=hint)
    listed = ",".join(f"{low}" if low == high else f"{low}-{high}" for low, high in bounds)
    return sum(high - low + 1 for low, high in bounds), listed


def parse_prefer(text: str, option: str) -> dict[Prefer, float]:
    """`"memory"`, or `"latency=2,memory=1"`, to weights as `parse_weights`. Raises UsageError naming `option`."""
    if "=" not in text:
        return parse_weights({text: 1.0}, option)
    pairs = [part.partition("=") for part in text.split(",")]
    weights: dict[str, float] = {}
    for word, _, number in pairs:
        match = _NUMBER.fullmatch(number)
        if match is None or match[2] or word.strip() in weights:
            raise UsageError(
                f"'{text}' is no list of weights", where=option, next_step="for example latency=2,memory=1"
            )
        weights[word.strip()] = float(match[1])
    return parse_weights(weights, option)


def parse_weights(weights: Mapping[str, float], option: str) -> dict[Prefer, float]:
    """What is preferred and how much, heaviest first; what weighs 0 is left out. Raises UsageError naming `option`."""
    known = tuple(prefer.value for prefer in Prefer)
    found = {Prefer(parse_word(w, option, known, "preference")): not_negative(n, option) for w, n in weights.items()}
    if not any(found.values()):
        raise UsageError("nothing weighs more than 0", where=option, next_step="for example latency=2,memory=1")
    return {prefer: weight for prefer, weight in sorted(found.items(), key=lambda pair: -pair[1]) if weight}


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


def parse_forbid(words: tuple[str, ...], known: tuple[str, ...], option: str = "--forbid") -> tuple[str, ...]:
    """Each word must be a recipe, a precision or an engine. Raises UsageError with the nearest known word."""
    for word in words:
        if word not in known:
            near = suggest(word, known)
            hint = f"did you mean {near}?" if near else f"known: {', '.join(known)}"
            raise UsageError(f"nothing is called '{word}'", where=option, next_step=hint)
    return words


def _split(text: str, option: str, example: str) -> tuple[float, str]:
    match = _NUMBER.fullmatch(text)
    if not match:
        raise UsageError(f"'{text}' is not a number with a unit", where=option, next_step=f"for example {example}")
    return positive(float(match[1]), option), match[2]
