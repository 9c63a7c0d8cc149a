"""Where voxels lie in space, and how two grids differ.

Arrays are in zyx order (the order SimpleITK delivers in numpy); origin and direction stay in ITK's xyz order.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

HARMONISE_RTOL, HARMONISE_ATOL = 1e-5, 1e-8  # numpy's defaults: what nnU-Net v2's integrity check accepts
SAME_GRID_SPACING_RTOL = 1e-3  # a header rounded to three digits


class Agreement(Enum):
    """How well two grids agree, from best to worst."""

    EQUAL = "equal"  # within tolerance: harmonised silently
    SAME_GRID = "same grid"  # slightly different header: one warning
    WRONG = "wrong"  # error


@dataclass(frozen=True)
class Geometry:
    """The grid of an image.

    Attributes:
        shape_zyx: voxels per array axis (a 2-D image has shape (1, y, x)).
        spacing_zyx: millimetres per array axis, positive.
        origin_xyz: position of the first voxel, ITK order, length = ``dimension``.
        direction_xyz: row-major direction cosines, ITK order, length = ``dimension`` squared.
        dimension: dimension of the stored file, 2 or 3.
        turned: how a reader turned the stored axes: for x, y, z of this grid the stored axis counted from 1, negative
            where it runs the other way; None where the axes are the file's. Files are written with the stored axes.
    """

    shape_zyx: tuple[int, int, int]
    spacing_zyx: tuple[float, float, float]
    origin_xyz: tuple[float, ...]
    direction_xyz: tuple[float, ...]
    dimension: int = 3
    turned: tuple[int, int, int] | None = None

    def to_json(self) -> dict[str, Any]:
        record: dict[str, Any] = {
            "shape_zyx": list(self.shape_zyx),
            "spacing_zyx": list(self.spacing_zyx),
            "origin_xyz": list(self.origin_xyz),
            "direction_xyz": list(self.direction_xyz),
            "dimension": self.dimension,
        }
        return record if self.turned is None else {**record, "turned": list(self.turned)}

    @staticmethod
    def from_json(record: dict[str, Any]) -> Geometry:
        return Geometry(
            shape_zyx=_triple(record["shape_zyx"], int),
            spacing_zyx=_triple(record["spacing_zyx"], float),
            origin_xyz=tuple(float(v) for v in record["origin_xyz"]),
            direction_xyz=tuple(float(v) for v in record["direction_xyz"]),
            dimension=int(record["dimension"]),
            turned=_triple(record["turned"], int) if record.get("turned") is not None else None,
        )


def compare_geometries(reference: Geometry, other: Geometry) -> tuple[Agreement, str]:
    """Classify the difference between two grids; the text says what differs (empty when equal).

    Shape and spacing decide what is wrong, as in nnU-Net v2 (method 1.5 point 7); origin and direction alone never
    make an error there, so they only warn here.
    """
    if reference.shape_zyx != other.shape_zyx:
        return Agreement.WRONG, f"shape {_show(reference.shape_zyx)} against {_show(other.shape_zyx)} (z, y, x)"
    differences: list[str] = []
    agreement = Agreement.EQUAL
    if not _close(reference.spacing_zyx, other.spacing_zyx):
        text = f"spacing {_show(reference.spacing_zyx)} mm against {_show(other.spacing_zyx)} mm (z, y, x)"
        if not np.allclose(reference.spacing_zyx, other.spacing_zyx, rtol=SAME_GRID_SPACING_RTOL):
            return Agreement.WRONG, text
        differences.append(text)
        agreement = Agreement.SAME_GRID
    same_dimension = reference.dimension == other.dimension
    if not same_dimension or not _close(reference.origin_xyz, other.origin_xyz, atol=1e-4):
        differences.append(f"origin {_show(reference.origin_xyz)} against {_show(other.origin_xyz)}")
        agreement = Agreement.SAME_GRID
    if not same_dimension or not _close(reference.direction_xyz, other.direction_xyz, atol=1e-5):
        differences.append(f"direction {_show(reference.direction_xyz)} against {_show(other.direction_xyz)}")
        agreement = Agreement.SAME_GRID
    return agreement, "; ".join(differences)


def _close(a: tuple[float, ...], b: tuple[float, ...], atol: float = HARMONISE_ATOL) -> bool:
    return len(a) == len(b) and bool(np.allclose(a, b, rtol=HARMONISE_RTOL, atol=atol))


def _show(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:g}" for value in values) + ")"


def _triple(values: Any, kind: type) -> Any:
    return tuple(kind(value) for value in values)
