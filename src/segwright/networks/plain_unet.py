"""The plain U-Net, and the frame both U-Nets share (method 7.2).

The module names are part of the contract: with :mod:`segwright.networks.weights` public nnU-Net v2 weights fit.
"""

from __future__ import annotations

from torch import Tensor, nn

from segwright.core.architecture import Architecture
from segwright.networks.blocks import BlockStyle, ConvStack, Decoder


class UNet(nn.Module):
    """Encoder, decoder and segmentation heads.

    Attributes:
        deep_supervision: may be set at any time. On: ``forward`` returns logits of every decoder stage, highest
            resolution first. Off: the full-resolution logits alone.
    """

    def __init__(self, encoder: nn.Module, decoder: Decoder, deep_supervision: bool) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.deep_supervision = deep_supervision

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """(n, channels, [z], y, x) -> logits (n, outputs, [z], y, x), or a list of them."""
        logits = self.decoder(self.encoder(image), self.deep_supervision)
        return logits if self.deep_supervision else logits[0]


class PlainEncoder(nn.Module):
    """Stages of plain convolution blocks; the first block of a stage carries its stride."""

    def __init__(self, style: BlockStyle, architecture: Architecture, num_inputs: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        inputs = num_inputs
        for features, kernel, stride, count in zip(
            architecture.features_per_stage,
            architecture.kernel_sizes,
            architecture.strides,
            architecture.blocks_per_stage,
            strict=True,
        ):
            # one-element Sequential: public weights have the key `stages.{s}.0.convs`
            self.stages.append(nn.Sequential(ConvStack(style, inputs, features, kernel, count, stride)))
            inputs = features

    def forward(self, features: Tensor) -> list[Tensor]:
        outputs: list[Tensor] = []
        for stage in self.stages:
            features = stage(features)
            outputs.append(features)
        return outputs


def style_of(architecture: Architecture) -> BlockStyle:
    return BlockStyle(
        dimensions=architecture.dimensions,
        conv_bias=architecture.conv_bias,
        norm_eps=architecture.norm_eps,
        norm_affine=architecture.norm_affine,
    )


def decoder_of(style: BlockStyle, architecture: Architecture, num_outputs: int) -> Decoder:
    return Decoder(
        style,
        architecture.features_per_stage,
        architecture.kernel_sizes,
        architecture.strides,
        architecture.convs_per_stage_decoder,
        num_outputs,
    )


def plain_unet(architecture: Architecture, num_inputs: int, num_outputs: int, deep_supervision: bool) -> UNet:
    """Build the plain U-Net; until ``initialize`` its weights are torch's defaults."""
    style = style_of(architecture)
    encoder = PlainEncoder(style, architecture, num_inputs)
    return UNet(encoder, decoder_of(style, architecture, num_outputs), deep_supervision)
