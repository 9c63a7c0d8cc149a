"""The chain of directories in a TIFF file, walked before tifffile does: it follows circles and overlaps for minutes.

Offsets: TIFF 6.0 specification, section 2; BigTIFF with 8-byte counts and offsets.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from segwright.core.errors import DatasetError
from segwright.images.limits import require_file

_ITEM_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_ENTRIES_MAX = 1000


@dataclass(frozen=True)
class _Form:
    """Struct codes and sizes of classic TIFF or BigTIFF."""

    count: str
    entry: str
    offset: str
    first: int

    def bytes_of(self, entries: int) -> int:
        return struct.calcsize(self.count) + entries * struct.calcsize(self.entry) + struct.calcsize(self.offset)


def check_directories(path: Path) -> None:
    """Check that every directory of a TIFF lies in the file, once, and claims no value longer than the file.

    Raises:
        DatasetError: no TIFF, or a chain of directories that cannot be true.
    """
    size_bytes = require_file(path)
    with path.open("rb") as stream:
        form, offset = _start(path, stream)
        visited: set[int] = set()
        used_bytes = 0
        while offset:
            if offset in visited:
                raise _wrong(path, "its directories form a circle")
            visited.add(offset)
            stream.seek(min(offset, size_bytes))
            entries = _next(path, stream, form.count)
            used_bytes += form.bytes_of(entries)
            if entries > _ENTRIES_MAX or used_bytes > size_bytes:
                raise _wrong(path, f"its directories claim more than the file holds ({size_bytes} bytes)")
            table = _read(path, stream, entries * struct.calcsize(form.entry))
            for _, kind, count in struct.iter_unpack(form.entry, table):
                if count * _ITEM_BYTES.get(kind, 0) > size_bytes:
                    raise _wrong(path, f"a value of {count} items is longer than the file")
            offset = _next(path, stream, form.offset)


def _start(path: Path, stream: BinaryIO) -> tuple[_Form, int]:
    """The file's form and the place of its first directory."""
    head = stream.read(16)
    endian = {b"II": "<", b"MM": ">"}.get(head[:2])
    version = struct.unpack(f"{endian}H", head[2:4])[0] if endian and len(head) >= 8 else 0
    if version == 42:
        form = _Form(f"{endian}H", f"{endian}HHI4x", f"{endian}I", 4)
    elif version == 43 and len(head) == 16:
        form = _Form(f"{endian}Q", f"{endian}HHQ8x", f"{endian}Q", 8)
    else:
        raise DatasetError(f"{path}: is not a TIFF file, or damaged at its very start; copy it again")
    return form, struct.unpack_from(form.offset, head, form.first)[0]


def _next(path: Path, stream: BinaryIO, code: str) -> int:
    return int(struct.unpack(code, _read(path, stream, struct.calcsize(code)))[0])


def _read(path: Path, stream: BinaryIO, count: int) -> bytes:
    content = stream.read(count)
    if len(content) < count:
        raise _wrong(path, "a directory lies outside the file")
    return content


def _wrong(path: Path, problem: str) -> DatasetError:
    return DatasetError(f"{path}: cannot be read as TIFF ({problem}); it is truncated or damaged, copy it again")
