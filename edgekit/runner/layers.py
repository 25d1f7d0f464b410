"""Time by layer, from what an engine's own profiler left: pure, over untrusted bytes.

- The first inference, which allocates and tunes, is left out: here of ONNX Runtime's events, by ekrun of OpenVINO's.
- Fused layers have the name of one of theirs, or one the engine gave them.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec

from edgekit.core.profile import Layer, check_integers
from edgekit.errors import DeviceError

MOST_PROFILE_BYTES = 1 << 28
MOST_LAYERS = 100_000

# ONNX Runtime 1.14 and later write one event for a node's kernel; earlier ones surround it by two fences.
_KERNEL = "_kernel_time"


Microseconds = Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]


class _Event(msgspec.Struct):
    cat: str
    name: str
    ts: Microseconds
    dur: Microseconds
    args: dict[str, msgspec.Raw] = {}


@dataclass(frozen=True)
class OpenvinoLayer:
    """One layer in ekrun's answer: microseconds over all `runs`."""

    name: str
    type: str | None
    exec_type: str | None
    real_us: Microseconds
    cpu_us: Microseconds
    runs: int

    def __post_init__(self) -> None:
        check_integers(self)


def ort_layers(profile: bytes, where: str = "profile.json") -> tuple[Layer, ...]:
    """Layers of an ONNX Runtime profile, the slowest first; several events of a node in one inference (a loop) add up.

    Raises DeviceError when it is not one, is cut short, too large, or holds no second inference.
    """
    events = _events(profile, where)
    runs = sorted(
        (event.ts, event.ts + event.dur) for event in events if event.cat == "Session" and event.name == "model_run"
    )
    if len(runs) < 2:
        raise DeviceError("the profile holds fewer than two inferences", where=where)
    total_us: dict[tuple[str, str, str], int] = defaultdict(int)
    for event in events:
        if event.cat == "Node" and event.name.endswith(_KERNEL) and event.ts >= runs[0][1]:
            total_us[_identity(event, where)] += event.dur
    return _ranked({key: us / (len(runs) - 1) for key, us in total_us.items()}, where)


def openvino_layers(layers: Sequence[OpenvinoLayer], where: str = "layers") -> tuple[Layer, ...]:
    """Layers of ekrun's answer for OpenVINO, the slowest first. Raises DeviceError when they make no sense."""
    mean_us: dict[tuple[str, str, str], float] = defaultdict(float)
    for layer in layers:
        if layer.runs < 1 or layer.real_us < 0:
            raise DeviceError("a layer has a negative time or no runs", where=where)
        mean_us[layer.name, layer.type or "", layer.exec_type or ""] += layer.real_us / layer.runs
    return _ranked(mean_us, where)


def _events(profile: bytes, where: str) -> list[_Event]:
    if len(profile) > MOST_PROFILE_BYTES:
        raise DeviceError(f"the profile has {len(profile)} bytes, at most {MOST_PROFILE_BYTES} are read", where=where)
    try:
        return msgspec.json.decode(profile, type=list[_Event])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DeviceError(f"it is no whole profile of ONNX Runtime ({error})", where=where) from error


def _identity(event: _Event, where: str) -> tuple[str, str, str]:
    try:
        raw = {
            name: msgspec.json.decode(event.args[name], type=str)
            for name in ("op_name", "provider")
            if name in event.args
        }
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DeviceError(f"an event of the profile is malformed ({error})", where=where) from error
    return event.name.removesuffix(_KERNEL), raw.get("op_name", ""), raw.get("provider", "")


def _ranked(mean_us: Mapping[tuple[str, str, str], float], where: str) -> tuple[Layer, ...]:
    if len(mean_us) > MOST_LAYERS:
        raise DeviceError(f"the profile holds more than {MOST_LAYERS} layers", where=where)
    whole = sum(mean_us.values())
    slowest_first = sorted(mean_us.items(), key=lambda item: (-item[1], item[0]))
    return tuple(Layer(*key, us, us / whole if whole else 0.0) for key, us in slowest_first)
