"""What a search over settings came to, in lines for a terminal."""

from collections.abc import Iterator

from edgekit.core.run import Run
from edgekit.core.settle import p50
from edgekit.core.tradeoffs import Point, Setting, key
from edgekit.report.terminal import clean, milliseconds


def settings_lines(run: Run) -> Iterator[str]:
    """How the search went, its two ends, and what the one costs in the other; nothing where there was none."""
    found = run.exploration
    if found is None:
        return
    points = {key(p): p for p in found.points}
    latency, throughput = points.get(found.latency_choice), points.get(found.throughput_choice)
    yield f"settings: {len(points)} of {found.space} measured in {found.seconds:.0f} s; {clean(found.ended)}"
    if latency is None or throughput is None:
        return
    yield f"- least latency: {_point(latency)}"
    if throughput is not latency:
        yield f"- most throughput: {_point(throughput)}: {_trade(latency, throughput)}"
    for name, what in ((found.sweet_spot, "sweet spot"), (found.knee, "knee")):
        if name in points and name not in (found.latency_choice, found.throughput_choice):
            yield f"- {what}: {_point(points[name])}"


def _trade(latency: Point, throughput: Point) -> str:
    more, longer = throughput.throughput_ips / latency.throughput_ips, p50(throughput) / p50(latency)
    return f"{more:.2f}x the throughput at {longer:.2f}x the latency"


def _point(point: Point) -> str:
    figures = f"{milliseconds(p50(point))} ms, {point.throughput_ips:.4g}/s"
    return f"{clean(point.candidate)}, {setting_words(point.setting)}: {figures}"


def setting_words(setting: Setting) -> str:
    """A setting as people say it: "2 threads, 1 stream, batch 4"."""

    def counted(count: int, what: str) -> str:
        return f"{count} {what}{'' if count == 1 else 's'}"

    words = [counted(setting.threads, "thread"), counted(setting.streams, "stream"), f"batch {setting.batch}"]
    words += [f"cores {setting.cores}"] if setting.cores else []
    return clean(", ".join([*words, *(f"{name}={value}" for name, value in sorted(setting.options.items()))]))
