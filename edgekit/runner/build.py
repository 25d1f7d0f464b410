"""Builds ekrun and libekrun for every architecture with the compilers of the PyPI package `ziglang`.

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
LIBRARY = RUNNER / "library"
BIN = RUNNER / "bin"
ARCHITECTURES = ("x86_64", "aarch64")
GLIBC_FLOOR = "2.17"

# Undefined behaviour traps instead of going on: headers, names and kernel files are untrusted. `function` is left out,
# as it reads the code before a dlsym'ed function, which another compiler has laid out.
FLAGS = (
    *("-std=c11", "-Os", "-s"),
    *("-Wall", "-Wextra", "-Werror", "-Wshadow", "-Wstrict-prototypes", "-Wvla"),
    *("-fstack-protector-strong", "-fsanitize=undefined", "-fno-sanitize=function", "-fsanitize-trap=undefined"),
    *("-Wl,-z,relro", "-Wl,-z,now", "-Wl,--gc-sections"),
)
PROGRAM_FLAGS = ("-fPIE", "-pie")
LIBRARIES = ("-ldl", "-lm", "-lrt", "-lpthread")

# Safety checks stay on. No stack probes: they need Zig's own runtime, and Linux keeps 1 MiB free below the main thread's stack,
# while the largest frame has a quarter of that.
ZIG_ROOT = "bundle.zig"
LIBRARY_ZIG_ROOT = "library.zig"
ZIG_FLAGS = ("-O", "ReleaseSafe", "-fPIC", "-fstrip", "-fno-stack-check", "-fno-unwind-tables", "-ffunction-sections")

# For boards without a C library that ekrun can use: needs none, has the verb `facts` only.
FACTS_SOURCES = (
    *("main.c", "args.c", "facts.c", "board.c", "userland.c", "conditions.c", "cgroup.c", "cpuinfo.c"),
    *("attempt.c", "cpu_aarch64.c", "cpu_x86_64.c", "proc.c", "sysfile.c", "json.c", "fail.c", "memory.c", "sigill.c"),
    "tether.c",
)
SECTIONS = ("-ffunction-sections", "-fdata-sections")
FACTS_FLAGS = ("-DEKRUN_FACTS_ONLY", "-static", *SECTIONS)

# What libekrun shares with ekrun. What of it is for a program, to print or to end it, is in sections that nothing refers to.
# `local: *` in the version script leaves its API as the only names that others see.
SHARED_SOURCES = (
    *("args.c", "attempt.c", "engine.c", "engine_ort.c", "engine_openvino.c", "json.c", "layers.c", "memory.c"),
    *("proc.c", "tensor.c"),
)
LIBRARY_FLAGS = (
    *("-fPIC", "-shared", *SECTIONS, "-I.", f"-I../{LIBRARY.name}/include", "-Wl,-soname,libekrun.so"),
    *(f"-Wl,--version-script=../{LIBRARY.name}/libekrun.map", "-Wl,-z,defs"),
)


@dataclass(frozen=True)
class Program:
    """One executable or library an architecture, called `<name>-<arch><suffix>`; `zig` is the root of its Zig part, or empty."""

    name: str
    target: str  # after "<arch>-linux-"
    sources: tuple[str, ...]
    flags: tuple[str, ...]
    zig: str
    suffix: str = ""


def _programs() -> tuple[Program, Program, Program]:
    gnu = f"gnu.{GLIBC_FLOOR}"
    everything = tuple(sorted(path.name for path in SOURCES.glob("*.c")))
    own = tuple(sorted(f"../{LIBRARY.name}/{path.name}" for path in LIBRARY.glob("*.c")))
    return (
        Program("ekrun", gnu, everything, (*FLAGS, *PROGRAM_FLAGS, *LIBRARIES), ZIG_ROOT),
        Program(
            "libekrun", gnu, (*own, *SHARED_SOURCES), (*FLAGS, *LIBRARY_FLAGS, *LIBRARIES), LIBRARY_ZIG_ROOT, ".so"
        ),
        Program("ekrun-facts", "musl", FACTS_SOURCES, (*FLAGS, *PROGRAM_FLAGS, *FACTS_FLAGS), ""),
    )


def build_all(out: Path = BIN, *, static: bool = True) -> list[Path]:
    """Build `ekrun-<arch>`, `libekrun-<arch>.so`, then `ekrun-facts-<arch>`, in `out` for every architecture, or keep what is up to
    date; their paths.

    Without `static` not the last: its first static build compiles a C library, which takes a minute or two.
    Raises subprocess.CalledProcessError when the compiler refuses, and PackageNotFoundError without ziglang.
    """
    out.mkdir(parents=True, exist_ok=True)
    digest = _inputs_digest()
    programs = _programs() if static else _programs()[:-1]
    with (out / ".lock").open("w") as lock:  # test workers may build at the same time
        fcntl.flock(lock, fcntl.LOCK_EX)
        return [_build(program, arch, out, digest) for program in programs for arch in ARCHITECTURES]


def _inputs_digest() -> str:
    digest = hashlib.sha256(f"ziglang {importlib.metadata.version('ziglang')}\n".encode())
    sources = [*SOURCES.glob("*.[ch]"), *SOURCES.glob("*.zig"), *LIBRARY.glob("*.[ch]"), *LIBRARY.glob("include/*.h")]
    for path in (Path(__file__), LIBRARY / "libekrun.map", *sorted(sources)):
        digest.update(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def _build(program: Program, arch: str, out: Path, digest: str) -> Path:
    name = f"{program.name}-{arch}{program.suffix}"
    binary, stamp = out / name, out / f".{name}.stamp"
    if binary.exists() and stamp.exists() and stamp.read_text() == digest:
        return binary
    with tempfile.TemporaryDirectory(dir=out) as folder:
        made = Path(folder) / "ekrun"
        compiler = [sys.executable, "-m", "ziglang", "cc", "-target", f"{arch}-linux-{program.target}"]
        objects = [str(build_zig(Path(folder), arch, program.zig))] if program.zig else []
        # relative names: no path of this machine gets into the binary
        subprocess.run(
            [*compiler, *program.sources, *objects, *program.flags, "-o", str(made)], cwd=SOURCES, check=True
        )
        made.chmod(0o755)
        made.replace(binary)
    stamp.write_text(digest)
    return binary


def build_zig(folder: Path, arch: str, root: str = ZIG_ROOT) -> Path:
    """The Zig part of ekrun, or of what has another `root`, as one object file in the absolute `folder`, as its cache."""
    made = folder / Path(root).with_suffix(".o")
    argv = [sys.executable, "-m", "ziglang", "build-obj", "-target", f"{arch}-linux-gnu.{GLIBC_FLOOR}", *ZIG_FLAGS]
    places = [root, "--cache-dir", str(folder / "cache"), f"-femit-bin={made}"]
    subprocess.run([*argv, *places], cwd=SOURCES, check=True)
    return made


if __name__ == "__main__":
    for path in build_all(static="--no-static" not in sys.argv):
        print(f"{path} {path.stat().st_size} bytes")
