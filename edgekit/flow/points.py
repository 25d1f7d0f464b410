"""What a search over settings may measure: which candidates, in which settings, and how each point is run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edgekit.core.choose import choose, figures
from edgekit.core.facts import FactSheet
from edgekit.core.recipes import REFERENCE
from edgekit.core.results import Origin, Outcome
from edgekit.core.space import CoreSet, batches, core_sets, plain_settings
from edgekit.core.tradeoffs import Setting, point_key
from edgekit.core.types import Candidate, Requirements, RunConfig
from edgekit.flow.batches import Batches
from edgekit.flow.clock import BENCH_SAMPLES, Job
from edgekit.flow.workshop import SELECTION, Made, Workshop
from edgekit.heat import Entry


@dataclass(frozen=True)
class Spot:
    """A place in the space: a candidate and a setting, not measured yet."""

    candidate: str
    setting: Setting

    @property
    def name(self) -> str:
        return point_key(self.candidate, self.setting)


def entrants(outcomes: Sequence[Outcome], requirements: Requirements, origin: Origin, tie: float) -> tuple[str, ...]:
    """Candidates whose answers hold and that are on the front, or within the noise of the fastest, as raced; the best first.

    Latency, throughput, memory and cold start depend on the setting: their limits rule nobody out yet.
    """
    open_ended = Requirements(
        requirements.max_drop, max_size_bytes=requirements.max_size_bytes, forbid=requirements.forbid
    )
    choice = choose(outcomes, open_ended, origin, tie)
    known = {o.name: f.ratio for o in outcomes if o.name in choice.feasible and (f := figures(o, origin)) is not None}
    best = min(known.values(), default=0.0)
    taken = [name for name, ratio in known.items() if name in choice.front or ratio <= best * tie]
    return tuple(sorted(taken, key=lambda name: known[name]))


def usable_sets(sheet: FactSheet, requirements: Requirements) -> tuple[CoreSet, ...]:
    """The core sets of a machine that the requirements leave."""
    if requirements.cpus:
        count = len(cpus_of(requirements.cpus))
        return (CoreSet(requirements.cpus, min(count, requirements.max_cores or count)),)
    most = requirements.max_cores or sheet.usable_threads
    return tuple(CoreSet(cores.cpus, min(cores.count, most)) for cores in core_sets(sheet))


def cpus_of(text: str) -> set[int]:
    """The CPUs of a list such as `0-3,5`."""
    parts = [part.split("-") for part in text.split(",")]
    return {cpu for part in parts for cpu in range(int(part[0]), int(part[-1]) + 1)}


class Space:
    """The points there are, and what each is run with."""

    def __init__(
        self,
        shop: Workshop,
        job: Job,
        made: Mapping[str, Made],
        outcomes: Sequence[Outcome],
        sheet: FactSheet,
        tie: float,
    ) -> None:
        self._shop = shop
        self._job = job
        self._made = made
        self.batches = Batches(shop, job, made)
        self.outcomes = {o.name: o for o in outcomes}
        self.entrants = entrants(outcomes, job.requirements, job.origin, tie)
        self._sets = usable_sets(sheet, job.requirements)
        reference = self.outcomes[REFERENCE].candidate
        self.reference = Spot(REFERENCE, Setting(reference.run.threads))

    def engine(self, candidate: str) -> str:
        return self.outcomes[candidate].candidate.build.recipe.engine

    def plain(self) -> list[Spot]:
        """Every point without runtime options, by candidate, the fastest one first; the reference is not among them."""
        data = self._job.materials.data
        samples = data.splits[SELECTION].samples
        found = []
        for name in self.entrants:
            outcome = self.outcomes[name]
            assert outcome.measurement is not None
            sizes = () if self.batches.why_none() else batches(outcome.measurement.latency_ms.mean, samples)
            settings = plain_settings(self.engine(name), self._sets, sizes, in_order=bool(data.state))
            found += [Spot(name, setting) for setting in settings]
        return [spot for spot in found if spot != self.reference]

    def built(self, spot: Spot) -> tuple[Candidate, Made] | str:
        """The candidate as the point runs it with what was built for it, or why there is none."""
        outcome, made = self.outcomes[spot.candidate], self._made[spot.candidate]
        candidate = outcome.candidate
        if spot.setting.batch > 1:
            wide = self.batches.candidate(candidate, spot.setting.batch)
            if isinstance(wide, str):
                return wide
            candidate, made = wide
        run = run_config(candidate.run, spot.setting)
        return Candidate(candidate.build, run), replace(made, runnable=replace(made.runnable, run=run))

    def entry(self, spot: Spot) -> Entry | str:
        """The point ready to be run on the device, or why it can't be."""
        found = self.built(spot)
        if isinstance(found, str):
            return found
        materials, samples = self._job.materials, BENCH_SAMPLES
        if spot.setting.batch > 1:
            model = self.batches.model(spot.setting.batch)
            assert not isinstance(model, str)
            materials, samples = model.materials, max(1, min(model.requests, BENCH_SAMPLES))
        there = self._shop.on(self._shop.facts.arch, found[1])
        return Entry(spot.name, there, materials.feeds(SELECTION), samples)


def run_config(plain: RunConfig, setting: Setting) -> RunConfig:
    """How a candidate that runs by `plain` runs in a setting."""
    return RunConfig(
        setting.threads,
        plain.precision,
        {**plain.options, **setting.options},
        setting.streams,
        setting.batch,
        setting.cores,
    )
