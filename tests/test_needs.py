"""Whether a requirement is met is decided in one place, and everyone who asks is told the same."""

from dataclasses import replace

import pytest

from edgekit.core.checks import Status, judge
from edgekit.core.choose import choose, figures, shortfalls
from edgekit.core.explain import needs as explained
from edgekit.core.explain.readings import Readings
from edgekit.core.needs import Kind, Need, Ruling, figure, limits, needs, ruling
from edgekit.core.policy import Policy
from edgekit.core.results import Figures, Origin, Outcome
from edgekit.core.run import Run
from edgekit.core.settle import fitting
from edgekit.core.tradeoffs import Point, Setting
from edgekit.core.types import LatencyBudget, Requirements, Sources
from edgekit.report import overview
from tests.records import MIB, accuracy, outcome, predicted, timed
from tests.report_desk import run

# A p50 and p99 of 4 ms, 250 a second, 50 MiB, 4 MiB of files and 4 ms from the process's start: at the limit, and just beyond it.
AT = {
    Kind.LATENCY: (4.0, 3.999),
    Kind.THROUGHPUT: (250.0, 250.001),
    Kind.MEMORY: (50 * MIB, 50 * MIB - 1),
    Kind.SIZE: (4 * MIB, 4 * MIB - 1),
    Kind.COLD_START: (4.0, 3.999),
}
ASKED = {
    Kind.LATENCY: lambda limit: Requirements(latency=LatencyBudget(limit)),
    Kind.THROUGHPUT: lambda limit: Requirements(min_throughput_ips=limit),
    Kind.MEMORY: lambda limit: Requirements(max_memory_bytes=limit),
    Kind.SIZE: lambda limit: Requirements(max_size_bytes=limit),
    Kind.COLD_START: lambda limit: Requirements(max_cold_start_ms=limit),
}
POLICY = {
    Kind.LATENCY: "latency.budget",
    Kind.THROUGHPUT: "throughput.min",
    Kind.MEMORY: "infrastructure.memory",
    Kind.SIZE: "infrastructure.storage",
    Kind.COLD_START: "infrastructure.cold_start",
}
MEASURED = timed(outcome("ort-fp32", 4.0))


def made(requirements: Requirements, *outcomes: Outcome) -> Run:
    """A run of just these outcomes, without a search over settings."""
    given = outcomes or (MEASURED,)
    choice = choose(given, requirements, Origin.TARGET)
    return replace(run(), outcomes=given, requirements=requirements, choice=choice, exploration=None)


def as_point() -> Point:
    numbers = figures(MEASURED, Origin.TARGET)
    assert numbers is not None and numbers.latency_ms is not None
    whole = (1.0, 1.0)
    return Point(
        "ort-fp32", Setting(1), numbers.latency_ms, numbers.throughput_ips, whole, 1.0, whole, numbers.cold_start_ms,
        numbers.peak_memory_bytes, numbers.size_bytes, 0.0, 9, "measured",
    )  # fmt: skip


@pytest.mark.parametrize("kind", list(AT))
@pytest.mark.parametrize("beyond", [False, True])
def test_all_who_ask_are_told_the_same_at_the_limit_and_just_beyond_it(kind: Kind, beyond: bool) -> None:
    """Negative control: the figure that is beyond its limit by the least there is."""
    limit = AT[kind][beyond]
    asked = ASKED[kind](limit)
    (need,) = limits(asked)
    numbers = figures(MEASURED, Origin.TARGET)
    assert numbers is not None
    met = ruling(need, numbers) is Ruling.MET
    assert met is not beyond
    whole = made(asked)
    stands = {
        "choice": whole.choice.chosen is not None,
        "shortfalls": not shortfalls(numbers, asked),
        "settings": fitting([as_point()], asked) != [],
        "explain": explained.met(Readings(whole), "ort-fp32", explained.needs(asked)[1]),
        "report": overview.checks(whole)[1].verdict == "met",
        "gate": judge(Policy(limits={POLICY[kind]: limit}), made(Requirements()), None)[0].status is Status.PASSED,
    }
    assert stands == dict.fromkeys(stands, met)


def test_what_a_need_is_held_against_is_what_the_explanation_shows() -> None:
    asked = Requirements(0.01, LatencyBudget(9.0), 1.0, 1 << 40, 1 << 40, max_cold_start_ms=9.0)
    readings = Readings(made(asked))
    numbers = readings.figures("ort-fp32")
    assert numbers is not None
    for need in explained.needs(asked)[1:]:
        shown = explained.reading(readings, "ort-fp32", need)
        assert shown is not None and shown.value == figure(need, numbers)


def test_what_is_not_known_meets_nothing() -> None:
    blind = Figures(
        Origin.TARGET, 1.0, 1.0, 1.0, None, 1, latency_ms=outcome("ort-fp32", runs=20).measurement.latency_ms
    )  # type: ignore[union-attr]
    for need in (Need(Kind.LATENCY, 1e9, "p99"), Need(Kind.MEMORY, 1e18), Need(Kind.COLD_START, 1e9)):
        assert ruling(need, blind) is Ruling.UNKNOWN and not ruling(need, blind).admits and not need.admits(None)
    assert ruling(Need(Kind.SIZE, 1e9), None) is Ruling.UNKNOWN
    assert ruling(Need(Kind.DROP, 1.0), blind) is Ruling.UNKNOWN
    with pytest.raises(ValueError, match="max-drop"):
        figure(Need(Kind.DROP, 1.0), blind)


def test_a_prediction_that_meets_its_limit_is_unproven_and_one_that_misses_is_missed() -> None:
    numbers = figures(predicted("ort-fp32", 4.0), Origin.PREDICTED)
    assert numbers is not None
    found = {kind: [ruling(need, numbers) for limit in AT[kind] for need in limits(ASKED[kind](limit))] for kind in AT}
    assert found.pop(Kind.SIZE) == [Ruling.MET, Ruling.MISSED]
    assert found.pop(Kind.COLD_START) == [Ruling.UNPROVEN, Ruling.UNPROVEN]
    assert all(rulings == [Ruling.UNPROVEN, Ruling.MISSED] for rulings in found.values())


def test_a_drop_is_met_where_its_interval_allows_it() -> None:
    """A drop within the limit whose interval ends beyond twice of it is not met, whoever asks."""
    need = Need(Kind.DROP, 0.01)
    assert ruling(need, None, accuracy(0.004)) is Ruling.MET
    assert ruling(need, None, accuracy(0.02)) is Ruling.MISSED
    wide = replace(MEASURED, accuracy=accuracy(0.004, ci_high=0.05))
    assert ruling(need, None, wide.accuracy) is Ruling.MISSED
    whole = made(Requirements(), wide)
    (drop,) = overview.checks(replace(whole, choice=replace(whole.choice, nearest="ort-fp32")))
    assert (drop.verdict, drop.room) == ("missed", "too few samples")
    assert not explained.met(Readings(whole), "ort-fp32", explained.needs(whole.requirements)[0])


def test_every_stated_requirement_is_a_need_and_the_drop_always_is() -> None:
    assert needs(Requirements()) == (Need(Kind.DROP, 0.01),)
    asked = Requirements(0.02, LatencyBudget(5.0, "p90"), 10.0, 3, 4, max_cold_start_ms=6.0)
    assert needs(asked) == (
        Need(Kind.DROP, 0.02),
        Need(Kind.LATENCY, 5.0, "p90"),
        Need(Kind.THROUGHPUT, 10.0),
        Need(Kind.MEMORY, 3),
        Need(Kind.SIZE, 4),
        Need(Kind.COLD_START, 6.0),
    )
    assert [need.label for need in needs(asked)][:2] == ["drop", "p90 latency"]
    assert limits(Requirements(sources=Sources(frame_rate=30.0, count=2))) == (Need(Kind.THROUGHPUT, 60.0),)
