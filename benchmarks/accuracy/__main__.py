"""edgekit's choice beside what plain ONNX Runtime, OpenVINO and NNCF make of the same model and data.

    python -m benchmarks.models ZOO
    python -m benchmarks.accuracy ZOO OUT --forbid bf16

What is in OUT already is read, not made again: remove OUT/MODEL.json to judge and race anew, OUT/MODEL/TOOL to build anew. An
interrupted run goes on where it was. A folder holds results of one set of options. Exit 1 when a bar is missed or a model could
not be measured.
"""

import argparse
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from benchmarks.accuracy.bench import Settings, find_case
from benchmarks.accuracy.measure import measure
from benchmarks.accuracy.records import Result
from benchmarks.accuracy.report import report
from benchmarks.accuracy.verdicts import BF16, conclude
from benchmarks.page import write_section
from edgekit.core.recipes import ONNXRUNTIME, OPENVINO
from edgekit.core.targets import host_target
from edgekit.devices.local import LocalDevice
from edgekit.errors import EdgekitError
from edgekit.measure import device_facts
from edgekit.sandbox import encode
from edgekit.store import write_atomic


def main() -> int:
    arguments = parsed()
    wanted = settings(arguments)
    check_versions()
    check_options(arguments.out, wanted)
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(143)
    )  # by an exception: what was started is killed on the way out
    zoo: Path = arguments.zoo
    names = arguments.only or ["digits", *sorted(path.parent.name for path in zoo.glob("*/model.onnx"))]
    results: list[Result] = []
    failed: list[str] = []
    for name in names:
        try:
            results.append(measure(find_case(name, zoo), arguments.out.absolute(), wanted, say(name)))
        except EdgekitError as error:
            failed.append(f"{name} was not measured: {error}.")
            print(failed[-1], flush=True)
    verdicts = conclude(results, arguments.forbid)
    text = report(results, verdicts, failed, arguments.date)
    print(text)
    if not arguments.no_page:
        write_section("accuracy", text)
    return 1 if failed or any(verdict.missed for verdict in verdicts) else 0


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    defaults = Settings()
    parser.add_argument("zoo", type=Path, help="a folder of benchmarks.models")
    parser.add_argument("out", type=Path, help="the folder that keeps builds and results")
    parser.add_argument("--only", nargs="+", help="names of folders in ZOO, or digits; all unless given")
    parser.add_argument("--forbid", choices=[BF16], default="", help="run edgekit a second time without it")
    parser.add_argument("--threads", type=int, default=0, help="of every inference; all unless given")
    parser.add_argument("--samples", type=int, help="of each split, at most: to try the script, not for figures")
    parser.add_argument("--nncf-limit", type=float, default=defaults.control_s, help="seconds for its accuracy control")
    parser.add_argument("--build-limit", type=float, default=defaults.build_s, help="seconds for every other build")
    parser.add_argument("--edgekit-limit", type=float, default=defaults.edgekit_s, help="seconds for a run of edgekit")
    parser.add_argument("--time-budget", default="", help="given to edgekit as it is")
    parser.add_argument("--memory-limit", type=float, default=defaults.memory_bytes / 2**30, help="GiB for a build")
    parser.add_argument("--seconds", type=float, default=defaults.race_s, help="of each artifact in the race's final")
    parser.add_argument("--rounds", type=int, default=defaults.rounds, help="of the race's final, at least")
    parser.add_argument("--date", default=f"{datetime.now(UTC):%Y-%m-%d}", help="of the figures; today unless given")
    parser.add_argument("--no-page", action="store_true", help="leave RESULTS.md as it is")
    arguments = parser.parse_args()
    if arguments.samples and not arguments.no_page:
        parser.error("figures of fewer samples are not written: add --no-page")
    return arguments


def settings(arguments: argparse.Namespace) -> Settings:
    return Settings(
        forbid=arguments.forbid,
        threads=arguments.threads,
        samples=arguments.samples,
        build_s=arguments.build_limit,
        control_s=arguments.nncf_limit,
        edgekit_s=arguments.edgekit_limit,
        memory_bytes=round(arguments.memory_limit * 2**30),
        race_s=arguments.seconds,
        rounds=arguments.rounds,
        time_budget=arguments.time_budget,
    )


def check_versions() -> None:
    """The tools build with what Python has installed, ekrun runs what edgekit ships: they must be the same. Exits if not."""
    ours = host_target(device_facts(LocalDevice())).engines
    others = [e for e in (ONNXRUNTIME, OPENVINO) if metadata.version(e) != ours.get(e)]
    if others:
        sys.exit(f"the tools have {others[0]} {metadata.version(others[0])}, edgekit {ours.get(others[0])}: install it")


def check_options(out: Path, wanted: Settings) -> None:
    """OUT holds what these options gave, or nothing yet; a run of edgekit may be added. Exits if not."""
    kept, text = out / "options.json", encode(replace(wanted, forbid="", tools=()))
    if kept.exists() and kept.read_bytes() != text:
        sys.exit(f"{out} holds results of other options ({kept.read_text()}): name another folder")
    write_atomic(kept, text)


def say(name: str) -> Callable[[str], None]:
    """Prints what is being done for a model, with the time: a run takes hours."""
    return lambda words: print(f"{datetime.now(UTC):%H:%M:%S} {name}: {words}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
