"""Golden samples, made: the artifact run over them here, with the very version of the engine that ships."""

from pathlib import Path

from edgekit import sandbox
from edgekit.bundle.golden import FOLDER, Taken
from edgekit.core.accuracy import OutputSet
from edgekit.core.deployment import Golden, GoldenOutput
from edgekit.flow.cargo import Cargo
from edgekit.flow.judge import SCORING, answers, on_one_thread
from edgekit.flow.workshop import SELECTION, Made, Workshop
from edgekit.runner.client import Feeds

# Metrics whose answer is the class with the highest score; `core` knows no metrics, and the others read values, not their order.
DECIDING = frozenset(
    {"top-1", "top-5", "exact-match", "ctc-exact-match", "frame-accuracy", "top-1-agreement", "cer", "wer"}
)


def make_golden(shop: Workshop, cargo: Cargo, samples: int, folder: Path) -> Golden | None:
    """Golden inputs and expected answers in `folder`/golden; None when the cargo has no samples to give.

    Raises InputRejected for answers that a device can't be held to, and what running the artifact raises.
    """
    if cargo.materials is None:
        return None
    shop.progress(f"running {cargo.name} over its golden samples")
    out = folder / FOLDER
    given, state = cargo.materials.feeds(SELECTION), cargo.data.state
    taken = sandbox.call(
        "edgekit.bundle.golden:take",
        returns=Taken,
        limits=SCORING,
        task="choosing golden samples",
        inputs=given.inputs,
        reset=given.reset,
        state=bool(state),
        samples=samples,
        out=out,
    )
    feeds = Feeds(taken.inputs, state, taken.reset)
    own = _answers(shop, cargo.made, feeds, "own", cargo.name)
    reference = _answers(shop, cargo.reference, feeds, "reference", cargo.name) if cargo.reference else None
    outputs = sandbox.call(
        "edgekit.bundle.golden:expect",
        returns=tuple[GoldenOutput, ...],
        limits=SCORING,
        task="looking at the golden answers",
        own=own,
        reference=reference,
        decides=cargo.data.metric in DECIDING,
        scored=cargo.data.metric_options.output,
        out=out,
    )
    inputs = {name: f"{FOLDER}/{path.name}" for name, path in taken.inputs.items()}
    return Golden(taken.samples, inputs, f"{FOLDER}/{taken.reset.name}" if taken.reset else None, outputs)


def _answers(shop: Workshop, made: Made, feeds: Feeds, where: str, name: str) -> OutputSet:
    return answers(shop.host, on_one_thread(made.runnable), feeds, shop.scratch / "golden" / where, name)
