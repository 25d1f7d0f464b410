"""A small arm64 Debian root for running aarch64 programs under `qemu-aarch64-static -L ROOT`, made without privileges.

- Packages come from the machine's own apt sources, through private state and cache folders: nothing is installed.
- A file that exists below ROOT stands for the same path of the host, so ROOT carries an ARM /proc/cpuinfo: qemu 7.2 shows
  the host's, which makes ONNX Runtime's CPU detection crash.
- The root is complete or absent, and is made once for a cache folder.
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

_CPUINFO = """\
processor\t: {cpu}
BogoMIPS\t: 50.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1

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


def arm64_root(cache: Path) -> Path:
    """The root below `cache`, made on first use (a download of some 12 MB, and the package lists)."""
    root = cache / "arm64-root"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "arm64-root.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            with tempfile.TemporaryDirectory(dir=cache) as folder:
                made = _make(Path(folder))
                made.rename(root)
    return root


def qemu_argv(root: Path, cpu: str = "cortex-a76") -> list[str]:
    """The command prefix that runs an aarch64 program on an emulated `cpu` inside `root`."""
    return [QEMU, "-cpu", cpu, "-L", str(root)]


def _make(work: Path) -> Path:
    root = work / "root"
    (root / "usr/lib").mkdir(parents=True)
    (root / "lib").symlink_to("usr/lib")
    for package in _download(work):
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE) as unpacked:
            extract = ["tar", "-x", "--keep-directory-symlink", "--no-same-owner", "-C", str(root)]
            subprocess.run(extract, stdin=unpacked.stdout, check=True)
        if unpacked.returncode:
            raise subprocess.CalledProcessError(unpacked.returncode, unpacked.args)
    _write_kernel_files(root)
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


def _write_kernel_files(root: Path) -> None:
    cpus = root / "sys/devices/system/cpu"
    cpus.mkdir(parents=True)
    (root / "proc").mkdir()
    (root / "proc/cpuinfo").write_text("".join(_CPUINFO.format(cpu=cpu) for cpu in range(CPUS)))
    for name in ("possible", "present", "online"):
        (cpus / name).write_text(f"0-{CPUS - 1}\n")
