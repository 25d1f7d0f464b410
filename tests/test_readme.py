"""What the README says can be done, can be done; what it says is printed, is printed."""

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekit.cli.main import cli
from edgekit.core.types import TensorSpec
from edgekit.data.read import prepare_data
from edgekit.runner import ekrun_path
from tests.conftest import ROOT, SAMPLE

README = (ROOT / "README.md").read_text()


def code_blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


def commands() -> list[str]:
    """Every `edgekit ...` line of a console block."""
    lines = [
        line.removeprefix("$ ")
        for block in code_blocks("console")
        for line in block.splitlines()
        if line.startswith("$ ")
    ]
    return [line for line in lines if line.startswith("edgekit ")]


def test_there_are_commands_to_check() -> None:
    assert len(commands()) >= 5


@pytest.mark.parametrize("line", commands())
def test_every_command_and_option_exists(line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    command = cli
    while words and not words[0].startswith("-") and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]  # type: ignore[attr-defined]
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)} | {
        "--help",
        "--version",
    }
    for word in words:
        if word.startswith("-"):
            assert word.split("=")[0] in known, line


NEEDS_MORE = ("model.onnx", "fetch", "demo", "edgekit-runs", "device", "model.ekb", "status", "rollback")
RUNNABLE = [line for line in commands() if not any(word in line for word in NEEDS_MORE)]


@pytest.mark.parametrize("line", RUNNABLE)
def test_commands_that_need_nothing_run(line: str, tmp_path: Path) -> None:
    words = shlex.split(line, comments=True)[1:]
    edgekit(words, tmp_path)


def edgekit(words: list[str], folder: Path) -> None:
    """One command of the README in a folder, which is the user's home, too."""
    environment = {**os.environ, "XDG_CONFIG_HOME": str(folder / ".config")}
    done = subprocess.run(
        [sys.executable, "-m", "edgekit", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, (words, done.stderr.decode())


def test_a_bundle_is_made_signed_and_unpacked_as_it_says(tmp_path: Path, cache: Path) -> None:
    """Its own lines one after the other, for this machine: that engine is here."""
    block = next(block for block in code_blocks("console") if "edgekit keys new" in block)
    lines = [shlex.split(line, comments=True)[2:] for line in block.splitlines() if "edgekit-runs" not in line]
    assert [words[0] for words in lines] == ["keys", "bundle", "sign", "verify", "inspect", "keys"]
    shutil.copy(SAMPLE / "model.onnx", tmp_path)
    (tmp_path / "samples").symlink_to(SAMPLE)
    for words in lines:
        edgekit(["--cache", str(cache), *("host" if word == "raspberry-pi-5" else word for word in words)], tmp_path)
    shutil.copy(tmp_path / ".config" / "edgekit" / "trust", tmp_path)
    on_the_device = next(block for block in code_blocks("sh") if "ekrun unpack" in block)
    for line in on_the_device.splitlines():
        words = shlex.split(line, comments=True)
        argv = [str(ekrun_path(platform.machine())), *words[1:]]
        done = subprocess.run(argv, cwd=tmp_path, capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, (line, done.stderr.decode())
    block = next(block for block in code_blocks("console") if "edgekit deploy" in block)
    lines = [shlex.split(line, comments=True)[2:] for line in block.splitlines() if "rollback" not in line]
    assert [words[0] for words in lines] == ["deploy", "status", "profile"]
    here = {"pi": "local", "~/.config/edgekit/trust": "trust"}
    for words in lines:
        root = ["--root", str(tmp_path / "device")] if words[0] != "profile" else []
        edgekit(["--cache", str(cache), *(here.get(word, word) for word in words), *root], tmp_path)


def test_its_data_toml_is_read_as_it_says(tmp_path: Path) -> None:
    (toml,) = code_blocks("toml")
    (tmp_path / "data.toml").write_text(toml)
    rng = np.random.default_rng(0)
    for split in ("calibration", "selection", "evaluation"):
        for label in ("cat", "dog"):
            place = tmp_path / split / label
            place.mkdir(parents=True)
            Image.fromarray(rng.integers(0, 256, (300, 400, 3)).astype(np.uint8)).save(place / "1.jpg")
    image = TensorSpec("image", "float32", (1, 3, 224, 224))
    info = prepare_data(tmp_path, [image], tmp_path / "feed", None)
    assert {name: split.samples for name, split in info.splits.items()} == dict.fromkeys(info.splits, 2)
    assert info.labelled
    np.testing.assert_array_equal(np.load(tmp_path / "feed" / "evaluation" / "labels.npy"), [0, 1])


def test_links_point_at_files() -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]+)", README)
    assert links
    for link in links:
        assert (ROOT / link).exists(), link


def test_the_make_targets_it_names_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"`make (\w+)", README)):
        assert re.search(rf"^{target}:", makefile, re.M), target


@pytest.mark.parametrize("path", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs", "benchmarks/RESULTS.md"])
def test_no_machines_paths_in_the_documents(path: str) -> None:
    place = ROOT / path
    for file in [place] if place.is_file() else place.rglob("*.md"):
        assert not re.search(r"(^|[^\w.])/(root|home|tmp|work)/", file.read_text()), file
