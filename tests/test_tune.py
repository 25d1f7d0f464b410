"""The search over settings on a simulated machine: what it finds, what that costs, and that a killed one goes on.

The machine is simulated because none here is twice the same: its noise is a function of heat, round and point, so that a search
that is killed and taken up again meets what it would have met.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgekit.core.elimination import Turn
from edgekit.core.results import Load, Memory
from edgekit.core.tradeoffs import Setting
from edgekit.core.types import LatencyBudget, Prefer, Requirements
from edgekit.errors import DeviceError, ResourceLimit
from edgekit.flow import tune
from edgekit.flow.journal import open_journal
from edgekit.flow.points import Spot
from edgekit.flow.tune import Trails, _Search
from edgekit.flow.tuned import explored
from edgekit.heat import Loaded, Ran

MEMORY = 1 << 25
REFERENCE = Spot("ort-fp32", Setting(2))
CANDIDATES = {"ort-fp32": 1.0, "ort-int8": 0.6, "ov-int8": 0.5}


def true_figures(name: str) -> tuple[float, float]:
    """Latency of a request and time a sample of a point, in ms, without noise: streams and batches pay, and cost latency."""
    candidate, threads, streams, batch, *options = name.split()
    t, s, b = (int(word[1:]) for word in (threads, streams, batch))
    lanes = min(2, t if candidate.startswith("ov") else s + t - 1)
    alone = CANDIDATES[candidate] * (0.3 + 0.7 * b) / (1 if s > 1 else lanes**0.6)
    alone *= {"arena=0": 1.08, "session.intra_op.allow_spinning=0": 1.3, "ENABLE_CPU_PINNING=YES": 0.97}.get(
        "".join(options), 1.0
    )
    latency = alone * (1.15 if s > 1 else 1.0)
    return latency, latency / (b * s)


@dataclass
class Machine:
    """Stands in for heats on a device; dies by `killed` at its turn number `dies_at`."""

    seed: int = 0
    noise: float = 0.03
    dies_at: int | None = None
    killed: type[BaseException] = KeyboardInterrupt
    broken: str = ""
    tail: str = "none"  # points so called have a run in thirty that takes ten times as long
    turns: list[tuple[str, float]] = field(default_factory=list)
    heats: int = 0
    rounds: dict[str, int] = field(default_factory=dict)

    def heat(self, _device: object) -> "Machine":
        return self

    def __enter__(self) -> "Machine":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def leave(self, name: str) -> None:
        pass

    def turn(self, entry: Any, turn_ms: float) -> Ran:
        if self.dies_at is not None and len(self.turns) == self.dies_at:
            self.dies_at = None
            raise self.killed("the link is gone")
        if entry.name == self.broken:
            raise ResourceLimit("the runner crashed", where=entry.name)
        self.turns.append((entry.name, turn_ms))
        rng = random.Random(f"{self.seed} {entry.at} {entry.name}")
        latency, sample = true_figures(entry.name)
        factor = math.exp(rng.gauss(0, self.noise))
        count = max(1, min(80, round(turn_ms / latency)))
        ns = int(latency * 1e6 * factor)
        batch = int(entry.name.split()[3][1:])
        slow = 10 if self.tail in f"{entry.name} " else 1
        latencies = tuple(ns * slow if rng.random() < 1 / 30 else ns for _ in range(count))
        turn = Turn(latencies, int(sample * 1e6 * factor * count * batch), count * batch, MEMORY)
        load = Load(1.0, None, 2.0, 3.0, 10.0)
        return Ran(turn, Loaded(load, {}, {}), Memory(1, 2, 3, MEMORY))


class Place:
    """The space of three candidates on two cores."""

    entrants = tuple(CANDIDATES)
    reference = REFERENCE
    now: tuple[int, int] = (0, 0)

    def __init__(self) -> None:
        self.outcomes = {
            name: SimpleNamespace(
                artifact=SimpleNamespace(size_bytes=1000), accuracy=SimpleNamespace(drop=0.0), measurement=None
            )
            for name in CANDIDATES
        }

    def engine(self, candidate: str) -> str:
        return "openvino" if candidate.startswith("ov") else "onnxruntime"

    def plain(self) -> list[Spot]:
        found = []
        for name in CANDIDATES:
            pairs = ((1, 1), (2, 1), (2, 2)) if name.startswith("ov") else ((1, 1), (2, 1), (1, 2))
            found += [Spot(name, Setting(t, s, b)) for t, s in pairs for b in (1, 2, 4, 8)]
        return [spot for spot in found if spot != REFERENCE]

    def entry(self, spot: Spot) -> Any:
        return SimpleNamespace(name=spot.name, at=Place.now)


@pytest.fixture
def searching(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Trails]:
    """Run a search on a machine, with its journal in a file of the given name."""
    real = _Search._round

    def noted(self: _Search, heat: Any, at: tuple[int, int], order: Any, turn_ms: float) -> None:
        Place.now = at
        real(self, heat, at, order, turn_ms)

    monkeypatch.setattr(_Search, "_round", noted)

    def run(machine: Machine, journal: str = "a", seed: int = 0, **how: Any) -> Trails:
        monkeypatch.setattr(tune, "Heat", machine.heat)
        device = SimpleNamespace(most_talks=64)
        shop = SimpleNamespace(progress=lambda _: None, device=device, facts=SimpleNamespace(ram_bytes=1 << 34))
        left = how.pop("left_s", lambda: 1e9)
        everything = how.pop("everything", False)
        book = open_journal(tmp_path / journal, fresh=False)
        asked = how.pop("requirements", Requirements())
        return _Search(shop, asked, Place(), 1.02, book, seed, left, everything).run()  # type: ignore[arg-type]

    return run


def ends(trails: Trails, requirements: Requirements | None = None) -> tuple[str, str]:
    record = explored(trails, requirements or Requirements(), 0)
    return record.latency_choice, record.throughput_choice


def true_best(trails: Trails) -> tuple[float, float]:
    everything = [*(s.name for s in Place().plain()), REFERENCE.name]
    pinned = [f"{n} ENABLE_CPU_PINNING=YES" for n in everything if n.startswith("ov") and " t2 " in n]
    figures = [true_figures(name) for name in [*everything, *pinned]]
    return min(f[0] for f in figures), min(f[1] for f in figures)


def test_both_ends_are_found_at_a_third_of_the_time(searching: Callable[..., Trails]) -> None:
    near, spent, whole = 0, 0.0, 0.0
    for seed in range(3):
        quick, full = Machine(seed), Machine(seed)
        latency, throughput = ends(trails := searching(quick, f"q{seed}", seed))
        searching(full, f"f{seed}", seed, everything=True)
        least = true_best(trails)
        near += true_figures(latency)[0] <= least[0] * 1.05 and true_figures(throughput)[1] <= least[1] * 1.05
        spent += sum(ms for _, ms in quick.turns)
        whole += sum(ms for _, ms in full.turns)
    assert near == 3
    assert spent <= whole / 3


def test_the_ends_differ_and_each_is_on_the_front(searching: Callable[..., Trails]) -> None:
    record = explored(searching(Machine()), Requirements(), 0)
    assert record.latency_choice.startswith("ov-int8 t2 s1 b1")
    assert record.throughput_choice.startswith("ov-int8 t2 s2 b8")
    assert {record.knee, record.throughput_choice} <= set(record.front)
    assert record.space > len(record.points)  # options of points far from either end are not begun


def test_every_point_says_what_it_was_dropped_by(searching: Callable[..., Trails]) -> None:
    record = explored(searching(Machine()), Requirements(), 0)
    dropped = [p for p in record.points if p.ended != "measured"]
    assert dropped
    assert all(p.ended.startswith("dropped: latency ") and "95%" in p.ended and " of o" in p.ended for p in dropped)


def test_a_search_killed_ten_times_ends_with_the_same_choice(searching: Callable[..., Trails]) -> None:
    alone = explored(searching(Machine(), "alone"), Requirements(), 0)
    total = sum(p.rounds for p in alone.points)
    rng, kills = random.Random(7), 0
    while True:
        machine = Machine(dies_at=rng.randrange(1, total // 8))
        try:
            trails = searching(machine, "killed")
            break
        except KeyboardInterrupt:
            kills += 1
    assert kills >= 5
    assert replace(explored(trails, Requirements(), 0), seconds=alone.seconds) == alone


def test_a_lost_device_ends_the_search_and_the_next_goes_on(searching: Callable[..., Trails]) -> None:
    alone = ends(searching(Machine(), "alone"))
    with pytest.raises(DeviceError):
        searching(Machine(dies_at=60, killed=DeviceError), "lost")
    again = Machine()
    assert ends(searching(again, "lost")) == alone
    whole = Machine()
    searching(whole, "whole")
    assert len(again.turns) < len(whole.turns) - 40


def test_a_journal_that_was_cut_is_read_as_far_as_it_goes(searching: Callable[..., Trails], tmp_path: Path) -> None:
    alone = ends(searching(Machine(), "alone"))
    data = (tmp_path / "alone").read_bytes()
    (tmp_path / "cut").write_bytes(data[: len(data) // 2])
    assert ends(searching(Machine(), "cut")) == alone


def test_a_search_that_is_known_measures_nothing(searching: Callable[..., Trails]) -> None:
    first = ends(searching(Machine()))
    again = Machine()
    assert ends(searching(again)) == first
    assert again.turns == []


def test_without_time_the_best_known_is_named(searching: Callable[..., Trails]) -> None:
    machine = Machine()
    trails = searching(machine, left_s=lambda: 60.0 - len(machine.turns))
    record = explored(trails, Requirements(), 0)
    assert "the time was over" in record.ended
    assert record.latency_choice in trails.tracks
    later = Machine()
    assert ends(searching(later)) == ends(searching(Machine(), "whole"))  # with more time it goes on


def test_a_point_that_crashes_loses_its_place_only(searching: Callable[..., Trails]) -> None:
    trails = searching(Machine(broken="ov-int8 t2 s2 b8"))
    record = explored(trails, Requirements(), 0)
    assert record.throughput_choice.startswith("ov-int8 t2 s2 b")
    assert record.throughput_choice != "ov-int8 t2 s2 b8"
    assert "1 could not be run, ov-int8 t2 s2 b8: ov-int8 t2 s2 b8: the runner crashed" in record.ended


def test_the_reference_that_crashes_ends_it(searching: Callable[..., Trails]) -> None:
    with pytest.raises(ResourceLimit):
        searching(Machine(broken=REFERENCE.name))


def test_a_latency_budget_bounds_the_throughput_choice(searching: Callable[..., Trails]) -> None:
    asked = Requirements(latency=LatencyBudget(1.0, "p99"), prefer=Prefer.THROUGHPUT)
    trails = searching(Machine(noise=0.01), requirements=asked)
    _, throughput = ends(trails, asked)
    assert true_figures(throughput)[0] <= 1.0
    assert " b8" not in throughput


def test_a_tail_beyond_the_budget_is_no_end_though_the_median_is_within(searching: Callable[..., Trails]) -> None:
    asked = Requirements(latency=LatencyBudget(8.0, "p99"), prefer=Prefer.THROUGHPUT)
    _, sound = ends(searching(Machine(), "sound", requirements=asked), asked)
    _, tailed = ends(searching(Machine(tail=" b8 "), "tailed", requirements=asked), asked)
    assert " b8" in sound
    assert " b4" in tailed


def test_the_same_seed_tries_the_same_order(searching: Callable[..., Trails]) -> None:
    one, same, other = Machine(), Machine(), Machine()
    for machine, name, seed in ((one, "1", 0), (same, "2", 0), (other, "3", 1)):
        searching(machine, name, seed)
    assert one.turns == same.turns
    assert one.turns != other.turns
