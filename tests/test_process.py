"""One place starts processes: deadlines, floods, group kill, lines with deadlines."""

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.errors import ResourceLimit
from edgekit.process import Conversation, Interrupted, child_environment, describe_exit, killing_all, run
from tests.interrupts import interrupt, interrupted_by

PY = sys.executable


def python(code: str) -> list[str]:
    return [PY, "-c", code]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def test_output_input_and_exit_code() -> None:
    done = run(
        python("import sys; d=sys.stdin.read(); print(len(d)); print('e', file=sys.stderr); sys.exit(3)"),
        stdin=b"x" * 300_000,
        deadline_s=20,
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, b"300000\n", b"e\n")
    assert not done.timed_out


def test_arguments_are_never_a_shell() -> None:
    hostile = "$(touch pwned); `id` ' \" \n --x"
    done = run([PY, "-c", "import sys; sys.stdout.write(sys.argv[1])", hostile], deadline_s=20)
    assert done.stdout.decode() == hostile


def test_the_deadline_kills_the_whole_group(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    code = f"import subprocess,time; p=subprocess.Popen(['sleep','60']); open({str(note)!r},'w').write(str(p.pid)); time.sleep(60)"
    started = time.monotonic()
    done = run(python(code), deadline_s=2)
    assert done.timed_out
    assert time.monotonic() - started < 10
    time.sleep(0.1)
    assert not alive(int(note.read_text()))


def test_a_child_that_closes_its_output_and_hangs_is_killed_at_the_deadline() -> None:
    done = run(python("import os,time; os.close(1); os.close(2); time.sleep(60)"), deadline_s=1.5)
    assert done.timed_out


def interrupts(note: Path, times: int) -> Callable[[], None]:
    """Interrupts so many times once the note says that a child began."""

    def send() -> None:
        while not note.exists():
            time.sleep(0.02)
        for _ in range(times):
            time.sleep(0.5)  # on a busy machine the child may begin before it is known here
            interrupt()
        note.with_suffix(".all").touch()

    return send


def slow_to_end(note: Path, puts_right: str, takes_s: float = 1) -> list[str]:
    """A child that puts things right when it is told to end, and takes until the last interrupt was sent, and `takes_s`."""
    told = f"open({str(note)!r}, 'w').write('put right')"
    wait = f"[time.sleep(0.05) for _ in range(400) if not os.path.exists({str(note.with_suffix('.all'))!r})]"
    ended = f"({wait}, time.sleep({takes_s}), {told}, {puts_right})"
    began = f"open({str(note)!r}, 'w').write('began')"
    return python(f"import os,signal,sys,time; signal.signal(15, lambda *_: {ended}); {began}; time.sleep(60)")


@pytest.mark.parametrize("times", [1, 3])
def test_an_interrupt_is_told_to_a_child_that_is_given_time(tmp_path: Path, times: int) -> None:
    """However often it is said, and what the child answers is known."""
    note = tmp_path / "note"
    with interrupted_by(interrupts(note, times)) as as_before, pytest.raises(Interrupted) as caught:
        try:
            run(slow_to_end(note, "print('x' * 200_000), sys.exit(3)"), deadline_s=60, grace_s=40)
        finally:
            assert as_before()
    assert note.read_text() == "put right"
    done = caught.value.done
    assert done is not None and (done.returncode, len(done.stdout), done.timed_out) == (3, 200_001, False)


def test_a_child_that_does_not_end_in_its_time_is_killed(tmp_path: Path) -> None:
    note = tmp_path / "note"
    with interrupted_by(interrupts(note, 1)), pytest.raises(Interrupted) as caught:
        run(slow_to_end(note, "sys.exit(0)", takes_s=60), deadline_s=40, grace_s=1)
    assert caught.value.done is None
    assert note.read_text() == "began"


def test_a_child_that_is_given_no_time_is_killed_by_an_interrupt(tmp_path: Path) -> None:
    note = tmp_path / "note"
    with interrupted_by(interrupts(note, 1)), pytest.raises(KeyboardInterrupt) as caught:
        run(slow_to_end(note, "sys.exit(0)"), deadline_s=40)
    assert not isinstance(caught.value, Interrupted)
    assert note.read_text() == "began"


def test_a_flood_is_cut() -> None:
    done = run(python("while True: print('x'*10000)"), deadline_s=20, max_output_bytes=100_000)
    assert done.flooded
    assert len(done.stdout) <= 100_000
    assert "more than it may" in describe_exit(done)


def test_memory_is_watched() -> None:
    done = run(
        python("x=bytearray(400<<20)\nfor i in range(0,len(x),4096): x[i]=1\nimport time; time.sleep(20)"),
        deadline_s=20,
        max_rss_bytes=100 << 20,
    )
    assert done.out_of_memory


def test_death_by_signal_is_named() -> None:
    done = run(python("import os; os.kill(os.getpid(), 11)"), deadline_s=20)
    assert describe_exit(done) == "died by SIGSEGV"


def test_a_program_that_does_not_exist_is_one_typed_error() -> None:
    with pytest.raises(ResourceLimit, match="cannot start"):
        run(["/nonexistent/program"], deadline_s=1)


def test_telemetry_is_off_in_every_child() -> None:
    done = run(python("import os; print(os.environ['ORT_DISABLE_TELEMETRY'], os.environ['CI'])"), deadline_s=20)
    assert done.stdout == b"1 true\n"
    assert child_environment({"X": "y"})["X"] == "y"


ECHO = "import sys\nfor line in sys.stdin:\n print('got', line.strip(), flush=True)\n"


def test_a_conversation_line_by_line() -> None:
    with Conversation(python(ECHO)) as talk:
        for word in ("a", "b"):
            talk.tell(word)
            assert talk.answer(20) == f"got {word}".encode()


def test_what_is_told_may_be_no_text() -> None:
    with Conversation(["cat"]) as talk:
        talk.tell("a\udcff")
        assert talk.answer(10) == b"a\xff"


def test_a_silent_partner_misses_the_deadline_and_dies_with_the_context() -> None:
    with Conversation(python("import time; time.sleep(60)")) as talk:
        pid = talk.pid
        with pytest.raises(ResourceLimit, match="no answer within"):
            talk.answer(0.5)
    assert not alive(pid)


def test_a_dead_partner_is_reported_with_its_last_words() -> None:
    with Conversation(python("import sys; print('oh no', file=sys.stderr); sys.exit(4)")) as talk:
        with pytest.raises(ResourceLimit, match=r"exit code 4.*oh no"):
            talk.answer(20)


def test_an_endless_line_is_cut() -> None:
    with Conversation(python("import sys\nwhile True: sys.stdout.write('x'*65536)")) as talk:
        with pytest.raises(ResourceLimit, match="more than it may"):
            talk.answer(20)


def test_a_chatty_stderr_does_not_block_the_conversation() -> None:
    code = "import sys\nsys.stderr.write('x'*2_000_000); sys.stderr.flush(); print('ok', flush=True)\n"
    with Conversation(python(code)) as talk:
        assert talk.answer(20) == b"ok"


def test_nothing_starts_while_all_are_killed_and_all_is_well_after() -> None:
    """A thread between two of its processes must not start the second one when an interrupt ends the first."""
    ended: list[Exception | None] = []

    def two() -> None:
        try:
            run(["sleep", "30"], deadline_s=60)
            run(["sleep", "30"], deadline_s=60)
        except ResourceLimit as error:
            ended.append(error)

    thread = threading.Thread(target=two)
    thread.start()
    time.sleep(0.3)
    with killing_all():
        thread.join(timeout=5)
        assert not thread.is_alive()
    assert "after an interrupt" in str(ended[0])
    assert run(["true"], deadline_s=10).returncode == 0
