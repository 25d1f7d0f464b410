"""Metrics, the user's own metric, and scores with their interval and verdicts."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import edgekit
from edgekit import sandbox
from edgekit.core.accuracy import Accuracy, MetricOptions, OutputSet, feasible, is_equivalent
from edgekit.core.stats import paired_difference_interval
from edgekit.data.feed import to_bfloat16
from edgekit.data.metrics import METRICS, apply_metric, find_metric, load_metric, noise_and_signal, similarity
from edgekit.data.score import score
from edgekit.errors import InputRejected

RNG = np.random.default_rng(0)
PLAIN = MetricOptions()


def scored(
    name: str,
    outputs: dict[str, np.ndarray],
    labels: np.ndarray | None = None,
    reference: dict[str, np.ndarray] | None = None,
    options: MetricOptions = PLAIN,
) -> list:
    """Scores a sample, [n] lists."""
    found = apply_metric(METRICS[name], outputs, reference or outputs, labels, options)
    return np.nanmean(found, axis=1).tolist()


# -------------------------------------------------------------------------------------------------------------- metrics


def test_every_metric_stands_under_its_own_name_with_a_source() -> None:
    assert all(name == m.name and m.source and m.form.function.__doc__ for name, m in METRICS.items())


def test_top_1_and_top_5() -> None:
    scores = np.array([[0, 1, 2, 3, 4, 5, 6.0]] * 3, np.float32)
    labels = np.array([6, 2, 1])
    assert scored("top-1", {"y": scores}, labels) == [1, 0, 0]
    assert scored("top-5", {"y": scores}, labels) == [1, 1, 0]
    assert scored("top-1", {"y": scores[:, None, :]}, labels[:, None]) == [1, 0, 0]


@given(hnp.arrays(np.float32, (5, 6), elements=st.integers(-2, 2)), hnp.arrays(np.int64, 5, elements=st.integers(0, 5)))
def test_top_1_is_argmax_also_on_ties(scores: np.ndarray, labels: np.ndarray) -> None:
    assert scored("top-1", {"y": scores}, labels) == (scores.argmax(axis=1) == labels).tolist()


def test_top_1_scores_each_position_and_skips_outputs_without_classes() -> None:
    outputs = {
        "id": np.array([3, 3]),
        "score": np.ones((2, 1), np.float32),
        "y": np.eye(3, dtype=np.float32)[[[0, 1], [2, 0]]],
    }
    assert scored("top-1", outputs, np.array([[0, 1], [2, 2]])) == [1.0, 0.5]


def test_an_output_that_is_not_a_number_is_a_wrong_answer() -> None:
    nan = np.full((2, 3), np.nan, np.float32)
    assert scored("top-1", {"y": nan}, np.array([0, 0])) == [0, 0]
    assert scored("top-1-agreement", {"y": nan}, reference={"y": np.ones((2, 3), np.float32)}) == [0, 0]
    assert scored("binary-accuracy", {"y": nan}, np.zeros((2, 3))) == [0, 0]


@pytest.mark.parametrize(
    ("name", "output", "labels", "expected"),
    [
        ("top-1", np.eye(3, dtype=np.float32), np.array([0, 1, 3]), "labels lie outside 0..2"),
        ("top-1", np.eye(3, dtype=np.float32), np.zeros((3, 2)), "labels have shape [3, 2]"),
        ("top-1", np.eye(3, dtype=np.int64), np.zeros(3), "needs an output with one score a class"),
        ("top-1", np.eye(3, dtype=np.float32), None, "needs labels"),
        ("binary-accuracy", np.ones((3, 1), np.float32), np.array([0, 1, 2]), "must be 0 or 1"),
        ("binary-accuracy", np.ones((3, 1), np.int64), np.zeros(3), "needs a float output"),
        ("sqnr", np.ones((3, 2), np.int64), None, "needs a float output"),
    ],
)
def test_labels_or_outputs_that_do_not_fit_are_refused(
    name: str, output: np.ndarray, labels: np.ndarray | None, expected: str
) -> None:
    with pytest.raises(InputRejected) as caught:
        scored(name, {"y": output}, labels)
    assert expected in str(caught.value)
    assert f"metric {name}" in str(caught.value)


def test_top_1_agreement_is_with_the_reference() -> None:
    own, other = np.eye(3, dtype=np.float32)[[0, 1, 2]], np.eye(3, dtype=np.float32)[[0, 1, 1]]
    assert scored("top-1-agreement", {"y": own}, reference={"y": other}) == [1, 1, 0]


def test_ctc_collapses_repeats_before_blanks() -> None:
    path = np.array([[0, 3, 3, 0, 3, 5, 5], [3, 3, 3, 3, 3, 5, 5]])
    outputs = {"y": np.eye(6, dtype=np.float32)[path]}
    assert scored("ctc-exact-match", outputs, np.array([[3, 3, 5, -1], [3, 3, 5, -1]])) == [1, 0]
    assert scored("ctc-exact-match", outputs, np.array([[3, 3, 5, 5], [3, 5, -1, -1]])) == [0, 1]


def test_binary_accuracy() -> None:
    probabilities = {"p": np.array([[[0.5]], [[0.49]], [[0.9]]], np.float32), "state": np.ones((3, 4), np.float32)}
    assert scored("binary-accuracy", probabilities, np.array([1, 1, 0])) == [1, 0, 0]


def test_pitch_within_50_cents_of_voiced_frames() -> None:
    cents = np.array([[49.0, -51.0, 0.0, 0.0]])
    pitch = 440 * 2 ** (cents / 1200)
    outputs = {"confidence": np.ones((1, 4), np.float32), "pitch_hz": pitch.astype(np.float32)}
    assert scored("pitch-50-cents", outputs, np.array([[440, 440, 0, np.nan]])) == [0.5]
    silent = {"pitch_hz": np.zeros((1, 4), np.float32)}
    assert scored("pitch-50-cents", silent, np.array([[440, 440, 0, np.nan]])) == [0.0]


# --------------------------------------------------------------------------------------------------- likeness of outputs

vectors = hnp.arrays(np.float64, (4, 5), elements=st.floats(-1e150, 1e150))


@given(vectors, vectors)
def test_similarity_is_bounded_symmetric_and_one_with_itself(a: np.ndarray, b: np.ndarray) -> None:
    value = similarity(a, b)
    assert ((value >= -1) & (value <= 1)).all()
    np.testing.assert_allclose(value, similarity(b, a), atol=1e-12)
    assert (similarity(a, a) == 1).all()


@given(hnp.arrays(np.float64, (3, 4), elements=st.floats(-100, 100)), st.floats(0.01, 100))
def test_similarity_is_the_cosine_and_blind_to_scale(a: np.ndarray, k: float) -> None:
    b = np.roll(a, 1, axis=1) + 1
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    usable = norms > 1e-6
    np.testing.assert_allclose(
        similarity(a * k, b)[usable], ((a * b).sum(axis=1) / np.where(usable, norms, 1))[usable], atol=1e-6
    )


def test_similarity_of_zeros_integers_and_shapes() -> None:
    zero, one = np.zeros((1, 3)), np.ones((1, 3))
    assert similarity(zero, zero) == [1]
    assert similarity(zero, one) == [0]
    assert similarity(np.array([[1, 2, 3, 4]]), np.array([[1, 2, 3, 0]])) == [0.75]
    assert similarity(np.zeros((1, 0), np.int64), np.zeros((1, 0), np.int64)) == [1]
    assert similarity(np.zeros((1, 0)), np.zeros((1, 0))) == [1]
    assert similarity(np.ones((1, 2)), np.ones((1, 3))) == [0]


def test_values_that_are_not_finite_must_be_the_same() -> None:
    reference = np.array([[1.0, np.inf, np.nan]])
    assert similarity(np.array([[2.0, np.inf, np.nan]]), reference) == [1]
    assert similarity(np.array([[1.0, -np.inf, np.nan]]), reference) == [0]
    assert similarity(np.array([[np.nan, np.inf, np.nan]]), reference) == [0]
    assert similarity(np.array([[1.0, np.inf, 0.0]]), reference) == [0]


def test_cosine_and_sqnr_take_the_worst_output() -> None:
    reference = {"a": np.array([[1.0, 0.0]]), "b": np.array([[1.0, 1.0]])}
    candidate = {"a": np.array([[1.0, 0.0]]), "b": np.array([[1.0, 0.0]])}
    assert scored("cosine", candidate, reference=reference) == pytest.approx([math.sqrt(0.5)])
    assert scored("sqnr", candidate, reference=reference) == pytest.approx([10 * math.log10(2)])
    noise, signal = noise_and_signal(candidate["b"], reference["b"])
    assert (noise.tolist(), signal.tolist()) == ([1.0], [2.0])


# --------------------------------------------------------------------------------------------------- the user's own code


def user_metric(folder: Path, body: str, name: str) -> Path:
    (folder / f"{name}.py").write_text(body)
    return folder


def test_a_users_metric_is_imported_and_applied(tmp_path: Path) -> None:
    user_metric(
        tmp_path, "def f(outputs, reference, labels):\n    return [float(v) for v in outputs['y'][:, 0]]\n", "mine_ok"
    )
    metric = load_metric("mine_ok:f", tmp_path, labelled=False)
    assert not metric.needs_labels
    assert apply_metric(metric, {"y": np.array([[0.5], [2.0]])}, {"y": np.ones((2, 1))}, None, PLAIN).tolist() == [
        [0.5],
        [2.0],
    ]
    assert load_metric("mine_ok:f", tmp_path, labelled=True).needs_labels


@pytest.mark.parametrize(
    ("name", "body", "expected"),
    [
        ("mine_syntax", "def f(:", "cannot be imported: SyntaxError"),
        ("mine_raise", "raise ValueError('no\\nluck')", "cannot be imported: ValueError: no luck"),
        ("mine_exit", "raise SystemExit(3)", "cannot be imported: SystemExit"),
        ("mine_none", "g = 1", "has no function 'f'"),
        ("mine_value", "f = 1", "has no function 'f'"),
        ("mine_fails", "def f(o, r, l):\n    return o['gone']", "failed: KeyError"),
        ("mine_args", "def f(o):\n    return 1", "failed: TypeError"),
        ("mine_quits", "def f(o, r, l):\n    raise SystemExit", "failed: SystemExit"),
        ("mine_short", "def f(o, r, l):\n    return [1.0]", "returned shape [1] for 2 samples, not [2]"),
        ("mine_scalar", "def f(o, r, l):\n    return 1.0", "returned shape [] for 2 samples"),
        ("mine_nan", "def f(o, r, l):\n    return [1.0, float('nan')]", "returned a score that is not finite"),
        ("mine_text", "def f(o, r, l):\n    return ['a', 'b']", "failed: ValueError"),
    ],
)
def test_a_users_metric_that_misbehaves_is_one_line(tmp_path: Path, name: str, body: str, expected: str) -> None:
    user_metric(tmp_path, body, name)
    y = {"y": np.ones((2, 1))}
    with pytest.raises(InputRejected) as caught:
        apply_metric(load_metric(f"{name}:f", tmp_path), y, y, None, PLAIN)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_that_are_no_metric_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputRejected, match="did you mean 'top-1'"):
        find_metric("top1", True)
    with pytest.raises(InputRejected, match="ModuleNotFoundError"):
        find_metric("not_here_at_all:f", True)
    with pytest.raises(InputRejected, match="is not module:function"):
        load_metric("../x:f", tmp_path)


# ---------------------------------------------------------------------------------------------------------------- scores


def output_set(folder: Path, **arrays: np.ndarray) -> OutputSet:
    folder.mkdir(parents=True)
    files = tuple(folder / f"{k}.npy" for k in range(len(arrays)))
    for file, array in zip(files, arrays.values(), strict=True):
        np.save(file, array)
    return OutputSet(tuple(arrays), tuple(a.dtype.name for a in arrays.values()), files, (None,) * len(arrays))


def saved(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


@pytest.fixture
def logits() -> np.ndarray:
    """300 samples, five classes, the label far ahead."""
    array = RNG.normal(size=(300, 5)).astype(np.float32)
    array[np.arange(300), np.arange(300) % 5] += 12
    return array


LABELS = np.arange(300) % 5


def flipped(logits: np.ndarray, count: int) -> np.ndarray:
    """The first `count` samples answer the class after the right one."""
    changed = logits.copy()
    changed[:count] = np.roll(changed[:count], 1, axis=1)
    return changed


def test_a_task_score_counts_what_was_lost(tmp_path: Path, logits: np.ndarray) -> None:
    reference = output_set(tmp_path / "r", y=flipped(logits, 4))
    candidate = flipped(logits, 9)
    candidate[0] = logits[0]
    a = score(
        output_set(tmp_path / "c", y=candidate),
        reference,
        "top-1",
        "evaluation",
        labels=saved(tmp_path / "l.npy", LABELS),
    )
    assert (a.kind, a.split, a.n, a.worse, a.better) == ("task", "evaluation", 300, 5, 1)
    assert a.reference_value == pytest.approx(296 / 300)
    assert a.value == pytest.approx(292 / 300)
    assert a.drop == pytest.approx(4 / 300)
    assert (a.ci_low, a.ci_high) == paired_difference_interval(5, 1, 300)
    assert not a.collapsed


def test_agreement_with_itself_has_no_drop_and_is_equivalent(tmp_path: Path, logits: np.ndarray) -> None:
    reference = output_set(tmp_path / "r", y=logits)
    same = output_set(tmp_path / "c", y=logits)
    a = score(same, reference, "cosine", "selection")
    assert (a.kind, a.value, a.reference_value, a.drop, a.ci_low, a.ci_high) == ("agreement", 1, 1, 0, 0, 0)
    assert (a.sqnr_db, a.max_abs_diff, a.worst_cosine, a.worse) == (None, 0, 1, None)
    assert is_equivalent(a)
    assert feasible(a, 0.0).ok


def test_agreement_drop_is_one_less_agreement(tmp_path: Path, logits: np.ndarray) -> None:
    noisy = (logits + RNG.normal(size=logits.shape) * 0.8).astype(np.float32)
    a = score(output_set(tmp_path / "c", y=noisy), output_set(tmp_path / "r", y=logits), "cosine", "selection")
    by_hand = (logits * noisy).sum(axis=1) / np.linalg.norm(logits, axis=1) / np.linalg.norm(noisy, axis=1)
    assert a.value == pytest.approx(float(by_hand.mean()), abs=1e-6)
    assert a.drop == pytest.approx(1 - a.value)
    assert a.worst_cosine == pytest.approx(float(by_hand.min()), abs=1e-6)
    assert a.ci_low < a.drop < a.ci_high < 0.02
    assert a.sqnr_db == pytest.approx(10 * math.log10((logits**2).sum() / ((logits - noisy) ** 2).sum()), abs=1e-3)
    assert a.max_abs_diff == pytest.approx(float(np.abs(logits - noisy).max()))
    assert not is_equivalent(a)


def test_no_flip_in_a_small_sample_is_no_proof(tmp_path: Path, logits: np.ndarray) -> None:
    noisy = (logits + RNG.normal(size=logits.shape) * 0.3).astype(np.float32)[:30]
    candidate, reference = output_set(tmp_path / "c", y=noisy), output_set(tmp_path / "r", y=logits[:30])
    a = score(candidate, reference, "top-1-agreement", "selection")
    assert a.drop == 0
    assert a.ci_high == pytest.approx(3.8415 / 33.8415, rel=1e-3)
    assert not feasible(a, 0.01).ok


def test_synthetic_data_make_a_synthetic_score(tmp_path: Path, logits: np.ndarray) -> None:
    a = score(
        output_set(tmp_path / "c", y=logits),
        output_set(tmp_path / "r", y=logits),
        "cosine",
        "selection",
        synthetic=True,
    )
    assert a.kind == "synthetic"


def test_blocks_do_not_change_a_score(tmp_path: Path, logits: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    noisy = flipped((logits + RNG.normal(size=logits.shape)).astype(np.float32), 3)
    candidate, reference = output_set(tmp_path / "c", y=noisy), output_set(tmp_path / "r", y=logits)
    labels = saved(tmp_path / "l.npy", LABELS)
    whole = score(candidate, reference, "top-1", "selection", labels=labels)
    monkeypatch.setattr("edgekit.data.outputs.BLOCK_BYTES", 7 * 40)
    blocks = score(candidate, reference, "top-1", "selection", labels=labels)
    assert blocks.sqnr_db == pytest.approx(whole.sqnr_db)
    assert replace(blocks, sqnr_db=whole.sqnr_db, output_cosine=whole.output_cosine) == whole


def test_bfloat16_outputs_are_widened(tmp_path: Path, logits: np.ndarray) -> None:
    bits = output_set(tmp_path / "c", y=to_bfloat16(logits))
    reference = output_set(tmp_path / "r", y=logits)
    a = score(replace(bits, dtypes=("bfloat16",)), reference, "top-1-agreement", "selection")
    assert a.value == 1
    assert 40 < (a.sqnr_db or 0) < 60
    wrong = score(bits, reference, "cosine", "selection")  # the control: the bits are not the values
    assert wrong.value < 0.9


def test_ragged_outputs_are_scored_sample_by_sample(tmp_path: Path) -> None:
    rows = [RNG.normal(size=(n, 3)).astype(np.float32) for n in (2, 0, 5, 1)]
    other = [r.copy() for r in rows]
    other[2][:] *= -1
    other[3] = np.zeros((4, 3), np.float32)

    def ragged(name: str, parts: list[np.ndarray]) -> OutputSet:
        flat = output_set(tmp_path / name, boxes=np.concatenate([p.ravel() for p in parts]), n=np.arange(4))
        return replace(flat, shapes=(tuple(p.shape for p in parts), None))

    a = score(ragged("c", other), ragged("r", rows), "cosine", "selection")
    assert a.n == 4
    assert a.value == pytest.approx((1 + 1 - 1 + 0) / 4)
    assert a.output_cosine["n"] == 1
    with pytest.raises(InputRejected, match="does not hold what its samples' shapes add up to"):
        score(
            replace(ragged("x", rows), shapes=(((2, 3), (1, 1), (5, 3), (1, 3)), None)),
            ragged("y", rows),
            "cosine",
            "selection",
        )


# ------------------------------------------------------------------------------------------------------------- verdicts


def collapse_of(tmp_path: Path, candidate: np.ndarray, reference: np.ndarray, metric: str = "cosine") -> Accuracy:
    return score(output_set(tmp_path / "c", y=candidate), output_set(tmp_path / "r", y=reference), metric, "selection")


def test_values_that_stopped_being_finite_are_a_collapse(tmp_path: Path, logits: np.ndarray) -> None:
    broken = logits.copy()
    broken[7, 2] = np.inf
    broken[9, 1] = np.nan
    a = collapse_of(tmp_path, broken, logits)
    assert a.nonfinite == 2
    assert a.collapsed
    assert math.isfinite(a.max_abs_diff)


def test_infinity_that_the_reference_has_too_is_none(tmp_path: Path, logits: np.ndarray) -> None:
    logits[3, 1] = -np.inf
    a = collapse_of(tmp_path, logits, logits)
    assert (a.nonfinite, a.collapsed) == (0, False)


def test_a_constant_output_is_a_collapse_even_when_it_is_alike(tmp_path: Path) -> None:
    reference = (100 + RNG.normal(size=(50, 4))).astype(np.float32)
    constant = np.tile(reference[:1], (50, 1))
    assert "the same for every sample" in collapse_of(tmp_path / "1", constant, reference).collapse_reason
    both = collapse_of(tmp_path / "2", constant, np.tile(reference[:1] + 1e-5, (50, 1)))
    assert not both.collapsed


def test_low_cosine_is_a_collapse_without_labels_and_labels_overrule_it(tmp_path: Path, logits: np.ndarray) -> None:
    shifted = logits + 40
    a = collapse_of(tmp_path, shifted, logits, "top-1-agreement")
    assert a.drop == 0
    assert "has cosine" in a.collapse_reason
    labels = saved(tmp_path / "l.npy", LABELS)
    task = score(
        output_set(tmp_path / "c2", y=shifted),
        output_set(tmp_path / "r2", y=logits),
        "top-1",
        "selection",
        labels=labels,
    )
    assert not task.collapsed


def test_a_large_drop_is_a_collapse(tmp_path: Path, logits: np.ndarray) -> None:
    labels = saved(tmp_path / "l.npy", LABELS)
    reference = output_set(tmp_path / "r", y=logits)
    lost = [
        score(output_set(tmp_path / f"c{k}", y=flipped(logits, k)), reference, "top-1", "selection", labels=labels)
        for k in (14, 16)
    ]
    assert [a.collapsed for a in lost] == [False, True]
    assert lost[1].collapse_reason == "the drop is 0.053"


# -------------------------------------------------------------------------------------------- what does not fit together


def test_outputs_that_do_not_fit_are_refused(tmp_path: Path, logits: np.ndarray) -> None:
    reference = output_set(tmp_path / "r", y=logits)
    cases = {
        "the outputs are ['z'], the reference's ['y']": output_set(tmp_path / "z", z=logits),
        "299 samples of outputs against 300": output_set(tmp_path / "s", y=logits[:-1]),
        "outputs hold [0] samples": output_set(tmp_path / "e", y=logits[:0]),
        "no outputs to score": OutputSet((), (), (), ()),
        "cannot be read": replace(reference, files=(tmp_path / "gone.npy",)),
    }
    for expected, candidate in cases.items():
        with pytest.raises(InputRejected) as caught:
            score(candidate, reference, "cosine", "selection")
        assert expected in str(caught.value)


def test_metrics_that_cannot_be_used_are_refused(tmp_path: Path, logits: np.ndarray) -> None:
    outputs = output_set(tmp_path / "r", y=logits)
    with pytest.raises(InputRejected, match="needs labels"):
        score(outputs, outputs, "top-1", "selection")
    with pytest.raises(InputRejected, match="has no drop"):
        score(outputs, outputs, "sqnr", "selection")
    with pytest.raises(InputRejected, match=r"has shape \[299\] for 300 samples"):
        score(outputs, outputs, "top-1", "selection", labels=saved(tmp_path / "l.npy", LABELS[:-1]))


def test_a_score_survives_the_sandbox(tmp_path: Path, logits: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(edgekit.__file__).parents[1]))
    user_metric(tmp_path, "def f(o, r, labels):\n    return (o['y'].argmax(axis=1) == labels) * 2.5\n", "mine_child")
    broken = flipped(logits, 10)
    broken[1] = np.nan
    arguments = {
        "candidate": output_set(tmp_path / "c", y=broken),
        "reference": output_set(tmp_path / "r", y=logits),
        "labels": saved(tmp_path / "l.npy", LABELS),
        "reset": None,
        "metric": "mine_child:f",
        "split": "selection",
        "synthetic": False,
    }
    a = sandbox.call("edgekit.data.score:score", returns=Accuracy, **arguments)
    assert a == score(**arguments)
    assert a.drop == pytest.approx(2.5 * 10 / 300)
    assert a.metric == "mine_child:f"
