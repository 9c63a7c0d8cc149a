"""What the peer selects among the predictions of tests/parity/candidates.py, by its own search for the best."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tests.parity.candidates import CONFIGURATIONS, FOLDS, predictions

from benchmarks.peer.common import quiet
from segwright.core.dataset import Dataset
from segwright.images.readers import write_label

TRAINER, PLANS = "nnUNetTrainer", "nnUNetPlans"


def peer_selection(
    dataset: Dataset, plans_json: Mapping[str, Any], noise: Sequence[float], name: str
) -> dict[str, Any]:
    """The same numbers as :func:`tests.parity.candidates.selected`, by ``find_best_configuration``.

    Args:
        plans_json: of the dataset; all that matters here is its reader.
        name: a dataset the peer does not know yet, such as ``Dataset950_Selection``.
    """
    from nnunetv2.evaluation.find_best_configuration import find_best_configuration
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    plans = {**plans_json, "dataset_name": name, "plans_name": PLANS}
    plans["configurations"] = dict.fromkeys(CONFIGURATIONS, plans_json["configurations"]["2d"])
    preprocessed, results = (Path(os.environ[f"nnUNet_{kind}"]) / name for kind in ("preprocessed", "results"))
    shutil.copytree(dataset.folder / "labelsTr", preprocessed / "gt_segmentations")
    (preprocessed / f"{PLANS}.json").write_text(json.dumps(plans))
    for configuration in CONFIGURATIONS:
        model = results / f"{TRAINER}__{PLANS}__{configuration}"
        model.mkdir(parents=True)
        (model / "plans.json").write_text(json.dumps(plans))
        (model / "dataset.json").write_text(json.dumps(dataset.description))
    reader = PlansManager(plans).image_reader_writer_class()
    for prediction in predictions(dataset, plans["image_reader_writer"], noise):
        model = results / f"{TRAINER}__{PLANS}__{prediction.configuration}"
        validation = model / f"fold_{prediction.fold}" / "validation"
        validation.mkdir(parents=True, exist_ok=True)
        label = validation / f"{prediction.case_id}{dataset.file_ending}"
        write_label(label, prediction.label_zyx, prediction.reference.geometry, plans["image_reader_writer"])
        np.savez_compressed(label.parent / f"{prediction.case_id}.npz", probabilities=prediction.probabilities_czyx)
        _, properties = reader.read_seg(str(preprocessed / "gt_segmentations" / label.name))
        (label.parent / f"{prediction.case_id}.pkl").write_bytes(pickle.dumps(properties))
    models = [{"plans": PLANS, "configuration": each, "trainer": TRAINER} for each in CONFIGURATIONS]
    with quiet():
        found = find_best_configuration(name, models, num_processes=1, folds=FOLDS)
    best = found["best_model_or_ensemble"]
    rules = json.loads(Path(best["postprocessing_file"]).with_suffix(".json").read_text())["postprocessing_kwargs"]
    return {
        "scores": {candidate(identifier): float(score) for identifier, score in found["all_results"].items()},
        "members": [model["configuration"] for model in best["selected_model_or_models"]],
        "rules": [sorted(_values(rule["labels_or_regions"])) for rule in rules],
        "score_after": float(best["result_on_crossval_post_pp"]),
    }


def candidate(identifier: str) -> str:
    """The peer's name of a model or ensemble as segwright's: ``2d`` or ``2d+3d_fullres``."""
    models = [part for part in identifier.split("___") if part.startswith(f"{TRAINER}__")]
    return "+".join(model.split("__")[2] for model in models)


def _values(labels_or_regions: Any) -> set[int]:
    if isinstance(labels_or_regions, list):
        return {value for entry in labels_or_regions for value in _values(entry)}
    return {int(labels_or_regions)}
