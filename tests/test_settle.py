"""What a search over settings comes to: front, ends, knee and sweet spot."""

from dataclasses import replace

from edgekit.core.settle import best, fitting, front, knee, sweet_spot
from edgekit.core.stats import latency_stats
from edgekit.core.tradeoffs import Point, Setting, key
from edgekit.core.types import LatencyBudget, Prefer, Requirements

FREE = Requirements()


def point(latency_ms: float, ips: float, setting: Setting | None = None, **fields: object) -> Point:
    stats = latency_stats([int(latency_ms * 1e6)] * 700)
    plain = Point(
        candidate="c",
        setting=setting or Setting(1),
        latency_ms=stats,
        throughput_ips=ips,
        throughput_interval=(ips, ips),
        ratio=latency_ms,
        ratio_interval=(latency_ms, latency_ms),
        cold_start_ms=50.0,
        peak_memory_bytes=1 << 25,
        size_bytes=1000,
        drop=0.0,
        rounds=15,
        ended="measured",
    )
    return replace(plain, **fields)  # type: ignore[arg-type]


ALONE = point(1.0, 1000.0)
B2 = point(1.5, 1800.0, Setting(1, 1, 2))
B4 = point(2.5, 2400.0, Setting(1, 1, 4))
B8 = point(5.0, 2500.0, Setting(1, 1, 8))
WORSE = point(5.5, 1700.0, Setting(2, 1, 8))
LADDER = [ALONE, B2, B4, B8, WORSE]


def test_the_front_leaves_out_what_another_point_beats_in_everything() -> None:
    assert front(LADDER) == tuple(key(p) for p in (ALONE, B2, B4, B8))
    assert key(WORSE) in front([*LADDER[:-1], replace(WORSE, peak_memory_bytes=1 << 24)])
    assert front([]) == ()


def test_each_end_is_the_best_there() -> None:
    assert best(LADDER, Prefer.LATENCY, FREE) is ALONE
    assert best(LADDER, Prefer.THROUGHPUT, FREE) is B8
    assert best([], Prefer.LATENCY, FREE) is None


def test_within_the_noise_the_plainest_setting_wins_the_latency_end() -> None:
    odd = point(0.99, 1000.0, Setting(1, options={"arena": "0"}))
    clear = point(0.9, 1000.0, Setting(1, options={"arena": "0"}))
    assert best([ALONE, odd], Prefer.LATENCY, FREE) is ALONE
    assert best([ALONE, clear], Prefer.LATENCY, FREE) is clear


def test_within_the_noise_the_shorter_request_wins_the_throughput_end() -> None:
    assert best(LADDER, Prefer.THROUGHPUT, FREE, tie=1.05) is B4


def test_requirements_bound_both_ends() -> None:
    asked = Requirements(latency=LatencyBudget(2.0), max_memory_bytes=1 << 25)
    assert best(LADDER, Prefer.THROUGHPUT, asked) is B2
    heavy = [replace(p, peak_memory_bytes=1 << 26) if p is B2 else p for p in LADDER]
    assert best(heavy, Prefer.THROUGHPUT, asked) is ALONE


def test_where_nothing_meets_them_all_are_looked_at() -> None:
    assert best(LADDER, Prefer.LATENCY, Requirements(latency=LatencyBudget(0.1))) is ALONE


def test_a_percentile_that_is_not_known_is_missed() -> None:
    few = replace(ALONE, latency_ms=latency_stats([1_000_000] * 20))
    assert fitting([few], Requirements(latency=LatencyBudget(20.0, "p99"))) == []
    assert fitting([few], Requirements(latency=LatencyBudget(20.0, "p50"))) == [few]


def test_the_knee_is_where_more_throughput_begins_to_cost_more() -> None:
    assert knee(LADDER) in (B2, B4)
    assert knee([ALONE]) is ALONE
    assert knee([]) is None


def test_the_sweet_spot_moves_with_what_is_preferred() -> None:
    assert sweet_spot(LADDER, FREE) is ALONE
    assert sweet_spot(LADDER, Requirements(prefer=Prefer.THROUGHPUT)) in (B2, B4)
    weights = {Prefer.LATENCY: 1.0, Prefer.MEMORY: 5.0}
    light = replace(B8, peak_memory_bytes=1 << 22)
    assert sweet_spot([ALONE, light], Requirements(weights=weights)) is light
