from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from segwright.core.errors import ModelError
from segwright.core.files import file_digest, read_json, write_json
from segwright.selection.components import Rule
from segwright.sharing.model import MANIFEST, belongs_to_model, open_model
from segwright.sharing.package import ConfigurationFiles, package_model
from segwright.sharing.use import require_plugins


@pytest.fixture
def packed(results: Callable, tmp_path: Path) -> tuple[Path, Path]:
    package_model(tmp_path / "model", tmp_path / "model.zip", **results())
    return tmp_path / "model", tmp_path / "model.zip"


def test_what_is_in_a_model(packed: tuple[Path, Path]) -> None:
    folder, archive = packed
    model = open_model(folder)
    assert model.name == "Dataset001_Tiny"
    assert model.members == ("3d_cascade",)
    assert model.stages() == ("3d_lowres", "3d_cascade")
    assert model.rules == (Rule((1,)),)
    assert model.prediction.mirroring is False and model.prediction.precision == "fp32"
    assert model.configurations["3d_cascade"].mirror_axes == (1, 2), "only axes flipped in every fold"
    assert [fold.fold for fold in model.configurations["3d_lowres"].folds] == ["0", "1"]
    assert model.channel_names == ("MRI",) and model.file_ending == ".nii.gz"
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert sorted(zipfile.ZipFile(archive).namelist()) == names
    assert len(names) == 1 + 6 + 2 * (1 + 2 * 2)
    assert all(belongs_to_model(name) for name in names)


def test_zip_opens_as_the_same_model_and_leaves_nothing(packed: tuple[Path, Path]) -> None:
    folder, archive = packed
    with open_model(archive) as model:
        assert model.digest == open_model(folder).digest
        assert model.folder.is_dir() and model.folder != folder
        extracted = model.folder
    assert not extracted.exists()


def test_equal_inputs_give_equal_bytes(packed: tuple[Path, Path], results: Callable, tmp_path: Path) -> None:
    package_model(tmp_path / "again", tmp_path / "again.zip", **results())
    assert file_digest(packed[1]) == file_digest(tmp_path / "again.zip")


def test_packaging_replaces_a_model_but_nothing_else(
    packed: tuple[Path, Path], results: Callable, tmp_path: Path
) -> None:
    package_model(packed[0], None, **results())
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("years of work")
    with pytest.raises(ModelError, match="would be lost"):
        package_model(tmp_path / "precious", None, **results())
    (tmp_path / "empty").mkdir()
    package_model(tmp_path / "empty", None, **results())
    assert not list(tmp_path.glob(".part-*"))


def test_nothing_names_the_makers_cases_or_paths(packed: tuple[Path, Path], tmp_path: Path) -> None:
    for path in packed[0].rglob("*"):
        if path.suffix in (".json", ".md"):
            text = path.read_text()
            assert "patient_" not in text and "/home" not in text and str(tmp_path) not in text, path.name


def test_model_card(packed: tuple[Path, Path]) -> None:
    card = (packed[0] / "README.md").read_text()
    header = yaml.safe_load(card.split("---")[1])
    assert header["license"] == "CC BY 4.0"
    for heading in (
        "Intended use",
        "Data",
        "Performance",
        "How it was made",
        "Limitations",
        "Licence",
        "How to use it",
    ):
        assert f"## {heading}" in card
    assert "| a | 0.8000 | 0.8000 | 0.8000 | 0.6667 | 2 |" in card
    assert "| b\\|c | - | - | - | - | 0 |" in card
    assert "largest component of 1" in card
    assert "Only the folds 0, 1 were trained" in card
    assert "2 x 3" in card


def test_card_states_when_there_is_no_evaluation(results: Callable, tmp_path: Path) -> None:
    arguments = {**results(("3d_fullres",)), "summaries": {}}
    package_model(tmp_path / "model", None, **arguments)
    assert "no out-of-fold evaluation" in (tmp_path / "model" / "README.md").read_text()
    assert read_json(tmp_path / "model" / "metrics.json")["candidates"] == {}


def test_previous_stage_must_be_packaged(results: Callable, tmp_path: Path) -> None:
    arguments = results()
    arguments["configurations"] = [entry for entry in arguments["configurations"] if entry[0] == "3d_cascade"]
    with pytest.raises(ModelError, match="needs the configuration 3d_lowres"):
        package_model(tmp_path / "model", None, **arguments)
    assert not (tmp_path / "model").exists()


def test_weights_of_another_training_are_refused(results: Callable, tmp_path: Path) -> None:
    arguments = results()
    first: ConfigurationFiles = arguments["configurations"][0]
    shutil.copyfile(first.folds[0].weights, first.folds[1].weights)
    with pytest.raises(ModelError, match=r"fold_1.*its content is not what .*fold_1.*recorded; train this"):
        package_model(tmp_path / "model", None, **arguments)


def test_missing_fold_files_are_named(results: Callable, tmp_path: Path) -> None:
    arguments = results()
    arguments["configurations"][0].folds[1].weights.unlink()
    with pytest.raises(ModelError, match=r"3d_lowres/fold_1/model\.safetensors: the file is missing"):
        package_model(tmp_path / "model", None, **arguments)


@pytest.mark.parametrize("name", ["3d_lowres/fold_0/model.safetensors", "plans.json", "README.md"])
def test_altered_files_are_named(packed: tuple[Path, Path], name: str) -> None:
    victim = packed[0] / name
    content = bytearray(victim.read_bytes())
    content[-1] ^= 1
    victim.write_bytes(bytes(content))
    with pytest.raises(ModelError, match=rf"{name}.*damaged or altered"):
        open_model(packed[0])
    victim.write_bytes(b"")
    with pytest.raises(ModelError, match=rf"{name}: 0 bytes instead of"):
        open_model(packed[0])
    victim.unlink()
    with pytest.raises(ModelError, match=rf"{name}.*missing"):
        open_model(packed[0])


def change_manifest(folder: Path, change: Callable[[dict], None]) -> None:
    record = read_json(folder / MANIFEST)
    change(record)
    write_json(folder / MANIFEST, record)


def rename_fold(folds: dict, old: str, new: str) -> None:
    folds[new] = folds.pop(old)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda r: r.update(format="other"), "not the manifest"),
        (lambda r: r.update(format_version=2), "format version 2"),
        (lambda r: r["files"].update({"../../etc/passwd": {"sha256": "", "size_bytes": 0}}), "cannot belong"),
        (lambda r: r["files"].update({"evil.py": {"sha256": "", "size_bytes": 0}}), "cannot belong"),
        (lambda r: r.update(members=["4d"]), "needs the configuration 4d"),
        (lambda r: r.update(members=[]), "no members"),
        (lambda r: r["prediction"].update(magic=1), "unknown prediction settings magic"),
        (lambda r: r["configurations"]["3d_lowres"]["folds"]["0"].update(weights="/tmp/x"), "not among the verified"),
        (lambda r: r["configurations"]["3d_lowres"].update(folds={}), "no fold"),
        (lambda r: rename_fold(r["configurations"]["3d_lowres"]["folds"], "0", "../0"), "'../0' cannot be the name"),
        (lambda r: r["configurations"]["3d_cascade"].update(previous_stage=None), "different previous stages"),
        (lambda r: r["files"].pop("metrics.json"), "does not list metrics.json"),
        (lambda r: r.pop("plugins"), "not complete or not valid"),
        (lambda r: r["configurations"].update({"../x": r["configurations"]["3d_lowres"]}), "cannot be the name"),
    ],
)
def test_wrong_manifests_are_refused(packed: tuple[Path, Path], change: Callable, match: str) -> None:
    change_manifest(packed[0], change)
    with pytest.raises(ModelError, match=match):
        open_model(packed[0])


def change_file(folder: Path, name: str, changes: dict) -> None:
    """Change a file, and the manifest with it."""
    path = folder / name
    write_json(path, {**read_json(path), **changes}, sort_keys=False)
    entry = {"sha256": file_digest(path), "size_bytes": path.stat().st_size}
    change_manifest(folder, lambda record: record["files"].update({name: entry}))


def test_file_ending_that_is_a_path_is_refused(packed: tuple[Path, Path]) -> None:
    change_file(packed[0], "dataset.json", {"file_ending": "/../../evil.nii.gz"})
    with pytest.raises(ModelError, match=r"evil\.nii\.gz"):
        open_model(packed[0])


@pytest.mark.parametrize("axes", [[0, 3], [-1], list(range(60))])
def test_only_axes_of_the_patch_are_mirrored(axes: list[int], packed: tuple[Path, Path]) -> None:
    """Prediction takes them from the trainings, and flips all combinations of them."""
    change_file(packed[0], "3d_cascade/fold_1/training.json", {"mirror_axes": axes})
    with pytest.raises(ModelError, match=r"configuration 3d_cascade: mirror_axes \["):
        open_model(packed[0])


def test_things_that_are_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model folder or archive"):
        open_model(tmp_path / "none")
    with pytest.raises(ModelError, match=r"has no model\.json"):
        open_model(tmp_path)
    (tmp_path / "text.zip").write_text("hello")
    with pytest.raises(ModelError, match="neither"):
        open_model(tmp_path / "text.zip")
    (tmp_path / MANIFEST).write_text("{")
    with pytest.raises(ModelError, match="damaged"):
        open_model(tmp_path)


def test_an_altered_zip_is_refused_and_leaves_nothing(
    packed: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary, evil = tmp_path / "temporary", tmp_path / "evil.zip"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with zipfile.ZipFile(packed[1]) as source, zipfile.ZipFile(evil, "w") as target:
        for info in source.infolist():
            content = source.read(info)
            target.writestr(info, json.dumps({"rules": []}) if info.filename == "postprocessing.json" else content)
    with pytest.raises(ModelError, match=r"postprocessing\.json"):
        open_model(evil)
    with zipfile.ZipFile(evil, "a") as target:
        target.writestr("sitecustomize.py", "print('hello')")
    with pytest.raises(ModelError, match=r"sitecustomize\.py.*no such file belongs"):
        open_model(evil)
    assert not list(temporary.iterdir())


def test_plugins_of_all_folds_must_agree(results: Callable, tmp_path: Path) -> None:
    arguments = results(plugins={"mine.py": "1" * 64}, network="mine")
    package_model(tmp_path / "model", None, **arguments)
    assert open_model(tmp_path / "model").plugins == {"mine.py": "1" * 64}
    training = arguments["configurations"][1].folds[1].training
    record = read_json(training)
    record["plugins"] = {"mine.py": "2" * 64}
    write_json(training, record)
    with pytest.raises(ModelError, match=r"another version of the plugin mine\.py"):
        package_model(tmp_path / "model", None, **arguments)


def test_a_plugin_only_the_training_needed_is_not_asked_for(results: Callable, tmp_path: Path) -> None:
    """A loss or an augmentation; also of a model packaged when all plugins of the training were listed."""
    folder = tmp_path / "model"
    package_model(folder, None, **results(plugins={"loss.py": "1" * 64}))
    assert read_json(folder / MANIFEST)["plugins"] == {} and "--plugin" not in (folder / "README.md").read_text()
    change_manifest(folder, lambda record: record.update(plugins={"loss.py": "1" * 64}))
    assert open_model(folder).plugins == {}
    require_plugins(open_model(folder), [])
