"""A gate as JUnit XML, which CI systems show check by check.

- It is valid by both schemas that readers go by, Apache Ant's (JUnit.xsd) and that of Jenkins (junit-10.xsd): so the totals stand
  on the suite alone, and what passed is told in the suite's output, not in the test case's.
- A check that failed is a `failure`; one that was not measured or is undecided an `error`: neither wrong nor right was shown.
- Names may be anything a model's author wrote: control characters, which XML can't hold, are escaped; the rest the writer escapes.
- The same gate at the same moment gives the same bytes.
"""

import time
from xml.etree import ElementTree as Xml

from edgekit.core.checks import Check, Gate, Status
from edgekit.errors import EdgekitError, printable

SUITE = "edgekit gate"
HOST = "localhost"  # the schema's word where a name says nothing: the run names its device


def junit(gate: Gate, written_s: float) -> bytes:
    """The report of a gate that was held, `written_s` seconds since 1970."""
    failures = sum(check.status is Status.FAILED for check in gate.checks)
    passed = sum(check.status is Status.PASSED for check in gate.checks)
    told = {"run": gate.run, "baseline": gate.baseline or "", "policy": gate.policy, "chosen": gate.chosen or ""}
    top, suite = _suite(written_s, len(gate.checks), failures, len(gate.checks) - failures - passed)
    _properties(suite, {**told, "model": gate.model_name, "target": gate.target})
    for check in gate.checks:
        _case(suite, gate, check)
    lines = [f"{check.key}: {check.status.value}: {_told(check)}" for check in gate.checks]
    return _bytes(top, suite, [*lines, *gate.notices])


def junit_of_error(error: EdgekitError, run: str, written_s: float) -> bytes:
    """The report of a gate that could not be held at all."""
    top, suite = _suite(written_s, 1, 0, 1)
    _properties(suite, {"run": run})
    case = Xml.SubElement(suite, "testcase", classname=f"edgekit.{printable(run)}", name="gate", time="0")
    Xml.SubElement(case, "error", type=type(error).__name__, message=str(error)).text = str(error)
    return _bytes(top, suite, [])


def _suite(written_s: float, tests: int, failures: int, errors: int) -> tuple[Xml.Element, Xml.Element]:
    counts = {"tests": str(tests), "failures": str(failures), "errors": str(errors), "skipped": "0", "time": "0"}
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(written_s))
    named = {"name": SUITE, "package": "edgekit", "id": "0", "timestamp": moment, "hostname": HOST}
    top = Xml.Element("testsuites")
    return top, Xml.SubElement(top, "testsuite", {**named, **counts})


def _properties(suite: Xml.Element, told: dict[str, str]) -> None:
    properties = Xml.SubElement(suite, "properties")
    for name, value in told.items():
        Xml.SubElement(properties, "property", name=name, value=printable(value))


def _case(suite: Xml.Element, gate: Gate, check: Check) -> None:
    name = f"{check.key}: {check.asked}"
    case = Xml.SubElement(suite, "testcase", classname=f"edgekit.{printable(gate.run)}", name=printable(name), time="0")
    if check.status is Status.PASSED:
        return
    kind, text = "failure" if check.status is Status.FAILED else "error", printable(_told(check))
    Xml.SubElement(case, kind, type=check.status.value, message=f"{check.status.value}: {text}").text = text


def _told(check: Check) -> str:
    return ": ".join(filter(None, (check.found, check.reason)))


def _bytes(top: Xml.Element, suite: Xml.Element, lines: list[str]) -> bytes:
    Xml.SubElement(suite, "system-out").text = "\n".join(map(printable, lines))
    Xml.SubElement(suite, "system-err")
    Xml.indent(top)
    text: str = Xml.tostring(top, encoding="unicode")
    return f"<?xml version='1.0' encoding='utf-8'?>\n{text}\n".encode()
