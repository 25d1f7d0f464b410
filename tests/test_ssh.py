"""The SSH device on real servers: what it sends, what it leaves, what it needs, and the pure parts below it."""

import contextlib
import getpass
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.core.device_url import parse_device
from edgekit.devices import board
from edgekit.devices.feed import LEAST_LEAD_BYTES, MOST_LEAD_BYTES, Window
from edgekit.devices.openssh import Cut, explain
from edgekit.devices.ssh import SshDevice
from edgekit.errors import Busy, DeviceError, DiskFull, InternalError
from edgekit.process import Interrupted, child_environment
from edgekit.store import sha256_file
from tests.interrupts import interrupt, interrupted_by
from tests.proxy import Proxy
from tests.sshd import KINDS, Server, serving


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(request.param, tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def device(server: Server) -> Iterator[SshDevice]:
    with closing(SshDevice(server.url(), ssh_config=server.client.config)) as device:
        yield device
        device.clean()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekit.devices.feed.LONGEST_PAUSE_S", 0.1)


def opened(server: Server, port: int = 0, folder: str = "") -> SshDevice:
    return SshDevice(server.url(folder, port), ssh_config=server.client.config)


def noise(path: Path, size: int, seed: int = 0) -> Path:
    path.write_bytes(random.Random(seed).randbytes(size))
    return path


def until(condition: object, what: str, deadline_s: float = 20) -> None:
    end = time.monotonic() + deadline_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, what
        time.sleep(0.02)


def test_everything_lies_in_one_private_folder_that_clean_empties(server: Server, tmp_path: Path) -> None:
    before = {path.name for path in server.home.iterdir()} - {".edgekit"}
    device = opened(server)
    device.put({"file": noise(tmp_path / "file", 1000)})
    assert server.edgekit.stat().st_mode & 0o777 == 0o700
    assert {path.name for path in server.edgekit.iterdir()} <= {"store", "sets", "parts", "jobs"}
    device.clean()
    device.close()
    device.close()
    assert not list(server.edgekit.iterdir())
    assert {path.name for path in server.home.iterdir()} - {".edgekit"} == before
    until(lambda: not server.running("script"), "a shell is left")


def test_what_the_board_has_is_not_sent_again(server: Server, tmp_path: Path) -> None:
    file = noise(tmp_path / "file", 3_000_000)
    with Proxy(server.port) as proxy:
        with closing(opened(server, proxy.port)) as device:
            device.put({"a": file})
            sent = proxy.up
            device.put({"a": file})
            assert proxy.up == sent
            device.put({"another name": file})
            assert proxy.up - sent < 20_000
        sent = proxy.up
        with closing(opened(server, proxy.port)) as device:
            device.put({"a": file})
            device.clean()
        assert proxy.up - sent < 100_000


def test_a_damaged_file_on_the_board_is_found_and_sent_again(server: Server, tmp_path: Path) -> None:
    file = noise(tmp_path / "file", 500_000)
    with closing(opened(server)) as device:
        there = device.put({"a": file})
    found = server.home / Path(there).relative_to(server.there) / "a"
    found.chmod(0o600)
    with found.open("r+b") as stream:
        stream.write(b"flip")
    with closing(opened(server)) as device:
        assert device.put({"a": file}) == there
        device.get(f"{there}/a", tmp_path / "back")
        device.clean()
    assert (tmp_path / "back").read_bytes() == file.read_bytes()


def test_an_upload_cut_at_random_bytes_arrives_exactly(server: Server, tmp_path: Path) -> None:
    choose = random.Random(7)
    file = noise(tmp_path / "file", 6_000_000)
    with Proxy(server.port) as proxy, closing(opened(server, proxy.port)) as device:
        proxy.plan = lambda: (choose.randint(0, 2_500_000), choose.choice(("close", "half")))
        proxy.cut_all()
        there = device.put({"file": file})
        proxy.plan = lambda: None
        assert proxy.cuts >= 2, (proxy.cuts, proxy.connections, proxy.up)
        device.get(f"{there}/file", tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == file.read_bytes()
        device.clean()
    assert not list(server.edgekit.iterdir())


def test_an_upload_is_taken_up_by_the_next_edgekit(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first dies within the upload with its link half open: its writer is ended, its bytes are kept."""
    monkeypatch.setattr("edgekit.devices.feed.LONGEST_PAUSE_S", 0.1)
    file = noise(tmp_path / "file", 8_000_000)
    with Proxy(server.port) as proxy:
        first = opened(server, proxy.port)
        with pytest.raises(DeviceError):
            cut_upload(proxy, first, file, 4_000_000)
        parts = list((server.edgekit / "parts").iterdir())
        assert len(parts) == 1 and 1_000_000 < parts[0].stat().st_size < 8_000_000
        proxy.cut_all()
        until(lambda: not server.running("cat"), "the old writer lives")
        sent = proxy.up
        with closing(opened(server, proxy.port)) as second:
            there = second.put({"file": file})
            assert proxy.up - sent < 8_000_000 - 1_000_000 + 200_000
            second.get(f"{there}/file", tmp_path / "back")
            second.clean()
        first.close()
    assert (tmp_path / "back").read_bytes() == file.read_bytes()


def cut_upload(proxy: Proxy, device: SshDevice, file: Path, after: int, *, lend: bool = False) -> None:
    """Cut an upload when so many bytes have passed, and let nobody connect again."""
    start = proxy.up

    def cut() -> None:
        until(lambda: proxy.up - start > after, "no upload", 30)
        proxy.plan = lambda: (0, "close")
        proxy.cut_all()

    thread = threading.Thread(target=cut)
    thread.start()
    try:
        if lend:
            device.lent({"file": file}).__enter__()
        device.put({"file": file})
    finally:
        thread.join()
        proxy.plan = lambda: None


def test_two_edgekits_at_once_do_not_meet(server: Server, tmp_path: Path) -> None:
    """The same file at the same time; nobody's scratch folder goes, and nobody cleans what another uses."""
    file = noise(tmp_path / "file", 4_000_000)
    with closing(opened(server)) as one, closing(opened(server)) as two, one.scratch() as scratch:
        there: list[str] = []
        threads = [threading.Thread(target=lambda d=d: there.append(d.put({"f": file}))) for d in (one, two)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(there) == 2 and len(set(there)) == 1
        with pytest.raises(Busy, match="another edgekit"):
            two.clean()
        two.close()
        with closing(opened(server)):
            assert (server.home / Path(scratch).relative_to(server.there)).is_dir()
        one.get(f"{there[0]}/f", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == file.read_bytes()
    with closing(opened(server)) as last:
        last.clean()


def test_a_name_that_another_edgekit_links_meanwhile_is_there(server: Server, tmp_path: Path) -> None:
    """Between the look and the rename, as two uploads at once may meet."""
    file = noise(tmp_path / "file", 1000)
    with closing(opened(server)) as device:
        folder = device.put({"f": file})
        stored = f"{device._board.folder}/store/{sha256_file(file)}"
        key = folder.rpartition("/")[2]
        meanwhile = board.GATHER.replace("mv -f", f"ln -f '{stored}' '{folder}/g'; mv -f")
        assert meanwhile != board.GATHER
        done = device._script(meanwhile, [key, sha256_file(file), "g"], deadline_s=20)
        assert done.returncode == 0, done.stderr
        assert sorted(p.name for p in (server.edgekit / "sets" / key).iterdir()) == ["f", "g"]


# ---------------------------------------------------------------------------------------------------- lent for a while


def stored(server: Server) -> set[str]:
    return {path.name for path in server.edgekit.glob("store/*")}


def test_what_is_lent_leaves_the_store_and_other_uploads_stay(server: Server, tmp_path: Path) -> None:
    both, mine = noise(tmp_path / "both", 50_000), noise(tmp_path / "mine", 60_000, seed=1)
    with closing(opened(server)) as device:
        there = device.put({"kept": both})
        before = stored(server)
        with device.lent({"a": both, "b": mine}) as folder:
            assert stored(server) == before | {sha256_file(mine)}
            device.get(f"{folder}/b", tmp_path / "back")
            assert (tmp_path / "back").read_bytes() == mine.read_bytes()
        assert stored(server) == before
        device.get(f"{there}/kept", tmp_path / "back")
        with device.lent({"b": mine}):  # and it is known here, too, that it is gone
            pass
        device.clean()


def test_two_that_are_lent_the_same_do_not_take_it_from_each_other(server: Server, tmp_path: Path) -> None:
    file = noise(tmp_path / "file", 100_000)
    with closing(opened(server)) as one, closing(opened(server)) as two:
        with one.lent({"x": file}) as folder:
            with two.lent({"x": file}):
                pass
            assert sha256_file(file) in stored(server)
            one.get(f"{folder}/x", tmp_path / "back")
        assert sha256_file(file) not in stored(server)
    with closing(opened(server)) as last:
        last.clean()


def test_what_another_took_away_meanwhile_is_sent_again(server: Server, tmp_path: Path) -> None:
    """Between the look into the store and the links, as the end of another one's loan may fall."""
    file = noise(tmp_path / "file", 1000)
    place = server.edgekit / "store" / sha256_file(file)
    with closing(opened(server)) as device:
        device.put({"a": file})
        place.unlink()
        assert sha256_file(file) in device._stored
        device.get(f"{device.put({'another': file})}/another", tmp_path / "back")
        place.unlink()
        assert sha256_file(file) in device._stored
        with device.lent({"b": file}) as folder:
            device.get(f"{folder}/b", tmp_path / "back")
        device.clean()


def test_a_loan_that_is_cut_goes_on_and_leaves_nothing(server: Server, tmp_path: Path, quick: None) -> None:
    file = noise(tmp_path / "file", 8_000_000)
    with Proxy(server.port) as proxy:
        with closing(opened(server, proxy.port)) as first:
            with pytest.raises(DeviceError):
                cut_upload(proxy, first, file, 4_000_000, lend=True)
        proxy.cut_all()
        until(lambda: not server.running("cat"), "the old writer lives")
        assert list((server.edgekit / "parts").iterdir())
        sent = proxy.up
        with closing(opened(server, proxy.port)) as second, second.lent({"file": file}) as folder:
            assert proxy.up - sent < 8_000_000 - 1_000_000 + 200_000
            second.get(f"{folder}/file", tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == file.read_bytes()
    assert sha256_file(file) not in stored(server)
    assert not list(server.edgekit.glob("parts/*"))


class Sending:
    """Uploads of a device, of which the second ends in its own way."""

    def __init__(self, device: SshDevice, monkeypatch: pytest.MonkeyPatch, second: Callable[[], None]) -> None:
        self.offsets: list[tuple[str, int]] = []
        whole = device._send

        def send(digest: str, path: Path, offset: int) -> None:
            self.offsets.append((digest, offset))
            if len(self.offsets) == 2:
                second()
            whole(digest, path, offset)

        monkeypatch.setattr(device, "_send", send)


def two(tmp_path: Path) -> dict[str, Path]:
    return {"a": noise(tmp_path / "a", 50_000), "b": noise(tmp_path / "b", 60_000, seed=1)}


def test_an_interrupt_between_two_uploads_leaves_neither(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt() -> None:
        assert len(stored(server)) == 2
        raise KeyboardInterrupt

    with closing(opened(server)) as device:
        before = stored(server)
        Sending(device, monkeypatch, interrupt)
        with pytest.raises(KeyboardInterrupt):
            device.lent(two(tmp_path)).__enter__()
        assert stored(server) == before
        assert len(before) == 1  # ekrun


def test_a_cut_between_two_uploads_leaves_the_first_on_its_way(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no file of the store any more, but the next one has it."""
    files = two(tmp_path)
    first = sha256_file(files["a"])

    with closing(opened(server)) as one:

        def die() -> None:
            one._link.drop()  # as when this edgekit is killed
            raise DeviceError("the link is gone")

        Sending(one, monkeypatch, die)
        with pytest.raises(DeviceError, match="gone"):
            one.lent(files).__enter__()
        until(lambda: first not in stored(server), "it lies in the store for good")
    with closing(opened(server)) as last:
        assert last.lacking([files["a"]]) == 0
        with last.lent(files) as folder:
            last.get(f"{folder}/a", tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == files["a"].read_bytes()
        assert len(stored(server)) == 1
        last.clean()


def test_a_cut_between_two_uploads_sends_the_first_once(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: None
) -> None:
    files = two(tmp_path)
    with Proxy(server.port) as proxy, closing(opened(server, port=proxy.port)) as device:
        sending = Sending(device, monkeypatch, proxy.cut_all)
        with device.lent(files) as folder:
            device.get(f"{folder}/a", tmp_path / "back")
        again = dict(sending.offsets[2:])
        assert again.get(sha256_file(files["a"]), 50_000) == 50_000
        assert len(stored(server)) == 1
        device.clean()


def test_the_first_error_is_the_one_to_hear_of(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise DiskFull("the board's disk is full")

    with closing(opened(server)) as device:
        with pytest.raises(ZeroDivisionError), monkeypatch.context() as patched, device.lent(two(tmp_path)):
            patched.setattr(device, "_checked", full)
            raise ZeroDivisionError
        device.clean()


SLOW_TO_END = """#!/bin/sh
[ "$1" = facts ] && exit 0
trap 'sleep 3; echo asked > "$1"; echo answer; exit 0' TERM
echo began > "$1"
i=0
while [ $i -lt 300 ]; do sleep 0.1; i=$((i+1)); done
"""


@pytest.mark.parametrize("grace_s", [10, 0])
def test_an_interrupt_is_told_to_the_program_and_waited_for(server: Server, tmp_path: Path, grace_s: int) -> None:
    program = tmp_path / "program"
    program.write_text(SLOW_TO_END)
    program.chmod(0o755)
    said = server.home / "said"
    said.unlink(missing_ok=True)
    url, config = server.url(), server.client.config

    def send() -> None:
        until(said.exists, "did not begin")
        interrupt()
        if grace_s:  # again, while the program puts things right
            time.sleep(1)
            interrupt()

    with closing(SshDevice(url, ssh_config=config, program=lambda _: program)) as device:
        with interrupted_by(send), pytest.raises(KeyboardInterrupt) as caught:
            device.run([f"{server.there}/said"], deadline_s=60, grace_s=grace_s)
        assert said.read_text() == ("asked\n" if grace_s else "began\n")
        if grace_s:
            assert isinstance(caught.value, Interrupted) and caught.value.done is not None
            assert caught.value.done.stdout == b"answer\n"
        assert not server.running("said")
        device.clean()
    said.unlink()


def test_a_killed_edgekit_leaves_no_process_and_no_scratch(server: Server) -> None:
    """SIGKILL, so that nothing of it can tidy up: the board does."""
    code = f"""
import sys, time
from pathlib import Path
from edgekit.core.device_url import parse_device
from edgekit.devices.ssh import SshDevice
device = SshDevice(parse_device({str(server.url())!r}), ssh_config=Path({str(server.client.config)!r}))
with device.scratch() as folder:
    print(folder, flush=True)
    time.sleep(100)
"""
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=child_environment())
    assert child.stdout is not None
    scratch = server.home / Path(child.stdout.readline().strip()).relative_to(server.there)
    assert scratch.is_dir() and server.running("script")
    child.kill()
    child.communicate()
    until(lambda: not scratch.exists() and not server.running("script"), "something is left")
    assert not list(server.edgekit.glob("jobs/*"))


def test_what_a_dead_owner_left_goes_when_the_next_one_comes(server: Server) -> None:
    """The board's own tidying was killed, too: a scratch folder and a process that has its owner's folder as its own."""
    with closing(opened(server)) as first:
        jobs = server.edgekit / "jobs"
        owner = next(jobs.iterdir())
        first._script(
            board._START + 'sh -c "sleep 977 >/dev/null 2>&1 </dev/null & echo \\$! > pids/old"', [], deadline_s=20
        )
        (owner / "scratch.9").mkdir()
        assert server.running("sleep 977")
        here = (owner / "pids/here").read_text().strip()
        first._script(f"kill -9 {here}", [], deadline_s=20)
        with closing(opened(server)):
            assert not owner.exists()
            assert not server.running("sleep 977")


def test_a_number_that_now_belongs_to_another_is_not_killed(server: Server) -> None:
    with closing(opened(server)) as first:
        owner = next((server.edgekit / "jobs").iterdir())
        first._script('cd /; sleep 978 >/dev/null 2>&1 </dev/null & echo $! > "$f/jobs/$t/pids/old"', [], deadline_s=20)
        until(lambda: server.running("sleep 978"), "it does not sleep")  # between fork and exec it is a shell
        bystanders = server.running("sleep 978")
        assert len(bystanders) == 1
    until(lambda: not owner.exists(), "the owner's folder is left")
    assert server.running("sleep 978") == bystanders
    os.kill(bystanders[0], 9)


def test_a_folder_of_the_users_choice(server: Server, tmp_path: Path) -> None:
    folder = f"{server.there}/my data/edge.kit"
    with closing(opened(server, folder=folder)) as device:
        there = device.put({"file": noise(tmp_path / "file", 10)})
        assert there.startswith(f"{folder}/sets/")
        device.get(f"{there}/file", tmp_path / "back")
        device.clean()
    assert not list((server.home / "my data/edge.kit").iterdir())


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc/passwd", "../x"])
def test_names_are_plain(device: SshDevice, tmp_path: Path, name: str) -> None:
    with pytest.raises(InternalError, match="plain"):
        device.put({name: noise(tmp_path / "file", 1)})


def test_get_is_complete_or_absent_and_bounded(
    device: SshDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = device.put({"file": noise(tmp_path / "file", 100_000)})
    with pytest.raises(DeviceError, match="no file"):
        device.get(f"{there}/absent", tmp_path / "back")
    with pytest.raises(DeviceError, match="no file"):
        device.get(there, tmp_path / "back")
    monkeypatch.setattr("edgekit.devices.ssh.MAX_GET_BYTES", 99_999)
    with pytest.raises(DeviceError, match="100000 bytes, more than 99999"):
        device.get(f"{there}/file", tmp_path / "back")
    assert {path.name for path in tmp_path.iterdir()} == {"file"}


def test_a_name_from_ssh_config(server: Server, tmp_path: Path) -> None:
    config = tmp_path / "config"
    rest = server.client.config.read_text()
    config.write_text(f"Host shelf\nHostName 127.0.0.1\nPort {server.port}\nUser {getpass.getuser()}\n{rest}")
    with closing(SshDevice(parse_device("ssh://shelf"), ssh_config=config)) as device:
        assert device.name == "ssh://shelf"
        assert device.run(["facts"], deadline_s=30).returncode == 0


def test_settings_meant_for_people_do_not_get_in_the_way(server: Server, tmp_path: Path) -> None:
    config = tmp_path / "config"
    people = ["RequestTTY force", "RemoteCommand top", f"LocalForward {server.port} localhost:1", "LogLevel QUIET"]
    people += ["ControlMaster auto", f"ControlPath {tmp_path}/%C", "ControlPersist 60", "StrictHostKeyChecking no"]
    config.write_text("\n".join(people) + "\n" + server.client.config.read_text())
    with closing(SshDevice(server.url(), ssh_config=config)) as device:
        assert device.run(["facts"], deadline_s=30).returncode == 0
    assert {path.name for path in tmp_path.iterdir()} == {"config"}


def test_noise_of_startup_files_is_not_an_answer(server: Server, tmp_path: Path) -> None:
    """A shell that greets on both streams, as bash does with what a .bashrc prints."""
    (server.home / ".bashrc").write_text("echo hello; echo 'No such luck' >&2; printf 'entered\\nhave x\\n'\n")
    try:
        with closing(opened(server)) as device:
            done = device.run(["facts"], deadline_s=30)
            assert done.stdout.startswith(b'{"protocol":1')
            there = device.put({"file": noise(tmp_path / "file", 200_000)})
            device.get(f"{there}/file", tmp_path / "back")
            with device.talk(["facts"]) as talk:
                assert talk.answer(30).startswith(b'{"protocol":1')
            device.clean()
    finally:
        (server.home / ".bashrc").unlink()
    assert (tmp_path / "back").read_bytes() == (tmp_path / "file").read_bytes()


def test_one_connection_carries_everything(server: Server, tmp_path: Path) -> None:
    with Proxy(server.port) as proxy, closing(opened(server, proxy.port)) as device:
        device.put({"file": noise(tmp_path / "file", 10)})
        device.run(["facts"], deadline_s=30)
        with device.scratch():
            pass
        device.clean()
        assert proxy.connections == 1


# ---------------------------------------------------------------------------------------------------------------- pure parts


@pytest.mark.parametrize("shell", ["dash", "bash", "busybox sh"])
@given(words=st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), max_size=4))
def test_arguments_reach_a_script_as_they_are(shell: str, words: list[str]) -> None:
    argv = shell.split()
    if not any((Path(folder) / argv[0]).exists() for folder in ("/bin", "/usr/bin")):
        pytest.skip(f"no {shell} here")
    line = board._line("mark", "for x; do\nprintf '%s\\0' \"$x\"\ndone", words)
    assert "\n" not in line
    done = subprocess.run(
        [*argv, "-c", 'IFS= read -r script; eval "$script"'],
        input=line.encode() + b"\n",
        capture_output=True,
        check=True,
    )
    assert done.stdout == b"mark\n" + b"".join(word.encode() + b"\0" for word in words)


DF = "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/root 100 40 60 40% /data of mine\n"


def test_what_the_board_says_is_read_strictly() -> None:
    a, b = "a" * 64, "b" * 64
    assert board.parse_query(f"have {a}\npart {b} 17\n{DF}".encode(), [a, b]) == board.Lack({b: 17}, 60 * 1024)
    assert board.parse_query(f"have {a}\npart {b} 17\n".encode(), [a, b]) == board.Lack({b: 17}, None)
    for wrong in (f"have {b}\n", f"part {a} -1\n", f"part {a} {'9' * 40}\n", "", "have\n", f"part {a}\n", "\xff"):
        assert board.parse_query(wrong.encode(), [a]) is None
    lines = ["arch aarch64", "folder /home/pi/.edgekit", *DF.splitlines()]
    assert board.parse_board(lines) == board.Board("aarch64", "/home/pi/.edgekit", 60 * 1024)
    for bad in ([], lines[:1], lines[1:], ["arch x", "folder y"]):
        assert board.parse_board(bad) is None
    assert board.metered(b"-rw------- 1 0 0 12345 Nov 22 20:10 /a b/parts/x") == 12345
    assert [board.metered(line) for line in (b"", b"gone", b"ls: x: y z a b c")] == [0, 0, 0]


def test_the_lead_grows_with_the_link_and_stays_bounded() -> None:
    """A link of 20 MB/s that answers after 100 ms needs 2 MB on the way; one that answers at once needs little."""
    for answer_s, least, most in ((0.1, 2_000_000, 4_000_000), (0.001, LEAST_LEAD_BYTES, 2 * LEAST_LEAD_BYTES)):
        window, now = Window(0, 0.0), 0.0
        for _ in range(60):
            window.sent = window.written + window.lead
            assert window.due and not window.open
            window.ask(now)
            now += max(answer_s, window.lead / 20e6)
            window.answered(window.sent, now)
        assert least <= window.lead <= most
    assert window.lead <= MOST_LEAD_BYTES


WORDS = {
    "ssh: Could not resolve hostname nowhere: Name or service not known": (DeviceError, "no such host"),
    "ssh: connect to host h port 22: Connection refused": (Cut, "refuses the connection"),
    "ssh: connect to host h port 22: Connection timed out": (Cut, "does not answer"),
    "ssh: connect to host h port 22: No route to host": (Cut, "not in reach"),
    "pi@h: Permission denied (publickey,password).": (DeviceError, "does not accept the user or the key"),
    "No ED25519 host key is known for h and you have requested strict checking.\nHost key verification failed.": (
        DeviceError,
        "`ssh pi@h exit` shows it and accepts it",
    ),
    "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.": (DeviceError, "has changed"),
    "client_loop: send disconnect: Broken pipe": (Cut, "Broken pipe"),
    "evil \x1b[2J words": (Cut, r"\x1b[2J"),
    "": (Cut, "was cut"),
}


@pytest.mark.parametrize("words", WORDS)
def test_sshs_words_are_explained_in_one_line(words: str) -> None:
    kind, part = WORDS[words]
    error = explain(words, parse_device("ssh://pi@h"))
    assert type(error) is kind
    assert part in str(error)
    assert str(error).isprintable() and error.exit_code == 4


def test_the_proxy_of_these_tests_cuts_where_it_is_told(server: Server) -> None:
    """A control: without it the tests above would prove nothing."""
    with Proxy(server.port, lambda: (2000, "close")) as proxy:
        with pytest.raises(DeviceError):
            opened(server, proxy.port)
        assert (proxy.up, proxy.cuts) == (2000, 1)
    with contextlib.suppress(DeviceError):
        opened(server).close()
