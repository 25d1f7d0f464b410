"""The resolver: the user's own before the packaged before the repository's, names that can't leave their folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import edgekit.resources
from edgekit.core.tomltable import MAX_TEXT_CHARS
from edgekit.errors import InputRejected, UsageError
from edgekit.resources import find_data, find_target, list_data, list_targets, load_target, read_regular

CHECKOUT = Path(__file__).parent.parent
PI_5 = (CHECKOUT / "targets" / "raspberry-pi-5.toml").read_text(encoding="utf-8")


def write_target(root: Path, name: str, summary: str = "mine") -> Path:
    path = root / "targets" / f"{name}.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = PI_5.replace('name = "raspberry-pi-5"', f'name = "{name}"')
    path.write_text(text.replace('summary = "Raspberry Pi 5', f'summary = "{summary} Raspberry Pi 5'), encoding="utf-8")
    return path


def write_data(root: Path, name: str) -> Path:
    folder = root / "calibration_data" / name
    folder.mkdir(parents=True)
    (folder / "data.toml").write_text("")
    return folder


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package as a wheel leaves it: data inside, no checkout around."""
    package = tmp_path / "site-packages" / "edgekit"
    write_target(package / "_data", "raspberry-pi-5", "packaged")
    write_target(package / "_data", "only-packaged", "packaged")
    write_data(package / "_data", "digits")
    monkeypatch.setattr(edgekit.resources, "_PACKAGE", package)
    return package


def test_the_repositorys_targets_are_found_from_anywhere(tmp_path: Path) -> None:
    assert set(list_targets(tmp_path)) == {path.stem for path in (CHECKOUT / "targets").glob("*.toml")}
    assert load_target("raspberry-pi-5", tmp_path).cores == 4


def test_the_users_own_target_comes_first(tmp_path: Path) -> None:
    mine = write_target(tmp_path, "raspberry-pi-5")
    assert find_target("raspberry-pi-5", tmp_path) == mine
    assert load_target("raspberry-pi-5", tmp_path).summary.startswith("mine")
    assert load_target("raspberry-pi-4", tmp_path).summary.startswith("Raspberry")


def test_a_wheel_needs_no_checkout(wheel: Path, tmp_path: Path) -> None:
    assert list(list_targets(tmp_path)) == ["only-packaged", "raspberry-pi-5"]
    assert load_target("raspberry-pi-5", tmp_path).summary.startswith("packaged")
    assert find_data("digits", tmp_path) == wheel / "_data" / "calibration_data" / "digits"
    write_target(tmp_path, "raspberry-pi-5")
    assert load_target("raspberry-pi-5", tmp_path).summary.startswith("mine")


def test_the_packaged_come_before_the_repositorys(wheel: Path, tmp_path: Path) -> None:
    around = wheel.parent
    write_target(around, "raspberry-pi-5", "checkout")
    write_target(around, "only-checkout", "checkout")
    assert "only-checkout" not in list_targets(tmp_path)  # a folder beside a package is no checkout
    (around / "pyproject.toml").write_text("")
    assert load_target("raspberry-pi-5", tmp_path).summary.startswith("packaged")
    assert load_target("only-checkout", tmp_path).summary.startswith("checkout")


def test_a_target_may_be_a_path(tmp_path: Path) -> None:
    path = write_target(tmp_path, "my-board")
    boards = path.rename(tmp_path / "my-board.toml")
    assert load_target("my-board.toml", tmp_path).name == "my-board"
    assert load_target("./my-board.toml", tmp_path).name == "my-board"
    assert load_target(str(boards), Path("/")).name == "my-board"
    with pytest.raises(UsageError, match="unknown target 'my-board'"):
        load_target("my-board", tmp_path)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("rasberry-pi-5", "did you mean 'raspberry-pi-5'?"),
        ("Raspberry-Pi-5", "did you mean 'raspberry-pi-5'?"),
        ("hots", "did you mean 'host'?"),
        ("qqqq", "there are: cpu-arm, "),
        ("", "there are: cpu-arm, "),
        ("a" * 5000, "unknown target"),
        ("no/such.toml", "there is no such target file"),
        ("../targets/x", "there is no such target file"),
        ("a" * 5000 + ".toml", "there is no such target file"),
        ("a\0b.toml", "there is no such target file"),
        ("\x1b[2J", "unknown target"),
    ],
)
def test_an_unknown_target_is_a_usage_error_with_a_hint(name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load_target(name, tmp_path)
    assert said in str(caught.value)
    assert str(caught.value).isprintable()
    assert caught.value.exit_code == 2


def test_odd_files_in_the_users_folder_are_no_targets(tmp_path: Path) -> None:
    folder = tmp_path / "targets"
    (folder / "folder.toml").mkdir(parents=True)
    os.mkfifo(folder / "fifo.toml")
    (folder / "dangling.toml").symlink_to("nowhere")
    (folder / "Upper Case.toml").write_text("")
    write_target(tmp_path, "host")
    assert list_targets(tmp_path) == list_targets(tmp_path / "elsewhere")
    write_target(tmp_path, "good")
    assert "good" in list_targets(tmp_path)


@pytest.mark.parametrize("make", ["fifo", "folder", "binary", "huge", "secret"])
def test_a_path_to_no_target_is_rejected_at_once(make: str, tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    if make == "fifo":
        os.mkfifo(path)
    elif make == "folder":
        path.mkdir()
    elif make == "binary":
        path.write_bytes(b"\xff\xfe\x00")
    elif make == "huge":
        with path.open("wb") as stream:
            stream.truncate(1 << 40)
    else:
        path.symlink_to("/proc/self/mem")
    with pytest.raises(InputRejected) as caught:
        load_target("x.toml", tmp_path)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 6


def test_a_bounded_read_takes_the_limit_and_not_a_byte_more(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 10)
    assert read_regular(path, 10) == b"x" * 10
    with pytest.raises(InputRejected, match="larger than 9 bytes"):
        read_regular(path, 9)
    with pytest.raises(InputRejected, match="cannot be read: No such file"):
        read_regular(tmp_path / "none", MAX_TEXT_CHARS)


def test_data_is_found_by_name_and_by_path(tmp_path: Path) -> None:
    mine = write_data(tmp_path, "mine")
    assert list_data(tmp_path)["mine"] == mine
    assert find_data("mine", tmp_path) == mine
    (tmp_path / "mine").mkdir()
    assert find_data("mine", tmp_path) == mine
    assert find_data("./mine", tmp_path) == tmp_path / "mine"
    (tmp_path / "samples.npz").write_bytes(b"")
    assert find_data("samples.npz", tmp_path) == tmp_path / "samples.npz"


@pytest.mark.parametrize(
    ("name", "said"),
    [("mnie", "did you mean 'mine'?"), ("no/such", "there is no such data"), ("", "unknown data set ''")],
)
def test_unknown_data_is_a_usage_error_with_a_hint(name: str, said: str, tmp_path: Path) -> None:
    write_data(tmp_path, "mine")
    with pytest.raises(UsageError) as caught:
        find_data(name, tmp_path)
    assert said in str(caught.value)


def test_the_resolver_imports_nothing_heavy() -> None:
    heavy = "{'numpy', 'onnx', 'onnxruntime', 'openvino', 'nncf', 'psutil', 'click', 'rich', 'msgspec'}"
    code = f"import sys, edgekit.resources; print(sorted(set(sys.modules) & {heavy}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=CHECKOUT)
    assert done.stdout.strip() == "[]"
