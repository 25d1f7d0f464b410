"""The error tree: every error a user can meet says what, where and what to do next, and carries its exit code.

    EdgekitError
    ├── InternalError        1   a defect of edgekit itself
    ├── UsageError           2   a wrong flag, an unknown name, a missing extra
    ├── RequirementsNotMet   3   nothing fits what was asked
    ├── DeviceError          4   a device cannot be reached or does not answer in protocol
    ├── TargetIncompatible   5   ISA, glibc or architecture of the target does not admit it
    ├── InputRejected        6   a model, data set or configuration file is not acceptable
    ├── Untrustworthy        7   a measurement cannot be trusted
    ├── VerificationFailed   8   a digest, signature or self-test does not hold
    ├── ResourceLimit        9   memory, time, disk, or a crash in a child process
    │   ├── OutOfMemory      9   a process had no memory left, or was killed for what it took
    │   └── DiskFull         9   no room to write; never blamed on a candidate
    └── Busy                10   another process holds the lock

Exit codes are a stable interface. 0 is success and 130 an interrupt.
"""

from typing import ClassVar


class EdgekitError(Exception):
    """Base of all errors shown to a user.

    `what` is one sentence without a trailing period, `where` names the file, tensor or option, `next_step` says what to do.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str = "", next_step: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.next_step = next_step

    def __str__(self) -> str:
        line = f"{self.where}: {self.what}" if self.where else self.what
        return printable(f"{line}; {self.next_step}" if self.next_step else line)


class InternalError(EdgekitError):
    """A defect of edgekit."""

    exit_code = 1


class UsageError(EdgekitError):
    """The command line or the call is wrong."""

    exit_code = 2


class RequirementsNotMet(EdgekitError):
    """No candidate satisfies the stated requirements."""

    exit_code = 3


class DeviceError(EdgekitError):
    """A device cannot be reached, or answered outside the protocol."""

    exit_code = 4


class TargetIncompatible(EdgekitError):
    """The target lacks an ISA feature, a libc version, or has another architecture."""

    exit_code = 5


class InputRejected(EdgekitError):
    """A model, a data set or a configuration file is not acceptable."""

    exit_code = 6


class Untrustworthy(EdgekitError):
    """A measurement was disturbed beyond use."""

    exit_code = 7


class VerificationFailed(EdgekitError):
    """A digest, a signature or a self-test does not hold."""

    exit_code = 8


class ResourceLimit(EdgekitError):
    """Memory, time or disk ran out, or a child process crashed."""

    exit_code = 9


class OutOfMemory(ResourceLimit):
    """A process had no memory left, or was killed for what it took."""


class DiskFull(ResourceLimit):
    """There is no room left to write."""


class Busy(EdgekitError):
    """Another process holds the lock."""

    exit_code = 10


INTERRUPTED_EXIT_CODE = 130

ERRORS_BY_NAME: dict[str, type[EdgekitError]] = {
    cls.__name__: cls
    for cls in (
        EdgekitError,
        InternalError,
        UsageError,
        RequirementsNotMet,
        DeviceError,
        TargetIncompatible,
        InputRejected,
        Untrustworthy,
        VerificationFailed,
        ResourceLimit,
        OutOfMemory,
        DiskFull,
        Busy,
    )
}


def printable(text: str) -> str:
    """`text` with control characters escaped: tensor and file names are untrusted and may hold terminal codes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
