"""A TOML table read key by key, with one line for what is wrong in it.

- every value is checked for type and range where it is read; a bool is not a number;
- the table remembers what was asked for, so that what nobody asked for can be refused;
- the text is untrusted and bounded.
"""

import difflib
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from edgekit.errors import InputRejected

MAX_TEXT_CHARS = 64 << 10

_VERSION = re.compile(r"\d{1,5}(\.\d{1,5}){1,3}")


def suggest(name: str, known: Collection[str]) -> str:
    """The known name that `name` was most likely meant to be, or an empty string."""
    return next(iter(difflib.get_close_matches(name.lower(), sorted(known), n=1, cutoff=0.5)), "")


def did_you_mean(name: str, known: Collection[str]) -> str:
    """The same as the end of a sentence: `, did you mean 'x'?`, or nothing."""
    close = suggest(name, known)
    return f", did you mean {close!r}?" if close else ""


def read_toml(text: str, where: str, help_page: str) -> "TomlTable":
    """The top table of a text. Raises InputRejected when it is too large or not TOML."""
    if len(text) > MAX_TEXT_CHARS:
        raise InputRejected(f"larger than {MAX_TEXT_CHARS} characters", where=where, next_step=f"see {help_page}")
    try:
        return TomlTable(tomllib.loads(text), where, help_page)
    except (ValueError, RecursionError) as error:  # a plain ValueError: an integer of thousands of digits
        reason = str(error) if isinstance(error, tomllib.TOMLDecodeError) else "nested or numbered beyond reason"
        raise InputRejected(f"not TOML: {reason}", where=where, next_step=f"see {help_page}") from error


class TomlTable:
    """One table of a file. `path` is where it stands: "", "engines", "clusters.0"."""

    def __init__(self, values: Mapping[str, Any], where: str, help_page: str, path: str = "") -> None:
        self._values = values
        self._where = where
        self._help_page = help_page
        self._path = path
        self._asked: dict[str, list[TomlTable]] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def wrong(self, key: str, what: str) -> InputRejected:
        """The error for the value of `key`."""
        return InputRejected(f"{self._full(key)}: {what}", where=self._where, next_step=f"see {self._help_page}")

    def value(self, key: str) -> Any:
        """The value as it stands, for a key that may be of more than one type."""
        return self._get(key)

    def text(self, key: str) -> str:
        value = self._get(key)
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(key, "must be text that is not empty")
        return value

    def version(self, key: str) -> str:
        if _VERSION.fullmatch(value := self.text(key)) is None:
            raise self.wrong(key, 'must be a version such as "2.36"')
        return value

    def choice(self, key: str, allowed: tuple[str, ...]) -> str:
        if (value := self.text(key)) not in allowed:
            raise self.wrong(key, f"must be one of {', '.join(allowed)}")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        value = self._get(key)
        if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
            raise self.wrong(key, "must be a list of text that is not empty")
        return tuple(value)

    def flag(self, key: str) -> bool:
        value = self._get(key)
        if not isinstance(value, bool):
            raise self.wrong(key, "must be true or false")
        return value

    def integer(self, key: str, low: int, high: int) -> int:
        value = self._get(key)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.wrong(key, f"must be a whole number from {low} to {high}")
        return value

    def number(self, key: str, low: float, high: float) -> float:
        value = self._get(key)
        # A nan fails both comparisons; an integer too large for a float compares as it should.
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            raise self.wrong(key, f"must be a number from {low:g} to {high:g}")
        return float(value)

    def table(self, key: str) -> "TomlTable":
        value = self._get(key)
        if not isinstance(value, dict):
            raise self.wrong(key, "must be a table")
        return self._child(key, value, self._full(key))

    def tables(self, key: str) -> tuple["TomlTable", ...]:
        value = self._get(key)
        if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
            raise self.wrong(key, f"must be one or more [[{key}]] tables")
        return tuple(self._child(key, item, f"{self._full(key)}.{index}") for index, item in enumerate(value))

    def values_read(self) -> Iterator[str]:
        """Key paths of the values that were read, here and in the tables below."""
        for key, children in self._asked.items():
            if not children:
                yield self._full(key)
            for child in children:
                yield from child.values_read()

    def refuse_unknown(self, known: Collection[str] = ()) -> None:
        """Raise for a key that was never read; `known` are keys that might have been."""
        for key in sorted(self._values.keys() - self._asked.keys()):
            raise self.wrong(key, f"unknown key{did_you_mean(key, {*self._asked, *known})}")

    def _get(self, key: str) -> Any:
        if key not in self._values:
            raise self.wrong(key, "is missing")
        self._asked.setdefault(key, [])
        return self._values[key]

    def _child(self, key: str, values: Mapping[str, Any], path: str) -> "TomlTable":
        child = TomlTable(values, self._where, self._help_page, path)
        self._asked[key].append(child)
        return child

    def _full(self, key: str) -> str:
        return f"{self._path}.{key}" if self._path else key
