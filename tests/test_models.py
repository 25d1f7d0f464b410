"""Models: preflight, preparation and inspection, on models built in code."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from edgekit import sandbox
from edgekit.core.shapes import parse_shape, shape_flag
from edgekit.core.types import PreparedModel
from edgekit.errors import InputRejected, UsageError
from edgekit.models import external
from edgekit.models.opset import same
from edgekit.models.prepare import prepare_model
from tests.hostile import (
    CASES,
    external_model,
    function_bomb,
    infinite_weights,
    linear,
    model,
    openvino_crasher,
    symbolic_axis,
    unary,
    value,
)

SMALL = sandbox.Limits(rss_bytes=1 << 30, cpu_s=5, wall_s=20)


def prepare(made: ModelProto | Path, folder: Path, shapes: dict[str, list[int]] | None = None) -> PreparedModel:
    """Prepare in this process; the result stands in folder/out."""
    path = made if isinstance(made, Path) else folder / "given.onnx"
    if not isinstance(made, Path):
        path.write_bytes(made.SerializeToString())
    (folder / "out").mkdir()
    return prepare_model(path, folder / "out", shapes or {})


def run(path: Path, **feeds: np.ndarray) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]).run(None, feeds)


def prepared_shapes(folder: Path) -> dict[str, list[int]]:
    graph = onnx.load(folder / "out" / "model.onnx").graph
    values = [*graph.input, *graph.value_info, *graph.output]
    return {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}


# -------------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.isolate])
def test_hostile_model_is_refused_in_one_clear_line(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    assert case.error is not None
    (tmp_path / "in").mkdir()
    path = case.write(tmp_path / "in")
    with pytest.raises(case.error) as caught:
        prepare(path, tmp_path)
    line = str(caught.value)
    assert case.says in line
    assert line.isprintable()
    assert caught.value.where == str(path)
    assert caught.value.next_step


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.isolate])
def test_what_hangs_swells_or_crashes_costs_one_child(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    assert case.error is not None
    path = case.write(tmp_path)
    with pytest.raises(case.error, match=case.says or None):
        sandbox.call(
            "edgekit.models.prepare:prepare_model",
            returns=PreparedModel,
            limits=SMALL,
            source=path,
            out=tmp_path,
            shapes={},
        )


def test_good_model_passes_through_the_sandbox(tmp_path: Path) -> None:
    """The negative control of the two tests above."""
    path = tmp_path / "given.onnx"
    path.write_bytes(linear().SerializeToString())
    (tmp_path / "out").mkdir()
    prepared = sandbox.call(
        "edgekit.models.prepare:prepare_model",
        returns=PreparedModel,
        limits=SMALL,
        source=path,
        out=tmp_path / "out",
        shapes={},
    )
    assert prepared.info.macs == 12
    assert prepared.notices == ()


def test_opset_newest_supported_is_accepted(tmp_path: Path) -> None:
    assert prepare(linear(opset=onnx.defs.onnx_opset_version(), ir=onnx.IR_VERSION), tmp_path).info.macs == 12


def test_infinite_weights_are_legal(tmp_path: Path) -> None:
    assert prepare(infinite_weights(), tmp_path).info.params == 4


def test_model_that_only_fails_at_run_time_is_a_notice(tmp_path: Path) -> None:
    prepared = prepare(openvino_crasher(), tmp_path)
    assert any("does not run on synthetic inputs" in notice for notice in prepared.notices)


def test_small_functions_are_inlined(tmp_path: Path) -> None:
    """The function bomb's negative control: 2^3 nodes are welcome."""
    prepared = prepare(function_bomb(levels=3, width=2), tmp_path)
    assert prepared.info.op_counts == {"Relu": 8}


def test_symbolic_link_to_a_model_is_followed(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(linear().SerializeToString())
    (tmp_path / "link.onnx").symlink_to("blob")
    assert prepare(tmp_path / "link.onnx", tmp_path).info.macs == 12


# --------------------------------------------------------------------------------------------------------- external data


@pytest.mark.parametrize("inline_limit", [external.INLINE_LIMIT, 4096])
def test_external_data_gives_the_same_answers(
    inline_limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(external, "INLINE_LIMIT", inline_limit)
    given = tmp_path / "given"
    given.mkdir()
    prepared = prepare(external_model(given), tmp_path)
    for path in given.iterdir():
        path.unlink()
    expected = np.ones((1, 4), np.float32) @ np.arange(4096, dtype=np.float32).reshape(4, 1024)
    for name in ("original.onnx", "model.onnx"):
        np.testing.assert_array_equal(run(tmp_path / "out" / name, x=np.ones((1, 4), np.float32))[0], expected)
    outside = inline_limit == 4096
    assert prepared.files == (("model.onnx", "model.onnx.data") if outside else ("model.onnx",))
    assert prepared.info.weight_bytes == 16384


def test_large_embedded_weights_move_to_a_data_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external, "INLINE_LIMIT", 4096)
    weight = np.arange(4096, dtype=np.float32).reshape(4, 1024)
    prepared = prepare(linear(weight, opset=11, ir=6), tmp_path)
    assert prepared.files == ("model.onnx", "model.onnx.data")
    assert prepared.info.opset == 17
    assert (tmp_path / "out" / "original.onnx").read_bytes() == (tmp_path / "given.onnx").read_bytes()
    got = run(tmp_path / "out" / "model.onnx", x=np.ones((1, 4), np.float32))[0]
    np.testing.assert_array_equal(got[0], weight.sum(axis=0))


@pytest.mark.parametrize("inline_limit", [external.INLINE_LIMIT, 4096])
def test_nan_in_external_data_is_refused(inline_limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external, "INLINE_LIMIT", inline_limit)
    path = external_model(tmp_path)
    (tmp_path / "weights.bin").write_bytes(np.full(4096, np.nan, np.float32).tobytes())
    with pytest.raises(InputRejected, match="'w' holds NaN"):
        prepare(path, tmp_path)


def test_digest_of_builds_covers_external_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external, "INLINE_LIMIT", 4096)
    digests = set()
    for fill in (0, 1):
        folder = tmp_path / str(fill)
        folder.mkdir()
        path = external_model(folder)
        (folder / "weights.bin").write_bytes(np.full(4096, fill, np.float32).tobytes())
        digests.add(prepare(path, folder).model_sha256)
    assert len(digests) == 2


# ---------------------------------------------------------------------------------------------------------------- shapes


def test_batch_axis_defaults_to_one_with_a_notice(tmp_path: Path) -> None:
    prepared = prepare(unary(shape=["N", 3]), tmp_path)
    assert prepared.info.inputs[0].shape == (1, 3)
    assert prepared.notices == ("input 'x': batch axis 'N' set to 1; --shape x:... changes it",)


def test_original_is_kept_byte_for_byte(tmp_path: Path) -> None:
    prepare(unary(shape=["N", 3]), tmp_path)
    assert (tmp_path / "out" / "original.onnx").read_bytes() == (tmp_path / "given.onnx").read_bytes()


def test_given_shape_fixes_every_axis(tmp_path: Path) -> None:
    prepared = prepare(symbolic_axis(), tmp_path, {"x": [2, 3, 32, 64]})
    assert prepared.info.outputs[0].shape == (2, 3, 32, 64)
    assert prepared.notices == ()


def test_printed_flag_can_be_copied(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        prepare(symbolic_axis(), tmp_path)
    flag = caught.value.next_step.rpartition("--shape ")[2]
    name, dims = parse_shape(flag)
    (tmp_path / "again").mkdir()
    prepared = prepare(symbolic_axis(), tmp_path / "again", {name: dims})
    assert prepared.info.inputs[0].shape == (1, 3, 32, 224)


@pytest.mark.parametrize(
    ("shapes", "says"),
    [
        ({"X": [1, 3, 32, 64]}, "did you mean 'x'"),
        ({"image": [1, 3, 32, 64]}, "its inputs are: x"),
        ({"x": [1, 3, 32]}, "has 4 axes, not 3"),
        ({"x": [1, 4, 32, 64]}, "has 3 on axis 1, not 4"),
    ],
)
def test_shape_that_contradicts_the_model_is_a_usage_error(
    shapes: dict[str, list[int]], says: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=says):
        prepare(symbolic_axis(), tmp_path, shapes)


def two_inputs() -> ModelProto:
    node = helper.make_node("Add", ["a", "b"], ["y"])
    return model([node], [value("a", ["N", "T"]), value("b", [1, "N", "T"])], [value("y", None)])


def test_one_symbol_is_one_number(tmp_path: Path) -> None:
    prepared = prepare(two_inputs(), tmp_path, {"a": [2, 5]})
    assert [spec.shape for spec in prepared.info.inputs] == [(2, 5), (1, 2, 5)]


def test_one_symbol_with_two_numbers_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="axis 'N' is 2 in one input and 3 in 'b'"):
        prepare(two_inputs(), tmp_path, {"a": [2, 5], "b": [1, 3, 5]})


def test_initializers_among_inputs_are_weights(tmp_path: Path) -> None:
    made = linear(opset=9, ir=3)
    made.graph.input.append(value("w", [4, 3]))
    prepared = prepare(made, tmp_path)
    assert [spec.name for spec in prepared.info.inputs] == ["x"]
    assert prepared.info.opset == 17


def test_scalar_and_integer_inputs(tmp_path: Path) -> None:
    nodes = [helper.make_node("Cast", ["n"], ["f"], to=TensorProto.FLOAT), helper.make_node("Add", ["x", "f"], ["y"])]
    made = model(nodes, [value("x", [2]), value("n", [], TensorProto.INT64)], [value("y", [2])])
    prepared = prepare(made, tmp_path)
    assert [(spec.dtype, spec.shape) for spec in prepared.info.inputs] == [("float32", (2,)), ("int64", ())]


def flatten_by_arithmetic() -> ModelProto:
    """Reshape to [Shape(x)[0], -1] through Gather, Unsqueeze and Concat, as exporters write it."""
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("Unsqueeze", ["n", "axes"], ["n1"]),
        helper.make_node("Concat", ["n1", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]
    weights = {
        "zero": np.array(0, np.int64),
        "axes": np.array([0], np.int64),
        "rest": np.array([-1], np.int64),
        "w": np.ones((12, 5), np.float32),
    }
    return model(nodes, [value("x", ["N", 3, "H", "W"])], [value("y", None)], weights)


def test_shape_arithmetic_is_followed(tmp_path: Path) -> None:
    prepared = prepare(flatten_by_arithmetic(), tmp_path, {"x": [7, 3, 2, 2]})
    assert prepared.info.outputs[0].shape == (7, 5)
    assert prepared.info.macs == 7 * 12 * 5
    assert prepared_shapes(tmp_path)["flat"] == [7, 12]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("image:1x3x224x224", ("image", [1, 3, 224, 224])),
        ("image[1,3,224,224]", ("image", [1, 3, 224, 224])),
        ("input:0:1x2", ("input:0", [1, 2])),
        ("input:0[1, 2]", ("input:0", [1, 2])),
        ("n[]", ("n", [])),
        ("x:5", ("x", [5])),
    ],
)
def test_parse_shape(text: str, expected: tuple[str, list[int]]) -> None:
    assert parse_shape(text) == expected


@pytest.mark.parametrize("text", ["", "x", "x:", "x:1xN", "x:0", "x[1,,2]", ":1x2", "x[1,-2]", "x:1x"])
def test_parse_shape_refuses(text: str) -> None:
    with pytest.raises(UsageError):
        parse_shape(text)


def test_flag_is_quoted_for_a_shell() -> None:
    assert shape_flag("a b", [1, 2]) == "--shape 'a b:1x2'"
    assert parse_shape("n[]") == ("n", []) and shape_flag("n", []) == "--shape 'n[]'"


# ----------------------------------------------------------------------------------------------------------------- opset


def old_network() -> ModelProto:
    """Opset 9, with what changed since: Clip and Squeeze take attributes, Softmax flattens, Upsample became Resize."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Clip", ["c"], ["r"], min=0.0, max=6.0),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Squeeze", ["p"], ["f"], axes=[2, 3]),
        helper.make_node("Softmax", ["f"], ["y"], axis=1),
    ]
    weights = {"w": np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)}
    return model(nodes, [value("x", ["N", 3, 8, 8])], [value("y", None)], weights, opset=9, ir=4)


def test_old_opset_is_raised_and_answers_the_same(tmp_path: Path) -> None:
    prepared = prepare(old_network(), tmp_path)
    assert prepared.info.opset == 17
    assert any("raised from 9 to 17" in notice for notice in prepared.notices)
    feed = np.random.default_rng(1).random((1, 3, 8, 8), np.float32)
    (given,), (raised,) = (run(tmp_path / "out" / name, x=feed) for name in ("original.onnx", "model.onnx"))
    np.testing.assert_allclose(raised, given, rtol=1e-6)


def test_conversion_that_changes_the_answer_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong converter, simulated: it doubles the weights."""

    def wrong(given: ModelProto, version: int) -> ModelProto:
        made = ModelProto()
        made.CopyFrom(given)
        made.opset_import[0].version = version
        tensor = made.graph.initializer[0]
        tensor.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(tensor), tensor.name))
        return made

    monkeypatch.setattr("edgekit.models.opset.version_converter.convert_version", wrong)
    prepared = prepare(linear(opset=13, ir=7), tmp_path)
    assert prepared.info.opset == 13
    assert any("output 'y' differs" in notice for notice in prepared.notices)


def test_unconvertible_model_keeps_its_opset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(given: ModelProto, version: int) -> ModelProto:
        raise RuntimeError("no adapter")

    monkeypatch.setattr("edgekit.models.opset.version_converter.convert_version", refuse)
    prepared = prepare(linear(opset=13, ir=7), tmp_path)
    assert prepared.info.opset == 13
    assert any("opset 13 was kept" in notice and "no adapter" in notice for notice in prepared.notices)


def test_same_tolerates_rounding_only() -> None:
    a = np.array([1.0, 1000.0, np.nan, np.inf], np.float32)
    assert same(a, a * np.float32(1 + 1e-5))
    assert not same(a, a + np.float32(1))
    assert not same(a, a[:3])
    assert not same(np.array([1, 2]), np.array([1, 3]))


# --------------------------------------------------------------------------------------------------------------- inspect


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


CONV = ("Conv", {"pads": [1, 1, 1, 1]}, [1, 4, 8, 8], {"w": random(6, 4, 3, 3)}, 8 * 8 * 6 * 4 * 9)
DEPTHWISE = ("Conv", {"group": 4}, [1, 4, 8, 8], {"w": random(4, 1, 3, 3)}, 6 * 6 * 4 * 9)
TRANSPOSED = ("ConvTranspose", {"strides": [2, 2]}, [1, 4, 8, 8], {"w": random(4, 5, 2, 2)}, 8 * 8 * 4 * 5 * 4)
GEMM = ("Gemm", {"transB": 1}, [2, 7], {"w": random(3, 7)}, 2 * 7 * 3)
BATCHED = ("MatMul", {}, [5, 2, 7], {"w": random(5, 7, 3)}, 5 * 2 * 7 * 3)
EINSUM = ("Einsum", {"equation": "bij,bjk->bik"}, [5, 2, 7], {"w": random(5, 7, 3)}, 5 * 2 * 7 * 3)
ELLIPSIS = ("Einsum", {"equation": "...ij,...jk->...ik"}, [5, 2, 7], {"w": random(5, 7, 3)}, 5 * 2 * 7 * 3)
LSTM = ("LSTM", {"hidden_size": 6}, [9, 2, 5], {"w": random(1, 24, 5), "r": random(1, 24, 6)}, 9 * 2 * 24 * (5 + 6))
GRU = ("GRU", {"hidden_size": 6}, [9, 2, 5], {"w": random(1, 18, 5), "r": random(1, 18, 6)}, 9 * 2 * 18 * (5 + 6))
FUSED = ("com.microsoft.FusedMatMul", {"transA": 1}, [7, 2], {"w": random(7, 3)}, 2 * 7 * 3)
RELU = ("Relu", {}, [5, 2], {}, 0)


@pytest.mark.parametrize(
    ("op", "attributes", "shape", "weights", "macs"),
    [CONV, DEPTHWISE, TRANSPOSED, GEMM, BATCHED, EINSUM, ELLIPSIS, LSTM, GRU, FUSED, RELU],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_macs_by_hand(
    op: str, attributes: dict[str, object], shape: list[int], weights: dict[str, np.ndarray], macs: int, tmp_path: Path
) -> None:
    domain, _, name = op.rpartition(".")
    node = helper.make_node(name, ["x", *weights], ["y"], domain=domain, **attributes)
    domains = ((domain, 1),) if domain else ()
    info = prepare(model([node], [value("x", shape)], [value("y", None)], weights, domains=domains), tmp_path).info
    assert info.macs == macs
    assert info.params == sum(w.size for w in weights.values())
    assert info.weight_bytes == 4 * info.params
    assert info.op_counts == {op: 1}
    assert None not in info.outputs[0].shape and "?" not in info.outputs[0].shape


def test_peak_activation_is_the_liveness_peak(tmp_path: Path) -> None:
    """x [1, 100] is the caller's and stays; a and b overlap, then b and y; the view of y's input costs nothing."""
    nodes = [
        helper.make_node("Tile", ["x", "ten"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Reshape", ["b", "flat"], ["v"]),
        helper.make_node("ReduceSum", ["v"], ["y"], keepdims=0),
    ]
    weights = {"ten": np.array([1, 10], np.int64), "flat": np.array([-1], np.int64)}
    info = prepare(model(nodes, [value("x", [1, 100])], [value("y", None)], weights), tmp_path).info
    assert info.peak_activation_bytes == 4 * (100 + 1000 + 1000)
    assert {layer.op: layer.activation_elements for layer in info.layers} == {
        "Tile": 1100,
        "Relu": 2000,
        "Reshape": 0,
        "ReduceSum": 1001,
    }


def test_weights_behind_nodes_count_as_weights(tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["w0"], ["w"]), helper.make_node("MatMul", ["x", "w"], ["y"])]
    info = prepare(model(nodes, [value("x", [1, 4])], [value("y", None)], {"w0": random(4, 3)}), tmp_path).info
    assert [(layer.op, layer.weight_elements, layer.activation_elements) for layer in info.layers] == [
        ("MatMul", 12, 7)
    ]


def branches(*, constant: bool) -> ModelProto:
    """An If whose then-branch costs 12 MACs and whose else-branch costs 24."""

    def branch(name: str, inner: int) -> onnx.GraphProto:
        weights = [
            numpy_helper.from_array(random(4, inner), f"a{name}"),
            numpy_helper.from_array(random(inner, 1), f"b{name}"),
        ]
        nodes = [
            helper.make_node("MatMul", ["x", f"a{name}"], [f"h{name}"]),
            helper.make_node("ReduceMax", [f"h{name}"], [f"y{name}"]),
        ]
        return helper.make_graph(nodes, name, [], [value(f"y{name}", None)], weights[:1])

    node = helper.make_node("If", ["c"], ["y"], then_branch=branch("t", 3), else_branch=branch("e", 6))
    inputs = [value("x", [1, 4])] + ([] if constant else [value("c", [], TensorProto.BOOL)])
    return model([node], inputs, [value("y", None)], {"c": np.array(True)} if constant else None)


def test_if_counts_its_larger_branch_with_a_notice(tmp_path: Path) -> None:
    info = prepare(branches(constant=False), tmp_path).info
    assert info.macs == 24
    assert info.params == 36
    assert info.outputs[0].shape == (1, 1)
    assert info.op_counts == {"MatMul": 2, "ReduceMax": 2, "If": 1}
    assert any("larger branch" in notice for notice in info.notices)


def test_if_with_a_known_condition_counts_the_branch_taken(tmp_path: Path) -> None:
    info = prepare(branches(constant=True), tmp_path).info
    assert info.macs == 12
    assert info.notices == ()


def test_quantized_model_is_noticed(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    weights = {"s": np.array(0.1, np.float32), "z": np.array(0, np.uint8)}
    made = model(nodes, [value("x", [1, 4])], [value("y", [1, 4])], weights)
    assert any("already quantized" in notice for notice in prepare(made, tmp_path).notices)


def test_unknown_shapes_are_said(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("NonZero", ["x"], ["where"]),
        helper.make_node("Cast", ["where"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["w", "f"], ["y"]),
    ]
    info = prepare(model(nodes, [value("x", [8])], [value("y", None)], {"w": random(3, 1)}), tmp_path).info
    assert info.macs == 0
    assert any("1 nodes have unknown shapes" in notice for notice in info.notices)
    assert info.outputs[0].shape == (3, "?")
