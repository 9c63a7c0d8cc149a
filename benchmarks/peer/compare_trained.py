"""Predictions of models the peer trained on real images: 2-D, 3-D, residual, regions, cascade (method 10).

    python -m benchmarks.peer.compare_trained DATA [--only TEXT]

The peer preprocesses and trains as its commands do, but briefly and with AdamW; segwright predicts with its weights
from the raw images. Judged against the peer with its sums in float32; the difference to its float16 sums is told.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.peer.common import SEED, Planned, Table, largest_difference, planned, quiet, some_cases, workplace
from benchmarks.peer.compare_prediction import float32_sums, labels, predict_ours, predict_peers, stage
from benchmarks.peer.small import SETTINGS
from segwright.core.dataset import Case
from segwright.core.settings import PlanningSettings
from segwright.networks.weights import save_weights

DICE_MISSING_ALLOWED, PROBABILITY_TOLERANCE = 1e-4, 1e-4
SMALL = replace(SETTINGS, base_features=8, max_features_3d=32, max_features_2d=32)


@dataclass(frozen=True)
class Scenario:
    """What the peer trains.

    Attributes:
        configuration: what predicts; a stage before it is trained first.
        cases: how many training cases there are; ``predicted`` of them are predicted.
        runs: (folds, mirroring) of the predictions that are compared.
    """

    name: str
    source: str
    configuration: str
    cases: int
    predicted: int
    planning: PlanningSettings
    runs: tuple[tuple[int, bool], ...] = ((1, False), (1, True), (2, False), (2, True))

    @property
    def folds(self) -> int:
        return max(folds for folds, _ in self.runs)


HIPPOCAMPUS, BRATS = "hippocampus_small/Dataset004_Hippocampus", "brats_small/Dataset104_BraTSsmall"
PETCT, NUCLEI = "petct_sarcoma_small/Dataset103_SarcomaPETCT", "nuclei2d_rgb/Dataset106_NucleiRGB"
FLAT, HALF = replace(SMALL, max_patch_size=64), replace(SMALL, max_patch_size=32)
TINY = replace(SMALL, max_patch_size=16)
SCENARIOS = (
    Scenario("Hippocampus 2d", HIPPOCAMPUS, "2d", 6, 2, FLAT),
    Scenario("Hippocampus 3d_fullres", HIPPOCAMPUS, "3d_fullres", 6, 2, HALF),
    Scenario("Hippocampus residual 3d_fullres", HIPPOCAMPUS, "3d_fullres", 6, 2, replace(HALF, planner="resenc")),
    Scenario("Hippocampus residual 2d", HIPPOCAMPUS, "2d", 6, 2, replace(FLAT, planner="resenc_m")),
    Scenario("Hippocampus cascade", HIPPOCAMPUS, "3d_cascade_fullres", 6, 2, TINY),
    Scenario("PET/CT 3d_fullres", PETCT, "3d_fullres", 4, 2, HALF),
    Scenario("nuclei in colour 2d", NUCLEI, "2d", 6, 2, FLAT),
    Scenario(
        "BraTS regions 3d_fullres", BRATS, "3d_fullres", 4, 1, replace(SETTINGS, max_patch_size=64),
        ((1, False), (2, True)),
    ),
)  # fmt: skip
BATCH = {True: 12, False: 2}
"""Samples a step, 2-D or not: small networks leave room for hundreds, which only cost time here."""
ITERATIONS, RATE = 400, 2e-3
"""Of AdamW in place of the peer's SGD, which needs thousands of steps until anything is segmented."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("data", type=Path, help="folder of real images")
    parser.add_argument("--only", default="", help="scenarios whose name holds this text")
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ |= {"nnUNet_n_proc_DA": "0", "nnUNet_def_n_proc": "1", "nnUNet_compile": "f"}
    table = Table("Predictions of trained models")
    with workplace() as work:
        for number, scenario in enumerate(SCENARIOS):
            if options.only in scenario.name:
                compare(scenario, options.data, number, work, table)
    table.close()


def compare(scenario: Scenario, data: Path, number: int, work: Path, table: Table) -> None:
    source = data / scenario.source
    folder = some_cases(source, work / f"Dataset{900 + number}_{source.name.split('_')[1]}", scenario.cases)
    here = work / f"scenario_{number}"
    plan = with_small_batches(planned(folder, here, scenario.planning))
    stages = [*filter(None, [plan.plans.configuration(scenario.configuration).previous_stage]), scenario.configuration]
    store_for_peer(plan, [name for name in stages if "inherits_from" not in plan.plans.configurations[name]])
    if len(stages) == 2:
        store_for_peer(plan, ["3d_fullres"])
    models = [train(plan, name, scenario, last=name == stages[-1]) for name in stages]
    cases = plan.dataset.training[-scenario.predicted :]
    for folds, mirroring in scenario.runs:
        chain = [stage(plan, name, weights_of(model, folds, here)) for name, model in zip(stages, models, strict=True)]
        run = f"{folds}{'_mirrored' if mirroring else ''}"
        ours = predict_ours(chain, cases, here / f"ours_{run}", plan, mirroring)
        name = f"{scenario.name}, {folds} fold{'s' * (folds > 1)}, mirroring {'on' if mirroring else 'off'}"
        for sums, context in (("float32", float32_sums), ("float16", quiet)):
            with context():
                theirs = predict_chain(models, folds, cases, here / f"peers_{run}_{sums}", mirroring)
            compare_folders(name, sums, ours, theirs, plan, table)


def with_small_batches(plan: Planned) -> Planned:
    entries = {name: dict(entry) for name, entry in plan.plans.configurations.items()}
    for name, entry in entries.items():
        if "batch_size" in entry:
            entry["batch_size"] = BATCH[plan.plans.configuration(name).is_2d]
    return replace(plan, plans=replace(plan.plans, configurations=entries))


def store_for_peer(plan: Planned, configurations: Sequence[str]) -> None:
    """The peer's preprocessed folder, by the peer, with splits in which every case is in both parts."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    folder = Path(os.path.expandvars("$nnUNet_preprocessed")) / plan.dataset.name
    folder.mkdir(exist_ok=True)
    names = [case.case_id for case in plan.dataset.training]
    for name, content in {
        "nnUNetPlans.json": plan.plans_json, "dataset.json": plan.facts, "dataset_fingerprint.json": {},
        "splits_final.json": [{"train": names, "val": names}] * 5,
    }.items():  # fmt: skip
        (folder / name).write_text(json.dumps(content))
    references = folder / "gt_segmentations"
    if not references.exists():
        references.symlink_to((plan.dataset.folder / "labelsTr").resolve())
    manager = PlansManager(plan.plans_json)
    for configuration in configurations:
        settings = manager.get_configuration(configuration)
        target = folder / settings.data_identifier
        target.mkdir(exist_ok=True)
        with quiet():
            for case in plan.dataset.training:
                settings.preprocessor_class(verbose=False).run_case_save(
                    str(target / case.case_id), [str(path) for path in case.image_files], str(case.label_file), manager,
                    settings, plan.facts,
                )  # fmt: skip


def train(plan: Planned, configuration: str, scenario: Scenario, last: bool) -> Path:
    """Some steps of the peer's trainer a fold; returns its model folder. A first stage also predicts for the next."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    with quiet():
        for fold in range(scenario.folds):
            np.random.seed(SEED % 2**31 + fold)
            torch.manual_seed(SEED + fold)
            trainer = nnUNetTrainer(
                {**plan.plans_json, "continue_training": False}, configuration, fold, plan.facts, torch.device("cpu")
            )
            trainer.num_epochs, trainer.num_iterations_per_epoch = 1, ITERATIONS
            trainer.num_val_iterations_per_epoch = 1
            trainer.initialize()
            trainer.optimizer = torch.optim.AdamW(trainer.network.parameters(), lr=RATE)
            trainer.run_training()
            if not last:
                trainer.perform_actual_validation()
    return Path(trainer.output_folder_base)


def weights_of(model: Path, folds: int, work: Path) -> list[Path]:
    """The peer's checkpoints as segwright's weight files."""
    paths = []
    for fold in range(folds):
        checkpoint = torch.load(model / f"fold_{fold}" / "checkpoint_final.pth", weights_only=False)
        paths.append(work / f"{model.name}_{fold}.safetensors")
        save_weights(paths[-1], checkpoint["network_weights"], {"format": "pt"})
    return paths


def predict_chain(models: Sequence[Path], folds: int, cases: Sequence[Case], output: Path, mirroring: bool) -> Path:
    """The peer's label maps; each stage's are the next one's input."""
    previous = None
    for number, model in enumerate(models):
        folder = output.with_name(f"{output.name}_{number}")
        predict_peers(model, cases, folder, mirroring, previous, folds)
        previous = folder
    return folder


def compare_folders(name: str, sums: str, ours: dict[str, Path], theirs: Path, plan: Planned, table: Table) -> None:
    missing, probability, voxels, points, shown = 0.0, 0.0, 0, 0, 0
    for case_id, path in ours.items():
        mine, other = labels(plan, path), labels(plan, theirs / path.name)
        missing = max(missing, 1 - worst_dice(mine, other))
        voxels, points = voxels + int(np.count_nonzero(mine != other)), points + mine.size
        shown += int(np.count_nonzero(other))
        with np.load(path.parent / f"{case_id}.npz") as a, np.load(theirs / f"{case_id}.npz") as b:
            probability = max(probability, largest_difference(a["probabilities"], b["probabilities"]))
    if sums == "float16":
        table.report(f"{name}: 1 - Dice of the worst label, the peer's float16 sums", f"{missing:.2g}")
        return
    table.row(f"{name}: share of foreground, none predicted", float(shown == 0), 0)
    table.row(f"{name}: 1 - Dice of the worst label, float32 sums", missing, DICE_MISSING_ALLOWED)
    table.row(f"{name}: probabilities, float32 sums", probability, PROBABILITY_TOLERANCE)
    table.report(f"{name}: voxels that differ, float32 sums", f"{voxels} of {points} ({shown} foreground)")


def worst_dice(mine: np.ndarray, other: np.ndarray) -> float:
    """The smallest Dice of any label."""
    scores: list[Any] = [1.0]
    for value in np.union1d(mine, other):
        if value:
            a, b = mine == value, other == value
            scores.append(2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b)))
    return float(min(scores))


if __name__ == "__main__":
    main()
