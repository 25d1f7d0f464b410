"""The search over settings against measuring all of them, against a grid as Olive's, and against OpenVINO's hints.

    python -m benchmarks.settings ZOO [--only NAME ...] [--least] [--kills N] [--write]

ZOO is what `python -m benchmarks.models` made; `sample` is the shipped digit classifier. Bars, exit 1 when one is missed:

- each end of the search is within 5 % of the same end of all points measured to a final's rounds, in at most a third of the time;
- the throughput end has at least 1.2 times the throughput of the latency end on two models or more;
- at both ends the search is at least as good, within 5 %, as the best of the grid and as OpenVINO by its hint;
- a search killed N times at random moments (10) ends with the choice of one left alone, or one equal to it within 5 %.

Two points are compared by a duel: both alive at a time, ROUNDS rounds in turn. What is built is built before either clock runs. The
grid is that of Olive's `tune-session-params` on the unmodified model: threads, execution mode, graph optimization. OpenVINO is
asked which streams and threads a hint means, and those are run by ekrun, so that one clock measures all. `--least` tries the
benchmark itself: fp32 and one batch only.
"""

import argparse
import contextlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.page import machine, table, write_section
from edgekit.core import space as space_module
from edgekit.core.elimination import COST, LATENCY, Track, bootstrapped
from edgekit.core.plan import Facts, make_plan
from edgekit.core.recipes import RECIPES, REFERENCE
from edgekit.core.results import Outcome
from edgekit.core.run import Noise
from edgekit.core.tradeoffs import Exploration, Setting
from edgekit.core.types import Prefer, Requirements
from edgekit.devices.local import LocalDevice
from edgekit.flow.aim import take_aim
from edgekit.flow.build import build_all, refusals
from edgekit.flow.clock import Job, measure_all
from edgekit.flow.judge import Judge, judge_all
from edgekit.flow.materials import Options, gather
from edgekit.flow.points import Space, Spot
from edgekit.flow.runs import read_run
from edgekit.flow.sample import sample_model
from edgekit.flow.tune import Trails, search
from edgekit.flow.tuned import explored
from edgekit.flow.workshop import SELECTION, Made, Workshop, builder_versions
from edgekit.heat import Entry, Heat
from edgekit.measure import device_facts, fact_sheet
from edgekit.store import Cache, default_cache

MODELS = ("sample", "rapidocr-det", "rapidocr-rec", "magika", "basic-pitch")
ENDS = {Prefer.LATENCY: LATENCY, Prefer.THROUGHPUT: COST}
ROUNDS, TURN_MS = 25, 100.0
NEAR, SHARE, GAIN = 1.05, 1 / 3, 1.2
LEAST = {"least": False}


@dataclass(frozen=True)
class Stand:
    """A model with its candidates, judged and raced, on this machine."""

    name: str
    shop: Workshop
    job: Job
    made: dict[str, Made]
    outcomes: tuple[Outcome, ...]
    noise: Noise | None

    def search(self, prefer: Prefer, *, everything: bool = False) -> Trails:
        job = replace(self.job, requirements=replace(self.job.requirements, prefer=prefer))
        sheet = fact_sheet(self.shop.device)
        found = search(
            *(self.shop, job, self.made, self.outcomes, self.noise, sheet),
            seed=0,
            left_s=lambda: 1e9,
            everything=everything,
        )
        assert found is not None
        return found


@dataclass(frozen=True)
class Row:
    """What one model came to: each end's point, and how it stands against each rival (above 1: the rival is better)."""

    name: str
    ends: dict[Prefer, str]
    against: dict[Prefer, dict[str, float]]
    share: float
    gain: float


@contextlib.contextmanager
def stand(name: str, zoo: Path) -> Iterator[Stand]:
    """The candidates of a model as `edgekit optimize` has them when it begins to search settings."""
    model, data = sample_model(Path.cwd()) if name == "sample" else (zoo / name / "model.onnx", zoo / name / "data")
    requirements = Requirements(forbid=_forbidden())
    store = Cache(default_cache())
    with store.scratch() as scratch:
        shop = Workshop(store, scratch, LocalDevice(scratch), _say, fresh=True)
        aim = take_aim("host", None, device_facts(shop.host), Path.cwd())
        info, materials = gather(shop, model, data, Options())
        info = replace(info, refusals=refusals(aim.target.engines, materials.model, _say))
        threads = shop.facts.usable_threads
        facts = Facts(materials.model_sha256, shop.facts.isa, materials.calibration_sha256, builder_versions(), threads)
        made, outcomes = build_all(shop, make_plan(info, aim.target, requirements, facts), materials, info)
        judge = Judge(shop, materials, made[REFERENCE], Path.cwd())
        outcomes = judge_all(judge, shop, made, outcomes, SELECTION)
        job = Job(info, materials, aim.target, aim.origin, requirements)
        outcomes, noise = measure_all(shop, job, made, outcomes)
        yield Stand(name, shop, job, dict(made), outcomes, noise)


def _forbidden() -> tuple[str, ...]:
    return tuple(name for name in RECIPES if name not in (REFERENCE, "ov-f32")) if LEAST["least"] else ()


def _say(text: str) -> None:
    print(f"\r{text[:100]:<100}", end="", file=sys.stderr, flush=True)


# --------------------------------------------------------------------------------------------------------------- rivals


def measure(one: Stand) -> Row:
    """Search, measure all, and duel."""
    space = Space(one.shop, one.job, one.made, one.outcomes, fact_sheet(one.shop.device), 1.02)
    for spot in space.plain():
        space.entry(spot)  # builds
    whole = one.search(Prefer.LATENCY, everything=True)
    all_points = explored(whole, one.job.requirements, 0)
    against: dict[Prefer, dict[str, float]] = {}
    ends, seconds = {}, []
    for prefer in ENDS:
        trails = one.search(prefer)
        record = explored(trails, replace(one.job.requirements, prefer=prefer), 0)
        seconds.append(trails.seconds)
        ends[prefer] = _end(record, prefer)
        own = _entry(trails, ends[prefer])
        rivals = {
            "all": _entry(whole, _end(all_points, prefer)),
            **_grid(space, one, prefer),
            **_hinted(space, one, prefer),
        }
        against[prefer] = {}
        groups: dict[str, list[Entry]] = {}
        for rival, entry in rivals.items():
            groups.setdefault(rival.split(":")[0], []).append(entry)
        for group, entries in groups.items():
            against[prefer][group] = max(_duel(one, own, entry, ENDS[prefer]) for entry in entries)
    latency, throughput = (_entry(whole, ends[prefer]) for prefer in ENDS)
    gain = _duel(one, latency, throughput, COST) if latency.name != throughput.name else 1.0
    return Row(one.name, ends, against, max(seconds) / whole.seconds, gain)


def _end(record: Exploration, prefer: Prefer) -> str:
    return record.latency_choice if prefer is Prefer.LATENCY else record.throughput_choice


def _entry(trails: Trails, name: str) -> Entry:
    found = trails.space.entry(trails.spots[name])
    assert isinstance(found, Entry), found
    return found


def _grid(space: Space, one: Stand, prefer: Prefer) -> dict[str, Entry]:
    """The grid's points, which differ in threads, execution mode and graph optimization."""
    cores = one.shop.facts.usable_threads
    found = {}
    for threads in sorted({1, cores}):
        for mode in ("sequential", "parallel"):
            for level in ("basic", "extended", "all"):
                options = {"execution_mode": mode, "graph_optimization": level}
                if mode == "parallel":
                    options["inter_op_threads"] = str(cores)
                spot = Spot(REFERENCE, Setting(threads, options=options))
                entry = space.entry(spot)
                assert isinstance(entry, Entry), entry
                found[f"grid:{spot.name}"] = entry
    return found if not LEAST["least"] else dict(list(found.items())[:2])


def _hinted(space: Space, one: Stand, prefer: Prefer) -> dict[str, Entry]:
    """OpenVINO in fp32 with the streams and threads that its hint means on this machine."""
    if "ov-f32" not in one.made or not any(o.name == "ov-f32" and o.measurement for o in one.outcomes):
        return {}
    import openvino

    hint = {Prefer.LATENCY: "LATENCY", Prefer.THROUGHPUT: "THROUGHPUT"}[prefer]
    core = openvino.Core()
    model = core.read_model(str(one.made["ov-f32"].runnable.model))
    compiled = core.compile_model(model, "CPU", {"PERFORMANCE_HINT": hint, "INFERENCE_PRECISION_HINT": "f32"})
    streams = max(1, int(compiled.get_property("NUM_STREAMS")))
    threads = max(streams, int(compiled.get_property("INFERENCE_NUM_THREADS")) or one.shop.facts.usable_threads)
    entry = space.entry(Spot("ov-f32", Setting(threads, streams)))
    assert isinstance(entry, Entry), entry
    return {"hint": entry}


def _duel(one: Stand, own: Entry, rival: Entry, axis: str) -> float:
    """How many times better the rival is, by rounds of both."""
    if own.name == rival.name:
        return 1.0
    sides = [Track(entry.name, 0, None) for entry in (own, rival)]
    with Heat(one.shop.device) as heat:
        for i in range(ROUNDS if not LEAST["least"] else 5):
            pairs = list(zip((own, rival), sides, strict=True))
            for entry, track in pairs if i % 2 else reversed(pairs):
                _say(f"duel of {own.name} and {rival.name}, round {i + 1}")
                track.add((0, i), heat.turn(entry, TURN_MS).turn)
    return bootstrapped(sides[0], sides[1], axis, 0).value


# ---------------------------------------------------------------------------------------------------------------- kills


def killed(zoo: Path, kills: int) -> tuple[str, str, int]:
    """The choice of a search left alone, and of one that was killed at random moments, and how often that was."""
    model, data = sample_model(Path.cwd())
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        cache, out = Path(folder) / "cache", Path(folder) / "run"
        words = [sys.executable, "-m", "edgekit", "--cache", str(cache), "optimize", str(model), "--data", str(data)]
        words += ["--explore", "--prefer", "throughput", "-o", str(out)]
        for name in _forbidden():
            words += ["--forbid", name]
        subprocess.run(words, check=True, capture_output=True)
        alone = read_run(out).exploration
        assert alone is not None
        for left in (cache / "unfinished" / "settings").iterdir():
            left.unlink()
        done = 0
        while done < kills:
            with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
                _say(f"kill {done + 1} of {kills}")
                time.sleep(rng.uniform(1.0, max(2.0, alone.seconds / kills * 2)))
                if process.poll() is not None:
                    break
                process.send_signal(signal.SIGKILL)
                done += 1
        subprocess.run(words, check=True, capture_output=True)
        resumed = read_run(out).exploration
        assert resumed is not None
        return alone.throughput_choice, _same(alone, resumed), done


def _same(alone: Exploration, resumed: Exploration) -> str:
    """The resumed choice, or the other's where both are equal by either's figures."""
    figures = {p.candidate + str(p.setting): p.throughput_ips for p in alone.points}
    points = {name: p for record in (alone, resumed) for p in record.points for name in [_name(p)]}
    one, other = (points.get(r.throughput_choice) for r in (alone, resumed))
    assert one is not None and other is not None
    a, b = (figures.get(p.candidate + str(p.setting)) for p in (one, other))
    equal = a is not None and b is not None and a <= b * NEAR
    return alone.throughput_choice if equal else resumed.throughput_choice


def _name(point: object) -> str:
    from edgekit.core.tradeoffs import Point, key

    assert isinstance(point, Point)
    return key(point)


# ----------------------------------------------------------------------------------------------------------------- page


def rows(found: Sequence[Row]) -> str:
    """The table: above 1 a rival is better at that end."""
    lines = []
    for row in found:
        for prefer in ENDS:
            ratios = [f"{row.against[prefer].get(name, float('nan')):.2f}" for name in ("all", "grid", "hint")]
            lines.append(
                [row.name, prefer.value, f"`{row.ends[prefer]}`", *ratios, f"{row.share:.2f}", f"{row.gain:.2f}"]
            )
    heads = [
        "model",
        "end",
        "choice",
        "all / choice",
        "grid / choice",
        "hint / choice",
        "time / all's",
        "throughput gain",
    ]
    return table(heads, lines)


def missed(found: Sequence[Row]) -> list[str]:
    """The bars that were not reached."""
    said = []
    for row in found:
        for prefer, rivals in row.against.items():
            said += [f"{row.name} {prefer.value}: {name} is {r:.2f}x as good" for name, r in rivals.items() if r > NEAR]
        if row.share > SHARE:
            said.append(f"{row.name}: {row.share:.2f} of the time of all")
    gains = sum(row.gain >= GAIN for row in found)
    if gains < min(2, len(found)):
        said.append(f"{gains} models gain {GAIN}x in throughput")
    return said


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.settings", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("zoo", type=Path)
    parser.add_argument("--only", nargs="+", choices=MODELS, default=MODELS, metavar="NAME")
    parser.add_argument("--least", action="store_true")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    if arguments.least:
        LEAST["least"] = True
        vars(space_module)["BATCHES"] = (4,)
    found = []
    for name in arguments.only:
        with stand(name, arguments.zoo) as one:
            found.append(measure(one))
        print(rows(found), flush=True)
    said = missed(found)
    text = f"{machine()}\n\n{rows(found)}"
    if arguments.kills:
        alone, resumed, kills = killed(arguments.zoo, arguments.kills)
        text += f"\nKilled {kills} times: `{resumed}`; left alone: `{alone}`.\n"
        said += ["a killed search chose otherwise"] if alone != resumed else []
    print(text)
    for line in said:
        print(f"missed: {line}")
    if arguments.write:
        write_section("settings", text)
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main())
