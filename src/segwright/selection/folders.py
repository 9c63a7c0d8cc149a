"""Ensembling and postprocessing of plain folders, for the command line (method 10.7, 12.3)."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segwright.core.errors import MALFORMED, DamagedFileError, DatasetError, brief, some
from segwright.core.files import atomic_path, file_digest
from segwright.core.labels import Labels
from segwright.core.recorded import RecordedFile
from segwright.evaluation.parallel import map_cases
from segwright.evaluation.summary import chosen_reader, files_with_ending, read_labels_and_ending
from segwright.images.readers import read_label_header, write_label
from segwright.inference.export import decide
from segwright.selection.finish import MANIFEST_NAME, PROBABILITIES_ENDING
from segwright.selection.label_maps import LabelMapTask, make_label_maps
from segwright.selection.postprocessing import read_rules


def ensemble_folders(
    inputs: Sequence[Path],
    output: Path,
    dataset_json: Path | None = None,
    *,
    reader: str | None = None,
    save_probabilities: bool = False,
    workers: int = 1,
) -> None:
    """Average the probabilities of several prediction folders and write label maps to ``output``.

    Each folder holds, for every case, ``{case}.npz`` with ``probabilities`` (outputs, z, y, x) on the raw grid, as
    `segwright predict --save-probabilities` and nnU-Net v2 write them; the first one also ``{case}{ending}``, whose
    geometry the results get.

    Args:
        dataset_json: None: the one in the first folder, where `segwright predict` and v2 leave it.

    Raises:
        DatasetError: fewer than two folders, different cases, or arrays that do not fit each other or the labels.
        DamagedFileError: a file cannot be read.
    """
    if len(inputs) < 2:
        raise DatasetError("ensemble: give at least two folders of predictions")
    labels, ending, facts = read_labels_and_ending(dataset_json or inputs[0] / "dataset.json")
    _require_other_folder(inputs, output)
    members = [files_with_ending(folder, PROBABILITIES_ENDING) for folder in inputs]
    if not members[0]:
        raise DatasetError(f"{inputs[0]}: there is no {PROBABILITIES_ENDING} file; predict with --save-probabilities")
    for folder, member in zip(inputs, members, strict=True):
        different = set(member) ^ set(members[0])
        if different:
            raise DatasetError(
                f"ensemble: {folder} and {inputs[0]} must hold the same {PROBABILITIES_ENDING} files, but"
                f" {some(different)} is not in both; predict all with --save-probabilities"
            )
    label_maps = files_with_ending(inputs[0], ending)
    missing = sorted(set(members[0]) - set(label_maps))
    if missing:
        raise DatasetError(f"{inputs[0] / (missing[0] + ending)}: the label map that gives the geometry is missing")
    reader = reader or chosen_reader(facts, ending, next(iter(label_maps.values())))
    tasks = []
    for case_id in members[0]:
        probabilities = output / f"{case_id}{PROBABILITIES_ENDING}" if save_probabilities else None
        files = tuple(member[case_id] for member in members)
        like = label_maps[case_id]
        tasks.append((case_id, _AverageTask(files, like, output / like.name, probabilities, labels, reader)))
    for _ in map_cases(_average, tasks, workers, "ensemble"):
        pass


def postprocess_folder(
    inputs: Path,
    postprocessing: Path,
    output: Path,
    dataset_json: Path | None = None,
    *,
    reader: str | None = None,
    workers: int = 1,
) -> None:
    """Apply the rules of a postprocessing.json to every label map of a folder.

    Args:
        dataset_json: None: the one in the input folder, where `segwright predict` and v2 leave it.

    Raises:
        DatasetError: a folder is missing or empty, or output and input are the same.
    """
    _, ending, facts = read_labels_and_ending(dataset_json or inputs / "dataset.json")
    _require_other_folder([inputs], output)
    files = files_with_ending(inputs, ending)
    if not files:
        raise DatasetError(f"{inputs}: there is no file ending in {ending}; correct the folder or dataset.json")
    reader = reader or chosen_reader(facts, ending, next(iter(files.values())))
    rules = read_rules(postprocessing)
    tasks = [
        LabelMapTask(case_id, output, output / path.name, reader, _as_it_is_now(case_id, path, inputs), rules=rules)
        for case_id, path in files.items()
    ]
    make_label_maps(tasks, output, output / MANIFEST_NAME, workers, "postprocess")


@dataclass(frozen=True)
class _AverageTask:
    members: tuple[Path, ...]
    like: Path
    output: Path
    probabilities_output: Path | None
    labels: Labels
    reader: str


def _as_it_is_now(case_id: str, path: Path, inputs: Path) -> RecordedFile:
    return RecordedFile(path, file_digest(path), inputs, "it was changed meanwhile, run again", case_id)


def _average(task: _AverageTask) -> None:
    geometry, _ = read_label_header(task.like, task.reader)
    expected = (task.labels.num_outputs, *geometry.shape_zyx)
    for path in task.members:  # before there is memory for one of them
        shape = _npz_shape(path)
        if shape != expected:
            raise DatasetError(
                f"{path}: probabilities of shape {shape}, but the labels and the grid of {task.like} need"
                f" {expected}; predict all folders from the same images with the same labels"
            )
    mean_czyx = np.zeros(expected, np.float32)
    for path in task.members:
        mean_czyx += _read_npz(path)
    mean_czyx /= np.float32(len(task.members))
    write_label(task.output, decide(mean_czyx, task.labels), geometry, task.reader)
    if task.probabilities_output is not None:
        with atomic_path(task.probabilities_output) as temporary:
            np.savez_compressed(temporary, probabilities=mean_czyx)


def _npz_shape(path: Path) -> tuple[int, ...]:
    """Shape of the probabilities, from the array's header alone: a few bytes can claim, or inflate to, any size."""
    with _npz_errors(path), zipfile.ZipFile(path) as archive, archive.open("probabilities.npy") as stream:
        version = np.lib.format.read_magic(stream)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(stream)
        if dtype.kind != "f":
            raise ValueError(f"numbers of the type {brief(dtype)}")
        return shape


def _read_npz(path: Path) -> np.ndarray:
    with _npz_errors(path), np.load(path, allow_pickle=False) as archive:
        array: np.ndarray = archive["probabilities"]
        return array


@contextmanager
def _npz_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (*MALFORMED, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as problem:
        text = f"not an .npz file with `probabilities` ({brief(str(problem))})"
        raise DamagedFileError(path, text, "predict again") from problem


def _require_other_folder(inputs: Sequence[Path], output: Path) -> None:
    if any(folder.resolve() == output.resolve() for folder in inputs):
        raise DatasetError(f"{output}: is also a folder of inputs; give another one for the results")
