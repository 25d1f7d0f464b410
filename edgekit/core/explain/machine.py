"""What binds the machine, in sentences: all of it estimated (`core.explain.bottleneck`). Pure."""

from collections.abc import Iterator

from edgekit.core.explain.bottleneck import Bottleneck, Bound, bottleneck
from edgekit.core.explain.evidence import Evidence, Part, Phrase, Sentence, Unit, phrase, pointer, say, written
from edgekit.core.explain.story import Story

# What helps against each; not claimed of this model, so it names no figure.
_REMEDY = {
    Bound.COMPUTE: "Narrower arithmetic or more cores shorten it",
    Bound.BANDWIDTH: "Fewer bytes shorten it: narrower weights and tensors, or a larger batch for each reading of the weights",
    Bound.BOTH: "Narrower numbers shorten both",
    Bound.OVERHEAD: "Fewer and larger layers or a larger batch shorten it, narrower numbers hardly do",
}


def sentences(story: Story) -> Iterator[Sentence]:
    """What binds the engine's fp32, by which figures, and what is left of it in the candidate that is explained."""
    name = story.subject
    found = bottleneck(story.readings, story.case, name)
    if found is None:
        return
    layers = _layers(story)
    if found.share is None:
        template = (
            "What binds {} is not known: this machine does not tell its clock, and no int8 ran beside it. Of what arithmetic and "
            "memory take, {} would be arithmetic by the roofline of its {}"
        )
        yield say(Part.MACHINE, template, found.full, found.compute, layers)
        return
    assert found.bound is not None
    template = "Estimated: {} most of the time of {}. {}. By the roofline of its {} {} of that is arithmetic. {}"
    named = f"{found.bound.value} {'take' if found.bound is Bound.BOTH else 'takes'}"
    remedy = _REMEDY[found.bound]
    yield say(Part.MACHINE, template, named, found.full, _share(found), layers, found.compute, remedy)
    if found.left is not None:
        template = "Estimated: of the time of {} about {} is arithmetic and memory, the rest overhead"
        yield say(Part.MACHINE, template, found.asked, found.left)


def _layers(story: Story) -> Phrase:
    """ "84 layers (367 M multiply-accumulates)"."""
    model = story.run.model
    count = Evidence(str(len(model.layers)), len(model.layers), (pointer("model", "layers"),))
    macs = Evidence(written(model.macs, Unit.COUNT), model.macs, (pointer("model", "macs"),))
    return phrase("{} layers ({} multiply-accumulates)", count, macs)


def _share(found: Bottleneck) -> Phrase:
    """How the share is known."""
    assert found.share is not None
    if not found.narrow or found.rate is None:
        template = "At the efficiency of most kernels arithmetic and memory would take {} of it"
        return phrase(template, found.share)
    template = (
        "Arithmetic and memory take about {} of it, judging by what {} gains from {} the multiply-accumulates a cycle"
    )
    return phrase(template, found.share, found.narrow, found.rate)
