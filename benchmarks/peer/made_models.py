"""Small models to share: made by segwright, and trained by the peer with its own trainer and commands."""

from __future__ import annotations

import importlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from benchmarks.peer.common import Planned, planned, quiet, some_cases
from benchmarks.peer.compare_evaluation import threads_for_processes
from benchmarks.peer.compare_prediction import float32_sums, preprocess_slice_of, train_briefly
from benchmarks.peer.small import SETTINGS, phantom
from segwright.core.files import write_json
from segwright.core.settings import ConfigurationOverride, PlanningSettings, PredictionSettings
from segwright.core.slices import predict_slice
from segwright.planning.slices import next_stages
from segwright.selection.best import Selection
from segwright.selection.components import Rule
from segwright.selection.postprocessing import Postprocessing
from segwright.sharing.package import ConfigurationFiles, FoldFiles, package_model

TINY = replace(SETTINGS, max_patch_size=16)
"""Patches so small that a cascade is planned."""
LARGER = replace(SETTINGS, max_patch_size=64)
ENTRY_POINTS = {
    "nnUNetv2_predict": "nnunetv2.inference.predict_from_raw_data:predict_entry_point",
    "nnUNetv2_ensemble": "nnunetv2.ensembling.ensemble:entry_point_ensemble_folders",
    "nnUNetv2_apply_postprocessing": (
        "nnunetv2.postprocessing.remove_connected_components:entry_point_apply_postprocessing"
    ),
}
"""The functions behind the peer's commands."""


@dataclass(frozen=True)
class Scenario:
    """A model and what is special about it.

    Attributes:
        source: a phantom's preset, or a real dataset below the data folder.
        members: configurations that predict together; their previous stages are trained too.
    """

    name: str
    source: str
    members: tuple[str, ...]
    folds: tuple[str, ...] = ("0",)
    planning: PlanningSettings = SETTINGS
    rules: tuple[Rule, ...] = ()
    prediction: PredictionSettings = PredictionSettings()
    mirror: bool = True


SCENARIOS = (
    Scenario("labels, ensemble", "plain", ("2d", "3d_fullres"), ("0", "1"), rules=(Rule((1, 2)), Rule((2,)))),
    Scenario("regions", "regions", ("3d_fullres",), rules=(Rule(((1, 2, 3),)),)),
    Scenario("regions, ignore label, 2-D", "regions_ignore", ("2d",)),
    Scenario("CT, all cases", "ct", ("3d_fullres",), ("all",), rules=(Rule((1,)),)),
    Scenario(
        "residual, anisotropic", "anisotropic", ("3d_fullres",), ("0", "3"), replace(SETTINGS, planner="resenc"),
    ),
    Scenario("cascade", "large", ("3d_cascade_fullres",), ("0", "1"), rules=(Rule((1, 2)),)),
    Scenario("ensemble with a cascade", "plain", ("2d", "3d_cascade_fullres"), planning=TINY),
    Scenario(
        "tile step 0.75, not mirrored", "plain", ("3d_fullres",), planning=TINY,
        prediction=PredictionSettings(tile_step=0.75, mirroring=False),
    ),
    Scenario("pictures", "2d", ("2d",), mirror=False),
    Scenario(
        "Hippocampus, ensemble", "hippocampus_small/Dataset004_Hippocampus", ("2d", "3d_fullres"), ("0", "1"),
        rules=(Rule((1, 2)), Rule((1,)), Rule((2,))),
    ),
    Scenario("BraTS, regions", "brats_small/Dataset104_BraTSsmall", ("3d_fullres",), planning=LARGER),
    Scenario("PET/CT", "petct_sarcoma_small/Dataset103_SarcomaPETCT", ("3d_fullres",), planning=LARGER),
)  # fmt: skip


@dataclass(frozen=True)
class PeerScenario:
    """A model the peer trains, and on which data.

    Attributes:
        configurations: what it trains and chooses among.
        members: what is imported; None: what it chose.
    """

    name: str
    source: str
    configurations: tuple[str, ...]
    planning: PlanningSettings = SETTINGS
    members: tuple[str, ...] | None = None
    iterations: int = 150


def _batches(settings: PlanningSettings, size: int, *names: str) -> PlanningSettings:
    return replace(settings, overrides={name: ConfigurationOverride(batch_size=size) for name in names})


PEER_SCENARIOS = (
    PeerScenario(
        "Hippocampus", "hippocampus_small/Dataset004_Hippocampus", ("2d", "3d_fullres"),
        replace(
            SETTINGS, base_features=8, max_features_3d=32, max_features_2d=32,
            overrides={"2d": ConfigurationOverride(batch_size=12), "3d_fullres": ConfigurationOverride(batch_size=2)},
        ),
    ),
    PeerScenario(
        "cascade", "plain", ("3d_lowres", "3d_cascade_fullres"),
        _batches(TINY, 4, "3d_lowres", "3d_fullres"), ("3d_cascade_fullres",),
    ),
    PeerScenario(
        "residual, regions", "regions", ("3d_fullres",),
        replace(_batches(SETTINGS, 2, "3d_fullres"), planner="resenc_m"),
    ),
)  # fmt: skip


def is_real(scenario: Scenario | PeerScenario) -> bool:
    return "/" in scenario.source


def planned_scenario(scenario: Scenario | PeerScenario, data: Path | None, work: Path) -> Planned:
    """The dataset of a scenario with its plans; a few cases of a real one."""
    if not is_real(scenario):
        return phantom(scenario.source, work, 4, scenario.planning)
    assert data is not None
    count = 5 if "hippocampus" in scenario.source else 2
    folder = some_cases(data / scenario.source, work / "nnUNet_raw" / Path(scenario.source).name, count)
    return planned(folder, work, scenario.planning)


def input_folder(plan: Planned, folder: Path) -> Path:
    """Images to predict: the test images, or the first training image."""
    folder.mkdir()
    for case in plan.dataset.test or plan.dataset.training[:1]:
        for path in case.image_files:
            for file in path.parent.glob(f"{path.name.removesuffix(plan.dataset.file_ending)}.*"):  # TIFF has side-cars
                (folder / file.name).symlink_to(file.resolve())
    return folder


def segwright_model(plan: Planned, scenario: Scenario, work: Path) -> Path:
    """Train shortly every configuration that is needed and package them."""
    source = work / "made"
    stages: list[str] = []
    for member in scenario.members:
        previous = plan.plans.configuration(member).previous_stage
        stages += [name for name in (previous, member) if name and name not in stages]
    configurations = []
    for name in stages:
        slice_ = replace(
            predict_slice(plan.plans, name, preprocess_slice_of(plan, name)), next_stages=next_stages(plan.plans, name)
        )
        write_json(source / f"{name}.predict.json", slice_.to_json())
        axes = list(range(len(slice_.patch_size))) if scenario.mirror else []
        folds = []
        for number, fold in enumerate(scenario.folds):
            weights = train_briefly(plan, name, work, number)
            training = source / f"{name}_{fold}.training.json"
            write_json(training, {"fold": fold, "mirror_axes": axes, "settings": {"network": None}, "epochs": 1})
            folds.append(FoldFiles(fold, weights, training))
        configurations.append(ConfigurationFiles(name, source / f"{name}.predict.json", folds))
    write_json(source / "plans.json", plan.plans.to_json(), sort_keys=False)
    write_json(source / "dataset.json", plan.facts, sort_keys=False)
    selection = Selection("+".join(scenario.members), scenario.members, "Given.", scenario.folds, len(scenario.folds))
    write_json(source / "selection.json", selection.to_json())
    write_json(source / "postprocessing.json", Postprocessing(scenario.rules, "Given.").to_json())
    package_model(
        work / "model", None, plans=source / "plans.json", dataset_json=source / "dataset.json",
        configurations=configurations, selection=source / "selection.json",
        postprocessing=source / "postprocessing.json", prediction=scenario.prediction, summaries={},
    )  # fmt: skip
    return work / "model"


def run_peer(command: str, folders: Mapping[str, str | Path] | None = None) -> None:
    """Run one of the peer's commands as it stands in its instructions, on the CPU, in a process of its own.

    Args:
        folders: words of the command -> folders they stand for.
    """
    program, *words = _words(command, folders)
    call = [str(Path(sys.executable).parent / program), *words]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(call)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")


def run_peer_float32(command: str, folders: Mapping[str, str | Path] | None = None) -> None:
    """The same command in this process, with its sums over tiles in float32 (see ``compare_prediction``)."""
    program, *words = _words(command, folders)
    module, function = ENTRY_POINTS[program].split(":")
    arguments, threads = sys.argv, torch.get_num_threads()
    try:
        sys.argv = [program, *words]
        with quiet(), float32_sums(), threads_for_processes():
            getattr(importlib.import_module(module), function)()
    finally:
        sys.argv = arguments
        torch.set_num_threads(threads)


def _words(command: str, folders: Mapping[str, str | Path] | None) -> list[str]:
    words = [str((folders or {}).get(word, os.path.expandvars(word))) for word in shlex.split(command)]
    if words[0].startswith("nnUNetv2_predict"):
        words += ["-device", "cpu", "--disable_progress_bar"]
        # the command for a folder has no mode without further processes
        words += ["-npp", "0", "-nps", "0"] if words[0] == "nnUNetv2_predict" else ["-npp", "1", "-nps", "1"]
    elif words[0] in ENTRY_POINTS:
        words += ["-np", "1"]
    return words


def peer_model(plan: Planned, configurations: Sequence[str], iterations: int) -> Path:
    """Train two folds with the peer's own trainer, let it choose and find postprocessing; returns its results folder.

    Every case is in the validation set of one fold. The network is tiny, so the learning rate is higher.
    """
    from nnunetv2.experiment_planning.plan_and_preprocess_api import preprocess_dataset
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    name, plans_name = plan.dataset.name, plan.plans.plans_name
    preprocessed = Path(os.path.expandvars("$nnUNet_preprocessed")) / name
    preprocessed.mkdir()
    cases = [case.case_id for case in plan.dataset.training]
    halves = [cases[0::2], cases[1::2]]
    splits = [{"train": halves[1 - fold], "val": halves[fold]} for fold in (0, 1)]
    for file, content in (
        (f"{plans_name}.json", plan.plans_json), ("dataset.json", plan.facts),
        ("dataset_fingerprint.json", plan.fingerprint), ("splits_final.json", splits),
    ):  # fmt: skip
        (preprocessed / file).write_text(json.dumps(content))
    stored = {plan.plans.lineage(configuration)[-1] for configuration in configurations}
    with quiet():
        preprocess_dataset(int(name[7:10]), plans_name, sorted(stored), [1], show_progress_bar=False)
        for configuration in configurations:
            for fold in (0, 1):
                torch.manual_seed(fold)
                trainer = nnUNetTrainer(
                    {**plan.plans_json, "continue_training": False}, configuration, fold, plan.facts,
                    torch.device("cpu"),
                )  # fmt: skip
                trainer.num_epochs, trainer.num_iterations_per_epoch = 1, iterations
                trainer.num_val_iterations_per_epoch, trainer.initial_lr = 1, 0.05
                trainer.run_training()
                trainer.perform_actual_validation(save_probabilities=True)
    run_peer(f"nnUNetv2_find_best_configuration {name} -p {plans_name} -c {' '.join(configurations)} -f 0 1 -np 1")
    return Path(os.path.expandvars("$nnUNet_results")) / name
