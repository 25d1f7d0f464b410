"""Reading activations: ONNX Runtime sessions on parts of a model. Runs in the sandbox only.

- graph optimization is off, so that every name and value is the model's own; threads are explicit;
- no memory arena and no memory pattern: they keep what the largest run took, and more; without them a run's memory is what lives;
- external data is read from the model's own folder.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
import onnxruntime as ort
from onnx import NodeProto, helper

from edgekit.errors import InputRejected
from edgekit.models import runtime
from edgekit.models.graph import dtype_name, element_bits
from edgekit.models.runtime import Array
from edgekit.quantize.groups import COUNTABLE, prune
from edgekit.quantize.samples import Samples

_SIZE = "edgekit.elements"

# What a session calls the types that can be counted.
_TYPES = {
    f"tensor({ {'float32': 'float', 'float64': 'double'}.get(dtype_name(number), dtype_name(number)) })": number
    for number in COUNTABLE
}


class PartialSession:
    """The model at `path`, with more `nodes`, reduced to what `outputs` need. Raises InputRejected, ResourceLimit."""

    def __init__(self, path: Path, outputs: Sequence[str], threads: int, nodes: Sequence[NodeProto] = ()) -> None:
        model = onnx.load(str(path), load_external_data=False)
        model.graph.node.extend(nodes)
        prune(model, outputs)
        data = model.SerializeToString()
        del model  # its weights are held three times otherwise
        self._path = path
        try:
            self._session = ort.InferenceSession(
                data, _options(path.parent, threads), providers=["CPUExecutionProvider"]
            )
        except runtime.ERRORS as error:
            runtime.raise_if_out_of_memory(error)
            raise InputRejected(f"its activations cannot be read: {runtime.reason(error)}", where=str(path)) from error
        self._inputs = [port.name for port in self._session.get_inputs()]

    def types(self) -> dict[str, str]:
        """ONNX Runtime's name of each output's type: "tensor(float)"."""
        return {port.name: port.type for port in self._session.get_outputs()}

    def run(self, feed: Mapping[str, Array], sample: int) -> list[Array]:
        """All outputs; of `feed`, what this part needs. Raises InputRejected naming the sample, ResourceLimit."""
        try:
            return runtime.run_session(self._session, {name: feed[name] for name in self._inputs})
        except runtime.ERRORS as error:
            what = f"calibration sample {sample} cannot be run: {runtime.reason(error)}"
            raise InputRejected(what, where=str(self._path)) from error


def _options(folder: Path, threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    return options


def measure(path: Path, names: Sequence[str], samples: Samples, threads: int) -> tuple[dict[str, int], dict[str, str]]:
    """(bytes on the first sample, reason against) by name, for tensors whose type or shape the model does not record.

    Types are asked of a session; sizes are counted by a node behind each tensor, so that no activation is fetched.
    """
    types = PartialSession(path, names, threads).types()
    numbers = {name: _TYPES[types[name]] for name in names if types[name] in _TYPES}
    reasons = {name: f"holds {types[name]}, not plain numbers" for name in names if name not in numbers}
    if not numbers:
        return {}, reasons
    nodes = [helper.make_node("Size", [name], [f"{_SIZE}.{i}"]) for i, name in enumerate(numbers)]
    counters = [node.output[0] for node in nodes]
    elements = PartialSession(path, counters, threads, nodes).run(samples.feed(0, {}), 0)
    sizes = {
        name: int(count) * element_bits(number) // 8
        for (name, number), count in zip(numbers.items(), elements, strict=True)
    }
    return sizes, reasons
