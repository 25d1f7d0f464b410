"""The user's own metric, and the one place where a metric is called: whatever it does wrong is one clear line."""

import importlib
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.core.accuracy import MetricOptions
from edgekit.data.manifest import did_you_mean
from edgekit.data.metrics.record import Array, Labels, Metric, Outputs, Rows, Scores, Statistics
from edgekit.errors import InputRejected


def load_metric(spec: str, cwd: Path, labelled: bool = True) -> Metric:
    """Import `module:function` with `cwd` first on the path; with labels it is a task metric. Raises InputRejected.

    It is called as `function(outputs, reference, labels)` and returns scores, higher is better unless the function has an attribute
    `lower_is_better = True`. It runs with the user's rights, inside the sandbox's limits.
    """
    module_name, _, name = spec.partition(":")
    if not re.fullmatch(r"[A-Za-z_][\w.]*", module_name) or not name.isidentifier():
        raise InputRejected(f"'{spec}' is not module:function", where="--metric")
    sys.path.insert(0, str(cwd))
    try:
        function = getattr(importlib.import_module(module_name), name, None)
    except (Exception, SystemExit) as error:  # the user's module may raise anything
        raise InputRejected(f"cannot be imported: {_one_line(error)}", where=f"--metric {spec}") from error
    finally:
        sys.path.remove(str(cwd))
    if not callable(function):
        raise InputRejected(f"'{module_name}' has no function '{name}'", where=f"--metric {spec}")

    def scores(outputs: Outputs, reference: Outputs, labels: Array | None, options: MetricOptions) -> Array:
        found = np.asarray(function(outputs, reference, labels), dtype=np.float64)
        if not np.isfinite(found).all():
            raise InputRejected("returned a score that is not finite")
        return found

    lower = getattr(function, "lower_is_better", False) is True
    use = Labels.NEEDED if labelled else Labels.UNUSED
    return Metric(spec, Scores(scores), use, "fraction", "the user's own", counts_answers=True, lower_is_better=lower)


def apply_metric(
    metric: Metric, outputs: Outputs, reference: Outputs, labels: Array | None, options: MetricOptions
) -> Array | Rows:
    """What the metric's function says of a block of n samples, checked.

    Scores come as float64 [n, positions], statistics as float64 [n, 1 + k]. Raises InputRejected when the declared output is not
    there, the function fails or what it returns is of no use.
    """
    outputs, reference = _shown(outputs, options), _shown(reference, options)
    n = len(next(iter(reference.values())))
    where = f"metric {metric.name}"
    try:
        found: Any = metric.form.function(outputs, reference, labels, options)
        if not isinstance(found, Rows):
            found = np.asarray(found, dtype=np.float64)
    except InputRejected as error:
        raise InputRejected(error.what, where=where, next_step=error.next_step) from error
    except (Exception, SystemExit) as error:  # the user's function may raise anything
        raise InputRejected(f"failed: {_one_line(error)}", where=where) from error
    if isinstance(found, Rows):
        return found
    wanted = (2,) if isinstance(metric.form, Statistics) else (1, 2)
    if found.ndim not in wanted or len(found) != n or found.size == 0:
        raise InputRejected(f"returned shape {list(found.shape)} for {n} samples, not [{n}]", where=where)
    if np.isinf(found).any():
        raise InputRejected("returned a score that is not finite", where=where)
    scores: Array = found.reshape(n, -1)
    return scores


def _shown(outputs: Outputs, options: MetricOptions) -> Outputs:
    """The outputs that the metric gets to see: all, or the declared one."""
    if options.output is None:
        return outputs
    if options.output not in outputs:
        what, hint = f"the model has no output '{options.output}'", did_you_mean(options.output, outputs)
        raise InputRejected(what, where="[metric_options] output", next_step=hint)
    return {options.output: outputs[options.output]}


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
