"""Requirements that no deployment can satisfy together, seen before a model is read, and those that bind less than they seem. Pure.

- A conflict is refused; it names the keys of `requirements.toml` that it lies between, the one to change first.
- What could be met is no conflict: a budget looser than the time between two frames is remarked on, and the rest decides.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from edgekit.core.types import Requirements, Target
from edgekit.errors import UsageError

# How requests come, as `edgekit profile` names it, and whether that has a rate of its own.
SCENARIOS = {"single-stream": False, "multi-stream": False, "offline": False, "fixed-rate": True, "server": True}

# The governors of Linux's cpufreq: Documentation/admin-guide/pm/cpufreq.rst.
GOVERNORS = ("performance", "powersave", "ondemand", "conservative", "schedutil", "userspace")


@dataclass(frozen=True)
class Conflict:
    """What cannot be together, in one clause without a period, and what to change."""

    keys: tuple[str, ...]
    what: str
    next_step: str


def conflicts(requirements: Requirements) -> Iterator[Conflict]:
    """Contradictions among the requirements themselves."""
    yield from _of_arrivals(requirements)
    yield from _of_sources(requirements)
    yield from _of_rates(requirements)


def target_conflicts(requirements: Requirements, target: Target, threads: int = 0) -> Iterator[Conflict]:
    """Contradictions between the requirements and the target, or the `threads` that were asked for (0: none were)."""
    cores = requirements.max_cores
    if cores is None:
        return
    if cores > target.cores:
        what = f"{_cores(cores)} may be used, and {target.name} has {target.cores}"
        yield Conflict(("infrastructure.cores",), what, f"ask for no more than {target.cores}")
    if threads > cores:
        what = f"{threads} threads are asked for, and {_cores(cores)} may be used"
        yield Conflict(("--threads", "infrastructure.cores"), what, f"ask for no more than {cores}")


def require_consistent(requirements: Requirements, target: Target, threads: int = 0) -> None:
    """Raise UsageError for the first conflict among the requirements, the target and the threads."""
    for conflict in (*conflicts(requirements), *target_conflicts(requirements, target, threads)):
        raise UsageError(conflict.what, where=" and ".join(conflict.keys), next_step=conflict.next_step)


def _cores(count: int) -> str:
    return "1 core" if count == 1 else f"{count} cores"


def _of_arrivals(r: Requirements) -> Iterator[Conflict]:
    if r.arrivals is None:
        return
    keys = ("latency.rate", "latency.scenario")
    scenario, rate = r.arrivals.scenario, r.arrivals.rate_ips
    if SCENARIOS[scenario] and rate is None:
        yield Conflict(keys, f"requests come at a rate in the {scenario} scenario, and none is given", "state the rate")
    if not SCENARIOS[scenario] and rate is not None:
        what = f"requests do not come at a rate in the {scenario} scenario, and one of {rate:g}/s is given"
        yield Conflict(keys, what, "use fixed-rate or server, or leave the rate out")
    if scenario == "offline" and r.latency is not None:
        what = "in the offline scenario everything is there at once: no request has a latency"
        yield Conflict(("latency.budget", "latency.scenario"), what, "state throughput.min instead")


def _of_sources(r: Requirements) -> Iterator[Conflict]:
    s = r.sources
    if s is None:
        return
    if s.frame_rate is not None and s.sample_rate_hz is not None:
        what = "one source delivers frames or samples, not both"
        yield Conflict(("data.frame_rate", "data.sample_rate"), what, "leave one of them out")
    elif (s.sample_rate_hz is None) != (s.hop is None):
        what = "a recording calls for sample_rate / hop inferences a second, and only one of the two is given"
        yield Conflict(("data.hop", "data.sample_rate"), what, "state both")
    elif s.rate_ips is None:
        what = "it is not said what the sources deliver"
        yield Conflict(("data.sources",), what, "state data.frame_rate, or data.sample_rate and data.hop")


def _of_rates(r: Requirements) -> Iterator[Conflict]:
    """More cannot be asked for, or come, than the sources deliver."""
    s = r.sources
    delivered = s.rate_ips if s is not None else None
    if s is None or delivered is None:
        return
    keys = ("data.sample_rate", "data.hop") if s.frame_rate is None else ("data.frame_rate",)
    each = f"{s.sample_rate_hz:g} Hz / {s.hop}" if s.frame_rate is None else f"{s.frame_rate:g}/s"
    total = f"{s.count} x {each} = {delivered:g}/s"
    if r.min_throughput_ips is not None and r.min_throughput_ips > delivered:
        what = f"{r.min_throughput_ips:g}/s are asked for, and the data deliver {total}"
        yield Conflict(("throughput.min", *keys), what, f"ask for {delivered:g}/s at most, or state more sources")
    arriving = r.arrivals.rate_ips if r.arrivals is not None else None
    if arriving is not None and arriving > delivered:
        what = f"requests come at {arriving:g}/s, and the data deliver {total}"
        yield Conflict(("latency.rate", *keys), what, "make the two agree, or state more sources")


def remarks(requirements: Requirements, target: Target, governor: str | None) -> Iterator[str]:
    """What the user should know of requirements that were accepted: which binds nothing, and what is not shown to be met.

    `governor` is that of the machine that measures, None where it does not tell, or where nothing is measured.
    """
    r = requirements
    steady = r.arrivals is None or r.arrivals.scenario == "fixed-rate"
    if steady and r.latency is not None and r.rate_ips is not None and r.latency.limit_ms > 1e3 / r.rate_ips:
        every = f"requests come every {1e3 / r.rate_ips:.3g} ms"
        yield f"{every}: with one stream that decides, and the latency budget of {r.latency.limit_ms:.3g} ms binds nothing"
    if r.max_memory_bytes is not None and r.max_memory_bytes > target.ram_bytes:
        allowed, there = r.max_memory_bytes / 2**20, target.ram_bytes / 2**20
        yield f"{allowed:.4g} MiB of memory may be used, and {target.name} has {there:.4g}"
    if r.power_mode and governor != r.power_mode:
        shown = f"what measured has {governor}" if governor else "what measured does not tell its own"
        yield f"the power mode {r.power_mode} is not shown to be met: {shown}"
