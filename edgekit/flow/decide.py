"""The choice put to its last two questions: do its answers hold on unseen data, and on the device they are for?"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgekit.core.accuracy import Accuracy, feasible, is_equivalent
from edgekit.core.choose import choose
from edgekit.core.recipes import REFERENCE
from edgekit.core.relative import tie_of
from edgekit.core.results import Choice, Origin, Outcome, Proof
from edgekit.core.run import Noise
from edgekit.errors import DeviceError, DiskFull, EdgekitError
from edgekit.flow.clock import Job
from edgekit.flow.judge import Judge
from edgekit.flow.prove import Ground, fault_in, prove
from edgekit.flow.workshop import Made, Workshop

# Candidates judged on the evaluation split before only full precision is left.
MAX_LOOKS = 3


@dataclass(frozen=True)
class Trial:
    """What the choice's last two questions are put to: the evaluation split, and the device, if there is one."""

    shop: Workshop
    judge: Judge
    job: Job
    made: Mapping[str, Made]
    ground: Ground | None

    def evaluation(self, name: str, *, strict: bool) -> tuple[Accuracy | None, str]:
        """The accuracy on unseen data, None where there is none, and why it does not hold, or an empty string."""
        if "evaluation" not in self.job.materials.data.splits:
            return None, ""
        accuracy = self.judge.accuracy(self.made[name], "evaluation", name)
        return accuracy, _fault(accuracy, self.job.requirements.max_drop, strict=strict)

    def proof(self, name: str) -> tuple[Proof | str | None, str]:
        """The proof on the device, why there is none, or None without a device; and why it does not hold."""
        if self.ground is None:
            return None, ""
        macs = self.job.info.macs
        try:
            proof = prove(self.shop, self.judge, self.job.materials, name, self.made[name], self.ground, macs)
        except DiskFull:
            raise
        except EdgekitError as error:
            if self.ground.asked and (name == REFERENCE or isinstance(error, DeviceError)):
                raise
            told = f"{self.ground.device.name}: {error}"
            return f"not proven on {told}", f"does not run on {told}" if self.ground.asked else ""
        return proof, "" if isinstance(proof, str) else fault_in(proof, self.job.requirements.max_drop)


def decide(
    trial: Trial, outcomes: Sequence[Outcome], noise: Noise | None
) -> tuple[Choice, Accuracy | None, Proof | str | None]:
    """Choose on selection, then judge the choice once on evaluation and on the device; one that does not hold gives way.

    Every further look at the same split asks for more: the whole interval within max-drop. After MAX_LOOKS only full precision is
    left. docs/adr/0002-looks-at-evaluation.md says why.
    """
    job = trial.job
    tie = tie_of(noise.spread if noise and job.origin is Origin.TARGET else None)
    excluded: dict[str, str] = {}
    for look in itertools.count(1):
        choice = choose(outcomes, job.requirements, job.origin, tie, excluded)
        if choice.chosen is None:
            return choice, None, None
        name = choice.chosen
        try:
            evaluation, reason = trial.evaluation(name, strict=look > 1)
        except DiskFull:
            raise
        except EdgekitError as error:
            if name == REFERENCE:
                raise
            excluded[name] = f"does not run on the evaluation data: {error}"
            continue
        proof, flaw = trial.proof(name) if not reason or name == REFERENCE else (None, "")
        if name == REFERENCE or not (reason or flaw):
            return choice, evaluation, proof
        excluded[name] = (
            f"held on selection, not on unseen evaluation data: {reason}" if reason else f"proven wrong: {flaw}"
        )
        if look >= MAX_LOOKS:
            excluded |= _all_but_full_precision(outcomes, excluded)
    raise AssertionError("unreachable")


def _fault(evaluation: Accuracy, max_drop: float, *, strict: bool) -> str:
    """Why a drop does not hold on evaluation, or an empty string; `strict` asks for the whole interval."""
    holds, reason = feasible(evaluation, max_drop)
    if not holds:
        return reason
    if strict and evaluation.ci_high > max_drop and not is_equivalent(evaluation):
        return f"drop {evaluation.drop:.4f}, up to {evaluation.ci_high:.4f}, is not safely within {max_drop:g} (n={evaluation.n})"
    return ""


def _all_but_full_precision(outcomes: Sequence[Outcome], excluded: Mapping[str, str]) -> dict[str, str]:
    reason = f"not judged: {MAX_LOOKS} others had failed on the evaluation data already"
    narrow = [o.name for o in outcomes if o.candidate.build.recipe.precision != "fp32"]
    return {name: reason for name in narrow if name not in excluded}
