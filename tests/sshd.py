"""Real SSH servers on loopback: OpenSSH's sshd, and dropbear without sftp, as boards of this machine's own architecture.

- Each runs as the current user on a free port, in mount and process namespaces of its own: its home folder is a temporary one,
  it sees no key, setting or process but its own, and all it started dies with it.
- The client uses a configuration file, key and known_hosts of its own (`ssh -F`), written by `write_client`.
"""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgekit.core.device_url import DeviceUrl, parse_device

KINDS = ("openssh", "dropbear")
ALIAS = "board"  # the name host keys are known by, whatever port a proxy listens on

_START = """
mount --rbind "$1" "$2" || exit 90
[ -z "$3" ] || { mount -t tmpfs tmpfs /run && mkdir -p "$3"; } || exit 91
shift 3
exec "$@"
"""


@dataclass(frozen=True)
class Client:
    """What a client needs: the file for `ssh -F`, its private key, and the file of known host keys."""

    config: Path
    key: Path
    known_hosts: Path


@dataclass(frozen=True)
class Server:
    """A running server. `home` is the account's home folder as seen from here, `there` as the board sees it."""

    kind: str
    port: int
    home: Path
    there: str
    client: Client
    process: subprocess.Popen[bytes]
    folder: Path
    user: str = pwd.getpwuid(os.getuid()).pw_name

    def url(self, folder: str = "", port: int = 0) -> DeviceUrl:
        """The device; `port` where a proxy stands before it."""
        return parse_device(f"ssh://{self.user}@127.0.0.1:{port or self.port}{folder}")

    @property
    def edgekit(self) -> Path:
        """edgekit's folder there, by default."""
        return self.home / ".edgekit"

    def processes(self) -> dict[int, str]:
        """The command lines of all processes on the board but the server itself, by their numbers here."""
        init = self._init()
        space = (Path("/proc") / str(init) / "ns/pid").readlink()
        found = {}
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and (entry / "ns/pid").readlink() == space and int(entry.name) != init:
                    words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                    if words:
                        found[int(entry.name)] = words
        return found

    def running(self, word: str) -> list[int]:
        """Who has `word` in the command line, servers' own processes left out."""
        servers = ("sshd", "dropbear", "/usr/sbin/")
        return [pid for pid, words in self.processes().items() if word in words and not words.startswith(servers)]

    def log(self) -> str:
        """What the server printed."""
        return (self.folder / "log").read_text(errors="replace")

    def _init(self) -> int:
        pid = self.process.pid
        children = (Path("/proc") / str(pid) / "task" / str(pid) / "children").read_text().split()
        return int(children[0])


def program(name: str) -> str | None:
    """A server's path: it often lies outside a user's PATH."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/local/sbin")


def skip_or_fail(reason: str) -> None:
    """Skip the calling test, visibly; fail it under EDGEKIT_REQUIRE_BOARD=1."""
    if boards_are_asked_for():
        pytest.fail(reason)
    pytest.skip(reason)


def boards_are_asked_for() -> bool:
    """Tests on boards take minutes, servers and namespaces: they run where EDGEKIT_REQUIRE_BOARD=1 asks, as in `.ci/run`."""
    return os.environ.get("EDGEKIT_REQUIRE_BOARD") == "1"


def require(kind: str) -> None:
    """Skip or fail where this kind of server cannot run."""
    if not boards_are_asked_for():
        pytest.skip("boards are tested with EDGEKIT_REQUIRE_BOARD=1")
    needed = ["ssh", "ssh-keygen", "unshare", *(["sshd"] if kind == "openssh" else ["dropbear", "dropbearkey"])]
    missing = [name for name in needed if program(name) is None]
    if missing:
        skip_or_fail(f"no {kind} on loopback: {', '.join(missing)} is missing")
    done = subprocess.run([*_namespaces(), "true"], capture_output=True, text=True, check=False)
    if done.returncode:
        skip_or_fail(f"no {kind} on loopback: no namespaces here ({done.stderr.strip()[:200]})")


def new_key(path: Path) -> str:
    """Make an ed25519 key pair; returns the public line."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path.with_suffix(".pub").read_text()


def write_client(folder: Path, key: Path, host_key: str, more: Sequence[str] = ()) -> Client:
    """A client's configuration in `folder` that knows the board by `host_key` ("ssh-ed25519 AAAA..."), "" for none."""
    folder.mkdir(parents=True, exist_ok=True)
    known_hosts, config = folder / "known_hosts", folder / "config"
    known_hosts.write_text(f"{ALIAS} {host_key}\n" if host_key else "")
    lines = [
        *more,
        f'IdentityFile "{key}"',
        "IdentitiesOnly yes",
        "IdentityAgent none",
        f'UserKnownHostsFile "{known_hosts}"',
        "GlobalKnownHostsFile none",
        f"HostKeyAlias {ALIAS}",
    ]
    config.write_text("\n".join(lines) + "\n")
    return Client(config, key, known_hosts)


def free_port() -> int:
    """A port nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def serving(
    kind: str, folder: Path, *, options: Sequence[str] = (), mounts: Sequence[tuple[str, str, str]] = ()
) -> Iterator[Server]:
    """A server of `kind` in `folder`; `options` are lines of sshd_config or words for dropbear.

    `mounts` are (options, name in the home, size) of tmpfs folders made there.
    """
    require(kind)
    home = folder / "home"
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    home.chmod(0o700)
    public = new_key(folder / "key")
    keys = home / ".ssh/authorized_keys"
    keys.write_text(public)
    keys.chmod(0o600)
    port, there = free_port(), pwd.getpwuid(os.getuid()).pw_dir
    make = _openssh if kind == "openssh" else _dropbear
    argv, host_key = make(folder, port, f"{there}/.ssh/authorized_keys", options)
    client = write_client(folder / "client", folder / "key", host_key)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            _wrapped(argv, home, there, mounts),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_for_banner(process, port, folder / "log")
        yield Server(kind, port, home, there, client, process, folder)
    finally:
        process.kill()  # unshare's child goes with it, and with that all of its process namespace
        process.wait()


def _namespaces() -> list[str]:
    user = [] if os.getuid() == 0 else ["--user", "--map-current-user", "--keep-caps"]
    return ["unshare", *user, "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]


def _wrapped(argv: Sequence[str], home: Path, there: str, mounts: Sequence[tuple[str, str, str]]) -> list[str]:
    # As root, sshd wants an empty folder below /run.
    run = "/run/sshd" if os.getuid() == 0 and not Path("/run/sshd").is_dir() else ""
    lines = [
        f'mkdir -p "{home}/{name}" && mount -t tmpfs -o "{how},size={size}" tmpfs "{home}/{name}" || exit 92\n'
        for how, name, size in mounts
    ]
    return [*_namespaces(), "sh", "-c", "".join(lines) + _START, "sh", str(home), there, run, *argv]


def _openssh(folder: Path, port: int, keys: str, options: Sequence[str]) -> tuple[list[str], str]:
    host_key = new_key(folder / "host_key")
    lines = [
        *options,
        f"Port {port}",
        "ListenAddress 127.0.0.1",
        f"HostKey {folder / 'host_key'}",
        f"AuthorizedKeysFile {keys}",
        "PidFile none",
        "UsePAM no",
        "StrictModes no",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "PermitRootLogin prohibit-password",
    ]
    (folder / "sshd_config").write_text("\n".join(lines) + "\n")
    return [str(program("sshd")), "-D", "-e", "-f", str(folder / "sshd_config")], " ".join(host_key.split()[:2])


def _dropbear(folder: Path, port: int, keys: str, options: Sequence[str]) -> tuple[list[str], str]:
    command = ["dropbearkey", "-t", "ed25519", "-f", str(folder / "host_key")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    host_key = next(line for line in done.stdout.splitlines() if line.startswith("ssh-ed25519 "))
    argv = [str(program("dropbear")), "-F", "-E", "-s", "-r", str(folder / "host_key")]
    argv += ["-p", f"127.0.0.1:{port}", "-P", str(folder / "pid"), *options]
    return argv, " ".join(host_key.split()[:2])


def wait_for_banner(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Until the server answers. Raises RuntimeError with its log when it does not come up."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2) as probe:
            if probe.recv(4) == b"SSH-":
                return
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    raise RuntimeError(f"the server did not come up: {log.read_text(errors='replace')[-500:]}")
