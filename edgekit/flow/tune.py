"""The search over settings: threads, streams, batches, core sets and runtime options of the candidates that may be chosen.

- Every point runs in a process of its own, in heats with the reference, round by round in rotating order.
- First all points of batch 1 without runtime options run a few short rounds, then batches of those near the most throughput, then
  options of those near an end; then those that still contend for an end run until they are told apart or have had a final's runs.
  A point leaves when intervals say that it is the best in no direction (core/elimination.py); one that is only drawn on the front
  gets a few rounds more.
- Batches and options are tried on a point only where no other one is surely ahead of it there by more than NEAR: one candidate
  gains by them what another gains, within that factor, so that a point farther off would not win by them.
- The same seed and the same measurements give the same choice. What was measured is kept as it is measured: a search that was
  killed, or whose device was lost, goes on with the round that it was in. docs/adr/0016-search-over-settings.md says why so.
"""

import random
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from edgekit.core.elimination import AXES, COST, LATENCY, RoundId, Track, eliminate, fall_behind, surely_more
from edgekit.core.facts import FactSheet
from edgekit.core.recipes import REFERENCE
from edgekit.core.relative import MAX_TIE
from edgekit.core.results import Outcome
from edgekit.core.run import Noise
from edgekit.core.settle import TIE
from edgekit.core.space import with_options
from edgekit.core.stats import latency_stats, runs_needed
from edgekit.core.types import LatencyBudget, Requirements
from edgekit.errors import DeviceError, DiskFull, EdgekitError
from edgekit.flow.clock import Job
from edgekit.flow.journal import Journal, Line, open_journal
from edgekit.flow.points import Space, Spot
from edgekit.flow.workshop import SELECTION, Made, Workshop
from edgekit.heat import Heat, Ran

SCREEN_ROUNDS, SCREEN_TURN_MS = 3, 40.0
FRONT_ROUNDS = 6
FINAL_ROUNDS, FINAL_TURN_MS, FINAL_SECONDS = 15, 100.0, 5.0
# What a percentile that was asked for may take of a point's time.
REQUIRED_SECONDS = 30.0
NEAR = 1.3
# The part of the time that is kept for those that contend, where it is too short for all.
RESERVED = 0.4

# Processes alive at a time: few enough that a round is over before the machine is another one.
MOST_LIVE = 10


@dataclass(frozen=True)
class Trails:
    """What a search has seen: points with their tracks and last runs, by name; why the others have none; how it ended.

    `size` is how many points the space has, `seconds` what measuring took; within `tie` figures are equal.
    """

    space: Space
    tie: float
    spots: Mapping[str, Spot]
    tracks: Mapping[str, Track]
    last: Mapping[str, Ran]
    failed: Mapping[str, str]
    size: int
    seconds: float
    ended: str

    @property
    def reference(self) -> Track:
        return self.tracks[self.space.reference.name]


class OutOfTime(Exception):
    """The time budget is over; what is known stands."""


def search(
    shop: Workshop,
    job: Job,
    made: Mapping[str, Made],
    outcomes: Sequence[Outcome],
    noise: Noise | None,
    sheet: FactSheet,
    *,
    seed: int,
    left_s: Callable[[], float],
    everything: bool = False,
) -> Trails | None:
    """Search the settings of the candidates that may be chosen; None when there are none.

    With `everything` nothing leaves before it has had a final's rounds: what the search is compared with. Raises DeviceError
    when the device is lost, and what the reference falls out with.
    """
    tie = max(TIE, min(noise.spread, MAX_TIE)) if noise else TIE
    space = Space(shop, job, made, outcomes, sheet, tie)
    if not space.entrants:
        return None
    key = {
        "made": {name: made[name].key for name in space.entrants},
        "reference": made[REFERENCE].key,
        "feeds": job.materials.data.splits[SELECTION].sha256,
        "machine": shop.device_key,
        "sheet": [sheet.usable_threads, sheet.cpuset, sheet.clusters],
        "requirements": job.requirements,
        "seed": seed,
        "everything": everything,
    }
    journal = open_journal(shop.unfinished("settings", key), shop.fresh)
    return _Search(shop, job.requirements, space, tie, journal, seed, left_s, everything).run()


class _Search:
    """One search, as far as it has come."""

    def __init__(
        self,
        shop: Workshop,
        requirements: Requirements,
        space: Space,
        tie: float,
        journal: Journal,
        seed: int,
        left_s: Callable[[], float],
        everything: bool,
    ) -> None:
        self._shop = shop
        self._requirements = requirements
        self._space = space
        self._tie = tie
        self._journal = journal
        self._random = random.Random(seed)
        self._left_s = left_s
        self._everything = everything
        self._began = time.monotonic() - journal.seconds
        self._spots: dict[str, Spot] = {}
        self._tracks: dict[str, Track] = {}
        self._last: dict[str, Ran] = {}
        self._failed: dict[str, str] = {}
        self._heats = 0
        self._reserve_s = 0.0
        self._unfit: set[str] = set()

    def run(self) -> Trails:
        """All stages, or as many as the time allows."""
        self._enter([self._space.reference])
        plain = self._space.plain()
        options = [o for spot in [self._space.reference, *plain] for o in self._optional(spot)]
        size = 1 + len(plain) + len(options)
        ended = "every setting was measured, or left out by its interval"
        for stage, kept in ((partial(self._look_around, plain, options), RESERVED), (self._finish, 0.0)):
            self._reserve_s = kept * self._left_s()
            try:
                stage()
            except OutOfTime:
                ended = f"the time was over with {len(self._tracks)} of {size} settings begun, the best known are named"
        if self._failed:
            name, why = next(iter(self._failed.items()))
            ended += f"; {len(self._failed)} could not be run, {name}: {why}"
        seen = {name: track for name, track in self._tracks.items() if track.turns}
        seconds = time.monotonic() - self._began
        return Trails(self._space, self._tie, self._spots, seen, self._last, self._failed, size, seconds, ended)

    @property
    def _reference(self) -> Track:
        return self._tracks[self._space.reference.name]

    def _optional(self, spot: Spot) -> list[Spot]:
        engine = self._space.engine(spot.candidate)
        return [Spot(spot.candidate, setting) for setting in with_options(engine, spot.setting)]

    def _enter(self, spots: Iterable[Spot]) -> None:
        for spot in spots:
            outcome = self._space.outcomes[spot.candidate]
            assert outcome.artifact is not None
            drop = outcome.accuracy.drop if outcome.accuracy is not None else None
            self._spots[spot.name] = spot
            self._tracks[spot.name] = Track(spot.name, outcome.artifact.size_bytes, drop)

    # ------------------------------------------------------------------------------------------------------- stages

    def _look_around(self, plain: Sequence[Spot], options: Sequence[Spot]) -> None:
        """A few rounds for all that may matter."""
        # On one core with one candidate nothing else brings the reference along, which batches and options are compared with.
        self._screen([spot for spot in plain if spot.setting.batch == 1] or [self._space.reference])
        wide = [spot for spot in plain if spot.setting.batch > 1]
        self._screen(wide if self._everything else self._of_any(wide, self._near(COST)))
        near = [*self._near(LATENCY), *self._near(COST)]
        self._screen(options if self._everything else [o for spot in near for o in self._optional(spot)])

    def _screen(self, spots: Sequence[Spot]) -> None:
        """A few short rounds for each, in an order of the seed's own, so that what the time cuts off is no kind of its own."""
        ran = {name for name, track in self._tracks.items() if track.turns}
        new = {spot.name: spot for spot in spots if spot.name not in ran}
        spots = self._random.sample(list(new.values()), len(new))
        self._heats_of(spots, self._screened, SCREEN_TURN_MS)

    def _screened(self, track: Track) -> bool:
        return track.rounds >= (FINAL_ROUNDS if self._everything else SCREEN_ROUNDS)

    def _near(self, axis: str) -> list[Spot]:
        """Points that a batch or an option may bring to an end: no other one is surely further than NEAR ahead of it there."""
        fitting = [t for t in self._alive() if self._may_fit(t)]
        best = min(fitting, key=lambda t: t.middle(axis), default=self._reference)
        return [self._spots[t.name] for t in fitting if not surely_more(t, best, self._reference, axis, NEAR)]

    @staticmethod
    def _of_any(wide: Sequence[Spot], bases: Sequence[Spot]) -> list[Spot]:
        """Those that are one of `bases` but for the batch."""
        known = {(base.candidate, base.setting.threads, base.setting.streams, base.setting.cores) for base in bases}
        return [w for w in wide if (w.candidate, w.setting.threads, w.setting.streams, w.setting.cores) in known]

    def _finish(self) -> None:
        """Rounds for those that contend for an end or are on the front, until nobody needs more."""
        while waiting := [t for t in self._alive() if not self._finished(t)]:
            waiting.sort(key=lambda t: min(t.middle(axis) / self._least(axis) for axis in AXES))
            spots = [self._spots[t.name] for t in waiting[: self._places()]]
            self._heats_of(spots, self._finished, FINAL_TURN_MS)

    def _least(self, axis: str) -> float:
        return min(track.middle(axis) for track in self._alive())

    def _finished(self, track: Track) -> bool:
        if self._everything or self._contends(track):
            latencies = track.latencies_ns
            asked = self._requirements.latency
            wanted = runs_needed(float(asked.percentile.removeprefix("p")) if asked else 99.0)
            spent = sum(turn.span_ns for turn in track.turns.values()) / 1e9
            enough = len(latencies) >= wanted or spent >= (REQUIRED_SECONDS if asked else FINAL_SECONDS)
            return track.rounds >= FINAL_ROUNDS and enough
        return track.rounds >= FRONT_ROUNDS

    def _contends(self, track: Track) -> bool:
        return self._may_fit(track) and set(AXES) - track.behind != set()

    def _may_fit(self, track: Track) -> bool:
        """Whether the point may still meet what is asked of it: each round says otherwise, or the percentile, where it does not."""
        r = self._requirements
        latencies, costs = (track.figures[axis].values() for axis in (LATENCY, COST))
        too_few = r.needed_ips is not None and bool(costs) and 1e3 / min(costs) < r.needed_ips
        memory = track.memory_bytes
        too_large = r.max_memory_bytes is not None and memory is not None and memory > r.max_memory_bytes
        return not (too_few or too_large or (r.latency is not None and _too_slow(track, latencies, r.latency)))

    def _alive(self) -> list[Track]:
        return [t for t in self._tracks.values() if t.turns and not t.beaten and t.name not in self._failed]

    # -------------------------------------------------------------------------------------------------------- heats

    def _heats_of(self, spots: Sequence[Spot], is_done: Callable[[Track], bool], turn_ms: float) -> None:
        """Heats of as many points as may be alive at a time, until each is done or has left."""
        places = self._places()
        for start in range(0, len(spots), places):
            if self._everything:
                turn_ms = FINAL_TURN_MS
            group = spots[start : start + places]
            self._enter([spot for spot in group if spot.name not in self._tracks])
            self._heat([spot.name for spot in group], is_done, turn_ms)

    def _places(self) -> int:
        """Points beside the reference that are alive at a time: by the device's processes, and a quarter of its memory."""
        known = [o.measurement.memory.peak or 0 for o in self._space.outcomes.values() if o.measurement is not None]
        fitting = self._shop.facts.ram_bytes // 4 // max([*known, 1 << 20])
        return max(1, min(MOST_LIVE, self._shop.device.most_talks - 1, fitting - 1))

    def _heat(self, names: Sequence[str], is_done: Callable[[Track], bool], turn_ms: float) -> None:
        number, round_ = self._heats, 0
        self._heats += 1
        reference = self._space.reference.name
        with Heat(self._shop.device) as heat:
            while racing := [n for n in names if self._races(n, is_done)]:
                order = [reference, *(name for name in racing if name != reference)]
                shift = round_ % len(order)
                self._round(heat, (number, round_), order[shift:] + order[:shift], turn_ms)
                self._judge(order)
                for name in order[1:]:
                    if not self._races(name, is_done):
                        heat.leave(name)
                round_ += 1

    def _races(self, name: str, is_done: Callable[[Track], bool]) -> bool:
        track = self._tracks[name]
        return name not in self._failed and not track.beaten and not is_done(track)

    def _judge(self, ran: Sequence[str]) -> None:
        """Who leaves, and who falls behind at an end, now that these ran."""
        if self._everything:
            return
        tracks = [t for t in self._tracks.values() if t.turns and t.name not in self._failed]
        eliminate(tracks, self._reference, ran)
        fitting = [t for t in tracks if self._may_fit(t)]
        unfit = {t.name for t in tracks} - {t.name for t in fitting}
        if not unfit <= self._unfit:  # who was behind one of them is not for that
            for track in tracks:
                track.behind.clear()
        self._unfit = unfit
        for axis in AXES:
            fall_behind(fitting, self._reference, axis)

    def _round(self, heat: Heat, at: RoundId, order: Sequence[str], turn_ms: float) -> None:
        """One turn of each. A round that is not known whole is run anew: its turns belong together."""
        known = all(self._journal.find(at, name) for name in order)
        if not known and self._left_s() <= self._reserve_s:
            raise OutOfTime
        for name in order:
            line = self._journal.find(at, name) if known else self._measured(heat, at, name, turn_ms)
            assert line is not None
            if line.ran is None:
                self._failed[name] = line.failed
            else:
                self._last[name] = line.ran
                self._tracks[name].add(at, line.ran.turn)

    def _measured(self, heat: Heat, at: RoundId, name: str, turn_ms: float) -> Line:
        alive = sum(1 for t in self._tracks.values() if not t.beaten)
        self._shop.progress(f"settings: {name}, {alive} of {len(self._tracks)} still in")
        ran, why = None, ""
        try:
            entry = self._space.entry(self._spots[name])
            if isinstance(entry, str):
                why = entry
            else:
                ran = heat.turn(entry, turn_ms)
        except (DiskFull, DeviceError):
            raise
        except EdgekitError as error:
            if name == self._space.reference.name:
                raise
            heat.leave(name)
            why = str(error)
        line = Line(*at, name, ran, why, time.monotonic() - self._began)
        self._journal.note(line)
        return line


def _too_slow(track: Track, medians: Collection[float], asked: LatencyBudget) -> bool:
    """Whether the budget is missed: by every round's median, or by the percentile itself once the runs support it."""
    if not medians:
        return False
    known: float | None = getattr(latency_stats(track.latencies_ns), asked.percentile)
    return min(medians) > asked.limit_ms or (known is not None and known > asked.limit_ms)
