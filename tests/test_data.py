"""Reading data sets: the four forms, the feed layout, and every refusal with its one line."""

import io
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekit import sandbox
from edgekit.core.dataset import DataSetInfo
from edgekit.core.types import TensorSpec
from edgekit.data import arrays
from edgekit.data.arrays import open_npy, open_npz
from edgekit.data.feed import STORAGE, to_bfloat16
from edgekit.data.read import divide, prepare_data
from edgekit.data.synthetic import synthetic_data
from edgekit.errors import EdgekitError, InputRejected, UsageError
from edgekit.store import sha256_file

IMAGE = TensorSpec("image", "float32", (1, 2, 3))


def images(n: int, dtype: str = "float32", shape: tuple[int, ...] = (2, 3)) -> np.ndarray:
    """n different samples."""
    return (np.arange(n * int(np.prod(shape))).reshape(n, *shape) % 251).astype(dtype)


def declared(folder: Path, text: str = "", head: str = "", n: int = 8, **files: np.ndarray) -> Path:
    """A data.toml whose three splits share one layout; `text` is appended to each split, `head` to the top."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = [f'schema = 1\nname = "tiny"\n{head}\n']
    for k, split in enumerate(("calibration", "selection", "evaluation")):
        parts.append(f'[splits.{split}]\nsamples = {n}\nfiles = {{ image = "{split}.image.npy" }}\n{text}\n')
        np.save(folder / f"{split}.image.npy", images(3 * n)[k * n : (k + 1) * n])
    for name, array in files.items():
        np.save(folder / f"{name}.npy", array)
    (folder / "data.toml").write_text("\n".join(parts))
    return folder


def npz(path: Path, **contents: np.ndarray) -> Path:
    np.savez(path, **contents)
    return path


def prepare(source: Path, tmp_path: Path, *inputs: TensorSpec, samples: int | None = None) -> DataSetInfo:
    out = tmp_path / f"feed{len(list(tmp_path.glob('feed*')))}"
    return prepare_data(source, list(inputs) or [IMAGE], out, samples)


def fed(tmp_path: Path, split: str, name: str = "0", run: int = 0) -> np.ndarray:
    return np.load(tmp_path / f"feed{run}" / split / f"{name}.npy", allow_pickle=False)


def refusal(source: Path, tmp_path: Path, *inputs: TensorSpec, samples: int | None = None) -> str:
    """The one line with which a data set is refused."""
    with pytest.raises(InputRejected) as caught:
        prepare(source, tmp_path, *inputs, samples=samples)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ------------------------------------------------------------------------------------------------------------ data.toml


def test_declared_splits_become_the_feed_layout(tmp_path: Path) -> None:
    source = declared(tmp_path / "d", 'labels = "labels.npy"', labels=np.arange(8))
    info = prepare(source, tmp_path)
    assert info.name == "tiny"
    assert info.metric == "top-1"
    assert info.labelled
    assert {name: s.samples for name, s in info.splits.items()} == dict.fromkeys(
        ("calibration", "selection", "evaluation"), 8
    )
    assert info.fed_inputs == ("image",)
    assert info.notices == ()
    array = fed(tmp_path, "selection")
    assert array.dtype == np.dtype("<f4")
    assert array.flags.c_contiguous
    np.testing.assert_array_equal(array, images(24)[8:16].reshape(8, 1, 2, 3))
    np.testing.assert_array_equal(fed(tmp_path, "selection", "labels"), np.arange(8))
    assert not (tmp_path / "feed0" / "selection" / "reset.npy").exists()


def test_the_same_data_have_the_same_digest_and_other_data_another(tmp_path: Path) -> None:
    one = prepare(declared(tmp_path / "a"), tmp_path)
    same = prepare(declared(tmp_path / "b"), tmp_path)
    array = images(24)[8:16].copy()
    array[3, 0, 0] += 0.5
    other_source = declared(tmp_path / "c")
    np.save(other_source / "selection.image.npy", array)
    other = prepare(other_source, tmp_path)
    assert one.sha256 == same.sha256 != other.sha256
    assert one.splits["calibration"] == other.splits["calibration"]
    assert one.splits["selection"].sha256 != other.splits["selection"].sha256


def test_unlabelled_data_are_compared_by_cosine(tmp_path: Path) -> None:
    info = prepare(declared(tmp_path / "d"), tmp_path)
    assert not info.labelled
    assert info.metric == "cosine"


def test_pixels_are_scaled_in_float32_as_declared(tmp_path: Path) -> None:
    scale = 1 / 255
    head = f'[inputs]\nimage = {{ dtype = "float32", layout = "CHW", scale = {scale!r}, offset = -0.5 }}'
    source = declared(tmp_path / "d", head=head)
    for k, split in enumerate(("calibration", "selection", "evaluation")):
        np.save(source / f"{split}.image.npy", images(24, "uint8")[8 * k : 8 * k + 8])
    prepare(source, tmp_path)
    expected = images(24, "uint8")[16:24].astype(np.float32) * np.float32(scale) + np.float32(-0.5)
    np.testing.assert_array_equal(fed(tmp_path, "evaluation"), expected.reshape(8, 1, 2, 3))


def test_state_inputs_begin_as_zeros_and_sequences_are_kept(tmp_path: Path) -> None:
    starts = np.array([1, 0, 0, 1, 0, 0, 0, 0], np.uint8)
    source = declared(tmp_path / "d", 'sequences = "starts.npy"', head='[state]\nstateN = "state"', starts=starts)
    info = prepare(source, tmp_path, TensorSpec("state", "float32", (2, 1)), IMAGE)
    assert info.state == {"stateN": "state"}
    assert info.fed_inputs == ("image",)
    assert sorted(p.name for p in (tmp_path / "feed0" / "selection").iterdir()) == ["0.npy", "1.npy", "reset.npy"]
    initial = np.load(tmp_path / "feed0" / "selection" / "0.npy")
    assert initial.shape == (info.splits["selection"].samples, 2, 1)
    assert not initial.any()
    np.testing.assert_array_equal(fed(tmp_path, "selection", "reset"), starts)


def test_state_without_sequences_is_one_sequence_and_says_so(tmp_path: Path) -> None:
    source = declared(tmp_path / "d", head='[state]\nstateN = "state"')
    info = prepare(source, tmp_path, IMAGE, TensorSpec("state", "float32", (2, 1)))
    assert any("one sequence" in notice for notice in info.notices)
    np.testing.assert_array_equal(fed(tmp_path, "selection", "reset"), [1, 0, 0, 0, 0, 0, 0, 0])


def replace_in_toml(folder: Path, old: str, new: str) -> Path:
    path = folder / "data.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return folder


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("schema = 1", "schema = 2", "schema is 2, not 1"),
        ("schema = 1", 'schema = 1\nmetrik = "top-1"', "unknown key 'metrik'; did you mean 'metric'?"),
        ("samples = 8", "samples = 8\nlabel = 'x.npy'", "unknown key 'label'; did you mean 'labels'?"),
        ("[splits.selection]", "[splits.selecton]", "did you mean 'selection'?"),
        ("samples = 8", "samples = '8'", "Expected `int`, got `str`"),
        ("samples = 8", "samples = 9", "declares 9 samples, but its arrays hold 8"),
        ("schema = 1", 'schema = 1\nmetric = "top1"', "unknown metric 'top1'; did you mean 'top-1'?"),
        ("schema = 1", 'schema = 1\nmetric = "os:getcwd"', "unknown metric 'os:getcwd'"),
        ("schema = 1", 'schema = 1\nmetric = "top-1"', "metric top-1 needs labels"),
        ("schema = 1", "schema = 1 2", "is not valid TOML"),
        ("schema = 1", "schema = 1\ninputs = { imag = { scale = 2.0 } }", "no input 'imag'; did you mean 'image'?"),
        ("schema = 1", "schema = 1\ninputs = { image = { scal = 2.0 } }", "unknown key 'scal'; did you mean 'scale'?"),
        ("schema = 1", "schema = 1\ninputs = { image = { scale = nan } }", "scale must be finite"),
        (
            "schema = 1",
            "schema = 1\ninputs = { image = { layout = 'NCHW' } }",
            "layout NCHW names 4 axes, 'image' has 3",
        ),
        ("schema = 1", "schema = 1\ninputs = { image = { dtype = 'int8' } }", "declares 'image' as int8"),
        ("schema = 1", "schema = 1\nstate = { a = 'image' }", "declares every input as state"),
        ("schema = 1", "schema = 1\nstate = { a = 'img' }", "no input 'img'; did you mean 'image'?"),
        ("schema = 1", "schema = 1\nstate = { a = 'image', b = 'image' }", "feeds one input from two outputs"),
        ("{ image =", "{ imagge =", "holds 'imagge', but the model's inputs are 'image'"),
        ("selection.image.npy", "../d/selection.image.npy", "lies outside the data set's folder"),
        ("selection.image.npy", "/etc/hostname", "lies outside the data set's folder"),
        ("selection.image.npy", "gone.npy", "cannot be read: No such file"),
        ("samples = 8", "samples = 8\nsha256 = { 'selection.image.npy' = 'ab' }", "does not have the sha256"),
    ],
)
def test_a_wrong_data_toml_is_refused_with_the_fix(tmp_path: Path, old: str, new: str, expected: str) -> None:
    assert expected in refusal(replace_in_toml(declared(tmp_path / "d"), old, new), tmp_path)


def test_a_right_sha256_is_accepted(tmp_path: Path) -> None:
    source = declared(tmp_path / "d")
    digest = sha256_file(source / "selection.image.npy")
    replace_in_toml(source, "samples = 8", f"samples = 8\nsha256 = {{ 'selection.image.npy' = '{digest}' }}")
    assert prepare(source, tmp_path).splits["selection"].samples == 8


def test_missing_evaluation_is_refused(tmp_path: Path) -> None:
    source = declared(tmp_path / "d")
    path = source / "data.toml"
    path.write_text(path.read_text().split("[splits.evaluation]")[0])
    assert "has no [splits.evaluation]" in refusal(source, tmp_path)


def test_labels_in_one_scored_split_only_are_refused(tmp_path: Path) -> None:
    source = declared(tmp_path / "d", labels=np.arange(8))
    path = source / "data.toml"
    path.write_text(path.read_text() + 'labels = "labels.npy"\n')
    assert "only one of selection and evaluation has labels" in refusal(source, tmp_path)


def test_a_symlink_out_of_the_folder_is_refused_and_one_inside_is_not(tmp_path: Path) -> None:
    source = declared(tmp_path / "d")
    inside = source / "selection.image.npy"
    inside.rename(source / "real.npy")
    inside.symlink_to("real.npy")
    prepare(source, tmp_path)
    (source / "real.npy").rename(tmp_path / "outside.npy")
    inside.unlink()
    inside.symlink_to(tmp_path / "outside.npy")
    assert "lies outside" in refusal(source, tmp_path)


@pytest.mark.parametrize(
    ("starts", "expected"),
    [
        (np.zeros(8, np.uint8), "must hold one 0 or 1 a sample and begin with 1"),
        (np.full(8, 2, np.uint8), "must hold one 0 or 1"),
        (np.ones(7, np.uint8), "has 7 rows for 8 samples"),
    ],
)
def test_wrong_sequences_are_refused(tmp_path: Path, starts: np.ndarray, expected: str) -> None:
    assert expected in refusal(declared(tmp_path / "d", 'sequences = "s.npy"', s=starts), tmp_path)


# --------------------------------------------------------------------------------------------- splits that never overlap


def rows(tmp_path: Path, run: int = 0) -> dict[str, set[bytes]]:
    return {p.name: {r.tobytes() for r in fed(tmp_path, p.name, run=run)} for p in (tmp_path / f"feed{run}").iterdir()}


def test_a_copy_of_an_earlier_sample_is_removed_from_the_later_split(tmp_path: Path) -> None:
    source = declared(tmp_path / "d", 'labels = "labels.npy"', labels=np.arange(8))
    evaluation = images(24)[16:24].copy()
    evaluation[2], evaluation[5] = images(24)[1], images(24)[9]
    np.save(source / "evaluation.image.npy", evaluation)
    info = prepare(source, tmp_path)
    assert info.splits["evaluation"].samples == 6
    assert any("2 samples of evaluation were removed" in n for n in info.notices)
    np.testing.assert_array_equal(fed(tmp_path, "evaluation", "labels"), [0, 1, 3, 4, 6, 7])


def test_evaluation_that_only_repeats_is_refused(tmp_path: Path) -> None:
    source = declared(tmp_path / "d")
    np.save(source / "evaluation.image.npy", images(24)[:8])
    assert "every sample of evaluation also stands in an earlier split" in refusal(source, tmp_path)


def test_of_sequences_only_whole_repeats_are_removed(tmp_path: Path) -> None:
    starts = np.array([1, 0, 0, 0, 1, 0, 0, 0], np.uint8)
    source = declared(tmp_path / "d", 'sequences = "starts.npy"', starts=starts)
    evaluation = images(24)[16:24].copy()
    evaluation[0] = images(24)[0]  # one frame alike: silence may occur anywhere
    evaluation[4:] = images(24)[8:12]  # a whole sequence of selection
    np.save(source / "evaluation.image.npy", evaluation)
    info = prepare(source, tmp_path)
    assert info.splits["evaluation"].samples == 4
    assert any("1 sequences of evaluation were removed" in n for n in info.notices)


@given(st.integers(4, 3000), st.integers(1, 12), st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_division_is_complete_disjoint_and_in_proportion(count: int, kinds: int, labelled: bool) -> None:
    classes = np.arange(count) % kinds if labelled else None
    shares = divide(count, classes, "here")
    everything = np.concatenate(list(shares.values()))
    assert sorted(everything) == list(range(count))
    assert len(shares["calibration"]) == min(count // 4, 500)
    assert len(shares["selection"]) == count // 4
    if classes is not None:
        for split in ("calibration", "selection", "evaluation"):
            got = np.bincount(classes[shares[split]], minlength=kinds)
            fair = np.bincount(classes, minlength=kinds) * len(shares[split]) / count
            assert np.abs(got - fair).max() < 2


def test_an_undeclared_division_is_repeatable_and_disjoint(tmp_path: Path) -> None:
    path = npz(tmp_path / "set.npz", image=images(40, shape=(1, 2, 3)), labels=np.repeat(np.arange(4), 10))
    one, two = prepare(path, tmp_path), prepare(path, tmp_path)
    assert one == two
    assert [s.samples for s in one.splits.values()] == [10, 10, 20]
    assert any("40 samples were divided into 10 calibration, 10 selection, 20 evaluation" in n for n in one.notices)
    parts = rows(tmp_path)
    assert not parts["calibration"] & parts["selection"]
    assert not parts["evaluation"] & (parts["selection"] | parts["calibration"])
    assert len(set.union(*parts.values())) == 40


def test_too_few_samples_for_three_splits_are_refused(tmp_path: Path) -> None:
    assert "holds 3 samples" in refusal(npz(tmp_path / "a.npz", image=images(3)), tmp_path)
    assert sum(s.samples for s in prepare(npz(tmp_path / "b.npz", image=images(4)), tmp_path).splits.values()) == 4


def test_fewer_samples_than_asked_are_refused_with_the_counts(tmp_path: Path) -> None:
    source = declared(tmp_path / "d")
    line = refusal(source, tmp_path, samples=9)
    assert "9 samples were asked for, but there are calibration 8, selection 8, evaluation 8" in line
    info = prepare(source, tmp_path, samples=3)
    assert {s.samples for s in info.splits.values()} == {3}
    with pytest.raises(UsageError):
        prepare(source, tmp_path, samples=0)


def test_a_limit_keeps_the_beginning_of_sequences(tmp_path: Path) -> None:
    starts = np.array([1, 0, 1, 0, 0, 0, 0, 0], np.uint8)
    prepare(declared(tmp_path / "d", 'sequences = "s.npy"', s=starts), tmp_path, samples=3)
    np.testing.assert_array_equal(fed(tmp_path, "selection", "reset"), [1, 0, 1])
    np.testing.assert_array_equal(fed(tmp_path, "selection")[:, 0], images(24)[8:11])


# ------------------------------------------------------------------------------------------------- npz, folders, protobuf


def test_a_batch_axis_of_one_may_be_left_out(tmp_path: Path) -> None:
    with_axis = prepare(npz(tmp_path / "a.npz", image=images(8).reshape(8, 1, 2, 3)), tmp_path)
    without = prepare(npz(tmp_path / "b.npz", image=images(8)), tmp_path)
    assert with_axis.sha256 == without.sha256


def test_one_sample_of_exactly_the_inputs_shape_is_one_sample(tmp_path: Path) -> None:
    assert "holds 1 samples" in refusal(npz(tmp_path / "a.npz", image=images(1)), tmp_path)


def test_fortran_order_and_big_endian_arrays_are_fed_in_c_order(tmp_path: Path) -> None:
    array = images(8)
    plain = prepare(npz(tmp_path / "c.npz", image=array), tmp_path)
    fortran = prepare(npz(tmp_path / "f.npz", image=np.asfortranarray(array)), tmp_path)
    swapped = prepare(npz(tmp_path / "b.npz", image=array.astype(">f4")), tmp_path)
    assert plain.sha256 == fortran.sha256 == swapped.sha256


def test_rank_zero_and_zero_element_inputs_are_fed(tmp_path: Path) -> None:
    specs = (IMAGE, TensorSpec("rate", "int64", ()), TensorSpec("none", "float32", (0, 4)))
    path = npz(tmp_path / "a.npz", image=images(8), rate=np.arange(8), none=np.zeros((8, 0, 4), np.float32))
    prepare(path, tmp_path, *specs)
    assert fed(tmp_path, "evaluation", "1").shape == (4,)
    assert fed(tmp_path, "evaluation", "2").shape == (4, 0, 4)


def test_a_folder_of_stacked_npy_with_sanitized_names(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    spec = TensorSpec("in/put:0", "float32", (2, 3))
    np.save(folder / "in_put_0.npy", images(8))
    np.save(folder / "labels.npy", np.arange(8))
    info = prepare(folder, tmp_path, spec)
    assert info.labelled
    assert info.fed_inputs == ("in/put:0",)


def test_a_folder_with_one_npy_a_sample(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    for i, image in enumerate(images(8)):
        np.save(folder / f"frame{i}.npy", image)
    info = prepare(folder, tmp_path)
    assert sum(s.samples for s in info.splits.values()) == 8
    np.save(folder / "frame3.npy", images(1)[0, :1])
    assert "frame3.npy: has shape [1, 3], but input 'image' takes samples of [1, 2, 3]" in refusal(folder, tmp_path)
    np.save(folder / "frame3.npy", images(1, "float64")[0])
    assert "holds float64, other samples float32" in refusal(folder, tmp_path)


def onnx_sets(folder: Path, count: int, tensor: Callable[[int], onnx.TensorProto]) -> Path:
    for i in range(count):
        place = folder / f"test_data_set_{i}"
        place.mkdir(parents=True)
        (place / "input_0.pb").write_bytes(tensor(i).SerializeToString())
        (place / "output_0.pb").write_bytes(tensor(i).SerializeToString())
    return folder


def test_onnx_test_data_sets(tmp_path: Path) -> None:
    source = onnx_sets(tmp_path / "d", 12, lambda i: onnx.numpy_helper.from_array(images(12)[i : i + 1]))
    info = prepare(source, tmp_path)
    assert any("expected outputs" in n for n in info.notices)
    everything = np.concatenate([fed(tmp_path, split) for split in info.splits])
    assert {r.tobytes() for r in everything} == {r.tobytes() for r in images(12)}


def test_onnx_tensors_that_are_not_are_refused(tmp_path: Path) -> None:
    source = onnx_sets(tmp_path / "d", 4, lambda i: onnx.numpy_helper.from_array(images(4)[i : i + 1]))
    target = source / "test_data_set_2" / "input_0.pb"
    for content, expected in (
        (b"\xff" * 40, "is not an ONNX tensor"),
        (onnx.helper.make_tensor("x", onnx.TensorProto.STRING, [1], [b"a"]).SerializeToString(), "not plain numbers"),
        (
            onnx.TensorProto(data_location=1, data_type=1, dims=[6]).SerializeToString(),
            "keeps its data in another file",
        ),
        (onnx.TensorProto(data_type=1, dims=[2**40], raw_data=b"1234").SerializeToString(), "is not an ONNX tensor"),
        (onnx.numpy_helper.from_array(images(1, shape=(7,))).SerializeToString(), "has shape [1, 7]"),
    ):
        target.write_bytes(content)
        assert expected in refusal(source, tmp_path)
    target.unlink()
    assert "cannot be read" in refusal(source, tmp_path)


def test_bfloat16_of_a_protobuf_arrives_as_its_bits(tmp_path: Path) -> None:
    def tensor(i: int) -> onnx.TensorProto:
        bits = to_bfloat16(images(4)[i : i + 1])
        return onnx.helper.make_tensor("x", onnx.TensorProto.BFLOAT16, bits.shape, bits.tobytes(), raw=True)

    info = prepare(onnx_sets(tmp_path / "d", 4, tensor), tmp_path, TensorSpec("image", "bfloat16", (1, 2, 3)))
    everything = np.concatenate([fed(tmp_path, split) for split in info.splits])
    assert {r.tobytes() for r in everything} == {r.tobytes() for r in to_bfloat16(images(4))}


# ---------------------------------------------------------------------------------------------------- names, shapes, types


def test_names_must_be_the_inputs_own(tmp_path: Path) -> None:
    other = TensorSpec("mask", "float32", (1, 2, 3))
    line = refusal(npz(tmp_path / "a.npz", x=images(8)), tmp_path)
    assert "holds 'x', but the model's inputs are 'image'; rename it to 'image'" in line
    assert "no array for 'mask'" in refusal(npz(tmp_path / "b.npz", image=images(8)), tmp_path, IMAGE, other)
    extra = npz(tmp_path / "c.npz", image=images(8), imag=images(8))
    assert "'imag' is not an input to be fed; did you mean 'image'?" in refusal(extra, tmp_path)
    none = npz(tmp_path / "d.npz", p=images(8), q=images(8))
    assert "holds 'p', 'q', but the model's inputs are 'image', 'mask'" in refusal(none, tmp_path, IMAGE, other)


def test_wrong_shape_says_expected_and_got(tmp_path: Path) -> None:
    line = refusal(npz(tmp_path / "a.npz", image=images(8, shape=(3, 2))), tmp_path)
    assert "has shape [8, 3, 2], but input 'image' takes samples of [1, 2, 3]" in line


def test_inputs_of_different_lengths_are_refused(tmp_path: Path) -> None:
    other = TensorSpec("mask", "float32", (1, 2, 3))
    path = npz(tmp_path / "a.npz", image=images(8), mask=images(7))
    assert "has 7 samples, but 'image' has 8" in refusal(path, tmp_path, IMAGE, other)


def test_labels_of_the_wrong_length_are_refused(tmp_path: Path) -> None:
    assert "has 7 rows for 8 samples" in refusal(
        npz(tmp_path / "a.npz", image=images(8), labels=np.arange(7)), tmp_path
    )
    assert "single value" in refusal(npz(tmp_path / "b.npz", image=images(8), labels=np.int64(3)), tmp_path)
    endless = npz(tmp_path / "c.npz", image=images(8), labels=np.full(8, np.inf))
    assert "labels that are infinite" in refusal(endless, tmp_path)


def test_an_empty_set_is_refused(tmp_path: Path) -> None:
    assert "holds no samples" in refusal(npz(tmp_path / "a.npz", image=images(0)), tmp_path)
    (tmp_path / "empty").mkdir()
    assert "holds no data.toml, no .npy files" in refusal(tmp_path / "empty", tmp_path)
    assert "does not exist" in refusal(tmp_path / "gone", tmp_path)
    (tmp_path / "x.csv").write_text("1,2")
    assert "neither a folder nor an .npz" in refusal(tmp_path / "x.csv", tmp_path)


@pytest.mark.parametrize(
    ("stored", "wanted"),
    [
        ("uint8", "float32"),
        ("int64", "float32"),
        ("float32", "int64"),
        ("bool", "float32"),
        ("uint8", "bool"),
        ("bool", "uint8"),
    ],
)
def test_a_cast_that_may_change_the_meaning_is_refused(tmp_path: Path, stored: str, wanted: str) -> None:
    line = refusal(npz(tmp_path / "a.npz", image=images(8, stored)), tmp_path, TensorSpec("image", wanted, (1, 2, 3)))
    assert f"is {stored}, but input 'image' takes {wanted}" in line
    assert "scale" in line


@pytest.mark.parametrize(
    ("stored", "wanted"), [("float64", "float32"), ("float32", "float16"), ("int64", "int32"), ("float32", "bfloat16")]
)
def test_a_cast_within_a_kind_is_done_with_a_notice(tmp_path: Path, stored: str, wanted: str) -> None:
    info = prepare(npz(tmp_path / "a.npz", image=images(8, stored)), tmp_path, TensorSpec("image", wanted, (1, 2, 3)))
    assert f"'image' is stored as {stored} and fed as {wanted}" in info.notices
    assert fed(tmp_path, "selection").dtype == STORAGE[wanted]


@pytest.mark.parametrize("dtype", sorted(set(STORAGE) - {"bfloat16"}))
def test_every_type_is_fed_as_it_is_without_a_notice(tmp_path: Path, dtype: str) -> None:
    array = (
        images(8, dtype)
        if dtype != "bool"
        else np.unpackbits(np.arange(8, dtype=np.uint8)[:, None], axis=1)[:, 2:].astype(bool)
    )
    info = prepare(
        npz(tmp_path / "a.npz", image=array.reshape(8, 2, 3)), tmp_path, TensorSpec("image", dtype, (1, 2, 3))
    )
    assert not any("stored as" in n for n in info.notices)
    everything = np.concatenate([fed(tmp_path, split) for split in info.splits])
    assert {r.tobytes() for r in everything} == {r.tobytes() for r in array}


@pytest.mark.parametrize(
    ("value", "stored", "wanted", "expected"),
    [
        (np.nan, "float32", "float32", "is not finite"),
        (np.inf, "float32", "float32", "is not finite"),
        (1e39, "float64", "float32", "is too large for float32"),
        (1e5, "float32", "float16", "is too large for float16"),
        (3.4e38, "float32", "bfloat16", "is too large for bfloat16"),
        (2**31, "int64", "int32", "does not fit int32"),
        (-1, "int64", "uint8", "does not fit uint8"),
    ],
)
def test_a_value_the_model_cannot_hold_is_refused_with_its_sample(
    tmp_path: Path, value: float, stored: str, wanted: str, expected: str
) -> None:
    array = images(8, stored)
    array[5, 1, 1] = value
    line = refusal(npz(tmp_path / "a.npz", image=array), tmp_path, TensorSpec("image", wanted, (1, 2, 3)))
    assert f"sample 5 of input 'image' holds a value that {expected}" in line


def test_inputs_that_cannot_be_fed_are_refused(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz", image=images(8))
    assert "takes string, which edgekit can't feed" in refusal(path, tmp_path, TensorSpec("image", "string", (1, 2, 3)))
    assert "has an axis that is not fixed; fix it with --shape" in refusal(
        path, tmp_path, TensorSpec("image", "float32", ("n", 2, 3))
    )


@given(st.integers(0, 0x7F7F), st.sampled_from([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF]), st.sampled_from([0, 0x8000]))
def test_bfloat16_is_rounded_to_the_nearest_even(upper: int, lower: int, sign: int) -> None:
    value = np.array([(sign | upper) << 16 | lower], np.uint32).view(np.float32)
    up = lower > 0x8000 or (lower == 0x8000 and upper % 2 == 1)
    assert to_bfloat16(value).tolist() == [(sign | upper) + up]


# --------------------------------------------------------------------------------------------------------- hostile files


def test_a_fifo_is_refused_without_waiting(tmp_path: Path) -> None:
    source = declared(tmp_path / "d")
    (source / "selection.image.npy").unlink()
    os.mkfifo(source / "selection.image.npy")
    assert "is not a regular file" in refusal(source, tmp_path)
    os.mkfifo(tmp_path / "x.npz")
    assert "is not a regular file" in refusal(tmp_path / "x.npz", tmp_path)
    (source / "data.toml").unlink()
    os.mkfifo(source / "data.toml")
    assert "is not a regular file" in refusal(source, tmp_path)


class Bomb:
    """Unpickling this creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


def test_pickled_arrays_are_refused_and_never_run(tmp_path: Path) -> None:
    source = declared(tmp_path / "d")
    np.save(source / "selection.image.npy", np.array([Bomb(tmp_path / "ran")], dtype=object), allow_pickle=True)
    assert "holds pickled objects" in refusal(source, tmp_path)
    path = tmp_path / "a.npz"
    np.savez(path, image=np.array([Bomb(tmp_path / "ran")], dtype=object))
    assert "holds pickled objects" in refusal(path, tmp_path)
    assert not (tmp_path / "ran").exists()
    np.load(path, allow_pickle=True)["image"]  # the control: the pickle is live
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda b: b[:-1], "is truncated: 191 of 192 bytes"),
        (lambda b: b + b"x", "has 1 bytes more than its header says"),
        (lambda b: b[:40], "is not a .npy array"),
        (lambda b: b"", "is not a .npy array"),
        (lambda b: b"\x80\x04" + b[2:], "is not a .npy array"),
        (lambda b: b[:6] + b"\x02" + b[7:], "uses .npy format 2.0"),
        (lambda b: b.replace(b"(8,", b"(-8,").replace(b"   \n", b"  \n"), "has a negative dimension"),
        (lambda b: b.replace(b"<f4", b"<U4"), "not plain numbers"),
        (lambda b: b.replace(b"<f4", b"<c8"), "not plain numbers"),
        (lambda b: b.replace(b"(8, 2, 3)", b"(8, 2, 3").replace(b"\n", b" ", 0), "is not a .npy array"),
    ],
)
def test_broken_npy_files_are_refused(tmp_path: Path, change: Callable[[bytes], bytes], expected: str) -> None:
    source = declared(tmp_path / "d")
    path = source / "selection.image.npy"
    path.write_bytes(change(path.read_bytes()))
    assert expected in refusal(source, tmp_path)


@given(st.lists(st.tuples(st.integers(0, 140), st.integers(0, 255)), min_size=1, max_size=6))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_flipped_header_bytes_are_read_or_refused(tmp_path: Path, flips: list[tuple[int, int]]) -> None:
    buffer = io.BytesIO()
    np.save(buffer, images(8))
    data = bytearray(buffer.getvalue())
    for place, value in flips:
        data[place] = value
    path = tmp_path / "flipped.npy"
    path.write_bytes(data)
    try:
        stored = open_npy(path)
    except InputRejected:
        return
    assert stored.mapped().nbytes == len(data) - stored.offset


def test_an_npz_bomb_is_refused_by_its_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, image=np.zeros((1000, 1, 2, 300), np.float32))
    monkeypatch.setattr(arrays, "MAX_NPZ_BYTES", 2 << 20)
    assert path.stat().st_size < 10_000
    assert "would unpack to 1 arrays and 2 MiB" in refusal(path, tmp_path)
    assert not list(tmp_path.glob("feed*/*"))


def test_a_directory_that_lies_about_sizes_unpacks_no_more_than_it_says(tmp_path: Path) -> None:
    path = tmp_path / "lie.npz"
    np.savez_compressed(path, image=np.zeros((100_000, 2, 3), np.float32))
    data = path.read_bytes()
    real = struct.pack("<I", zipfile.ZipFile(path).infolist()[0].file_size)
    assert real in data
    path.write_bytes(data.replace(real, struct.pack("<I", 128 + 24)))
    with pytest.raises(InputRejected):
        open_npz(path, tmp_path)
    assert all(p.stat().st_size <= 152 for p in tmp_path.glob("*.npy"))


def zipped(path: Path, *members: tuple[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def test_zips_that_are_no_npz_are_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, images(8))
    good = buffer.getvalue()
    assert "members that are not arrays" in refusal(zipped(tmp_path / "a.npz", ("readme", b"x")), tmp_path)
    with pytest.warns(UserWarning, match="Duplicate name"):
        twice = zipped(tmp_path / "b.npz", ("image.npy", good), ("image.npy", good))
    assert "one name twice" in refusal(twice, tmp_path)
    assert "is truncated" in refusal(zipped(tmp_path / "c.npz", ("image.npy", good[:-4])), tmp_path)
    (tmp_path / "d.npz").write_bytes(b"PK rubbish")
    assert "is not a readable .npz" in refusal(tmp_path / "d.npz", tmp_path)
    flipped = zipped(tmp_path / "e.npz", ("image.npy", good))
    flipped.write_bytes(flipped.read_bytes().replace(good[-24:], b"\x01" * 24))
    assert "Bad CRC-32" in refusal(flipped, tmp_path)


def test_a_member_name_is_never_a_path(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, images(8))
    path = zipped(tmp_path / "a.npz", ("../../escaped.npy", buffer.getvalue()))
    assert "holds '../../escaped'" in refusal(path, tmp_path)
    assert not list(tmp_path.parent.rglob("escaped*"))


def test_names_with_control_characters_are_escaped(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, images(8))
    line = refusal(zipped(tmp_path / "a.npz", ("\x1b[31mred\n.npy", buffer.getvalue())), tmp_path)
    assert "\x1b" not in line
    assert "red" in line


# ------------------------------------------------------------------------------------------------- in the sandbox's child


def test_memory_stays_bounded_while_a_large_set_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    big = np.lib.format.open_memmap(folder / "image.npy", "w+", np.float32, (240, 256, 1024))
    for i in range(240):  # 240 MiB
        big[i] = i
    del big
    info = sandbox.call(
        "edgekit.data.read:prepare_data",
        returns=DataSetInfo,
        limits=sandbox.Limits(rss_bytes=180 << 20),
        source=folder,
        inputs=[TensorSpec("image", "float32", (256, 1024))],
        out=tmp_path / "out",
        samples=None,
    )
    assert [s.samples for s in info.splits.values()] == [60, 60, 120]
    (folder / "image.npy").unlink()


def test_a_refusal_arrives_from_the_child_as_it_was_raised(tmp_path: Path) -> None:
    with pytest.raises(InputRejected, match=r"holds 'x', but the model's inputs are 'image'; rename it to 'image'"):
        sandbox.call(
            "edgekit.data.read:prepare_data",
            returns=DataSetInfo,
            source=npz(tmp_path / "a.npz", x=images(8)),
            inputs=[IMAGE],
            out=tmp_path / "out",
            samples=None,
        )


# ------------------------------------------------------------------------------------------------------------- synthetic


def test_synthetic_data_say_so_and_have_no_calibration(tmp_path: Path) -> None:
    specs = [TensorSpec(name, name, (4, 50)) for name in STORAGE]
    info = synthetic_data(specs, tmp_path / "a", 20, seed=0)
    assert info.synthetic
    assert info.name == "synthetic"
    assert list(info.splits) == ["selection"]
    assert not info.labelled
    for i, spec in enumerate(specs):
        array = np.load(tmp_path / "a" / "selection" / f"{i}.npy", allow_pickle=False)
        assert array.shape == (20, 4, 50)
        assert array.dtype == STORAGE[spec.dtype]
        values = (
            (array.astype(np.uint32) << 16).view(np.float32) if spec.dtype == "bfloat16" else array.astype(np.float64)
        )
        if "float" in spec.dtype:
            assert abs(values.mean()) < 0.1
            assert values.std() == pytest.approx(1, abs=0.1)
        else:
            assert set(np.unique(values)) == {0, 1}


def test_synthetic_data_depend_on_the_seed_alone(tmp_path: Path) -> None:
    one, same, other = (synthetic_data([IMAGE], tmp_path / str(k), 8, seed) for k, seed in enumerate((1, 1, 2)))
    assert one.sha256 == same.sha256 != other.sha256


def test_synthetic_data_cannot_be_drawn_for_strings(tmp_path: Path) -> None:
    with pytest.raises(EdgekitError, match="can't feed"):
        synthetic_data([TensorSpec("s", "string", (1,))], tmp_path / "a", 2, seed=0)
