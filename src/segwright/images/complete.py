"""Whether a file that ITK wrote is all there: some of its writers do not notice that the disk is full."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from segwright.core.errors import DatasetError

_MAX_HEADER_BYTES = 1 << 16  # what stands before the pixels in a file we write; a NIfTI header has 352 or 544


def require_complete(written: Path, path: Path, image: Any, read_back: Callable[[], Any]) -> None:
    """Refuse a file that was cut short.

    A gzip file ends with the size of its content, which is all that is looked at; others are read back.

    Args:
        written: the file as it is now; ``path``: the name it will get, for the message.
        image: the SimpleITK image it should hold.
        read_back: reads ``written``, or raises DatasetError.

    Raises:
        OSError: no space was left (ENOSPC).
    """
    if path.name.endswith(".gz"):
        content_bytes = (
            image.GetNumberOfPixels() * image.GetNumberOfComponentsPerPixel() * image.GetSizeOfPixelComponent()
        )
        with written.open("rb") as stream:
            stream.seek(-min(4, written.stat().st_size), os.SEEK_END)
            stated = int.from_bytes(stream.read(), "little")
        complete = (stated - content_bytes) % (1 << 32) < _MAX_HEADER_BYTES
    else:
        try:
            read_back()
            complete = True
        except DatasetError:
            complete = False
    if not complete:
        raise OSError(errno.ENOSPC, "the file was cut short", str(path))
