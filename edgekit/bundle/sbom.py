"""The software bill of materials of a bundle: CycloneDX 1.6 as JSON, the same bytes for the same contents.

- a component is what has a maker, a version and a licence of its own; below it stand its files, each by path and SHA-256;
- the serial number is a UUID of version 5 over the components, and the time is that of every entry of the container, the epoch:
  both are random or the clock's by default, and no two builds would be alike;
- what a maker has linked into a library is in that maker's third-party notices, below licences/.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL

from edgekit.core.types import content_digest

FILE: Final = "sbom.cdx.json"

APPLICATION: Final = "application"
LIBRARY: Final = "library"
MODEL: Final = "machine-learning-model"
DATA: Final = "data"

_NAMESPACE: Final = uuid.uuid5(uuid.NAMESPACE_URL, "urn:edgekit:bundle")


@dataclass(frozen=True)
class Part:
    """A component: `kind` is one of the above, `licence` an SPDX expression, a name, or empty, `package` its name on PyPI or empty.

    `files` are paths in the bundle with their SHA-256.
    """

    kind: str
    name: str
    version: str
    licence: str
    files: Sequence[tuple[str, str]]
    package: str = ""


def sbom(application: str, version: str, parts: Sequence[Part]) -> bytes:
    """The document of the bundle of `application`, which holds `parts`."""
    whole = Component(name=application, version=version, type=ComponentType.APPLICATION, bom_ref="bundle")
    serial = uuid.uuid5(_NAMESPACE, content_digest([application, version, parts]))
    bom = Bom(components=map(_component, parts), serial_number=serial)
    bom.metadata.component = whole
    bom.metadata.timestamp = datetime.fromtimestamp(0, UTC)
    bom.register_dependency(whole, bom.components)
    text = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=1)
    return f"{text}\n".encode()


def _component(part: Part) -> Component:
    return Component(
        name=part.name,
        version=part.version,
        type=ComponentType(part.kind),
        bom_ref=f"{part.kind}:{part.name}",
        licenses=[LicenseFactory().make_from_string(part.licence)] if part.licence else [],
        purl=PackageURL("pypi", name=part.package, version=part.version) if part.package else None,
        components=[_file(path, sha256) for path, sha256 in part.files],
    )


def _file(path: str, sha256: str) -> Component:
    return Component(
        name=path,
        type=ComponentType.FILE,
        bom_ref=f"file:{path}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=sha256)],
    )
