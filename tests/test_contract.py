"""The preprocessing contract: geometry, the shape it yields, its check against a model's input, and its arithmetic."""

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.core.contract import (
    AudioRules,
    Contract,
    ImageRules,
    RawRules,
    crop_corner,
    frame_count,
    image_like,
    letterbox_corner,
    output_shape,
    resized_size,
    sound_like,
)
from edgekit.core.contract_check import check_contract
from edgekit.core.types import Shape, TensorSpec
from edgekit.data.preprocess import arithmetic, framed, laid_out
from edgekit.errors import InputRejected


def image(layout: str = "NCHW", dtype: str = "float32", **rules: Any) -> Contract:
    """An image contract, stretched to 224 x 224 unless said otherwise."""
    return Contract("image", dtype, layout, image=ImageRules(**{"resize": "stretch", "size": (224, 224), **rules}))


def sound(layout: str = "NT", **rules: Any) -> Contract:
    return Contract("audio", "float32", layout, audio=AudioRules(**{"rate": 16000, **rules}))


def spec(*shape: int | str, dtype: str = "float32") -> TensorSpec:
    return TensorSpec("x", dtype, shape)


def refusal(contract: Contract, wanted: TensorSpec) -> str:
    with pytest.raises(InputRejected) as caught:
        check_contract(contract, wanted, "data.toml")
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---------------------------------------------------------------------------------------------------------------- record


def test_a_contract_survives_json() -> None:
    for contract in (
        image(pad=(114, 114, 114), resize="letterbox", crop=(3, 4)),
        sound(frame=576, hop=512, lead=64),
        Contract("bin", "float32", raw=RawRules("uint8", (2, 3))),
        Contract("value", "int64", value=16000.0),
        Contract("array", "float32", "NCHW", 0.5, -1.0, (0.1, 0.2, 0.3), (1.0,)),
    ):
        assert msgspec.json.decode(msgspec.json.encode(contract), type=Contract) == contract


# -------------------------------------------------------------------------------------------------------------- geometry


@pytest.mark.parametrize(
    ("height", "width", "rules", "expected"),
    [
        (480, 640, ImageRules(), (480, 640)),
        (480, 640, ImageRules(resize="stretch", size=(10, 20)), (10, 20)),
        (480, 640, ImageRules(resize="shorter", size=(256,)), (256, 341)),  # floor of 341.33
        (640, 480, ImageRules(resize="shorter", size=(256,)), (341, 256)),
        (500, 500, ImageRules(resize="shorter", size=(256,)), (256, 256)),
        (720, 1280, ImageRules(resize="letterbox", size=(640, 640)), (360, 640)),
        (1280, 720, ImageRules(resize="letterbox", size=(640, 640)), (640, 360)),
        (333, 500, ImageRules(resize="letterbox", size=(320, 320)), (213, 320)),  # 213.12
        (1, 10_000, ImageRules(resize="letterbox", size=(320, 320)), (1, 320)),
    ],
)
def test_a_resized_images_size(height: int, width: int, rules: ImageRules, expected: tuple[int, int]) -> None:
    assert resized_size(height, width, rules) == expected


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 2000), st.integers(1, 2000))
def test_a_letterbox_touches_two_borders_and_keeps_the_aspect(height: int, width: int, tall: int, wide: int) -> None:
    rules = ImageRules(resize="letterbox", size=(tall, wide))
    own_height, own_width = resized_size(height, width, rules)
    assert own_height == tall or own_width == wide
    assert 1 <= own_height <= tall and 1 <= own_width <= wide
    ratio = min(tall / height, wide / width)
    assert abs(own_height - max(1, height * ratio)) <= 0.51 and abs(own_width - max(1, width * ratio)) <= 0.51
    top, left = letterbox_corner(own_height, own_width, rules)
    assert 0 <= tall - own_height - 2 * top <= 1 and 0 <= wide - own_width - 2 * left <= 1
    assert letterbox_corner(own_height, own_width, replace(rules, align="top-left")) == (0, 0)


@given(st.integers(1, 500), st.integers(1, 500), st.data())
def test_a_crop_lies_in_the_middle(height: int, width: int, data: st.DataObject) -> None:
    crop = (data.draw(st.integers(1, height)), data.draw(st.integers(1, width)))
    top, left = crop_corner(height, width, ImageRules(crop=crop))
    assert 0 <= top <= height - crop[0] and 0 <= left <= width - crop[1]
    assert abs(height - crop[0] - 2 * top) <= 1 and abs(width - crop[1] - 2 * left) <= 1


def test_the_centre_crop_breaks_ties_as_torchvision_does() -> None:
    corners = [crop_corner(n, n, ImageRules(crop=(224, 224)))[0] for n in (224, 225, 226, 227, 229, 256)]
    assert corners == [0, 0, 1, 2, 2, 16]


@given(st.integers(0, 500), st.integers(1, 80), st.integers(1, 80), st.integers(0, 40))
def test_frames_hold_every_sample_and_none_is_empty(samples: int, frame: int, hop: int, lead: int) -> None:
    rules = AudioRules(16000, frame=frame, hop=hop, lead=lead)
    count = frame_count(samples, rules)
    assert (count - 1) * hop + frame >= lead + samples
    assert count == 1 or (count - 2) * hop + frame < lead + samples


@given(st.integers(1, 200), st.integers(1, 60), st.integers(1, 70), st.integers(0, 40), st.integers(1, 2))
def test_frames_are_slices_of_the_padded_recording(
    samples: int, frame: int, hop: int, lead: int, channels: int
) -> None:
    rules = AudioRules(16000, channels, frame=frame, hop=hop, lead=lead)
    recording = np.arange(1, samples * channels + 1, dtype=np.float32).reshape(samples, channels)
    frames = framed(recording, rules)
    padded = np.concatenate([np.zeros((lead, channels)), recording, np.zeros((len(frames) * hop + frame, channels))])
    expected = np.stack([padded[k * hop : k * hop + frame] for k in range(frame_count(samples, rules))])
    np.testing.assert_array_equal(frames, expected)


def test_a_length_cuts_or_fills() -> None:
    recording = np.arange(1, 6, dtype=np.float32).reshape(5, 1)
    assert framed(recording, AudioRules(16000, length=3))[0, :, 0].tolist() == [1, 2, 3]
    assert framed(recording, AudioRules(16000, length=7))[0, :, 0].tolist() == [1, 2, 3, 4, 5, 0, 0]


# ------------------------------------------------------------------------------------------------------- shape and check


@pytest.mark.parametrize(
    ("contract", "expected"),
    [
        (image(), (1, 3, 224, 224)),
        (image("NHWC", color="BGR", size=(64, 32)), (1, 64, 32, 3)),
        (image("HW", color="gray"), (224, 224)),
        (image("CHW", resize="none", size=()), (3, "H", "W")),
        (image("HWC", resize="shorter", size=(256,)), ("H", "W", 3)),
        (image("HWC", resize="shorter", size=(256,), crop=(224, 200)), (224, 200, 3)),
        (image("HWC", resize="letterbox", size=(320, 640), crop=(224, 200)), (224, 200, 3)),
        (sound(length=16000), (1, 16000)),
        (sound("NTC", channels=2, frame=400), (1, 400, 2)),
        (Contract("array", "float32", "NCHW"), None),
        (Contract("value", "float32", value=1.0), None),
    ],
)
def test_the_shape_that_a_contract_yields(contract: Contract, expected: Shape | None) -> None:
    assert output_shape(contract) == expected


@pytest.mark.parametrize(
    ("contract", "wanted"),
    [
        (image(), spec(1, 3, 224, 224)),
        (image("CHW", resize="none", size=()), spec(3, 17, 19)),
        (image(dtype="uint8"), spec(1, 3, 224, 224, dtype="uint8")),
        (sound(frame=576), spec(1, 576)),
        (Contract("array", "float16", "NCHW"), spec(1, 3, 2, 2)),  # cast within a kind when it is fed
        (replace(image("NHWC"), mean=(1.0, 2.0, 3.0)), spec(1, 224, 224, 3)),
        (Contract("array", "float32", "NC", mean=(1.0, 2.0)), spec(1, 2)),
        (Contract("jsonl", "int64"), spec(1, 128, dtype="int64")),
    ],
)
def test_a_contract_that_fits_is_accepted(contract: Contract, wanted: TensorSpec) -> None:
    check_contract(contract, wanted, "here")


@pytest.mark.parametrize(
    ("contract", "wanted", "what", "fix"),
    [
        (
            image(),
            spec(1, 224, 224, 3),
            "'x' becomes [1, 3, 224, 224], but the model takes [1, 224, 224, 3]",
            'looks like NHWC: write layout = "NHWC"',
        ),
        (image("NHWC"), spec(1, 3, 224, 224), "[1, 224, 224, 3]", 'looks like NCHW: write layout = "NCHW"'),
        (image("CHW"), spec(1, 3, 224, 224), "[3, 224, 224]", 'the batch axis is missing: write layout = "NCHW"'),
        (image("NCHW"), spec(3, 224, 224), "[1, 3", 'the model has no batch axis: write layout = "CHW"'),
        (image("CHW"), spec(1, 224, 224, 3), "[3, 224, 224]", 'the batch axis is missing: write layout = "NHWC"'),
        (image(), spec(1, 3, 320, 640), "[1, 3, 224", "resize to 640x320 (width x height): write size = [320, 640]"),
        (
            image(resize="shorter", size=(256,), crop=(224, 224)),
            spec(1, 3, 240, 240),
            "becomes [1, 3, 224, 224]",
            "crop to 240x240 (width x height): write crop = [240, 240]",
        ),
        (image(), spec(1, 1, 224, 224), "becomes [1, 3, 224, 224]", 'write color = "gray"'),
        (image(color="gray"), spec(1, 3, 224, 224), "becomes [1, 1, 224, 224]", 'write color = "RGB"'),
        (image(), spec(224, 224), "[1, 3", 'write layout = "HW"; write color = "gray"'),
        (
            image(),
            spec(1, 28, 28, 1),
            "[1, 3, 224, 224]",
            'write layout = "NHWC"; resize to 28x28 (width x height): write size = [28, 28]; write color = "gray"',
        ),
        (image(), spec(4, 3, 224, 224), "[4, 3", "a sample is a batch of 1: fix it with --shape x:1x3x224x224"),
        (image(), spec("n", 3, 224, 224), "[n, 3", "fix the model's shape with --shape x:1x3x224x224"),
        (image(resize="none", size=()), spec("n", 3, "h", "w"), "[1, 3, H, W]", "fix the model's shape with --shape"),
        (image(), spec(1, 7, 9, 11), "[1, 7, 9, 11]", 'takes no image here: use reader = "array"'),
        (
            image(dtype="uint8"),
            spec(1, 3, 224, 224),
            "declares 'x' as uint8",
            'write dtype = "float32" or leave it out',
        ),
        (image("NCHX"), spec(1, 3, 224, 224), 'layout = "NCHX" does not fit its reader', "known: NCHW, NHWC, CHW, HWC"),
        (image("NHW"), spec(1, 224, 224), 'layout = "NHW" does not fit', "NCHW"),
        (image("NCHWW"), spec(1, 3, 224, 224, 224), "does not fit its reader", ""),
        (sound(length=8000), spec(1, 16000), "becomes [1, 8000]", "write length = 16000"),
        (sound(frame=512), spec(1, 576), "becomes [1, 512]", "write frame = 576"),
        (sound(length=16000), spec(16000), "becomes [1, 16000]", 'the model has no batch axis: write layout = "T"'),
        (sound("NCT", length=99), spec(1, 2, 99), "becomes [1, 1, 99]", "write channels = 2"),
        (sound("NT", channels=2, length=9), spec(1, 9), 'layout = "NT" does not fit', "known: NCT, NTC, CT, TC"),
        (replace(image(), mean=(1.0, 2.0)), spec(1, 3, 224, 224), "mean has 2 values for 3 channels", ""),
        (Contract("array", "float32", std=(1.0, 2.0)), spec(1, 2), "std has 2 values, but layout names no", "layout"),
        (Contract("array", "float32", "NCHW"), spec(1, 2, 3), "layout NCHW names 4 axes, 'x' has 3", ""),
        (Contract("array", "int8"), spec(1, 2), "declares 'x' as int8, but the model takes float32", ""),
    ],
)
def test_a_contract_that_does_not_fit_is_refused_with_the_line_to_change(
    contract: Contract, wanted: TensorSpec, what: str, fix: str
) -> None:
    line = refusal(contract, wanted)
    assert what in line
    assert line.endswith(fix) or fix in line


SIDES = st.integers(2, 300)


@given(st.sampled_from(["NCHW", "NHWC", "CHW", "HWC"]), st.sampled_from([1, 3]), SIDES, SIDES, st.booleans())
def test_whatever_image_a_model_takes_the_advice_leads_there(
    layout: str, channels: int, height: int, width: int, gray: bool
) -> None:
    """Following the advice line by line ends in a contract that fits."""
    sizes = {"N": 1, "C": channels, "H": height, "W": width}
    wanted = spec(*(sizes[letter] for letter in layout))
    contract = image("NCHW", color="gray" if gray else "RGB")
    try:
        check_contract(contract, wanted, "")
    except InputRejected as error:
        for line in error.next_step.split("; "):
            key, _, value = line.partition("write ")[2].partition(" = ")
            parsed = tuple(map(int, value.strip("[]").split(", "))) if key == "size" else value.strip('"')
            rules = contract.image
            assert rules is not None
            contract = (
                replace(contract, layout=parsed)
                if key == "layout"
                else replace(contract, image=replace(rules, **{key: parsed}))
            )
        check_contract(contract, wanted, "")


def test_shapes_read_as_images_and_sounds() -> None:
    like = image_like((1, 3, 3, 3))
    assert like is not None and like.layout == "NCHW"
    assert image_like((2, 3, 4, 5)) is None
    assert image_like((1, 3, "h", 5)) is None
    heard = sound_like((1, 16000, 1))
    assert heard is not None and (heard.layout, heard.channels) == ("NTC", 1)
    assert sound_like((4, 5, 6)) is None


# ------------------------------------------------------------------------------------------------- layout and arithmetic


def plain(stored: np.ndarray, contract: Contract) -> np.ndarray:
    """The rule, value by value, in float32."""
    result = np.empty(stored.shape, np.float32)
    axis = contract.layout.find("C")
    for place in np.ndindex(stored.shape):
        channel = place[1 + axis] if axis >= 0 else 0
        value = np.float32(stored[place])
        if contract.scale != 1 or contract.offset != 0:
            value = np.float32(np.float32(value * np.float32(contract.scale)) + np.float32(contract.offset))
        for given_values, apply in ((contract.mean, np.subtract), (contract.std, np.divide)):
            if given_values:
                operand = np.float32(given_values[channel if len(given_values) > 1 else 0])
                value = np.float32(apply(value, operand))
        result[place] = value
    return result


VALUES = st.floats(-300, 300, width=32)
DIVISORS = st.floats(0.015625, 300, width=32)


@given(
    st.sampled_from(["NCHW", "NHWC"]),
    DIVISORS,
    VALUES,
    st.one_of(st.just(()), st.tuples(VALUES), st.tuples(VALUES, VALUES, VALUES)),
    st.one_of(st.just(()), st.tuples(DIVISORS), st.tuples(DIVISORS, DIVISORS, DIVISORS)),
    st.integers(0, 2**32 - 1),
)
def test_the_arithmetic_is_the_documented_one_in_float32(
    layout: str, scale: float, offset: float, mean: tuple[float, ...], std: tuple[float, ...], seed: int
) -> None:
    contract = Contract("image", "float32", layout, scale, offset, mean, std)
    stored = np.random.default_rng(seed).integers(0, 256, (2, 1, 3, 2, 2) if layout == "NCHW" else (2, 1, 2, 2, 3))
    done = arithmetic(stored.astype(np.uint8), contract)
    np.testing.assert_array_equal(done, plain(stored, contract) if contract.has_arithmetic else stored)


def test_no_arithmetic_leaves_the_stored_numbers_alone() -> None:
    stored = np.array([[1, 2**53 + 1]])
    assert arithmetic(stored, Contract("array", "int64")) is stored


@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "CHW", "HWC", "WHC", "CNWH"])
def test_axes_go_where_the_layout_has_them(layout: str) -> None:
    block = np.arange(2 * 4 * 5 * 3).reshape(2, 4, 5, 3)
    laid = laid_out(block, "HWC", layout)
    sizes = {"N": 1, "H": 4, "W": 5, "C": 3}
    assert laid.shape == (2, *(sizes[letter] for letter in layout))
    for h, w, c in np.ndindex(4, 5, 3):
        place = {"N": 0, "H": h, "W": w, "C": c}
        assert laid[(1, *(place[letter] for letter in layout))] == block[1, h, w, c]


def test_gray_needs_no_channel_axis() -> None:
    block = np.arange(20).reshape(1, 4, 5, 1)
    np.testing.assert_array_equal(laid_out(block, "HWC", "HW"), block[..., 0])
    np.testing.assert_array_equal(laid_out(block, "HWC", "NWH"), block[..., 0].transpose(0, 2, 1)[:, None])
