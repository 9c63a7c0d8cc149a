"""Mirroring, masking, one-hot and region channels, targets, and the cascade's transforms (method 6.2 #9-14, 6.3)."""

from __future__ import annotations

import numpy as np
import pytest
from tests.unit.training.augmentation.golden import golden, within_standard_errors

from segwright.core.labels import Labels
from segwright.training.augmentation.binary_operator import OPERATORS, BinaryOperator, RandomBinaryOperator
from segwright.training.augmentation.component_removal import ComponentRemoval, RandomComponentRemoval
from segwright.training.augmentation.deep_supervision import supervision_shapes, supervision_targets
from segwright.training.augmentation.label_channels import one_hot, region_channels, target_regions
from segwright.training.augmentation.mask import mask_outside, outside_to_background
from segwright.training.augmentation.mirror import Mirror, RandomMirror

LABEL = np.array([[-1, 0, 1], [2, 3, 1]], np.int8)


def test_mirror_flips_image_and_labels_alike() -> None:
    image = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    flipped, labels = Mirror((1,))(image, LABEL[None])
    assert flipped[1].tolist() == [[8, 7, 6], [11, 10, 9]] and labels[0].tolist() == [[1, 0, -1], [1, 3, 2]]
    assert Mirror(())(image, LABEL[None])[0] is image


def test_mirror_draws_each_axis_with_one_half() -> None:
    rng = np.random.default_rng(2)
    drawn = np.array([[axis in RandomMirror((0, 2)).draw(rng).axes for axis in range(3)] for _ in range(3000)], float)
    assert within_standard_errors(drawn[:, 0], 0.5, 0.5) and within_standard_errors(drawn[:, 2], 0.5, 0.5)
    assert not drawn[:, 1].any() and abs(np.corrcoef(drawn[:, 0], drawn[:, 2])[0, 1]) < 0.08


def test_mask_and_end_of_minus_one() -> None:
    image = np.ones((2, 2, 3), np.float32)
    masked = mask_outside(image, LABEL, (False, True))
    assert masked[0].sum() == 6 and masked[1].sum() == 5 and masked[1, 0, 0] == 0 and image.sum() == 12
    assert mask_outside(image, LABEL, (False, False)) is image
    assert outside_to_background(LABEL).tolist() == [[0, 0, 1], [2, 3, 1]]


def test_one_hot_and_regions() -> None:
    assert one_hot(LABEL, (1, 3)).tolist() == [[[0, 0, 1], [0, 0, 1]], [[0, 0, 0], [0, 1, 0]]]
    labels = Labels.from_json(
        {"labels": {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}, "regions_class_order": [1, 2]}
    )
    assert target_regions(labels) == ((1, 2), (2,), 3)
    channels = region_channels(LABEL, target_regions(labels))
    assert channels.astype(int).tolist() == [[[0, 0, 1], [1, 0, 1]], [[0, 0, 0], [1, 0, 0]], [[0, 0, 0], [0, 1, 0]]]
    assert target_regions(Labels.from_json({"labels": {"background": 0, "a": 1}})) is None


def test_supervision_targets_equal_batchgeneratorsv2() -> None:
    shapes = supervision_shapes((10, 12, 7), [[1, 1, 1], [1, 2, 2], [2, 2, 2], [1, 1, 1]], deep_supervision=True)
    assert shapes == ((10, 12, 7), (10, 6, 4), (5, 3, 2))
    for level, target in enumerate(supervision_targets(golden("label"), shapes)):
        np.testing.assert_array_equal(target, golden(f"supervision_{level}"))
    assert supervision_shapes((8, 8), [[1, 1], [2, 2]], deep_supervision=False) == ((8, 8),)
    # method 15: 40x56x40 with 4 stages
    strides = [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]]
    assert supervision_shapes((40, 56, 40), strides, True) == ((40, 56, 40), (20, 28, 20), (10, 14, 10))


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("radius", [1.0, 1.7, 2.6])
def test_binary_operator_equals_batchgeneratorsv2(operator: str, radius: float) -> None:
    before = golden("one_hot").astype(np.float32)
    after = BinaryOperator(((0, operator, radius), (1, operator, radius)))(before)  # type: ignore[arg-type]
    np.testing.assert_array_equal(after > 0, golden(f"{operator}_{radius}"))


@pytest.mark.parametrize("operator", OPERATORS)
def test_binary_operator_in_two_dimensions(operator: str) -> None:
    after = BinaryOperator(((1, operator, 2.7),))(golden("one_hot")[:, 7].astype(np.float32))  # type: ignore[arg-type]
    np.testing.assert_array_equal(after > 0, golden(f"{operator}_2d"))


def test_gained_voxels_leave_other_labels() -> None:
    before = np.zeros((2, 1, 1, 5), np.float32)
    before[0, 0, 0, 2] = before[1, 0, 0, 3] = before[1, 0, 0, 4] = 1
    after = BinaryOperator(((0, "dilation", 1.0),))(before)
    assert after[:, 0, 0].tolist() == [[0, 1, 1, 1, 0], [0, 0, 0, 0, 1]]


def test_component_removal_takes_one_small_component() -> None:
    one = np.zeros((1, 4, 4, 10), np.float32)
    one[0, 0, 0, 0] = one[0, 1, 1, 1] = 1  # diagonal neighbours: one component
    one[0, 3, 3, 3] = 1
    one[0, :3, :3, 5:9] = 1  # 36 of 160 voxels: not small
    first, second = (ComponentRemoval(((0, position),))(one) for position in (0.0, 0.6))
    assert (one - first).sum() == 2 and first[0, 0, 0, 0] == first[0, 1, 1, 1] == 0
    assert (one - second).sum() == 1 and second[0, 3, 3, 3] == 0
    everything = np.ones((1, 4, 4), np.float32)
    assert (ComponentRemoval(((0, 0.5),))(everything) == everything).all()


def test_cascade_draws() -> None:
    rng = np.random.default_rng(4)
    operators = [RandomBinaryOperator().draw(rng, (3, 4, 4, 4)) for _ in range(3000)]
    removals = [RandomComponentRemoval().draw(rng, (3, 4, 4, 4)) for _ in range(3000)]
    assert within_standard_errors(np.array([twin is not None for twin in operators], float), 0.4, 0.49)
    assert within_standard_errors(np.array([twin is not None for twin in removals], float), 0.2, 0.4)
    steps = [step for twin in operators if twin for step in twin.steps]
    fired = sum(twin is not None for twin in operators)
    assert abs(len(steps) / (3 * fired) - 0.5) < 4 * 0.5 / np.sqrt(3 * fired)
    for operator in OPERATORS:
        share = np.array([step[1] == operator for step in steps], float)
        assert within_standard_errors(share, 0.25, 0.433)
    radii = np.array([step[2] for step in steps])
    assert within_standard_errors(radii, 4.5, 7 / np.sqrt(12)) and radii.min() >= 1 and radii.max() <= 8
    first = [twin.steps[0][0] for twin in operators if twin and len(twin.steps) == 3]
    assert set(first) == {0, 1, 2}  # random order
