"""Compare two artifacts on one device: raced interleaved against each other, with the noise of the race itself beside it."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgekit.core.compare import FEWEST_ROUNDS
from edgekit.core.compare import compare as judge
from edgekit.core.compare_run import COMPARE_SCHEMA, CompareRun, Side
from edgekit.core.device_url import EMULATED, LOCAL
from edgekit.core.facts import FactSheet
from edgekit.core.recipes import REFERENCE
from edgekit.devices.local import LocalDevice
from edgekit.errors import InputRejected, TargetIncompatible
from edgekit.flow.devices import Reach, find_url, opened
from edgekit.flow.gate import engines_for, pass_gate
from edgekit.flow.materials import Options
from edgekit.flow.subject import Subject, find_subject
from edgekit.flow.workshop import SELECTION, Progress, Workshop
from edgekit.measure import fact_sheet
from edgekit.race import Budget, RaceResult, race
from edgekit.resources import find_data
from edgekit.store import Cache, default_cache

TURN_MS = 50.0
BENCH_SAMPLES = 8
NO_END = 1_000_000  # runs a side: the time decides
A, B = "a", "b"

DEFAULT_REACH = Reach()
DEFAULT_OPTIONS = Options()


@dataclass(frozen=True)
class Length:
    """How long to compare: `seconds` of inference a side, in at least `rounds` rounds."""

    seconds: float = 5.0
    rounds: int = 40


DEFAULT_LENGTH = Length()


def compare(
    a: str | Path,
    b: str | Path,
    data: str | Path | None = None,
    *,
    device: str = LOCAL,
    reach: Reach = DEFAULT_REACH,
    recipes: tuple[str, str] = (REFERENCE, REFERENCE),
    length: Length = DEFAULT_LENGTH,
    options: Options = DEFAULT_OPTIONS,
    cache: Path | None = None,
    progress: Progress = lambda _: None,
) -> CompareRun:
    """Is `b` faster than `a` on `device`? Each is a run's folder or a model, which its recipe makes.

    Both are fed the same samples, so their inputs must be alike. Raises TargetIncompatible for an emulated device, which has no
    latency, and InputRejected when the inputs differ.
    """
    with facing(a, b, data, device, reach, recipes, options, cache, progress) as pair:
        result = pair.race(length)
        return CompareRun(
            schema=COMPARE_SCHEMA,
            device=pair.shop.device.name,
            facts=pair.sheet,
            a=_side(str(a), pair.subjects[A]),
            b=_side(str(b), pair.subjects[B]),
            comparison=judge(result.rounds[A], result.rounds[B], result.aa_spread),
            notices=tuple(dict.fromkeys(n for s in pair.subjects.values() for n in s.materials.data.notices)),
        )


@dataclass(frozen=True)
class Pair:
    """Two subjects, A and B, that the device admits and that take the same inputs."""

    shop: Workshop
    sheet: FactSheet
    subjects: Mapping[str, Subject]

    def race(self, length: Length) -> RaceResult:
        """Both interleaved, and A's twin. Raises InputRejected when B fell out."""
        result = _race(self.shop, self.sheet, self.subjects, length)
        if B in result.dropped:
            raise InputRejected(f"fell out of the race: {result.dropped[B]}", where=self.subjects[B].name)
        return result


@contextlib.contextmanager
def facing(
    a: str | Path,
    b: str | Path,
    data: str | Path | None,
    device: str,
    reach: Reach,
    recipes: tuple[str, str],
    options: Options,
    cache: Path | None,
    progress: Progress,
) -> Iterator[Pair]:
    """Both on `device`, ready to be raced; raises as `compare` does."""
    cwd = Path.cwd()
    for source in (a, b):
        if not Path(source).exists():
            raise InputRejected("is not there", where=str(source))
    samples = find_data(str(data), cwd) if data is not None else None
    store = Cache(cache or default_cache())
    with store.scratch() as scratch, contextlib.ExitStack() as stack:
        url = find_url(device, reach)
        if url.kind == EMULATED:
            raise TargetIncompatible("an emulated device has no latency to compare", where=device)
        there = None if url.kind == LOCAL else stack.enter_context(opened(device, reach, store.root, cwd, progress))
        shop = Workshop(store, scratch, LocalDevice(scratch), progress, device=there, offline=options.offline)
        sheet = fact_sheet(shop.device)
        if sheet.emulated:
            raise TargetIncompatible("an emulated device has no latency to compare", where=shop.device.name)
        engines = engines_for(sheet, shop.device.name)
        subjects = {}
        for side, source, recipe in zip((A, B), (a, b), recipes, strict=True):
            shop.scratch = scratch / side
            shop.scratch.mkdir()
            subjects[side] = find_subject(shop, Path(source), samples, engines, recipe, options)
        _check_inputs(subjects)
        for found in subjects.values():
            pass_gate(shop, sheet, found.info, found.made)
        yield Pair(shop, sheet, subjects)


def _race(shop: Workshop, sheet: FactSheet, subjects: Mapping[str, Subject], length: Length) -> RaceResult:
    """Both, and A's twin, on A's samples; nobody leaves before the end."""
    runnables = {side: shop.on(sheet.arch, found.made) for side, found in subjects.items()}
    feeds = subjects[A].materials.feeds(SELECTION)
    rounds = max(FEWEST_ROUNDS, length.rounds)
    budget = Budget(samples=NO_END, seconds=length.seconds, rounds=rounds, turn_ms=TURN_MS)
    return race(shop.device, runnables, feeds, BENCH_SAMPLES, A, budget, budget, list, shop.progress)


def _check_inputs(subjects: Mapping[str, Subject]) -> None:
    one, other = ({(i.name, i.dtype, i.shape) for i in s.info.inputs} for s in (subjects[A], subjects[B]))
    if one != other:
        raise InputRejected(
            "the two do not take the same inputs, so they cannot be fed the same samples",
            where=subjects[B].name,
            next_step="compare artifacts of one model, with the same --shape",
        )


def _side(source: str, subject: Subject) -> Side:
    spec = subject.made.artifact.spec
    return Side(
        source,
        subject.name,
        spec.recipe.name,
        spec.recipe.engine,
        spec.engine_version,
        subject.candidate.run.threads,
        subject.made.artifact.size_bytes,
    )
