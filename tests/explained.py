"""Holds an explanation against the run.json it speaks of: every pointer resolves, every figure follows, none is without evidence.

Figures are worked out here from the JSON alone, by the rules of docs/explain.md and none of edgekit's own code.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from edgekit import sandbox
from edgekit.core.explain.evidence import Evidence, Rule, Sentence
from edgekit.core.explain.explanation import Explanation
from edgekit.core.run import Run

SCALES = {
    "": 1.0,
    "ms": 1.0,
    "/s": 1.0,
    "x": 1.0,
    "%": 0.01,
    "B": 1.0,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
}
FIGURE = re.compile(r"(-?\d+(?:\.\d+)?)\s*(\S*)")
# Words with digits that are no figures.
WORDS = re.compile(r"\b(p50|p90|p95|p99|p999|int8|int4|bf16|fp16|fp32|f32|NHWC4)\b")


def document_of(run: Run) -> Any:
    """The run as run.json holds it."""
    return json.loads(sandbox.encode(run))


def resolve(document: Any, path: str) -> Any:
    """RFC 6901. Raises KeyError or IndexError for what is not there."""
    for key in path.split("/")[1:]:
        name = key.replace("~1", "/").replace("~0", "~")
        document = document[int(name)] if isinstance(document, list) else document[name]
    return document


def assert_founded(document: Any, told: Explanation) -> None:
    """Every figure of every sentence is found in the document, run.json, and no sentence has another."""
    names = sorted(_names(document), key=len, reverse=True)
    for sentence in told.sentences:
        rest = _without_figures(document, sentence, names)
        assert not re.search(r"\d", rest), f"a figure without evidence: {rest!r} in {sentence.text!r}"


def _without_figures(document: Any, sentence: Sentence, names: list[str]) -> str:
    """What is left of a sentence: first without what it quotes, then without names, then without figures, which come in order."""
    rest = sentence.text
    for evidence in sentence.evidence:
        assert_follows(document, evidence)
        if _is_words(evidence):
            assert evidence.text in rest, f"{evidence.text!r} is not in {sentence.text!r}"
            rest = rest.replace(evidence.text, " _ ", 1)
    for name in names:
        rest = rest.replace(name, " _ ")
    rest, left = WORDS.sub("_", rest), ""
    for evidence in sentence.evidence:
        if not _is_words(evidence):
            found = re.search(rf"(?<![\d.]){re.escape(evidence.text)}(?!\d|\.\d)", rest)
            assert found, f"{evidence.text!r} is not in {sentence.text!r}"
            left, rest = left + rest[: found.start()] + " ", rest[found.end() :]
    return left + rest


def _is_words(evidence: Evidence) -> bool:
    """A quoted reason or finding, which may hold names itself; a quoted value of an option is looked for as a figure is."""
    return isinstance(evidence.value, str) and " " in evidence.text


def assert_follows(document: Any, evidence: Evidence) -> None:
    """The evidence is what its paths hold by its rule, and its text is that value, rounded."""
    value = worked_out(document, evidence)
    if isinstance(value, str):
        assert evidence.text == value == evidence.value
        return
    assert not isinstance(evidence.value, str)
    assert math.isclose(value, evidence.value, rel_tol=1e-9, abs_tol=1e-12), evidence
    shown, coarse = _read(evidence.text, value, is_limit=evidence.rule in (Rule.LIMIT, Rule.LEAST_DROP))
    assert abs(shown - value) <= coarse, f"{evidence.text} is not {value}"


def _read(text: str, value: float, *, is_limit: bool) -> tuple[float, float]:
    """The number a text shows, and by how much rounding may have moved it."""
    match = FIGURE.fullmatch(text)
    assert match, text
    number, unit, scale = float(match[1]), match[2], SCALES[match[2]]
    digits = 10.0 ** (math.floor(math.log10(abs(number))) - 2) if number else 1e-3  # three significant ones
    if is_limit:
        return number * scale, digits * scale * (1 + 1e-6)
    if unit in ("x", "%"):
        step = 1.0 if unit == "%" or number >= 10 else 0.01
    elif unit:
        step = min(1.0, digits)
    else:  # of a metric four decimals, of noise two; counts and what was asked as they are
        step = {4: 1e-4, 2: 0.01 if value > 1 else 0.0}.get(len(match[1].partition(".")[2]), 0.0)
    return number * scale, step * scale * 0.5 * (1 + 1e-6) + 1e-5 * abs(value)


def worked_out(document: Any, evidence: Evidence) -> float | str:
    """The evidence's value from run.json alone."""
    above = [resolve(document, path) for path in evidence.paths]
    below = [resolve(document, path) for path in evidence.over]
    match evidence.rule:
        case Rule.SUM | Rule.LIMIT:
            if isinstance(above[0], str):
                assert len(above) == 1 and not below
                return str(above[0])
            return _sum(above) / _sum(below) if below else _sum(above)
        case Rule.LEAST_DROP:
            return max(0.0, above[0], *(high / 2 for high in above[1:]))
        case Rule.ROOFLINE:
            return _roofline(above, below)
        case Rule.NARROW_SHARE:
            return _narrow(above, below)
        case Rule.NARROW_LEFT:
            rest = 1 - _narrow(above[1:], below[1:])
            return 1 - rest * below[0] / above[0]
        case Rule.WEIGHTED:
            return _weighted(above, below)
        case Rule.CALLED_FOR:
            return _called_for(above[0])


def _sum(values: list[Any]) -> float:
    return math.fsum(len(value) if isinstance(value, list | dict) else value for value in values)


def _weighted(above: list[Any], below: list[Any]) -> float:
    """The product of four factors, each to its weight's share."""
    own, weights = above
    factors = {name: _preferred(own)[name] / _preferred(below[0])[name] for name in weights}
    return math.prod(factors[name] ** (weight / sum(weights.values())) for name, weight in weights.items())


def _preferred(outcome: Any) -> dict[str, float]:
    if "setting" in outcome:  # a point
        memory, size = outcome["peak_memory_bytes"], outcome["size_bytes"]
        return {
            "latency": outcome["ratio"],
            "throughput": 1 / outcome["throughput_ips"],
            "memory": memory,
            "size": size,
        }
    size, measured = sum(file["size_bytes"] for file in outcome["artifact"]["files"]), outcome["measurement"]
    if measured is None or measured["origin"] != "target":
        found = outcome["prediction"]
        memory, rate = found["peak_memory_bytes"], found["throughput_ips"]
        return {"latency": found["ratio"], "throughput": 1 / rate, "memory": memory, "size": size}
    memory = measured["memory"]
    return {
        "latency": measured["ratio"],
        "throughput": 1 / measured["throughput_ips"],
        "memory": max(memory["peak_load_rss"], memory["peak_inference_rss"]),
        "size": size,
    }


def _narrow(above: list[float], below: list[float]) -> float:
    time, gain = above[0] / below[0], above[1] / below[1]
    return min(1.0, max(0.0, (1 - time) / (1 - 1 / gain)))


def _roofline(above: list[Any], below: list[float]) -> float:
    layers, clusters, bandwidth, threads = above
    fastest = max(clusters, key=lambda c: c["fp32_macs_per_cycle"] * c["max_mhz"])
    rate = fastest["fp32_macs_per_cycle"] * fastest["max_mhz"] * 1e6 * min(threads, fastest["cores"])
    arithmetic = moving = 0.0
    for layer in layers:
        a = layer["macs"] / rate
        b = 4 * (layer["weight_elements"] + layer["activation_elements"]) / bandwidth
        arithmetic, moving = (arithmetic + a, moving) if a >= b else (arithmetic, moving + b)
    if below:
        return min(1.0, (arithmetic + moving) / 0.4 / (below[0] / 1e3))
    return arithmetic / (arithmetic + moving)


def _called_for(sources: Mapping[str, Any]) -> float:
    rate = sources["frame_rate"] or sources["sample_rate_hz"] / sources["hop"]
    return float(rate * sources["count"])


def _names(document: Any) -> Iterator[str]:
    """What a sentence may name: candidates, recipes, what was measured and by what metric."""
    for outcome in document["outcomes"]:
        yield outcome["candidate"]["build"]["recipe"]["name"]
    yield from document["left_out"]
    yield document["data"]["metric"]
    found = document.get("exploration")
    if found:
        for point in found["points"]:
            setting = point["setting"]
            words = [point["candidate"], f"t{setting['threads']}", f"s{setting['streams']}", f"b{setting['batch']}"]
            words += [f"cores={setting['cores']}"] if setting["cores"] else []
            yield " ".join([*words, *(f"{name}={value}" for name, value in sorted(setting["options"].items()))])
            yield from setting["options"]
