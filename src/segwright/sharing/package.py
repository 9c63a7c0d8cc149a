"""Make a model folder and its zip: everything that is needed to predict, and what a person must know about it."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from segwright import __version__
from segwright.core.errors import ModelError
from segwright.core.files import TEMPORARY_PREFIX, file_digest, read_json, write_json, write_text
from segwright.core.labels import key_text
from segwright.core.plans import Plans
from segwright.core.recorded import RecordedFile
from segwright.core.settings import PredictionSettings, to_plain
from segwright.core.slices import PredictPlan
from segwright.evaluation.summary import Summary, read_summary
from segwright.selection.best import Selection, read_selection
from segwright.selection.postprocessing import read_rules
from segwright.sharing.archive import write_archive
from segwright.sharing.model import (
    FORMAT,
    FORMAT_VERSION,
    MANIFEST,
    FoldModel,
    ModelConfiguration,
    PackagedModel,
    open_model,
    trained_network,
)
from segwright.sharing.model_card import CardFacts, model_card

_FACTS_LEFT_OUT = ("dataset", "training", "test")
"""Keys of dataset.json that list files: they name cases and paths of the makers, and nobody else needs them."""


class FoldFiles(NamedTuple):
    """One trained fold."""

    fold: str
    weights: Path
    training: Path


class ConfigurationFiles(NamedTuple):
    """One configuration: its predict slice and its trained folds."""

    configuration: str
    predict_plan: Path
    folds: Sequence[FoldFiles]


def package_model(
    folder: Path,
    archive: Path | None,
    *,
    plans: Path,
    dataset_json: Path,
    configurations: Sequence[ConfigurationFiles],
    selection: Path,
    postprocessing: Path,
    prediction: PredictionSettings,
    summaries: Mapping[str, Path],
    versions: Mapping[str, str] | None = None,
    origin: Sequence[str] = (),
) -> PackagedModel:
    """Write a model folder, verify it by opening it, and pack it. Equal inputs give equal bytes.

    Args:
        folder: is replaced if it holds a model, refused if it holds anything else.
        archive: the zip; None: none is written.
        configurations: the selection's members and all their previous stages, each with its folds.
        summaries: candidate id -> out-of-fold summary.json; empty with folds: all.
        versions: further programs and versions to name.
        origin: lines of the model card about another program the model comes from.

    Raises:
        ModelError: a configuration or fold is missing, weights and training record do not belong together, folds
            were trained with different plugins, or ``folder`` holds something else.
    """
    _require_replaceable(folder)
    chosen = read_selection(selection)
    temporary = folder.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:12]}-{folder.name}")
    try:
        copied = _copy_configurations(temporary, configurations)
        trainings = {name: [read_json(fold.training) for fold in entry.folds] for name, entry in copied.items()}
        for name, source in (("plans", plans), ("selection", selection), ("postprocessing", postprocessing)):
            _copy(source, temporary / f"{name}.json")
        facts = _copy_facts(temporary, dataset_json)
        read = {name: read_summary(path) for name, path in sorted(summaries.items())}
        write_json(temporary / "metrics.json", _metrics(chosen, read))
        card = CardFacts(
            dataset=facts,
            plans=Plans.from_json(read_json(plans)),
            selection=chosen,
            rules=read_rules(postprocessing),
            configurations=copied,
            summary=read.get(chosen.best),
            training={name: records[0] for name, records in trainings.items()},
            plugins=_plugins(copied, trainings),
            versions={"segwright": __version__, **(versions or {})},
            origin=origin,
        )
        write_text(temporary / "README.md", model_card(card))
        _write_manifest(temporary, card, prediction)
        open_model(temporary)
        _replace(folder, temporary)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    if archive is not None:
        write_archive(archive, folder, [MANIFEST, *read_json(folder / MANIFEST)["files"]])
    return open_model(folder)


def _copy_facts(folder: Path, dataset_json: Path) -> dict[str, Any]:
    facts = {key: value for key, value in read_json(dataset_json).items() if key not in _FACTS_LEFT_OUT}
    write_json(folder / "dataset.json", facts, sort_keys=False)
    return facts


def _copy_configurations(folder: Path, configurations: Sequence[ConfigurationFiles]) -> dict[str, ModelConfiguration]:
    copies = [_copy_configuration(folder, ConfigurationFiles(*entry)) for entry in configurations]
    return {entry.name: entry for entry in copies}


def _copy_configuration(folder: Path, files: ConfigurationFiles) -> ModelConfiguration:
    """Copy one configuration's slice and folds, and check that each fold's files belong together."""
    name = files.configuration
    if not files.folds:
        raise ModelError(f"configuration {name}: there is no trained fold to package; train at least one")
    plan = PredictPlan.from_json(read_json(files.predict_plan))
    _copy(files.predict_plan, folder / name / "predict.json")
    folds, mirrored = [], []
    for fold in map(FoldFiles._make, files.folds):
        target = folder / name / f"fold_{fold.fold}"
        record = read_json(fold.training)
        _copy(fold.weights, target / "model.safetensors")
        _copy(fold.training, target / "training.json")
        wanted = record.get("weights_digest")
        copied = RecordedFile(target / "model.safetensors", str(wanted), fold.training)
        problem = None if wanted is None else copied.problem()
        if problem is not None:
            raise ModelError(f"{fold.weights}: {problem}; train this fold again")
        mirrored.append({int(axis) for axis in record["mirror_axes"]})
        folds.append(FoldModel(str(fold.fold), target / "model.safetensors", target / "training.json"))
    if len({fold.fold for fold in folds}) != len(folds):
        raise ModelError(f"configuration {name}: a fold is given twice")
    axes = tuple(sorted(set.intersection(*mirrored)))
    return ModelConfiguration(name, plan, tuple(folds), axes, trained_network(plan, folds[0].training))


def _write_manifest(folder: Path, facts: CardFacts, prediction: PredictionSettings) -> None:
    """model.json: what there is, how it is used, and the size and digest of every other file."""

    def relative(path: Path) -> str:
        return path.relative_to(folder).as_posix()

    listed = {
        entry.name: {
            "previous_stage": entry.previous_stage,
            "predict": f"{entry.name}/predict.json",
            "mirror_axes": list(entry.mirror_axes),
            "folds": {
                fold.fold: {"weights": relative(fold.weights), "training": relative(fold.training)}
                for fold in entry.folds
            },
        }
        for entry in facts.configurations.values()
    }
    files = {
        relative(path): {"sha256": file_digest(path), "size_bytes": path.stat().st_size}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    manifest = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "name": facts.plans.dataset_name,
        "members": list(facts.selection.members),
        "configurations": listed,
        # which configuration predicts is decided already, and saving is the user's choice
        "prediction": {**to_plain(prediction), "configuration": None, "save_probabilities": False},
        "plugins": dict(facts.plugins),
        "versions": dict(facts.versions),
        "files": files,
    }
    write_json(folder / MANIFEST, manifest, sealed=True)


def _metrics(selection: Selection, summaries: Mapping[str, Summary]) -> dict[str, Any]:
    """Means of every candidate; no case, no file name."""
    return {
        "best": selection.best,
        "folds": list(selection.folds),
        "num_cases": selection.num_cases,
        "candidates": {
            name: {
                "foreground_mean": dict(summary.foreground_mean),
                "mean": {key_text(key): dict(metrics) for key, metrics in summary.mean.items()},
            }
            for name, summary in summaries.items()
        },
    }


def _plugins(
    configurations: Mapping[str, ModelConfiguration], trainings: Mapping[str, Iterable[Mapping[str, Any]]]
) -> dict[str, str]:
    """The plugins of the networks. One file name means one content, also of plugins only the trainings needed."""
    used: dict[str, str] = {}
    needed: dict[str, str] = {}
    for name, records in trainings.items():
        for record in records:
            plugins = record.get("plugins") or {}
            for plugin, digest in plugins.items():
                if used.setdefault(plugin, digest) != digest:
                    raise ModelError(
                        f"configuration {name}, fold {record.get('fold')}: was trained with another version of the"
                        f" plugin {plugin} than other folds; train these again with one version"
                    )
            if configurations[name].needs_plugins:
                needed.update(plugins)
    return dict(sorted(needed.items()))


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if not source.is_file():
        raise ModelError(f"{source}: the file is missing, so the model cannot be packaged; make it and run again")
    shutil.copyfile(source, target)


def _require_replaceable(folder: Path) -> None:
    """Only a model or an empty folder may be replaced."""
    if folder.exists() and not (folder / MANIFEST).is_file() and any(folder.iterdir()):
        raise ModelError(f"{folder}: holds something that is no model and would be lost; choose another folder")


def _replace(folder: Path, new: Path) -> None:
    """Put ``new`` in the place of ``folder``; what was there is removed last."""
    old = new.with_name(f"{new.name}-old")
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
