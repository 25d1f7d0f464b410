"""Opens an unpacked bundle, runs its model once on zeros, and shows what comes out: `python3 examples/example.py [FOLDER]`."""

import sys
from pathlib import Path

sys.dont_write_bytecode = True  # a slot of a device holds what was signed, and nothing else
BUNDLE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(BUNDLE / "python"))
import ekrun  # noqa: E402  # beside this file, in the bundle

SIZES = {"16": 2, "32": 4, "64": 8}


def zeros(port: ekrun.Port) -> ekrun.Tensor:
    """A dimension that is not fixed becomes 1."""
    shape = tuple(max(size, 1) for size in port.shape or ())
    count = SIZES.get(port.dtype[-2:], 1)
    for size in shape:
        count *= size
    return ekrun.Tensor(port.dtype, shape, bytes(count))


def main() -> None:
    with ekrun.Model(sys.argv[1] if len(sys.argv) > 1 else BUNDLE) as model:
        print(model.engine)
        with model.stream() as stream:
            answers = stream.run({port.name: zeros(port) for port in model.inputs})
        for name, answer in answers.items():
            print(name, answer.dtype, tuple(answer.shape))


if __name__ == "__main__":
    main()
