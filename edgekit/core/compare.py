"""Is B faster than A? Interleaved rounds of both, paired, with an interval, judged against the noise of A beside itself.

- Each round gives one ratio, of medians: both sides met the machine of the same moment, so what drifts hits both.
- Neighbouring rounds resemble each other: blocks of them are resampled, not single rounds.
- Rounds say nothing of what lasts as long as a process (where its memory lies, which core it woke up on). The twin does: A runs
  as two processes, and a difference that these two can show is no difference.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median

from edgekit.core.stats import BOOTSTRAP_RESAMPLES, percentile, round_ratios

FEWEST_ROUNDS = 8  # of fewer the bootstrap's interval of a median is too short: the ends are the extremes
MIN_DIFFERENCE = 0.02  # two processes of one artifact were seen to differ by this much (0.993 to 1.020)


class CompareVerdict(StrEnum):
    FASTER = "faster"
    SLOWER = "slower"
    NOT_SHOWN = "no difference shown"


@dataclass(frozen=True)
class Comparison:
    """B against A: `ratio` of latencies B / A with its 95 % interval, and what it had to exceed.

    `noise` >= 1 is the factor by which two runs of A may differ. `shown` is the smallest change, as a factor >= 1, that these
    rounds would have shown.
    """

    verdict: CompareVerdict
    ratio: float
    low: float
    high: float
    noise: float
    shown: float
    a_ms: float
    b_ms: float
    rounds: int
    reason: str


def compare(
    a_rounds: Sequence[Sequence[int]], b_rounds: Sequence[Sequence[int]], aa_spread: float, seed: int = 0
) -> Comparison:
    """Compare latencies in ns by round; `aa_spread` >= 1 is the far end of the interval of A's twin over A.

    B is called faster or slower when the logarithm of the ratio is beyond its own uncertainty and the twin's, which are
    independent and so add up in squares, and beyond MIN_DIFFERENCE. Raises ValueError when rounds do not pair up or are empty.
    """
    a, b = ([float(median(turn)) for turn in rounds] for rounds in (a_rounds, b_rounds))
    logs = [math.log(ratio) for ratio in round_ratios(b, a)]
    middle = median(logs)
    low, high = block_bootstrap(logs, seed)
    noise = max(aa_spread, 1 / aa_spread, 1 + MIN_DIFFERENCE)
    reach = math.hypot(max(middle - low, high - middle), math.log(noise))
    verdict = _verdict(middle, reach) if len(logs) >= FEWEST_ROUNDS else CompareVerdict.NOT_SHOWN
    return Comparison(
        verdict=verdict,
        ratio=math.exp(middle),
        low=math.exp(low),
        high=math.exp(high),
        noise=noise,
        shown=math.exp(reach),
        a_ms=median(a) / 1e6,
        b_ms=median(b) / 1e6,
        rounds=len(logs),
        reason=_reason(verdict, middle, reach, len(logs)),
    )


def _verdict(middle: float, reach: float) -> CompareVerdict:
    if abs(middle) <= reach:
        return CompareVerdict.NOT_SHOWN
    return CompareVerdict.SLOWER if middle > 0 else CompareVerdict.FASTER


def _reason(verdict: CompareVerdict, middle: float, reach: float, rounds: int) -> str:
    if rounds < FEWEST_ROUNDS:
        return f"{rounds} rounds are too few to tell ({FEWEST_ROUNDS} are needed)"
    change = f"latency changes by {math.expm1(middle):+.1%}"
    if verdict is CompareVerdict.NOT_SHOWN:
        return f"{change}; these rounds show {math.expm1(reach):.1%} or more"
    return f"{change}, beyond the {math.expm1(reach):.1%} that noise explains"


def block_bootstrap(values: Sequence[float], seed: int) -> tuple[float, float]:
    """The 95 % interval of the median of a series whose neighbours resemble each other.

    Circular block bootstrap (Politis and Romano, "A circular block-resampling procedure for stationary data", 1992), blocks of
    n^(1/3) values (Hall, Horowitz and Jing, Biometrika 82, 1995), percentile interval. Rounds are the top level of a benchmark's
    repetitions, so resampling them covers the runs within (Kalibera and Jones, "Rigorous benchmarking in reasonable time", 2013).
    """
    count, rng = len(values), random.Random(seed)
    length = max(1, round(count ** (1 / 3)))
    around = [*values, *values[: length - 1]]
    blocks = -(-count // length)

    def resample() -> list[float]:
        return [v for start in rng.choices(range(count), k=blocks) for v in around[start : start + length]][:count]

    medians = [median(resample()) for _ in range(BOOTSTRAP_RESAMPLES)]
    return percentile(medians, 2.5), percentile(medians, 97.5)
