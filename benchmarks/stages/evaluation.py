"""Metrics of a pair, choice of the postprocessing, and scoring an ensemble of two configurations.

The peer starts its own pools of processes for the latter two; their start belongs to what it takes.
"""

from __future__ import annotations

import json
import pickle
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from zlib_ng import zlib_ng

from benchmarks.pairs import Function, Goal, Pair, Place
from benchmarks.stages.compare import equal_json

if TYPE_CHECKING:
    from benchmarks.stages.inputs import Prepared

METRICS, RULES = "metrics of a pair, 20 labels, 18 million voxels", "postprocessing determination, 40 cases"
ENSEMBLE = "ensemble evaluation of two configurations, 40 cases"
STAGES = (METRICS, RULES, ENSEMBLE)
_SHAPE = (288, 256, 244)
_READER = "SimpleITKIO"
_SEED = 20240229


def pair(stage: str, place: Place) -> Pair | None:
    return {METRICS: _metrics, RULES: _rules, ENSEMBLE: _ensemble}[stage](place)


def _metrics(place: Place) -> Pair | None:
    from benchmarks.stages.inputs import CT_SOURCE, write_nifti
    from segwright.images.readers import read_label
    from segwright.preprocessing.label_resize import resize_labels

    source = place.data / CT_SOURCE / "labelsTr"
    if not source.is_dir():
        return None
    organs = read_label(sorted(source.iterdir())[0], _READER).array_zyx
    label = twenty_labels(resize_labels(organs.astype(np.int8), _SHAPE, 1, "argmax"))
    files = [place.work / name for name in ("reference.nii.gz", "prediction.nii.gz")]
    for file, array in zip(files, (label, np.roll(label, (2, -1), (0, 2))), strict=True):
        write_nifti(file, array, (1.0, 1.0, 1.0))
    dataset_json = place.work / "dataset.json"
    labels = {"background": 0, **{f"structure_{value}": value for value in range(1, 21)}}
    dataset_json.write_text(json.dumps({"labels": labels, "channel_names": {"0": "CT"}, "file_ending": ".nii.gz"}))
    arguments = {
        "reference": str(files[0]), "prediction": str(files[1]), "dataset_json": str(dataset_json), "reader": _READER,
    }  # fmt: skip
    return Pair(
        METRICS,
        peer=Function("benchmarks.stages.peer_files:metrics", arguments),
        ours=Function("benchmarks.stages.own:metrics", arguments),
        must=Goal(ratio=8),
        target=Goal(ratio=12),
        difference=equal_json,
        note=f"reading both files included, of which inflating takes {1000 * inflate_s(files):.0f} ms",
    )


def inflate_s(files: Sequence[Path]) -> float:
    """CPU seconds of decompressing the files, the least that reading them can take; median of five times."""
    seconds = []
    for _ in range(5):
        started = time.process_time()
        for file in files:
            zlib_ng.decompress(file.read_bytes(), wbits=31)
        seconds.append(time.process_time() - started)
    return median(seconds)


def twenty_labels(organs_zyx: np.ndarray) -> np.ndarray:
    """Six organs cut into pieces by planes: values 1 to 20."""
    z, _, x = np.meshgrid(*(np.arange(edge) for edge in organs_zyx.shape), indexing="ij", sparse=True)
    piece = (2 * z // organs_zyx.shape[0]) + 2 * (2 * x // organs_zyx.shape[2])
    values = (organs_zyx.astype(np.int16) - 1) * 4 + piece
    return np.where(organs_zyx > 0, values % 20 + 1, 0).astype(np.uint8)


def _rules(place: Place) -> Pair | None:
    from benchmarks.stages.inputs import hippocampus, prepare
    from segwright.core.files import file_digest
    from segwright.images.readers import read_label, write_label
    from segwright.inference.finished import write_manifest

    raw = hippocampus(place)
    if raw is None:
        return None
    prepared = prepare(place, raw)
    folder, rng = place.work / "predictions", np.random.default_rng(_SEED)
    folder.mkdir()
    cases: dict[str, dict[str, Any]] = {}
    for case in prepared.dataset.training:
        assert case.label_file is not None
        label = read_label(case.label_file, _READER)
        path = folder / case.label_file.name
        write_label(path, with_islands(label.array_zyx, rng), label.geometry, _READER)
        cases[case.case_id] = {"file": path, "digest": file_digest(path)}
    write_manifest(folder / "manifest.json", folder, cases)
    return Pair(
        RULES,
        peer=Function(
            "benchmarks.stages.peer_files:postprocessing",
            {
                "folder": str(folder),
                "references": str(raw / "labelsTr"),
                "plans": str(prepared.plans_file),
                "dataset_json": str(raw / "dataset.json"),
            },
            prepared.variables,
        ),
        ours=Function(
            "benchmarks.stages.own:postprocessing",
            {
                "manifest": str(folder / "manifest.json"),
                "dataset": str(raw),
                "reader": _READER,
                "output": str(place.work / "postprocessing.json"),
            },
        ),
        must=Goal(ratio=5),
        target=Goal(ratio=10),
        difference=equal_json,
        note="rules compared",
    )


def with_islands(label_zyx: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A prediction: the reference a voxel off, with a few islands in the background."""
    from scipy.ndimage import gaussian_filter

    wrong = np.roll(label_zyx, int(rng.integers(-1, 2)), axis=int(rng.integers(1, 3))).copy()
    islands = gaussian_filter(rng.normal(size=wrong.shape), 1.5)
    wrong[(islands > np.quantile(islands, 0.995)) & (wrong == 0)] = 1
    return wrong


def _ensemble(place: Place) -> Pair | None:
    from benchmarks.stages.inputs import hippocampus, prepare

    raw = hippocampus(place)
    if raw is None:
        return None
    prepared = prepare(place, raw)
    manifests, models = [], []
    for number, configuration in enumerate(("2d", "3d_fullres")):
        ours, peers = place.work / "ours" / configuration, place.work / "peers" / configuration
        manifests.append(str(_write_member(prepared, configuration, ours, peers / "fold_0" / "validation", number)))
        models.append(str(peers))
        (peers / "plans.json").write_text(prepared.plans_file.read_text())
        (peers / "dataset.json").write_text((raw / "dataset.json").read_text())
    return Pair(
        ENSEMBLE,
        peer=Function(
            "benchmarks.stages.peer_files:ensemble",
            {"members": models, "references": str(raw / "labelsTr"), "output": str(place.work / "peers" / "ensemble")},
            prepared.variables,
        ),
        ours=Function(
            "benchmarks.stages.own:ensemble",
            {
                "members": manifests,
                "dataset": str(raw),
                "reader": _READER,
                "output": str(place.work / "ours" / "ensemble"),
            },
        ),
        must=Goal(ratio=3),
        target=Goal(ratio=8),
        difference=equal_json,
        note="mean metrics compared; segwright's probabilities lie on the stored grid and are resampled here",
    )


def _write_member(prepared: Prepared, configuration: str, ours: Path, peers: Path, seed: int) -> Path:
    """The same out-of-fold probabilities as both programs keep them; gives segwright's manifest."""
    from segwright.core.files import file_digest
    from segwright.core.slices import predict_slice, preprocess_slice
    from segwright.images.readers import read_image, read_label
    from segwright.inference.finished import write_manifest
    from segwright.inference.probabilities import ScoreArray, mean_probabilities, on_raw_grid, write_probabilities
    from segwright.preprocessing.case import preprocess_case

    dataset, rng = prepared.dataset, np.random.default_rng(_SEED + seed)
    plan = preprocess_slice(prepared.plans, configuration, dataset.labels, dataset.channel_names)
    predict = predict_slice(prepared.plans, configuration, plan)
    for folder in (ours, peers):
        folder.mkdir(parents=True)
    cases: dict[str, dict[str, Any]] = {}
    for case in dataset.training:
        assert case.label_file is not None
        label = read_label(case.label_file, _READER)
        stored = preprocess_case(read_image(case.image_files, _READER), label, plan, with_locations=False)
        assert stored.label_zyx is not None
        scores = likely_logits(stored.label_zyx, dataset.labels.num_outputs, rng)
        path = ours / f"{case.case_id}.probabilities"
        write_probabilities(path, scores, stored.properties, predict)
        cases[case.case_id] = {"file": path, "digest": file_digest(path)}
        full = on_raw_grid(mean_probabilities([ScoreArray(scores, stored.properties, predict)]))
        np.savez_compressed(peers / f"{case.case_id}.npz", probabilities=full)
        (peers / f"{case.case_id}.pkl").write_bytes(pickle.dumps(_peer_properties(case.label_file)))
    write_manifest(ours / "probabilities.json", ours, cases)
    return ours / "probabilities.json"


def likely_logits(label_zyx: np.ndarray, outputs: int, rng: np.random.Generator) -> np.ndarray:
    """Scores of a network that is right in most places: the reference blurred, with correlated errors."""
    from scipy.ndimage import gaussian_filter

    logits = np.empty((outputs, *label_zyx.shape), np.float32)
    for value in range(outputs):
        error = gaussian_filter(rng.standard_normal(label_zyx.shape), 1.5)
        logits[value] = 10 * gaussian_filter((label_zyx == value).astype(np.float32), 1.0) + 8 * error
    return logits


def _peer_properties(label_file: Path) -> dict[str, Any]:
    """What the peer keeps of an image to write a label map on its grid."""
    import SimpleITK as sitk

    image = sitk.ReadImage(str(label_file))
    grid = {"spacing": image.GetSpacing(), "origin": image.GetOrigin(), "direction": image.GetDirection()}
    return {"sitk_stuff": grid, "spacing": list(image.GetSpacing())[::-1]}
