"""Artifacts mean the same on other CPUs: the sample on emulated ARM64 boards, and an optimized graph on a lesser x86."""

from contextlib import closing
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgekit.core.recipes import RECIPES, reads_histograms, run_config
from edgekit.core.types import BuildSpec, Candidate, ModelInfo
from edgekit.devices.base import Device
from edgekit.devices.local import LocalDevice
from edgekit.devices.ssh import SshDevice
from edgekit.engines.closure import native_library
from edgekit.flow.calibrate import DEFAULT, HISTOGRAMS, calibrated, flat
from edgekit.flow.materials import Options, gather
from edgekit.flow.workshop import Materials, Workshop, builder_versions
from edgekit.resources import load_target
from edgekit.store import Cache
from tests.board import default_cache, emulated, ssh_board
from tests.conftest import SAMPLE

SAMPLES = 4
Place = tuple[Workshop, ModelInfo, Materials]
VERSIONS = {"onnxruntime": "1.32.0", "openvino": "2026.4.1"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    scratch = tmp_path_factory.mktemp("materials")
    shop = Workshop(Cache(scratch / "cache"), scratch, LocalDevice(), lambda _: None)
    return shop, *gather(shop, SAMPLE / "model.onnx", SAMPLE, Options())


@pytest.fixture(scope="module")
def materials(place: Place) -> Materials:
    return place[2]


def build(recipe: str, place: Place) -> list[Path]:
    """The files of a recipe's artifact, the model first, by the numeric rules of a Raspberry Pi 5."""
    shop, info, materials = place
    numeric = load_target("raspberry-pi-5", Path.cwd()).numeric
    made = RECIPES[recipe]
    spec = BuildSpec(materials.model_sha256, made, VERSIONS[made.engine], builder_versions(), numeric)
    read = (None, None)
    if reads_histograms(made):
        read = (flat(shop, info, materials)[0] / "flat.onnx", calibrated(shop, info, materials)[0] / HISTOGRAMS)
    folder, artifact = shop.build(Candidate(spec, run_config(recipe, 1)), materials, DEFAULT, *read)
    return [folder / file.path for file in artifact.files]


def answers(device: Device, files: list[Path], materials: Materials, out: Path) -> np.ndarray:
    """The sample's logits over SAMPLES digits by ekrun on `device`, through the port."""
    engine = "openvino" if files[0].suffix == ".xml" else "onnxruntime"
    closure = native_library(engine, VERSIONS[engine], device.arch, default_cache())
    argv = ["run", "--engine", engine, "--lib", put(device, closure.library, *closure.files)]
    argv += ["--model", put(device, *files), "--threads", "1", "--samples", str(SAMPLES)]
    for name, path in materials.feeds("selection").inputs.items():
        argv += ["--input", f"{name}={put(device, path)}"]
    with device.scratch() as there:
        done = device.run([*argv, "--out", there], deadline_s=240.0)
        assert done.returncode == 0, done.stderr.decode()
        assert msgspec.json.decode(done.stdout.splitlines()[-1])["emulated"] == (device.name != "local")
        device.get(f"{there}/0.npy", out)
    return np.load(out, allow_pickle=False)


def put(device: Device, *files: Path) -> str:
    """Where the first of `files` lies on the device, with the others beside it."""
    return f"{device.put({path.name: path for path in files})}/{files[0].name}"


@pytest.mark.board
@pytest.mark.parametrize("target", ["cpu-arm", "raspberry-pi-5"])
@pytest.mark.parametrize("recipe", ["ort-fp32", "ort-fp32-opt", "ort-int8"])
def test_the_sample_on_an_emulated_arm64_board(
    tmp_path: Path, place: Place, materials: Materials, recipe: str, target: str
) -> None:
    """fp32 within 1e-5 of x86; int8, the whole graph QDQ, bit for bit."""
    model = build(recipe, place)
    here = answers(LocalDevice(), model, materials, tmp_path / "here.npy")
    with closing(emulated(target)) as board:
        there = answers(board, model, materials, tmp_path / "there.npy")
    assert np.argmax(here, -1).tolist() == np.argmax(there, -1).tolist()
    if recipe == "ort-int8":
        assert np.array_equal(here, there)
    else:
        np.testing.assert_allclose(there, here, rtol=1e-5, atol=1e-5 * float(np.abs(here).max()))


@pytest.mark.board
def test_openvino_on_an_emulated_arm64_board(tmp_path: Path, place: Place, materials: Materials) -> None:
    """In fp32 only: with qemu 7.2 its int8 does not start on an Armv8.0 core, and is off by too much on a later one."""
    model = build("ov-f32", place)
    here = answers(LocalDevice(), model, materials, tmp_path / "here.npy")
    with closing(emulated("raspberry-pi-4")) as board:
        there = answers(board, model, materials, tmp_path / "there.npy")
    np.testing.assert_allclose(there, here, rtol=1e-5, atol=1e-5 * float(np.abs(here).max()))


@pytest.mark.board
def test_the_sample_on_an_arm64_board_over_ssh(tmp_path: Path, place: Place, materials: Materials) -> None:
    """On a board without Python or sftp: what the host says, by the same port."""
    with ssh_board("dropbear", tmp_path) as board:
        with closing(SshDevice(board.url(), ssh_config=board.client.config)) as device:
            for recipe in ("ort-fp32", "ort-int8"):
                model = build(recipe, place)
                here = answers(LocalDevice(), model, materials, tmp_path / "here.npy")
                there = answers(device, model, materials, tmp_path / "there.npy")
                assert np.argmax(here, -1).tolist() == np.argmax(there, -1).tolist()
                assert recipe != "ort-int8" or np.array_equal(here, there)
        assert not board.running("ekrun")


@pytest.mark.board
def test_an_artifact_built_here_gives_the_same_answers_on_a_lesser_x86(
    tmp_path: Path, place: Place, materials: Materials
) -> None:
    model = build("ort-fp32-opt", place)
    here = answers(LocalDevice(), model, materials, tmp_path / "here.npy")
    with closing(emulated("intel-n100")) as haswell:
        there = answers(haswell, model, materials, tmp_path / "there.npy")
    np.testing.assert_allclose(there, here, rtol=1e-5, atol=1e-5 * float(np.abs(here).max()))


@pytest.mark.board
def test_a_graph_saved_with_this_hosts_layout_does_not(tmp_path: Path, materials: Materials) -> None:
    """Negative control: what ONNX Runtime saves at ALL on an AVX-512 host is wrong on a lesser one, without a word."""
    if "avx512f" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this host has no AVX-512: its own layout is the lesser CPU's")
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = str(tmp_path / "all.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(materials.model, options, providers=["CPUExecutionProvider"])
    here = answers(LocalDevice(), [tmp_path / "all.onnx"], materials, tmp_path / "here.npy")
    with closing(emulated("intel-n100")) as haswell:
        there = answers(haswell, [tmp_path / "all.onnx"], materials, tmp_path / "there.npy")
    assert not np.allclose(there, here, rtol=1e-2, atol=1e-2)
