"""`segwright import-model` and `export-model`: there and back gives the same model, refusals are one message."""

from __future__ import annotations

import io
import stat
import zipfile
from pathlib import Path

import pytest
import torch

from segwright.core.files import read_json
from segwright.networks.weights import load_weights
from segwright.sharing.model import open_model
from tests.unit.cli.conftest import Run
from tests.unit.sharing.nnunet_v2 import made
from tests.unit.sharing.nnunet_v2.importing import Malicious


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


def _with_code(marker: Path) -> bytes:
    """A checkpoint that would run a command when unpickled."""
    stream = io.BytesIO()
    torch.save({**made.checkpoint("3d_fullres"), "logging": Malicious(marker)}, stream)
    return stream.getvalue()


def _linked(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


@pytest.mark.parametrize("enemy", ["code", "above", "absolute", "link", "twice", "bomb"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_what_an_enemy_made_is_refused_in_one_line(enemy: str, tmp_path: Path, run: Run) -> None:
    marker, here = tmp_path / "marker", f"{made.DATASET}/nnUNetTrainer__nnUNetPlans__3d_fullres"
    made.model_folder(tmp_path / made.DATASET, "3d_fullres", ("0",))
    archive = made.zipped(tmp_path / made.DATASET, tmp_path / "model.zip")
    name, content = {
        "code": (f"{here}/fold_1/checkpoint_final.pth", _with_code(marker)),
        "above": ("../marker", b""),
        "absolute": (str(marker), b""),
        "link": (_linked(f"{here}/fold_1"), str(tmp_path).encode()),
        "twice": (f"{here}/plans.json", b"{}"),
        "bomb": (f"{here}/debug.json", bytes(64 << 20)),
    }[enemy]
    with zipfile.ZipFile(archive, "a") as packed:
        packed.writestr(name, content, zipfile.ZIP_DEFLATED)
    before = sorted(tmp_path.rglob("*"))
    said = run("import-model", "--input", archive, "--output", tmp_path / "out" / "model")
    assert said.code == 2 and said.out == "" and said.err.count("\n") == 1
    assert said.err.startswith(f"error: {archive}") and "refused" in said.err
    assert sorted(tmp_path.rglob("*")) == before and not marker.exists()


def test_choices_are_checked(tmp_path: Path, run: Run) -> None:
    assert run("export-model", "--model", "m", "--output", "o", "--format", "onnx").code == 2
    said = run("import-model", "--input", tmp_path, "--output", tmp_path / "o", "--configurations", "2d", "--folds", 0)
    assert said.code == 2 and "is no results folder of nnU-Net v2" in said.err
