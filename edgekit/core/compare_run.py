"""The record of one comparison: `edgekit compare --json`, schema 1."""

from dataclasses import dataclass

from edgekit.core.compare import Comparison
from edgekit.core.facts import FactSheet

COMPARE_SCHEMA = 1


@dataclass(frozen=True)
class Side:
    """One of the two: where it came from and what it is."""

    source: str
    model_name: str
    recipe: str
    engine: str
    engine_version: str
    threads: int
    size_bytes: int


@dataclass(frozen=True)
class CompareRun:
    """B against A on one device."""

    schema: int
    device: str
    facts: FactSheet
    a: Side
    b: Side
    comparison: Comparison
    notices: tuple[str, ...]
