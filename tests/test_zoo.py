"""The benchmark zoo's pure helpers: splits, data.toml, pinning, and each family's labels and features."""

import tomllib

import numpy as np
import onnx
import onnx.helper
import pytest

from benchmarks.zoo import fetch, magika, silero_vad, swift_f0
from benchmarks.zoo.dataset import SPLITS, Case, Input, cuts, toml, write
from edgekit.data.manifest import read_manifest
from edgekit.errors import VerificationFailed


def case(**changes):
    rows = np.arange(6, dtype=np.uint8).reshape(6, 1)
    fields = {
        "name": "tiny", "summary": 'says "hi"', "license": "CC0-1.0", "source": "made here", "metric": "top-1", "model": b"onnx",
        "inputs": {"input:0": Input(rows, scale=0.5, offset=-1.0)}, "sizes": (1, 2, 3), "labels": np.arange(6),
    }  # fmt: skip
    return Case(**{**fields, **changes})


def test_cuts_are_consecutive_and_cover_everything():
    assert [list(range(6))[cut] for cut in cuts((1, 2, 3))] == [[0], [1, 2], [3, 4, 5]]


def test_a_written_case_reads_back(tmp_path):
    options = {"threshold": 0.3, "output": "y:1"}
    starts = np.array([1, 1, 0, 1, 0, 0], np.uint8)
    write(case(starts=starts, state={"h:1": "h"}, shapes=["x:1x3"], metric_options=options), tmp_path)
    declared = tomllib.loads((tmp_path / "data" / "data.toml").read_text())
    assert declared["metric_options"] == options
    assert read_manifest(tmp_path / "data").metric_options == options
    assert declared["summary"] == 'says "hi"'
    assert declared["state"] == {"h:1": "h"}
    assert declared["inputs"]["input:0"] == {"dtype": "float32", "scale": 0.5, "offset": -1.0}
    rows, labels, firsts = [], [], []
    for split in SPLITS:
        entry = declared["splits"][split]
        rows.append(np.load(tmp_path / "data" / entry["files"]["input:0"]))
        labels.append(np.load(tmp_path / "data" / entry["labels"]))
        firsts.append(np.load(tmp_path / "data" / entry["sequences"]))
        assert len(rows[-1]) == entry["samples"]
    assert np.concatenate(rows).ravel().tolist() == np.concatenate(labels).tolist() == [0, 1, 2, 3, 4, 5]
    assert np.concatenate(firsts).tolist() == [1, 1, 0, 1, 0, 0]
    assert tomllib.loads((tmp_path / "args.toml").read_text()) == {"shape": ["x:1x3"], "max_drop": 0.01}


def test_options_that_are_not_given_are_not_written(tmp_path):
    write(case(), tmp_path)
    assert "metric_options" not in (tmp_path / "data" / "data.toml").read_text()


@pytest.mark.parametrize("changes", [{"sizes": (1, 2, 4)}, {"labels": np.arange(5)}])
def test_rows_must_match_the_splits(tmp_path, changes):
    with pytest.raises(ValueError, match="rows"):
        write(case(**changes), tmp_path)


def test_toml_quotes_keys_and_keeps_values():
    table = {"a b": 'q"\\', "t": {"x:0": [1, 2.5, True]}, "é": "ü"}
    assert tomllib.loads(toml(table)) == table


def test_a_pinned_file_must_have_its_digest():
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert fetch.pinned(b"", empty, "x") == b""
    with pytest.raises(VerificationFailed, match="sha256"):
        fetch.pinned(b"\0", empty, "x")


def test_magika_features_strip_and_pad():
    tokens = magika.features(b"\n  abcdefgh  ", b"\n  abcdefgh  ")
    assert tokens.shape == (2048,)
    assert bytes(tokens[:10].astype(np.uint8)) == b"abcdefgh  "
    assert tokens[10] == tokens[1024] == 256
    assert bytes(tokens[-8:].astype(np.uint8)) == b"abcdefgh"
    assert magika.features(b"  short ", b"  short ") is None


def test_magika_samples_are_balanced():
    samples = [(label, np.zeros(1)) for label in "aaab"]
    assert [label for label, _ in magika.balanced(samples, 2)] == ["a", "b", "a"]


def test_vad_labels_follow_energy_and_close_short_dips():
    loudness = np.array([0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 1, 1e-3])
    clean = np.repeat(loudness, silero_vad.CHUNK)
    assert silero_vad.speech_frames(clean).tolist() == [0, 1, 1, 1, 1, 1, 0, 0, 0, 0, 1, 0]


def test_vad_frames_carry_the_end_of_the_chunk_before():
    frames = silero_vad.framed(np.arange(3 * silero_vad.CHUNK) + 1.0)
    assert frames.shape == (3, silero_vad.CONTEXT + silero_vad.CHUNK)
    assert not frames[0, : silero_vad.CONTEXT].any()
    assert np.array_equal(frames[1, : silero_vad.CONTEXT], frames[0, -silero_vad.CONTEXT :])


def test_doubling_the_rate_keeps_a_sine():
    seconds = np.arange(800) / 8000
    doubled = silero_vad.doubled_rate(np.sin(2 * np.pi * 500 * seconds))
    assert np.abs(doubled - np.sin(2 * np.pi * 500 * np.arange(1600) / 16000)).max() < 1e-9


def test_pitch_curves_are_seeded_and_in_the_models_band():
    first, again, other = (swift_f0.pitch_curve(np.random.default_rng(seed), 16000) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert swift_f0.LOWEST_HZ < first.min() < first.max() < swift_f0.HIGHEST_HZ


def test_ctc_labels_follow_the_models_own_characters():
    pytest.importorskip("PIL", reason="text is rendered with Pillow, of the bench extra")
    from benchmarks.zoo.rapidocr import charset, ctc_label

    model = onnx.ModelProto()
    onnx.helper.set_model_props(model, {"character": "a\nb"})
    classes = charset(model.SerializeToString())
    assert classes == {"a": 1, "b": 2, " ": 3}
    assert ctc_label("a b", classes, 5).tolist() == [1, 3, 2, -1, -1]
    with pytest.raises(KeyError):
        ctc_label("c", classes, 5)


@pytest.mark.parametrize("width", [7, 300])
def test_thirds_of_a_photograph_are_its_pixels_each_once(width):
    pytest.importorskip("PIL", reason="photographs are read with Pillow, of the bench extra")
    from PIL import Image

    from benchmarks.zoo.opennsfw import third

    columns = np.arange(2 * width).reshape(2, width).astype(np.int32)
    found = [np.asarray(third(Image.fromarray(columns), which)) for which in range(3)]
    np.testing.assert_array_equal(np.concatenate(found, axis=1), columns)
    np.testing.assert_array_equal(np.asarray(third(Image.fromarray(columns), 4)), found[1])


def test_labels_above_the_median_are_half_of_each_split():
    pytest.importorskip("PIL", reason="photographs are read with Pillow, of the bench extra")
    from benchmarks.zoo.opennsfw import above_median

    labels = above_median(np.array([5.0, 1, 3, 4, 0.1, 0.4, 0.2, 0.3]), (4, 4))
    assert labels.tolist() == [1, 0, 0, 1, 0, 1, 0, 1]
