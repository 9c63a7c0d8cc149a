"""NRRD, MetaImage, GIPL and NIfTI headers through SimpleITK, and everything that is written through it.

ITK trusts headers and prints its troubles on the process' stderr instead of raising (a truncated GIPL or NIfTI file
becomes zeros). So headers are checked before pixels are read, and what ITK prints is caught and judged.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from segwright.core.errors import DatasetError
from segwright.core.files import atomic_path
from segwright.core.geometry import Geometry
from segwright.images.complete import require_complete
from segwright.images.image import Stored
from segwright.images.limits import (
    DEFLATE_RATIO,
    require_file,
    require_plausible,
    require_position,
    require_spacing,
)
from segwright.images.metaimage import check_metaimage, verify_pixels
from segwright.images.streams import content_chunks

log = logging.getLogger(__name__)

TWO_D_SLICE_FACTOR = 999.0
"""A 2-D image gets a slice spacing of this times its largest pixel edge (method 1.3): it is never resampled along z."""

_IMAGE_IO = {
    ".nii": "NiftiImageIO",
    ".nii.gz": "NiftiImageIO",
    ".nrrd": "NrrdImageIO",
    ".mha": "MetaImageIO",
    ".gipl": "GiplImageIO",
    ".png": "PNGImageIO",
    ".bmp": "BMPImageIO",
    ".tif": "TIFFImageIO",
    ".tiff": "TIFFImageIO",
}
_COMPRESSION = {".gipl": 1, ".bmp": 8, ".nii": 1}  # largest ratio; BMP knows run lengths; all others: deflate
_SIGNS_OF_DAMAGE = ("uncompress failed", "not read completely", "read error", "unexpected end")
_ITK_ERRORS = (RuntimeError, UnicodeDecodeError)  # the latter where ITK quotes a damaged header's bytes
_STDERR_LOCK = threading.Lock()

_DTYPES = {
    sitk.sitkUInt8: "uint8",
    sitk.sitkInt8: "int8",
    sitk.sitkUInt16: "uint16",
    sitk.sitkInt16: "int16",
    sitk.sitkUInt32: "uint32",
    sitk.sitkInt32: "int32",
    sitk.sitkUInt64: "uint64",
    sitk.sitkInt64: "int64",
    sitk.sitkFloat32: "float32",
    sitk.sitkFloat64: "float64",
    sitk.sitkVectorUInt8: "uint8",
    sitk.sitkVectorInt8: "int8",
    sitk.sitkVectorUInt16: "uint16",
    sitk.sitkVectorInt16: "int16",
    sitk.sitkVectorUInt32: "uint32",
    sitk.sitkVectorInt32: "int32",
    sitk.sitkVectorUInt64: "uint64",
    sitk.sitkVectorInt64: "int64",
    sitk.sitkVectorFloat32: "float32",
    sitk.sitkVectorFloat64: "float64",
}


class NotOrthonormalError(Exception):
    """ITK refuses a NIfTI file whose axes are not at right angles; ``images/nifti.py`` has a way out."""


@dataclass(frozen=True)
class Header:
    """What ITK reads without pixels: sizes in ITK order (x, y, z, ...), one component a scalar."""

    size_xyz: tuple[int, ...]
    components: int
    dtype: str
    spacing_xyz: tuple[float, ...]
    origin_xyz: tuple[float, ...]
    direction_xyz: tuple[float, ...]

    @property
    def channels(self) -> int:
        """Channels of the file: components of a vector image, or the fourth axis (method 1.3)."""
        return self.size_xyz[3] if len(self.size_xyz) == 4 else self.components


def ending_of(path: Path) -> str:
    """The file ending ITK must handle, lower case, ``.nii.gz`` as one."""
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else path.suffix.lower()


def read_itk_header(path: Path) -> Header:
    """Read a header and check that the file can hold what it claims; no pixels are read.

    Raises:
        DatasetError: no image of the format its ending says, or an impossible header.
        NotOrthonormalError: a NIfTI file with sheared axes.
    """
    require_file(path)
    if ending_of(path) == ".mha":
        check_metaimage(path)
    elif ending_of(path) == ".nrrd":
        _refuse_detached_pixels(path)
    reader = _reader(path)
    with caught_stderr() as printed:
        try:
            reader.ReadImageInformation()
        except _ITK_ERRORS as error:
            if "orthonormal" in str(error):
                raise NotOrthonormalError(str(path)) from None
            raise _unreadable(path, error) from None
    _log_printed(path, printed)
    if reader.GetPixelID() not in _DTYPES:
        kind = sitk.GetPixelIDValueAsString(reader.GetPixelID())
        raise DatasetError(f"{path}: pixels of the type `{kind}` cannot be used; save it as integers or floats")
    header = Header(
        size_xyz=tuple(reader.GetSize()),
        components=reader.GetNumberOfComponents(),
        dtype=_DTYPES[reader.GetPixelID()],
        spacing_xyz=tuple(reader.GetSpacing()),
        origin_xyz=tuple(reader.GetOrigin()),
        direction_xyz=tuple(reader.GetDirection()),
    )
    if not 2 <= len(header.size_xyz) <= 4 or (len(header.size_xyz) == 4 and header.components > 1):
        raise DatasetError(f"{path}: has {len(header.size_xyz)} dimensions; a case is 2-D or 3-D, one file a channel")
    require_spacing(path, header.spacing_xyz[:3])
    require_position(path, header.origin_xyz, header.direction_xyz)
    ending = ending_of(path)
    if not ending.startswith(".nii"):  # its values on disk can be smaller than in memory; nifti.py checks itself
        item_bytes = np.dtype(header.dtype).itemsize
        require_plausible(
            path, (*header.size_xyz, header.components), item_bytes, _COMPRESSION.get(ending, DEFLATE_RATIO)
        )
    return header


def geometry_of(header: Header) -> Geometry:
    """The spatial grid of a header: a fourth axis is dropped, a 2-D image becomes one slice."""
    dimension = min(len(header.size_xyz), 3)
    size, spacing = header.size_xyz[:dimension], header.spacing_xyz[:dimension]
    direction = np.reshape(header.direction_xyz, (len(header.size_xyz),) * 2)[:dimension, :dimension]
    if dimension == 2:
        size, spacing = (*size, 1), (*spacing, TWO_D_SLICE_FACTOR * max(spacing))
    return Geometry(
        shape_zyx=(size[2], size[1], size[0]),
        spacing_zyx=(spacing[2], spacing[1], spacing[0]),
        origin_xyz=header.origin_xyz[:dimension],
        direction_xyz=tuple(float(cosine) for cosine in direction.ravel()),
        dimension=dimension,
    )


def header_itk(path: Path) -> tuple[Geometry, str]:
    """Grid and stored type."""
    header = read_itk_header(path)
    return geometry_of(header), header.dtype


def read_itk(path: Path, dtype: type | None = None) -> Stored:
    """Read a whole file; values keep their stored type unless ``dtype`` is given (one copy either way).

    Raises:
        DatasetError: unreadable, truncated, damaged or of an unsuitable kind.
    """
    header = read_itk_header(path)
    if ending_of(path) == ".nrrd":
        _verify_nrrd(path)
    elif ending_of(path) == ".mha":
        verify_pixels(path)
    with caught_stderr() as printed:
        try:
            image = _reader(path).Execute()
        except _ITK_ERRORS as error:
            raise _unreadable(path, error, printed) from None
    for line in printed:
        if any(sign in line.lower() for sign in _SIGNS_OF_DAMAGE):
            raise DatasetError(f"{path}: the file is truncated or damaged ({line}); copy it again from its source")
    _log_printed(path, printed)
    view = sitk.GetArrayViewFromImage(image)  # [t,] [z,] y, x [, component]; lives as long as `image`
    if header.components > 1:
        view = np.moveaxis(view, -1, 0)
    geometry = geometry_of(header)
    array_czyx = np.array(view.reshape((header.channels, *geometry.shape_zyx)), dtype=dtype, order="C")
    return Stored(array_czyx, geometry, header.dtype)


def write_itk(path: Path, array_zyx: npt.NDArray[Any], geometry: Geometry) -> None:
    """Write one channel with its geometry, compressed where the format can; a 2-D grid is written as 2-D.

    Raises:
        DatasetError: ITK cannot write it.
    """
    flat = geometry.dimension == 2
    image = sitk.GetImageFromArray(np.ascontiguousarray(array_zyx[0] if flat else array_zyx))
    image.SetSpacing([float(edge) for edge in geometry.spacing_zyx[::-1][: geometry.dimension]])
    image.SetOrigin(geometry.origin_xyz)
    image.SetDirection(geometry.direction_xyz)
    with atomic_path(path) as temporary:
        save(image, temporary, path)


def save(image: Any, temporary: Path, path: Path) -> None:
    """Write an ITK image to ``temporary``, in the format that the final ``path`` asks for."""
    writer = sitk.ImageFileWriter()
    writer.SetImageIO(_IMAGE_IO[ending_of(path)])
    writer.SetFileName(str(temporary))
    writer.SetUseCompression(True)
    with caught_stderr() as printed:
        try:
            writer.Execute(image)
        except _ITK_ERRORS as error:
            raise DatasetError(f"{path}: cannot be written ({_reason(error, printed)})") from None
    _log_printed(path, printed)
    require_complete(temporary, path, image, lambda: read_itk(temporary))


@contextlib.contextmanager
def caught_stderr() -> Iterator[list[str]]:
    """Collect what C libraries print on file descriptor 2; the list is filled when the block ends.

    SimpleITK holds Python's lock while it works, so nothing of Python's own is caught.
    """
    lines: list[str] = []
    with _STDERR_LOCK, tempfile.TemporaryFile() as sink:
        original = os.dup(2)
        os.dup2(sink.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(original, 2)
            os.close(original)
            sink.seek(0)
            text = sink.read(1 << 16).decode("utf-8", errors="replace")
            lines.extend(line.strip() for line in text.splitlines() if line.strip())


def _reader(path: Path) -> Any:
    """A reader bound to the one format the ending stands for: content never chooses another parser."""
    ending = ending_of(path)
    if ending not in _IMAGE_IO:
        raise DatasetError(f"{path}: files ending in {ending} cannot be read; known: {', '.join(sorted(_IMAGE_IO))}")
    reader = sitk.ImageFileReader()
    reader.SetImageIO(_IMAGE_IO[ending])
    reader.SetFileName(str(path))
    return reader


def _refuse_detached_pixels(path: Path) -> None:
    """A header that points to pixels in another file would hide changes of that file from every digest."""
    with path.open("rb") as stream:
        head = stream.read(1 << 16).replace(b"\r\n", b"\n").partition(b"\n\n")[0].lower()
    if any(line.startswith((b"data file:", b"datafile:")) for line in head.split(b"\n")):
        raise DatasetError(f"{path}: no pixels in the file itself; save header and pixels as one file")


def _verify_nrrd(path: Path) -> None:
    """Check length and checksum of a gzip-coded NRRD, which ITK does not (a flipped bit is read as other voxels)."""
    with path.open("rb") as stream:
        head = stream.read(1 << 16)
    ends = [match.end() for match in re.finditer(rb"\n\r?\n", head)]
    if ends:
        for _ in content_chunks(path, ends[0]):
            pass


def _unreadable(path: Path, error: Exception, printed: list[str] | None = None) -> DatasetError:
    return DatasetError(
        f"{path}: cannot be read as {_IMAGE_IO[ending_of(path)].removesuffix('ImageIO')} image"
        f" ({_reason(error, printed or [])}); it is truncated, damaged or of another format: copy it again"
    )


def _reason(error: Exception, printed: list[str]) -> str:
    """The telling lines of ITK's many, without memory addresses (messages are compared between runs)."""
    lines = [re.sub(r"\(0x[0-9a-f]+\)", "", line).strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith("Exception thrown")] or lines
    return "; ".join([*told[:1], *told[1:][-1:], *printed[:1]])


def _log_printed(path: Path, printed: list[str]) -> None:
    for line in printed:
        log.debug("%s: ITK says: %s", path, line)
