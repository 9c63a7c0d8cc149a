"""From an architecture by name to a network: the registry, and the checks that give a clear message early."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from segwright.core.architecture import NETWORK_CLASS_NAMES, Architecture
from segwright.core.errors import PlansError
from segwright.core.registry import Registry
from segwright.networks.plain_unet import plain_unet
from segwright.networks.residual_unet import residual_unet

NetworkBuilder = Callable[[Architecture, int, int, bool], nn.Module]
"""(architecture, input channels, output channels, deep supervision) -> module with a ``deep_supervision`` attribute."""

NETWORKS: Registry[NetworkBuilder] = Registry("network")
NETWORKS.register("plain_unet")(plain_unet)
NETWORKS.register("residual_unet")(residual_unet)


def build_network(
    architecture: Architecture, num_inputs: int, num_outputs: int, deep_supervision: bool = False
) -> nn.Module:
    """Build the network ``architecture.kind``, on the CPU, with torch's default weights.

    ``forward`` takes (n, num_inputs, [z], y, x) and gives logits (n, num_outputs, [z], y, x), or with
    ``deep_supervision`` a list of logits from high to low resolution.

    Raises:
        SettingsError: no network of that name is registered.
        PlansError: the numbers contradict each other.
    """
    builder = NETWORKS.get(architecture.kind)
    if architecture.kind in NETWORK_CLASS_NAMES:
        check_architecture(architecture)
    return builder(architecture, num_inputs, num_outputs, deep_supervision)


def check_architecture(architecture: Architecture) -> None:
    """Refuse numbers no U-Net can be built from.

    Raises:
        PlansError: says which entry is wrong.
    """
    stages, dimensions = architecture.n_stages, architecture.dimensions
    if stages < 2 or dimensions not in (2, 3):
        raise PlansError(f"architecture: {stages} stages in {dimensions} dimensions; at least 2 stages in 2 or 3")
    expected = {
        "kernel_sizes": (len(architecture.kernel_sizes), stages),
        "strides": (len(architecture.strides), stages),
        "n_conv_per_stage (n_blocks_per_stage)": (len(architecture.blocks_per_stage), stages),
        "n_conv_per_stage_decoder": (len(architecture.convs_per_stage_decoder), stages - 1),
    }
    for name, (found, wanted) in expected.items():
        if found != wanted:
            raise PlansError(f"architecture: {name} has {found} entries but must have {wanted} ({stages} stages)")
    for edges in (*architecture.kernel_sizes, *architecture.strides):
        if len(edges) != dimensions or min(edges) < 1:
            raise PlansError(f"architecture: kernel or stride {list(edges)} must be {dimensions} positive numbers")
    if any(edge % 2 == 0 for kernel in architecture.kernel_sizes for edge in kernel):
        raise PlansError("architecture: kernel sizes must be odd, or feature maps change their size")
    if any(step != 1 for step in architecture.strides[0]):
        raise PlansError("architecture: the first stride must be 1, or the output is smaller than the image")
    counts = (*architecture.features_per_stage, *architecture.blocks_per_stage, *architecture.convs_per_stage_decoder)
    if min(counts) < 1:
        raise PlansError("architecture: features and convolutions per stage must be positive")
