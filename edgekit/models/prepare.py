"""Take a model in: check it, stage a private copy, and normalize it so that every engine sees the same plain graph.

`prepare_model` runs inside the sandbox (edgekit.sandbox). It leaves in its output folder

    original.onnx       the given model: its very bytes, or with its external data taken in
    model.onnx          fixed input shapes, opset 17 or later where that is safe, shapes of intermediate tensors recorded,
                        functions inlined, no training information
    model.onnx.data     only for models of more than 1 GiB: the weights of both

- checks come in order of cost; each refusal is one InputRejected that names the file and the way out;
- names inside a model are untrusted: none becomes a path.
"""

import contextlib
import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from google.protobuf.message import EncodeError  # type: ignore[import-untyped]  # ships no types
from onnx import ModelProto, inliner

from edgekit.core.types import PreparedModel, TensorSpec
from edgekit.errors import InputRejected
from edgekit.models import external, preflight, runtime
from edgekit.models.axes import declared, fix_inputs, real_inputs
from edgekit.models.graph import dtype_name, stored_tensors
from edgekit.models.infer import Facts, infer, record
from edgekit.models.inspect import model_info
from edgekit.models.opset import Trial, raise_opset, try_model
from edgekit.store import sha256_file

ORIGINAL = "original.onnx"
PREPARED = "model.onnx"


def prepare_model(source: Path, out: Path, shapes: dict[str, list[int]]) -> PreparedModel:
    """Check, stage and normalize the model at `source` into the existing folder `out`; `shapes` fixes inputs by name.

    Raises InputRejected for a model that can't be accepted, UsageError when `shapes` leaves an axis open or contradicts the model,
    ResourceLimit when it needs more memory than it may use.
    """
    file_bytes = preflight.check_file(source)
    model, outside_bytes = _stage(source, out)
    notices = _simplify(model)
    unfixed = _copy(model) if any(node.op_type == "If" for node in model.graph.node) else None
    notices += fix_inputs(model, shapes, str(source))
    inputs = _input_specs(model)
    with _runtime_refusals(source):
        trial = try_model(model, inputs, out)
    model, said = raise_opset(model, inputs, out, trial)
    facts = infer(model)
    record(model, facts)
    external.push_out(model, out)
    _save(model, out / PREPARED)
    with _runtime_refusals(source):
        runtime.open_session(out / PREPARED)
    if unfixed is not None and (reason := _refused_when_optimized(out / PREPARED)):
        notices.append(f"shapes inside the model are left open: with them fixed ONNX Runtime says {reason}")
        opened, _ = raise_opset(unfixed, inputs, out, trial)
        _save(opened, out / PREPARED)
    prepared = _prepared(model, facts, source, out, file_bytes + outside_bytes, notices + said + _trial_notices(trial))
    return replace(prepared, integer=trial.integer)


def _copy(model: ModelProto) -> ModelProto:
    twin = ModelProto()
    twin.CopyFrom(model)
    return twin


def _refused_when_optimized(path: Path) -> str:
    """Why ONNX Runtime's optimizers refuse a model that loads without them, or an empty string.

    They check the branch of an If that is never taken with these shapes, too: a model for two sample rates fails in the other one.
    """
    try:
        runtime.open_session(path, optimized=True)
    except runtime.ERRORS as error:
        return runtime.reason(error)
    return ""


@contextlib.contextmanager
def _runtime_refusals(source: Path) -> Iterator[None]:
    """What ONNX Runtime does not load is rejected with its reason in one line."""
    try:
        yield
    except runtime.ERRORS as error:
        what = f"ONNX Runtime does not accept it: {runtime.reason(error)}"
        raise InputRejected(
            what, where=str(source), next_step="check it with onnx.checker and export it again"
        ) from error


def _stage(source: Path, out: Path) -> tuple[ModelProto, int]:
    """Copy the model to original.onnx with its external data, and check what it holds; returns it and its bytes outside."""
    staged = out / ORIGINAL
    shutil.copyfile(source, staged)
    model = preflight.parse(staged.read_bytes(), source)
    preflight.check_structure(model, source)
    outside = external.take_in(model, source, out)
    for tensor in stored_tensors(model):
        if not external.is_external(tensor):
            preflight.check_tensor(tensor, source)
    if outside or (out / external.DATA_FILE).exists():
        _save(model, staged)
    return model, outside


def _simplify(model: ModelProto) -> list[str]:
    """Inline functions, drop training information and weights listed as inputs, in place; returns the notices."""
    notices = []
    if model.training_info:
        del model.training_info[:]
        notices.append("training information in the model is ignored")
    if model.functions:
        inlined = inliner.inline_local_functions(model)
        model.CopyFrom(inlined)
    fed = {value.name for value in real_inputs(model.graph)}
    if len(fed) < len(model.graph.input):
        kept = [value for value in model.graph.input if value.name in fed]
        del model.graph.input[:]
        model.graph.input.extend(kept)
        model.ir_version = max(model.ir_version, 4)
    return notices


def _input_specs(model: ModelProto) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(value.name, dtype_name(value.type.tensor_type.elem_type), tuple(declared(value) or ()))
        for value in real_inputs(model.graph)
    )


def _save(model: ModelProto, path: Path) -> None:
    try:
        path.write_bytes(model.SerializeToString())
    except EncodeError as error:
        raise InputRejected(
            "is too large for one protobuf file", where=path.name, next_step="use a smaller model"
        ) from error


def _trial_notices(trial: Trial) -> list[str]:
    return (
        [f"it loads but does not run on synthetic inputs ({trial.failure}); real data may do"] if trial.failure else []
    )


def _prepared(
    model: ModelProto, facts: Facts, source: Path, out: Path, file_bytes: int, notices: list[str]
) -> PreparedModel:
    info = model_info(model, facts, sha256=sha256_file(source), file_bytes=file_bytes, notices=notices)
    files = [name for name in (PREPARED, external.DATA_FILE) if (out / name).exists()]
    digests = [sha256_file(out / name) for name in files]
    return PreparedModel(info, _combined(digests), tuple(files), info.notices)


def _combined(digests: list[str]) -> str:
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
