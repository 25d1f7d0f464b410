"""A point leaves a search only when intervals say that it is the best in no direction."""

import random

import pytest

from edgekit.core.elimination import (
    COST,
    LATENCY,
    LEAST_ROUNDS,
    Track,
    Turn,
    beaten_by,
    compared,
    eliminate,
    fall_behind,
    paired,
    surely_more,
)

ROUNDS = 8


def track(
    name: str, latency_ms: float, sample_ms: float, *, noise: float = 0.02, memory: int = 1 << 25, heat: int = 0, seed: int = 1,
    drop: float = 0.0, rounds: int = ROUNDS, drift: float = 0.0, size: int = 1000,
) -> Track:  # fmt: skip
    """Rounds of a point; `drift` is how much slower the machine gets by the last one, for all alike."""
    rng, found = random.Random(f"{name} {seed}"), Track(name, size, drop)
    for i in range(rounds):
        factor = (1 + rng.gauss(0, noise)) * (1 + drift * i / rounds)
        ns = int(latency_ms * 1e6 * factor)
        found.add((heat, i), Turn((ns, ns, ns), int(sample_ms * 1e6 * 300 * factor), 300, memory))
    return found


def test_what_is_surely_worse_in_both_is_beaten() -> None:
    reference, good, bad = track("ref", 10, 10), track("good", 5, 5), track("bad", 6, 6)
    assert [t.name for t in eliminate([reference, good, bad], reference)] == ["bad"]
    assert "1.2" in bad.beaten and "of good" in bad.beaten


def test_what_is_better_in_one_stays() -> None:
    reference, quick, wide = track("ref", 10, 10), track("quick", 5, 5), track("wide", 20, 3)
    assert eliminate([reference, quick, wide], reference) == []


@pytest.mark.parametrize("field", ["memory", "drop", "size"])
def test_what_costs_less_of_anything_else_stays(field: str) -> None:
    reference = track("ref", 10, 10)
    good = track("good", 5, 5, memory=1 << 26, drop=0.01, size=2000)
    bad = track(
        "bad", 8, 8, **{"memory": 1 << 26, "drop": 0.01, "size": 2000, field: {"memory": 1 << 25}.get(field, 0)}
    )
    assert eliminate([reference, good, bad], reference) == []
    assert beaten_by(track("bad", 8, 8, memory=1 << 26, drop=0.01, size=2000), good, reference)


def test_too_few_rounds_tell_nothing() -> None:
    reference, good = track("ref", 10, 10), track("good", 5, 5)
    short = track("short", 50, 50, rounds=LEAST_ROUNDS - 1)
    assert compared(short, good, reference, LATENCY) is None
    assert eliminate([reference, good, short], reference) == []


def test_noise_that_hides_the_difference_keeps_both() -> None:
    reference, good, close = track("ref", 10, 10), track("good", 5, 5, noise=0.2), track("close", 5.2, 5.2, noise=0.2)
    assert eliminate([reference, good, close], reference) == []


def test_drift_that_hits_all_alike_is_no_difference() -> None:
    """Unpaired, the drift of 60 % would hide the 10 %."""
    reference, good, bad = (
        track(n, ms, ms, drift=0.6, noise=0.01) for n, ms in (("ref", 10), ("good", 5), ("bad", 5.5))
    )
    found = paired(bad, good, LATENCY)
    assert found is not None and 1.05 < found.low < found.high < 1.15
    assert [t.name for t in eliminate([reference, good, bad], reference)] == ["bad"]


def test_points_of_different_heats_meet_in_the_reference() -> None:
    """The second heat's machine is half as fast: by itself that would make `late` the slower one."""
    reference, early = track("ref", 10, 10), track("early", 6, 6)
    for i in range(ROUNDS):
        reference.add((1, i), Turn((20_000_000,) * 3, 20_000_000 * 300, 300))
    late = track("late", 10, 10, heat=1)
    assert paired(early, late, LATENCY) is None
    assert surely_more(early, late, reference, LATENCY)
    assert not surely_more(late, early, reference, LATENCY)


def test_the_reference_is_never_beaten() -> None:
    reference, good = track("ref", 10, 10), track("good", 5, 5)
    assert eliminate([reference, good], reference) == []
    assert not reference.beaten


def test_who_falls_behind_at_an_end_may_lead_at_the_other() -> None:
    reference, quick, wide = track("ref", 10, 10), track("quick", 5, 5), track("wide", 20, 3)
    for axis in (LATENCY, COST):
        fall_behind([reference, quick, wide], reference, axis)
    assert quick.behind == {COST} and wide.behind == {LATENCY} and reference.behind == {LATENCY, COST}


def test_the_best_of_many_is_rarely_beaten_by_chance() -> None:
    """Twenty points of three noisy rounds each, the best 5 % ahead: what leaves is hardly ever the best."""
    lost = 0
    for seed in range(100):
        reference = track("ref", 10, 10, seed=seed, rounds=3)
        points = [track(f"p{i}", 5.25, 5.25, noise=0.04, seed=seed, rounds=3) for i in range(20)]
        best = track("best", 5, 5, noise=0.04, seed=seed, rounds=3)
        eliminate([reference, best, *points], reference)
        lost += bool(best.beaten)
    assert lost <= 3
