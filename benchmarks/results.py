"""`edgekit optimize` on the open models, for the host and for a Raspberry Pi 5, with data and without.

    python -m benchmarks.models ZOO          # fetch the models and make their data
    python -m benchmarks.results ZOO OUT     # runs into OUT, the table into RESULTS.md

A run that is in OUT already is read, not repeated; remove it to measure again. Exit 1 when a choice for the host is slower than
plain ONNX Runtime beyond the bar, or a run ended with an error.
"""

import argparse
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import edgekit
from benchmarks.page import machine, table, write_section
from edgekit.core.choose import figures
from edgekit.core.results import BLOCKING, Origin
from edgekit.core.run import Run
from edgekit.core.shapes import parse_shape
from edgekit.errors import EdgekitError
from edgekit.sandbox import decode
from edgekit.store import RUN_FILE

TARGETS = ("host", "raspberry-pi-5")
SAMPLE = Path(__file__).parent.parent / "calibration_data" / "digits"

# The bar of "never slower than plain ONNX Runtime": the race's own A/A spread, and no more than this.
MAX_RATIO = 1.03


@dataclass(frozen=True)
class Case:
    """One command line: a model, with or without its data, for a target."""

    name: str
    model: Path
    data: Path | None
    shapes: tuple[str, ...]
    target: str

    @property
    def label(self) -> str:
        return f"{self.name}-{self.target}-{'data' if self.data else 'bare'}"


def cases(zoo: Path, names: list[str]) -> Iterator[Case]:
    """Every model for every target, with data first."""
    for name in names:
        folder = SAMPLE if name == "digits" else zoo / name
        arguments = folder / "args.toml"
        shapes = tuple(tomllib.loads(arguments.read_text())["shape"]) if arguments.exists() else ()
        data = folder if name == "digits" else folder / "data"
        for target in TARGETS:
            for given in (data, None):
                yield Case(name, folder / "model.onnx", given, shapes, target)


def run(case: Case, out: Path) -> Run | str:
    """The run of a case, or the error it ended with."""
    folder = out / case.label
    if not (folder / RUN_FILE).exists():
        shapes = dict(map(parse_shape, case.shapes))
        started = time.monotonic()
        try:
            edgekit.optimize(
                case.model, case.target, case.data, folder, options=edgekit.Options(shapes=shapes, fresh=True)
            )
        except EdgekitError as error:
            print(f"{case.label}: {error}", flush=True)
            return str(error)
        (out / f"{case.label}.seconds").write_text(f"{time.monotonic() - started:.0f}")
    found: Run = decode((folder / RUN_FILE).read_bytes(), Run)
    print(f"{case.label}: {found.choice.chosen}, {found.choice.reason}", flush=True)
    return found


HEADINGS = [
    *("model", "target", "data", "chosen", "engine", "metric", "value", "drop (95%), n"),
    *("p50 ms", "vs ORT fp32", "A/A up to", "size MiB", "memory MiB", "ruled out", "s"),
]


def row(case: Case, found: Run | str, out: Path) -> list[str]:
    """A line of the table."""
    head = [case.name, case.target, "yes" if case.data else "no"]
    if isinstance(found, str) or found.choice.chosen is None:
        return [*head, found if isinstance(found, str) else "nothing fits", *[""] * (len(HEADINGS) - 4)]
    outcome = found.outcome(found.choice.chosen)
    numbers = figures(outcome, found.target_origin)
    accuracy = found.evaluation or outcome.accuracy
    assert numbers is not None and accuracy is not None and numbers.peak_memory_bytes is not None
    mark = "" if found.target_origin is Origin.TARGET else " (predicted)"
    interval = f"{accuracy.drop:+.4f} ({accuracy.ci_low:+.4f} to {accuracy.ci_high:+.4f}), {accuracy.n}"
    blocked = [f"{o.name} {v.code.value}" for o in found.outcomes for v in o.verdicts if v.code in BLOCKING]
    spent = out / f"{case.label}.seconds"
    seconds = spent.read_text() if spent.exists() else ""
    return [
        *head,
        outcome.name,
        f"{outcome.candidate.build.recipe.engine} {outcome.candidate.build.engine_version}",
        f"{accuracy.metric} ({accuracy.kind})",
        f"{accuracy.value:.4f}",
        interval,
        f"{numbers.p50_ms:.3g}{mark}",
        f"{numbers.ratio:.3f}{mark}",
        f"{found.noise.spread:.3f}" if found.noise and found.target_origin is Origin.TARGET else "",
        f"{numbers.size_bytes / 2**20:.2f}",
        f"{numbers.peak_memory_bytes / 2**20:.0f}{mark}",
        "; ".join(blocked) or "none",
        seconds,
    ]


def bar(runs: list[tuple[Case, Run | str]]) -> tuple[str, bool]:
    """The bar on the host, in words, and whether it is met and every run came to its end."""
    pairs = []
    for case, found in runs:
        if case.target == "host" and isinstance(found, Run) and found.choice.chosen is not None and found.noise:
            numbers = figures(found.outcome(found.choice.chosen), Origin.TARGET)
            assert numbers is not None
            pairs.append((case.label, numbers.ratio, found.noise.spread))
    over = [label for label, ratio, spread in pairs if ratio > min(max(spread, 1.0), MAX_RATIO)]
    ended = all(isinstance(found, Run) for _, found in runs)
    if not pairs:
        return "No choice was made for the host.", False
    fastest = min(pairs, key=lambda pair: pair[1])
    words = (
        f"On the host, {len(pairs) - len(over)} of {len(pairs)} choices are no slower than ONNX Runtime fp32 with default "
        f"options and the same threads{' (over: ' + ', '.join(over) + ')' if over else ''}; the largest gain is "
        f"{1 / fastest[1]:.2f}x ({fastest[0]})."
    )
    return words, ended and not over


def main() -> int:
    parser = argparse.ArgumentParser(description="edgekit optimize on the open models.")
    parser.add_argument("zoo", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", nargs="+", help="names of folders in ZOO, or digits; all unless given")
    parser.add_argument("--no-page", action="store_true", help="leave RESULTS.md as it is")
    arguments = parser.parse_args()
    names = arguments.only or ["digits", *sorted(path.parent.name for path in arguments.zoo.glob("*/model.onnx"))]
    runs = [(case, run(case, arguments.out)) for case in cases(arguments.zoo, names)]
    words, met = bar(runs)
    text = f"{machine()}.\n\n{table(HEADINGS, [row(case, found, arguments.out) for case, found in runs])}\n{words}"
    print(text)
    if not arguments.no_page:
        write_section("optimize", text)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
