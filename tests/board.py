"""Emulated arm64 boards for tests: an aarch64 program under qemu anywhere, and, for root, a small Linux with an sshd in it.

- The SSH board is a Debian root without Python, a BusyBox userland and a user without rights, entered by chroot under binfmt_misc;
  with dropbear it is made of ten packages, none of which is openssl.
- It lives in mount and process namespaces of its own: its mounts, its ARM /proc/cpuinfo and whatever it started go with it.
- binfmt_misc is the only thing of the machine it touches, and only under EDGEKIT_REQUIRE_BOARD=1; else it uses what is there.
"""

import contextlib
import functools
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from edgekit.core.types import Target
from edgekit.devices.arm64_root import PACKAGES, cpuinfo, fetch_packages, find_libraries, make_root, write_sys
from edgekit.devices.emulated import EmulatedDevice
from edgekit.errors import ResourceLimit
from edgekit.resources import load_target
from edgekit.store import Cache
from tests.sshd import (
    Server,
    boards_are_asked_for,
    free_port,
    new_key,
    skip_or_fail,
    wait_for_banner,
    write_client,
)

QEMU = "qemu-aarch64-static"
BINFMT = Path("/proc/sys/fs/binfmt_misc")
BINFMT_LINE = Path("/usr/lib/binfmt.d/qemu-aarch64.conf")
USER = "pi"
UID = 1000
CPUS = 2

_DROPBEAR = "busybox-static dropbear-bin libcrypt1 libtomcrypt1 libtommath1 libgmp10"
_OPENSSH = (
    "openssh-server openssh-sftp-server openssl libssl3 libaudit1 libcap-ng0 libcom-err2 libgssapi-krb5-2 libkrb5-3 libk5crypto3 "
    "libkrb5support0 libkeyutils1 libpam0g libselinux1 libpcre2-8-0 libsystemd0 libcap2 libgcrypt20 libgpg-error0 liblz4-1 "
    "liblzma5 libzstd1 libwrap0 libnsl2 libtirpc3"
)
_FOLDERS = ["proc", "sys", "dev", "tmp", "run/sshd", "etc/dropbear", "etc/ssh", "root", "home", "bin", "usr/bin"]
BOARD_PACKAGES: Mapping[str, Sequence[str]] = {
    "dropbear": (*PACKAGES, *_DROPBEAR.split()),
    "openssh": (*PACKAGES, *_DROPBEAR.split(), *_OPENSSH.split()),
}


def default_cache() -> Path:
    """Where roots and engines are kept between test runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgekit-tests"


def require_board(qemu: str = QEMU) -> None:
    """Skip or fail, as `skip_or_fail`, where no program can be run emulated."""
    if not boards_are_asked_for():
        pytest.skip("boards are tested with EDGEKIT_REQUIRE_BOARD=1")
    reason = f"{qemu} is missing" if shutil.which(qemu) is None else _no_libraries() if qemu == QEMU else ""
    if reason:
        skip_or_fail(f"no emulated board: {reason}")


@functools.cache
def _no_libraries() -> str:
    """Why there are no arm64 libraries, tried once; "" when there are."""
    try:
        find_libraries(Cache(default_cache()))
    except ResourceLimit as error:
        return str(error)
    return ""


def emulated(name: str = "raspberry-pi-4") -> EmulatedDevice:
    """The emulated device of a target; to be closed."""
    target: Target = load_target(name, Path(__file__).parent.parent)
    require_board(f"qemu-{target.arch}-static")
    return EmulatedDevice(target, Cache(default_cache()))


@functools.cache
def board_argv(core: str = "cortex-a53") -> list[str]:
    """The command prefix that runs an aarch64 program on the emulated `core`, inside a root of its own."""
    cache, key = Cache(default_cache()), f"{core}-2"
    if cache.get("test-roots", key) is None:
        with cache.filling("test-roots", key) as folder:
            make_root(folder, core, find_libraries(cache))
    return [QEMU, "-cpu", core, "-L", str(cache.root / "test-roots" / key)]


# ------------------------------------------------------------------------------------------------------------ SSH board


def require_ssh_board() -> None:
    """Skip or fail, as `skip_or_fail`, where no board can be entered by ssh."""
    require_board()
    if os.geteuid() != 0:
        skip_or_fail("no emulated board: chroot needs root")
    if missing := [
        tool for tool in ("setpriv", "unshare", "chroot", "ssh", "ssh-keygen") if shutil.which(tool) is None
    ]:
        skip_or_fail(f"no emulated board: {', '.join(missing)} is missing")
    if os.environ.get("EDGEKIT_REQUIRE_BOARD") != "1" and not (BINFMT / "qemu-aarch64").exists():
        skip_or_fail(
            "no emulated board: qemu-aarch64 is not registered in binfmt_misc, and only EDGEKIT_REQUIRE_BOARD=1 allows it"
        )


@contextlib.contextmanager
def ssh_board(daemon: str, folder: Path, *, core: str = "cortex-a72") -> Iterator[Server]:
    """A board with a `core`, made in `folder`, that lets its client in as `pi`.

    `daemon` is "openssh", or "dropbear", which has no sftp. Skips or fails the test where there can be none.
    """
    require_ssh_board()
    root, port = folder / "root", free_port()
    subprocess.run(["cp", "-a", template(daemon), root], check=True)
    _configure(root, new_key(folder / "key"), core)
    client = write_client(folder / "client", folder / "key", _host_key(root, daemon))
    # Gone with this process, however it ends, and with that all that runs in its namespaces.
    argv = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child"]
    argv += ["sh", "-c", _BOOT, "boot", str(root)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*argv, *_DAEMONS[daemon](port)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_for_banner(process, port, folder / "log")
        home = root / "home" / USER
        yield Server(f"board-{daemon}", port, home, f"/home/{USER}", client, process, folder, user=USER)
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(root, ignore_errors=True)


# $1 is the root, the rest the daemon. This shell is the board's first process: its `wait` reaps whom their parents left.
# The root is mounted on itself so that the board has a file system at `/`, which `df` asks for.
_BOOT = f"""
set -eu
root=$1; shift
mount -t binfmt_misc binfmt_misc {BINFMT} 2>/dev/null || test -e {BINFMT}/register
test -e {BINFMT}/qemu-aarch64 || cat {BINFMT_LINE} > {BINFMT}/register || test -e {BINFMT}/qemu-aarch64
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --bind "$root/etc/cpuinfo" "$root/proc/cpuinfo"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
mknod -m 666 "$root/dev/null" c 1 3
mknod -m 666 "$root/dev/zero" c 1 5
mknod -m 666 "$root/dev/random" c 1 8
mknod -m 666 "$root/dev/urandom" c 1 9
mknod -m 666 "$root/dev/tty" c 5 0
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot "$root" "$@" &
wait
"""

_DAEMONS: dict[str, Callable[[int], tuple[str, ...]]] = {
    "dropbear": lambda port: (
        *("/usr/sbin/dropbear", "-F", "-E", "-s", "-w", "-r", "/etc/dropbear/host_key"),
        *("-P", "/run/dropbear.pid", "-p", f"127.0.0.1:{port}"),
    ),
    "openssh": lambda port: ("/usr/sbin/sshd", "-D", "-e", "-p", str(port)),
}

_SSHD_CONFIG = f"""\
ListenAddress 127.0.0.1
HostKey /etc/ssh/host_key
AllowUsers {USER}
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
MaxStartups 100
MaxSessions 100
Subsystem sftp /usr/lib/openssh/sftp-server
"""


def template(daemon: str) -> Path:
    """The root of a board with that daemon before it has a user, made once for a cache folder."""
    cache, key = Cache(default_cache()), f"arm64-{daemon}-1"
    if (made := cache.get("test-boards", key)) is not None:
        return made
    with cache.scratch() as work, cache.filling("test-boards", key) as root:
        try:
            fetch_packages(BOARD_PACKAGES[daemon], root, work)
        except ResourceLimit as error:
            skip_or_fail(f"no emulated board: {error}")
        shutil.rmtree(root / "usr/share")
        for name in _FOLDERS:
            (root / name).mkdir(parents=True, exist_ok=True)
        _link_applets(root)
        absent = {"dropbear": ("python*", "*openssl*", "libssl*"), "openssh": ("python*",)}[daemon]
        assert not [path for name in absent for path in root.glob(f"**/{name}")]
    return cache.root / "test-boards" / key


def _link_applets(root: Path) -> None:
    listed = subprocess.run(
        [QEMU, "-L", root, root / "bin/busybox", "--list"], capture_output=True, text=True, check=True
    )
    for applet in listed.stdout.split():
        if not any((root / folder / applet).exists() for folder in ("bin", "usr/bin", "usr/sbin")):
            (root / "bin" / applet).symlink_to("busybox")


def _configure(root: Path, public_key: str, core: str) -> None:
    """Users, the way in, and the core: daemons clear the environment, so the login shell sets qemu's."""
    etc, home = root / "etc", root / "home" / USER
    shell = root / "bin/board-sh"
    shell.write_text(f'#!/bin/busybox sh\nexport QEMU_CPU={core}\nexec /bin/sh "$@"\n')
    shell.chmod(0o755)
    (etc / "passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\n"
        "sshd:x:100:65534::/run/sshd:/bin/false\n"
        f"{USER}:x:{UID}:{UID}::/home/{USER}:/bin/board-sh\n"
    )
    (etc / "shadow").write_text("".join(f"{name}:*:19000:0:99999:7:::\n" for name in ("root", "sshd", USER)))
    (etc / "shadow").chmod(0o600)
    (etc / "group").write_text(f"root:x:0:\nnogroup:x:65534:\n{USER}:x:{UID}:\n")
    (etc / "shells").write_text("/bin/sh\n/bin/board-sh\n")
    (etc / "cpuinfo").write_text(cpuinfo(core, CPUS))
    write_sys(root, core, CPUS)
    (etc / "ssh/sshd_config").write_text(_SSHD_CONFIG)
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    (home / ".ssh/authorized_keys").write_text(public_key)
    (home / ".ssh/authorized_keys").chmod(0o600)
    for path in (home, *home.rglob("*")):
        os.chown(path, UID, UID)
    root.chmod(0o755)


def _host_key(root: Path, daemon: str) -> str:
    """Make the daemon's key; its type and public part."""
    if daemon == "openssh":
        line = new_key(root / "etc/ssh/host_key")
    else:
        make = [QEMU, "-L", root, root / "usr/bin/dropbearkey", "-t", "ed25519", "-f", root / "etc/dropbear/host_key"]
        done = subprocess.run(list(map(str, make)), capture_output=True, text=True, check=True)
        line = next(line for line in done.stdout.splitlines() if line.startswith("ssh-ed25519 "))
    return " ".join(line.split()[:2])
