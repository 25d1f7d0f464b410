"""ekrun against a Python onnxruntime loop on the same artifact, and how fast `edgekit --help` is.

    python -m benchmarks.runner [ZOO]

Steady state is raced interleaved, with ekrun's own twin as the noise. Cold start is the time from the start of the process to its
first answer, alternating, less the wait for sleeping threads that ekrun reports. Memory is the peak of the resident set after 50
runs. One thread, and as many as the machine has. Exit 1 when a bar is missed, which is then named below the table.

Both sides' libraries are first read from the disk anew, page by page. A file that was just written, or read in one go, is kept by
the kernel in larger pieces, of which it maps up to 6 MiB more into a process: the same library, another figure (ext4, Linux 6.18).
"""

import importlib.util
import mmap
import os
import subprocess
import sys
import tempfile
import time
import tomllib
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import msgspec

from benchmarks.page import machine, table, write_section
from benchmarks.results import SAMPLE
from edgekit.core.shapes import parse_shape
from edgekit.core.stats import bootstrap_ratio_ci, median_ratio
from edgekit.core.types import RunConfig
from edgekit.devices.local import LocalDevice
from edgekit.flow.materials import Options, gather
from edgekit.flow.workshop import SELECTION, Workshop
from edgekit.process import Conversation
from edgekit.runner.client import Feeds, Runnable, engine_arguments
from edgekit.store import Cache, default_cache

ROUNDS = 61
COLD_STARTS = 15
MODELS = ("digits", "rapidocr-cls", "magika", "opennsfw")

# Bars: p50 no worse than A/A above P50_FROM_MS; start and memory as shares on the sample, as savings on larger models.
P50_FROM_MS = 1.0
FIRST_SHARE, PEAK_SHARE = 0.5, 0.65
FIRST_SAVED_MS, PEAK_SAVED_MIB = 100.0, 20.0
HELP_S = 0.3


@dataclass(frozen=True)
class Row:
    """One model at one number of threads; ratios are ekrun over Python, `aa` is ekrun over its twin with its 95% interval."""

    model: str
    threads: int
    p50_ms: float
    ratio: float
    interval: tuple[float, float]
    aa: tuple[float, float]
    first_ms: tuple[float, float]
    peak_mib: tuple[float, float]


def talk(process: Conversation, runs: int) -> list[int]:
    """`runs` latencies in nanoseconds, without the one that wakes the threads up."""
    process.tell(f"go {runs + 1}")
    latencies: list[int] = msgspec.json.decode(process.answer(300.0))["latencies_ns"]
    return latencies[1:]


def race(commands: dict[str, list[str]], turn_ms: float = 60.0) -> dict[str, list[float]]:
    """Median latency a round and command, in rotating order."""
    with ExitStack() as stack:
        live = {name: stack.enter_context(Conversation(argv)) for name, argv in commands.items()}
        for process in live.values():
            process.answer(120.0)
        typical = median(talk(next(iter(live.values())), 10))
        runs = max(3, min(400, round(turn_ms * 1e6 / typical)))
        rounds: dict[str, list[float]] = {name: [] for name in live}
        names = list(live)
        for number in range(ROUNDS):
            for name in names[number % len(names) :] + names[: number % len(names)]:
                rounds[name].append(median(talk(live[name], runs)))
    return rounds


def cold(argv: list[str]) -> tuple[float, float]:
    """Milliseconds from start to the first answer, and the peak resident set in MiB after 50 more runs."""
    started = time.perf_counter()
    with Conversation(argv) as process:
        ready = msgspec.json.decode(process.answer(120.0))
        # ekrun answers only once the engine's threads sleep, and says how long it waited for that after its first inference.
        first_ms = (time.perf_counter() - started) * 1e3 - ready.get("settle_ns", 0) / 1e6
        talk(process, 50)
        status = Path(f"/proc/{process.pid}/status").read_text()
    peak_kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    return first_ms, peak_kib / 1024


def compare(name: str, runnable: Runnable, feeds: Feeds, threads: int) -> Row:
    """Both programs on one model."""
    own = [
        str(LocalDevice().path),
        "bench",
        "--stdin",
        *engine_arguments(runnable, feeds),
        "--samples",
        "8",
        "--warmup",
        "1",
    ]
    loop = [sys.executable, "-m", "benchmarks.python_loop", str(runnable.model), str(threads)]
    loop += [f"{key}={path}" for key, path in feeds.inputs.items()]
    rounds = race({"ekrun": own, "python": loop, "twin": own})
    starts = [(cold(own), cold(loop)) for _ in range(COLD_STARTS)]
    own_first, own_peak, loop_first, loop_peak = (
        median(pair[side][kind] for pair in starts) for side in (0, 1) for kind in (0, 1)
    )
    return Row(
        name,
        threads,
        median(rounds["ekrun"]) / 1e6,
        median_ratio(rounds["ekrun"], rounds["python"]),
        bootstrap_ratio_ci(rounds["ekrun"], rounds["python"], seed=0),
        bootstrap_ratio_ci(rounds["twin"], rounds["ekrun"], seed=0),
        (own_first, loop_first),
        (own_peak, loop_peak),
    )


def measure(name: str, folder: Path, shop: Workshop, threads: int) -> Row:
    """Prepare a model and its feeds, and compare."""
    arguments = folder / "args.toml"
    shapes = tomllib.loads(arguments.read_text())["shape"] if arguments.exists() else []
    data = folder if name == "digits" else folder / "data"
    _, materials = gather(shop, folder / "model.onnx", data, Options(shapes=dict(map(parse_shape, shapes))))
    library = shop.native("onnxruntime", "1.32.0", shop.facts.arch).library
    runnable = Runnable("onnxruntime", library, materials.model, RunConfig(threads))
    return compare(name, runnable, materials.feeds(SELECTION), threads)


def read_anew(*paths: Path) -> None:
    """Make the kernel forget what it holds of files, and read each again a page at a time."""
    for path in paths:
        with path.open("rb", buffering=0) as stream:
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
            while stream.read(mmap.PAGESIZE):
                pass


def engine_of_python() -> list[Path]:
    """The libraries Python's onnxruntime loads, found without loading them: whoever has them mapped keeps them."""
    spec = importlib.util.find_spec("onnxruntime")
    assert spec is not None and spec.submodule_search_locations
    return sorted((Path(spec.submodule_search_locations[0]) / "capi").glob("*.so*"))


HEADINGS = [
    *("model", "threads", "p50 ms", "ekrun/Python p50 (95%)", "ekrun A/A (95%)"),
    *("first answer ms, ekrun", "Python", "ratio", "peak RSS MiB, ekrun", "Python", "ratio"),
]


def row(r: Row) -> list[str]:
    """A line of the table."""
    return [
        *(r.model, str(r.threads), f"{r.p50_ms:.3f}"),
        f"{r.ratio:.3f} ({r.interval[0]:.3f} to {r.interval[1]:.3f})",
        f"{r.aa[0]:.3f} to {r.aa[1]:.3f}",
        *(f"{r.first_ms[0]:.0f}", f"{r.first_ms[1]:.0f}", f"{r.first_ms[0] / r.first_ms[1]:.2f}"),
        *(f"{r.peak_mib[0]:.1f}", f"{r.peak_mib[1]:.1f}", f"{r.peak_mib[0] / r.peak_mib[1]:.2f}"),
    ]


def misses(r: Row) -> list[str]:
    """The bars a row misses, in words."""
    (first, loop_first), (peak, loop_peak) = r.first_ms, r.peak_mib
    sample = r.model == "digits"
    bars = {
        "p50": r.p50_ms < P50_FROM_MS or r.ratio <= max(r.aa[1], 1 / r.aa[0]),
        "first answer": first <= FIRST_SHARE * loop_first if sample else loop_first - first >= FIRST_SAVED_MS,
        "peak RSS": peak <= PEAK_SHARE * loop_peak if sample else loop_peak - peak >= PEAK_SAVED_MIB,
    }
    return [f"{bar} of {r.model}, threads {r.threads}" for bar, met in bars.items() if not met]


def help_seconds() -> tuple[float, float]:
    """Median and slowest wall time of `edgekit --help` over 15 starts."""
    times = []
    for _ in range(15):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "edgekit", "--help"], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - started)
    return median(times), max(times)


def main() -> int:
    zoo = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    names = [name for name in MODELS if name == "digits" or (zoo is not None and (zoo / name).is_dir())]
    rows = []
    read_anew(*engine_of_python())
    for name in names:
        for threads in sorted({1, os.cpu_count() or 1}):
            folder = SAMPLE if name == "digits" or zoo is None else zoo / name
            with tempfile.TemporaryDirectory() as scratch:
                shop = Workshop(Cache(default_cache()), Path(scratch), LocalDevice(), lambda _: None)
                read_anew(shop.native("onnxruntime", "1.32.0", shop.facts.arch).library)
                rows.append(measure(name, folder, shop, threads))
            print(row(rows[-1]), flush=True)
    typical, slowest = help_seconds()
    missed = [bar for r in rows for bar in misses(r)] + (["`edgekit --help`"] if typical >= HELP_S else [])
    text = (
        f"{machine()}; onnxruntime 1.32.0 on both sides, {ROUNDS} rounds, {COLD_STARTS} cold starts.\n\n"
        f"{table(HEADINGS, [row(r) for r in rows])}\n"
        f"`edgekit --help` takes {typical:.2f} s (slowest of 15: {slowest:.2f} s). "
        f"{'Missed: ' + '; '.join(missed) if missed else 'All bars are met'}."
    )
    print(text)
    if zoo is not None:
        write_section("runner", text)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
