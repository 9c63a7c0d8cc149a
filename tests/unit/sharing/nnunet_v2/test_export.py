"""The zip for nnU-Net v2: its files, and what stands in them. The program itself is asked in benchmarks/peer."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from segwright.core.errors import ModelError
from segwright.core.files import file_digest, read_json, write_json
from segwright.core.labels import Labels
from segwright.core.plans import Configuration
from segwright.core.settings import PredictionSettings
from segwright.core.slices import PredictPlan
from segwright.networks.weights import canonical_name, load_weights
from segwright.selection.best import Selection
from segwright.selection.components import Rule
from segwright.sharing.model import open_model
from segwright.sharing.nnunet_v2.export_model import export_model
from segwright.sharing.package import package_model
from segwright.sharing.use import predict_with_model
from tests.unit.sharing.test_use import random_weights, write_case

BASE = "Dataset001_Tiny"
LOW, FULL = (f"{BASE}/nnUNetTrainer__plans__{name}" for name in ("3d_lowres", "3d_cascade"))
CROSSVAL = f"{FULL}/crossval_results_folds_0_1"
MIRRORED = PredictionSettings(precision="auto")


def plans_entry(plan: PredictPlan) -> dict[str, Any]:
    """The plans' entry of a configuration whose predict slice is ``plan``."""
    preprocess = plan.preprocess
    return Configuration(
        plan.configuration, f"plans_{plan.configuration}", 2, plan.patch_size, (12.0, 13.0, 14.0),
        preprocess.spacing_mm, preprocess.normalization_schemes, preprocess.use_mask_for_norm,
        preprocess.resampling_image, preprocess.resampling_label, plan.resampling_logits, plan.architecture,
        False, plan.previous_stage, plan.next_stages,
    ).to_json()  # fmt: skip


@pytest.fixture
def packaged(results: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Package the tiny cascade (folds 0 and 1, untrained networks), changed as a test wants it."""
    monkeypatch.chdir(tmp_path)

    def make(
        prediction: PredictionSettings = MIRRORED,
        rules: tuple[Rule, ...] = (Rule((1,)),),
        change: Callable[[PredictPlan], PredictPlan] = lambda plan: plan,
        members: tuple[str, ...] = ("3d_cascade",),
        name: str = BASE,
    ) -> Path:
        given = results(weights=random_weights)
        plans, configurations = read_json(given["plans"]), {}
        for files in given["configurations"]:
            plan = PredictPlan.from_json(read_json(files.predict_plan))
            configurations[files.configuration] = plans_entry(plan)
            write_json(files.predict_plan, change(plan).to_json())
        plans["configurations"] = configurations | {"3d_more": {"inherits_from": "3d_lowres", "batch_size": 4}}
        write_json(given["plans"], {**plans, "dataset_name": name}, sort_keys=False)
        write_json(given["postprocessing"], {"rules": [rule.to_json() for rule in rules], "before": {"mean": {}}})
        best = "+".join(members)
        selection = Selection(best, members, "Given.", ("0", "1"), 5, {best: 0.8}, 2)
        write_json(given["selection"], selection.to_json())
        summaries = {best: next(iter(given["summaries"].values()))}
        package_model(tmp_path / "model", None, **{**given, "prediction": prediction, "summaries": summaries})
        return tmp_path / "model"

    return make


def read(archive: Path, name: str) -> Any:
    with zipfile.ZipFile(archive) as packed:
        content = packed.read(name)
    if name.endswith(".pth"):
        return torch.load(io.BytesIO(content), weights_only=True)  # plain values and tensors, nothing to execute
    return json.loads(content) if name.endswith(".json") else content.decode()


def test_files_are_those_of_v2s_own_export(packaged: Callable, tmp_path: Path) -> None:
    archive = export_model(packaged(), tmp_path / "out" / "v2.zip")
    with zipfile.ZipFile(archive) as packed:
        assert packed.testzip() is None
        names = set(packed.namelist())
    models = {f"{model}/{name}" for model in (LOW, FULL) for name in (
        "plans.json", "dataset.json", "fold_0/checkpoint_final.pth", "fold_1/checkpoint_final.pth",
    )}  # fmt: skip
    chosen = {f"{CROSSVAL}/{name}" for name in (
        "plans.json", "dataset.json", "summary.json", "postprocessing.pkl", "postprocessing.json",
    )}  # fmt: skip
    assert names == models | chosen | {f"{BASE}/inference_information.json", f"{BASE}/inference_instructions.txt"}


def test_checkpoint(packaged: Callable, tmp_path: Path) -> None:
    model = packaged()
    archive = export_model(model, tmp_path / "v2.zip")
    checkpoint = read(archive, f"{FULL}/fold_1/checkpoint_final.pth")
    assert set(checkpoint) == {
        "network_weights", "optimizer_state", "grad_scaler_state", "logging", "_best_ema", "current_epoch",
        "init_args", "trainer_name", "inference_allowed_mirroring_axes",
    }  # fmt: skip
    assert checkpoint["trainer_name"] == "nnUNetTrainer" and checkpoint["current_epoch"] == 2
    assert checkpoint["inference_allowed_mirroring_axes"] == (1, 2), "only axes flipped in every fold"
    arguments = checkpoint["init_args"]
    assert (arguments["configuration"], arguments["fold"]) == ("3d_cascade", 1)
    assert arguments["plans"] == read(archive, f"{FULL}/plans.json")
    assert arguments["dataset_json"] == read(archive, f"{FULL}/dataset.json")
    assert {name: len(values) for name, values in checkpoint["logging"].items()} == dict.fromkeys(
        ("mean_fg_dice", "ema_fg_dice", "dice_per_class_or_region", "train_losses", "val_losses", "lrs",
         "epoch_start_timestamps", "epoch_end_timestamps"), 2,
    )  # fmt: skip
    ours = load_weights(model / "3d_cascade" / "fold_1" / "model.safetensors")
    weights = checkpoint["network_weights"]
    assert {canonical_name(name) for name in weights} == set(ours)
    assert all(torch.equal(tensor, ours[canonical_name(name)]) for name, tensor in weights.items())
    # method 7.2: encoder blocks under four names, decoder blocks under two, all else under one
    blocks = {name for name in ours if ".conv." in name or ".norm." in name}
    encoder = {name for name in blocks if name.startswith("encoder.")}
    assert len(weights) == len(ours) + 3 * len(encoder) + len(blocks - encoder)
    assert len({tensor.untyped_storage().data_ptr() for tensor in weights.values()}) == len(ours), "stored once"
    assert len(checkpoint["optimizer_state"]["param_groups"][0]["params"]) == len(ours)


def test_plans_and_dataset(packaged: Callable, tmp_path: Path) -> None:
    def change(plan: PredictPlan) -> PredictPlan:
        return replace(plan, preprocess=replace(plan.preprocess, spacing_mm=(3.0, 1.0, 0.5), reader="NibabelIO"))

    archive = export_model(packaged(change=change), tmp_path / "v2.zip")
    plans = read(archive, f"{FULL}/plans.json")
    assert list(plans) == [
        "dataset_name", "plans_name", "original_median_spacing_after_transp", "original_median_shape_after_transp",
        "image_reader_writer", "transpose_forward", "transpose_backward", "configurations", "experiment_planner_used",
        "label_manager", "foreground_intensity_properties_per_channel",
    ]  # fmt: skip
    assert (plans["dataset_name"], plans["image_reader_writer"]) == (BASE, "NibabelIO")
    entry = plans["configurations"]["3d_cascade"]
    assert list(entry) == [
        "data_identifier", "preprocessor_name", "batch_size", "patch_size", "median_image_size_in_voxels", "spacing",
        "normalization_schemes", "use_mask_for_norm", "resampling_fn_data", "resampling_fn_seg",
        "resampling_fn_data_kwargs", "resampling_fn_seg_kwargs", "resampling_fn_probabilities",
        "resampling_fn_probabilities_kwargs", "architecture", "batch_dice", "previous_stage",
    ]  # fmt: skip
    assert entry["spacing"] == [3.0, 1.0, 0.5] and entry["previous_stage"] == "3d_lowres"
    assert plans["configurations"]["3d_lowres"]["next_stage"] == "3d_cascade"
    assert plans["configurations"]["3d_more"] == {"inherits_from": "3d_lowres", "batch_size": 4}
    dataset = read(archive, f"{FULL}/dataset.json")
    assert dataset["channel_names"] == {"0": "MRI"} and dataset["file_ending"] == ".nii.gz"
    assert list(dataset["labels"].items()) == [("background", 0), ("a", 1), ("b|c", 2)]
    assert "label_order" not in dataset and "training" not in dataset


def test_regions_keep_their_order_and_statistics_of_ct_are_those_that_were_used(
    packaged: Callable, tmp_path: Path
) -> None:
    from segwright.core.plans import IntensityStatistics
    from segwright.sharing.nnunet_v2.plans_out import Names, peer_dataset_json, peer_plans

    labels = Labels((("background", (0,)), ("whole", (1, 2)), ("core", 2)), (1, 2))
    record = peer_dataset_json(labels, ("A", "B"), {"modality": {}, "label_order": [], "name": "x"})
    assert list(record["labels"].items()) == [("background", 0), ("whole", [1, 2]), ("core", 2)]
    assert record["regions_class_order"] == [1, 2] and record["channel_names"] == {"0": "A", "1": "B"}
    assert set(record) == {"channel_names", "labels", "regions_class_order", "name"}

    used = IntensityStatistics(1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0)

    def change(plan: PredictPlan) -> PredictPlan:
        return replace(plan, preprocess=replace(plan.preprocess, intensities=(used,)))

    model = packaged(change=change)
    from segwright.core.plans import Plans

    with open_model(model) as opened:
        plans = peer_plans(opened, Plans.from_json(read_json(model / "plans.json")), "3d_lowres", Names("d", "p"))
    assert plans["foreground_intensity_properties_per_channel"] == {"0": used.to_json()}


def test_equal_models_give_equal_bytes_and_nothing_is_overwritten(packaged: Callable, tmp_path: Path) -> None:
    model = packaged()
    first = export_model(model, tmp_path / "a.zip")
    assert file_digest(export_model(model, tmp_path / "b.zip")) == file_digest(first)
    before = file_digest(first)
    with pytest.raises(ModelError, match="never overwritten"):
        export_model(model, first)
    assert file_digest(first) == before and not list(tmp_path.glob(".part-*"))


def test_ensemble_has_its_own_folder(packaged: Callable, tmp_path: Path) -> None:
    archive = export_model(packaged(members=("3d_lowres", "3d_cascade")), tmp_path / "v2.zip")
    folder = f"{BASE}/ensembles/ensemble___nnUNetTrainer__plans__3d_lowres___nnUNetTrainer__plans__3d_cascade___0_1"
    with zipfile.ZipFile(archive) as packed:
        found = {name.removeprefix(f"{folder}/") for name in packed.namelist() if name.startswith(folder)}
        assert not [name for name in packed.namelist() if "crossval_results" in name]
    assert found == {"plans.json", "dataset.json", "summary.json", "postprocessing.pkl", "postprocessing.json"}
    information = read(archive, f"{BASE}/inference_information.json")
    assert [entry["configuration"] for entry in information["best_model_or_ensemble"]["selected_model_or_models"]] == [
        "3d_lowres", "3d_cascade",
    ]  # fmt: skip
    assert information["all_results"] == {folder.rsplit("/", 1)[1]: 0.8} and information["folds"] == [0, 1]
    lines = read(archive, f"{BASE}/inference_instructions.txt").splitlines()
    predictions = [line for line in lines if line.startswith("nnUNetv2_predict")]
    assert len(predictions) == 2 and all("--save_probabilities" in line for line in predictions)
    assert "-prev_stage_predictions OUTPUT_FOLDER_3d_lowres" in predictions[1]
    assert "nnUNetv2_ensemble -i OUTPUT_FOLDER_3d_lowres OUTPUT_FOLDER_3d_cascade -o OUTPUT_FOLDER" in lines


def test_what_v2_must_be_told_stands_in_the_commands(packaged: Callable, tmp_path: Path) -> None:
    model = packaged(prediction=PredictionSettings(tile_step=0.75, mirroring=False), rules=())
    archive = export_model(model, tmp_path / "v2.zip")
    text = read(archive, f"{BASE}/inference_instructions.txt")
    predictions = [line for line in text.splitlines() if line.startswith("nnUNetv2_predict")]
    assert len(predictions) == 2 and all("-step_size 0.75" in line and "-f 0 1" in line for line in predictions)
    assert "nnUNetv2_apply_postprocessing" not in text
    checkpoint = read(archive, f"{LOW}/fold_0/checkpoint_final.pth")
    assert checkpoint["inference_allowed_mirroring_axes"] is None, "v2 never flips then, and fails on an empty list"


MANY_VALUES = Labels((("background", 0), ("a", (1, 2, 300)), ("b", (2, 300)), ("c", 300)), (1, 2, 300))


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"prediction": PredictionSettings(average="probabilities")}, "averages logits"),
        ({"prediction": PredictionSettings(gaussian=False)}, "gaussian"),
        ({"rules": (Rule((1,), "faces"),)}, "by faces"),
        ({"change": lambda plan: replace(plan, preprocess=replace(plan.preprocess, order_of_steps="resample_first"))},
         "resampled before"),
        ({"change": lambda plan: replace(plan, preprocess=replace(plan.preprocess, label_resize="threshold"))},
         "3d_cascade: the previous stage's label maps"),
        ({"change": lambda plan: replace(plan, architecture=replace(plan.architecture, kind="my_net"))}, "my_net"),
        ({"change": lambda plan: replace(plan, preprocess=replace(plan.preprocess, labels=MANY_VALUES))},
         "writes 300, of which nnU-Net v2 keeps 8 bits (44)"),
    ],
)  # fmt: skip
def test_what_v2_cannot_repeat_is_refused(packaged: Callable, tmp_path: Path, given: Any, reason: str) -> None:
    with pytest.raises(ModelError, match="not exported") as raised:
        export_model(packaged(**given), tmp_path / "v2.zip")
    assert reason in str(raised.value)
    assert not (tmp_path / "v2.zip").exists() and not list(tmp_path.glob(".part-*"))


def test_names_v2_can_find(packaged: Callable, tmp_path: Path) -> None:
    model = packaged(name="liver of clinic A")
    with pytest.raises(ModelError, match="--dataset-id"):
        export_model(model, tmp_path / "v2.zip")
    with pytest.raises(ModelError, match="1 to 999"):
        export_model(model, tmp_path / "v2.zip", dataset_id=1000)
    archive = export_model(model, tmp_path / "v2.zip", dataset_id=42)
    plans = read(archive, "Dataset042_liver_of_clinic_A/nnUNetTrainer__plans__3d_cascade/plans.json")
    assert plans["dataset_name"] == "Dataset042_liver_of_clinic_A"


@pytest.mark.parametrize("fold", ["0/../../../../escaped", "..", "-1", "0_1"])
def test_names_of_folds_never_become_paths(packaged: Callable, tmp_path: Path, fold: str) -> None:
    model = packaged()
    manifest = read_json(model / "model.json")
    folds = manifest["configurations"]["3d_cascade"]["folds"]
    manifest["configurations"]["3d_cascade"]["folds"] = {"0": folds["0"], fold: folds["1"]}
    write_json(model / "model.json", manifest, sealed=True)
    with pytest.raises(ModelError, match="cannot be the name of a fold"):
        export_model(model, tmp_path / "out" / "v2.zip")
    assert not list(tmp_path.rglob("*escaped*")) and not list(tmp_path.rglob("*.zip"))


def test_weights_that_do_not_fit_are_refused(packaged: Callable, tmp_path: Path) -> None:
    def wider(plan: PredictPlan) -> PredictPlan:
        return replace(plan, architecture=replace(plan.architecture, features_per_stage=(4, 16)))

    with pytest.raises(ModelError, match=r"model\.safetensors: the weights do not fit"):
        export_model(packaged(change=wider), tmp_path / "v2.zip")
    assert not (tmp_path / "v2.zip").exists() and not list(tmp_path.glob(".part-*"))


@pytest.mark.parametrize("members", [("3d_cascade",), ("3d_lowres", "3d_cascade")])
def test_there_and_back_gives_the_same_segmentation(packaged: Callable, tmp_path: Path, members: tuple) -> None:
    from segwright.sharing.nnunet_v2.import_model import import_model

    model = packaged(rules=(Rule((1, 2)), Rule((2,))), members=members)
    write_case(tmp_path / "images", "A", 3)
    back = import_model(export_model(model, tmp_path / "v2.zip"), tmp_path / "back")
    with open_model(model) as ours, open_model(back) as theirs:
        assert theirs.members == ours.members and theirs.rules == ours.rules
        for name, entry in ours.configurations.items():
            for mine, other in zip(entry.folds, theirs.configurations[name].folds, strict=True):
                before, after = load_weights(mine.weights), load_weights(other.weights)
                assert before.keys() == after.keys()
                assert all(torch.equal(before[key], after[key]) for key in before)
        files = [
            predict_with_model(opened, tmp_path / "images", tmp_path / name, workers=1)["A"]
            for name, opened in (("ours", ours), ("theirs", theirs))
        ]
    assert files[0].read_bytes() == files[1].read_bytes()
