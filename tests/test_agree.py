"""The proof on a device must be able to fail: every way its answers can be wrong, and what is no fault."""

from pathlib import Path

import numpy as np
import pytest

from edgekit.core.accuracy import Agreement, OutputSet
from edgekit.core.results import Proof
from edgekit.data.agree import agree
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
