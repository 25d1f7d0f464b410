"""`edgekit profile NAME.ekb`: what is measured is the bundle's own, with its own settings, and its golden samples are held to."""

import platform
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edgekit import sandbox
from edgekit.bundle.container import verify_bundle
from edgekit.bundle.keys import admitting, unsigned
from edgekit.bundle.trust import Trust
from edgekit.bundle.unpacked import unpack_bundle
from edgekit.bundle.write import write_bundle
from edgekit.core.manifest import RESERVED, Manifest
from edgekit.core.profile_run import Profile
from tests.conftest import SAMPLE, Cli, done
from tests.sshd import serving

MODEL = SAMPLE / "model.onnx"
ANYONE = admitting(Trust(), allow_unsigned=True)
SHORT = ("--duration", "1s", "--no-layers", "--allow-unsigned")


def record(folder: Path) -> Profile:
    found: Profile = sandbox.decode((folder / "profile.json").read_bytes(), Profile)
    return found


@pytest.fixture(scope="module")
def bundle(edgekit: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample for this machine, with golden samples."""
    out = tmp_path_factory.mktemp("bundle") / "digits.ekb"
    words = ("--target", "host", "--data", SAMPLE, "--unsigned", "--offline", "--application", "digits")
    done(edgekit("bundle", MODEL, *words, "-o", out))
    return out


@pytest.fixture(autouse=True)
def quickly_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is changed below is packed again here; how small it gets does not matter."""
    monkeypatch.setattr("edgekit.bundle.frames.LEVEL", 1)


def changed(bundle: Path, folder: Path, change: Callable[[Path], object], **head: Any) -> Path:
    """The bundle with other files, as its maker might have made it."""
    content, out = folder / "content", folder / "changed.ekb"
    manifest = unpack_bundle(bundle, content, ANYONE).manifest
    for name in RESERVED:
        (content / name).unlink()
    change(content)
    told = {"requires": manifest.requires, **head}
    write_bundle(out, content, Manifest(manifest.application, manifest.version, manifest.counter, **told), unsigned)
    shutil.rmtree(content)
    return out


def rewritten(folder: Path, **keys: Any) -> None:
    path = folder / "deployment.json"
    path.write_bytes(msgspec.json.encode({**msgspec.json.decode(path.read_bytes()), **keys}))


def test_a_bundle_on_this_machine(edgekit: Cli, bundle: Path, tmp_path: Path) -> None:
    shown = done(edgekit("profile", bundle, "-o", tmp_path / "p", *SHORT)).out
    found = record(tmp_path / "p")
    assert (found.model_name, found.recipe, found.engine) == ("model.onnx", "ort-fp32", "onnxruntime")
    assert found.figures is not None and found.figures.queries > 0 and found.cold is not None
    assert found.data.name == "golden samples" and found.data.splits["selection"].samples == 8
    assert found.answers is not None and found.answers.split == "golden"
    assert found.answers.agreement.identical == 8 and found.answers.agreement.flipped == 0
    assert "8 golden samples answered as expected bit for bit" in shown
    assert not [notice for notice in found.notices if "ekrun" in notice]


def test_its_own_library_is_measured(edgekit: Cli, bundle: Path, tmp_path: Path) -> None:
    """A control: with another file in the library's place there is nothing to measure."""

    def spoil(folder: Path) -> None:
        for path in (folder / "lib").iterdir():
            path.write_bytes(b"no library at all")

    ended = edgekit("profile", changed(bundle, tmp_path, spoil), "-o", tmp_path / "p", *SHORT, "--json")
    assert ended.code == 5 and "no library at all" not in ended.error
    assert "lib" in ended.error


def test_its_own_settings_are_measured_with(edgekit: Cli, bundle: Path, tmp_path: Path) -> None:
    other = changed(bundle, tmp_path, lambda f: rewritten(f, threads=1, options={"graph_optimization": "disable"}))
    done(edgekit("profile", other, "-o", tmp_path / "p", *SHORT))
    found = record(tmp_path / "p")
    assert found.threads == 1
    assert found.settings_asked["graph_optimization"] == "disable"
    done(edgekit("profile", other, "-o", tmp_path / "q", "--threads", "2", *SHORT))
    assert record(tmp_path / "q").threads == 2


def test_answers_beyond_their_tolerance_are_told(edgekit: Cli, bundle: Path, tmp_path: Path) -> None:
    def shift(folder: Path) -> None:
        deployment = msgspec.json.decode((folder / "deployment.json").read_bytes())
        path = folder / deployment["golden"]["outputs"][0]["file"]
        np.save(path, np.load(path) + np.float32(5))

    shown = done(edgekit("profile", changed(bundle, tmp_path, shift), "-o", tmp_path / "p", *SHORT)).out
    assert "output 0 is beyond its tolerance" in shown


def test_another_ekrun_in_it_is_told(edgekit: Cli, bundle: Path, tmp_path: Path) -> None:
    def append(folder: Path) -> None:
        with (folder / "bin/ekrun").open("ab") as stream:
            stream.write(b"\0")

    shown = done(edgekit("profile", changed(bundle, tmp_path, append), "-o", tmp_path / "p", *SHORT)).out
    assert "the bundle carries another one" in shown


def test_samples_of_ones_own(edgekit: Cli, bundle: Path, tmp_path: Path) -> None:
    done(edgekit("profile", bundle, "-o", tmp_path / "p", *SHORT, "--data", SAMPLE, "--samples", "20"))
    found = record(tmp_path / "p")
    assert found.data.name == "digits" and found.data.splits["selection"].samples == 20
    assert found.answers is not None and found.answers.agreement.samples == 8


def test_a_bundle_without_samples(edgekit: Cli, bundle: Path, tmp_path: Path) -> None:
    def strip(folder: Path) -> None:
        rewritten(folder, golden=None)
        shutil.rmtree(folder / "golden")

    shown = done(edgekit("profile", changed(bundle, tmp_path, strip), "-o", tmp_path / "p", *SHORT)).out
    assert "no golden samples" in shown
    assert record(tmp_path / "p").data.synthetic


WRONG: dict[str, tuple[tuple[str, ...], int, str]] = {
    "untrusted": (("--no-layers",), 8, "not signed"),
    "a recipe": (("--recipe", "ort-int8", "--allow-unsigned"), 2, "a recipe is for a model"),
    "a shape": (("--shape", "image:1x1x28x28", "--allow-unsigned"), 2, "a shape is for a model"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_a_bundle_is_not_given(edgekit: Cli, bundle: Path, tmp_path: Path, what: str) -> None:
    words, code, part = WRONG[what]
    env = {"XDG_CONFIG_HOME": str(tmp_path)}
    ended = edgekit("profile", bundle, "-o", tmp_path / "p", *words, "--json", env=env)
    assert ended.code == code and part in ended.error
    assert not (tmp_path / "p").exists()


SPOILED: dict[str, tuple[Callable[[Path], object], int, str]] = {
    "no deployment": (lambda f: (f / "deployment.json").unlink(), 6, "no deployment.json that this edgekit reads"),
    "a file that is not its own": (lambda f: rewritten(f, model="model/../../x"), 6, "no file of it"),
    "a later format": (lambda f: rewritten(f, format=2), 6, "no deployment.json that this edgekit reads"),
}


@pytest.mark.parametrize("what", SPOILED)
def test_a_bundle_that_deploys_nothing(edgekit: Cli, bundle: Path, tmp_path: Path, what: str) -> None:
    change, code, part = SPOILED[what]
    ended = edgekit("profile", changed(bundle, tmp_path, change), "-o", tmp_path / "p", *SHORT, "--json")
    assert ended.code == code and part in ended.error


def test_a_bundle_for_another_machine(edgekit: Cli, bundle: Path, tmp_path: Path) -> None:
    other = "aarch64" if platform.machine() == "x86_64" else "x86_64"
    requires = replace(verify_bundle(bundle, ANYONE).manifest.requires, arch=other)
    out = changed(bundle, tmp_path, lambda _: None, requires=requires)
    ended = edgekit("profile", out, "-o", tmp_path / "p", *SHORT, "--json")
    assert ended.code == 5 and f"the bundle is for {other}" in ended.error


def test_a_bundle_on_a_board_over_ssh(edgekit: Cli, bundle: Path, tmp_path: Path) -> None:
    with serving("openssh", tmp_path / "server") as server:
        words = ("--ssh-config", server.client.config, "profile", bundle, "--device", server.url())
        shown = done(edgekit(*words, "-o", tmp_path / "p", *SHORT)).out
    found = record(tmp_path / "p")
    assert found.figures is not None and found.answers is not None and found.answers.agreement.identical == 8
    assert "as expected" in shown
