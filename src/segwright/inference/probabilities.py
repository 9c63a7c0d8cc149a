"""Class probabilities in a file: what ensembles average (method 10.4, 11.5), by far the largest temporary.

What is stored are the network's scores on its own grid, in float32 and losslessly compressed, with all that is needed
to make the probabilities on the cropped original grid from them. That is exact, holds no more voxels than the network
saw (a low resolution prediction is many times smaller than its probabilities at full size), and reading makes the
probabilities in z ranges, so an ensemble never holds all classes at full size. Different configurations of a dataset
share crop and transposition, so their probabilities lie on one grid and can be averaged.

File: magic, compressed blocks, a JSON directory, the directory's SHA-256, its length (8 bytes), magic. A block is a
range of z planes of all outputs as little-endian float32 whose bytes are grouped by significance; a group that does not
shrink (low mantissa bits are noise) is stored as it is. Every block's SHA-256 is in the directory. No pickle, no torch.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from segwright.core.errors import DamagedFileError, DatasetError
from segwright.core.files import atomic_path
from segwright.core.plans import PredictPlan
from segwright.inference.export import (
    ScoreKind,
    crop_axes,
    labels_from_probability_slabs,
    to_probabilities,
)
from segwright.inference.interpolation import interpolate_slabs, slabs_of
from segwright.preprocessing.case import CaseProperties, undo_crop_and_transpose

SUFFIX = ".probabilities"
_MAGIC = b"SWPROB01"
_BLOCK_BYTES = 1 << 23
_PROBE_BYTES = 1 << 15
_WORTH_IT = 0.95  # below this share of its size a byte group is stored compressed


@dataclass(frozen=True)
class CroppedProbabilities:
    """Probabilities of one case on the cropped, transposed original grid.

    Attributes:
        array_czyx: (outputs, z, y, x) float32, one output a class or a region.
        plan: the predict slice they were made with; labels and transposition of it make label maps.
    """

    array_czyx: np.ndarray
    properties: CaseProperties
    plan: PredictPlan


def write_probabilities(
    path: Path | str,
    scores_czyx: np.ndarray,
    properties: CaseProperties,
    plan: PredictPlan,
    kind: ScoreKind = "logits",
) -> None:
    """Write one case, atomically. ``scores_czyx`` is (outputs, z, y, x) float32 on the stored grid.

    The bytes depend on the arguments alone (with one zlib version).
    """
    outputs, planes = scores_czyx.shape[:2]
    if scores_czyx.shape != (plan.labels.num_outputs, *properties.shape):
        raise ValueError(f"scores of shape {scores_czyx.shape} do not fit the case's {properties.shape}")
    step = max(1, _BLOCK_BYTES // (4 * max(1, scores_czyx[:, 0].size)))
    blocks: list[dict[str, Any]] = []
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        stream.write(_MAGIC)
        for start in range(0, planes, step):
            stop = min(start + step, planes)
            parts = _compressed(np.ascontiguousarray(scores_czyx[:, start:stop], "<f4"))
            digest = hashlib.sha256(b"".join(parts)).hexdigest()
            sizes = [len(part) for part in parts]
            blocks.append({"z": [start, stop], "offset": stream.tell(), "sizes": sizes, "sha256": digest})
            for part in parts:
                stream.write(part)
        directory = {
            "outputs": outputs,
            "shape": list(properties.shape),
            "kind": kind,
            "properties": properties.to_json(),
            "plan": plan.to_json(),
            "blocks": blocks,
        }
        text = json.dumps(directory, sort_keys=True, separators=(",", ":")).encode("utf-8")
        stream.write(text + hashlib.sha256(text).digest() + len(text).to_bytes(8, "little") + _MAGIC)


def read_probabilities(path: Path | str) -> CroppedProbabilities:
    """All probabilities of a case at full size; prefer :class:`ProbabilityFile` or :func:`ensemble_labels`.

    Raises:
        DamagedFileError: the file is missing, truncated or altered.
    """
    file = ProbabilityFile(path)
    array = np.concatenate([slab for _, _, slab in file.slabs()], axis=1)
    return CroppedProbabilities(array, file.properties, file.plan)


class ProbabilityFile:
    """An opened probability file: its facts, and its probabilities range by range.

    Attributes:
        shape_zyx: the cropped, transposed original grid. kind: what the stored scores are.

    Raises:
        DamagedFileError: the file is missing, truncated or altered.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        directory = _read_directory(self.path)
        try:
            self.outputs = int(directory["outputs"])
            self.kind: ScoreKind = directory["kind"]
            self.properties = CaseProperties.from_json(directory["properties"])
            self.plan = PredictPlan.from_json(directory["plan"])
            self._shape = tuple(int(edge) for edge in directory["shape"])
            self._blocks = list(directory["blocks"])
        except (KeyError, TypeError, ValueError) as problem:
            raise DamagedFileError(self.path, f"its directory is not valid ({problem})") from problem
        self._axes = crop_axes(self.properties, self.plan)
        self.shape_zyx = tuple(axis.n_out for axis in self._axes)

    def slabs(self, planes: int | None = None) -> Iterator[tuple[int, int, np.ndarray]]:
        """(start, stop, probabilities float32 (outputs, stop - start, y, x)) in z order.

        Args:
            planes: planes a slab; None: as many as fit a few megabytes.
        """
        with self.path.open("rb") as stream:
            window = _Window(self, stream)
            for start, stop in self.ranges(planes):
                first, last = self._axes[0].inputs_of(start, stop)
                scores = window.planes(first, last)
                slab = interpolate_slabs(scores, self._axes, start, stop, first_plane=first)
                yield start, stop, slab if self.kind == "probabilities" else to_probabilities(slab, self.plan.labels)

    def ranges(self, planes: int | None = None) -> list[tuple[int, int]]:
        """The z ranges :meth:`slabs` gives."""
        if planes is None:
            return list(slabs_of(self._axes, self.outputs))
        depth = self.shape_zyx[0]
        return [(start, min(start + planes, depth)) for start in range(0, depth, planes)]

    def block(self, stream: IO[bytes], number: int) -> tuple[int, np.ndarray]:
        """First plane and scores of one stored block, its digest verified."""
        entry = self._blocks[number]
        stream.seek(entry["offset"])
        content = stream.read(sum(entry["sizes"]))
        if hashlib.sha256(content).hexdigest() != entry["sha256"]:
            raise DamagedFileError(self.path, f"the digest of planes {entry['z']} does not fit")
        start, stop = entry["z"]
        return start, _decompressed(content, entry["sizes"], (self.outputs, stop - start, *self._shape[1:]))

    def block_of_plane(self, plane: int) -> int:
        step = self._blocks[0]["z"][1] - self._blocks[0]["z"][0]
        return plane // step

    def label_map(self) -> np.ndarray:
        """Label map of this prediction alone, on the raw grid."""
        return labels_from_probability_slabs((slab for _, _, slab in self.slabs()), self.properties, self.plan)

    def on_raw_grid(self) -> np.ndarray:
        """Probabilities on the raw grid, float32 (outputs, z, y, x): outside the crop all background (method 10.4)."""
        array = read_probabilities(self.path).array_czyx
        outside = 0.0 if self.plan.labels.has_regions else [1.0] + [0.0] * (self.outputs - 1)
        return undo_crop_and_transpose(array, self.properties, self.plan.preprocess, outside)


class _Window:
    """Planes of scores read one after the other; keeps only the blocks the current range needs."""

    def __init__(self, file: ProbabilityFile, stream: IO[bytes]) -> None:
        self._file, self._stream = file, stream
        self._blocks: dict[int, tuple[int, np.ndarray]] = {}

    def planes(self, first: int, last: int) -> np.ndarray:
        needed = range(self._file.block_of_plane(first), self._file.block_of_plane(last - 1) + 1)
        self._blocks = {
            number: self._blocks.get(number) or self._file.block(self._stream, number) for number in needed
        }
        begin = self._blocks[needed[0]][0]
        parts = [self._blocks[number][1] for number in needed]
        joined = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        return joined[:, first - begin : last - begin]


def ensemble_labels(paths: Sequence[Path | str]) -> tuple[np.ndarray, CaseProperties, PredictPlan]:
    """Label map (raw grid) of the arithmetic mean of several predictions of one case, in float32 (method 10.7).

    Works in z ranges: memory is a few ranges and the label map.

    Raises:
        DatasetError: the files are not predictions of one case on one grid with the same outputs.
        DamagedFileError: a file is missing, truncated or altered.
    """
    files = [ProbabilityFile(path) for path in paths]
    first = files[0]
    for other in files[1:]:
        if not _same_grid(first, other):
            raise DatasetError(
                f"{other.path}: cannot be averaged with {first.path}: shape {other.shape_zyx}, {other.outputs} outputs "
                f"against {first.shape_zyx}, {first.outputs}; predict both again from the same images"
            )
    label_zyx = labels_from_probability_slabs(_mean_slabs(files), first.properties, first.plan)
    return label_zyx, first.properties, first.plan


def _mean_slabs(files: Sequence[ProbabilityFile]) -> Iterator[np.ndarray]:
    ranges = files[0].ranges()
    planes = ranges[0][1] - ranges[0][0]
    for parts in zip(*(file.slabs(planes) for file in files), strict=True):
        total = parts[0][2]
        for _, _, slab in parts[1:]:
            total = total + slab
        yield total / np.float32(len(files))


def _same_grid(a: ProbabilityFile, b: ProbabilityFile) -> bool:
    return (
        a.outputs == b.outputs
        and a.shape_zyx == b.shape_zyx
        and a.plan.labels == b.plan.labels
        and a.plan.preprocess.transpose_forward == b.plan.preprocess.transpose_forward
        and a.properties.bbox == b.properties.bbox
        and a.properties.shape_before_cropping == b.properties.shape_before_cropping
    )


def _compressed(scores: np.ndarray) -> list[bytes]:
    """The four byte groups of float32 values, most significant first."""
    groups = scores.view(np.uint8).reshape(-1, 4)
    parts = []
    for significance in (3, 2, 1, 0):
        raw = np.ascontiguousarray(groups[:, significance]).tobytes()
        probe = raw[: min(len(raw), _PROBE_BYTES)]
        middle = raw[len(raw) // 2 : len(raw) // 2 + _PROBE_BYTES]
        if len(zlib.compress(probe + middle, 1)) < _WORTH_IT * len(probe + middle):
            packed = zlib.compress(raw, 1)
            raw = packed if len(packed) < len(raw) else raw  # equal lengths mean "stored as it is"
        parts.append(raw)
    return parts


def _decompressed(content: bytes, sizes: Sequence[int], shape: tuple[int, ...]) -> np.ndarray:
    """Inverse of :func:`_compressed`; never inflates beyond what ``shape`` needs."""
    values = int(np.prod(shape))
    groups = np.empty((values, 4), np.uint8)
    offset = 0
    for significance, size in zip((3, 2, 1, 0), sizes, strict=True):
        part = content[offset : offset + size]
        offset += size
        raw = part if size == values else zlib.decompressobj().decompress(part, values)
        groups[:, significance] = np.frombuffer(raw, np.uint8)
    return groups.view("<f4").reshape(shape)


def _read_directory(path: Path) -> dict[str, Any]:
    """The verified JSON directory at the end of the file."""
    tail = 32 + 8 + len(_MAGIC)
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            magic = stream.read(len(_MAGIC))
            stream.seek(max(0, size - tail))
            end = stream.read(tail)
            length = int.from_bytes(end[32:40], "little")
            if magic != _MAGIC or end[40:] != _MAGIC or length > size - tail - len(_MAGIC):
                raise DamagedFileError(path, "not a complete probability file")
            stream.seek(size - tail - length)
            text = stream.read(length)
    except FileNotFoundError:
        raise DamagedFileError(path, "the file does not exist", "predict this case again") from None
    if hashlib.sha256(text).digest() != end[:32]:
        raise DamagedFileError(path, "the digest of its directory does not fit")
    directory: dict[str, Any] = json.loads(text)
    return directory
