"""How a device is written, and what is refused in it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.core.device_url import DeviceUrl, is_device_name, parse_device
from edgekit.errors import UsageError

GOOD = {
    "local": DeviceUrl("local"),
    "emulated": DeviceUrl("emulated"),
    "emulated:raspberry-pi-4": DeviceUrl("emulated", target="raspberry-pi-4"),
    "ssh://pi": DeviceUrl("ssh", host="pi"),
    "ssh://pi@board.local": DeviceUrl("ssh", host="board.local", user="pi"),
    "ssh://pi@10.0.0.7:2222": DeviceUrl("ssh", host="10.0.0.7", user="pi", port=2222),
    "ssh://pi@[fe80::1%eth0]:22": DeviceUrl("ssh", host="fe80::1%eth0", user="pi", port=22),
    "ssh://pi:22/mnt/my data/edgekit": DeviceUrl("ssh", host="pi", port=22, folder="/mnt/my data/edgekit"),
    "ssh://my_board_2/data/edgekit": DeviceUrl("ssh", host="my_board_2", folder="/data/edgekit"),
}


@pytest.mark.parametrize(("text", "url"), GOOD.items())
def test_a_device_is_read_by_its_parts_and_written_back(text: str, url: DeviceUrl) -> None:
    assert parse_device(text) == url
    assert str(url) == text


def test_slashes_too_many_are_none() -> None:
    assert parse_device("ssh://pi/") == DeviceUrl("ssh", host="pi")
    assert parse_device("ssh://pi//data//edgekit/") == DeviceUrl("ssh", host="pi", folder="/data/edgekit")


BAD = [
    "",
    "Local",
    "locals",
    "local:",
    "pi",
    "pi@board",
    "http://board",
    "SSH://board",
    "ssh:board",
    "ssh://",
    "ssh:///data",
    "ssh://@board",
    "ssh://pi@",
    "ssh://a@b@board",
    "ssh://-oProxyCommand=true",
    "ssh://-l@board",
    "ssh://my board",
    "ssh://$(id)",
    "ssh://`id`",
    "ssh://board'",
    'ssh://"board"',
    "ssh://board;id",
    "ssh://board\n",
    "ssh://board\x1b[2J",
    "ssh://bücher",
    "ssh://board:",
    "ssh://board:0",
    "ssh://board:65536",
    "ssh://board:2 2",
    "ssh://board:²",
    "ssh://board:-1",
    "ssh://[::1",
    "ssh://[]",
    "ssh://[1]",
    "ssh://[::1]x",
    "ssh://::1",
    "ssh://board/data/../..",
    "ssh://board/./data",
    "ssh://board/-rf",
    "ssh://board/$HOME",
    "ssh://board/a'b",
    "ssh://board/a\nb",
    "emulated:",
    "emulated:../x",
    "emulated:Raspberry Pi",
    "emulated: ",
    "emulated\n",
    "ssh://" + "a" * 300,
]


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_device_is_a_usage_error_with_a_next_step(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_device(text)
    assert caught.value.next_step
    assert str(caught.value).isprintable()


def test_a_password_is_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError, match="holds a password") as caught:
        parse_device("ssh://pi:hunter2@board:22/data")
    assert "hunter2" not in str(caught.value)
    assert "ssh://pi@board:22/data" in caught.value.next_step


@given(
    st.text(max_size=40), st.sampled_from(["", "ssh://", "ssh://pi@", "ssh://pi/", "ssh://pi:", "emulated:", "ssh://["])
)
def test_any_text_is_a_device_or_a_usage_error(text: str, prefix: str) -> None:
    """What is accepted survives writing and reading, and holds nothing that a shell or ssh would read otherwise."""
    try:
        url = parse_device(prefix + text)
    except UsageError:
        return
    assert parse_device(str(url)) == url
    assert not url.host.startswith("-") and not url.user.startswith("-")
    assert not set(str(url)) & set("'\"$`;&|<>\\\n\0()*?!#~")
    assert url.folder == "" or url.folder.startswith("/")


@pytest.mark.parametrize("name", ["pi", "Pi-4", "lab_2.kitchen", "0", "local2", "emulated-pi"])
def test_names_of_devices(name: str) -> None:
    assert is_device_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "local",
        "emulated",
        "LOCAL",
        "ssh",
        "ssh://pi",
        "-pi",
        ".pi",
        "my pi",
        "pi\n",
        "a/b",
        "é",
        "emulated:x",
        "x" * 65,
    ],
)
def test_no_names_of_devices(name: str) -> None:
    assert not is_device_name(name)
