"""What a probe of a device found: its fact sheet, and the target it is. Schema 1 of `edgekit device probe --json`."""

from dataclasses import dataclass

from edgekit.core.facts import FactSheet

PROBE_SCHEMA = 1


@dataclass(frozen=True)
class Probe:
    """`target` is the known target that the device is, None when it is none; `differences` are told all the same.

    `written` is the target file that was made of it, if one was asked for.
    """

    schema: int
    device: str
    facts: FactSheet
    target: str | None
    reason: str
    differences: tuple[str, ...]
    written: str | None = None
