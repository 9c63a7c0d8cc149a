"""Keep the largest connected component: the one operation of postprocessing (method 12.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from segwright.core.errors import MALFORMED, ModelError, brief
from segwright.core.labels import LabelKey, key_text, key_values

Connectivity = Literal["full", "faces"]
Box = tuple[slice, ...]

KEEP_LARGEST = "keep_largest_component"


@dataclass(frozen=True)
class Rule:
    """Set to background all of a structure but its largest component.

    Attributes:
        labels_or_regions: their union is one mask.
        connectivity: which voxels touch: ``full`` (26 neighbours in 3-D, v2) or ``faces`` (6, v1).
    """

    labels_or_regions: tuple[LabelKey, ...]
    connectivity: Connectivity = "full"

    @property
    def values(self) -> tuple[int, ...]:
        """Sorted label values of the mask; background never belongs to it."""
        return tuple(sorted({value for key in self.labels_or_regions for value in key_values(key)} - {0}))

    def describe(self) -> str:
        return " + ".join(key_text(key) for key in self.labels_or_regions)

    def to_json(self) -> dict[str, Any]:
        return {
            "operation": KEEP_LARGEST,
            "labels_or_regions": [list(key) if isinstance(key, tuple) else key for key in self.labels_or_regions],
            "connectivity": self.connectivity,
        }

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> Rule:
        """Read a rule; an operation is looked up here, never imported.

        Raises:
            ModelError: the operation or its arguments are unknown.
        """
        try:
            keys: list[LabelKey] = []
            for key in record["labels_or_regions"]:
                keys.append(tuple(int(value) for value in key) if isinstance(key, (list, tuple)) else int(key))
            connectivity = record.get("connectivity", "full")
            known = record["operation"] == KEEP_LARGEST and connectivity in ("full", "faces")
        except MALFORMED as problem:
            text = f"postprocessing rule {brief(record)} is not valid ({brief(repr(problem))})"
            raise ModelError(f"{text}; get the file again") from problem
        if not known:
            raise ModelError(
                f"postprocessing rule {brief(record)}: only {KEEP_LARGEST} with connectivity full or faces exists;"
                " was it made by a newer segwright?"
            )
        return Rule(tuple(keys), connectivity)


def apply_rules(label_zyx: NDArray[Any], rules: Sequence[Rule]) -> NDArray[Any]:
    """Apply rules one after the other to a label map; the input stays as it is.

    Args:
        label_zyx: integer label map, 2-D or 3-D (2-D images are stored as (1, y, x), where full means 8 neighbours).

    Returns:
        Label map of the same shape and dtype.
    """
    result = label_zyx.copy()
    for rule in rules:
        box, removed = removed_voxels(result, rule)
        if box is not None:
            result[box][removed] = 0
    return result


def removed_voxels(
    label_zyx: NDArray[Any], rule: Rule, within: Box | None = None
) -> tuple[Box | None, NDArray[np.bool_]]:
    """Voxels a rule sets to background: those of the mask outside all components of maximum size.

    Args:
        within: a box known to hold the whole mask; saves the search.

    Returns:
        The mask's bounding box and a bool array of that shape; (None, empty) where nothing is removed.
    """
    nothing = np.zeros((0,) * label_zyx.ndim, dtype=bool)
    region = within if within is not None else (slice(None),) * label_zyx.ndim
    mask = _mask(label_zyx[region], rule.values)
    inner = bounding_box(mask)
    if inner is None:
        return None, nothing
    mask = mask[inner]
    structure = ndimage.generate_binary_structure(mask.ndim, mask.ndim if rule.connectivity == "full" else 1)
    components, count = ndimage.label(mask, structure)
    if count < 2:
        return None, nothing
    sizes = np.bincount(components.reshape(-1))
    sizes[0] = 0  # the background
    smaller = sizes < sizes.max()  # components tied for the largest are all kept
    smaller[0] = False
    if not smaller.any():
        return None, nothing
    box = tuple(
        slice((outer.start or 0) + part.start, (outer.start or 0) + part.stop)
        for outer, part in zip(region, inner, strict=True)
    )
    return box, smaller[components]


def bounding_box(mask: NDArray[np.bool_]) -> Box | None:
    """The smallest box that holds every true voxel, None if there is none."""
    box: list[slice] = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        occupied = np.flatnonzero(mask[tuple(box)].any(axis=others))
        if occupied.size == 0:
            return None
        box.append(slice(int(occupied[0]), int(occupied[-1]) + 1))
    return tuple(box)


def _mask(label_zyx: NDArray[Any], values: Sequence[int]) -> NDArray[np.bool_]:
    """Union of label values; a table where there are many values."""
    if len(values) <= 3:
        mask = np.zeros(label_zyx.shape, dtype=bool)
        for value in values:
            mask |= label_zyx == value
        return mask
    if values == tuple(range(1, values[-1] + 1)) and label_zyx.dtype.kind == "u":
        return (label_zyx > 0) & (label_zyx <= values[-1])
    return np.isin(label_zyx, values)
