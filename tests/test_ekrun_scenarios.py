"""`ekrun bench --scenario`: what each scenario means, streams, raw samples, the trace beside a run, and `ekrun layers`.

Meaning, not speed: bounds are such that a busy machine does not break them.
"""

import functools
import itertools
import json
import resource
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from onnx import TensorProto, helper

from edgekit.core.profile import Kind, Scenario
from edgekit.core.types import RunConfig
from edgekit.engines.closure import native_library
from edgekit.errors import DeviceError, UsageError
from edgekit.process import Completed
from edgekit.runner.build import SOURCES
from edgekit.runner.client import Feeds, Runnable, parse
from edgekit.runner.layers import OpenvinoLayer, openvino_layers, ort_layers
from edgekit.runner.scenarios import (
    LayersReply,
    ScenarioReply,
    layers_arguments,
    raw_samples,
    scenario_arguments,
)
from tests.board import default_cache, emulated
from tests.conftest import thorough
from tests.ekrun_tools import (
    Answer,
    built,
    conv_feed,
    conv_model,
    ekrun,
    engine_args,
    feed_args,
    library,
    outputs,
    plant,
    save_ir,
    save_model,
    zig_part,
)

ENGINES = ["onnxruntime", "openvino"]
SECOND = 1e9


def tiny(folder: Path, engine: str = "onnxruntime", threads: int = 2) -> list[str]:
    """A model of some 50 us."""
    model = conv_model(folder / "m.onnx")
    source = model if engine == "onnxruntime" else save_ir(model)
    return [*engine_args(engine, source, threads=threads), *feed_args(folder, conv_feed(10))]


def slow(folder: Path) -> list[str]:
    """A model of 20 ms and more: 16 products of 512 x 512 matrices."""
    weights = (np.eye(512) * 0.5).astype(np.float32)
    nodes = [helper.make_node("MatMul", [f"x{k}", "w"], [f"x{k + 1}"]) for k in range(16)]
    shape = [512, 512]
    model = save_model(
        folder / "slow.onnx",
        nodes,
        [("x0", TensorProto.FLOAT, shape)],
        [("x16", TensorProto.FLOAT, shape)],
        {"w": weights},
    )
    feed = {"x0": np.ones((1, *shape), np.float32)}
    off = ["--option", "graph_optimization=disable"]
    return [*engine_args("onnxruntime", model), *off, *feed_args(folder, feed)]


def measure(args: list[str], kind: str, *more: object) -> ScenarioReply:
    """One scenario, its answer checked for every type."""
    answer = ekrun("bench", *args, "--scenario", kind, *more)
    assert answer.code == 0, answer.stderr
    return msgspec.convert(answer.json, ScenarioReply)


def recorded(folder: Path, args: list[str], kind: str, *more: object) -> tuple[ScenarioReply, np.ndarray, np.ndarray]:
    """As `measure`, with starts and latencies."""
    reply = measure(args, kind, *more, "--latencies", folder / "raw.npy")
    assert reply.latencies_ns is None
    raw = np.load(folder / "raw.npy")
    assert (raw.dtype, raw.shape) == (np.int64, (reply.count, 2))
    return reply, raw[:, 0], raw[:, 1]


# ------------------------------------------------------------------------------------------------------------ scenarios


def test_single_stream_begins_a_query_when_the_one_before_is_done(tmp_path: Path) -> None:
    reply, starts, latencies = recorded(tmp_path, tiny(tmp_path), "single-stream", "--duration", 0.2, "--min-runs", 50)
    assert reply.count == reply.inferences >= 50
    assert (starts[1:] >= (starts + latencies)[:-1]).all()
    assert reply.span_ns >= 0.2 * SECOND
    assert (reply.wait_ns, reply.late_ns, reply.scheduled) == (None, None, None)
    assert reply.call_ns is not None
    assert reply.call_ns.max == latencies.max()
    assert reply.call_ns.mean == latencies.sum() // len(latencies)
    median = np.sort(latencies)[(len(latencies) - 1) // 2]  # of an even count the lower one, as ekrun has it
    assert median <= reply.call_ns.p50 <= median * 1.04


@pytest.mark.parametrize("ends", [("--min-runs", 7), ("--min-runs", 7, "--duration", "0.0001")])
def test_both_ends_of_a_run_count(tmp_path: Path, ends: tuple[object, ...]) -> None:
    assert measure(tiny(tmp_path), "single-stream", *ends).count == 7


@pytest.mark.parametrize("engine", ENGINES)
def test_offline_streams_run_at_the_same_time(tmp_path: Path, engine: str) -> None:
    reply, starts, latencies = recorded(tmp_path, tiny(tmp_path, engine), "offline", "--duration", 0.3, "--streams", 2)
    ends = starts + latencies
    assert reply.count == reply.inferences == len(starts)
    assert reply.resident_samples == 10
    assert (starts[1:] < ends[:-1]).any(), "no call began before the one before it had ended"
    alone, starts, latencies = recorded(tmp_path, tiny(tmp_path, engine), "offline", "--duration", 0.1)
    assert (starts[1:] >= (starts + latencies)[:-1]).all()
    assert alone.resident_bytes == 10 * 8 * 32 * 32 * 4


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("streams", [1, 3])
def test_a_multi_stream_query_ends_with_its_last_sample(tmp_path: Path, engine: str, streams: int) -> None:
    args = tiny(tmp_path, engine)
    reply, starts, latencies = recorded(
        tmp_path, args, "multi-stream", "--samples-per-query", 5, "--min-runs", 60, "--streams", streams
    )
    assert (reply.count, reply.inferences) == (60, 300)
    assert (starts[1:] >= (starts + latencies)[:-1]).all(), "one query at a time"
    assert reply.call_ns is not None
    assert latencies.max() >= reply.call_ns.max, "a query is not over before its slowest member"
    assert latencies.sum() * streams >= reply.call_ns.mean * reply.inferences, (
        "nor do streams do more than one call at a time"
    )
    if streams == 1:
        assert latencies.sum() >= reply.call_ns.mean * reply.inferences


def test_a_query_has_eight_samples_unless_told(tmp_path: Path) -> None:
    reply = measure(tiny(tmp_path), "multi-stream", "--min-runs", 3)
    assert reply.inferences == 24


def test_server_arrivals_are_poisson_and_repeat_by_seed(tmp_path: Path) -> None:
    args = tiny(tmp_path)
    starts = [
        recorded(tmp_path, args, "server", "--qps", 4000, "--duration", 0.5, "--streams", 2, "--seed", seed)[1]
        for seed in (7, 7, 8)
    ]
    common = min(map(len, starts))
    assert np.array_equal(starts[0][:common], starts[1][:common])
    assert not np.array_equal(starts[0][:common], starts[2][:common])
    gaps = np.diff(starts[0])
    assert len(gaps) > 1700
    assert gaps.min() >= 0
    assert abs(gaps.mean() / 2.5e5 - 1) < 0.1, "four standard deviations of 2000 gaps"
    assert abs(gaps.std() / gaps.mean() - 1) < 0.1, "an even pace would have none"


def test_server_latency_counts_from_the_scheduled_arrival(tmp_path: Path) -> None:
    reply, _, latencies = recorded(tmp_path, tiny(tmp_path), "server", "--qps", 200, "--duration", 0.5)
    assert reply.scheduled == reply.count
    assert not reply.overloaded
    assert reply.wait_ns is not None and reply.late_ns is not None and reply.call_ns is not None
    assert reply.wait_ns.count == reply.count >= reply.late_ns.count > 0
    whole = (reply.wait_ns.mean + reply.call_ns.mean) * reply.count
    assert abs(latencies.sum() - whole) <= 2 * reply.count, "waiting and the call, but for rounding"


def test_an_overloaded_server_says_so_and_ends(tmp_path: Path) -> None:
    before = time.monotonic()
    reply, starts, latencies = recorded(tmp_path, slow(tmp_path), "server", "--qps", 20000, "--duration", 0.4)
    assert time.monotonic() - before < 20
    assert reply.scheduled is not None and reply.dropped is not None and reply.unfinished is not None
    assert reply.scheduled == reply.count + reply.dropped + reply.unfinished
    assert reply.overloaded
    assert (reply.unfinished > 0, reply.dropped > 0, reply.longest_queue) == (True, True, 4096)
    assert reply.queries_per_second < 2000
    assert latencies[-1] > 1.3 * SECOND, "served until 1 s after the last arrival, and the wait is in the latency"
    assert (np.diff(starts) >= 0).all()


def test_a_slow_model_misses_frames(tmp_path: Path) -> None:
    reply, starts, latencies = recorded(tmp_path, slow(tmp_path), "fixed-rate", "--fps", 400, "--duration", 0.5)
    assert (reply.scheduled, reply.unfinished) == (200, None)
    assert reply.dropped is not None and reply.dropped > 100
    assert reply.count + reply.dropped == 200
    period = SECOND / 400
    assert np.allclose(starts / period, np.round(starts / period), atol=1e-3), (
        "latency counts from the frame's own time"
    )
    assert reply.deadline_misses == reply.dropped + (latencies > period).sum()
    begun_after = (starts + latencies)[:-1]
    earlier = starts[1:] < 199 * period - 1  # after the last frame comes no newer one
    assert (starts[1:] > begun_after - period)[earlier].all(), "the newest frame is taken, not the oldest"


def test_a_fast_model_keeps_up_with_the_camera(tmp_path: Path) -> None:
    reply, starts, _ = recorded(tmp_path, tiny(tmp_path), "fixed-rate", "--fps", 4, "--duration", 1.1)
    assert (reply.count, reply.dropped, reply.deadline_misses) == (5, 0, 0)
    assert np.diff(starts).tolist() == [SECOND / 4] * 4


def test_state_goes_through_a_scenario(tmp_path: Path) -> None:
    """y = x + s, s the y before: each scenario takes it, on one stream."""
    shape = [1]
    model = save_model(
        tmp_path / "m.onnx",
        [helper.make_node("Add", ["x", "s"], ["y"])],
        [("x", TensorProto.FLOAT, shape), ("s", TensorProto.FLOAT, shape)],
        [("y", TensorProto.FLOAT, shape)],
    )
    args = [
        *engine_args("onnxruntime", model),
        *feed_args(tmp_path, {"x": np.ones((4, 1), np.float32)}),
        "--state",
        "y=s",
    ]
    for kind in ("single-stream", "multi-stream", "offline"):
        assert measure(args, kind, "--min-runs", 9).count == 9
    assert ekrun("bench", *args, "--scenario", "offline", "--min-runs", 9, "--streams", 2).code == 2


WRONG = {
    "no end": ["--scenario", "offline"],
    "unknown": ["--scenario", "batch", "--min-runs", 1],
    "two ways": ["--scenario", "offline", "--min-runs", 1, "--runs", 1],
    "streams without a scenario": ["--runs", 1, "--streams", 2],
    "streams of one": ["--scenario", "single-stream", "--min-runs", 1, "--streams", 2],
    "too many streams": ["--scenario", "offline", "--min-runs", 1, "--streams", 65],
    "no qps": ["--scenario", "server", "--min-runs", 1],
    "qps elsewhere": ["--scenario", "offline", "--min-runs", 1, "--qps", 5],
    "no fps": ["--scenario", "fixed-rate", "--min-runs", 1],
    "infinite": ["--scenario", "offline", "--duration", "inf"],
    "hexadecimal": ["--scenario", "offline", "--duration", "0x10"],
    "zero": ["--scenario", "server", "--min-runs", 1, "--qps", 0],
    "never": ["--scenario", "server", "--min-runs", 1, "--qps", "1e-9"],
    "negative": ["--scenario", "offline", "--duration", "-1"],
    "nothing": ["--scenario", "offline", "--duration", ""],
    "a seed elsewhere": ["--scenario", "offline", "--min-runs", 1, "--seed", 1],
    "a duration elsewhere": ["--runs", 1, "--duration", 1],
    "latencies elsewhere": ["--runs", 1, "--latencies", "x.npy"],
}


@pytest.mark.parametrize("words", WRONG.values(), ids=WRONG)
def test_what_makes_no_sense_is_a_usage_error(tmp_path: Path, words: list[object]) -> None:
    answer = ekrun("bench", *tiny(tmp_path), *words)
    assert (answer.code, answer.json["error"]["code"]) == (2, "usage")


# -------------------------------------------------------------------------------------------------- several at one time


@pytest.mark.parametrize("engine", ENGINES)
def test_streams_give_the_outputs_of_one_bit_for_bit(tmp_path: Path, engine: str) -> None:
    args = tiny(tmp_path, engine)
    (alone,) = outputs(ekrun("run", *args, "--out", tmp_path / "1"), tmp_path / "1")
    assert len(np.unique(alone.reshape(10, -1), axis=0)) == 10, (
        "samples that could not be told apart would prove nothing"
    )
    for streams in (2, 4, 16):
        (together,) = outputs(ekrun("run", *args, "--streams", streams, "--out", tmp_path / "n"), tmp_path / "n")
        assert np.array_equal(alone, together)


def test_a_stream_that_fails_ends_the_run_with_one_answer(tmp_path: Path) -> None:
    """Reshape to a shape from the feed: a wrong one is noticed by the engine only, on every stream at the same time."""
    model = save_model(
        tmp_path / "m.onnx",
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        [("x", TensorProto.FLOAT, [6]), ("shape", TensorProto.INT64, [2])],
        [("y", TensorProto.FLOAT, ["a", "b"])],
    )
    shapes = np.array([[2, 3]] + [[4, 4]] * 7)
    feeds: dict[str, np.ndarray] = {"x": np.ones((8, 6), np.float32), "shape": shapes.astype(np.int64)}
    args = [*engine_args("onnxruntime", model), *feed_args(tmp_path, feeds)]
    raw = tmp_path / "raw.npy"
    words = ["--scenario", "offline", "--streams", "4", "--min-runs", "100", "--latencies", str(raw)]
    argv = [str(built()["x86_64"]), "bench", *args, *words]
    done = subprocess.run(argv, capture_output=True, timeout=60)
    assert done.returncode == 6
    assert [msgspec.json.decode(line)["error"]["code"] for line in done.stdout.splitlines()] == ["inference_failed"]
    assert list(tmp_path.glob("raw*")) == []


def compiled(folder: Path, sources: Sequence[Path], flags: Sequence[str]) -> dict[str, Path]:
    """Object files by the name of their source."""
    folder.mkdir(exist_ok=True)
    files = [str(path.resolve()) for path in sources]
    argv = ["gcc", "-std=c11", "-g", "-O0", "-Wall", "-Wextra", "-Werror", *flags, f"-I{SOURCES}", "-c", *files]
    subprocess.run(argv, cwd=folder, check=True)
    return {path.name: folder / f"{path.stem}.o" for path in sources}


def linked(out: Path, objects: Mapping[str, Path], *flags: str) -> Path:
    """An executable of the objects and of what is Zig in ekrun."""
    argv = ["gcc", *flags, *map(str, objects.values()), str(zig_part()), "-ldl", "-lm", "-lpthread", "-o", str(out)]
    subprocess.run(argv, check=True)
    return out


def everything() -> list[Path]:
    return sorted(SOURCES.glob("*.c"))


@pytest.fixture(scope="module")
def race_checked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """All of ekrun under the thread sanitizer."""
    return compiled(tmp_path_factory.mktemp("tsan"), everything(), ["-fsanitize=thread"])


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of ekrun under the address and undefined-behaviour sanitizers."""
    folder, flags = tmp_path_factory.mktemp("asan"), ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    return linked(folder / "ekrun", compiled(folder, everything(), flags), *flags)


SCENARIOS: dict[Kind, list[object]] = {
    "multi-stream": [],
    "server": ["--qps", 3000],
    "offline": [],
    "fixed-rate": ["--fps", 500],
}


@thorough
def test_no_data_race_between_streams(tmp_path: Path, race_checked: dict[str, Path]) -> None:
    # OpenVINO opens a library in a way the sanitizer's runtime refuses: ONNX Runtime only
    checked = [str(linked(tmp_path / "ekrun", race_checked, "-fsanitize=thread"))]
    for kind, more in SCENARIOS.items():
        words = ["--scenario", kind, *more, "--streams", 3, "--min-runs", 100, "--sample-ms", 5]
        answer = ekrun(
            "bench", *tiny(tmp_path, threads=1), *words, "--latencies", tmp_path / "raw.npy", program=checked
        )
        assert (answer.code, answer.stderr) == (0, "")
    answer = ekrun("run", *tiny(tmp_path, threads=1), "--streams", 3, "--out", tmp_path / "o", program=checked)
    assert (answer.code, answer.stderr) == (0, "")


@thorough
def test_a_missing_lock_is_noticed(tmp_path: Path, race_checked: dict[str, Path]) -> None:
    """Negative control of the test above."""
    source, lock = (SOURCES / "scenario.c").read_text(), "pthread_mutex_lock(&l->lock);\n    l->inferences++;"
    assert lock in source
    (tmp_path / "scenario.c").write_text(source.replace(lock, "l->inferences++;"))
    changed = compiled(tmp_path, [tmp_path / "scenario.c"], ["-fsanitize=thread"])
    broken = [str(linked(tmp_path / "ekrun", race_checked | changed, "-fsanitize=thread"))]
    words = ["--scenario", "offline", "--streams", 3, "--min-runs", 300]
    answer = ekrun("bench", *tiny(tmp_path, threads=1), *words, program=broken)
    assert "data race" in answer.stderr or "unlock of an unlocked mutex" in answer.stderr


@thorough
@pytest.mark.parametrize("kind", SCENARIOS)
def test_scenarios_under_the_address_sanitizer(tmp_path: Path, sanitized: Path, kind: Kind) -> None:
    words = ["--scenario", kind, *SCENARIOS[kind], "--streams", 3, "--min-runs", 100, "--sample-ms", 1]
    answer = ekrun("bench", *tiny(tmp_path), *words, program=[str(sanitized)], env={"ASAN_OPTIONS": "detect_leaks=0"})
    assert answer.code == 0, answer.stderr
    assert "runtime error" not in answer.stderr


# ---------------------------------------------------------------------------------------------------------- raw samples


def relu(folder: Path) -> list[str]:
    """A model of a few microseconds."""
    value = (TensorProto.FLOAT, [1])
    model = save_model(folder / "r.onnx", [helper.make_node("Relu", ["x"], ["y"])], [("x", *value)], [("y", *value)])
    return [*engine_args("onnxruntime", model), *feed_args(folder, {"x": np.ones((1, 1), np.float32)})]


@pytest.mark.parametrize("count", [1, 4096, 50_001])
def test_raw_samples_in_chunks(tmp_path: Path, count: int) -> None:
    reply, starts, latencies = recorded(tmp_path, relu(tmp_path), "single-stream", "--min-runs", count)
    assert reply.count == count
    assert (starts[1:] >= (starts + latencies)[:-1]).all()
    assert latencies.min() > 0
    read = raw_samples((tmp_path / "raw.npy").read_bytes(), "raw.npy")
    assert np.array_equal(read.start_ns, starts)
    assert np.array_equal(read.latency_ns, latencies)


def test_raw_samples_of_several_streams_lose_none(tmp_path: Path) -> None:
    reply, starts, latencies = recorded(tmp_path, relu(tmp_path), "offline", "--min-runs", 30_000, "--streams", 4)
    assert reply.count == reply.inferences >= 30_000
    assert reply.call_ns is not None
    assert reply.call_ns.mean == latencies.sum() // reply.count
    assert starts.min() >= 0 and latencies.min() > 0


def test_memory_does_not_grow_with_the_run(tmp_path: Path) -> None:
    few, many = (
        recorded(tmp_path, relu(tmp_path), "single-stream", "--min-runs", count)[0].memory["peak_inference_rss"]
        for count in (10, 200_000)
    )
    assert few is not None and many is not None
    assert many < few + (1 << 20), "16 bytes for each would be 3.2 MB"


def test_without_a_file_the_answer_lists_them(tmp_path: Path) -> None:
    reply = measure(relu(tmp_path), "single-stream", "--min-runs", 9000)
    assert reply.latencies_ns is not None
    assert len(reply.latencies_ns) == reply.count == 9000
    assert reply.call_ns is not None and reply.call_ns.max == max(reply.latencies_ns)


@pytest.mark.parametrize("full", [False, True], ids=["no folder", "no room"])
def test_raw_samples_are_complete_or_absent(tmp_path: Path, full: bool) -> None:
    args = relu(tmp_path)
    raw = tmp_path / "raw.npy" if full else tmp_path / "none" / "raw.npy"
    if full:
        raw.write_bytes(b"an older run's")
    limit = functools.partial(resource.setrlimit, resource.RLIMIT_FSIZE, (100_000, 100_000)) if full else None
    words = ["--scenario", "single-stream", "--min-runs", 20_000, "--latencies", raw]
    answer = ekrun("bench", *args, *words, before=limit)
    assert (answer.code, answer.json["error"]["code"]) == (7, "io")
    assert list(tmp_path.glob("**/raw*")) == []


def npy(shape: str = "(1,2,)", data: bytes = bytes(16), descr: str = "<i8") -> bytes:
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


def test_a_file_of_raw_samples_is_untrusted() -> None:
    assert list(raw_samples(npy(), "raw").latency_ns) == [0]
    hostile = [b"", npy()[:40], npy()[:-1], npy("(2,2,)"), npy("(-1,2,)", b""), npy(descr="|O"), npy()[:9], b"\0" * 99]
    for data in hostile:
        with pytest.raises(DeviceError):
            raw_samples(data, "raw")


# ---------------------------------------------------------------------------------------------------------------- trace


@pytest.mark.parametrize("way", [["--scenario", "offline", "--duration", "0.3", "--streams", "2"], ["--runs", "3000"]])
def test_a_trace_beside_a_run(tmp_path: Path, way: list[str]) -> None:
    answer = ekrun("bench", *tiny(tmp_path), *way, "--sample-ms", 5)
    assert answer.code == 0, answer.stderr
    trace = answer.json["trace"]
    times = [look["t_ms"] for look in trace]
    assert times == sorted(times)
    assert times[0] <= 0 < times[-1]
    assert times[-1] >= answer.json["wall_ns"] / 1e6 * 0.95
    assert len(trace) >= 3
    for name in ("own_cpu_ns", "voluntary_switches", "minor_faults"):
        assert all(a[name] <= b[name] for a, b in itertools.pairwise(trace)), name
    used = trace[-1]["own_cpu_ns"] - trace[0]["own_cpu_ns"]
    assert used >= answer.json["cpu_ns"] * 0.9
    assert trace[-1]["cpu_jiffies"]["user"] >= trace[0]["cpu_jiffies"]["user"] > 0
    assert trace[0]["load"] >= 0


def test_nothing_is_sampled_unless_asked(tmp_path: Path) -> None:
    for way in (["--runs", "5"], ["--scenario", "offline", "--min-runs", "5"]):
        assert "trace" not in ekrun("bench", *tiny(tmp_path), *way).json


def test_bursts_on_stdin_have_a_trace_each(tmp_path: Path) -> None:
    argv = [str(built()["x86_64"]), "bench", *tiny(tmp_path), "--stdin", "--sample-ms", "5"]
    done = subprocess.run(argv, input=b"go 200\ngo 200\nquit\n", capture_output=True, timeout=60, check=True)
    ready, *ran, closed = map(msgspec.json.decode, done.stdout.splitlines())
    assert [len(answer["latencies_ns"]) for answer in ran] == [200, 200]
    assert all(len(answer["trace"]) >= 2 for answer in ran)
    assert "trace" not in ready and "trace" not in closed


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The sampler alone, below a planted root, by the most looks it keeps."""
    folder = tmp_path_factory.mktemp("programs")
    main = Path(__file__).parent / "runner/sampler_probe.c"
    parts = [path for path in everything() if path.name != "main.c"]
    plain = compiled(folder / "plain", [main, *parts], [])
    small = plain | compiled(folder / "small", [SOURCES / "sampler.c"], ["-DMOST_LOOKS=8"])
    return {4000: linked(folder / "4000", plain), 8: linked(folder / "8", small)}


BOARD = {
    "proc/stat": "cpu  100 10 20 4000 5 2 3 7 0 0\ncpu0 1 2 3\n",
    "proc/loadavg": "0.25 0.1 0.0 1/100 5\n",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq": "1500000\n",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_governor": "ondemand\n",
    "sys/devices/system/cpu/cpufreq/policy4/scaling_cur_freq": "nonsense\n",
    "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "3\n",
    "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count": "4\n",
    "sys/class/thermal/thermal_zone0/temp": "48312\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone1/temp": "-5000\n",
    "sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n",
}


CHANGED = ("sys/class/thermal/thermal_zone0/temp", "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq")


def look_at(root: Path, tree: dict[str, str], program: Path) -> dict[str, Any]:
    answer: Answer = ekrun(plant(root, tree), 20, 600, program=[str(program)])
    assert answer.code == 0, answer.stderr
    return answer.json


def test_frequencies_temperatures_and_throttling_are_followed(tmp_path: Path, programs: dict[int, Path]) -> None:
    seen = look_at(tmp_path, BOARD, programs[4000])
    first, last = seen["trace"][0], seen["trace"][-1]
    assert (seen["trace_policies"], seen["trace_zones"]) == ([0, 4], ["cpu-thermal", ""])
    assert seen["governors"] == {"policy0": "ondemand"}
    assert (first["khz"], last["khz"]) == ([1500000, None], [600000, None])
    assert (first["millideg"], last["millideg"]) == ([48312, -5000], [85000, -5000])
    assert (first["throttle_flags"], first["throttle_count"], first["load"]) == (0x50005, 7, 0.25)
    assert first["cpu_jiffies"] == {"user": 110, "system": 25, "idle": 4000, "iowait": 5, "steal": 7}


def test_a_long_trace_keeps_its_ends_and_every_second_look(tmp_path: Path, programs: dict[int, Path]) -> None:
    seen = look_at(tmp_path, BOARD, programs[8])
    times = [look["t_ms"] for look in seen["trace"]]
    assert 4 <= len(times) <= 8
    assert seen["trace_interval_ms"] in (40, 80, 160)
    assert times == sorted(times)
    assert times[0] < 200 < 599 < times[-1]


def test_a_board_that_tells_nothing_gives_null(tmp_path: Path, programs: dict[int, Path]) -> None:
    nothing = BOARD | dict.fromkeys(BOARD.keys() - set(CHANGED), "\xff")
    first, *_ = look_at(tmp_path, nothing, programs[4000])["trace"]
    assert first["cpu_jiffies"] == dict.fromkeys(("user", "system", "idle", "iowait", "steal"))
    assert first["load"] is first["throttle_flags"] is None


# --------------------------------------------------------------------------------------------------------------- layers


def test_layers_of_onnxruntime(tmp_path: Path) -> None:
    out = tmp_path / "profile"
    answer = ekrun("layers", *tiny(tmp_path), "--runs", 12, "--out", out)
    reply = msgspec.convert(answer.json, LayersReply)
    assert (reply.layers, reply.profile) == (None, "profile.json")
    assert [path.name for path in out.iterdir()] == ["profile.json"]
    profile = (out / "profile.json").read_bytes()
    layers = ort_layers(profile)
    assert any(layer.op == "Conv" and layer.exec_type == "CPUExecutionProvider" for layer in layers)
    assert sum(layer.share for layer in layers) == pytest.approx(1)
    assert sum(layer.mean_us for layer in layers) * 12 * 1e3 <= reply.calls_ns
    events = [event for event in msgspec.json.decode(profile) if event["name"] == "model_run"]
    assert len(events) == 13, "one more than asked, the first, which is not counted"


def test_layers_of_openvino(tmp_path: Path) -> None:
    answer = ekrun("layers", *tiny(tmp_path, "openvino"), "--runs", 12, "--out", tmp_path / "out")
    reply = msgspec.convert(answer.json, LayersReply)
    assert reply.layers is not None and reply.profile is None
    layers = openvino_layers(reply.layers)
    assert any(layer.op == "Convolution" and layer.exec_type for layer in layers)
    assert sum(layer.share for layer in layers) == pytest.approx(1)
    assert sum(layer.mean_us for layer in layers) * 12 * 1e3 <= reply.calls_ns * 1.2, "whole microseconds of each layer"


def test_a_failed_pass_leaves_no_profile(tmp_path: Path) -> None:
    args = tiny(tmp_path)
    np.save(tmp_path / "feed0.npy", np.zeros((1, 3), np.float32))
    answer = ekrun("layers", *args, "--runs", 3, "--out", tmp_path / "out")
    assert answer.code == 5
    assert list((tmp_path / "out").iterdir()) == []


def event(
    name: str = "n_kernel_time", cat: str = "Node", ts: int = 100, dur: int = 5, **args: object
) -> dict[str, object]:
    return {"cat": cat, "name": name, "ts": ts, "dur": dur, "args": args, "ph": "X", "pid": 1, "tid": 1}


RUNS = [
    event("model_run", "Session", 0, 50),
    event("model_run", "Session", 60, 50),
    event("model_run", "Session", 120, 50),
]


def test_the_first_inference_is_left_out() -> None:
    nodes = [
        event(ts=10, dur=40, op_name="Conv"),
        event(ts=70, dur=6, op_name="Conv"),
        event(ts=130, dur=2, op_name="Conv"),
    ]
    other = [event("m_kernel_time", ts=80, dur=12), event("n_fence_before", ts=71), event("thing", "Api", ts=72)]
    layers = ort_layers(msgspec.json.encode([*RUNS, *nodes, *other]))
    assert [(layer.name, layer.op, layer.mean_us, layer.share) for layer in layers] == [
        ("m", "", 6, 0.6),
        ("n", "Conv", 4, 0.4),
    ]


HOSTILE = {
    "empty": b"",
    "no list": b"{}",
    "text": b"Segmentation fault",
    "cut short": msgspec.json.encode([*RUNS, event()])[:-20],
    "no inference": b"[]",
    "one inference": msgspec.json.encode(RUNS[:1]),
    "negative": msgspec.json.encode([*RUNS, event(dur=-5)]),
    "huge": msgspec.json.encode(RUNS).replace(b'"dur":50', b'"dur":' + b"9" * 400),
    "a type": msgspec.json.encode([*RUNS, event(op_name=7)]),
    "deep": b"[" * 100_000,
    "not utf-8": msgspec.json.encode(RUNS).replace(b"model_run", b"\xff\xfe"),
}


@pytest.mark.parametrize("profile", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_profile_is_a_device_error(profile: bytes) -> None:
    with pytest.raises(DeviceError):
        ort_layers(profile)


def test_numbers_beyond_64_bits_are_out_of_protocol(tmp_path: Path) -> None:
    answer = ekrun(
        "bench", *tiny(tmp_path), "--scenario", "server", "--qps", 50, "--min-runs", 2, "--sample-ms", 5
    ).json
    msgspec.convert(answer, ScenarioReply)
    huge = 10**400
    look = answer["trace"][0]
    wrong = [{"span_ns": huge}, {"call_ns": answer["call_ns"] | {"max": huge}}]
    wrong += [
        {"trace": [look | change]}
        for change in ({"khz": [huge]}, {"own_cpu_ns": -huge}, {"cpu_jiffies": {"user": huge}})
    ]
    for change in wrong:
        with pytest.raises(DeviceError):
            parse(Completed(0, json.dumps(answer | change).encode(), b"", wall_s=0.0), ScenarioReply, "board")


@pytest.mark.parametrize(("real_us", "runs"), [(-1, 1), (1, 0)])
def test_hostile_layers_are_a_device_error(real_us: int, runs: int) -> None:
    with pytest.raises(DeviceError):
        openvino_layers([OpenvinoLayer("a", "Add", None, real_us, 0, runs)])


# --------------------------------------------------------------------------------------------------------------- client


def runnable(folder: Path, threads: int = 1) -> tuple[Runnable, Feeds]:
    np.save(folder / "x.npy", conv_feed()["x"])
    model = conv_model(folder / "m.onnx")
    run = RunConfig(threads=threads)
    return Runnable("onnxruntime", Path(library("onnxruntime")), model, run), Feeds({"x": folder / "x.npy"})


CASES = [
    Scenario(duration_s=0.05, min_runs=3),
    Scenario("multi-stream", min_runs=3, streams=2, samples_per_query=3),
    Scenario("server", min_runs=3, qps=900, seed=5, streams=2),
    Scenario("offline", duration_s=0.05, streams=2),
    Scenario("fixed-rate", min_runs=3, fps=100),
]


@pytest.mark.parametrize("scenario", CASES, ids=lambda case: case.kind)
def test_the_arguments_and_the_answer_of_each_scenario(tmp_path: Path, scenario: Scenario) -> None:
    raw = tmp_path / "raw.npy"
    words = scenario_arguments(*runnable(tmp_path), scenario, warmup=1, latencies=raw, sample_ms=5)
    done = subprocess.run([str(built()["x86_64"]), *words], capture_output=True, timeout=60)
    completed = Completed(done.returncode, done.stdout, done.stderr, wall_s=0.0)
    reply = parse(completed, ScenarioReply, "local")
    assert reply.count + (reply.dropped or 0) >= 3
    assert len(raw_samples(raw.read_bytes(), "raw").start_ns) == reply.count
    assert reply.seen().points[-1].hottest_millideg is None or reply.seen().zones
    assert reply.inferences_per_second > 0
    asked = msgspec.json.decode(done.stdout.splitlines()[-1])["scenario"]
    assert (asked["kind"], asked["streams"], asked["seed"]) == (scenario.kind, scenario.streams, scenario.seed)


def test_the_arguments_of_layers(tmp_path: Path) -> None:
    words = layers_arguments(*runnable(tmp_path), 3, tmp_path / "out")
    assert ekrun(*words).json["runs"] == 3


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"duration_s": -1.0},
        {"duration_s": float("nan")},
        {"min_runs": 1, "streams": 2},
        {"min_runs": 1, "qps": 3.0},
        {"kind": "server", "min_runs": 1},
        {"kind": "server", "min_runs": 1, "qps": 0.0},
        {"kind": "fixed-rate", "min_runs": 1, "fps": float("inf")},
        {"kind": "offline", "min_runs": 1, "streams": 65},
    ],
)
def test_a_scenario_that_cannot_run_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Scenario(**wrong)


# ------------------------------------------------------------------------------------------------------------- emulated


@pytest.mark.board
def test_scenarios_on_an_emulated_board(tmp_path: Path) -> None:
    """They run and mean the same; their times are the emulator's, and the answer says so."""
    model = conv_model(tmp_path / "m.onnx")
    np.save(tmp_path / "x.npy", conv_feed(4)["x"])
    closure = native_library("onnxruntime", "1.32.0", "aarch64", default_cache())
    with closing(emulated("raspberry-pi-4")) as board, board.scratch() as there:
        folder = board.put({path.name: path for path in closure.files})
        there_model = Path(board.put({model.name: model})) / model.name
        feeds = Feeds({"x": Path(board.put({"x.npy": tmp_path / "x.npy"})) / "x.npy"})
        target = Runnable("onnxruntime", Path(folder) / closure.library.name, there_model, RunConfig(threads=1))
        scenario = Scenario("server", min_runs=20, qps=50, streams=2)
        words = scenario_arguments(target, feeds, scenario, latencies=f"{there}/raw.npy", sample_ms=50)
        reply = parse(board.run(words, deadline_s=120), ScenarioReply, board.name)
        board.get(f"{there}/raw.npy", tmp_path / "raw.npy")
    assert reply.emulated
    assert set(reply.memory.values()) == {None}
    assert reply.count + (reply.dropped or 0) + (reply.unfinished or 0) == reply.scheduled == 20
    assert len(np.load(tmp_path / "raw.npy")) == reply.count
    assert len(reply.trace) >= 2
