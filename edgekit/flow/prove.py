"""Prove the chosen artifact on the machine it is for: its own answers there, against this host's.

- on a board every sample of the evaluation split, and the accuracy is scored from the board's answers;
- without a board, for an ARM target, on the emulated one when qemu and its root are here: as many samples as take some 20 s;
- an emulated board proves operator support, ISA fitness and answers, never latency or memory.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgekit import sandbox
from edgekit.core.accuracy import Agreement, OutputSet, feasible
from edgekit.core.facts import DeviceFacts
from edgekit.core.recipes import OPENVINO
from edgekit.core.results import Origin, Proof
from edgekit.core.types import Target
from edgekit.devices.base import Device
from edgekit.devices.emulated import EmulatedDevice
from edgekit.engines.closure import native_library
from edgekit.errors import DeviceError, EdgekitError, InputRejected
from edgekit.flow.judge import SCORING, Judge, answers, on_one_thread
from edgekit.flow.workshop import SELECTION, Made, Materials, Workshop
from edgekit.measure import device_facts

# What qemu's user mode manages on one thread of an ordinary host, about, and what an inference costs apart from its arithmetic:
# on the sample 0.1 to 0.2 s an inference of 17 M MACs. They bound the samples, so that a proof takes about EMULATION_SECONDS.
EMULATED_MACS_PER_S = 0.1e9
EMULATED_OVERHEAD_S = 0.02
EMULATION_SECONDS = 20.0
LONGEST_INFERENCE_S = 90.0

# OpenVINO met SIGILL and wrong sums under qemu 7.2 that no board has: there it proves nothing.
NOT_EMULATED = frozenset({OPENVINO})


@dataclass(frozen=True)
class Ground:
    """A machine to prove an artifact on; `asked` when the user named it: else a failure there is no verdict."""

    device: Device
    facts: DeviceFacts
    asked: bool = True

    @property
    def emulated(self) -> bool:
        return self.facts.emulated


@contextmanager
def emulated_ground(target: Target, origin: Origin, shop: Workshop) -> Iterator[tuple[Ground | None, str]]:
    """The emulated board for a target that is not measured, or None and why there is none; nothing is fetched for it."""
    if origin is Origin.TARGET or target.arch == shop.host_facts.arch:
        yield None, ""
        return
    try:
        device = EmulatedDevice(target, shop.cache, offline=True)
    except EdgekitError as error:
        yield None, f"not proven on an emulated {target.name}: {_what_helps(error, target)}"
        return
    try:
        for engine, version in target.engines.items():
            if engine not in NOT_EMULATED:
                native_library(engine, version, target.arch, shop.cache.root, offline=True)
    except EdgekitError as error:
        device.close()
        yield None, f"not proven on an emulated {target.name}: {_what_helps(error, target)}"
        return
    try:
        yield Ground(device, device_facts(device), asked=False), ""
    finally:
        device.close()


def _what_helps(error: EdgekitError, target: Target) -> str:
    """What is missing. Nothing is fetched for a proof nobody asked for, so an offline error has another way out here."""
    if "--offline" in error.what:
        return f"its libraries are not here; `edgekit engines fetch {target.name}` brings them"
    return str(error)


def prove(
    shop: Workshop, judge: Judge, materials: Materials, name: str, made: Made, ground: Ground, macs: int
) -> Proof | str:
    """The proof, or why it can't be had there. Raises what the artifact's run on the device raises.

    `macs` of an inference decide how many samples an emulated board gets.
    """
    if ground.emulated and made.runnable.engine in NOT_EMULATED:
        return f"not proven on {ground.device.name}: {made.runnable.engine} is not itself under emulation"
    split = "evaluation" if "evaluation" in materials.data.splits else SELECTION
    total = materials.data.splits[split].samples
    samples = _emulated_samples(macs, total) if ground.emulated else total
    if samples == 0:
        return (
            f"not proven on {ground.device.name}: one inference of {macs / 1e9:.0f} G MACs is too much for an emulator"
        )

    def run(_: object) -> Proof:
        shop.progress(f"proving {name} on {ground.device.name}, {samples} samples")
        with judge.outputs(made, split, name, samples) as here, tempfile.TemporaryDirectory(dir=shop.scratch) as folder:
            runnable = on_one_thread(shop.on(ground.facts.arch, made))
            there = answers(ground.device, runnable, materials.feeds(split), Path(folder), name, samples)
            agreement = _agreement(there, here, name)
            accuracy = judge.score(there, split, name) if samples == total else None
            return Proof(ground.device.name, ground.emulated, split, agreement, accuracy)

    if ":" in materials.data.metric:  # the user's own code may change between two runs
        return run(None)
    key = {
        **judge.key(made),
        "split": [materials.data.splits[split].sha256, samples, materials.data.metric, materials.data.state],
        "device": [ground.device.name, ground.device.ekrun_sha256, ground.facts],
        "host": shop.host_key,
    }
    return shop.remembered("proofs", key, Proof, run)[1]


def _emulated_samples(macs: int, total: int) -> int:
    """As many as the time allows, at least one where one is bearable, else 0."""
    inference_s = EMULATED_OVERHEAD_S + macs / EMULATED_MACS_PER_S
    return min(total, max(int(EMULATION_SECONDS / inference_s), int(inference_s <= LONGEST_INFERENCE_S)))


def _agreement(there: OutputSet, here: OutputSet, name: str) -> Agreement:
    """Raises DeviceError when what came from the device are no answers of this model to these samples."""
    try:
        return sandbox.call(
            "edgekit.data.agree:agree",
            returns=Agreement,
            limits=SCORING,
            task=f"comparing the answers of {name}",
            own=there,
            base=here,
        )
    except InputRejected as error:
        raise DeviceError(f"its answers are not those of this model: {error.what}", where=name) from error


def fault_in(proof: Proof, max_drop: float) -> str:
    """Why the device's answers do not hold, or an empty string: by decisions flipped, and by the accuracy scored from them."""
    agreement = proof.agreement
    if agreement.nonfinite:
        return f"{agreement.nonfinite} values are not finite on {proof.device}"
    if agreement.flipped > max_drop * agreement.decisions:
        return f"{agreement.flipped} of {agreement.decisions} decisions differ from this host's on {proof.device}"
    if proof.accuracy is not None and not (held := feasible(proof.accuracy, max_drop)).ok:
        return f"on {proof.device}: {held.reason}"
    return ""
