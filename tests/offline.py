"""A network namespace that holds nothing but its own loopback: what runs in it reaches nobody else."""

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000  # linux/sched.h
_SIOCSIFFLAGS = 0x8914  # linux/sockios.h
_IFF_UP = 1  # linux/if.h


def offline(body: Callable[[], T]) -> T:
    """What `body` returns or raises, run in a thread with such a network of its own; what it starts inherits that."""
    with ThreadPoolExecutor(max_workers=1, initializer=_leave) as alone:
        return alone.submit(body).result()


def _leave() -> None:
    """This thread's network is a new one, with loopback up. Needs root."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", _IFF_UP))
