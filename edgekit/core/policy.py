"""A policy: what a run must hold, and by how much it may be worse than another. Pure text to a record.

- A policy that asks for nothing is refused: it would let everything through.
- A key that is not known, or stands in the wrong place, is refused with the likely one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from edgekit.core.requirements import PERCENTILES, parse_bytes, parse_milliseconds
from edgekit.core.tomltable import TomlTable, did_you_mean, read_toml
from edgekit.errors import UsageError

POLICY_SCHEMA = 1
HELP_PAGE = "docs/policy.md"
MOST = 1e12
MOST_CHANGE = 10.0  # as a share: what may become eleven times as much is not bounded; 10 for 10 % is a slip

SECTIONS: Mapping[str, tuple[str, ...]] = {
    "latency": ("percentile", "budget", "max_increase"),
    "throughput": ("min", "max_decrease"),
    "data": ("metric", "max_drop", "min", "max", "max_loss"),
    "infrastructure": (
        "memory",
        "storage",
        "cold_start",
        "max_memory_increase",
        "max_storage_increase",
        "max_cold_start_increase",
    ),
}

# Bounds on a change against a baseline; all other numbers are limits.
CHANGES = frozenset(
    {
        "latency.max_increase",
        "throughput.max_decrease",
        "data.max_loss",
        "infrastructure.max_memory_increase",
        "infrastructure.max_storage_increase",
        "infrastructure.max_cold_start_increase",
    }
)


@dataclass(frozen=True)
class Policy:
    """What is asked; None or absent where nothing is.

    `limits` are by key, such as `latency.budget`: milliseconds, samples a second, bytes, or the metric's unit. `regressions` are
    what figures may be worse by than the baseline's: a share of them (0.1: a tenth), of a score its own unit.
    """

    percentile: str = "p99"
    metric: str | None = None
    limits: Mapping[str, float] = field(default_factory=dict)
    regressions: Mapping[str, float] = field(default_factory=dict)


# ----------------------------------------------------------------------------------------------------------------- reading


def read_policy(text: str, where: str) -> Policy:
    """A policy's text, `policy.toml`. Raises InputRejected for what is unknown, impossible or asks for nothing."""
    top = read_toml(text, where, HELP_PAGE)
    if (schema := top.integer("schema", 1, 1 << 16)) != POLICY_SCHEMA:
        raise top.wrong("schema", f"{schema} is not known, this edgekit reads {POLICY_SCHEMA}")
    found: dict[str, float] = {}
    names: dict[str, str] = {}
    for section in SECTIONS:
        if section in top:
            _read_section(top.table(section), section, found, names)
    _refuse_misplaced(top)
    top.refuse_unknown(SECTIONS)
    if not found and "metric" not in names:
        raise top.wrong("schema", "is all there is: it asks for nothing, and would let everything through")
    limits = {key: value for key, value in found.items() if key not in CHANGES}
    regressions = {key: value for key, value in found.items() if key in CHANGES}
    return Policy(names.get("percentile", "p99"), names.get("metric"), limits, regressions)


def _read_section(table: TomlTable, section: str, found: dict[str, float], names: dict[str, str]) -> None:
    for key in SECTIONS[section]:
        if key not in table:
            continue
        if key == "percentile":
            names[key] = table.choice(key, PERCENTILES)
        elif key == "metric":
            names[key] = table.text(key)
        elif (full := f"{section}.{key}") in _UNITS:
            found[full] = _with_unit(table, key, _UNITS[full])
        elif full in ("data.min", "data.max"):
            found[full] = table.number(key, -MOST, MOST)
        else:
            is_share = full in CHANGES and full != "data.max_loss"
            found[full] = table.number(key, 0, MOST_CHANGE if is_share else MOST)
    table.refuse_unknown(SECTIONS[section])
    if section == "latency" and "percentile" in table and "budget" not in table:
        raise table.wrong("percentile", "is of a budget, and there is none")


_UNITS: Mapping[str, Callable[[str, str], float]] = {
    "latency.budget": parse_milliseconds,
    "infrastructure.memory": parse_bytes,
    "infrastructure.storage": parse_bytes,
    "infrastructure.cold_start": parse_milliseconds,
}


def _with_unit(table: TomlTable, key: str, read: Callable[[str, str], float]) -> float:
    text = table.text(key)
    if ":" in text:
        raise table.wrong(key, "names a percentile, which is a key of its own here")
    try:
        return float(read(text, key))
    except UsageError as error:
        hint = f", {error.next_step}" if error.next_step else ""
        raise table.wrong(key, f"{error.what}{hint}") from error


def _refuse_misplaced(top: TomlTable) -> None:
    """A key of a section at the top is a likely slip: say where it belongs."""
    for key in top:
        homes = [section for section, keys in SECTIONS.items() if key in keys]
        if homes and key not in SECTIONS:
            raise top.wrong(key, f"belongs into [{homes[0]}]")
        if key not in (*SECTIONS, "schema"):
            raise top.wrong(key, f"unknown key{did_you_mean(key, SECTIONS)}")
