"""Class probabilities: in memory, in a file, and their mean over configurations (method 10.4, 10.7, 11.5).

A file keeps the network's *scores* on its own grid, with all that is needed to make the probabilities on the cropped
original grid from them. That is exact (float32), holds no more voxels than the network saw (a low resolution prediction
is many times smaller than its probabilities at full size), and the probabilities are made in ranges of planes while
reading, so an ensemble never holds all classes at full size. All configurations of a dataset share crop and
transposition, so their probabilities lie on one grid and can be averaged. Needs no torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from segwright.core.errors import MALFORMED, DamagedFileError, DatasetError, brief
from segwright.core.files import atomic_path
from segwright.core.slices import PredictPlan
from segwright.inference.export import ScoreKind, crop_axes, labels_from_probability_slabs, to_probabilities
from segwright.inference.interpolation import interpolate_slabs, slabs_of
from segwright.inference.score_file import ScoreFile, write_scores
from segwright.preprocessing.case import CaseProperties, undo_crop_and_transpose

_CACHE_VALUES = 1 << 15  # values that softmax, mean and decision work on at once: they stay in the processor's cache


@dataclass(frozen=True)
class CroppedProbabilities:
    """Probabilities of one case at full size.

    Attributes:
        array_czyx: (outputs, z, y, x) float32 on the cropped, transposed original grid; one output a class or region.
        plan: the predict slice they were made with; its labels and transposition make label maps.
    """

    array_czyx: np.ndarray
    properties: CaseProperties
    plan: PredictPlan


class Probabilities(ABC):
    """One prediction of one case that gives its probabilities range by range.

    Attributes:
        name: for messages. kind: what the scores behind it are.
        shape_zyx: the cropped, transposed original grid. outputs: classes or regions.
    """

    def __init__(self, name: str, properties: CaseProperties, plan: PredictPlan, kind: ScoreKind) -> None:
        self.name, self.properties, self.plan, self.kind = name, properties, plan, kind
        self.outputs = plan.labels.num_outputs
        self._axes = crop_axes(properties, plan)
        self.shape_zyx = tuple(axis.n_out for axis in self._axes)

    @abstractmethod
    def score_planes(self, first: int, last: int) -> np.ndarray:
        """Scores of the stored grid's planes ``first:last``, float32 (outputs, last - first, y, x)."""

    def slabs(self, planes: int | None = None) -> Iterator[np.ndarray]:
        """Probabilities of consecutive plane ranges: float32 (outputs, planes, y, x), in z order.

        Args:
            planes: planes that are resampled at once; None: as many as fit a few megabytes. Ranges may be thinner.
        """
        depth, rows, columns = self.shape_zyx
        step = planes or self.planes_at_once
        thin = max(1, _CACHE_VALUES // (self.outputs * rows * columns))
        for start in range(0, depth, step):
            stop = min(start + step, depth)
            first, last = self._axes[0].inputs_of(start, stop)
            resampled = interpolate_slabs(self.score_planes(first, last), self._axes, start, stop, first_plane=first)
            for z in range(0, stop - start, thin):
                slab = resampled[:, z : z + thin]
                yield slab if self.kind == "probabilities" else to_probabilities(slab, self.plan.labels)

    @property
    def planes_at_once(self) -> int:
        start, stop = next(slabs_of(self._axes, self.outputs))
        return stop - start


class ScoreArray(Probabilities):
    """A prediction whose scores are in memory: (outputs, z, y, x) float32 on the stored grid."""

    def __init__(
        self, scores_czyx: np.ndarray, properties: CaseProperties, plan: PredictPlan, kind: ScoreKind = "logits"
    ) -> None:
        super().__init__(plan.configuration, properties, plan, kind)
        self.scores_czyx = scores_czyx

    def score_planes(self, first: int, last: int) -> np.ndarray:
        return self.scores_czyx[:, first:last]


class ProbabilityFile(Probabilities):
    """A prediction in a file; ``verified`` as in :class:`~segwright.inference.score_file.ScoreFile`.

    Raises:
        DamagedFileError: the file is missing, truncated or altered.
    """

    def __init__(self, path: Path | str, *, verified: bool = False) -> None:
        self._file = ScoreFile(path, verified=verified)
        facts = self._file.facts
        try:
            properties = CaseProperties.from_json(facts["properties"])
            plan = PredictPlan.from_json(facts["plan"])
            kind: ScoreKind = facts["kind"]
            if kind not in get_args(ScoreKind):
                raise ValueError(f"scores of an unknown kind: {kind}")
        except MALFORMED as problem:
            raise DamagedFileError(path, f"not a file of probabilities ({brief(repr(problem))})") from problem
        super().__init__(str(path), properties, plan, kind)
        if self._file.shape != (self.outputs, *properties.shape):
            raise DamagedFileError(path, f"its scores {self._file.shape} do not fit its plan and case")

    def score_planes(self, first: int, last: int) -> np.ndarray:
        return self._file.planes(first, last)


def write_probabilities(
    path: Path | str,
    scores_czyx: np.ndarray,
    properties: CaseProperties,
    plan: PredictPlan,
    kind: ScoreKind = "logits",
) -> None:
    """Write one case, atomically and reproducibly. ``scores_czyx`` is float32 (outputs, z, y, x) on the stored grid."""
    if scores_czyx.shape != (plan.labels.num_outputs, *properties.shape):
        raise ValueError(f"scores of shape {scores_czyx.shape} do not fit the case's {properties.shape}")
    write_scores(path, scores_czyx, {"kind": kind, "properties": properties.to_json(), "plan": plan.to_json()})


def mean_labels(members: Sequence[Probabilities], mean: CroppedProbabilities | None = None) -> np.ndarray:
    """Label map (raw grid) of the arithmetic mean of the members' probabilities, in float32 (method 10.7).

    Works range by range: memory is a few ranges and the label map.

    Args:
        mean: the members' :func:`mean_probabilities`, where somebody needs them as well.

    Raises:
        DatasetError: the members do not lie on one grid with the same outputs.
    """
    slabs = _mean_slabs(members) if mean is None else [mean.array_czyx]
    return labels_from_probability_slabs(slabs, members[0].properties, members[0].plan)


def mean_probabilities(members: Sequence[Probabilities]) -> CroppedProbabilities:
    """The arithmetic mean of the members' probabilities at full size.

    Raises:
        DatasetError: the members do not lie on one grid with the same outputs.
    """
    first = members[0]
    array = np.empty((first.outputs, *first.shape_zyx), np.float32)
    start = 0
    for slab in _mean_slabs(members):
        array[:, start : start + slab.shape[1]] = slab
        start += slab.shape[1]
    return CroppedProbabilities(array, first.properties, first.plan)


def on_raw_grid(probabilities: CroppedProbabilities) -> np.ndarray:
    """Probabilities on the raw grid, float32 (outputs, z, y, x).

    Outside the crop the background has probability one, or with regions nothing has any (method 10.4).
    """
    outputs = len(probabilities.array_czyx)
    outside = 0.0 if probabilities.plan.labels.has_regions else [1.0] + [0.0] * (outputs - 1)
    plan = probabilities.plan.preprocess
    return undo_crop_and_transpose(probabilities.array_czyx, probabilities.properties, plan, outside)


def write_npz(path: Path, probabilities: CroppedProbabilities) -> None:
    """Write probabilities for other programs: .npz with ``probabilities`` on the raw grid, as v2's (method 10.4)."""
    array_czyx = on_raw_grid(probabilities)
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, probabilities=array_czyx)


def _mean_slabs(members: Sequence[Probabilities]) -> Iterator[np.ndarray]:
    first = members[0]
    for other in members[1:]:
        if not _same_grid(first, other):
            raise DatasetError(
                f"{other.name}: cannot be averaged with {first.name}: shape {other.shape_zyx}, {other.outputs} outputs "
                f"against {first.shape_zyx}, {first.outputs}; predict both again from the same images"
            )
    planes = first.planes_at_once
    for parts in zip(*(member.slabs(planes) for member in members), strict=True):
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        yield total / np.float32(len(members)) if len(members) > 1 else total


def _same_grid(a: Probabilities, b: Probabilities) -> bool:
    return (
        a.shape_zyx == b.shape_zyx
        and a.plan.labels == b.plan.labels
        and a.plan.preprocess.transpose_forward == b.plan.preprocess.transpose_forward
        and a.properties.bbox == b.properties.bbox
        and a.properties.geometry == b.properties.geometry
    )
