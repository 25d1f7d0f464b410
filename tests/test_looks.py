"""The looks at evaluation: each candidate once, each further look stricter, then full precision."""

from dataclasses import replace
from typing import Any, cast

from edgekit.core.accuracy import Accuracy
from edgekit.core.dataset import DataSetInfo, SplitInfo
from edgekit.core.results import Origin
from edgekit.core.types import Requirements
from edgekit.errors import ResourceLimit
from edgekit.flow.clock import Job
from edgekit.flow.decide import Trial, decide
from edgekit.flow.workshop import Materials
from tests.records import accuracy, model, outcome, target

SPLITS = {name: SplitInfo(500, "0") for name in ("calibration", "selection", "evaluation")}
ORDER = {"ov-int8": 1.0, "ov-int8-bf16": 1.2, "ov-bf16": 1.5, "ov-fp16": 2.0, "ov-f32": 2.5, "ort-fp32": 3.0}


CRASH = -1.0


class Judge:
    """Gives what it was told, and remembers who was judged."""

    def __init__(self, **drops: float) -> None:
        self.drops = {name.replace("_", "-"): drop for name, drop in drops.items()}
        self.seen: list[str] = []

    def accuracy(self, _made: Any, split: str, name: str) -> Accuracy:
        assert split == "evaluation"
        self.seen.append(name)
        if self.drops.get(name) == CRASH:
            raise ResourceLimit("the runner died by SIGFPE", where=name)
        return replace(accuracy(self.drops.get(name, 0.0)), split=split)


def chosen(judge: Judge) -> tuple[str | None, list[str]]:
    data = DataSetInfo("d", "0", "top-1", True, SPLITS, ("x",))
    materials = cast(Materials, type("M", (), {"data": data})())
    job = Job(model(), materials, target(), Origin.TARGET, Requirements())
    outcomes = [outcome(name, p50) for name, p50 in ORDER.items()]
    trial = Trial(cast(Any, None), cast(Any, judge), job, dict.fromkeys(ORDER, cast(Any, None)), None)
    choice, _, _ = decide(trial, outcomes, None)
    return choice.chosen, judge.seen


def test_one_that_holds_is_looked_at_once() -> None:
    assert chosen(Judge()) == ("ov-int8", ["ov-int8"])


def test_the_first_may_reach_beyond_max_drop_with_its_interval_the_second_may_not() -> None:
    """A drop of 0.008 with an interval up to 0.012: fine at the first look, not at the second."""
    assert chosen(Judge(ov_int8=0.008)) == ("ov-int8", ["ov-int8"])
    assert chosen(Judge(ov_int8=0.05, ov_int8_bf16=0.008)) == ("ov-bf16", ["ov-int8", "ov-int8-bf16", "ov-bf16"])


def test_after_three_failures_only_full_precision_is_left() -> None:
    bad = Judge(ov_int8=0.05, ov_int8_bf16=0.05, ov_bf16=0.05)
    assert chosen(bad) == ("ov-f32", ["ov-int8", "ov-int8-bf16", "ov-bf16", "ov-f32"])


def test_the_reference_is_the_last_resort() -> None:
    everything = Judge(**{name.replace("-", "_"): 0.05 for name in ORDER})
    assert chosen(everything)[0] == "ort-fp32"


def test_one_that_dies_on_evaluation_gives_way() -> None:
    assert chosen(Judge(ov_int8=CRASH)) == ("ov-int8-bf16", ["ov-int8", "ov-int8-bf16"])
