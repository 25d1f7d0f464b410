"""edgekit takes an ONNX model to a device: quantize, prove, measure, choose, ship.

    import edgekit

    run = edgekit.optimize("model.onnx", target="raspberry-pi-5", data="samples/")
    print(run.choice.chosen, run.evaluation)

Importing edgekit loads no engine, no onnx and no numpy; the names below are loaded when first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from edgekit.core.datacheck import DataCheck as DataCheck
    from edgekit.core.profile import Scenario as Scenario
    from edgekit.core.profile_run import Profile as Profile
    from edgekit.core.run import Run as Run
    from edgekit.core.types import LatencyBudget as LatencyBudget
    from edgekit.core.types import Prefer as Prefer
    from edgekit.core.types import Requirements as Requirements
    from edgekit.errors import EdgekitError as EdgekitError
    from edgekit.flow.check import check_data as check_data
    from edgekit.flow.compare import compare as compare
    from edgekit.flow.devices import Reach as Reach
    from edgekit.flow.inspect import inspect as inspect
    from edgekit.flow.materials import Options as Options
    from edgekit.flow.optimize import optimize as optimize
    from edgekit.flow.profile import profile as profile

_HOME = {
    "DataCheck": "edgekit.core.datacheck",
    "EdgekitError": "edgekit.errors",
    "LatencyBudget": "edgekit.core.types",
    "Options": "edgekit.flow.materials",
    "Prefer": "edgekit.core.types",
    "Profile": "edgekit.core.profile_run",
    "Reach": "edgekit.flow.devices",
    "Requirements": "edgekit.core.types",
    "Run": "edgekit.core.run",
    "Scenario": "edgekit.core.profile",
    "check_data": "edgekit.flow.check",
    "compare": "edgekit.flow.compare",
    "inspect": "edgekit.flow.inspect",
    "optimize": "edgekit.flow.optimize",
    "profile": "edgekit.flow.profile",
}

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'edgekit' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return [*__all__]
