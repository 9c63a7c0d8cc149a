"""First weights of a network (method 7.4), drawn from a generator of their own."""

from __future__ import annotations

import torch
from torch import nn

from segwright.networks.blocks import LEAKY_SLOPE, ResidualBlock

_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_NORMS = (nn.InstanceNorm2d, nn.InstanceNorm3d)


@torch.no_grad()
def initialize(network: nn.Module, seed: int) -> None:
    """Initialise in place: the same seed gives the same weights, whatever else used torch's generators.

    Kaiming normal (fan in, slope 0.01) for all convolutions, biases 0, norms 1 and 0; the last norm of each residual
    block starts at 0, so that the block begins as the identity. Other layers of a plugin's network keep their weights.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, _CONVOLUTIONS):
            nn.init.kaiming_normal_(module.weight, a=LEAKY_SLOPE, generator=generator)
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, _NORMS) and module.weight is not None:
            module.weight.fill_(1)
            module.bias.zero_()
    for module in network.modules():
        if isinstance(module, ResidualBlock):
            last_norm = module.conv2.norm
            if isinstance(last_norm, _NORMS) and last_norm.weight is not None:
                last_norm.weight.zero_()
