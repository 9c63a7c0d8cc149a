"""How the exported model is used with nnU-Net v2: its commands in order, and v2's own record of the selection.

v2 keeps both in the dataset's folder of results: ``inference_instructions.txt`` for people and
``inference_information.json`` for programs (method 11.6).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segwright.selection.best import Selection, members_of
from segwright.sharing.model import PackagedModel
from segwright.sharing.nnunet_v2.plans_out import TRAINER, Names

INSTRUCTIONS, INFORMATION = "inference_instructions.txt", "inference_information.json"
_INPUT, _RAW, _FINAL = "INPUT_FOLDER", "OUTPUT_FOLDER", "OUTPUT_FOLDER_PP"


def commands(model: PackagedModel, names: Names, chosen_folder: str) -> list[str]:
    """nnU-Net v2's commands that give the model's segmentation, in the order in which they run.

    Args:
        chosen_folder: of postprocessing.pkl and plans.json, below v2's results folder.
    """
    ensemble = len(model.members) > 1
    lines, folders = [], {name: f"{_RAW}_{name}" for name in model.stages()}
    if not ensemble:
        folders[model.members[0]] = _RAW
    for name in model.stages():
        entry = model.configurations[name]
        folds = " ".join(fold.fold for fold in entry.folds)
        line = (
            f"nnUNetv2_predict -d {names.dataset} -i {_INPUT} -o {folders[name]} -f {folds} -tr {TRAINER} -c {name}"
            f" -p {names.plans}"
        )
        if entry.previous_stage is not None:
            line += f" -prev_stage_predictions {folders[entry.previous_stage]}"
        if ensemble and name in model.members:
            line += " --save_probabilities"
        if model.prediction.tile_step != 0.5:
            line += f" -step_size {model.prediction.tile_step}"
        lines.append(line)
    if ensemble:
        lines.append(f"nnUNetv2_ensemble -i {' '.join(folders[name] for name in model.members)} -o {_RAW}")
    if model.rules:
        lines.append(
            f"nnUNetv2_apply_postprocessing -i {_RAW} -o {_FINAL}"
            f" -pp_pkl_file $nnUNet_results/{chosen_folder}/postprocessing.pkl"
            f" -plans_json $nnUNet_results/{chosen_folder}/plans.json -dataset_json {_RAW}/dataset.json"
        )
    return lines


def remarks(model: PackagedModel) -> list[str]:
    """What a user of the exported model must know to get the same segmentation."""
    found = []
    if model.prediction.tile_step != 0.5:
        found.append(
            f"The model was made for -step_size {model.prediction.tile_step}, which is an option of v2's commands and"
            " not part of a model: give it every time."
        )
    if model.prediction.precision in ("fp32", "bf16"):
        found.append(
            f"On CUDA v2 computes in fp16, segwright with this model in {model.prediction.precision}: a few voxels at"
            " borders may differ. On the CPU both compute in fp32."
        )
    mirrored = model.prediction.mirroring and any(entry.mirror_axes for entry in model.configurations.values())
    if not mirrored:
        found.append(
            "The model predicts without test-time mirroring; its checkpoints say so, --disable_tta is not needed."
        )
    if len(model.stages()) > len(model.members):
        found.append("A cascade's previous stage runs first, and its segmentations are given to the next one.")
    return found


def instructions(model: PackagedModel, names: Names, chosen_folder: str) -> str:
    """The text of inference_instructions.txt."""
    result = _FINAL if model.rules else _RAW
    lines = [
        "Run inference like this, with images named <case>_0000"
        f"{model.file_ending}{'' if len(model.channel_names) == 1 else ', <case>_0001' + model.file_ending + ', ...'}"
        f" in {_INPUT}:",
        "",
        *commands(model, names, chosen_folder),
        "",
        f"The segmentations are in {result}.",
        *remarks(model),
    ]
    return "\n".join(lines) + "\n"


def information(
    model: PackagedModel, names: Names, selection: Selection, chosen_folder: str, postprocessing: Mapping[str, Any]
) -> dict[str, Any]:
    """inference_information.json. Paths start at v2's results folder."""
    scores = selection.scores
    before = scores.get(selection.best)
    after = ((postprocessing.get("after") or {}).get("foreground_mean") or {}).get("Dice", before)
    considered = dict.fromkeys(name for candidate in (scores or {selection.best: 0}) for name in members_of(candidate))
    return {
        "all_results": {_identifier(names, name, selection.folds): score for name, score in scores.items()},
        "best_model_or_ensemble": {
            "postprocessing_file": f"{chosen_folder}/postprocessing.pkl",
            "result_on_crossval_post_pp": after,
            "result_on_crossval_pre_pp": before,
            "selected_model_or_models": [
                {"configuration": name, "plans_identifier": names.plans, "trainer": TRAINER} for name in model.members
            ],
            "some_plans_file": f"{chosen_folder}/plans.json",
        },
        "considered_models": [{"configuration": name, "plans": names.plans, "trainer": TRAINER} for name in considered],
        "dataset_name_or_id": names.dataset,
        "ensembling_allowed": any(len(members_of(name)) > 1 for name in scores),
        "folds": [fold if fold == "all" else int(fold) for fold in selection.folds],
    }


def _identifier(names: Names, candidate: str, folds: tuple[str, ...]) -> str:
    members = members_of(candidate)
    return names.model(candidate) if len(members) == 1 else names.ensemble(members, folds)
