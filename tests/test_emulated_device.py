"""The emulated device: what it is, what it needs, and how it ends when that is not there."""

import os
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from edgekit.devices import arm64_root
from edgekit.devices.arm64_root import CORES, CROSS_PACKAGES, KEY, KIND, PACKAGES, fetch_packages, find_libraries
from edgekit.devices.emulated import EmulatedDevice
from edgekit.engines.closure import native_library
from edgekit.errors import EdgekitError, ResourceLimit, UsageError
from edgekit.resources import load_target
from edgekit.runner.client import FactsReply, parse
from edgekit.store import Cache
from tests.board import default_cache, emulated, require_board
from tests.conftest import ROOT, SAMPLE
from tests.sshd import skip_or_fail

pytestmark = pytest.mark.board
NOBODY = 65534
UNFETCHED = 77
ARM = load_target("cpu-arm", ROOT)


@pytest.fixture(autouse=True)
def _qemu() -> None:
    require_board()


@pytest.fixture
def board() -> Iterator[EmulatedDevice]:
    with closing(emulated("cpu-arm")) as device:
        yield device


def facts(device: EmulatedDevice) -> FactsReply:
    return parse(device.run(["facts"], deadline_s=30), FactsReply, device.name)


def bench(library: Path) -> list[str]:
    """A run of the sample that loads the engine and the model, and ends for want of inputs."""
    words = ["bench", "--engine", "onnxruntime", "--lib", str(library), "--model", str(SAMPLE / "model.onnx")]
    return [*words, "--threads", "1", "--warmup", "1", "--runs", "1"]


@pytest.mark.parametrize("core", CORES)
def test_cpuinfo_promises_just_what_qemu_gives(core: str) -> None:
    """ekrun reads the features from the auxiliary vector, engines also read /proc/cpuinfo: they must agree."""
    with closing(EmulatedDevice(replace(ARM, emulation_cpu=core), Cache(default_cache()))) as device:
        found = facts(device)
    assert found.emulated and found.arch == "aarch64"
    assert set(found.isa) == set(CORES[core][1].split())
    assert (found.cpu_model or "").lower() == core


def test_every_shipped_target_can_be_emulated_and_has_its_features() -> None:
    """But for what the target file itself says qemu has not."""
    unemulated = {"intel-n100": {"avx_vnni"}}
    for path in sorted((ROOT / "targets").glob("*.toml")):
        with closing(emulated(path.stem)) as device:
            found = facts(device)
            assert device.name == f"emulated:{path.stem}"
        target = load_target(path.stem, ROOT)
        assert found.emulated and found.arch == target.arch == device.arch
        assert set(target.isa) - set(found.isa) == unemulated.get(path.stem, set()), path.stem


def test_a_closed_device_leaves_nothing(board: EmulatedDevice, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    gathered = Path(board.put({"one": tmp_path / "a/file", "two": tmp_path / "b/file"}))
    assert [path.read_text() for path in sorted(gathered.iterdir())] == ["a", "b"]
    assert board.put({"file": tmp_path / "a/file"}) == str(tmp_path / "a")
    folder = gathered.parent
    board.close()
    board.close()
    assert not folder.exists()
    assert (tmp_path / "a/file").read_text() == "a"


TRAP = """
#include <stdint.h>
__attribute__((constructor)) static void start(void) {
    __asm__ volatile(".arch armv8.2-a+dotprod\\n\\tsdot v0.4s, v1.16b, v2.16b" ::: "v0");
}
"""


@pytest.fixture(scope="module")
def trap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An arm64 library that uses the dot product as soon as it is loaded."""
    folder = tmp_path_factory.mktemp("trap")
    (folder / "trap.c").write_text(TRAP)
    compiler = [sys.executable, "-m", "ziglang", "cc", "-target", "aarch64-linux-gnu.2.28", "-shared", "-fPIC"]
    subprocess.run([*compiler, "-o", folder / "libtrap.so", folder / "trap.c"], check=True, timeout=120)
    return folder / "libtrap.so"


def test_an_instruction_the_core_lacks_ends_ekrun_and_one_it_has_does_not(trap: Path) -> None:
    """Fitness for the ISA is shown. The library is no engine either way: the core that can run it gets to see that."""
    codes = {}
    for name in ("cpu-arm", "raspberry-pi-5"):
        with closing(emulated(name)) as device:
            done = device.run(bench(trap), deadline_s=60)
        lines = done.stdout.splitlines()
        codes[name] = msgspec.json.decode(lines[-1])["error"]["code"] if lines else done.returncode
    assert codes == {"cpu-arm": "illegal_instruction", "raspberry-pi-5": "library"}
    assert not list(Path.cwd().glob("*.core"))


def test_deadline_and_memory_end_it(board: EmulatedDevice) -> None:
    """Loading the engine takes some 40 MB and, translated, longer than the deadline."""
    library = native_library("onnxruntime", ARM.engines["onnxruntime"], "aarch64", default_cache()).library
    assert board.run(bench(library), deadline_s=0.05).timed_out
    assert board.run(bench(library), deadline_s=60, max_rss_bytes=8 << 20).out_of_memory
    ended = board.run(bench(library), deadline_s=60, max_rss_bytes=1 << 30)
    assert not ended.timed_out and not ended.out_of_memory and ended.returncode > 0


# --------------------------------------------------------------------------------------------------- what may be missing


def test_without_qemu_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="needs qemu-aarch64-static") as caught:
        EmulatedDevice(ARM, Cache(default_cache()))
    assert "qemu-user-static" in caught.value.next_step


@pytest.mark.parametrize(("core", "reason"), [("", "names no emulation_cpu"), ("cortex-a999", "no core edgekit knows")])
def test_a_core_that_cannot_be_emulated_is_refused(core: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        EmulatedDevice(replace(ARM, emulation_cpu=core), Cache(default_cache()))


def test_a_core_qemu_does_not_know_is_refused() -> None:
    with pytest.raises(UsageError, match="386no") as caught:
        EmulatedDevice(replace(load_target("intel-n100", ROOT), emulation_cpu="386no"), Cache(default_cache()))
    assert str(caught.value).isprintable()


def test_another_architectures_root_is_of_no_use_for_x86() -> None:
    with pytest.raises(UsageError, match="without --sysroot"):
        EmulatedDevice(load_target("intel-n100", ROOT), Cache(default_cache()), sysroot=Path("/"))


def test_a_sysroot_is_used_in_place(tmp_path: Path) -> None:
    kept = find_libraries(Cache(default_cache()))
    with closing(EmulatedDevice(ARM, Cache(tmp_path), sysroot=kept, offline=True)) as device:
        assert facts(device).glibc is not None
    assert not (tmp_path / KIND).exists()


def test_a_folder_that_is_no_sysroot_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UsageError, match="no arm64 root: ld-linux-aarch64") as caught:
            EmulatedDevice(ARM, Cache(tmp_path / "cache"), sysroot=folder)
        assert all(package in caught.value.next_step for package in CROSS_PACKAGES)
    shutil.copytree(find_libraries(Cache(default_cache())) / "usr/lib", tmp_path / "root/lib", symlinks=True)
    next((tmp_path / "root/lib").glob("**/libstdc++.so.6")).unlink()
    with pytest.raises(UsageError, match=r"libstdc\+\+\.so\.6 is in none of"):
        EmulatedDevice(ARM, Cache(tmp_path / "cache"), sysroot=tmp_path / "root")


def test_a_root_that_does_not_run_is_refused(tmp_path: Path) -> None:
    """All files are there by name, and none is a library."""
    (tmp_path / "root/lib").mkdir(parents=True)
    for name in arm64_root.LIBRARIES:
        (tmp_path / "root/lib" / name).write_text("no library")
    with pytest.raises(UsageError, match="does not start under qemu"):
        EmulatedDevice(ARM, Cache(tmp_path / "cache"), sysroot=tmp_path / "root")


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cache:
    """An empty cache on a machine without the cross packages."""
    monkeypatch.setattr(arm64_root, "CROSS", tmp_path / "absent")
    return Cache(tmp_path / "cache")


def test_offline_nothing_is_fetched(nothing_installed: Cache) -> None:
    with pytest.raises(UsageError, match="--offline forbids") as caught:
        EmulatedDevice(ARM, nothing_installed, offline=True)
    assert "libc6-arm64-cross" in caught.value.next_step


def test_the_distributions_cross_packages_serve(nothing_installed: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also to load the engine: it needs the C++ library."""
    kept = Cache(default_cache())
    if kept.get("test-cross", "1") is None:
        with kept.scratch() as work, kept.filling("test-cross", "1") as folder:
            try:
                fetch_packages(CROSS_PACKAGES, folder, work)
            except ResourceLimit as error:
                skip_or_fail(str(error))
    monkeypatch.setattr(arm64_root, "CROSS", kept.root / "test-cross/1/usr/aarch64-linux-gnu")
    library = native_library("onnxruntime", ARM.engines["onnxruntime"], "aarch64", default_cache()).library
    with closing(EmulatedDevice(ARM, nothing_installed, offline=True)) as device:
        done = device.run(bench(library), deadline_s=60)
    assert msgspec.json.decode(done.stdout.splitlines()[-1])["error"]["code"] == "bad_input"


def apt_sources(folder: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    """Make `line` all that apt knows."""
    (folder / "sources.list").write_text(line)
    (folder / "apt.conf").write_text(
        f'Dir::Etc::sourcelist "{folder}/sources.list";\nDir::Etc::sourceparts "/dev/null";\nAcquire::Retries "0";\n'
    )
    monkeypatch.setenv("APT_CONFIG", str(folder / "apt.conf"))


def test_without_a_network_the_packages_are_named(
    nothing_installed: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apt_sources(tmp_path, monkeypatch, "deb http://127.0.0.1:9/debian stable main\n")
    with pytest.raises(ResourceLimit, match="cannot fetch the arm64 libraries") as caught:
        EmulatedDevice(ARM, nothing_installed)
    assert all(package in caught.value.next_step for package in CROSS_PACKAGES)
    assert nothing_installed.get(KIND, KEY) is None
    assert not list((nothing_installed.root / "tmp").iterdir())


def test_unsigned_packages_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "unsigned").mkdir()
    (tmp_path / "unsigned/Packages").write_text(
        "Package: libc6\nArchitecture: arm64\nVersion: 9\nFilename: ./x.deb\n\n"
    )
    apt_sources(tmp_path, monkeypatch, f"deb file:{tmp_path}/unsigned ./\n")
    work = tmp_path / "work"
    work.mkdir()
    with pytest.raises(ResourceLimit, match=r"not signed|Release"):
        fetch_packages(PACKAGES, tmp_path / "root", work)


def test_without_apt_or_time_there_is_no_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    with pytest.raises(ResourceLimit, match="did not finish within"):
        fetch_packages(PACKAGES, tmp_path / "root", tmp_path / "work", deadline_s=0.0)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ResourceLimit, match="there is no apt-get here"):
        fetch_packages(PACKAGES, tmp_path / "root", tmp_path / "work")


def test_no_privilege_is_needed_to_fetch_and_to_run(board: EmulatedDevice, nothing_installed: Cache) -> None:
    """From nothing, by another user than root."""
    if os.geteuid() != 0:
        pytest.skip("the other tests of this file run without privileges already")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        os.chown(folder, NOBODY, NOBODY)
        child = os.fork()
        if child == 0:
            _fetch_and_run_as_nobody(Cache(Path(folder) / "cache"))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == UNFETCHED:
        skip_or_fail("the arm64 libraries cannot be fetched here")
    assert code == 0


def _fetch_and_run_as_nobody(cache: Cache) -> None:
    """Ends this process, whatever happens: it is a copy of the test's."""
    code = 1
    try:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        with closing(EmulatedDevice(ARM, cache)) as device:
            code = 0 if facts(device).emulated and cache.get(KIND, KEY) else 2
    except (EdgekitError, OSError) as error:
        traceback.print_exc()
        code = UNFETCHED if "cannot fetch" in str(error) else 1
    finally:
        os._exit(code)
