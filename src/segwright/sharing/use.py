"""Predict new images with a packaged model: all stages, all members, postprocessing; no workflow needed (method 10)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from segwright.core.dataset import Case, find_cases
from segwright.core.errors import DatasetError, ModelError, StorageError, brief
from segwright.core.files import file_digest, json_digest, read_json, write_bytes
from segwright.core.plans import Plans
from segwright.inference.finished import holds_predictions, write_manifest
from segwright.inference.request import Computation, Output
from segwright.inference.stage import Stage, merge_training_facts, read_training_facts
from segwright.inference.usual import UsualGrid
from segwright.selection.components import apply_rules
from segwright.selection.finish import MANIFEST_NAME
from segwright.sharing.model import ModelConfiguration, PackagedModel

log = logging.getLogger(__name__)

_COPIED = ("dataset.json", "plans.json", "postprocessing.json")
"""What later steps on the output folder (evaluate, ensemble, postprocess) need, as v2 leaves it there (method 10.6)."""


def predict_with_model(
    model: PackagedModel,
    inputs: Path | Sequence[Path],
    output: Path,
    *,
    folds: Sequence[str] | None = None,
    mirroring: bool = True,
    save_probabilities: bool = False,
    device: str = "cpu",
    plugins: Sequence[Path] = (),
    workers: int = 2,
) -> dict[str, Path]:
    """Predict images into ``output``: ``{case}{ending}`` and ``manifest.json``; returns case -> file.

    A cascade's low resolution network runs first by itself. Images whose result is there and was made from the same
    image, model and settings are kept; anything else of that name is made again. An image that cannot be read is named
    at the end, when all others are predicted; the manifest waits until none is left. One unlike those the model was
    trained on, a single slice for a 3-D model or far coarser or finer, is predicted with a warning.

    Args:
        inputs: a folder of ``{case}_{CCCC}{ending}`` files, or such files.
        folds: of the members, and of previous stages that have them; None: all the model has.
        mirroring: False is up to eight times faster and a little less exact.
        save_probabilities: also write ``{case}.npz``.
        plugins: Python files; those the model was trained with are required, with the same content.

    Raises:
        DatasetError: no image, or a case with too few or too many channels, or one that cannot be read.
        ModelError: a needed plugin is missing or another one, or a fold does not exist.
        StorageError: files in ``output`` that another program or a person made would be overwritten.
    """
    cases = input_cases(model, inputs)
    require_plugins(model, plugins)
    require_free_output(model, cases, output, save_probabilities=save_probabilities)
    from segwright.inference.cases import predict_images  # imports torch

    chains = _chains(model, folds)
    output.mkdir(parents=True, exist_ok=True)
    for name in _COPIED:
        write_bytes(output / name, (model.folder / name).read_bytes())
    settings = replace(model.prediction, mirroring=model.prediction.mirroring and mirroring)
    finish: Callable[[Any], Any] | None = partial(apply_rules, rules=model.rules) if model.rules else None
    files = predict_images(
        chains,
        cases,
        Output(output, model.file_ending, save_probabilities),
        Computation(settings, device, tuple(plugins), workers),
        finish=finish,
        finish_digest=json_digest([rule.to_json() for rule in model.rules]),
        usual=UsualGrid.of_plans(
            Plans.from_json(read_json(model.folder / "plans.json")),
            [entry.plan.patch_size for entry in model.configurations.values()],
        ),
    )
    manifest = {case_id: {"file": path, "digest": file_digest(path)} for case_id, path in sorted(files.items())}
    write_manifest(output / MANIFEST_NAME, output, manifest)
    log.info("%d label maps in %s", len(files), output)
    return files


def _chains(model: PackagedModel, folds: Sequence[str] | None) -> list[list[Stage]]:
    """One entry a member; each holds its stages, the previous first."""
    chosen = {
        name: _chosen_folds(entry, folds, strict=name in model.members) for name, entry in model.configurations.items()
    }
    return [[_stage(chosen[name]) for name in chain_of(model, member)] for member in model.members]


def input_cases(model: PackagedModel, inputs: Path | Sequence[Path]) -> tuple[Case, ...]:
    """The cases of a folder or of a list of files, each with the model's channels in order.

    Raises:
        DatasetError: there is none, or a case lacks a channel or has one too many.
    """
    channels = len(model.channel_names)
    if isinstance(inputs, Path) and not inputs.is_file():
        if not inputs.is_dir():
            raise DatasetError(f"{inputs}: the input folder does not exist; correct its path")
        cases = find_cases(inputs, model.file_ending)
        where = str(inputs)
    else:
        files = [inputs] if isinstance(inputs, Path) else list(inputs)
        cases = _cases_of_files(files, model.file_ending)
        where = "the input files"
    if not cases:
        raise DatasetError(
            f"{where}: no image is named <case>_0000{model.file_ending}; the model needs files of this ending, one a"
            f" channel ({', '.join(f'_{index:04d} {name}' for index, name in enumerate(model.channel_names))})"
            f"{_found_text(inputs)}"
        )
    expected = [f"{index:04d}" for index in range(channels)]
    problems = []
    for case in cases:
        found = [path.name[: -len(model.file_ending)][-4:] for path in case.image_files]
        if found != expected and not (channels > 1 and found == ["0000"]):  # one file may hold all channels (RGB)
            problems.append(f"case {case.case_id}: has the channels {', '.join(found)}, needs {', '.join(expected)}")
    if problems:
        raise DatasetError(f"{where}: cases with wrong channels; add or rename files:\n" + "\n".join(problems))
    return cases


def warn_of_unused_files(folder: Path, cases: Sequence[Case], file_ending: str) -> None:
    """Name the files among the images that are none by their names: a misspelt one would be missed late, or never."""
    used = {path.name for case in cases for path in case.image_files}
    used.update(f"{case.case_id}.json" for case in cases)  # the spacing of a picture
    unused = [name for name in _visible_names(folder) if name not in used and (folder / name).is_file()]
    unused.sort(key=lambda name: not name.endswith(file_ending))  # only a few are named: first what lacks but a suffix
    if unused:
        log.warning(
            "%s: not used, because not named <case>_<four-digit channel>%s: %s", folder, file_ending, _some(unused)
        )


def require_free_output(
    model: PackagedModel, cases: Sequence[Case], output: Path, *, save_probabilities: bool = False
) -> None:
    """Nothing but an earlier prediction is overwritten.

    Raises:
        StorageError: a dataset, or segmentations that another program or a person made, lie there.
    """
    differing = [name for name in _COPIED if _content(output / name) != _content(model.folder / name)]
    if not differing or holds_predictions(output, output / MANIFEST_NAME):
        return  # this model's earlier run, be it killed before its first case was noted; or one of another model
    endings = (model.file_ending, ".npz") if save_probabilities else (model.file_ending,)
    made = [f"{case.case_id}{ending}" for case in cases for ending in endings]
    taken = [name for name in (*differing, MANIFEST_NAME, *made) if (output / name).exists()]
    if taken:
        raise StorageError(
            f"{output}: holds {_some(taken)}, which no prediction of segwright left there and which would be"
            " overwritten; choose another output folder"
        )


def _found_text(inputs: Path | Sequence[Path]) -> str:
    """What lies there instead: a wrong name or ending is seen at a glance."""
    if not isinstance(inputs, Path) or not inputs.is_dir():
        return ""
    names = _visible_names(inputs)
    dicom = "; DICOM series are converted first, for instance by dcm2niix"
    hint = dicom if any(name.lower().endswith(".dcm") for name in names) else ""
    return f"; found: {_some(names)}{hint}" if names else "; the folder is empty"


def _visible_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def _some(names: Sequence[str]) -> str:
    """The first names of a list that may be long."""
    return ", ".join(brief(name, 60) for name in names[:3]) + (", ..." if len(names) > 3 else "")


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def require_plugins(model: PackagedModel, plugins: Sequence[Path]) -> None:
    """The plugins a model was trained with were given, with the same content. Nothing is imported here.

    Raises:
        ModelError: one is missing or another one.
    """
    given: dict[str, str] = {}
    for path in plugins:
        if not path.is_file():
            raise ModelError(f"plugin {path}: the file does not exist; correct --plugin")
        given[path.name] = file_digest(path)
    for name, digest in model.plugins.items():
        if name not in given:
            raise ModelError(
                f"{model.name}: was trained with the plugin {name}, which is not part of the model; get the file from"
                f" its makers, read it, and give it with --plugin {name}"
            )
        if given[name] != digest:
            raise ModelError(
                f"plugin {name}: is not the file {model.name} was trained with (digest {given[name][:12]} instead of"
                f" {digest[:12]}); get that version"
            )


def chain_of(model: PackagedModel, member: str) -> tuple[str, ...]:
    """A member after all its previous stages, in the order in which they run."""
    chain = [member]
    while (previous := model.configurations[chain[0]].previous_stage) is not None:
        chain.insert(0, previous)
    return tuple(chain)


def _chosen_folds(entry: ModelConfiguration, folds: Sequence[str] | None, *, strict: bool) -> ModelConfiguration:
    """The configuration with some of its folds. A previous stage (not strict) without them uses all it has."""
    if folds is None:
        return entry
    available = {fold.fold: fold for fold in entry.folds}
    wanted = [str(fold) for fold in folds]
    missing = [fold for fold in wanted if fold not in available]
    if missing and not strict:
        return entry
    if missing or not wanted:
        raise ModelError(
            f"configuration {entry.name}: has the folds {', '.join(available)}, not {', '.join(missing) or 'none'};"
            " correct --folds"
        )
    return replace(entry, folds=tuple(available[fold] for fold in dict.fromkeys(wanted)))


def _stage(entry: ModelConfiguration) -> Stage:
    training = merge_training_facts([read_training_facts(fold.training) for fold in entry.folds])
    return Stage(entry.plan, tuple(fold.weights for fold in entry.folds), training)


def _cases_of_files(files: Sequence[Path], file_ending: str) -> tuple[Case, ...]:
    """Group files by case id; each folder's cases must have names of their own."""
    found: dict[str, Case] = {}
    wanted = set(files)
    for folder in sorted({path.parent for path in files}):
        if not folder.is_dir():
            raise DatasetError(f"{folder}: the folder does not exist; correct the input path")
        for case in find_cases(folder, file_ending):
            images = tuple(path for path in case.image_files if path in wanted)
            if images and case.case_id in found:
                raise DatasetError(
                    f"case {case.case_id}: is in {found[case.case_id].image_files[0].parent} and in {folder}; predict"
                    " these folders one after the other, or rename one of the two"
                )
            if images:
                found[case.case_id] = Case(case.case_id, images)
    missing = sorted(wanted - {path for case in found.values() for path in case.image_files})
    if missing:
        raise DatasetError(f"{missing[0]}: there is no such file named <case>_<channel>{file_ending}; correct the path")
    return tuple(found[case_id] for case_id in sorted(found))
