"""`edgekit gate` and `edgekit runs` from the command line: exit codes, JUnit, Markdown, and a race of real artifacts."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as Xml

import pytest
from markdown_it import MarkdownIt

from edgekit import sandbox
from edgekit.core.checks import Check, Gate, Status
from edgekit.core.run import RUN_SCHEMA
from edgekit.errors import InputRejected, RequirementsNotMet
from edgekit.flow.policy import gate as hold
from edgekit.flow.runs import list_runs, read_run
from edgekit.report.gate import gate_markdown, safe
from edgekit.report.junit import junit, junit_of_error
from tests.conftest import SAMPLE, Cli, thorough
from tests.runs import finished, written

HOLDS = "schema = 1\n[latency]\nbudget = '20ms'\n[infrastructure]\nstorage = '2MiB'\n"
FASTER = "[latency]\nmax_increase = 0.3\n"


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(HOLDS)
    return path


# ----------------------------------------------------------------------------------------------------- the command, stored


def test_a_gate_that_opens(edgekit: Cli, tmp_path: Path, policy: Path) -> None:
    run = written(tmp_path / "run", finished(1))
    ended = edgekit("gate", run, "--policy", policy)
    assert (ended.code, ended.err) == (0, "")
    assert "passed: 2 checks" in ended.out
    assert edgekit("gate", run / "run.json", "--policy", policy).code == 0


def test_a_gate_that_stays_closed_says_which_check_and_writes_both_files(
    edgekit: Cli, tmp_path: Path, policy: Path
) -> None:
    run = written(tmp_path / "run", finished(1))
    policy.write_text(HOLDS + "[throughput]\nmin = 1e6\n[data]\nmetric = 'iou'\n")
    ended = edgekit("gate", run, "--policy", policy, "--junit", tmp_path / "j.xml", "--md", tmp_path / "m.md", "--json")
    assert ended.code == 3
    assert "failed: throughput.min; not measured: data.metric" in ended.error
    found = json.loads(ended.out)
    assert {c["key"]: c["status"] for c in found["checks"]} == {
        "data.metric": "not measured",
        "latency.budget": "passed",
        "infrastructure.storage": "passed",
        "throughput.min": "failed",
    }
    suite = Xml.parse(tmp_path / "j.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("4", "1", "1")
    assert "**failed**" in (tmp_path / "m.md").read_text()


def test_a_slower_run_is_kept_out_and_an_equal_one_let_in(edgekit: Cli, tmp_path: Path, policy: Path) -> None:
    policy.write_text("schema = 1\n" + FASTER)
    base = written(tmp_path / "base", finished(1))
    equal = written(tmp_path / "equal", finished(2, bytes_of="b"))
    slow = written(tmp_path / "slow", finished(3, bytes_of="c", ratio=0.8))
    assert edgekit("gate", equal, "--policy", policy, "--against", base).code == 0
    ended = edgekit("gate", slow, "--policy", policy, "--against", base)
    assert (ended.code, "failed: latency.max_increase" in ended.err) == (3, True)
    policy.write_text("schema = 1\n[latency]\nmax_increase = 0.001\n")
    ended = edgekit("gate", equal, "--policy", policy, "--against", base)
    assert (ended.code, "--measure" in ended.error) == (7, True)


def test_bad_input_is_one_line_with_its_code(edgekit: Cli, tmp_path: Path, policy: Path) -> None:
    run = written(tmp_path / "run", finished(1))
    xml = tmp_path / "j.xml"
    assert "--measure" in edgekit("gate", run, "--policy", policy, "--measure").error
    assert edgekit("gate", run, "--policy", policy, "--measure", "--junit", xml).code == 2
    assert "UsageError" in xml.read_text()
    assert edgekit("gate", tmp_path / "none", "--policy", policy).code == 6
    assert edgekit("gate", run, "--policy", tmp_path / "none.toml").code == 6
    summary = tmp_path / "m.md"
    summary.write_text("### edgekit gate: passed")
    policy.write_bytes(b"\xff\xfe")
    assert edgekit("gate", run, "--policy", policy, "--md", summary).code == 6
    assert "**not held**" in summary.read_text()  # and nothing of the gate before
    assert "UTF-8" in edgekit("gate", run, "--policy", policy).error
    policy.write_text("schema = 1\n" + FASTER)
    ended = edgekit("gate", run, "--policy", policy)
    assert (ended.code, "--against" in ended.error) == (2, True)
    assert edgekit("gate", run).code == 2


def test_another_choice_than_the_baseline_s_is_told(tmp_path: Path, policy: Path) -> None:
    policy.write_text("schema = 1\n" + FASTER)
    old = finished(1)
    base = written(tmp_path / "base", replace(old, choice=replace(old.choice, chosen="ort-fp32")))
    run = written(tmp_path / "run", finished(2))
    assert hold(run, policy, base).notices == ("the baseline chose ort-fp32",)
    assert hold(run, policy, run).notices == ()


# --------------------------------------------------------------------------------------------------------------- the files


def hostile() -> Gate:
    check = Check(
        "latency.budget", Status.FAILED, "at most 1 ms", "2 ms", "<script>|]]>\x1b[31m\x00 @everyone `x`\n# h"
    )
    return Gate(1, "runs/<a>&\x00", None, "p", "m\x07<b>|", "t", "c`|", False, False, (check,))


def test_junit_is_xml_whatever_names_hold() -> None:
    root = Xml.fromstring(junit(hostile(), 0.0))
    failure = root[0].find("testcase/failure")
    assert failure is not None
    assert "<script>" in (failure.text or "")
    assert "\\x00" in (failure.text or "")
    assert junit(hostile(), 0.0) == junit(hostile(), 0.0)


def test_what_is_not_escaped_is_no_xml() -> None:
    """Negative control: the writer alone lets a control character through, and no reader takes it."""
    case = Xml.Element("testcase", name="\x00")
    with pytest.raises(Xml.ParseError):
        Xml.fromstring(Xml.tostring(case))


def test_junit_of_each_end() -> None:
    ends = (Status.PASSED, Status.FAILED, Status.NOT_MEASURED, Status.UNDECIDED)
    checks = tuple(Check(f"k{i}", status, "a", "f", "r") for i, status in enumerate(ends))
    suite = Xml.fromstring(junit(replace(hostile(), checks=checks), 0.0))[0]
    kinds = [[child.tag for child in case] for case in suite.iter("testcase")]
    assert kinds == [[], ["failure"], ["error"], ["error"]]
    assert "k0: passed: f: r" in (suite.findtext("system-out") or "")
    counts = {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "4", "failures": "1", "errors": "2", "skipped": "0"}
    broken = Xml.fromstring(junit_of_error(RequirementsNotMet("no", where="x"), "run", 0.0))[0]
    assert (broken.get("errors"), [case.get("name") for case in broken.iter("testcase")]) == ("1", ["gate"])


# What both schemas ask: Apache Ant's (JUnit.xsd) and that of Jenkins (junit-10.xsd). The attributes are required by the first; the
# second knows no others that are written.
ATTRIBUTES = {
    "testsuites": (),
    "testsuite": ("name", "package", "id", "timestamp", "hostname", "tests", "failures", "errors", "skipped", "time"),
    "property": ("name", "value"),
    "testcase": ("name", "classname", "time"),
    "failure": ("message", "type"),
    "error": ("message", "type"),
}
CHILDREN = {
    "testsuites": "(testsuite )*",
    "testsuite": "properties (testcase )*system-out system-err ",
    "properties": "(property )*",
    "testcase": "((error|failure) )?",
}


def is_valid(report: bytes) -> bool:
    def sound(node: Xml.Element) -> bool:
        order = "".join(f"{child.tag} " for child in node)
        named = set(node.attrib) == set(ATTRIBUTES.get(node.tag, ()))
        return named and re.fullmatch(CHILDREN.get(node.tag, ""), order) is not None and all(map(sound, node))

    root = Xml.fromstring(report)
    moment = root[0].get("timestamp", "")
    return root.tag == "testsuites" and sound(root) and bool(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", moment))


def test_junit_is_valid_by_both_schemas() -> None:
    statuses = tuple(Check(f"k{i}", status, "a", "f", "r") for i, status in enumerate(Status))
    assert is_valid(junit(replace(hostile(), checks=statuses), 1.8e9))
    assert is_valid(junit(hostile(), 0.0))
    assert is_valid(junit_of_error(RequirementsNotMet("no\x00", where="<x>"), "run\x1b", 0.0))
    good = junit(hostile(), 0.0)
    assert not is_valid(good.replace(b"<testsuites>", b'<testsuites skipped="0">'))  # negative controls
    assert not is_valid(good.replace(b"<system-err />", b""))


def test_a_summary_shows_what_the_checks_rest_on(tmp_path: Path, edgekit: Cli, policy: Path) -> None:
    policy.write_text("schema = 1\n" + FASTER)
    base, run = written(tmp_path / "base", finished(1)), written(tmp_path / "run", finished(2, bytes_of="b", ratio=0.8))
    assert edgekit("gate", run, "--policy", policy, "--against", base, "--md", tmp_path / "m.md").code == 3
    html = MarkdownIt("commonmark").enable("table").render((tmp_path / "m.md").read_text())
    tables = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", table) for table in html.split("</table>")[:-1]]
    assert [len(cells) % width for cells, width in zip(tables, (4, 5), strict=True)] == [0, 0]
    assert tables[1][:5] == ["figure", "baseline", "run", "change (95%)", ""]
    assert re.fullmatch(r"\+\d+\.\d% \(\+\d+\.\d% to \+\d+\.\d%\)", tables[1][8])
    assert tables[1][9] == "worse"


def test_markdown_holds_no_markup_of_others() -> None:
    text = gate_markdown(hostile())
    assert "<script>" not in text
    assert "\x1b" not in text
    assert "@everyone" not in text
    rows = [line for line in text.splitlines() if line.startswith("| latency")]
    assert len(re.findall(r"(?<!\\)\|", rows[0])) == 5
    assert safe("a-b|c") == r"a\-b\|c"


# -------------------------------------------------------------------------------------------------------------------- runs


def test_runs_are_listed_and_a_broken_one_is_named(edgekit: Cli, tmp_path: Path) -> None:
    written(tmp_path / "a", finished(1))
    written(tmp_path / "b", finished(2))
    written(tmp_path / "c", finished(3, schema=RUN_SCHEMA + 1))
    (tmp_path / "d").mkdir()
    ended = edgekit("runs", "list", tmp_path)
    assert (ended.code, ended.err) == (0, "")
    assert re.search(r"c: has schema \d+, this edgekit reads", ended.out)
    found = json.loads(edgekit("runs", "list", tmp_path, "--json").out)["runs"]
    assert {Path(run["folder"]).name for run in found} == {"a", "b", "c"}
    assert {run["chosen"] for run in found if "chosen" in run} == {"ort-int8"}
    assert edgekit("runs", "list", tmp_path / "none").code == 6
    assert "no runs here" in edgekit("runs", "list", tmp_path / "d").out


def test_before_the_first_run_there_is_nothing_to_list(edgekit: Cli, tmp_path: Path) -> None:
    ended = edgekit("runs", "list", cwd=tmp_path)
    assert (ended.code, ended.out) == (0, "no runs here\n")


def test_the_newest_run_comes_first(tmp_path: Path) -> None:
    for name, when in (("old", 1000), ("new", 3000), ("middle", 2000)):
        os.utime(written(tmp_path / name, finished(1)) / "run.json", (when, when))
    assert [Path(listed.folder).name for listed in list_runs([tmp_path, tmp_path])] == ["new", "middle", "old"]


def test_a_run_is_shown_as_it_was_printed(edgekit: Cli, tmp_path: Path) -> None:
    run = written(tmp_path / "run", finished(1))
    assert "chosen ort-int8" in edgekit("runs", "show", run).out
    assert json.loads(edgekit("runs", "show", run, "--json").out)["choice"]["chosen"] == "ort-int8"


def test_a_diff_tells_facts_from_noise(edgekit: Cli, tmp_path: Path) -> None:
    before = written(tmp_path / "before", finished(1))
    after = written(tmp_path / "after", finished(2, bytes_of="b", ratio=0.6, versions={"onnxruntime": "1.33.0"}))
    ended = edgekit("runs", "diff", before, after)
    assert ended.code == 0
    assert "version of onnxruntime: 1.32.0 -> 1.33.0" in ended.out
    assert re.search(r"p50 latency .*\+\d\d.*worse", ended.out)
    found = json.loads(edgekit("runs", "diff", before, after, "--json").out)
    shown = {figure["figure"]: figure["shown"] for figure in found["figures"]}
    assert (shown["p50 latency"], shown["size"], shown["peak memory"]) == ("worse", "equal", "unknown")
    candidates = {c["name"]: c for c in found["candidates"]}
    assert candidates["ort-int8"]["ratio"]["shown"] == "worse"
    assert (candidates["ort-int8"]["same_bytes"], candidates["ort-fp32"]["same_bytes"]) == (False, True)
    same = json.loads(edgekit("runs", "diff", before, before, "--json").out)
    assert same["changes"] == []
    assert {figure["shown"] for figure in same["figures"]} == {"equal"}
    assert "given and decided alike" in edgekit("runs", "diff", before, before).out


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f'{{"schema": {RUN_SCHEMA + 1}, "anything": 1}}', f"has schema {RUN_SCHEMA + 1}, this edgekit reads"),
        ('{"schema": 0}', "has schema 0, which there never was"),
        ('{"schema": "1"}', "names no schema"),
        ('{"schema": true}', "names no schema"),
        ("{}", "names no schema"),
        ("[]", "names no schema"),
        ("{", "is not JSON"),
        ('{"x": ' + "[" * 100_000, "is not JSON"),
        (f'{{"schema": {RUN_SCHEMA}}}', f"is no run of schema {RUN_SCHEMA}"),
    ],
)
def test_a_record_that_is_not_read_says_why(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(InputRejected, match=re.escape(says)):
        read_run(tmp_path)


def test_what_is_no_plain_file_is_refused_and_named(edgekit: Cli, tmp_path: Path) -> None:
    """A list names it, a command refuses it in one line; nothing waits for a pipe's writer or reads without an end."""
    for name in ("pipe", "folder", "endless", "nowhere", "huge", "cut"):
        (tmp_path / name).mkdir()
    os.mkfifo(tmp_path / "pipe" / "run.json")
    (tmp_path / "folder" / "run.json").mkdir()
    (tmp_path / "endless" / "run.json").symlink_to("/dev/zero")
    (tmp_path / "nowhere" / "run.json").symlink_to("nothing")
    with (tmp_path / "huge" / "run.json").open("wb") as file:
        file.truncate(1 << 33)  # of holes
    whole = sandbox.encode(finished(1))
    (tmp_path / "cut" / "run.json").write_bytes(whole[: len(whole) // 2])
    found = {Path(listed.folder).name: listed.error for listed in list_runs([tmp_path])}
    assert found["pipe"] == found["endless"] == "not a regular file"
    assert "Is a directory" in found["folder"]
    assert "No such file" in found["nowhere"]
    assert "larger than" in found["huge"]
    assert "is not JSON" in found["cut"]
    for name in found:
        with pytest.raises(InputRejected):
            read_run(tmp_path / name)
    ended = edgekit("runs", "diff", tmp_path / "pipe", tmp_path / "cut")
    assert (ended.code, "not a regular file" in ended.error) == (6, True)


def test_a_record_that_cannot_be_is_refused(tmp_path: Path) -> None:
    run = finished(1)
    reference, chosen = run.outcomes
    assert chosen.measurement is not None
    zero = replace(chosen, measurement=replace(chosen.measurement, ratio=0.0))
    for number, (record, says) in enumerate(
        (
            (replace(run, outcomes=(reference,)), "it chose ort-int8, which it does not have"),
            (replace(run, outcomes=(reference, replace(chosen, artifact=None))), "it chose ort-int8"),
            (replace(run, outcomes=(reference, zero)), "a figure of ort-int8 is not positive"),
        )
    ):
        with pytest.raises(InputRejected, match=says):
            read_run(written(tmp_path / str(number), record))
    assert read_run(written(tmp_path / "sound", run)).choice == run.choice


def test_a_record_of_schema_1_is_read_with_what_came_later_filled_in(tmp_path: Path) -> None:
    folder = written(tmp_path, finished(1, schema=1))
    found = json.loads((folder / "run.json").read_text())
    for later in ("exploration", "findings", "searches", "proof"):
        del found[later]
    for outcome in found["outcomes"]:
        for later in ("streams", "batch", "cores"):
            del outcome["candidate"]["run"][later]
    (folder / "run.json").write_text(json.dumps(found))
    run = read_run(folder)
    assert (run.schema, run.exploration, run.findings) == (1, None, ())
    assert run.outcomes[0].candidate.run.streams == 1


# -------------------------------------------------------------------------------------------------- real artifacts, raced


@pytest.fixture(scope="module")
def run(edgekit: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the sample on this machine, of floating point alone."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    words = [word for name in ("openvino", "fp16", "int8-weights", "ort-int8-dynamic") for word in ("--forbid", name)]
    ended = edgekit("optimize", SAMPLE / "model.onnx", "--threads", "1", *words, "-o", folder)
    assert ended.code == 0, ended.err
    return folder


@thorough
def test_both_are_raced_anew(edgekit: Cli, run: Path, tmp_path: Path) -> None:
    """A run against itself, with bounds that no noise of a machine reaches."""
    path = tmp_path / "policy.toml"
    path.write_text(
        "schema = 1\n[latency]\nmax_increase = 3\n[throughput]\nmax_decrease = 0.9\n[data]\n"
        "[infrastructure]\nmax_memory_increase = 1\nmax_cold_start_increase = 9\n"
    )
    words = ("--duration", "1s", "--rounds", "12", "--json")
    ended = edgekit("gate", run, "--policy", path, "--against", run, "--measure", *words)
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert found["retaken"]
    assert {c["status"] for c in found["checks"]} == {"passed"}
    bases = {f["figure"]: f["basis"] for f in found["figures"]}
    assert "raced anew on local" in bases["p50 latency"]
    assert "11 fresh processes" in bases["peak memory"]
    path.write_text("schema = 1\n[latency]\nmax_increase = 0\n")
    ended = edgekit("gate", run, "--policy", path, "--against", run, "--measure", "--races", "2", *words)
    assert ended.code in (3, 7)  # an equal one is never shown to be no slower at all
    assert "measured anew 2 times" in ended.out
