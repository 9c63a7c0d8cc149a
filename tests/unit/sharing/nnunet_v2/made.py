"""Results folders as nnU-Net v2 leaves them, made by hand: its layout, its keys, untrained networks."""

from __future__ import annotations

import copy
import json
import pickle
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segwright.core.architecture import Architecture
from segwright.networks.build import build_network
from segwright.networks.initialization import initialize
from segwright.networks.weights import with_aliases

DATASET = "Dataset007_Made"
TRAINER, PLANS = "nnUNetTrainer", "nnUNetPlans"
FACTS: dict[str, Any] = {
    "channel_names": {"0": "MRI"},
    "labels": {"background": 0, "organ": 1, "lesion": 2},
    "numTraining": 4,
    "file_ending": ".nii.gz",
}
NUMBERS = dict.fromkeys(("max", "mean", "median", "min", "percentile_00_5", "percentile_99_5", "std"), 1.0)


def architecture(dimensions: int = 3) -> Architecture:
    ones, twos, threes = ((edge,) * dimensions for edge in (1, 2, 3))
    return Architecture("plain_unet", (2, 4), (threes, threes), (ones, twos), (1, 1), (1,))


def resampling(is_seg: bool, order: int) -> dict[str, Any]:
    return {"is_seg": is_seg, "order": order, "order_z": 0, "force_separate_z": None}


def entry(dimensions: int = 3, **changes: Any) -> dict[str, Any]:
    """A configuration of plans.json."""
    return {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [8] * dimensions,
        "median_image_size_in_voxels": [12.0] * dimensions,
        "spacing": [1.0] * dimensions,
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        **{f"resampling_fn_{role}": "resample_data_or_seg_to_shape" for role in ("data", "seg", "probabilities")},
        "resampling_fn_data_kwargs": resampling(False, 3),
        "resampling_fn_seg_kwargs": resampling(True, 1),
        "resampling_fn_probabilities_kwargs": resampling(False, 1),
        "architecture": json.loads(json.dumps(architecture(dimensions).to_json())),
        "batch_dice": False,
        **changes,
    }


def plans_record(**configurations: Any) -> dict[str, Any]:
    """plans.json with 2-D, 3-D and a cascade, which inherits."""
    return {
        "dataset_name": DATASET,
        "plans_name": PLANS,
        "original_median_spacing_after_transp": [1.0, 1.0, 1.0],
        "original_median_shape_after_transp": [12, 12, 12],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {
            "2d": entry(2),
            "3d_lowres": entry(3, spacing=[2.0, 2.0, 2.0], next_stage="3d_cascade_fullres"),
            "3d_fullres": entry(3),
            "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
            **configurations,
        },
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": NUMBERS},
    }


def old_style(record: Mapping[str, Any]) -> dict[str, Any]:
    """The same plans as releases up to about 2.2 wrote them."""
    record = copy.deepcopy(dict(record))
    for name, configuration in record["configurations"].items():
        if "architecture" in configuration:
            arguments = configuration.pop("architecture")["arch_kwargs"]
            features = arguments["features_per_stage"]
            record["configurations"][name] = {
                **configuration,
                "UNet_class_name": "PlainConvUNet",
                "UNet_base_num_features": features[0],
                "n_conv_per_stage_encoder": arguments["n_conv_per_stage"],
                "n_conv_per_stage_decoder": arguments["n_conv_per_stage_decoder"],
                "num_pool_per_axis": [1, 1, 1],
                "pool_op_kernel_sizes": arguments["strides"],
                "conv_kernel_sizes": arguments["kernel_sizes"],
                "unet_max_num_features": max(features),
            }
    record["foreground_intensity_properties_by_modality"] = record.pop("foreground_intensity_properties_per_channel")
    return record


def checkpoint(
    configuration: str, fold: str = "0", *, trainer: str = TRAINER, axes: Any = (0, 1, 2), **changes: Any
) -> dict[str, Any]:
    """What nnU-Net v2 saves; the cascade's network gets a channel for each of the two foreground labels."""
    dimensions = 2 if configuration == "2d" else 3
    network = build_network(architecture(dimensions), 3 if "cascade" in configuration else 1, 3)
    initialize(network, seed=len(configuration) + 7 * (0 if fold == "all" else int(fold)))
    weights = with_aliases(network.state_dict())
    return {
        "network_weights": weights,
        "optimizer_state": {"state": {0: {"momentum_buffer": torch.ones(50)}}, "param_groups": [{"lr": 0.01}]},
        "grad_scaler_state": None,
        "logging": {"ema_fg_dice": [np.float32(0.25), np.float32(0.5)], "lrs": [0.01, 0.005]},
        "_best_ema": np.float64(0.5),
        "current_epoch": 2,
        "init_args": {
            "plans": plans_record(), "configuration": configuration, "fold": 0 if fold == "all" else int(fold),
            "dataset_json": FACTS, "device": torch.device("cuda", 0),
        },
        "trainer_name": trainer,
        "inference_allowed_mirroring_axes": axes[:dimensions] if axes else axes,
        **changes,
    }  # fmt: skip


def model_folder(
    root: Path,
    configuration: str,
    folds: Sequence[str] = ("0", "1"),
    *,
    trainer: str = TRAINER,
    plans_name: str = PLANS,
    plans: Mapping[str, Any] | None = None,
    facts: Mapping[str, Any] = FACTS,
) -> Path:
    """``{trainer}__{plans}__{configuration}`` with checkpoints."""
    folder = root / f"{trainer}__{plans_name}__{configuration}"
    folder.mkdir(parents=True)
    record = {**(plans_record() if plans is None else plans), "plans_name": plans_name}
    (folder / "plans.json").write_text(json.dumps(record, indent=4))
    (folder / "dataset.json").write_text(json.dumps(facts, indent=4))
    for fold in folds:
        (folder / f"fold_{fold}").mkdir()
        torch.save(checkpoint(configuration, fold, trainer=trainer), folder / f"fold_{fold}" / "checkpoint_final.pth")
    return folder


def summary(dice: float) -> dict[str, Any]:
    """A summary.json of one case."""
    counts = {"Dice": dice, "IoU": dice / (2 - dice), "TP": 8, "FP": 2, "FN": 2, "TN": 88, "n_pred": 10, "n_ref": 10}
    case = {
        "metrics": {"1": counts, "2": counts},
        "prediction_file": "/there/a.nii.gz",
        "reference_file": "/here/a.nii.gz",
    }
    return {"foreground_mean": counts, "mean": {"1": counts, "2": counts}, "metric_per_case": [case]}


def crossval(folder: Path, dice: float = 0.8, rules: Sequence[Any] = ()) -> Path:
    """A folder of cross-validation results with postprocessing as nnU-Net pickles it: by the name of its function."""
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps(summary(dice)))
    arguments = [{"labels_or_regions": rule} for rule in rules]
    (folder / "postprocessing.pkl").write_bytes(postprocessing_pickle(arguments))
    names = ["remove_all_but_largest_component_from_segmentation"] * len(arguments)
    record = {"postprocessing_fns": names, "postprocessing_kwargs": arguments}
    (folder / "postprocessing.json").write_text(json.dumps(record))
    return folder


def postprocessing_pickle(
    arguments: list[dict[str, Any]],
    function: str = "nnunetv2.postprocessing.remove_connected_components"
    ".remove_all_but_largest_component_from_segmentation",
) -> bytes:
    """Protocol 0 by hand around a pickled list: ([function, ...], [arguments, ...])."""
    module, _, name = function.rpartition(".")
    named = "".join(f"c{module}\n{name}\n" for _ in arguments)
    packed = pickle.dumps(arguments, 2).removeprefix(b"\x80\x02").removesuffix(b".")
    return b"((" + named.encode() + b"l" + packed + b"t."


def information(folder: Path, configurations: Sequence[str], folds: Sequence[int] = (0, 1)) -> None:
    """inference_information.json that selects these configurations."""
    models = [{"configuration": name, "trainer": TRAINER, "plans_identifier": PLANS} for name in configurations]
    names = [f"{TRAINER}__{PLANS}__{name}" for name in configurations]
    best = names[0] if len(names) == 1 else "___".join(["ensemble", *names, "_".join(map(str, folds))])
    record = {
        "folds": list(folds),
        "all_results": {**dict.fromkeys(names, 0.75), best: 0.8, f"{TRAINER}__{PLANS}__other": 0.5},
        "best_model_or_ensemble": {
            "result_on_crossval_pre_pp": 0.8,
            "postprocessing_file": "/elsewhere/x.pkl",
            "selected_model_or_models": models,
        },
    }
    (folder / "inference_information.json").write_text(json.dumps(record))


def zipped(folder: Path, archive: Path) -> Path:
    """The dataset's folder as nnU-Net exports it: names begin with the dataset's."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                packed.write(path, path.relative_to(folder.parent).as_posix())
    return archive


def renamed(folder: Path, name: str) -> Path:
    return Path(shutil.move(folder, folder.with_name(name)))
