"""libekrun and the life of its process: what a fork leaves of a model, and a slot that is gone after an update."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.ekrun_tools import libraries
from tests.libekrun_desk import HEAD, Folder, compile_with, mixed, said, with_openvino, write

ENGINES: dict[str, Callable[[Folder], Folder]] = {"onnxruntime": lambda folder: folder, "openvino": with_openvino}

FORKS = """
#include <ekrun.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static float x[15] = {1};
static int64_t dims[] = {1, 3, 5}, one = 1;
static const ekrun_tensor inputs[] = {{"x", x, sizeof x, dims, 3, EKRUN_FLOAT32},
                                      {"k", &one, sizeof one, &one, 1, EKRUN_INT64}};

static void must(int is_so, const char *what) {
    if (is_so)
        return;
    fprintf(stderr, "%d: %s: %s\\n", (int)getpid(), what, ekrun_error());
    _exit(9);
}

static void refused(int status, const char *what) {
    must(status == EKRUN_USAGE && strstr(ekrun_error(), "fork first"), what);
}

static void open_and_run(const char *folder, ekrun_model **model, ekrun_stream **stream) {
    must(!ekrun_model_open(folder, NULL, model), "open");
    must(!ekrun_stream_open(*model, stream), "stream");
    must(!ekrun_stream_run(*stream, inputs, 2), "run");
}

static void wait_for(pid_t child, const char *what) {
    int status;
    must(waitpid(child, &status, 0) == child && status == 0, what);
}

/* What is inherited is refused, closed, and left behind. */
static int be_the_child(const char *folder, ekrun_model *model, ekrun_stream *stream, ekrun_model *bare) {
    ekrun_model *own = (ekrun_model *)dims;
    ekrun_stream *another = (ekrun_stream *)dims;
    refused(ekrun_stream_run(stream, inputs, 2), "run in the child");
    refused(ekrun_stream_reset(stream), "reset in the child");
    refused(ekrun_stream_open(model, &another), "stream in the child");
    refused(ekrun_model_open(folder, NULL, &own), "open in the child");
    must(!own && !another && ekrun_model_outputs(model) == 3, "what is told in the child");
    ekrun_stream_close(stream);
    ekrun_model_close(model);
    ekrun_model_close(bare);
    return 0; /* by exit(), with the destructors of all libraries */
}

int main(int argc, char **argv) {
    ekrun_model *model, *first, *bare;
    ekrun_stream *stream, *firsts;
    alarm(60);
    pid_t child = fork();
    if (argc != 2)
        return 2;
    if (child == 0) { /* before anything is open: its model is its own */
        alarm(60);
        open_and_run(argv[1], &first, &firsts);
        ekrun_model_close(first);
        ekrun_stream_close(firsts);
        return 0;
    }
    open_and_run(argv[1], &model, &stream);
    must(!ekrun_model_open(argv[1], NULL, &bare), "open without a stream");
    wait_for(child, "a child that opens its own");
    if ((child = fork()) == 0) {
        alarm(20);
        return be_the_child(argv[1], model, stream, bare);
    }
    wait_for(child, "a child that inherits");
    must(!ekrun_stream_run(stream, inputs, 2), "run after the fork");
    ekrun_stream_close(stream);
    ekrun_model_close(model);
    ekrun_model_close(bare);
    open_and_run(argv[1], &model, &stream);
    return 0;
}
"""


@pytest.mark.parametrize("engine", ENGINES)
def test_a_child_ends_and_is_refused_what_it_inherits(tmp_path: Path, engine: str) -> None:
    """And neither hangs, which an alarm would end; the parent goes on."""
    folder = write(ENGINES[engine](mixed(tmp_path / "bundle")), threads=2)
    shutil.copy(libraries()["x86_64"], tmp_path / "libekrun.so")
    (tmp_path / "forks.c").write_text(FORKS)
    program = compile_with(tmp_path / "forks", tmp_path / "forks.c", tmp_path)
    done = subprocess.run([program, folder.path], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


FORKED = (
    HEAD
    + """
import gc, os, signal
model = ekrun.Model(folder, threads=2, library=sys.argv[2])
feeds = {"x": ekrun.Tensor("float32", (1, 3, 5), bytes(60)), "k": ekrun.Tensor("int64", (1,), bytes(8))}
model.run(feeds)
stream = model.stream()
def forked(work):
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        work()
        sys.exit(0)  # what is alive is deleted, or not: the interpreter ends either way
    status = os.waitpid(pid, 0)[1]
    assert status == 0, status
def use():
    refused(ekrun.USAGE, "fork first", model.run, feeds)
    refused(ekrun.USAGE, "fork first", stream.run, feeds)
    refused(ekrun.USAGE, "fork first", stream.reset)
    refused(ekrun.USAGE, "fork first", model.stream)
    refused(ekrun.USAGE, "fork first", ekrun.Model, folder)
    stream.close(), model.close()
def delete():
    global model, stream
    del model, stream
    gc.collect()
forked(lambda: None)
forked(use)
forked(delete)
with model._changing, stream._turn:  # as another thread may have them
    forked(use)
    forked(delete)
model.run(feeds), stream.run(feeds)
print("done")
"""
)


@pytest.mark.parametrize("engine", ENGINES)
def test_in_python_too(tmp_path: Path, engine: str) -> None:
    folder = ENGINES[engine](mixed(tmp_path / "bundle"))
    assert said(FORKED, folder.path, libraries()["x86_64"], numpy=False) == "done\n"


SLOTS = (
    HEAD
    + """
import os, shutil
gone, kept, library, lasts = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4] == "lasts"
feeds = {"x": ekrun.Tensor("float32", (1, 3, 5), bytes(60)), "k": ekrun.Tensor("int64", (1,), bytes(8))}
first = ekrun.Model(gone, library=library)
wanted, stream = first.run(feeds), first.stream()
ekrun.Model(gone).close()
ekrun.Model(kept).close()
shutil.rmtree(gone)
assert stream.run(feeds) == wanted and first.run(feeds) == wanted, "what is open stays"
refused(ekrun.INPUT, "No such file", ekrun.Model, gone)
for _ in range(2):
    if lasts:
        with ekrun.Model(kept) as model:
            assert model.run(feeds) == wanted
    else:
        refused(ekrun.LIBRARY, "whose own folder it needs and has lost: start it again", ekrun.Model, kept)
    stream.close()
    first.close()
shutil.copytree(kept, gone, symlinks=True)
with ekrun.Model(gone) as again, ekrun.Model(kept) as model:
    assert again.run(feeds) == model.run(feeds) == wanted, "as after a rollback"
print("done")
"""
)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_model_is_opened_again_when_its_first_slot_is_gone(tmp_path: Path, engine: str) -> None:
    """ONNX Runtime is one file, which is there. OpenVINO looks for its plugin and its readers where it was first opened."""
    first, second = (ENGINES[engine](mixed(tmp_path / name)).path for name in ("first", "second"))
    lasts = "lasts" if engine == "onnxruntime" else "needs its folder"
    assert said(SLOTS, first, second, libraries()["x86_64"], lasts, numpy=False) == "done\n"


SIGNALS = (
    HEAD
    + """
import ctypes, faulthandler, os, signal

class Stack(ctypes.Structure):
    _fields_ = [("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]

def stack():
    found = Stack()
    ctypes.CDLL(None).sigaltstack(None, ctypes.byref(found))
    return found.start, found.size

faulthandler.enable()
handled = []
signal.signal(signal.SIGUSR1, lambda *_: handled.append(1))
folder, library = sys.argv[1:]
own = stack()
assert own[0]
first, second = (ekrun.Model(folder, library=library) for _ in range(2))
assert stack() == own, "open"
first.close()
second.close()
assert stack() == own, "closed"
os.kill(os.getpid(), signal.SIGUSR1)
assert handled
print("done")
"""
)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_signal_is_handled_after_models_are_closed(tmp_path: Path, engine: str) -> None:
    """OpenVINO's plugin replaces the thread's signal stack, and unmaps its own before it gives the first one back."""
    folder = ENGINES[engine](mixed(tmp_path / "bundle"))
    assert said(SIGNALS, folder.path, libraries()["x86_64"], numpy=False) == "done\n"


def test_the_same_folder_with_another_version_is_refused(tmp_path: Path) -> None:
    """Not by its name is an engine known."""
    folder = mixed(tmp_path / "bundle")
    script = HEAD + (
        "ekrun.Model(folder).close()\n"
        "record = json.load(open(folder + '/deployment.json'))\n"
        "json.dump({**record, 'engine_version': '1.31.0'}, open(folder + '/deployment.json', 'w'))\n"
        "refused(ekrun.LIBRARY, 'takes no other, here 1.31.0: start it again', ekrun.Model, folder)\n"
    )
    said(script, folder.path, numpy=False)
