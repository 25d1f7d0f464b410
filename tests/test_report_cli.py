"""`edgekit report` as it is called: files, screens, and what it refuses."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from edgekit.core.profile_run import PROFILE_SCHEMA
from edgekit.report.overview import MARK
from edgekit.store import LATENCY_FILE, PROFILE_FILE
from tests.conftest import Cli
from tests.report_desk import profiled, run, written, written_profile
from tests.test_imports import LIGHT, loaded


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return written(tmp_path / "runs" / "mine", run())


def test_html_is_left_beside_the_run_and_replaced_the_next_time(edgekit: Cli, folder: Path) -> None:
    for source in (folder, folder / "run.json"):
        ended = edgekit("report", source)
        assert (ended.code, ended.err) == (0, "")
        file = folder.parent / "mine.html"
        assert file.read_text().startswith(f"<!doctype html>\n{MARK}\n<html")
        assert str(file) in ended.out
    assert {path.name for path in folder.iterdir()} == {"run.json"}, "a run's folder holds a run and nothing else"


def test_markdown_goes_to_the_screen_or_a_file(edgekit: Cli, folder: Path, tmp_path: Path) -> None:
    shown = edgekit("report", folder, "--md")
    assert shown.code == 0 and shown.out.startswith(MARK)
    assert edgekit("report", folder, "--md", "-o", tmp_path / "summary.md").code == 0
    assert (tmp_path / "summary.md").read_text() == shown.out


def test_json_says_where_it_is(edgekit: Cli, folder: Path, tmp_path: Path) -> None:
    said = json.loads(edgekit("report", folder, "--html", "-o", tmp_path / "r.html", "--json").out)
    assert said == {
        "file": str(tmp_path / "r.html"),
        "kind": "html",
        "size_bytes": (tmp_path / "r.html").stat().st_size,
    }


def test_its_help_is_light() -> None:
    assert loaded("from edgekit.cli.main import run_cli\nassert run_cli(['report', '--help']) == 0") <= LIGHT


def test_a_profile_is_shown_with_its_latencies_and_layers(edgekit: Cli, folder: Path, tmp_path: Path) -> None:
    place = written_profile(tmp_path / "p", profiled())
    ended = edgekit("report", folder, "--profile", place, "--profile", place / PROFILE_FILE, "-o", tmp_path / "r.html")
    assert (ended.code, ended.err) == (0, "")
    page = (tmp_path / "r.html").read_text()
    for name in ("profile-0-timeline", "profile-1-conditions", "a notice of the profile", "conv3/<wbr>Conv_quant"):
        assert name in page, name


def test_a_file_that_is_no_report_is_not_touched(edgekit: Cli, folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "model.onnx"
    own.write_bytes(b"precious")
    ended = edgekit("report", folder, "-o", own)
    assert ended.code == 6 and "no report" in ended.error
    assert own.read_bytes() == b"precious"
    assert edgekit("report", folder, "-o", own, "--force").code == 0
    assert own.read_text().startswith("<!doctype html>")
    assert edgekit("report", folder, "-o", tmp_path).code == 6


def test_what_is_no_run_is_refused_in_one_line(edgekit: Cli, tmp_path: Path) -> None:
    for content in (None, b"", b"{}", b"[" * 100_000):
        if content is not None:
            (tmp_path / "run.json").write_bytes(content)
        for words in ((), ("--md",)):
            ended = edgekit("report", tmp_path, *words)
            assert ended.code == 6 and ended.error
    assert not list(tmp_path.parent.glob("*.html"))


def test_a_profile_that_is_none_or_of_another_model_is_refused(edgekit: Cli, folder: Path, tmp_path: Path) -> None:
    made = profiled(20)
    other = replace(made, profile=replace(made.profile, model_sha256="1" * 64))
    newer = replace(made, profile=replace(made.profile, schema=PROFILE_SCHEMA + 1))
    cases = {
        "other": (written_profile(tmp_path / "other", other), "another model"),
        "newer": (written_profile(tmp_path / "newer", newer), "schema"),
        "absent": (tmp_path / "absent", "holds no profile.json"),
        "empty": (written_profile(tmp_path / "empty", made), "no profile"),
        "short": (written_profile(tmp_path / "short", made), ".npy"),
        "gone": (written_profile(tmp_path / "gone", made), "cannot be read"),
    }
    (tmp_path / "empty" / PROFILE_FILE).write_bytes(b"{}")
    raw = (tmp_path / "short" / LATENCY_FILE).read_bytes()
    (tmp_path / "short" / LATENCY_FILE).write_bytes(raw[:-8])
    (tmp_path / "gone" / LATENCY_FILE).unlink()
    for place, said in cases.values():
        ended = edgekit("report", folder, "--profile", place)
        assert ended.code == 6 and said in ended.error, (place, ended.err)
    assert not (folder.parent / "mine.html").exists()


@pytest.mark.parametrize("place", ["/proc/nowhere/report.html", "run.json/report.html"])
def test_a_folder_that_cannot_be_made_is_one_line(edgekit: Cli, folder: Path, place: str) -> None:
    ended = edgekit("report", folder, "-o", folder / place)
    assert ended.code == 6 and "cannot be made" in ended.error


def test_what_is_no_plain_file_is_never_replaced(edgekit: Cli, folder: Path, tmp_path: Path) -> None:
    """Not even with --force: a report in the place of a device would be a bad day."""
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", tmp_path):
        ended = edgekit("report", folder, "-o", place, "--force")
        assert ended.code == 6 and "is no file" in ended.error
    assert (tmp_path / "pipe").is_fifo()
