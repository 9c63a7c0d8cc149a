"""What the workflow asks of a configuration: cases, batches, folds, candidates and params."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from segwright.batches import Batches
from segwright.core.dataset import batch_of
from segwright.core.errors import DamagedFileError, DatasetError, PlansError, SettingsError
from segwright.core.files import read_json, write_bytes, write_json
from segwright.core.settings import ExecutionSettings
from segwright.experiment import Experiment, candidate_of, loader_workers, training_settings
from segwright.planned import planned_configuration, previous_stages, read_configurations
from tests.unit.experiments import FOUR, NAME, PLAN, load_experiment, make_raw, planned

Load = Callable[..., Experiment]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return make_raw(tmp_path / NAME)


@pytest.fixture
def load(raw: Path) -> Load:
    return partial(load_experiment, raw)


# --- datasets and their batches ---------------------------------------------------------------------------------------


def cases_of(batches: Batches) -> list[str]:
    return sorted(case_id for batch in batches.names for case_id in batches.case_ids(batch))


def test_each_dataset_has_as_many_batches_as_are_set(raw: Path) -> None:
    numbers = {"Dataset001_X": 1, "Dataset002_Y": 2}
    datasets = {name: {"path": str(raw), "batches": number} for name, number in numbers.items()}
    experiment = Experiment.load({"datasets": datasets})
    for name, number in numbers.items():
        training, test = experiment.training_batches(name), experiment.test_batches(name)
        assert training.names == [f"batch_{index}" for index in range(number)]
        assert cases_of(training) == [f"c{index}" for index in range(7)] and cases_of(test) == ["t0", "t1", "t2"]
        assert experiment.training_batches(name) is training and experiment.test_batches(name) is test  # cut once


def test_a_dataset_without_test_images(load: Load, raw: Path) -> None:
    for path in (raw / "imagesTs").iterdir():
        path.unlink()
    (raw / "imagesTs").rmdir()
    assert load().test_batches(NAME).names == []


def test_a_missing_dataset_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="nowhere: the dataset folder does not exist"):
        Experiment.load({"datasets": {"X": {"path": "nowhere"}}})


# --- folds ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folds", "expected"),
    [(None, ["0", "1", "2"]), ([2, 0, 2], ["0", "2"]), ("all", ["all"]), ([1], ["1"])],
)
def test_requested_folds(load: Load, folds: Any, expected: list[str]) -> None:
    experiment = load({"splits": {"folds": 3}}, training={"folds": folds})
    assert experiment.requested_folds(NAME, "default") == expected
    assert experiment.planned_folds(NAME) == ["0", "1", "2"]
    assert experiment.trains_on_all_cases_only(NAME) == (folds == "all")


def test_names_that_are_not_configured_are_refused_with_those_that_are(load: Load) -> None:
    experiment = load({"splits": {"folds": 3}})
    for fold in ("0", "2", "all"):
        experiment.require_fold(NAME, fold)
    batches = experiment.training_batches(NAME)
    for ask, told in [
        (lambda: experiment.require_fold(NAME, "3"), "there is no fold 3 .there are: 0, 1, 2, all."),
        (lambda: batches.files("batch_99"), "there is no batch batch_99 "),
        (lambda: batches.case_ids("batch_99"), "there is no batch batch_99 "),
        (lambda: planned_configuration(PLAN, "4d"), "there is no planned configuration 4d "),
    ]:
        with pytest.raises(SettingsError, match=told):
            ask()


@pytest.mark.parametrize("folds", [[3], [-1], []])
def test_folds_that_do_not_exist_are_refused_at_once(load: Load, folds: list[int]) -> None:
    with pytest.raises(SettingsError, match=r"dataset Dataset001_X, which has folds 0 to 2"):
        load({"splits": {"folds": 3}}, training={"folds": folds})


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"class_weights": [1, 2, 3]}, f"has 3 entries, but the network for dataset {NAME} has 2 outputs"),
        ({"weights": "best", "folds": "all"}, "need validation cases"),
        ({"early_stopping": 5, "folds": "all"}, "need validation cases"),
        ({"precision": "fp16"}, "fp16 needs CUDA, but execution.device is cpu"),
    ],
)
def test_what_every_training_would_refuse_is_refused_at_once(load: Load, training: Any, message: str) -> None:
    execution = {"device": "cpu"}
    load(training={"class_weights": [1, 2], "weights": "best", "precision": "bf16"}, execution=execution)
    load(training={"precision": "fp16"})  # there the job finds the device
    with pytest.raises(SettingsError, match=message):
        load(training=training, execution=execution)


def test_one_pipeline_that_cross_validates_needs_all_folds(load: Load) -> None:
    experiment = load(training={"folds": "all"}, pipelines={"cv": {"training": {"folds": None}}})
    assert experiment.requested_folds(NAME, "default") == ["all"]
    assert not experiment.trains_on_all_cases_only(NAME)


def test_ready_made_folds_say_how_many_there_are(load: Load, raw: Path, tmp_path: Path) -> None:
    folds = [{"train": ["c0"], "val": [f"c{k}"]} for k in range(1, 5)]
    write_json(tmp_path / "mine.json", folds[:2])
    assert load({"splits": {"file": str(tmp_path / "mine.json")}}).planned_folds(NAME) == ["0", "1"]
    with pytest.raises(SettingsError, match=r"folds 0 to 1 \(.*mine\.json\)"):
        load({"splits": {"file": str(tmp_path / "mine.json")}}, training={"folds": [4]})
    write_json(raw / "splits_final.json", folds)  # as nnU-Net v2 finds it
    assert len(load().planned_folds(NAME)) == 4
    assert len(load({"splits": {"file": str(tmp_path / "mine.json")}}).planned_folds(NAME)) == 2
    assert len(load({"splits": {"group_pattern": "c"}}).planned_folds(NAME)) == 5  # then it is not used
    write_json(raw / "splits_final.json", {})
    assert len(load().planned_folds(NAME)) == 5  # making the split says what is wrong with it
    with pytest.raises(DamagedFileError, match=r"nowhere\.json: the file does not exist"):
        load({"splits": {"file": "nowhere.json"}})


def test_cases_that_two_trained_folds_validate_are_refused_at_once(load: Load, raw: Path) -> None:
    folds = [{"train": ["c0"], "val": val} for val in (["c1", "c2"], ["c3"], ["c4", "c2"])]
    write_json(raw / "splits_final.json", folds)
    with pytest.raises(DatasetError, match=r"splits_final\.json: case c2 is in the validation of fold 0 and of fold 2"):
        load()
    with pytest.raises(DatasetError, match=r"training\.folds"):
        load(training={"folds": [0, 1]}, pipelines={"more": {"training": {"folds": [2, 0]}}})
    for chosen in ([0, 1], [1, 2], "all"):
        assert load(training={"folds": chosen}).planned_folds(NAME) == ["0", "1", "2"]


# --- configurations ---------------------------------------------------------------------------------------------------


def test_candidates_are_in_plans_order(load: Load) -> None:
    assert load().requested_configurations("default", PLAN) == list(FOUR)
    wanted = load(training={"configurations": ["3d_fullres", "2d"]})
    assert wanted.requested_configurations("default", PLAN) == ["2d", "3d_fullres"]


def test_what_a_small_dataset_does_not_have_is_no_mistake(load: Load) -> None:
    experiment = load(training={"configurations": ["3d_fullres", "3d_cascade_fullres"]})
    plan = planned(**{"2d": None, "3d_fullres": None})
    assert experiment.requested_configurations("default", plan) == ["3d_fullres"]
    with pytest.raises(SettingsError, match=r"none of training.configurations \['3d_fullres', .* was planned"):
        experiment.requested_configurations("default", planned(**{"2d": None}))


def test_a_misspelt_configuration_is_a_mistake(load: Load) -> None:
    experiment = load(training={"configurations": ["2d", "3d_fulres"]})
    with pytest.raises(SettingsError, match=r"names 3d_fulres, which the plans do not have \(planned: 2d, 3d_lowres"):
        experiment.requested_configurations("default", PLAN)


def test_what_predicts_must_be_trained(load: Load) -> None:
    def require(chosen: str | None, **training: Any) -> None:
        experiment = load(training=training, prediction={"configuration": chosen})
        experiment.require_what_predicts(NAME, "default", PLAN)

    for chosen in (None, "2d", "3d_cascade_fullres", "2d+3d_fullres"):
        require(chosen)
    refused = "dataset Dataset001_X, pipeline default: prediction.configuration is %s, but the candidates are %s;"
    with pytest.raises(SettingsError, match=refused % ("3d_fulres", "2d, 3d_lowres, .*")):
        require("3d_fulres")
    with pytest.raises(SettingsError, match=refused % ("2d", "3d_fullres")):
        require("2d", configurations=["3d_fullres"])
    with pytest.raises(SettingsError, match=re.escape(refused % ("2d+3d_fullres", ", ".join(FOUR)))):
        require("2d+3d_fullres", folds="all")  # without validation no ensemble is scored
    with pytest.raises(SettingsError, match="names 4d"):
        require(None, configurations=["4d"])


def test_of_several_datasets_some_may_lack_what_predicts(raw: Path) -> None:
    def loaded(chosen: str | None, number: int = 2) -> Experiment:
        datasets = {name: {"path": str(raw)} for name in (NAME, "Dataset002_Y")[:number]}
        return Experiment.load({"datasets": datasets, "prediction": {"configuration": chosen}})

    flat = planned(**{"2d": None})
    for chosen, lacking in {"3d_fullres": ["3d_fullres"], "2d+3d_lowres": ["3d_lowres"], "2d": [], None: []}.items():
        experiment = loaded(chosen)
        experiment.require_what_predicts(NAME, "default", flat)
        assert experiment.without_what_predicts("default", flat) == lacking
        assert experiment.without_what_predicts("default", PLAN) == []
    for chosen, number in (("3d_fullres", 1), ("3d_fulres", 2), ("3d_fulres+3d_fullres", 2)):
        with pytest.raises(SettingsError, match=f"{re.escape(chosen)}, but the candidates are 2d;"):
            loaded(chosen, number).require_what_predicts(NAME, "default", flat)


def test_what_cannot_be_trained_is_refused_only_where_it_is_needed(load: Load) -> None:
    plan = {**PLAN, "3d_lowres": replace(PLAN["3d_lowres"], problem="too small")}
    others = load(training={"configurations": ["2d", "3d_fullres"]})
    assert others.requested_configurations("default", plan) == ["2d", "3d_fullres"]
    for wanted in (None, ["3d_lowres"], ["3d_cascade_fullres"]):
        with pytest.raises(PlansError, match=r"^too small$"):
            load(training={"configurations": wanted}).requested_configurations("default", plan)


def test_a_cascade_needs_every_fold_of_its_previous_stage(load: Load) -> None:
    experiment = load({"splits": {"folds": 3}}, training={"configurations": ["3d_cascade_fullres"], "folds": [1]})
    folds = {name: experiment.folds_to_train(NAME, "default", name, PLAN) for name in PLAN}
    assert folds == {"2d": [], "3d_lowres": ["0", "1", "2"], "3d_fullres": [], "3d_cascade_fullres": ["1"]}


def test_a_cascade_on_all_cases_keeps_the_folds_of_its_previous_stage(load: Load) -> None:
    experiment = load({"splits": {"folds": 3}}, training={"folds": "all"})
    assert experiment.folds_to_train(NAME, "default", "3d_lowres", PLAN) == ["0", "1", "2", "all"]
    assert experiment.folds_to_train(NAME, "default", "3d_cascade_fullres", PLAN) == ["all"]
    only = load({"splits": {"folds": 3}}, training={"folds": "all", "configurations": ["3d_cascade_fullres"]})
    assert only.folds_to_train(NAME, "default", "3d_lowres", PLAN) == ["0", "1", "2"]


def test_cascades_are_recognised_by_previous_stage_not_by_name() -> None:
    plan = planned(a=None, b="a", c="b")
    assert previous_stages("c", plan) == ["b", "a"] and previous_stages("a", plan) == []
    assert plan["a"].next_stages == ("b",)


def test_ensembles_are_all_pairs_of_candidates(load: Load) -> None:
    pairs = load().ensembles(NAME, "default", PLAN)
    assert len(pairs) == 6 and pairs[0] == ("2d", "3d_lowres")
    assert load(selection={"ensembles": False}).ensembles(NAME, "default", PLAN) == []
    assert load(training={"folds": "all"}).ensembles(NAME, "default", PLAN) == []
    assert load(training={"configurations": ["2d"]}).ensembles(NAME, "default", PLAN) == []


def test_configurations_are_read_in_plans_order(tmp_path: Path) -> None:
    entries = {
        name: {"data_id": f"{name}-id", "previous_stage": its, "next_stages": list(PLAN[name].next_stages), "more": 1}
        for name, its in FOUR.items()
    }
    write_json(tmp_path / "configurations.json", {"configurations": entries}, sort_keys=False)
    assert read_configurations(tmp_path) == PLAN and list(read_configurations(tmp_path)) == list(FOUR)


@pytest.mark.parametrize(
    ("path", "name"),
    [("r/2d/crossval/summary.json", "2d"), ("r/ensembles/2d+3d_fullres/summary.json", "2d+3d_fullres")],
)
def test_the_candidate_of_a_summary(path: str, name: str) -> None:
    assert candidate_of(path) == name == candidate_of(Path(path))


# --- params -----------------------------------------------------------------------------------------------------------


def test_params_hold_only_what_changes_results(load: Load) -> None:
    """Choosing folds or configurations, or keeping files, must not run anything again."""
    plain = load()
    chosen = load(
        training={"folds": [0], "configurations": ["2d"], "keep_state": False},
        prediction={"configuration": "2d", "save_probabilities": True},
        execution={"device": "cpu", "jobs_per_gpu": 4},
    )
    assert chosen.training_params("default") == plain.training_params("default")
    assert chosen.prediction_params("default") == plain.prediction_params("default")
    assert plain.training_params("default")["epochs"] == 1000  # resolved
    changed = load(training={"seed": 1}, prediction={"tile_step": 0.25})
    assert changed.training_params("default") != plain.training_params("default")
    assert changed.prediction_params("default") != plain.prediction_params("default")


def test_training_settings_come_back_from_their_params(load: Load) -> None:
    experiment = load(training={"schedule": "short", "seed": 3, "class_weights": [1, 2]})
    made = training_settings(experiment.training_params("default"))
    assert (made.epochs, made.seed, made.class_weights, made.optimizer) == (20, 3, (1.0, 2.0), "adamw")


def test_pipelines_are_the_defaults_with_their_own_changes(load: Load) -> None:
    experiment = load(training={"seed": 5}, pipelines={"other": {"training": {"epochs": 2}}})
    assert experiment.pipelines == ("default", "other")
    assert (experiment.pipeline("other").training.seed, experiment.pipeline("other").training.epochs) == (5, 2)
    assert experiment.pipeline("default").training.epochs is None


def test_a_new_case_does_not_change_the_inspection_of_others(load: Load, raw: Path) -> None:
    before = load().inspection_params(NAME)
    assert before["channel_names"] == ["T1", "T2"] and before["labels"] == {"background": 0, "a": 1}
    write_bytes(raw / "imagesTr" / "c9_0000.nii.gz", b"")
    assert load().inspection_params(NAME) == before


def test_which_file_is_listed_as_what_is_part_of_the_inspection(load: Load, raw: Path) -> None:
    """As inputs of a rule the files of a batch have no order: they stay the same when channels change places."""
    facts = read_json(raw / "dataset.json")
    in_batch = {batch_of(name, 2): name for name in ("a", "d")}
    case_id, other_id = in_batch["batch_0"], in_batch["batch_1"]
    channels = ["imagesTr/c0_0000.nii.gz", "imagesTr/c0_0001.nii.gz"]
    found = []
    for images in (channels, channels[::-1]):
        case = {"images": images, "label": "labelsTr/c0.nii.gz"}
        other = {"images": ["imagesTr/c1_0000.nii.gz", "imagesTr/c1_0001.nii.gz"], "label": "labelsTr/c1.nii.gz"}
        write_json(raw / "dataset.json", {**facts, "dataset": {case_id: case, other_id: other}})
        found.append(load({"batches": 2}))
    first, swapped = found
    files = [sorted(experiment.training_batches(NAME).files("batch_0")) for experiment in found]
    assert files[0] == files[1]
    assert first.inspection_params(NAME, "batch_0") != swapped.inspection_params(NAME, "batch_0")
    assert first.inspection_params(NAME, "batch_1") == swapped.inspection_params(NAME, "batch_1")
    assert first.inspection_params(NAME) == swapped.inspection_params(NAME)  # of test images: they are not listed
    write_json(raw / "dataset.json", facts)
    assert load({"batches": 2}).inspection_params(NAME, "batch_0") == load().inspection_params(NAME)


@pytest.mark.parametrize(
    ("fixed", "threads", "device", "expected"),
    [(None, 8, "cuda", 7), (None, 1, "cuda", 1), (None, 8, "cpu", 0), (3, 8, "cpu", 3), (0, 8, "cuda", 0)],
)
def test_loader_workers(fixed: int | None, threads: int, device: str, expected: int) -> None:
    assert loader_workers(ExecutionSettings(loader_workers=fixed), threads, device) == expected
