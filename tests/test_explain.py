"""`edgekit explain` and what a run prints of its searches and findings: records in, text out."""

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from edgekit import sandbox
from edgekit.core.choose import choose
from edgekit.core.dataset import DataSetInfo, SplitInfo
from edgekit.core.facts import DeviceFacts
from edgekit.core.findings import findings
from edgekit.core.results import Origin, Outcome, Verdict, VerdictCode
from edgekit.core.run import RUN_SCHEMA, Noise, Run
from edgekit.core.search import Search, Try
from edgekit.core.sensitivity import Attribution, Sensitivity, TensorNoise, Unit
from edgekit.core.types import Requirements
from edgekit.report.layers import MOST_LAYERS, print_layers, tails
from edgekit.report.terminal import print_run
from tests.conftest import Cli
from tests.records import accuracy, model, outcome, target, timed

COLLAPSED = (Verdict(VerdictCode.COLLAPSED, "the drop is 0.223"),)
LONG = "/encoder/layers/layers.11/attention/self/query/MatMul"


def attribution(layers: int = 3) -> Attribution:
    tensors = (TensorNoise("q", -1, 1, 31.0), TensorNoise("k", -9, 9, 12.5))
    noisy = Sensitivity(Unit(LONG, "MatMul", (LONG,), 0.25), 0.1, 0.2, activations=tensors)
    quiet = [
        Sensitivity(Unit(f"conv{i}", "Conv", (f"conv{i}",), 0.5 / layers), 0.1 / 4**i, 0.0)
        for i in range(1, layers - 1)
    ]
    passing = Sensitivity(Unit("every Mul", "Mul", ("m1", "m2"), 0.0), 0.0, 0.001)
    return Attribution(
        "ort-int8",
        "top-1",
        64,
        "mse",
        0.15,
        0.223,
        (noisy, *quiet, passing),
        {"minmax": 0.4, "mse": 0.15},
        ("a remark",),
    )


def search(**changes: object) -> Search:
    held = Try((LONG, "every Mul"), {"ranges": "mse"}, accuracy(0.001), True, "drop 0.0010, at most 0.0050")
    failed = Try(("every Mul",), {"ranges": "mse"}, accuracy(0.1), False, "top-1 drop 0.1000 is over 0.01")
    made = Search("ort-int8", attribution(), (failed, held), "ort-int8-mixed", "the fewest layers were found: 2 of 3")
    return replace(made, **changes)  # type: ignore[arg-type]  # any of its fields


def run(*outcomes: Outcome, searches: tuple[Search, ...] = (), **changes: object) -> Run:
    asked = Requirements()
    given = outcomes or (outcome("ort-fp32", 1.0), outcome("ort-int8", 0.4, drop=0.223, verdicts=COLLAPSED))
    shown = tuple(map(timed, given))
    choice = choose(shown, asked, Origin.TARGET, 1.03)
    made = Run(
        schema=RUN_SCHEMA,
        edgekit_version="0",
        versions={},
        model_name="model.onnx",
        model_sha256="0" * 64,
        model=model(),
        target=target(),
        target_origin=Origin.TARGET,
        device=DeviceFacts("aarch64", (), None, 1, 1 << 30, None, None),
        threads=1,
        requirements=asked,
        data=DataSetInfo("data", "0" * 64, "top-1", True, {"selection": SplitInfo(500, "0" * 64)}, ("x",)),
        outcomes=shown,
        left_out={"ort-fp16": "forbidden by --forbid fp16"},
        noise=Noise(1.0, 1.03),
        choice=choice,
        satisfies_constraints=True,
        evaluation=None,
        artifact_files=("model.onnx",),
        notices=(),
        next_steps=("do this",),
        searches=searches,
        findings=findings(shown, choice, searches, asked, Origin.TARGET, 1.03, {}),
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # any of its fields


def written(folder: Path, record: Run) -> Path:
    (folder / "run.json").write_bytes(sandbox.encode(record))
    return folder


def printed(show: object, *arguments: object, width: int = 80) -> str:
    stream = io.StringIO()
    assert callable(show)
    show(Console(file=stream, width=width), *arguments)
    return stream.getvalue()


# ------------------------------------------------------------------------------------------------------------ the command


def test_layers_are_told_the_costliest_first_with_what_was_kept(edgekit: Cli, tmp_path: Path) -> None:
    ended = edgekit("explain", written(tmp_path, run(searches=(search(),))), "--layers")
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[0] == "ort-int8: what each layer costs when it is quantized alone, top-1 on 64 samples of selection"
    assert lines[1] == "everything quantized, in simulation: SQNR 8.2 dB, top-1 drop 0.2230; activation ranges by mse"
    assert lines[2] == "SQNR in dB by range method: minmax 4.0, mse 8.2"
    table = "\n".join(lines[3:])
    assert re.search(
        r"rs\.11/attention/self/query/MatMul +MatMul +25\.0% +10\.0 +80\.0% +\+0\.2000 +12\.5 +kept", table
    )
    assert re.search(r"conv1 +Conv +16\.7% +16\.0 +20\.0% +\+0\.0000 +- *$", table, re.MULTILINE)
    assert re.search(r"every Mul +Mul +0\.0% +inf +0\.0% +\+0\.0010 +- +kept", table)
    assert table.index("query") < table.index("conv1") < table.index("every Mul")
    assert "if kept" not in table, "a column without a figure"
    assert "kept: in floating point in ort-int8-mixed" in table
    assert "the fewest layers were found: 2 of 3" in table and "note: a remark" in table


def test_a_run_is_named_by_its_file_too_and_json_has_everything(edgekit: Cli, tmp_path: Path) -> None:
    record = run(searches=(search(attribution=attribution(60)),))
    file = written(tmp_path, record) / "run.json"
    ended = edgekit("explain", file, "--layers", "--json")
    assert ended.code == 0
    assert json.loads(ended.out) == {"searches": json.loads(sandbox.encode(record.searches))}
    assert len(json.loads(ended.out)["searches"][0]["attribution"]["layers"]) == 60
    short = json.loads(edgekit("explain", file, "--json").out)
    assert short["choice"]["chosen"] == "ort-fp32"
    assert {finding["code"] for finding in short["findings"]} == {f.code for f in record.findings}


def test_without_layers_it_gives_the_choice_its_reasons_and_the_findings(edgekit: Cli, tmp_path: Path) -> None:
    ended = edgekit("explain", written(tmp_path, run(searches=(search(),))))
    assert ended.code == 0
    assert "chosen ort-fp32: the only feasible candidate" in ended.out
    assert "- int8 collapses on this model: ort-int8's top-1 drops by 0.2230" in ended.out
    assert "search from ort-int8: 2 tries, 1 held; ort-int8-mixed keeps 2 of 3 layers in floating point" in ended.out
    assert "Ruled out, collapsed: ort-int8 (the drop is 0.223; 0.40x the p50 of ort-fp32)" in ended.out
    assert "Not tried: ort-fp16 (forbidden by --forbid)" in ended.out
    assert [line.split(":")[0] for line in ended.out.splitlines()[:2]] == ["Binding requirement", "Chosen"]
    assert "\x1b" not in ended.out


@pytest.mark.parametrize("columns", ["30", "80", "200"])
def test_a_pipe_gets_no_colour_and_a_narrow_terminal_every_figure(edgekit: Cli, tmp_path: Path, columns: str) -> None:
    folder = written(tmp_path, run(searches=(search(),)))
    ended = edgekit("explain", folder, "--layers", env={"COLUMNS": columns, "TERM": "xterm-256color"})
    assert ended.code == 0
    assert "\x1b" not in ended.out
    for told in ("25.0%", "10.0", "80.0%", "+0.2000", "12.5", "kept", "inf"):
        assert told in ended.out, told


@pytest.mark.parametrize("content", [None, b"", b"[]", b"{}", b"\xff\xfe", b'{"schema": 1}', b"[" * 100_000])
def test_what_is_no_run_is_rejected_in_one_line(edgekit: Cli, tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "run.json").write_bytes(content)
    for arguments in ((), ("--layers",)):
        ended = edgekit("explain", tmp_path, *arguments)
        assert ended.code == 6
        assert ended.error


def test_a_file_that_is_no_run_and_a_place_that_is_not_there(edgekit: Cli, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"x")
    for name in ("model.onnx", "absent", "absent/run.json"):
        ended = edgekit("explain", tmp_path / name)
        assert ended.code == 6
        assert ended.error


# --------------------------------------------------------------------------------------------------------------- layers


def test_a_run_without_a_search_says_why_in_one_line() -> None:
    assert printed(print_layers, run()) == ("layers were not ranked: this run searched for no mixed precision\n")
    bare = run(
        outcome("ort-fp32"), left_out={"ort-int8": "needs calibration data", "ov-int8": "needs calibration data"}
    )
    assert printed(print_layers, bare) == (
        "layers were not ranked: no static int8 candidate was built: needs calibration data\n"
    )


def test_a_search_without_an_attribution_says_why_beside_one_that_has_it() -> None:
    bare = search(parent="ov-int8", attribution=None, tries=(), best=None, ended="not needed: ov-int8 holds")
    text = printed(print_layers, run(searches=(search(), bare)))
    assert text.endswith("\n\nov-int8: layers were not ranked: not needed: ov-int8 holds\n")
    assert "every Mul" in text


def test_of_many_layers_the_first_are_shown_and_those_kept() -> None:
    text = printed(print_layers, run(searches=(search(attribution=attribution(60)),)))
    rows = [line for line in text.splitlines() if re.match(r"(…|conv|every Mul)", line)]
    assert len(rows) == MOST_LAYERS + 1
    assert rows[-1].startswith("every Mul") and rows[-1].rstrip().endswith("kept")
    assert "39 more, 0.0% of the noise; --json has them all" in text


def test_names_are_cut_to_their_ends_as_long_as_these_tell_them_apart() -> None:
    names = ["/a/b/conv/Conv", "/a/c/conv/Conv", "Gemm"]
    assert tails(names, 20) == names
    assert tails(names, 13) == ["…/b/conv/Conv", "…/c/conv/Conv", "Gemm"]
    assert tails(names, 6) == ["…b/conv/Conv", "…c/conv/Conv", "Gemm"], "shorter ones would be alike"
    assert tails([], 6) == []


def test_a_layers_name_is_no_markup_and_no_escape_code() -> None:
    hostile = "[red]\x1b[31mname[/red]"
    unit = Unit(hostile, "Conv[bold]", (hostile,), 1.0)
    made = replace(attribution(), layers=(Sensitivity(unit, 0.1),), metric="m[b]", notes=("\x07bell",))
    text = printed(print_layers, run(searches=(search(attribution=made, tries=()),)))
    assert "\x1b" not in text and "\x07" not in text
    assert "[red]" in text and "Conv[bold]" in text


# ------------------------------------------------------------------------------------------------------- a run on a screen


@pytest.mark.parametrize("width", [40, 80, 132])
def test_what_collapsed_says_so_beside_its_speed(width: int) -> None:
    text = printed(print_run, run(), "runs/x", width=width)
    rows = [line for line in text.splitlines() if line.startswith("or") and ":" not in line]
    assert [("collapsed" in row, "chosen" in row) for row in rows] == [(False, True), (True, False)]


def test_findings_and_searches_stand_under_the_choice_before_the_next_steps() -> None:
    text = printed(print_run, run(searches=(search(),)), "runs/x", width=100)
    places = [
        text.index(part) for part in ("chosen ort-fp32", "- fp32 is the right", "search from ort-int8", "next: do this")
    ]
    assert places == sorted(places)


def test_a_search_that_found_nothing_is_one_line_too() -> None:
    nothing = search(tries=search().tries[:1], best=None, ended="nothing held")
    bare = search(
        attribution=None, tries=(), best=None, ended="not worth it: ort-int8 would not be chosen even if it held"
    )
    text = printed(print_run, run(searches=(nothing, bare)), "runs/x", width=200)
    assert "search from ort-int8: 1 try, 0 held; nothing held\n" in text
    assert "search from ort-int8: not worth it: ort-int8 would not be chosen even if it held\n" in text
