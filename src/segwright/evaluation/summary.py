"""Evaluate many cases and write nnU-Net v2's summary.json (method 11.2, 11.3).

Paths in a summary are never absolute: references start at the dataset folder, predictions at the summary's own folder.
What segwright adds stands under the one key ``segwright``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from segwright.core.dataset import Dataset
from segwright.core.errors import MALFORMED, DamagedFileError, DatasetError, brief, some
from segwright.core.files import read_json, relative_name, write_json
from segwright.core.labels import LabelKey, Labels, key_from_text, key_text
from segwright.core.manifest import read_manifest, read_manifests
from segwright.core.recorded import RecordedFile
from segwright.evaluation.metrics import Counts, case_metrics, mean_metrics
from segwright.evaluation.parallel import map_cases
from segwright.images.itk import ending_of
from segwright.images.readers import choose_reader, read_label


@dataclass(frozen=True)
class Pair:
    """One case to evaluate: its two label maps, and the names they get in the summary."""

    case_id: str
    reference: Path
    prediction: Path
    reference_name: str
    prediction_name: str


@dataclass(frozen=True)
class CaseResult:
    """The counts of one case, one entry a label or region."""

    case_id: str
    counts: Mapping[LabelKey, Counts]
    reference_name: str
    prediction_name: str


@dataclass(frozen=True)
class Summary:
    """The evaluation of a set of cases.

    Attributes:
        keys: evaluated labels or regions in declaration order.
        mean: metric means over the cases, by structure; NaN where a structure never occurs.
        foreground_mean: their plain mean over the structures.
        extras: what stands under ``segwright``.
    """

    keys: tuple[LabelKey, ...]
    cases: tuple[CaseResult, ...]
    mean: Mapping[LabelKey, Mapping[str, float]]
    foreground_mean: Mapping[str, float]
    extras: Mapping[str, Any]

    @property
    def case_ids(self) -> tuple[str, ...]:
        return tuple(case.case_id for case in self.cases)

    def to_json(self) -> dict[str, Any]:
        return {
            "foreground_mean": dict(self.foreground_mean),
            "mean": {key_text(key): dict(metrics) for key, metrics in self.mean.items()},
            "metric_per_case": [
                {
                    "metrics": {key_text(key): counts.to_json() for key, counts in case.counts.items()},
                    "prediction_file": case.prediction_name,
                    "reference_file": case.reference_name,
                }
                for case in self.cases
            ],
            "segwright": {**self.extras, "cases": list(self.case_ids), "keys": [key_text(key) for key in self.keys]},
        }


def make_summary(cases: Sequence[CaseResult], labels: Labels, extras: Mapping[str, Any] | None = None) -> Summary:
    """Sort the cases by file name and take the means (method 11.2).

    Raises:
        DatasetError: there is no case.
    """
    if not cases:
        raise DatasetError("there is no case to evaluate; check that predictions and references have the same names")
    ordered = tuple(sorted(cases, key=lambda case: Path(case.prediction_name).name))
    keys = labels.foreground_keys
    mean, foreground_mean = mean_metrics([case.counts for case in ordered], keys)
    return Summary(keys, ordered, mean, foreground_mean, dict(extras or {}))


def read_summary(path: Path) -> Summary:
    """Read a summary.json, nnU-Net v2's included (whose cases are then named after their prediction files).

    Raises:
        DamagedFileError: it is missing or not a summary.
    """
    record = read_json(path)
    try:
        extras = dict(record.get("segwright", {}))
        listed = record["metric_per_case"]
        names = extras.pop("cases", None) or [_case_of_file(entry["prediction_file"]) for entry in listed]
        texts = extras.pop("keys", None) or list(record["mean"])
        cases = tuple(
            CaseResult(
                case_id=str(name),
                counts={key_from_text(text): Counts.from_json(entry["metrics"][text]) for text in texts},
                reference_name=str(entry["reference_file"]),
                prediction_name=str(entry["prediction_file"]),
            )
            for name, entry in zip(names, listed, strict=True)
        )
        mean = {key_from_text(text): {m: float(v) for m, v in record["mean"][text].items()} for text in texts}
        foreground_mean = {metric: float(value) for metric, value in record["foreground_mean"].items()}
        for metrics in (foreground_mean, *mean.values()):
            _ = metrics["Dice"]  # all later stages read it; where it is missing, the file is said to be damaged
    except MALFORMED as problem:
        raise DamagedFileError(path, f"not a summary of an evaluation ({brief(repr(problem))})") from problem
    return Summary(tuple(mean), cases, mean, foreground_mean, extras)


def _case_of_file(name: str) -> str:
    """The case a file of a foreign summary belongs to; case ids may hold dots."""
    file = Path(name)
    return file.name[: len(file.name) - len(ending_of(file))]


def evaluate_pairs(pairs: Sequence[Pair], labels: Labels, reader: str, workers: int = 1) -> tuple[CaseResult, ...]:
    """Read both label maps of every case and count (method 11.1).

    Raises:
        DatasetError: a file cannot be read, or a prediction lies on another grid than its reference.
    """
    tasks = [(pair.case_id, (pair, labels, reader)) for pair in pairs]
    return tuple(result for _, result in map_cases(_evaluate_pair, tasks, workers, "evaluate"))


def evaluate_entries(
    entries: Mapping[str, RecordedFile], dataset: Dataset, reader: str, root: Path, workers: int = 1
) -> tuple[CaseResult, ...]:
    """Evaluate the label maps of manifests against the dataset's labels; each file's digest is verified first.

    Args:
        root: folder of the summary; prediction names are relative to it.
    """
    references = reference_files(dataset, entries)
    pairs = [
        Pair(
            case_id=case_id,
            reference=references[case_id],
            prediction=entry.verify(),
            reference_name=relative_name(references[case_id], dataset.folder),
            prediction_name=relative_name(entry.path, root),
        )
        for case_id, entry in entries.items()
    ]
    return evaluate_pairs(pairs, dataset.labels, reader, workers)


def reference_files(dataset: Dataset, case_ids: Iterable[str]) -> dict[str, Path]:
    """The label file of each case.

    Raises:
        DatasetError: a case is not among the training cases, or has no label file.
    """
    labelled = {case.case_id: case.label_file for case in dataset.training}
    references: dict[str, Path] = {}
    for case_id in case_ids:
        label_file = labelled.get(case_id)
        if label_file is None:
            raise DatasetError(
                f"case {case_id} was predicted, but {dataset.folder} has no label of it; restore its files, or run the"
                " workflow again so that the case is dropped"
            )
        references[case_id] = label_file
    return references


def summarize_crossval(
    validation_files: Sequence[Path], dataset: Dataset, reader: str, output: Path, workers: int = 1
) -> Summary:
    """Evaluate the out-of-fold predictions of all folds together and write ``output`` (method 11.3).

    Args:
        validation_files: ``.../fold_{k}/validation.json`` of each fold.
        output: the summary.json.

    Raises:
        DatasetError: a case appears in two folds, or has no label.
        DamagedFileError: a prediction is missing or was altered.
    """
    entries = read_manifests(validation_files)
    results = evaluate_entries(entries, dataset, reader, output.parent, workers)
    folds = {path.parent.name.removeprefix("fold_"): len(read_manifest(path)) for path in validation_files}
    summary = make_summary(results, dataset.labels, {"cases_per_fold": folds, "dataset": dataset.name})
    write_json(output, summary.to_json())
    return summary


def evaluate_folders(
    reference: Path,
    prediction: Path,
    dataset_json: Path,
    output: Path,
    *,
    reader: str | None = None,
    partial: bool = False,
    workers: int = 1,
) -> Summary:
    """Evaluate every label map of a folder against the reference of the same name, and write ``output``.

    Args:
        reference, prediction: folders of label maps.
        dataset_json: the dataset.json that says labels and file ending.
        reader: name of the reader; chosen by the file ending if None.
        partial: allow references without a prediction (v2's ``--chill``).

    Raises:
        DatasetError: a file has no partner, cannot be read, or lies on another grid.
    """
    labels, ending, facts = read_labels_and_ending(dataset_json)
    references, predictions = files_with_ending(reference, ending), files_with_ending(prediction, ending)
    unknown = set(predictions) - set(references)
    missing = set() if partial else set(references) - set(predictions)
    parts = []
    if unknown:
        parts.append(f"without reference in {reference}: {some(unknown)}")
    if missing:
        parts.append(f"without prediction in {prediction}: {some(missing)}")
    if parts:
        raise DatasetError(f"the folders do not hold the same cases ({'; '.join(parts)}); add or remove these files")
    pairs = [
        Pair(case_id, references[case_id], path, references[case_id].name, path.name)
        for case_id, path in predictions.items()
    ]
    if not pairs:
        raise DatasetError(f"{prediction}: there is no file ending in {ending}; correct the folder or dataset.json")
    reader = reader or chosen_reader(facts, ending, pairs[0].reference)
    summary = make_summary(evaluate_pairs(pairs, labels, reader, workers), labels)
    write_json(output, summary.to_json())
    return summary


def read_labels_and_ending(dataset_json: Path) -> tuple[Labels, str, Mapping[str, Any]]:
    """What folders of label maps need of a dataset.json: its labels, its file ending, and its content.

    Raises:
        DatasetError: the file ending is missing, or the labels are not valid.
        DamagedFileError: the file is missing or no JSON.
    """
    facts = read_json(dataset_json)
    if not isinstance(facts, dict) or "file_ending" not in facts:
        raise DatasetError(f"{dataset_json}: the key `file_ending` is missing")
    return Labels.from_json(facts), str(facts["file_ending"]), facts


def files_with_ending(folder: Path, ending: str) -> dict[str, Path]:
    """Case id -> file of a folder of label maps, sorted; hidden files are left out.

    Raises:
        DatasetError: the folder does not exist.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: the folder does not exist; correct its path")
    return {
        path.name[: -len(ending)]: path
        for path in sorted(folder.iterdir())
        if path.name.endswith(ending) and not path.name.startswith(".") and path.is_file()
    }


def chosen_reader(dataset_json: Mapping[str, Any], ending: str, example: Path) -> str:
    """Name of the reader for label maps of a dataset, by its dataset.json and an example (method 1.3)."""
    override = dataset_json.get("overwrite_image_reader_writer")
    return choose_reader(ending, example, None if override in (None, "None") else str(override))


def read_pair(case_id: str, reference: Path, prediction: Path, reader: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Reference and prediction of a case, integers (z, y, x).

    Raises:
        DatasetError: a file cannot be read, or the two lie on different grids.
    """
    reference_zyx, prediction_zyx = (read_label(path, reader).array_zyx for path in (reference, prediction))
    if reference_zyx.shape != prediction_zyx.shape:
        raise DatasetError(
            f"case {case_id}: {reference} has shape {reference_zyx.shape} (z, y, x) but {prediction} has"
            f" {prediction_zyx.shape}; both must lie on the grid of the image"
        )
    return reference_zyx, prediction_zyx


def _evaluate_pair(task: tuple[Pair, Labels, str]) -> CaseResult:
    pair, labels, reader = task
    reference_zyx, prediction_zyx = read_pair(pair.case_id, pair.reference, pair.prediction, reader)
    counts = case_metrics(reference_zyx, prediction_zyx, labels)
    return CaseResult(pair.case_id, counts, pair.reference_name, pair.prediction_name)
