"""From network output to a label map on the image's grid, 120x160x160 to 300x400x400.

The output of a network is smooth, with structures whose borders touch and overlap: ellipsoids of several sizes, highest
in their middle, with structures of ten voxels' width added.
"""

from __future__ import annotations

import json

import numpy as np

from benchmarks.pairs import Function, Goal, Pair, Place
from benchmarks.stages.compare import share_of_voxels

FEW, MANY = "export, 3 classes", "export, 60 classes"
STAGES = (FEW, MANY)
_STORED, _FULL, _SPACING_MM = (120, 160, 160), (300, 400, 400), 2.5
_SEED = 20240229


def pair(stage: str, place: Place) -> Pair:
    from benchmarks.stages.inputs import prepare
    from segwright.phantom import make_phantom

    classes = 3 if stage == FEW else 60
    folder = place.work / "raw" / "Dataset900_Phantom"
    make_phantom("plain", 2, _SEED, folder)
    prepared = prepare(place, folder, spacing=[_SPACING_MM] * 3)
    facts = json.loads((folder / "dataset.json").read_text())
    facts["labels"] = {"background": 0, **{f"structure_{value}": value for value in range(1, classes)}}
    dataset_json, logits = place.work / "dataset.json", place.work / "logits.npy"
    dataset_json.write_text(json.dumps(facts))
    np.save(logits, blobs(classes))
    arguments = {
        "logits": str(logits),
        "plans": str(prepared.plans_file),
        "dataset_json": str(dataset_json),
        "shape": _FULL,
    }
    return Pair(
        stage,
        peer=Function("benchmarks.stages.peer_files:export", arguments, prepared.variables, fresh=classes > 3),
        ours=Function("benchmarks.stages.own:export", arguments, fresh=classes > 3),
        must=Goal(ratio=15) if stage == FEW else Goal(ratio=10, memory_mib=2048),
        target=Goal(ratio=30) if stage == FEW else Goal(ratio=25, memory_mib=1.2 * 1024),
        difference=share_of_voxels,
    )


def blobs(classes: int, shape: tuple[int, int, int] = _STORED) -> np.ndarray:
    """Logits (classes, z, y, x) in float16; the background is class 0."""
    from scipy.ndimage import zoom

    rng = np.random.default_rng(_SEED)
    logits = np.zeros((classes, *shape), np.float16)
    for value in range(1, classes):
        centre = rng.uniform(0.15, 0.85, 3) * shape
        radii = rng.uniform(0.10, 0.22, 3) * shape * (1.6 if classes < 10 else 1.0)
        squared = np.zeros(shape, np.float32)
        for axis, (middle, radius) in enumerate(zip(centre, radii, strict=True)):
            distance = ((np.arange(shape[axis]) - middle) / radius) ** 2
            squared += distance.reshape([-1 if axis == own else 1 for own in range(3)]).astype(np.float32)
        coarse = rng.normal(0, 1, [edge // 10 for edge in shape])
        rough = zoom(coarse, 10, order=3, mode="nearest", grid_mode=True).astype(np.float32)
        logits[value] = np.clip(6 * (1 - np.sqrt(squared)) + rough, -12, 12)
    return logits
