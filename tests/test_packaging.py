"""The wheel and the sdist: what is in them, and that they work where nothing else is."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from edgekit.runner import BUNDLED
from tests.conftest import ROOT
from tests.report_desk import run as sample_run
from tests.report_desk import written
from tests.sshd import boards_are_asked_for

pytestmark = pytest.mark.long


def build(source: Path, out: Path, kind: str) -> Path:
    """A distribution of `source`, with the build tools of this environment."""
    argv = [sys.executable, "-m", "build", "--no-isolation", f"--{kind}", "--outdir", str(out), str(source)]
    # The static programs compile a C library: minutes, unless it was done before.
    quick = {} if boards_are_asked_for() else {"EDGEKIT_BUILD_WITHOUT_STATIC": "1"}
    done = subprocess.run(argv, env={**os.environ, **quick}, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("*.whl" if kind == "wheel" else "*.tar.gz"))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("sdist"), "sdist")


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the unpacked sdist, so that both are proven: the runner is compiled anew there."""
    folder = tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    source = next(path for path in folder.iterdir() if path.is_dir())
    assert not (source / "edgekit" / "runner" / "bin").exists()
    return build(source, folder / "dist", "wheel")


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel; the dependencies are borrowed from this one, edgekit's own sources are out of reach."""
    folder = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=60)
    site = next((folder / "lib").glob("python3*/site-packages"))
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(folder / "bin" / "python"),
        "install",
        "--quiet",
        "--no-deps",
        str(wheel),
    ]
    subprocess.run(pip, check=True, timeout=120)
    return folder / "bin" / "edgekit"


def run(program: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """In an empty folder, with a PATH that has no compiler and a home of its own."""
    environment = {"PATH": str(cwd / "no-tools"), "HOME": str(cwd), "LANG": "C.UTF-8"}
    return subprocess.run(
        [str(program), *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=240, check=False
    )


MACHINES = (("x86_64", 62), ("aarch64", 183))
ASSETS = ROOT / "edgekit" / "report" / "html" / "assets"


def test_the_wheel_carries_the_runner_the_targets_and_the_sample(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        modes = {info.filename: info.external_attr >> 16 for info in archive.infolist()}
        kinds = ("ekrun", "ekrun-facts") if boards_are_asked_for() else ("ekrun",)
        programs = [(f"{name}-{arch}", e_machine) for name in kinds for arch, e_machine in MACHINES]
        programs += [(f"libekrun-{arch}.so", e_machine) for arch, e_machine in MACHINES]
        for program, machine in programs:
            name = f"edgekit/runner/bin/{program}"
            assert modes[name] & 0o777 == 0o755
            head = archive.read(name)[:20]
            assert head[:4] == b"\x7fELF"
            assert head[18] == machine
    for path in (*ROOT.glob("targets/*.toml"), *(p for p in (ROOT / "calibration_data").rglob("*") if p.is_file())):
        assert f"edgekit/_data/{path.relative_to(ROOT)}" in modes
    assert "edgekit/runner/PROTOCOL.md" in modes
    assert {f"edgekit/runner/library/{path}" for path in BUNDLED} < set(modes)
    assert "edgekit/engines/pins.toml" in modes
    assert all(f"edgekit/bundle/texts/{path.name}" in modes for path in (ROOT / "edgekit/bundle/texts").iterdir())
    assert not any(name.endswith((".stamp", ".lock")) for name in modes)


def test_the_wheel_carries_what_a_report_is_made_of_and_its_licence(wheel: Path) -> None:
    names = [path.name for path in ASSETS.iterdir()]
    assert {"report.css", "report.js", "uPlot.iife.min.js", "uPlot.min.css", "uPlot.LICENSE"} <= set(names)
    with zipfile.ZipFile(wheel) as archive:
        for name in names:
            same = archive.read(f"edgekit/report/html/assets/{name}") == (ASSETS / name).read_bytes()
            assert same, name
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        said = archive.read(metadata).decode()
        kept = "licenses/edgekit/report/html/assets/uPlot.LICENSE"
        assert archive.read(metadata.replace("METADATA", kept)) == (ASSETS / "uPlot.LICENSE").read_bytes()
    assert "License-Expression: Apache-2.0 AND MIT" in said
    assert "License-File: LICENSE\n" in said and "License-File: edgekit/report/html/assets/uPlot.LICENSE\n" in said


def test_the_sdist_carries_what_a_build_and_its_tests_need(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for path in (
        "hatch_build.py",
        "edgekit/runner/src/main.c",
        "edgekit/runner/src/bundle.zig",
        "edgekit/runner/library/libekrun.map",
        "targets/cpu-arm.toml",
        "tests/conftest.py",
        "docs/targets.md",
        "LICENSE",
        *(f"edgekit/report/html/assets/{path.name}" for path in ASSETS.iterdir()),
    ):
        assert path in names
    assert not any(name.startswith("edgekit/runner/bin") for name in names)


def test_the_wheel_alone_runs_the_demo(installed: Path, tmp_path: Path) -> None:
    done = run(installed, "demo", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "chosen" in done.stdout
    assert (tmp_path / "edgekit-runs" / "digits-cpu-arm" / "run.json").exists()


def test_the_wheel_alone_writes_a_report(installed: Path, tmp_path: Path) -> None:
    made = run(installed, "report", str(written(tmp_path / "the-run", sample_run())), cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    text = (tmp_path / "the-run.html").read_text()
    assert (ASSETS / "uPlot.iife.min.js").read_text().rstrip("\n") in text


def test_the_resolver_finds_packaged_targets_and_prefers_the_users_own(installed: Path, tmp_path: Path) -> None:
    shown = run(installed, "targets", "show", "raspberry-pi-5", "--json", cwd=tmp_path)
    assert '"name":"raspberry-pi-5"' in shown.stdout
    (tmp_path / "targets").mkdir()
    own = (ROOT / "targets" / "raspberry-pi-5.toml").read_text().replace("ram_mib = 1024", "ram_mib = 16384")
    (tmp_path / "targets" / "raspberry-pi-5.toml").write_text(own)
    shown = run(installed, "targets", "show", "raspberry-pi-5", "--json", cwd=tmp_path)
    assert f'"ram_bytes":{16384 << 20}' in shown.stdout


def test_this_editable_install_finds_the_repositorys(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("edgekit")
    assert os.access(program, os.X_OK)
    listed = run(program, "targets", "list", "--json", cwd=tmp_path)
    for path in ROOT.glob("targets/*.toml"):
        assert f'"name":"{path.stem}"' in listed.stdout
