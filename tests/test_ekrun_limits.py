"""What ends an ekrun from outside: the end of its stdin, an instruction its CPU lacks, a cap on its memory."""

import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from edgekit.engines.closure import native_library
from edgekit.errors import TargetIncompatible
from edgekit.process import Completed
from edgekit.runner.client import BenchReply, failure, parse
from tests.board import board_argv, default_cache, require_board
from tests.ekrun_tools import (
    Answer,
    built,
    compile_engine,
    conv_feed,
    conv_model,
    ekrun,
    engine_args,
    feed_args,
    save_ir,
    save_model,
)

MIB = 1 << 20
LINK_CLOSED = 10


SLEEPER = 'static void body(void) { fputs("open\\n", stderr); for (;;) pause(); }'


@contextlib.contextmanager
def started(
    *args: object, stdin: int = subprocess.PIPE, program: list[str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    argv = [*(program or [str(built()["x86_64"])]), *map(str, args)]
    process = subprocess.Popen(
        argv, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream:
                stream.close()


def wait_until_open(process: subprocess.Popen[bytes]) -> None:
    assert process.stderr is not None
    assert process.stderr.readline() == b"open\n"


def until(condition: Callable[[], bool], limit_s: float = 10.0) -> bool:
    end = time.monotonic() + limit_s
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return condition()


# ------------------------------------------------------------------------------------------------------------- tether


def test_a_tethered_process_ends_with_its_stdin(tmp_path: Path) -> None:
    with started("run", *compile_engine(tmp_path, SLEEPER), "--tether") as process:
        wait_until_open(process)
        assert process.stdin is not None
        process.stdin.write(b"dropped\n" * 20000)  # more than a pipe holds
        process.stdin.flush()
        time.sleep(0.1)
        assert process.poll() is None, "what comes on stdin does not end it"
        process.stdin.close()
        assert process.wait(timeout=10) == LINK_CLOSED


def test_an_untethered_process_goes_on(tmp_path: Path) -> None:
    """Negative control."""
    with started("run", *compile_engine(tmp_path, SLEEPER)) as process:
        wait_until_open(process)
        assert process.stdin is not None
        process.stdin.close()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.5)


def test_a_socket_that_hangs_up_is_an_end_too(tmp_path: Path) -> None:
    here, there = socket.socketpair()
    with started("run", *compile_engine(tmp_path, SLEEPER), "--tether", stdin=there.fileno()) as process:
        there.close()
        wait_until_open(process)
        here.close()
        assert process.wait(timeout=10) == LINK_CLOSED


def test_stdin_that_was_never_open_is_an_end(tmp_path: Path) -> None:
    answer = ekrun("run", *compile_engine(tmp_path, SLEEPER), "--tether", before=lambda: os.close(0))
    assert (answer.code, answer.json) == (LINK_CLOSED, {})


def bench_args(folder: Path, *more: object) -> list[object]:
    model = conv_model(folder / "m.onnx")
    return ["bench", *engine_args("onnxruntime", model, threads=2), *feed_args(folder, conv_feed()), "--stdin", *more]


def ask(process: subprocess.Popen[bytes], line: str) -> dict[str, Any]:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(line.encode() + b"\n")
    process.stdin.flush()
    answer: dict[str, Any] = json.loads(process.stdout.readline())
    return answer


def test_a_tethered_burst_ends_with_the_link(tmp_path: Path) -> None:
    for tether, code in (["--tether"], LINK_CLOSED), ([], None):
        with started(*bench_args(tmp_path, *tether)) as process:
            assert process.stdin is not None and process.stdout is not None
            process.stdout.readline()
            assert len(ask(process, "go 3")["latencies_ns"]) == 3
            process.stdin.write(b"go 10000000\n")
            process.stdin.flush()
            time.sleep(0.2)
            process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.5 if code is None else 10)
            assert process.poll() == code


def test_a_tether_does_not_disturb(tmp_path: Path) -> None:
    """The engine's threads are counted alone, and waiting for them to sleep does not wait for the tether."""
    found = {}
    for tether in ([], ["--tether"]):
        with started(*bench_args(tmp_path, *tether)) as process:
            assert process.stdout is not None
            ready = json.loads(process.stdout.readline())
            ran = ask(process, "go 5")
            closed = ask(process, "quit")
            assert process.wait(timeout=10) == 0
            found[bool(tether)] = ready["process_threads"]
            assert ran["settle_ns"] < 900_000_000
            assert closed["event"] == "closed"
    assert found[True] == found[False]


# ------------------------------------------------------------------------------------------------ illegal instructions


def traps(instruction: str) -> str:
    return f'static void body(void) {{ __asm__ volatile("{instruction}"); }}'


TRAP = traps("ud2")
IN_THREADS = """
static void *trap(void *unused) { __asm__ volatile("ud2"); return unused; }
static void body(void) {
    pthread_t threads[8];
    for (int i = 0; i < 8; i++) pthread_create(&threads[i], 0, trap, 0);
    for (int i = 0; i < 8; i++) pthread_join(threads[i], 0);
}
"""
PROBING = """
static sigjmp_buf back;
static void refused(int number) { (void)number; siglongjmp(back, 1); }
static void body(void) {
    struct sigaction mine = {.sa_handler = refused}, before;
    sigaction(SIGILL, &mine, &before);
    if (sigsetjmp(back, 1) == 0) __asm__ volatile("ud2");
    fputs("probed\\n", stderr);
    sigaction(SIGILL, &before, 0);
    __asm__ volatile("ud2");
}
"""
JUMP = 'static void body(void) { __asm__ volatile(".byte 0x06"); }'  # PUSH ES: none in 64-bit mode


@pytest.mark.parametrize("body", [TRAP, IN_THREADS, PROBING, JUMP], ids=["one", "threads", "probing", "invalid"])
def test_an_illegal_instruction_is_reported(tmp_path: Path, body: str) -> None:
    for _ in range(5 if body is IN_THREADS else 1):
        answer = ekrun("run", *compile_engine(tmp_path, body))
        error = answer.json["error"]
        assert (answer.code, error["code"], error["arch"]) == (9, "illegal_instruction", "x86_64")
        assert error["instruction"].startswith("06" if body is JUMP else "0f0b")
        assert len(error["instruction"]) == 30
        assert error["object"] == str(tmp_path / "libonnxruntime.so")
        assert error["instruction"] in error["message"] in answer.stderr
        code = (tmp_path / "libonnxruntime.so").read_bytes()
        assert code[error["offset"] :].startswith(bytes.fromhex(error["instruction"]))
        assert ("probed" in answer.stderr) == (body is PROBING)


def test_a_name_cannot_break_the_report(tmp_path: Path) -> None:
    folder = tmp_path / 'a "\\ \x1b[31m\n é'
    folder.mkdir()
    answer = ekrun("run", *compile_engine(folder, TRAP))
    assert (answer.code, answer.json["error"]["code"]) == (9, "illegal_instruction")
    assert answer.json["error"]["object"].endswith("/libonnxruntime.so")
    assert "\x1b" not in answer.stderr


def test_a_signal_that_was_sent_is_no_instruction(tmp_path: Path) -> None:
    with started("run", *compile_engine(tmp_path, SLEEPER)) as process:
        wait_until_open(process)
        process.send_signal(signal.SIGILL)
        assert process.wait(timeout=10) == -signal.SIGILL


@pytest.mark.board
def test_an_emulated_core_says_what_it_lacks(tmp_path: Path) -> None:
    require_board()
    args = compile_engine(tmp_path, traps(".inst 0x4e829420"), "aarch64")  # sdot v0.4s, v1.16b, v2.16b
    for core, code in (("cortex-a53", 9), ("cortex-a76", 3)):  # 3: no function of ONNX Runtime in it, but it was opened
        answer = ekrun("run", *args, program=[*board_argv(core), str(built()["aarch64"])])
        assert answer.code == code
        if code == 9:
            assert "illegal instruction 4e829420 at" in answer.json["error"]["message"]
            assert answer.json["error"]["instruction"] == "2094824e"
            error = failure(completed(answer), "board")
            assert isinstance(error, TargetIncompatible)
            assert "needs asimddp, the dot product" in str(error)


@pytest.mark.board
def test_an_engine_on_a_core_that_promises_too_much(tmp_path: Path) -> None:
    """A53 under the /proc/cpuinfo of an A76: ONNX Runtime believes it, and `run` leaves no file."""
    require_board()
    weights = np.arange(64 * 64, dtype=np.int8).reshape(64, 64)
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("MatMulInteger", ["q", "w", "z"], ["y"]),
    ]
    ports = [("x", TensorProto.FLOAT, [1, 64])], [("y", TensorProto.INT32, [1, 64])]
    model = save_model(tmp_path / "m.onnx", nodes, *ports, {"w": weights})
    library = native_library("onnxruntime", "1.32.0", "aarch64", default_cache()).library
    args = ["--engine", "onnxruntime", "--lib", library, "--model", model, "--threads", 1, "--out", tmp_path / "out"]
    args += feed_args(tmp_path, {"x": np.ones((2, 1, 64), np.float32)})
    qemu, option, _, *root = board_argv("cortex-a76")
    honest = ekrun("run", *args, program=[qemu, option, "cortex-a76", *root, str(built()["aarch64"])])
    assert (honest.code, len(list((tmp_path / "out").iterdir()))) == (0, 1)
    answer = ekrun("run", *args, program=[qemu, option, "cortex-a53", *root, str(built()["aarch64"])])
    assert answer.code == 9
    assert answer.json["error"]["object"].endswith("/libonnxruntime.so.1.32.0")
    assert "needs asimddp, the dot product" in str(failure(completed(answer), "board"))
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.board
def test_an_emulated_x86_says_what_it_lacks(tmp_path: Path) -> None:
    require_board("qemu-x86_64-static")
    qemu = ["qemu-x86_64-static", "-cpu", "Haswell"]
    answer = ekrun(
        "run", *compile_engine(tmp_path, traps("vpdpbusd %zmm0, %zmm1, %zmm2")), program=[*qemu, str(built()["x86_64"])]
    )
    assert answer.code == 9
    assert "needs avx512_vnni, the AVX-512 dot product" in str(failure(completed(answer), "board"))


def completed(answer: Answer) -> Completed:
    return Completed(answer.code, json.dumps(answer.json).encode(), answer.stderr.encode(), 0.1)


# -------------------------------------------------------------------------------------------------------- memory limit


def own_group() -> Path | None:
    """This process's memory control group (v1), where it may make groups below it."""
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    paths = [line.split(":", 2)[2] for line in lines if "memory" in line.split(":")[1].split(",")]
    mount = Path("/sys/fs/cgroup/memory")
    if not paths or not mount.is_dir():
        return None
    group = mount / paths[0].lstrip("/")
    group = group if group.is_dir() else mount
    return group if os.access(group, os.W_OK) else None


@pytest.fixture
def group() -> Path:
    found = own_group()
    if found is None:
        pytest.skip("no memory control group (v1) may be made here")
    return found


def left_in(group: Path) -> list[str]:
    return [path.name for path in group.glob("ekrun-*")]


@pytest.fixture
def without_groups() -> list[str]:
    """ekrun where no control group may be made."""
    if own_group() is None:
        return [str(built()["x86_64"])]
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("control groups cannot be hidden here")
    hide = 'mount -t tmpfs none /sys/fs/cgroup && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", hide, "sh", str(built()["x86_64"])]


def hungry_model(path: Path, mib: int) -> Path:
    """n[1] int64 -> a constant of n floats, and its sum: ONNX Runtime makes it when it runs."""
    nodes = [
        helper.make_node("ConstantOfShape", ["n"], ["c"], value=helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0])),
        helper.make_node("ReduceSum", ["c"], ["y"]),
    ]
    return save_model(path, nodes, [("n", TensorProto.INT64, [1])], [("y", TensorProto.FLOAT, None)])


def hungry_args(folder: Path, mib: int) -> list[object]:
    feed = {"n": np.array([[mib * MIB // 4]], np.int64)}
    return [*engine_args("onnxruntime", hungry_model(folder / "h.onnx", mib)), *feed_args(folder, feed)]


def bench_once(folder: Path, mib: int, limit_mib: int, program: list[str] | None = None) -> Answer:
    limit = ["--memory-limit", limit_mib * MIB]
    return ekrun("bench", *hungry_args(folder, mib), "--runs", 1, *limit, program=program or ())


def test_a_model_that_fits_its_group(tmp_path: Path, group: Path) -> None:
    answer = bench_once(tmp_path, 64, 256)
    assert answer.json["memory_limit"] == {"bytes": 256 * MIB, "kind": "cgroup"}
    limit = parse(completed(answer), BenchReply, "x").memory_limit
    assert limit is not None
    assert (limit.bytes, limit.kind) == (256 * MIB, "cgroup")
    assert until(lambda: not left_in(group))


def test_a_model_that_outgrows_its_group_is_killed(tmp_path: Path, group: Path) -> None:
    answer = bench_once(tmp_path, 512, 256)
    assert answer.code == -signal.SIGKILL
    assert until(lambda: not left_in(group))


def test_a_model_that_fits_the_data_limit(tmp_path: Path, without_groups: list[str]) -> None:
    answer = bench_once(tmp_path, 64, 256, without_groups)
    assert answer.code == 0, answer.stderr
    assert answer.json["memory_limit"] == {"bytes": 256 * MIB, "kind": "rlimit_data"}


def test_a_model_that_outgrows_the_data_limit_is_told_so(tmp_path: Path, without_groups: list[str]) -> None:
    answer = bench_once(tmp_path, 512, 256, without_groups)
    assert (answer.code, answer.json["error"]["code"]) == (11, "out_of_memory")


def test_a_hierarchy_that_cannot_be_written_is_left_alone(tmp_path: Path) -> None:
    """Under v2 files only: a folder can be made there, but nothing set in it. It goes at once."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("control groups cannot be hidden here")
    files = "cd /sys/fs/cgroup && echo memory >cgroup.subtree_control && echo memory >cgroup.controllers"
    hide = f'mount -t tmpfs none /sys/fs/cgroup && {files} && cd / && "$@" && ls /sys/fs/cgroup >&2'
    program = ["unshare", "--mount", "sh", "-c", hide, "sh", str(built()["x86_64"])]
    answer = bench_once(tmp_path, 1, 256, program)
    assert answer.json["memory_limit"] == {"bytes": 256 * MIB, "kind": "rlimit_data"}
    assert answer.stderr == "cgroup.controllers\ncgroup.subtree_control\n"


def test_an_engine_that_cannot_make_its_threads_is_out_of_memory(tmp_path: Path, without_groups: list[str]) -> None:
    model = save_ir(conv_model(tmp_path / "m.onnx"))
    args = [*engine_args("openvino", model, threads=2), *feed_args(tmp_path, conv_feed())]
    answer = ekrun("bench", *args, "--runs", 1, "--memory-limit", 24 * MIB, program=without_groups)
    assert (answer.code, answer.json["error"]["code"]) == (11, "out_of_memory")


def test_no_limit_is_null(tmp_path: Path) -> None:
    answer = ekrun("run", *hungry_args(tmp_path, 1), "--out", tmp_path / "out")
    assert answer.json["memory_limit"] is None


def test_the_group_goes_with_a_process_that_is_killed_with_its_own(tmp_path: Path, group: Path) -> None:
    limit = ["--memory-limit", 64 * MIB]
    with started("run", *compile_engine(tmp_path, SLEEPER), *limit) as process:
        wait_until_open(process)
        folder = group / f"ekrun-{process.pid}"
        assert (folder / "memory.limit_in_bytes").read_text() == f"{64 * MIB}\n"
        assert (folder / "cgroup.procs").read_text() == f"{process.pid}\n"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert until(lambda: not folder.exists())


def test_the_janitor_holds_nothing_of_the_callers(tmp_path: Path, group: Path) -> None:
    limit = ["--memory-limit", 64 * MIB]
    with started("run", *compile_engine(tmp_path, SLEEPER), *limit) as process:
        wait_until_open(process)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(children) == 1
        open_files = Path(f"/proc/{children[0]}/fd")
        assert until(lambda: len(list(open_files.iterdir())) == 1)
        assert os.getsid(int(children[0])) == int(children[0])


def test_a_group_whose_janitor_was_killed_goes_with_the_next_run(tmp_path: Path, group: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    left = group / f"ekrun-{dead.pid}"
    left.mkdir()
    bench_once(tmp_path, 1, 256)
    assert not left.exists()
    assert until(lambda: not left_in(group))


def test_a_limit_under_an_address_space_that_is_smaller(tmp_path: Path) -> None:
    """The limits of the caller still hold."""
    before = lambda: resource.setrlimit(resource.RLIMIT_AS, (48 * MIB,) * 2)  # noqa: E731
    answer = ekrun("bench", *hungry_args(tmp_path, 64), "--runs", 1, "--memory-limit", 256 * MIB, before=before)
    assert answer.code in (3, 11)


@pytest.mark.parametrize("value", ["0", "1048575", "-1", "128MiB", "9223372036854775808"])
def test_a_limit_is_a_number_of_bytes(tmp_path: Path, value: str) -> None:
    answer = ekrun("run", *hungry_args(tmp_path, 1), "--out", tmp_path / "out", "--memory-limit", value)
    assert (answer.code, answer.json["error"]["code"]) == (2, "usage")


@pytest.mark.board
def test_a_limit_is_refused_under_emulation(tmp_path: Path) -> None:
    require_board()
    args = [*compile_engine(tmp_path, SLEEPER, "aarch64"), "--memory-limit", 64 * MIB]
    answer = ekrun("run", *args, program=[*board_argv("cortex-a53"), str(built()["aarch64"])])
    assert (answer.code, answer.json["error"]["code"]) == (2, "usage")
    assert "emulation" in answer.json["error"]["message"]
