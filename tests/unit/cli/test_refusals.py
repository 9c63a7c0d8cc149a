"""Bad input and wrong arguments: exit code 2, one clear message, nothing half done."""

from __future__ import annotations

from pathlib import Path

import pytest

from segwright import cli
from tests.unit.cli.conftest import Project, Run, plan_arguments


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--fold", 7), "there is no fold 7; it has 0"),
        (("--configuration", "4d"), "there is no configuration 4d"),
        (("--configuration", "2d"), "needs 2d-"),
        (("--configuration", "3d_cascade_fullres"), "is a cascade on 3d_lowres; give the label maps"),
        (("--previous-stage", "x.json"), "this configuration is no cascade"),
        (("--epochs", 0), "training.epochs is 0 but must be at least 1"),
        (("--preprocessed", "nowhere"), "the file does not exist"),
        (("--plugin", "nope.py"), "nope.py: the file does not exist"),
    ],
)
def test_train_refuses(project: Project, run: Run, tmp_path: Path, options: tuple[object, ...], message: str) -> None:
    said = run(*project.train(*options, output=tmp_path / "out"))
    assert said.code == 2 and message in said.err, said.err
    assert "Traceback" not in said.err and not (tmp_path / "out").exists()


def test_a_cascade_needs_its_previous_stage() -> None:
    with pytest.raises(cli.SettingsError, match="is a cascade on 3d_lowres; give the label maps"):
        cli.previous_stage(None, "3d_lowres")
    assert cli.previous_stage(Path("x"), "3d_lowres") == Path("x")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--model", "nowhere.zip"), "there is no model folder or archive"),
        (("--input", "nowhere"), "the input folder does not exist"),
        (("--folds", 3), "has the folds 0, not 3"),
        (("--plugin", "nope.py"), "nope.py: the file does not exist"),
    ],
)
def test_predict_refuses(
    project: Project, model: Path, run: Run, tmp_path: Path, options: tuple[object, ...], message: str
) -> None:
    arguments = ("--model", model, "--input", project.raw / "imagesTs", "--output", tmp_path / "out")
    said = run("predict", *arguments, "--device", "cpu", *options)
    assert said.code == 2 and message in said.err and "Traceback" not in said.err
    assert not list(tmp_path.glob("out/*.nii.gz"))


def test_predict_finishes_the_others_beside_a_damaged_image(
    project: Project, model: Path, run: Run, tmp_path: Path
) -> None:
    image = min((project.raw / "imagesTs").iterdir())
    ending = "_0000.nii.gz"
    (tmp_path / "in").mkdir()
    for case_id in ("a", "b", "c"):
        (tmp_path / "in" / f"{case_id}{ending}").write_bytes(image.read_bytes())
    (tmp_path / "in" / f"a{ending}").write_bytes(image.read_bytes()[:100])
    arguments = ("predict", "--model", model, "--input", tmp_path / "in", "--output", tmp_path / "out")
    said = run(*arguments, "--device", "cpu")
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.nii.gz")}
    assert said.code == 2 and {path.name for path in made} == {"b.nii.gz", "c.nii.gz"}
    assert "1 of 3 cases failed; the other 2 are done" in said.err and f"\ncase a: {tmp_path}/in/a{ending}" in said.err
    assert "Traceback" not in said.err and not (tmp_path / "out" / "manifest.json").exists()
    again = run(*arguments, "--device", "cpu")
    assert again.code == 2 and "1 of 1 cases failed. Mend" in again.err
    (tmp_path / "in" / f"a{ending}").write_bytes(image.read_bytes())
    assert run(*arguments, "--device", "cpu").code == 0
    assert (tmp_path / "out" / "a.nii.gz").is_file() and (tmp_path / "out" / "manifest.json").is_file()
    assert all(path.stat().st_mtime_ns == before for path, before in made.items())


def test_predict_does_not_mix_segmentations_with_images(project: Project, model: Path, run: Run) -> None:
    images = project.raw / "imagesTs"
    before = sorted(images.iterdir())
    for inputs in (images, before[0]):
        said = run("predict", "--model", model, "--input", inputs, "--output", images / "." / "", "--device", "cpu")
        assert said.code == 2 and "holds the input images; choose another folder" in said.err
    assert sorted(images.iterdir()) == before


def test_predict_says_what_lies_in_a_folder_without_images(
    project: Project, model: Path, run: Run, tmp_path: Path
) -> None:
    arguments = ("predict", "--model", model, "--input", tmp_path / "in", "--output", tmp_path / "out")
    (tmp_path / "in").mkdir()
    assert "; the folder is empty" in run(*arguments).err
    for name in (".DS_Store", "patient.nii.gz", "patient_0000.nii"):
        (tmp_path / "in" / name).touch()
    said = run(*arguments)
    assert said.code == 2 and "; found: patient.nii.gz, patient_0000.nii\n" in said.err
    (tmp_path / "in" / "0001.dcm").touch()
    assert "; DICOM series are converted first, for instance by dcm2niix\n" in run(*arguments).err


def test_predict_names_what_it_leaves_out(project: Project, model: Path, run: Run, tmp_path: Path) -> None:
    image = min((project.raw / "imagesTs").iterdir())
    for folder in ("in", "in/nested", "empty"):
        (tmp_path / folder).mkdir()
    (tmp_path / "in" / "a_0000.nii.gz").write_bytes(image.read_bytes())
    for name in (".DS_Store", "a.json", "b_0000.nii", "c.nii.gz", "c.nii.gz.part"):
        (tmp_path / "in" / name).touch()
    arguments = ("predict", "--model", model, "--output", tmp_path / "out", "--device", "cpu", "--input")
    said = run(*arguments, tmp_path / "in", tmp_path / "empty")
    assert said.code == 2 and f"error: {tmp_path}/empty: no image is named" in said.err and "is empty" in said.err
    assert not (tmp_path / "out").exists()
    said = run(*arguments, tmp_path / "in")
    told = "not used, because not named <case>_<four-digit channel>.nii.gz: c.nii.gz, b_0000.nii, c.nii.gz.part\n"
    assert said.code == 0 and said.err.count(f"warning: {tmp_path}/in: {told}") == 1, said.err
    (tmp_path / "in" / "d.nii.gz").touch()
    assert ": c.nii.gz, d.nii.gz, b_0000.nii, ...\n" in run(*arguments, tmp_path / "in").err
    for name in ("b_0000.nii", "c.nii.gz", "c.nii.gz.part", "d.nii.gz"):
        (tmp_path / "in" / name).unlink()
    assert "not used" not in run(*arguments, tmp_path / "in").err


def test_predict_leaves_the_references_alone(project: Project, model: Path, run: Run, tmp_path: Path) -> None:
    (tmp_path / "labelsTs").mkdir()
    reference = tmp_path / "labelsTs" / min((project.raw / "imagesTs").iterdir()).name.replace("_0000", "")
    reference.write_bytes(b"drawn by hand")
    arguments = ("predict", "--model", model, "--input", project.raw / "imagesTs", "--device", "cpu")
    said = run(*arguments, "--output", reference.parent)
    assert said.code == 2 and f"error: {reference.parent}: holds {reference.name}, which no prediction" in said.err
    assert [path.name for path in reference.parent.iterdir()] == [reference.name]
    assert reference.read_bytes() == b"drawn by hand"


def test_outputs_that_cannot_be_written_are_refused_before_the_work(
    project: Project, model: Path, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    labels = project.raw / "labelsTr"
    evaluate = (
        "evaluate",
        "--reference",
        labels,
        "--prediction",
        labels,
        "--dataset-json",
        project.raw / "dataset.json",
    )
    predict = ("predict", "--model", model, "--input", project.raw / "imagesTs")
    for arguments, output, message in (
        (evaluate, tmp_path, "is a folder; give the name of a file in it"),
        (evaluate, tmp_path / "file" / "summary.json", "file is a file, no folder"),
        (predict, tmp_path / "file", "file is a file, no folder"),
        (predict, tmp_path / "file" / "sub" / "sub", "file is a file, no folder"),
    ):
        said = run(*arguments, "--output", output)
        assert said.code == 2 and message in said.err and "evaluate: " not in said.err, said.err


def test_a_folder_of_label_maps_without_dataset_json(project: Project, run: Run, tmp_path: Path) -> None:
    rules = tmp_path / "rules.json"
    rules.write_text("{}")
    said = run("postprocess", "--input", project.raw / "labelsTr", "--rules", rules, "--output", tmp_path / "out")
    assert said.code == 2 and "there is no dataset.json in it; name the dataset's with --dataset-json" in said.err


BROKEN = {
    "Dataset901_shape_mismatch": "hippocampus_292.nii.gz",
    "Dataset902_label_value_out_of_range": "hippocampus_049.nii.gz",
    "Dataset903_image_nan": "hippocampus_036_0000.nii.gz",
    "Dataset904_truncated_gzip": "hippocampus_035_0000.nii.gz",
    "Dataset905_spacing_mismatch": "hippocampus_143.nii.gz",
    "Dataset906_image_without_label": "hippocampus_220.nii.gz",
    "Dataset907_image_4d": "hippocampus_092_0000.nii.gz",
    "Dataset908_all_zero_image": "hippocampus_319_0000.nii.gz",
}
"""The bad file of each dataset, as shared_data/broken/README.md tells."""


@pytest.mark.parametrize("name", BROKEN)
def test_broken_datasets_are_refused_by_case_and_file(shared_data: Path, name: str, run: Run, tmp_path: Path) -> None:
    said = run("inspect", "--dataset", shared_data / "broken" / name, "--output", tmp_path)
    message = said.err[said.err.index("error: ") :]
    case = BROKEN[name].removesuffix(".nii.gz").removesuffix("_0000")
    assert said.code == 2 and f"  {case}: " in message and BROKEN[name] in message
    assert "1 error in the data" in message and "Traceback" not in said.err
    assert case in (tmp_path / "checks.tsv").read_text()
    assert not (tmp_path / "dataset_fingerprint.json").exists()


def test_every_broken_dataset_is_tried(shared_data: Path) -> None:
    assert {path.name for path in (shared_data / "broken").glob("Dataset*")} == set(BROKEN)


NONSENSE = {
    "missing": None, "empty": b"", "list": b"[]", "null": b"null", "number": b"3", "text": b'"x"', "object": b"{}",
    "bytes": bytes(range(256)), "half": b'{"labels": {', "deep": b"[" * 100_000,
}  # fmt: skip


@pytest.mark.parametrize("content", NONSENSE.values(), ids=NONSENSE)
@pytest.mark.parametrize("option", ["--fingerprint", "--dataset-json", "--plans", "--rules"])
def test_nonsense_in_a_json_file_is_one_message(
    project: Project, run: Run, tmp_path: Path, option: str, content: bytes | None
) -> None:
    bad = tmp_path / "bad.json"
    if content is not None:
        bad.write_bytes(content)
    facts = ["--dataset-json", project.raw / "dataset.json"]
    arguments = {
        "--fingerprint": plan_arguments(project, tmp_path / "o"),
        "--dataset-json": plan_arguments(project, tmp_path / "o"),
        "--plans": ["preprocess", "--dataset", project.raw, "--configuration", "2d", "--output", tmp_path / "o"],
        "--rules": ["postprocess", "--input", project.raw / "labelsTs", *facts, "--output", tmp_path / "o"],
    }[option]
    said = run(*arguments, option, bad)
    assert said.code == 2 and "error: " in said.err and "Traceback" not in said.err
    assert "bad.json" in said.err
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("option", ["--output", "--dataset-json", "--fingerprint"])
def test_a_folder_in_place_of_a_file_or_the_other_way_round(
    project: Project, run: Run, tmp_path: Path, option: str
) -> None:
    wrong = tmp_path if option != "--output" else project.folder / "settings.yaml"
    said = run(*plan_arguments(project, tmp_path / "o"), option, wrong)
    assert said.code == 2 and str(wrong) in said.err and "Traceback" not in said.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "the following arguments are required: COMMAND"),
        (("inspect",), "--dataset, --output"),
        (("inspekt",), "invalid choice: 'inspekt'"),
        (("inspect", "--dataset", "nowhere", "--output", "o"), "nowhere: the dataset folder does not exist"),
        (("inspect", "--dataset", "x", "--output", "o", "--workers", "0"), "must be a whole number from 1 on, not '0'"),
        (("phantom", "--preset", "x", "--cases", "1", "--output", "o"), "there is no phantom `x`; known: plain"),
        (("phantom", "--preset", "plain", "--cases", "0", "--output", "o"), "at least one training case"),
        (("phantom", "--preset", "plain", "--cases", "1", "--seed", "-1", "--output", "o"), "from 0 on"),
        (("ensemble", "--inputs", "a", "--output", "o"), "give at least two folders"),
        (("train", "--device", "tpu"), "invalid choice: 'tpu'"),
    ],
)
def test_wrong_arguments(
    run: Run, arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = run(*arguments)
    assert said.code == 2 and message in said.err and "Traceback" not in said.err
    assert list(tmp_path.iterdir()) == []


def test_planning_options_are_checked(project: Project, run: Run, tmp_path: Path) -> None:
    for options, message in (
        (("--gpu-memory-gb", "-1"), "planning.gpu_memory_gb is -1.0 but must be more than 0"),
        (("--spacing", "0", "1", "1"), "must be three positive numbers"),
        (("--planner", "resnc"), "did you mean resenc"),
    ):
        said = run(*plan_arguments(project, tmp_path / "o", *options))
        assert said.code == 2 and message in said.err
