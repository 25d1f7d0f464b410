"""What a report is made of: a run, and the profiles that were taken of its artifact or its model. Records only."""

from dataclasses import dataclass

from edgekit.core.profile_run import Profile
from edgekit.core.run import Run


@dataclass(frozen=True)
class Profiled:
    """A profile with its raw latencies, in the order of their starts; both empty where nothing was timed."""

    profile: Profile
    starts_ns: tuple[int, ...] = ()
    latencies_ns: tuple[int, ...] = ()


@dataclass(frozen=True)
class Dossier:
    """A run with the name of its folder, and profiles in the order in which they were given."""

    run: Run
    name: str
    profiles: tuple[Profiled, ...] = ()
