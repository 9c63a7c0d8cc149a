from __future__ import annotations

import pytest

from segwright.core.architecture import Architecture
from segwright.planning.memory import feature_map_entries, stage_sizes


def network(kind: str, features: tuple[int, ...], blocks: tuple[int, ...], decoder: int) -> Architecture:
    stages = len(features)
    strides = ((1, 1, 1),) + ((2, 2, 2),) * (stages - 1)
    return Architecture(kind, features, ((3, 3, 3),) * stages, strides, blocks, (decoder,) * (stages - 1))


FEATURES = (32, 64, 128, 256, 320, 320)


@pytest.mark.parametrize(
    ("architecture", "patch", "entries"),
    [
        (network("plain_unet", FEATURES, (2,) * 6, 2), (128, 128, 128), 452_796_416),
        (network("plain_unet", FEATURES, (2,) * 6, 2), (128, 96, 160), 424_496_640),
        (network("residual_unet", FEATURES, (1, 3, 4, 6, 6, 6), 1), (128, 128, 128), 557_420_544),
        (network("plain_unet", FEATURES[:4], (2,) * 4, 2), (40, 56, 40), 19_174_400),
    ],
)
def test_public_numbers(architecture: Architecture, patch: tuple[int, ...], entries: int) -> None:
    """Method 15, three labels with background."""
    assert feature_map_entries(architecture, patch, num_labels=3) == entries


def test_each_label_adds_one_full_size_map() -> None:
    plain = network("plain_unet", FEATURES, (2,) * 6, 2)
    four, three = (feature_map_entries(plain, (64, 64, 64), labels) for labels in (4, 3))
    assert four - three == 64**3


def test_odd_sizes_are_floored() -> None:
    assert stage_sizes((7, 6), ((1, 1), (2, 2), (2, 1))) == [(7, 6), (3, 3), (1, 3)]
