"""What ONNX Runtime's graph optimization makes of a model, stored in a file. Runs in the sandbox only.

- What is stored means the same on every CPU: optimization stops at EXTENDED.
- Weights that lie beside the model are taken in: ONNX Runtime leaves them where they are, which is not where the result is.
- Tables stay unfolded in a model that would grow too much: ONNX Runtime folds those at load, what runs is the same.
"""

from collections.abc import Sequence
from pathlib import Path

import onnx
import onnxruntime as ort

from edgekit.models.external import DATA_FILE

TABLE_BYTES = 4096  # constants above it stay to be folded at load in a model that would grow too much
LEVELS = {
    "none": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
}


def optimize(model: Path, out: Path, level: str, growth: float, without: Sequence[str] = ()) -> None:
    """Write to `out` the model as optimized at `level`, but for the optimizers in `without`. Raises what ONNX Runtime raises.

    If that made it more than `growth` times larger, again with its tables not folded.
    """
    _optimize(model, out, _options(out, level), without)
    if out.stat().st_size > growth * stored_bytes(model):
        options = _options(out, level)
        options.add_session_config_entry("optimization.constant_folding_max_output_size_in_bytes", str(TABLE_BYTES))
        _optimize(model, out, options, without)


def stored_bytes(model: Path) -> int:
    """What a model weighs, with the file of weights beside it if there is one."""
    data = model.with_name(DATA_FILE)
    return model.stat().st_size + (data.stat().st_size if data.exists() else 0)


def _optimize(model: Path, out: Path, options: ort.SessionOptions, without: Sequence[str]) -> None:
    ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"], disabled_optimizers=list(without))
    if model.with_name(DATA_FILE).exists():
        made = onnx.load(str(out), load_external_data=False)
        onnx.load_external_data_for_model(made, str(model.parent))
        onnx.save(made, str(out))


def _options(save_to: Path, level: str) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = LEVELS[level]
    options.optimized_model_filepath = str(save_to)
    return options
