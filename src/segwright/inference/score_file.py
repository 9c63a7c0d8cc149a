"""The file that keeps scores: float32 arrays (outputs, z, y, x), losslessly compressed, read in ranges of planes.

Layout: magic, compressed blocks, a JSON directory, the directory's SHA-256 (32 bytes), its length (8 bytes), magic. A
block is a range of z planes of all outputs as little-endian float32 whose bytes are grouped by significance; a group
that does not shrink (low mantissa bits are noise) is stored as it is. Every block's SHA-256 is in the directory.
Nothing read is executed or unpickled, and nothing inflates beyond the size the directory states.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from zlib_ng import zlib_ng

from segwright.core.errors import MALFORMED, DamagedFileError, brief
from segwright.core.files import atomic_path
from segwright.images.limits import DEFLATE_RATIO
from segwright.images.streams import InflateError

_MAGIC = b"SWSCORE1"
_TAIL_BYTES = 32 + 8 + len(_MAGIC)
_BLOCK_BYTES = 1 << 23
_PROBE_BYTES = 1 << 15
_WORTH_IT = 0.95  # a byte group is compressed if a probe of it shrinks below this share
_SIGNIFICANCE = (3, 2, 1, 0)  # little-endian: sign and exponent are in the last byte


def write_scores(path: Path | str, scores_czyx: np.ndarray, facts: Mapping[str, Any]) -> None:
    """Write scores and JSON ``facts`` about them, atomically. Equal arguments give equal bytes (with one zlib).

    zlib writes, since what zlib-ng writes depends on the processor, too; zlib-ng reads, since it is faster.
    """
    planes = scores_czyx.shape[1]
    step = max(1, _BLOCK_BYTES // (4 * max(1, scores_czyx[:, 0].size)))
    blocks: list[dict[str, Any]] = []
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        stream.write(_MAGIC)
        for start in range(0, planes, step):
            stop = min(start + step, planes)
            parts = _compressed(np.ascontiguousarray(scores_czyx[:, start:stop], "<f4"))
            content = b"".join(parts)
            blocks.append(
                {
                    "z": [start, stop],
                    "offset": stream.tell(),
                    "sizes": [len(part) for part in parts],
                    "sha256": hashlib.sha256(content).hexdigest(),
                }
            )
            stream.write(content)
        directory = {"shape": list(scores_czyx.shape), "planes_per_block": step, "facts": facts, "blocks": blocks}
        text = json.dumps(directory, separators=(",", ":")).encode("utf-8")  # not sorted: regions have an order
        stream.write(text + hashlib.sha256(text).digest() + len(text).to_bytes(8, "little") + _MAGIC)


class ScoreFile:
    """An opened file of scores.

    Args:
        verified: the digest of the whole file was compared just now, so blocks are not hashed a second time.

    Attributes:
        facts: what the writer said about them.
        shape: (outputs, z, y, x).

    Raises:
        DamagedFileError: the file is missing, truncated or altered.
    """

    def __init__(self, path: Path | str, *, verified: bool = False) -> None:
        self.path, self._verified = Path(path), verified
        text = _directory_text(self.path)
        try:
            directory = json.loads(text)
            self.facts: dict[str, Any] = dict(directory["facts"])
            outputs, planes, rows, columns = (int(edge) for edge in directory["shape"])
            self.shape = (outputs, planes, rows, columns)
            self._step = int(directory["planes_per_block"])
            self._blocks: list[dict[str, Any]] = list(directory["blocks"])
            ranges = ([start, min(start + self._step, planes)] for start in range(0, planes, self._step))
            if any(block["z"] != wanted for block, wanted in zip(self._blocks, ranges, strict=True)):
                raise ValueError("its blocks are not all planes in order")
            size_bytes = self.path.stat().st_size
            for block in self._blocks:
                start, stop = block["z"]
                _require_possible(block, outputs * (stop - start) * rows * columns, size_bytes)
        except MALFORMED as problem:
            raise DamagedFileError(self.path, f"its directory is not valid ({brief(repr(problem))})") from problem
        self._held: dict[int, np.ndarray] = {}

    def planes(self, first: int, last: int) -> np.ndarray:
        """Scores of the planes ``first:last``, (outputs, last - first, y, x). Blocks of the last call are kept.

        Raises:
            DamagedFileError: a block was altered.
        """
        needed = range(first // self._step, (last - 1) // self._step + 1)
        self._held = {number: self._held[number] if number in self._held else self._block(number) for number in needed}
        parts = list(self._held.values())
        joined = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        begin = needed[0] * self._step
        return joined[:, first - begin : last - begin]

    def _block(self, number: int) -> np.ndarray:
        entry = self._blocks[number]
        start, stop = entry["z"]
        with self.path.open("rb") as stream:
            stream.seek(entry["offset"])
            content = stream.read(sum(entry["sizes"]))
        if not self._verified and hashlib.sha256(content).hexdigest() != entry["sha256"]:
            raise DamagedFileError(self.path, f"the digest of its planes {start} to {stop} does not fit")
        outputs, _, rows, columns = self.shape
        try:
            return _decompressed(content, entry["sizes"], (outputs, stop - start, rows, columns))
        except (ValueError, InflateError) as problem:
            raise DamagedFileError(self.path, f"its planes {start} to {stop} do not inflate ({problem})") from problem


def _compressed(scores: np.ndarray) -> list[bytes]:
    """The four byte groups of float32 values, most significant first."""
    groups = scores.reshape(-1).view(np.uint8).reshape(-1, 4)
    parts = []
    for significance in _SIGNIFICANCE:
        raw = np.ascontiguousarray(groups[:, significance]).tobytes()
        middle = len(raw) // 2
        probe = raw[:_PROBE_BYTES] + raw[middle : middle + _PROBE_BYTES]
        if len(zlib.compress(probe, 1)) < _WORTH_IT * len(probe):
            packed = zlib.compress(raw, 1)
            raw = packed if len(packed) < len(raw) else raw  # equal sizes tell the reader "stored as it is"
        parts.append(raw)
    return parts


def _decompressed(content: bytes, sizes: Sequence[int], shape: tuple[int, ...]) -> np.ndarray:
    values = int(np.prod(shape))
    groups = np.empty((values, 4), np.uint8)
    offset = 0
    for significance, size in zip(_SIGNIFICANCE, sizes, strict=True):
        part = memoryview(content)[offset : offset + size]
        offset += size
        raw = part if size == values else zlib_ng.decompressobj().decompress(part, values)
        groups[:, significance] = np.frombuffer(raw, np.uint8)
    return groups.view("<f4").reshape(shape)


def _require_possible(block: Mapping[str, Any], values: int, size_bytes: int) -> None:
    """Raises ValueError where a block lies outside the file, or claims more values than its bytes can inflate to."""
    numbers = [block["offset"], *block["sizes"]]
    if len(numbers) != 5 or not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError("a block has no place")
    smallest = min(block["sizes"])
    if sum(numbers) > size_bytes or values < 1 or values > DEFLATE_RATIO * smallest:
        raise ValueError(f"a block of {values} values in {smallest} bytes")


def _directory_text(path: Path) -> bytes:
    """The JSON directory at the end of the file, its digest compared."""
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            magic = stream.read(len(_MAGIC))
            stream.seek(max(0, size - _TAIL_BYTES))
            tail = stream.read(_TAIL_BYTES)
            length = int.from_bytes(tail[32:40], "little")
            if magic != _MAGIC or tail[40:] != _MAGIC or length > size - _TAIL_BYTES - len(_MAGIC):
                raise DamagedFileError(path, "not a complete file of probabilities")
            stream.seek(size - _TAIL_BYTES - length)
            text = stream.read(length)
    except FileNotFoundError:
        raise DamagedFileError(path, "the file does not exist", "predict this case again") from None
    if hashlib.sha256(text).digest() != tail[:32]:
        raise DamagedFileError(path, "the digest of its directory does not fit")
    return text
