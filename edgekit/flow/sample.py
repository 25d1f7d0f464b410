"""The shipped sample: a digit classifier and its data, found wherever edgekit is installed."""

from pathlib import Path

from edgekit.resources import find_data

SAMPLE = "digits"


def sample_model(cwd: Path) -> tuple[Path, Path]:
    """The sample's model and data folder. Raises UsageError when they are not shipped with this installation."""
    folder = find_data(SAMPLE, cwd)
    return folder / "model.onnx", folder
