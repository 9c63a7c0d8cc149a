"""Predict the validation cases of one fold from their stored (preprocessed) form: out-of-fold predictions (method 9.7).

For each case: a segmentation on the raw grid, probabilities if ensembles will be tried, and label maps on the stored
grid of every next stage (cascade), made from the scores. Finished cases are kept when all they depend on is unchanged.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from segwright.core.errors import DatasetError
from segwright.core.files import json_digest
from segwright.images.readers import write_label
from segwright.inference.export import ScoreKind, labels_from_logits, next_stage_labels
from segwright.inference.finished import (
    LABEL,
    NEXT_STAGE,
    PROBABILITIES,
    PROBABILITIES_SUFFIX,
    finished_digests,
    note_finished,
    remove_stale,
    require_free_disk,
    write_manifest,
)
from segwright.inference.next_stage import write_label_array, write_next_stage
from segwright.inference.pipeline import run_cases
from segwright.inference.predictor import Predictor
from segwright.inference.probabilities import write_probabilities
from segwright.inference.request import Computation, Output
from segwright.inference.stage import Stage
from segwright.preprocessing.case import CaseProperties
from segwright.preprocessing.store import PreprocessedStore, StoredCase
from segwright.splits import ALL, Fold
from segwright.training.previous_stage import PreviousStageMaps, read_previous_stage

log = logging.getLogger(__name__)

_Prepared = tuple[StoredCase, np.ndarray | None]  # with the previous stage's label map
_Predicted = tuple[np.ndarray, CaseProperties]

_SCORE_BYTES = 4  # a score is float32


@dataclass(frozen=True)
class StoredCases:
    """The validation cases of one fold, in their preprocessed form.

    Attributes:
        index: index.json of this configuration's preprocessed store.
        fold: its ``val`` is predicted. The fold ``all`` has seen every case, so nothing is out of fold.
        previous: the previous stage's next_stage.json, if this configuration is a cascade.
        next_stages: next configuration -> index.json of its store, on whose grids its label maps are made.
    """

    index: Path
    fold: Fold
    previous: Path | None = None
    next_stages: Mapping[str, Path] = field(default_factory=dict)


def predict_fold(stage: Stage, cases: StoredCases, output: Output, how: Computation) -> None:
    """Predict a fold and write ``validation.json``, ``probabilities.json`` and ``next_stage.json`` to the folder.

    Without ``save_probabilities``, probabilities.json lists no cases; for the fold ``all`` none of the files does.

    Raises:
        DatasetError: a case cannot be predicted or written (names it), or the disk is too small for the probabilities.
        ModelError: the weights do not fit. DamagedFileError: a file it reads is not what it should be.
    """
    _Fold(
        stage=stage,
        fold=cases.fold,
        store=PreprocessedStore(cases.index),
        previous=None if cases.previous is None else read_previous_stage(cases.previous, stage.plan.configuration),
        targets={name: PreprocessedStore(path) for name, path in sorted(cases.next_stages.items())},
        output=output,
        how=how,
    ).predict()


@dataclass(frozen=True)
class _Fold:
    """One call of :func:`predict_fold`, its files opened."""

    stage: Stage
    fold: Fold
    store: PreprocessedStore
    previous: PreviousStageMaps | None
    targets: Mapping[str, PreprocessedStore]
    output: Output
    how: Computation

    def predict(self) -> None:
        plan, folder = self.stage.plan, self.output.folder
        if (self.previous is None) != (plan.previous_stage is None):
            raise DatasetError(f"{plan.configuration}: a cascade, and only a cascade, needs its next_stage.json")
        cases = [] if self.fold.name == ALL else sorted(self.fold.val)
        owner = f"fold_{self.fold.name}"
        remove_stale(folder, owner, {case_id: self._files(case_id) for case_id in cases})
        shared = self.stage.digest(self.how.settings)
        inputs = {case_id: self._inputs(shared, case_id) for case_id in cases}
        digests: dict[str, dict[str, str]] = {}
        for case_id in cases:
            finished = finished_digests(folder, case_id, inputs[case_id], self._files(case_id))
            if finished is not None:
                digests[case_id] = finished
        missing = [case_id for case_id in cases if case_id not in digests]
        if digests:
            log.info("%d of %d cases are finished already", len(digests), len(cases))
        if missing:
            self._require_disk(missing)
            self._predict_cases(missing, owner, inputs, digests)
        self._write_manifests(cases, inputs, digests)

    def _predict_cases(
        self, cases: Sequence[str], owner: str, inputs: Mapping[str, str], digests: dict[str, dict[str, str]]
    ) -> None:
        predictor = Predictor(self.stage, self.how, self.stage.training.torch_threads)

        def predict(_: str, prepared: _Prepared) -> _Predicted:
            stored, previous = prepared
            return predictor.logits(stored.image_czyx, previous), stored.properties

        def export(case_id: str, predicted: _Predicted) -> None:
            self._export(case_id, *predicted, predictor.kind)
            digests[case_id] = note_finished(self.output.folder, owner, case_id, inputs[case_id], self._files(case_id))

        title = f"predict {self.stage.plan.configuration} fold {self.fold.name}"
        run_cases(title, cases, self._prepare, predict, export, self.how.workers)

    def _prepare(self, case_id: str) -> _Prepared:
        stored = self.store.open_intact(case_id)
        require_finite(stored.image_czyx, [self.store.file(case_id).path])
        shape = stored.properties.shape
        return stored, None if self.previous is None else self.previous.open_intact(case_id, shape)

    def _export(self, case_id: str, scores: np.ndarray, properties: CaseProperties, kind: ScoreKind) -> None:
        files, plan = self._files(case_id), self.stage.plan
        label_zyx = labels_from_logits(scores, properties, plan, kind)
        write_label(files[LABEL], label_zyx, properties.geometry, plan.preprocess.reader)
        del label_zyx
        for name, store in self.targets.items():
            shape = store.open(case_id).properties.shape
            label_zyx = next_stage_labels(scores, properties, plan, shape, kind)
            write_label_array(files[NEXT_STAGE + name], label_zyx)
        if PROBABILITIES in files:
            write_probabilities(files[PROBABILITIES], scores, properties, plan, kind)

    def _files(self, case_id: str) -> dict[str, Path]:
        folder = self.output.folder
        files = {LABEL: folder / "validation" / f"{case_id}{self.output.file_ending}"}
        if self.output.save_probabilities:
            files[PROBABILITIES] = folder / "probabilities" / f"{case_id}{PROBABILITIES_SUFFIX}"
        for name in self.targets:
            files[NEXT_STAGE + name] = folder / "next_stage" / name / f"{case_id}.npy"
        return files

    def _inputs(self, shared: str, case_id: str) -> str:
        """Digest of everything the files of a case depend on."""
        return json_digest(
            {
                "prediction": shared,
                "case": self.store.file(case_id).digest,
                "previous": None if self.previous is None else self.previous.file(case_id).digest,
                "shapes": {name: store.open(case_id).properties.shape for name, store in self.targets.items()},
            }
        )

    def _require_disk(self, cases: Sequence[str]) -> None:
        if not self.output.save_probabilities:
            return
        voxels = sum(int(np.prod(self.store.open(case_id).properties.shape)) for case_id in cases)
        needed_bytes = voxels * self.stage.plan.labels.num_outputs * _SCORE_BYTES
        require_free_disk(self.output.folder, needed_bytes, f"the probabilities of {len(cases)} cases")

    def _write_manifests(
        self, cases: Sequence[str], inputs: Mapping[str, str], digests: Mapping[str, Mapping[str, str]]
    ) -> None:
        folder, files = self.output.folder, {case_id: self._files(case_id) for case_id in cases}

        def entries(role: str) -> dict[str, dict[str, Path | str]]:
            return {
                case_id: {"file": files[case_id][role], "digest": digests[case_id][role], "inputs": inputs[case_id]}
                for case_id in cases
            }

        write_manifest(folder / "validation.json", folder, entries(LABEL))
        probabilities = entries(PROBABILITIES) if self.output.save_probabilities else {}
        write_manifest(folder / "probabilities.json", folder, probabilities)
        targets = {
            name: {
                case_id: (files[case_id][NEXT_STAGE + name], digests[case_id][NEXT_STAGE + name]) for case_id in cases
            }
            for name in self.targets
        }
        write_next_stage(folder / "next_stage.json", targets)


def require_finite(image_czyx: np.ndarray, files: Sequence[Path]) -> None:
    """Refuse an image with values that are not numbers: the network would spread them over the whole tile.

    Args:
        files: one a channel, or one of all channels.

    Raises:
        DatasetError: says which file and channel.
    """
    for channel, values in enumerate(image_czyx):
        if not np.isfinite(values).all():
            raise DatasetError(
                f"{files[min(channel, len(files) - 1)]}: channel {channel} holds values that are infinite or not"
                " numbers; repair the image"
            )
