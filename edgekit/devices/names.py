"""Names the user gave to devices, in one small TOML file.

- a name stands for a URL of `core.device_url`, never for another name;
- the file is read whole or refused with its line; it is rewritten whole, under a lock, and replaced in one step;
- what is a URL already is never looked up, so a damaged file stands in the way of names only.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from edgekit.core.device_url import EMULATED, GRAMMAR, LOCAL, DeviceUrl, is_device_name, parse_device
from edgekit.core.tomltable import MAX_TEXT_CHARS, did_you_mean, read_toml
from edgekit.errors import InputRejected, ResourceLimit, UsageError
from edgekit.resources import read_regular
from edgekit.store import alone_with, write_atomic

FILE = "devices.toml"
SCHEMA = 1
HEADER = "# Written by `edgekit device add` and `edgekit device remove`.\n"
HELP = "`edgekit device --help`"
MAX_DEVICES = 500


class DeviceNames:
    """The names in the file at `path`, which need not exist; it is read at every call."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def list(self) -> dict[str, DeviceUrl]:
        """Every device by its name, sorted. Raises InputRejected, with the line, when the file is damaged."""
        if not os.path.lexists(self.path.resolve()):
            return {}
        where = str(self.path)
        try:
            text = read_regular(self.path, MAX_TEXT_CHARS).decode()
        except UnicodeDecodeError as error:
            raise InputRejected("not UTF-8 text", where=where, next_step=f"mend or remove it, see {HELP}") from error
        top = read_toml(text, where, HELP)
        if (schema := top.integer("schema", 1, 1 << 16)) != SCHEMA:
            raise top.wrong("schema", f"{schema} is not known, this edgekit reads {SCHEMA}")
        table = top.table("devices")
        top.refuse_unknown()
        return {name: self._entry(name, table.text(name), text) for name in sorted(table)}

    def find(self, text: str) -> DeviceUrl:
        """The device that a URL or a name stands for. Raises UsageError with the nearest name, and as `list` does."""
        if not is_device_name(text):
            return parse_device(text)
        known = self.list()
        if text not in known:
            close = did_you_mean(text, {*known, LOCAL, EMULATED})
            raise UsageError(
                f"unknown device {text!r}{close}", next_step=f"a device is {GRAMMAR}, or named by `edgekit device add`"
            )
        return known[text]

    def add(self, name: str, text: str) -> DeviceUrl:
        """Call the device at the URL `text` by `name`. Raises UsageError for a name that is none or that another device has."""
        if not is_device_name(name):
            raise UsageError(
                f"{name[:80]!r} is no name for a device",
                next_step=f"use letters, digits, dash, underscore and dot; {LOCAL}, {EMULATED} and ssh are taken",
            )
        url = parse_device(text)
        with self._errors(), alone_with(self.path, "changing the names of devices"):
            known = self.list()
            if known.get(name, url) != url:
                raise UsageError(
                    f"{name!r} is the name of {known[name]}", next_step=f"run `edgekit device remove {name}` first"
                )
            if len(known) >= MAX_DEVICES:
                raise UsageError(f"there are {MAX_DEVICES} names already", next_step="remove one first")
            self._write({**known, name: url})
        return url

    def remove(self, name: str) -> DeviceUrl:
        """Forget a name, and say what it stood for. Raises UsageError with the nearest name when there is none."""
        with self._errors(), alone_with(self.path, "changing the names of devices"):
            known = self.list()
            if name not in known:
                close = did_you_mean(name, known)
                raise UsageError(f"unknown device {name[:80]!r}{close}", next_step="see `edgekit device list`")
            removed = known.pop(name)
            self._write(known)
        return removed

    def _entry(self, name: str, url: str, text: str) -> DeviceUrl:
        """One line of the file, checked as `add` does: it may have been edited."""
        line = next((number for number, line in enumerate(text.splitlines(), 1) if url in line and name in line), 0)
        where = f"{self.path}, line {line}" if line else str(self.path)
        if not is_device_name(name):
            raise InputRejected(f"{name[:80]!r} is no name for a device", where=where, next_step=f"see {HELP}")
        try:
            return parse_device(url)
        except UsageError as error:
            raise InputRejected(
                f"{name}: {error.where!r} {error.what}", where=where, next_step=error.next_step
            ) from error

    def _write(self, known: Mapping[str, DeviceUrl]) -> None:
        # What a name and a URL may hold makes every JSON string of them a TOML string.
        lines = [f"{json.dumps(name)} = {json.dumps(str(known[name]))}\n" for name in sorted(known)]
        content = "".join([HEADER, f"schema = {SCHEMA}\n\n[devices]\n", *lines])
        with self._errors():
            write_atomic(self.path.resolve(), content.encode())  # resolved: a link to the file stays a link

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """A folder that cannot be made, or is a file, in one typed error."""
        try:
            yield
        except OSError as error:
            raise ResourceLimit(
                f"the names of devices cannot be kept: {error.strerror}",
                where=str(self.path),
                next_step="set XDG_CONFIG_HOME to a folder you may write to",
            ) from error
