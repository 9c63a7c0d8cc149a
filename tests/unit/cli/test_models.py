"""`segwright import-model` and `export-model`: there and back gives the same model, refusals are one message."""

from __future__ import annotations

from pathlib import Path

import pytest

from segwright.core.files import read_json
from segwright.networks.weights import load_weights
from segwright.sharing.model import open_model
from tests.unit.cli.conftest import Run


def test_export_and_import_again(model: Path, tmp_path: Path, run: Run) -> None:
    archive = tmp_path / "for_nnunet.zip"
    said = run("export-model", "--model", model, "--output", archive, "--format", "nnunetv2")
    assert said.code == 0 and str(archive) in said.err
    said = run("import-model", "--input", archive, "--output", tmp_path / "back")
    assert said.code == 0 and said.err.endswith(f"model: {tmp_path / 'back'}\n")
    with open_model(model) as ours, open_model(tmp_path / "back") as back:
        assert ours.members == back.members and ours.labels == back.labels and ours.rules == back.rules
        (one,), (other,) = ours.configurations.values(), back.configurations.values()
        plans = [{**entry.plan.to_json()["preprocess"], "data_name": None} for entry in (one, other)]
        assert plans[0] == plans[1] and one.plan.architecture == other.plan.architecture
        weights = [load_weights(entry.folds[0].weights) for entry in (one, other)]
        assert all(weights[0][name].equal(weights[1][name]) for name in weights[0] | weights[1])
        assert read_json(back.folder / "3d_fullres/fold_0/training.json")["imported"]["trainer"] == "nnUNetTrainer"


@pytest.mark.parametrize("command", ["export", "import"])
def test_refusals(command: str, model: Path, tmp_path: Path, run: Run) -> None:
    source, output = "--model" if command == "export" else "--input", tmp_path / "output"
    said = run(f"{command}-model", source, tmp_path / "nowhere", "--output", output)
    assert said.code == 2 and said.err.startswith(f"error: {tmp_path / 'nowhere'}: ") and said.err.count("\n") == 1
    output.mkdir()
    said = run(f"{command}-model", source, model, "--output", output)
    assert said.code == 2 and f"{output}: exists already" in said.err
    assert not list(output.iterdir())


def test_a_model_of_ours_is_no_input_for_import(model: Path, tmp_path: Path, run: Run) -> None:
    said = run("import-model", "--input", model, "--output", tmp_path / "output")
    assert said.code == 2 and said.err.count("\n") == 1 and not (tmp_path / "output").exists()


def test_choices_are_checked(tmp_path: Path, run: Run) -> None:
    assert run("export-model", "--model", "m", "--output", "o", "--format", "onnx").code == 2
    said = run("import-model", "--input", tmp_path, "--output", tmp_path / "o", "--configurations", "2d", "--folds", 0)
    assert said.code == 2 and "is no results folder of nnU-Net v2" in said.err
