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

from segwright.core.dataset import image_sidecar, label_sidecar
from segwright.core.errors import DatasetError, SegwrightError
from segwright.core.geometry import Agreement, Geometry, compare_geometries
from segwright.images.image import Image, LabelMap, Stored, as_label_map
from segwright.images.itk import ending_of, header_itk, read_itk, write_itk
from segwright.images.natural import header_picture, read_picture, read_picture_label, write_picture
from segwright.images.nifti import has_sheared_axes, header_nibabel, header_nifti, read_nibabel, read_nifti
from segwright.images.orientation import geometry_to_ras, to_ras, to_stored
from segwright.images.tiff import header_stack, read_stack, write_stack

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Access:
    """How images, or label maps, of one family are read and written.

    Attributes:
        header: gives the grid and the stored type, without the pixels.
        sidecar: where the spacing of a file stands if its format has no place for it.
    """

    header: Callable[[Path], tuple[Geometry, str]]
    read: Callable[[Path, type | None], Stored]
    write: Callable[[Path, npt.NDArray[Any], Geometry], None]
    sidecar: Callable[[Path], Path] | None = None


@dataclass(frozen=True)
class Reader:
    """One family of files: the endings it is chosen for, and others it serves where dataset.json or plans name it."""

    endings: tuple[str, ...]
    images: Access
    labels: Access
    other_endings: tuple[str, ...] = ()

    @property
    def all_endings(self) -> tuple[str, ...]:
        return self.endings + self.other_endings


def choose_reader(file_ending: str, example: Path | None = None, override: str | None = None) -> str:
    """Name of the reader for a dataset's files (method 1.3).

    ``override`` (dataset.json's ``overwrite_image_reader_writer``) decides; else the first reader in v2's order that
    knows the ending and can open ``example``. Readers differ for TIFF (pictures, stacks) and for NIfTI files with
    sheared axes, which v2 can open with nibabel only; otherwise an unreadable example does not matter, it is reported
    with its case.

    Raises:
        DatasetError: an unknown reader or ending, or a TIFF example that no reader can open.
    """
    ending = file_ending.lower()
    if override not in (None, "None"):
        if override not in READERS:
            raise DatasetError(
                f"dataset.json: overwrite_image_reader_writer `{override}` is unknown; known: {', '.join(READERS)}"
            )
        if ending not in READERS[override].all_endings:
            known = ", ".join(READERS[override].all_endings)
            raise DatasetError(f"dataset.json: {override} cannot read {file_ending}; it reads {known}")
        return override
    candidates = [name for name, reader in READERS.items() if ending in reader.endings]
    if not candidates:
        raise DatasetError(
            f"dataset.json: files ending in `{file_ending}` cannot be read; known: {', '.join(known_endings())}"
        )
    if example is not None and ending in (".tif", ".tiff"):
        return _first_that_opens(candidates, example)
    if example is not None and ending == ".nii.gz" and _is_sheared(example):
        return "NibabelIO"
    return candidates[0]


def _first_that_opens(candidates: Sequence[str], example: Path) -> str:
    problems = []
    for name in candidates:
        try:
            READERS[name].images.header(example)
        except SegwrightError as error:
            problems.append(str(error))
        else:
            return name
    raise DatasetError(problems[-1])


def _is_sheared(example: Path) -> bool:
    try:
        return has_sheared_axes(example)
    except (DatasetError, OSError):  # an unreadable file is reported with its case
        return False


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
    if len(files) < 2:
        return read_channels(files, reader)[0]
    dtypes: set[str] = set()
    for index, path in enumerate(files):
        (channel,) = read_channels([path], reader)
        if index == 0:
            geometry = channel.geometry
            stacked_czyx = np.empty((len(files), *geometry.shape_zyx), np.float32)
        agreement, difference = compare_geometries(geometry, channel.geometry)
        if agreement is Agreement.WRONG:
            raise DatasetError(
                f"{path}: its grid differs from {Path(files[0]).name}: {difference}; resample it to the first channel"
            )
        if agreement is Agreement.SAME_GRID:
            log.warning("%s: slightly different header than %s: %s", path, Path(files[0]).name, difference)
        if len(channel.array_czyx) > 1:
            raise DatasetError(
                f"{path}: holds {len(channel.array_czyx)} channels (4-D or colour) although the case has"
                f" {len(files)} channel files; split it into one file a channel"
            )
        stacked_czyx[index] = channel.array_czyx[0]
        dtypes.add(channel.stored_dtype)
        del channel  # else it would still be there while the next one is read
    return Image(stacked_czyx, geometry, dtypes.pop() if len(dtypes) == 1 else "mixed")


def read_channels(files: Sequence[Path], reader: str) -> list[Image]:
    """Read files without comparing them: one image a file (an RGB picture has three channels).

    Raises:
        DatasetError: a file is unreadable, truncated or damaged.
    """
    if not files:
        raise DatasetError("a case without image files cannot be read")
    images = []
    for path in map(Path, files):
        stored = _reader(reader).images.read(path, np.float32)
        images.append(Image(stored.array_czyx, stored.geometry, stored.stored_dtype))
    return images


def read_native(file: Path, reader: str) -> Stored:
    """Read one file as (channels, z, y, x) in its stored type; for conversion, which must not change values.

    Raises:
        DatasetError: unreadable, truncated or damaged.
    """
    return _reader(reader).images.read(Path(file), None)


def read_label(file: Path, reader: str) -> LabelMap:
    """Read a label map; floats that are whole numbers become integers.

    Raises:
        DatasetError: unreadable, truncated, damaged, several channels, or values that are no whole numbers.
    """
    return as_label_map(_reader(reader).labels.read(Path(file), None), Path(file))


def read_header(file: Path, reader: str) -> tuple[Geometry, str]:
    """Grid and stored numpy type of an image, without its pixels; sizes are checked against the file's length.

    Raises:
        DatasetError: unreadable or impossible.
    """
    return _reader(reader).images.header(Path(file))


def read_label_header(file: Path, reader: str) -> tuple[Geometry, str]:
    """As :func:`read_header`, of a label map."""
    return _reader(reader).labels.header(Path(file))


def sidecars(image_files: Sequence[Path], label_file: Path | None, reader: str) -> list[Path]:
    """Where the spacing of a case's files stands beside them, there or not; empty if their format has room for it."""
    kinds = ((_reader(reader).images, image_files), (_reader(reader).labels, [label_file] if label_file else []))
    return [kind.sidecar(Path(file)) for kind, files in kinds if kind.sidecar is not None for file in files]


def write_label(path: Path, label_zyx: npt.NDArray[Any], geometry: Geometry, reader: str) -> None:
    """Write a label map with the geometry of its image: uint8 if the maximum is below 255, else uint16 (method 1.3).

    Raises:
        DatasetError: wrong shape, negative or too large values, or the format cannot hold it.
    """
    low, high = (int(label_zyx.min()), int(label_zyx.max())) if label_zyx.size else (0, 0)
    if low < 0 or high > 65535 or label_zyx.dtype.kind not in "uib":
        raise DatasetError(f"{path}: labels must be whole numbers from 0 to 65535, not {low} to {high}")
    label_zyx = label_zyx.astype(np.uint8 if high < 255 else np.uint16)
    _writer(path, label_zyx, geometry, reader).labels.write(Path(path), label_zyx, geometry)


def write_image(path: Path, array_zyx: npt.NDArray[Any], geometry: Geometry, reader: str) -> None:
    """Write one channel, in the array's own type.

    Raises:
        DatasetError: wrong shape, or the format cannot hold it.
    """
    _writer(path, array_zyx, geometry, reader).images.write(Path(path), array_zyx, geometry)


def _writer(path: Path, array_zyx: npt.NDArray[Any], geometry: Geometry, reader: str) -> Reader:
    """The reader, if it can write this array to this file."""
    if array_zyx.shape != geometry.shape_zyx:
        raise DatasetError(f"{path}: an array of shape {array_zyx.shape} does not fit the grid {geometry.shape_zyx}")
    if ending_of(Path(path)) not in _reader(reader).all_endings:
        raise DatasetError(f"{path}: {reader} writes {', '.join(_reader(reader).all_endings)}")
    return _reader(reader)


def _reader(name: str) -> Reader:
    if name not in READERS:
        raise DatasetError(f"there is no image reader `{name}`; known: {', '.join(READERS)}")
    return READERS[name]


def _header_medical(path: Path) -> tuple[Geometry, str]:
    return header_nifti(path) if ending_of(path).startswith(".nii") else header_itk(path)


def _read_medical(path: Path, dtype: type | None = None) -> Stored:
    return read_nifti(path, dtype) if ending_of(path).startswith(".nii") else read_itk(path, dtype)


def _turned_to_ras(base: Access) -> Access:
    """The same files with their axes turned to RAS in memory; label maps are written with the axes of the file."""

    def header(path: Path) -> tuple[Geometry, str]:
        geometry, dtype = base.header(path)
        return geometry_to_ras(geometry), dtype

    def read(path: Path, dtype: type | None = None) -> Stored:
        return to_ras(base.read(path, dtype))

    return Access(header, read, _write_ras)


def _write_ras(path: Path, array_zyx: npt.NDArray[Any], geometry: Geometry) -> None:
    """With the axes of the file the grid was read from, so that results lie on the grid of their image, as in v2."""
    write_itk(path, *to_stored(array_zyx, geometry))


def _stacks(sidecar_for: Callable[[Path], Path]) -> Access:
    """3-D TIFF files whose spacing stands where ``sidecar_for`` says."""

    def header(path: Path) -> tuple[Geometry, str]:
        return header_stack(path, sidecar_for(path))

    def read(path: Path, dtype: type | None = None) -> Stored:
        return read_stack(path, sidecar_for(path), dtype)

    def write(path: Path, array_zyx: npt.NDArray[Any], geometry: Geometry) -> None:
        write_stack(path, sidecar_for(path), array_zyx, geometry)

    return Access(header, read, write, sidecar_for)


_PICTURES = Access(header_picture, read_picture, write_picture)
_LABEL_PICTURES = Access(header_picture, read_picture_label, write_picture)
_MEDICAL = Access(_header_medical, _read_medical, write_itk)
_MEDICAL_RAS = _turned_to_ras(_MEDICAL)
_NIBABEL = Access(header_nibabel, read_nibabel, write_itk)
_NIBABEL_RAS = _turned_to_ras(_NIBABEL)
_MEDICAL_ENDINGS, _NIFTI_ENDINGS = (".nii.gz", ".nrrd", ".mha", ".gipl"), (".nii", ".nii.gz")

READERS: dict[str, Reader] = {  # v2's order of trying (method 1.3)
    "NaturalImage2DIO": Reader((".png", ".bmp", ".tif"), _PICTURES, _LABEL_PICTURES, other_endings=(".tiff",)),
    "SimpleITKIO": Reader(_MEDICAL_ENDINGS, _MEDICAL, _MEDICAL, other_endings=(".nii",)),
    "Tiff3DIO": Reader((".tif", ".tiff"), _stacks(image_sidecar), _stacks(label_sidecar)),
    "NibabelIO": Reader(_NIFTI_ENDINGS, _NIBABEL, _NIBABEL),
    "NibabelIOWithReorient": Reader(_NIFTI_ENDINGS, _NIBABEL_RAS, _NIBABEL_RAS),
    # only by name: v2 does not try it, here others come first
    "SimpleITKIOWithReorient": Reader(_MEDICAL_ENDINGS, _MEDICAL_RAS, _MEDICAL_RAS, other_endings=(".nii",)),
}
