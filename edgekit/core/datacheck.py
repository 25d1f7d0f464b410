"""What is gathered of a data set to check it, and what a check finds. Records only; the rules are in `lint.py`."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgekit.core.accuracy import MetricOptions

ERROR, WARNING = "error", "warning"


@dataclass(frozen=True)
class Samples:
    """Sample numbers of a split: the first few, and how many there are."""

    first: tuple[int, ...] = ()
    total: int = 0


NONE = Samples()


@dataclass(frozen=True)
class InputFacts:
    """One input of a split as it is fed. `where` is the file.

    `low`..`high` and `spread` (standard deviation) are of its finite values; `whole`: none has a fraction. `scaled`: data.toml
    does arithmetic on it. Of an image in colour `layout` is what the model takes, and `roughness` how much neighbours differ along
    rows and columns, read in that layout and in the other one.
    """

    name: str
    where: str
    dtype: str
    low: float
    high: float
    spread: float
    whole: bool
    scaled: bool
    nonfinite: Samples = NONE
    constant: Samples = NONE
    layout: str = ""
    roughness: tuple[float, float] | None = None


@dataclass(frozen=True)
class LabelFacts:
    """Labels of a split. `classes` are (class, count) of those that are one integer a sample; `outside` are not below `allowed`."""

    where: str
    classes: tuple[tuple[int, int], ...] | None
    outside: Samples = NONE
    allowed: int | None = None


@dataclass(frozen=True)
class SplitFacts:
    """One split. `units` are what was drawn: samples, or sequences. `held` says which units an earlier split holds too."""

    name: str
    samples: int
    units: int
    inputs: tuple[InputFacts, ...]
    labels: LabelFacts | None
    duplicates: Samples = NONE
    held: Mapping[str, Samples] = field(default_factory=dict)


@dataclass(frozen=True)
class DataFacts:
    """A data set as it was found. `unreadable` are lines about samples that can't be read, by the reader.

    `answers` is how many decisions a sample has where the metric is a share of them, 0 where it is none and no number is needed.
    `tried` names the other preparations whose feeds were written beside the declared one's, of `tried_samples` samples; empty with
    `untried`, the reason.
    """

    name: str
    metric: str
    labelled: bool
    needs_labels: bool
    answers: int
    splits: tuple[SplitFacts, ...]
    options: MetricOptions = field(default_factory=MetricOptions)
    state: Mapping[str, str] = field(default_factory=dict)
    unreadable: tuple[str, ...] = ()
    tried: tuple[str, ...] = ()
    tried_samples: int = 0
    untried: str = ""


@dataclass(frozen=True)
class Trial:
    """The reference's score on labelled samples, prepared in another way than declared; `gain` is by how much it is better."""

    preparation: str
    value: float
    declared_value: float
    gain: float
    ci_low: float
    ci_high: float
    n: int


@dataclass(frozen=True)
class Finding:
    """One thing that may be wrong."""

    severity: str
    rule: str
    where: str
    what: str
    fix: str
    samples: Samples = NONE


@dataclass(frozen=True)
class DataCheck:
    """What `edgekit data check` found: errors first. `checked` counts samples by split; `notices` say what was not looked at."""

    data: str
    model: str
    metric: str
    checked: Mapping[str, int]
    findings: tuple[Finding, ...]
    trials: tuple[Trial, ...] = ()
    notices: tuple[str, ...] = ()

    @property
    def errors(self) -> int:
        return sum(finding.severity == ERROR for finding in self.findings)
