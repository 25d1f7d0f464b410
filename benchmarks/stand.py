"""A model's candidates as `edgekit optimize` has them when it begins to search settings, and rounds of points of them."""

import contextlib
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgekit.core.elimination import Track
from edgekit.core.plan import Facts, make_plan
from edgekit.core.recipes import REFERENCE
from edgekit.core.results import Outcome
from edgekit.core.run import Noise
from edgekit.core.shapes import parse_shape
from edgekit.core.types import Requirements
from edgekit.devices.local import LocalDevice
from edgekit.flow.aim import take_aim
from edgekit.flow.build import build_all, refusals
from edgekit.flow.clock import Job, measure_all
from edgekit.flow.judge import Judge, judge_all
from edgekit.flow.materials import Options, gather
from edgekit.flow.points import Space
from edgekit.flow.sample import sample_model
from edgekit.flow.workshop import SELECTION, Made, Workshop, builder_versions
from edgekit.heat import Entry, Heat, Ran
from edgekit.measure import device_facts, fact_sheet
from edgekit.store import Cache, default_cache


@dataclass(frozen=True)
class Stand:
    """A model with its candidates, judged and raced, on this machine. `last` has each point's last turn."""

    name: str
    shop: Workshop
    job: Job
    made: dict[str, Made]
    outcomes: tuple[Outcome, ...]
    noise: Noise | None
    last: dict[str, Ran]

    def space(self) -> Space:
        """The points there are."""
        return Space(self.shop, self.job, self.made, self.outcomes, fact_sheet(self.shop.device), 1.02)

    def rounds(self, entries: Sequence[Entry], rounds: int, turn_ms: float) -> dict[str, Track]:
        """So many rounds of all, alive at a time, each round beginning with another one."""
        tracks = {entry.name: Track(entry.name, 0, None) for entry in entries}
        with Heat(self.shop.device) as heat:
            for i in range(rounds):
                say(f"{self.name}: round {i + 1} of {', '.join(tracks)}")
                shift = i % len(entries)
                for entry in [*entries[shift:], *entries[:shift]]:
                    self.last[entry.name] = heat.turn(entry, turn_ms)
                    tracks[entry.name].add((0, i), self.last[entry.name].turn)
        return tracks


@contextlib.contextmanager
def stand(name: str, zoo: Path, forbid: tuple[str, ...] = ()) -> Iterator[Stand]:
    """Build, judge and race all candidates of ZOO's model, or of the shipped `sample`."""
    model, data = sample_model(Path.cwd()) if name == "sample" else (zoo / name / "model.onnx", zoo / name / "data")
    arguments = zoo / name / "args.toml"
    shapes = tomllib.loads(arguments.read_text())["shape"] if arguments.exists() else ()
    requirements = Requirements(forbid=forbid)
    store = Cache(default_cache())
    with store.scratch() as scratch:
        shop = Workshop(store, scratch, LocalDevice(scratch), say, fresh=True)
        aim = take_aim("host", None, device_facts(shop.host), Path.cwd())
        info, materials = gather(shop, model, data, Options(shapes=dict(map(parse_shape, shapes))))
        info = replace(info, refusals=refusals(aim.target.engines, materials.model, say))
        threads = shop.facts.usable_threads
        facts = Facts(materials.model_sha256, shop.facts.isa, materials.calibration_sha256, builder_versions(), threads)
        made, outcomes = build_all(shop, make_plan(info, aim.target, requirements, facts), materials, info)
        judge = Judge(shop, materials, made[REFERENCE], Path.cwd())
        outcomes = judge_all(judge, shop, made, outcomes, SELECTION)
        job = Job(info, materials, aim.target, aim.origin, requirements)
        outcomes, noise = measure_all(shop, job, made, outcomes)
        yield Stand(name, shop, job, dict(made), outcomes, noise, {})


def say(text: str) -> None:
    """Progress on one line."""
    print(f"\r{text[:100]:<100}", end="", file=sys.stderr, flush=True)
