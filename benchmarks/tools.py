"""edgekit's figures beside those of the engines' own tools: Python onnxruntime, and OpenVINO's benchmark_app.

    python -m benchmarks.tools [ZOO] [--only NAME ...] [--rounds N] [--seconds S] [--write]

Bars, exit 1 when one is missed beyond the run's noise: edgekit's p50 is at most 3 % above the tool's, its throughput at most 5 %
below. What is better than the tool by more than that is no miss, but is named.

- Same model file, engine version, threads and samples. A round is a turn of edgekit, of the tool and of edgekit again (A/A), each
  a fresh process, one at a time, in an order that rotates; ratios are taken within a round.
- Python onnxruntime: `benchmarks.python_loop`, the first 8 samples of the selection split in turn; throughput is 1 / mean latency.
- benchmark_app: the first of those samples over and over, as it fills its inputs once; never its own random filling. It gets
  `-pin NO`, ekrun's setting, and `-ip` with the model's own types, as it would otherwise feed images as bytes. It prints two
  decimals of ms or us, which is at most 0.5 % from 1 ms on. Its throughput is iterations over duration.
- A recurrent model's state is not fed back: benchmark_app cannot, so nobody does.
"""

import argparse
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from statistics import median

from benchmarks.page import machine, table, write_section
from benchmarks.results import SAMPLE
from benchmarks.turns import Figures, Prepared, Turn, benchmark_app, offline, prepared, python_loop, single_stream
from edgekit.core.compare import FEWEST_ROUNDS, block_bootstrap
from edgekit.core.recipes import REFERENCE
from edgekit.core.stats import round_ratios
from edgekit.errors import EdgekitError, UsageError

ROUNDS, SECONDS = 15, 2
OPENVINO_F32 = "ov-f32"
FEWEST_RUNS = 20  # of a turn, however slow the model
STREAMS = 2


@dataclass(frozen=True)
class Quantity:
    """One of the figures: `worse` is +1 where more of it is worse, else -1; `bar` is for the ratio edgekit / tool."""

    name: str
    of: Callable[[Figures], float]
    worse: int
    bar: float


P50 = Quantity("p50 ms", lambda figures: figures.p50_ms, +1, 1.03)
THROUGHPUT = Quantity("inferences/s", lambda figures: figures.per_second, -1, 0.95)


@dataclass(frozen=True)
class Match:
    """edgekit against a tool in one setting, and what is compared of it."""

    tool: str
    threads: int
    quantities: tuple[Quantity, ...]
    own: Turn
    other: Turn


@dataclass(frozen=True)
class Row:
    """A quantity of a match: medians of both, the ratio edgekit / tool with its 95 % interval, A/A likewise, and the verdict."""

    model: str
    match: Match
    quantity: Quantity
    own: float
    other: float
    ratio: tuple[float, float, float]
    aa: tuple[float, float]
    verdict: str

    @property
    def label(self) -> str:
        return f"{self.model} {self.quantity.name} against {self.match.tool}, threads {self.match.threads}"


# ----------------------------------------------------------------------------------------------------------------- matches


def ort_matches(subject: Prepared) -> Iterator[Match]:
    for threads in sorted({1, os.cpu_count() or 1}):
        own, other = single_stream(subject, threads, subject.feeds), python_loop(subject, threads)
        yield Match("Python onnxruntime", threads, (P50, THROUGHPUT), own, other)


def openvino_matches(subject: Prepared) -> Iterator[Match]:
    for threads in sorted({1, os.cpu_count() or 1}):
        other = benchmark_app(subject, threads, ["-api", "sync"], 1)
        yield Match("benchmark_app sync", threads, (P50,), single_stream(subject, threads, subject.alone), other)
    other = benchmark_app(subject, STREAMS, ["-api", "async", "-nireq", str(STREAMS)], STREAMS)
    own = offline(subject, STREAMS, subject.alone, STREAMS)
    yield Match(f"benchmark_app async, {STREAMS} streams", STREAMS, (THROUGHPUT,), own, other)


# --------------------------------------------------------------------------------------------------------------- judgement


def play(match: Match, rounds: int, seconds: int) -> dict[str, list[Figures]]:
    """The turns of all rounds: `own`, `other`, and `twin`, which is edgekit again."""
    seconds = math.ceil(max(seconds, FEWEST_RUNS * match.own(1).p50_ms / 1e3))
    turns = {"own": match.own, "other": match.other, "twin": match.own}
    names, found = list(turns), {name: list[Figures]() for name in turns}
    for number in range(rounds):
        for name in names[number % 3 :] + names[: number % 3]:
            found[name].append(turns[name](seconds))
    return found


def judge(model: str, match: Match, quantity: Quantity, turns: Mapping[str, list[Figures]]) -> Row:
    """Put one quantity into figures and a verdict."""
    values = {name: [quantity.of(figures) for figures in found] for name, found in turns.items()}
    logs = [math.log(ratio) for ratio in round_ratios(values["own"], values["other"])]
    low, high = block_bootstrap(logs, seed=0)
    aa_low, aa_high = block_bootstrap([math.log(r) for r in round_ratios(values["twin"], values["own"])], seed=0)
    middle = median(logs)
    reach = math.hypot(max(middle - low, high - middle), max(abs(aa_low), abs(aa_high)))
    return Row(
        model,
        match,
        quantity,
        median(values["own"]),
        median(values["other"]),
        (math.exp(middle), math.exp(low), math.exp(high)),
        (math.exp(aa_low), math.exp(aa_high)),
        verdict(quantity, middle, reach) if len(logs) >= FEWEST_ROUNDS else FEW,
    )


MET, BETTER, UNSHOWN, MISSED, FEW = "met", "better", "over the bar, within noise", "missed", "too few rounds"


def verdict(quantity: Quantity, middle: float, reach: float) -> str:
    """Of the logarithm of a ratio and its uncertainty, the tool's and the A/A's together (independent, so in squares)."""
    worse, bar = quantity.worse * middle, abs(math.log(quantity.bar))
    if worse > bar:
        return MISSED if worse - reach > bar else UNSHOWN
    return BETTER if worse + reach < -bar else MET


HEADINGS = [
    *("model", "tool", "threads", "figure", "edgekit", "tool's", "edgekit / tool (95%)", "A/A (95%)", "bar", "verdict"),
]


def row(r: Row) -> list[str]:
    """A line of the table."""
    bound = f"{'<=' if r.quantity.worse > 0 else '>='} {r.quantity.bar:.2f}"
    return [
        *(r.model, r.match.tool, str(r.match.threads), r.quantity.name, f"{r.own:.4g}", f"{r.other:.4g}"),
        "{:.3f} ({:.3f} to {:.3f})".format(*r.ratio),
        f"{r.aa[0]:.3f} to {r.aa[1]:.3f}",
        *(bound, r.verdict),
    ]


def summary(rows: list[Row]) -> str:
    """How many bars are met, and all that need a word."""
    met = sum(r.verdict in (MET, BETTER) for r in rows)
    few = " (too few rounds to judge)" if any(r.verdict == FEW for r in rows) else ""
    lines = [f"{met} of {len(rows)} bars are met{few}."]
    for kind, words in (
        (MISSED, "Missed beyond the noise"),
        (UNSHOWN, "Over the bar, within the noise"),
        (BETTER, "Better than the tool by more than the bar, beyond the noise"),
    ):
        named = [r.label for r in rows if r.verdict == kind]
        lines += [f"{words}: {'; '.join(named)}."] if named else []
    return " ".join(lines)


# ------------------------------------------------------------------------------------------------------------ command line


def measure(name: str, folder: Path, rounds: int, seconds: int) -> tuple[list[Row], list[str], bool]:
    """The rows of one model, what could not be compared and why, and whether that was a failure."""
    rows: list[Row] = []
    notes: list[str] = []
    failed = False
    for recipe, matches in ((REFERENCE, ort_matches), (OPENVINO_F32, openvino_matches)):
        try:
            with prepared(name, folder, recipe) as subject:
                for match in matches(subject):
                    turns = play(match, rounds, seconds)
                    rows += [judge(name, match, quantity, turns) for quantity in match.quantities]
                    print(*(" | ".join(row(r)) for r in rows[-len(match.quantities) :]), sep="\n", flush=True)
        except EdgekitError as error:
            notes.append(f"{name} {recipe}: {error.what}.")
            failed |= not isinstance(error, UsageError)  # which says that the recipe does not suit the model
            print(notes[-1], flush=True)
    return rows, notes, failed


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("zoo", type=Path, nargs="?", help="a folder of benchmarks.models; the sample alone without")
    parser.add_argument("--only", nargs="+", help="names of folders in ZOO, or digits; all unless given")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument(
        "--seconds", type=int, default=SECONDS, help=f"of a turn, which has {FEWEST_RUNS} runs at least"
    )
    parser.add_argument("--date", default=f"{datetime.now(UTC):%Y-%m-%d}", help="of the figures; today unless given")
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    arguments = parser.parse_args()
    if arguments.write and arguments.rounds < FEWEST_ROUNDS:
        parser.error(f"figures of fewer than {FEWEST_ROUNDS} rounds are not written")
    return arguments


def heading(arguments: argparse.Namespace) -> str:
    """Where, when and how the figures were taken."""
    versions = ", ".join(f"{engine} {metadata.version(engine)}" for engine in ("onnxruntime", "openvino"))
    words = ["ZOO"] if arguments.zoo else []
    words += ["--only", *arguments.only] if arguments.only else []
    words += ["--rounds", str(arguments.rounds), "--seconds", str(arguments.seconds)]
    return f"{machine()}; {versions}, {arguments.date}; `python -m benchmarks.tools {' '.join(words)}`."


def main() -> int:
    arguments = parsed()
    zoo: Path | None = arguments.zoo
    found = sorted(path.parent.name for path in zoo.glob("*/model.onnx")) if zoo else []
    rows: list[Row] = []
    notes: list[str] = []
    failed = False
    for name in arguments.only or ["digits", *found]:
        folder = SAMPLE if name == "digits" or zoo is None else zoo / name
        more, words, lost = measure(name, folder, arguments.rounds, arguments.seconds)
        rows, notes, failed = rows + more, notes + words, failed or lost
    text = f"{heading(arguments)}\n\n{table(HEADINGS, [row(r) for r in rows])}\n{' '.join([summary(rows), *notes])}"
    print(text)
    if arguments.write:
        write_section("tools", text)
    return 1 if failed or any(r.verdict == MISSED for r in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
