"""Bad data sets at the real command line: one line, the documented exit code, nothing left behind; what is left out is counted."""

import json
import os
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from edgekit.errors import InputRejected, UsageError
from tests.conftest import Cli, Ended, thorough

Array = np.ndarray[Any, np.dtype[Any]]

SPLITS = ("calibration", "selection", "evaluation")
SIDE, LENGTH, COUNT = 8, 200, 8
CLASSES = ("blue", "red")


# --------------------------------------------------------------------------------------------------------------- models


def saved(path: Path, nodes: list[onnx.NodeProto], shape: list[int], weights: dict[str, Array]) -> Path:
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def picture_model(folder: Path) -> Path:
    """Is a picture rather blue or red? A 1 x 1 convolution and the mean over the picture."""
    weight = np.zeros((2, 3, 1, 1))
    weight[0, 2], weight[1, 0] = 1, 1
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    return saved(folder / "m.onnx", nodes, [1, 3, SIDE, SIDE], {"w": weight})


def sound_model(folder: Path) -> Path:
    """Is a recording above or below zero?"""
    weight = np.stack([np.full(LENGTH, -1.0), np.full(LENGTH, 1.0)], axis=1) / LENGTH
    return saved(folder / "m.onnx", [helper.make_node("MatMul", ["x", "w"], ["y"])], [1, LENGTH], {"w": weight})


# ----------------------------------------------------------------------------------------------------------------- data


def picture(seed: int) -> Array:
    """Noise with more of one colour; even seeds are blue, class 0."""
    pixels = np.random.default_rng(seed).integers(0, 160, (SIDE, SIDE, 3))
    pixels[..., 2 if seed % 2 == 0 else 0] += 90
    return pixels.astype(np.uint8)


def save_picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(seed)).save(path)


def save_sound(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(-8000, 8000, LENGTH) + (-6000 if seed % 2 == 0 else 6000)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(values.astype("<i2").tobytes())


IMAGE = 'x = { reader = "image", scale = 0.00392156862745098 }'
AUDIO = f'x = {{ reader = "audio", rate = 16000, length = {LENGTH} }}'


def declare(folder: Path, contract: str, head: str = "", split: str = 'folder = "{}"') -> Path:
    text = ["schema = 1", 'name = "tiny"', head, "[inputs]", contract]
    text += [f"[splits.{name}]\n{split.format(name)}" for name in SPLITS]
    (folder / "data.toml").write_text("\n".join(text))
    return folder


def pictures(folder: Path, head: str = "", contract: str = IMAGE, count: int = COUNT) -> Path:
    """Folders of pictures by class; all are different."""
    for k, name in enumerate(SPLITS):
        for i in range(count):
            save_picture(folder / name / CLASSES[1 - i % 2] / f"{i}.png", 1000 * k + i + 1)
    return declare(folder, contract, head)


def recordings(folder: Path) -> Path:
    for k, name in enumerate(SPLITS):
        for i in range(COUNT):
            save_sound(folder / name / f"{i}.wav", 1000 * k + i)
    return declare(folder, AUDIO)


def arrays(folder: Path, contract: str = "", **labels: Array) -> Path:
    """The same pictures as arrays, 0..1, with labels given by split."""
    lines = ["schema = 1", 'name = "tiny"', contract]
    for k, name in enumerate(SPLITS):
        x = np.stack([picture(1000 * k + i) for i in range(COUNT)]).transpose(0, 3, 1, 2)
        np.save(folder / f"{name}.npy", x.astype(np.float32) / 255)
        lines += [f"[splits.{name}]", f'samples = {COUNT}\nfiles = {{ x = "{name}.npy" }}']
        if name in labels:
            np.save(folder / f"{name}.labels.npy", labels[name])
            lines.append(f'labels = "{name}.labels.npy"')
    (folder / "data.toml").write_text("\n".join(lines))
    return folder


def listed(folder: Path, changes: dict[int, dict[str, Any]]) -> Path:
    """Pictures named by a list, where line i of evaluation is changed; a value of None takes a key away."""
    for k, name in enumerate(SPLITS):
        lines = []
        for i in range(COUNT):
            save_picture(folder / "png" / f"{name}{i}.png", 1000 * k + i)
            line: dict[str, Any] = {"x": f"png/{name}{i}.png", "label": CLASSES[i % 2]}
            line |= changes.get(i, {}) if name == "evaluation" else {}
            lines.append(json.dumps({key: value for key, value in line.items() if value is not None}))
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    return declare(folder, IMAGE, f"[labels]\nclasses = {json.dumps(CLASSES)}", 'list = "{}.jsonl"')


def two_classes(rows: int = COUNT) -> Array:
    return np.arange(rows, dtype=np.int64) % 2


def without(folder: Path, name: str) -> Path:
    (folder / name).unlink()
    return folder


# ------------------------------------------------------------------------------------------------------------- the runs


class Desk:
    """A user's folder with data, a temporary folder, and a cache that no other process uses: nothing may stay in either."""

    def __init__(self, edgekit: Cli, folder: Path, cache: Path) -> None:
        self._edgekit, self.folder, self.cache = edgekit, folder, cache
        self.data = folder / "data"
        self.temporary = folder / "tmp"
        for place in (self.data, self.temporary):
            place.mkdir()

    def run(self, *arguments: object) -> Ended:
        env = {"TMPDIR": str(self.temporary), "PYTHONDONTWRITEBYTECODE": "1"}
        ended = self._edgekit("--cache", self.cache, *arguments, cwd=self.folder, env=env, timeout=120)
        assert "Traceback" not in ended.out + ended.err, ended.err
        assert list(self.temporary.iterdir()) == []
        assert not (self.cache / "tmp").exists() or list((self.cache / "tmp").iterdir()) == []
        return ended

    def refused(self, *arguments: object, code: int = InputRejected.exit_code) -> str:
        """The one line of a command that may leave nothing."""
        before = set(self.folder.iterdir())
        ended = self.run(*arguments)
        assert ended.code == code, ended.err + ended.out
        assert ended.out == ""
        assert set(self.folder.iterdir()) == before
        return ended.error


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of this module in this worker: one command at a time runs on it."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def desk(edgekit: Cli, tmp_path: Path, own_cache: Path) -> Desk:
    return Desk(edgekit, tmp_path, own_cache)


FEW = [word for name in ("openvino", "fp16", "int8-weights", "ort-int8-dynamic") for word in ("--forbid", name)]


def optimize(desk: Desk, model: Path, *more: object) -> tuple[object, ...]:
    return ("optimize", model, "--data", desk.data, "-o", "run", "--json", *more)


# --------------------------------------------------------------------------------------------------------------- labels

LABELS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing in one split": (
        lambda d: arrays(d, selection=two_classes()),
        "only one of selection and evaluation has labels",
    ),
    "missing for the metric": (lambda d: arrays(d, 'metric = "top-1"'), "metric top-1 needs labels"),
    "missing in one line": (lambda d: listed(d, {3: {"label": None}}), "sample 3 has no label, others have"),
    "missing file": (
        lambda d: without(arrays(d, selection=two_classes(), evaluation=two_classes()), "evaluation.labels.npy"),
        "evaluation.labels.npy",
    ),
    "of another length": (
        lambda d: arrays(d, selection=two_classes(), evaluation=two_classes(COUNT - 1)),
        f"has {COUNT - 1} rows for {COUNT} samples",
    ),
    "of another class set, by name": (
        lambda d: listed(d, {2: {"label": "green"}}),
        "'green' is not one of the 2 classes",
    ),
    "of another class set, by number": (lambda d: listed(d, {2: {"label": 7}}), "label 7 is outside 0..1"),
    "of another class set, by folder": (
        lambda d: pictures(d, '[labels]\nclasses = ["blue", "green"]'),
        "'red' is not one of the 2 classes",
    ),
    "of another class set, in an array": (
        lambda d: arrays(
            d, '[labels]\nclasses = ["blue", "red"]', selection=two_classes(), evaluation=two_classes() + 1
        ),
        "label 2 of row 1 is outside 0..1",
    ),
    "of text": (lambda d: listed(d, {2: {"label": {"is": "red"}}}), "neither a number, a name nor a list"),
}


@pytest.mark.parametrize("name", LABELS)
def test_bad_labels(desk: Desk, name: str) -> None:
    make, says = LABELS[name]
    make(desk.data)
    assert says in desk.refused(*optimize(desk, picture_model(desk.folder)))


# ---------------------------------------------------------------------------------------------- samples that can't be read


def break_picture(desk: Desk) -> Path:
    bad = next((desk.data / "selection").rglob("3.png"))
    bad.write_bytes(bad.read_bytes()[:60])
    return bad


def break_sound(desk: Desk) -> Path:
    bad = desk.data / "selection" / "3.wav"
    bad.write_bytes(bad.read_bytes()[:-100])
    return bad


@thorough
@pytest.mark.parametrize(
    ("model", "data", "breaks", "says"),
    [
        (picture_model, pictures, break_picture, "is not a readable image"),
        (sound_model, recordings, break_sound, "is truncated"),
    ],
)
def test_an_unreadable_sample_among_good_ones(
    desk: Desk,
    model: Callable[[Path], Path],
    data: Callable[[Path], Path],
    breaks: Callable[[Desk], Path],
    says: str,
) -> None:
    data(desk.data)
    bad, path = breaks(desk), model(desk.folder)
    line = desk.refused(*optimize(desk, path))
    assert str(bad) in line and says in line and "--skip-bad" in line
    ended = desk.run(*optimize(desk, path, "--skip-bad", "--forbid", "int8", *FEW))
    assert ended.code == 0, ended.err
    run = json.loads(ended.out)
    assert run["data"]["splits"]["selection"]["samples"] == COUNT - 1
    (notice,) = (n for n in run["notices"] if "left out" in n)
    assert f"1 of {COUNT} samples of selection" in notice and str(bad) in notice


@thorough
def test_profile_and_compare_leave_out_what_can_not_be_read_when_asked(desk: Desk) -> None:
    pictures(desk.data)
    bad, path = break_picture(desk), picture_model(desk.folder)
    profile = ("profile", path, "--data", desk.data, "-o", "p", "--min-runs", 1, "--no-layers", "--json")
    compare = ("compare", path, path, "--data", desk.data, "--duration", "0.1s", "--rounds", 8, "--json")
    for command in (profile, compare):
        line = desk.refused(*command)
        assert str(bad) in line and "--skip-bad" in line
        ended = desk.run(*command, "--skip-bad")
        assert ended.code == 0, ended.err
        assert any("1 of 8 samples of selection can't be read" in n for n in json.loads(ended.out)["notices"])


def test_a_data_set_of_nothing_but_bad_samples(desk: Desk) -> None:
    pictures(desk.data)
    for file in (desk.data / "evaluation").rglob("*.png"):
        file.write_bytes(b"\x89PNG")
    line = desk.refused(*optimize(desk, picture_model(desk.folder), "--skip-bad"))
    assert "holds no sample that can be read" in line and ".png" in line


def test_what_is_wrong_with_the_set_itself_is_never_skipped(desk: Desk) -> None:
    listed(desk.data, {2: {"label": "green"}})
    assert "green" in desk.refused(*optimize(desk, picture_model(desk.folder), "--skip-bad"))


# -------------------------------------------------------------------------------------------------------------- metrics

MINE = """
def boom(outputs, reference, labels): raise RuntimeError("no\\nscore")
def nan(outputs, reference, labels): return [float("nan")] * len(labels)
def some_nan(outputs, reference, labels): return [float("nan")] + [1.0] * (len(labels) - 1)
def ends(outputs, reference, labels): raise SystemExit(3)
def text(outputs, reference, labels): return ["good"] * len(labels)
def score(outputs, reference, labels): return (outputs["y"].reshape(-1, 2).argmax(-1) == labels).astype(float)
"""


@thorough
@pytest.mark.parametrize(
    ("function", "says"),
    [
        ("boom", "failed: RuntimeError: no score"),
        ("nan", "not finite"),
        ("some_nan", "not finite"),
        ("ends", "failed: SystemExit: 3"),
        ("text", "could not convert string to float"),
        ("absent", "has no function 'absent'"),
    ],
)
def test_bad_metrics_of_the_users_own(desk: Desk, function: str, says: str) -> None:
    pictures(desk.data)
    (desk.folder / "mine.py").write_text(MINE)
    model = picture_model(desk.folder)
    assert says in desk.refused(*optimize(desk, model, "--metric", f"mine:{function}", "--forbid", "int8", *FEW))


@thorough
def test_a_metric_of_the_users_own_that_is_right(desk: Desk) -> None:
    """The control."""
    pictures(desk.data)
    (desk.folder / "mine.py").write_text(MINE)
    ended = desk.run(*optimize(desk, picture_model(desk.folder), "--metric", "mine:score", "--forbid", "int8", *FEW))
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["evaluation"]["value"] == 1.0


def test_a_data_set_may_not_name_code(desk: Desk) -> None:
    pictures(desk.data, 'metric = "mine:score"')
    (desk.folder / "mine.py").write_text(MINE)
    assert "unknown metric 'mine:score'" in desk.refused(*optimize(desk, picture_model(desk.folder)))


# ------------------------------------------------------------------------------------------------------------- contracts


@pytest.mark.parametrize(
    ("contract", "says"),
    [
        ('x = { reader = "image", scale = 1.0, resize = "stretch", size = [8, 9] }', "8, 9"),
        ('x = { reader = "image", scale = 1.0, color = "gray" }', 'write color = "RGB"'),
        ('x = { reader = "image", scale = 1.0, layout = "NHWC" }', 'write layout = "NCHW"'),
        ('x = { reader = "image", scale = 1.0, crop = [4, 4] }', "4, 4"),
        ('x = { reader = "image", scale = 1.0, mean = [0.5, 0.5] }', "mean"),
        ('x = { reader = "image", scale = 1.0, dtype = "uint8" }', "uint8"),
        ('x = { reader = "image", scale = 0.0 }', "scale"),
        ('x = { reader = "image" }', "scale"),
        ('x = { reader = "audio", rate = 16000, length = 200 }', "[1, 3, 8, 8]"),
        ('y = { reader = "image", scale = 1.0 }', "the model has no input 'y'; known: x"),
    ],
)
def test_a_contract_that_does_not_yield_the_models_input(desk: Desk, contract: str, says: str) -> None:
    pictures(desk.data, contract=contract)
    line = desk.refused(*optimize(desk, picture_model(desk.folder)))
    assert says in line and "data.toml" in line


def test_pictures_of_another_size_without_a_resize(desk: Desk) -> None:
    pictures(desk.data)
    bad = desk.data / "calibration" / "red" / "0.png"
    Image.new("RGB", (SIDE + 1, SIDE)).save(bad)
    line = desk.refused(*optimize(desk, picture_model(desk.folder)))
    assert str(bad) in line and "write resize and size, or crop" in line


# ---------------------------------------------------------------------------------------------------- calibration, budget


@thorough
def test_calibration_with_a_single_sample_is_done_and_said(desk: Desk) -> None:
    pictures(desk.data)
    for file in (desk.data / "calibration").rglob("*.png"):
        if file.name != "0.png":
            file.unlink()
    ended = desk.run(*optimize(desk, picture_model(desk.folder), *FEW))
    assert ended.code == 0, ended.err
    run = json.loads(ended.out)
    assert "calibrated on 1 sample: ranges are those of that sample" in run["notices"]
    assert any(o["candidate"]["build"]["recipe"]["name"] == "ort-int8" for o in run["outcomes"])


@pytest.mark.parametrize("budget", ["0", "0s", "-1", "soon", "1e3", "10 days", "nan", "", "9" * 400])
def test_a_time_budget_that_is_none(desk: Desk, budget: str) -> None:
    model = picture_model(desk.folder)
    line = desk.refused("optimize", model, "-o", "run", "--json", "--time-budget", budget, code=UsageError.exit_code)
    assert "--time-budget" in line


# ----------------------------------------------------------------------------------------------------------- data check


def checked(desk: Desk, model: Path, *more: object) -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit code of a check, and its findings by rule."""
    ended = desk.run("data", "check", desk.data, "-m", model, "--max-drop", "0.5", "--json", *more)
    assert ended.err == "" or ended.code == 0, ended.err
    report = json.loads(ended.out)
    return ended.code, {f["rule"]: f for f in report["findings"] if f["rule"] != "too-few"}


def whole(desk: Desk, change: Callable[[dict[str, Array]], None] = lambda _: None, count: int = 40) -> Path:
    """A set of arrays by split, changed before it is written, with labels."""
    x = {
        name: np.stack([picture(1000 * k + i) for i in range(count)]).transpose(0, 3, 1, 2).astype(np.float32) / 255
        for k, name in enumerate(SPLITS)
    }
    change(x)
    lines = ["schema = 1", 'name = "tiny"']
    for name, array in x.items():
        np.save(desk.data / f"{name}.npy", array)
        np.save(desk.data / f"{name}.labels.npy", two_classes(count))
        lines += [f'[splits.{name}]\nsamples = {count}\nlabels = "{name}.labels.npy"\nfiles = {{ x = "{name}.npy" }}']
    (desk.data / "data.toml").write_text("\n".join(lines))
    return desk.data


def to_255(x: dict[str, Array]) -> None:
    for array in x.values():
        array *= 255
        np.rint(array, out=array)


def constant(x: dict[str, Array]) -> None:
    x["selection"][4] = 0.5


def twice(x: dict[str, Array]) -> None:
    x["evaluation"][6] = x["evaluation"][4]


def not_numbers(x: dict[str, Array]) -> None:
    x["selection"][5, 0, 2, 2] = np.nan


def leaking(x: dict[str, Array]) -> None:
    x["evaluation"][8] = x["calibration"][2]


@thorough
@pytest.mark.parametrize(
    ("change", "code", "rule", "first"),
    [
        (lambda _: None, 0, None, None),  # the control
        (to_255, 0, "range", []),
        (constant, 0, "constant", [4]),
        (twice, 0, "duplicates", [6]),
        (not_numbers, 6, "not-finite", [5]),
        (leaking, 6, "leak", [8]),
    ],
)
def test_what_a_check_finds(
    desk: Desk, change: Callable[[dict[str, Array]], None], code: int, rule: str | None, first: list[int] | None
) -> None:
    whole(desk, change)
    ended, found = checked(desk, picture_model(desk.folder))
    assert ended == code, found
    assert list(found) == ([] if rule is None else [rule])
    if rule is not None:
        assert found[rule]["samples"]["first"] == first
        assert found[rule]["fix"]


@thorough
def test_a_check_of_what_can_not_be_read(desk: Desk) -> None:
    pictures(desk.data)
    bad, model = break_picture(desk), picture_model(desk.folder)
    code, found = checked(desk, model)
    assert (code, found["unreadable"]["severity"]) == (InputRejected.exit_code, "error")
    assert str(bad) in found["unreadable"]["what"]
    code, found = checked(desk, model, "--skip-bad")
    assert (code, found["unreadable"]["severity"]) == (0, "warning")
    assert str(bad) in found["unreadable"]["what"]


def test_labels_outside_the_models_classes_are_an_error_of_the_check(desk: Desk) -> None:
    arrays(desk.data, selection=two_classes(), evaluation=two_classes() + 6)
    code, found = checked(desk, picture_model(desk.folder))
    assert code == InputRejected.exit_code
    assert "outside 0..1" in found["labels"]["what"]


def test_a_check_of_a_model_that_is_none(desk: Desk) -> None:
    pictures(desk.data)
    (desk.folder / "m.onnx").write_bytes(os.urandom(64))
    assert "m.onnx" in desk.refused("data", "check", desk.data, "-m", desk.folder / "m.onnx", "--json")
