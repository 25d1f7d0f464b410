"""What is written is complete or absent, and what the user had is kept."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgekit.errors import InputRejected, ResourceLimit
from edgekit.store import Cache, check_result_folder, filling_result, safe_name, write_atomic


def names(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}


def test_an_entry_appears_only_when_complete(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    with pytest.raises(RuntimeError), cache.filling("k", "a") as folder:
        (folder / "half").write_text("x")
        assert cache.get("k", "a") is None
        raise RuntimeError
    assert cache.get("k", "a") is None
    with cache.filling("k", "a") as folder:
        (folder / "whole").write_text("x")
    found = cache.get("k", "a")
    assert found is not None
    assert names(found) == {"whole"}
    assert names(tmp_path / "tmp") == set()


def test_the_first_of_two_makers_wins(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    with cache.filling("k", "a") as slow:
        (slow / "f").write_text("slow")
        with cache.filling("k", "a") as fast:
            (fast / "f").write_text("fast")
    found = cache.get("k", "a")
    assert found is not None
    assert (found / "f").read_text() == "fast"
    assert names(tmp_path / "tmp") == set()


def test_a_killed_makers_leftovers_are_swept_and_a_live_ones_are_not(tmp_path: Path) -> None:
    code = (
        "import sys,time\nfrom pathlib import Path\nfrom edgekit.store import Cache\n"
        f"with Cache(Path({str(tmp_path)!r})).scratch() as s:\n (s/'x').write_text('x'); print('in', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"in\n"
    with Cache(tmp_path).scratch():
        assert len([p for p in (tmp_path / "tmp").iterdir() if p.is_dir()]) == 2
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    with Cache(tmp_path).scratch() as mine:
        assert [p for p in (tmp_path / "tmp").iterdir() if p.is_dir()] == [mine]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    place = tmp_path / "f"
    write_atomic(place, b"old")
    with pytest.raises(TypeError):
        write_atomic(place, "not bytes")  # type: ignore[arg-type]
    assert place.read_bytes() == b"old"
    write_atomic(place, b"new")
    assert names(tmp_path) == {"f"}
    assert place.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("make", ["file", "other"])
def test_a_folder_that_is_no_run_is_refused_and_untouched(tmp_path: Path, make: str) -> None:
    out = tmp_path / "out"
    if make == "file":
        out.write_text("mine")
    else:
        out.mkdir()
        (out / "thesis.doc").write_text("mine")
    with pytest.raises(InputRejected, match="not"):
        check_result_folder(out)
    with pytest.raises(InputRejected), filling_result(out):
        pass
    assert "mine" in (out.read_text() if make == "file" else (out / "thesis.doc").read_text())
    assert names(tmp_path) == {"out"}


def test_an_earlier_run_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "run"
    with filling_result(out) as draft:
        (draft / "run.json").write_text("1")
        (draft / "artifact").mkdir()
    with pytest.raises(KeyboardInterrupt), filling_result(out) as draft:
        (draft / "run.json").write_text("2")
        raise KeyboardInterrupt
    assert (out / "run.json").read_text() == "1"
    with filling_result(out) as draft:
        (draft / "run.json").write_text("3")
    assert names(out) == {"run.json"}
    assert names(out.parent) == {"run"}


def test_a_full_disk_is_one_error_and_leaves_the_old(tmp_path: Path) -> None:
    """On a real 256 KiB file system, in a mount namespace of its own."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom edgekit.store import write_atomic\n"
        "from edgekit.errors import ResourceLimit\n"
        "p=Path(sys.argv[1])/'f'\nwrite_atomic(p,b'old')\n"
        "try:\n write_atomic(p,b'x'*(1<<20))\nexcept ResourceLimit as e:\n"
        " print(e, p.read_bytes(), [q.name for q in p.parent.iterdir()])\n"
    )
    script = 'mount -t tmpfs -o size=256k none "$1" && exec "$2" -c "$3" "$1"'
    argv = ["unshare", "-rm", "sh", "-c", script, "sh", str(tmp_path), sys.executable, code]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "the disk is full" in done.stdout
    assert "b'old' ['f']" in done.stdout


def test_a_place_one_may_not_write_to_is_one_error() -> None:
    with pytest.raises(ResourceLimit, match="cannot write"):
        write_atomic(Path("/sys/edgekit-test"), b"x")


def test_names_from_outside_become_plain_file_names() -> None:
    assert safe_name("a/../b c$(x)") == "a_.._b_c__x_"
    assert safe_name("../..") == "_.."
    assert safe_name("..") == "model"
    assert safe_name("x" * 500) == "x" * 80
