"""`ekrun bench`: what it measures, its bursts on stdin, and that a waiting process costs nothing."""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.ekrun_tools import built, conv_feed, conv_model, ekrun, engine_args, feed_args, save_ir, save_model

LOAD_TIMES = ("library_load_ms", "session_create_ms", "first_inference_ms", "process_to_first_inference_ms")


def bench_args(folder: Path, engine: str, threads: int = 1) -> list[str]:
    model = conv_model(folder / "m.onnx")
    source = model if engine == "onnxruntime" else save_ir(model)
    return ["bench", *engine_args(engine, source, threads=threads), *feed_args(folder, conv_feed())]


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_one_answer_with_raw_latencies_and_phases(tmp_path: Path, engine: str) -> None:
    answer = ekrun(*bench_args(tmp_path, engine), "--warmup", 3, "--runs", 50)
    assert answer.code == 0, answer.stderr
    report = answer.json
    assert len(report["latencies_ns"]) == report["runs"] == 50
    assert min(report["latencies_ns"]) > 1000
    assert report["wall_ns"] >= sum(report["latencies_ns"])
    assert report["cpu_ns"] > 0.3 * min(report["latencies_ns"]) * 50
    assert all(report[name] > 0 for name in LOAD_TIMES)
    assert report["process_to_first_inference_ms"] > report["library_load_ms"] + report["session_create_ms"]
    assert (report["model_read_ms"] is None) == (engine == "onnxruntime")
    assert not report["emulated"]
    assert (report["protocol"], report["engine"], report["samples"]) == (1, engine, 3)


def test_memory_by_phase(tmp_path: Path) -> None:
    memory = ekrun(*bench_args(tmp_path, "onnxruntime"), "--runs", 5).json["memory"]
    mib = 1 << 20
    assert memory["baseline_rss"] < 8 * mib < memory["after_load_rss"] <= memory["peak_load_rss"]
    assert memory["peak_rss"] >= max(memory["peak_load_rss"], memory["peak_inference_rss"])
    for phase in ("baseline", "after_load", "after_inference"):
        parts = memory[f"{phase}_anon"] + memory[f"{phase}_file"]
        assert abs(parts - memory[f"{phase}_rss"]) < 2 * mib
    # the library is mapped from its file, and the session's own memory is anonymous
    assert memory["after_load_file"] > memory["baseline_file"] + 5 * mib
    assert memory["after_load_anon"] > memory["baseline_anon"]


def test_a_large_feed_file_is_not_the_models_memory(tmp_path: Path) -> None:
    args = bench_args(tmp_path, "onnxruntime")
    np.save(tmp_path / "feed0.npy", np.zeros((2000, 1, 8, 32, 32), np.float32))  # 64 MB
    small = ekrun(*args, "--runs", 2000, "--samples", 1).json["memory"]["peak_inference_rss"]
    large = ekrun(*args, "--runs", 2000).json["memory"]["peak_inference_rss"]
    assert large < small + (4 << 20)


def test_what_the_answer_takes_is_not_the_models_memory(tmp_path: Path) -> None:
    x, y = ("x", TensorProto.FLOAT, [1]), ("y", TensorProto.FLOAT, [1])
    model = save_model(tmp_path / "m.onnx", [helper.make_node("Relu", ["x"], ["y"])], [x], [y])
    args = ["bench", *engine_args("onnxruntime", model), *feed_args(tmp_path, {"x": np.ones((1, 1), np.float32)})]
    runs, few = 200_000, ekrun(*args, "--runs", 10).json["memory"]
    once = ekrun(*args, "--runs", runs).json["memory"]
    bursts = ekrun(*args, "--stdin", stdin=f"go {runs}\n" * 2).json["memory"]
    for many in (once, bursts):
        for name in ("after_inference_anon", "peak_inference_rss"):
            assert many[name] < few[name] + 8 * runs + (512 << 10), "8 bytes for each latency, and noise"


@contextmanager
def waiting(args: list[str]) -> Iterator[subprocess.Popen[str]]:
    argv = [str(built()["x86_64"]), *args]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
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


@pytest.mark.parametrize(("engine", "threads"), [("onnxruntime", 1), ("onnxruntime", 2), ("openvino", 2)])
def test_bursts_on_stdin_and_idle_between_them(tmp_path: Path, engine: str, threads: int) -> None:
    with waiting([*bench_args(tmp_path, engine, threads), "--warmup", "2", "--stdin"]) as process:
        ready = answer_of(process)
        assert ready["event"] == "ready"
        assert ready["first_inference_ms"] > 0
        fds = Path(f"/proc/{process.pid}/fd")
        assert (fds / "1").readlink() == (fds / "2").readlink(), "what an engine prints must not mix with answers"
        for count in (3, 20):
            ran = answer_of(process, f"go {count}\n")
            assert (ran["event"], len(ran["latencies_ns"])) == ("ran", count)
            assert ran["cpu_ns"] > 0
            before = cpu_ticks(process.pid)
            time.sleep(0.5)
            assert cpu_ticks(process.pid) - before <= 1, "50 ticks would be one spinning thread"
        closed = answer_of(process, "quit\n")
        assert (closed["event"], closed["runs"]) == ("closed", 23)
        assert closed["memory"]["peak_inference_rss"] > 0
        assert process.wait(timeout=10) == 0


def test_end_of_stdin_closes(tmp_path: Path) -> None:
    answer = ekrun(*bench_args(tmp_path, "onnxruntime"), "--stdin", stdin="go 2\n")
    assert (answer.code, answer.json["event"], answer.json["runs"]) == (0, "closed", 2)


@pytest.mark.parametrize("command", ["go", "go 0", "go -1", "go 1x", "go 99999999999", "stop", ""])
def test_a_wrong_command_is_a_usage_error(tmp_path: Path, command: str) -> None:
    answer = ekrun(*bench_args(tmp_path, "onnxruntime"), "--stdin", stdin=f"{command}\n")
    assert (answer.code, answer.json["error"]["code"]) == (2, "usage")


def test_a_closed_stdout_is_an_error(tmp_path: Path) -> None:
    argv = [str(built()["x86_64"]), *bench_args(tmp_path, "onnxruntime"), "--runs", "1"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, timeout=60)
    assert done.returncode == 7
    assert b"stdout" in done.stderr
