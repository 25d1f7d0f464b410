"""`ekrun bench --stdin --streams`: bursts of several lanes; `--cores`: the CPUs a process keeps to."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.ekrun_tools import built, conv_feed, conv_model, ekrun, engine_args, feed_args, save_ir


def arguments(folder: Path, engine: str, threads: int = 2) -> list[str]:
    model = conv_model(folder / "m.onnx")
    source = model if engine == "onnxruntime" else save_ir(model)
    return ["bench", *engine_args(engine, source, threads=threads), *feed_args(folder, conv_feed())]


@contextmanager
def waiting(args: list[object]) -> Iterator[subprocess.Popen[str]]:
    argv = [str(built()["x86_64"]), *map(str, args)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def answer_of(process: subprocess.Popen[str], command: str = "") -> dict[str, Any]:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(command)
    process.stdin.flush()
    record: dict[str, Any] = json.loads(process.stdout.readline())
    return record


def cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("streams", [1, 2, 5])
def test_bursts_of_streams_and_idle_between_them(tmp_path: Path, engine: str, streams: int) -> None:
    args = [*arguments(tmp_path, engine, max(2, streams)), "--stdin", "--streams", streams, "--warmup", 2]
    with waiting(args) as process:
        assert answer_of(process)["event"] == "ready"
        for count in (1, 4, 200):
            ran = answer_of(process, f"go {count}\n")
            latencies = ran["latencies_ns"]
            assert len(latencies) == count
            assert min(latencies) > 1000
            assert max(latencies) <= ran["span_ns"] <= ran["wall_ns"]
            assert ran["span_ns"] * streams >= sum(latencies), "a lane makes one call at a time"
            assert ran["memory"]["peak_inference_rss"] > 0
            before = cpu_ticks(process.pid)
            time.sleep(0.3)
            assert cpu_ticks(process.pid) - before <= 1, "30 ticks would be one spinning thread"
        closed = answer_of(process, "quit\n")
        assert (closed["event"], closed["runs"]) == ("closed", 205)
        assert process.wait(timeout=10) == 0


def test_streams_do_run_at_the_same_time(tmp_path: Path) -> None:
    """One after the other, the calls of a burst would fit into its span."""
    with waiting([*arguments(tmp_path, "onnxruntime", 1), "--stdin", "--streams", 4]) as process:
        answer_of(process)
        ran = answer_of(process, "go 2000\n")
    assert sum(ran["latencies_ns"]) > 1.2 * ran["span_ns"]


def test_a_span_without_streams_is_of_the_calls(tmp_path: Path) -> None:
    with waiting([*arguments(tmp_path, "onnxruntime"), "--stdin"]) as process:
        answer_of(process)
        ran = answer_of(process, "go 20\n")
    assert sum(ran["latencies_ns"]) <= ran["span_ns"] <= ran["wall_ns"]


def test_state_and_streams_of_bursts_exclude_each_other(tmp_path: Path) -> None:
    answer = ekrun(*arguments(tmp_path, "onnxruntime"), "--stdin", "--streams", 1, "--state", "y=x", stdin="")
    assert (answer.code, answer.json["error"]["code"]) == (2, "usage")


def test_streams_without_stdin_or_a_scenario_are_refused(tmp_path: Path) -> None:
    answer = ekrun(*arguments(tmp_path, "onnxruntime"), "--runs", 5, "--streams", 2)
    assert (answer.code, answer.json["error"]["code"]) == (2, "usage")


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_process_and_its_threads_keep_to_their_cores(tmp_path: Path, engine: str) -> None:
    cpu = sorted(os.sched_getaffinity(0))[-1]
    args = [*arguments(tmp_path, engine), "--stdin", "--streams", 2, "--cores", cpu]
    with waiting(args) as process:
        answer_of(process)
        answer_of(process, "go 50\n")
        tasks = list(Path(f"/proc/{process.pid}/task").iterdir())
        assert len(tasks) >= 2
        assert {frozenset(os.sched_getaffinity(int(task.name))) for task in tasks} == {frozenset([cpu])}


@pytest.mark.parametrize("cores", ["", "x", "1-0", "0-", "-1", "4095", "99999"])
def test_a_list_that_leaves_no_core_is_refused(tmp_path: Path, cores: str) -> None:
    answer = ekrun(*arguments(tmp_path, "onnxruntime"), "--runs", 1, "--cores", cores)
    assert (answer.code, answer.json["error"]["code"]) == (2, "usage")
