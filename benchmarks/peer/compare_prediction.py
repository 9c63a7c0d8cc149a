"""Prediction from raw images to label maps on their grids: the same weights in both programs (method 10).

    python -m benchmarks.peer.compare_prediction [DATA]

The peer sums logits in float16. Each row is measured twice: against the peer as it is (Dice), and against the peer with
its sums in float32 (voxels), which shows that nothing else differs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.peer.common import SEED, Planned, Table, largest_difference, planned, quiet, some_cases, workplace
from benchmarks.peer.small import SETTINGS, phantom, stored_case
from segwright.core.dataset import Case
from segwright.core.settings import PlanningSettings, PredictionSettings
from segwright.core.slices import predict_slice, preprocess_slice
from segwright.images.readers import read_label
from segwright.inference.cases import predict_images
from segwright.inference.request import Computation, Output
from segwright.inference.stage import Stage, TrainingFacts
from segwright.networks.build import build_network
from segwright.networks.initialization import initialize
from segwright.networks.weights import load_weights, save_weights, with_aliases
from segwright.training.augmentation.label_channels import one_hot, region_channels, target_regions
from segwright.training.loss import LOSSES, LossOptions

DICE_ALLOWED, VOXELS_ALLOWED, PROBABILITY_TOLERANCE = 2e-3, 1e-5, 1e-4
"""The Dice is what float16 costs where a network of 120 steps is unsure; one voxel of a phantom weighs 2e-4."""
STEPS, RATE = 120, 0.005
REAL = {
    "hippocampus_mixed/Dataset113_HippocampusMixed": (3, 32),
    "petct_sarcoma_small/Dataset103_SarcomaPETCT": (3, 64),
    "brats_small/Dataset104_BraTSsmall": (2, 64),
    "nuclei2d_rgb/Dataset106_NucleiRGB": (3, 64),
}
"""Name -> number of cases, largest patch edge."""
PRESETS = ("plain", "regions", "ignore", "regions_ignore", "ct", "anisotropic", "2d")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("data", type=Path, nargs="?", help="folder of real images; without it phantoms only")
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = Table("Prediction")
    for preset in PRESETS:
        with workplace() as work:
            compare_all(phantom(preset, work), work, table)
    with workplace() as work:
        small = PlanningSettings(base_features=4, max_features_3d=8, max_features_2d=8, max_patch_size=16)
        compare_cascade(phantom("plain", work, settings=small), work, table)
    for name, (count, edge) in REAL.items() if options.data else ():
        with workplace() as work:
            folder = some_cases(options.data / name, work / Path(name).name, count)
            compare_all(planned(folder, work, replace(SETTINGS, max_patch_size=edge)), work, table)
    table.close()


def compare_all(plan: Planned, work: Path, table: Table) -> None:
    for configuration in plan.plans.configurations:
        if plan.plans.configuration(configuration).previous_stage is None:
            weights = [train_briefly(plan, configuration, work, fold) for fold in (0, 1)]
            for folds, mirroring in ((1, False), (2, True)):
                name = f"{plan.dataset.name} {configuration}, {folds} fold, mirroring {'on' if mirroring else 'off'}"
                mine, theirs = work / f"ours_{configuration}_{folds}", work / f"peers_{configuration}_{folds}"
                cases = test_cases(plan)
                ours = predict_ours([stage(plan, configuration, weights[:folds])], cases, mine, plan, mirroring)
                model = model_folder(plan, configuration, weights[:folds], work / f"model_{configuration}_{folds}")
                compare_both(name, ours, model, cases, theirs, mirroring, plan, table)
    if {"2d", "3d_fullres"} <= set(plan.plans.configurations):
        compare_ensemble(plan, work, table)


def compare_ensemble(plan: Planned, work: Path, table: Table) -> None:
    """Two configurations averaged: segwright from the images, the peer from the probabilities it wrote above."""
    from nnunetv2.ensembling.ensemble import merge_files
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager, names = PlansManager(plan.plans_json), ("2d", "3d_fullres")
    chains = [[stage(plan, name, [work / f"{name}_{fold}.safetensors" for fold in (0, 1)])] for name in names]
    ours = predict_images(
        chains,
        test_cases(plan),
        Output(work / "ours_both", plan.dataset.file_ending),
        Computation(PredictionSettings(), "cpu", workers=0),
    )
    (work / "peers_both").mkdir()
    voxels = 0
    for case_id, path in ours.items():
        members = [str(work / f"peers_{name}_2.float32" / f"{case_id}.npz") for name in names]
        merge_files(
            members, str(work / "peers_both" / case_id), plan.dataset.file_ending,
            manager.image_reader_writer_class(), manager.get_label_manager(plan.facts),
        )  # fmt: skip
        voxels += int(np.count_nonzero(labels(plan, path) != labels(plan, work / "peers_both" / path.name)))
    table.row(f"{plan.dataset.name} 2d + 3d_fullres: voxels of ensembles, float32 sums", voxels, 2)


def compare_cascade(plan: Planned, work: Path, table: Table) -> None:
    names = ("3d_lowres", "3d_cascade_fullres")
    weights = [train_briefly(plan, name, work, 0) for name in names]
    cases = test_cases(plan)
    stages = [stage(plan, name, [path]) for name, path in zip(names, weights, strict=True)]
    ours = predict_ours(stages, cases, work / "ours", plan, True)
    low, full = (
        model_folder(plan, name, [path], work / f"model_{name}") for name, path in zip(names, weights, strict=True)
    )
    with float32_sums():
        predict_peers(low, cases, work / "low", True)
    compare_both(f"{plan.dataset.name} cascade", ours, full, cases, work / "peers", True, plan, table, work / "low")


def compare_both(
    name: str,
    ours: dict[str, Path],
    model: Path,
    cases: Sequence[Case],
    output: Path,
    mirroring: bool,
    plan: Planned,
    table: Table,
    previous: Path | None = None,
) -> None:
    predict_peers(model, cases, output, mirroring, previous)
    missing = max(1 - dice(plan, path, output / path.name) for path in ours.values())
    table.row(f"{name}: 1 - Dice, float16 sums", missing, DICE_ALLOWED)
    with float32_sums():
        predict_peers(model, cases, output.with_suffix(".float32"), mirroring, previous)
    shares, probabilities, foreground = [], [], 0
    for case_id, path in ours.items():
        other = output.with_suffix(".float32") / path.name
        mine, theirs = labels(plan, path), labels(plan, other)
        foreground += int(np.count_nonzero(theirs))
        shares.append(float((mine != theirs).mean()))
        with np.load(path.parent / f"{case_id}.npz") as a, np.load(other.parent / f"{case_id}.npz") as b:
            probabilities.append(largest_difference(a["probabilities"], b["probabilities"]))
    if not foreground:
        table.row(f"{name}: **nothing was predicted**", 1, 0)
    table.row(f"{name}: voxels, float32 sums", max(shares), VOXELS_ALLOWED, " of all")
    table.row(f"{name}: probabilities, float32 sums", max(probabilities), PROBABILITY_TOLERANCE)


def train_briefly(plan: Planned, configuration: str, work: Path, fold: int) -> Path:
    """Weights that segment a little: a few steps on whole images, enough for clear decisions."""
    slice_ = predict_slice(plan.plans, configuration, preprocess_slice_of(plan, configuration))
    labels_, divisor = plan.dataset.labels, np.prod(np.array(slice_.architecture.strides), axis=0)
    network = build_network(slice_.architecture, slice_.num_input_channels, labels_.num_outputs)
    initialize(network, SEED + fold)
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE)
    loss = LOSSES.get("default")(LossOptions(labels_.num_outputs, labels_.has_regions, labels_.ignore_label, True))
    regions, rng = target_regions(labels_), np.random.default_rng(SEED + fold)
    parent = plan.plans.lineage(configuration)[-1]
    cases = [stored_case(plan, parent, number) for number in range(len(plan.dataset.training))]
    for step in range(STEPS):
        case = cases[step % len(cases)]
        assert case.label_zyx is not None
        image, label = case.image_czyx, np.maximum(case.label_zyx, 0)
        if slice_.previous_stage:
            image = np.concatenate([image, one_hot(np.roll(label, 1, 1), labels_.foreground_labels)])
        if slice_.is_2d:
            shown = (np.isin(label, labels_.foreground_labels)).sum(axis=(1, 2))
            plane = int(rng.choice(np.flatnonzero(shown >= np.median(shown[shown > 0]))))
            image, label = image[:, plane], label[plane]
        edges = [min(extent, 64) // part * part for extent, part in zip(label.shape, divisor, strict=True)]
        starts = [int(rng.integers(n - edge + 1)) for n, edge in zip(label.shape, edges, strict=True)]
        where = tuple(slice(start, start + edge) for start, edge in zip(starts, edges, strict=True))
        target = label[where][None] if regions is None else region_channels(label[where], regions)
        optimizer.zero_grad()
        batch = torch.from_numpy(np.ascontiguousarray(image[(slice(None), *where)], np.float32))[None]
        loss(network(batch), torch.from_numpy(np.ascontiguousarray(target))[None], None).backward()
        optimizer.step()
    path = work / f"{configuration}_{fold}.safetensors"
    save_weights(path, network, {"format": "pt"})
    return path


def preprocess_slice_of(plan: Planned, configuration: str) -> Any:
    return preprocess_slice(plan.plans, configuration, plan.dataset.labels, plan.dataset.channel_names)


def stage(plan: Planned, configuration: str, weights: Sequence[Path]) -> Stage:
    slice_ = predict_slice(plan.plans, configuration, preprocess_slice_of(plan, configuration))
    return Stage(slice_, tuple(weights), TrainingFacts(tuple(range(len(slice_.patch_size)))))


def test_cases(plan: Planned) -> Sequence[Case]:
    return plan.dataset.test or plan.dataset.training[:1]


def predict_ours(
    stages: Sequence[Stage], cases: Sequence[Case], output: Path, plan: Planned, mirroring: bool
) -> dict[str, Path]:
    how = Computation(PredictionSettings(mirroring=mirroring), "cpu", workers=0)
    return predict_images([stages], cases, Output(output, plan.dataset.file_ending, save_probabilities=True), how)


def model_folder(plan: Planned, configuration: str, weights: Sequence[Path], folder: Path) -> Path:
    """A model folder in the peer's format with these weights."""
    axes = tuple(range(len(plan.plans.configuration(configuration).patch_size)))
    folder.mkdir()
    (folder / "plans.json").write_text(json.dumps(plan.plans_json))
    (folder / "dataset.json").write_text(json.dumps(plan.facts))
    for fold, path in enumerate(weights):
        checkpoint = {
            "network_weights": with_aliases(load_weights(path)),
            "trainer_name": "nnUNetTrainer",
            "init_args": {"configuration": configuration},
            "inference_allowed_mirroring_axes": axes,
        }
        (folder / f"fold_{fold}").mkdir()
        torch.save(checkpoint, folder / f"fold_{fold}" / "checkpoint_final.pth")
    return folder


def predict_peers(
    model: Path,
    cases: Sequence[Case],
    output: Path,
    mirroring: bool,
    previous: Path | None = None,
    count: int | None = None,
) -> None:
    """With the first ``count`` folds, or all."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    output.mkdir()
    folds = tuple(sorted(int(path.name[5:]) for path in model.glob("fold_*")))[:count]
    with quiet():
        predictor = nnUNetPredictor(
            use_mirroring=mirroring, perform_everything_on_device=False, device=torch.device("cpu"), allow_tqdm=False
        )
        predictor.initialize_from_trained_model_folder(str(model), folds)
        files = [[str(path) for path in case.image_files] for case in cases]
        predictor.predict_from_files_sequential(
            files, str(output), save_probabilities=True,
            folder_with_segs_from_prev_stage=None if previous is None else str(previous),
        )  # fmt: skip


@contextlib.contextmanager
def float32_sums() -> Iterator[None]:
    """Let the peer sum tiles in float32: what it calls ``torch.half`` is float32 in its predictor."""
    from nnunetv2.inference import predict_from_raw_data

    class Torch:
        half = torch.float32

        def __getattr__(self, name: str) -> Any:
            return getattr(torch, name)

    predict_from_raw_data.torch = Torch()
    try:
        yield
    finally:
        predict_from_raw_data.torch = torch


def labels(plan: Planned, path: Path) -> np.ndarray:
    return read_label(path, plan.plans.reader).array_zyx


def dice(plan: Planned, ours: Path, peers: Path) -> float:
    """Dice over the voxels of all foreground labels together."""
    mine, theirs = labels(plan, ours), labels(plan, peers)
    total = np.count_nonzero(mine) + np.count_nonzero(theirs)
    return 2 * np.count_nonzero((mine == theirs) & (mine > 0)) / total if total else 1.0


if __name__ == "__main__":
    main()
