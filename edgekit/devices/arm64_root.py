"""A small arm64 root for running aarch64 programs under `qemu-aarch64 -L ROOT`, made without privileges.

- The libraries are found in a folder the user names, in the cache or in the cross packages of the distribution; else they come
  from the machine's own apt sources, through private state and cache folders: nothing is installed. apt verifies every package
  against the signed lists of its sources; what is not signed is refused here.
- A file that exists below ROOT stands for the same path of the host, so ROOT holds as little as will do: the libraries, and
  an ARM /proc/cpuinfo, because qemu 7.2 shows the host's, which makes ONNX Runtime's CPU detection crash.
- The cached libraries are complete or absent, and serve all cores; a root is made for one device and goes with it.
"""

import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from edgekit.errors import ResourceLimit, UsageError
from edgekit.process import describe_exit, run
from edgekit.store import Cache, disk_errors

KIND = "boards"
KEY = "arm64-libraries-1"
PACKAGES = ("libc6", "libgcc-s1", "libstdc++6", "zlib1g")
CROSS = Path("/usr/aarch64-linux-gnu")
CROSS_PACKAGES = ("libc6-arm64-cross", "libgcc-s1-arm64-cross", "libstdc++6-arm64-cross")
FETCH_DEADLINE_S = 300.0

LOADER = "ld-linux-aarch64.so.1"
LIBRARIES = (LOADER, "libc.so.6", "libm.so.6", "libgcc_s.so.1", "libstdc++.so.6")
_LIBRARY_FOLDERS = ("lib", "lib/aarch64-linux-gnu", "usr/lib", "usr/lib/aarch64-linux-gnu")

_ARMV8_0 = "fp asimd aes pmull sha1 sha2 crc32 cpuid"
_ARMV8_2 = f"{_ARMV8_0} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"

# qemu's name of a core -> its part number at Arm and the kernel's names of its features. Engines choose kernels by these:
# a root that promises more than `-cpu` gives ends in an illegal instruction.
CORES: Mapping[str, tuple[str, str]] = {
    "cortex-a35": ("0xd04", _ARMV8_0),
    "cortex-a53": ("0xd03", _ARMV8_0),
    "cortex-a57": ("0xd07", _ARMV8_0),
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


def cpuinfo(core: str, cpus: int) -> str:
    """What /proc/cpuinfo of a machine with `cpus` cores of one of CORES says."""
    part, features = CORES[core]
    return "".join(_CPUINFO.format(index=index, part=part, features=features) for index in range(cpus))


def make_root(root: Path, core: str, libraries: Path | None) -> None:
    """Fill the new folder `root` for one of CORES; `libraries` None is for a host whose own libraries are arm64."""
    cpus = os.cpu_count() or 1
    with disk_errors(root):
        (root / "proc").mkdir(parents=True)
        (root / "proc/cpuinfo").write_text(cpuinfo(core, cpus))
        write_sys(root, core, cpus)
        if libraries is not None:
            (root / "usr").mkdir()
            for name in ("lib", "usr/lib"):
                if (libraries / name).is_dir():
                    (root / name).symlink_to((libraries / name).resolve())


def write_sys(root: Path, core: str, cpus: int) -> None:
    """The part of /sys that engines read: which cores there are, and what each is (OpenVINO 2026.4 looks nowhere else)."""
    system = root / "sys/devices/system/cpu"
    for index in range(cpus):
        identification = system / f"cpu{index}/regs/identification"
        identification.mkdir(parents=True)
        (identification / "midr_el1").write_text(f"0x{_midr(core):016x}\n")
    for name in ("possible", "present", "online"):
        (system / name).write_text(f"0-{cpus - 1}\n")


def _midr(core: str) -> int:
    """A core's main identification register: Arm's implementer code, architecture by features, part, revision 4 (DDI 0487)."""
    return 0x41 << 24 | 0xF << 16 | int(CORES[core][0], 16) << 4 | 4


def find_libraries(
    cache: Cache, sysroot: Path | None = None, *, offline: bool = False, say: Callable[[str], None] = lambda _: None
) -> Path:
    """A folder whose `lib` and `usr/lib` hold arm64's C and C++ libraries: `sysroot` if given, else found, else fetched.

    Raises UsageError when `sysroot` is none, or when `offline` forbids the fetch; ResourceLimit when the fetch fails.
    """
    if sysroot is not None:
        return _checked(sysroot)
    if (cached := cache.get(KIND, KEY)) is not None:
        return cached
    if not _missing(CROSS):
        return CROSS
    if offline:
        raise UsageError("the arm64 libraries are not here and --offline forbids fetching them", next_step=_ADVICE)
    say("fetching the arm64 C and C++ libraries for emulation (some 12 MB, and apt's lists)")
    with cache.scratch() as work, cache.filling(KIND, KEY) as folder:
        fetch_packages(PACKAGES, folder, work)
    return cache.root / KIND / KEY


_ADVICE = f"install {' '.join(CROSS_PACKAGES)}, or name an arm64 root with --sysroot"


def _checked(sysroot: Path) -> Path:
    if missing := _missing(sysroot):
        places = ", ".join(_LIBRARY_FOLDERS)
        raise UsageError(f"is no arm64 root: {missing} is in none of {places}", where=str(sysroot), next_step=_ADVICE)
    return sysroot.absolute()


def _missing(root: Path) -> str:
    """The first of LIBRARIES that `root` lacks. The loader must be where every arm64 program asks for it: in `lib`."""
    if not _is_file(root / "lib" / LOADER):
        return LOADER
    folders = [root / name for name in _LIBRARY_FOLDERS]
    return next((name for name in LIBRARIES if not any(_is_file(folder / name) for folder in folders)), "")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a folder on the way may not be entered
        return False


# ---------------------------------------------------------------------------------------------------------------- fetch


def fetch_packages(packages: Sequence[str], root: Path, work: Path, *, deadline_s: float = FETCH_DEADLINE_S) -> None:
    """Unpack arm64 `packages`, as the apt sources of this machine have them, into the folder `root`; `work` is scratch.

    Raises ResourceLimit, with the packages to install instead, when there is no apt, no network or no time.
    """
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise ResourceLimit(f"cannot fetch the arm64 libraries: there is no {tool} here", next_step=_ADVICE)
    end = time.monotonic() + deadline_s
    for package in _download(packages, work, end):
        _do(["dpkg-deb", "--extract", str(package), str(root)], end)
    _merge_lib(root)


def _download(packages: Sequence[str], work: Path, end: float) -> list[Path]:
    """The packages' files, after an update of lists of our own."""
    (work / "status").touch()
    for folder in ("packages", "state/lists/partial", "cache/archives/partial", "log"):
        (work / folder).mkdir(parents=True)
    settings = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Sandbox::User": "",
        "APT::Get::AllowUnauthenticated": "false",
        "APT::Update::Error-Mode": "any",
        "Acquire::AllowInsecureRepositories": "false",
        "Acquire::Languages": "none",
        "Acquire::Retries": "2",
        "Dir::State": work / "state",
        "Dir::State::status": work / "status",
        "Dir::Cache": work / "cache",
        "Dir::Log": work / "log",
    }
    apt = ["apt-get", "-q", *(word for key, value in settings.items() for word in ("-o", f"{key}={value}"))]
    for command in (["update"], ["download", *packages]):
        _do([*apt, *command], end, cwd=work / "packages")
    return sorted((work / "packages").glob("*.deb"))


def _do(argv: Sequence[str], end: float, cwd: Path | None = None) -> None:
    done = run(argv, deadline_s=max(0.1, end - time.monotonic()), cwd=cwd)
    if done.returncode == 0 and not done.timed_out:
        return
    lines = [line for line in done.stderr.decode(errors="replace").splitlines() if line.startswith(("E:", "dpkg-deb:"))]
    words = f" ({lines[0][:300]})" if lines else ""
    raise ResourceLimit(f"cannot fetch the arm64 libraries: {argv[0]} {describe_exit(done)}{words}", next_step=_ADVICE)


def _merge_lib(root: Path) -> None:
    """Make `lib` a link to `usr/lib`, as every Debian has it; packages disagree on which of them they unpack to."""
    lib = root / "lib"
    if lib.is_dir() and not lib.is_symlink():
        shutil.copytree(lib, root / "usr/lib", symlinks=True, dirs_exist_ok=True)
        shutil.rmtree(lib)
    if not lib.exists():
        lib.symlink_to("usr/lib")
