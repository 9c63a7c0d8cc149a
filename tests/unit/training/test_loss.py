"""Losses against an independent float64 evaluation of the formulas of method 8."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from segwright.core.errors import SettingsError
from segwright.training.loss import (
    LOSSES,
    LossOptions,
    deep_supervision_weights,
    merge_into_background,
    weighted_loss,
)

SHAPE = (2, 4, 5, 6, 7)  # n, c, z, y, x


def dice_64(p: np.ndarray, y: np.ndarray, mask: np.ndarray, batch: bool) -> float:
    axes = (0, 2, 3, 4) if batch else (2, 3, 4)
    intersection, predicted, actual = ((v * mask).sum(axes) for v in (p * y, p, y))
    return float(((2 * intersection + 1e-5) / np.maximum(actual + predicted + 1e-5, 1e-8)).mean())


def softmax_64(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


def label_loss_64(
    logits: np.ndarray, target: np.ndarray, ignore: int | None, batch: bool, weights: np.ndarray | None = None
) -> tuple[float, float]:
    """(cross entropy, Dice) of method 8.1 and 8.3."""
    p = softmax_64(logits)
    mask = np.ones_like(target, float) if ignore is None else (target != ignore).astype(float)
    y = np.where(mask > 0, target, 0)
    one_hot = (y == np.arange(logits.shape[1]).reshape(1, -1, 1, 1, 1)).astype(float)
    w = np.ones(logits.shape[1]) if weights is None else weights
    per_voxel = -(np.log(p) * one_hot * w.reshape(1, -1, 1, 1, 1)).sum(1, keepdims=True) * mask
    share = (one_hot * w.reshape(1, -1, 1, 1, 1)).sum(1, keepdims=True) * mask
    ce = per_voxel.sum() / share.sum() if share.sum() else 0.0
    return float(ce), dice_64(p[:, 1:], one_hot[:, 1:], mask, batch)


def region_loss_64(logits: np.ndarray, target: np.ndarray, ignore: bool, batch: bool) -> tuple[float, float]:
    """(binary cross entropy, Dice) of method 8.2 and 8.3."""
    p = 1 / (1 + np.exp(-logits))
    y = (target[:, :-1] if ignore else target).astype(float)
    values = -(y * np.log(p) + (1 - y) * np.log(1 - p))
    if not ignore:
        return float(values.mean()), dice_64(p, y, np.ones_like(y[:, :1]), batch)
    mask = 1 - target[:, -1:].astype(float)
    return float((values * mask).sum() / max(mask.sum(), 1e-8)), dice_64(p, y, mask, batch)


def example(seed: int, labels: int, shape: tuple[int, ...] = SHAPE) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.normal(size=shape) * 3, generator.integers(0, labels, size=(shape[0], 1, *shape[2:]))


def run(options: LossOptions, logits: np.ndarray, target: np.ndarray, name: str = "default") -> float:
    result = LOSSES.get(name)(options)(torch.from_numpy(logits.astype(np.float32)), torch.from_numpy(target), None)
    return float(result)


@pytest.mark.parametrize("regions", [False, True])
def test_gradient_is_rounded_as_v2s(regions: bool) -> None:
    """Cross entropy and a softmax or sigmoid of their own, each one step of torch (method 8.1, 8.2): not a bit differs.

    Momentum carries a last bit into the loss of 20 steps as up to 5e-4.
    """
    logits, target = (torch.from_numpy(values) for values in example(3, 4))
    one_hot = (target == torch.arange(4).view(1, -1, 1, 1, 1)).float()
    ours, v2s = (logits.float().requires_grad_() for _ in range(2))
    options = LossOptions(4, regions=regions)
    LOSSES.get("default")(options)(ours, one_hot if regions else target, None).backward()
    if regions:
        entropy, shares, truth = functional.binary_cross_entropy_with_logits(v2s, one_hot), v2s.sigmoid(), one_hot
    else:
        entropy, shares, truth = functional.cross_entropy(v2s, target[:, 0]), v2s.softmax(1)[:, 1:], one_hot[:, 1:]
    space = (2, 3, 4)
    dice = (2 * (shares * truth).sum(space) + 1e-5) / (truth.sum(space) + shares.sum(space) + 1e-5)
    (entropy - dice.mean()).backward()
    assert ours.grad is not None and v2s.grad is not None
    assert torch.equal(ours.grad, v2s.grad)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.booleans(), st.booleans())
def test_label_loss(seed: int, batch: bool, ignore: bool) -> None:
    logits, target = example(seed, 5 if ignore else 4)
    options = LossOptions(4, ignore_label=4 if ignore else None, batch_dice=batch)
    ce, dice = label_loss_64(logits, target, options.ignore_label, batch)
    assert run(options, logits, target) == pytest.approx(ce - dice, abs=1e-6, rel=1e-6)
    assert run(options, logits, target, "ce") == pytest.approx(ce, abs=1e-6, rel=1e-6)
    assert run(options, logits, target, "dice") == pytest.approx(-dice, abs=1e-6)
    weighted = replace(options, dice_weight=0.5, ce_weight=2.0)
    assert run(weighted, logits, target) == pytest.approx(2 * ce - 0.5 * dice, abs=2e-6, rel=1e-6)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.booleans(), st.booleans())
def test_region_loss(seed: int, batch: bool, ignore: bool) -> None:
    logits, _ = example(seed, 2)
    target = np.random.default_rng(seed + 1).integers(0, 2, size=(2, 5 if ignore else 4, 5, 6, 7)).astype(np.uint8)
    options = LossOptions(4, regions=True, ignore_label=9 if ignore else None, batch_dice=batch)
    bce, dice = region_loss_64(logits, target, ignore, batch)
    assert run(options, logits, target) == pytest.approx(bce - dice, abs=1e-6, rel=1e-6)


@pytest.mark.parametrize("ignore", [None, 4])
def test_class_weights_are_a_weighted_mean(ignore: int | None) -> None:
    logits, target = example(3, 4 if ignore is None else 5)
    weights = (0.5, 1.0, 2.0, 4.0)
    expected, _ = label_loss_64(logits, target, ignore, False, np.array(weights))
    options = LossOptions(4, ignore_label=ignore, class_weights=weights)
    assert run(options, logits, target, "ce") == pytest.approx(expected, rel=1e-6)
    with pytest.raises(SettingsError, match="3 entries but the network has 4"):
        LOSSES.get("ce")(replace(options, class_weights=(1.0, 1.0, 1.0)))


@pytest.mark.parametrize("regions", [False, True])
def test_nothing_annotated_gives_a_finite_loss_and_no_cross_entropy(regions: bool) -> None:
    logits = torch.randn(*SHAPE, requires_grad=True)
    target = torch.ones(2, 5, 5, 6, 7) if regions else torch.full((2, 1, 5, 6, 7), 4)
    options = LossOptions(4, regions=regions, ignore_label=4)
    assert float(LOSSES.get("ce")(options)(logits, target, None).detach()) == 0.0
    loss = LOSSES.get("default")(options)(logits, target, None)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(-1.0)  # smooth / smooth for every class
    assert logits.grad is not None and logits.grad.abs().max() == 0


def test_two_dimensions_and_half_precision() -> None:
    logits, target = example(5, 3, (2, 3, 1, 9, 8))
    flat = LossOptions(3, batch_dice=True)
    in_3d = run(flat, logits, target)
    loss = LOSSES.get("default")(flat)
    in_2d = loss(torch.from_numpy(logits[:, :, 0]).float(), torch.from_numpy(target[:, :, 0].astype(np.uint8)), None)
    assert float(in_2d) == pytest.approx(in_3d, rel=1e-6)
    half = loss(torch.from_numpy(logits[:, :, 0]).half(), torch.from_numpy(target[:, :, 0]), None)
    assert half.dtype == torch.float32 and float(half) == pytest.approx(in_3d, rel=1e-2)


def test_gradient_of_the_label_loss() -> None:
    """Central differences of the float64 formula at a few logits."""
    logits, target = example(7, 5)
    options = LossOptions(4, ignore_label=4, batch_dice=True)
    tensor = torch.from_numpy(logits.astype(np.float32)).requires_grad_()
    LOSSES.get("default")(options)(tensor, torch.from_numpy(target), None).backward()
    for index in [(0, 0, 1, 2, 3), (1, 2, 4, 5, 6), (0, 3, 0, 0, 0)]:
        values = []
        for step in (1e-5, -1e-5):
            moved = logits.copy()
            moved[index] += step
            ce, dice = label_loss_64(moved, target, 4, True)
            values.append(ce - dice)
        assert float(tensor.grad[index]) == pytest.approx((values[0] - values[1]) / 2e-5, abs=1e-6)


class TestPartialAnnotation:
    """The seam for partly labelled data: unannotated outputs of a sample change nothing."""

    def test_all_annotated_equals_no_mask(self) -> None:
        logits, target = (torch.from_numpy(v) for v in example(2, 4))
        everything = torch.ones(2, 4, dtype=torch.bool)
        for options in (LossOptions(4), LossOptions(4, batch_dice=True), LossOptions(4, ignore_label=3)):
            loss = LOSSES.get("default")(options)
            assert float(loss(logits, target, everything)) == pytest.approx(float(loss(logits, target, None)), rel=1e-6)
        regions = (torch.rand(2, 4, 5, 6, 7) > 0.5).to(torch.uint8)
        loss = LOSSES.get("default")(LossOptions(4, regions=True))
        assert float(loss(logits, regions, everything)) == pytest.approx(float(loss(logits, regions, None)), rel=1e-6)

    @pytest.mark.parametrize("batch", [False, True])
    def test_unannotated_regions_get_no_gradient(self, batch: bool) -> None:
        logits = torch.randn(*SHAPE, requires_grad=True)
        mask = torch.tensor([[True, False, True, True], [True, True, True, False]])
        loss = LOSSES.get("default")(LossOptions(4, regions=True, batch_dice=batch))
        loss(logits, torch.zeros(SHAPE), mask).backward()
        assert logits.grad is not None
        touched = logits.grad.abs().amax(dim=(2, 3, 4)) > 0
        assert torch.equal(touched, mask)

    def test_hidden_labels_share_the_background(self) -> None:
        logits = torch.randn(1, 4, 2, 2, 2)
        merged = merge_into_background(logits.log_softmax(1), torch.tensor([[True, True, False, False]])).exp()
        p = logits.softmax(1)
        torch.testing.assert_close(merged[:, 0], p[:, 0] + p[:, 2] + p[:, 3])
        torch.testing.assert_close(merged[:, 1], p[:, 1])


def test_statistics_go_through_the_reduction() -> None:
    """Two "devices" with equal data: batch Dice is that of the doubled batch, hence nearly unchanged."""
    logits, target = (torch.from_numpy(v) for v in example(4, 4))
    seen: list[torch.Size] = []

    def double(statistic: torch.Tensor) -> torch.Tensor:
        seen.append(statistic.shape)
        return 2 * statistic

    one = LOSSES.get("dice")(LossOptions(4, batch_dice=True))(logits, target, None)
    two = LOSSES.get("dice")(LossOptions(4, batch_dice=True, reduce=double))(logits, target, None)
    assert seen and set(seen) == {torch.Size([3])}
    assert float(two) == pytest.approx(float(one), abs=1e-6)


def test_deep_supervision_weights() -> None:
    """Method 8.4; golden for 4 heads: 4/7, 2/7, 1/7, 0. A lone head (two stages) weighs 1."""
    assert deep_supervision_weights(4) == pytest.approx((4 / 7, 2 / 7, 1 / 7, 0))
    assert deep_supervision_weights(2) == (1.0, 0.0)
    assert deep_supervision_weights(1) == (1.0,)


def test_weighted_loss_skips_heads_of_weight_zero() -> None:
    logits, target = (torch.from_numpy(v) for v in example(1, 4))
    loss = LOSSES.get("default")(LossOptions(4))
    head = loss(logits, target, None)
    broken = torch.full((2, 4, 1, 1, 1), float("nan"))
    total = weighted_loss(loss, (2 / 3, 1 / 3, 0.0), [logits, logits, broken], [target, target, target[..., :1]])
    assert float(total) == pytest.approx(float(head), rel=1e-6)
