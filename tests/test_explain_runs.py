"""`edgekit explain` on real runs of three models, each with a request that can be met and one that cannot."""

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import onnx
import pytest

from edgekit.core.explain.explanation import Explanation
from tests import hostile
from tests.conftest import SAMPLE, Cli, thorough
from tests.ekrun_tools import conv_model
from tests.explained import assert_founded

pytestmark = pytest.mark.long

# Fewer candidates, fewer seconds.
FEW = ("--forbid", "ort-int8-conv", "--forbid", "fp16", "--forbid", "ov-int8-weights", "--forbid", "int4-weights")


def sample(folder: Path) -> tuple[object, ...]:
    return (SAMPLE / "model.onnx", "--data", SAMPLE)


def convolution(folder: Path) -> tuple[object, ...]:
    return (conv_model(folder / "conv.onnx"),)


def matrix(folder: Path) -> tuple[object, ...]:
    onnx.save(hostile.linear(), folder / "linear.onnx")
    return (folder / "linear.onnx",)


@thorough
@pytest.mark.parametrize("subject", [sample, convolution, matrix])
@pytest.mark.parametrize(("asked", "code"), [((), 0), (("--max-memory", "8MiB"), 3)])
def test_every_figure_of_a_real_run_is_found_in_its_run_json(
    edgekit: Cli, tmp_path: Path, subject: Callable[[Path], tuple[object, ...]], asked: tuple[str, ...], code: int
) -> None:
    run = tmp_path / "run"
    assert edgekit("optimize", *subject(tmp_path), "-o", run, *FEW, *asked).code == code
    ended = edgekit("explain", run, "--json")
    assert (ended.code, ended.err) == (0, "")
    told = msgspec.convert(json.loads(ended.out)["explanation"], Explanation)
    assert_founded(json.loads((run / "run.json").read_text()), told)
    first, second = (sentence.text for sentence in told.sentences[:2])
    if code:
        assert first.startswith(
            "Binding requirement: peak memory of at most 8 MiB. No candidate meets it whatever else is given up"
        )
        assert (
            second.startswith("Nothing fits. Nearest is ") and "The smallest step that helps is --max-memory " in second
        )
    else:
        assert first.startswith("Binding requirement: ") and second.startswith("Chosen: ")
