"""Peak memory and time of calibration: edgekit's streaming histograms against ONNX Runtime's MinMax and Percentile.

    python -m benchmarks.calibration ZOO/rapidocr-det [--samples 64 1024] [--write]

Each way runs in a fresh child process of its own, one after the other, on the same folded model, feeds, operators and threads.
The samples are the data set's calibration split, repeated as often as needed: neither memory nor time depends on what they hold.
Peak memory is the child's VmHWM; a child whose resident memory passes the cap is killed, and its row says so. Bars, exit 1 when
one is missed:

- edgekit's peak at the most samples is within 5% of that at the fewest;
- it is at most a fifth of Percentile's at the fewest samples, or below 2 GiB where Percentile was killed;
- edgekit takes at most 4 times as long as MinMax.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.page import machine, table, write_section
from edgekit import sandbox
from edgekit.core.dataset import DataSetInfo
from edgekit.core.recipes import INT8_ARITHMETIC, INT8_PASSED_ON
from edgekit.core.shapes import parse_shape
from edgekit.core.types import PreparedModel
from edgekit.process import child_environment

SAMPLES = (64, 1024)
THREADS = 2
CAP_BYTES = 12 << 30
POLL_S = 0.02

FLAT_BAR = 1.05
SHARE_BAR = 1 / 5
KILLED_BAR_BYTES = 2 << 30
TIME_BAR = 4.0

OURS, MINMAX, PERCENTILE = "edgekit", "ORT MinMax", "ORT Percentile"
OPS = (*INT8_ARITHMETIC, *INT8_PASSED_ON)


@dataclass(frozen=True)
class Figures:
    """One child: its peak in bytes, its seconds (None when it was killed at the cap), and how many tensors it observed."""

    way: str
    samples: int
    peak_bytes: int
    seconds: float | None
    tensors: int = 0


# ----------------------------------------------------------------------------------------------------------- the child


def _feeds(folder: Path, inputs: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Each sample through a mapping of its own: pages of one kept for the whole run would count as memory."""
    paths = {name: folder / f"{i}.npy" for i, name in enumerate(inputs)}
    for index in range(len(np.load(next(iter(paths.values())), mmap_mode="r"))):
        yield {name: np.array(np.load(path, mmap_mode="r")[index]) for name, path in paths.items()}


def _edgekit(model: Path, folder: Path, scratch: Path) -> int:
    import onnx

    from edgekit.quantize.collect import collect
    from edgekit.quantize.groups import tensors_to_calibrate

    tensors = tensors_to_calibrate(onnx.load(str(model)), OPS)
    done = collect(model, folder, tensors, scratch / "out.npz", threads=THREADS, checkpoint=scratch / "checkpoint.npz")
    return len(done.tensors)


def _onnxruntime(kind: str) -> Callable[[Path, Path, Path], int]:
    """ORT's calibrater of that kind, with explicit threads and its defaults otherwise."""

    def run(model: Path, folder: Path, scratch: Path) -> int:
        import onnxruntime as ort
        from onnxruntime.quantization import calibrate

        class Calibrater(getattr(calibrate, kind)):  # type: ignore[misc]  # untyped base
            def create_inference_session(self) -> None:
                options = ort.SessionOptions()
                options.intra_op_num_threads = THREADS
                options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
                self.infer_session = ort.InferenceSession(
                    self.augmented_model_path, options, providers=["CPUExecutionProvider"]
                )

        class Reader:
            def __init__(self, feeds: Iterator[dict[str, Any]]) -> None:
                self.feeds = feeds

            def get_next(self) -> dict[str, Any] | None:
                return next(self.feeds, None)

        calibrater = Calibrater(model, list(OPS), augmented_model_path=str(scratch / "augmented.onnx"))
        inputs = tuple(port.name for port in calibrater.model.graph.input)
        calibrater.augment_graph()
        calibrater.create_inference_session()
        calibrater.collect_data(Reader(_feeds(folder, inputs)))
        return len(calibrater.compute_data().data)

    return run


WAYS: Mapping[str, Callable[[Path, Path, Path], int]] = {
    OURS: _edgekit,
    MINMAX: _onnxruntime("MinMaxCalibrater"),
    PERCENTILE: _onnxruntime("PercentileCalibrater"),
}


def child(way: str, model: Path, folder: Path) -> None:
    """Calibrate, and say how long it took, what was observed and what the peak was."""
    with tempfile.TemporaryDirectory() as scratch:
        started = time.monotonic()
        tensors = WAYS[way](model, folder, Path(scratch))
        seconds = time.monotonic() - started
    told = {"seconds": seconds, "tensors": tensors, "peak_bytes": status_bytes("self", "VmHWM")}
    print(json.dumps(told), file=sys.stderr)


# ---------------------------------------------------------------------------------------------------------- the parent


def measure(way: str, samples: int, model: Path, folder: Path) -> Figures:
    """Run one way in a child of its own, watched; killed when its resident memory passes CAP_BYTES."""
    argv = [sys.executable, "-m", "benchmarks.calibration", "--child", way, str(model), str(folder)]
    peak = 0
    killed = False
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=said, env=child_environment())
        while process.poll() is None:
            peak = max(peak, status_bytes(process.pid, "VmRSS"))
            if peak > CAP_BYTES:
                process.kill()
                killed = True
            time.sleep(POLL_S)
        said.seek(0)
        lines = said.read().decode(errors="replace").splitlines()
    if killed:
        return Figures(way, samples, peak, None)
    if process.returncode != 0:
        raise RuntimeError(f"{way} ended with {process.returncode}: {lines[-1] if lines else ''}")
    told = json.loads(lines[-1])
    return Figures(way, samples, told["peak_bytes"], told["seconds"], told["tensors"])


def status_bytes(pid: int | str, key: str) -> int:
    """A figure of a process's memory in /proc; 0 when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{key}:"))


def materials(folder: Path, scratch: Path) -> tuple[Path, Path]:
    """The model of a zoo folder as it is quantized (fixed shapes, constants folded, shapes inferred), and its calibration feeds."""
    shapes = dict(map(parse_shape, tomllib.loads((folder / "args.toml").read_text())["shape"]))
    prepared = sandbox.call(
        "edgekit.models.prepare:prepare_model",
        returns=PreparedModel,
        source=folder / "model.onnx",
        out=scratch,
        shapes={name: list(dims) for name, dims in shapes.items()},
    )
    sandbox.call(
        "edgekit.data.read:prepare_data",
        returns=DataSetInfo,
        source=folder / "data",
        inputs=list(prepared.info.inputs),
        out=scratch / "data",
        samples=None,
    )
    flat = scratch / "flat.onnx"
    subprocess.run(
        [sys.executable, "-m", "benchmarks.calibration", "--fold", str(scratch / "model.onnx"), str(flat)],
        check=True,
        env=child_environment(),
    )
    return flat, scratch / "data" / "calibration"


def fold(model: Path, out: Path) -> None:
    """Constants folded by ONNX Runtime's basic optimizations, then shapes inferred: what a quantizer is given."""
    import onnx
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(out.with_name("folded.onnx"))
    ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    onnx.shape_inference.infer_shapes_path(options.optimized_model_filepath, str(out))


def repeated(source: Path, out: Path, samples: int) -> Path:
    """The feeds in `source`, repeated to `samples` samples."""
    out.mkdir()
    for path in source.glob("[0-9]*.npy"):
        rows = np.load(path, mmap_mode="r")
        written = np.lib.format.open_memmap(out / path.name, "w+", rows.dtype, (samples, *rows.shape[1:]))
        for start in range(0, samples, len(rows)):
            count = min(len(rows), samples - start)
            written[start : start + count] = rows[:count]
        written.flush()
    return out


# ------------------------------------------------------------------------------------------------------------- the bars


def judge(found: list[Figures]) -> list[tuple[str, bool]]:
    """Each bar in words, and whether it is met."""
    ours = sorted((f for f in found if f.way == OURS), key=lambda f: f.samples)
    minmax = next(f for f in found if f.way == MINMAX)
    percentile = next(f for f in found if f.way == PERCENTILE)
    few = next(f for f in ours if f.samples == minmax.samples)
    bars = []
    if len(ours) > 1:
        growth = ours[-1].peak_bytes / ours[0].peak_bytes
        words = (
            f"peak memory at {ours[-1].samples} samples is {growth:.3f} of that at {ours[0].samples} (bar {FLAT_BAR})"
        )
        bars.append((words, 2 - FLAT_BAR <= growth <= FLAT_BAR))
    if percentile.seconds is None:
        words = f"peak memory is {few.peak_bytes >> 20} MiB where Percentile was killed (bar {KILLED_BAR_BYTES >> 20})"
        bars.append((words, few.peak_bytes <= KILLED_BAR_BYTES))
    else:
        share = few.peak_bytes / percentile.peak_bytes
        bars.append((f"peak memory is {share:.3f} of Percentile's (bar {SHARE_BAR})", share <= SHARE_BAR))
    ratio = (few.seconds or math.inf) / (minmax.seconds or math.inf)
    bars.append((f"time is {ratio:.2f} of MinMax's (bar {TIME_BAR})", ratio <= TIME_BAR))
    return bars


def row(figures: Figures) -> list[str]:
    """A line of the table."""
    killed = figures.seconds is None
    peak = f"{'over ' if killed else ''}{figures.peak_bytes / 2**20:.0f}"
    spent = (
        ["killed at the cap", ""]
        if figures.seconds is None
        else [f"{figures.seconds:.0f}", f"{figures.seconds / figures.samples:.2f}"]
    )
    return [figures.way, str(figures.samples), str(figures.tensors or ""), peak, *spent]


HEADINGS = ["calibration", "samples", "tensors", "peak MiB", "seconds", "seconds a sample"]


def main() -> int:
    parser = argparse.ArgumentParser(description="Peak memory and time of calibration.")
    parser.add_argument("folder", type=Path, nargs="?", help="a model folder of the zoo")
    parser.add_argument("--samples", type=int, nargs="+", default=SAMPLES)
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--fold", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child[0], *map(Path, arguments.child[1:]))
        return 0
    if arguments.fold:
        fold(*map(Path, arguments.fold))
        return 0
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        model, feeds = materials(arguments.folder, Path(scratch))
        for samples in sorted(arguments.samples):
            folder = repeated(feeds, Path(scratch) / str(samples), samples)
            ways = WAYS if samples == min(arguments.samples) else (OURS,)
            for way in ways:
                found.append(measure(way, samples, model, folder))
                print(row(found[-1]), flush=True)
    bars = judge(found)
    verdicts = "\n".join(f"- {words}: {'met' if met else 'missed'}" for words, met in bars)
    text = f"{arguments.folder.name}, {THREADS} threads. {machine()}.\n\n{table(HEADINGS, list(map(row, found)))}\n{verdicts}"
    print(text)
    if arguments.write:
        write_section("calibration", text)
    return 0 if all(met for _, met in bars) else 1


if __name__ == "__main__":
    sys.exit(main())
