"""Names of devices: kept, found, refused, and never lost to a second process or a damaged file."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgekit import store
from edgekit.core.device_url import DeviceUrl
from edgekit.devices.names import DeviceNames
from edgekit.errors import Busy, InputRejected, ResourceLimit, UsageError

PI = DeviceUrl("ssh", host="10.0.0.7", user="pi", port=2222, folder="/mnt/my data/edgekit")


@pytest.fixture
def names(tmp_path: Path) -> DeviceNames:
    return DeviceNames(tmp_path / "config/edgekit/devices.toml")


def test_a_name_is_kept_listed_found_and_forgotten(names: DeviceNames) -> None:
    assert names.list() == {}
    assert names.add("pi.4_kitchen", str(PI)) == PI
    names.add("Arm-board", "emulated:raspberry-pi-4")
    again = DeviceNames(names.path)
    assert list(again.list()) == ["Arm-board", "pi.4_kitchen"]
    assert again.find("pi.4_kitchen") == PI
    assert again.remove("pi.4_kitchen") == PI
    assert again.list() == {"Arm-board": DeviceUrl("emulated", target="raspberry-pi-4")}


def test_a_url_is_found_without_the_file(names: DeviceNames) -> None:
    names.path.parent.mkdir(parents=True)
    names.path.write_text("damaged [")
    assert names.find("local") == DeviceUrl("local")
    assert names.find("ssh://pi").host == "pi"
    with pytest.raises(InputRejected):
        names.find("pi")


def test_a_name_is_not_given_twice(names: DeviceNames) -> None:
    names.add("pi", "ssh://one")
    names.add("pi", "ssh://one")
    with pytest.raises(UsageError, match="is the name of ssh://one"):
        names.add("pi", "ssh://two")
    assert names.find("pi").host == "one"


@pytest.mark.parametrize("name", ["", "local", "Emulated", "ssh://pi", "-pi", "my pi", "pi\n", "$(id)", "a=b", 'a"b'])
def test_what_is_no_name_is_refused_before_anything_is_written(names: DeviceNames, name: str) -> None:
    with pytest.raises(UsageError, match="no name for a device"):
        names.add(name, "ssh://pi")
    assert not names.path.parent.exists()


def test_a_name_for_no_url_is_refused(names: DeviceNames) -> None:
    names.add("pi", "ssh://pi")
    for text in ("pi", "http://pi", "ssh://-oProxyCommand=id"):
        with pytest.raises(UsageError):
            names.add("other", text)
    assert list(names.list()) == ["pi"]


def test_an_unknown_name_is_a_usage_error_with_the_nearest(names: DeviceNames) -> None:
    names.add("kitchen-pi", "ssh://pi")
    with pytest.raises(UsageError, match="did you mean 'kitchen-pi'"):
        names.find("kichen-pi")
    with pytest.raises(UsageError, match="did you mean 'emulated'"):
        names.find("emulate")
    with pytest.raises(UsageError, match="did you mean 'kitchen-pi'"):
        names.remove("kitchen_pi")
    with pytest.raises(UsageError, match="unknown device 'zzz'") as caught:
        names.find("zzz")
    assert "did you mean" not in str(caught.value) and "edgekit device add" in caught.value.next_step


DAMAGED = {
    "not TOML": ("schema = 1\n[devices]\npi = \n", "line 3"),
    "cut short": ('schema = 1\n[devices]\n"pi" = "ssh:', "at end of document"),
    "no schema": ("[devices]\n", "schema: is missing"),
    "a schema of tomorrow": ("schema = 2\n[devices]\n", "2 is not known"),
    "no table": ("schema = 1\n", "devices: is missing"),
    "a key too many": ("schema = 1\ndevice = 1\n[devices]\n", "unknown key, did you mean 'devices'"),
    "a number": ("schema = 1\n[devices]\npi = 7\n", "devices.pi: must be text"),
    "no URL": ('schema = 1\n\n[devices]\na = "local"\npi = "pi"\n', "line 5"),
    "an option": ('schema = 1\n[devices]\npi = "ssh://-oProxyCommand=id"\n', "line 3"),
    "a word of the grammar": ('schema = 1\n[devices]\nlocal = "ssh://pi"\n', "line 3"),
    "terminal codes": ('schema = 1\n[devices]\n"\\u001b[2J" = "ssh://pi"\n', "no name for a device"),
    "too large": ("#" * 70_000, "larger than"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_file_is_refused_with_its_line_and_left_alone(names: DeviceNames, case: str) -> None:
    text, reason = DAMAGED[case]
    names.path.parent.mkdir(parents=True)
    names.path.write_text(text)
    for act in (names.list, lambda: names.find("pi"), lambda: names.add("x", "ssh://x"), lambda: names.remove("pi")):
        with pytest.raises(InputRejected) as caught:
            act()
        assert reason in str(caught.value) and str(names.path) in caught.value.where
        assert str(caught.value).isprintable()
    assert names.path.read_text() == text


def test_files_that_are_no_text_are_refused(names: DeviceNames) -> None:
    names.path.parent.mkdir(parents=True)
    names.path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputRejected, match="not UTF-8"):
        names.list()
    names.path.unlink()
    os.mkfifo(names.path)
    with pytest.raises(InputRejected, match="not a regular file"):
        names.list()


def test_a_config_folder_that_is_a_file_is_one_typed_error(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("")
    names = DeviceNames(tmp_path / "config/edgekit/devices.toml")
    with pytest.raises(ResourceLimit, match="cannot be kept"):
        names.add("pi", "ssh://pi")
    assert names.list() == {}


def test_a_link_to_the_file_stays_a_link(names: DeviceNames, tmp_path: Path) -> None:
    names.path.parent.mkdir(parents=True)
    names.path.symlink_to(tmp_path / "dotfiles.toml")
    names.add("pi", "ssh://pi")
    assert names.path.is_symlink()
    assert DeviceNames(tmp_path / "dotfiles.toml").find("pi").host == "pi"


def test_a_lock_that_is_held_is_busy(names: DeviceNames, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "LOCK_DEADLINE_S", 0.1)
    names.add("pi", "ssh://pi")
    with names.path.with_name(".devices.toml.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(Busy):
            names.add("other", "ssh://pi")
    names.add("other", "ssh://pi")


ADDER = """
import sys
from pathlib import Path
from edgekit.devices.names import DeviceNames
for i in range(25):
    DeviceNames(Path(sys.argv[1])).add(f"{sys.argv[2]}{i}", "ssh://pi")
"""


def test_processes_that_add_at_once_lose_nothing(names: DeviceNames) -> None:
    adders = [subprocess.Popen([sys.executable, "-c", ADDER, str(names.path), letter]) for letter in "abc"]
    assert [adder.wait(timeout=60) for adder in adders] == [0, 0, 0]
    assert set(names.list()) == {f"{letter}{i}" for letter in "abc" for i in range(25)}
    assert sorted(path.name for path in names.path.parent.iterdir()) == [".devices.toml.lock", "devices.toml"]
