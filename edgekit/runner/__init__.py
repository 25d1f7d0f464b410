"""The native runner: one small C program that runs and measures a model on the host and on a device alike.

- `src/` is C11 and needs nothing but libc; engines are opened by dlopen.
- `build.py` compiles it for every architecture; PROTOCOL.md says how it is called and what it answers.
"""

from pathlib import Path

from edgekit.errors import InternalError

PROTOCOL = 1

BUILD_COMMAND = "python -m edgekit.runner.build"


def ekrun_path(arch: str) -> Path:
    """The ekrun executable for `arch`, "x86_64" or "aarch64".

    Raises InternalError when this installation carries none for it.
    """
    path = Path(__file__).parent / "bin" / f"ekrun-{arch}"
    if not path.is_file():
        raise InternalError(f"ekrun has not been built for {arch}", where=str(path), next_step=f"run `{BUILD_COMMAND}`")
    return path
