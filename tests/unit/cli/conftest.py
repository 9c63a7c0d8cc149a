"""A tiny project made by the commands themselves, and a way to run them in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from segwright import cli
from segwright.core.files import write_json, write_text

SETTINGS = """
planning: {base_features: 4, max_stages: 3, max_patch_size: 16}
training: {schedule: smoke, epochs: 1, iterations: 2, validation_iterations: 1, torch_threads: 1}
prediction: {mirroring: false}
"""


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


Run = Callable[..., Said]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run ``segwright`` with arguments of any type; returns exit code and output."""

    def segwright(*arguments: object) -> Said:
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as stop:  # argparse
            code = int(str(stop.code))
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return segwright


@dataclass(frozen=True)
class Project:
    """What the first four commands made: the folders of one tiny project."""

    folder: Path

    @property
    def raw(self) -> Path:
        return self.folder / "Dataset900_Phantom"

    @property
    def fold(self) -> Path:
        return self.folder / "3d_fullres" / "fold_0"

    def train(self, *more: object, plans: Path | None = None, output: Path | None = None) -> list[object]:
        return [
            "train", "--plans", plans or self.folder / "plan/plans.json", "--configuration", "3d_fullres", "--device",
            "cpu", "--preprocessed", self.folder / "pre", "--splits", self.folder / "splits.json", "--fold", "0",
            "--settings", self.folder / "settings.yaml", "--output", output or self.fold, *more,
        ]  # fmt: skip


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """phantom -> inspect -> plan -> preprocess -> train, each by its command; read only."""
    folder = tmp_path_factory.mktemp("project")
    made = Project(folder)
    write_text(folder / "settings.yaml", SETTINGS)
    train, val = ["phantom_000", "phantom_001"], ["phantom_002"]
    write_json(folder / "splits.json", [{"train": train, "val": val}])
    facts = ["--dataset-json", made.raw / "dataset.json", "--settings", folder / "settings.yaml"]
    configuration = ["--configuration", "3d_fullres"]
    fingerprint, plans = folder / "checks/dataset_fingerprint.json", folder / "plan/plans.json"
    for arguments in (
        ["phantom", "--preset", "plain", "--cases", 3, "--test-cases", 1, "--seed", 1, "--output", made.raw],
        ["inspect", "--dataset", made.raw, "--output", folder / "checks"],
        ["plan", "--fingerprint", fingerprint, *facts, "--output", folder / "plan"],
        ["preprocess", "--dataset", made.raw, "--plans", plans, *configuration, "--output", folder / "pre"],
        made.train(),
    ):
        assert cli.main([str(argument) for argument in arguments]) == 0, arguments[0]
    return made


@pytest.fixture(scope="session")
def model(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained fold as a packaged model, as the workflow's last rules make it."""
    from segwright.core.settings import PredictionSettings
    from segwright.selection.best import select_without_validation
    from segwright.selection.postprocessing import write_no_postprocessing
    from segwright.sharing.package import ConfigurationFiles, FoldFiles, package_model

    folder = tmp_path_factory.mktemp("model")
    select_without_validation(["3d_fullres"], folder / "selection.json", planned_folds=5)
    write_no_postprocessing(folder / "postprocessing.json", "None was looked for.")
    fold = FoldFiles("0", project.fold / "model.safetensors", project.fold / "training.json")
    package_model(
        folder / "model",
        folder / "model.zip",
        plans=project.folder / "plan/plans.json",
        dataset_json=project.raw / "dataset.json",
        configurations=[
            ConfigurationFiles("3d_fullres", project.folder / "plan/3d_fullres.predict.json", [fold]),
        ],
        selection=folder / "selection.json",
        postprocessing=folder / "postprocessing.json",
        prediction=PredictionSettings(mirroring=False),
        summaries={},
    )
    return folder / "model.zip"


def plan_arguments(project: Project, output: Path, *more: object) -> list[object]:
    return [
        "plan", "--fingerprint", project.folder / "checks/dataset_fingerprint.json", "--dataset-json",
        project.raw / "dataset.json", "--output", output, *more,
    ]  # fmt: skip
