"""Cascade: grow, shrink, close or open the previous stage's labels (method 6.3, 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from segwright.training.augmentation.draws import fires

Operator = Literal["dilation", "erosion", "closing", "opening"]
OPERATORS: tuple[Operator, ...] = ("dilation", "erosion", "closing", "opening")


@dataclass(frozen=True)
class BinaryOperator:
    """Apply a morphological operator to some one-hot channels, one after the other.

    Attributes:
        steps: (channel, operator, radius in voxels), in the order of application.
    """

    steps: tuple[tuple[int, Operator, float], ...]

    def __call__(self, one_hot: np.ndarray) -> np.ndarray:
        """(labels, *spatial) float32 of 0 and 1. Voxels a label gains are taken from all other labels."""
        result = one_hot.copy()
        for channel, operator, radius in self.steps:
            before = result[channel] > 0
            after = apply_operator(before, operator, radius)
            result[:, after & ~before] = 0
            result[channel] = after
        return result


@dataclass(frozen=True)
class RandomBinaryOperator:
    """Draws :class:`BinaryOperator`: channels in random order, each with its own chance, operator and radius."""

    probability: float = 0.4
    channel_probability: float = 0.5
    radius: tuple[float, float] = (1.0, 8.0)

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> BinaryOperator | None:
        if not fires(rng, self.probability):
            return None
        steps = []
        for channel in rng.permutation(shape[0]):
            if fires(rng, self.channel_probability):
                operator = OPERATORS[int(rng.integers(len(OPERATORS)))]
                steps.append((int(channel), operator, float(rng.uniform(*self.radius))))
        return BinaryOperator(tuple(steps))


def structuring_element(radius: float, dimensions: int) -> np.ndarray:
    """Boolean ball (3-D) or disk (2-D), for fractional radii exactly as scikit-image makes them.

    3-D: the integer part of 2r+1 points an axis spread evenly over [-r, r]; 2-D: points -r, -r+1, ... up to below r+1.
    """
    if dimensions == 3:
        count = int(2 * radius + 1)
        axis = np.arange(count) * (2 * radius / (count - 1)) - radius if count > 1 else np.array([-radius])
    else:
        axis = np.arange(-radius, radius + 1)
    squares = sum(part**2 for part in np.meshgrid(*(axis,) * dimensions, indexing="ij"))
    return np.asarray(squares <= radius * radius)


def apply_operator(mask: np.ndarray, operator: Operator, radius: float) -> np.ndarray:
    """One operator on a boolean map. As in v2, nothing lies beyond the border and erosion dilates the complement."""
    element = structuring_element(radius, mask.ndim)
    if not mask.any():
        return mask.copy()
    # Nothing changes further away than the operator reaches: closing and opening reach twice.
    box = tuple(
        slice(max(0, int(hits.min()) - 2 * len(element)), int(hits.max()) + 1 + 2 * len(element))
        for hits in np.nonzero(mask)
    )
    inner = mask[box]
    if operator == "dilation":
        changed = _dilate(inner, element)
    elif operator == "erosion":
        changed = _erode(inner, element)
    elif operator == "closing":
        changed = _erode(_dilate(inner, element), element)
    else:
        changed = _dilate(_erode(inner, element), element)
    result = np.zeros_like(mask)
    result[box] = changed
    return result


def _erode(mask: np.ndarray, element: np.ndarray) -> np.ndarray:
    return ~_dilate(~mask, element)


def _dilate(mask: np.ndarray, element: np.ndarray) -> np.ndarray:
    """Union of the mask shifted by every voxel of the element; an even element's centre is its lower middle.

    The element is a stack of runs along the last axis: the mask is widened once for each run, then shifted.
    """
    centre = (len(element) - 1) // 2
    margin = len(element)
    padded = np.pad(mask, margin)
    result = np.zeros_like(mask)
    widened: dict[tuple[int, int], np.ndarray] = {}
    for position in np.ndindex(element.shape[:-1]):
        run = np.flatnonzero(element[position])
        if not run.size:
            continue
        extent = (int(run[0]) - centre, int(run[-1]) - centre)
        if extent not in widened:
            widened[extent] = _widen(padded, *extent, margin, mask.shape[-1])
        rows = tuple(
            slice(margin + step - centre, margin + step - centre + edge)
            for step, edge in zip(position, mask.shape[:-1], strict=True)
        )
        result |= widened[extent][rows]
    return result


def _widen(padded: np.ndarray, first: int, last: int, margin: int, edge: int) -> np.ndarray:
    """Union of the shifts ``first`` to ``last`` along the last axis, without that axis' margin."""
    total = np.zeros((*padded.shape[:-1], edge), bool)
    for shift in range(first, last + 1):
        total |= padded[..., margin + shift : margin + shift + edge]
    return total
