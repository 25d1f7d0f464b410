"""What is wished for, key by key: from `requirements.toml` and from the command line, which wins. Pure text to one record.

- One table has every key: its flag, and how its value is read. What a file can say a flag can say, and the other way round.
- The text is untrusted: bounded, every value checked for its type, unit and range, unknown keys refused with the likeliest one.
- What is wrong in a file is InputRejected and names the file and the key; what is wrong in a flag is UsageError and names the flag.
  A contradiction names both of its places; it is the flag's fault where there is one.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from edgekit.core import requirements as parse
from edgekit.core.conflicts import GOVERNORS, SCENARIOS, Conflict, conflicts
from edgekit.core.plan import forbiddable
from edgekit.core.tomltable import TomlTable, did_you_mean, read_toml
from edgekit.core.types import Arrivals, LatencyBudget, Prefer, Requirements, Sources
from edgekit.errors import EdgekitError, InputRejected, UsageError

SCHEMA = 1
HELP_PAGE = "docs/requirements.md"


@dataclass(frozen=True)
class Wish:
    """One stated value, and where it was stated: the flag, or the file and its key."""

    value: Any
    where: str
    by_flag: bool


@dataclass(frozen=True)
class Settled:
    """What all wishes come to. `metric` replaces that of the data set; None where none was named."""

    requirements: Requirements
    metric: str | None


@dataclass(frozen=True)
class _Budget:
    """A limit, with its percentile where the same text names one."""

    limit_ms: float
    percentile: str | None


def _text(read: Callable[[str, str], Any], example: str) -> Callable[[Any, str], Any]:
    def reader(value: Any, where: str) -> Any:
        if not isinstance(value, str):
            raise UsageError("must be text", where=where, next_step=f'for example "{example}"')
        return read(value, where)

    return reader


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UsageError("must be a number", where=where)
    try:
        return float(value)
    except OverflowError as error:
        raise UsageError("is no number of this world", where=where) from error


def _positive(value: Any, where: str) -> float:
    return parse.positive(_number(value, where), where)


def _not_negative(value: Any, where: str) -> float:
    return parse.not_negative(_number(value, where), where)


def _count(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1 << 20:
        raise UsageError(f"must be a whole number from 1 to {1 << 20}", where=where)
    return value


def _rate(value: Any, where: str) -> float:
    return parse.parse_rate(value, where) if isinstance(value, str) else _positive(value, where)


def _flag(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise UsageError("must be true or false", where=where)
    return value


def _budget(text: str, where: str) -> _Budget:
    read = parse.parse_latency(text, where)
    return _Budget(read.limit_ms, read.percentile if ":" in text else None)


def _cores(value: Any, where: str) -> tuple[int, str]:
    """How many, and the list of cpus where one is given: `2`, or `"0-1"`. A flag's lone number is a number of cores."""
    if isinstance(value, str) and not value.strip().isdecimal():
        return parse.parse_cpus(value, where)
    return _count(int(value) if isinstance(value, str) and len(value) < 9 else value, where), ""


def _prefer(value: Any, where: str) -> dict[Prefer, float]:
    if isinstance(value, dict):
        return parse.parse_weights({word: _number(weight, f"{where}.{word}") for word, weight in value.items()}, where)
    return _text(parse.parse_prefer, "memory")(value, where)  # type: ignore[no-any-return]  # what parse_prefer returns


def _forbid(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(word, str) for word in value):
        raise UsageError("must be a list of text", where=where)
    return parse.parse_forbid(tuple(value), forbiddable(), where)


def _one_of(known: Iterable[str], what: str, example: str) -> Callable[[Any, str], Any]:
    words = tuple(known)
    return _text(lambda text, where: parse.parse_word(text, where, words, what), example)


@dataclass(frozen=True)
class Key:
    """A key's flag on the command line, and what reads its value: given the value and where it stands."""

    flag: str
    read: Callable[[Any, str], Any]


KEYS: Mapping[str, Key] = {
    "latency.budget": Key("--latency-budget", _text(_budget, "20ms")),
    "latency.percentile": Key("--latency-percentile", _text(parse.parse_percentile, "p99")),
    "latency.scenario": Key("--scenario", _one_of(SCENARIOS, "scenario", "single-stream")),
    "latency.rate": Key("--arrival-rate", _rate),
    "throughput.min": Key("--min-throughput", _positive),
    "data.metric": Key("--metric", _text(lambda text, _: text, "top-1")),
    "data.max_drop": Key("--max-drop", _not_negative),
    "data.frame_rate": Key("--frame-rate", _rate),
    "data.sample_rate": Key("--sample-rate", _rate),
    "data.hop": Key("--hop", _count),
    "data.sources": Key("--sources", _count),
    "data.batchable": Key("--batchable", _flag),
    "infrastructure.memory": Key("--max-memory", _text(parse.parse_bytes, "128MiB")),
    "infrastructure.storage": Key("--max-size", _text(parse.parse_bytes, "20MiB")),
    "infrastructure.cores": Key("--cores", _cores),
    "infrastructure.power_mode": Key("--power-mode", _one_of(GOVERNORS, "power mode", "performance")),
    "infrastructure.cold_start": Key("--max-cold-start", _text(parse.parse_milliseconds, "500ms")),
    "prefer": Key("--prefer", _prefer),
    "forbid": Key("--forbid", _forbid),
}
SECTIONS = tuple(dict.fromkeys(key.partition(".")[0] for key in KEYS if "." in key))
ALONE = tuple(key for key in KEYS if "." not in key)


def read_flags(given: Mapping[str, Any]) -> dict[str, Wish]:
    """Wishes from the values of flags by their keys; None was not given. Raises UsageError."""
    stated = {key: value for key, value in given.items() if value is not None}
    return {key: Wish(KEYS[key].read(value, KEYS[key].flag), KEYS[key].flag, True) for key, value in stated.items()}


def read_file(text: str, file: str) -> dict[str, Wish]:
    """Wishes from the text of a `requirements.toml` called `file`. Raises InputRejected."""
    top = read_toml(text, file, HELP_PAGE)
    if (schema := top.integer("schema", 1, 1 << 16)) != SCHEMA:
        raise InputRejected(
            f"schema {schema} is not known", where=file, next_step=f"this edgekit reads schema {SCHEMA}"
        )
    found: dict[str, Wish] = {}
    for name in top:
        if name in SECTIONS:
            table = top.table(name)
            found |= {f"{name}.{key}": _wish(table, key, f"{name}.{key}", file) for key in table}
        elif name in ALONE:
            found[name] = _wish(top, name, name, file)
        elif name != "schema":
            raise top.wrong(name, f"unknown key{_meant(name, (*SECTIONS, *ALONE))}")
    return found


def _wish(table: TomlTable, name: str, key: str, file: str) -> Wish:
    if key not in KEYS:
        section = key.partition(".")[0]
        raise table.wrong(
            name, f"unknown key{_meant(name, [k.partition('.')[2] for k in KEYS if k.startswith(section)])}"
        )
    try:
        return Wish(KEYS[key].read(table.value(name), key), f"{file}: {key}", False)
    except UsageError as error:
        raise InputRejected(f"{error.where}: {error.what}", where=file, next_step=error.next_step) from error


def _meant(name: str, near: Iterable[str]) -> str:
    """The likeliest key beside it; else the one of that name in another section."""
    if close := did_you_mean(name, tuple(near)):
        return close
    elsewhere = [key for key in KEYS if key.endswith(f".{name}")]
    return f", did you mean {elsewhere[0]!r}?" if elsewhere else did_you_mean(name, tuple(KEYS))


def settle(file: Mapping[str, Wish], flags: Mapping[str, Wish]) -> Settled:
    """One record of all wishes; flags win over the file. Raises UsageError or InputRejected for a contradiction."""
    wishes = {**_left(file, flags), **flags}
    said = {key: wish.value for key, wish in wishes.items()}
    for conflict in _among(said):
        raise _refusal(conflict, wishes)
    cores, cpus = said.get("infrastructure.cores", (None, ""))
    preferred: dict[Prefer, float] = said.get("prefer", {Prefer.LATENCY: 1.0})
    requirements = Requirements(
        max_drop=said.get("data.max_drop", Requirements().max_drop),
        latency=_latency(said),
        min_throughput_ips=said.get("throughput.min"),
        max_memory_bytes=said.get("infrastructure.memory"),
        max_size_bytes=said.get("infrastructure.storage"),
        prefer=next(iter(preferred)),
        forbid=said.get("forbid", ()),
        arrivals=_arrivals(said),
        sources=_sources(said),
        batchable=said.get("data.batchable"),
        max_cold_start_ms=said.get("infrastructure.cold_start"),
        max_cores=cores,
        cpus=cpus,
        power_mode=said.get("infrastructure.power_mode", ""),
        weights=preferred if len(preferred) > 1 else {},
    )
    for conflict in conflicts(requirements):
        raise _refusal(conflict, wishes)
    return Settled(requirements, said.get("data.metric"))


def _left(file: Mapping[str, Wish], flags: Mapping[str, Wish]) -> Mapping[str, Wish]:
    """The file's wishes but for a percentile that a flag's budget names itself."""
    budget = flags.get("latency.budget")
    named = budget is not None and budget.value.percentile is not None
    return {key: wish for key, wish in file.items() if not (named and key == "latency.percentile")}


def _latency(said: Mapping[str, Any]) -> LatencyBudget | None:
    budget: _Budget | None = said.get("latency.budget")
    if budget is None:
        return None
    return LatencyBudget(
        budget.limit_ms, budget.percentile or said.get("latency.percentile", LatencyBudget(1).percentile)
    )


def _arrivals(said: Mapping[str, Any]) -> Arrivals | None:
    return Arrivals(said["latency.scenario"], said.get("latency.rate")) if "latency.scenario" in said else None


def _sources(said: Mapping[str, Any]) -> Sources | None:
    names = ("data.frame_rate", "data.sample_rate", "data.hop", "data.sources")
    frames, rate, hop, count = (said.get(name) for name in names)
    return Sources(frames, rate, hop, count or 1) if any(name in said for name in names) else None


def _among(said: Mapping[str, Any]) -> Iterable[Conflict]:
    """Contradictions that the record of requirements could not even hold."""
    keys = ("latency.percentile", "latency.budget")
    budget: _Budget | None = said.get("latency.budget")
    if "latency.percentile" in said and budget is None:
        yield Conflict(keys, "a percentile of the latency is stated, and no budget", "state the budget")
    elif budget is not None and budget.percentile not in (None, said.get("latency.percentile", budget.percentile)):
        what = f"the budget is of {budget.percentile}, and the percentile {said['latency.percentile']}"
        yield Conflict(keys, what, "state one of the two")
    if "latency.rate" in said and "latency.scenario" not in said:
        what = f"requests come at {said['latency.rate']:g}/s, and it is not said how"
        yield Conflict(("latency.rate",), what, "state the scenario, fixed-rate or server")


def _refusal(conflict: Conflict, wishes: Mapping[str, Wish]) -> EdgekitError:
    places = [wishes[key] for key in conflict.keys if key in wishes]
    kind = UsageError if any(place.by_flag for place in places) else InputRejected
    return kind(conflict.what, where=" and ".join(place.where for place in places), next_step=conflict.next_step)
