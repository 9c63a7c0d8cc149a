"""Record a tiny model nnU-Net v2 trained, selected and exported, and what it predicts: tests/parity/golden/models.

    python -m benchmarks.peer.record_models

Phantoms only, networks of at most four features: 2-D, 3-D and a cascade, two folds, nnU-Net's own selection and
postprocessing. ``results.zip`` is nnU-Net's export without figures and logs; paths in its JSON files are cut to names,
and optimizer states are kept in one fold only. Expected label maps are nnU-Net's with its sums in float32.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tests.parity.inputs import GOLDEN

from benchmarks.peer.common import SEED, Planned, quiet, workplace
from benchmarks.peer.compare_prediction import float32_sums, labels, predict_peers, test_cases
from benchmarks.peer.golden import save
from benchmarks.peer.small import phantom
from segwright.core.dataset import Case
from segwright.core.settings import PlanningSettings
from segwright.images.readers import read_image, write_image

FOLDER = GOLDEN / "models"
CONFIGURATIONS = ("2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres")
FOLDS = (0, 1)
SHAPE = (24, 20, 16)  # of the image that is predicted: four tiles
TINY = PlanningSettings(base_features=2, max_features_3d=4, max_features_2d=4, max_patch_size=16)
ITERATIONS = {"2d": 200, "3d_fullres": 150, "3d_lowres": 150, "3d_cascade_fullres": 60}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--keep", action="store_true", help="keep results.zip, renew only what it predicts")
    options = parser.parse_args()
    os.environ.update(nnUNet_n_proc_DA="0", nnUNet_compile="f")
    torch.set_num_threads(1)
    with workplace() as work:
        plan = phantom("plain", work, cases=4, settings=TINY)
        FOLDER.mkdir(parents=True, exist_ok=True)
        if not options.keep:
            select(plan, train(plan))
            export(plan, work / "exported.zip")
            clean(work / "exported.zip", FOLDER / "results.zip")
        with zipfile.ZipFile(FOLDER / "results.zip") as archive:
            archive.extractall(work / "recorded")
        case = small_case(plan, FOLDER)
        save("models/expected", expected(plan, case, work / "recorded" / plan.dataset.name, work))


def small_case(plan: Planned, folder: Path) -> Case:
    """The middle of the test image, so that the test is short."""
    (case,) = test_cases(plan)
    image = read_image(case.image_files, plan.plans.reader)
    starts = [(n - edge) // 2 for n, edge in zip(image.array_czyx.shape[1:], SHAPE, strict=True)]
    where = tuple(slice(start, start + edge) for start, edge in zip(starts, SHAPE, strict=True))
    geometry = replace(image.geometry, shape_zyx=SHAPE)
    path = folder / f"small_0000{plan.dataset.file_ending}"
    write_image(path, np.ascontiguousarray(image.array_czyx[0][where]), geometry, plan.plans.reader)
    return Case("small", (path,))


def train(plan: Planned) -> Path:
    """Preprocess and train with nnU-Net's own trainer; returns the dataset's results folder."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import preprocess_dataset
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    name, ids = plan.dataset.name, [case.case_id for case in plan.dataset.training]
    preprocessed = Path(os.path.expandvars("$nnUNet_preprocessed")) / name
    preprocessed.mkdir()
    split = [{"train": ids[2:], "val": ids[:2]}, {"train": ids[:2], "val": ids[2:]}]
    plans = {key: value for key, value in plan.plans_json.items() if key != "segwright"}
    for file, content in (
        ("nnUNetPlans", {**plans, "plans_name": "nnUNetPlans"}), ("dataset", plan.facts),
        ("dataset_fingerprint", plan.fingerprint), ("splits_final", split),
    ):  # fmt: skip
        (preprocessed / f"{file}.json").write_text(json.dumps(content))
    with quiet():
        preprocess_dataset(int(name[7:10]), "nnUNetPlans", CONFIGURATIONS[:3], [1], show_progress_bar=False)
        for configuration in CONFIGURATIONS:
            for fold in FOLDS:
                torch.manual_seed(SEED + fold)
                np.random.seed(SEED + fold)
                content = json.loads((preprocessed / "nnUNetPlans.json").read_text())
                arguments = {**content, "continue_training": False}, configuration, fold, plan.facts
                trainer = nnUNetTrainer(*arguments, torch.device("cpu"))
                trainer.num_epochs, trainer.num_val_iterations_per_epoch = 1, 1
                trainer.num_iterations_per_epoch = ITERATIONS[configuration]
                trainer.run_training()
                trainer.perform_actual_validation(save_probabilities=True)
    return Path(os.path.expandvars("$nnUNet_results")) / name


def select(plan: Planned, results: Path) -> None:
    """nnU-Net's find_best_configuration; it picks postprocessing too."""
    from nnunetv2.evaluation.find_best_configuration import find_best_configuration

    models = [{"plans": "nnUNetPlans", "configuration": name, "trainer": "nnUNetTrainer"} for name in CONFIGURATIONS]
    with quiet():
        find_best_configuration(int(plan.dataset.name[7:10]), models, num_processes=1, folds=FOLDS)
    print(json.dumps(json.loads((results / "inference_information.json").read_text())["all_results"], indent=1))


def model_folder(results: Path, configuration: str) -> Path:
    return results / f"nnUNetTrainer__nnUNetPlans__{configuration}"


def expected(plan: Planned, case: Case, results: Path, work: Path) -> dict[str, np.ndarray]:
    """Label maps of each configuration, of 2d + 3d_fullres, and of nnU-Net's selection after postprocessing."""
    from nnunetv2.ensembling.ensemble import merge_files
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    cases = [case]
    manager, name = PlansManager(plan.plans_json), f"{case.case_id}{plan.dataset.file_ending}"
    with float32_sums():
        for configuration in CONFIGURATIONS:
            previous = work / "3d_lowres" if "cascade" in configuration else None
            predict_peers(model_folder(results, configuration), cases, work / configuration, True, previous)
    found = {configuration: labels(plan, work / configuration / name) for configuration in CONFIGURATIONS}

    def merged(names: Sequence[str]) -> np.ndarray:
        folder = work / "+".join(names)
        folder.mkdir(exist_ok=True)
        merge_files(
            [str(work / member / f"{case.case_id}.npz") for member in names], str(folder / case.case_id),
            plan.dataset.file_ending, manager.image_reader_writer_class(), manager.get_label_manager(plan.facts),
        )  # fmt: skip
        return labels(plan, folder / name)

    found["2d+3d_fullres"] = merged(("2d", "3d_fullres"))
    best = json.loads((results / "inference_information.json").read_text())["best_model_or_ensemble"]
    names = [entry["configuration"] for entry in best["selected_model_or_models"]]
    label = merged(names) if len(names) > 1 else found[names[0]]
    (rules,) = results.rglob("postprocessing.json")
    found["selected"] = postprocessed(label, rules)
    print({key: np.bincount(value.ravel()).tolist() for key, value in found.items()})
    return {key: value.astype(np.uint8) for key, value in found.items()}


def postprocessed(label: np.ndarray, rules: Path) -> np.ndarray:
    from nnunetv2.postprocessing.remove_connected_components import (
        remove_all_but_largest_component_from_segmentation as keep_largest,
    )

    for arguments in json.loads(rules.read_text())["postprocessing_kwargs"]:
        print("rule", arguments)
        label = keep_largest(label, **arguments)
    return label


def export(plan: Planned, archive: Path) -> None:
    from nnunetv2.model_sharing.model_export import export_pretrained_model

    with quiet():
        export_pretrained_model(int(plan.dataset.name[7:10]), str(archive), CONFIGURATIONS, folds=FOLDS)


def clean(source: Path, target: Path) -> None:
    """The exported zip without what is large or names this machine."""
    with zipfile.ZipFile(source) as exported, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as kept:
        for name in sorted(set(exported.namelist())):
            content = exported.read(name)
            if name.endswith(("debug.json", ".png", "dataset_fingerprint.json", "validation/summary.json")):
                continue
            if name.endswith(".json"):
                content = json.dumps(without_paths(json.loads(content)), indent=1).encode()
            if name.endswith(".pth") and not ("__2d/" in name and "fold_0" in name):
                content = without_optimizer(content)
            kept.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content, zipfile.ZIP_DEFLATED, 9)
    print(target, target.stat().st_size, "bytes")


def without_paths(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_paths(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [without_paths(entry) for entry in value]
    return Path(value).name if isinstance(value, str) and value.startswith("/") else value


def without_optimizer(content: bytes) -> bytes:
    """The checkpoint as nnU-Net saves it, with an empty optimizer."""
    checkpoint = torch.load(io.BytesIO(content), map_location="cpu", weights_only=False)
    checkpoint["optimizer_state"] = {"state": {}, "param_groups": []}
    stream = io.BytesIO()
    torch.save(checkpoint, stream)
    return stream.getvalue()


if __name__ == "__main__":
    main()
