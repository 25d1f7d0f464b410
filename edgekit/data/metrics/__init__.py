"""Metrics: plain functions in one table, each defined once, with its source; and the user's own.

- A metric's function gets a block of samples: outputs by name, [n, ...] each; the reference's on the same samples; labels [n, ...]
  or None; the data set's options. It is called once a block, so it may not look beyond a sample.
- What it returns is one of three forms (`record`): scores to be averaged, sums that a value is made of, or rows of which only the
  whole set gives a value. All three can be computed again for any weights of the samples: that is what the bootstrap does.
- Higher is better unless `lower_is_better`; the drop is always by how much the candidate is worse.
- A NaN in an output is a wrong answer; thresholds include their own value; equal scores count as argmax has it, or half each.
- bfloat16 outputs arrive as float32.
- A data set may name the output that is scored: then a metric is shown no other.
"""

from pathlib import Path

from edgekit.data.manifest import did_you_mean
from edgekit.data.metrics.audio import pitch_50_cents
from edgekit.data.metrics.classification import (
    auc_rows,
    auc_value,
    binary_accuracy,
    exact_match,
    f1_counts,
    f1_value,
    frame_accuracy,
    top_1,
    top_1_agreement,
    top_5,
)
from edgekit.data.metrics.detection import detection_rows, mean_average_precision
from edgekit.data.metrics.likeness import MAX_SQNR_DB, cosine, max_abs, noise_and_signal, similarity, sqnr
from edgekit.data.metrics.masks import iou_counts, iou_value
from edgekit.data.metrics.options import metric_options
from edgekit.data.metrics.record import BlockFunction, Labels, Metric, Scores, Statistics, WholeSet
from edgekit.data.metrics.sequences import character_errors, ctc_exact_match, error_rate, word_errors
from edgekit.data.metrics.user import apply_metric, load_metric
from edgekit.errors import InputRejected

__all__ = [
    "MAX_SQNR_DB",
    "METRICS",
    "Labels",
    "Metric",
    "apply_metric",
    "find_metric",
    "load_metric",
    "metric_options",
    "noise_and_signal",
    "similarity",
]


def _answers(name: str, function: BlockFunction, source: str, labels: Labels = Labels.NEEDED) -> Metric:
    """Right or wrong answers, and the share of right ones."""
    return Metric(name, Scores(function), labels, "fraction", source, counts_answers=True)


METRICS: dict[str, Metric] = {
    m.name: m
    for m in (
        _answers("top-1", top_1, "ImageNet challenge, Russakovsky et al. 2015"),
        _answers("top-5", top_5, "ImageNet challenge, Russakovsky et al. 2015"),
        _answers("exact-match", exact_match, "SQuAD, Rajpurkar et al. 2016, on classes"),
        _answers("ctc-exact-match", ctc_exact_match, "best path decoding, Graves et al. 2006"),
        _answers("binary-accuracy", binary_accuracy, "(TP + TN) / all, Fawcett 2006; threshold 0.5 unless declared"),
        _answers("frame-accuracy", frame_accuracy, "segment-based accuracy, Mesaros et al. 2016"),
        _answers("pitch-50-cents", pitch_50_cents, "raw pitch accuracy, Salamon et al. 2014"),
        _answers("top-1-agreement", top_1_agreement, "argmax equal to the reference's", Labels.UNUSED),
        Metric("f1", Statistics(f1_counts, f1_value), Labels.OPTIONAL, "fraction", "van Rijsbergen 1979, chapter 7"),
        Metric(
            "iou",
            Statistics(iou_counts, iou_value),
            Labels.OPTIONAL,
            "fraction",
            "Jaccard 1912; mean over classes as PASCAL VOC",
        ),
        Metric(
            "cer",
            Statistics(character_errors, error_rate),
            Labels.NEEDED,
            "fraction",
            "Levenshtein 1966; rate as NIST sclite, on characters",
            lower_is_better=True,
            undefined="no label has a symbol",
        ),
        Metric(
            "wer",
            Statistics(word_errors, error_rate),
            Labels.NEEDED,
            "fraction",
            "Levenshtein 1966; rate as NIST sclite",
            lower_is_better=True,
            undefined="no label has a word",
        ),
        Metric(
            "auc",
            WholeSet(auc_rows, auc_value),
            Labels.NEEDED,
            "fraction",
            "area under the ROC curve, Hanley and McNeil 1982",
            undefined="the labels are all 0 or all 1",
        ),
        Metric(
            "map-50",
            WholeSet(detection_rows, mean_average_precision),
            Labels.NEEDED,
            "fraction",
            "PASCAL VOC 2010 on: all-point interpolation at IoU 0.5, Everingham et al. 2015",
            undefined="no sample has a labelled box",
        ),
        Metric("cosine", Scores(cosine), Labels.UNUSED, "cosine", "cosine similarity of the worst output"),
        Metric(
            "sqnr", Scores(sqnr), Labels.UNUSED, "dB", "signal over noise power, Jayant and Noll 1984; worst output"
        ),
        Metric(
            "max-abs",
            Scores(max_abs),
            Labels.UNUSED,
            "output value",
            "Chebyshev distance of the worst output, mean over samples",
            lower_is_better=True,
        ),
    )
}


def find_metric(spec: str, labelled: bool) -> Metric:
    """A built-in metric by name, or the user's `module:function` from the working directory. Raises InputRejected."""
    if ":" in spec:
        return load_metric(spec, Path.cwd(), labelled)
    if spec not in METRICS:
        raise InputRejected(f"unknown metric '{spec}'", where="--metric", next_step=did_you_mean(spec, METRICS))
    return METRICS[spec]
