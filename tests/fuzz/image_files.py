"""Small sound image files of every format and kind, which are then changed."""

from __future__ import annotations

import io
import struct
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import tifffile

_SHAPE = (4, 6, 5)


def _array(dtype: str, *shape: int) -> np.ndarray:
    values = np.arange(np.prod(shape or _SHAPE)).reshape(shape or _SHAPE) * 7 % 60
    return values.astype(dtype)


def itk_file(array: np.ndarray, name: str, *, vector: bool = False, compress: bool = True, turn: bool = False) -> bytes:
    image = sitk.GetImageFromArray(array, isVector=vector)
    if image.GetDimension() == 3:
        image.SetSpacing((0.8, 1.2, 2.5))
        image.SetOrigin((-10.0, 20.5, 3.0))
        if turn:
            image.SetDirection((0.0, -1.0, 0.0, 0.8, 0.0, -0.6, 0.6, 0.0, 0.8))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        sitk.WriteImage(image, str(path), useCompression=compress)
        return path.read_bytes()


def labels() -> np.ndarray:
    return (_array("uint8") > 30).astype(np.uint8) + (_array("uint8") > 50)


def nifti_files() -> list[bytes]:
    files = [
        itk_file(_array("int16"), "a.nii"),
        itk_file(_array("float32"), "a.nii", turn=True),
        itk_file(labels(), "a.nii"),
        itk_file(labels().astype(np.float32), "a.nii"),
        itk_file(_array("uint16", 2, *_SHAPE), "a.nii"),
        itk_file(_array("uint8", *_SHAPE, 3), "a.nii", vector=True),
        itk_file(_array("float64", 6, 5), "a.nii"),
    ]
    scaled = bytearray(files[0])
    struct.pack_into("<2f", scaled, 112, 0.5, -3.0)
    sheared = bytearray(files[1])
    struct.pack_into("<h", sheared, 252, 0)
    struct.pack_into("<12f", sheared, 280, 0.8, 0.1, 0, 5, 0, 1.2, 0.05, 6, 0, 0, 2.5, 7)
    return [*files, bytes(scaled), bytes(sheared), _big_endian()]


def _big_endian() -> bytes:
    header = bytearray(352)
    for code, position, *values in (
        ("i", 0, 348), ("8h", 40, 3, 5, 6, 4, 1, 1, 1, 1), ("2h", 70, 4, 16), ("8f", 76, 1, 0.8, 1.2, 2.5, 0, 0, 0, 0),
        ("3f", 108, 352, 1, 0), ("2h", 252, 1, 0),
    ):  # fmt: skip
        struct.pack_into(f">{code}", header, position, *values)
    header[344:348] = b"n+1\0"
    return bytes(header) + _array(">i2").tobytes()


def itk_files(ending: str) -> list[bytes]:
    name = f"a{ending}"
    files = [
        itk_file(_array("int16"), name, compress=False),
        itk_file(_array("float32"), name, turn=True),
        itk_file(labels(), name),
    ]
    if ending in (".nrrd", ".mha"):
        files += [itk_file(_array("uint8", *_SHAPE, 3), name, vector=True), itk_file(_array("uint16", 6, 5), name)]
    if ending == ".nrrd":
        text = b"NRRD0004\ntype: short\ndimension: 3\nsizes: 2 3 2\nspacings: 1 1 2\nencoding: ascii\n\n"
        files.append(text + b" ".join(b"%d" % value for value in range(12)) + b"\n")
        hexadecimal = text.replace(b"ascii", b"hex").replace(b"short", b"uchar")
        files.append(hexadecimal + b"".join(b"%02x" % value for value in range(12)) + b"\n")
    return files


def png_files() -> list[bytes]:
    grey = itk_file(_array("uint8", 12, 9), "a.png")
    bits = _png(9, 12, 1, 0, bytes([0, 0x55, 0x80]) * 12)
    palette = _png(9, 12, 8, 3, b"".join(b"\0" + bytes((y + x) % 3 for x in range(9)) for y in range(12)), 3)
    interlaced = _png(8, 8, 8, 0, bytes(100), interlace=1)
    return [
        grey, itk_file(_array("uint16", 12, 9), "a.png"), itk_file(_array("uint8", 12, 9, 3), "a.png", vector=True),
        itk_file(_array("uint8", 12, 9, 4), "a.png", vector=True), bits, palette, interlaced,
    ]  # fmt: skip


def _png(columns: int, rows: int, bits: int, kind: int, raw: bytes, colours: int = 0, interlace: int = 0) -> bytes:
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", columns, rows, bits, kind, 0, 0, interlace))]
    if colours:
        chunks.append((b"PLTE", bytes(range(40, 40 + 3 * colours))))
    return png_of([*chunks, (b"IDAT", zlib.compress(raw)), (b"IEND", b"")])


def bmp_files() -> list[bytes]:
    return [itk_file(_array("uint8", 12, 9), "a.bmp"), itk_file(_array("uint8", 12, 9, 3), "a.bmp", vector=True)]


def tiff_files() -> list[bytes]:
    def write(array: np.ndarray, **options: Any) -> bytes:
        stream = io.BytesIO()
        tifffile.imwrite(stream, array, software=False, datetime=None, **options)
        return stream.getvalue()

    picture, stack = _array("uint8", 12, 9), _array("uint16", 4, 12, 9)
    axes, grey = {"axes": "ZYX"}, {"photometric": "minisblack"}
    files = [
        write(picture), write(picture, compression="zlib"), write(stack, metadata=axes, **grey),
        write(stack, compression="zlib", predictor=True, metadata=axes, **grey), write(stack.astype(np.float32),
        bigtiff=True, **grey),
        write(stack, byteorder=">", metadata=axes, **grey), write(stack, imagej=True, **grey), write(stack, ome=True,
        **grey),
        write(_array("uint8", 12, 9, 3), photometric="rgb"), write(_array("uint8", 64, 48), tile=(16, 16)),
        write(_array("uint8", 3, 12, 9), photometric="rgb", planarconfig="separate"),
    ]  # fmt: skip
    return [*files, itk_file(picture, "a.tif"), itk_file(_array("uint8", 12, 9, 3), "a.tif", vector=True)]


def png_of(chunks: Sequence[tuple[bytes, bytes]]) -> bytes:
    packed = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)
