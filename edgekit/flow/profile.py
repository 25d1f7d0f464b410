"""Profile an artifact where it will run: read, gate, load cold and warm, run the scenario, look inside, judge what came of it."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

from edgekit import sandbox
from edgekit.bundle.container import Admit
from edgekit.bundle.keys import admitting
from edgekit.bundle.trust import Trust, TrustFile
from edgekit.core.device_url import LOCAL
from edgekit.core.facts import FactSheet
from edgekit.core.profile import Layer, Scenario
from edgekit.core.profile_run import PROFILE_SCHEMA, MemoryVerdict, Profile, ScenarioFigures
from edgekit.core.recipes import REFERENCE
from edgekit.core.results import Memory
from edgekit.core.trust import judge as judge_trust
from edgekit.devices.emulated import EmulatedDevice
from edgekit.devices.local import LocalDevice
from edgekit.errors import DeviceError, DiskFull, EdgekitError, OutOfMemory, UsageError
from edgekit.flow.bundled import MeasuredBundle, is_bundle
from edgekit.flow.devices import Reach, find_url, opened
from edgekit.flow.gate import engines_for
from edgekit.flow.materials import Options
from edgekit.flow.measured import Measured, MeasuredSubject
from edgekit.flow.subject import find_subject
from edgekit.flow.workshop import Progress, Workshop, ticking
from edgekit.measure import ScenarioRun, clean_bench, fact_sheet, layers, run_scenario
from edgekit.resources import find_data
from edgekit.runner.client import Runnable
from edgekit.store import (
    LATENCY_FILE,
    PROFILE,
    PROFILE_FILE,
    Cache,
    check_result_folder,
    default_cache,
    filling_result,
    safe_name,
    write_atomic,
)

DEFAULT_SCENARIO = Scenario(duration_s=10.0)
DEFAULT_REACH = Reach()
DEFAULT_OPTIONS = Options()

# Looks at the machine beside a run, milliseconds apart: a jiffy is 10 ms, and heat moves in seconds.
SAMPLE_MS = 250
WARMUP = 5
LAYER_RUNS = 20
BENCH_SAMPLES = 8


@dataclass(frozen=True)
class Wish:
    """What to profile besides the scenario: `memory_limit_bytes` caps ekrun (0: no cap), `layers` asks for the table of layers."""

    recipe: str = REFERENCE
    memory_limit_bytes: int = 0
    layers: bool = True


DEFAULT_WISH = Wish()


def default_profile_folder(subject: Path, device: str, scenario: Scenario) -> Path:
    """Where a profile is left when nothing else is asked."""
    return Path("edgekit-runs") / f"profile-{safe_name(subject.absolute().stem)}-{safe_name(device)}-{scenario.kind}"


def profile(
    subject: str | Path,
    data: str | Path | None = None,
    out: str | Path | None = None,
    *,
    device: str = LOCAL,
    reach: Reach = DEFAULT_REACH,
    scenario: Scenario = DEFAULT_SCENARIO,
    wish: Wish = DEFAULT_WISH,
    options: Options = DEFAULT_OPTIONS,
    trust: Path | None = None,
    allow_unsigned: bool = False,
    cache: Path | None = None,
    progress: Progress = lambda _: None,
) -> Profile:
    """Measure a model, the chosen artifact of a run, or a bundle (NAME.ekb) on `device`, and leave the profile in the folder `out`.

    With data its answers there are compared with this host's. A bundle is measured with its own library and settings, on its golden
    samples where no data is given, and its answers to those are compared with the ones it expects; `trust` is the file of whose
    bundles count. An emulated device has answers only. Raises TargetIncompatible when the device does not admit it, DeviceError
    when the device fails, InputRejected and UsageError for what was given, VerificationFailed for a bundle that is refused.
    """
    source = Path(subject)
    out = Path(out) if out else default_profile_folder(source, device, scenario)
    cwd = Path.cwd()
    check_result_folder(out, PROFILE)
    _check(source, wish, options)
    admit = admitting(TrustFile(trust).read() if trust else Trust(), allow_unsigned)
    samples = find_data(str(data), cwd) if data is not None else None
    store = Cache(cache or default_cache())
    with store.scratch() as scratch, contextlib.ExitStack() as stack:
        here = find_url(device, reach).kind == LOCAL
        there = None if here else stack.enter_context(opened(device, reach, store.root, cwd, progress))
        shop = Workshop(store, scratch, LocalDevice(scratch), progress, device=there, offline=options.offline)
        sheet = fact_sheet(shop.device)
        if sheet.emulated and wish.memory_limit_bytes:
            raise UsageError("an emulated device proves nothing of memory", where="--memory-limit")
        found = _found(shop, sheet, source, samples, wish, options, admit)
        record, latencies = _Work(shop, found, sheet, scenario, wish).run()
        with filling_result(out, PROFILE) as draft:
            if latencies is not None:
                write_atomic(draft / LATENCY_FILE, latencies)
            write_atomic(draft / PROFILE_FILE, sandbox.encode(record))
        return record


def _check(source: Path, wish: Wish, options: Options) -> None:
    """Raise UsageError for what only a model has."""
    if options.shapes and (source.is_dir() or is_bundle(source)):
        raise UsageError("a shape is for a model; those of a run or bundle are fixed", where=str(source))
    if is_bundle(source) and wish.recipe != REFERENCE:
        raise UsageError("a recipe is for a model; a bundle holds what one made", where=str(source))


def _found(
    shop: Workshop, sheet: FactSheet, source: Path, data: Path | None, wish: Wish, options: Options, admit: Admit
) -> Measured:
    """What is at `source`, ready to be measured on the shop's device."""
    if is_bundle(source):
        return MeasuredBundle(shop, source, admit, data, options)
    device = shop.device
    engines = device.target.engines if isinstance(device, EmulatedDevice) else engines_for(sheet, device.name)
    return MeasuredSubject(shop, find_subject(shop, source, data, engines, wish.recipe, options), Path.cwd())


class _Work:
    """One profile in the making."""

    def __init__(self, shop: Workshop, found: Measured, sheet: FactSheet, scenario: Scenario, wish: Wish) -> None:
        self.shop = shop
        self.found = found
        self.sheet = sheet
        self.scenario = scenario
        self.wish = wish

    def run(self) -> tuple[Profile, bytes | None]:
        """The record, and the file of raw samples, None where nothing may be timed."""
        record, raw = self._record(self.found.gate(self.sheet)), None
        if self.sheet.emulated:
            note = f"{self.shop.device.name} is emulated: it has no latency, no throughput and no memory of its own"
            record = replace(record, notices=(*record.notices, note))
        else:  # timed first: the first process after the files were brought is the coldest there will be
            record, raw = self._timed(record, self.found.runnable(self.sheet))
        answers, notices = self.found.answers(self.sheet)
        return replace(record, answers=answers, notices=(*record.notices, *notices)), raw

    def _timed(self, record: Profile, runnable: Runnable) -> tuple[Profile, bytes | None]:
        shop, name, feeds = self.shop, self.found.name, self.found.feeds
        cap = self.wish.memory_limit_bytes
        try:
            shop.progress("loading, twice")
            cold = clean_bench(shop.device, runnable, feeds, where=name, samples=BENCH_SAMPLES, memory_limit=cap)
            warm = clean_bench(shop.device, runnable, feeds, where=name, samples=BENCH_SAMPLES, memory_limit=cap)
            with ticking(shop.progress, f"{self.scenario.kind}, {_length(self.scenario)}"):
                run = run_scenario(
                    shop.device,
                    runnable,
                    feeds,
                    self.scenario,
                    where=name,
                    warmup=WARMUP,
                    sample_ms=SAMPLE_MS,
                    typical_ms=warm.load.first_inference_ms or 0.0,
                    memory_limit=cap,
                )
        except OutOfMemory as error:
            if not cap:
                raise
            return replace(record, memory_limit=MemoryVerdict(cap, None, False, error.what)), None
        table, missing = self._layers(runnable)
        record = replace(
            record,
            cold=cold.load,
            warm=warm.load,
            memory=_larger(cold.memory, run.memory),
            memory_limit=MemoryVerdict(cap, run.memory_limit_kind, True) if cap else None,
            figures=self._figures(run),
            layers=table,
            settings_asked=cold.settings_asked,
            settings_in_force=cold.settings_in_force,
            latency_file=LATENCY_FILE,
            notices=(*record.notices, *missing),
        )
        return record, run.raw

    def _figures(self, run: ScenarioRun) -> ScenarioFigures:
        self.shop.progress("judging the measurement")
        reply = run.reply
        trust = judge_trust(run.starts_ns, run.latencies_ns, reply.seen(), usable_cpus=float(self.sheet.usable_threads))
        return ScenarioFigures(
            queries=reply.count,
            inferences_per_s=reply.inferences_per_second,
            trust=trust,
            cpu_share=reply.cpu_ns / max(1, reply.wall_ns),
            dropped=reply.dropped,
            unfinished=reply.unfinished,
            deadline_misses=reply.deadline_misses,
            wait_ns=reply.wait_ns,
            late_ns=reply.late_ns,
            trace=reply.seen(),
        )

    def _layers(self, runnable: Runnable) -> tuple[tuple[Layer, ...], Sequence[str]]:
        """A pass of its own: the profiler costs time. What it fails with costs the table only."""
        if not self.wish.layers:
            return (), ()
        self.shop.progress("the time of each layer")
        try:
            return layers(self.shop.device, runnable, self.found.feeds, LAYER_RUNS, where=self.found.name), ()
        except (DiskFull, DeviceError):
            raise
        except EdgekitError as error:
            return (), (f"no table of layers: {error}",)

    def _record(self, notices: Sequence[str]) -> Profile:
        who = self.found.identity
        return Profile(
            schema=PROFILE_SCHEMA,
            edgekit_version=metadata.version("edgekit"),
            model_name=who.model_name,
            model_sha256=who.model_sha256,
            recipe=who.recipe,
            engine=who.engine,
            engine_version=who.engine_version,
            threads=who.threads,
            size_bytes=who.size_bytes,
            device=self.shop.device.name,
            facts=self.sheet,
            data=who.data,
            scenario=self.scenario,
            cold=None,
            warm=None,
            memory=None,
            memory_limit=None,
            figures=None,
            layers=(),
            answers=None,
            settings_asked={},
            settings_in_force={},
            latency_file=None,
            notices=(*who.notices, *who.data.notices, *notices),
        )


def _larger(cold: Memory, run: Memory) -> Memory:
    """The phases of the clean process, with the peak of whichever process reached higher."""
    peaks = [m.peak_inference_rss for m in (cold, run) if m.peak_inference_rss is not None]
    return replace(cold, peak_inference_rss=max(peaks, default=None))


def _length(scenario: Scenario) -> str:
    return f"{scenario.duration_s:g} s" if scenario.duration_s else f"{scenario.min_runs} queries"
