"""A file of requirements, read."""

from pathlib import Path

from edgekit.core.tomltable import MAX_TEXT_CHARS
from edgekit.core.wishes import HELP_PAGE, Wish, read_file
from edgekit.errors import InputRejected
from edgekit.resources import read_regular


def read_requirements(path: Path) -> dict[str, Wish]:
    """What the `requirements.toml` at `path` states, by key. Raises InputRejected."""
    try:
        text = read_regular(path, MAX_TEXT_CHARS).decode()
    except UnicodeDecodeError as error:
        raise InputRejected("not UTF-8 text", where=str(path), next_step=f"see {HELP_PAGE}") from error
    return read_file(text, str(path))
