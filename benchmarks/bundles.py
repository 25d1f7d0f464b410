"""How large bundles are, and what one takes on a device beside a pruned Python installation that runs the same model.

    python -m benchmarks.bundles [ZOO]

Sizes are of bundles as `edgekit bundle` packs them from runs for the target, in floating point (fp32 by ONNX Runtime, fp16 by
OpenVINO), unpacked and as shipped; MB are 10^6 bytes. The other side is Python as far as it takes to run the same loop: the
interpreter, its standard library, onnxruntime of the same version and numpy, less what no inference loads (REMOVED). Start and
memory are of whole processes, in turn: first answer is the time from the start of the process to its first inference's end, memory
the peak of the resident set after 50 more. Both have the bundle's own model, golden inputs and threads. Exit 1 when a bar is
missed, which is then named below the table.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.page import machine, table, write_section
from benchmarks.results import SAMPLE
from benchmarks.runner import cold, read_anew
from edgekit.bundle.keys import admitting
from edgekit.bundle.trust import Trust
from edgekit.bundle.unpacked import unpack_bundle
from edgekit.core.deployment import DEPLOYMENT_FILE, Deployment
from edgekit.core.shapes import parse_shape
from edgekit.core.types import Prefer, Requirements
from edgekit.flow.cargo import Wishes
from edgekit.flow.materials import Options
from edgekit.flow.optimize import optimize
from edgekit.flow.pack import bundle
from edgekit.sandbox import decode

COLD_STARTS = 31
ORT, OPENVINO = "onnxruntime", "openvino"
TARGETS = (("raspberry-pi-5", ORT), ("cpu-x86", ORT), ("cpu-x86", OPENVINO))
MODELS = ("digits", "rapidocr-rec")
# What is looked at is what a bundle carries besides the model: no candidate that has to be searched for or calibrated.
LEFT_OUT = {
    ORT: (OPENVINO, "int8", "fp16", "int8-weights", "int4-weights"),
    OPENVINO: (ORT, "int8", "bf16", "int8-weights", "int4-weights"),
}

# Bars: the sample for a Raspberry Pi 5, and against Python on this machine.
UNPACKED_MB, SHIPPED_MB = 30.0, 10.5
SIZE_SHARE, FIRST_SHARE, PEAK_SHARE = 0.4, 0.4, 0.65

# What a careful hand takes out of an installation that runs one model. Compiled modules stay: without them every start is slower.
REMOVED = (
    *(
        "test",
        "tests",
        "idlelib",
        "tkinter",
        "turtledemo",
        "ensurepip",
        "lib2to3",
        "pydoc_data",
        "site-packages",
        "unittest",
    ),
    *("config-3*", "distutils", "curses", "sqlite3", "dbm", "wsgiref", "xmlrpc", "venv", "msilib", "include", "f2py"),
    *("*.dist-info", "*.pyi", "*.h", "*.a", "transformers", "quantization", "tools", "datasets", "bin"),
)


@dataclass(frozen=True)
class Size:
    """One bundle; bytes."""

    model: str
    target: str
    engine: str
    chosen: str
    unpacked: int
    shipped: int


@dataclass(frozen=True)
class Beside:
    """One bundle and Python on the same model, (bundle, Python) each."""

    model: str
    threads: int
    size: tuple[int, int]
    first_ms: tuple[float, float]
    peak_mib: tuple[float, float]


# --------------------------------------------------------------------------------------------------------------- bundles


def packed(name: str, zoo: Path | None, target: str, engine: str, out: Path) -> Size:
    """The bundle of a model's best artifact for one engine, at `out` with `.ekb` behind; unpacked at `out`."""
    folder = SAMPLE if name == "digits" or zoo is None else zoo / name
    data = folder if name == "digits" else folder / "data"
    arguments = folder / "args.toml"
    shapes = tomllib.loads(arguments.read_text())["shape"] if arguments.exists() else []
    run = optimize(
        folder / "model.onnx",
        target,
        data,
        out.with_suffix(".run"),
        requirements=Requirements(forbid=LEFT_OUT[engine], prefer=Prefer.SIZE),
        options=Options(shapes=dict(map(parse_shape, shapes))),
    )
    file = out.with_suffix(".ekb")
    bundle(out.with_suffix(".run"), file, wishes=Wishes(data=data))
    made = unpack_bundle(file, out, admitting(Trust(), allow_unsigned=True))
    if (found := deployment(out).engine) != engine:
        raise RuntimeError(f"{name} for {target}: {found} was chosen, not {engine}")
    return Size(name, target, engine, str(run.choice.chosen), made.manifest.size, file.stat().st_size)


def deployment(folder: Path) -> Deployment:
    """How an unpacked bundle is run."""
    found: Deployment = decode((folder / DEPLOYMENT_FILE).read_bytes(), Deployment)
    return found


# ---------------------------------------------------------------------------------------------------------------- Python


@dataclass(frozen=True)
class Python:
    """A relocated installation: what it takes to run benchmarks.python_loop, and nothing else."""

    home: Path

    def argv(self, model: Path, threads: int, inputs: dict[str, Path]) -> list[str]:
        loop = Path(__file__).with_name("python_loop.py")
        words = [str(self.home / "bin/python3"), str(loop), str(model), str(threads)]
        environment = [f"PYTHONHOME={self.home}", f"LD_LIBRARY_PATH={self.home / 'lib'}"]
        return ["env", "-i", *environment, *words, *(f"{name}={path}" for name, path in inputs.items())]

    @property
    def size(self) -> int:
        return sum(path.stat().st_size for path in self.home.rglob("*") if path.is_file() and not path.is_symlink())


def install(home: Path, version: str) -> Python:
    """Python as it runs this script, copied and pruned, with onnxruntime of `version` and numpy from the index."""
    stdlib = Path(sysconfig.get_path("stdlib"))
    packages = home / "lib" / stdlib.name / "site-packages"
    ignored = shutil.ignore_patterns(*REMOVED)
    shutil.copytree(stdlib, packages.parent, ignore=ignored, symlinks=True)
    (home / "bin").mkdir()
    shutil.copy(Path(sys.executable).resolve(), home / "bin/python3")
    library = Path(sysconfig.get_config_var("LIBDIR") or "") / str(sysconfig.get_config_var("INSTSONAME"))
    if library.name.startswith("libpython") and ".so" in library.name:
        shutil.copy(library, home / "lib" / library.name)
    with tempfile.TemporaryDirectory() as scratch:
        wheels = ["--no-deps", "--target", scratch, f"onnxruntime=={version}", "numpy"]
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *wheels], check=True)
        shutil.copytree(scratch, packages, ignore=ignored)
    return Python(home)


# ------------------------------------------------------------------------------------------------------------ comparison


def beside(name: str, folder: Path, python: Python) -> Beside:
    """An unpacked bundle for this machine and Python, started in turn."""
    d = deployment(folder)
    assert d.golden is not None
    own = [str(folder / "bin/ekrun"), "bench", str(folder), "--stdin", "--warmup", "1"]
    inputs = {key: folder / path for key, path in d.golden.inputs.items()}
    loop = python.argv(folder / d.model, d.threads, inputs)
    read_anew(*sorted((folder / "lib").iterdir()), *sorted(python.home.rglob("*.so*")))
    starts = [(cold(own), cold(loop)) for _ in range(COLD_STARTS)]
    first, peak = (
        (median(pair[0][kind] for pair in starts), median(pair[1][kind] for pair in starts)) for kind in (0, 1)
    )
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return Beside(name, d.threads, (size, python.size + (folder / d.model).stat().st_size), first, peak)


def misses(sizes: list[Size], others: list[Beside]) -> Iterator[str]:
    """The bars that are missed, in words."""
    for s in sizes:
        if (s.model, s.target, s.engine) == ("digits", "raspberry-pi-5", ORT):
            if s.unpacked > UNPACKED_MB * 1e6:
                yield f"{s.model} for {s.target} unpacked, {s.unpacked / 1e6:.1f} MB of {UNPACKED_MB}"
            if s.shipped > SHIPPED_MB * 1e6:
                yield f"{s.model} for {s.target} as shipped, {s.shipped / 1e6:.2f} MB of {SHIPPED_MB}"
    for b in others:
        for what, pair, bar in (
            ("size", b.size, SIZE_SHARE),
            ("first answer", b.first_ms, FIRST_SHARE),
            ("peak RSS", b.peak_mib, PEAK_SHARE),
        ):
            if b.model == "digits" and pair[0] > bar * pair[1]:
                yield f"{what} of {b.model}, {pair[0] / pair[1]:.2f} of Python's, bar {bar}"


SIZES = ["model", "target", "engine", "chosen", "unpacked MB", "as shipped MB"]
BESIDE = [
    *("model", "threads", "size MB, bundle", "Python", "ratio"),
    *("first answer ms, bundle", "Python", "ratio", "peak RSS MiB, bundle", "Python", "ratio"),
]


def size_row(s: Size) -> list[str]:
    """A line of the table of sizes."""
    return [s.model, s.target, s.engine, s.chosen, f"{s.unpacked / 1e6:.1f}", f"{s.shipped / 1e6:.2f}"]


def beside_row(b: Beside) -> list[str]:
    """A line of the comparison with Python."""
    size = [f"{b.size[0] / 1e6:.1f}", f"{b.size[1] / 1e6:.1f}", f"{b.size[0] / b.size[1]:.2f}"]
    first = [f"{b.first_ms[0]:.0f}", f"{b.first_ms[1]:.0f}", f"{b.first_ms[0] / b.first_ms[1]:.2f}"]
    peak = [f"{b.peak_mib[0]:.1f}", f"{b.peak_mib[1]:.1f}", f"{b.peak_mib[0] / b.peak_mib[1]:.2f}"]
    return [b.model, str(b.threads), *size, *first, *peak]


def main() -> int:
    zoo = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    names = [name for name in MODELS if name == "digits" or (zoo is not None and (zoo / name).is_dir())]
    sizes, others = [], []
    with tempfile.TemporaryDirectory() as text:
        scratch = Path(text)
        for name in names:
            for target, engine in TARGETS:
                folder = scratch / f"{name}-{target}-{engine}"
                sizes.append(packed(name, zoo, target, engine, folder))
                print(size_row(sizes[-1]), flush=True)
        here = [scratch / f"{name}-cpu-x86-{ORT}" for name in names] if os.uname().machine == "x86_64" else []
        python = install(scratch / "python", deployment(here[0]).engine_version) if here else None
        for name, folder in zip(names, here, strict=False):
            assert python is not None
            others.append(beside(name, folder, python))
            print(beside_row(others[-1]), flush=True)
    missed = list(misses(sizes, others))
    words = (
        f"{machine()}; {COLD_STARTS} starts of each, in turn.\n\n{table(SIZES, list(map(size_row, sizes)))}\n"
        f"{table(BESIDE, list(map(beside_row, others)))}\n"
        f"{'Missed: ' + '; '.join(missed) if missed else 'All bars are met'}."
    )
    print(words)
    if zoo is not None:
        write_section("bundles", words)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
