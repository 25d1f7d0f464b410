"""`edgekit data check`: every rule finds what it is for, and says nothing of data that are right."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from edgekit.core.contract import image_like
from edgekit.core.datacheck import (
    ERROR,
    WARNING,
    DataCheck,
    DataFacts,
    Finding,
    InputFacts,
    LabelFacts,
    Samples,
    SplitFacts,
    Trial,
)
from edgekit.core.lint import findings
from edgekit.core.types import TensorSpec
from edgekit.data.alternatives import alternatives, reread, roughness
from edgekit.data.lint import gather
from edgekit.errors import InputRejected
from tests.conftest import SAMPLE, Cli, thorough

Array = np.ndarray[Any, np.dtype[Any]]

# ------------------------------------------------------------------------------------------------- the rules, over records

TENSOR = InputFacts("x", "x.npy", "float32", 0.0, 1.0, 0.3, whole=False, scaled=False)
LABELS = LabelFacts("labels.npy", ((0, 100), (1, 100)), allowed=2)


def split(name: str, samples: int = 200, labels: LabelFacts | None = LABELS, **changes: object) -> SplitFacts:
    tensor = changes.pop("tensor", TENSOR)
    made = SplitFacts(name, samples, samples, (tensor,), labels)  # type: ignore[arg-type]
    return replace(made, **changes)  # type: ignore[arg-type]


def facts(*splits: SplitFacts, **changes: object) -> DataFacts:
    given = {s.name: s for s in splits}
    whole = tuple(given.get(name, split(name)) for name in ("calibration", "selection", "evaluation"))
    made = DataFacts("set", "top-1", labelled=True, needs_labels=True, answers=1, splits=whole)
    return replace(made, **changes)  # type: ignore[arg-type]


def found(
    *splits: SplitFacts, trials: tuple[Trial, ...] = (), max_drop: float = 0.01, **changes: object
) -> list[Finding]:
    return list(findings(facts(*splits, **changes), trials, max_drop))


def rules(*splits: SplitFacts, **changes: Any) -> list[str]:
    return [finding.rule for finding in found(*splits, **changes)]


def test_data_that_are_right_have_no_finding() -> None:
    assert found() == []


TEN = Samples((0, 1, 2, 3, 4), 10)
ALL = Samples((0, 1, 2, 3, 4), 200)
PIXELS = replace(TENSOR, high=255.0, whole=True)


@pytest.mark.parametrize(
    ("severity", "rule", "splits"),
    [
        (ERROR, "not-finite", [split("selection", tensor=replace(TENSOR, nonfinite=TEN))]),
        (WARNING, "constant", [split("selection", tensor=replace(TENSOR, constant=TEN))]),
        (ERROR, "constant", [split("selection", tensor=replace(TENSOR, constant=ALL))]),
        (WARNING, "duplicates", [split("evaluation", duplicates=TEN)]),
        (ERROR, "leak", [split("evaluation", held={"calibration": TEN})]),
        (ERROR, "labels", [split("evaluation", labels=replace(LABELS, outside=TEN))]),
        (WARNING, "classes", [split("calibration", labels=replace(LABELS, classes=((0, 200),)))]),
        (WARNING, "class-shares", [split("selection", labels=replace(LABELS, classes=((0, 195), (1, 5))))]),
        (WARNING, "too-few", [split("calibration", samples=8)]),
        (WARNING, "too-few", [split("evaluation", samples=188)]),
        (WARNING, "too-few", [split("selection", units=20)]),
        (WARNING, "splits-differ", [split("calibration", tensor=replace(TENSOR, spread=1.3))]),
        (WARNING, "range", [split(n, tensor=PIXELS) for n in ("calibration", "selection", "evaluation")]),
        (
            WARNING,
            "layout",
            [
                split(n, tensor=replace(TENSOR, layout="NCHW", roughness=(1.0, 0.7)))
                for n in ("calibration", "selection", "evaluation")
            ],
        ),
    ],
)
def test_a_rule_finds_what_it_is_for(severity: str, rule: str, splits: list[SplitFacts]) -> None:
    only = found(*splits)
    assert [(f.severity, f.rule) for f in only] == [(severity, rule)]
    assert only[0].fix and only[0].where
    assert "  " not in only[0].what and "\n" not in only[0].what


@pytest.mark.parametrize(
    "splits",
    [
        [split("evaluation", samples=189)],
        [split("calibration", samples=32)],
        [split("selection", tensor=replace(TENSOR, low=0.5, high=0.5, spread=0.0, constant=ALL))],  # a parameter
        [split("selection", labels=replace(LABELS, classes=((0, 120), (1, 80))))],
        [split("calibration", tensor=replace(TENSOR, spread=1.1))],
        [split(n, tensor=replace(PIXELS, scaled=True)) for n in ("calibration", "selection", "evaluation")],
        [split(n, tensor=replace(PIXELS, dtype="uint8")) for n in ("calibration", "selection", "evaluation")],
        [
            split("selection", tensor=replace(TENSOR, layout="NCHW", roughness=(1.0, 0.7))),
            split("evaluation", tensor=replace(TENSOR, layout="NCHW", roughness=(1.0, 1.2))),
        ],
        [split("calibration", labels=None)],
        [split("evaluation", labels=replace(LABELS, classes=None))],
    ],
)
def test_a_rule_lets_be_what_is_right(splits: list[SplitFacts]) -> None:
    assert found(*splits) == []


def test_labels_that_the_metric_needs() -> None:
    bare = [split(n, labels=None) for n in ("calibration", "selection", "evaluation")]
    assert "labels" in rules(*bare, labelled=False)
    assert rules(*bare, labelled=False, needs_labels=False, answers=0) == []


def test_rare_classes_are_said() -> None:
    rare = replace(LABELS, classes=((0, 182), (1, 18)))
    assert rules(*(split(n, labels=rare) for n in ("selection", "evaluation", "calibration"))) == ["class-shares"]


def test_chance_is_no_other_share() -> None:
    """Twenty samples of each split over ten equal classes differ a lot by luck alone."""
    rng = np.random.default_rng(0)

    def drawn(n: int, shares: Mapping[int, float]) -> LabelFacts:
        values = rng.choice(list(shares), n, p=list(shares.values()))
        return replace(LABELS, classes=tuple((k, int((values == k).sum())) for k in shares))

    even, skewed = dict.fromkeys(range(10), 0.1), {0: 0.55, **dict.fromkeys(range(1, 10), 0.05)}
    fair = [rules(split("selection", labels=drawn(100, even)), split("evaluation", labels=drawn(100, even)))]
    assert all("class-shares" not in r for r in fair)
    other = rules(split("selection", labels=drawn(300, skewed)), split("evaluation", labels=drawn(300, even)))
    assert "class-shares" in other


def test_more_answers_a_sample_need_fewer_samples_and_a_drop_of_nothing_can_not_be_shown() -> None:
    assert rules(split("evaluation", samples=60), answers=1) == ["too-few"]
    assert rules(split("evaluation", samples=60), answers=100) == []
    assert "allow a drop above 0" in found(max_drop=0.0)[0].fix
    assert rules(split("evaluation", samples=5), answers=0) == []


def test_no_calibration_at_all() -> None:
    assert [f.what for f in findings(facts(splits=()), (), 0.01)] == [
        "there is no calibration split: nothing is quantized statically"
    ]


TRIAL = Trial("values divided by 255", 0.97, 0.3, gain=0.67, ci_low=0.5, ci_high=0.8, n=64)


def test_another_preparation_is_an_error_only_beyond_its_interval() -> None:
    only = found(trials=(TRIAL, replace(TRIAL, preparation="colours reversed", value=0.6, gain=0.3)))
    assert [(f.severity, f.rule) for f in only] == [(ERROR, "preparation")]
    assert "values divided by 255" in only[0].fix
    assert found(trials=(replace(TRIAL, ci_low=-0.01),)) == []
    assert found(trials=(replace(TRIAL, gain=0.03, ci_low=0.01),)) == []


def test_what_cannot_be_read_is_an_error_and_errors_come_first() -> None:
    several = found(split("calibration", samples=8), unreadable=("2 of 9 samples can't be read",))
    assert [f.rule for f in several] == ["unreadable", "too-few"]


# ------------------------------------------------------------------------------------------- gathering, from real arrays

SPEC = TensorSpec("x", "float32", (1, 3, 16, 16))
SCORES = (TensorSpec("y", "float32", (1, 3)),)
RNG = np.random.default_rng(5)


def templates(shades: bool = False) -> Array:
    """Three smooth pictures in 0..1, red, green and blue, or dark to bright, [3, C, H, W]."""
    rows, columns = np.mgrid[0:16, 0:16] / 15
    colours = np.eye(3)[:, :, None, None] * 0.5 + 0.1
    if shades:
        return np.tile(np.array([0.2, 0.5, 0.8])[:, None, None, None], (1, 3, 16, 16)).astype(np.float32)
    slopes = np.stack([rows, columns, 1 - rows])[:, None]
    return (colours + 0.3 * slopes * colours).astype(np.float32)


def pictures(count: int, noise: float = 0.05, shades: bool = False) -> tuple[Array, Array]:
    """Noisy ones [n, C, H, W] with their labels."""
    labels = np.arange(count) % 3
    return np.clip(templates(shades)[labels] + RNG.normal(0, noise, (count, 3, 16, 16)), 0, 1).astype(
        np.float32
    ), labels


def written(folder: Path, arrays: Mapping[str, Array], labels: Mapping[str, Array | None], head: str = "") -> Path:
    """A data set of one input x with its splits."""
    folder.mkdir(parents=True, exist_ok=True)
    text = ["schema = 1", 'name = "set"', head]
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
        text += [f"[splits.{name}]", f"samples = {len(array)}", f'files = {{ x = "{name}.npy" }}']
        if (own := labels.get(name)) is not None:
            np.save(folder / f"{name}.labels.npy", own)
            text.append(f'labels = "{name}.labels.npy"')
    (folder / "data.toml").write_text("\n".join(text))
    return folder


def a_set(folder: Path, head: str = "", shades: bool = False, **changed: Array) -> Path:
    """32 for calibration, 66 for selection, 240 for evaluation; `changed` replaces splits or labels by name."""
    arrays, labels = {}, {}
    for name, count in (("calibration", 33), ("selection", 66), ("evaluation", 240)):
        arrays[name], labels[name] = pictures(count, shades=shades)
        arrays[name] = changed.get(name, arrays[name])
        labels[name] = changed.get(f"{name}_labels", labels[name])
    return written(folder, arrays, labels, head)


def looked_at(tmp_path: Path, data: Path, spec: TensorSpec = SPEC, metric: str | None = None) -> DataFacts:
    out = tmp_path / "out"
    out.mkdir()
    return gather(data, (spec,), SCORES, out, metric)


def rules_of(tmp_path: Path, data: Path, spec: TensorSpec = SPEC) -> set[str]:
    return {f.rule for f in findings(looked_at(tmp_path, data, spec), (), 0.02)}


def test_a_set_that_is_right_is_gathered_and_found_right(tmp_path: Path) -> None:
    seen = looked_at(tmp_path, a_set(tmp_path / "d"))
    assert findings(seen, (), 0.05) == ()
    assert [(s.name, s.samples, s.units) for s in seen.splits] == [
        ("calibration", 33, 33),
        ("selection", 66, 66),
        ("evaluation", 240, 240),
    ]
    x = seen.splits[2].inputs[0]
    assert (x.low >= 0, x.high <= 1, x.whole, x.scaled, x.layout) == (True, True, False, False, "NCHW")
    assert seen.splits[2].labels is not None
    assert seen.splits[2].labels.classes == ((0, 80), (1, 80), (2, 80))
    assert (seen.answers, seen.metric, seen.tried_samples) == (1, "top-1", 64)


def test_bad_samples_are_all_listed(tmp_path: Path) -> None:
    x, labels = pictures(240)
    x[3, 0, 0, 0], x[9] = np.nan, np.inf
    x[20:40:10] = 0.5
    x[101], x[102] = x[100], x[100]
    calibration = np.concatenate([pictures(30)[0], x[200:203]])
    labels[7] = 3
    seen = looked_at(tmp_path, a_set(tmp_path / "d", evaluation=x, evaluation_labels=labels, calibration=calibration))
    evaluation = seen.splits[2]
    assert evaluation.inputs[0].nonfinite == Samples((3, 9), 2)
    assert evaluation.inputs[0].constant == Samples((20, 30), 2)
    assert evaluation.duplicates == Samples((30, 101, 102), 3)
    assert evaluation.held == {"calibration": Samples((200, 201, 202), 3)}
    assert evaluation.labels is not None
    assert evaluation.labels.outside == Samples((7,), 1)
    assert {f.rule for f in findings(seen, (), 0.05)} >= {"not-finite", "constant", "duplicates", "leak", "labels"}
    assert evaluation.inputs[0].low >= 0 and evaluation.inputs[0].high <= 1


def test_pixels_that_nothing_scales(tmp_path: Path) -> None:
    names = ("calibration", "selection", "evaluation")
    bytes_ = {n: np.rint(255 * pictures(c)[0]).astype(np.float32) for n, c in zip(names, (33, 66, 240), strict=True)}
    assert "range" in rules_of(tmp_path, a_set(tmp_path / "d", **bytes_))
    again = tmp_path / "again"
    again.mkdir()
    assert "range" not in rules_of(
        again, a_set(again / "d", "[inputs]\nx = { scale = 0.00392156862745098 }\n", **bytes_)
    )


def test_one_split_prepared_unlike_the_others(tmp_path: Path) -> None:
    assert "splits-differ" in rules_of(tmp_path, a_set(tmp_path / "d", calibration=255 * pictures(33)[0]))


@pytest.mark.parametrize("last", [False, True])
def test_samples_that_were_reshaped_instead_of_transposed(tmp_path: Path, last: bool) -> None:
    shape, spec = ((16, 16, 3), TensorSpec("x", "float32", (1, 16, 16, 3))) if last else ((3, 16, 16), SPEC)
    counts = {"calibration": 33, "selection": 66, "evaluation": 240}
    first = {n: pictures(c, 0.01)[0] for n, c in counts.items()}
    turned = {n: np.moveaxis(x, 1, -1) for n, x in first.items()}
    wrong, right = (first, turned) if last else (turned, first)
    reshaped = {n: x.reshape(-1, *shape) for n, x in wrong.items()}
    assert "layout" in rules_of(tmp_path, a_set(tmp_path / "d", **reshaped), spec)
    again = tmp_path / "again"
    again.mkdir()
    assert "layout" not in rules_of(again, a_set(again / "d", **right), spec)


def test_grey_pictures_and_noise_look_like_neither(tmp_path: Path) -> None:
    like = alternatives(SPEC, 0.0, 1.0)
    assert any("channels taken" in way.name for way in like)
    for last in (True, False):
        shape = (1, 16, 16, 3) if last else (1, 3, 16, 16)
        image = image_like(shape)
        assert image is not None
        grey = np.repeat(templates()[:, :1], 3, axis=1)
        for block in (grey, RNG.random((8, 3, 16, 16))):
            fed = np.moveaxis(block, 1, -1) if last else block
            declared, other = roughness(fed.astype(np.float32), image)
            assert other > 0.75 * declared
            assert np.array_equal(np.sort(reread(fed, image), axis=None), np.sort(fed, axis=None))


def test_samples_of_a_divided_set_are_numbered_as_in_its_file(tmp_path: Path) -> None:
    x, labels = pictures(40)
    x[7] = x[8] = x[9] = np.nan
    np.savez(tmp_path / "whole.npz", x=x, labels=labels)
    seen = looked_at(tmp_path, tmp_path / "whole.npz")
    assert sorted(n for s in seen.splits for n in s.inputs[0].nonfinite.first) == [7, 8, 9]


def test_sequences_are_units_and_the_whole_is_divided(tmp_path: Path) -> None:
    x, labels = pictures(60)
    starts = np.tile([1, 0, 0], 20).astype(np.uint8)
    x[3:6] = x[0:3]  # a sequence stands twice
    x[7] = x[0]  # a single sample of one is no double
    folder = written(
        tmp_path / "d",
        dict.fromkeys(("selection", "evaluation"), x),
        dict.fromkeys(("selection", "evaluation"), labels),
    )
    np.save(folder / "starts.npy", starts)
    text = (
        (folder / "data.toml")
        .read_text()
        .replace("[splits.evaluation]", '[splits.evaluation]\nsequences = "starts.npy"')
    )
    (folder / "data.toml").write_text(
        text.replace("[splits.selection]", '[splits.selection]\nsequences = "starts.npy"')
    )
    seen = looked_at(tmp_path, folder)
    assert [(s.samples, s.units) for s in seen.splits] == [(60, 20), (60, 20)]
    assert seen.splits[0].duplicates == Samples((3,), 1)
    assert seen.splits[1].held["selection"].total == 20
    np.savez(tmp_path / "whole.npz", x=pictures(40)[0], labels=np.arange(40) % 3)
    (tmp_path / "again").mkdir()
    assert [s.name for s in gather(tmp_path / "whole.npz", (SPEC,), SCORES, tmp_path / "again").splits] == [
        "calibration",
        "selection",
        "evaluation",
    ]


def test_pictures_that_can_not_be_read_are_counted_and_the_others_looked_at(tmp_path: Path) -> None:
    folder, rows = tmp_path / "d", (255 * np.moveaxis(pictures(12)[0], 1, -1)).astype(np.uint8)
    for name in ("selection", "evaluation"):
        for i, row in enumerate(rows):
            place = folder / name / f"class{i % 3}"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.roll(row, name == "evaluation", axis=0)).save(place / f"{i}.png")
    broken = folder / "evaluation" / "class0" / "0.png"
    broken.write_bytes(broken.read_bytes()[:60])
    reader = (
        'x = { reader = "image", color = "RGB", resize = "stretch", size = [16, 16], layout = "NCHW", scale = 0.0039 }'
    )
    splits = "\n".join(f'{name} = {{ folder = "{name}" }}' for name in ("selection", "evaluation"))
    (folder / "data.toml").write_text(f'schema = 1\nname = "set"\n[inputs]\n{reader}\n[splits]\n{splits}\n')
    seen = looked_at(tmp_path, folder)
    assert [s.samples for s in seen.splits] == [12, 11]
    assert len(seen.unreadable) == 1
    first = findings(seen, (), 0.01)[0]
    assert (first.severity, first.rule) == (ERROR, "unreadable")
    assert "1 of 12 samples of evaluation" in first.what
    broken.unlink()
    again = tmp_path / "again"
    again.mkdir()
    assert looked_at(again, folder).unreadable == ()


def test_what_stops_a_whole_set_is_refused(tmp_path: Path) -> None:
    x, labels = pictures(30)
    half = written(tmp_path / "d", {"selection": x, "evaluation": x}, {"selection": labels})
    with pytest.raises(InputRejected, match="only one of selection and evaluation has labels"):
        looked_at(tmp_path, half)


# ---------------------------------------------------------------------------------------------------- the command itself


def nearest(path: Path, mean: float = 0.0, std: float = 1.0, reverse: bool = False) -> Path:
    """A model [1, 3, 16, 16] -> [1, 3]: which template is nearest, of shades, or of colours in reverse order."""
    known = (templates(shades=not reverse) - mean) / std
    flat = (known[:, ::-1] if reverse else known).reshape(3, -1)
    weights = {"w": np.ascontiguousarray(flat.T, np.float32), "b": (-(flat**2).sum(axis=1) / 2).astype(np.float32)}
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("Gemm", ["f", "w", "b"], ["y"])],
        "nearest",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def checked(edgekit: Cli, data: Path, model: Path, *more: object) -> tuple[int, dict[str, Any]]:
    ended = edgekit("data", "check", data, "-m", model, "--json", *more)
    assert ended.out, ended.err
    return ended.code, json.loads(ended.out)


def test_the_shipped_sample_is_right(edgekit: Cli) -> None:
    code, report = checked(edgekit, SAMPLE, SAMPLE / "model.onnx")
    assert (code, [f for f in report["findings"] if f["severity"] == "error"]) == (0, [])
    assert report["checked"] == {"calibration": 500, "selection": 500, "evaluation": 2000}
    assert report["trials"], report


def test_a_range_that_the_model_was_not_trained_on(edgekit: Cli, tmp_path: Path) -> None:
    """The shipped sample without its scale: 0..255 for a model of 0..1."""
    for file in SAMPLE.glob("*.npy"):
        array = np.load(file)
        np.save(tmp_path / file.name, array.astype(np.float32) if "image" in file.name else array)
    text = "\n".join(
        line.split("sha256")[0] if line.startswith("sha256") else line
        for line in (SAMPLE / "data.toml").read_text().splitlines()
        if not line.startswith(("image =", "[inputs]"))
    )
    (tmp_path / "data.toml").write_text(text.partition("[sample]")[0])
    code, report = checked(edgekit, tmp_path, SAMPLE / "model.onnx")
    by_rule = {f["rule"]: f for f in report["findings"]}
    assert "range" in by_rule
    best = max(report["trials"], key=lambda t: t["gain"])
    assert "divided by 255" in best["preparation"]
    assert code == (6 if "preparation" in by_rule else 0)


@pytest.mark.parametrize(
    ("says", "head", "model"),
    [
        ("colours reversed", "", {"reverse": True}),
        pytest.param("ImageNet", "", {"mean": 0.45, "std": 0.225}, marks=thorough),
        pytest.param("times 255", "", {"std": 1 / 255}, marks=thorough),
        pytest.param("divided by 255", "[inputs]\nx = { scale = 255.0 }\n", {}, marks=thorough),
    ],
)
def test_another_preparation_that_scores_much_better_is_an_error(
    edgekit: Cli, tmp_path: Path, says: str, head: str, model: dict[str, Any]
) -> None:
    data = a_set(tmp_path / "d", head, shades="reverse" not in model)
    code, report = checked(edgekit, data, nearest(tmp_path / "m.onnx", **model), "--max-drop", "0.05")
    assert code == 6
    assert [(f["severity"], f["rule"]) for f in report["findings"]] == [("error", "preparation")]
    assert says in report["findings"][0]["fix"]
    right = checked(edgekit, a_set(tmp_path / "r", shades=True), nearest(tmp_path / "r.onnx"), "--max-drop", "0.05")
    assert (right[0], right[1]["findings"]) == (0, [])  # the control


def test_the_report_names_samples_and_fixes(edgekit: Cli, tmp_path: Path) -> None:
    x, _ = pictures(240)
    x[4:9] = np.nan
    ended = edgekit("data", "check", a_set(tmp_path / "d", evaluation=x), "-m", nearest(tmp_path / "m.onnx"))
    assert ended.code == 6
    assert "error not-finite: 'x' holds NaN or infinity (5 samples: 4, 5, 6, 7, 8)" in ended.out
    assert "fix: remove or repair these samples" in ended.out
    assert "1 error, " in ended.out
    assert "Traceback" not in ended.err


def test_what_can_not_be_used_is_one_finding(edgekit: Cli, tmp_path: Path) -> None:
    flat = written(tmp_path / "d", {n: np.zeros((8, 4), np.float32) for n in ("selection", "evaluation")}, {})
    code, report = checked(edgekit, flat, nearest(tmp_path / "m.onnx"))
    assert (code, [f["rule"] for f in report["findings"]]) == (6, ["unusable"])
    assert "takes samples of" in report["findings"][0]["what"]


def test_a_metric_that_does_not_fit_the_labels_is_an_error(edgekit: Cli, tmp_path: Path) -> None:
    two = {f"{n}_labels": np.zeros((c, 2), np.int64) for n, c in (("selection", 66), ("evaluation", 240))}
    code, report = checked(edgekit, a_set(tmp_path / "d", **two), nearest(tmp_path / "m.onnx"))
    by_rule = {f["rule"]: f for f in report["findings"]}
    assert code == 6
    assert "labels have shape" in by_rule["metric"]["what"]
    assert by_rule["metric"]["severity"] == "error"


def test_a_missing_model_is_no_finding(edgekit: Cli, tmp_path: Path) -> None:
    ended = edgekit("data", "check", SAMPLE, "-m", tmp_path / "absent.onnx")
    assert ended.code == 6
    assert "absent.onnx: no such file" in ended.err


def test_the_record_counts_errors() -> None:
    finding = Finding(ERROR, "leak", "x", "y", "z")
    assert DataCheck("d", "m", "top-1", {}, (finding, replace(finding, severity=WARNING))).errors == 1
