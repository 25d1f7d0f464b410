"""How far a long step is, told to whoever started it: a line of JSON at a time, appended to a file."""

import json
from pathlib import Path


def report(path: Path | None, done: int, total: int, eta_s: float) -> None:
    """Append {"done", "total", "eta_s"} to the file at `path`; nothing without one."""
    if path is None:
        return
    with path.open("a") as stream:
        stream.write(json.dumps({"done": done, "total": total, "eta_s": round(max(eta_s, 0.0), 1)}) + "\n")
