"""The residual-encoder U-Net: residual blocks on the way down, the plain decoder on the way up (method 7.3)."""

from __future__ import annotations

from torch import Tensor, nn

from segwright.core.architecture import Architecture
from segwright.networks.blocks import BlockStyle, ConvStack, ResidualStack
from segwright.networks.plain_unet import UNet, decoder_of, style_of


class ResidualEncoder(nn.Module):
    """A stem of one convolution block, then stages of residual blocks."""

    def __init__(self, style: BlockStyle, architecture: Architecture, num_inputs: int) -> None:
        super().__init__()
        features_of_stem = architecture.features_per_stage[0]
        self.stem = ConvStack(style, num_inputs, features_of_stem, architecture.kernel_sizes[0], 1)
        self.stages = nn.ModuleList()
        inputs = features_of_stem
        for features, kernel, stride, count in zip(
            architecture.features_per_stage,
            architecture.kernel_sizes,
            architecture.strides,
            architecture.blocks_per_stage,
            strict=True,
        ):
            self.stages.append(ResidualStack(style, inputs, features, kernel, count, stride))
            inputs = features

    def forward(self, features: Tensor) -> list[Tensor]:
        features = self.stem(features)
        outputs: list[Tensor] = []
        for stage in self.stages:
            features = stage(features)
            outputs.append(features)
        return outputs


def residual_unet(architecture: Architecture, num_inputs: int, num_outputs: int, deep_supervision: bool) -> UNet:
    """Build the residual-encoder U-Net."""
    style = style_of(architecture)
    encoder = ResidualEncoder(style, architecture, num_inputs)
    return UNet(encoder, decoder_of(style, architecture, num_outputs), deep_supervision)
