"""Explain a run: read its record, and tell why it chose what it chose."""

from pathlib import Path

from edgekit.core.explain.explanation import Explanation, explain
from edgekit.core.run import Run
from edgekit.flow.runs import read_run, run_folder


def explained(source: Path) -> tuple[Run, Path, Explanation]:
    """The run at `source`, a folder or its file, with the folder and the explanation. Raises InputRejected for what is no run."""
    folder = run_folder(source)
    run = read_run(folder)
    return run, folder, explain(run)
