"""How often `edgekit gate` lets an equal rerun through, and how often it keeps a slowed copy out.

    python -m benchmarks.gate MODEL [--data D] [--times 20] [--slower 1.15] [--allowed 0.10] [--only measured|stored] [--write]

The model is optimized once, on this machine, within ONNX Runtime. The slowed copy is the chosen artifact with a chain of matrix
products beside it that ends in the same answers; the chain is lengthened until a race says that the copy takes `--slower` times as
long. Then, TIMES times each:

- measured: `gate --measure` of the run against itself, and of the slowed copy against the run (max_increase = ALLOWED);
- stored: both raced beside the reference, as `optimize` races its candidates, and the figures of one race held against those of
  the race before, as two runs hold them, but as if their bytes differed: those of equal bytes are equal without a look.

Bars, exit 1 when one is missed: measured, at least 19 of 20 equal reruns pass, and at least 19 of 20 slowed copies do not; stored,
at least 19 of 20 slowed copies do not pass, and at least 19 of 20 equal reruns do not fail (undecided is neither).

Why stored figures have another bar. Let s be the standard deviation of the logarithm of the ratio seen. An equal rerun passes where
the ratio and its reach, 1.96 s, stay below log(1.10); 19 times of 20 takes (1.96 + 1.64) s <= 0.095, s <= 2.6 %. That a slowdown of
15 % is seen above 10 % as often takes the same: 1.64 s <= log(1.15) - log(1.10). Two stored races hold four processes and two
intervals of 15 rounds; they reach 8 to 20 % to either side on a machine of two shared cores, which decides no tenth. A race of
`--measure` holds two processes and about 100 rounds, and it is repeated while it does not decide.
"""

import argparse
import math
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.page import machine, table, write_section
from edgekit.core.checks import Check, Status, judge
from edgekit.core.deltas import deltas
from edgekit.core.policy import read_policy
from edgekit.core.recipes import REFERENCE
from edgekit.core.results import Measurement, Outcome
from edgekit.core.run import Noise, Run
from edgekit.core.shapes import parse_shape
from edgekit.core.stats import latency_stats, runs_needed
from edgekit.core.types import Requirements
from edgekit.flow.clock import BENCH_SAMPLES, FINAL, HEAT
from edgekit.flow.compare import DEFAULT_REACH as REACH
from edgekit.flow.compare import A, B, Length, Pair, facing
from edgekit.flow.gate import engines_for
from edgekit.flow.materials import Options
from edgekit.flow.optimize import optimize
from edgekit.flow.policy import Retake, gate
from edgekit.flow.runs import read_run
from edgekit.flow.subject import find_subject
from edgekit.flow.workshop import SELECTION
from edgekit.race import RaceResult, race
from edgekit.runner.client import Runnable
from edgekit.sandbox import encode
from edgekit.store import ARTIFACT_FOLDER, RUN_FILE, sha256_file

SHARE_BAR = 19 / 20
TRIES = 5  # races in which the slowed copy is brought near what was asked for
MACS_PER_S = 2e10  # a first guess at how fast a product of matrices runs
CHECK = "latency.max_increase"


@dataclass(frozen=True)
class Ends:
    """How one kind of comparison ended, by status; `ratios` are what was seen of the latency, `seconds` what each took."""

    name: str
    should_pass: bool
    statuses: Mapping[Status, int]
    ratios: tuple[float, ...]
    seconds: tuple[float, ...] = ()

    @property
    def count(self) -> int:
        return sum(self.statuses.values())


# ----------------------------------------------------------------------------------------------------------- a slowed copy


def slowed(source: Path, out: Path, size: int, products: int) -> None:
    """The model at `source` with `products` products of `size` x `size` matrices beside it, which add 1e-30 x size at most.

    The chain begins at an input, so that nothing folds it, and multiplies by a permutation, so that nothing grows in it.
    """
    model = onnx.load(str(source))
    graph = model.graph
    first = next(i for i in graph.input if i.type.tensor_type.elem_type == TensorProto.FLOAT)
    last = next(o for o in graph.output if o.type.tensor_type.elem_type == TensorProto.FLOAT)
    shift = np.roll(np.eye(size, dtype=np.float32), 1, axis=0)
    constants = {"slow.shift": shift, "slow.tiny": np.float32(1e-30), "slow.flat": np.array([-1], dtype=np.int64)}
    graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items())
    graph.initializer.append(numpy_helper.from_array(np.array([0], dtype=np.int64), "slow.first"))
    nodes = [
        helper.make_node("Reshape", [first.name, "slow.flat"], ["slow.row"]),
        helper.make_node("Gather", ["slow.row", "slow.first"], ["slow.value"]),
        helper.make_node("Mul", ["slow.value", "slow.shift"], ["slow.0"]),
        *(helper.make_node("MatMul", [f"slow.{i}", "slow.shift"], [f"slow.{i + 1}"]) for i in range(products)),
        helper.make_node("ReduceMax", [f"slow.{products}"], ["slow.most"], keepdims=0),
        helper.make_node("Mul", ["slow.most", "slow.tiny"], ["slow.added"]),
        helper.make_node("Add", ["slow.before", "slow.added"], [last.name]),
    ]
    for node in graph.node:
        for names in (node.input, node.output):
            renamed = ["slow.before" if name == last.name else name for name in names]
            del names[:]
            names.extend(renamed)
    graph.node.extend(nodes)
    onnx.save(model, str(out))


def slowed_run(run: Path, out: Path, size: int, products: int) -> Path:
    """A copy of the run's folder whose artifact is slowed, and recorded as what it is."""
    record = read_run(run)
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(run, out)
    chosen = record.outcome(str(record.choice.chosen))
    assert chosen.artifact is not None
    path = out / ARTIFACT_FOLDER / chosen.artifact.files[0].path
    slowed(run / ARTIFACT_FOLDER / path.name, path, size, products)
    file = replace(chosen.artifact.files[0], sha256=sha256_file(path), size_bytes=path.stat().st_size)
    artifact = replace(chosen.artifact, files=(file, *chosen.artifact.files[1:]))
    outcomes = tuple(replace(o, artifact=artifact) if o.name == chosen.name else o for o in record.outcomes)
    (out / RUN_FILE).write_bytes(encode(replace(record, outcomes=outcomes)))
    return out


def calibrated(run: Path, out: Path, slower: float, retake: Retake) -> tuple[Path, float]:
    """A slowed copy that takes about `slower` times as long, and how much longer it was seen to take."""
    record = read_run(run)
    measured = record.outcome(str(record.choice.chosen)).measurement
    assert measured is not None
    seconds = measured.latency_ms.mean / 1e3
    size = max(16, round((seconds * 0.01 * MACS_PER_S) ** (1 / 3) / 8) * 8)
    products = max(1, round((slower - 1) / 0.01))
    costs: list[float] = []
    for _ in range(TRIES):
        seen = _seen(run, slowed_run(run, out, size, products), retake)
        costs.append(max(seen - 1, 0.0) / products)
        each = statistics.median(costs[-3:])  # one race may err by as much as the bound leaves between 10 and 15 %
        products = max(1, round((slower - 1) / each)) if each > 0 else 2 * products
    return out, _seen(run, slowed_run(run, out, size, products), retake)


def _seen(run: Path, slow: Path, retake: Retake) -> float:
    """How many times as long the slowed run takes, in one race."""
    with _facing(run, slow, retake) as pair:
        return pair.race(retake.length).ratios[B]


def _facing(a: Path, b: Path, retake: Retake) -> AbstractContextManager[Pair]:
    recipes = (REFERENCE, REFERENCE)
    return facing(a, b, retake.data, "local", REACH, recipes, retake.options, retake.cache, lambda _: None)


# ---------------------------------------------------------------------------------------------------------------- measured


def measured_ends(run: Path, slow: Path, policy: Path, times: int, retake: Retake) -> list[Ends]:
    """`gate --measure` of an equal rerun and of a slowed copy, in turn."""
    tallies = _tallies("measured")
    for number in range(times):
        for tally, other in zip(tallies, (run, slow), strict=True):
            begun = time.monotonic()
            found = gate(other, policy, run, retake)
            check = next(c for c in found.checks if c.key == CHECK)
            tally.add(check, time.monotonic() - begun, f"{number + 1}/{times}", "; ".join(found.notices))
    return [tally.ends() for tally in tallies]


@dataclass
class _Tally:
    """The checks of one kind of comparison, as they come."""

    name: str
    should_pass: bool
    checks: list[Check]
    seconds: list[float]

    def add(self, check: Check, seconds: float, number: str, note: str = "") -> None:
        self.checks.append(check)
        self.seconds.append(seconds)
        print(
            f"  {self.name} {number}: {check.status.value}, {check.found}; {seconds:.0f} s {note}".rstrip(), flush=True
        )

    def ends(self) -> Ends:
        statuses = Counter(check.status for check in self.checks)
        ratios = tuple(1 + check.value for check in self.checks if check.value is not None)
        return Ends(self.name, self.should_pass, statuses, ratios, tuple(self.seconds))


def _tallies(kind: str) -> tuple[_Tally, _Tally]:
    return _Tally(f"{kind}, equal", True, [], []), _Tally(f"{kind}, slowed", False, [], [])


# ------------------------------------------------------------------------------------------------------------------ stored


def stored_ends(
    model: Path, data: Path | None, run: Path, slow: Path, allowed: float, times: int, retake: Retake
) -> list[Ends]:
    """Figures of one race against those of the race before, as two runs would hold them."""
    policy = read_policy(_policy(allowed), "policy")
    record = read_run(run)
    tallies = _tallies("stored")
    before: Run | None = None
    with _facing(run, slow, retake) as pair:
        runnables = _runnables(pair, model, data, retake.options)
        for number in range(times + 1):
            begun = time.monotonic()
            result = _raced(pair, runnables)
            for tally, side in zip(tallies, (A, B), strict=True):
                if before is not None:
                    after = _as_run(record, result, side, tally.name)
                    check = judge(policy, after, deltas(before, after))[0]
                    tally.add(check, time.monotonic() - begun, f"{number}/{times}")
            before = _as_run(record, result, A, "before")
    return [tally.ends() for tally in tallies]


def _runnables(pair: Pair, model: Path, data: Path | None, options: Options) -> dict[str, Runnable]:
    """The chosen artifact, its slowed copy, and the reference."""
    pair.shop.scratch = pair.shop.scratch.parent / "reference"
    pair.shop.scratch.mkdir()
    engines = engines_for(pair.sheet, pair.shop.device.name)
    reference = find_subject(pair.shop, model, data, engines, REFERENCE, options)
    made = {REFERENCE: reference.made, **{side: pair.subjects[side].made for side in (A, B)}}
    return {name: pair.shop.on(pair.sheet.arch, one) for name, one in made.items()}


def _raced(pair: Pair, runnables: Mapping[str, Runnable]) -> RaceResult:
    """As `optimize` races its candidates where no percentile was asked for: p99, if the time suffices."""
    feeds = pair.subjects[A].materials.feeds(SELECTION)
    final = replace(FINAL, samples=runs_needed(99.0))
    return race(pair.shop.device, runnables, feeds, BENCH_SAMPLES, REFERENCE, HEAT, final, list)


def _as_run(record: Run, result: RaceResult, side: str, bytes_of: str) -> Run:
    """The run's record with the figures of a race, as bytes of its own, so that nothing is equal by its digest."""

    def timed(outcome: Outcome, name: str) -> Outcome:
        assert outcome.measurement is not None and outcome.artifact is not None
        files = tuple(replace(file, sha256=f"{bytes_of} {file.path}") for file in outcome.artifact.files)
        figures = _figures(outcome.measurement, result, name)
        return replace(outcome, measurement=figures, artifact=replace(outcome.artifact, files=files))

    chosen = str(record.choice.chosen)
    outcomes = tuple(
        timed(o, REFERENCE if o.name == REFERENCE else side) for o in record.outcomes if o.name in (REFERENCE, chosen)
    )
    return replace(record, outcomes=outcomes, noise=Noise(result.aa_ratio, result.aa_spread))


def _figures(measurement: Measurement, result: RaceResult, name: str) -> Measurement:
    latencies = result.latencies_ns(name)
    stats = latency_stats(latencies)
    return replace(
        measurement,
        latency_ms=stats,
        latencies_ns=latencies,
        ratio=result.ratios[name],
        throughput_ips=1e3 / stats.mean,
        ratio_interval=result.intervals.get(name),
    )


# ------------------------------------------------------------------------------------------------------------- the bars


def bars(ends: Sequence[Ends]) -> list[tuple[str, bool]]:
    """Each bar in words, and whether it is met."""
    found = []
    for end in ends:
        measured = end.name.startswith("measured")
        wrong = Status.FAILED if end.should_pass else Status.PASSED
        good = (
            end.statuses.get(Status.PASSED, 0)
            if measured and end.should_pass
            else end.count - end.statuses.get(wrong, 0)
        )
        word = ("passed" if measured else "not failed") if end.should_pass else "kept out"
        words = f"{end.name}: {good} of {end.count} {word} (bar {math.ceil(SHARE_BAR * end.count)})"
        found.append((words, good >= SHARE_BAR * end.count))
    return found


def row(model: str, end: Ends) -> list[str]:
    """A line of the table."""
    counts = [str(end.statuses.get(status, 0)) for status in (Status.PASSED, Status.FAILED, Status.UNDECIDED)]
    seen = (
        f"{statistics.median(end.ratios):.3f} ({min(end.ratios):.3f} to {max(end.ratios):.3f})" if end.ratios else "-"
    )
    cost = f"{statistics.median(end.seconds):.0f} ({max(end.seconds):.0f})" if end.seconds else "-"
    return [model, end.name, *counts, seen, cost]


HEADINGS = ["model", "gate", "passed", "failed", "undecided", "ratio seen, median (range)", "s each, median (most)"]


def _policy(allowed: float) -> str:
    return f"schema = 1\n[latency]\nmax_increase = {allowed}\n"


def main() -> int:
    parser = argparse.ArgumentParser(
        description="How often the gate lets an equal rerun through and keeps a slowed copy out."
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--shape", action="append", default=[], help="as of `edgekit optimize`")
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--slower", type=float, default=1.15)
    parser.add_argument("--allowed", type=float, default=0.10)
    parser.add_argument("--seconds", type=float, default=Length().seconds)
    parser.add_argument("--rounds", type=int, default=Length().rounds)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--only", choices=("measured", "stored"))
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    given = parser.parse_args()
    options = Options(shapes=dict(map(parse_shape, given.shape)), threads=given.threads)
    retake = Retake(None, given.data, Length(given.seconds, given.rounds), options=options, cache=given.cache)
    with tempfile.TemporaryDirectory() as scratch:
        run, policy = Path(scratch) / "run", Path(scratch) / "policy.toml"
        policy.write_text(_policy(given.allowed))
        asked = Requirements(forbid=("openvino",))
        record = optimize(given.model, data=given.data, out=run, requirements=asked, options=options, cache=given.cache)
        begun = time.monotonic()
        slow, seen = calibrated(run, Path(scratch) / "slow", given.slower, retake)
        print(f"{given.model}: {record.choice.chosen}; the slowed copy takes {seen:.3f} times as long", flush=True)
        print(f"  made in {time.monotonic() - begun:.0f} s", flush=True)
        ends = measured_ends(run, slow, policy, given.times, retake) if given.only != "stored" else []
        if given.only != "measured" and record.choice.chosen == REFERENCE:
            print(
                f"  stored: left out, {REFERENCE} itself was chosen: over itself nothing is faster or slower",
                flush=True,
            )
        elif given.only != "measured":
            ends += stored_ends(given.model, given.data, run, slow, given.allowed, given.times, retake)
    met = bars(ends)
    name = given.model.parent.name
    verdicts = "\n".join(f"- {words}: {'met' if ok else 'missed'}" for words, ok in met)
    text = (
        f"{name}, {record.choice.chosen}, slowed copy {seen:.3f}, allowed {given.allowed:g}, at least {given.seconds:g} s and "
        f"{given.rounds} rounds a race. {machine()}.\n\n{table(HEADINGS, [row(name, end) for end in ends])}\n{verdicts}"
    )
    print(text)
    if given.write:
        write_section("gate", text)
    return 0 if all(ok for _, ok in met) else 1


if __name__ == "__main__":
    sys.exit(main())
