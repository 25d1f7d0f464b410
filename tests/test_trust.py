"""The verdict on a run: simulated traces for every cause, recorded ones of a real machine, and noise that must not alarm."""

import json
import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgekit.core.conditions import summarize
from edgekit.core.profile import CpuJiffies, Trace, TracePoint
from edgekit.core.series import FEWEST_RUNS, drift, restlessness, steps, warm_up_runs
from edgekit.core.trust import MINUTE_NS, Trust, TrustVerdict, judge, sustained
from tests.conftest import thorough

TRACES = Path(__file__).with_name("traces")


def point(t_ms: float, own_ns: int = 0, switches: int = 0, **told: Any) -> TracePoint:
    """A look at a machine that tells nothing but what is given."""
    silent = TracePoint(t_ms, (), (), CpuJiffies(), own_ns, None, None, None, 0, switches, 0, 0)
    return replace(silent, **told)


At = Callable[[float], float]  # a figure as a function of the time in seconds


def noise(
    runs: int,
    seed: int,
    *,
    sigma: float = 0.02,
    phi: float = 0.5,
    tail: float = 0.0,
    spikes: float = 0.005,
    ms: float = 5.0,
) -> list[float]:
    """Stationary latencies in ms: an AR(1) of relative size `sigma`, lognormal `tail`, and now and then a spike."""
    rng = random.Random(seed)
    level, made = rng.gauss(0, sigma), []
    for _ in range(runs):
        level = phi * level + rng.gauss(0, sigma * math.sqrt(1 - phi * phi))
        spike = rng.uniform(1.5, 6) if rng.random() < spikes else 1.0
        made.append(ms * math.exp(level + rng.gauss(0, tail)) * spike)
    return made


def starts_of(latencies: list[float]) -> list[int]:
    """Start offsets in ns of runs back to back."""
    at, starts = 0.0, []
    for latency in latencies:
        starts.append(round(at * 1e6))
        at += latency
    return starts


def trace_of(
    latencies: list[float],
    *,
    cpus: int = 4,
    own: At = lambda s: 1.0,
    others: At = lambda s: 0.02,
    stolen: At = lambda s: 0.0,
    preempted: At = lambda s: 5.0,
    khz: At | None = lambda s: 1_800_000.0,
    every_ms: int = 100,
) -> list[TracePoint]:
    """Readings beside the runs; `own`, `others` and `stolen` are in CPUs, `preempted` a second."""
    busy = steal = own_ns = switches = 0.0
    points = []
    for t_ms in range(0, max(every_ms * 3, math.ceil(sum(latencies))), every_ms):
        s, step = t_ms / 1e3, every_ms / 1e3
        ticks = round(cpus * 100 * s)
        clock = () if khz is None else (int(khz(s)),)
        jiffies = CpuJiffies(int(busy), 0, ticks - int(busy) - int(steal), 0, int(steal))
        points.append(point(t_ms, int(own_ns), int(switches), cpu_jiffies=jiffies, khz=clock))
        busy += (own(s) + others(s)) * 100 * step
        steal += stolen(s) * 100 * step
        own_ns += own(s) * step * 1e9
        switches += preempted(s) * step
    return points


def verdict_on(
    latencies: list[float],
    points: list[TracePoint] | None = None,
    governor: str = "performance",
    usable_cpus: float | None = None,
) -> Trust:
    trace = Trace(tuple(trace_of(latencies) if points is None else points), governors={"policy0": governor})
    return judge(starts_of(latencies), [round(ms * 1e6) for ms in latencies], trace, usable_cpus=usable_cpus)


# ----------------------------------------------------------------------------------------------------------------- quiet


def test_a_quiet_run_is_trusted() -> None:
    trust = verdict_on(noise(1000, 1))
    assert trust.verdict is TrustVerdict.TRUSTED
    assert trust.warm_up_runs == 0 and trust.change_points == () and trust.notices == ()
    assert trust.latency_ms.count == 1000 and trust.latency_ms.p99 is not None and trust.latency_ms.p999 is None


def test_heavy_tails_that_stay_the_same_are_trusted() -> None:
    latencies = noise(2000, 2, phi=0.0, tail=0.5, spikes=0.05)
    trust = verdict_on(latencies)
    assert trust.verdict is TrustVerdict.TRUSTED
    assert trust.latency_ms.p99 is not None and trust.latency_ms.p50 is not None
    assert trust.latency_ms.p99 > 2 * trust.latency_ms.p50  # the tail is there, and it is no reason for distrust


@pytest.mark.parametrize("runs", [200, pytest.param(1000, marks=thorough)])
def test_stationary_noise_is_rarely_called_unstable(runs: int) -> None:
    """200 traces as on a noisy machine: autocorrelated up to 0.9, lognormal tails, spikes."""
    kinds = [
        {"sigma": 0.05, "phi": 0.0},
        {"sigma": 0.05, "phi": 0.5, "spikes": 0.02},
        {"sigma": 0.05, "phi": 0.9, "tail": 0.1, "spikes": 0.02},
        {"sigma": 0.02, "phi": 0.97, "tail": 0.1},
        {"sigma": 0.0, "phi": 0.0, "tail": 0.4, "spikes": 0.05},
    ]
    alarms = [
        seed
        for seed in range(200)
        if verdict_on(noise(runs, seed, **kinds[seed % len(kinds)]), []).verdict is not TrustVerdict.TRUSTED
    ]
    assert len(alarms) <= 8, alarms


def test_the_verdict_is_repeatable() -> None:
    latencies = noise(500, 3, phi=0.9, sigma=0.1)
    assert verdict_on(latencies) == verdict_on(latencies)


# --------------------------------------------------------------------------------------------------------------- warm-up


def test_warm_up_is_found_and_left_out_of_the_percentiles() -> None:
    latencies = noise(1000, 4)
    warm = [ms * (1 + math.exp(-i / 30)) for i, ms in enumerate(latencies)]
    trust = verdict_on(warm)
    assert trust.verdict is TrustVerdict.TRUSTED
    assert 40 <= trust.warm_up_runs <= 200
    assert trust.latency_ms.count == 1000 - trust.warm_up_runs


def test_a_start_that_is_faster_is_no_warm_up_but_a_step() -> None:
    latencies = [ms * (0.7 if i < 200 else 1.0) for i, ms in enumerate(noise(1000, 5))]
    trust = verdict_on(latencies)
    assert trust.warm_up_runs == 0 and trust.verdict is TrustVerdict.UNSTABLE
    (step,) = trust.change_points
    assert abs(step.run - 200) <= 42 and step.ratio == pytest.approx(1 / 0.7, rel=0.05)


def test_a_run_that_never_settles_has_no_long_warm_up() -> None:
    latencies = [ms * (2 - i / 1000) for i, ms in enumerate(noise(1000, 6))]
    trust = verdict_on(latencies)
    assert trust.warm_up_runs <= 1000 / 3 and trust.verdict is TrustVerdict.UNSTABLE


def test_stationary_noise_has_no_warm_up_to_speak_of() -> None:
    found = sum(warm_up_runs(noise(600, seed)) > 0 for seed in range(100))
    assert found <= 20


# -------------------------------------------------------------------------------------------------------------- unstable


@pytest.mark.parametrize("size", [0.8, 1.15, 1.5])
def test_a_step_without_a_cause_is_unstable(size: float) -> None:
    for seed in range(10):
        latencies = [ms * (size if i >= 600 else 1.0) for i, ms in enumerate(noise(1000, seed, sigma=0.03))]
        trust = verdict_on(latencies)
        assert trust.verdict is TrustVerdict.UNSTABLE and "steps" in trust.reason
        assert any(abs(step.run - 600) <= 63 for step in trust.change_points)


def test_a_small_step_is_told_and_trusted() -> None:
    trust = verdict_on([ms * (1.07 if i >= 500 else 1.0) for i, ms in enumerate(noise(1000, 7, sigma=0.01))])
    assert trust.verdict is TrustVerdict.TRUSTED and len(trust.change_points) == 1


def test_two_steps_are_both_found() -> None:
    levels = [1.0, 1.4, 1.0]
    latencies = [ms * levels[i // 400] for i, ms in enumerate(noise(1200, 8))]
    first, second = verdict_on(latencies).change_points
    assert abs(first.run - 400) <= 25 and abs(second.run - 800) <= 25


def test_drift_without_a_step_is_unstable() -> None:
    latencies = [ms * (1 + 0.3 * i / 1000) for i, ms in enumerate(noise(1000, 9, sigma=0.1, phi=0.0))]
    found = drift([ns / 1e9 for ns in starts_of(latencies)], latencies)
    assert found is not None and found.low <= found.per_minute <= found.high
    assert found.over_run == pytest.approx(0.3, abs=0.06)
    assert verdict_on(latencies).verdict is TrustVerdict.UNSTABLE


def test_theil_sens_interval_covers_the_slope() -> None:
    """The truth lies in 95 % intervals about as often as said, with autocorrelated noise too."""
    covered = 0
    for seed in range(200):
        latencies = [ms * math.exp(0.2 * i / 480) for i, ms in enumerate(noise(480, seed, phi=0.8, spikes=0))]
        times = [i / 10 for i in range(480)]
        found = drift(times, latencies)
        assert found is not None
        covered += found.low <= math.expm1(0.2 * 600 / 480) <= found.high
    assert covered >= 168  # the estimate of the autocorrelation is short of the truth in small samples


def test_levels_that_alternate_are_unstable_by_their_wandering() -> None:
    latencies = [ms * (1.5 if i // 60 % 2 else 1.0) for i, ms in enumerate(noise(960, 10))]
    trust = verdict_on(latencies)
    assert trust.restlessness is not None and trust.restlessness > 0.1
    assert trust.verdict is TrustVerdict.UNSTABLE
    random.Random(0).shuffle(latencies)
    assert restlessness(latencies) < 0.1  # the same runs in another order hold still


def test_a_blip_is_not_a_step() -> None:
    latencies = [ms * (3.0 if 500 <= i < 540 else 1.0) for i, ms in enumerate(noise(1000, 11))]
    assert verdict_on(latencies).verdict is TrustVerdict.TRUSTED


def test_few_runs_are_not_called_stable() -> None:
    trust = verdict_on(noise(FEWEST_RUNS - 1, 12))
    assert trust.verdict is TrustVerdict.UNSTABLE and "too few" in trust.reason
    assert trust.drift_per_minute is None and trust.restlessness is None
    assert verdict_on(noise(FEWEST_RUNS, 12)).verdict is TrustVerdict.TRUSTED


# ------------------------------------------------------------------------------------------------------------- contended


def test_a_process_beside_the_run_is_contention() -> None:
    latencies = noise(1000, 13)
    trust = verdict_on(latencies, trace_of(latencies, cpus=2, others=lambda s: 1.0))
    assert trust.verdict is TrustVerdict.CONTENDED
    assert trust.conditions.others_share == pytest.approx(0.5, abs=0.05)
    assert "other processes took 50%" in trust.reason


def test_a_short_blip_beside_the_run_is_not() -> None:
    latencies = noise(2000, 14)
    blip = trace_of(latencies, cpus=2, others=lambda s: 1.0 if 3 <= s < 4 else 0.01)
    assert verdict_on(latencies, blip).verdict is TrustVerdict.TRUSTED
    longer = trace_of(latencies, cpus=2, others=lambda s: 1.0 if 3 <= s < 7 else 0.01)
    assert verdict_on(latencies, longer).verdict is TrustVerdict.CONTENDED


def test_work_on_cpus_that_are_not_ours_is_not_contention() -> None:
    latencies = noise(1000, 15)
    trace = trace_of(latencies, cpus=8, others=lambda s: 3.0)
    assert verdict_on(latencies, trace, usable_cpus=2).verdict is TrustVerdict.TRUSTED
    assert verdict_on(latencies, trace).verdict is TrustVerdict.CONTENDED


def test_our_own_threads_are_not_others() -> None:
    latencies = noise(1000, 16)
    assert verdict_on(latencies, trace_of(latencies, own=lambda s: 4.0, others=lambda s: 0.0)).verdict == "trusted"


def test_stolen_time_is_contention() -> None:
    latencies = noise(1000, 17)
    trust = verdict_on(latencies, trace_of(latencies, stolen=lambda s: 0.3))
    assert trust.verdict is TrustVerdict.CONTENDED and "hypervisor" in trust.reason
    assert verdict_on(latencies, trace_of(latencies, stolen=lambda s: 0.03)).verdict is TrustVerdict.TRUSTED


def test_being_preempted_is_contention() -> None:
    latencies = noise(1000, 18)
    trust = verdict_on(latencies, trace_of(latencies, preempted=lambda s: 250.0))
    assert trust.verdict is TrustVerdict.CONTENDED and "250 times a second" in trust.reason


def test_contention_explains_a_step() -> None:
    latencies = [ms * (1.8 if i >= 500 else 1.0) for i, ms in enumerate(noise(1000, 19))]
    trust = verdict_on(latencies, trace_of(latencies, cpus=2, others=lambda s: 1.5 if s >= 2.5 else 0.0))
    assert trust.verdict is TrustVerdict.CONTENDED and "steps" in trust.reason


# ------------------------------------------------------------------------------------------------------------- throttled


def slowed(runs: int, seed: int, at: int, ratio: float) -> tuple[list[float], float]:
    """Latencies that rise by `ratio` at run `at`, and the second when they do."""
    latencies = [ms * (ratio if i >= at else 1.0) for i, ms in enumerate(noise(runs, seed))]
    return latencies, sum(latencies[:at]) / 1e3


def test_a_clock_that_falls_with_latency_rising_is_throttling() -> None:
    latencies, at = slowed(2000, 20, 800, 1.25)
    trust = verdict_on(latencies, trace_of(latencies, khz=lambda s: 1.8e6 if s < at else 1.44e6))
    assert trust.verdict is TrustVerdict.THROTTLED
    assert "from 1800 to 1440 MHz" in trust.reason and "latency rose by 25%" in trust.reason


def test_a_small_fall_counts_only_when_it_is_felt() -> None:
    def clock(s: float) -> float:
        return 1.8e6 if s < 4 else 1.64e6

    felt, _ = slowed(2000, 21, 800, 1.1)
    unfelt = noise(2000, 21)
    assert verdict_on(felt, trace_of(felt, khz=clock)).verdict is TrustVerdict.THROTTLED
    assert verdict_on(unfelt, trace_of(unfelt, khz=clock)).verdict is TrustVerdict.TRUSTED


def test_a_large_fall_counts_alone() -> None:
    latencies = noise(2000, 22)
    trust = verdict_on(latencies, trace_of(latencies, khz=lambda s: 1.8e6 if s < 4 else 1.2e6))
    assert trust.verdict is TrustVerdict.THROTTLED and "latency" not in trust.reason.split(";")[0]


def test_a_slow_fall_after_minutes_is_throttling() -> None:
    latencies = [ms * min(1.4, max(1.0, i / 1000)) for i, ms in enumerate(noise(3000, 23, ms=100.0))]
    trust = verdict_on(latencies, trace_of(latencies, khz=lambda s: 1.8e6 / min(1.4, max(1.0, s / 100)), every_ms=500))
    assert trust.verdict is TrustVerdict.THROTTLED


def test_an_idle_clusters_clock_does_not_count() -> None:
    latencies = noise(1000, 24)
    trace = [
        replace(p, khz=(1_800_000 if i < 10 else 408_000, 2_400_000, None)) for i, p in enumerate(trace_of(latencies))
    ]
    assert verdict_on(latencies, trace).verdict is TrustVerdict.TRUSTED


def test_a_clock_that_rests_between_rare_runs_is_not_throttled() -> None:
    latencies = noise(1000, 25)
    trace = trace_of(latencies, own=lambda s: 0.1, khz=lambda s: 1.8e6 if s < 1 else 0.6e6)
    trust = verdict_on(latencies, trace, governor="ondemand")
    assert trust.verdict is TrustVerdict.TRUSTED
    assert any("idle" in notice for notice in trust.notices) and any("ondemand" in notice for notice in trust.notices)


@pytest.mark.parametrize(
    ("flags", "counts", "throttled"),
    [
        ((0x0, 0x2), (None, None), "the frequency capped"),
        ((0x50000, 0x50005), (None, None), "under-voltage, throttling"),
        ((0x0, 0x80000), (None, None), "the soft temperature limit"),  # between two looks
        ((None, None), (7, 9), "thermal throttling"),
        ((0x50000, 0x50000), (7, 7), ""),  # long ago
        ((0x0, 0x0), (0, 0), ""),
        ((None, None), (None, None), ""),
    ],
)
def test_what_the_machine_reports_is_believed(
    flags: tuple[int | None, ...], counts: tuple[int | None, ...], throttled: str
) -> None:
    latencies = noise(1000, 26)
    trace = [
        replace(p, millideg=(None, 84_500), throttle_flags=flags[i >= 20], throttle_count=counts[i >= 20])
        for i, p in enumerate(trace_of(latencies))
    ]
    trust = verdict_on(latencies, trace)
    assert (trust.verdict is TrustVerdict.THROTTLED) == bool(throttled)
    assert not throttled or trust.reason == f"the machine reports {throttled} at up to 84 °C"


def test_the_governor_is_a_notice_only() -> None:
    latencies = noise(1000, 27)
    trust = verdict_on(latencies, governor="schedutil")
    assert trust.verdict is TrustVerdict.TRUSTED and any("schedutil" in notice for notice in trust.notices)
    assert verdict_on(latencies, governor="performance").notices == ()


# --------------------------------------------------------------------------------------------------------- what is untold


def test_a_machine_without_a_clock_says_so() -> None:
    latencies = noise(1000, 28)
    trust = verdict_on(latencies, trace_of(latencies, khz=None))
    assert trust.verdict is TrustVerdict.TRUSTED and trust.conditions.clock is None
    assert trust.notices == ("this machine does not tell its clock: a fall of it cannot be seen",)


def test_no_trace_is_said_and_not_guessed() -> None:
    trust = verdict_on(noise(1000, 29), [])
    assert trust.conditions.others_share is None and len(trust.notices) == 1
    assert "no conditions were sampled" in trust.notices[0]


def test_counters_that_are_not_told_or_run_backwards_are_no_evidence() -> None:
    points = [point(t, cpu_jiffies=CpuJiffies(user=100 - t // 100, system=0)) for t in range(0, 5000, 100)]
    conditions = summarize(Trace(tuple(points)))
    assert conditions.others_share is None and conditions.stolen_share is None and conditions.preemptions is None


@pytest.mark.parametrize(("starts", "latencies"), [([], []), ([0], [1, 2]), ([0], [0]), ([0], [-1])])
def test_impossible_series_are_refused(starts: list[int], latencies: list[int]) -> None:
    with pytest.raises(ValueError):
        judge(starts, latencies, Trace())


# -------------------------------------------------------------------------------------------------------------- sustained


def test_minute_one_against_the_last() -> None:
    latencies = [ms * (1.3 if i >= 1500 else 1.0) for i, ms in enumerate(noise(3000, 30, ms=100.0))]
    starts, ns = starts_of(latencies), [round(ms * 1e6) for ms in latencies]
    found = sustained(starts, ns)
    assert found is not None
    assert found.ratio == pytest.approx(1.3, rel=0.02)
    assert found.low <= found.ratio <= found.high and found.high - found.low < 0.05
    assert found.first_ms == pytest.approx(100, rel=0.02)


def test_two_equal_minutes_have_one_inside_the_interval() -> None:
    inside = 0
    for seed in range(40):
        latencies = noise(1500, seed, ms=100.0)
        found = sustained(starts_of(latencies), [round(ms * 1e6) for ms in latencies])
        assert found is not None
        inside += found.low <= 1.0 <= found.high
    assert inside >= 34


def test_a_run_under_two_minutes_is_not_sustained() -> None:
    assert sustained([0, MINUTE_NS, 2 * MINUTE_NS - 1], [1, 1, 1]) is None
    assert sustained([0, MINUTE_NS, 2 * MINUTE_NS], [1, 1, 1]) is not None
    assert sustained([], []) is None


# --------------------------------------------------------------------------------------------------------------- recorded


def recorded(name: str) -> tuple[list[int], list[int], list[TracePoint]]:
    """A trace of a real machine: starts and latencies in ns, readings."""
    data = json.loads((TRACES / f"{name}.json").read_text())
    latencies = [us * 1000 for us in data["latencies_us"]]
    stretch = data["wall_ms"] * 1e6 / sum(latencies)
    starts = [round(ns * stretch) for ns in starts_of([ns / 1e6 for ns in latencies])]
    rows = [dict(zip(data["trace_columns"], row, strict=True)) for row in data["trace"]]
    return starts, latencies, [point_of(row) for row in rows]


def point_of(row: dict[str, int]) -> TracePoint:
    jiffies = CpuJiffies(row["busy"], 0, row["idle"], 0, row["steal"])
    return point(row["t_ms"], row["own_cpu_ns"], row["involuntary_switches"], cpu_jiffies=jiffies)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("quiet", TrustVerdict.TRUSTED),
        ("quiet-two-threads", TrustVerdict.TRUSTED),
        ("busy-beside", TrustVerdict.CONTENDED),
        ("busy-on-both", TrustVerdict.CONTENDED),
    ],
)
def test_recorded_runs(name: str, expected: TrustVerdict) -> None:
    starts, latencies, trace = recorded(name)
    trust = judge(starts, latencies, Trace(tuple(trace)))
    assert trust.verdict is expected, trust.reason
    assert "this machine does not tell its clock: a fall of it cannot be seen" in trust.notices


def test_of_very_many_runs_some_are_judged_and_all_counted() -> None:
    pattern = noise(5000, 32, ms=1.0)
    latencies = [pattern[i % 5000] * (1.3 if i >= 300_000 else 1.0) for i in range(450_000)]
    trust = verdict_on(latencies, [])
    (step,) = trust.change_points
    assert abs(step.run - 300_000) < 20_000 and trust.verdict is TrustVerdict.UNSTABLE
    assert trust.latency_ms.count == 450_000 and trust.latency_ms.p999 is not None


def test_a_change_points_run_counts_from_the_first_run() -> None:
    latencies = [ms * (4.0 if i < 100 else 1.5 if i >= 700 else 1.0) for i, ms in enumerate(noise(1200, 33))]
    trust = verdict_on(latencies)
    assert trust.warm_up_runs == pytest.approx(100, abs=5)
    (step,) = trust.change_points
    assert step.run == pytest.approx(700, abs=30)
    assert step.at_s == pytest.approx(sum(latencies[: step.run]) / 1e3, rel=0.01)


def test_steps_of_a_long_series_are_found_in_reasonable_time() -> None:
    latencies = [ms * (1.2 if i >= 100_000 else 1.0) for i, ms in enumerate(noise(200_000, 31, ms=1.0))]
    found = steps([ns / 1e9 for ns in starts_of(latencies)], latencies)
    assert len(found) == 1 and abs(found[0].run - 100_000) < 5000
