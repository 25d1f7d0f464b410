"""What the search over settings says: both ends against each other, and each knob turned alone. Pure.

- A factor is of two measured points; one whose intervals overlap says that it is not told apart.
- A knob is told by the point that differs from an end in it alone.
"""

from collections.abc import Iterator

from edgekit.core.explain.evidence import Evidence, Item, Part, Phrase, Sentence, listed, phrase, pointer, say
from edgekit.core.explain.readings import Readings
from edgekit.core.explain.story import Story, factors
from edgekit.core.settle import MEASURED
from edgekit.core.tradeoffs import Exploration, Point, Setting, key

# The highest that both points have is told: of the tail if it is known.
PERCENTILES = ("p99", "p95", "p90", "p50")


def sentences(story: Story) -> Iterator[Sentence]:
    """Nothing where no settings were searched."""
    found = story.run.exploration
    if found is None or not found.points:
        return
    yield say(Part.SETTINGS, "A setting is named by its threads (t), streams (s), batch (b) and what else it sets")
    yield from _ends(story.readings, found)
    yield from _knobs(story.readings, found)
    yield from _between(story.readings, found)


# ------------------------------------------------------------------------------------------------------------------ ends


def _ends(readings: Readings, found: Exploration) -> Iterator[Sentence]:
    low, high = found.latency_choice, found.throughput_choice
    if not (low in readings.points and high in readings.points):
        return
    if low == high:
        yield say(
            Part.SETTINGS,
            "Latency and throughput want the same setting: {}, with {}",
            low,
            listed(_figures(readings, low)),
        )
        return
    template = "Latency and throughput pull apart: {} ({}) gives {} of {} ({})"
    own, base = listed(_figures(readings, high)), listed(_figures(readings, low))
    yield say(Part.SETTINGS, template, high, own, _beside(readings, high, low), low, base)


def _figures(readings: Readings, name: str) -> list[Item]:
    """ "p50 1.2 ms", "830/s", "peak memory 31 MiB"."""
    p50, memory = readings.latency(name, "p50"), readings.memory(name)
    told: list[Item] = [phrase("p50 {}", p50.told)] if p50 is not None else []
    rate = readings.throughput(name)
    told += [rate.told] if rate is not None else []
    return [*told, phrase("peak memory {}", memory.told)] if memory is not None else told


def _beside(readings: Readings, name: str, base: str) -> Phrase:
    """ "1.40x the throughput, 3.10x the p99 and 1.20x the peak memory"."""
    shown = _apart(_at(readings, name).throughput_interval, _at(readings, base).throughput_interval)
    own, other = readings.throughput(name), readings.throughput(base)
    told: list[Item] = []
    if own is not None and other is not None and other.value:
        told.append(phrase("{} the throughput{}", own.over(other), _unless(shown)))
    told += _latency_beside(readings, name, base)
    told += factors("peak memory", readings.memory, name, base)
    return listed([*told, *factors("cold start", readings.cold_start, name, base)])


def _latency_beside(readings: Readings, name: str, base: str) -> Iterator[Phrase]:
    for percentile in PERCENTILES:
        own, other = readings.latency(name, percentile), readings.latency(base, percentile)
        if own is not None and other is not None and other.value:
            shown = percentile != "p50" or _apart(
                _at(readings, name).ratio_interval, _at(readings, base).ratio_interval
            )
            yield phrase("{} the {}{}", own.over(other), percentile, _unless(shown))
            return


def _at(readings: Readings, name: str) -> Point:
    """The point of a key that was found among them."""
    point = readings.point(name)
    assert point is not None
    return point


def _apart(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return a[1] < b[0] or b[1] < a[0]


def _unless(shown: bool) -> str:
    return "" if shown else " (not told apart)"


# ----------------------------------------------------------------------------------------------------------------- knobs


def _knobs(readings: Readings, found: Exploration) -> Iterator[Sentence]:
    """From the setting of least latency, each knob turned alone: what it gives and what it takes."""
    base = found.latency_choice
    if base not in readings.points:
        return
    turned: dict[str, str] = {}
    for name, point in ((key(p), p) for p in found.points if p.ended == MEASURED):
        knob = _only_knob(point, _at(readings, base))
        if knob and (knob not in turned or point.throughput_ips > _at(readings, turned[knob]).throughput_ips):
            turned[knob] = name
    for knob, name in turned.items():
        template = "From {}, {} gives {}"
        yield say(Part.SETTINGS, template, base, _turned(readings, knob, name, base), _beside(readings, name, base))


def _only_knob(point: Point, base: Point) -> str:
    """The one field of the setting in which two points of a candidate differ; empty for none or several."""
    if point.candidate != base.candidate:
        return ""
    differ = [knob for knob in _KNOBS if getattr(point.setting, knob) != getattr(base.setting, knob)]
    return differ[0] if len(differ) == 1 else ""


_KNOBS = ("threads", "streams", "batch", "cores", "options")


def _turned(readings: Readings, knob: str, name: str, base: str) -> Phrase:
    """ "batch 4 instead of 1"."""
    own, other = _position(readings, knob, name), _position(readings, knob, base)
    return (
        phrase("{} {} instead of {}", knob, own, other) if knob != "options" else phrase("{} instead of {}", own, other)
    )


def _position(readings: Readings, knob: str, name: str) -> Item:
    setting: Setting = _at(readings, name).setting
    if knob == "options":
        options = setting.options
        told = [
            phrase("{}={}", option, Evidence(value, value, (readings.at_point(name, "setting", "options", option),)))
            for option, value in sorted(options.items())
        ]
        return listed(list(told)) if told else "no option"
    value = getattr(setting, knob)
    return Evidence(str(value), value, (readings.at_point(name, "setting", knob),)) if value else "all"


# --------------------------------------------------------------------------------------------------------------- between


def _between(readings: Readings, found: Exploration) -> Iterator[Sentence]:
    """The balanced points, where they are no end, and how much was looked at."""
    space = Evidence(f"{found.space}", found.space, (pointer("exploration", "space"),))
    looked = Evidence(str(len(found.points)), len(found.points), (pointer("exploration", "points"),))
    front = Evidence(str(len(found.front)), len(found.front), (pointer("exploration", "front"),))
    spots = [("the sweet spot", found.sweet_spot), ("the knee of throughput against latency", found.knee)]
    named = [phrase("{} is {}", what, name) for what, name in spots if name in readings.points]
    told = phrase("; {}", listed(list(named))) if named else phrase("")
    template = "Of {} settings {} were measured; {} are beaten by no other in all of latency, throughput, memory, size and drop{}"
    yield say(Part.SETTINGS, template, space, looked, front, told)
