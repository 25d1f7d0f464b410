"""What a series of latencies does over time: warm-up, steps, drift, restlessness. Pure; a seed makes it repeatable.

- All is judged on logarithms of medians of blocks of consecutive runs: a ratio counts the same up and down, a spike is not a step.
- Latencies of neighbouring runs resemble each other. A test that takes them for independent calls every machine unstable, so
  the tests here allow for autocorrelation.
- A step or a drift counts when it is both beyond chance and large enough to matter.
"""

import bisect
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from statistics import fmean, median

from edgekit.core.stats import Z_95, percentile

MIN_BLOCK_RUNS = 5  # MSER-5's batch; the median of five survives two spikes
BLOCKS = 48
MIN_SEGMENT = 5  # blocks on either side of a step: less is a blip
FEWEST_RUNS = 8 * MIN_BLOCK_RUNS  # below this neither a step nor a drift can be told from chance

SIGNIFICANCE = 0.01
RESAMPLES = 299
MATERIAL = 0.05  # a step, or a drift over the whole run, that matters

WIDE_BLOCKS = (
    16  # wide enough that what alternates within a block, and so leaves a percentile repeatable, does not count
)
CHANCES = 40
MOST_DRAWN = 101  # runs drawn for a block: beyond it a median's own scatter does not matter
MOST_WARM_UP = 3  # at most one run in three: a run that never settles has no warm-up


@dataclass(frozen=True)
class Step:
    """The level changes at `run` (an index of the series) from `before_ms` to `after_ms`, medians of the segments."""

    run: int
    at_s: float
    before_ms: float
    after_ms: float

    @property
    def ratio(self) -> float:
        return self.after_ms / self.before_ms


@dataclass(frozen=True)
class Drift:
    """Relative change of latency per minute with its 95 % interval (0.02: 2 % slower a minute), and over the whole series.

    `at_least` is the end of the interval that is nearer to no change, over the whole series; 0 when the interval has no sign.
    """

    per_minute: float
    low: float
    high: float
    over_run: float
    at_least: float


def block_size(runs: int) -> int:
    """Runs to a block: about BLOCKS blocks, none shorter than MIN_BLOCK_RUNS."""
    return max(MIN_BLOCK_RUNS, math.ceil(runs / BLOCKS))


def block_medians(values: Sequence[float], size: int) -> list[float]:
    """The median of each whole block; a rest shorter than a block is left out."""
    return [median(values[i : i + size]) for i in range(0, len(values) - size + 1, size)]


# ---------------------------------------------------------------------------------------------------------------- warm-up


def warm_up_runs(latencies: Sequence[float]) -> int:
    """How many runs at the start are slower than the steady rest; 0 when none are.

    MSER-5 (White, "An effective truncation heuristic for bias reduction in simulation output", Simulation 69, 1997; Spratt 1998
    for batches of five; recommended among 42 methods by Hoad, Robinson and Davies 2010), on medians for means. A start that is
    faster than the rest is no warm-up: it is a machine that heats up.
    """
    logs = [math.log(m) for m in block_medians(latencies, MIN_BLOCK_RUNS)]
    cut = _mser(logs)
    if cut == 0:
        return 0
    start, rest = median(logs[:cut]), logs[cut:]
    slower = start > max(median(rest) + math.log1p(MATERIAL), percentile(rest, 95))
    return cut * MIN_BLOCK_RUNS if slower else 0


def _mser(values: Sequence[float]) -> int:
    """The truncation d that minimizes sum of squares about the mean of values[d:] / (n - d)^2, d <= n / MOST_WARM_UP."""
    best, best_cut = math.inf, 0
    total = squares = 0.0
    most = len(values) // MOST_WARM_UP
    center = fmean(values) if values else 0.0  # keeps the difference of large sums exact enough
    for cut in range(len(values) - 1, -1, -1):
        shifted = values[cut] - center
        total, squares, count = total + shifted, squares + shifted * shifted, len(values) - cut
        statistic = (squares - total * total / count) / (count * count)
        if cut <= most and statistic <= best:
            best, best_cut = statistic, cut
    return best_cut


# ------------------------------------------------------------------------------------------------------------------ steps


def steps(times_s: Sequence[float], latencies: Sequence[float], seed: int = 0) -> tuple[Step, ...]:
    """Where the level changes, by circular binary segmentation on block medians; latencies in ms.

    Olshen, Venkatraman, Lucito and Wigler (Biostatistics 5, 2004): unlike a plain split it sees a level that comes and goes. A
    segment is cut out when its statistic is beyond SIGNIFICANCE of an AR(1) sieve bootstrap (Buehlmann, "Sieve bootstrap for time
    series", Bernoulli 3, 1997) of the residuals, where their paper permutes, and its median differs by MATERIAL.
    """
    size = block_size(len(latencies))
    medians = block_medians(latencies, size)
    logs = [math.log(m) for m in medians]
    edges = [0, *_cuts(logs, 0, len(logs), random.Random(seed)), len(logs)]
    return tuple(
        Step(cut * size, times_s[cut * size], median(medians[start:cut]), median(medians[cut:end]))
        for start, cut, end in zip(edges, edges[1:], edges[2:], strict=False)
    )


def _cuts(logs: Sequence[float], start: int, end: int, rng: random.Random) -> list[int]:
    part = logs[start:end]
    if len(part) < 2 * MIN_SEGMENT:
        return []
    spans = _spans(len(part))
    statistic, (low, high) = _most_unlike(part, spans)
    inside, outside = part[low:high], [*part[:low], *part[high:]]
    if abs(median(inside) - median(outside)) < math.log1p(MATERIAL):
        return []
    if not _beyond_chance(inside, outside, statistic, spans, rng):
        return []
    edges = [start, *(start + at for at in (low, high) if 0 < at < len(part)), end]
    deeper = [_cuts(logs, a, b, rng) for a, b in pairwise(edges)]
    return sorted({*edges[1:-1], *(cut for cuts in deeper for cut in cuts)})


Span = tuple[int, int, float]


def _spans(count: int) -> list[Span]:
    """Every segment [low, high) that a series of `count` may hold, with 1 / the deviation of its sum from a fair share."""
    inner = [*range(MIN_SEGMENT, count - MIN_SEGMENT + 1)]
    pairs = [(0, at) for at in inner]  # a single step: the segment before it
    pairs += [(low, high) for low in inner for high in inner if high - low >= MIN_SEGMENT]
    return [(low, high, math.sqrt(count / ((high - low) * (count - high + low)))) for low, high in pairs]


def _most_unlike(values: Sequence[float], spans: Sequence[Span]) -> tuple[float, tuple[int, int]]:
    """The segment whose mean is farthest from the rest's, in units of white noise, and how far."""
    sums = [0.0, *accumulate(_centered(values))]
    return max((abs(sums[high] - sums[low]) * weight, (low, high)) for low, high, weight in spans)


def _beyond_chance(
    inside: Sequence[float], outside: Sequence[float], statistic: float, spans: Sequence[Span], rng: random.Random
) -> bool:
    """Whether noise like the residuals', without a step, reaches `statistic` in at most SIGNIFICANCE of the resamples."""
    residuals = [*_centered(inside), *_centered(outside)]
    phi = _autocorrelation(residuals)
    shocks = _centered([y - phi * x for x, y in pairwise(residuals)])
    allowed = int(SIGNIFICANCE * (RESAMPLES + 1)) - 1
    reached = 0
    for _ in range(RESAMPLES):
        reached += _most_unlike(_autoregression(shocks, phi, len(residuals), rng), spans)[0] >= statistic
        if reached > allowed:
            return False
    return True


def _autoregression(shocks: Sequence[float], phi: float, count: int, rng: random.Random) -> list[float]:
    """`count` values of x' = phi x + a shock drawn from `shocks`, after enough to forget the start."""
    value, made = 0.0, []
    for shock in rng.choices(shocks, k=count + 20):
        value = phi * value + shock
        made.append(value)
    return made[20:]


def _centered(values: Sequence[float]) -> list[float]:
    middle = fmean(values)
    return [v - middle for v in values]


def _autocorrelation(residuals: Sequence[float]) -> float:
    """Lag-1 autocorrelation in [0, 0.95]; the bias (1 + 4 phi) / n (Kendall 1954) is added for two means and a chosen span."""
    power = sum(r * r for r in residuals)
    if power <= 0:
        return 0.0
    phi = sum(x * y for x, y in pairwise(residuals)) / power
    return min(max(phi + 3 * (1 + 4 * phi) / len(residuals), 0.0), 0.95)


# ------------------------------------------------------------------------------------------------------------------ drift


def drift(times_s: Sequence[float], latencies: Sequence[float]) -> Drift | None:
    """The trend of the block medians, or None when there are too few runs or no time passes.

    Slope: Theil-Sen, interval by Kendall's statistic (Sen, "Estimates of the regression coefficient based on Kendall's tau",
    JASA 63, 1968) with the variance of Hamed and Rao (Journal of Hydrology 204, 1998) for autocorrelated data.
    """
    size = block_size(len(latencies))
    logs = [math.log(m) for m in block_medians(latencies, size)]
    times = [times_s[i * size + size // 2] for i in range(len(logs))]
    if len(logs) * size < FEWEST_RUNS or times[-1] <= times[0]:
        return None
    pairs = range(len(logs))
    slopes = sorted(
        (logs[j] - logs[i]) / (times[j] - times[i]) for i in pairs for j in pairs[i + 1 :] if times[j] > times[i]
    )
    slope = median(slopes)
    reach = Z_95 * math.sqrt(_kendall_variance([y - slope * t for t, y in zip(times, logs, strict=True)]))
    low, high = (slopes[min(max(round((len(slopes) + s * reach) / 2), 0), len(slopes) - 1)] for s in (-1, 1))
    nearer = min(low, high, key=abs) if low * high > 0 else 0.0
    lasted = times[-1] - times[0]
    per_minute, least, most = (_per_minute(s) for s in (slope, low, high))
    return Drift(per_minute, least, most, math.expm1(slope * lasted), math.expm1(nearer * lasted))


def _per_minute(slope: float) -> float:
    """A slope of logarithms a second as relative change a minute; bounded, as seconds of noise extrapolate to anything."""
    return math.expm1(min(max(slope * 60, -50.0), 50.0))


def _kendall_variance(detrended: Sequence[float]) -> float:
    """The variance of Kendall's S: n(n-1)(2n+5)/18, times Hamed and Rao's factor over the significant autocorrelations of ranks.

    Only positive ones up to a quarter of the series count: the factor never narrows the interval.
    """
    n = len(detrended)
    ordered = sorted(detrended)
    ranks = _centered([bisect.bisect_left(ordered, v) + bisect.bisect_right(ordered, v) for v in detrended])
    power = sum(r * r for r in ranks) or 1.0
    extra = 0.0
    for lag in range(1, n // 4 + 1):
        rho = sum(x * y for x, y in zip(ranks, ranks[lag:], strict=False)) / power
        if rho < Z_95 / math.sqrt(n):
            break
        extra += (n - lag) * (n - lag - 1) * (n - lag - 2) * rho
    factor = 1 + 2 * extra / (n * (n - 1) * (n - 2))
    return n * (n - 1) * (2 * n + 5) / 18 * factor


# ----------------------------------------------------------------------------------------------------------- restlessness


def restlessness(latencies: Sequence[float], seed: int = 0) -> float:
    """How far the level of parts of the run wanders beyond chance: a relative standard deviation.

    The width of the middle 80 % of the midmeans of blocks (robust as medians, but steady where there are two levels), in standard
    deviations of a normal, less (in squares) the widest of CHANCES that blocks drawn from all runs at random have. Heavy tails
    alone give 0, as drawing keeps them; levels that alternate do not.
    """
    size = max(MIN_BLOCK_RUNS, len(latencies) // WIDE_BLOCKS)
    rng = random.Random(seed)
    drawn, blocks = min(size, MOST_DRAWN), len(latencies) // size
    chance = max(_width(rng.choices(latencies, k=blocks * drawn), drawn) for _ in range(CHANCES))
    return math.sqrt(max(0.0, _width(latencies, size) ** 2 - chance**2))


def _width(latencies: Sequence[float], size: int) -> float:
    blocks = (sorted(latencies[i : i + size]) for i in range(0, len(latencies) - size + 1, size))
    logs = [math.log(fmean(block[size // 4 : size - size // 4])) for block in blocks]
    return (percentile(logs, 90) - percentile(logs, 10)) / 2.563103131089  # twice the normal's 90 % point
