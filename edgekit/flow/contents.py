"""What is in a bundle, for whoever holds the file: read through, every digest checked, whoever signed it."""

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from edgekit import sandbox
from edgekit.bundle.container import UNSIGNED, Admit, Write, reading
from edgekit.bundle.keys import check_signature, split_line
from edgekit.bundle.provenance import FIGURES_FILE, PROVENANCE_FILE
from edgekit.bundle.trust import Signer, Trust, TrustFile
from edgekit.core.deployment import DEPLOYMENT_FILE, FORMAT, Deployment
from edgekit.core.manifest import BundleFile, Manifest

MAX_DOCUMENT_BYTES = 1 << 20

Signature = Literal["trusted", "revoked", "not trusted", "unsigned"]


@dataclass(frozen=True)
class Contents:
    """A whole bundle's head and documents; a document is None where there is none, or none that this edgekit reads."""

    manifest: Manifest
    manifest_sha256: str
    signature: Signature
    signer: Signer | None
    deployment: Deployment | None
    figures: dict[str, Any] | None
    provenance: dict[str, Any] | None


def contents(bundle: Path, trust_file: Path) -> Contents:
    """Read all of a bundle. Raises VerificationFailed for one that is damaged, or whose signature does not hold.

    Who signed it decides nothing here: it is said.
    """
    trust = TrustFile(trust_file).read()
    with reading(bundle, _holds(trust)) as reader:
        kept: dict[str, io.BytesIO] = {}

        @contextlib.contextmanager
        def place(file: BundleFile) -> Iterator[Write]:
            wanted = file.path in (DEPLOYMENT_FILE, FIGURES_FILE, PROVENANCE_FILE) and file.size <= MAX_DOCUMENT_BYTES
            yield kept.setdefault(file.path, io.BytesIO()).write if wanted else len

        reader.files(place)
    verified, signer = reader.verified, reader.signer
    documents = {path: stream.getvalue() for path, stream in kept.items()}
    return Contents(
        verified.manifest,
        verified.manifest_sha256,
        _signature(signer, trust),
        signer,
        parse_deployment(documents.get(DEPLOYMENT_FILE, b"")),
        parse_document(documents.get(FIGURES_FILE, b"")),
        parse_document(documents.get(PROVENANCE_FILE, b"")),
    )


def _holds(trust: Trust) -> Admit:
    """An Admit of any signature that holds."""

    def admit(text: bytes, line: bytes) -> Signer | None:
        if line == UNSIGNED:
            return None
        public, signature = split_line(line)
        check_signature(public, signature, text)
        return Signer(trust.trusted.get(public) or trust.revoked.get(public, ""), public)

    return admit


def _signature(signer: Signer | None, trust: Trust) -> Signature:
    if signer is None:
        return "unsigned"
    if signer.public in trust.revoked:
        return "revoked"
    return "trusted" if signer.public in trust.trusted else "not trusted"


def parse_deployment(data: bytes) -> Deployment | None:
    """What `deployment.json` says, None for one that this edgekit does not read."""
    try:
        found: Deployment = sandbox.decode(data, Deployment)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return found if found.format == FORMAT else None


def parse_document(data: bytes) -> dict[str, Any] | None:
    """A document of a bundle, None for what is no JSON object."""
    try:
        found: dict[str, Any] = msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return found
