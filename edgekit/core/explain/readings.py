"""The figures of a run's candidates and of its points, each with its place in run.json. Pure.

- A candidate's figures are those the choice was made on (`core.choose.figures`): the target's if measured, else predicted.
- A point goes by its key: a candidate in another setting than the run's. Its answers are the candidate's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from edgekit.core.accuracy import Accuracy
from edgekit.core.choose import figures
from edgekit.core.explain.evidence import Reading, Unit, pointer
from edgekit.core.results import Figures, Origin, Outcome
from edgekit.core.run import Run
from edgekit.core.settle import figures_of
from edgekit.core.tradeoffs import Point, key


@dataclass(frozen=True)
class Readings:
    """What is read of one run; each method gives None where the run has no such figure of `name`, a candidate or a point."""

    run: Run

    @cached_property
    def _places(self) -> Mapping[str, int]:
        return {outcome.name: i for i, outcome in enumerate(self.run.outcomes)}

    @cached_property
    def points(self) -> Mapping[str, int]:
        """Where the points stand, by their keys."""
        found = self.run.exploration
        return {} if found is None else {key(point): i for i, point in enumerate(found.points)}

    def point(self, name: str) -> Point | None:
        """The point that goes by this name; None of a candidate."""
        found = self.run.exploration
        return found.points[self.points[name]] if found is not None and name in self.points else None

    def outcome(self, name: str) -> Outcome:
        """The candidate's, whatever the setting."""
        point = self.point(name)
        return self.run.outcomes[self._places[point.candidate if point is not None else name]]

    def figures(self, name: str) -> Figures | None:
        """What a choice looks at; None of what ran too seldom for a median."""
        point = self.point(name)
        if point is None:
            return figures(self.outcome(name), self.run.target_origin)
        return figures_of(point) if point.latency_ms.p50 is not None else None

    def at(self, name: str, *keys: str | int) -> str:
        """The pointer to a place within the candidate's outcome."""
        point = self.point(name)
        return pointer("outcomes", self._places[point.candidate if point is not None else name], *keys)

    def at_point(self, name: str, *keys: str) -> str:
        """The pointer to a place within a point."""
        return pointer("exploration", "points", self.points[name], *keys)

    def is_measured(self, name: str) -> bool:
        """Whether its figures were measured on the target."""
        numbers = self.figures(name)
        return numbers is not None and numbers.origin is Origin.TARGET

    def latency(self, name: str, percentile: str = "p50") -> Reading | None:
        """Of one request, in ms; a predicted p50 stands for every percentile."""
        return self._time(name, Unit.MS, "p50_ms", "latency_ms", percentile)

    def ratio(self, name: str) -> Reading | None:
        """The p50 over the reference's."""
        return self._time(name, Unit.FACTOR, "ratio", "ratio")

    def throughput(self, name: str) -> Reading | None:
        """Samples a second."""
        return self._time(name, Unit.PER_SECOND, "throughput_ips", "throughput_ips")

    def memory(self, name: str) -> Reading | None:
        """The peak of loading or of running, in bytes."""
        point, measurement = self.point(name), self.outcome(name).measurement
        if point is not None:
            return self._of_point(name, point.peak_memory_bytes, Unit.BYTES, "peak_memory_bytes")
        if not self.is_measured(name) or measurement is None:
            return self._time(name, Unit.BYTES, "peak_memory_bytes")
        phase = max(("peak_load_rss", "peak_inference_rss"), key=lambda phase: getattr(measurement.memory, phase) or 0)
        return self._reading(name, measurement.memory.peak, Unit.BYTES, "measurement", "memory", phase)

    def cold_start(self, name: str) -> Reading | None:
        """From the process's start to its first answer, in ms; None where it was predicted."""
        point, measurement = self.point(name), self.outcome(name).measurement
        if point is not None:
            return self._of_point(name, point.cold_start_ms, Unit.MS, "cold_start_ms")
        if not self.is_measured(name) or measurement is None:
            return None
        value = measurement.load.process_to_first_inference_ms
        return self._reading(name, value, Unit.MS, "measurement", "load", "process_to_first_inference_ms")

    def size(self, name: str) -> Reading | None:
        """Of all files of the artifact, in bytes."""
        point, artifact = self.point(name), self.outcome(name).artifact
        if point is not None:
            return self._of_point(name, point.size_bytes, Unit.BYTES, "size_bytes")
        if artifact is None:
            return None
        paths = tuple(self.at(name, "artifact", "files", i, "size_bytes") for i in range(len(artifact.files)))
        return Reading(artifact.size_bytes, Unit.BYTES, paths)

    def accuracy(self, name: str, field: str) -> Reading | None:
        """`drop`, `ci_low`, `ci_high` or `value`, in the metric's unit; `n`, a count."""
        accuracy = self.judged(name)
        if accuracy is None:
            return None
        unit = Unit.COUNT if field == "n" else Unit.METRIC
        return self._reading(name, getattr(accuracy, field), unit, "accuracy", field)

    def judged(self, name: str) -> Accuracy | None:
        """Its accuracy on the selection split."""
        return self.outcome(name).accuracy

    def _time(self, name: str, unit: Unit, predicted: str, *measured: str) -> Reading | None:
        """A field of the measurement, or of the point, or else of the prediction."""
        point, outcome = self.point(name), self.outcome(name)
        if point is not None:
            return self._of_point(name, _inside(point, measured), unit, *measured)
        if self.is_measured(name) and measured:
            return self._reading(name, _inside(outcome.measurement, measured), unit, "measurement", *measured)
        return self._reading(name, getattr(outcome.prediction, predicted, None), unit, "prediction", predicted)

    def _of_point(self, name: str, value: float | None, unit: Unit, *keys: str) -> Reading | None:
        return None if value is None else Reading(value, unit, (self.at_point(name, *keys),))

    def _reading(self, name: str, value: float | None, unit: Unit, *keys: str) -> Reading | None:
        return None if value is None else Reading(value, unit, (self.at(name, *keys),))


def _inside(record: object, fields: tuple[str, ...]) -> float | None:
    for field in fields:
        record = getattr(record, field)
    assert record is None or isinstance(record, float | int)
    return record
