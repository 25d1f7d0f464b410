"""The port, on every kind of device: what callers may rely on whatever it is."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgekit.devices.base import Device
from edgekit.errors import EdgekitError
from edgekit.runner import ekrun_path
from edgekit.runner.client import FactsReply, RanReply, ReadyReply, RunReply, parse, parse_line
from edgekit.store import sha256_file
from tests.devices import DEVICES, engine_files
from tests.ekrun_tools import conv_feed, conv_model, python_onnxruntime

HOSTILE = [
    "plain",
    "-rf",
    "a b",
    "it's",
    '"q"',
    "$(touch pwned)",
    "`id`",
    "a;b&c|d>e",
    "x\\y",
    "*",
    "line\nend",
    "ü",
    "~",
    "#",
]


@pytest.fixture(scope="module", params=DEVICES)
def device(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    with DEVICES[request.param](tmp_path_factory.mktemp("device")) as device:
        yield device


@pytest.fixture
def bench(device: Device, tmp_path: Path) -> list[str]:
    """ekrun's options for a small model and three samples, all of it on the device."""
    np.save(tmp_path / "x.npy", conv_feed()["x"])
    conv_model(tmp_path / "model.onnx")
    engine = engine_files(device)
    there = device.put({path.name: path for path in engine})
    model = device.put({"model.onnx": tmp_path / "model.onnx"})
    feed = device.put({"x.npy": tmp_path / "x.npy"})
    words = ["--engine", "onnxruntime", "--lib", f"{there}/{engine[0].name}", "--model", f"{model}/model.onnx"]
    return [*words, "--threads", "1", "--input", f"x={feed}/x.npy"]


def test_a_device_says_what_it_is(device: Device) -> None:
    facts = parse(device.run(["facts"], deadline_s=60), FactsReply, device.name)
    assert facts.arch == device.arch
    assert device.name
    assert device.ekrun_sha256 == sha256_file(ekrun_path(device.arch))


def test_ekruns_own_failure_is_what_run_returns(device: Device) -> None:
    done = device.run(["run", "--nonsense"], deadline_s=60)
    assert done.returncode == 2
    assert json.loads(done.stdout.splitlines()[-1])["error"]["code"] == "usage"


def test_files_go_there_and_back_whatever_their_names(device: Device, tmp_path: Path) -> None:
    files = {}
    for index, name in enumerate(HOSTILE):
        files[name] = tmp_path / str(index)
        files[name].write_bytes(bytes([index]) * (index * 70_000))
    folder = device.put(files)
    assert device.put(files) == folder or device.name == "local" or device.name.startswith("emulated")
    for name, path in files.items():
        back = tmp_path / "back" / str(path.name)
        back.parent.mkdir(exist_ok=True)
        device.get(f"{folder}/{name}", back)
        assert back.read_bytes() == path.read_bytes()
    assert not list(tmp_path.rglob("pwned"))


def test_the_same_names_with_other_contents_are_another_folder(device: Device, tmp_path: Path) -> None:
    folders = []
    for text in ("a", "b"):
        (tmp_path / text).mkdir()
        (tmp_path / text / "file").write_text(text)
        folders.append(device.put({"file": tmp_path / text / "file"}))
    for folder, text in zip(folders, ("a", "b"), strict=True):
        device.get(f"{folder}/file", tmp_path / "back")
        assert (tmp_path / "back").read_text() == text


def test_what_is_lent_goes_with_its_context(device: Device, tmp_path: Path) -> None:
    files = {}
    for index, name in enumerate(HOSTILE):
        files[name] = tmp_path / f"{index}.lent"
        files[name].write_bytes(bytes([index]) * (index * 7_000 + 1))
    with pytest.raises(ZeroDivisionError), device.lent(files) as folder:
        for name, path in files.items():
            device.get(f"{folder}/{name}", tmp_path / "back")
            assert (tmp_path / "back").read_bytes() == path.read_bytes()
        raise ZeroDivisionError
    with pytest.raises((EdgekitError, FileNotFoundError)):
        device.get(f"{folder}/plain", tmp_path / "gone")
    assert not (tmp_path / "gone").exists()
    assert all(path.exists() for path in files.values())
    assert not list(tmp_path.rglob("pwned"))


def test_a_model_runs_there_as_here(device: Device, bench: list[str], tmp_path: Path) -> None:
    with device.scratch() as out:
        done = device.run(["run", *bench, "--out", out], deadline_s=120)
        reply = parse(done, RunReply, device.name)
        device.get(f"{out}/{reply.outputs[0].index}.npy", tmp_path / "y.npy")
    session = python_onnxruntime(tmp_path / "model.onnx")
    expected = np.stack([session.run(None, {"x": sample})[0] for sample in conv_feed()["x"]])
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, rtol=1e-4, atol=1e-4)


def test_a_scratch_folder_goes_with_its_context(device: Device, bench: list[str], tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), device.scratch() as out:
        parse(device.run(["run", *bench, "--out", out], deadline_s=120), RunReply, device.name)
        device.get(f"{out}/0.npy", tmp_path / "there")
        raise ZeroDivisionError
    assert (tmp_path / "there").exists()
    with pytest.raises((EdgekitError, FileNotFoundError)):
        device.get(f"{out}/0.npy", tmp_path / "gone")
    assert not (tmp_path / "gone").exists()


def test_a_conversation(device: Device, bench: list[str]) -> None:
    with device.talk(["bench", "--stdin", *bench, "--warmup", "1"]) as talk:
        parse_line(talk.answer(120), ReadyReply, device.name)
        for runs in (2, 3):
            talk.tell(f"go {runs}")
            assert len(parse_line(talk.answer(60), RanReply, device.name).latencies_ns) == runs


def test_a_run_beyond_its_deadline_is_killed(device: Device, bench: list[str]) -> None:
    done = device.run(["bench", *bench, "--runs", "10000000"], deadline_s=4)
    assert done.timed_out
    assert done.wall_s < 30
    parse(device.run(["facts"], deadline_s=60), FactsReply, device.name)


def test_a_cleaned_device_works_on(device: Device, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    device.put({"other": tmp_path / "file"})
    device.clean()
    folder = device.put({"other": tmp_path / "file"})
    device.get(f"{folder}/other", tmp_path / "back")
    assert (tmp_path / "back").read_text() == "x"
    parse(device.run(["facts"], deadline_s=60), FactsReply, device.name)
