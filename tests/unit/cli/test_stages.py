"""The commands from end to end: what each writes and says."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segwright import cli
from segwright.core.files import read_json, write_bytes, write_json
from segwright.core.plans import Plans
from segwright.images.readers import read_label, write_label
from tests.unit.cli.conftest import Project, Run, plan_arguments


def test_inspect_writes_tables_and_fingerprint(project: Project, run: Run, tmp_path: Path) -> None:
    said = run("inspect", "--dataset", project.raw, "--output", tmp_path, "--workers", 1)
    assert said.code == 0
    assert "inspect: 3 of 3 phantom_002" in said.err and "3 training cases, no errors, 0 warnings" in said.err
    for name in ("checks.json", "checks.tsv", "dataset_fingerprint.json"):
        assert (tmp_path / name).read_bytes() == (project.folder / "checks" / name).read_bytes()
    assert read_json(tmp_path / "checks.json")["valid"] is True


def test_plan_writes_plans_slices_and_reasons(project: Project) -> None:
    plan = project.folder / "plan"
    plans = Plans.from_json(read_json(plan / "plans.json"))
    assert plans.dataset_name == "Dataset900_Phantom" and plans.reader == "SimpleITKIO"
    assert "3d_fullres" in plans.configurations and "2d" in plans.configurations
    assert plans.configuration("3d_fullres").patch_size == (16, 16, 16)  # max_patch_size of --settings
    expected = {f"{name}.{kind}.json" for name in plans.configurations for kind in ("preprocess", "train", "predict")}
    assert {path.name for path in plan.iterdir()} == expected | {"plans.json", "configurations.json", "reasons.md"}


def test_plan_options_go_over_the_settings(project: Project, run: Run, tmp_path: Path) -> None:
    options = ("--planner", "resenc_m", "--spacing", 3, 2, 2, "--name", "Mine", "--gpu-memory-gb", 4)
    said = run(*plan_arguments(project, tmp_path, "--settings", project.folder / "settings.yaml", *options))
    assert said.code == 0
    plans = Plans.from_json(read_json(tmp_path / "plans.json"))
    assert plans.dataset_name == "Mine" and plans.planner == "nnUNetPlannerResEncM"
    assert plans.configuration("3d_fullres").spacing_mm == (3, 2, 2)
    assert plans.configuration("3d_fullres").architecture.features_per_stage[0] == 4  # still from the settings
    assert "3d_fullres: patch 12 x 16 x 16" in said.err and "spacing 3 x 2 x 2 mm" in said.err


def test_plan_takes_a_fingerprint_of_nnunet_v2(project: Project, run: Run, tmp_path: Path) -> None:
    fingerprint = read_json(project.folder / "checks/dataset_fingerprint.json")
    del fingerprint["segwright"]
    write_json(tmp_path / "v2.json", fingerprint)
    arguments = plan_arguments(project, tmp_path / "plan", "--fingerprint", tmp_path / "v2.json")
    assert run(*arguments).code == 0
    assert read_json(tmp_path / "plan/plans.json")["image_reader_writer"] == "SimpleITKIO"


@pytest.mark.parametrize(
    ("additions", "reader"),
    [
        ({}, "SimpleITKIO"),
        ({"overwrite_image_reader_writer": "NibabelIOWithReorient"}, "NibabelIOWithReorient"),
        ({"overwrite_image_reader_writer": "None"}, "SimpleITKIO"),
        ({"file_ending": ".png"}, "NaturalImage2DIO"),
        ({"file_ending": ".tif"}, "NaturalImage2DIO"),
    ],
)
def test_the_reader_follows_from_dataset_json(tmp_path: Path, additions: dict[str, Any], reader: str) -> None:
    facts = {"file_ending": ".nii.gz", **additions}
    assert cli.reader_of({}, facts, tmp_path / "dataset.json") == reader


def test_the_reader_of_a_tiff_dataset_is_chosen_by_its_first_image(tmp_path: Path) -> None:
    import tifffile

    (tmp_path / "imagesTr").mkdir()
    tifffile.imwrite(tmp_path / "imagesTr/a_0000.tif", np.zeros((4, 5, 6), np.uint8), photometric="minisblack")
    write_json(tmp_path / "imagesTr/a.json", {"spacing": [1, 1, 1]})
    assert cli.reader_of({}, {"file_ending": ".tif"}, tmp_path / "dataset.json") == "Tiff3DIO"


def test_what_inspection_used_is_kept_unless_dataset_json_says_otherwise(tmp_path: Path) -> None:
    recorded = {"segwright": {"reader": "NibabelIO"}}
    path = tmp_path / "dataset.json"
    assert cli.reader_of(recorded, {"file_ending": ".nii.gz"}, path) == "NibabelIO"
    override = {"file_ending": ".nii.gz", "overwrite_image_reader_writer": "SimpleITKIO"}
    assert cli.reader_of(recorded, override, path) == "SimpleITKIO"


def test_preprocess_keeps_what_is_there(project: Project, run: Run, tmp_path: Path) -> None:
    store = shutil.copytree(project.folder / "pre", tmp_path / "pre")
    before = {path: path.stat().st_mtime_ns for path in store.glob("cases/*.safetensors")}
    arguments = ["--dataset", project.raw, "--plans", project.folder / "plan/plans.json", "--output", store]
    said = run("preprocess", *arguments, "--configuration", "3d_fullres")
    assert said.code == 0 and "3 of 3 cases are there already" in said.err and len(before) == 3
    assert {path: path.stat().st_mtime_ns for path in before} == before
    refused = run("preprocess", *arguments, "--configuration", "2d")
    assert refused.code == 2 and "holds the cases of 3d_fullres" in refused.err
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_preprocess_of_several_configurations_makes_the_same_stores(project: Project, run: Run, tmp_path: Path) -> None:
    arguments = ["--dataset", project.raw, "--plans", project.folder / "plan/plans.json", "--output", tmp_path / "pre"]
    said = run("preprocess", *arguments, "--configuration", "2d", "3d_fullres")
    assert said.code == 0 and said.err.count("0 of 3 cases are there already") == 2
    for name in ("index.json", "preprocess.json", "batch_0.json"):
        assert (tmp_path / "pre/3d_fullres" / name).read_bytes() == (project.folder / "pre" / name).read_bytes()
    assert len(list((tmp_path / "pre/2d/cases").glob("*.safetensors"))) == 3


def test_preprocess_names_all_problems_before_it_works(project: Project, run: Run, tmp_path: Path) -> None:
    raw = shutil.copytree(project.raw, tmp_path / "Dataset901_Bad")
    (raw / "labelsTr/phantom_000.nii.gz").unlink()
    image = raw / "imagesTr/phantom_001_0000.nii.gz"
    write_bytes(image, image.read_bytes()[:2000])
    plans = project.folder / "plan/plans.json"
    said = run("preprocess", "--dataset", raw, "--plans", plans, "--configuration", "2d", "--output", tmp_path / "p")
    assert said.code == 2
    assert "2 errors" in said.err and "labelsTr/phantom_000.nii.gz" in said.err and image.name in said.err
    assert not list(tmp_path.glob("p/cases/*")) and "Traceback" not in said.err


def test_preprocess_refuses_plans_for_other_channels(project: Project, run: Run, tmp_path: Path) -> None:
    raw = shutil.copytree(project.raw, tmp_path / "Dataset901_Two")
    facts = read_json(raw / "dataset.json")
    write_json(raw / "dataset.json", {**facts, "channel_names": {"0": "T1", "1": "T2"}})
    plans = project.folder / "plan/plans.json"
    said = run("preprocess", "--dataset", raw, "--plans", plans, "--configuration", "2d", "--output", tmp_path / "p")
    assert said.code == 2 and "planned for 1 channels, but Dataset901_Two has 2" in said.err


def test_train_made_a_model_and_continues_as_finished(project: Project, run: Run) -> None:
    record = read_json(project.fold / "training.json")
    assert (record["epochs"], record["settings"]["iterations"], record["fold"]) == (1, 2, "0")
    before = (project.fold / "model.safetensors").read_bytes()
    said = run(*project.train())
    assert said.code == 0 and "model.safetensors" in said.err
    assert (project.fold / "model.safetensors").read_bytes() == before


def test_train_takes_v2_plans_bare_settings_and_all_cases(project: Project, run: Run, tmp_path: Path) -> None:
    plans = read_json(project.folder / "plan/plans.json")
    plans.pop("segwright", None)  # what nnU-Net v2 writes
    write_json(tmp_path / "plans.json", plans, sort_keys=False)
    bare = {"schedule": "smoke", "iterations": 1, "validation_iterations": 1, "torch_threads": 1}
    write_json(tmp_path / "training.json", bare)
    options = ("--fold", "all", "--epochs", 1, "--settings", tmp_path / "training.json")
    said = run(*project.train(*options, plans=tmp_path / "plans.json", output=tmp_path / "out"))
    assert said.code == 0, said.err
    record = read_json(tmp_path / "out/training.json")
    assert (record["epochs"], record["settings"]["iterations"], record["fold"]) == (1, 1, "all")


def test_train_finds_the_facts_of_a_store_of_the_workflow(project: Project, tmp_path: Path) -> None:
    store = shutil.copytree(project.folder / "pre", tmp_path / "pre", ignore=shutil.ignore_patterns("preprocess.json"))
    plans_file = project.folder / "plan/plans.json"
    stored = cli.stored_plan(store, cli.read_plans(plans_file), plans_file, "3d_fullres")
    assert stored.data_id == read_json(store / "index.json")["data_id"]


def test_predict_evaluate_ensemble_postprocess(project: Project, model: Path, run: Run, tmp_path: Path) -> None:
    """The commands for a finished model, one after the other."""
    images, labels, facts = project.raw / "imagesTs", project.raw / "labelsTs", project.raw / "dataset.json"
    said = run("predict", "--model", model, "--input", images, "--output", tmp_path / "a", "--device", "cpu",
               "--save-probabilities")  # fmt: skip
    assert said.code == 0, said.err
    (case,) = (path.name.removesuffix("_0000.nii.gz") for path in images.iterdir())
    predicted = read_label(tmp_path / "a" / f"{case}.nii.gz", "SimpleITKIO")
    reference = read_label(labels / f"{case}.nii.gz", "SimpleITKIO")
    assert predicted.geometry == reference.geometry and (tmp_path / "a" / f"{case}.npz").is_file()

    said = run("evaluate", "--reference", labels, "--prediction", tmp_path / "a", "--dataset-json", facts,
               "--output", tmp_path / "summary.json")  # fmt: skip
    summary = read_json(tmp_path / "summary.json")
    assert said.code == 0
    assert f"Dice {summary['foreground_mean']['Dice']:.4f}  mean of 1 cases" in said.err
    assert f"Dice {summary['mean']['1']['Dice']:.4f}  organ" in said.err

    file = images / f"{case}_0000.nii.gz"
    said = run("predict", "--model", model, "--input", file, "--output", tmp_path / "b", "--device", "cpu",
               "--save-probabilities", "--folds", 0, "--no-mirroring")  # fmt: skip
    assert said.code == 0
    said = run("ensemble", "--inputs", tmp_path / "a", tmp_path / "b", "--output", tmp_path / "mean")
    assert said.code == 0, said.err
    mean = read_label(tmp_path / "mean" / f"{case}.nii.gz", "SimpleITKIO")
    np.testing.assert_array_equal(mean.array_zyx, predicted.array_zyx)  # the mean of two equal predictions

    speckled = reference.array_zyx.copy()
    speckled[0, 0, 0] = 1
    write_label(tmp_path / "speckled" / f"{case}.nii.gz", speckled, reference.geometry, "SimpleITKIO")
    rule = {"operation": "keep_largest_component", "labels_or_regions": [1]}
    write_json(tmp_path / "rules.json", {"rules": [rule]})
    said = run("postprocess", "--input", tmp_path / "speckled", "--rules", tmp_path / "rules.json", "--output",
               tmp_path / "clean", "--dataset-json", facts)  # fmt: skip
    assert said.code == 0, said.err
    clean = read_label(tmp_path / "clean" / f"{case}.nii.gz", "SimpleITKIO")
    np.testing.assert_array_equal(clean.array_zyx, reference.array_zyx)


def test_predict_takes_folders_and_files_together(project: Project, model: Path, run: Run, tmp_path: Path) -> None:
    single = project.raw / "imagesTr/phantom_000_0000.nii.gz"
    said = run("predict", "--model", model, "--input", project.raw / "imagesTs", single, "--output", tmp_path,
               "--device", "cpu")  # fmt: skip
    assert said.code == 0, said.err
    assert len(list(tmp_path.glob("*.nii.gz"))) == 2 and (tmp_path / "phantom_000.nii.gz").is_file()


def test_convert(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "Task500_Kidney"
    for part, name in (("imagesTr", "a_0000"), ("labelsTr", "a")):
        write_bytes(folder / part / f"{name}.nii.gz", b"x")
    facts = {"name": "K", "modality": {"0": "CT"}, "labels": {"0": "background", "1": "k"}, "numTraining": 1}
    write_json(folder / "dataset.json", {**facts, "training": [], "test": [], "tensorImageSize": "3D"})
    said = run("convert", "v1", "--input", folder, "--output", tmp_path / "raw", "--name", "Dataset501_Mine")
    assert said.code == 0 and f"dataset: {tmp_path / 'raw/Dataset501_Mine'}" in said.err
    assert (tmp_path / "raw/Dataset501_Mine/imagesTr/a_0000.nii.gz").read_bytes() == b"x"
    again = run("convert", "v1", "--input", folder, "--output", tmp_path / "raw", "--name", "Dataset501_Mine")
    assert again.code == 2  # nothing is overwritten
    for name, *options, message in (
        ("msd", "--name", "x", "`x` is no dataset name"),
        ("msd", "--name", "Dataset001_X", "--dataset-id", 3, "leave out --dataset-id"),
        ("v1", "--dataset-id", 3, "--dataset-id is for msd"),
    ):
        refused = run("convert", name, "--input", folder, "--output", tmp_path / "raw", *options)
        assert refused.code == 2 and message in refused.err


def test_status_is_printed_to_stdout(run: Run, tmp_path: Path) -> None:
    (tmp_path / "Dataset001_X" / "data").mkdir(parents=True)
    said = run("status", tmp_path)
    assert said.code == 0 and said.out.startswith("Dataset001_X\n")
    assert run("status", tmp_path / "nowhere").code == 2
    (tmp_path / "my.yaml").write_text("datasets: {Dataset002_Y: {path: x}}")
    said = run("status", tmp_path, "--configfile", tmp_path / "my.yaml")
    assert said.code == 0 and "Dataset001_X" not in said.out
    (tmp_path / "my.yaml").write_text("datasets: 3")
    assert run("status", tmp_path, "--configfile", tmp_path / "my.yaml").code == 2
