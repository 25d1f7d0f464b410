"""Attribution names the layers that cost a network its accuracy, and says the same however often it is interrupted."""

import functools
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.core.accuracy import MetricOptions, OutputSet
from edgekit.core.recipes import INT8_ARITHMETIC, INT8_PASSED_ON
from edgekit.core.sensitivity import give_back_order, noise_left
from edgekit.core.types import NumericRules
from edgekit.data.outputs import Outputs
from edgekit.data.read import prepare_data
from edgekit.errors import InputRejected
from edgekit.models.prepare import prepare_model
from edgekit.quantize import trials
from edgekit.quantize.collect import collect, load
from edgekit.quantize.flatten import FILE, flatten
from edgekit.quantize.groups import tensors_to_calibrate
from edgekit.quantize.qdq import QdqPlan, activation_grid, insert
from edgekit.quantize.ranges import METHODS, find_ranges
from edgekit.quantize.samples import Samples
from edgekit.quantize.sensitivity import (
    MOST_SAMPLES,
    WORK_MACS,
    Subject,
    attribute,
    best_method,
    most_parts,
    samples_for,
)
from edgekit.quantize.trials import FEWEST_SAMPLES, Trial
from edgekit.quantize.units import MOST_PARTS, followers, parts_of, units_of
from tests.conftest import SAMPLE, thorough

OPS = INT8_ARITHMETIC + INT8_PASSED_ON
RULES = NumericRules("uint8", "int8", per_channel=True, reduce_range=False)
HEAVY = 2_000_000_000  # multiply-accumulates that leave about 15 samples to the digits


# ------------------------------------------------------------------------------------------------- a trained network


@dataclass(frozen=True)
class Digits:
    """The sample's model, perhaps made fragile, with its histograms."""

    subject: Subject
    labels: np.ndarray

    @property
    def flat(self):
        return onnx.load(self.subject.flat)

    def top1(self, model):
        """The share of right answers on the selection split, by ONNX Runtime."""
        found = [answer.argmax() for answer in self.answers(model, range(len(self.labels)))]
        return float((np.array(found) == self.labels.reshape(-1)).mean())

    def answers(self, model, rows):
        """What the model answers on these samples of the selection split."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        session = ort.InferenceSession(model.SerializeToString(), options)
        feeds = np.load(self.subject.feeds / "0.npy", mmap_mode="r")[list(rows)]
        return [session.run(None, {"image": np.asarray(feed)})[0] for feed in feeds]

    def drop(self, ranges, keep=()):
        """What quantizing costs the real thing: ONNX Runtime's quantizer and its kernels."""
        found = ranges_by(self.subject.histograms, ranges)
        return self.top1(self.flat) - self.top1(insert(self.flat, found, QdqPlan(OPS, keep=keep), RULES))


@functools.cache
def ranges_by(histograms, method):
    return find_ranges(load(histograms), method, activation_grid(RULES))


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """`digits(block, power)`: the sample with a channel between two convolutions 2**power as large, its function unchanged."""
    base = tmp_path_factory.mktemp("digits")
    prepared = prepare_model(SAMPLE / "model.onnx", base, {})
    data = prepare_data(SAMPLE, list(prepared.info.inputs), base / "data", 256)

    def make(block="", power=0):
        folder = tmp_path_factory.mktemp("fragile")
        model = onnx.load(base / "model.onnx")
        if block:
            rescale(model, f"{block}/widen/conv/Conv", f"{block}/narrow/conv/Conv", 2.0**power)
        onnx.save(model, folder / "model.onnx")
        flatten(folder / "model.onnx", folder)
        tensors = tensors_to_calibrate(onnx.load(folder / FILE), OPS)
        collect(folder / FILE, base / "data" / "calibration", tensors, folder / "histograms.npz")
        feeds = base / "data" / "selection"
        subject = Subject(
            folder / FILE,
            folder / "histograms.npz",
            feeds,
            {},
            data.metric,
            MetricOptions(),
            RULES,
            OPS,
            INT8_ARITHMETIC,
        )
        return Digits(subject, np.load(feeds / "labels.npy"))

    return make


def rescale(model, first, second, factor):
    """Make a channel between two convolutions `factor` times as large: with a Relu between them the function stays the same."""
    nodes = {node.name: node for node in model.graph.node}
    stored = {tensor.name: tensor for tensor in model.graph.initializer}

    def change(name, where, by):
        array = numpy_helper.to_array(stored[name]).copy()
        array[where] *= by
        stored[name].CopyFrom(numpy_helper.from_array(array, name))

    for name in nodes[first].input[1:]:
        change(name, 0, factor)
    change(nodes[second].input[1], np.s_[:, 0], 1 / factor)


BLOCKS = ["/stage1/stage1.0", "/stage2/stage2.0"]


@pytest.mark.parametrize("block", [BLOCKS[0], *(pytest.param(b, marks=thorough) for b in BLOCKS[1:])])
def test_the_layers_that_make_a_network_collapse_lead_and_without_them_it_holds(block, digits):
    """As in PP-OCR: one channel's activations are 1,000 times the others', which one scale for all of them cannot hold."""
    fragile = digits(block, 10)
    assert fragile.drop("minmax") > 0.05
    found = attribute(fragile.subject, "ort-int8", HEAVY)
    leading = found.layers[:3]
    guilty = {f"{block}/widen/conv/Conv", f"{block}/narrow/conv/Conv"}
    assert guilty <= {layer.unit.name for layer in leading}
    assert found.full_drop is not None
    assert found.full_drop > 0.05
    assert fragile.drop(found.ranges, keep=tuple(n for layer in leading for n in layer.unit.nodes)) <= 0.01
    rest = [layer.alone_noise for layer in found.layers if layer.unit.name not in guilty]
    assert min(layer.alone_noise for layer in found.layers if layer.unit.name in guilty) > 100 * max(rest)


@thorough
def test_the_network_as_it_was_trained_does_not_collapse_and_other_layers_lead(digits):
    """The negative control, and the noise of several layers is the sum of theirs."""
    plain = digits()
    assert plain.drop("minmax") <= 0.01
    found = attribute(plain.subject, "ort-int8", HEAVY)
    leading = {layer.unit.name for layer in found.layers[:2]}
    assert not any({f"{block}/widen/conv/Conv", f"{block}/narrow/conv/Conv"} <= leading for block in BLOCKS)
    assert found.full_noise < 0.01

    order = give_back_order(found.layers)
    everything = [layer.unit for layer in order]
    for kept in (0, 3, 8):
        names = tuple(name for unit in everything[:kept] for name in unit.nodes)
        real = noise_of(plain, found, names)
        assert 0.4 < noise_left(order, kept) / real < 2.5, kept
    for layer in found.layers[:3]:
        assert layer.kept_noise == pytest.approx(noise_of(plain, found, layer.unit.nodes), rel=0.5)
    assert found.layers[8].kept_noise is None


def noise_of(digits, attribution, keep):
    """The noise of ONNX Runtime's own quantized model on the samples that attribution looked at."""
    found = ranges_by(digits.subject.histograms, attribution.ranges)
    quantized = insert(digits.flat, found, QdqPlan(OPS, keep=tuple(keep)), RULES)
    rows = trials.rows_of(len(digits.labels), attribution.samples, ordered=False)
    own, base = digits.answers(quantized, rows), digits.answers(digits.flat, rows)
    return float(np.square(np.subtract(own, base)).sum() / np.square(base).sum())


# ------------------------------------------------------------------------------------------------------ small networks


def save(folder, nodes, stored, ports, outputs, samples, state=None, metric="cosine", integers=()):
    """A subject of a network built in code, calibrated on its own samples. `samples` has [N, *shape] by input."""
    kinds = {name: TensorProto.INT64 if name in integers else TensorProto.FLOAT for name in ports}
    values = {n: helper.make_tensor_value_info(n, kinds[n], shape) for n, shape in ports.items()}
    inputs = [values[name] for name in samples]
    graph = helper.make_graph(nodes, "small", inputs, [values[n] for n in outputs], stored)
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), folder / "model.onnx")
    flatten(folder / "model.onnx", folder)
    for i, array in enumerate(samples.values()):
        np.save(folder / f"{i}.npy", array)
    tensors = tensors_to_calibrate(onnx.load(folder / FILE), OPS)
    collect(folder / FILE, folder, tensors, folder / "histograms.npz", state)
    return Subject(
        folder / FILE,
        folder / "histograms.npz",
        folder,
        state or {},
        metric,
        MetricOptions(),
        RULES,
        OPS,
        INT8_ARITHMETIC,
    )


def stored(name, array):
    return numpy_helper.from_array(np.asarray(array, np.float32), name)


def uneven():
    """Two Gemms, three Muls of which the second multiplies numbers of very different size, and an Add: x [1, 6] to y [1, 3]."""
    rng = np.random.default_rng(0)
    node = helper.make_node
    nodes = [
        node("Gemm", ["x", "w1", "b1"], ["h"], "first"),
        node("Relu", ["h"], ["r"], "relu"),
        node("Mul", ["r", "near"], ["m1"], "mul1"),
        node("Mul", ["m1", "wild"], ["m2"], "mul2"),
        node("Div", ["m2", "wild"], ["d"], "div"),
        node("Mul", ["d", "near"], ["m3"], "mul3"),
        node("Add", ["m3", "r"], ["a"], "add"),
        node("Gemm", ["a", "w2", "b2"], ["y"], "last"),
    ]

    tensors = [
        stored("w1", rng.standard_normal((6, 8))),
        stored("b1", rng.standard_normal(8)),
        stored("near", rng.uniform(0.9, 1.1, (1, 8))),
        stored("wild", [[1e3, 1, 1e-1, 1, 1, 1, 1, 1]]),
        stored("w2", rng.standard_normal((8, 3))),
        stored("b2", rng.standard_normal(3)),
    ]
    return nodes, tensors, rng


@pytest.fixture
def small(tmp_path):
    """A subject of the network above."""
    nodes, tensors, rng = uneven()
    ports = {"x": (1, 6), "y": (1, 3)}
    return save(tmp_path, nodes, tensors, ports, ["y"], {"x": rng.standard_normal((10, 1, 6)).astype(np.float32)})


def test_a_type_that_costs_much_is_taken_apart_to_the_node_that_does_it(small):
    flat = onnx.load(small.flat)
    assert {unit.name for unit in units_of(flat, OPS, INT8_ARITHMETIC)} == {"first", "last", "add", "every Mul"}
    found = attribute(small, "ort-int8", 100)
    assert found.layers[0].unit.name == "mul2"
    assert {layer.unit.name for layer in found.layers} == {"first", "last", "add", "mul1", "mul2", "mul3"}
    assert found.layers[0].weight_sqnr_db is None
    assert next(layer for layer in found.layers if layer.unit.name == "first").weight_sqnr_db > 35


class Interrupted(BaseException):
    """What a test stops an attribution with."""


@pytest.mark.parametrize("after", [5, *(pytest.param(n, marks=thorough) for n in (0, 1, 9, 16))])
def test_an_interrupted_attribution_ends_with_the_same_bits(after, small, tmp_path, monkeypatch):
    whole = attribute(small, "ort-int8", 100)
    checkpoint, progress = tmp_path / "checkpoint", tmp_path / "progress"
    ran = []
    trial = trials.Bench.trial

    def interrupted(self, variant):
        if len(ran) == after:
            raise Interrupted
        ran.append(1)
        return trial(self, variant)

    monkeypatch.setattr(trials.Bench, "trial", interrupted)
    with pytest.raises(Interrupted):
        attribute(small, "ort-int8", 100, checkpoint=checkpoint)
    monkeypatch.setattr(trials.Bench, "trial", lambda self, variant: ran.append(1) or trial(self, variant))
    assert attribute(small, "ort-int8", 100, progress, checkpoint) == whole
    lines = [json.loads(line) for line in progress.read_text().splitlines()]
    assert lines[-1] == {"done": 17, "total": 17, "eta_s": 0.0}  # 4 methods, 4 units, 3 parts, 6 left out
    assert [line["done"] for line in lines] == list(range(1, 18))
    assert len(ran) == 17
    assert not checkpoint.exists()


@pytest.mark.parametrize("content", [b"", b"not JSON", b'{"key": "another", "trials": {"ranges mse": [7.0, null]}}'])
def test_a_checkpoint_of_something_else_is_ignored(content, small, tmp_path):
    checkpoint = tmp_path / "checkpoint"
    checkpoint.write_bytes(content)
    assert attribute(small, "ort-int8", 100, checkpoint=checkpoint) == attribute(small, "ort-int8", 100)


def test_another_attributions_checkpoint_is_not_its_own(small, tmp_path, monkeypatch):
    checkpoint = tmp_path / "checkpoint"
    monkeypatch.setattr(trials.Ledger, "close", lambda self: None)
    attribute(small, "ort-int8", 100, checkpoint=checkpoint)
    kept = checkpoint.read_bytes()
    data = np.load(tmp_path / "0.npy")
    data[0, 0, 0] += 1
    np.save(tmp_path / "0.npy", data)
    attribute(small, "ort-int8", 100, checkpoint=checkpoint)
    assert json.loads(checkpoint.read_bytes())["key"] != json.loads(kept)["key"]
    assert json.loads(checkpoint.read_bytes())["trials"] != json.loads(kept)["trials"]


def test_the_number_of_samples_follows_from_the_work_alone():
    assert samples_for(0, 100, 1000) == MOST_SAMPLES
    assert samples_for(10**12, 100, 1000) == 1
    assert samples_for(5 * 10**9, 100, 1000) == 2
    assert samples_for(10**9, 100, 1000) == 10
    assert samples_for(10**9, 100, 3) == 3


def test_of_units_that_may_be_taken_apart_so_many_are_counted_as_can_make_an_eighth_each():
    assert most_parts([1, 1, 1]) == 0
    assert most_parts([1, 3, 5]) == 8
    assert most_parts([2] * 6 + [9, 1, 2, 2]) == 9 + 6 * 2


def test_where_a_sample_takes_more_than_all_may_only_the_order_is_found(small, tmp_path):
    progress = tmp_path / "progress"
    found = attribute(small, "ort-int8", int(WORK_MACS), progress)
    assert found.samples == 1
    assert {(layer.kept_drop, layer.kept_noise) for layer in found.layers} == {(None, None)}
    assert found.layers[0].unit.name == "mul2"
    assert json.loads(progress.read_text().splitlines()[-1]) == {"done": 11, "total": 11, "eta_s": 0.0}
    assert all(layer.kept_noise is not None for layer in attribute(small, "ort-int8", 100).layers)


def test_units_taken_apart_are_within_what_an_attribution_may_take(small):
    """4 methods, 4 units, 3 parts and 8 left out."""
    assert attribute(small, "ort-int8", int(WORK_MACS / (19 * 7.5))).samples == 7


# ----------------------------------------------------------------------------------------------------- which samples


def test_samples_are_spread_evenly_or_the_first_ones():
    assert trials.rows_of(10, 4, ordered=False) == (0, 3, 6, 9)
    assert trials.rows_of(10, 4, ordered=True) == (0, 1, 2, 3)
    assert trials.rows_of(3, 9, ordered=False) == (0, 1, 2) == trials.rows_of(3, 9, ordered=True)
    assert trials.rows_of(1000, 1, ordered=False) == (0,)
    for available in range(1, 200):
        rows = trials.rows_of(available, 64, ordered=False)
        assert len(set(rows)) == len(rows) == min(available, 64)


def test_a_split_sorted_by_class_is_seen_in_all_its_classes(tmp_path):
    """Of 200 samples only the last 100 are anything but zero: nothing is lost in the first ones."""
    nodes, rng = [helper.make_node("Gemm", ["x", "w"], ["y"], "gemm")], np.random.default_rng(0)
    x = rng.standard_normal((200, 1, 6)).astype(np.float32)
    x[:100] = 0
    tensors = [stored("w", rng.standard_normal((6, 3)))]
    subject = save(tmp_path, nodes, tensors, {"x": (1, 6), "y": (1, 3)}, ["y"], {"x": x})
    assert attribute(subject, "ort-int8", 100).full_noise > 0
    np.save(tmp_path / "reset.npy", np.eye(1, 200, dtype=np.uint8)[0])  # a sequence is not cut
    assert attribute(subject, "ort-int8", 100).full_noise == 0


@pytest.mark.parametrize("reset", [False, True])
def test_feeds_labels_and_reference_are_of_the_same_rows(reset, small, tmp_path):
    np.save(tmp_path / "labels.npy", np.arange(10))
    if reset:
        np.save(tmp_path / "reset.npy", np.array([1, 0, 0, 1, 0, 0, 0, 0, 0, 0], np.uint8))
    (tmp_path / "scratch").mkdir()
    flat = onnx.load(small.flat)
    samples = Samples(tmp_path, ("x",), {})
    scoring = trials.Scoring(tmp_path, "top1", MetricOptions())
    bench = trials.Bench(flat, samples, scoring, 4, tmp_path / "scratch")
    rows = [0, 1, 2, 3] if reset else [0, 3, 6, 9]
    assert list(bench.rows) == rows
    assert bench.samples == 4
    session = ort.InferenceSession(flat.SerializeToString())
    x = np.load(tmp_path / "0.npy")
    answers = [session.run(None, {"x": x[row]})[0] for row in rows]
    assert np.load(tmp_path / "scratch" / "reference.0.npy") == pytest.approx(np.stack(answers), rel=1e-5)
    assert np.load(bench._cut(trials.LABELS)).tolist() == rows
    if reset:
        assert np.load(bench._cut("reset.npy")).tolist() == [1, 0, 0, 1]
    assert bench.trial(flat).noise < 1e-12


# ------------------------------------------------------------------------------------------------- which outputs count


def test_the_outputs_that_count_are_those_the_metric_is_shown():
    dtypes = {"y": "float32", "z": "float16", "h": "float32", "i": "int64"}
    assert trials.scored_outputs(dtypes, None, {}) == ("y", "z", "h")
    assert trials.scored_outputs(dtypes, None, {"h": "before"}) == ("y", "z")
    assert trials.scored_outputs(dtypes, "i", {}) == ("i",)
    assert trials.scored_outputs(dtypes, "h", {"h": "before"}) == ("h",)
    assert trials.scored_outputs({"h": "float32", "i": "int64"}, None, {"h": "before"}) == ("i",)
    assert trials.scored_outputs({"h": "float32"}, None, {"h": "before"}) == ("h",)


def test_where_a_model_ends_in_a_choice_the_noise_is_of_the_choices(tmp_path):
    nodes, tensors, rng = uneven()
    nodes.append(helper.make_node("ArgMax", ["y"], ["chosen"], "choice", axis=1, keepdims=0))
    x = rng.standard_normal((60, 1, 6)).astype(np.float32)
    ports = {"x": (1, 6), "chosen": (1,)}
    found = attribute(
        save(tmp_path, nodes, tensors, ports, ["chosen"], {"x": x}, integers=("chosen",)), "ort-int8", 100
    )
    assert found.layers[0].unit.name == "mul2"
    assert found.layers[0].alone_noise > 0
    assert found.layers[0].alone_noise * 60 == pytest.approx(round(found.layers[0].alone_noise * 60))
    noise = trials._Noise(("i",))
    noise.add({"i": np.array([1, 2, 4])}, {"i": np.array([[1, 2, 3]])})
    noise.add({"i": np.array([1, 2])}, {"i": np.array([[1, 2, 3]])})
    assert noise.worst() == 4 / 6


def test_the_noise_is_of_the_output_that_is_scored(tmp_path):
    """Another head is far noisier: what leads to it does not lead, where the metric is not shown it."""
    rng = np.random.default_rng(0)
    node = helper.make_node
    nodes = [
        node("Gemm", ["x", "w1"], ["y"], "quiet"),
        node("Gemm", ["x", "w2"], ["g"], "loud"),
        node("Mul", ["g", "wild"], ["m"], "mul"),
        node("Div", ["m", "wild"], ["z"], "div"),
    ]
    tensors = [stored("w1", rng.standard_normal((6, 4))), stored("w2", rng.standard_normal((6, 4)))]
    tensors.append(stored("wild", [[1e3, 1, 1e-1, 1]]))
    x = {"x": rng.standard_normal((10, 1, 6)).astype(np.float32)}
    both = save(tmp_path, nodes, tensors, {"x": (1, 6), "y": (1, 4), "z": (1, 4)}, ["y", "z"], x)
    assert attribute(both, "ort-int8", 100).layers[0].unit.name == "mul"
    one = attribute(replace(both, options=MetricOptions(output="y")), "ort-int8", 100)
    noise = {layer.unit.name: layer.alone_noise for layer in one.layers}
    assert one.layers[0].unit.name == "quiet"
    # x is rounded for whoever reads it, so `loud` alone costs y something too; what follows it does not.
    assert noise["quiet"] > 0
    assert noise["mul"] == 0


# ------------------------------------------------------------------------------------------- values that are not finite


def test_what_no_range_holds_stays_float_and_the_rest_is_ranked(tmp_path):
    """The logarithm of a Relu is infinite, its exponential is not."""
    rng = np.random.default_rng(0)
    node = helper.make_node
    nodes = [
        node("Gemm", ["x", "w1"], ["h"], "first"),
        node("Relu", ["h"], ["r"], "relu"),
        node("Log", ["r"], ["infinite"], "log"),
        node("Mul", ["infinite", "half"], ["halved"], "mul"),
        node("Exp", ["halved"], ["e"], "exp"),
        node("Gemm", ["e", "w2"], ["y"], "last"),
    ]
    tensors = [stored("w1", rng.standard_normal((6, 8))), stored("w2", rng.standard_normal((8, 3)))]
    tensors.append(stored("half", [[0.5] * 8]))
    x = {"x": rng.standard_normal((10, 1, 6)).astype(np.float32)}
    subject = save(tmp_path, nodes, tensors, {"x": (1, 6), "y": (1, 3)}, ["y"], x)
    found = attribute(subject, "ort-int8", 100)
    assert {name for layer in found.layers for name in layer.unit.nodes} == {"first", "relu", "last"}
    assert 0 < found.full_noise < 0.01
    assert found.notes == ("1 operators stay fp32: calibration saw values that are not finite in 'infinite'",)


def test_a_state_is_carried_from_sample_to_sample(tmp_path):
    nodes = [helper.make_node("Concat", ["x", "before"], ["both"], "both", axis=1)]
    nodes += [helper.make_node("Gemm", ["both", "w"], ["after"], "gemm")]
    rng = np.random.default_rng(1)
    stored = [numpy_helper.from_array(rng.uniform(-0.3, 0.3, (6, 4)).astype(np.float32), "w")]
    ports = {"x": (1, 2), "before": (1, 4), "after": (1, 4)}
    samples = {"x": rng.standard_normal((9, 1, 2)).astype(np.float32), "before": np.zeros((9, 1, 4), np.float32)}
    carrying = save(tmp_path, nodes, stored, ports, ["after"], samples, {"after": "before"})
    found = attribute(carrying, "ort-int8", 100)
    assert found.samples == 9
    assert 0 < found.full_noise < 0.01


def test_outputs_that_differ_in_size_are_scored_too(tmp_path):
    """The number of values depends on the sample: NonZero and GatherND of them."""
    node = helper.make_node
    nodes = [
        node("Gemm", ["x", "w"], ["y"], "gemm"),
        node("NonZero", ["x"], ["places"], "nonzero"),
        node("Transpose", ["places"], ["rows"], "rows", perm=[1, 0]),
        node("GatherND", ["y", "rows"], ["some"], "gather"),
    ]
    rng = np.random.default_rng(1)
    stored = [numpy_helper.from_array(rng.standard_normal((4, 4)).astype(np.float32), "w")]
    x = np.maximum(rng.standard_normal((9, 1, 4)), 0).astype(np.float32)
    ragged = save(tmp_path, nodes, stored, {"x": (1, 4), "some": (None,)}, ["some"], {"x": x})
    found = attribute(ragged, "ort-int8", 100)
    assert 0 < found.full_noise < 0.01
    assert found.full_drop is not None


def test_of_large_outputs_fewer_samples_are_looked_at(small, monkeypatch):
    whole = attribute(small, "ort-int8", 100)
    monkeypatch.setattr(trials, "STORED_BYTES", 6 * (256 + 12))  # a header and three values each
    found = attribute(small, "ort-int8", 100)
    assert (whole.samples, found.samples) == (10, 6)
    monkeypatch.setattr(trials, "STORED_BYTES", 0)
    assert attribute(small, "ort-int8", 100).samples == FEWEST_SAMPLES


def test_a_metric_without_a_value_leaves_the_noise_and_says_so(small, tmp_path):
    np.save(tmp_path / "labels.npy", np.zeros(3, np.int64))  # for 10 samples
    found = attribute(small, "ort-int8", 100)
    assert found.full_drop is None
    assert found.full_noise > 0
    assert "has no value" in found.notes[0]


def test_a_model_of_nothing_to_quantize_is_refused(tmp_path):
    nodes = [helper.make_node("Tanh", ["x"], ["t"], "tanh"), helper.make_node("Relu", ["t"], ["y"], "relu")]
    ports = {"x": (1, 2), "y": (1, 2)}
    subject = save(tmp_path, nodes, [], ports, ["y"], {"x": np.ones((4, 1, 2), np.float32)})
    with pytest.raises(InputRejected, match="nothing to quantize"):
        attribute(subject, "ort-int8", 100)


# --------------------------------------------------------------------------------------------------------------- parts


def test_the_range_method_is_that_of_least_noise_unless_it_loses_more_answers_than_chance():
    fair = {"minmax": Trial(0.02, 0.01), "percentile": Trial(0.01, 0.02), "entropy": Trial(0.9, 0.5)}
    assert best_method(fair, 64) == "percentile"
    assert best_method({**fair, "entropy": Trial(0.001, 0.5)}, 64) == "percentile"
    assert best_method({**fair, "mse": Trial(0.001, None)}, 64) == "percentile"
    assert best_method({method: Trial(trial.noise, None) for method, trial in fair.items()}, 64) == "percentile"
    assert best_method({"minmax": Trial(0.02, None), "entropy": Trial(0.9, None), "mse": Trial(0.01, 0.0)}, 64) == "mse"


def test_where_every_method_collapses_none_is_better_by_chance():
    assert best_method({method: Trial(1 + i / 10, 0.9) for i, method in enumerate(METHODS)}, 64) == "mse"


def test_what_views_or_clips_a_result_goes_with_its_maker():
    node = helper.make_node
    nodes = [
        node("Transpose", ["x"], ["t"], "view of the input"),
        node("Pad", ["t", "pads"], ["p"], "pad of the input"),
        node("Conv", ["p", "w"], ["c"], "conv"),
        node("Relu", ["c"], ["r"], "relu"),
        node("Split", ["r"], ["s1", "s2"], "split"),
        node("Add", ["s1", "s2"], ["a1"], "add 1"),
        node("Tanh", ["a1"], ["h"], "tanh"),
        node("Relu", ["h"], ["hr"], "relu of a float"),
        node("Add", ["hr", "hr"], ["a2"], "add 2"),
        node("MaxPool", ["a2"], ["y"], "pool"),
    ]
    model = helper.make_model(helper.make_graph(nodes, "views", [], []))
    groups = followers(model, OPS)
    assert groups == {
        "pad of the input": ("pad of the input",),
        "conv": ("conv", "relu", "split"),
        "add 1": ("add 1",),
        "add 2": ("add 2", "pool"),
    }
    units = {unit.name: unit for unit in units_of(model, OPS, INT8_ARITHMETIC)}
    assert units.keys() == {"conv", "every Add", "pad of the input"}
    assert units["every Add"].nodes == ("add 1", "add 2", "pool")
    assert [part.nodes for part in parts_of(units["every Add"], groups)] == [("add 1",), ("add 2", "pool")]
    assert [part.name for part in parts_of(units["conv"], groups)] == ["conv"]


def test_very_many_nodes_are_taken_apart_in_runs():
    nodes = [helper.make_node("Add", ["x", "x"], ["x"], f"add {i}") for i in range(3 * MOST_PARTS - 1)]
    model = helper.make_model(helper.make_graph(nodes, "sums", [], []))
    parts = parts_of(units_of(model, OPS, INT8_ARITHMETIC)[0], followers(model, OPS))
    assert len(parts) == MOST_PARTS
    assert parts[0].name == "add 0 to add 2"
    assert [name for part in parts for name in part.nodes] == [node.name for node in nodes]


def test_noise_counts_what_is_not_finite_any_more_as_lost():
    noise = trials._Noise(("y",))
    base = np.array([[3.0, 4.0, np.nan]], np.float32)
    noise.add({"y": np.array([np.nan, 4.0, 9.0], np.float32)}, {"y": base})
    assert noise.worst() == 9 / 25
    noise.add({"y": np.zeros(2, np.float32)}, {"y": base})
    assert noise.worst() == (9 + 25) / 50


def test_outputs_are_stored_as_numpy_reads_them(tmp_path):
    alike, differing = (trials._NpyWriter(tmp_path / name) for name in ("alike.npy", "differing.npy"))
    arrays = [np.arange(6, dtype=np.int64).reshape(2, 3), np.ones((2, 3), np.int64)]
    for array in arrays:
        alike.add(array)
    for array in (*arrays, np.zeros((1, 1), np.int64)):
        differing.add(array)
    assert alike.close() is None
    assert (np.load(tmp_path / "alike.npy") == np.stack(arrays)).all()
    shapes = differing.close()
    assert shapes == ((2, 3), (2, 3), (1, 1))
    stored = OutputSet(("y",), ("int64",), (tmp_path / "differing.npy",), (shapes,))
    assert (Outputs(stored).read(slice(1, 2))["y"] == arrays[1]).all()


def test_paths_may_be_relative(small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint = Path("checkpoint")
    assert attribute(small, "ort-int8", 100, Path("progress"), checkpoint).samples == 10
