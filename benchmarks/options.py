"""What each runtime option changes, alone: `python -m benchmarks.options ZOO [--only NAME ...] [--write]`.

ZOO is what `python -m benchmarks.models` made. The model in fp32 on each engine, all threads: every option beside none, all
alive at a time, ROUNDS rounds in turn; the same without an option once more, as A/A. OpenVINO's model cache is filled by a process
before, so that its first answer is that of a second start. What pays here is what the search over settings tries (core/space.py).
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.page import machine, table, write_section
from benchmarks.stand import Stand, stand
from edgekit.core.elimination import LATENCY, Ratio, bootstrapped
from edgekit.core.recipes import RECIPES, REFERENCE
from edgekit.core.tradeoffs import Setting
from edgekit.flow.points import Spot
from edgekit.heat import Entry

MODELS = ("sample", "rapidocr-cls", "rapidocr-det", "rapidocr-rec", "magika", "opennsfw", "basic-pitch", "swift-f0")
OPENVINO = "ov-f32"
ROUNDS, TURN_MS = 15, 100.0
NONE, AGAIN, CACHE = "none", "none again", "CACHE_DIR"

ORT_OPTIONS: Mapping[str, Mapping[str, str]] = {
    "arena=0": {"arena": "0"},
    "mem_pattern=0": {"mem_pattern": "0"},
    "allow_spinning=0": {"session.intra_op.allow_spinning": "0"},
    "parallel": {"execution_mode": "parallel", "inter_op_threads": "2"},
    "set_denormal_as_zero=1": {"session.set_denormal_as_zero": "1"},
}
OPENVINO_OPTIONS: Mapping[str, Mapping[str, str]] = {
    "ENABLE_CPU_PINNING": {"ENABLE_CPU_PINNING": "YES"},
    "ENABLE_MMAP=NO": {"ENABLE_MMAP": "NO"},
    CACHE: {CACHE: ""},
}


@dataclass(frozen=True)
class Row:
    """One option beside none: the p50's ratio, and peak memory and first answer with and without it."""

    model: str
    candidate: str
    option: str
    ratio: Ratio
    memory_mib: tuple[float, float]
    first_ms: tuple[float, float]


def rows(one: Stand) -> list[Row]:
    """Every option of both engines."""
    found = []
    for candidate, options in ((REFERENCE, ORT_OPTIONS), (OPENVINO, OPENVINO_OPTIONS)):
        if any(o.name == candidate and o.measurement is not None for o in one.outcomes):
            with tempfile.TemporaryDirectory() as folder:
                found += _beside_none(one, candidate, options, Path(folder))
    return found


def _beside_none(one: Stand, candidate: str, options: Mapping[str, Mapping[str, str]], folder: Path) -> list[Row]:
    threads, space = one.shop.facts.usable_threads, one.space()

    def entry(name: str, table: Mapping[str, str]) -> Entry:
        table = {key: str(folder) if key == CACHE else value for key, value in table.items()}
        found = space.entry(Spot(candidate, Setting(threads, options=table)))
        assert isinstance(found, Entry), found
        return replace(found, name=name)

    entries = [entry(NONE, {}), *(entry(name, table) for name, table in options.items()), entry(AGAIN, {})]
    one.rounds([e for e in entries if e.name == CACHE], 1, 1.0)
    one.last.clear()
    tracks = one.rounds(entries, ROUNDS, TURN_MS)

    def memory(name: str) -> float:
        return (one.last[name].memory.peak or 0) / 2**20

    def first(name: str) -> float:
        return one.last[name].loaded.load.process_to_first_inference_ms or 0.0

    return [
        Row(
            one.name,
            candidate,
            e.name,
            bootstrapped(tracks[e.name], tracks[NONE], LATENCY, 0),
            (memory(e.name), memory(NONE)),
            (first(e.name), first(NONE)),
        )
        for e in entries[1:]
    ]


def page(found: list[Row]) -> str:
    """The table."""
    heads = ["model", "candidate", "option", "p50 / none's (95%)", "peak MiB", "none's", "first answer ms", "none's"]
    return table(
        heads,
        [
            [r.model, r.candidate, r.option, str(r.ratio), *(f"{mib:.1f}" for mib in r.memory_mib)]
            + [f"{ms:.0f}" for ms in r.first_ms]
            for r in found
        ],
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.options", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("zoo", type=Path)
    parser.add_argument("--only", nargs="+", choices=MODELS, default=MODELS, metavar="NAME")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    found: list[Row] = []
    forbid = tuple(name for name in RECIPES if name not in (REFERENCE, OPENVINO))
    for name in arguments.only:
        with stand(name, arguments.zoo, forbid) as one:
            found += rows(one)
    text = f"{machine()}\n\n{page(found)}"
    print(text)
    if arguments.write:
        write_section("options", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
