"""From stored case to batch: where patches lie, validation targets, patch sizes, folds, next-stage maps (5, 6.1, 9)."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch

from benchmarks.peer.common import SEED, Planned, Table, different, largest_difference, quiet, workplace
from benchmarks.peer.small import SCENARIOS, peer_trainer, phantom, stored_case
from segwright.core.settings import PlanningSettings, SplitSettings, TrainingSettings
from segwright.core.slices import predict_slice, preprocess_slice, train_slice
from segwright.inference.export import next_stage_labels
from segwright.splits import make_splits
from segwright.training.augmentation.label_channels import target_regions
from segwright.training.augmentation.pipeline import build_pipeline
from segwright.training.augmentation.ranges import spatial_ranges
from segwright.training.sampling import CaseWindow, draw_start, must_show_foreground, start_bounds
from segwright.training.schedule import learning_rate

DRAWS = 300


def main() -> None:
    torch.set_num_threads(1)
    table = Table("Batches")
    compare_patch_sizes(table)
    compare_schedule(table)
    compare_splits(table)
    for preset in (*SCENARIOS, "anisotropic", "2d"):
        with workplace() as work:
            plan = phantom(preset, work)
            for configuration in plan.plans.configurations:
                compare_places(plan, configuration, table)
                compare_validation_sample(plan, configuration, table)
    for preset in SCENARIOS:
        with workplace() as work:
            compare_next_stage(phantom(preset, work, settings=PlanningSettings(max_patch_size=8)), table)
    table.close()


def compare_patch_sizes(table: Table) -> None:
    """Patch the loader reads, rotation, dummy 2-D, for random patches."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    rng, wrong = np.random.default_rng(SEED), 0
    for _ in range(5000):
        patch = [int(edge) for edge in rng.integers(1, 70, rng.integers(2, 4)) * rng.choice([1, 2, 4, 8])]
        trainer = SimpleNamespace(
            configuration_manager=SimpleNamespace(patch_size=patch), print_to_log_file=lambda *_: None
        )
        theirs = nnUNetTrainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size(trainer)
        mine = spatial_ranges(patch)
        wrong += not (
            np.isclose(theirs[0][1], mine.rotation_rad)
            and theirs[1] == mine.in_plane
            and tuple(int(edge) for edge in theirs[2]) == mine.loader_patch_size
            and theirs[3] == mine.flip_axes
        )
    table.row("5000 patches: patch sizes of the loader, angles, flips", wrong, 0)


def compare_schedule(table: Table) -> None:
    from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler

    optimizer = torch.optim.SGD([torch.zeros(1)], 0.01)
    scheduler, settings = PolyLRScheduler(optimizer, 0.01, 1000), TrainingSettings().resolved()
    worst = 0.0
    for epoch in range(1000):
        scheduler.step(epoch)
        worst = max(worst, abs(optimizer.param_groups[0]["lr"] - learning_rate(epoch, settings)))
    table.row("1000 epochs: learning rate", worst, 1e-15)


def compare_splits(table: Table) -> None:
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    wrong = 0
    for count in (5, 7, 10, 23, 60):
        cases = [f"case_{number:03d}" for number in range(count)]
        theirs = generate_crossval_split(cases)
        mine = [fold for fold in make_splits(cases, SplitSettings()) if fold.name != "all"]
        wrong += different(
            [(list(fold.train), list(fold.val)) for fold in mine],
            [([str(name) for name in fold["train"]], [str(name) for name in fold["val"]]) for fold in theirs],
        )
    table.row("5 datasets: cases of folds", wrong, 0, " folds")


def compare_places(plan: Planned, configuration: str, table: Table) -> None:
    """Bounds of random patches, patches centred on one voxel, and which samples must show foreground."""
    from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    entry, labels = plan.plans.configuration(configuration), plan.dataset.labels
    manager = PlansManager(plan.plans_json).get_label_manager(plan.facts)
    initial = spatial_ranges(entry.patch_size).loader_patch_size
    identifiers = SimpleNamespace(identifiers=["one"])
    peers = nnUNetDataLoader(identifiers, entry.batch_size, initial, entry.patch_size, manager, 0.33)
    flat = (1,) if entry.is_2d else ()
    patches = (*flat, *initial), (*flat, *entry.patch_size)
    rng, wrong = np.random.default_rng(SEED), 0
    for _ in range(DRAWS):
        shape = tuple(int(edge) for edge in rng.integers(1, 90, 3))
        voxel = np.array([[0, *(int(rng.integers(edge)) for edge in shape)]])
        lowest, highest = start_bounds(shape, *patches)
        peers.has_ignore, bounds = False, []
        randint, np.random.randint = np.random.randint, lambda low, high: bounds.append((low, high - 1)) or low  # noqa: B023
        peers.get_bbox(np.array(shape), False, {})
        np.random.randint = randint
        wrong += [tuple(int(v) for v in pair) for pair in bounds] != list(zip(lowest, highest, strict=True))
        key = labels.foreground_keys[0]
        starts, _ = peers.get_bbox(np.array(shape), True, {key: voxel})
        mine = draw_start(rng, shape, *patches, {key: voxel[:, 1:]}, True, labels.annotated_key, False)
        wrong += [int(start) for start in starts] != list(mine)
    shares = [must_show_foreground(sample, entry.batch_size, 0.33) for sample in range(entry.batch_size)]
    wrong += different(shares, [peers.get_do_oversample(sample) for sample in range(entry.batch_size)])
    table.row(f"{plan.dataset.name} {configuration}: {DRAWS} places, oversampled samples", wrong, 0)


def compare_validation_sample(plan: Planned, configuration: str, table: Table) -> None:
    """Image and targets of one sample without augmentation, at a corner that sticks out of the case."""
    from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd

    labels, entry = plan.dataset.labels, plan.plans.configuration(configuration)
    case = stored_case(plan, plan.plans.lineage(configuration)[-1], 0)
    assert case.label_zyx is not None
    cascaded = entry.previous_stage is not None
    maps = (case.label_zyx, np.roll(np.maximum(case.label_zyx, 0), 2, 1).astype(np.uint8))[: 1 + cascaded]
    edges = ((1,) if entry.is_2d else ()) + entry.patch_size
    start = tuple(-2 if edge > 1 else extent // 2 for edge, extent in zip(edges, case.label_zyx.shape, strict=True))
    pipeline = build_pipeline(train_slice(plan.plans, configuration, labels), TrainingSettings().resolved(), False)
    image, targets = pipeline(CaseWindow(case.image_czyx, maps, start, edges, entry.is_2d), np.random.default_rng(SEED))

    with quiet():
        trainer = peer_trainer(plan, configuration, torch.nn.Linear(1, 1))
        transforms = trainer.get_validation_transforms(
            trainer._get_deep_supervision_scales(), cascaded, trainer.label_manager.foreground_labels,
            trainer.label_manager.foreground_regions if labels.has_regions else None, labels.ignore_label,
        )  # fmt: skip
    box = [[low, low + edge] for low, edge in zip(start, edges, strict=True)]
    data = torch.from_numpy(crop_and_pad_nd(case.image_czyx, box, 0)).float()
    seg = torch.cat([torch.from_numpy(crop_and_pad_nd(label[None].astype(np.int16), box, -1)) for label in maps])
    if entry.is_2d:
        data, seg = data[:, 0], seg[:, 0]
    theirs = transforms(image=data, segmentation=seg)
    name = f"{plan.dataset.name} {configuration}: validation sample"
    table.row(f"{name}, image", largest_difference(image, theirs["image"]), 0)
    heads = [largest_difference(mine, head) for mine, head in zip(targets, theirs["segmentation"], strict=True)]
    table.row(f"{name}, all targets", max(heads), 0)
    assert (target_regions(labels) is None) == (len(targets[0]) == 1)


def compare_next_stage(plan: Planned, table: Table) -> None:
    """Label maps on the next stage's grid from random smooth logits."""
    from nnunetv2.inference.export_prediction import resample_and_save
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
    from scipy.ndimage import gaussian_filter

    labels = plan.dataset.labels
    slice_ = preprocess_slice(plan.plans, "3d_lowres", labels, plan.dataset.channel_names)
    low, full = stored_case(plan, "3d_lowres", 0), stored_case(plan, "3d_fullres", 0)
    rng = np.random.default_rng(SEED)
    noise = rng.normal(size=(labels.num_outputs, *low.image_czyx.shape[1:]))
    logits = np.stack([gaussian_filter(channel, 1.2) for channel in noise]).astype(np.float32) * 10
    shape = full.image_czyx.shape[1:]
    mine = next_stage_labels(logits, low.properties, predict_slice(plan.plans, "3d_lowres", slice_), shape)
    kept = []
    manager = PlansManager(plan.plans_json)
    properties = {
        "spacing": plan.fingerprint["spacings"][0],
        "shape_after_cropping_and_before_resampling": low.properties.shape_after_cropping,
    }
    store = SimpleNamespace(save_seg=lambda seg, _: kept.append(seg))
    resample_and_save(
        torch.from_numpy(logits), list(shape), "", manager, manager.get_configuration("3d_lowres"), properties,
        plan.facts, dataset_class=store,
    )  # fmt: skip
    voxels = float(np.count_nonzero(mine != kept[0]))
    table.row(f"{plan.dataset.name}: next stage's label map, voxels", voxels, 0)


if __name__ == "__main__":
    main()
