"""A tiny architecture shared by the tests of this room."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from segwright.core.architecture import Architecture


@pytest.fixture
def small() -> Callable[..., Architecture]:
    """Builder of small architectures: the first kernel and the second stride are anisotropic."""
    return _small


def _small(kind: str = "plain_unet", dimensions: int = 3, stages: int = 3) -> Architecture:
    return Architecture(
        kind=kind,
        features_per_stage=tuple(min(4 * 2**stage, 8) for stage in range(stages)),
        kernel_sizes=((1,) + (3,) * (dimensions - 1),) + ((3,) * dimensions,) * (stages - 1),
        strides=((1,) * dimensions,) + ((1,) + (2,) * (dimensions - 1),) + ((2,) * dimensions,) * (stages - 2),
        blocks_per_stage=(2,) * stages if kind == "plain_unet" else tuple(1 + stage for stage in range(stages)),
        convs_per_stage_decoder=(2 if kind == "plain_unet" else 1,) * (stages - 1),
    )
