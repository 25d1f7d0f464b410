"""What every engine provides, and what a build is given and gives back.

`Engine` is a Protocol because there are two implementations, the modules `onnxruntime` and `openvino`; what must hold for
both is checked once, in `build`, not here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import onnx

from edgekit.core.types import Built, NumericRules, Recipe


@dataclass(frozen=True)
class Task:
    """One build: `original` is untouched, `model` has fixed shapes; steps work in `scratch`, and leave remarks in `notes`.

    `flat` is the model as `quantize.flatten` leaves it, `histograms` what calibration saw of its activations; None where the recipe
    reads neither. `state` maps an output to the input it is fed back to.
    """

    recipe: Recipe
    numeric: NumericRules
    original: Path
    model: Path
    calibration: Path | None
    out: Path
    scratch: Path
    flat: Path | None
    histograms: Path | None
    state: Mapping[str, str]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Ports:
    """Names of a model's inputs and outputs, in order."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class Engine(Protocol):
    """An engine's side of a build."""

    name: str

    def build(self, task: Task) -> Built:
        """Run the recipe's steps and write the artifact to `task.out`. May raise anything."""
        ...

    def check(self, model: Path) -> tuple[str, ...]:
        """Why the engine will not take `model`, one line each; empty when it loads."""
        ...

    def ports(self, artifact: Path, wanted: Ports) -> Ports:
        """The artifact's own names; where a port has several, the one in `wanted` at its place if it is among them."""
        ...


Steps = Mapping[str, Callable[[Task, Path, Mapping[str, Any]], Path]]


# OpenVINO's messages open with where in its sources it gave up; the reason stands below.
_PREAMBLES = ("Exception from ", "Check '", "FrontEnd API failed", "Model wasn't fully converted", "Summary:")


def one_line(error: BaseException) -> str:
    """A library's exception as one line for people: its first line that gives a reason."""
    lines = [" ".join(line.split()) for line in str(error).splitlines() if line.strip()]
    reasons = [line for line in lines if not line.startswith(_PREAMBLES) and not line.endswith(":")]
    text = (reasons or lines or [""])[0]
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


def onnx_ports(model: onnx.ModelProto) -> Ports:
    """Names of the inputs a caller must feed (weights listed as inputs are none) and of the outputs."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return Ports(
        tuple(port.name for port in model.graph.input if port.name not in weights),
        tuple(port.name for port in model.graph.output),
    )
