"""What a board answers is untrusted: anything but the protocol is one DeviceError, and ekrun's errors keep their meaning."""

from dataclasses import replace

import msgspec
import pytest

from edgekit.devices.local import LocalDevice
from edgekit.errors import (
    DeviceError,
    EdgekitError,
    InputRejected,
    InternalError,
    OutOfMemory,
    ResourceLimit,
    TargetIncompatible,
    UsageError,
    VerificationFailed,
)
from edgekit.measure import device_facts
from edgekit.process import Completed
from edgekit.runner.client import (
    FactsReply,
    RanReply,
    ReadyReply,
    RunReply,
    Settings,
    answered,
    failure,
    parse,
    parse_line,
)

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
    b'{"protocol":1,"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"protocol":1,"error":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
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
        ("out_of_memory", OutOfMemory),
        ("verification_failed", VerificationFailed),
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


def test_wrong_usage_is_whose_words_they_were() -> None:
    line = b'{"protocol":1,"error":{"code":"usage","message":"no such option"}}\n'
    for code in (0, 2):
        with pytest.raises(UsageError):
            parse(ended(line, code), RanReply, "x", UsageError)
        with pytest.raises(InternalError):
            parse(ended(line, code), RanReply, "x")


def test_what_counts_as_an_answer() -> None:
    error = b'{"protocol":1,"error":{"code":"io","message":"m"}}\n'
    assert answered(ended(RAN)) and answered(ended(b"chatter\n" + error, 7))
    for silent in (ended(b"", -15), ended(b"chatter\n", 9), replace(ended(RAN), timed_out=True)):
        assert not answered(silent)


def test_a_runner_whose_link_was_closed_is_a_device_error() -> None:
    assert type(failure(ended(b"", code=10), "board")) is DeviceError


def test_a_runner_that_dies_without_a_word_is_a_resource_limit() -> None:
    found = failure(ended(b"\xff\xff", code=-8, stderr=b"first\nlast words\n"), "x")
    assert isinstance(found, ResourceLimit)
    assert "SIGFPE" in str(found)
    assert "last words" in str(found)


def illegal(
    arch: str, instruction: str, message: str = "illegal instruction 4e829420 at /x/lib.so+0x10"
) -> EdgekitError:
    error = {"code": "illegal_instruction", "message": message, "arch": arch, "instruction": instruction}
    return failure(ended(msgspec.json.encode({"protocol": 1, "error": error}), code=9), "board")


def test_an_illegal_instruction_names_what_the_cpu_lacks() -> None:
    found = illegal("aarch64", "2094824e")
    assert type(found) is TargetIncompatible
    assert str(found) == ("board: illegal instruction (needs asimddp, the dot product): 4e829420 at /x/lib.so+0x10")
    plain = illegal("aarch64", "d503201f")
    assert type(plain) is TargetIncompatible
    assert "needs" not in str(plain)
    for garbage in ("", "zz", "4e8"):
        assert type(illegal("x86_64", garbage)) is TargetIncompatible


def test_a_programs_own_trap_is_a_crash() -> None:
    assert type(illegal("x86_64", "0f0b90")) is ResourceLimit
    assert type(illegal("aarch64", "00000000")) is ResourceLimit


FACTS_1 = {
    "protocol": 1,
    "arch": "aarch64",
    "isa": ["asimd"],
    "usable_threads": 4,
    "emulated": False,
    "ram_total_bytes": 1,
    "cpu_model": None,
    "kernel": None,
    "glibc": None,
    "cores_by_max_khz": None,
    "governors": None,
}


def test_an_older_runners_facts_are_a_sheet_too() -> None:
    sheet = parse_line(msgspec.json.encode(FACTS_1), FactsReply, "x").sheet()
    assert (sheet.schema, sheet.arch, sheet.usable_threads, sheet.libc) == (1, "aarch64", 4, None)
    assert (sheet.clusters, sheet.thermal, sheet.governors) == ((), (), {})


NO_VERSIONS = ("", "abc", "2.", ".2", "2..3", "2.٣٥", "2.³", "1e5", "2.28\n", "2." + "9" * 5000, "-1", "+2.3")


@pytest.mark.parametrize(
    "wrong",
    [
        {"disk": {"path": 1}},
        {"clusters": [{"cpus": ["0"]}]},
        {"soc": None},
        *({key: version} for key in ("glibc", "libstdcxx") for version in NO_VERSIONS),
    ],
)
def test_facts_of_a_wrong_type_are_a_device_error(wrong: dict[str, object]) -> None:
    with pytest.raises(DeviceError):
        parse_line(msgspec.json.encode(FACTS_1 | wrong), FactsReply, "x")


def test_settings_leave_out_what_is_not_known() -> None:
    assert Settings(2, None, {"arena": "1", "x": None}).flat() == {"threads": "2", "arena": "1"}
