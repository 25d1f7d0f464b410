"""What each tool makes of a model, the way its own documentation has it. Runs in a child process of its own, one build a process.

    python -m benchmarks.accuracy.builders REQUEST.json

- Every tool is given the model that edgekit prepared, with fixed shapes and opset 17 where that is safe, and the calibration
  samples as fed: none fails over a shape or an old opset that edgekit is spared.
- `ort-static` and `ort-static-per-channel` are quantize_static with its defaults (QDQ, MinMax, int8 activations and weights, every
  operator it knows). `ort-static-advised` is what its docstring advises for the CPU: uint8 activations on x86, weights per channel,
  7-bit weights without VNNI, after quant_pre_process. `ort-dynamic` is quantize_dynamic with its defaults.
- `nncf` is nncf.quantize on the OpenVINO model with its defaults. `nncf-control` is nncf.quantize_with_accuracy_control with its
  defaults: it validates on the selection split by edgekit's scorer, and a drop is what edgekit calls one.
"""

import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy.records import CONTROL, Build
from edgekit.core.accuracy import MetricOptions, OutputSet
from edgekit.core.types import NumericRules
from edgekit.engines.base import one_line
from edgekit.quantize.samples import Samples
from edgekit.sandbox import decode, encode
from edgekit.store import write_atomic

REPLY = "built.json"
ONNX_FILE, IR_FILES = "model.onnx", ("model.xml", "model.bin")


@dataclass(frozen=True)
class Request:
    """What to build and from what: `data` is a feed layout, `reference` the fp32 answers on its selection split."""

    build: str
    model: Path
    data: Path
    inputs: tuple[str, ...]
    state: Mapping[str, str]
    numeric: NumericRules
    metric: str
    options: MetricOptions
    max_drop: float
    reference: OutputSet
    out: Path

    @property
    def calibration(self) -> Samples:
        return Samples(self.data / "calibration", self.inputs, {})


# ---------------------------------------------------------------------------------------------------------- ONNX Runtime


class Reader:
    """What ONNX Runtime's calibrator reads: a feed a call, None at the end."""

    def __init__(self, samples: Samples) -> None:
        self._feeds: Iterator[dict[str, Any]] = (samples.feed(row, {}) for row in range(len(samples)))

    def get_next(self) -> dict[str, Any] | None:
        return next(self._feeds, None)


def static(request: Request) -> Build:
    return _static(request, request.model)


def static_per_channel(request: Request) -> Build:
    return _static(request, request.model, per_channel=True)


def static_advised(request: Request) -> Build:
    """After quant_pre_process; as it is, with a note, where that or the quantizer after it fails."""
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.shape_inference import quant_pre_process

    types = {"int8": QuantType.QInt8, "uint8": QuantType.QUInt8}
    advised = {
        "per_channel": True,
        "activation_type": types[request.numeric.activation_type],
        "weight_type": types[request.numeric.weight_type],
        "reduce_range": request.numeric.reduce_range,
    }
    with tempfile.TemporaryDirectory() as scratch:
        processed = Path(scratch) / ONNX_FILE
        try:  # shapes are fixed: inferring symbolic ones would only need sympy
            quant_pre_process(str(request.model), str(processed), skip_symbolic_shape=True)
            return _static(request, processed, **advised)
        except Exception as error:  # noqa: BLE001 - whatever ONNX Runtime's tools raise
            note = f"with quant_pre_process it failed: {one_line(error)}"
    return replace(_static(request, request.model, **advised), notes=(note,))


def _static(request: Request, model: Path, **options: Any) -> Build:
    from onnxruntime.quantization import quantize_static

    quantize_static(str(model), str(request.out / ONNX_FILE), Reader(request.calibration), **options)
    return _onnx(request.out)


def dynamic(request: Request) -> Build:
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(str(request.model), str(request.out / ONNX_FILE))
    return _onnx(request.out)


def _onnx(folder: Path) -> Build:
    import onnx

    from edgekit.quantize.graphs import quantized_ops

    return Build((ONNX_FILE,), *quantized_ops(onnx.load(str(folder / ONNX_FILE))))


# -------------------------------------------------------------------------------------------------------------- OpenVINO


def openvino(request: Request) -> Build:
    return _ir(request.out, _read(request.model))


def nncf_plain(request: Request) -> Build:
    import nncf

    return _ir(request.out, nncf.quantize(_read(request.model), _dataset(request.calibration)))


def nncf_control(request: Request) -> Build:
    import nncf

    if request.state:
        raise ValueError("NNCF's validation carries no state from sample to sample")
    with tempfile.TemporaryDirectory() as scratch:
        validation = Validation(request, Path(scratch))
        quantized = nncf.quantize_with_accuracy_control(
            _read(request.model),
            calibration_dataset=_dataset(request.calibration),
            validation_dataset=_dataset(validation.samples),
            validation_fn=validation,
            max_drop=request.max_drop,
            drop_type=nncf.DropType.ABSOLUTE,
        )
    return _ir(request.out, quantized)


def _dataset(samples: Samples) -> Any:
    import nncf

    return nncf.Dataset(range(len(samples)), lambda row: samples.feed(row, {}))


class Validation:
    """NNCF's validation function: higher is better, so it returns one less edgekit's drop; fp32 has about 1 (NNCF divides by it).

    NNCF calls it with a compiled model and an iterable of data items, here numbers of selection samples: all of them, those it
    ranks layers by, or one alone. Where one alone has no score (an area under a curve), NNCF compares outputs by itself.
    """

    def __init__(self, request: Request, scratch: Path) -> None:
        folder = request.data / "selection"
        self.samples = Samples(folder, request.inputs, {})
        self._request, self._scratch = request, scratch
        self._reference = [np.load(path, mmap_mode="r") for path in request.reference.files]
        labels = folder / "labels.npy"
        self._labels = np.load(labels, mmap_mode="r") if labels.exists() else None

    def __call__(self, compiled: Any, items: Iterable[int]) -> float:
        from edgekit.data.score import score

        rows = list(items)
        answers = [[np.array(value) for value in compiled(self.samples.feed(row, {})).values()] for row in rows]
        own = [np.stack(values) for values in zip(*answers, strict=True)]
        labels = self._scratch / "labels.npy"
        if self._labels is not None:
            np.save(labels, self._labels[rows])
        accuracy = score(
            self._stored("own", own),
            self._stored("reference", [array[rows] for array in self._reference]),
            self._request.metric,
            "selection",
            labels if self._labels is not None else None,
            options=self._request.options,
        )
        return 1 - accuracy.drop

    def _stored(self, name: str, arrays: list[Any]) -> OutputSet:
        files = tuple(self._scratch / f"{name}{index}.npy" for index in range(len(arrays)))
        for path, array in zip(files, arrays, strict=True):
            np.save(path, array)
        return replace(self._request.reference, files=files)


def _read(model: Path) -> Any:
    import openvino as ov

    return ov.Core().read_model(model)


def _ir(folder: Path, model: Any) -> Build:
    import openvino as ov

    from edgekit.engines.openvino import quantized_ops

    ov.save_model(model, folder / IR_FILES[0], compress_to_fp16=False)
    return Build(IR_FILES, *quantized_ops(_read(folder / IR_FILES[0])))


# ------------------------------------------------------------------------------------------------------------- the child


BUILDERS: Mapping[str, Callable[[Request], Build]] = {
    "ort-static": static,
    "ort-static-per-channel": static_per_channel,
    "ort-static-advised": static_advised,
    "ort-dynamic": dynamic,
    "openvino": openvino,
    "nncf": nncf_plain,
    CONTROL: nncf_control,
}
CONVERTERS = frozenset({"openvino"})  # which are not asked to quantize anything


def build(request: Request) -> Build:
    """The build; one that quantized nothing, or raised anything, says so in its `reason`."""
    try:
        built = BUILDERS[request.build](request)
    except Exception as error:  # noqa: BLE001 - the named boundary: a tool may raise anything, and that is its result
        traceback.print_exc()
        return Build(reason=one_line(error))
    if request.build not in CONVERTERS and not built.quantized_ops:
        return replace(built, reason=f"nothing was quantized, of {built.quantizable_ops} operators of arithmetic")
    return built


def main() -> None:
    """Read one request, leave the reply beside the artifact."""
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # None means: not to be imported
    request: Request = decode(Path(sys.argv[1]).read_bytes(), Request)
    write_atomic(request.out / REPLY, encode(build(request)))


if __name__ == "__main__":
    main()
