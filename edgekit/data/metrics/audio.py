"""Metrics of sound."""

import numpy as np

from edgekit.core.accuracy import MetricOptions
from edgekit.data.metrics.record import Array, Outputs, first_float, labels_like

CENTS = 50.0


def pitch_50_cents(outputs: Outputs, reference: Outputs, labels: Array | None, options: MetricOptions) -> Array:
    """Is the pitch of a voiced frame within 50 cents? Labels are Hz, [n, frames], 0, `ignore` or NaN where unvoiced: not scored.

    Raw pitch accuracy, Salamon et al., "Melody Extraction from Polyphonic Music Signals" (2014), over all voiced frames of the set.
    Of several outputs the one whose name has "pitch" in it is taken.
    """
    named = {name: value for name, value in outputs.items() if "pitch" in name.lower()}
    pitch = first_float(named or outputs)
    pitch = pitch.reshape(len(pitch), -1).astype(np.float64)
    wanted = labels_like(labels, pitch.shape).astype(np.float64)
    voiced = np.nan_to_num(wanted) > 0
    with np.errstate(all="ignore"):
        cents = 1200 * np.abs(np.log2(pitch / wanted))
    return np.where(voiced, cents <= CENTS, np.nan)
