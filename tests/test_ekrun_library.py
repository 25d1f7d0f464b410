"""How ekrun opens an engine's library: what beside it is opened too, and that nothing it prints reaches the answer."""

import shutil
import subprocess
from pathlib import Path

from tests.ekrun_tools import Answer, built, conv_feed, conv_model, ekrun, engine_args, feed_args, library, save_ir

LIBRARY = 3


def run_with(folder: Path, engine: str, lib: Path) -> Answer:
    model = conv_model(folder / "m.onnx")
    args = engine_args(engine, model if engine == "onnxruntime" else save_ir(model))
    args[args.index("--lib") + 1] = str(lib)
    return ekrun("run", *args, *feed_args(folder, conv_feed()), "--out", folder / "out")


def test_only_libraries_the_engine_needs_are_opened_beside_it(tmp_path: Path) -> None:
    lib = tmp_path / "libonnxruntime.so"
    lib.symlink_to(library("onnxruntime"))
    for name in ("libstdc++.so.6.0.30-gdb.py", "libstdc++.so.", "libtbb.so.12", "libopenvino.so.2641"):
        (tmp_path / name).write_text("no library")
    assert run_with(tmp_path, "onnxruntime", lib).code == 0
    (tmp_path / "libstdc++.so.6.0.30").write_text("no library")
    answer = run_with(tmp_path, "onnxruntime", lib)
    assert answer.code == LIBRARY
    assert "libstdc++.so.6.0.30" in answer.json["error"]["message"]


def test_openvino_without_its_cpu_plugin_is_no_fault_of_the_model(tmp_path: Path) -> None:
    source = Path(library("openvino"))
    for pattern in ("libopenvino.so.*", "libopenvino_c.so.*", "libopenvino_ir_frontend.so.*", "libtbb.so.*"):
        for part in source.parent.glob(pattern):
            shutil.copy(part, tmp_path)
    lib = tmp_path / source.name
    answer = run_with(tmp_path, "openvino", lib)
    assert (answer.code, answer.json["error"]["code"]) == (LIBRARY, "library")
    assert "plugin" in answer.json["error"]["message"]
    shutil.copy(source.parent / "libopenvino_intel_cpu_plugin.so", tmp_path)
    assert run_with(tmp_path, "openvino", lib).code == 0


LOUD = """
#include <stdio.h>
#include <unistd.h>
static const void *api(unsigned version) { (void)version; return 0; }
static const char *version(void) { puts("version asked"); fflush(stdout); return "0.1"; }
static const struct { const void *(*api)(unsigned); const char *(*version)(void); } base = {api, version};
const void *OrtGetApiBase(void) { return write(1, "hello\\n", 6) == 6 ? &base : 0; }
"""


def test_what_a_library_prints_goes_to_stderr(tmp_path: Path) -> None:
    source, lib = tmp_path / "loud.c", tmp_path / "loud.so"
    source.write_text(LOUD)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(lib), str(source)], check=True)
    args = engine_args("onnxruntime", conv_model(tmp_path / "m.onnx"))
    args[args.index("--lib") + 1] = str(lib)
    argv = [str(built()["x86_64"]), "run", *args, "--out", str(tmp_path / "out")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == LIBRARY
    assert done.stdout.count("\n") == 1 and '"protocol":1' in done.stdout
    assert done.stderr.startswith("hello\nversion asked\nekrun: ONNX Runtime 0.1 is too old")


def test_without_stdout_and_stderr_nothing_runs() -> None:
    for closed in ("1>&-", "2>&-"):
        done = subprocess.run(
            ["sh", "-c", f'"$0" facts {closed}', str(built()["x86_64"])], capture_output=True, timeout=60
        )
        assert done.returncode == 7
