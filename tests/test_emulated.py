"""Artifacts mean the same on other CPUs: the sample on an emulated ARM64 board, and an optimized graph on a lesser x86."""

import os
import shutil
import subprocess
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgekit import sandbox
from edgekit.core.recipes import RECIPES
from edgekit.core.types import BuildSpec, Built
from edgekit.devices.local import LocalDevice
from edgekit.engines.closure import native_library
from edgekit.flow.materials import Options, gather
from edgekit.flow.workshop import Materials, Workshop, builder_versions
from edgekit.resources import load_target
from edgekit.runner import ekrun_path
from edgekit.store import Cache
from tests.arm64_root import board_argv, default_cache, require_board
from tests.conftest import SAMPLE

SAMPLES = 4
VERSION = "1.32.0"


@pytest.fixture(scope="module")
def materials(tmp_path_factory: pytest.TempPathFactory) -> Materials:
    scratch = tmp_path_factory.mktemp("materials")
    shop = Workshop(Cache(scratch / "cache"), scratch, LocalDevice(), lambda _: None)
    return gather(shop, SAMPLE / "model.onnx", SAMPLE, Options())[1]


def build(recipe: str, materials: Materials, out: Path) -> Path:
    """The artifact of a recipe, by the numeric rules of a Raspberry Pi 5."""
    numeric = load_target("raspberry-pi-5", Path.cwd()).numeric
    spec = BuildSpec(materials.model_sha256, RECIPES[recipe], VERSION, builder_versions(), numeric)
    calibration = materials.data_folder / "calibration"
    built = sandbox.call(
        "edgekit.engines.build:build_artifact",
        returns=Built,
        spec=spec,
        original=materials.original,
        model=materials.model,
        calibration=calibration if spec.recipe.needs_calibration else None,
        out=out,
    )
    return out / built.files[0]


def answers(prefix: list[str], arch: str, cache: Path, model: Path, materials: Materials, out: Path) -> np.ndarray:
    """The sample's logits over SAMPLES digits by ekrun for `arch`, started through `prefix`."""
    library = native_library("onnxruntime", VERSION, arch, cache).library
    feeds = materials.feeds("selection")
    argv = [
        *prefix,
        str(ekrun_path(arch)),
        "run",
        "--engine",
        "onnxruntime",
        "--lib",
        str(library),
        "--model",
        str(model),
    ]
    argv += ["--threads", "1", "--samples", str(SAMPLES), "--out", str(out)]
    for name, path in feeds.inputs.items():
        argv += ["--input", f"{name}={path}"]
    out.mkdir()
    done = subprocess.run(argv, capture_output=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr.decode()
    emulated = msgspec.json.decode(done.stdout.splitlines()[-1])["emulated"]
    assert emulated == bool(prefix)
    return np.load(out / "0.npy", allow_pickle=False)


@pytest.mark.board
@pytest.mark.parametrize("core", ["cortex-a53", "cortex-a76"])
@pytest.mark.parametrize("recipe", ["ort-fp32", "ort-fp32-opt", "ort-int8"])
def test_the_sample_on_an_emulated_arm64_board(tmp_path: Path, materials: Materials, recipe: str, core: str) -> None:
    """fp32 within 1e-5 of x86; int8, the whole graph QDQ, bit for bit."""
    require_board()
    cache = default_cache()
    model = build(recipe, materials, tmp_path / "artifact")
    here = answers([], "x86_64", cache, model, materials, tmp_path / "x86")
    there = answers(board_argv(cache, core), "aarch64", cache, model, materials, tmp_path / "arm")
    assert np.argmax(here, -1).tolist() == np.argmax(there, -1).tolist()
    if recipe == "ort-int8":
        assert np.array_equal(here, there)
    else:
        np.testing.assert_allclose(there, here, rtol=1e-5, atol=1e-5 * float(np.abs(here).max()))


@pytest.fixture
def haswell() -> list[str]:
    """The start of a command on an emulated CPU with AVX2 and no AVX-512."""
    qemu = shutil.which("qemu-x86_64-static")
    if qemu is not None:
        return [qemu, "-cpu", "Haswell"]
    if os.environ.get("EDGEKIT_REQUIRE_BOARD") == "1":
        pytest.fail("qemu-x86_64-static is missing")
    pytest.skip("qemu-x86_64-static is missing")


@pytest.mark.board
def test_an_artifact_built_here_gives_the_same_answers_on_a_lesser_x86(
    tmp_path: Path, materials: Materials, haswell: list[str]
) -> None:
    model = build("ort-fp32-opt", materials, tmp_path / "artifact")
    here = answers([], "x86_64", default_cache(), model, materials, tmp_path / "here")
    there = answers(haswell, "x86_64", default_cache(), model, materials, tmp_path / "there")
    np.testing.assert_allclose(there, here, rtol=1e-5, atol=1e-5 * float(np.abs(here).max()))


@pytest.mark.board
def test_a_graph_saved_with_this_hosts_layout_does_not(
    tmp_path: Path, materials: Materials, haswell: list[str]
) -> None:
    """Negative control: what ONNX Runtime saves at ALL on an AVX-512 host is wrong on a lesser one, without a word."""
    if "avx512f" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this host has no AVX-512: its own layout is the lesser CPU's")
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = str(tmp_path / "all.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(materials.model, options, providers=["CPUExecutionProvider"])
    here = answers([], "x86_64", default_cache(), tmp_path / "all.onnx", materials, tmp_path / "here")
    there = answers(haswell, "x86_64", default_cache(), tmp_path / "all.onnx", materials, tmp_path / "there")
    assert not np.allclose(there, here, rtol=1e-2, atol=1e-2)
