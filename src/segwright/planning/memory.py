"""The planner's memory estimate in closed form: how many feature-map entries one sample needs (method 3.6).

The number equals what nnU-Net v2 counts by building the network; multiplied by its reference batch size it is compared
with a reference value that fits a GPU of known size.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from segwright.core.architecture import Architecture


def stage_sizes(patch_size: Sequence[int], strides: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """Feature-map size of each stage in voxels, highest resolution first."""
    sizes: list[tuple[int, ...]] = []
    size = tuple(patch_size)
    for stride in strides:
        size = tuple(edge // step for edge, step in zip(size, stride, strict=True))
        sizes.append(size)
    return sizes


def feature_map_entries(architecture: Architecture, patch_size: Sequence[int], num_labels: int) -> int:
    """Feature-map entries of a U-Net for one sample (method 3.6, nnU-Net v2).

    Args:
        architecture: ``plain_unet`` or ``residual_unet``; another kind is counted like a plain one.
        patch_size: voxels per axis, transposed order.
        num_labels: entries of ``labels`` in dataset.json, background and ignore label included.
    """
    voxels = [prod(size) for size in stage_sizes(patch_size, architecture.strides)]
    features = architecture.features_per_stage
    stages = architecture.n_stages
    if architecture.kind == "residual_unet":
        total = features[0] * prod(patch_size)  # stem
        for stage, blocks in enumerate(architecture.blocks_per_stage):
            total += 2 * blocks * features[stage] * voxels[stage]
            changes_features = stage > 0 and features[stage] != features[stage - 1]
            if changes_features or any(step != 1 for step in architecture.strides[stage]):
                total += features[stage] * voxels[stage]  # the skip path has a convolution or a pooling
    else:
        convolutions = zip(architecture.blocks_per_stage, features, voxels, strict=True)
        total = sum(count * width * volume for count, width, volume in convolutions)
    for stage in range(stages - 1):  # decoder: its convolutions, and the transposed convolution into this resolution
        total += (architecture.convs_per_stage_decoder[stages - 2 - stage] + 1) * features[stage] * voxels[stage]
    if stages > 1:
        total += num_labels * voxels[0]  # the segmentation layer belongs to the last decoder stage
    return total
