"""What is known of a data set once it has been read and checked; the arrays themselves lie in its feed layout on disk."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgekit.core.accuracy import MetricOptions
from edgekit.core.contract import Contract

SPLITS = ("calibration", "selection", "evaluation")


@dataclass(frozen=True)
class SplitInfo:
    """One split of the feed layout. `sha256` covers its arrays as fed: inputs, labels and sequence starts."""

    samples: int
    sha256: str


@dataclass(frozen=True)
class DataSetInfo:
    """A checked data set.

    `sha256` covers the metric, the state and every split's arrays. `state` maps an output to the input it is fed back to;
    `fed_inputs` are the other inputs. Every input has a file `<split>/<index>.npy`; that of state holds zeros, its initial value.
    `metric_options` are what the data set says of its metric, `contract` how each input's stored samples become the model's tensor.
    `synthetic` data were drawn at random: they compare implementations and say nothing about the task.
    """

    name: str
    sha256: str
    metric: str
    labelled: bool
    splits: Mapping[str, SplitInfo]
    fed_inputs: tuple[str, ...]
    state: Mapping[str, str] = field(default_factory=dict)
    notices: tuple[str, ...] = ()
    synthetic: bool = False
    metric_options: MetricOptions = field(default_factory=MetricOptions)
    contract: Mapping[str, Contract] = field(default_factory=dict)
