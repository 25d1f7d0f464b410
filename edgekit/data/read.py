"""Read a data set, check it against the model's inputs, and write the feed layout that ekrun reads.

- Feed layout: `<split>/<i>.npy` holds the model's input i, [samples, *shape] in C order, little-endian; `<split>/labels.npy` if
  labelled; `<split>/reset.npy`, uint8 [samples], 1 where a sequence starts, if there is state or sequences are declared.
- State inputs are zeros where a sequence starts; their files say so.
- Calibration, selection and evaluation never share a sample: what an earlier split holds is removed from the later ones.
- The same data give the same splits and the same bytes.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from edgekit.core.accuracy import MetricOptions
from edgekit.core.dataset import SPLITS, DataSetInfo, SplitInfo
from edgekit.core.types import TensorSpec
from edgekit.data.arrays import Array, Column
from edgekit.data.feed import BLOCK_BYTES, Feed, check_dtype, sample_digests, storage_dtype, write_feed, write_npy
from edgekit.data.manifest import FILE, did_you_mean
from edgekit.data.metrics import METRICS, metric_options
from edgekit.data.parts import WHOLE, Part, Source, fixed_shape
from edgekit.data.sources import open_source
from edgekit.errors import InputRejected, UsageError

SEED = 20261122
DEFAULT_METRIC_OPTIONS = MetricOptions()
MIN_SAMPLES = 4
# Ranges and histograms have settled long before this many samples; more only costs calibration time.
CALIBRATION_CAP = 500
MAX_FEED_BYTES = 7 << 30  # of one input in one split, as fed


@dataclass(frozen=True)
class _Split:
    """What will be written of one split: rows of a part, and which of them start a sequence."""

    part: Part
    feeds: Mapping[int, Feed]  # by the model's input index
    indices: Array
    starts: Array | None


def prepare_data(
    source: Path, inputs: list[TensorSpec], out: Path, samples: int | None, skip_bad: bool = False
) -> DataSetInfo:
    """Write the feed layout of `source` under `out`, at most `samples` a split. Raises InputRejected, UsageError.

    With `skip_bad`, single samples that can't be read are left out, of every input and the labels, and counted in a notice.
    """
    if samples is not None and samples < 1:
        raise UsageError(f"{samples} is not a number of samples", where="--samples")
    scratch = out / ".unpacked"
    scratch.mkdir(parents=True, exist_ok=True)
    try:
        found = open_source(source, inputs, scratch, skip_bad)
        notices = [*found.notices]
        splits = _splits(found, inputs, notices)
        labelled = _labelled(found)
        metric = _metric(found, labelled, str(source))
        options = metric_options(found.metric_options, f"{source}/{FILE} [metric_options]")
        splits = _limited(_disjoint(splits, notices, str(source)), samples, notices, str(source))
        if "calibration" in splits and len(splits["calibration"].indices) == 1:
            notices.append("calibrated on 1 sample: ranges are those of that sample")
        _check_bytes(splits, str(source))
        written = {name: _write(out / name, split) for name, split in splits.items()}
        _write_initial_state(out, written, found.state, inputs)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    info = describe(found.name, metric, labelled, written, found.state, inputs, notices, metric_options=options)
    return replace(info, contract=found.contracts)


def describe(
    name: str,
    metric: str,
    labelled: bool,
    splits: Mapping[str, SplitInfo],
    state: Mapping[str, str],
    inputs: list[TensorSpec],
    notices: list[str],
    synthetic: bool = False,
    metric_options: MetricOptions = DEFAULT_METRIC_OPTIONS,
) -> DataSetInfo:
    """The record of a written feed layout; its sha256 covers all that a measurement on it depends on."""
    fed = tuple(s.name for s in inputs if s.name not in state.values())
    digests = {key: split.sha256 for key, split in splits.items()}
    described: dict[str, object] = {"metric": metric, "state": dict(state), "inputs": fed, "splits": digests}
    if metric_options != DEFAULT_METRIC_OPTIONS:
        described["metric_options"] = asdict(metric_options)
    return DataSetInfo(
        name,
        digest(described),
        metric,
        labelled,
        dict(splits),
        fed,
        dict(state),
        tuple(notices),
        synthetic,
        metric_options,
    )


def digest(description: object) -> str:
    """SHA-256 of a description in canonical JSON."""
    return hashlib.sha256(json.dumps(description, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


# ----------------------------------------------------------------------------------------------------- what goes where


def _splits(found: Source, inputs: list[TensorSpec], notices: list[str]) -> dict[str, _Split]:
    """The declared splits, or a division of the whole."""
    if WHOLE in found.parts:
        part = found.parts[WHOLE]
        shares = shares_of(part, bool(found.state))
        counts = ", ".join(f"{len(rows)} {name}" for name, rows in shares.items())
        notices.append(f"no splits are declared: {part.count} samples were divided into {counts}")
        parts = {name: (part, rows) for name, rows in shares.items()}
    else:
        parts = {
            name: (found.parts[name], np.arange(found.parts[name].count)) for name in SPLITS if name in found.parts
        }
    splits = {}
    for name, (part, rows) in parts.items():
        feeds = {
            i: Feed(part.columns[spec.name], spec, found.contracts.get(spec.name))
            for i, spec in enumerate(inputs)
            if spec.name in part.columns
        }
        casts = (check_dtype(feed) for feed in feeds.values())
        notices.extend(cast for cast in casts if cast and cast not in notices)
        starts = _starts(part, bool(found.state))
        splits[name] = _Split(part, feeds, rows, None if starts is None else starts[rows])
    if found.state and not all(split.part.starts for split in splits.values()):
        notices.append("state without declared sequences: each split is one sequence")
    return splits


def shares_of(part: Part, has_state: bool) -> dict[str, Array]:
    """Rows of a whole set by split, no sequence cut in two. Raises InputRejected when there is too little to divide."""
    where = next(iter(part.columns.values())).where
    starts = _starts(part, has_state)
    if starts is None:
        return divide(part.count, _classes(part.labels), where)
    begins = np.flatnonzero(starts)
    sequences = np.split(np.arange(part.count), begins[1:])
    chosen = divide(len(begins), None, where, "sequences")
    return {name: np.concatenate([sequences[k] for k in units]) for name, units in chosen.items()}


def divide(count: int, classes: Array | None, where: str, units: str = "samples") -> dict[str, Array]:
    """Row numbers by split: a quarter for calibration (CALIBRATION_CAP at most), a quarter for selection, the rest for evaluation.

    Rows are dealt in a seeded random order; with `classes` each class is spread evenly over that order, which makes every split
    hold it in proportion. `units` names what is divided. Raises InputRejected below MIN_SAMPLES.
    """
    if count < MIN_SAMPLES:
        raise InputRejected(
            f"holds {count} {units}, too few to divide into {', '.join(SPLITS)}",
            where=where,
            next_step=f"give {MIN_SAMPLES} at least, or declare selection and evaluation in a {FILE}",
        )
    rng = np.random.default_rng(SEED)
    order = rng.permutation(count)
    if classes is not None:
        place = np.empty(count)
        for value in np.unique(classes):
            members = order[classes[order] == value]
            place[members] = (np.arange(len(members)) + rng.random()) / len(members)
        order = order[np.argsort(place[order], kind="stable")]
    quarter = count // 4
    ends = np.cumsum([min(quarter, CALIBRATION_CAP), quarter])
    return {name: np.sort(rows) for name, rows in zip(SPLITS, np.split(order, ends), strict=True)}


def _classes(labels: Column | None) -> Array | None:
    """Labels that are one integer a sample; None for any other kind."""
    if labels is None or labels.dtype.kind not in "biu" or int(np.prod(labels.shape)) != 1:
        return None
    return labels.take(np.arange(labels.count)).reshape(-1)


def _starts(part: Part, has_state: bool) -> Array | None:
    """uint8 [count], 1 where a sequence starts. Raises InputRejected when they are not zeros and ones that begin with a one."""
    if part.starts is None:
        return np.eye(1, part.count, dtype=np.uint8)[0] if has_state else None
    values = part.starts.take(np.arange(part.count))
    if values.ndim != 1 or not np.isin(values, (0, 1)).all() or values[0] != 1:
        raise InputRejected("must hold one 0 or 1 a sample and begin with 1", where=part.starts.where)
    return values.astype(np.uint8)


def _disjoint(splits: dict[str, _Split], notices: list[str], where: str) -> dict[str, _Split]:
    """Each split without the samples (or whole sequences) that an earlier one holds. Raises InputRejected when nothing is left."""
    seen: set[bytes] = set()
    result = {}
    for name, split in splits.items():
        units = _units(split)
        digests = sample_digests(split.feeds.values(), split.indices)
        keys = [hashlib.blake2b(b"".join(digests[unit]), digest_size=16).digest() for unit in units]
        kept = [unit for unit, key in zip(units, keys, strict=True) if key not in seen]
        seen.update(keys)
        if not kept:
            raise InputRejected(f"every sample of {name} also stands in an earlier split", where=where)
        if len(kept) < len(units):
            what = "samples" if split.starts is None else "sequences"
            notices.append(f"{len(units) - len(kept)} {what} of {name} were removed: an earlier split holds them")
        result[name] = _take(split, np.concatenate([np.arange(len(digests))[unit] for unit in kept]))
    return result


def _units(split: _Split) -> list[slice]:
    """What is kept or removed as one: a sample, or a whole sequence."""
    count = len(split.indices)
    begins = np.arange(count) if split.starts is None else np.flatnonzero(split.starts)
    return [slice(int(a), int(b)) for a, b in zip(begins, [*begins[1:], count], strict=True)]


def _take(split: _Split, chosen: Array) -> _Split:
    starts = None if split.starts is None else split.starts[chosen]
    return _Split(split.part, split.feeds, split.indices[chosen], starts)


def _limited(splits: dict[str, _Split], samples: int | None, notices: list[str], where: str) -> dict[str, _Split]:
    """At most `samples` of each split, drawn at random; of sequences the first. Raises InputRejected when no split has as many."""
    if samples is None:
        return splits
    counts = {name: len(split.indices) for name, split in splits.items()}
    text = ", ".join(f"{name} {count}" for name, count in counts.items())
    if samples > max(counts.values()):
        raise InputRejected(
            f"{samples} samples were asked for, but there are {text}",
            where=where,
            next_step="ask for fewer with --samples",
        )
    if samples > min(counts.values()):
        notices.append(f"not every split has {samples} samples: {text}")
    rng = np.random.default_rng(SEED)
    result = {}
    for name, split in splits.items():
        order = np.arange(counts[name]) if split.starts is not None else rng.permutation(counts[name])
        result[name] = _take(split, np.sort(order[:samples]))
    return result


def _check_bytes(splits: Mapping[str, _Split], where: str) -> None:
    """Raises InputRejected for what would not fit the disk's or the child process's bounds once it is fed."""
    for name, split in splits.items():
        for feed in split.feeds.values():
            size = len(split.indices) * math.prod(fixed_shape(feed.spec)) * storage_dtype(feed.spec).itemsize
            if size > MAX_FEED_BYTES:
                raise InputRejected(
                    f"{name} takes {size / 2**30:.1f} GiB as fed to '{feed.spec.name}', over {MAX_FEED_BYTES >> 30} GiB",
                    where=where,
                    next_step="use fewer with --samples",
                )


# ------------------------------------------------------------------------------------------------- labels and metric


def _labelled(found: Source) -> bool:
    """Both scored splits have labels, or neither. Raises InputRejected otherwise."""
    parts = [found.parts[name] for name in (WHOLE, "selection", "evaluation") if name in found.parts]
    labels = [part.labels for part in parts]
    if any(labels) and not all(labels):
        raise InputRejected("only one of selection and evaluation has labels", where=found.name)
    return all(labels)


def _metric(found: Source, labelled: bool, where: str) -> str:
    """The declared metric, else top-1 with labels and cosine without. A data set can't name code to be run."""
    if not found.metric:
        return "top-1" if labelled else "cosine"
    if found.metric not in METRICS:
        raise InputRejected(
            f"unknown metric '{found.metric}'", where=where, next_step=did_you_mean(found.metric, METRICS)
        )
    if METRICS[found.metric].needs_labels and not labelled:
        raise InputRejected(f"metric {found.metric} needs labels", where=where, next_step="add labels or choose cosine")
    return found.metric


# ------------------------------------------------------------------------------------------------------------- writing


def _write(folder: Path, split: _Split) -> SplitInfo:
    """Write one split; its digest is over the digests of its files."""
    folder.mkdir()
    files = {f"{i}.npy": write_feed(folder / f"{i}.npy", feed, split.indices) for i, feed in split.feeds.items()}
    if split.part.labels is not None:
        labels = split.part.labels
        shape = (len(split.indices), *labels.shape)
        blocks = _label_blocks(labels, split.indices)
        files["labels.npy"] = write_npy(folder / "labels.npy", labels.dtype.newbyteorder("<"), shape, blocks)
    if split.starts is not None:
        starts = split.starts.copy()
        starts[0] = 1
        files["reset.npy"] = write_npy(folder / "reset.npy", starts.dtype, starts.shape, [starts])
    return SplitInfo(len(split.indices), digest(files))


def _write_initial_state(
    out: Path, splits: Mapping[str, SplitInfo], state: Mapping[str, str], inputs: list[TensorSpec]
) -> None:
    """Zeros for every state input, which ekrun takes where a sequence starts; sparse files, whatever the number of samples."""
    for index, spec in enumerate(inputs):
        if spec.name in state.values():
            for name, split in splits.items():
                shape = (split.samples, *fixed_shape(spec))
                np.lib.format.open_memmap(out / name / f"{index}.npy", "w+", storage_dtype(spec), shape)


def _label_blocks(column: Column, indices: Array) -> Iterator[Array]:
    """NaN may mean "no label here"; infinity means nothing."""
    step = max(1, BLOCK_BYTES // max(1, int(np.prod(column.shape)) * column.dtype.itemsize))
    for start in range(0, len(indices), step):
        labels = column.take(indices[start : start + step])
        if labels.dtype.kind == "f" and np.isinf(labels).any():
            raise InputRejected("holds labels that are infinite", where=column.where)
        yield labels
