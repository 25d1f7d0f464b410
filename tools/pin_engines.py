"""Regenerate `edgekit/engines/pins.toml`: fetch each wheel with pip and record what edgekit takes from it.

    python tools/pin_engines.py [--wheels FOLDER]

For a maintainer, when an engine version is added. Review the difference before committing it: the digests are what every
later fetch is held to. FOLDER keeps the wheels; those already in it are not fetched again.
"""

import argparse
import fnmatch
import hashlib
import sys
import tempfile
import zipfile
from pathlib import Path

from edgekit.engines.closure import PINS, PYTHON
from edgekit.process import run

ARCHS = ("x86_64", "aarch64")
VERSIONS = (
    ("onnxruntime", "1.28.0"),  # the newest for glibc 2.27
    ("onnxruntime", "1.32.0"),
    ("openvino", "2025.2.0"),  # the newest for glibc 2.31 on aarch64
    ("openvino", "2026.4.1"),
)
GLIBC_MINORS = (35, 34, 32, 31, 28, 27, 26, 24, 17)
# The first pattern is the library to open. For OpenVINO: what reading IR and running on the CPU needs, found by `readelf -d`
# and by running with nothing else in the folder; hwloc, tbbbind and tbbmalloc are not needed.
PATTERNS = {
    "onnxruntime": ("onnxruntime/capi/libonnxruntime.so.*", "onnxruntime/capi/libonnxruntime_providers_shared.so"),
    "openvino": (
        "openvino/libs/libopenvino_c.so.*",
        "openvino/libs/libopenvino.so.*",
        "openvino/libs/libopenvino_*_cpu_plugin.so",
        "openvino/libs/libopenvino_ir_frontend.so.*",
        "openvino/libs/libtbb.so.*",
    ),
}
NOTICES = {
    "onnxruntime": ("onnxruntime/LICENSE", "onnxruntime/ThirdPartyNotices.txt"),
    "openvino": ("openvino-*.dist-info/licenses/*",),
}
HEADER = """\
# What edgekit takes from each engine's wheel: made by tools/pin_engines.py, checked at every fetch and before every use.
# `library` is the file to open; `path` is the file's path in the wheel; sizes are bytes. `notices` are passed on with the files.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Regenerate edgekit/engines/pins.toml.")
    parser.add_argument("--wheels", type=Path, help="where wheels are kept")
    wheels = parser.parse_args().wheels
    with tempfile.TemporaryDirectory() as scratch:
        root = wheels or Path(scratch)
        entries = [
            entry(engine, version, arch, fetch(engine, version, arch, root / f"{engine}-{version}-{arch}"))
            for engine, version in VERSIONS
            for arch in ARCHS
        ]
    PINS.write_text(HEADER + "".join(entries), encoding="utf-8")


def fetch(engine: str, version: str, arch: str, folder: Path) -> Path:
    """The wheel in `folder`, fetched if it is not there."""
    if not any(folder.glob("*.whl")):
        tags = [a for minor in GLIBC_MINORS for a in ("--platform", f"manylinux_2_{minor}_{arch}")]
        tags += ["--platform", f"manylinux2014_{arch}"]
        python = ["--python-version", PYTHON, "--implementation", "cp", "--abi", f"cp{PYTHON}"]
        argv = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", *python, *tags]
        done = run([*argv, "--dest", str(folder), f"{engine}=={version}"], deadline_s=900)
        if done.returncode != 0:
            sys.exit(done.stderr.decode(errors="replace"))
    (wheel,) = folder.glob("*.whl")
    return wheel


def entry(engine: str, version: str, arch: str, wheel: Path) -> str:
    """The wheel's table in TOML."""
    with zipfile.ZipFile(wheel) as archive:
        names = [n for pattern in PATTERNS[engine] for n in archive.namelist() if fnmatch.fnmatchcase(n, pattern)]
        assert len(names) == len(PATTERNS[engine]), (wheel.name, names)
        rows = "".join(f"  {row(name, archive.read(name))},\n" for name in names)
        texts = [n for pattern in NOTICES[engine] for n in archive.namelist() if fnmatch.fnmatchcase(n, pattern)]
        assert texts, wheel.name
        notices = "".join(f"  {row(name, archive.read(name))},\n" for name in texts)
    tags = ", ".join(f'"{tag}"' for tag in wheel.stem.split("-")[-1].split("."))
    library = names[0].rpartition("/")[2]
    return (
        f'\n[[engine]]\nengine = "{engine}"\nversion = "{version}"\narch = "{arch}"\nlibrary = "{library}"\n'
        f"platforms = [{tags}]\nfiles = [\n{rows}]\nnotices = [\n{notices}]\n"
    )


def row(name: str, data: bytes) -> str:
    """One pinned file as an inline table."""
    return f'{{ path = "{name}", size = {len(data)}, sha256 = "{hashlib.sha256(data).hexdigest()}" }}'


if __name__ == "__main__":
    main()
