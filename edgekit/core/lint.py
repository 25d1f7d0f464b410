"""What may be wrong with a data set: the rules, over what was gathered of it. Pure.

- An error is what makes answers wrong or figures untrue; a warning is what may be meant.
- A finding names the rule, the place, the first samples and how many there are, and what to change.
- That samples are prepared wrongly is called an error only on evidence: the same samples, prepared otherwise, score much better.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from edgekit.core.clusters import fewest_samples
from edgekit.core.datacheck import ERROR, WARNING, DataFacts, Finding, InputFacts, SplitFacts, Trial

# Ranges of activations move a lot below this many samples; toolkits ask for 100 to 500.
FEW_CALIBRATION = 32
# Neighbours along image rows and columns must differ this much less, read in the other layout.
LAYOUT_RATIO = 0.75
# The same input of two splits, prepared alike, spreads alike: four times is another scale, whatever the samples.
SPREAD_RATIO = 4.0
# Shares of classes: the commonest over the rarest, and the total variation distance between two splits.
CLASS_RATIO = 10.0
SHARE_DISTANCE = 0.2
# Another preparation must score better by this much, in the metric's unit, besides lying beyond the paired interval.
MUCH_BETTER = 0.05


def findings(facts: DataFacts, trials: Sequence[Trial], max_drop: float) -> tuple[Finding, ...]:
    """Everything the rules find, errors first, each kind in the order of the table RULES."""
    found = [finding for rule in RULES for finding in rule(facts)]
    found += [*_preparation(trials), *_too_few(facts, max_drop)]
    return tuple(sorted(found, key=lambda finding: finding.severity != ERROR))


# ------------------------------------------------------------------------------------------------------------- samples


def _unreadable(facts: DataFacts) -> Iterator[Finding]:
    for line in facts.unreadable:
        yield Finding(ERROR, "unreadable", facts.name, line, "repair or remove them, or use --skip-bad")


def _not_finite(facts: DataFacts) -> Iterator[Finding]:
    for _, tensor in _inputs(facts):
        if tensor.nonfinite.total:
            what = f"'{tensor.name}' holds NaN or infinity"
            yield Finding(ERROR, "not-finite", tensor.where, what, "remove or repair these samples", tensor.nonfinite)


def _constant(facts: DataFacts) -> Iterator[Finding]:
    for split, tensor in _inputs(facts):
        if 0 < tensor.constant.total < split.samples:
            what = f"'{tensor.name}' is one value throughout"
            yield Finding(WARNING, "constant", tensor.where, what, "remove blank samples", tensor.constant)
        elif tensor.constant.total and tensor.low != tensor.high:
            what = f"'{tensor.name}' is one value throughout in every sample of {split.name}"
            yield Finding(ERROR, "constant", tensor.where, what, "store the samples themselves", tensor.constant)


def _duplicates(facts: DataFacts) -> Iterator[Finding]:
    for split in facts.splits:
        if split.duplicates.total:
            what = f"{split.name} holds {_units(split)} more than once"
            fix = "keep one of each: a repeated one counts double"
            yield Finding(WARNING, "duplicates", _where(split), what, fix, split.duplicates)


def _leaks(facts: DataFacts) -> Iterator[Finding]:
    for split in facts.splits:
        for earlier, held in split.held.items():
            what = f"{split.name} holds {_units(split)} that {earlier} holds too: it is not unseen"
            yield Finding(ERROR, "leak", _where(split), what, f"take them out of {earlier} or {split.name}", held)


# ---------------------------------------------------------------------------------------------------------- preparation


def _range(facts: DataFacts) -> Iterator[Finding]:
    for name, tensors in _by_input(facts).items():
        low, high = min(t.low for t in tensors), max(t.high for t in tensors)
        pixels = all(t.whole and not t.scaled and "float" in t.dtype for t in tensors) and low >= 0 and 1 < high <= 255
        if pixels and high > 16:  # fewer are counts or classes
            what = f"'{name}' is fed whole numbers from {low:g} to {high:g}, and nothing scales them"
            fix = f"if the model was trained on 0..1, write [inputs.{name}] scale = {1 / 255!r}"
            yield Finding(WARNING, "range", tensors[0].where, what, fix)
        widest, narrowest = max(tensors, key=lambda t: t.spread), min(tensors, key=lambda t: t.spread)
        if narrowest.spread > 0 and widest.spread > SPREAD_RATIO * narrowest.spread:
            what = (
                f"'{name}' spreads by {widest.spread:.3g} (in {widest.where}) and {narrowest.spread:.3g} here: "
                "the splits are not prepared alike"
            )
            yield Finding(WARNING, "splits-differ", narrowest.where, what, "prepare every split in the same way")


def _layout(facts: DataFacts) -> Iterator[Finding]:
    for name, tensors in _by_input(facts).items():
        rough = [(t, *t.roughness) for t in tensors if t.roughness is not None]
        if rough and all(other < LAYOUT_RATIO * declared for _, declared, other in rough):
            layout = rough[0][0].layout
            looks = "last" if layout.index("C") < layout.index("H") else "first"
            what = f"'{name}' looks like its channels came {looks}, the model takes {layout}"
            fix = "transpose the samples instead of reshaping them, or declare the layout they have"
            yield Finding(WARNING, "layout", rough[0][0].where, what, fix)


def _preparation(trials: Sequence[Trial]) -> Iterator[Finding]:
    better = [t for t in trials if t.ci_low > 0 and t.gain >= MUCH_BETTER]
    for trial in sorted(better, key=lambda t: -t.gain)[:1]:
        what = (
            f"as declared the model scores {trial.declared_value:.3f}; with {trial.preparation} {trial.value:.3f}, "
            f"better by {trial.ci_low:.3f} at least (95 %, n={trial.n})"
        )
        yield Finding(ERROR, "preparation", "data.toml [inputs]", what, f"prepare the samples so: {trial.preparation}")


# --------------------------------------------------------------------------------------------------------------- numbers


def _too_few(facts: DataFacts, max_drop: float) -> Iterator[Finding]:
    for split in facts.splits:
        if split.name == "calibration":
            if split.samples < FEW_CALIBRATION:
                what = f"calibration holds {split.samples} samples: ranges are those of these few"
                yield Finding(WARNING, "too-few", _where(split), what, f"give {FEW_CALIBRATION} at least, 100 to 500")
        elif facts.answers:
            needed = fewest_samples(max_drop, _answers(facts, split))
            if needed is None or split.units < needed:
                what = f"{split.units} {_units(split)} of {split.name} can't show a drop within {max_drop:g}"
                fix = f"give {needed} at least, if no answer differs" if needed else "allow a drop above 0"
                yield Finding(WARNING, "too-few", _where(split), what, fix)
    if not any(split.name == "calibration" for split in facts.splits):
        what = "there is no calibration split: nothing is quantized statically"
        yield Finding(WARNING, "too-few", facts.name, what, "declare [splits.calibration]")


def _answers(facts: DataFacts, split: SplitFacts) -> int:
    """Decisions a unit."""
    return max(1, facts.answers * split.samples // max(1, split.units))


def _labels(facts: DataFacts) -> Iterator[Finding]:
    if facts.needs_labels and not facts.labelled:
        fix = 'add labels to selection and evaluation, or declare metric = "cosine"'
        yield Finding(ERROR, "labels", facts.name, f"metric {facts.metric} needs labels, there are none", fix)
    for split in facts.splits:
        if split.labels is not None and split.labels.outside.total:
            allowed = f"0..{split.labels.allowed - 1}" if split.labels.allowed else "the classes"
            what = f"labels of {split.name} lie outside {allowed}, the classes of the model's output"
            fix = "count classes from 0, in the order of the model's output"
            yield Finding(ERROR, "labels", split.labels.where, what, fix, split.labels.outside)


def _classes(facts: DataFacts) -> Iterator[Finding]:
    counted = {
        split.name: dict(split.labels.classes) for split in facts.splits if split.labels and split.labels.classes
    }
    evaluation = counted.get("evaluation", {})
    if not evaluation:
        return
    for name in ("calibration", "selection"):
        lacking = sorted(set(evaluation) - set(counted.get(name, evaluation)))
        if lacking:
            what = f"{name} has no sample of {_listed(lacking)}, evaluation has"
            yield Finding(WARNING, "classes", _place(facts, name), what, f"add samples of each class to {name}")
        if name in counted and not lacking and (far := _distance(counted[name], evaluation)) > SHARE_DISTANCE:
            what = f"classes have other shares in {name} than in evaluation (total variation {far:.2f} beyond chance)"
            yield Finding(WARNING, "class-shares", _place(facts, name), what, "draw both from the same samples")
    if len(evaluation) > 1 and max(evaluation.values()) >= CLASS_RATIO * min(evaluation.values()):
        rare, common = (pick(evaluation, key=lambda k: (evaluation[k], k)) for pick in (min, max))
        what = f"class {common} has {evaluation[common]} samples of evaluation, class {rare} {evaluation[rare]}"
        fix = "give the rare classes more samples, or choose a metric that averages over classes, such as f1"
        yield Finding(WARNING, "class-shares", _place(facts, "evaluation"), what, fix)


def _distance(a: Mapping[int, int], b: Mapping[int, int]) -> float:
    """Total variation of two shares, less what as many draws differ by chance: half of sum sqrt(p / n), about its mean."""
    n, m = sum(a.values()), sum(b.values())
    keys = set(a) | set(b)
    far = sum(abs(a.get(k, 0) / n - b.get(k, 0) / m) for k in keys) / 2
    chance: float = sum((b.get(k, 0) / m * (1 / n + 1 / m)) ** 0.5 for k in keys) / 2
    return far - chance


# ----------------------------------------------------------------------------------------------------------- small parts


def _inputs(facts: DataFacts) -> Iterator[tuple[SplitFacts, InputFacts]]:
    return ((split, tensor) for split in facts.splits for tensor in split.inputs)


def _by_input(facts: DataFacts) -> dict[str, list[InputFacts]]:
    found: dict[str, list[InputFacts]] = {}
    for _, tensor in _inputs(facts):
        found.setdefault(tensor.name, []).append(tensor)
    return found


def _units(split: SplitFacts) -> str:
    return "samples" if split.units == split.samples else "sequences"


def _where(split: SplitFacts) -> str:
    return split.inputs[0].where if split.inputs else split.name


def _place(facts: DataFacts, name: str) -> str:
    return next((s.labels.where for s in facts.splits if s.name == name and s.labels), name)


def _listed(classes: Sequence[int]) -> str:
    named = ", ".join(map(str, classes[:5])) + (", ..." if len(classes) > 5 else "")
    return f"class {named}" if len(classes) == 1 else f"{len(classes)} classes ({named})"


Rule = Callable[[DataFacts], Iterator[Finding]]

RULES: tuple[Rule, ...] = (
    _unreadable,
    _not_finite,
    _layout,
    _range,
    _leaks,
    _labels,
    _constant,
    _duplicates,
    _classes,
)


def forgiving(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """The findings where samples that can't be read are left out as asked: still named and counted, no error any more."""
    fix = "repair or remove them; --skip-bad leaves them out"
    known = (replace(f, severity=WARNING, fix=fix) if f.rule == "unreadable" else f for f in findings)
    return tuple(sorted(known, key=lambda finding: finding.severity != ERROR))
