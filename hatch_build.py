"""Builds the native runner into every wheel and editable install, and packs the data folders into the wheel.

In an editable install the data folders are found in the repository; a wheel carries copies below `edgekit/_data`.
"""

import importlib.util
import os
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# Set by tests of the wheel's other contents, for speed.
NO_STATIC = "EDGEKIT_BUILD_WITHOUT_STATIC"

DATA_FOLDERS = ("targets", "calibration_data")


def _load_runner_build(root: Path) -> ModuleType:
    """`edgekit/runner/build.py` by path: importing edgekit itself would need its dependencies in the build environment."""
    spec = importlib.util.spec_from_file_location("runner_build", root / "edgekit/runner/build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class CustomBuildHook(BuildHookInterface):  # type: ignore[misc]  # untyped base
    """Called by hatchling for the wheel target, `version` being "standard" or "editable"."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        root = Path(self.root)
        # A checkout builds the static programs when somebody asks for them: `python -m edgekit.runner.build`.
        binaries = _load_runner_build(root).build_all(static=version != "editable" and not os.environ.get(NO_STATIC))
        build_data["artifacts"] += [str(path.relative_to(root)) for path in binaries]
        if version != "editable":
            build_data["force_include"] |= {str(root / name): f"edgekit/_data/{name}" for name in DATA_FOLDERS}
