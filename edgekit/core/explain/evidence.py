"""Sentences whose every figure says where run.json holds it. Pure.

- Names, percentiles and precisions are words; every other figure of a sentence is an Evidence.
- A figure is the sum of what `paths` hold, over the sum of what `over` holds where there is any. An array counts its elements; a
  string is quoted as it stands.
- What follows from stored figures by more than that names its `rule` (docs/explain.md); what no figure says alone is called
  estimated in the sentence.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Part(StrEnum):
    """What a sentence is about, in the order of an explanation; the two of BINDS come first."""

    BINDS = "what binds"
    MACHINE = "the machine"
    WON = "why it won"
    COSTS = "what requirements cost"
    SETTINGS = "settings"
    RELAX = "what to relax"
    LOST = "why others lost"
    LEARNT = "what the run teaches"


class Rule(StrEnum):
    """How a figure follows from what its paths hold."""

    SUM = ""
    LIMIT = "rounded so that it is met"
    LEAST_DROP = "the least max-drop that admits it, rounded so that it is met"
    WEIGHTED = "weighted product"
    CALLED_FOR = "inferences a second that the sources call for"
    ROOFLINE = "roofline"
    NARROW_SHARE = "share of the time that a narrower precision would shorten"
    NARROW_LEFT = "that share's rest in the narrower precision"


@dataclass(frozen=True)
class Evidence:
    """One figure: `text` as the sentence writes it, `value` before rounding (ms, bytes, a second, the metric's unit, or a factor).

    `paths` and `over` are JSON Pointers (RFC 6901) into run.json.
    """

    text: str
    value: float | str
    paths: tuple[str, ...]
    over: tuple[str, ...] = ()
    rule: Rule = Rule.SUM


@dataclass(frozen=True)
class Phrase:
    """A part of a sentence with its figures, in the order in which it writes them."""

    text: str
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True)
class Sentence:
    """A plain sentence, or two, of an explanation."""

    part: Part
    text: str
    evidence: tuple[Evidence, ...] = ()


Item = str | Evidence | Phrase


def phrase(template: str, *items: Item) -> Phrase:
    """`template` with each `{}` replaced by an item; a string is a name or a word and may hold anything."""
    texts = [item if isinstance(item, str) else item.text for item in items]
    return Phrase(template.format(*texts), tuple(_figures(items)))


def say(part: Part, template: str, *items: Item) -> Sentence:
    """A sentence, with a full stop."""
    made = phrase(template, *items)
    return Sentence(part, made.text if made.text.endswith(".") else f"{made.text}.", made.evidence)


def _figures(items: Sequence[Item]) -> Iterator[Evidence]:
    for item in items:
        if isinstance(item, Evidence):
            yield item
        elif isinstance(item, Phrase):
            yield from item.evidence


def listed(items: Sequence[Item], last: str = " and ") -> Phrase:
    """ "a, b and c"."""
    commas = ["{}"] * len(items)
    template = ", ".join(commas[:-1]) + last + commas[-1] if len(items) > 1 else "".join(commas)
    return phrase(template, *items)


def quoted(text: str, path: str) -> Evidence:
    """A string of run.json, as it stands there."""
    return Evidence(text, text, (path,))


def pointer(*keys: str | int) -> str:
    """The JSON Pointer to a place in run.json; keys may hold any character."""
    return "".join(f"/{str(key).replace('~', '~0').replace('/', '~1')}" for key in keys)


# -------------------------------------------------------------------------------------------------------------- readings


class Unit(StrEnum):
    """What a figure is in, and so how it is written."""

    MS = "ms"
    BYTES = "bytes"
    PER_SECOND = "/s"
    METRIC = "metric"  # the metric's own unit
    FACTOR = "x"
    SHARE = "%"
    COUNT = "count"


@dataclass(frozen=True)
class Reading:
    """A figure of the run, the sum of what `paths` hold."""

    value: float
    unit: Unit
    paths: tuple[str, ...]

    @property
    def told(self) -> Evidence:
        """The figure as a sentence writes it."""
        return Evidence(written(self.value, self.unit), self.value, self.paths)

    def over(self, base: "Reading") -> Evidence:
        """The factor between two figures, "1.32x". Raises ZeroDivisionError when `base` is 0."""
        value = self.value / base.value
        return Evidence(written(value, Unit.FACTOR), value, self.paths, base.paths)


def written(value: float, unit: Unit) -> str:
    """A figure in plain digits, three of them significant; a metric's with four decimals."""
    match unit:
        case Unit.MS:
            return f"{_three(value)} ms"
        case Unit.BYTES:
            scale, name = byte_unit(value)
            return f"{_three(value / scale)} {name}"
        case Unit.PER_SECOND:
            return f"{_three(value)}/s"
        case Unit.METRIC:
            return f"{value:.4f}"
        case Unit.FACTOR:
            return f"{value:.2f}x" if value < 10 else f"{value:.0f}x"
        case Unit.SHARE:
            return f"{value:.0%}"
        case Unit.COUNT:
            return _large(value)


def byte_unit(value: float) -> tuple[int, str]:
    """The largest binary unit that fits, with its bytes."""
    for scale, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if value >= scale:
            return scale, name
    return 1, "B"


def _three(value: float) -> str:
    """Three significant digits without an exponent; whole numbers keep all of theirs."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    places = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{places}f}".rstrip("0").rstrip(".") if places else f"{value:.0f}"


def _large(value: float) -> str:
    """A count: 1234567 as "1.23 M"."""
    if value < 10_000:
        return f"{value:.0f}"
    scale, name = next((pair for pair in ((1e9, "G"), (1e6, "M")) if value >= pair[0]), (1e3, "k"))
    return f"{_three(value / scale)} {name}"
