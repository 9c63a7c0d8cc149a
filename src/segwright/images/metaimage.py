"""MetaImage (.mha) headers, checked before ITK sees them: ITK crashes on some that are damaged, such as `NDims = -1`.

Keys, types and their order: the MetaIO documentation of ITK (a header is lines `Key = value`, the last of which is
``ElementDataFile``; lists have as many entries as the image has dimensions). Other keys are free: ITK writes an image's
meta data there, such as DICOM's `0008|0060 = MR`.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

from zlib_ng import zlib_ng

from segwright.core.errors import DatasetError
from segwright.images.limits import DEFLATE_RATIO, require_plausible
from segwright.images.streams import InflateError

_HEADER_BYTES_MAX, _LINES_MAX = 1 << 20, 4096  # MetaIO takes 32 KiB of memory a line
_KEY_BYTES_MAX, _VALUE_BYTES_MAX, _TEXT_BYTES_MAX = 254, 32767, 254  # MetaIO's buffers, less the byte that ends a text
_CHUNK_BYTES = 1 << 20
_ZLIB_OR_GZIP = 47  # zlib's code for "either header, and its checksum"
_DIMENSIONS, _CHANNELS_MAX = (2, 3, 4), 64
_ITEM_BYTES = {
    "MET_CHAR": 1, "MET_UCHAR": 1, "MET_SHORT": 2, "MET_USHORT": 2, "MET_INT": 4, "MET_UINT": 4, "MET_LONG": 4,
    "MET_ULONG": 4, "MET_LONG_LONG": 8, "MET_ULONG_LONG": 8, "MET_FLOAT": 4, "MET_DOUBLE": 8,
}  # fmt: skip
_VECTORS = ("ElementSpacing", "ElementSize", "Offset", "Position", "Origin", "CenterOfRotation")
_MATRICES = ("TransformMatrix", "Rotation", "Orientation")
_NUMBERS = ("CompressedDataSize", "ElementNumberOfChannels", "CompressionLevel")
_TEXTS = ("Comment", "Name", "ObjectType", "ObjectSubType", "AcquisitionDate")  # copied without regard to their length
_LAST = "ElementDataFile"
_USED = {"NDims", "DimSize", "HeaderSize", "ElementType", "CompressedData", *_VECTORS, *_MATRICES, *_NUMBERS, _LAST}
_LINE = re.compile(rb"\s*+([^=:\r\n]*+)[^=:]*+[=:][=: \t]*+([^\n]*+)\n?")
"""As MetaIO takes a header apart: a key ends at `=` or `:`, which may come lines later, its value with the line."""


def check_metaimage(path: Path) -> None:
    """Check the header of a .mha file: its keys, the length of its lists, and what it claims against the file's size.

    Raises:
        DatasetError: it is no MetaImage header, contradicts itself, or its pixels are not in the file itself.
    """
    fields, _ = _header(path)
    if fields[_LAST] != "LOCAL":
        raise DatasetError(f"{path}: no pixels in the file itself; save header and pixels as one file")
    dimensions = _whole(path, fields, "NDims")
    if dimensions not in _DIMENSIONS:
        raise _wrong(path, f"NDims is {dimensions}, but a case is 2-D or 3-D")
    sizes = _numbers(path, fields, "DimSize", dimensions)
    for key in _VECTORS:
        if key in fields:
            _numbers(path, fields, key, dimensions)
    for key in _MATRICES:
        if key in fields:
            _numbers(path, fields, key, dimensions**2)
    for key in _NUMBERS:
        if key in fields and _whole(path, fields, key) < -1:
            raise _wrong(path, f"{key} is {fields[key]}")
    if fields.get("HeaderSize", "0") != "0":
        raise _wrong(path, "HeaderSize is not 0, although the pixels follow the header")
    channels = _whole(path, fields, "ElementNumberOfChannels") if "ElementNumberOfChannels" in fields else 1
    if not 1 <= channels <= _CHANNELS_MAX:
        raise _wrong(path, f"ElementNumberOfChannels is {channels}")
    kind = fields.get("ElementType", "")
    if kind not in _ITEM_BYTES:
        raise DatasetError(f"{path}: pixels of the type `{kind[:40]}` cannot be used; save it as integers or floats")
    if any(size != int(size) for size in sizes):
        raise _wrong(path, f"DimSize is {fields['DimSize'][:100]}")
    require_plausible(path, [int(size) for size in (*sizes, channels)], _ITEM_BYTES[kind], DEFLATE_RATIO)


def verify_pixels(path: Path) -> None:
    """Decompress the pixels of a compressed file once: ITK does not return from some damaged streams.

    Raises:
        DatasetError: the stream is truncated, damaged, or not as long as the header says.
    """
    fields, start = _header(path)
    if fields.get("CompressedData", "")[:1].lower() not in ("t", "1"):  # all that MetaIO looks at
        return
    values = math.prod(int(size) for size in fields["DimSize"].split()) * int(fields.get("ElementNumberOfChannels", 1))
    expected = values * _ITEM_BYTES[fields["ElementType"]]
    decoder, found = zlib_ng.decompressobj(_ZLIB_OR_GZIP), 0
    with path.open("rb") as stream:
        stream.seek(start)
        pending = stream.read(_CHUNK_BYTES)
        try:
            while pending and not decoder.eof and found <= expected:
                found += len(decoder.decompress(pending, 4 * _CHUNK_BYTES))
                pending = decoder.unconsumed_tail or stream.read(_CHUNK_BYTES)
        except InflateError as error:
            raise DatasetError(f"{path}: the compressed data is damaged ({error}); copy it again") from None
    if not decoder.eof or found != expected:
        raise DatasetError(
            f"{path}: the compressed data is truncated or damaged (the header claims {expected} bytes); copy it again"
        )


def _header(path: Path) -> tuple[dict[str, str], int]:
    """Value of each key that is used here, and where the pixels start: behind the line of ``ElementDataFile``."""
    with path.open("rb") as stream:
        head = stream.read(_HEADER_BYTES_MAX)
    fields: dict[str, str] = {}
    position = 0
    for _ in range(_LINES_MAX):
        line = _LINE.match(head, position)
        if line is None:
            break
        position = line.end()
        key, value = _key_and_value(path, line)
        if key not in _USED:
            continue
        if key in fields:
            raise _wrong(path, f"{key} is given twice")
        if key in ("DimSize", *_VECTORS, *_MATRICES) and "NDims" not in fields:
            raise _wrong(path, f"{key} stands before NDims")
        fields[key] = value
        if key == _LAST:
            return fields, position
    raise _wrong(path, f"there is no {_LAST}")


def _key_and_value(path: Path, line: re.Match[bytes]) -> tuple[str, str]:
    """Both as text, if MetaIO has room for them; control characters would end its key before ours."""
    key, value = line[1].rstrip(b" \t"), line[2].strip()
    if not 1 <= len(key) <= _KEY_BYTES_MAX or re.search(rb"[\x00-\x1f\x7f]", key):
        raise _wrong(path, f"a line is not `key = value`: {line[0].strip()[:40]!r}")
    name = key.decode("utf-8", errors="replace")
    limit = _TEXT_BYTES_MAX if name in _TEXTS else _VALUE_BYTES_MAX
    if len(value) > limit:
        raise DatasetError(
            f"{path}: `{name}` in the header has {len(value)} bytes, and ITK can read {limit}; shorten or remove it"
        )
    return name, value.decode("utf-8", errors="replace")


def _whole(path: Path, fields: dict[str, str], key: str) -> int:
    if not re.fullmatch(r"[+-]?\d{1,18}", fields.get(key, "")):
        raise _wrong(path, f"{key} is `{fields.get(key, 'missing')[:40]}`, not a whole number")
    return int(fields[key])


def _numbers(path: Path, fields: dict[str, str], key: str, count: int) -> list[float]:
    """A list of finite numbers of the right length."""
    try:
        values = [float(word) for word in fields.get(key, "").split()]
    except ValueError:
        values = []
    if len(values) != count or not all(map(math.isfinite, values)):
        raise _wrong(path, f"{key} is `{fields.get(key, 'missing')[:100]}`, not {count} numbers")
    return values


def _wrong(path: Path, problem: str) -> DatasetError:
    return DatasetError(f"{path}: not a valid MetaImage header ({problem}); the file is damaged, copy it again")
