"""The one door to image files: which reader a dataset needs, and reading and writing with it.

Readers carry nnU-Net v2's class names, because plans store them (method 1.3).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segwright.core.errors import DatasetError, SegwrightError
from segwright.core.geometry import Agreement, Geometry, compare_geometries
from segwright.images.image import Image, LabelMap, Stored, as_label_map
from segwright.images.itk import ending_of, header_itk, read_itk, write_itk
from segwright.images.natural import header_picture, read_picture, read_picture_label, write_picture
from segwright.images.nifti import header_nibabel, header_nifti, read_nibabel, read_nifti
from segwright.images.orientation import geometry_to_ras, to_ras, to_stored
from segwright.images.tiff import header_stack, read_stack, write_stack

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reader:
    """How one family of files is read and written."""

    endings: tuple[str, ...]
    header: Callable[[Path], tuple[Geometry, str]]
    read: Callable[[Path, type | None], Stored]
    read_label: Callable[[Path], Stored]
    write: Callable[[Path, npt.NDArray[Any], Geometry], None]


def choose_reader(file_ending: str, example: Path | None = None, override: str | None = None) -> str:
    """Name of the reader for a dataset's files (method 1.3).

    ``override`` (dataset.json's ``overwrite_image_reader_writer``) decides; else the first reader in v2's order that
    knows the ending and can open ``example``. Only TIFF has readers that really differ (pictures, stacks); for other
    endings an unreadable example does not matter, it is reported with its case.

    Raises:
        DatasetError: an unknown reader or ending, or a TIFF example that no reader can open.
    """
    ending = file_ending.lower()
    if override not in (None, "None"):
        if override not in READERS:
            raise DatasetError(
                f"dataset.json: overwrite_image_reader_writer `{override}` is unknown; known: {', '.join(READERS)}"
            )
        if ending not in READERS[override].endings:
            raise DatasetError(
                f"dataset.json: {override} cannot read {file_ending}; it reads {', '.join(READERS[override].endings)}"
            )
        return override
    candidates = [name for name, reader in READERS.items() if ending in reader.endings]
    if not candidates:
        raise DatasetError(
            f"dataset.json: files ending in `{file_ending}` cannot be read; known: {', '.join(known_endings())}"
        )
    if example is None or ending not in (".tif", ".tiff"):
        return candidates[0]
    problems = []
    for name in candidates:
        try:
            READERS[name].header(example)
        except SegwrightError as error:
            problems.append(str(error))
        else:
            return name
    raise DatasetError(problems[-1])


def known_endings() -> tuple[str, ...]:
    """All file endings that some reader knows, sorted."""
    return tuple(sorted({ending for reader in READERS.values() for ending in reader.endings}))


def read_image(files: Sequence[Path], reader: str) -> Image:
    """Read the channel files of one case, in channel order, as one image.

    A single file may hold several channels: RGB, a vector image, or a fourth axis, as in v2. The caller compares the
    number of channels with the dataset's.

    Raises:
        DatasetError: a file is unreadable, truncated or damaged; several files of which one is 4-D; or the channels'
            grids differ. The message names the file.
    """
    channels = read_channels(files, reader)
    first = channels[0]
    for path, channel in zip(files[1:], channels[1:], strict=True):
        agreement, difference = compare_geometries(first.geometry, channel.geometry)
        if agreement is Agreement.WRONG:
            raise DatasetError(
                f"{path}: its grid differs from {Path(files[0]).name}: {difference}; resample it to the first channel"
            )
        if agreement is Agreement.SAME_GRID:
            log.warning("%s: slightly different header than %s: %s", path, Path(files[0]).name, difference)
    if len(channels) == 1:
        return first
    for path, channel in zip(files, channels, strict=True):
        if len(channel.array_czyx) > 1:
            raise DatasetError(
                f"{path}: holds {len(channel.array_czyx)} channels (4-D or colour) although the case has"
                f" {len(files)} channel files; split it into one file a channel"
            )
    dtypes = {channel.stored_dtype for channel in channels}
    stacked_czyx = np.concatenate([channel.array_czyx for channel in channels])
    return Image(stacked_czyx, first.geometry, dtypes.pop() if len(dtypes) == 1 else "mixed")


def read_channels(files: Sequence[Path], reader: str) -> list[Image]:
    """Read files without comparing them: one image a file (an RGB picture has three channels).

    Raises:
        DatasetError: a file is unreadable, truncated or damaged.
    """
    if not files:
        raise DatasetError("a case without image files cannot be read")
    images = []
    for path in map(Path, files):
        stored = _reader(reader).read(path, np.float32)
        images.append(Image(stored.array_czyx, stored.geometry, stored.stored_dtype))
    return images


def read_native(file: Path, reader: str) -> Stored:
    """Read one file as (channels, z, y, x) in its stored type; for conversion, which must not change values.

    Raises:
        DatasetError: unreadable, truncated or damaged.
    """
    return _reader(reader).read(Path(file), None)


def read_label(file: Path, reader: str) -> LabelMap:
    """Read a label map; floats that are whole numbers become integers.

    Raises:
        DatasetError: unreadable, truncated, damaged, several channels, or values that are no whole numbers.
    """
    return as_label_map(_reader(reader).read_label(Path(file)), Path(file))


def read_header(file: Path, reader: str) -> tuple[Geometry, str]:
    """Grid and stored numpy type of a file, without its pixels; sizes are checked against the file's length.

    Raises:
        DatasetError: unreadable or impossible.
    """
    return _reader(reader).header(Path(file))


def write_label(path: Path, label_zyx: npt.NDArray[Any], geometry: Geometry, reader: str) -> None:
    """Write a label map with the geometry of its image: uint8 if the maximum is below 255, else uint16 (method 1.3).

    Raises:
        DatasetError: wrong shape, negative or too large values, or the format cannot hold it.
    """
    low, high = (int(label_zyx.min()), int(label_zyx.max())) if label_zyx.size else (0, 0)
    if low < 0 or high > 65535 or label_zyx.dtype.kind not in "uib":
        raise DatasetError(f"{path}: labels must be whole numbers from 0 to 65535, not {low} to {high}")
    _write(Path(path), label_zyx.astype(np.uint8 if high < 255 else np.uint16), geometry, reader)


def write_image(path: Path, array_zyx: npt.NDArray[Any], geometry: Geometry, reader: str) -> None:
    """Write one channel, in the array's own type.

    Raises:
        DatasetError: wrong shape, or the format cannot hold it.
    """
    _write(Path(path), array_zyx, geometry, reader)


def _write(path: Path, array_zyx: npt.NDArray[Any], geometry: Geometry, reader: str) -> None:
    if array_zyx.shape != geometry.shape_zyx:
        raise DatasetError(f"{path}: an array of shape {array_zyx.shape} does not fit the grid {geometry.shape_zyx}")
    if ending_of(path) not in _reader(reader).endings:
        raise DatasetError(f"{path}: {reader} writes {', '.join(_reader(reader).endings)}")
    _reader(reader).write(path, array_zyx, geometry)


def _reader(name: str) -> Reader:
    if name not in READERS:
        raise DatasetError(f"there is no image reader `{name}`; known: {', '.join(READERS)}")
    return READERS[name]


def _header_medical(path: Path) -> tuple[Geometry, str]:
    return header_nifti(path) if ending_of(path).startswith(".nii") else header_itk(path)


def _read_medical(path: Path, dtype: type | None = None) -> Stored:
    return read_nifti(path, dtype) if ending_of(path).startswith(".nii") else read_itk(path, dtype)


def _turned_to_ras(base: Reader) -> Reader:
    """The same files with their axes turned to RAS in memory; label maps are written with the axes of the file."""

    def header(path: Path) -> tuple[Geometry, str]:
        geometry, dtype = base.header(path)
        return geometry_to_ras(geometry), dtype

    def read(path: Path, dtype: type | None = None) -> Stored:
        return to_ras(base.read(path, dtype))

    return Reader(base.endings, header, read, read, _write_ras)


def _write_ras(path: Path, array_zyx: npt.NDArray[Any], geometry: Geometry) -> None:
    """With the axes of the file the grid was read from, so that results lie on the grid of their image, as in v2."""
    write_itk(path, *to_stored(array_zyx, geometry))


_MEDICAL = Reader((".nii.gz", ".nrrd", ".mha", ".gipl"), _header_medical, _read_medical, _read_medical, write_itk)
_NIBABEL = Reader((".nii", ".nii.gz"), header_nibabel, read_nibabel, read_nibabel, write_itk)

READERS: dict[str, Reader] = {  # v2's order of trying (method 1.3)
    "NaturalImage2DIO": Reader(
        (".png", ".bmp", ".tif"), header_picture, read_picture, read_picture_label, write_picture
    ),
    "SimpleITKIO": _MEDICAL,
    "Tiff3DIO": Reader((".tif", ".tiff"), header_stack, read_stack, read_stack, write_stack),
    "NibabelIO": _NIBABEL,
    "NibabelIOWithReorient": _turned_to_ras(_NIBABEL),
    "SimpleITKIOWithReorient": _turned_to_ras(_MEDICAL),  # only by name: v2 does not try it, here others come first
}
