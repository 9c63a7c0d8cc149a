"""How the C library handles freed memory."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # names and numbers of glibc's malloc.h


def keep_freed_memory() -> bool:
    """Reuse freed arrays instead of giving them back to the system, for the rest of this process.

    glibc maps every array of more than 32 MiB anew (smaller ones until it has adapted) and returns what is freed at
    the end of its heap. A network on the CPU allocates its feature maps again at each step, and the system clears
    every page of them each time: a tenth to a fifth of a training step. Results do not depend on it. The process keeps
    the largest amount it ever used.

    Returns:
        Whether the C library could be told; only glibc can.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all(mallopt(name, value) == 1 for name, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1)))
