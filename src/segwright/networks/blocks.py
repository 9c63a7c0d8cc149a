"""Building blocks of the U-Nets (method 7.1, 7.3). Feature maps are (n, c, [z], y, x)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

LEAKY_SLOPE = 0.01


@dataclass(frozen=True)
class BlockStyle:
    """What all blocks of one network share."""

    dimensions: int
    conv_bias: bool = True
    norm_eps: float = 1e-5
    norm_affine: bool = True

    def conv(
        self,
        inputs: int,
        outputs: int,
        kernel: tuple[int, ...],
        stride: tuple[int, ...] | None = None,
        *,
        bias: bool | None = None,
    ) -> nn.Module:
        """A convolution whose padding keeps the size for odd kernels at stride 1."""
        operator: Any = nn.Conv2d if self.dimensions == 2 else nn.Conv3d
        return operator(
            inputs,
            outputs,
            kernel,
            stride=stride or (1,) * self.dimensions,
            padding=tuple((edge - 1) // 2 for edge in kernel),
            bias=self.conv_bias if bias is None else bias,
        )

    def transposed_conv(self, inputs: int, outputs: int, stride: tuple[int, ...]) -> nn.Module:
        """Upsampling by ``stride`` with kernel = stride (method 7.2); its bias follows the convolutions'."""
        operator: Any = nn.ConvTranspose2d if self.dimensions == 2 else nn.ConvTranspose3d
        return operator(inputs, outputs, stride, stride=stride, bias=self.conv_bias)

    def norm(self, features: int) -> nn.Module:
        operator: Any = nn.InstanceNorm2d if self.dimensions == 2 else nn.InstanceNorm3d
        return operator(features, eps=self.norm_eps, affine=self.norm_affine)

    def average_pool(self, stride: tuple[int, ...]) -> nn.Module:
        operator: Any = nn.AvgPool2d if self.dimensions == 2 else nn.AvgPool3d
        return operator(stride, stride)


class ConvBlock(nn.Module):
    """Convolution, instance norm and (unless ``activation`` is off) leaky ReLU (method 7.1)."""

    def __init__(
        self,
        style: BlockStyle,
        inputs: int,
        outputs: int,
        kernel: tuple[int, ...],
        stride: tuple[int, ...] | None = None,
        *,
        bias: bool | None = None,
        activation: bool = True,
    ) -> None:
        super().__init__()
        self.conv = style.conv(inputs, outputs, kernel, stride, bias=bias)
        self.norm = style.norm(outputs)
        self.activation = activation

    def forward(self, features: Tensor) -> Tensor:
        features = normalized(self.norm, self.conv(features))
        return functional.leaky_relu_(features, LEAKY_SLOPE) if self.activation else features


def normalized(norm: Any, features: Tensor) -> Tensor:
    """``norm(features)`` of an instance norm without running statistics.

    On a CPU torch normalises groups of one channel, which is the same thing, up to five times faster: instance norm
    copies its input first. But its sums are rounded otherwise than nnU-Net's: after twenty steps in float32 losses
    differed by up to 5e-4, with instance norm by 2e-5. So groups are for bfloat16 only, which nnU-Net does not use on
    a CPU and where a step gains most.
    """
    if features.device.type != "cpu" or features.dtype != torch.bfloat16:
        return norm(features)
    return functional.group_norm(features, features.shape[1], norm.weight, norm.bias, norm.eps)


class ConvStack(nn.Module):
    """``count`` convolution blocks, the first of which may have a stride. Keys: ``convs.{j}``."""

    def __init__(
        self,
        style: BlockStyle,
        inputs: int,
        outputs: int,
        kernel: tuple[int, ...],
        count: int,
        stride: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        first = ConvBlock(style, inputs, outputs, kernel, stride)
        rest = (ConvBlock(style, outputs, outputs, kernel) for _ in range(count - 1))
        self.convs = nn.Sequential(first, *rest)

    def forward(self, features: Tensor) -> Tensor:
        return self.convs(features)


class ResidualBlock(nn.Module):
    """Two convolution blocks plus skip path, activation after the sum (method 7.3, BasicBlock D).

    The skip path is the identity, an average pool where the block has a stride, and a 1x1 convolution without bias
    plus norm where the number of feature maps changes.
    """

    def __init__(
        self, style: BlockStyle, inputs: int, outputs: int, kernel: tuple[int, ...], stride: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.conv1 = ConvBlock(style, inputs, outputs, kernel, stride)
        self.conv2 = ConvBlock(style, outputs, outputs, kernel, activation=False)
        path: list[nn.Module] = []
        if any(step != 1 for step in stride):
            path.append(style.average_pool(stride))
        if inputs != outputs:
            path.append(ConvBlock(style, inputs, outputs, (1,) * style.dimensions, bias=False, activation=False))
        self.skip: nn.Module | None = nn.Sequential(*path) if path else None

    def forward(self, features: Tensor) -> Tensor:
        branch = self.conv2(self.conv1(features))
        total = branch + (features if self.skip is None else self.skip(features))
        return functional.leaky_relu_(total, LEAKY_SLOPE)


class ResidualStack(nn.Module):
    """``count`` residual blocks, the first with the stride of the stage. Keys: ``blocks.{b}``."""

    def __init__(
        self,
        style: BlockStyle,
        inputs: int,
        outputs: int,
        kernel: tuple[int, ...],
        count: int,
        stride: tuple[int, ...],
    ) -> None:
        super().__init__()
        first = ResidualBlock(style, inputs, outputs, kernel, stride)
        rest = (ResidualBlock(style, outputs, outputs, kernel, (1,) * style.dimensions) for _ in range(count - 1))
        self.blocks = nn.Sequential(first, *rest)

    def forward(self, features: Tensor) -> Tensor:
        return self.blocks(features)


class Decoder(nn.Module):
    """The way up, the same for both encoders (method 7.2). Stage 0 has the lowest resolution.

    Each stage upsamples, concatenates [upsampled, skip] on the channel axis and convolves. Every stage has a
    segmentation head; heads below full resolution are computed only for deep supervision.
    """

    def __init__(
        self,
        style: BlockStyle,
        features_per_stage: tuple[int, ...],
        kernel_sizes: tuple[tuple[int, ...], ...],
        strides: tuple[tuple[int, ...], ...],
        convs_per_stage: tuple[int, ...],
        num_outputs: int,
    ) -> None:
        super().__init__()
        self.transpconvs = nn.ModuleList()
        self.stages = nn.ModuleList()
        self.seg_layers = nn.ModuleList()
        for stage, count in enumerate(convs_per_stage):
            below = len(features_per_stage) - 1 - stage
            features = features_per_stage[below - 1]
            self.transpconvs.append(style.transposed_conv(features_per_stage[below], features, strides[below]))
            self.stages.append(ConvStack(style, 2 * features, features, kernel_sizes[below - 1], count))
            self.seg_layers.append(style.conv(features, num_outputs, (1,) * style.dimensions, bias=True))

    def forward(self, skips: list[Tensor], all_heads: bool) -> list[Tensor]:
        """``skips`` from high to low resolution, the bottleneck last; returns logits, high resolution first."""
        features = skips[-1]
        logits: list[Tensor] = []
        last = len(self.stages) - 1
        for stage, (up, convs, head) in enumerate(zip(self.transpconvs, self.stages, self.seg_layers, strict=True)):
            features = convs(torch.cat((up(features), skips[-2 - stage]), dim=1))
            if all_heads or stage == last:
                logits.append(head(features))
        return logits[::-1]
