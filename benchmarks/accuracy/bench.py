"""What one model's comparison works with, and its builds: every tool and edgekit, each in a process of its own.

- A build is kept in OUT/<model>/<build> with what it took; what is there is not made again, half of one is.
- edgekit is run by its command line, as a user does, with a cache that is empty at its start.
"""

import shutil
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.accuracy.builders import REPLY, Request
from benchmarks.accuracy.child import Limits, watch
from benchmarks.accuracy.records import CONTROL, EDGEKIT, MAX_DROP, TOOLS, Build, Tool, own_name
from benchmarks.results import SAMPLE
from edgekit.core.accuracy import MetricOptions, OutputSet
from edgekit.flow.judge import Judge
from edgekit.flow.subject import Subject
from edgekit.flow.workshop import Workshop
from edgekit.sandbox import decode, encode
from edgekit.store import safe_name, write_atomic

BUILD = "build.json"
RUN = "run"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Case:
    """A model with its data, and the shapes that fix its open axes."""

    name: str
    model: Path
    data: Path
    shapes: tuple[str, ...]


def find_case(name: str, zoo: Path | None) -> Case:
    """`digits`, or a folder of benchmarks.models."""
    if name == "digits" or zoo is None:
        return Case("digits", SAMPLE / "model.onnx", SAMPLE, ())
    folder = (zoo / name).absolute()
    shapes = tuple(tomllib.loads((folder / "args.toml").read_text())["shape"])
    return Case(name, folder / "model.onnx", folder / "data", shapes)


@dataclass(frozen=True)
class Settings:
    """How to go about it. `forbid` adds a run of edgekit with that word forbidden; `threads` 0 and `samples` None mean all."""

    forbid: str = ""
    threads: int = 0
    samples: int | None = None
    tools: tuple[Tool, ...] = TOOLS
    build_s: float = 1800.0
    control_s: float = 600.0
    edgekit_s: float = 3600.0
    memory_bytes: int = 12 << 30
    race_s: float = 5.0
    rounds: int = 15
    time_budget: str = ""

    @property
    def own(self) -> tuple[str, ...]:
        """What is forbidden in each run of edgekit."""
        return ("", self.forbid) if self.forbid else ("",)

    def limits(self, build: str) -> Limits:
        walls = {CONTROL: self.control_s, EDGEKIT: self.edgekit_s}
        return Limits(walls.get(build, self.build_s), self.memory_bytes)


@dataclass(frozen=True)
class Bench:
    """What all steps of one model work with; `folder` keeps its builds."""

    case: Case
    settings: Settings
    folder: Path
    shop: Workshop
    engines: Mapping[str, str]
    subject: Subject
    judge: Judge
    reference: OutputSet  # fp32 answers on the selection split

    def own_folder(self, forbid: str) -> Path:
        return self.folder / safe_name(own_name(forbid))

    @property
    def threads(self) -> int:
        return self.subject.made.runnable.run.threads


# ---------------------------------------------------------------------------------------------------------------- builds


def tool_build(bench: Bench, name: str, say: Say) -> Build:
    """A tool's build from OUT, else made now in a child."""
    materials, spec = bench.subject.materials, bench.subject.candidate.build

    def make(folder: Path) -> Build:
        request = Request(
            build=name,
            model=materials.model,
            data=materials.data_folder,
            inputs=materials.input_names,
            state=materials.data.state,
            numeric=spec.numeric,
            metric=materials.data.metric,
            options=getattr(materials.data, "metric_options", MetricOptions()),
            max_drop=MAX_DROP,
            reference=bench.reference,
            out=folder,
        )
        place = folder / "request.json"
        write_atomic(place, encode(request))
        argv = [sys.executable, "-m", "benchmarks.accuracy.builders", str(place)]
        watched = watch(argv, folder / "log.txt", bench.settings.limits(name))
        reply = folder / REPLY
        built: Build = decode(reply.read_bytes(), Build) if reply.exists() else Build()
        reason = watched.failure or built.reason
        return replace(built, seconds=watched.seconds, peak_bytes=watched.peak_bytes, reason=reason)

    return _kept(bench.folder / name, make, say)


def edgekit_build(bench: Bench, forbid: str, say: Say) -> Build:
    """A run of `edgekit optimize` from OUT, else made now, with a cache that is empty at its start."""
    case, settings = bench.case, bench.settings

    def make(folder: Path) -> Build:
        argv = [sys.executable, "-m", "edgekit", "--cache", str(folder / "cache"), "optimize", str(case.model)]
        argv += ["--target", "host", "--data", str(case.data), "-o", str(folder / RUN), "--max-drop", str(MAX_DROP)]
        argv += ["--threads", str(bench.threads)]
        argv += [word for shape in case.shapes for word in ("--shape", shape)]
        argv += ["--samples", str(settings.samples)] if settings.samples else []
        argv += ["--time-budget", settings.time_budget] if settings.time_budget else []
        argv += ["--forbid", forbid] if forbid else []
        watched = watch(argv, folder / "log.txt", settings.limits(EDGEKIT))
        shutil.rmtree(folder / "cache", ignore_errors=True)
        return Build(seconds=watched.seconds, peak_bytes=watched.peak_bytes, reason=watched.failure)

    return _kept(bench.own_folder(forbid), make, say)


def _kept(folder: Path, make: Callable[[Path], Build], say: Say) -> Build:
    """What `make` left in a folder of OUT, made once; half of one is made again."""
    kept = folder / BUILD
    if not kept.exists():
        say(folder.name)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_atomic(kept, encode(make(folder.absolute())))
    build: Build = decode(kept.read_bytes(), Build)
    return build
