"""What the command line's files and options say, checked before any work starts.

Imports of the library stay inside the functions: a command pays only for what it uses (planning: half a second in all).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segwright.core.errors import DamagedFileError, DatasetError, PlansError, SettingsError, StorageError

if TYPE_CHECKING:
    from segwright.core.plans import Plans
    from segwright.core.settings import PlanningSettings, TrainingSettings
    from segwright.core.slices import PreprocessPlan
    from segwright.sharing.model import PackagedModel


def json_object(path: Path) -> dict[str, Any]:
    """A JSON file whose content is an object.

    Raises:
        DamagedFileError: it is missing, or something else.
    """
    from segwright.core.files import read_json

    content = read_json(path)
    if not isinstance(content, dict):
        raise DamagedFileError(path, "must hold a JSON object, {...}", "correct the file or the path")
    return content


def require_output(path: Path, *, is_file: bool = False) -> None:
    """What is to come can be written there: known before the work, not after it.

    Raises:
        StorageError: a file stands where a folder should be or the other way round, or the folder is read-only.
    """
    from segwright.core.files import read_only_text

    if is_file and path.is_dir():
        raise StorageError(f"--output {path}: is a folder; give the name of a file in it")
    folders = path.parents if is_file else (path, *path.parents)
    nearest = next(folder for folder in folders if folder.exists())
    if not nearest.is_dir():
        raise StorageError(f"--output {path}: {nearest} is a file, no folder; choose another --output")
    if problem := read_only_text([nearest / "output"]):
        raise StorageError(f"{problem}; make it writable, or choose another --output")


def fingerprint_of(path: Path) -> dict[str, Any]:
    """The content of a dataset_fingerprint.json, ours or nnU-Net v2's."""
    fingerprint = json_object(path)
    if "spacings" not in fingerprint:
        remedy = "give the file `segwright inspect` made"
        raise DamagedFileError(path, "is no dataset fingerprint, the key `spacings` is missing", remedy)
    return fingerprint


def labels_file(given: Path | None, folder: Path) -> Path:
    """The dataset.json that goes with a folder of segmentations: the given one, else the one in it."""
    if given is None and folder.is_dir() and not (folder / "dataset.json").is_file():
        raise SettingsError(f"{folder}: there is no dataset.json in it; name the dataset's with --dataset-json")
    return given or folder / "dataset.json"


def dataset_facts(path: Path) -> dict[str, Any]:
    """The content of a dataset.json, with what planning needs of it.

    Raises:
        DatasetError: something is missing or contradicts itself; the message names the file.
    """
    from segwright.core.labels import Labels

    facts = json_object(path)
    try:
        Labels.from_json(facts)
    except DatasetError as error:
        raise DatasetError(f"{path}: {error}") from error
    if not isinstance(facts.get("channel_names", facts.get("modality")), dict):
        raise DatasetError(f'{path}: `channel_names` is missing; for example {{"0": "CT"}}')
    count = facts.get("numTraining")
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        raise DatasetError(f"{path}: `numTraining` is missing; it is the number of training cases")
    return facts


def read_plans(path: Path) -> Plans:
    """Plans of segwright or nnU-Net v2; the message names the file."""
    from segwright.core.plans import Plans

    try:
        plans = Plans.from_json(json_object(path))
        for name in plans.configurations:
            plans.configuration(name)
        return plans
    except PlansError as error:
        raise PlansError(f"{path}: {error}") from error


def reader_of(fingerprint: Mapping[str, Any], facts: Mapping[str, Any], dataset_json: Path) -> str:
    """The image reader the plans name: dataset.json's own, else the one inspection used.

    A fingerprint of nnU-Net v2 does not say it; then the file ending decides, with the first image beside dataset.json
    as example if there is one (method 1.3).
    """
    declared = facts.get("overwrite_image_reader_writer")
    additions = fingerprint.get("segwright")
    recorded = additions.get("reader") if isinstance(additions, Mapping) else None
    if recorded is not None and declared in (None, "None", recorded):
        return str(recorded)
    from segwright.images.readers import choose_reader  # late: loads the image libraries

    ending = facts.get("file_ending")
    if not isinstance(ending, str):
        raise DatasetError(f'{dataset_json}: the key `file_ending` is missing; for example ".nii.gz"')
    images = dataset_json.parent / "imagesTr"
    example = min((path for path in images.glob(f"*{ending}")), default=None) if images.is_dir() else None
    return choose_reader(ending, example, None if declared is None else str(declared))


def planning_settings(settings: PlanningSettings, options: argparse.Namespace) -> PlanningSettings:
    """The settings with the command line's options over them, checked like a configuration file."""
    from segwright.core.configvalues import build
    from segwright.core.settings import PlanningSettings, to_plain

    given = {"planner": options.planner, "gpu_memory_gb": options.gpu_memory_gb, "spacing_mm": options.spacing}
    changes = {name: value for name, value in given.items() if value is not None}
    return build(PlanningSettings, {**to_plain(settings), **changes}, "planning") if changes else settings


def training_settings(options: argparse.Namespace) -> TrainingSettings:
    """What --settings says (bare training options, or sections), --epochs over it, nulls filled in by the schedule."""
    from segwright.core.configfile import training_settings_from_file
    from segwright.core.configvalues import build
    from segwright.core.settings import TrainingSettings, to_plain

    settings = TrainingSettings() if options.settings is None else training_settings_from_file(options.settings)
    if options.epochs is not None:
        settings = build(TrainingSettings, {**to_plain(settings), "epochs": options.epochs}, "training")
    return settings.resolved()


def planned_text(plans: Plans, name: str) -> str:
    """One configuration in one line."""
    configuration = plans.configuration(name)
    patch = " x ".join(map(str, configuration.patch_size))
    spacing = " x ".join(f"{edge:.4g}" for edge in configuration.spacing_mm)
    after = f", after {configuration.previous_stage}" if configuration.previous_stage else ""
    return f"{name}: patch {patch}, batch size {configuration.batch_size}, spacing {spacing} mm{after}"


def require_own_folder(output: Path, plan: PreprocessPlan) -> None:
    """A store holds one configuration; another one's cases are not to be replaced by mistake."""
    if (output / "preprocess.json").is_file():
        before = json_object(output / "preprocess.json").get("data_name")
        if before != plan.data_name:
            raise SettingsError(f"{output}: holds the cases of {before}; choose another --output for {plan.data_name}")


def stored_plan(store: Path, plans: Plans, plans_file: Path, configuration: str) -> PreprocessPlan:
    """What a store was preprocessed with, checked against the plans that are to be trained.

    A store of the workflow does not hold it; there it lies beside plans.json.

    Raises:
        PlansError: the store holds other data than these plans ask for. DamagedFileError: it is no store.
    """
    from segwright.core.slices import PreprocessPlan, preprocess_slice, read_slice

    path = store / "preprocess.json"
    if not path.is_file() and (plans_file.parent / f"{configuration}.preprocess.json").is_file():
        path = plans_file.parent / f"{configuration}.preprocess.json"
    stored = read_slice(path, PreprocessPlan)
    how = (stored.label_resize, stored.order_of_steps)
    wanted = preprocess_slice(plans, configuration, stored.labels, stored.channel_names, *how).data_id
    found = json_object(store / "index.json").get("data_id")
    if found != wanted:
        raise PlansError(
            f"{store}: holds {found}, but configuration {configuration} of {plans_file} needs {wanted}; run"
            " `segwright preprocess` with these plans and this configuration"
        )
    return stored


def require_channels(plan: PreprocessPlan, dataset_name: str, plans_file: Path) -> None:
    """The plans were made for as many channels as the dataset has."""
    planned, declared = len(plan.normalization_schemes), len(plan.channel_names)
    if planned != declared:
        raise PlansError(f"{plans_file}: planned for {planned} channels, but {dataset_name} has {declared}; plan again")


def previous_stage(given: Path | None, previous: str | None) -> Path | None:
    """The label maps a cascade continues from: needed for a cascade, and only there."""
    if previous is not None and given is None:
        raise SettingsError(
            f"this configuration is a cascade on {previous}; give the label maps of all its folds with"
            " --previous-stage .../next_stage.json (the workflow makes it)"
        )
    if previous is None and given is not None:
        raise SettingsError("--previous-stage: this configuration is no cascade; leave it out")
    return given


def require_other_folder(inputs: Sequence[Path], output: Path) -> None:
    """Segmentations beside the images would be taken for images, and may even replace them.

    Raises:
        SettingsError: the output folder holds the input images.
    """
    for path in inputs:
        if (path if path.is_dir() else path.parent).resolve() == output.resolve():
            raise SettingsError(f"--output {output}: holds the input images; choose another folder")


def image_files(model: PackagedModel, inputs: Sequence[Path]) -> Path | list[Path]:
    """What `segwright predict` is to segment: one folder as it is, else the image files of all folders and files.

    Files of a folder that are left out are named in a warning.

    Raises:
        DatasetError: a folder holds no image, or a case with wrong channels.
    """
    from segwright.sharing.use import input_cases, warn_of_unused_files

    files: list[Path] = []
    for path in inputs:
        if path.is_dir():
            cases = input_cases(model, path)
            warn_of_unused_files(path, cases, model.file_ending)
            files += [file for case in cases for file in case.image_files]
        else:
            files.append(path)
    return inputs[0] if len(inputs) == 1 else files
