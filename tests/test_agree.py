"""Agreement without labels: of a device with this host, which must be able to fail, and of a candidate with the reference."""

from pathlib import Path

import numpy as np
import pytest

from edgekit.core.accuracy import Agreement, MetricOptions, OutputSet
from edgekit.core.results import Proof
from edgekit.data.agree import agree
from edgekit.data.score import score
from edgekit.errors import InputRejected
from edgekit.flow.prove import fault_in
from tests.records import accuracy

RNG = np.random.default_rng(0)
SCORES = RNG.normal(size=(100, 10)).astype(np.float32)
VALUES = (np.arange(100, dtype=np.float32) + 37).reshape(100, 1)


def outputs(folder: Path, array: np.ndarray) -> OutputSet:
    folder.mkdir()
    np.save(folder / "0.npy", array)
    return OutputSet(("y",), (str(array.dtype),), (folder / "0.npy",), (None,))


def compared(tmp_path: Path, there: np.ndarray, here: np.ndarray) -> Agreement:
    return agree(outputs(tmp_path / "there", there), outputs(tmp_path / "here", here))


def fault(agreement: Agreement) -> str:
    return fault_in(Proof("board", True, "evaluation", agreement, None), 0.01)


@pytest.mark.parametrize("here", [SCORES, VALUES, SCORES.argmax(1), SCORES > 0])
def test_equal_answers_are_equal_bit_for_bit(tmp_path: Path, here: np.ndarray) -> None:
    found = compared(tmp_path, here.copy(), here)
    assert (found.identical, found.flipped, found.nonfinite, found.max_abs_diff) == (100, 0, 0, 0.0)
    assert not fault(found)


def test_rounding_is_no_fault_and_is_told(tmp_path: Path) -> None:
    found = compared(tmp_path, SCORES * np.float32(1 + 1e-6), SCORES)
    assert found.identical < 100
    assert 0 < found.max_abs_diff < 1e-5
    assert not fault(found)


@pytest.mark.parametrize(
    ("there", "here"),
    [
        (np.full_like(VALUES, np.nan), VALUES),
        (np.full_like(SCORES, np.nan), np.eye(10, dtype=np.float32)[np.zeros(100, dtype=int)]),
        (np.where(np.arange(100)[:, None] == 3, np.float32(np.inf), VALUES), VALUES),
        (VALUES + 963, VALUES),
        (SCORES[:, :5], SCORES),
        (np.roll(SCORES, 1, axis=1), SCORES),
        (SCORES.argmax(1) + 1, SCORES.argmax(1)),
    ],
)
def test_wrong_answers_are_a_fault(tmp_path: Path, there: np.ndarray, here: np.ndarray) -> None:
    assert fault(compared(tmp_path, there, here))


def test_one_flip_is_forgiven_only_among_many(tmp_path: Path) -> None:
    there = SCORES.copy()
    there[0] = -there[0]
    for name in ("many", "few"):
        (tmp_path / name).mkdir()
    assert not fault(compared(tmp_path / "many", there, SCORES))
    assert fault(compared(tmp_path / "few", there[:1], SCORES[:1]))


def test_what_is_no_answer_of_the_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputRejected, match="float64 there"):
        compared(tmp_path, SCORES.astype(np.float64), SCORES)


def test_the_accuracy_of_its_own_answers_counts(tmp_path: Path) -> None:
    same = Agreement(100, 100, 100, 0, 0, 0.0)
    assert not fault_in(Proof("board", False, "evaluation", same, accuracy(0.0)), 0.01)
    assert fault_in(Proof("board", False, "evaluation", same, accuracy(0.5)), 0.01)


# ------------------------------------------------------------------------------- a candidate's own decisions, without labels


@pytest.mark.parametrize(("metric", "both", "either"), [("iou", 6, 8), ("f1", 12, 14)])
def test_without_labels_the_references_thresholded_output_is_the_truth(
    tmp_path: Path, metric: str, both: int, either: int
) -> None:
    here = np.zeros((40, 1, 4, 5), np.float32)
    here[:7, 0, 0, 0] = 0.9
    there = here.copy()
    there[0] = 0.1  # one of seven is lost
    there[20, 0, 3, 3] = 0.4  # one is found besides
    own, base = outputs(tmp_path / "there", there), outputs(tmp_path / "here", here)
    a = score(own, base, metric, "selection", options=MetricOptions(threshold=0.3))
    assert (a.kind, a.reference_value, a.direction) == ("agreement", 1.0, "higher")
    assert a.value == pytest.approx(both / either)
    assert a.ci_low < a.drop < a.ci_high
    below = score(own, base, metric, "selection", options=MetricOptions(threshold=0.5))
    assert below.value > a.value  # the control: the threshold is heeded
    same = score(base, base, metric, "selection")
    assert (same.drop, same.value) == (0.0, 1.0)
    assert same.ci_high > 0


def test_with_labels_it_is_the_task(tmp_path: Path) -> None:
    y = outputs(tmp_path / "y", (RNG.random((30, 8)) > 0.5).astype(np.float32))
    np.save(tmp_path / "labels.npy", np.ones((30, 8), np.uint8))
    a = score(y, y, "f1", "selection", labels=tmp_path / "labels.npy")
    assert a.kind == "task"
    assert 0 < a.reference_value < 1


def test_an_error_rate_that_grows_is_a_drop(tmp_path: Path) -> None:
    written = np.tile(np.arange(1, 6), (50, 1))
    np.save(tmp_path / "labels.npy", written)
    wrong = written.copy()
    wrong[:5, 0] = 9
    own, base = outputs(tmp_path / "own", wrong), outputs(tmp_path / "base", written)
    a = score(own, base, "cer", "selection", labels=tmp_path / "labels.npy")
    assert (a.reference_value, a.value, a.drop, a.direction, a.unit) == (0, 0.02, 0.02, "lower", "fraction")
    assert score(base, own, "cer", "selection", labels=tmp_path / "labels.npy").drop == -0.02
    with pytest.raises(InputRejected, match="no label has a symbol"):
        np.save(tmp_path / "none.npy", np.full((50, 5), -1))
        score(own, base, "cer", "selection", labels=tmp_path / "none.npy")


def test_a_difference_in_the_outputs_own_unit_is_no_collapse(tmp_path: Path) -> None:
    own, base = outputs(tmp_path / "own", 100 * VALUES + 3), outputs(tmp_path / "base", 100 * VALUES)
    a = score(own, base, "max-abs", "selection")
    assert (a.drop, a.unit, a.collapsed) == (3.0, "output value", False)
