"""Resampling of an image and of a label map, as functions."""

from __future__ import annotations

import numpy as np

from benchmarks.pairs import Function, Goal, Pair, Place
from benchmarks.stages.compare import largest, share_of_voxels

CUBIC, CUBIC_UP, THICK = "resampling, cubic 3-D", "resampling, cubic 3-D, upwards", "resampling, cubic, separate z"
LABELS, LABELS_THICK = "resampling, labels", "resampling, labels, separate z"
STAGES = (CUBIC, CUBIC_UP, THICK, LABELS, LABELS_THICK)
_SPACINGS = {
    CUBIC: ((1.04, 0.97, 0.97), (1.0, 1.0, 1.0)),
    CUBIC_UP: ((1.04, 1.1, 1.1), (0.95, 1.0, 1.0)),
    THICK: ((4.4, 0.97, 0.97), (4.0, 1.0, 1.0)),
    LABELS: ((1.04, 0.97, 0.97), (1.0, 1.0, 1.0)),
    LABELS_THICK: ((4.4, 0.97, 0.97), (4.0, 1.0, 1.0)),
}


def pair(stage: str, place: Place) -> Pair | None:
    from benchmarks.stages.inputs import large_cts
    from segwright.images.readers import read_image, read_label
    from segwright.preprocessing.resampling import new_shape_after

    folder = large_cts(place)
    if folder is None:
        return None
    is_label = stage in (LABELS, LABELS_THICK)
    if is_label:
        array = read_label(sorted((folder / "labelsTr").iterdir())[1], "SimpleITKIO").array_zyx.astype(np.int8)
    else:
        image = read_image([sorted((folder / "imagesTr").iterdir())[1]], "SimpleITKIO").array_czyx[0]
        array = ((image - image.mean()) / image.std()).astype(np.float32)
    current, target = _SPACINGS[stage]
    file, shape = place.work / "input.npy", new_shape_after(array.shape, current, target)
    np.save(file, array)
    arguments = {"file": str(file), "shape": shape, "current": current, "target": target, "is_label": is_label}
    return Pair(
        stage,
        peer=Function("benchmarks.stages.peer_arrays:resample", arguments),
        ours=Function("benchmarks.stages.own:resample", arguments),
        must=Goal(ratio=10 if is_label else 15),
        target=Goal(ratio=15 if is_label else 30),
        difference=share_of_voxels if is_label else largest,
        note=f"{_by(array.shape)} to {_by(shape)}",
    )


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
