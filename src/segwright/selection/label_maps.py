"""One final label map: average what the members predicted, postprocess, write (method 10.7, 12.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segwright.core.errors import DatasetError
from segwright.core.files import json_digest
from segwright.core.recorded import RecordedFile
from segwright.core.versions import STAGE_VERSION
from segwright.evaluation.parallel import map_cases
from segwright.images.readers import read_label, write_label
from segwright.inference.finished import (
    LABEL,
    PROBABILITIES,
    finished_digests,
    note_finished,
    remove_stale,
    write_manifest,
)
from segwright.inference.probabilities import ProbabilityFile, mean_labels, mean_probabilities, write_npz
from segwright.selection.components import Rule, apply_rules

_OWNER = "label_maps"


@dataclass(frozen=True)
class LabelMapTask:
    """One case.

    Attributes:
        folder: where ``output`` lies or whose subfolder holds it; notes of what is finished go there.
        output: the label map to write.
        reader: name of the reader that writes it.
        label_map: the only member's label map; None: it is made from ``probabilities``.
        probabilities: the members' probability files; averaged in float32.
        rules: postprocessing, in order.
        probabilities_output: where the mean probabilities on the raw grid go, as nnU-Net v2 saves them; None: nowhere.
    """

    case_id: str
    folder: Path
    output: Path
    reader: str
    label_map: RecordedFile | None = None
    probabilities: tuple[RecordedFile, ...] = ()
    rules: tuple[Rule, ...] = ()
    probabilities_output: Path | None = None

    @property
    def files(self) -> dict[str, Path]:
        """What the task writes, by role."""
        files = {LABEL: self.output}
        if self.probabilities_output is not None:
            files[PROBABILITIES] = self.probabilities_output
        return files

    @property
    def inputs(self) -> str:
        """Digest of everything the label map depends on."""
        return json_digest(
            {
                "versions": [STAGE_VERSION["selection"], STAGE_VERSION["inference"]],
                "label_map": self.label_map.digest if self.label_map else None,
                "probabilities": [entry.digest for entry in self.probabilities],
                "rules": [rule.to_json() for rule in self.rules],
                "reader": self.reader,
            }
        )


def make_label_maps(
    tasks: Sequence[LabelMapTask], folder: Path, manifest: Path, workers: int, title: str
) -> dict[str, RecordedFile]:
    """Make the label maps of a folder that are not finished, remove those of cases that are gone, write the manifest.

    Raises:
        DamagedFileError: a prediction is missing or was altered.
        DatasetError: the members' predictions of a case do not fit each other.
    """
    remove_stale(folder, _OWNER, {task.case_id: task.files for task in tasks})
    digests = dict(map_cases(make_label_map, [(task.case_id, task) for task in tasks], workers, title))
    cases: dict[str, Mapping[str, Any]] = {
        task.case_id: {"file": task.output, "digest": digests[task.case_id], "inputs": task.inputs} for task in tasks
    }
    write_manifest(manifest, manifest.parent, cases)
    return {
        task.case_id: RecordedFile(task.output, digests[task.case_id], manifest, case_id=task.case_id) for task in tasks
    }


def make_label_map(task: LabelMapTask) -> str:
    """Write one case's label map, unless it is finished; returns its digest."""
    finished = finished_digests(task.folder, task.case_id, task.inputs, task.files)
    if finished is not None:
        return finished[LABEL]
    members = [ProbabilityFile(entry.verify(), verified=True) for entry in task.probabilities]
    if not members and (task.label_map is None or task.probabilities_output is not None):
        raise DatasetError(f"case {task.case_id}: there is no prediction to make {task.output} from; predict it first")
    mean = None if task.probabilities_output is None else mean_probabilities(members)
    if task.label_map is not None:
        stored = read_label(task.label_map.verify(), task.reader)
        label_zyx, geometry = stored.array_zyx, stored.geometry
    else:
        label_zyx, geometry = mean_labels(members, mean), members[0].properties.geometry
    if mean is not None and task.probabilities_output is not None:
        write_npz(task.probabilities_output, mean)
    write_label(task.output, apply_rules(label_zyx, task.rules), geometry, task.reader)
    return note_finished(task.folder, _OWNER, task.case_id, task.inputs, task.files)[LABEL]
