"""What a bundle requires, against what a device says of itself, before a byte of it is sent.

- what the device does not tell refuses nothing: it is a notice, and the self-test there decides;
- all refusals are collected: nobody should have to mend one to see the next.
"""

from edgekit.core.compat import Refusal
from edgekit.core.facts import FactSheet
from edgekit.core.manifest import Requires
from edgekit.core.targets import version_key
from edgekit.errors import TargetIncompatible


def admit_bundle(requires: Requires, facts: FactSheet, where: str = "") -> tuple[str, ...]:
    """Let a bundle pass, with notices of what could not be checked, or raise TargetIncompatible with all that is in its way."""
    if found := bundle_refusals(requires, facts):
        what = "; ".join(refusal.what for refusal in found)
        raise TargetIncompatible(what, where=where, next_step="; ".join(dict.fromkeys(r.fix for r in found)))
    untold = (
        ("glibc version", facts.glibc is None),
        ("libstdc++ version", bool(requires.libstdcxx) and facts.libstdcxx is None),
        ("CPU features", bool(requires.isa) and not facts.isa),
    )
    return tuple(
        f"the device does not tell its {what}: not checked before the self-test" for what, yes in untold if yes
    )


def bundle_refusals(requires: Requires, facts: FactSheet) -> tuple[Refusal, ...]:
    """Everything that is known to be in the way; on another architecture nothing else is worth saying."""
    if requires.arch != facts.arch:
        what = f"the bundle is for {requires.arch}, the device is {facts.arch}"
        return (Refusal(what, "make a bundle with --target of the device's kind"),)
    found = []
    if missing := [name for name in requires.isa if facts.isa and name not in facts.isa]:
        what = f"the bundle needs a CPU with {', '.join(missing)}, which this one lacks"
        found.append(Refusal(what, "make a bundle with --target of the device's kind"))
    if _older(facts.glibc, requires.glibc):
        what = f"the bundle needs glibc {requires.glibc}, the device has {facts.glibc}"
        found.append(Refusal(what, "update the device's system, or make a bundle for a target with its glibc"))
    if _older(facts.libstdcxx, requires.libstdcxx):
        what = f"the bundle needs libstdc++ with GLIBCXX_{requires.libstdcxx}, the device's ends at {facts.libstdcxx}"
        found.append(Refusal(what, "`edgekit bundle --libstdcxx DIR` carries one"))
    return tuple(found)


def _older(has: str | None, needs: str) -> bool:
    return has is not None and needs != "" and version_key(has) < version_key(needs)
