"""Record the golden vectors of tests/parity with the peer: numbers, and small arrays of phantoms and formulas.

    VENV/bin/python -m benchmarks.peer.record_golden [DATA] [--only PART ...]

Of the real images in DATA only plans are kept, with the shapes, spacings and statistics they are made from.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from tests.parity.candidates import NOISE
from tests.parity.datasets import reference_dataset
from tests.parity.inputs import (
    ARCHITECTURES,
    CHANNELS,
    GOLDEN,
    LABELS,
    OUTPUTS,
    PATCH,
    STEEP,
    blocks,
    labels_of,
    wave,
)

from benchmarks.peer.common import SEED, quiet, workplace
from benchmarks.peer.compare_evaluation import make_predictions, rule_values, threads_for_processes
from benchmarks.peer.compare_preprocessing import normal_key
from benchmarks.peer.golden import STRIDE, installed_versions, save
from benchmarks.peer.peer_selection import peer_selection
from benchmarks.peer.record_augmentation import record_augmentation, record_plans
from benchmarks.peer.record_fingerprint import record_fingerprints, record_real_plans
from benchmarks.peer.record_prediction import record_predictions
from benchmarks.peer.small import peer_network, phantom
from segwright.core.labels import key_text
from segwright.core.settings import PlanningSettings
from segwright.core.slices import preprocess_slice
from segwright.images.readers import read_image, read_label
from segwright.networks.weights import canonical_name
from segwright.training.augmentation.deep_supervision import supervision_shapes, supervision_targets
from segwright.training.augmentation.label_channels import region_channels, target_regions

PRESETS = {
    "plain": "3d_lowres", "regions": "3d_fullres", "ignore": "3d_fullres", "regions_ignore": "3d_fullres",
    "ct": "3d_fullres", "anisotropic": "3d_fullres", "2d": "2d",
}  # fmt: skip
EVALUATED = ("plain", "regions", "ignore", "regions_ignore")
STEPS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("data", type=Path, nargs="?", help="folder of real images; without it their plans stay")
    parser.add_argument("--only", nargs="+", metavar="PART", help="the others stay as they are")
    options = parser.parse_args()
    torch.set_num_threads(1)
    GOLDEN.mkdir(exist_ok=True)
    path, versions = GOLDEN / "numbers.json", installed_versions()
    numbers: dict[str, Any] = json.loads(path.read_text()) if options.only else {"versions": versions}
    if numbers["versions"] != versions:
        raise SystemExit("other releases made the other parts; record all of them")
    with workplace() as work, threads_for_processes():
        in_numbers: dict[str, Callable[[], Any]] = {
            "preprocessing": lambda: record_preprocessing(work),
            "fingerprint": lambda: record_fingerprints(numbers["preprocessing"], work),
            "networks": record_networks,
            "loss": record_losses,
            "training": record_training,
            "evaluation": lambda: record_evaluation(work),
            "selection": lambda: record_selection(work),
            "patches": record_patches,
        }
        in_files: dict[str, Callable[[], None]] = {
            "prediction": lambda: record_predictions(numbers["preprocessing"]),
            "plans": lambda: record_plans(versions),
            "augmentation": lambda: record_augmentation(versions),
        }
        if options.data:
            in_files["real_plans"] = lambda: record_real_plans(options.data)
        chosen = set(options.only or [*in_numbers, *in_files])
        if unknown := chosen - {*in_numbers, *in_files}:
            parser.error(f"no such part, or it needs DATA: {', '.join(sorted(unknown))}")
        for part, record in in_numbers.items():
            if part in chosen:
                numbers[part] = record()
        for part, write in in_files.items():
            if part in chosen:
                write()
    path.write_text(json.dumps(numbers, indent=1, sort_keys=True) + "\n")


def cut(array: np.ndarray) -> np.ndarray:
    """A corner of at most 24 voxels an edge that holds part of the zero border and of the structures."""
    return array[..., *(slice(max(0, edge // 2 - 16), max(0, edge // 2 - 16) + 24) for edge in array.shape[-3:])]


def record_preprocessing(work: Path) -> dict[str, Any]:
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    recorded, arrays = {}, {}
    for preset, configuration in PRESETS.items():
        plan = phantom(preset, work, settings=PlanningSettings(max_patch_size=16))
        case, labels = plan.dataset.training[1], plan.dataset.labels
        assert case.label_file is not None
        image, label = read_image(case.image_files, plan.plans.reader), read_label(case.label_file, plan.plans.reader)
        raw, seg = cut(image.array_czyx).round().astype(np.int16), cut(label.array_zyx)
        spacing = [edge * factor for edge, factor in zip(image.geometry.spacing_zyx, (1.0, 0.83, 1.21), strict=True)]
        slice_ = preprocess_slice(plan.plans, configuration, labels, plan.dataset.channel_names)
        manager = PlansManager(plan.plans_json)
        settings = manager.get_configuration(configuration)
        with quiet():
            data, found, properties = settings.preprocessor_class(verbose=False).run_case_npy(
                raw.astype(np.float32), seg[None].astype(np.int16), {"spacing": spacing}, manager, settings, plan.facts
            )
        arrays |= {f"{preset}/raw": raw, f"{preset}/seg": seg.astype(np.uint8), f"{preset}/label": found[0]}
        arrays[f"{preset}/image"] = data[:, ::STRIDE, ::STRIDE, ::STRIDE]
        recorded[preset] = {
            "configuration": configuration,
            "plan": slice_.to_json(),
            "spacing": spacing,
            "shape": list(data.shape),
            "locations": {
                key_text(normal_key(key)): digest(np.asarray(voxels).reshape(-1, 4)[:, 1:])
                for key, voxels in properties["class_locations"].items()
            },
        }
    save("preprocessing", arrays)
    return recorded


def digest(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array, "<i4").tobytes()).hexdigest()


def record_networks() -> dict[str, Any]:
    recorded, arrays = {}, {}
    for name, architecture in ARCHITECTURES.items():
        network = peer_network(architecture, CHANNELS, OUTPUTS).eval()
        state = network.state_dict()
        one_name_each = {canonical_name(key): key for key in state}  # the last alias
        arrays |= {f"{name}/state/{key}": state[key].numpy() for key in one_name_each.values()}
        image = wave(1, CHANNELS, *PATCH[-architecture.dimensions :])
        with torch.no_grad():
            heads = network(torch.from_numpy(image))
        arrays |= {f"{name}/head/{number}": head.numpy() for number, head in enumerate(heads)}
        recorded[name] = {"names": {key: "x".join(map(str, tensor.shape)) for key, tensor in state.items()}}
    save("networks", arrays)
    return recorded


def peer_loss(scenario: str, batch_dice: bool, heads: int) -> Any:
    """The peer's own choice of a loss for a label scenario."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    facts = LABELS[scenario]
    trainer = SimpleNamespace(
        label_manager=LabelManager(facts["labels"], facts.get("regions_class_order")),
        configuration_manager=SimpleNamespace(batch_dice=batch_dice), is_ddp=False, enable_deep_supervision=True,
        _do_i_compile=lambda: False, _get_deep_supervision_scales=lambda: [1] * heads,
    )  # fmt: skip
    return nnUNetTrainer._build_loss(trainer)


def targets_of(scenario: str, shapes: list[tuple[int, ...]]) -> list[torch.Tensor]:
    labels = labels_of(scenario)
    regions = target_regions(labels)
    label = blocks(2, 1, *shapes[0], values=3 + (labels.ignore_label is not None))
    samples = [sample if regions is None else region_channels(sample[0], regions) for sample in label]
    heads = zip(*(supervision_targets(sample, shapes) for sample in samples), strict=True)
    return [torch.from_numpy(np.stack(head)) for head in heads]


def record_losses() -> list[dict[str, Any]]:
    recorded = []
    shapes = [(8, 12, 10), (4, 6, 5), (2, 3, 3)]
    for scenario in LABELS:
        outputs = labels_of(scenario).num_outputs
        for batch_dice in (False, True):
            heads = [torch.from_numpy(wave(2, outputs, *shape) * 2).requires_grad_() for shape in shapes]
            loss = peer_loss(scenario, batch_dice, len(shapes))(heads, targets_of(scenario, shapes))
            loss.backward()
            recorded.append({
                "scenario": scenario, "batch_dice": batch_dice, "shapes": shapes, "loss": float(loss.detach()),
                "gradients": [0.0 if head.grad is None else float(head.grad.double().norm()) for head in heads],
            })  # fmt: skip
    return recorded


def record_training() -> dict[str, Any]:
    """Losses of 20 steps from the recorded weights: SGD and clipping as the peer's ``train_step`` does them."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    curves = {}
    for name, architecture in {**ARCHITECTURES, "clipped": ARCHITECTURES["plain_2d"]}.items():
        network = peer_network(architecture, CHANNELS, OUTPUTS)
        with torch.no_grad():
            for layer in network.decoder.seg_layers if name == "clipped" else ():
                layer.weight.mul_(STEEP)
        edges = PATCH[-architecture.dimensions :]
        shapes = list(supervision_shapes(edges, architecture.strides, True))
        trainer = SimpleNamespace(
            network=network, device=torch.device("cpu"), loss=peer_loss("labels", False, len(shapes)),
            grad_scaler=None, initial_lr=1e-2, weight_decay=3e-5, num_epochs=1000,
        )  # fmt: skip
        trainer.optimizer, _ = nnUNetTrainer.configure_optimizers(trainer)
        batch = {"data": torch.from_numpy(wave(2, CHANNELS, *edges)), "target": targets_of("labels", shapes)}
        curves[name] = [float(nnUNetTrainer.train_step(trainer, batch)["loss"]) for _ in range(STEPS)]
    return curves


def record_evaluation(work: Path) -> dict[str, Any]:
    """Two sets of predictions a label scenario, reduced to every second voxel; the peer's summary and rules."""
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder2
    from nnunetv2.postprocessing.remove_connected_components import determine_postprocessing

    from segwright.images.readers import write_label

    recorded, arrays = {}, {}
    for preset in EVALUATED:
        plan = phantom(preset, work / "evaluation_data", 3)
        reader = plan.plans.reader
        for seed in (2, 3, 5):
            name = f"{preset}_{seed}"
            whole, small = work / f"whole_{name}", work / f"small_{name}"
            make_predictions(plan, whole, seed)
            (small / "reference").mkdir(parents=True)
            (small / "prediction").mkdir()
            for case in plan.dataset.training:
                assert case.label_file is not None
                for kind, path in (("reference", case.label_file), ("prediction", whole / case.label_file.name)):
                    label = read_label(path, reader)
                    part = np.ascontiguousarray(label.array_zyx[::2, ::2, ::2])
                    geometry = replace(label.geometry, shape_zyx=part.shape)
                    write_label(small / kind / path.name, part, geometry, reader)
                    arrays[f"{name}/{kind}/{case.case_id}"] = part.astype(np.uint8)
            facts = {key: plan.facts[key] for key in ("labels", "regions_class_order") if key in plan.facts}
            facts["label_order"] = list(plan.facts["labels"])
            (small / "dataset.json").write_text(json.dumps(plan.facts))
            (small / "plans.json").write_text(json.dumps(plan.plans_json))
            folders = str(small / "reference"), str(small / "prediction")
            with quiet():
                compute_metrics_on_folder2(*folders, str(small / "dataset.json"), str(small / "plans.json"))
                _, rules = determine_postprocessing(folders[1], folders[0], plan.plans_json, plan.facts, 1)
            summary = json.loads((small / "prediction" / "summary.json").read_text())
            for entry in summary["metric_per_case"]:
                entry["case"] = Path(entry.pop("prediction_file")).name.split(".")[0]
                del entry["reference_file"]
            after = json.loads((small / "prediction" / "postprocessed" / "summary.json").read_text())
            recorded[name] = {
                "facts": facts,
                "summary": summary,
                "rules": [sorted(rule_values(rule["labels_or_regions"])) for rule in rules],
                "foreground_mean_after": after["foreground_mean"],
            }
    save("evaluation", arrays)
    return recorded


def record_selection(work: Path) -> dict[str, Any]:
    """What the peer's search for the best configuration chooses, of predictions of the label maps recorded above."""
    recorded: dict[str, Any] = {}
    with np.load(GOLDEN / "evaluation.npz") as arrays:
        for preset in EVALUATED:
            plan, prefix = phantom(preset, work / "selection_data", 3), f"{preset}_2/reference/"
            references = {name.removeprefix(prefix): arrays[name] for name in arrays.files if name.startswith(prefix)}
            dataset = reference_dataset(work / "references" / preset, plan.facts, references)
            for winner, noise in NOISE.items():
                name = f"Dataset{100 + len(recorded)}_Selection"
                found = peer_selection(dataset, plan.plans_json, noise, name)
                recorded[f"{preset}, {winner}"] = {**found, "scores": list(found["scores"].items())}
    return recorded


def record_patches() -> list[dict[str, Any]]:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    rng, recorded = np.random.default_rng(SEED), []
    for _ in range(60):
        patch = [int(edge) for edge in rng.integers(4, 40, rng.integers(2, 4)) * rng.choice([1, 4, 8])]
        trainer = SimpleNamespace(
            configuration_manager=SimpleNamespace(patch_size=patch), print_to_log_file=lambda *_: None
        )
        angle, flat, edges, flips = nnUNetTrainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size(trainer)
        recorded.append({
            "patch": patch, "rotation_rad": float(angle[1]), "in_plane": bool(flat),
            "loader_patch": [int(edge) for edge in edges], "flips": list(flips),
        })  # fmt: skip
    return recorded


if __name__ == "__main__":
    main()
