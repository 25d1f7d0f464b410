"""What a board answers is untrusted: anything but the protocol is one DeviceError, and ekrun's errors keep their meaning."""

import msgspec
import pytest

from edgekit.devices.local import LocalDevice
from edgekit.errors import DeviceError, EdgekitError, InputRejected, InternalError, ResourceLimit, TargetIncompatible
from edgekit.measure import device_facts
from edgekit.process import Completed
from edgekit.runner.client import FactsReply, RanReply, ReadyReply, RunReply, Settings, failure, parse, parse_line

RAN = b'{"protocol":1,"event":"ran","latencies_ns":[1,2],"cpu_ns":5}'


def ended(stdout: bytes, code: int = 0, stderr: bytes = b"") -> Completed:
    return Completed(code, stdout, stderr, 0.1)


def test_the_real_runner_answers_in_protocol() -> None:
    facts = device_facts(LocalDevice())
    assert facts.usable_threads >= 1
    assert facts.ram_bytes > 1 << 28
    assert facts.isa


def test_an_answer_with_more_fields_than_we_read_is_fine() -> None:
    assert parse_line(RAN, RanReply, "x").latencies_ns == (1, 2)
    assert parse(ended(b"chatter\n" + RAN + b"\n"), RanReply, "x").latencies_ns == (1, 2)


GARBAGE = [
    b"",
    b"{",
    b"null",
    b"[]",
    b"{}",
    b"\xff\xfe{}",
    b'{"protocol":2,"event":"ran","latencies_ns":[1]}',
    b'{"event":"ran","latencies_ns":[1]}',
    b'{"protocol":1,"event":"closed","runs":2}',
    b'{"protocol":1,"event":"ran","latencies_ns":"1"}',
    b'{"protocol":1,"event":"ran","latencies_ns":[1.5]}',
    b'{"protocol":1,"error":"oh"}',
    b"[" * 100_000,
]


@pytest.mark.parametrize("line", GARBAGE, ids=range(len(GARBAGE)))
@pytest.mark.parametrize("type_", [RanReply, ReadyReply, RunReply, FactsReply])
def test_garbage_is_a_device_error(line: bytes, type_: type) -> None:
    with pytest.raises(DeviceError):
        parse_line(line, type_, "board")


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("usage", InternalError),
        ("library", TargetIncompatible),
        ("model_refused", InputRejected),
        ("bad_input", InputRejected),
        ("inference_failed", ResourceLimit),
        ("io", ResourceLimit),
        ("out_of_memory", ResourceLimit),
        ("something new", DeviceError),
    ],
)
def test_errors_keep_their_meaning(code: str, error: type[EdgekitError]) -> None:
    line = msgspec.json.encode({"protocol": 1, "error": {"code": code, "message": "why\nnot"}})
    found = failure(ended(line, code=6), "ort-int8")
    assert type(found) is error
    assert str(found) == "ort-int8: why not"
    with pytest.raises(error):
        parse_line(line, RanReply, "ort-int8")


def test_a_runner_that_dies_without_a_word_is_a_resource_limit() -> None:
    found = failure(ended(b"\xff\xff", code=-8, stderr=b"first\nlast words\n"), "x")
    assert isinstance(found, ResourceLimit)
    assert "SIGFPE" in str(found)
    assert "last words" in str(found)


def test_settings_leave_out_what_is_not_known() -> None:
    assert Settings(2, None, {"arena": "1", "x": None}).flat() == {"threads": "2", "arena": "1"}
