"""Predict images: raw files -> preprocessing -> scores -> label maps and probabilities (method 10).

:func:`predict_batch` is the workflow's step for a batch of test images with one configuration; its cascade input are
the label maps the previous stage predicted before. :func:`predict_images` serves any images with a whole model: every
stage of a cascade runs by itself, several configurations are averaged, a final step (postprocessing) is applied.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segwright.core.dataset import Case
from segwright.core.errors import DatasetError
from segwright.core.files import file_digest, json_digest
from segwright.core.manifest import read_manifest
from segwright.core.recorded import RecordedFile
from segwright.core.slices import PredictPlan
from segwright.images.image import Image, LabelMap
from segwright.images.readers import read_image, read_label, sidecars, write_label
from segwright.inference.export import ScoreKind, labels_from_logits
from segwright.inference.finished import (
    LABEL,
    PROBABILITIES,
    PROBABILITIES_SUFFIX,
    finished_digests,
    note_finished,
    remove_stale,
    remove_unfinished,
    require_free_disk,
    write_manifest,
)
from segwright.inference.fold import require_finite
from segwright.inference.pipeline import run_cases
from segwright.inference.predictor import Predictor
from segwright.inference.probabilities import (
    ScoreArray,
    mean_labels,
    mean_probabilities,
    write_npz,
    write_probabilities,
)
from segwright.inference.request import Computation, Output
from segwright.inference.stage import Stage
from segwright.inference.usual import UsualGrid
from segwright.inspection.records import CaseRecord, read_batch
from segwright.preprocessing.case import CaseProperties, PreprocessedCase, preprocess_case

log = logging.getLogger(__name__)

_Predicted = tuple[np.ndarray, CaseProperties]


@dataclass(frozen=True)
class RawCases:
    """A batch of test images.

    Attributes:
        dataset_folder: the inspection names the images relative to it.
        inspection: the batch's ``test/{batch}.json``, with the digests of its images; its name is the batch's.
        previous: the previous stage's manifest of the same batch, for a cascade (method 10.5).
    """

    dataset_folder: Path
    inspection: Path
    previous: Path | None = None


def predict_batch(stage: Stage, cases: RawCases, output: Output, how: Computation) -> None:
    """Predict the test cases of one batch into ``cases/`` of the folder, and write the manifest ``{batch}.json``.

    Manifest: ``{"version", "cases": {case: {"file", "digest", "inputs"[, "probabilities": {...}]}}}``.

    Raises:
        DatasetError: a case cannot be read, predicted or written (names it); all errors of inspection at once.
    """
    records = _valid_records(cases.inspection)
    previous_files = {} if cases.previous is None else _previous_labels(cases.previous, records)
    plan, folder, owner = stage.plan, output.folder, cases.inspection.stem
    shared = stage.digest(how.settings)
    inputs = {
        case_id: json_digest([shared, record.digest, previous_files[case_id].digest if previous_files else None])
        for case_id, record in records.items()
    }
    files = {case_id: _batch_files(output, case_id, inputs[case_id]) for case_id in inputs}
    remove_stale(folder, owner, files)
    digests = _finished(folder, inputs, files)
    missing = [case_id for case_id in records if case_id not in digests]
    if output.save_probabilities:
        _require_disk_for_scores(folder, [records[case_id] for case_id in missing], plan)
    if missing:
        predictor = Predictor(stage, how, stage.training.torch_threads)

        def prepare(case_id: str) -> PreprocessedCase:
            image = _read([cases.dataset_folder / name for name in records[case_id].image_files], plan)
            label = read_label(previous_files[case_id].verify(), plan.preprocess.reader) if previous_files else None
            return _preprocess(image, label, plan)

        def predict(_: str, case: PreprocessedCase) -> _Predicted:
            return predictor.logits(case.image_czyx, case.label_zyx), case.properties

        def export(case_id: str, predicted: _Predicted) -> None:
            _export(files[case_id], *predicted, plan, predictor.kind)
            digests[case_id] = note_finished(folder, owner, case_id, inputs[case_id], files[case_id])

        run_cases(f"predict {plan.configuration} {owner}", missing, prepare, predict, export, how.workers)
    _write_batch(folder / f"{owner}.json", files, digests, inputs)


def predict_image(
    predictor: Predictor, image: Image, previous_label: LabelMap | None = None
) -> tuple[np.ndarray, CaseProperties]:
    """Scores of one raw image on the stored grid of the predictor's configuration.

    Args:
        previous_label: for a cascade the previous stage's label map on the raw grid; it is transposed, cropped and
            resampled as the case's label would be (method 10.5).
    """
    case = _preprocess(image, previous_label, predictor.plan)
    return predictor.logits(case.image_czyx, case.label_zyx), case.properties


def predict_images(
    chains: Sequence[Sequence[Stage]],
    cases: Sequence[Case],
    output: Output,
    how: Computation,
    finish: Callable[[np.ndarray], np.ndarray] | None = None,
    finish_digest: str = "",
    usual: UsualGrid | None = None,
) -> dict[str, Path]:
    """Predict images with a whole model into the folder: ``{case}{file_ending}``; returns case -> file.

    Probabilities are ``{case}.npz`` with ``probabilities`` on the raw grid (float32), as v2 writes them. Cases whose
    output is there and was made from the same images, model and settings are kept. An image that cannot be read or
    predicted does not keep the others from being predicted.

    Args:
        chains: one entry a configuration that is averaged (usually one); each holds its stages, the previous first.
        finish: last step on the raw label map, e.g. postprocessing; ``finish_digest`` changes when its effect does.
        usual: images on a grid far from it are named in a warning.

    Raises:
        DatasetError: cases cannot be read or predicted; names them all, once the others are written. Or one cannot be
            written.
    """
    output.folder.mkdir(parents=True, exist_ok=True)
    model = [[stage.digest(how.settings) for stage in chain] for chain in chains]
    first_plan = chains[0][0].plan
    by_id = {case.case_id: case for case in cases}

    def inputs_of(case_id: str) -> str:
        return _image_inputs(by_id[case_id], first_plan.preprocess.reader, model, finish_digest)

    inputs = _readable_inputs(cases, inputs_of)
    files = {case_id: _image_files(output, case_id) for case_id in by_id}
    remove_unfinished(output.folder, files)
    finished = _finished(output.folder, inputs, files)
    missing = [case_id for case_id in by_id if case_id not in finished]
    if finished:
        log.info("%d of %d images are finished already", len(finished), len(by_id))
    if missing:
        predictors = [[Predictor(stage, how) for stage in chain] for chain in chains]

        def read(case_id: str) -> Image:
            image = _read(by_id[case_id].image_files, first_plan)
            if case_id not in inputs:  # it could not be read before
                inputs[case_id] = inputs_of(case_id)
            if usual is not None and (difference := usual.difference(image.geometry)) is not None:
                log.warning("case %s: %s", case_id, difference)
            return image

        def predict(_: str, image: Image) -> list[ScoreArray]:
            return [_predict_chain(chain, image) for chain in predictors]

        def export(case_id: str, members: list[ScoreArray]) -> None:
            _export_final(files[case_id], members, finish)
            note_finished(output.folder, "images", case_id, inputs[case_id], files[case_id])

        run_cases("predict", missing, read, predict, export, how.workers, keep_going=True)
    return {case_id: roles[LABEL] for case_id, roles in files.items()}


def _readable_inputs(cases: Sequence[Case], inputs_of: Callable[[str], str]) -> dict[str, str]:
    """``inputs_of`` the cases whose images can be read; whoever reads the others says what is wrong with them."""
    inputs: dict[str, str] = {}
    for case in cases:
        with contextlib.suppress(OSError):
            if all(path.is_file() for path in case.image_files):  # a pipe would be waited for
                inputs[case.case_id] = inputs_of(case.case_id)
    return inputs


def _predict_chain(chain: Sequence[Predictor], image: Image) -> ScoreArray:
    """All stages of one configuration, each fed with the label map of the one before."""
    label: LabelMap | None = None
    for stage in chain[:-1]:
        scores, properties = predict_image(stage, image, label)
        label_zyx = labels_from_logits(scores, properties, stage.plan, stage.kind)
        label = LabelMap(label_zyx, image.geometry, str(label_zyx.dtype))
        del scores
    scores, properties = predict_image(chain[-1], image, label)
    return ScoreArray(scores, properties, chain[-1].plan, chain[-1].kind)


def _export_final(
    files: Mapping[str, Path], members: Sequence[ScoreArray], finish: Callable[[np.ndarray], np.ndarray] | None
) -> None:
    first = members[0]
    mean = mean_probabilities(members) if PROBABILITIES in files else None
    if len(members) == 1:
        label_zyx = labels_from_logits(first.scores_czyx, first.properties, first.plan, first.kind)
    else:
        label_zyx = mean_labels(members, mean)
    label_zyx = label_zyx if finish is None else finish(label_zyx)
    write_label(files[LABEL], label_zyx, first.properties.geometry, first.plan.preprocess.reader)
    if mean is not None:
        write_npz(files[PROBABILITIES], mean)


def _export(
    files: Mapping[str, Path], scores: np.ndarray, properties: CaseProperties, plan: PredictPlan, kind: ScoreKind
) -> None:
    label_zyx = labels_from_logits(scores, properties, plan, kind)
    write_label(files[LABEL], label_zyx, properties.geometry, plan.preprocess.reader)
    if PROBABILITIES in files:
        require_free_disk(files[LABEL].parent, scores.nbytes, "its probabilities")
        write_probabilities(files[PROBABILITIES], scores, properties, plan, kind)


def _read(files: Sequence[Path], plan: PredictPlan) -> Image:
    image = read_image(files, plan.preprocess.reader)
    require_finite(image.array_czyx, files)
    return image


def _preprocess(image: Image, previous_label: LabelMap | None, plan: PredictPlan) -> PreprocessedCase:
    if (previous_label is None) != (plan.previous_stage is None):
        raise DatasetError(f"{plan.configuration}: a cascade, and only a cascade, needs previous label maps")
    return preprocess_case(image, previous_label, plan.preprocess, with_locations=False)


def _image_inputs(case: Case, reader: str, model: Sequence[Sequence[str]], finish_digest: str) -> str:
    """Digest of everything a predicted image depends on."""
    spacings = [path for path in sidecars(case.image_files, None, reader) if path.is_file()]
    return json_digest([model, [file_digest(path) for path in (*case.image_files, *spacings)], finish_digest])


def _image_files(output: Output, case_id: str) -> dict[str, Path]:
    files = {LABEL: output.folder / f"{case_id}{output.file_ending}"}
    if output.save_probabilities:
        files[PROBABILITIES] = output.folder / f"{case_id}.npz"
    return files


def _batch_files(output: Output, case_id: str, inputs: str) -> dict[str, Path]:
    folder, stem = output.folder / "cases", f"{case_id}.{inputs[:12]}"
    files = {LABEL: folder / f"{stem}{output.file_ending}"}
    if output.save_probabilities:
        files[PROBABILITIES] = folder / f"{stem}{PROBABILITIES_SUFFIX}"
    return files


def _finished(
    folder: Path, inputs: Mapping[str, str], files: Mapping[str, Mapping[str, Path]]
) -> dict[str, dict[str, str]]:
    """Digests of the files of the cases that need not be predicted again."""
    found = {case_id: finished_digests(folder, case_id, inputs[case_id], files[case_id]) for case_id in inputs}
    return {case_id: digests for case_id, digests in found.items() if digests is not None}


def _valid_records(inspection_file: Path) -> Mapping[str, CaseRecord]:
    """The records of a test batch, if all its images can be used."""
    records = read_batch(inspection_file).cases
    problems = [p.text for record in records.values() for p in record.problems if p.severity == "error"]
    if problems:
        raise DatasetError("test images that cannot be predicted:\n" + "\n".join(problems))
    return records


def _previous_labels(manifest: Path, records: Mapping[str, CaseRecord]) -> dict[str, RecordedFile]:
    """The label map of the previous stage, by case."""
    labels = read_manifest(manifest)
    missing = sorted(records.keys() - labels.keys())
    if missing:
        raise DatasetError(f"{manifest}: the previous stage did not predict {', '.join(missing[:5])}; predict it first")
    return labels


def _require_disk_for_scores(folder: Path, records: Sequence[CaseRecord], plan: PredictPlan) -> None:
    needed_bytes = sum(_score_bytes(record, plan) for record in records)
    require_free_disk(folder, needed_bytes, f"the probabilities of {len(records)} cases")


def _score_bytes(record: CaseRecord, plan: PredictPlan) -> int:
    """Upper estimate of a case's scores from its raw grid: what cropping may save is not counted."""
    if record.geometry is None:
        return 0
    spacing_mm = [record.geometry.spacing_zyx[axis] for axis in plan.preprocess.transpose_forward]
    target_mm = plan.preprocess.target_spacing_mm(spacing_mm)
    growth = float(np.prod([before / after for before, after in zip(spacing_mm, target_mm, strict=True)]))
    return int(np.prod(record.geometry.shape_zyx, dtype=np.float64) * growth * plan.labels.num_outputs * 4)


def _write_batch(
    output: Path,
    files: Mapping[str, Mapping[str, Path]],
    digests: Mapping[str, Mapping[str, str]],
    inputs: Mapping[str, str],
) -> None:
    entries: dict[str, dict[str, object]] = {}
    for case_id, roles in files.items():
        done = digests[case_id]
        entry: dict[str, object] = {"file": roles[LABEL], "digest": done[LABEL], "inputs": inputs[case_id]}
        if PROBABILITIES in roles:
            name = roles[PROBABILITIES].relative_to(output.parent).as_posix()
            entry[PROBABILITIES] = {"file": name, "digest": done[PROBABILITIES]}
        entries[case_id] = entry
    write_manifest(output, output.parent, entries)
