"""The native runner: one small C program that runs and measures a model on the host and on a device alike.

- `src/` is C11 and needs nothing but libc; engines are opened by dlopen.
- `build.py` compiles it for every architecture; PROTOCOL.md says how it is called and what it answers;
- `library/` is libekrun, for applications: the same engines behind a C header, with a Python binding and examples.
"""

from collections.abc import Mapping
from pathlib import Path

from edgekit.errors import InternalError

PROTOCOL = 1

BUILD_COMMAND = "python -m edgekit.runner.build"


def ekrun_path(arch: str) -> Path:
    """The ekrun executable for `arch`, "x86_64" or "aarch64".

    Raises InternalError when this installation carries none for it.
    """
    return _binary("ekrun", arch)


# What a bundle carries for applications beside libekrun.so, by path in the bundle.
BUNDLED: Mapping[str, Path] = {
    path: Path(__file__).parent / "library" / path
    for path in ("include/ekrun.h", "python/ekrun.py", "examples/example.c", "examples/example.py")
}


def libekrun_path(arch: str) -> Path:
    """The libekrun.so for `arch`. Raises InternalError as `ekrun_path` does."""
    return _binary("libekrun", arch, ".so")


def ekrun_facts_path(arch: str) -> Path:
    """The static executable that has the verb `facts` only: for a board whose C library ekrun cannot use.

    Raises InternalError as `ekrun_path` does.
    """
    return _binary("ekrun-facts", arch)


def _binary(name: str, arch: str, suffix: str = "") -> Path:
    path = Path(__file__).parent / "bin" / f"{name}-{arch}{suffix}"
    if not path.is_file():
        raise InternalError(
            f"{name} has not been built for {arch}", where=str(path), next_step=f"run `{BUILD_COMMAND}`"
        )
    return path
