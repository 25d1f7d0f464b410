"""Every kind of device that the port's tests run on, each as a context manager over a folder of its own."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from edgekit.devices.base import Device
from edgekit.devices.local import LocalDevice
from edgekit.devices.ssh import SshDevice
from edgekit.engines.closure import native_library
from tests.board import default_cache, emulated, ssh_board
from tests.ekrun_tools import library
from tests.sshd import serving

ORT_VERSION = "1.32.0"


@contextlib.contextmanager
def _local(folder: Path) -> Iterator[Device]:
    with contextlib.closing(LocalDevice(folder)) as device:
        yield device


@contextlib.contextmanager
def _ssh(kind: str, folder: Path) -> Iterator[Device]:
    with serving(kind, folder) as server:
        with contextlib.closing(SshDevice(server.url(), ssh_config=server.client.config)) as device:
            yield device


@contextlib.contextmanager
def _emulated(folder: Path) -> Iterator[Device]:
    with contextlib.closing(emulated()) as device:
        yield device


@contextlib.contextmanager
def _board(daemon: str, folder: Path) -> Iterator[Device]:
    with ssh_board(daemon, folder) as server:
        with contextlib.closing(SshDevice(server.url(), ssh_config=server.client.config)) as device:
            yield device


DEVICES: Mapping[str, Callable[[Path], AbstractContextManager[Device]]] = {
    "local": _local,
    "ssh-openssh": partial(_ssh, "openssh"),
    "ssh-dropbear": partial(_ssh, "dropbear"),
    "emulated": _emulated,
    "board-openssh": partial(_board, "openssh"),
    "board-dropbear": partial(_board, "dropbear"),
}


def engine_files(device: Device) -> list[Path]:
    """ONNX Runtime for the device's architecture: the library first, then what lies beside it."""
    if device.arch == "x86_64":
        return [Path(library("onnxruntime"))]
    closure = native_library("onnxruntime", ORT_VERSION, device.arch, default_cache())
    return [closure.library, *closure.files]
