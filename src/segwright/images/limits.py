"""Checks between a file's header and its pixels: nothing is allocated for a header that cannot be true."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from segwright.core.errors import DatasetError

DEFLATE_RATIO = 1040
"""Deflate (gzip, zlib, PNG) makes data at most 1032 times smaller; larger claims are damage."""
LZW_RATIO = 4096
"""LZW, the densest of the common TIFF compressions: at most 4096 bytes in 12 bits."""
MAX_VALUES = 1 << 34
"""17 billion values: 64 GiB as float32, far beyond any image that can be trained on."""
SPACING_RANGE = (1e-9, 1e9)
"""Voxel edges outside are damage: a picometre and a thousand kilometres, if the unit is the millimetre."""
FAR = 1e12
"""Coordinates beyond are damage, and squares of them overflow in the readers."""
_SLACK_BYTES = 4096


def require_file(path: Path) -> int:
    """Size of a file in bytes.

    Raises:
        DatasetError: it does not exist, is no file, or is empty.
    """
    if not path.is_file():
        raise DatasetError(f"{path}: the file does not exist; put it there or correct the dataset")
    size_bytes = path.stat().st_size
    if size_bytes == 0:
        raise DatasetError(f"{path}: the file is empty; copy it again from its source")
    return size_bytes


def require_plausible(path: Path, shape: Sequence[int], item_bytes: int, ratio: float = 1) -> None:
    """Check what a header claims against the file's size; ``shape`` includes channels, in any order.

    ``ratio`` is by how much the format's compression can shrink data, 1 for none.

    Raises:
        DatasetError: an empty grid, or more values than the file can hold or a machine can work on.
    """
    size_bytes = require_file(path)
    text = " x ".join(str(int(length)) for length in shape)
    if not shape or min(shape) < 1:
        raise DatasetError(f"{path}: the header claims an empty grid ({text}); the file is damaged, copy it again")
    values = math.prod(int(length) for length in shape)
    if values > MAX_VALUES:
        raise DatasetError(
            f"{path}: the header claims {text} = {values:.3g} values, more than {MAX_VALUES:.3g} can be;"
            " the file is damaged, copy it again from its source"
        )
    if values * item_bytes > size_bytes * ratio + (_SLACK_BYTES if ratio > 1 else 0):
        raise DatasetError(
            f"{path}: the header claims {text} values but the file has only {size_bytes} bytes;"
            " it is truncated or damaged, copy it again from its source"
        )


def require_spacing(path: Path, spacing: Sequence[float]) -> None:
    """Voxel edges must be positive numbers a sample can have, in any unit.

    Raises:
        DatasetError: they are not.
    """
    low, high = SPACING_RANGE
    if not all(math.isfinite(edge) and low <= edge <= high for edge in spacing):
        text = ", ".join(f"{edge:g}" for edge in spacing)
        raise DatasetError(
            f"{path}: the voxel spacing ({text}) is not positive or not possible; correct the file's header"
        )


def require_position(path: Path, origin: Sequence[float], direction: Sequence[float]) -> None:
    """Origin and direction cosines must be finite.

    Raises:
        DatasetError: they are not.
    """
    if not all(math.isfinite(value) and abs(value) <= FAR for value in (*origin, *direction)):
        raise DatasetError(f"{path}: origin or direction in the header are no finite numbers; correct its header")
