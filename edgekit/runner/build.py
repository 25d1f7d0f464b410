"""Builds ekrun for every architecture with the C compiler of the PyPI package `ziglang`.

- Imports the standard library only: the package's build hook loads this file by path, before edgekit is installed.
- Reproducible: the binaries depend on the sources, the flags and the version of ziglang, and on nothing else.
- Complete or absent: a binary appears by rename, and is built again only when its inputs changed.

`python -m edgekit.runner.build` builds into `edgekit/runner/bin`.
"""

import fcntl
import hashlib
import importlib.metadata
import os
import subprocess
import sys
import tempfile
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
LIBRARIES = ("-ldl", "-lm", "-lrt")


def build_all(out: Path = BIN) -> list[Path]:
    """Build `ekrun-<arch>` in `out` for every architecture, or keep what is up to date; returns their paths.

    Raises subprocess.CalledProcessError when the compiler refuses, and PackageNotFoundError without ziglang.
    """
    out.mkdir(parents=True, exist_ok=True)
    digest = _inputs_digest()
    with (out / ".lock").open("w") as lock:  # test workers may build at the same time
        fcntl.flock(lock, fcntl.LOCK_EX)
        return [_build(arch, out, digest) for arch in ARCHITECTURES]


def _inputs_digest() -> str:
    digest = hashlib.sha256(f"ziglang {importlib.metadata.version('ziglang')}\n".encode())
    for path in (Path(__file__), *sorted(SOURCES.glob("*.[ch]"))):
        digest.update(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def _build(arch: str, out: Path, digest: str) -> Path:
    binary, stamp = out / f"ekrun-{arch}", out / f".ekrun-{arch}.stamp"
    if binary.exists() and stamp.exists() and stamp.read_text() == digest:
        return binary
    with tempfile.TemporaryDirectory(dir=out) as folder:
        made = Path(folder) / "ekrun"
        sources = sorted(path.name for path in SOURCES.glob("*.c"))
        target = f"{arch}-linux-gnu.{GLIBC_FLOOR}"
        command = [
            sys.executable,
            "-m",
            "ziglang",
            "cc",
            "-target",
            target,
            *FLAGS,
            *sources,
            *LIBRARIES,
            "-o",
            str(made),
        ]
        subprocess.run(command, cwd=SOURCES, check=True)  # relative names: no path of this machine gets into the binary
        made.chmod(0o755)
        os.replace(made, binary)  # noqa: PTH105 - both are paths already
    stamp.write_text(digest)
    return binary


if __name__ == "__main__":
    for path in build_all():
        print(f"{path} {path.stat().st_size} bytes")
