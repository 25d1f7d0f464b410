"""A search over settings on a board over SSH: measured there, and taken up again where the link was lost in its middle."""

import threading
from pathlib import Path

import pytest

from tests.conftest import SAMPLE, Cli, done, load
from tests.proxy import Proxy
from tests.sshd import serving
from tests.test_explore import ARGS
from tests.test_ssh import until
from tests.test_ssh_faults import check_clean

pytestmark = pytest.mark.long

ROUNDS = 20  # turns that are measured before the link is lost


def journals(cache: Path) -> list[Path]:
    return list((cache / "unfinished" / "settings").glob("*"))


def test_a_link_that_is_lost_in_a_search_costs_no_round_that_was_measured(edgekit: Cli, tmp_path: Path) -> None:
    folder, cache, out = tmp_path / "server", tmp_path / "cache", tmp_path / "run"
    folder.mkdir()
    with serving("openssh", folder) as server, Proxy(server.port) as proxy:
        url = server.url("", proxy.port)
        words = ["--ssh-config", server.client.config, "--cache", cache, "optimize", SAMPLE / "model.onnx", "-o", out]
        words += [*ARGS, "--explore", "--json", "--device", url]

        def lose_the_link() -> None:
            until(lambda: any(p.read_bytes().count(b"\n") >= ROUNDS for p in journals(cache)), "no search", 200)
            proxy.plan = lambda: (0, "close")
            proxy.cut_all()

        thread = threading.Thread(target=lose_the_link)
        thread.start()
        ended = edgekit(*words)
        thread.join()
        assert ended.code == 4 and "cut" in ended.error
        assert not out.exists(), "a run that is not complete"
        (journal,) = journals(cache)
        before = journal.read_bytes()
        assert before.count(b"\n") >= ROUNDS

        proxy.plan = lambda: None
        done(edgekit(*words))
        (journal,) = journals(cache)
        assert journal.read_bytes().startswith(before), "what was measured was measured again"
        check_found(out, str(url))
        check_clean(server)


def check_found(out: Path, url: str) -> None:
    """Points, measured there, one of which is the choice's."""
    run = load(out)
    assert run.exploration is not None and run.choice.chosen is not None
    assert len(run.exploration.points) > 5 and run.exploration.latency_choice
    measured = run.outcome(run.choice.chosen).measurement
    assert measured is not None and measured.device == url


def test_a_search_on_a_board_is_of_its_cores(edgekit: Cli, tmp_path: Path) -> None:
    """One core that may be used there: one thread, one stream, whatever this machine has."""
    folder = tmp_path / "server"
    folder.mkdir()
    with serving("dropbear", folder) as server:
        words = ("--ssh-config", server.client.config, "optimize", SAMPLE / "model.onnx", "-o", tmp_path / "run")
        done(edgekit(*words, *ARGS, "--explore", "--cores", "1", "--device", server.url()))
        check_found(tmp_path / "run", str(server.url()))
        assert _settings(tmp_path / "run") == {(1, 1)}
        check_clean(server)


def _settings(out: Path) -> set[tuple[int, int]]:
    found = load(out).exploration
    assert found is not None
    return {(p.setting.threads, p.setting.streams) for p in found.points}
