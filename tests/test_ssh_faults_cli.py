"""Each fault of a board over SSH, met by the real command: one line, its documented exit code, and a clean board."""

import os
import platform
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from edgekit.errors import TargetIncompatible
from edgekit.process import Completed
from edgekit.runner import ekrun_path
from edgekit.runner.client import RunReply, parse
from tests.conftest import SAMPLE, Cli, Ended
from tests.ekrun_tools import compile_engine
from tests.proxy import Proxy
from tests.sshd import KINDS, Client, Server, free_port, new_key, serving, write_client
from tests.test_ssh import noise, opened, until
from tests.test_ssh_faults import RUBBISH, check_clean, forced, is_ekrun, needs_root

SMALL_BYTES = 8 << 20

MODEL = SAMPLE / "model.onnx"


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    mounts = [("noexec", "noexec", "64m"), ("exec", "small", str(SMALL_BYTES))] if os.getuid() == 0 else []
    with serving(request.param, tmp_path_factory.mktemp("server"), mounts=mounts) as server:
        yield server


@pytest.fixture(autouse=True)
def clean(server: Server) -> Iterator[None]:
    """No process of edgekit's and no scratch folder is left on the board, and `device clean` empties its folder."""
    yield
    check_clean(server)


def ends(ended: Ended, code: int, *parts: str) -> None:
    """The exit code, and one line that holds the parts."""
    assert ended.code == code, ended.err + ended.out
    for part in parts:
        assert part in ended.error


def profile(server: Server, url: object, *more: object, model: str | Path = MODEL) -> tuple[object, ...]:
    words = ("profile", model, "--device", url, "--threads", "1", "--duration", "1s", "--json")
    return ("--ssh-config", server.client.config, *words, *more)


# --------------------------------------------------------------------------------------------------------------- the connection


def probe(server: Server, client: Client | None = None, port: int = 0) -> tuple[object, ...]:
    return ("--ssh-config", (client or server.client).config, "device", "probe", server.url("", port), "--json")


def test_an_unknown_host(edgekit: Cli, server: Server) -> None:
    words = ("--ssh-config", server.client.config, "device", "probe", "ssh://no-such-board.invalid", "--json")
    ends(edgekit(*words), 4, "no such host")


def test_a_refused_connection(edgekit: Cli, server: Server) -> None:
    ends(edgekit(*probe(server, port=free_port())), 4, "refuses the connection")


def test_a_wrong_key(edgekit: Cli, server: Server, tmp_path: Path) -> None:
    new_key(tmp_path / "other")
    known = server.client.known_hosts.read_text().split(maxsplit=1)[1].strip()
    ends(edgekit(*probe(server, write_client(tmp_path / "client", tmp_path / "other", known))), 4, "ssh-copy-id")


def test_a_changed_host_key(edgekit: Cli, server: Server, tmp_path: Path) -> None:
    other = " ".join(new_key(tmp_path / "other").split()[:2])
    client = write_client(tmp_path / "client", server.client.key, other)
    before = client.known_hosts.read_text()
    ends(edgekit(*probe(server, client)), 4, "host key has changed", "ssh-keygen -R")
    assert client.known_hosts.read_text() == before


def test_an_unknown_host_key(edgekit: Cli, server: Server, tmp_path: Path) -> None:
    client = write_client(tmp_path / "client", server.client.key, "")
    accept = f"`ssh -F {client.config} -p {server.port} {server.user}@127.0.0.1 exit`"
    ends(edgekit(*probe(server, client)), 4, "host key is not known", accept)
    assert client.known_hosts.read_text() == ""


@pytest.mark.parametrize("what", ["words and an end", "a flood of lines"])
def test_a_board_that_answers_rubbish(edgekit: Cli, server: Server, what: str, tmp_path: Path) -> None:
    with serving(server.kind, tmp_path, options=forced(RUBBISH[what], server.kind)) as babbling:
        ends(edgekit(*probe(babbling)), 4)


HOSTS = ["my board", "a'b", 'a"b', "$(touch here)", "`touch here`", "-oProxyCommand=touch here", "a;touch here", "a\nb"]


@pytest.mark.parametrize("host", HOSTS)
def test_names_of_hosts_are_not_a_shells(edgekit: Cli, server: Server, host: str, tmp_path: Path) -> None:
    words = ("--ssh-config", server.client.config, "device", "probe", f"ssh://{host}", "--json")
    ends(edgekit(*words, cwd=tmp_path), 2)
    assert not list(tmp_path.iterdir())


# --------------------------------------------------------------------------------------------------------------------- the link


def test_a_link_that_is_cut_and_stays_cut_in_an_upload(edgekit: Cli, server: Server) -> None:
    """Cut in the middle of the engine's library; whoever comes again is cut at once."""
    plans = iter([(4_000_000, "close")])
    with Proxy(server.port, plan=lambda: next(plans, (0, "close"))) as proxy:
        ends(edgekit(*profile(server, server.url("", proxy.port))), 4, "cut")
        assert proxy.cuts > 1


def test_a_link_that_is_cut_in_a_run(edgekit: Cli, server: Server) -> None:
    with Proxy(server.port) as proxy, during(server, proxy.cut_all):
        ends(edgekit(*profile(server, server.url("", proxy.port), "--duration", "60s")), 4, "cut")


@contextmanager
def during(server: Server, act: Callable[[], object]) -> Iterator[None]:
    """Do something as soon as a model runs on the board."""

    def wait_and_act() -> None:
        until(lambda: [p for p in server.running("--duration") if is_ekrun(p)], "no run", 100)
        act()

    thread = threading.Thread(target=wait_and_act)
    thread.start()
    try:
        yield
    finally:
        thread.join()


# -------------------------------------------------------------------------------------------------------------------- the board


@needs_root
def test_a_board_out_of_disk(edgekit: Cli, server: Server, tmp_path: Path) -> None:
    """Seen by the gate before a byte of the model is sent (5); run into while ekrun itself is sent (9)."""
    small = f"{server.there}/small/edgekit"
    ends(edgekit(*profile(server, server.url(small))), 5, "MiB free", "device clean")
    program = ekrun_path(platform.machine()).stat().st_size
    with closing(opened(server, folder=small)) as device:
        room_for_less_than_two = SMALL_BYTES - 5 * program // 3  # and one is there
        device.put({"file": noise(tmp_path / "file", room_for_less_than_two)})
        other = server.url(f"{server.there}/small/other")
        ends(edgekit("--ssh-config", server.client.config, "device", "probe", other, "--json"), 9, "MiB free")
        device.clean()


@needs_root
def test_a_folder_that_forbids_execution(edgekit: Cli, server: Server) -> None:
    ends(edgekit(*profile(server, server.url(f"{server.there}/noexec/edgekit"))), 5, "noexec")


def test_a_runner_that_the_out_of_memory_killer_takes(edgekit: Cli, server: Server) -> None:
    def kill() -> None:
        for pid in server.running("--duration"):
            if is_ekrun(pid):
                os.kill(pid, 9)

    with during(server, kill):
        ends(edgekit(*profile(server, server.url(), "--duration", "60s")), 9, "SIGKILL", "out-of-memory")


BROKEN = {
    "a missing symbol": (
        "extern void OrtOfTomorrow(void); static void body(void) { OrtOfTomorrow(); }",
        "OrtOfTomorrow",
    ),
    "an instruction the CPU lacks": (  # tdpbssd; on a CPU that has it, no tile is configured, which is refused as well
        'static void body(void) { __asm__ volatile(".byte 0xc4,0xe2,0x63,0x5e,0xca"); }',
        "illegal instruction (needs amx",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_an_engine_the_board_cannot_run(server: Server, what: str, tmp_path: Path) -> None:
    """The command opens only libraries of a pinned digest: here the device itself is given one that is broken."""
    body, words = BROKEN[what]
    done = with_engine(server, tmp_path, body)
    with pytest.raises(TargetIncompatible) as caught:
        parse(done, RunReply, "board")
    assert words in str(caught.value)
    assert caught.value.exit_code == 5


def with_engine(server: Server, folder: Path, body: str) -> Completed:
    """How ekrun on the board ends with an engine that runs `body` when it is opened."""
    argv = compile_engine(folder, body)
    given = dict(zip(argv[::2], argv[1::2], strict=True))
    with closing(opened(server)) as device, device.scratch() as out:
        there = device.put({"lib.so": Path(given["--lib"]), "m.onnx": Path(given["--model"])})
        given |= {"--lib": f"{there}/lib.so", "--model": f"{there}/m.onnx", "--out": out}
        return device.run(["run", *(word for pair in given.items() for word in pair)], deadline_s=60)


NAMES = ["a b'c\"d $(touch here) `touch here`;touch here.onnx", "--help.onnx"]


def test_names_of_models_are_not_a_shells(edgekit: Cli, server: Server, tmp_path: Path) -> None:
    for number, name in enumerate(NAMES):
        (tmp_path / name).write_bytes(MODEL.read_bytes())
        ended = edgekit(*profile(server, server.url(), "-o", f"out-{number}", model=f"./{name}"), cwd=tmp_path)
        assert ended.code == 0, ended.err
    assert not (tmp_path / "here").exists()
    assert not list(server.home.rglob("here"))
