"""TIFF: single pictures for ``natural.py``, and 3-D stacks whose spacing stands in a side-car file (method 1.3).

The side-car of the channel ``case_0000.tif`` and of the label map ``case.tif`` is ``case.json`` beside it:
``{"spacing": [z, y, x]}`` in any unit the whole dataset shares.
"""

from __future__ import annotations

import contextlib
import logging
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segwright.core.errors import DatasetError
from segwright.core.files import atomic_path, read_json, write_json
from segwright.core.geometry import Geometry
from segwright.images.image import Stored
from segwright.images.itk import read_itk
from segwright.images.limits import LZW_RATIO, require_plausible, require_spacing
from segwright.images.tiff_directories import check_directories

log = logging.getLogger(__name__)

_DAMAGE = (
    zlib.error, struct.error, ValueError, TypeError, LookupError, OSError, EOFError, RuntimeError, AttributeError,
    ArithmeticError, AssertionError,
)  # fmt: skip
"""What tifffile raises on damaged files: it has no single error for them (its own is a ValueError)."""
_NO_COMPRESSION, _LZW, _JPEG, _PACKBITS = 1, 5, 7, 32773  # values of the tag, as TIFF 6.0 has them
_COMPRESSIONS_OF_ITK = (_LZW, _PACKBITS, _JPEG)
_JPEG_START = b"\xff\xd8"
_IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def header_stack(path: Path, sidecar: Path) -> tuple[Geometry, str]:
    """Grid and stored type of a stack whose spacing stands in ``sidecar``.

    Raises:
        DatasetError: unreadable, a picture in colours, or a bad side-car file.
    """
    shape, axes, dtype = tiff_shape(path)
    # three or four planes written without a word about them are declared as colours (S) in front: slices, as in v2
    if "S" in axes[1:] or len(shape) not in (2, 3):
        text = " x ".join(map(str, shape))
        raise DatasetError(f"{path}: is no grey 3-D stack but {text} ({axes}); save one grey stack a channel")
    shape_zyx = (1, *shape) if len(shape) == 2 else shape
    spacing = _read_spacing(path, sidecar)
    geometry = Geometry((shape_zyx[0], shape_zyx[1], shape_zyx[2]), spacing, (0.0, 0.0, 0.0), _IDENTITY)
    return geometry, dtype


def read_stack(path: Path, sidecar: Path, dtype: type | None = None) -> Stored:
    """Read a stack as (1, z, y, x).

    Raises:
        DatasetError: unreadable, truncated, or not a grey stack.
    """
    geometry, stored_dtype = header_stack(path, sidecar)
    values = read_tiff(path)
    return Stored(np.ascontiguousarray(values.reshape(1, *geometry.shape_zyx), dtype=dtype), geometry, stored_dtype)


def write_stack(path: Path, sidecar: Path, array_zyx: npt.NDArray[Any], geometry: Geometry) -> None:
    """Write a stack and its side-car with the spacing."""
    write_tiff(path, array_zyx)
    write_json(sidecar, {"spacing": list(geometry.spacing_zyx)})


def tiff_shape(path: Path) -> tuple[tuple[int, ...], str, str]:
    """Shape, axis letters (Y, X, S colours, C channels, others slices) and numpy type of a TIFF; no pixels are read.

    Raises:
        DatasetError: no TIFF, or a header that claims more than the file can hold.
    """
    check_directories(path)
    with _first_series(path) as series:
        shape, axes, dtype = tuple(int(n) for n in series.shape), str(series.axes), series.dtype
        compressed = series.keyframe.compression != _NO_COMPRESSION
    if dtype is None or np.dtype(dtype).kind not in "uifb":
        raise DatasetError(f"{path}: pixels of the type `{dtype}` cannot be used; save it as integers or floats")
    stored_shape = (*shape[:-1], -(-shape[-1] // 8)) if np.dtype(dtype).kind == "b" else shape  # eight pixels a byte
    require_plausible(path, stored_shape, np.dtype(dtype).itemsize, LZW_RATIO if compressed else 1)
    return shape, axes, _stored_type(np.dtype(dtype)).name


def read_tiff(path: Path) -> npt.NDArray[Any]:
    """The values of the first series, in native byte order.

    Raises:
        DatasetError: truncated, damaged, or compressed in a way neither tifffile nor ITK knows.
    """
    with _first_series(path) as series:
        shape, axes = tuple(int(n) for n in series.shape), str(series.axes)
        _require_segments(path, series)
        try:
            values = series.asarray()
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            _require_itk_can(path, series)
            stored_czyx = read_itk(path).array_czyx  # colours are channels, pages are slices
            planes_nyx = stored_czyx.reshape(-1, *stored_czyx.shape[2:])
            values = np.moveaxis(planes_nyx, 0, axes.index("S")) if "S" in axes else planes_nyx
    if values.size != int(np.prod(shape)):
        raise DatasetError(f"{path}: the file is truncated; copy it again from its source")
    return np.asarray(values).reshape(shape).astype(_stored_type(values.dtype), copy=False)


def write_tiff(path: Path, array: npt.NDArray[Any]) -> None:
    """Write a picture (y, x) or a stack (z, y, x), losslessly compressed, without a date in the header."""
    import tifffile  # late, as below: most datasets hold none, and it takes a third of numpy's time to load

    with atomic_path(path) as temporary:
        tifffile.imwrite(
            temporary,
            np.ascontiguousarray(array),
            photometric="minisblack",
            compression="zlib",
            metadata={"axes": "ZYX"[-array.ndim :]},
            software=False,
            datetime=None,
        )


def _stored_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """In native byte order; pixels of one bit are 0 and 1."""
    return np.dtype(np.uint8) if dtype.kind == "b" else dtype.newbyteorder("=")


@contextlib.contextmanager
def _first_series(path: Path) -> Iterator[Any]:
    """The first image of a file (others would be thumbnails and the like); tifffile's troubles become ours."""
    import tifffile

    try:
        with tifffile.TiffFile(path, _multifile=False) as tiff:  # pixels of other files would be in no digest
            if not tiff.series:
                raise DatasetError(f"{path}: holds no image; copy it again")
            yield tiff.series[0]
    except _DAMAGE as error:
        raise _damaged(path, error) from error


def _require_segments(path: Path, series: Any) -> None:
    """Strips and tiles lie in the file: tifffile allocates what a length says before it reads."""
    size_bytes = path.stat().st_size
    for page in series.pages:
        places = () if page is None else zip(page.dataoffsets, page.databytecounts, strict=False)
        if any(offset < 0 or count < 0 or offset + count > size_bytes for offset, count in places):
            raise DatasetError(f"{path}: a strip or tile lies outside the file; it is truncated, copy it again")


def _require_itk_can(path: Path, series: Any) -> None:
    """What is left to ITK: LZW, PackBits and JPEG; it loops for long on what only claims to be JPEG."""
    compression = series.keyframe.compression
    with path.open("rb") as stream:
        for offset in series.keyframe.dataoffsets if compression == _JPEG else ():
            stream.seek(offset)
            if stream.read(2) != _JPEG_START:
                raise DatasetError(f"{path}: the JPEG data in it is damaged; copy it again from its source")
    if compression not in _COMPRESSIONS_OF_ITK or series.dtype.kind == "b":
        name = getattr(compression, "name", compression)
        raise DatasetError(f"{path}: the compression {name} cannot be read; save it with deflate (zlib), LZW or none")


def _damaged(path: Path, error: Exception) -> DatasetError:
    return DatasetError(f"{path}: cannot be read as TIFF ({error}); it is truncated or damaged, copy it again")


def _read_spacing(path: Path, sidecar: Path) -> tuple[float, float, float]:
    """Spacing of the side-car; (1, 1, 1) with a warning if there is none (method 1.3)."""
    if not sidecar.is_file():
        log.warning("%s: there is no %s with the voxel spacing; (1, 1, 1) is assumed", path, sidecar.name)
        return (1.0, 1.0, 1.0)
    content = read_json(sidecar)
    spacing = content.get("spacing") if isinstance(content, dict) else None
    if (
        not isinstance(spacing, list)
        or len(spacing) != 3
        or not all(isinstance(edge, (int, float)) for edge in spacing)
    ):
        raise DatasetError(f'{sidecar}: must hold {{"spacing": [z, y, x]}}')
    require_spacing(sidecar, spacing)
    return (float(spacing[0]), float(spacing[1]), float(spacing[2]))
