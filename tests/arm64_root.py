"""A small arm64 Debian root for running aarch64 programs under `qemu-aarch64-static -L ROOT`, made without privileges.

- Packages come from the machine's own apt sources, through private state and cache folders: nothing is installed.
- A file that exists below ROOT stands for the same path of the host, so ROOT carries an ARM /proc/cpuinfo: qemu 7.2 shows
  the host's, which makes ONNX Runtime's CPU detection crash.
- A root is complete or absent, and is made once for a cache folder and a core.
"""

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

QEMU = "qemu-aarch64-static"
PACKAGES = ("libc6", "libgcc-s1", "libstdc++6", "zlib1g")
CPUS = 2

_ARMV8_0 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
_ARMV8_2 = f"{_ARMV8_0} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"

# qemu's name of a core -> its part number at Arm and the kernel's names of its features. Engines choose kernels by these:
# a root that promises more than `-cpu` gives ends in an illegal instruction.
CORES = {
    "cortex-a53": ("0xd03", _ARMV8_0),
    "cortex-a72": ("0xd08", _ARMV8_0),
    "cortex-a76": ("0xd0b", _ARMV8_2),
    "neoverse-n1": ("0xd0c", _ARMV8_2),
}

_CPUINFO = """\
processor\t: {index}
BogoMIPS\t: 50.00
Features\t: {features}
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: {part}
CPU revision\t: 4

"""


def default_cache() -> Path:
    """Where roots are kept between test runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgekit-tests"


def require_board() -> None:
    """Skip the calling test, visibly, where the emulated board cannot be made; fail it under EDGEKIT_REQUIRE_BOARD=1."""
    missing = [tool for tool in (QEMU, "apt-get", "dpkg-deb") if shutil.which(tool) is None]
    if not missing:
        return
    reason = f"no emulated board: {', '.join(missing)} is missing"
    if os.environ.get("EDGEKIT_REQUIRE_BOARD") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def arm64_root(cache: Path, core: str = "cortex-a53") -> Path:
    """A root below `cache` for one of CORES, made on first use (a download of some 12 MB, and the package lists).

    The roots of all cores share one set of libraries; each has its own /proc/cpuinfo.
    """
    cache.mkdir(parents=True, exist_ok=True)
    libraries, root = cache / "arm64-libraries", cache / f"arm64-{core}"
    with (cache / "arm64.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            if not libraries.exists():
                _unpack(Path(folder)).rename(libraries)
            if not root.exists():
                _overlay(Path(folder), libraries, core).rename(root)
    return root


def board_argv(cache: Path, core: str = "cortex-a53") -> list[str]:
    """The command prefix that runs an aarch64 program on the emulated `core`, inside its root."""
    return [QEMU, "-cpu", core, "-L", str(arm64_root(cache, core))]


def _unpack(work: Path) -> Path:
    root = work / "libraries"
    (root / "usr/lib").mkdir(parents=True)
    (root / "lib").symlink_to("usr/lib")
    for package in _download(work):
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE) as unpacked:
            extract = ["tar", "-x", "--keep-directory-symlink", "--no-same-owner", "-C", str(root)]
            subprocess.run(extract, stdin=unpacked.stdout, check=True)
        if unpacked.returncode:
            raise subprocess.CalledProcessError(unpacked.returncode, unpacked.args)
    return root


def _download(work: Path) -> list[Path]:
    status, packages = work / "status", work / "packages"
    status.touch()
    packages.mkdir()
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (work / folder).mkdir(parents=True)
    settings = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
        "Dir::State": work / "state",
        "Dir::State::status": status,
        "Dir::Cache": work / "cache",
    }
    apt = ["apt-get", "-q", *(word for key, value in settings.items() for word in ("-o", f"{key}={value}"))]
    for command in (["update"], ["download", *PACKAGES]):
        done = subprocess.run([*apt, *command], cwd=packages, capture_output=True, text=True, timeout=240)
        if done.returncode:
            raise RuntimeError(f"apt-get {command[0]} failed: {done.stderr.strip()[-500:]}")
    return sorted(packages.glob("*.deb"))


def _overlay(work: Path, libraries: Path, core: str) -> Path:
    root = work / "root"
    cpus = root / "sys/devices/system/cpu"
    part, features = CORES[core]
    cpus.mkdir(parents=True)
    for name in ("usr", "lib", "etc"):
        (root / name).symlink_to(Path("..") / libraries.name / name)
    (root / "proc").mkdir()
    entries = (_CPUINFO.format(index=index, part=part, features=features) for index in range(CPUS))
    (root / "proc/cpuinfo").write_text("".join(entries))
    for name in ("possible", "present", "online"):
        (cpus / name).write_text(f"0-{CPUS - 1}\n")
    return root
