"""How a user writes a device: `local`, `emulated[:TARGET]`, `ssh://[USER@]HOST[:PORT][/FOLDER]`, or a name given to one of them.

- what a shell, ssh or a terminal could take for something else is no part of a URL: spaces, quotes, `$`, a leading dash;
- no password stands in a URL: ssh's own keys and agent open the door;
- the folder is absolute, free of `.` and `..`, and not the root of the board: `device clean` empties it.
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import Final, Literal

from edgekit.core.targets import is_name as is_target_name
from edgekit.errors import UsageError

LOCAL: Final = "local"
EMULATED: Final = "emulated"
SSH: Final = "ssh"
GRAMMAR = f"{LOCAL}, {EMULATED}[:TARGET] or {SSH}://[USER@]HOST[:PORT][/FOLDER]"

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}")
_IPV6 = re.compile(r"\[([0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]+)?)\]")
_PORT = re.compile(r"[0-9]{1,5}")
_FOLDER = re.compile(r"(?:/+[A-Za-z0-9_.+@-][A-Za-z0-9_.+@ -]*)*/*")
_AUTHORITY = re.compile(r"(?:(?P<user>[^@]*)@)?(?P<host>\[[^\]]*\]|[^:\[\]]*)(?::(?P<port>.*))?", re.DOTALL)


@dataclass(frozen=True)
class DeviceUrl:
    """A device as written. Empty texts, and port None, are what the URL left out; an IPv6 `host` stands without brackets."""

    kind: Literal["local", "emulated", "ssh"]
    host: str = ""
    user: str = ""
    port: int | None = None
    folder: str = ""
    target: str = ""

    def __str__(self) -> str:
        if self.kind == SSH:
            host = f"[{self.host}]" if ":" in self.host else self.host
            port = f":{self.port}" if self.port is not None else ""
            return f"{SSH}://{self.user}{'@' if self.user else ''}{host}{port}{self.folder}"
        return f"{self.kind}:{self.target}" if self.target else self.kind


def is_device_name(text: str) -> bool:
    """Whether a device may be called `text`: letters, digits, dash, underscore and dot, and no word of the grammar."""
    return _NAME.fullmatch(text) is not None and text.lower() not in (LOCAL, EMULATED, SSH)


def parse_device(text: str) -> DeviceUrl:
    """A device's URL by its parts; a name is looked up elsewhere. Raises UsageError with what is wrong in it."""
    if text == LOCAL:
        return DeviceUrl(LOCAL)
    kind, colon, rest = text.partition(":")
    if kind == EMULATED:
        return DeviceUrl(EMULATED, target=_target(text, rest) if colon else "")
    if text.startswith(f"{SSH}://"):
        return _ssh(text)
    raise _wrong(text, "is not a device", f"a device is {GRAMMAR}, or a name from `edgekit device list`")


def _wrong(text: str, what: str, next_step: str = f"write {GRAMMAR}") -> UsageError:
    return UsageError(what, where=text[:200], next_step=next_step)


def _target(text: str, target: str) -> str:
    if not is_target_name(target):
        raise _wrong(text, "names no target after the colon", "see `edgekit targets list`")
    return target


def _ssh(text: str) -> DeviceUrl:
    authority, slash, path = text.removeprefix(f"{SSH}://").partition("/")
    parts = _AUTHORITY.fullmatch(authority)
    if parts is None:
        raise _wrong(text, "has no host name in it")
    user, host, port = parts["user"], parts["host"], parts["port"]
    return DeviceUrl(
        SSH,
        host=_host(text, host),
        user="" if user is None else _user(text, user),
        port=None if port is None else _port(text, port),
        folder=_folder(text, slash + path),
    )


def _user(text: str, user: str) -> str:
    if ":" in user:
        without = text.replace(user, user.partition(":")[0], 1)
        raise UsageError("holds a password", where="a device's URL", next_step=f"use an ssh key, and write {without}")
    if _USER.fullmatch(user) is None:
        raise _wrong(text, f"{user!r} is no user name")
    return user


def _host(text: str, host: str) -> str:
    if (bracketed := _IPV6.fullmatch(host)) is not None:
        try:
            return str(ipaddress.IPv6Address(bracketed[1]))
        except ValueError as error:
            raise _wrong(text, f"{host} is no IPv6 address") from error
    if _HOST.fullmatch(host) is None:
        raise _wrong(text, f"{host!r} is no host name")
    return host


def _port(text: str, port: str) -> int:
    if _PORT.fullmatch(port) is None or not 1 <= int(port) <= 65535:
        raise _wrong(text, f"{port!r} is no port", "a port is a number from 1 to 65535")
    return int(port)


def _folder(text: str, folder: str) -> str:
    parts = [part for part in folder.split("/") if part]
    if _FOLDER.fullmatch(folder) is None or {".", ".."} & set(parts) or any(part.startswith("-") for part in parts):
        raise _wrong(
            text, f"{folder!r} is no folder for edgekit", "an absolute path of plain names, such as /data/edgekit"
        )
    return "".join(f"/{part}" for part in parts)
