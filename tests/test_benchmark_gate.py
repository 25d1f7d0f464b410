"""The gate's benchmark: its slowed copy answers alike and is what it says, its bars are met and missed as they should be."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from benchmarks.gate import Ends, bars, row, slowed
from edgekit.core.checks import Status
from tests.conftest import SAMPLE


def test_a_slowed_copy_answers_alike_and_does_more(tmp_path: Path) -> None:
    slowed(SAMPLE / "model.onnx", tmp_path / "slow.onnx", 32, 7)
    onnx.checker.check_model(str(tmp_path / "slow.onnx"), full_check=True)
    feed = {"image": np.random.default_rng(0).standard_normal((1, 1, 28, 28)).astype(np.float32)}
    one, other = (
        ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        for path in (SAMPLE / "model.onnx", tmp_path / "slow.onnx")
    )
    assert [o.name for o in one.get_outputs()] == [o.name for o in other.get_outputs()]
    np.testing.assert_allclose(other.run(None, feed)[0], one.run(None, feed)[0], rtol=0, atol=1e-6)


def test_no_optimization_takes_the_added_work_away(tmp_path: Path) -> None:
    slowed(SAMPLE / "model.onnx", tmp_path / "slow.onnx", 32, 7)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    ort.InferenceSession(str(tmp_path / "slow.onnx"), options, providers=["CPUExecutionProvider"])
    kept = onnx.load(str(tmp_path / "optimized.onnx")).graph.node
    assert sum("slow." in name for node in kept if "MatMul" in node.op_type for name in node.output) >= 7


def ends(name: str, **counts: int) -> Ends:
    statuses = Counter({Status[key.upper()]: count for key, count in counts.items()})
    return Ends(name, name.endswith("equal"), statuses, (0.98, 1.0, 1.04), (21.0, 25.0, 64.0))


@pytest.mark.parametrize(
    ("end", "met"),
    [
        (ends("measured, equal", passed=19, undecided=1), True),
        (ends("measured, equal", passed=18, undecided=2), False),
        (ends("measured, slowed", failed=15, undecided=4, passed=1), True),
        (ends("measured, slowed", failed=18, passed=2), False),
        (ends("stored, equal", undecided=20), True),
        (ends("stored, equal", passed=18, failed=2), False),
        (ends("stored, slowed", undecided=19, passed=1), True),
        (ends("stored, slowed", undecided=18, passed=2), False),
    ],
)
def test_the_bars(end: Ends, met: bool) -> None:
    assert [ok for _, ok in bars([end])] == [met]


def test_a_row_counts_by_status() -> None:
    cells = row("digits", ends("measured, equal", passed=19, undecided=1))
    assert cells == ["digits", "measured, equal", "19", "0", "1", "1.000 (0.980 to 1.040)", "25 (64)"]
