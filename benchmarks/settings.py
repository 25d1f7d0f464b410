"""The search over settings against measuring all of them, against a grid as Olive's, and against OpenVINO's hints.

    python -m benchmarks.settings ZOO [--only NAME ...] [--least] [--kills N] [--rows FILE] [--write]

ZOO is what `python -m benchmarks.models` made; `sample` is the shipped digit classifier. Bars, exit 1 when one is missed:

- each end of the search is within 5 % of the same end of all points measured to a final's rounds, in at most a third of the time;
- the throughput end has at least 1.2 times the throughput of the latency end on two models or more;
- at both ends the search is at least as good, within 5 %, as the best of the grid and as OpenVINO by its hint;
- a search killed N times at random moments (10) ends with the choice of one left alone, or one equal to it within 5 %.

Two points are compared by a duel: both alive at a time, ROUNDS rounds in turn. What is built is built before either clock runs. The
grid is that of Olive's `tune-session-params` on the unmodified model: threads, execution mode, graph optimization; its points race
each other as often, and the best at an end is the rival there. OpenVINO is asked which streams and threads a hint means, and those
are run by ekrun, so that one clock measures all. `--least` tries the benchmark itself: fp32 and one batch only.
"""

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.page import machine, table, write_section
from benchmarks.stand import Stand, say, stand
from edgekit import sandbox
from edgekit.core import space as space_module
from edgekit.core.elimination import COST, LATENCY, bootstrapped
from edgekit.core.recipes import RECIPES, REFERENCE
from edgekit.core.tradeoffs import Exploration, Point, Setting, key
from edgekit.core.types import Prefer
from edgekit.flow.points import Space, Spot
from edgekit.flow.runs import read_run
from edgekit.flow.sample import sample_model
from edgekit.flow.tune import Trails, search
from edgekit.flow.tuned import explored
from edgekit.heat import Entry
from edgekit.measure import fact_sheet
from edgekit.store import write_atomic

MODELS = ("sample", "rapidocr-det", "rapidocr-rec", "magika", "basic-pitch")
ENDS = {Prefer.LATENCY: LATENCY, Prefer.THROUGHPUT: COST}
ROUNDS, TURN_MS = 25, 100.0
NEAR, SHARE, GAIN = 1.05, 1 / 3, 1.2
LEAST = {"least": False}


@dataclass(frozen=True)
class Row:
    """What one model came to: each end's point, and how it stands against each rival (above 1: the rival is better)."""

    name: str
    ends: dict[Prefer, str]
    against: dict[Prefer, dict[str, float]]
    share: float
    gain: float


def _forbidden() -> tuple[str, ...]:
    return tuple(name for name in RECIPES if name not in (REFERENCE, "ov-f32")) if LEAST["least"] else ()


# --------------------------------------------------------------------------------------------------------------- rivals


def measure(one: Stand) -> Row:
    """Search, measure all, and duel."""
    space = one.space()
    for spot in space.plain():
        space.entry(spot)  # builds
    whole = _searched(one, Prefer.LATENCY, everything=True)
    all_points = explored(whole, one.job.requirements, 0)
    against: dict[Prefer, dict[str, float]] = {}
    ends, seconds = {}, []
    grid = _grid(space, one)
    for prefer, axis in ENDS.items():
        trails = _searched(one, prefer)
        record = explored(trails, replace(one.job.requirements, prefer=prefer), 0)
        seconds.append(trails.seconds)
        ends[prefer] = _end(record, prefer)
        own = _entry(trails, ends[prefer])
        rivals = {"all": _entry(whole, _end(all_points, prefer)), "grid": grid[prefer], **_hinted(space, one, prefer)}
        against[prefer] = {name: _duel(one, own, rival, axis) for name, rival in rivals.items()}
    latency, throughput = (_entry(whole, ends[prefer]) for prefer in ENDS)
    gain = _duel(one, latency, throughput, COST) if latency.name != throughput.name else 1.0
    return Row(one.name, ends, against, max(seconds) / whole.seconds, gain)


def _searched(one: Stand, prefer: Prefer, *, everything: bool = False) -> Trails:
    job = replace(one.job, requirements=replace(one.job.requirements, prefer=prefer))
    sheet = fact_sheet(one.shop.device)
    found = search(
        *(one.shop, job, one.made, one.outcomes, one.noise, sheet),
        seed=0,
        left_s=lambda: 1e9,
        everything=everything,
    )
    assert found is not None
    return found


def _end(record: Exploration, prefer: Prefer) -> str:
    return record.latency_choice if prefer is Prefer.LATENCY else record.throughput_choice


def _entry(trails: Trails, name: str) -> Entry:
    found = trails.space.entry(trails.spots[name])
    assert isinstance(found, Entry), found
    return found


def _grid(space: Space, one: Stand) -> dict[Prefer, Entry]:
    """The best of the grid's points at each end; they differ in threads, execution mode and graph optimization."""
    cores = one.shop.facts.usable_threads
    found = []
    for threads in sorted({1, cores}):
        for mode in ("sequential", "parallel"):
            for level in ("basic", "extended", "all"):
                options = {"execution_mode": mode, "graph_optimization": level}
                if mode == "parallel":
                    options["inter_op_threads"] = str(cores)
                entry = space.entry(Spot(REFERENCE, Setting(threads, options=options)))
                assert isinstance(entry, Entry), entry
                found.append(entry)
    entries = found[: 2 if LEAST["least"] else len(found)]
    tracks = one.rounds(entries, _rounds(), TURN_MS)
    return {end: min(entries, key=lambda e: tracks[e.name].middle(axis)) for end, axis in ENDS.items()}


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


def _rounds() -> int:
    return 5 if LEAST["least"] else ROUNDS


def _duel(one: Stand, own: Entry, rival: Entry, axis: str) -> float:
    """How many times better the rival is, by rounds of both."""
    if own.name == rival.name:
        return 1.0
    tracks = one.rounds([own, rival], _rounds(), TURN_MS)
    return bootstrapped(tracks[own.name], tracks[rival.name], axis, 0).value


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
                say(f"kill {done + 1} of {kills}")
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
    figures = {key(p): p.throughput_ips for p in alone.points}
    points: dict[str, Point] = {key(p): p for record in (alone, resumed) for p in record.points}
    one, other = (points.get(r.throughput_choice) for r in (alone, resumed))
    assert one is not None and other is not None
    a, b = figures.get(key(one)), figures.get(key(other))
    equal = a is not None and b is not None and a <= b * NEAR
    return alone.throughput_choice if equal else resumed.throughput_choice


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


def _kept(file: Path | None) -> dict[str, Row]:
    """The rows in `file` that were measured on a machine such as this one, by model."""
    if file is None or not file.exists():
        return {}
    where, lines = sandbox.decode(file.read_bytes(), tuple[str, list[Row]])
    return {row.name: row for row in lines} if where == machine() else {}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.settings", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("zoo", type=Path)
    parser.add_argument("--only", nargs="+", choices=MODELS, default=MODELS, metavar="NAME")
    parser.add_argument("--least", action="store_true")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--rows", type=Path, help="keep what is measured of each model here, and go on from it")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    if arguments.least:
        LEAST["least"] = True
        vars(space_module)["BATCHES"] = (4,)
    kept = _kept(arguments.rows)
    for name in arguments.only:
        if name not in kept:
            with stand(name, arguments.zoo, _forbidden()) as one:
                kept[name] = measure(one)
            if arguments.rows:
                write_atomic(arguments.rows, sandbox.encode([machine(), list(kept.values())]))
        print(rows([kept[name]]), flush=True)
    found = [kept[name] for name in arguments.only]
    said = missed(found)
    text = f"{machine()}\n\n{rows(found)}"
    if arguments.kills:
        alone, resumed, kills = killed(arguments.zoo, arguments.kills)
        text += f"\nKilled {kills} times: `{resumed}`; left alone: `{alone}`.\n"
        said += ["a killed search chose otherwise"] if alone != resumed else []
    text += f"\n{'Missed: ' + '; '.join(said) if said else 'All bars are met'}.\n"
    print(text)
    if arguments.write:
        write_section("settings", text)
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main())
