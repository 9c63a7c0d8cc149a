"""The plan folder: the plans, what exists, why, and for each later stage only what it depends on (decision 5)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from segwright.core.files import DELETE_FOLDER, write_json, write_text
from segwright.core.labels import Labels
from segwright.core.plans import Plans
from segwright.core.settings import PreprocessingSettings
from segwright.core.slices import PredictPlan, PreprocessPlan, predict_slice, preprocess_slice, train_slice
from segwright.planning.checks import training_problem
from segwright.planning.experiment import channel_names_of
from segwright.planning.reasons import Reasons

log = logging.getLogger(__name__)

SLICE_KINDS = ("preprocess", "train", "predict")


def write_plan_folder(
    folder: Path | str,
    plans: Plans,
    reasons: Reasons,
    dataset_facts: Mapping[str, Any],
    preprocessing: PreprocessingSettings,
) -> None:
    """Write the plans, an overview, the slices and the reasons.

    Files: ``plans.json``, ``configurations.json``, ``{configuration}.{preprocess,train,predict}.json``, ``reasons.md``.
    plans.json keeps v2's key order. A configuration that cannot be trained has a ``problem`` in the overview.
    Slices of configurations that no longer exist are removed.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    labels, channels = Labels.from_json(dataset_facts), channel_names_of(dataset_facts)
    write_json(folder / "plans.json", plans.to_json(), sort_keys=False)
    overview: dict[str, Any] = {}
    for name in plans.configurations:
        preprocess = preprocess_slice(
            plans, name, labels, channels, preprocessing.label_resize, preprocessing.order_of_steps
        )
        train = train_slice(plans, name, labels)
        predict = replace(predict_slice(plans, name, preprocess), next_stages=next_stages(plans, name))
        slices = (preprocess.to_json(), train.to_json(), predict.to_json())
        for kind, content in zip(SLICE_KINDS, slices, strict=True):
            write_json(folder / f"{name}.{kind}.json", content, sealed=DELETE_FOLDER)
        overview[name] = _overview(plans, name, preprocess, predict)
        if problem := training_problem(plans, name):
            log.warning("%s", problem)
            overview[name]["problem"] = problem
    write_json(folder / "configurations.json", {"configurations": overview}, sort_keys=False, sealed=DELETE_FOLDER)
    write_text(folder / "reasons.md", reasons.to_markdown())
    for kind in SLICE_KINDS:
        for path in folder.glob(f"*.{kind}.json"):
            if path.name.removesuffix(f".{kind}.json") not in plans.configurations:
                path.unlink()


def next_stages(plans: Plans, name: str) -> tuple[str, ...]:
    """The configurations that name this one as their previous stage, whatever ``next_stage`` says or was inherited."""
    return tuple(other for other in plans.configurations if plans.resolved(other).get("previous_stage") == name)


def _overview(plans: Plans, name: str, preprocess: PreprocessPlan, predict: PredictPlan) -> dict[str, Any]:
    """What the workflow needs to know to build its graph and to estimate memory; keys sorted."""
    configuration = plans.configuration(name)
    return {
        "batch_size": configuration.batch_size,
        "data_id": preprocess.data_id,
        "inherits_from": plans.configurations[name].get("inherits_from"),
        "is_2d": configuration.is_2d,
        "median_size_voxels": list(configuration.median_size_voxels),
        "next_stages": list(predict.next_stages),
        "num_input_channels": predict.num_input_channels,
        "num_outputs": predict.labels.num_outputs,
        "patch_size": list(configuration.patch_size),
        "previous_stage": configuration.previous_stage,
        "spacing_mm": list(configuration.spacing_mm),
    }
