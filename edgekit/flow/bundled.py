"""What a bundle deploys, measured as it is: its own artifact, library and settings, and its golden samples.

- the bundle is verified and unpacked on this host; what is brought to the device are its very files;
- the program that measures is this edgekit's ekrun; where the bundle carries another one, that is said.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from edgekit import sandbox
from edgekit.bundle.container import Admit, Verified
from edgekit.bundle.provenance import PROVENANCE_FILE
from edgekit.bundle.unpacked import unpack_bundle
from edgekit.core.accuracy import Agreement, OutputSet
from edgekit.core.admission import admit_bundle
from edgekit.core.dataset import DataSetInfo, SplitInfo
from edgekit.core.deployment import ANY, DEPLOYMENT_FILE, Deployment, Golden, GoldenOutput, Port
from edgekit.core.facts import FactSheet
from edgekit.core.results import GOLDEN, Proof
from edgekit.core.types import RunConfig, TensorSpec, content_digest
from edgekit.errors import InputRejected, TargetIncompatible, UsageError
from edgekit.flow.contents import parse_deployment, parse_document
from edgekit.flow.judge import SCORING, answers
from edgekit.flow.materials import Options, gather_data
from edgekit.flow.measured import Identity
from edgekit.flow.prove import NOT_EMULATED
from edgekit.flow.workshop import SELECTION, Materials, Workshop
from edgekit.runner.client import Feeds, Runnable
from edgekit.store import disk_errors

SUFFIX: Final = ".ekb"
PROGRAM: Final = "bin/ekrun"


def is_bundle(path: Path) -> bool:
    """Whether a bundle is meant, by its name."""
    return path.name.endswith(SUFFIX)


class MeasuredBundle:
    """The bundle at `path`, unpacked in the shop's scratch folder. `data` are samples in place of its golden ones.

    Raises VerificationFailed when `admit` does not, InputRejected for a bundle without a `deployment.json` that this edgekit reads,
    UsageError where samples are needed, and what reading them raises.
    """

    def __init__(self, shop: Workshop, path: Path, admit: Admit, data: Path | None, options: Options) -> None:
        self._shop = shop
        self.name = path.name
        self._folder = shop.scratch / "bundle"
        shop.progress("verifying and unpacking the bundle")
        self._verified = unpack_bundle(path, self._folder, admit)
        self._deployment = _deployment(self._folder, self._verified, self.name)
        self._run = RunConfig(
            options.threads or self._deployment.threads, self._deployment.precision, self._deployment.options
        )
        self._data, self.feeds = self._samples(data, options)

    @property
    def identity(self) -> Identity:
        d, model = self._deployment, self._provenance("model")
        return Identity(
            model_name=_text(model, "name") or self._verified.manifest.application,
            model_sha256=_text(model, "sha256"),
            recipe=_text(self._provenance("recipe"), "name"),
            engine=d.engine,
            engine_version=d.engine_version,
            threads=self._run.threads,
            size_bytes=sum(path.stat().st_size for path in _beside(self._folder / d.model)),
            data=self._data,
            notices=(),
        )

    def gate(self, sheet: FactSheet) -> tuple[str, ...]:
        """What the bundle requires, against the device. Raises TargetIncompatible."""
        notices = admit_bundle(self._verified.manifest.requires, sheet, self._shop.device.name)
        if self._run.threads > sheet.usable_threads:
            notices += (f"it runs on {self._run.threads} threads, the device lets it use {sheet.usable_threads}",)
        own = next((file.sha256 for file in self._verified.manifest.files if file.path == PROGRAM), None)
        if own != self._shop.device.ekrun_sha256:
            notices += ("measured with this edgekit's ekrun: the bundle carries another one",)
        return notices

    def runnable(self, sheet: FactSheet) -> Runnable:
        """Its own files; `gate` has seen that they are for the device."""
        d = self._deployment
        library, *others = _beside(self._folder / d.library)
        model, *more = _beside(self._folder / d.model)
        return Runnable(d.engine, library, model, self._run, tuple(others), tuple(more))

    def answers(self, sheet: FactSheet) -> tuple[Proof | None, Sequence[str]]:
        """To its golden samples, against those it expects."""
        golden, device = self._deployment.golden, self._shop.device
        if golden is None or not golden.outputs:
            return None, ("no golden samples: nothing shows that its answers are right there",)
        if sheet.emulated and self._deployment.engine in NOT_EMULATED:
            return None, (f"not proven on {device.name}: {self._deployment.engine} is not itself under emulation",)
        self._shop.progress(f"running its golden samples on {device.name}")
        feeds = _golden_feeds(self._folder, self._deployment, golden)
        there = answers(device, self.runnable(sheet), feeds, self._shop.scratch / GOLDEN, self.name)
        try:
            pairs = [(output, *_pair(there, output, self._folder)) for output in golden.outputs]
            agreements = [_agreement(own, expected, self.name) for _, own, expected in pairs]
        except (InputRejected, IndexError) as error:
            raise TargetIncompatible("its answers there are not those of this model", where=self.name) from error
        missed = [output for (output, *_), found in zip(pairs, agreements, strict=True) if _misses(output, found)]
        notices = [
            f"output {o.index} is beyond its tolerance of {o.tolerance:.3g}: `ekrun check` fails" for o in missed
        ]
        return Proof(device.name, sheet.emulated, GOLDEN, _together(agreements), None), notices

    def _samples(self, data: Path | None, options: Options) -> tuple[DataSetInfo, Feeds]:
        """The samples that are timed: as given, else the golden ones, else random."""
        d = self._deployment
        if data is None and d.golden is not None:
            return _golden_data(self._verified, d, d.golden), _golden_feeds(self._folder, d, d.golden)
        inputs = tuple(map(_spec, d.inputs))
        if data is None and any(not spec.dtype.startswith(("float", "bfloat")) for spec in inputs):
            what = (
                "carries no golden samples, and its inputs hold more than floats, which random numbers would not suit"
            )
            raise UsageError(what, where=self.name, next_step="give samples with --data")
        place = self._shop.scratch / "data"
        found = gather_data(self._shop, inputs, 0, data, place, options)
        model = self._folder / d.model
        materials = Materials(model, model, "", found, place, tuple(spec.name for spec in inputs))
        return found, replace(materials.feeds(SELECTION), state=d.state)

    def _provenance(self, key: str) -> object:
        path = self._folder / PROVENANCE_FILE
        document = parse_document(path.read_bytes() if path.is_file() else b"")
        return None if document is None else document.get(key)


def _deployment(folder: Path, verified: Verified, where: str) -> Deployment:
    """What the bundle says of its use. Raises InputRejected unless every file it names is one of the bundle's."""
    path = folder / DEPLOYMENT_FILE
    with disk_errors(path):
        found = parse_deployment(path.read_bytes() if path.is_file() else b"")
    if found is None:
        raise InputRejected(
            f"has no {DEPLOYMENT_FILE} that this edgekit reads", where=where, next_step="update edgekit"
        )
    named = {found.library, found.model}
    if found.golden is not None:
        named |= {*found.golden.inputs.values(), *(output.file for output in found.golden.outputs)}
        named |= {found.golden.reset} if found.golden.reset is not None else set()
    if missing := sorted(named - {file.path for file in verified.manifest.files}):
        raise InputRejected(f"its {DEPLOYMENT_FILE} names {missing[0]!r}, which is no file of it", where=where)
    return found


def _beside(path: Path) -> list[Path]:
    """A file of the bundle, and the others of its folder."""
    return [path, *sorted(other for other in path.parent.iterdir() if other != path and other.is_file())]


def _spec(port: Port) -> TensorSpec:
    return TensorSpec(port.name, port.dtype, tuple("any" if dim == ANY else dim for dim in port.shape))


def _text(table: object, key: str) -> str:
    value = table.get(key) if isinstance(table, dict) else None
    return value if isinstance(value, str) else ""


# ---------------------------------------------------------------------------------------------------------- golden samples


def _golden_feeds(folder: Path, d: Deployment, golden: Golden) -> Feeds:
    inputs = {name: folder / file for name, file in golden.inputs.items()}
    return Feeds(inputs, d.state, folder / golden.reset if golden.reset is not None else None)


def _golden_data(verified: Verified, d: Deployment, golden: Golden) -> DataSetInfo:
    """The golden samples as a data set."""
    named = {*golden.inputs.values(), golden.reset}
    digest = content_digest([file.sha256 for file in verified.manifest.files if file.path in named])
    fed = tuple(port.name for port in d.inputs if port.name not in d.state.values())
    splits = {SELECTION: SplitInfo(golden.samples, digest)}
    return DataSetInfo("golden samples", digest, GOLDEN, labelled=False, splits=splits, fed_inputs=fed, state=d.state)


def _pair(there: OutputSet, output: GoldenOutput, folder: Path) -> tuple[OutputSet, OutputSet]:
    """One output as it came from the device, and as it is expected: of the same shapes, or it does not fit."""
    k = output.index
    own = OutputSet((there.names[k],), (there.dtypes[k],), (there.files[k],), (there.shapes[k],))
    return own, replace(own, files=(folder / output.file,))


def _agreement(own: OutputSet, expected: OutputSet, where: str) -> Agreement:
    return sandbox.call(
        "edgekit.data.agree:agree",
        returns=Agreement,
        limits=SCORING,
        task=f"comparing the answers of {where}",
        own=own,
        base=expected,
    )


def _misses(output: GoldenOutput, found: Agreement) -> bool:
    return bool(found.nonfinite) or found.max_abs_diff > output.tolerance


def _together(found: Sequence[Agreement]) -> Agreement:
    """Of all outputs; a sample counts as identical by the output that has the fewest."""
    return Agreement(
        samples=max(a.samples for a in found),
        identical=min(a.identical for a in found),
        decisions=sum(a.decisions for a in found),
        flipped=sum(a.flipped for a in found),
        nonfinite=sum(a.nonfinite for a in found),
        max_abs_diff=max(a.max_abs_diff for a in found),
    )
