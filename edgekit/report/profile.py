"""A profile and a device's fact sheet on a terminal. Everything they hold may come from a board: it is escaped."""

from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console
from rich.table import Table

from edgekit.core.compare import CompareVerdict
from edgekit.core.compare_run import CompareRun
from edgekit.core.facts import FactSheet
from edgekit.core.probe import Probe
from edgekit.core.profile import Layer
from edgekit.core.profile_run import MemoryVerdict, Profile, ScenarioFigures
from edgekit.core.results import Load, Memory
from edgekit.core.trust import Trust, TrustVerdict
from edgekit.report.terminal import MISSING, clean, milliseconds, proof_lines, size

MOST_LAYERS = 10
NAME_CHARS = 36
PERCENTILES = ("p50", "p75", "p90", "p95", "p99", "p999")
_COLOUR = {TrustVerdict.TRUSTED: "green"}


def print_profile(console: Console, profile: Profile, folder: str) -> None:
    """What was run, the phases of loading, the figures with their verdict, the layers that take the time."""
    for line in _lines(profile, folder):
        console.print(line, highlight=False, soft_wrap=True)
    if profile.layers:
        console.print(_layer_table(profile.layers))
    for notice in profile.notices:
        console.print(f"[dim]note: {clean(notice)}[/]", highlight=False)
    console.print(f"profile: {clean(folder)}", highlight=False, soft_wrap=True)


def _lines(p: Profile, folder: str) -> Iterator[str]:
    threads = f"{p.threads} thread{'s' if p.threads != 1 else ''}"
    yield (
        f"[bold]{clean(p.model_name)}[/] as {clean(p.recipe)} ({size(p.size_bytes)}), {clean(p.engine)} "
        f"{clean(p.engine_version)}, {threads}, on [bold]{clean(p.device)}[/]"
    )
    yield f"{clean(p.facts.board or p.facts.cpu_model or p.facts.arch)}, {_scenario(p)}"
    if p.answers is not None:
        yield from proof_lines(p.answers, reference="here")
    if p.cold is not None and p.warm is not None:
        yield f"load, first process: {load_line(p.cold)}"
        yield f"load, next process: {load_line(p.warm)}"
    if p.memory is not None:
        yield f"memory: {_memory(p.memory)}"
    if p.memory_limit is not None:
        yield from _limit(p.memory_limit, p.memory)
    if p.figures is not None:
        yield from _figures(p, p.figures)


def _scenario(p: Profile) -> str:
    s = p.scenario
    extras = [f"{s.streams} streams"] if s.streams > 1 else []
    extras += [f"{s.qps:g} queries/s"] if s.qps else []
    extras += [f"{s.fps:g} frames/s"] if s.fps else []
    extras += [f"{s.samples_per_query} samples a query"] if s.kind == "multi-stream" else []
    return ", ".join([s.kind, *extras])


def load_line(load: Load) -> str:
    """The phases of a load in ms, and when the first answer came."""
    phases = (
        ("library", load.library_load_ms),
        ("read", load.model_read_ms),
        ("create", load.session_create_ms),
        ("first inference", load.first_inference_ms),
    )
    told = " + ".join(f"{name} {milliseconds(value)}" for name, value in phases if value is not None)
    return f"{told} ms, {milliseconds(load.process_to_first_inference_ms)} ms to the first answer"


def _memory(memory: Memory) -> str:
    phases = (
        ("baseline", memory.baseline_rss),
        ("after load", memory.after_load_rss),
        ("peak of the load", memory.peak_load_rss),
        ("peak of inference", memory.peak_inference_rss),
    )
    return ", ".join(f"{name} {size(value)}" for name, value in phases)


def _limit(verdict: MemoryVerdict, memory: Memory | None) -> Iterator[str]:
    if not verdict.holds:
        yield f"[bold red]does not fit[/] in {size(verdict.limit_bytes)}: {clean(verdict.reason)}"
        return
    yield f"[green]fits[/] in {size(verdict.limit_bytes)} (held by {clean(verdict.kind or 'the system')})"
    if memory is not None and (memory.peak or 0) > verdict.limit_bytes:
        yield "[dim]the cap counts pages of its own; the resident set above holds pages of files, too, that can be given back[/]"


def _figures(p: Profile, f: ScenarioFigures) -> Iterator[str]:
    stats = f.trust.latency_ms
    known = [(name.replace("p999", "p99.9"), getattr(stats, name)) for name in PERCENTILES]
    told = "  ".join(f"{name} {milliseconds(value)}" for name, value in known if value is not None)
    yield f"latency ms: [bold]{told}[/]  max {milliseconds(stats.max)}  (n={stats.count}, after {f.trust.warm_up_runs} to warm up)"
    yield f"throughput: [bold]{f.inferences_per_s:.4g}[/] inferences/s, {f.cpu_share:.2f} cores busy"
    if missing := [name for name, value in known if value is None]:
        yield f"[dim]too few queries for {', '.join(missing)}: run longer[/]"
    yield from _queue(f)
    yield from _trust(f.trust)


def _queue(f: ScenarioFigures) -> Iterator[str]:
    if f.deadline_misses is not None:
        yield f"deadlines missed: {f.deadline_misses} of {f.queries + (f.dropped or 0)} frames, {f.dropped or 0} of them dropped"
    elif f.dropped or f.unfinished:
        yield f"[yellow]overloaded[/]: {f.dropped or 0} queries turned away, {f.unfinished or 0} never begun"
    for name, spread in (("waited for a stream", f.wait_ns), ("woken late by the system", f.late_ns)):
        if spread is not None and spread.count:
            yield f"[dim]{name}: p50 {spread.p50 / 1e6:.3g} ms, p99 {spread.p99 / 1e6:.3g} ms, max {spread.max / 1e6:.3g} ms[/]"


def _trust(trust: Trust) -> Iterator[str]:
    colour = _COLOUR.get(trust.verdict, "yellow")
    yield f"[bold {colour}]{trust.verdict}[/]: {clean(trust.reason)}"
    if trust.sustained is not None:
        s = trust.sustained
        yield (
            f"sustained: minute 1 p50 {milliseconds(s.first_ms)} ms, last minute {milliseconds(s.last_ms)} ms, "
            f"ratio {s.ratio:.3f} (95% {s.low:.3f} to {s.high:.3f})"
        )
    for notice in trust.notices:
        yield f"[dim]note: {clean(notice)}[/]"


def _layer_table(layers: Sequence[Layer]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    for heading in ("layer", "operator", "kernel", "us", "share"):
        table.add_column(
            heading, justify="right" if heading in ("us", "share") else "left", overflow="ellipsis", no_wrap=True
        )
    for layer in layers[:MOST_LAYERS]:
        table.add_row(
            _tail(layer.name),
            clean(layer.op),
            clean(layer.exec_type.removesuffix("ExecutionProvider")),
            f"{layer.mean_us:.0f}",
            f"{layer.share:.0%}",
        )
    if rest := layers[MOST_LAYERS:]:
        share = sum(layer.share for layer in rest)
        table.add_row(f"{len(rest)} more", "", "", f"{sum(layer.mean_us for layer in rest):.0f}", f"{share:.0%}")
    return table


def print_comparison(console: Console, run: CompareRun) -> None:
    """Both sides, the ratio with its interval, and the verdict."""
    c = run.comparison
    for letter, side, ms in (("A", run.a, c.a_ms), ("B", run.b, c.b_ms)):
        threads = f"{side.threads} thread{'s' if side.threads != 1 else ''}"
        console.print(
            f"{letter}: [bold]{clean(side.source)}[/] as {clean(side.recipe)} ({size(side.size_bytes)}), {clean(side.engine)} "
            f"{clean(side.engine_version)}, {threads}: p50 {milliseconds(ms)} ms",
            highlight=False,
            soft_wrap=True,
        )
    console.print(
        f"B / A {c.ratio:.3f} (95% {c.low:.3f} to {c.high:.3f}), {c.rounds} interleaved rounds on {clean(run.device)}, "
        f"below {c.noise:.3f} all is noise",
        highlight=False,
        soft_wrap=True,
    )
    colour = {"faster": "green", "slower": "red"}.get(c.verdict, "yellow")
    console.print(
        f"[bold {colour}]B is {c.verdict}[/]: {clean(c.reason)}"
        if c.verdict != CompareVerdict.NOT_SHOWN
        else f"[bold {colour}]{c.verdict}[/]: {clean(c.reason)}",
        highlight=False,
        soft_wrap=True,
    )
    for notice in run.notices:
        console.print(f"[dim]note: {clean(notice)}[/]", highlight=False)


def _tail(name: str) -> str:
    """The end of a layer's name tells it from its neighbours; the rest is the path to it."""
    return clean(name if len(name) <= NAME_CHARS else f"…{name[1 - NAME_CHARS :]}")


# -------------------------------------------------------------------------------------------------------------- devices


def print_devices(console: Console, devices: Mapping[str, str]) -> None:
    """One line a name."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("device")
    table.add_column("url", overflow="fold")
    for name, url in devices.items():
        table.add_row(clean(name), clean(url))
    console.print(table)


def print_probe(console: Console, probe: Probe) -> None:
    """Everything a device says of itself, one line a fact, and the target it is."""
    emulated = " (emulated: it proves answers, and has no latency and no memory)" if probe.facts.emulated else ""
    console.print(f"[bold]{clean(probe.device)}[/]{emulated}", highlight=False)
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column("fact", style="dim", no_wrap=True)
    table.add_column("value", overflow="fold")
    for fact, value in _facts(probe.facts):
        if value:
            table.add_row(fact, clean(value))
    console.print(table)
    match = f"it is the target [bold]{clean(probe.target)}[/]" if probe.target else "it matches no target"
    console.print(f"{match}: {clean(probe.reason)}", highlight=False, soft_wrap=True)
    for difference in probe.differences:
        console.print(f"[yellow]but {clean(difference)}[/]", highlight=False)
    if probe.written is not None:
        console.print(f"wrote {clean(probe.written)}", highlight=False, soft_wrap=True)


def _facts(s: FactSheet) -> Iterator[tuple[str, str]]:
    yield "board", s.board or ""
    yield "SoC", " ".join(filter(None, (s.soc.family, s.soc.machine, s.soc.soc_id, *(s.soc.compatible or ())[:2])))
    yield "CPU", f"{s.cpu_model or 'unknown'}, {s.arch}"
    yield "ISA", " ".join(s.isa)
    yield "cores", f"{s.usable_threads} usable of {s.cpus_online or '?'} online"
    for cluster in s.clusters:
        clock = f", up to {cluster.max_khz // 1000} MHz" if cluster.max_khz else ""
        capacity = f", capacity {cluster.capacity}" if cluster.capacity else ""
        governor = f", governor {cluster.governor}" if cluster.governor else ""
        yield (
            "cluster",
            f"CPUs {','.join(map(str, cluster.cpus))}{f' ({cluster.part})' if cluster.part else ''}{clock}{capacity}{governor}",
        )
    yield (
        "memory",
        f"{size(s.ram_available_bytes)} available of {size(s.ram_total_bytes)}, swap {size(s.swap_total_bytes)}",
    )
    yield "cpuset", ",".join(map(str, s.cpuset)) if s.cpuset is not None and len(s.cpuset) != s.cpus_online else ""
    limits = [f"memory {size(s.cgroup_memory_limit_bytes)}"] if s.cgroup_memory_limit_bytes else []
    limits += [f"CPU {s.cgroup_cpu_quota:g} cores"] if s.cgroup_cpu_quota else []
    yield "limits", ", ".join(limits)
    if s.disk is not None:
        refused = ", programs refused (noexec)" if s.disk.noexec else ""
        yield "disk", f"{size(s.disk.free_bytes)} free of {size(s.disk.total_bytes)} at {s.disk.path}{refused}"
    yield "kernel", f"{s.kernel or MISSING}, {s.userland_bits or '?'}-bit system"
    libc = f"glibc {s.glibc}" if s.glibc else s.libc or MISSING
    yield "C library", f"{libc}, libstdc++ {f'GLIBCXX_{s.libstdcxx}' if s.libstdcxx else 'absent'}"
    for zone in s.thermal:
        if zone.millideg is not None:
            slows = f", slows down at {zone.passive_millideg / 1000:.0f}" if zone.passive_millideg else ""
            yield "heat", f"{zone.type or zone.zone}: {zone.millideg / 1000:.1f} °C{slows}"
    if s.throttled.raspberry_pi not in (None, "0x0", "0"):
        yield "throttled", f"firmware flags {s.throttled.raspberry_pi}"
    if s.throttled.core_throttle_count:
        yield "throttled", f"{s.throttled.core_throttle_count} times since boot, over all cores"
    if s.throttled.under_voltage:
        yield "throttled", "under-voltage"
