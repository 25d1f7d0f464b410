"""Every fault of a board over SSH ends in its documented error, within its deadline, and leaves the board's folder clean."""

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest

from edgekit.devices import board
from edgekit.devices.openssh import Cut
from edgekit.devices.ssh import SshDevice
from edgekit.errors import DeviceError, DiskFull, EdgekitError, ResourceLimit, TargetIncompatible, UsageError
from edgekit.runner.client import failure
from tests.ekrun_tools import conv_feed, conv_model, library
from tests.proxy import Proxy
from tests.sshd import KINDS, Client, Server, free_port, new_key, serving, write_client
from tests.test_ssh import cut_upload, noise, opened, until


@pytest.fixture(scope="module", params=KINDS)
def board_by_ssh(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    mounts = [("noexec", "noexec", "8m"), ("exec", "small", "4m")] if os.getuid() == 0 else []
    with serving(request.param, tmp_path_factory.mktemp("server"), mounts=mounts) as server:
        yield server


@pytest.fixture
def server(board_by_ssh: Server) -> Iterator[Server]:
    """After each fault: nothing of it runs on the board, and its folder has no scratch folder and is emptied by `clean`."""
    yield board_by_ssh
    check_clean(board_by_ssh)


def check_clean(server: Server) -> None:
    until(lambda: not server.running("ekrun") and not server.running("script"), f"left: {server.processes()}")
    assert not list(server.edgekit.glob("jobs/*"))
    with closing(opened(server)) as device:
        device.clean()
    assert not list(server.edgekit.iterdir())


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekit.devices.feed.LONGEST_PAUSE_S", 0.05)


def refused(open_it: Callable[[], object], kind: type[EdgekitError], *parts: str) -> EdgekitError:
    """The error, of exactly this kind, in one line that holds the parts."""
    started = time.monotonic()
    with pytest.raises(EdgekitError) as caught:
        open_it()
    assert isinstance(caught.value, kind), repr(caught.value)
    for part in parts:
        assert part in str(caught.value)
    assert str(caught.value).isprintable()
    assert time.monotonic() - started < 30
    return caught.value


def bench(device: SshDevice, folder: Path, *more: str) -> list[str]:
    """ekrun's words for a run of some minutes, everything it needs on the board."""
    np.save(folder / "x.npy", conv_feed()["x"])
    conv_model(folder / "model.onnx")
    path = Path(library("onnxruntime"))
    there = device.put({"model.onnx": folder / "model.onnx", "x.npy": folder / "x.npy", path.name: path})
    words = ["--engine", "onnxruntime", "--lib", f"{there}/{path.name}", "--model", f"{there}/model.onnx"]
    return ["bench", *words, "--threads", "1", "--input", f"x={there}/x.npy", *more]


LONG = ("--runs", "10000000")


# ------------------------------------------------------------------------------------------------------------- the connection


def test_an_unknown_host(server: Server) -> None:
    from edgekit.core.device_url import parse_device

    url = parse_device("ssh://no-such-board.invalid")
    error = refused(lambda: SshDevice(url, ssh_config=server.client.config), DeviceError, "no such host")
    assert error.exit_code == 4


def test_a_refused_connection(server: Server) -> None:
    refused(lambda: opened(server, free_port()), DeviceError, "refuses the connection")


def test_a_host_that_takes_the_connection_and_says_nothing(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "edgekit.devices.openssh._MASTER_OPTIONS", ("-o", "ControlMaster=yes", "-o", "ConnectTimeout=2")
    )
    with socket.create_server(("127.0.0.1", 0)) as silent:
        refused(lambda: opened(server, silent.getsockname()[1]), DeviceError, "does not answer")


def with_client(server: Server, client: Client) -> Callable[[], SshDevice]:
    return lambda: SshDevice(server.url(), ssh_config=client.config)


def test_a_wrong_key(server: Server, tmp_path: Path) -> None:
    new_key(tmp_path / "other")
    known = server.client.known_hosts.read_text().split(maxsplit=1)[1].strip()
    client = write_client(tmp_path / "client", tmp_path / "other", known)
    refused(with_client(server, client), DeviceError, "does not accept the user or the key", "ssh-copy-id")


def test_a_changed_host_key_is_refused_and_stays_refused(server: Server, tmp_path: Path) -> None:
    other = " ".join(new_key(tmp_path / "other").split()[:2])
    client = write_client(tmp_path / "client", server.client.key, other)
    before = client.known_hosts.read_text()
    for _ in range(2):
        refused(with_client(server, client), DeviceError, "host key has changed", "ssh-keygen -R", "console")
    assert client.known_hosts.read_text() == before


def test_an_unknown_host_key_is_accepted_by_the_command_that_is_named(server: Server, tmp_path: Path) -> None:
    client = write_client(tmp_path / "client", server.client.key, "")
    error = refused(with_client(server, client), DeviceError, "host key is not known")
    command = str(error).split("`")[1]
    assert command == f"ssh -F {client.config} -p {server.port} {server.user}@127.0.0.1 exit"
    assert client.known_hosts.read_text() == ""
    accept = command.replace("ssh ", "ssh -o StrictHostKeyChecking=accept-new ", 1)  # stands for a user's "yes"
    subprocess.run(accept.split(), check=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=30)
    with_client(server, client)().close()


def test_no_ssh_client(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert refused(lambda: opened(server), UsageError, "openssh-client").exit_code == 2


def test_no_such_configuration(server: Server, tmp_path: Path) -> None:
    refused(lambda: SshDevice(server.url(), ssh_config=tmp_path / "none"), UsageError, "no such ssh configuration")


# -------------------------------------------------------------------------------------------------------------------- the link


@pytest.mark.usefixtures("quick")
def test_a_link_that_stays_cut_ends_the_upload(server: Server, tmp_path: Path) -> None:
    with Proxy(server.port) as proxy, closing(opened(server, proxy.port)) as device:
        started = time.monotonic()
        with pytest.raises(DeviceError, match="cut"):
            cut_upload(proxy, device, noise(tmp_path / "file", 6_000_000), 2_000_000)
        assert time.monotonic() - started < 60
        connections = proxy.connections
        assert 4 <= connections <= 10


@pytest.mark.usefixtures("quick")
def test_tries_without_progress_are_counted_afresh_after_progress(server: Server, tmp_path: Path) -> None:
    """Three in four connections bring nothing; more tries than are allowed in vain, and the file arrives."""
    turn = iter(range(1000))
    with Proxy(server.port) as proxy, closing(opened(server, proxy.port)) as device:
        proxy.plan = lambda: (600_000 if next(turn) % 4 == 3 else 0, "close")
        proxy.cut_all()
        there = device.put({"file": noise(tmp_path / "file", 1_500_000)})
        assert proxy.cuts > 8
        proxy.plan = lambda: None
        device.get(f"{there}/file", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == (tmp_path / "file").read_bytes()


def test_a_link_cut_during_a_run_ends_the_run_here_and_there(server: Server, tmp_path: Path) -> None:
    with Proxy(server.port) as proxy, closing(opened(server, proxy.port)) as device:
        words = bench(device, tmp_path, *LONG)
        thread = threading.Thread(target=lambda: (until(lambda: server.running("--runs"), "no run"), proxy.cut_all()))
        thread.start()
        started = time.monotonic()
        with pytest.raises(DeviceError, match="cut"), device.scratch():
            device.run(words, deadline_s=100)
        thread.join()
        assert time.monotonic() - started < 30
        until(lambda: not server.running("--runs"), "ekrun lives on")
        assert device.run(["facts"], deadline_s=30).returncode == 0


def test_a_link_cut_in_a_conversation(server: Server, tmp_path: Path) -> None:
    with Proxy(server.port) as proxy, closing(opened(server, proxy.port)) as device:
        words = bench(device, tmp_path, "--stdin", "--warmup", "1")
        with device.talk(words) as talk:
            talk.answer(60)
            talk.tell("go 1000000")
            until(lambda: server.running("--stdin"), "no ekrun")
            proxy.cut_all()
            with pytest.raises(DeviceError):
                talk.answer(60)
        until(lambda: not server.running("--stdin"), "ekrun lives on")


def test_a_conversation_left_in_the_middle_leaves_no_process(server: Server, tmp_path: Path) -> None:
    with closing(opened(server)) as device:
        with device.talk(bench(device, tmp_path, "--stdin", "--warmup", "1")) as talk:
            talk.answer(60)
            talk.tell("go 1000000")
            until(lambda: server.running("--stdin"), "no ekrun")
        assert not server.running("--stdin")


def test_a_run_beyond_its_deadline_leaves_no_process(server: Server, tmp_path: Path) -> None:
    with closing(opened(server)) as device:
        assert device.run(bench(device, tmp_path, *LONG), deadline_s=2).timed_out
        assert not server.running("--runs")


def test_a_link_that_falls_silent_is_given_up(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody closes anything; a run waits no longer than ssh's own questions to the server take."""
    from edgekit.devices import openssh

    patient = tuple(w.replace("ServerAliveInterval=5", "ServerAliveInterval=1") for w in openssh._MASTER_OPTIONS)
    monkeypatch.setattr(openssh, "_MASTER_OPTIONS", patient)
    with Proxy(server.port) as proxy, closing(opened(server, proxy.port)) as device:
        words = bench(device, tmp_path, *LONG)
        stopped = server_of(server)
        thread = threading.Timer(2.0, os.kill, (stopped, signal.SIGSTOP))
        thread.start()
        try:
            with pytest.raises(DeviceError, match="cut"):
                device.run(words, deadline_s=60)
        finally:
            thread.join()
            os.kill(stopped, signal.SIGCONT)


def server_of(server: Server) -> int:
    """The server's process of the one connection: the parent of the script that holds it."""
    script = min(server.running("script"))
    return int(Path(f"/proc/{script}/stat").read_text().rpartition(")")[2].split()[1])


# ------------------------------------------------------------------------------------------------------------------- the board


needs_root = pytest.mark.skipif(os.getuid() != 0, reason="mounting a small disk needs root")


@needs_root
def test_a_board_that_has_no_room(server: Server, tmp_path: Path) -> None:
    with closing(opened(server, folder=f"{server.there}/small/edgekit")) as device:
        error = refused(
            lambda: device.put({"file": noise(tmp_path / "file", 6_000_000)}), DiskFull, "MiB free", "device clean"
        )
        assert error.exit_code == 9
        device.put({"file": noise(tmp_path / "fits", 1_000_000)})
        device.clean()


@needs_root
def test_a_disk_that_fills_up_on_the_way(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """df promised more: what has arrived is removed."""
    monkeypatch.setattr(board, "free_bytes", lambda _: None)
    with closing(opened(server, folder=f"{server.there}/small/edgekit")) as device:
        refused(lambda: device.put({"file": noise(tmp_path / "file", 6_000_000)}), DiskFull, "disk is full")
        listing = looked(device, 'ls "$f/parts"; df -Pk .')
        assert not [line for line in listing if "." in line.split()[0]]
        assert (board.free_bytes or len)(listing) is None
        device.clean()


def looked(device: SshDevice, script: str) -> list[str]:
    """What a script says; dropbear may end the connection over bytes that were on their way to a writer that is gone."""
    for _ in range(3):
        with suppress(Cut):
            device._ensure()
            return device._script(script, [], deadline_s=20).stdout.decode().splitlines()
    raise AssertionError("no connection stands")


@needs_root
def test_a_folder_that_forbids_execution(server: Server) -> None:
    folder = f"{server.there}/noexec/edgekit"
    error = refused(lambda: opened(server, folder=folder), TargetIncompatible, "noexec", "another folder", "ermission")
    assert error.exit_code == 5


def test_an_ekrun_that_was_killed(server: Server, tmp_path: Path) -> None:
    with closing(opened(server)) as device:
        words = bench(device, tmp_path, *LONG)

        def kill() -> None:
            until(lambda: [p for p in server.running("--runs") if is_ekrun(p)], "no run")
            os.kill(next(p for p in server.running("--runs") if is_ekrun(p)), 9)

        thread = threading.Thread(target=kill)
        thread.start()
        done = device.run(words, deadline_s=60)
        thread.join()
        assert done.returncode == -9 and not done.timed_out
        error = failure(done, device.name)
        assert isinstance(error, ResourceLimit)
        assert "died by SIGKILL" in str(error) and "out-of-memory killer most likely" in str(error)


def is_ekrun(pid: int) -> bool:
    return Path(f"/proc/{pid}/comm").read_text().startswith("ekrun")


def test_a_program_that_is_none(server: Server, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_bytes(b"\x7fELF rubbish")
    refused(
        lambda: SshDevice(server.url(), ssh_config=server.client.config, program=lambda _: text), TargetIncompatible
    )


def test_a_program_whose_loader_the_board_lacks(server: Server, tmp_path: Path) -> None:
    """What a 32-bit or musl system says of a glibc program."""
    changed = tmp_path / "ekrun"
    source = Path(__file__).parent.parent / "edgekit/runner/bin/ekrun-x86_64"
    changed.write_bytes(source.read_bytes().replace(b"/lib64/ld-linux-x86-64.so.2", b"/lib64/ld-linux-x86-64.so.9"))
    refused(
        lambda: SshDevice(server.url(), ssh_config=server.client.config, program=lambda _: changed),
        TargetIncompatible,
        "loader",
        "32-bit",
    )


@pytest.mark.parametrize("machine", ["armv7l", "i686", "riscv64", "x\x1b[2J"])
def test_other_architectures(server: Server, machine: str) -> None:
    """`uname` as another board has it: found first in the PATH that a shell is started with."""
    (server.home / ".bashrc").write_text(f"uname() {{ printf '%s\\n' '{machine}'; }}; export -f uname\n")
    shadow = server.home / "bin"
    shadow.mkdir(exist_ok=True)
    (shadow / "uname").write_text(f"#!/bin/sh\nprintf '%s\\n' '{machine}'\n")
    (shadow / "uname").chmod(0o755)
    (server.home / ".bashrc").write_text(f'PATH="{server.there}/bin:$PATH"\n')
    try:
        refused(lambda: opened(server), TargetIncompatible, "x86_64 and aarch64")
    finally:
        (server.home / ".bashrc").unlink()
        shutil.rmtree(shadow)


def test_a_folder_that_is_a_link(server: Server) -> None:
    (server.home / "real").mkdir()
    (server.home / "link").symlink_to("real")
    refused(lambda: opened(server, folder=f"{server.there}/link"), DeviceError, "symbolic link", "another folder")
    assert not list((server.home / "real").iterdir())


@needs_root
def test_a_folder_of_another_user(server: Server) -> None:
    (server.home / "theirs").mkdir()
    os.chown(server.home / "theirs", 12345, 12345)
    refused(lambda: opened(server, folder=f"{server.there}/theirs"), DeviceError, "another user")


def test_a_folder_with_somebodys_files_is_left_alone(server: Server) -> None:
    (server.home / "photos").mkdir(mode=0o755)
    (server.home / "photos/.one").write_text("x")
    refused(lambda: opened(server, folder=f"{server.there}/photos"), DeviceError, "not edgekit's")
    assert [path.name for path in (server.home / "photos").iterdir()] == [".one"]
    assert (server.home / "photos").stat().st_mode & 0o777 == 0o755


def test_a_folder_that_cannot_be_made(server: Server) -> None:
    (server.home / "file").write_text("x")
    refused(lambda: opened(server, folder=f"{server.there}/file/edgekit"), DeviceError, "cannot be made")


def test_a_folder_emptied_by_somebody_meanwhile(server: Server) -> None:
    with closing(opened(server)) as device:
        shutil.rmtree(server.edgekit / "sets")
        error = refused(lambda: device.run(["facts"], deadline_s=30), DeviceError, "emptied meanwhile")
        assert "run the command again" in error.next_step
        shutil.rmtree(server.edgekit / "jobs")
        refused(lambda: device.run(["facts"], deadline_s=30), DeviceError, "emptied meanwhile")
        (server.edgekit / "jobs").mkdir()


def test_a_file_that_changes_while_it_is_sent(server: Server, tmp_path: Path) -> None:
    file = noise(tmp_path / "file", 300_000)
    with closing(opened(server)) as device:
        device._digest(file)
        stat = file.stat()
        noise(file, 300_000, seed=1)
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        refused(lambda: device.put({"file": file}), DeviceError, "damaged twice")
        assert not list((server.edgekit / "parts").iterdir())
        noise(file, 300_000, seed=2)
        device.put({"file": file})


# ------------------------------------------------------------------------------------------------------- servers of their own


def forced(command: str, kind: str) -> list[str]:
    """A server's options for a forced command."""
    return [f"ForceCommand {command}"] if kind == "openssh" else ["-c", command]


RUBBISH = {
    "words and an end": "echo This account is currently not available.",
    "a flood of lines": "yes rubbish",
    "a flood without lines": "cat /dev/zero",
    "nothing": "true",
    "an echo": "cat",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", RUBBISH)
def test_a_board_that_answers_rubbish(what: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekit.devices.openssh.START_DEADLINE_S", 3.0)
    with serving(kind, tmp_path, options=forced(RUBBISH[what], kind)) as server:
        error = refused(lambda: opened(server), DeviceError)
        assert error.exit_code == 4


def test_a_banner_is_not_an_answer(tmp_path: Path) -> None:
    (tmp_path / "banner").write_text("Permission denied (for the unauthorized).\nNo space left on device\n" * 20)
    for kind, options in (("openssh", [f"Banner {tmp_path}/banner"]), ("dropbear", ["-b", f"{tmp_path}/banner"])):
        with serving(kind, tmp_path / kind, options=options) as server, closing(opened(server)) as device:
            assert device.run(["facts"], deadline_s=30).stderr == b""
