"""NIfTI files: geometry as ITK or as nibabel understands it, pixels read here.

ITK fills the rest of a truncated NIfTI file with zeros and says nothing, and refuses files whose axes are not exactly
at right angles. So this module decompresses itself, which checks length and checksum in the one pass that is needed
anyway, and falls back on the nearest right-angled axes. Field offsets: nifti1.h of the NIfTI standard.
"""

from __future__ import annotations

import logging
import struct
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segwright.core.errors import DatasetError
from segwright.core.geometry import Geometry
from segwright.images.image import Stored
from segwright.images.itk import Header, NotOrthonormalError, geometry_of, read_itk_header
from segwright.images.limits import DEFLATE_RATIO, FAR, require_file, require_plausible, require_spacing
from segwright.images.streams import content_chunks, first_bytes, is_gzip

log = logging.getLogger(__name__)

_NO_SHEAR, _LARGE_SHEAR = 1e-5, 1e-2
_HEADER_BYTES, _NIFTI_2_BYTES = 348, 540
_SCALARS = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8",
}  # fmt: skip
_COLOURS = {128: 3, 2304: 4}  # RGB, RGBA: bytes, interleaved
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class _Layout:
    """Where the pixels of a NIfTI file lie and how they are coded."""

    dims: tuple[int, ...]
    dtype: np.dtype[Any]
    interleaved: int
    offset: int
    slope: float
    intercept: float
    quaternion: tuple[float, ...] | None  # qfac, b, c, d
    qoffset: tuple[float, ...]
    sform: npt.NDArray[np.float64] | None  # (3, 4), RAS
    pixdim: tuple[float, ...]

    @property
    def scaled(self) -> bool:
        return self.slope != 1 or self.intercept != 0


def header_nifti(path: Path) -> tuple[Geometry, str]:
    """Grid and type of the (scaled) values, without reading pixels.

    Raises:
        DatasetError: no NIfTI file, or an impossible header.
    """
    header, _ = _headers(path)
    return geometry_of(header), header.dtype


def read_nifti(path: Path, dtype: type | None = None) -> Stored:
    """Read a whole file; values keep their (scaled) type unless ``dtype`` is given.

    Raises:
        DatasetError: unreadable, truncated, damaged or of an unsuitable kind.
    """
    header, layout = _headers(path)
    return _read(path, dtype, header, layout, geometry_of(header))


def header_nibabel(path: Path) -> tuple[Geometry, str]:
    """As :func:`header_nifti`, the grid as nibabel understands it: see :func:`_nibabel_geometry`."""
    header, layout = _headers(path)
    return _nibabel_geometry(path, header, layout), header.dtype


def read_nibabel(path: Path, dtype: type | None = None) -> Stored:
    """As :func:`read_nifti`, on the grid as nibabel understands it."""
    header, layout = _headers(path)
    return _read(path, dtype, header, layout, _nibabel_geometry(path, header, layout))


def has_sheared_axes(path: Path) -> bool:
    """Whether ITK refuses a file because its axes are not at right angles.

    Raises:
        DatasetError: no NIfTI file, or an impossible header.
    """
    head, _ = _checked(path)
    try:
        _itk_header(path, head)
    except NotOrthonormalError:
        return True
    return False


def _read(path: Path, dtype: type | None, header: Header, layout: _Layout, geometry: Geometry) -> Stored:
    values = _pixels(path, layout)
    shape = (header.channels, *geometry.shape_zyx)
    if layout.interleaved > 1:
        values = np.moveaxis(values.reshape((*geometry.shape_zyx, layout.interleaved)), -1, 0)
    kind = np.dtype(header.dtype if dtype is None else dtype)
    if layout.scaled:  # in double precision, as ITK does it
        values = values.astype(np.float64) * layout.slope + layout.intercept
    return Stored(np.ascontiguousarray(values.reshape(shape), dtype=kind), geometry, header.dtype)


def _nibabel_geometry(path: Path, header: Header, layout: _Layout) -> Geometry:
    """The grid by nibabel's rules (5.4): pixdim is the spacing, whatever its unit; sform before qform; if neither has a
    code, x runs to the left and zero lies in the middle. ITK turns units into millimetres and has rules of its own.
    """
    geometry = geometry_of(header)
    if geometry.dimension == 2:
        return geometry
    spacing = np.array([abs(edge) or 1.0 for edge in layout.pixdim[1:4]])
    if layout.sform is not None:
        axes, origin = _nearest_axes(path, layout.sform), layout.sform[:, 3]
    elif layout.quaternion is not None:
        axes, origin = _rotation(layout.quaternion), np.asarray(layout.qoffset)
    else:
        axes = np.diag([-1.0, 1.0, 1.0])
        origin = -axes @ (spacing * (np.asarray(layout.dims[:3]) - 1) / 2)
    return replace(
        geometry,
        spacing_zyx=(float(spacing[2]), float(spacing[1]), float(spacing[0])),
        origin_xyz=tuple(float(value) for value in _RAS_TO_LPS @ origin),
        direction_xyz=tuple(float(cosine) for cosine in (_RAS_TO_LPS @ axes).ravel()),
    )


def _headers(path: Path) -> tuple[Header, _Layout]:
    """ITK's view of the header and ours, which must agree in size."""
    head, layout = _checked(path)
    try:
        header = _itk_header(path, head)
    except NotOrthonormalError:
        header = _right_angled(path, layout)
    claimed = int(np.prod(layout.dims)) * layout.interleaved
    if int(np.prod(header.size_xyz)) * header.components != claimed:
        raise DatasetError(f"{path}: the header's dimensions contradict each other; the file is damaged")
    return header, layout


def _checked(path: Path) -> tuple[bytes, _Layout]:
    """The header's bytes and what they say, checked before ITK sees them."""
    require_file(path)
    head = first_bytes(path, _HEADER_BYTES)
    layout = _layout(path, head)
    ratio = DEFLATE_RATIO if is_gzip(path) else 1
    require_plausible(path, (*layout.dims, layout.interleaved), layout.dtype.itemsize, ratio)
    return head, layout


@lru_cache(maxsize=4096)
def _itk_header(path: Path, head: bytes) -> Header:
    """:func:`read_itk_header`, once for a file that is read again: it takes ITK three times as long as all pixels of a
    small compressed image. ``head`` is what ITK makes the header from, so a changed file is never mistaken.
    """
    return read_itk_header(path)


def _layout(path: Path, head: bytes) -> _Layout:
    """Parse the first 348 bytes."""
    endian = next((e for e in "<>" if len(head) >= 4 and struct.unpack(e + "i", head[:4])[0] == _HEADER_BYTES), None)
    if len(head) >= 4 and _NIFTI_2_BYTES in struct.unpack("<i", head[:4]) + struct.unpack(">i", head[:4]):
        raise DatasetError(f"{path}: is a NIfTI-2 file, which cannot be read; save it as NIfTI-1")
    if endian is None or len(head) < _HEADER_BYTES:
        raise DatasetError(f"{path}: is not a NIfTI file, or damaged at its very start; copy it again from its source")

    def at(code: str, position: int) -> tuple[Any, ...]:
        return struct.unpack_from(endian + code, head, position)

    dim, code, offset = at("8h", 40), at("h", 70)[0], at("f", 108)[0]
    slope, intercept = at("2f", 112)
    pixdim, rows = at("8f", 76), at("12f", 280)
    qform_code, sform_code = at("2h", 252)
    quatern, qoffset = at("3f", 256), at("3f", 268)
    if not 1 <= dim[0] <= 7:
        raise DatasetError(f"{path}: the header claims {dim[0]} dimensions; the file is damaged, copy it again")
    if code not in _SCALARS and code not in _COLOURS:
        raise DatasetError(f"{path}: voxels of NIfTI type {code} cannot be used; save it as integers or floats")
    used = [*pixdim[1 : min(dim[0], 3) + 1], *(rows if sform_code else ()), *(quatern + qoffset if qform_code else ())]
    if not (np.isfinite(used).all() and np.abs(used).max(initial=0) <= FAR):  # ITK never returns from an infinite sform
        raise DatasetError(f"{path}: spacing or orientation in the header are not finite numbers; correct its header")
    if not np.isfinite([offset, slope, intercept]).all() or slope == 0:
        slope, intercept = 1.0, 0.0  # the standard: no scaling
    return _Layout(
        dims=tuple(int(length) for length in dim[1 : dim[0] + 1]),
        dtype=np.dtype(endian + _SCALARS.get(code, "u1")),
        interleaved=_COLOURS.get(code, 1),
        offset=max(int(offset), 0) if np.isfinite(offset) else 0,
        slope=float(slope),
        intercept=float(intercept),
        quaternion=(-1.0 if pixdim[0] < 0 else 1.0, *quatern) if qform_code > 0 else None,
        qoffset=tuple(float(value) for value in qoffset),
        sform=np.reshape(rows, (3, 4)).astype(np.float64) if sform_code > 0 else None,
        pixdim=tuple(float(edge) for edge in pixdim),
    )


def _pixels(path: Path, layout: _Layout) -> npt.NDArray[Any]:
    """All values in file order as a flat array, in native byte order; checks length and, if compressed, checksum."""
    count = int(np.prod(layout.dims)) * layout.interleaved
    needed = count * layout.dtype.itemsize
    buffer = np.empty(needed, np.uint8)
    position = -layout.offset  # where in the buffer the next decompressed byte goes
    for chunk in content_chunks(path):
        piece = np.frombuffer(chunk, np.uint8)
        start, stop = max(position, 0), min(position + len(piece), needed)
        if stop > start:
            buffer[start:stop] = piece[start - position : stop - position]
        position += len(piece)
    if position < needed:
        raise DatasetError(
            f"{path}: the file is truncated, {max(position, 0)} of {needed} bytes of voxels;"
            " copy it again from its source"
        )
    values = buffer.view(layout.dtype)
    return values if layout.dtype.isnative else values.astype(layout.dtype.newbyteorder("="))


def _right_angled(path: Path, layout: _Layout) -> Header:
    """The header with axes at right angles: the qform if there is one, else the nearest to the sform."""
    if layout.sform is None and layout.quaternion is None:
        raise DatasetError(f"{path}: the header describes no usable orientation; correct its qform or sform")
    if layout.quaternion is not None:
        axes, origin = _rotation(layout.quaternion), np.asarray(layout.qoffset)
        spacing = np.abs(layout.pixdim[1:4])
    else:
        assert layout.sform is not None
        spacing = np.linalg.norm(layout.sform[:, :3], axis=0)
        axes, origin = _nearest_axes(path, layout.sform), layout.sform[:, 3]
    dims = layout.dims
    if len(dims) not in (3, 4):
        raise DatasetError(f"{path}: has {len(dims)} dimensions and sheared axes; correct its sform")
    direction = np.eye(len(dims))
    direction[:3, :3] = _RAS_TO_LPS @ axes
    return Header(
        size_xyz=dims,
        components=layout.interleaved,
        dtype="float32" if layout.scaled else layout.dtype.newbyteorder("=").name,
        spacing_xyz=(*(float(edge) for edge in spacing), *([1.0] * (len(dims) - 3))),
        origin_xyz=(*(float(value) for value in _RAS_TO_LPS @ origin), *([0.0] * (len(dims) - 3))),
        direction_xyz=tuple(float(cosine) for cosine in direction.ravel()),
    )


def _nearest_axes(path: Path, sform: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The axes at right angles that are nearest to a sform's: the orthogonal factor of their polar decomposition."""
    spacing = np.linalg.norm(sform[:, :3], axis=0)
    require_spacing(path, tuple(spacing))
    left, stretch, right = np.linalg.svd(sform[:, :3] / spacing)
    if stretch[-1] < 1e-3:
        raise DatasetError(f"{path}: the axes in the header lie in one plane; correct its sform")
    axes: npt.NDArray[np.float64] = left @ right
    shear = float(np.abs(sform[:, :3] / spacing - axes).max())
    if shear > _NO_SHEAR:
        say = log.warning if shear > _LARGE_SHEAR else log.info
        say("%s: axes are not at right angles (by up to %.2g); the nearest right-angled axes are used", path, shear)
    return axes


def _rotation(quaternion: tuple[float, ...]) -> npt.NDArray[np.float64]:
    """Axes of a qform (nifti1.h, method 2): unit quaternion with a >= 0, third axis times qfac."""
    qfac, b, c, d = quaternion
    a = np.sqrt(max(1.0 - (b * b + c * c + d * d), 0.0))
    axes = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    axes[:, 2] *= qfac
    return axes
