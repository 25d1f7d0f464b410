"""All of one model: every tool builds in a process of its own, edgekit optimizes, then all are judged alike and race each other.

- The same calibration, selection and evaluation samples and the same threads for all. The tools' artifacts are run by ekrun with
  the engine's default options; OpenVINO's precision is always named, as its default depends on the CPU.
- The score is edgekit's own, on the evaluation split, which no build has seen. Outputs are told apart by their place: a converter
  may have renamed them.
- Latency comes from one interleaved race of everything that runs. Its heat has all, its final edgekit's choices and what holds.
- What failed is a result. Results are kept in OUT: what is there is not made again.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median

from benchmarks.accuracy.bench import RUN, Bench, Case, Say, Settings, edgekit_build, tool_build
from benchmarks.accuracy.records import BASELINE, EDGEKIT, Build, Entry, Result, Tool, own_name
from edgekit.core.accuracy import Accuracy
from edgekit.core.plan import BF16_FEATURES
from edgekit.core.recipes import REFERENCE
from edgekit.core.shapes import parse_shape
from edgekit.core.types import Artifact, ArtifactFile, Recipe, RunConfig
from edgekit.devices.local import LocalDevice
from edgekit.errors import DiskFull, EdgekitError
from edgekit.flow.clock import BENCH_SAMPLES, HEAT
from edgekit.flow.gate import engines_for
from edgekit.flow.judge import Judge, answers, on_one_thread
from edgekit.flow.materials import Options
from edgekit.flow.subject import find_subject, read_run
from edgekit.flow.workshop import SELECTION, Made, Workshop, runnable
from edgekit.measure import fact_sheet
from edgekit.race import Budget, RaceResult, race
from edgekit.sandbox import decode, encode
from edgekit.store import ARTIFACT_FOLDER, Cache, sha256_file, write_atomic

EVALUATION = "evaluation"
TURN_MS = 100.0
NO_LIMIT = 1 << 60  # samples of a race: only its seconds and rounds count


def measure(case: Case, out: Path, settings: Settings, say: Say) -> Result:
    """The result of one model, kept in OUT. Raises EdgekitError when the model, its data or the baseline fail."""
    kept = out / f"{case.name}.json"
    rows = {BASELINE.name, *(tool.name for tool in settings.tools), *map(own_name, settings.own)}
    if kept.exists():
        found: Result = decode(kept.read_bytes(), Result)
        if rows <= {entry.tool for entry in found.entries}:
            return found
    with tempfile.TemporaryDirectory() as scratch:
        result = _measured(_open(case, out, settings, Path(scratch)), say)
    write_atomic(kept, encode(result))
    return result


def _open(case: Case, out: Path, settings: Settings, scratch: Path) -> Bench:
    """The model and its data read, the baseline made, its answers for the tools that want them."""
    device = LocalDevice(scratch)
    shop = Workshop(Cache(out / "cache"), scratch, device, lambda _: None)
    engines = engines_for(fact_sheet(device), device.name)
    shapes = dict(map(parse_shape, case.shapes))
    options = Options(shapes=shapes, samples=settings.samples, threads=settings.threads)
    subject = find_subject(shop, case.model, case.data, engines, REFERENCE, options)
    judge = Judge(shop, subject.materials, subject.made, Path.cwd())
    alone, feeds = on_one_thread(subject.made.runnable), subject.materials.feeds(SELECTION)
    reference = answers(device, alone, feeds, scratch / "answers", REFERENCE)
    return Bench(case, settings, out / case.name, shop, engines, subject, judge, reference)


def _measured(bench: Bench, say: Say) -> Result:
    entries, made = [_baseline(bench)], {BASELINE.name: bench.subject.made}
    builds = {name: tool_build(bench, name, say) for name in dict.fromkeys(t.build for t in bench.settings.tools)}
    runs = {forbid: edgekit_build(bench, forbid, say) for forbid in bench.settings.own}
    for tool in bench.settings.tools:
        entry, found = _tool_entry(bench, tool, builds[tool.build])
        entries.append(_judged(bench, entry, found, say))
        made |= {tool.name: found} if found else {}
    for forbid, build in runs.items():
        entry, found = _edgekit_entry(bench, forbid, build)
        entries.append(_judged(bench, entry, found, say))
        made |= {entry.tool: found} if found else {}
    say("race")
    raced = _race(bench, {name: made[name] for name in made if not _lost(entries, name)}, entries)
    return Result(bench.case.name, bench.threads, raced.aa_spread, tuple(_timed(entry, raced) for entry in entries))


def _lost(entries: list[Entry], name: str) -> bool:
    return any(entry.tool == name and entry.reason for entry in entries)


# --------------------------------------------------------------------------------------------------------------- entries


def _baseline(bench: Bench) -> Entry:
    accuracy = bench.judge.accuracy(bench.subject.made, EVALUATION, REFERENCE)
    return Entry(BASELINE.name, "f32", None, bench.subject.made.artifact.size_bytes, accuracy)


def _tool_entry(bench: Bench, tool: Tool, build: Build) -> tuple[Entry, Made | None]:
    entry = Entry(tool.name, tool.precision, build, remark="; ".join(build.notes), reason=build.reason)
    if tool.precision == "bf16" and not BF16_FEATURES & set(bench.shop.host_facts.isa):
        entry = replace(entry, reason="this machine has no bf16 instructions")
    if entry.reason:
        return entry, None
    folder = bench.folder / tool.build
    files = tuple(ArtifactFile(n, sha256_file(folder / n), (folder / n).stat().st_size) for n in build.files)
    spec = replace(
        bench.subject.candidate.build,
        recipe=Recipe(tool.name, tool.engine, tool.precision),
        engine_version=bench.engines[tool.engine],
    )
    artifact = Artifact(spec, files, build.notes, build.quantized_ops, build.quantizable_ops)
    quantized = f"{build.quantized_ops} of {build.quantizable_ops} operators int8" if build.quantized_ops else ""
    remark = "; ".join(filter(None, (quantized, entry.remark)))
    made = _made(bench, folder, artifact, RunConfig(bench.threads, tool.precision))
    return replace(entry, size_bytes=artifact.size_bytes, remark=remark), made


def _edgekit_entry(bench: Bench, forbid: str, build: Build) -> tuple[Entry, Made | None]:
    name = own_name(forbid)
    folder = bench.own_folder(forbid) / RUN
    if build.reason:
        return Entry(name, "", build, reason=build.reason), None
    run = read_run(folder)
    assert run.choice.chosen is not None  # it would have ended with an exit code
    outcome = run.outcome(run.choice.chosen)
    assert outcome.artifact is not None
    config = outcome.candidate.run
    remark = f"{outcome.name}: {outcome.artifact.quantized_ops} of {outcome.artifact.quantizable_ops} operators int8"
    entry = Entry(name, config.precision, build, outcome.artifact.size_bytes, remark=remark)
    return entry, _made(bench, folder / ARTIFACT_FOLDER, outcome.artifact, config)


def _made(bench: Bench, folder: Path, artifact: Artifact, config: RunConfig) -> Made:
    spec = artifact.spec
    library = bench.shop.native(spec.recipe.engine, spec.engine_version, bench.shop.host_facts.arch)
    return Made(folder, artifact, runnable(library, folder, artifact, config))


def _judged(bench: Bench, entry: Entry, made: Made | None, say: Say) -> Entry:
    """The entry with its accuracy on the evaluation split, or with why it has none."""
    if made is None:
        return entry
    say(f"judging {entry.tool}")
    try:
        accuracy = _accuracy(bench, made, entry.tool)
    except DiskFull:
        raise
    except EdgekitError as error:
        return replace(entry, reason=str(error))
    remark = f"collapsed: {accuracy.collapse_reason}" if accuracy.collapsed else ""
    return replace(entry, accuracy=accuracy, remark="; ".join(filter(None, (entry.remark, remark))))


def _accuracy(bench: Bench, made: Made, name: str) -> Accuracy:
    names = tuple(spec.name for spec in bench.subject.info.outputs)
    with bench.judge.outputs(made, EVALUATION, name) as outputs:
        return bench.judge.score(replace(outputs, names=names), EVALUATION, name)


# ------------------------------------------------------------------------------------------------------------------ race


def _race(bench: Bench, made: Mapping[str, Made], entries: list[Entry]) -> RaceResult:
    """One race of all that runs: in its final are edgekit's choices and what holds."""
    final = Budget(NO_LIMIT, bench.settings.race_s, bench.settings.rounds, TURN_MS)
    heat = replace(HEAT, samples=NO_LIMIT, seconds=min(HEAT.seconds, final.seconds))
    wanted = {entry.tool for entry in entries if entry.accurate or entry.tool.startswith(EDGEKIT)}
    return race(
        bench.shop.device,
        {name: one.runnable for name, one in made.items()},
        bench.subject.materials.feeds(SELECTION),
        BENCH_SAMPLES,
        BASELINE.name,
        heat,
        final,
        lambda ratios: sorted(wanted & set(ratios)),
    )


def _timed(entry: Entry, raced: RaceResult) -> Entry:
    if entry.tool in raced.dropped:
        return replace(entry, reason=raced.dropped[entry.tool])
    return replace(entry, turns_ns=tuple(median(turn) for turn in raced.rounds.get(entry.tool, ())))
