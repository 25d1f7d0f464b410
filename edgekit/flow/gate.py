"""The gate before a byte of model is sent: what an engine and an artifact need, against what the board says of itself."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from edgekit.core.compat import ENGINE_ISA, Needs, admit
from edgekit.core.facts import FactSheet
from edgekit.core.recipes import ONNXRUNTIME, REFERENCE
from edgekit.core.results import Outcome, Verdict, VerdictCode
from edgekit.core.targets import newest_engines
from edgekit.core.types import ModelInfo
from edgekit.engines.floors import Floors, floors
from edgekit.errors import TargetIncompatible
from edgekit.flow.workshop import Made, Workshop
from edgekit.runner import ekrun_path


def engines_for(sheet: FactSheet, where: str) -> Mapping[str, str]:
    """The newest release of each engine that the board's C library admits. Raises TargetIncompatible when none is."""
    if sheet.glibc is None:
        bits = "a 32-bit system" if sheet.userland_bits == 32 else f"built on {sheet.libc or 'no glibc'}"
        raise TargetIncompatible(
            f"no engine runs there: the board is {bits}, the engines need a 64-bit glibc",
            where=where,
            next_step="install a 64-bit system that is built on glibc, such as Debian",
        )
    engines = newest_engines(sheet.arch, sheet.glibc)
    if ONNXRUNTIME not in engines:
        raise TargetIncompatible(
            f"no {ONNXRUNTIME} edgekit knows runs on {sheet.arch} with glibc {sheet.glibc}",
            where=where,
            next_step="update the board's system to glibc 2.27 or later",
        )
    return engines


def pass_gate(shop: Workshop, sheet: FactSheet, model: ModelInfo, made: Made) -> tuple[str, ...]:
    """Let an artifact pass to the board, with notices of what could not be checked.

    A run's memory is taken as the weights and the activations. Raises TargetIncompatible with everything in the way and what helps.
    """
    spec = made.artifact.spec
    library = shop.native(spec.recipe.engine, spec.engine_version, sheet.arch)
    program = ekrun_path(library.arch)
    floor = _floors((program, *library.files))
    reads_onnx = library.engine == ONNXRUNTIME
    files = [made.folder / file.path for file in made.artifact.files]
    lacking = shop.device.lacking([program, *library.files, *files])
    return admit(
        Needs(
            arch=library.arch,
            engine=library.engine,
            engine_version=library.version,
            isa=ENGINE_ISA.get((library.engine, library.arch), ()),
            glibc=floor.glibc,
            glibcxx=floor.glibcxx,
            ram_bytes=model.weight_bytes + model.peak_activation_bytes,
            disk_bytes=lacking,
            opset=model.opset if reads_onnx else None,
            ir_version=model.ir_version if reads_onnx else None,
        ),
        sheet,
        shop.device.name,
    )


def gate_all(
    shop: Workshop, sheet: FactSheet, info: ModelInfo, made: Mapping[str, Made], outcomes: Sequence[Outcome]
) -> tuple[Outcome, ...]:
    """Bar the candidates the device does not admit. Raises TargetIncompatible when it does not admit the reference."""

    def passed(outcome: Outcome) -> Outcome:
        if outcome.name not in made or outcome.blocked is not None:
            return outcome
        try:
            pass_gate(shop, sheet, info, made[outcome.name])
        except TargetIncompatible as error:
            if outcome.name == REFERENCE:
                raise
            return replace(outcome, verdicts=(*outcome.verdicts, Verdict(VerdictCode.DOES_NOT_RUN, str(error))))
        return outcome

    return tuple(map(passed, outcomes))


@functools.lru_cache(maxsize=32)
def _floors(files: tuple[Path, ...]) -> Floors:
    """Read once a process: a library has 100,000 symbols, and every candidate of an engine asks for the same."""
    return floors(files)
