"""Calibration data as OpenVINO's quantizer gets it: state carried, and samples of all the data. Real ONNX Runtime and NNCF."""

import os

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit import sandbox
from edgekit.core.dataset import DataSetInfo
from edgekit.core.types import BuildSpec, Built, Candidate, NumericRules, Recipe, RunConfig, Step
from edgekit.flow.workshop import Materials, Workshop
from edgekit.process import QUIET_ENVIRONMENT

os.environ.update(QUIET_ENVIRONMENT)
import openvino as ov  # its telemetry is off only if the environment says so before

from edgekit.quantize.feeds import Feeds
from edgekit.quantize.samples import Samples

STATE = {"h_next": "h"}
SPEC = BuildSpec(
    "0" * 64,
    Recipe(
        "t",
        "openvino",
        "int8",
        (
            Step(
                "quantize",
                {"preset": "mixed", "subset_size": 8, "bias_correction": "fast", "activation_range": "minmax"},
            ),
        ),
        True,
    ),
    "1",
    {},
    NumericRules("uint8", "int8", per_channel=True, reduce_range=False),
)


def accumulator(path):
    """h' = h + 10 x, y = h v: inputs x and h [1, 4], outputs y [1, 4] and h'."""
    nodes = [
        helper.make_node("Mul", ["x", "ten"], ["s"]),
        helper.make_node("Add", ["h", "s"], ["h_next"]),
        helper.make_node("MatMul", ["h", "v"], ["y"]),
    ]
    weights = [numpy_helper.from_array(np.array(10, "f"), "ten"), numpy_helper.from_array(np.eye(4, dtype="f"), "v")]
    inputs, outputs = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in names]
        for names in (("x", "h"), ("y", "h_next"))
    )
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def folder_of(place, *arrays, starts=()):
    place.mkdir()
    for index, array in enumerate(arrays):
        np.save(place / f"{index}.npy", np.asarray(array, "f"))
    if starts:
        np.save(place / "reset.npy", np.isin(np.arange(len(arrays[0])), starts).astype(np.uint8))
    return place


@pytest.fixture
def model(tmp_path):
    return accumulator(tmp_path / "model.onnx")


def states(model, folder, most=8):
    return [float(feed["h"].max()) for feed in Feeds(model, Samples(folder, ("x", "h"), STATE), most)]


def ones(count):
    return np.ones((count, 1, 4)), np.zeros((count, 1, 4))


def test_state_is_what_the_float_model_made_of_the_samples_before(tmp_path, model):
    assert states(model, folder_of(tmp_path / "d", *ones(4))) == [0, 10, 20, 30]


def test_a_sequence_starts_with_what_is_stored(tmp_path, model):
    x, h = ones(5)
    h[3] = 7
    assert states(model, folder_of(tmp_path / "d", x, h, starts=(0, 3))) == [0, 10, 20, 7, 17]


def test_every_iteration_begins_anew(tmp_path, model):
    feeds = Feeds(model, Samples(folder_of(tmp_path / "d", *ones(5)), ("x", "h"), STATE), 3)
    passes = [[float(feed["h"].max()) for feed in feeds] for _ in range(2)]
    assert passes == [[0, 10, 20]] * 2 and len(feeds) == 3


def test_without_state_samples_are_spread_over_all(tmp_path, model):
    """With it they are the first ones: the others depend on what was left out."""
    x = np.arange(100.0)[:, None, None] * np.ones((1, 1, 4))
    data = folder_of(tmp_path / "d", x, np.zeros((100, 1, 4)))

    def taken(state, most):
        return [int(feed["x"].max()) for feed in Feeds(model, Samples(data, ("x", "h"), state), most)]

    assert taken({}, 5) == [0, 24, 49, 74, 99]
    assert taken(STATE, 5) == [0, 1, 2, 3, 4]
    assert taken({}, 300) == taken(STATE, 300) == list(range(100))
    assert taken({}, 1) == [0]


def peak(folder):
    """The highest value that the FakeQuantize of the state input lets through."""
    ordered = ov.Core().read_model(folder / "model.xml").get_ordered_ops()
    (found,) = (
        node for node in ordered if node.get_type_name() == "FakeQuantize" and "h" in node.input_value(0).get_names()
    )
    return float(found.input_value(2).get_node().data.max())


def built(model, data, out, **more):
    sandbox.call(
        "edgekit.engines.build:build_artifact",
        returns=Built,
        **{"spec": SPEC, "original": model, "model": model, "calibration": data, "out": out, **more},
    )
    return out


def test_the_range_of_a_state_input_covers_what_it_becomes(tmp_path, model):
    """Eight samples: 0, then up to 70. Without the state NNCF sees zeros alone."""
    data = folder_of(tmp_path / "d", *ones(20))
    assert peak(built(model, data, tmp_path / "carried", state=STATE)) == pytest.approx(70, rel=0.02)
    assert peak(built(model, data, tmp_path / "control")) < 1


def test_the_range_covers_classes_that_come_last(tmp_path, model):
    """Folders of classes come one by one: of 40 samples, which are more than the recipe takes, only the last ten are loud."""
    h = np.concatenate([np.ones((30, 1, 4)), np.full((10, 1, 4), 50.0)])
    data = folder_of(tmp_path / "d", np.ones((40, 1, 4)), h)
    assert peak(built(model, data, tmp_path / "out")) == pytest.approx(50, rel=0.02)


def test_the_build_is_told_the_state_of_the_data_set(tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(sandbox, "call", lambda *_, **kwargs: seen.update(kwargs) or Built(()))

    class Shop:
        def remembered(self, kind, key, type_, make, intact):
            return tmp_path, make(tmp_path)

    data = DataSetInfo("d", "0" * 64, "cosine", False, {}, ("x",), STATE)
    materials = Materials(tmp_path / "a", tmp_path / "b", "0" * 64, data, tmp_path, ("x", "h"))
    Workshop.build(Shop(), Candidate(SPEC, RunConfig(1)), materials, sandbox.Limits())
    assert seen["state"] == STATE
