"""Builds ekrun for every architecture with the compilers of the PyPI package `ziglang`.

- C, but for what parses, hashes and expands untrusted bundles: that is Zig, for its standard library and its safety checks.
- Imports the standard library only: the package's build hook loads this file by path, before edgekit is installed.
- Reproducible: the binaries depend on the sources, the flags and the version of ziglang, and on nothing else.
- Complete or absent: a binary appears by rename, and is built again only when its inputs changed.

`python -m edgekit.runner.build` builds into `edgekit/runner/bin`.
"""

import fcntl
import hashlib
import importlib.metadata
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

RUNNER = Path(__file__).resolve().parent
SOURCES = RUNNER / "src"
BIN = RUNNER / "bin"
ARCHITECTURES = ("x86_64", "aarch64")
GLIBC_FLOOR = "2.17"

# Undefined behaviour traps instead of going on: headers, names and kernel files are untrusted. `function` is left out,
# as it reads the code before a dlsym'ed function, which another compiler has laid out.
FLAGS = (
    *("-std=c11", "-Os", "-s", "-fPIE", "-pie"),
    *("-Wall", "-Wextra", "-Werror", "-Wshadow", "-Wstrict-prototypes", "-Wvla"),
    *("-fstack-protector-strong", "-fsanitize=undefined", "-fno-sanitize=function", "-fsanitize-trap=undefined"),
    *("-Wl,-z,relro", "-Wl,-z,now"),
)
LIBRARIES = ("-ldl", "-lm", "-lrt", "-lpthread")

# Safety checks stay on. No stack probes: they need Zig's own runtime, and Linux keeps 1 MiB free below the main thread's stack,
# while the largest frame has a quarter of that.
ZIG_ROOT = "bundle.zig"
ZIG_FLAGS = ("-O", "ReleaseSafe", "-fPIC", "-fstrip", "-fno-stack-check", "-fno-unwind-tables", "-ffunction-sections")

# For boards without a C library that ekrun can use: needs none, has the verb `facts` only.
FACTS_SOURCES = (
    *("main.c", "args.c", "facts.c", "board.c", "userland.c", "conditions.c", "cgroup.c", "cpuinfo.c"),
    *("cpu_aarch64.c", "cpu_x86_64.c", "proc.c", "sysfile.c", "json.c", "fail.c", "sigill.c", "tether.c"),
)
FACTS_FLAGS = ("-DEKRUN_FACTS_ONLY", "-static", "-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections")


@dataclass(frozen=True)
class Program:
    """One executable for each architecture, called `<name>-<arch>`."""

    name: str
    target: str  # after "<arch>-linux-"
    sources: tuple[str, ...]
    flags: tuple[str, ...]
    has_zig: bool


def _programs() -> tuple[Program, Program]:
    everything = tuple(sorted(path.name for path in SOURCES.glob("*.c")))
    return (
        Program("ekrun", f"gnu.{GLIBC_FLOOR}", everything, (*FLAGS, "-Wl,--gc-sections", *LIBRARIES), has_zig=True),
        Program("ekrun-facts", "musl", FACTS_SOURCES, (*FLAGS, *FACTS_FLAGS), has_zig=False),
    )


def build_all(out: Path = BIN, *, static: bool = True) -> list[Path]:
    """Build `ekrun-<arch>`, then `ekrun-facts-<arch>`, in `out` for every architecture, or keep what is up to date; their paths.

    Without `static` only ekrun: its first static build compiles a C library, which takes a minute or two.
    Raises subprocess.CalledProcessError when the compiler refuses, and PackageNotFoundError without ziglang.
    """
    out.mkdir(parents=True, exist_ok=True)
    digest = _inputs_digest()
    programs = _programs() if static else _programs()[:1]
    with (out / ".lock").open("w") as lock:  # test workers may build at the same time
        fcntl.flock(lock, fcntl.LOCK_EX)
        return [_build(program, arch, out, digest) for program in programs for arch in ARCHITECTURES]


def _inputs_digest() -> str:
    digest = hashlib.sha256(f"ziglang {importlib.metadata.version('ziglang')}\n".encode())
    for path in (Path(__file__), *sorted([*SOURCES.glob("*.[ch]"), *SOURCES.glob("*.zig")])):
        digest.update(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def _build(program: Program, arch: str, out: Path, digest: str) -> Path:
    name = f"{program.name}-{arch}"
    binary, stamp = out / name, out / f".{name}.stamp"
    if binary.exists() and stamp.exists() and stamp.read_text() == digest:
        return binary
    with tempfile.TemporaryDirectory(dir=out) as folder:
        made = Path(folder) / "ekrun"
        compiler = [sys.executable, "-m", "ziglang", "cc", "-target", f"{arch}-linux-{program.target}"]
        objects = [str(build_zig(Path(folder), arch))] if program.has_zig else []
        # relative names: no path of this machine gets into the binary
        subprocess.run(
            [*compiler, *program.sources, *objects, *program.flags, "-o", str(made)], cwd=SOURCES, check=True
        )
        made.chmod(0o755)
        made.replace(binary)
    stamp.write_text(digest)
    return binary


def build_zig(folder: Path, arch: str) -> Path:
    """The Zig part of ekrun as one object file in the absolute `folder`; its cache is left there too."""
    made = folder / "bundle.o"
    argv = [sys.executable, "-m", "ziglang", "build-obj", "-target", f"{arch}-linux-gnu.{GLIBC_FLOOR}", *ZIG_FLAGS]
    places = [ZIG_ROOT, "--cache-dir", str(folder / "cache"), f"-femit-bin={made}"]
    subprocess.run([*argv, *places], cwd=SOURCES, check=True)
    return made


if __name__ == "__main__":
    for path in build_all(static="--no-static" not in sys.argv):
        print(f"{path} {path.stat().st_size} bytes")
