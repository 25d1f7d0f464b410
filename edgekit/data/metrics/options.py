"""`[metric_options]` of data.toml as the record that metrics take."""

import math
from collections.abc import Mapping
from dataclasses import fields

import msgspec

from edgekit.core.accuracy import MetricOptions
from edgekit.data.manifest import did_you_mean
from edgekit.errors import InputRejected


def metric_options(table: Mapping[str, object], where: str) -> MetricOptions:
    """The options a data set declares. Raises InputRejected for an unknown key or a value of another type."""
    known = [field.name for field in fields(MetricOptions)]
    for key in table:
        if key not in known:
            raise InputRejected(f"unknown key '{key}'", where=where, next_step=did_you_mean(key, known))
    try:
        options = msgspec.convert(dict(table), MetricOptions)
    except msgspec.ValidationError as error:
        raise InputRejected(str(error), where=where) from error
    if not math.isfinite(options.threshold):
        raise InputRejected("threshold must be finite", where=where)
    return options
