"""How often `edgekit compare` is wrong on equals, and how often it sees a tenth: real processes, raced as the command races.

    python -m benchmarks.compare [PAIRS] [--write]

Bars, exit 1 when one is missed: of 50 equal pairs at most 5 are called different, of 50 slowdowns by a tenth at least 45 are found.

A is a chain of LAYERS equal convolutions. A/A pairs are two processes of it. The slowdown is real work: B has a tenth more layers,
so it takes about a tenth longer (what a run costs beside its layers makes it a little less). All are in one race with A's twin.
"""

import argparse
import platform
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.page import machine, table, write_section
from edgekit.core.compare import CompareVerdict, Comparison, compare
from edgekit.core.types import RunConfig
from edgekit.devices.local import LocalDevice
from edgekit.engines.closure import native_library
from edgekit.flow.compare import BENCH_SAMPLES, DEFAULT_LENGTH, TURN_MS
from edgekit.race import Budget, race
from edgekit.runner.client import Feeds, Runnable
from edgekit.store import default_cache

PAIRS = 50
LAYERS, MORE = 10, 11
CHANNELS, SIDE = 32, 20  # about half a millisecond in all
BUDGET = Budget(samples=1 << 60, seconds=DEFAULT_LENGTH.seconds, rounds=DEFAULT_LENGTH.rounds, turn_ms=TURN_MS)


@dataclass(frozen=True)
class Tally:
    """One row: how the pairs of one kind were called."""

    kind: str
    calls: Mapping[CompareVerdict, int]
    ratios: tuple[float, ...]
    shown: tuple[float, ...]


def chain(layers: int, path: Path) -> Path:
    """A model of equal 3x3 convolutions that keep the size of what passes through."""
    shape = [1, CHANNELS, SIDE, SIDE]
    rng = np.random.default_rng(0)
    scale = 1 / np.sqrt(9 * CHANNELS)
    weight = numpy_helper.from_array(rng.normal(0, scale, (CHANNELS, CHANNELS, 3, 3)).astype(np.float32), "w")
    nodes = [helper.make_node("Conv", [f"x{i}", "w"], [f"x{i + 1}"], pads=[1, 1, 1, 1]) for i in range(layers)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x0", f"x{layers}")]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def races(folder: Path, pairs: int) -> list[tuple[Comparison, Comparison]]:
    """The A/A comparison and that of the slower B, of `pairs` races with fresh processes each."""
    library = native_library("onnxruntime", "1.32.0", platform.machine(), default_cache()).library
    feed = folder / "x.npy"
    np.save(feed, np.random.default_rng(1).random((BENCH_SAMPLES, 1, CHANNELS, SIDE, SIDE), dtype=np.float32))
    a, b = (
        Runnable("onnxruntime", library, chain(n, folder / f"{n}.onnx"), RunConfig(threads=1)) for n in (LAYERS, MORE)
    )
    entries = {"a": a, "equal": a, "slower": b}
    found = []
    for number in range(pairs):
        result = race(
            LocalDevice(),
            entries,
            Feeds({"x0": feed}),
            BENCH_SAMPLES,
            "a",
            BUDGET,
            BUDGET,
            lambda _: ("equal", "slower"),
        )
        equal, slower = (compare(result.rounds["a"], result.rounds[k], result.aa_spread) for k in ("equal", "slower"))
        found.append((equal, slower))
        print(f"{number + 1}/{pairs}: {equal.verdict} {equal.reason} | {slower.verdict} {slower.reason}", flush=True)
    return found


def tally(kind: str, found: list[Comparison]) -> Tally:
    calls = {verdict: sum(c.verdict is verdict for c in found) for verdict in CompareVerdict}
    return Tally(kind, calls, tuple(c.ratio for c in found), tuple(c.shown for c in found))


def row(t: Tally) -> list[str]:
    """A line of the table."""
    counts = [str(t.calls[verdict]) for verdict in CompareVerdict]
    spread = f"{min(t.ratios):.3f} to {max(t.ratios):.3f}"
    return [t.kind, str(len(t.ratios)), *counts, spread, f"{sorted(t.shown)[len(t.shown) // 2]:.3f}"]


HEADINGS = ["layers of B / A", "pairs", *CompareVerdict, "ratios B / A", "smallest shown (median)"]


def met(equal: Tally, slower: Tally) -> bool:
    """The bars, as shares of the pairs: a tenth of equal pairs called different, nine tenths of slowdowns found."""
    called = len(equal.ratios) - equal.calls[CompareVerdict.NOT_SHOWN]
    found = slower.calls[CompareVerdict.SLOWER]
    return called <= 0.1 * len(equal.ratios) and found >= 0.9 * len(slower.ratios)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=int, nargs="?", default=PAIRS)
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = races(Path(scratch), arguments.pairs)
    equal = tally(f"{LAYERS} / {LAYERS}", [equal for equal, _ in found])
    slower = tally(f"{MORE} / {LAYERS}", [slower for _, slower in found])
    text = (
        f"{machine()}; onnxruntime 1.32.0, one thread, {BUDGET.seconds:.0f} s a side in turns of {BUDGET.turn_ms:.0f} ms.\n\n"
        f"{table(HEADINGS, [row(equal), row(slower)])}"
    )
    print(text)
    if arguments.write:
        write_section("compare", text)
    return 0 if met(equal, slower) else 1


if __name__ == "__main__":
    sys.exit(main())
