"""From nnU-Net v2's results to a model: what is chosen, what is refused, and that nothing is left behind."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from segwright.core.errors import DatasetError, ModelError, PlansError, SegwrightError, SettingsError
from segwright.core.files import read_json
from segwright.core.plans import Plans
from segwright.images.readers import read_label
from segwright.networks.weights import canonical_state, load_weights
from segwright.selection.components import Rule
from segwright.sharing.model import open_model
from segwright.sharing.nnunet_v2.import_model import import_model
from segwright.sharing.use import predict_with_model
from tests.unit.sharing.nnunet_v2 import made
from tests.unit.sharing.nnunet_v2.importing import Malicious, assert_refused, imported
from tests.unit.sharing.test_use import write_case


def test_a_single_configuration(root: Path, tmp_path: Path) -> None:
    folder = made.model_folder(root, "3d_fullres")
    made.crossval(folder / "crossval_results_folds_0_1", 0.8, [[1, 2], 2])
    with open_model(imported(root, tmp_path)) as model:
        assert model.name == made.DATASET and model.members == ("3d_fullres",)
        (entry,) = model.configurations.values()
        assert [fold.fold for fold in entry.folds] == ["0", "1"] and entry.mirror_axes == (0, 1, 2)
        assert model.rules == (Rule((1, 2)), Rule((2,)))
        saved = torch.load(folder / "fold_1" / "checkpoint_final.pth", weights_only=False)["network_weights"]
        expected, found = canonical_state(saved), load_weights(entry.folds[1].weights)
        assert expected.keys() == found.keys() and all(torch.equal(expected[name], found[name]) for name in found)
        training = read_json(entry.folds[1].training)
        assert training["imported"]["trainer"] == "nnUNetTrainer" and training["epochs"] == 2
        assert training["metrics"]["ema_fg_dice"] == 0.5
        assert read_json(model.folder / "metrics.json")["candidates"]["3d_fullres"]["foreground_mean"]["Dice"] == 0.8
        card = (model.folder / "README.md").read_text()
        assert "imported" in card and "trainer nnUNetTrainer, plans nnUNetPlans" in card and "/there" not in card


def test_the_imported_model_predicts(root: Path, tmp_path: Path) -> None:
    made.model_folder(root, "3d_cascade_fullres")
    made.model_folder(root, "3d_lowres")
    made.information(root, ["3d_cascade_fullres"])
    write_case(tmp_path / "images", "a", 1)
    with open_model(imported(root, tmp_path)) as model:
        assert model.stages() == ("3d_lowres", "3d_cascade_fullres") and model.members == ("3d_cascade_fullres",)
        files = predict_with_model(model, tmp_path / "images", tmp_path / "segmentations", workers=0)
    assert [path.name for path in files.values()] == ["a.nii.gz"]


def test_nnunet_s_selection_of_an_ensemble(root: Path, tmp_path: Path) -> None:
    for name in ("2d", "3d_fullres", "3d_lowres"):
        made.model_folder(root, name, ("0", "1", "2"))
    made.information(root, ["2d", "3d_fullres"])
    ensemble = "ensemble___nnUNetTrainer__nnUNetPlans__2d___nnUNetTrainer__nnUNetPlans__3d_fullres___0_1"
    made.crossval(root / "ensembles" / ensemble, 0.9, [[1]])
    with open_model(imported(root, tmp_path)) as model:
        assert model.members == ("2d", "3d_fullres") and set(model.configurations) == {"2d", "3d_fullres"}
        assert [fold.fold for fold in model.configurations["2d"].folds] == ["0", "1"]
        assert model.rules == (Rule((1,)),)
        selection = read_json(model.folder / "selection.json")
        assert selection["scores"]["2d+3d_fullres"] == 0.8 and "selected by nnU-Net" in selection["reason"]
        assert read_json(model.folder / "metrics.json")["best"] == "2d+3d_fullres"
    assert_refused(root, tmp_path / "other", "has no .* of fold 7", folds=[7])
    for model in root.glob("nnUNetTrainer*"):
        shutil.rmtree(model / "fold_1")  # exported with fewer folds than it was selected with
    with open_model(import_model(root, tmp_path / "fewer")) as model:
        assert [fold.fold for fold in model.configurations["3d_fullres"].folds] == ["0"]
        assert "was selected with fold 1, which is missing" in (model.folder / "README.md").read_text()


def test_the_choice_can_be_made_by_hand(root: Path, tmp_path: Path) -> None:
    for name in ("2d", "3d_fullres"):
        made.model_folder(root, name)
    made.model_folder(root, "3d_fullres", ("all",), plans_name="nnUNetResEncUNetLPlans")
    assert_refused(root, tmp_path, "no inference_information.json .* choose with --configurations")
    assert_refused(root, tmp_path, "several times", SettingsError, configurations=["3d_fullres"])
    assert_refused(root, tmp_path, "is not there", SettingsError, configurations=["3d"])
    names = ["nnUNetTrainer__nnUNetPlans__3d_fullres", "nnUNetTrainer__nnUNetResEncUNetLPlans__3d_fullres", "2d"]
    assert_refused(root, tmp_path, "of fold 0, 1 .there is all", configurations=names, folds=[0, 1])
    with open_model(imported(root, tmp_path, configurations=names)) as model:
        renamed = [name.replace("__", "_") for name in names]
        assert model.members == tuple(renamed)
        assert [fold.fold for fold in model.configurations[renamed[1]].folds] == ["all"]
        assert set(renamed) <= set(read_json(model.folder / "plans.json")["configurations"])
    with open_model(import_model(root, tmp_path / "second", configurations=["2d"], folds=["1"])) as model:
        assert [fold.fold for fold in model.configurations["2d"].folds] == ["1"]
        assert model.configurations["2d"].mirror_axes == (0, 1)


def test_one_folder_under_any_name(root: Path, tmp_path: Path) -> None:
    folder = made.model_folder(root, "2d")
    made.model_folder(root, "3d_fullres")
    with open_model(imported(folder, tmp_path)) as model:
        assert model.members == ("2d",)
    with open_model(import_model(made.renamed(folder, "my best model"), tmp_path / "second")) as model:
        assert model.members == ("2d",)
    assert_refused(root / "my best model", tmp_path / "x", "leave it out", SettingsError, configurations=["2d"])
    assert_refused(root / "my best model" / "fold_0", tmp_path / "x", "is no results folder")


def test_copies_with_a_name_like_nnunet_s(root: Path, tmp_path: Path) -> None:
    folder = made.renamed(made.model_folder(root, "3d_fullres"), "nnUNetTrainer__nnUNetPlans__3d_fullres_backup")
    sources = {"folder": folder, "results": root, "zip": made.zipped(folder, tmp_path / "model.zip")}
    for name, source in sources.items():
        with open_model(import_model(source, tmp_path / name)) as model:
            assert model.members == ("3d_fullres",)
    folder = made.renamed(folder, "nnUNetTrainer__nnUNetPlans__3d_lowres")  # all that is there, so no other is meant
    with open_model(import_model(folder, tmp_path / "misnamed")) as model:
        assert model.members == ("3d_fullres",)


def test_all_cases_and_best_checkpoints(root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = made.model_folder(root, "3d_fullres", ("0", "1", "all"))
    (folder / "fold_1" / "checkpoint_final.pth").rename(folder / "fold_1" / "checkpoint_best.pth")
    (folder / "fold_2").mkdir()
    with open_model(imported(root, tmp_path, folds=["0", "1"])) as model:
        assert [fold.fold for fold in model.configurations["3d_fullres"].folds] == ["0", "1"]
        card = (model.folder / "README.md").read_text()
        notes = read_json(model.folder / "3d_fullres/fold_1/training.json")["imported"]["notes"]
    assert "fold 1 has no final checkpoint, checkpoint_best.pth was taken" in card
    assert len(notes) == 1 and notes[0] in caplog.text
    with open_model(import_model(root, tmp_path / "second", folds=["all"])) as model:
        assert [fold.fold for fold in model.configurations["3d_fullres"].folds] == ["all"]
        assert read_json(model.folder / "selection.json")["planned_folds"] == 1


def test_folds_that_still_train_do_not_join_finished_ones(root: Path, tmp_path: Path) -> None:
    folder = made.model_folder(root, "3d_fullres", ("0", "1", "2"))
    (folder / "fold_2" / "checkpoint_final.pth").rename(folder / "fold_2" / "checkpoint_best.pth")
    (folder / "fold_3").mkdir()

    def folds(name: str, **options: Any) -> tuple[list[str], str]:
        with open_model(import_model(root, tmp_path / name, **options)) as model:
            card = (model.folder / "README.md").read_text()
            return [fold.fold for fold in model.configurations["3d_fullres"].folds], card

    found, card = folds("detected")
    assert found == ["0", "1"] and "fold 2, 3 has no final checkpoint and was left out" in card
    found, card = folds("named", folds=["1", "2"])
    assert found == ["1", "2"] and "fold 2 has no final checkpoint, checkpoint_best.pth was taken" in card
    made.information(root, ["3d_fullres"], (0, 1, 2))
    found, card = folds("selected")
    assert found == ["0", "1"] and "was selected with fold 2, which is missing or unfinished" in card
    (root / "inference_information.json").unlink()
    for fold in ("0", "1"):
        (folder / f"fold_{fold}" / "checkpoint_final.pth").rename(folder / f"fold_{fold}" / "checkpoint_best.pth")
    assert folds("none is finished")[0] == ["0", "1", "2"]


def test_a_cascade_needs_its_previous_stage(root: Path, tmp_path: Path) -> None:
    made.model_folder(root, "3d_cascade_fullres")
    assert_refused(root, tmp_path, "is a cascade on 3d_lowres, but .* has no nnUNetTrainer__nnUNetPlans__3d_lowres")
    made.model_folder(root, "3d_lowres", ("0",))
    with open_model(imported(root / "nnUNetTrainer__nnUNetPlans__3d_cascade_fullres", tmp_path)) as model:
        assert [fold.fold for fold in model.configurations["3d_lowres"].folds] == ["0"]  # all it has
        assert model.configurations["3d_lowres"].plan.next_stages == ("3d_cascade_fullres",)


def test_stages_whose_folders_were_renamed_belong_together(root: Path, tmp_path: Path) -> None:
    """nnU-Net looks for the previous stage under its own trainer's name, so people rename shorter trainings."""
    short, usual = "nnUNetTrainer_250epochs", "nnUNetTrainer"
    lowres = made.model_folder(root, "3d_lowres", trainer=short)
    made.renamed(lowres, f"{usual}__nnUNetPlans__3d_lowres")
    for name, trainer in (("one", usual), ("both", short)):
        cascade = made.model_folder(root, "3d_cascade_fullres", trainer=trainer)
        if trainer == short:
            made.renamed(cascade, f"{usual}__nnUNetPlans__3d_cascade_fullres")
        with open_model(import_model(root, tmp_path / name, configurations=["3d_cascade_fullres"])) as model:
            assert model.configurations["3d_cascade_fullres"].previous_stage == "3d_lowres"
            assert model.configurations["3d_lowres"].plan.next_stages == ("3d_cascade_fullres",)
            lines = (model.folder / "README.md").read_text()
            assert f"3d_lowres: trainer {short}" in lines and f"3d_cascade_fullres: trainer {trainer}" in lines
        shutil.rmtree(root / f"{usual}__nnUNetPlans__3d_cascade_fullres")


def test_a_renamed_previous_stage_is_found_in_the_plans(root: Path, tmp_path: Path) -> None:
    for name in ("3d_cascade_fullres", "3d_lowres"):
        made.model_folder(root, name)
    made.model_folder(root, "3d_lowres", plans_name="Other")
    chosen = ["3d_cascade_fullres", "nnUNetTrainer__Other__3d_lowres"]
    with open_model(imported(root, tmp_path, configurations=chosen)) as model:
        previous = "nnUNetTrainer_nnUNetPlans_3d_lowres"
        assert model.configurations["3d_cascade_fullres"].previous_stage == previous
        plans = Plans.from_json(read_json(model.folder / "plans.json"))
        assert plans.configuration("3d_cascade_fullres").previous_stage == previous
        assert plans.configuration(previous).spacing_mm == (2.0, 2.0, 2.0)


def test_old_plans_mean_the_same(root: Path, tmp_path: Path) -> None:
    made.model_folder(root, "3d_cascade_fullres")
    made.model_folder(root, "3d_lowres")
    new = imported(root, tmp_path, configurations=["3d_cascade_fullres"])
    for path in root.glob("*/plans.json"):
        path.write_text(json.dumps(made.old_style(json.loads(path.read_text()))))
    old = import_model(root, tmp_path / "old", configurations=["3d_cascade_fullres"])
    for name in ("3d_cascade_fullres", "3d_lowres"):
        ours, theirs = (read_json(model / name / "predict.json") for model in (new, old))
        for record in (ours, theirs):
            record["preprocess"].pop("data_name")  # only names the folder of the store
        assert ours == theirs


def test_half_weights_become_float32_and_no_mirroring_stays_none(root: Path, tmp_path: Path) -> None:
    folder = made.model_folder(root, "3d_fullres", ("0",))
    content = made.checkpoint("3d_fullres", axes=None)
    content["network_weights"] = {f"module.{key}": value.half() for key, value in content["network_weights"].items()}
    torch.save(content, folder / "fold_0" / "checkpoint_final.pth")
    with open_model(imported(root, tmp_path)) as model:
        (entry,) = model.configurations.values()
        assert entry.mirror_axes == ()
        assert {value.dtype for value in load_weights(entry.folds[0].weights).values()} == {torch.float32}


def test_another_network_than_planned_is_refused_by_its_keys(root: Path, tmp_path: Path) -> None:
    folder = made.model_folder(root, "3d_fullres", ("0",), trainer="nnUNetTrainerBN")
    content = made.checkpoint("3d_fullres", trainer="nnUNetTrainerBN")
    weights = content["network_weights"]
    weights["encoder.stages.0.0.convs.0.norm.running_mean"] = torch.zeros(2)
    del weights["decoder.seg_layers.0.bias"]
    torch.save(content, folder / "fold_0" / "checkpoint_final.pth")
    assert_refused(root, tmp_path, "nnUNetTrainerBN .*seg_layers.0.bias is missing.*running_mean is unknown")


@pytest.mark.parametrize(
    ("trainer", "is_told"),
    [
        ("nnUNetTrainer", False), ("nnUNetTrainer_250epochs", False), ("nnUNetTrainerNoDeepSupervision", False),
        ("nnUNetTrainerDA5", False), ("nnUNetTrainerBN", True), ("nnUNetTrainerGELU", True),
    ],
)  # fmt: skip
def test_trainers_that_may_have_changed_the_network_are_told(
    trainer: str, is_told: bool, root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Another activation has no weights of its own, so nothing in the files shows it."""
    made.model_folder(root, "3d_fullres", ("0",), trainer=trainer)
    with open_model(imported(root, tmp_path)) as model:
        card = (model.folder / "README.md").read_text()
    note = f"the trainer {trainer} is none of nnU-Net's own that train the planned network; if it changes activations"
    assert (note in card) == (note in caplog.text) == is_told


def test_names_of_one_tensor_must_agree(root: Path, tmp_path: Path) -> None:
    folder = made.model_folder(root, "3d_fullres", ("0",))
    content = made.checkpoint("3d_fullres")
    name = "decoder.encoder.stages.0.0.convs.0.conv.weight"
    content["network_weights"][name] = content["network_weights"][name] + 1
    torch.save(content, folder / "fold_0" / "checkpoint_final.pth")
    assert_refused(root, tmp_path, "checkpoint_final.pth: .*hold different values")


def test_weights_of_a_diverged_training_are_refused(root: Path, tmp_path: Path) -> None:
    folder = made.model_folder(root, "3d_fullres", ("0",))
    content = made.checkpoint("3d_fullres")
    for tensor in content["network_weights"].values():  # v2 trains so with two resolutions: the loss is 0 / 0
        tensor.fill_(float("nan"))
    torch.save(content, folder / "fold_0" / "checkpoint_final.pth")
    assert_refused(root, tmp_path, "checkpoint_final.pth: .* tensors hold NaN .* training diverged")


def test_labels_regions_and_channels(root: Path, tmp_path: Path) -> None:
    facts = {
        "modality": {"0": "MRI"},
        "labels": {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3, "rim": 1},
        "regions_class_order": [1, 2, 1],
        "numTraining": 4,
        "file_ending": ".nii.gz",
    }
    made.model_folder(root, "3d_fullres", facts=facts)
    with open_model(imported(root, tmp_path)) as model:
        assert model.labels.foreground_regions == ((1, 2), (2,), 1) and model.labels.ignore_label == 3
        assert model.channel_names == ("MRI",) and "modality" not in read_json(model.folder / "dataset.json")


def test_regions_with_gaps_between_label_values_predict(root: Path, tmp_path: Path) -> None:
    """Two foreground values are two channels of the cascade; its network and the first stage's have three outputs."""
    facts = {
        **made.FACTS,
        "labels": {"background": 0, "whole": [1, 4], "core": [4], "rim": 1},
        "regions_class_order": [1, 4, 1],
    }
    made.model_folder(root, "3d_lowres", ("0",), facts=facts)
    folder = made.model_folder(root, "3d_cascade_fullres", ("0",), facts=facts)
    made.crossval(folder / "crossval_results_folds_0", 0.8, [[1, 4]])
    write_case(tmp_path / "images", "a", 1)
    with open_model(imported(root, tmp_path, configurations=["3d_cascade_fullres"])) as model:
        assert model.labels.foreground_labels == (1, 4) and model.rules == (Rule((1, 4)),)
        files = predict_with_model(model, tmp_path / "images", tmp_path / "segmentations", workers=0)
    values = np.unique(read_label(files["a"], "SimpleITKIO").array_zyx)
    assert set(values) <= {0, 1, 4} and len(values) > 1


def test_labels_written_as_texts_become_numbers(root: Path, tmp_path: Path) -> None:
    facts = {**made.FACTS, "labels": {"background": "0", "organ": "1", "lesion": "2"}}
    made.model_folder(root, "3d_fullres", ("0",), facts=facts)
    with open_model(imported(root, tmp_path)) as model:
        assert model.labels.all_labels == (0, 1, 2)
        assert read_json(model.folder / "dataset.json")["labels"] == made.FACTS["labels"]


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"labels": {"background": 0, "a": 2}}, DatasetError, "dataset.json: .*consecutive"),
        ({"labels": None}, DatasetError, "dataset.json: .*labels"),
        ({"channel_names": {"MRI": "0"}}, DatasetError, "channel_names"),
        ({"channel_names": {"0": "MRI", "00": "CT"}}, DatasetError, "channel_names"),
        ({"channel_names": {}}, DatasetError, "channel_names"),
        ({"channel_names": {"0": "MRI", "1": "CT"}}, ModelError, "for 1 channels, but .* declares 2"),
        ({"file_ending": ".png"}, DatasetError, "SimpleITKIO cannot read .png"),
        ({"file_ending": None}, DatasetError, "file_ending"),
    ],
)
def test_a_wrong_dataset_json_is_refused(
    change: dict[str, Any], error: type[SegwrightError], words: str, root: Path, tmp_path: Path
) -> None:
    made.model_folder(root, "3d_fullres", ("0",), facts={**made.FACTS, **change})
    assert_refused(root, tmp_path, words, error)


def test_members_must_fit_each_other(root: Path, tmp_path: Path) -> None:
    made.model_folder(root, "2d", plans={**made.plans_record(), "transpose_forward": [1, 0, 2]}, plans_name="Other")
    made.model_folder(root, "3d_fullres")
    made.model_folder(root, "3d_lowres", facts={**made.FACTS, "labels": {"background": 0, "b": 1, "a": 2}})
    assert_refused(root, tmp_path, "another axis order", configurations=["3d_fullres", "2d"])
    assert_refused(root, tmp_path, "other labels", configurations=["3d_fullres", "3d_lowres"])


def test_misplaced_checkpoints(root: Path, tmp_path: Path) -> None:
    folder = made.model_folder(root, "3d_fullres")
    torch.save(made.checkpoint("3d_lowres"), folder / "fold_1" / "checkpoint_final.pth")
    assert_refused(root, tmp_path, "fold_1.* belongs to another configuration")
    torch.save(made.checkpoint("3d_lowres"), folder / "fold_0" / "checkpoint_final.pth")
    assert_refused(root, tmp_path, "is a checkpoint of 3d_lowres, but lies in")


def test_a_malicious_checkpoint_or_postprocessing_runs_nothing(root: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    folder = made.model_folder(root, "3d_fullres", ("0",))
    bad = {**made.checkpoint("3d_fullres"), "logging": Malicious(marker)}
    torch.save(bad, folder / "fold_0" / "checkpoint_final.pth")
    assert_refused(root, tmp_path, rf"checkpoint_final.pth: refused .*{os.name}\.system")
    assert_refused(made.zipped(root, tmp_path / "model.zip"), tmp_path, rf"model\.zip/.*{os.name}\.system")
    torch.save(made.checkpoint("3d_fullres"), folder / "fold_0" / "checkpoint_final.pth")
    scored = made.crossval(folder / "crossval_results_folds_0", rules=[1])
    command = [{"labels_or_regions": 1}]
    (scored / "postprocessing.pkl").write_bytes(made.postprocessing_pickle(command, "posix.system"))
    assert_refused(root, tmp_path, r"postprocessing.pkl: refused .*posix\.system")
    assert not marker.exists()


def test_labels_of_postprocessing_must_exist(root: Path, tmp_path: Path) -> None:
    folder = made.model_folder(root, "3d_fullres", ("0",))
    made.crossval(folder / "crossval_results_folds_0", rules=[[1, 5]])
    assert_refused(root, tmp_path, r"postprocesses the labels \[5\]")


def test_inputs_that_are_no_results(root: Path, tmp_path: Path) -> None:
    assert_refused(tmp_path / "nowhere", tmp_path, "there is no such folder")
    (tmp_path / "empty").mkdir()
    assert_refused(tmp_path / "empty", tmp_path, "is no results folder of nnU-Net v2")
    (tmp_path / "file").write_text("x")
    assert_refused(tmp_path / "file", tmp_path, "nor a zip archive")
    made.model_folder(root, "3d_fullres", ())
    assert_refused(root, tmp_path, "none with a checkpoint")
    made.model_folder(root.with_name("Dataset008_Other"), "3d_fullres", ("0",))
    assert_refused(root.parent, tmp_path, "several datasets .Dataset007_Made, Dataset008_Other")
    made.information(root, ["2d"])
    assert_refused(root, tmp_path, "nnU-Net selected nnUNetTrainer__nnUNetPlans__2d, which is not in")
    (root / "inference_information.json").write_text("[]")
    assert_refused(root, tmp_path, "is not what nnU-Net writes")


def test_an_existing_output_stays(root: Path, tmp_path: Path) -> None:
    made.model_folder(root, "3d_fullres", ("0",))
    (tmp_path / "out" / "model").mkdir(parents=True)
    with pytest.raises(ModelError, match="exists already"):
        imported(root, tmp_path)
    assert not list((tmp_path / "out" / "model").iterdir())


def test_plans_that_cannot_be_followed_are_named(root: Path, tmp_path: Path) -> None:
    made.model_folder(root, "3d_fullres", ("0",), plans=made.plans_record(**{"3d_fullres": made.entry(
        normalization_schemes=["MyNormalization"])}))  # fmt: skip
    assert_refused(root, tmp_path, "plans.json: .*MyNormalization is not available", PlansError)


def test_equal_inputs_give_equal_models(root: Path, tmp_path: Path) -> None:
    made.model_folder(root, "3d_fullres")
    one, two = imported(root, tmp_path), import_model(root, tmp_path / "second")
    assert (one / "model.json").read_bytes() == (two / "model.json").read_bytes()
    assert np.array_equal(*(np.fromfile(path / "3d_fullres/fold_0/model.safetensors", np.uint8) for path in (one, two)))
