"""A model folder: what is in it, and how it is opened. Opening verifies every file and executes nothing.

``model.json`` (the manifest), ``plans.json``, ``dataset.json``, ``selection.json``, ``postprocessing.json``,
``metrics.json``, ``README.md`` (the model card), and for each configuration ``predict.json`` and for each of its folds
``fold_{k}/model.safetensors`` and ``fold_{k}/training.json``.
"""

from __future__ import annotations

import re
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any

from segwright.core.architecture import NETWORK_CLASS_NAMES
from segwright.core.configvalues import build
from segwright.core.errors import MALFORMED, DamagedFileError, ModelError, SegwrightError, brief
from segwright.core.files import json_digest, read_json
from segwright.core.labels import Labels
from segwright.core.plans import Plans
from segwright.core.recorded import RecordedFile
from segwright.core.settings import PredictionSettings
from segwright.core.slices import PredictPlan, read_slice
from segwright.images.readers import choose_reader
from segwright.inference.stage import read_training_facts
from segwright.selection.components import Rule
from segwright.selection.postprocessing import read_rules
from segwright.sharing.archive import DEFAULT_LIMITS, Limits, extract_archive, safe_name

FORMAT = "segwright-model"
FORMAT_VERSION = 1
MANIFEST = "model.json"
TOP_FILES = ("plans.json", "dataset.json", "selection.json", "postprocessing.json", "metrics.json", "README.md")

_FOLD = re.compile(r"\d{1,3}|all")
_MODEL_FILE = re.compile(r"[A-Za-z0-9_]+/(predict\.json|fold_(\d{1,3}|all)/(model\.safetensors|training\.json))")
_CONFIGURATION = re.compile(r"[A-Za-z0-9_]+")
_TEXT_BYTES_MAX = 64 << 20


@dataclass(frozen=True)
class FoldModel:
    """One trained network."""

    fold: str
    weights: Path
    training: Path


@dataclass(frozen=True)
class ModelConfiguration:
    """One configuration of a model: how it predicts, its folds, which axes may be mirrored, and its network's name."""

    name: str
    plan: PredictPlan
    folds: tuple[FoldModel, ...]
    mirror_axes: tuple[int, ...]
    network: str

    @property
    def previous_stage(self) -> str | None:
        return self.plan.previous_stage

    @property
    def needs_plugins(self) -> bool:
        """Whether its network is a plugin's. A loss or an augmentation has done its work when the model is trained."""
        return self.network not in NETWORK_CLASS_NAMES


@dataclass(frozen=True)
class PackagedModel:
    """An opened, verified model.

    Attributes:
        folder: where its files lie.
        digest: of the manifest, and so of all its files.
        members: configurations whose probabilities are averaged (often one).
        configurations: by name; members and all previous stages.
        rules: postprocessing.
        plugins: file name -> digest of the plugins it needs to predict.
    """

    folder: Path
    name: str
    digest: str
    members: tuple[str, ...]
    configurations: Mapping[str, ModelConfiguration]
    prediction: PredictionSettings
    rules: tuple[Rule, ...]
    plugins: Mapping[str, str]
    labels: Labels
    file_ending: str
    channel_names: tuple[str, ...]
    temporary: tempfile.TemporaryDirectory[str] | None = None

    def stages(self) -> tuple[str, ...]:
        """Every configuration that has to run, previous stages before those that need them."""
        order: list[str] = []
        for member in self.members:
            chain = [member]
            while (previous := self.configurations[chain[-1]].previous_stage) is not None:
                chain.append(previous)
            order += [name for name in reversed(chain) if name not in order]
        return tuple(order)

    def close(self) -> None:
        """Remove what was extracted from an archive; a model folder stays."""
        if self.temporary is not None:
            self.temporary.cleanup()

    def __enter__(self) -> PackagedModel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_model(path: Path | str, limits: Limits = DEFAULT_LIMITS) -> PackagedModel:
    """Open a model folder or archive. Use it in a ``with`` statement: an archive is extracted for as long.

    Raises:
        ModelError: it is no model, damaged, altered, incomplete, unsafe, or of a newer format.
    """
    path = Path(path)
    if path.is_dir():
        return _opened(path, None)
    if not path.is_file():
        raise ModelError(f"{path}: there is no model folder or archive; correct the path")
    if not zipfile.is_zipfile(path):
        raise ModelError(f"{path}: neither a model folder nor a zip archive of one")
    temporary = tempfile.TemporaryDirectory(prefix="segwright-model-")
    try:
        folder = Path(temporary.name) / "model"
        extract_archive(path, folder, belongs_to_model, limits)
        return _opened(folder, temporary)
    except SegwrightError:
        temporary.cleanup()
        raise


def belongs_to_model(name: str) -> bool:
    """Whether a file of this relative name can be part of a model."""
    return name == MANIFEST or name in TOP_FILES or _MODEL_FILE.fullmatch(name) is not None


def _opened(folder: Path, temporary: tempfile.TemporaryDirectory[str] | None) -> PackagedModel:
    record = _read_manifest(folder)
    _verify_files(folder, record)
    try:
        Plans.from_json(read_json(folder / "plans.json"))
        facts = read_json(folder / "dataset.json")
        configurations = {
            str(name): _configuration(folder, str(name), entry, record["files"])
            for name, entry in record["configurations"].items()
        }
        needs_plugins = any(entry.needs_plugins for entry in configurations.values())
        model = PackagedModel(
            folder=folder,
            name=str(record["name"]),
            digest=json_digest(record),
            members=tuple(str(name) for name in record["members"]),
            configurations=configurations,
            prediction=_prediction_settings(folder, record["prediction"]),
            rules=read_rules(folder / "postprocessing.json"),
            plugins={str(name): str(digest) for name, digest in record["plugins"].items() if needs_plugins},
            labels=Labels.from_json(facts),
            file_ending=str(facts["file_ending"]),
            channel_names=tuple(str(name) for name in facts["channel_names"].values()),
            temporary=temporary,
        )
        _check_stages(model)
        choose_reader(model.file_ending, override=model.configurations[model.members[0]].plan.preprocess.reader)
    except ModelError:
        raise
    except (*MALFORMED, SegwrightError) as problem:
        text = brief(str(problem), 400)
        raise ModelError(f"{folder}: the model is not complete or not valid ({text}); get it again") from problem
    return model


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        raise ModelError(f"{folder}: not a model folder, it has no {MANIFEST}; correct the path")
    if path.stat().st_size > _TEXT_BYTES_MAX:
        raise ModelError(f"{path}: is too large for a manifest; get the model again")
    try:
        record = read_json(path)
    except DamagedFileError as error:
        raise ModelError(f"{path}: damaged; get the model again") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ModelError(f"{path}: not the manifest of a segwright model; correct the path")
    if record.get("format_version") != FORMAT_VERSION:
        raise ModelError(
            f"{path}: has format version {brief(record.get('format_version'))}, this segwright reads {FORMAT_VERSION};"
            " install the segwright it was made with"
        )
    return record


def _verify_files(folder: Path, record: Mapping[str, Any]) -> None:
    """Every listed file is there, of its size and with its digest; sizes first, they are cheap."""
    files = record.get("files")
    if not isinstance(files, dict) or not files:
        raise ModelError(f"{folder / MANIFEST}: lists no files; get the model again")
    for name, entry in files.items():
        if not (isinstance(entry, dict) and safe_name(name) and belongs_to_model(name) and name != MANIFEST):
            raise ModelError(
                f"{folder / MANIFEST}: lists {brief(name)!r}, which cannot belong to a model; do not use it"
            )
        path = folder / name
        if not path.is_file():
            raise ModelError(f"{path}: the file is missing from the model; get the model again")
        if path.suffix != ".safetensors" and path.stat().st_size > _TEXT_BYTES_MAX:
            raise ModelError(f"{path}: is too large for a text file; do not use this model")
        if path.stat().st_size != entry.get("size_bytes"):
            raise ModelError(f"{path}: {path.stat().st_size} bytes instead of {entry.get('size_bytes')}; get it again")
    for name, entry in files.items():
        problem = RecordedFile(folder / name, str(entry.get("sha256")), folder / MANIFEST).problem()
        if problem is not None:
            raise ModelError(f"{folder / name}: {problem} (damaged or altered); get the model again")
    for name in TOP_FILES:
        if name not in files:
            raise ModelError(f"{folder / MANIFEST}: does not list {name}; the model is not complete, get it again")


def _configuration(folder: Path, name: str, entry: Mapping[str, Any], files: Mapping[str, Any]) -> ModelConfiguration:
    def listed(relative: str) -> Path:
        if relative not in files:
            raise ValueError(f"{relative} is not among the verified files")
        return folder / relative

    if not _CONFIGURATION.fullmatch(name):
        raise ValueError(f"{name!r} cannot be the name of a configuration")
    folds = tuple(
        FoldModel(str(fold), listed(paths["weights"]), listed(paths["training"]))
        for fold, paths in entry["folds"].items()
    )
    if not folds:
        raise ValueError(f"configuration {name} has no fold")
    for fold in folds:
        if not _FOLD.fullmatch(fold.fold):
            raise ValueError(f"configuration {name}: {fold.fold!r} cannot be the name of a fold")
    plan = read_slice(listed(entry["predict"]), PredictPlan)
    if plan.previous_stage != entry["previous_stage"]:
        raise ValueError(f"configuration {name}: manifest and predict.json name different previous stages")
    axes = tuple(int(axis) for axis in entry["mirror_axes"])
    for given in (axes, *(read_training_facts(fold.training).mirror_axes for fold in folds)):
        if not set(given) <= set(range(len(plan.patch_size))):
            raise ValueError(f"configuration {name}: mirror_axes {brief(list(given))}")
    return ModelConfiguration(name, plan, folds, axes, trained_network(plan, folds[0].training))


def trained_network(plan: PredictPlan, training: Path) -> str:
    """Name of the network a fold was trained with: its training.json names a plugin's, or it is the planned one."""
    return str(read_json(training).get("settings", {}).get("network") or plan.architecture.kind)


def _prediction_settings(folder: Path, record: Mapping[str, Any]) -> PredictionSettings:
    unknown = sorted(set(record) - {field.name for field in fields(PredictionSettings)})
    if unknown:
        raise ModelError(
            f"{folder / MANIFEST}: unknown prediction settings {', '.join(unknown)}; install the segwright it was"
            " made with"
        )
    return build(PredictionSettings, record, "prediction")


def _check_stages(model: PackagedModel) -> None:
    """Members and previous stages exist, and no stage needs itself."""
    if not model.members:
        raise ModelError(f"{model.folder / MANIFEST}: the model has no members; get it again")
    for member in model.members:
        seen: list[str] = []
        current: str | None = member
        while current is not None:
            if current not in model.configurations or current in seen:
                raise ModelError(
                    f"{model.folder / MANIFEST}: {member} needs the configuration {current}, which is"
                    f" {'its own previous stage' if current in seen else 'not in the model'}; get the model again"
                )
            seen.append(current)
            current = model.configurations[current].previous_stage
