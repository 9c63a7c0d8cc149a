"""Losses: soft Dice plus cross entropy, ignore label, partial annotation, deep supervision (method 8).

Shapes: logits (n, c, [z], y, x). Targets are integers (n, 1, [z], y, x) in label training; in region training one
channel a region and, with an ignore label, a last channel that is 1 on ignored voxels.
``annotated`` (n, c) says which outputs are annotated in each sample; None means all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from segwright.core.errors import SettingsError
from segwright.core.registry import Registry

SMOOTH = 1e-5
TINY = 1e-8

Reduce = Callable[[Tensor], Tensor]
Loss = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""(logits, target, annotated) -> scalar, smaller is better."""


def keep(statistic: Tensor) -> Tensor:
    """The reduction of a single device. Several devices sum here, differentiably, over all of them."""
    return statistic


@dataclass(frozen=True)
class LossOptions:
    """What a loss may depend on.

    Attributes:
        num_outputs: channels of the logits.
        regions: region training (sigmoid) instead of labels (softmax).
        ignore_label: label value whose voxels do not count; None: there is none.
        batch_dice: one Dice over the whole batch instead of one per sample.
        class_weights: weight of each output in the cross entropy; None: all equal.
        reduce: sums Dice statistics over devices.
    """

    num_outputs: int
    regions: bool = False
    ignore_label: int | None = None
    batch_dice: bool = False
    dice_weight: float = 1.0
    ce_weight: float = 1.0
    class_weights: tuple[float, ...] | None = None
    reduce: Reduce = keep


LOSSES: Registry[Callable[[LossOptions], Loss]] = Registry("loss")


@LOSSES.register("default")
def default_loss(options: LossOptions) -> Loss:
    """Dice + cross entropy for labels (8.1), Dice + binary cross entropy for regions (8.2)."""
    if options.class_weights is not None and len(options.class_weights) != options.num_outputs:
        raise SettingsError(
            f"training.class_weights has {len(options.class_weights)} entries but the network has "
            f"{options.num_outputs} outputs; give one weight for each"
        )
    return RegionLoss(options) if options.regions else LabelLoss(options)


@LOSSES.register("dice")
def dice_loss(options: LossOptions) -> Loss:
    """The Dice term alone."""
    return default_loss(replace(options, ce_weight=0.0))


@LOSSES.register("ce")
def cross_entropy_loss(options: LossOptions) -> Loss:
    """The (binary) cross entropy term alone."""
    return default_loss(replace(options, dice_weight=0.0))


@dataclass(frozen=True)
class LabelLoss:
    """Softmax over labels; background counts in the cross entropy but not in the Dice (method 8.1, 8.3)."""

    options: LossOptions

    def __call__(self, logits: Tensor, target: Tensor, annotated: Tensor | None = None) -> Tensor:
        options = self.options
        labels = target.long()
        valid: Tensor | None = None
        if options.ignore_label is not None:
            valid = labels != options.ignore_label
            labels = labels * valid
        logits = logits.float()
        log_probabilities = functional.log_softmax(logits, dim=1)
        if annotated is not None:
            log_probabilities = merge_into_background(log_probabilities, annotated)
        total = logits.new_zeros((), dtype=torch.float32)
        if options.ce_weight:
            total = total + options.ce_weight * self._cross_entropy(log_probabilities, labels, valid)
        if options.dice_weight:
            # A softmax of its own, as in v2: through the logarithm gradients differ in their last bit, and momentum
            # carries that into the loss of 20 steps as 5e-4.
            merged = annotated is not None
            probabilities = (log_probabilities.exp() if merged else functional.softmax(logits, dim=1))[:, 1:]
            truth = labels == torch.arange(1, options.num_outputs, device=labels.device).view(
                1, -1, *(1,) * (labels.ndim - 2)
            )
            foreground = None if annotated is None else annotated[:, 1:]
            dice = soft_dice(probabilities, truth, valid, foreground, options.batch_dice, options.reduce)
            total = total - options.dice_weight * dice
        return total

    def _cross_entropy(self, log_probabilities: Tensor, labels: Tensor, valid: Tensor | None) -> Tensor:
        """Weighted mean over annotated voxels; 0 when there is none."""
        weights = self.options.class_weights
        weight = None if weights is None else _filled(log_probabilities, weights)
        flat = labels[:, 0]
        if valid is None:
            return functional.nll_loss(log_probabilities, flat, weight)
        per_voxel = functional.nll_loss(log_probabilities, flat, weight, reduction="none")
        share = valid[:, 0].float() if weight is None else valid[:, 0] * weight[flat]
        return (per_voxel * valid[:, 0]).sum() / share.sum().clamp(min=TINY)


@dataclass(frozen=True)
class RegionLoss:
    """One sigmoid a region; all channels count in both terms (method 8.2, 8.3)."""

    options: LossOptions

    def __call__(self, logits: Tensor, target: Tensor, annotated: Tensor | None = None) -> Tensor:
        options = self.options
        valid: Tensor | None = None
        if options.ignore_label is not None:
            valid = target[:, -1:] == 0
            target = target[:, :-1]
        logits, truth = logits.float(), target.float()
        total = logits.new_zeros(())
        if options.ce_weight:
            total = total + options.ce_weight * self._cross_entropy(logits, truth, valid, annotated)
        if options.dice_weight:
            dice = soft_dice(logits.sigmoid(), truth, valid, annotated, options.batch_dice, options.reduce)
            total = total - options.dice_weight * dice
        return total

    def _cross_entropy(self, logits: Tensor, truth: Tensor, valid: Tensor | None, annotated: Tensor | None) -> Tensor:
        """Mean over all elements; with an ignore label summed over channels, divided by annotated *voxels* (8.3)."""
        if valid is None and annotated is None and self.options.class_weights is None:
            return functional.binary_cross_entropy_with_logits(logits, truth)  # one step, so the last bit is v2's
        values = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
        spatial = (1,) * (logits.ndim - 2)
        if self.options.class_weights is not None:
            weight = _filled(logits, self.options.class_weights)
            values = values * (weight / weight.mean()).view(1, -1, *spatial)
        if valid is None and annotated is None:
            return values.mean()
        shares = torch.ones_like(logits[:, :1]) if valid is None else valid.float()
        counted = shares
        if annotated is not None:
            known = annotated.float().view(*annotated.shape, *spatial)
            values, counted = values * known, shares * known.mean(dim=1, keepdim=True)
        channels = 1 if valid is not None else logits.shape[1]
        return (values * shares).sum() / (counted.sum() * channels).clamp(min=TINY)


def _filled(like: Tensor, values: Sequence[float]) -> Tensor:
    """These few numbers where ``like`` is. ``new_tensor`` would copy them to a GPU, and wait for all its work."""
    return torch.stack([like.new_full((), value) for value in values])


def soft_dice(
    probabilities: Tensor,
    truth: Tensor,
    valid: Tensor | None,
    annotated: Tensor | None,
    batch_dice: bool,
    reduce: Reduce = keep,
) -> Tensor:
    """Mean soft Dice over classes (and samples without ``batch_dice``), method 8.1.

    Args:
        probabilities: (n, c, ...) float32.
        truth: (n, c, ...) 0 or 1, any type.
        valid: (n, 1, ...) bool, voxels that count; None: all.
        annotated: (n, c) bool, sample-class pairs that count; None: all.
    """
    space = tuple(range(2, probabilities.ndim))
    if valid is not None:
        probabilities, truth = probabilities * valid, truth * valid
    intersection = (probabilities * truth).sum(space)
    predicted = probabilities.sum(space)
    actual = truth.sum(space, dtype=torch.float32)
    known = torch.ones_like(intersection) if annotated is None else annotated.to(intersection.dtype)
    if batch_dice:
        intersection, predicted, actual, known = (
            reduce(statistic.sum(dim=0))
            for statistic in (intersection * known, predicted * known, actual * known, known)
        )
        known = known.clamp(max=1)
    dice = (2 * intersection + SMOOTH) / (predicted + actual + SMOOTH).clamp(min=TINY)
    return (dice * known).sum() / known.sum().clamp(min=1)


def merge_into_background(log_probabilities: Tensor, annotated: Tensor) -> Tensor:
    """Where a label is not annotated its voxels are background in the target, so both share one probability there."""
    members = ~annotated.bool()
    members[:, 0] = True  # what forms the background: itself and the labels nobody annotated
    members = members.view(*members.shape, *(1,) * (log_probabilities.ndim - 2))
    background = log_probabilities.masked_fill(~members, -torch.inf).logsumexp(dim=1, keepdim=True)
    return torch.cat((background, log_probabilities[:, 1:]), dim=1)


def deep_supervision_weights(num_heads: int) -> tuple[float, ...]:
    """Weights of the heads, high to low resolution: 1/2^i, the lowest 0, sum 1 (method 8.4). A lone head weighs 1."""
    if num_heads == 1:
        return (1.0,)
    raw = [0.5**level for level in range(num_heads - 1)] + [0.0]
    return tuple(weight / sum(raw) for weight in raw)


def weighted_loss(
    loss: Loss,
    weights: Sequence[float],
    outputs: Sequence[Tensor],
    targets: Sequence[Tensor],
    annotated: Tensor | None = None,
) -> Tensor:
    """Sum over the heads; heads of weight 0 are not computed."""
    terms = [
        weight * loss(output, target, annotated)
        for weight, output, target in zip(weights, outputs, targets, strict=True)
        if weight
    ]
    return torch.stack(terms).sum() if len(terms) > 1 else terms[0]
