"""Pictures: PNG, BMP and 2-D TIFF, grey, RGB or with alpha; every colour is one channel (method 1.3)."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segwright.core.errors import DatasetError
from segwright.core.geometry import Geometry
from segwright.images.image import Stored
from segwright.images.itk import TWO_D_SLICE_FACTOR, read_itk, read_itk_header, write_itk
from segwright.images.limits import DEFLATE_RATIO, require_file, require_plausible
from segwright.images.tiff import read_tiff, tiff_shape, write_tiff

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}
_GREY, _PALETTE = 0, 3
_BLOCK_PIXELS = 1 << 20


def header_picture(path: Path) -> tuple[Geometry, str]:
    """Grid and stored type of a picture.

    Raises:
        DatasetError: unreadable, or a TIFF file with more than one slice.
    """
    if path.suffix.lower() in (".tif", ".tiff"):
        shape, axes, dtype = tiff_shape(path)
        _require_picture(path, shape, axes)
        rows, columns = shape[axes.index("Y")], shape[axes.index("X")]
        return _geometry(rows, columns), dtype
    if path.suffix.lower() == ".png":
        _check_png(path)
    header = read_itk_header(path)
    return _geometry(header.size_xyz[1], header.size_xyz[0]), header.dtype


def read_picture(path: Path, dtype: type | None = None) -> Stored:
    """Read a picture as (channels, 1, y, x).

    Raises:
        DatasetError: unreadable, truncated or damaged.
    """
    if path.suffix.lower() in (".tif", ".tiff"):
        shape, axes, stored_dtype = tiff_shape(path)
        _require_picture(path, shape, axes)
        values, colours = read_tiff(path), _colour_axis(axes)
        planes = values[None] if colours is None else np.moveaxis(values, colours, 0)
        planes_czyx = np.ascontiguousarray(planes[:, None], dtype=dtype)
        return Stored(planes_czyx, _geometry(*planes_czyx.shape[2:]), stored_dtype)
    if path.suffix.lower() == ".png":
        bits, colour_type = _check_png(path)
        stored = read_itk(path, dtype)
        planes_czyx = stored.array_czyx[: _PNG_CHANNELS.get(colour_type)]  # ITK makes alpha of a transparent colour
        if bits == 1 and colour_type == _GREY:
            planes_czyx = planes_czyx // 255  # black and white are 0 and 1, as in v2
    else:
        grey = _check_bmp(path)
        stored = read_itk(path, dtype)
        planes_czyx = stored.array_czyx[:1] if grey else stored.array_czyx
    return Stored(planes_czyx, _geometry(*planes_czyx.shape[2:]), stored.stored_dtype)


def read_picture_label(path: Path, dtype: type | None = None) -> Stored:
    """Read a label picture: in a PNG with a palette or with fewer than eight bits the stored index is the label.

    Raises:
        DatasetError: as :func:`read_picture`; also a palette in which two indices share a colour.
    """
    stored = read_picture(path)
    array_czyx, stored_dtype = stored.array_czyx, stored.stored_dtype
    if path.suffix.lower() == ".png":
        bits, colour_type = _check_png(path)
        if colour_type == _PALETTE:
            array_czyx, stored_dtype = _palette_indices(path, array_czyx), "uint8"
        elif colour_type == _GREY and 1 < bits < 8:  # libpng stretches 0..2^bits-1 to 0..255
            array_czyx = array_czyx // (255 // (2**bits - 1))
    return Stored(np.asarray(array_czyx, dtype=dtype), stored.geometry, stored_dtype)


def write_picture(path: Path, array_zyx: npt.NDArray[Any], geometry: Geometry) -> None:
    """Write one channel, (1, y, x). PNG and BMP hold whole numbers only; TIFF holds any type.

    Raises:
        DatasetError: more than one slice, or values the format cannot hold.
    """
    if len(array_zyx) != 1:
        raise DatasetError(f"{path}: a picture has one slice, not {len(array_zyx)}; choose a 3-D format")
    if path.suffix.lower() in (".tif", ".tiff"):
        write_tiff(path, array_zyx[0])
        return
    limit = 255 if path.suffix.lower() == ".bmp" else 65535
    low, high = float(array_zyx.min()), float(array_zyx.max())
    if not (low >= 0 and high <= limit) or (array_zyx.dtype.kind == "f" and np.any(array_zyx != np.rint(array_zyx))):
        raise DatasetError(
            f"{path}: values from {low:g} to {high:g} do not fit, {path.suffix} holds whole numbers from 0 to {limit}"
        )
    plain = Geometry(geometry.shape_zyx, _geometry(1, 1).spacing_zyx, (0.0, 0.0), (1.0, 0.0, 0.0, 1.0), 2)
    write_itk(path, array_zyx.astype(np.uint8 if high <= 255 else np.uint16), plain)


def _geometry(rows: int, columns: int) -> Geometry:
    """Pictures know no millimetres: edge 1, and the slice spacing of every 2-D image."""
    return Geometry((1, rows, columns), (TWO_D_SLICE_FACTOR, 1.0, 1.0), (0.0, 0.0), (1.0, 0.0, 0.0, 1.0), 2)


def _require_picture(path: Path, shape: tuple[int, ...], axes: str) -> None:
    """One slice in grey or in colours; three or four channels (C) are colours, as in v2."""
    no_colours = "C" in axes and shape[axes.index("C")] not in (3, 4)
    if no_colours or sorted(axes) not in (["X", "Y"], ["S", "X", "Y"], ["C", "X", "Y"]):
        text = " x ".join(map(str, shape))
        raise DatasetError(f"{path}: is no 2-D picture but {text}; for stacks of slices the reader is Tiff3DIO")


def _colour_axis(axes: str) -> int | None:
    """Where the colours stand: samples of a pixel (S), or channels (C) as ImageJ and OME write them, before y and x."""
    return next((place for place, letter in enumerate(axes) if letter in "SC"), None)


def _check_png(path: Path) -> tuple[int, int]:
    """Bits a sample and colour type of a PNG; size claims are checked (offsets: PNG specification, IHDR)."""
    require_file(path)
    with path.open("rb") as stream:
        head = stream.read(33)
    if not head.startswith(_PNG_SIGNATURE) or len(head) < 33 or head[12:16] != b"IHDR":
        raise DatasetError(f"{path}: is not a PNG file, or damaged at its very start; copy it again")
    columns, rows, bits, colour_type = struct.unpack(">IIBB", head[16:26])
    channels = 1 if colour_type == _PALETTE else _PNG_CHANNELS.get(colour_type, 4)
    require_plausible(path, (rows, -(-columns * bits * channels // 8)), 1, DEFLATE_RATIO)
    return bits, colour_type


def _check_bmp(path: Path) -> bool:
    """Whether a BMP is grey: 8 bits with a palette of greys, which ITK delivers as three equal channels.

    ITK also reads a truncated BMP without a word, although its first header says how long the file is.
    """
    size_bytes = require_file(path)
    with path.open("rb") as stream:
        head = stream.read(54 + 4 * 256 + 128)  # the headers in all their versions, and the largest palette
    if len(head) < 6 or not head.startswith(b"BM"):
        raise DatasetError(f"{path}: is not a BMP file; copy it again or convert it")
    declared = struct.unpack("<I", head[2:6])[0]
    if declared > size_bytes:
        raise DatasetError(f"{path}: the file is truncated, {size_bytes} of {declared} bytes; copy it again")
    if len(head) < 54 or struct.unpack("<H", head[28:30])[0] != 8:
        return False
    start, entries = 14 + struct.unpack("<I", head[14:18])[0], struct.unpack("<I", head[46:50])[0] or 256
    palette = np.frombuffer(head[start : start + 4 * min(entries, 256)], np.uint8)
    palette = palette[: len(palette) // 4 * 4].reshape(-1, 4)
    return bool((palette[:, :3] == palette[:, :1]).all())


def _palette_indices(path: Path, colours_czyx: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Turn the colours of a palette PNG, (3, 1, y, x), back into the stored indices, (1, 1, y, x).

    Some rows at a time, by a table of all colours: sorting the pixels of a whole-slide picture takes a quarter of an
    hour.
    """
    codes = _colour_codes(*_palette(path).T)
    distinct, times = np.unique(codes, return_counts=True)
    index_of_code = np.zeros(1 << 24, np.int16)  # counted from 1; 0 where it is not one index. Untouched pages are free
    index_of_code[codes] = np.arange(1, len(codes) + 1)
    index_of_code[distinct[times > 1]] = 0
    rows, columns = colours_czyx.shape[2:]
    indices_yx = np.empty((rows, columns), np.uint8)
    step = max(_BLOCK_PIXELS // columns, 1)
    for start in range(0, rows, step):
        found_yx = index_of_code[_colour_codes(*colours_czyx[:3, 0, start : start + step])]
        if not found_yx.all():
            raise DatasetError(
                f"{path}: the palette gives several labels the same colour; save the label map as grey values"
            )
        indices_yx[start : start + step] = found_yx - 1
    return indices_yx[None, None]


def _colour_codes(red: npt.NDArray[Any], green: npt.NDArray[Any], blue: npt.NDArray[Any]) -> npt.NDArray[np.uint32]:
    """One number a colour, below 2^24."""
    codes = blue.astype(np.uint32)
    for colour in (green, red):
        codes <<= 8
        codes |= colour
    return codes


def _palette(path: Path) -> npt.NDArray[np.uint8]:
    """The PLTE chunk of a PNG, (entries, 3)."""
    content = path.read_bytes()
    position = len(_PNG_SIGNATURE)
    while position + 8 <= len(content):
        length, kind = struct.unpack(">I4s", content[position : position + 8])
        body = content[position + 8 : position + 8 + length]
        if kind == b"PLTE" and length % 3 == 0:
            if (
                zlib.crc32(kind + body)
                != struct.unpack(">I", content[position + 8 + length : position + 12 + length])[0]
            ):
                break
            return np.frombuffer(body, np.uint8).reshape(-1, 3)
        position += 12 + length
    raise DatasetError(f"{path}: the palette is missing or damaged; copy the file again")
