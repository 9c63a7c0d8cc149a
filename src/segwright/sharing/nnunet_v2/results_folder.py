"""What lies in a results folder of nnU-Net v2, and which of its models to take (method 11.5, 11.6, 13).

``DatasetXXX_Name/{Trainer}__{plans}__{configuration}/{plans.json, dataset.json, fold_k/checkpoint_*.pth}``,
``crossval_results_folds_0_1_2_3_4/`` below each of them, ``ensembles/`` and ``inference_information.json`` beside them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segwright.core.errors import ModelError, SettingsError
from segwright.core.files import read_json

INFORMATION = "inference_information.json"
FINAL, BEST = "checkpoint_final.pth", "checkpoint_best.pth"

_FOLD = re.compile(r"fold_(\d{1,3}|all)")
_SHOWN = 20


@dataclass(frozen=True)
class TrainedModel:
    """The folder of one trained configuration; in a folder of another name trainer and plans are empty."""

    folder: Path
    trainer: str
    plans_name: str
    configuration: str

    @property
    def identifier(self) -> str:
        """nnU-Net's name of it, which is its folder's."""
        return self.folder.name

    def folds(self) -> tuple[str, ...]:
        """Names of its folds, finished or not, in order."""
        matched = (_FOLD.fullmatch(path.name) for path in self.folder.iterdir())
        return tuple(sorted((match[1] for match in matched if match), key=lambda fold: (len(fold), fold)))

    def checkpoints(self) -> dict[str, Path]:
        """Fold -> its checkpoint, the final one if there is one; folds in order, without those that have none."""
        found = {}
        for fold in self.folds():
            paths = [self.folder / f"fold_{fold}" / name for name in (FINAL, BEST)]
            existing = [path for path in paths if path.is_file()]
            if existing:
                found[fold] = existing[0]
        return found


@dataclass(frozen=True)
class Results:
    """A results folder.

    Attributes:
        models: all trained configurations, by name of their folder.
        single: the input was the folder of this one model.
    """

    folder: Path
    models: Mapping[str, TrainedModel]
    single: TrainedModel | None = None

    def previous_stage_of(
        self, model: TrainedModel, configuration: str, lineages: Sequence[tuple[str, str]]
    ) -> TrainedModel:
        """The model a cascade continues from: same trainer, same plans (method 9.7).

        Args:
            lineages: trainer and plans of the cascade, as its files and its folder name them, the likeliest first.

        Raises:
            ModelError: it is not there.
        """
        names = ["__".join((*lineage, configuration)) for lineage in lineages]
        for name in names:
            if name in self.models:
                return self.models[name]
        raise ModelError(
            f"{model.folder}: is a cascade on {configuration}, but {self.folder} has no {names[0]}; put the folder of"
            " that model beside it, or export both together"
        )


@dataclass(frozen=True)
class Choice:
    """The models that predict together.

    Attributes:
        members: one, or several whose probabilities are averaged.
        folds: the folds to take, or None for all that are trained.
        folds_required: whether the user asked for just these; those of nnU-Net's selection may be missing.
        scores: nnU-Net's name of a candidate -> mean foreground Dice in cross-validation.
        reason: one sentence for people.
    """

    members: tuple[TrainedModel, ...]
    folds: tuple[str, ...] | None
    scores: Mapping[str, float]
    reason: str
    folds_required: bool = True


def find_results(folder: Path) -> Results:
    """The results of one dataset in ``folder``: it may be the dataset's folder, its parent, or one model's folder.

    Raises:
        ModelError: there is none, or there are several datasets.
    """
    if not folder.is_dir():
        raise ModelError(f"{folder}: there is no such folder; correct the path")
    if (folder / "plans.json").is_file() and any(_FOLD.fullmatch(path.name) for path in folder.iterdir()):
        models = _models_in(folder.parent)
        single = models.get(folder.name) or TrainedModel(folder, "", "", "")
        return Results(folder.parent, {**models, folder.name: single}, single)
    models = _models_in(folder)
    if models:
        return Results(folder, models)
    inside = [path for path in sorted(folder.iterdir()) if path.is_dir()]
    below = [path for path in inside if _models_in(path) or (path / "plans.json").is_file()]
    if len(below) == 1:
        return find_results(below[0])
    if below:
        names = ", ".join(path.name for path in below[:_SHOWN])
        raise ModelError(f"{folder}: holds results of several datasets ({names}); give the folder of one of them")
    raise ModelError(
        f"{folder}: is no results folder of nnU-Net v2; expected are folders named Trainer__Plans__configuration with"
        " plans.json and fold_0, fold_1, ..., or one such folder"
    )


def choose(results: Results, configurations: Sequence[str] | None, folds: Sequence[str] | None) -> Choice:
    """Which models to take: those asked for, else nnU-Net's own selection, else the only one there is.

    Args:
        configurations: names of configurations or of model folders.

    Raises:
        ModelError: several models and nothing that says which, or nnU-Net's selection is not there.
        SettingsError: an unknown or ambiguous name.
    """
    given = None if folds is None else tuple(dict.fromkeys(str(fold) for fold in folds))
    if results.single is not None:
        if configurations is not None:
            raise SettingsError(
                "--configurations: the input is the folder of one model; leave it out, or give its parent"
            )
        return Choice((results.single,), given, {}, f"{results.single.identifier} was imported.")
    if configurations is not None:
        members = tuple(dict.fromkeys(_asked_for(results, name) for name in configurations))
        names = " and ".join(model.identifier for model in members)
        return Choice(
            members, given, {}, f"{names} predict{'s' * (len(members) == 1)} because it was chosen in the import."
        )
    path = results.folder / INFORMATION
    if path.is_file():
        return _selected(results, path, given)
    usable = [model for model in results.models.values() if model.checkpoints()]
    if len(usable) == 1:
        return Choice((usable[0],), given, {}, f"{usable[0].identifier} is the only trained model there was.")
    names = ", ".join(model.identifier for model in usable) or "(none with a checkpoint)"
    raise ModelError(
        f"{results.folder}: has the models {names} and no {INFORMATION} that says which predicts; choose with"
        " --configurations A, or A B for an ensemble"
    )


def result_folder(results: Results, choice: Choice) -> Path | None:
    """The folder with cross-validation scores and postprocessing of a choice; None if there is none.

    The one of the chosen folds if it exists, else the one of most folds.
    """
    if len(choice.members) == 1:
        found = list(choice.members[0].folder.glob("crossval_results_folds_*"))
        folds = [path.name.removeprefix("crossval_results_folds_").split("_") for path in found]
    else:
        wanted = {model.identifier for model in choice.members}
        named = [(path, path.name.split("___")) for path in results.folder.glob("ensembles/ensemble___*")]
        matching = [(path, parts) for path, parts in named if set(parts[1:-1]) == wanted]
        found, folds = [path for path, _ in matching], [parts[-1].split("_") for _, parts in matching]
    ranked = sorted(
        zip(found, folds, strict=True), key=lambda pair: (pair[1] != list(choice.folds or ()), -len(pair[1]), pair[0])
    )
    return ranked[0][0] if ranked else None


def _models_in(folder: Path) -> dict[str, TrainedModel]:
    """Model folders by name; ``Trainer__Plans__configuration`` with plans in them."""
    found = {}
    for path in sorted(folder.iterdir()):
        parts = path.name.split("__")
        if len(parts) == 3 and all(parts) and (path / "plans.json").is_file():
            found[path.name] = TrainedModel(path, *parts)
    return found


def _asked_for(results: Results, name: str) -> TrainedModel:
    if name in results.models:
        return results.models[name]
    matching = [model for model in results.models.values() if model.configuration == name]
    if len(matching) == 1:
        return matching[0]
    known = ", ".join(model.identifier for model in matching or results.models.values())
    problem = "is there several times" if matching else "is not there"
    raise SettingsError(f"--configurations {name}: {problem} in {results.folder}; choose from {known}")


def _selected(results: Results, path: Path, folds: tuple[str, ...] | None) -> Choice:
    """nnU-Net's selection, as its find_best_configuration wrote it."""
    record = read_json(path)
    try:
        best = record["best_model_or_ensemble"]
        names = [
            "__".join((entry["trainer"], entry["plans_identifier"], entry["configuration"]))
            for entry in best["selected_model_or_models"]
        ]
        scores = {str(name): float(score) for name, score in record["all_results"].items() if score is not None}
        recorded = tuple(str(fold) for fold in record["folds"])
        score = best.get("result_on_crossval_pre_pp")
        scored = "" if score is None else f": mean foreground Dice {float(score):.4f}"
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        raise ModelError(
            f"{path}: is not what nnU-Net writes there ({problem!r}); remove it and choose yourself"
        ) from problem
    missing = [name for name in names if name not in results.models]
    if missing or not names:
        raise ModelError(
            f"{path}: nnU-Net selected {', '.join(missing) or 'no model'}, which is not in {results.folder}; choose"
            f" with --configurations from {', '.join(results.models)}"
        )
    return Choice(
        members=tuple(results.models[name] for name in dict.fromkeys(names)),
        folds=folds or recorded,
        scores=scores,
        reason=f"{' and '.join(names)} {_were(names)} selected by nnU-Net v2 in cross-validation of the folds"
        f" {', '.join(recorded)}{scored}.",
        folds_required=folds is not None,
    )


def _were(names: Sequence[Any]) -> str:
    return "was" if len(names) == 1 else "were together"
