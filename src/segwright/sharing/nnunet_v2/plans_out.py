"""What nnU-Net v2 reads beside the weights: names, plans.json and dataset.json of a model (method 3.13, 13).

Every configuration gets a plans.json of its own, in which all that prediction depends on comes from its predict slice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from segwright.core.architecture import NETWORK_CLASS_NAMES
from segwright.core.errors import ModelError
from segwright.core.labels import Labels
from segwright.core.plans import Configuration, Plans
from segwright.core.slices import PredictPlan
from segwright.images.readers import READERS
from segwright.preprocessing.normalization import SCHEMES
from segwright.sharing.model import ModelConfiguration, PackagedModel

TRAINER = "nnUNetTrainer"
"""The trainer class every nnU-Net v2 has. It builds the network from the plans; its other settings are not read."""

_DATASET_NAME = re.compile(r"Dataset\d{3}_[A-Za-z0-9_.-]+")
_PLANS_NAME = re.compile(r"[A-Za-z0-9]+([_-][A-Za-z0-9]+)*")  # `__` separates trainer, plans and configuration
_FALLBACK_PLANS_NAME = "nnUNetPlans"
_DEFAULTS = (None, False, "dynamic_network_architectures.building_blocks.residual.BasicBlockD")
"""Values of further network arguments (nonlin_first, block, ...) that change nothing in either program."""


@dataclass(frozen=True)
class Names:
    """What things are called in nnU-Net v2's results folder."""

    dataset: str
    plans: str

    def model(self, configuration: str) -> str:
        """v2's identifier of a trained configuration, also the name of its folder."""
        return f"{TRAINER}__{self.plans}__{configuration}"

    def ensemble(self, configurations: tuple[str, ...], folds: tuple[str, ...]) -> str:
        return "___".join(["ensemble", *map(self.model, configurations), folds_text(folds)])


def folds_text(folds: tuple[str, ...]) -> str:
    """v2's name of a set of folds: ``0_1_2``."""
    return "_".join(folds)


def peer_names(model: PackagedModel, plans: Plans, dataset_id: int | None) -> Names:
    """Names v2 can find: a dataset is called by its three digits.

    Args:
        dataset_id: 1 to 999, replaces or adds the number; None: the model's own name must have one.

    Raises:
        ModelError: the model's name has no number and none was given, or it is out of range.
    """
    name = model.name
    if dataset_id is not None:
        if not 1 <= dataset_id <= 999:
            raise ModelError(f"dataset id {dataset_id}: nnU-Net v2 knows 1 to 999; choose one no other dataset has")
        bare = re.sub(r"[^A-Za-z0-9_.-]+", "_", re.sub(r"^Dataset\d{3}_", "", name)) or "Model"
        name = f"Dataset{dataset_id:03d}_{bare}"
    if not _DATASET_NAME.fullmatch(name):
        raise ModelError(
            f"{name}: nnU-Net v2 finds models by names like Dataset004_Hippocampus; give it a number with --dataset-id"
        )
    known = _PLANS_NAME.fullmatch(plans.plans_name) is not None
    return Names(name, plans.plans_name if known else _FALLBACK_PLANS_NAME)


def require_expressible(model: PackagedModel, trainings: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse a model whose segmentation nnU-Net v2 cannot repeat, with all reasons.

    Args:
        trainings: configuration -> content of one of its training.json.

    Raises:
        ModelError: names every setting, and what v2 does instead.
    """
    settings, problems = model.prediction, []
    if settings.average != "logits":
        problems.append("prediction.average is probabilities; nnU-Net v2 averages logits")
    if not settings.gaussian:
        problems.append("prediction.gaussian is off; nnU-Net v2's commands always weight tiles")
    if any(rule.connectivity != "full" for rule in model.rules):
        problems.append("postprocessing joins components by faces; nnU-Net v2 joins them by corners too")
    for name, entry in model.configurations.items():
        network = (trainings[name].get("settings") or {}).get("network")
        problems += [f"{name}: {problem}" for problem in _problems_of(entry.plan, network)]
        if "__" in name:
            problems.append(f"{name}: its name holds `__`, at which nnU-Net v2 cuts names into pieces")
    if problems:
        raise ModelError(
            f"{model.name}: nnU-Net v2 cannot give the same segmentation, so the model is not exported:\n"
            + "\n".join(f"- {problem}" for problem in problems)
            + "\nTrain or package it with other settings, or share it as a segwright model."
        )


def _problems_of(plan: PredictPlan, network: str | None) -> list[str]:
    """What one configuration does that nnU-Net v2 has no word for."""
    preprocess, problems = plan.preprocess, []
    kind = network or plan.architecture.kind
    if kind not in NETWORK_CLASS_NAMES:
        problems.append(f"the network {kind} is a plugin's")
    elif foreign := [key for key, value in plan.architecture.extra.items() if value not in _DEFAULTS]:
        problems.append(f"the network has arguments that segwright's networks do not know ({', '.join(foreign)})")
    elif kind != plan.architecture.kind:
        problems.append(f"the network {kind} was trained instead of the planned {plan.architecture.kind}")
    if preprocess.order_of_steps != "normalize_first":
        problems.append("images were resampled before they were normalised")
    if plan.previous_stage and preprocess.label_resize != "argmax":
        problems.append("the previous stage's label maps are resized by thresholds")
    if preprocess.reader not in READERS:
        problems.append(f"the image reader {preprocess.reader} does not exist there")
    unknown = sorted(set(preprocess.normalization_schemes) - set(SCHEMES))
    if unknown:
        problems.append(f"the normalisation {', '.join(unknown)} does not exist there")
    highest = max(plan.labels.regions_class_order or (0,)) if plan.labels.has_regions else 0
    if highest > 255 and len(plan.labels.foreground_labels) < 255:
        problems.append(f"regions_class_order writes {highest}, of which nnU-Net v2 keeps 8 bits ({highest % 256})")
    return problems


def peer_plans(model: PackagedModel, plans: Plans, name: str, names: Names) -> dict[str, Any]:
    """plans.json of the folder of configuration ``name``, in v2's schema and key order.

    Configurations that are not part of the model stay as they are, so that v2 can train them.

    Raises:
        PlansError: the plans lack something v2 needs.
    """
    preprocess = model.configurations[name].plan.preprocess
    entries = {
        other: _entry(plans, model.configurations[other]) if other in model.configurations else entry
        for other, entry in plans.configurations.items()
    }
    entries.update({other: _entry(plans, entry) for other, entry in model.configurations.items()})
    statistics = list(plans.intensities)
    for channel, used in enumerate(preprocess.intensities):
        if used is not None:
            statistics[channel : channel + 1] = [used]
    return replace(
        plans,
        dataset_name=names.dataset,
        plans_name=names.plans,
        reader=preprocess.reader,
        transpose_forward=preprocess.transpose_forward,
        transpose_backward=preprocess.transpose_backward,
        configurations=entries,
        intensities=tuple(statistics),
    ).to_json()


def peer_dataset_json(labels: Labels, channel_names: tuple[str, ...], facts: Mapping[str, Any]) -> dict[str, Any]:
    """dataset.json as v2 reads it: regions go by the order of the labels, background is the number 0."""
    written = labels.to_json()
    left_out = ("channel_names", "modality", "labels", "label_order", "regions_class_order")
    record: dict[str, Any] = {
        "channel_names": {str(channel): name for channel, name in enumerate(channel_names)},
        "labels": {**written["labels"], "background": 0},
    }
    if "regions_class_order" in written:
        record["regions_class_order"] = written["regions_class_order"]
    return {**record, **{key: value for key, value in facts.items() if key not in left_out}}


def _entry(plans: Plans, entry: ModelConfiguration) -> dict[str, Any]:
    """One configuration without inheritance: what only training reads from the plans, the rest from the slice."""
    plan, preprocess = entry.plan, entry.plan.preprocess
    resolved = plans.resolved(entry.name)
    configuration = replace(
        Configuration.from_json(entry.name, resolved),
        patch_size=plan.patch_size,
        spacing_mm=preprocess.spacing_mm,
        normalization_schemes=preprocess.normalization_schemes,
        use_mask_for_norm=preprocess.use_mask_for_norm,
        resampling_image=preprocess.resampling_image,
        resampling_label=preprocess.resampling_label,
        resampling_logits=plan.resampling_logits,
        architecture=plan.architecture,
        previous_stage=plan.previous_stage,
        next_stages=plan.next_stages,
    )
    kept = {key: value for key, value in resolved.items() if key not in ("previous_stage", "next_stage")}
    return {**kept, **configuration.to_json()}
