"""The last step to the label maps of the test images: average the members, postprocess, write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from segwright.core.manifest import read_manifests
from segwright.core.recorded import RecordedFile
from segwright.inference.finished import PROBABILITIES
from segwright.selection.ensembles import same_cases
from segwright.selection.label_maps import LabelMapTask, make_label_maps
from segwright.selection.postprocessing import read_rules

MANIFEST_NAME = "manifest.json"
PROBABILITIES_ENDING = ".npz"


def finish_test(
    members: Sequence[Sequence[Path]],
    postprocessing: Path,
    file_ending: str,
    reader: str,
    output: Path,
    *,
    save_probabilities: bool = False,
    workers: int = 1,
) -> None:
    """Final label maps of the test images: ``output/{case}{ending}`` and ``output/manifest.json``.

    Cases whose inputs are unchanged are used again.

    Args:
        members: for each member of the chosen model the prediction manifests of its batches. One member: its label maps
            are postprocessed; several: their probabilities are averaged first.
        postprocessing: postprocessing.json.
        save_probabilities: also write ``output/{case}.npz`` (needs the members' probabilities).

    Raises:
        DatasetError: the members predicted different cases, or lack probabilities.
        DamagedFileError: a prediction is missing or was altered.
    """
    averaged = len(members) > 1
    label_maps = {} if averaged else read_manifests(members[0])
    probabilities: Mapping[str, tuple[RecordedFile, ...]] = {}
    if (averaged or save_probabilities) and any(members):  # a dataset may have no test images
        probabilities = same_cases([read_manifests(files, PROBABILITIES) for files in members])
    rules = read_rules(postprocessing)
    tasks = [
        LabelMapTask(
            case_id=case_id,
            folder=output,
            output=output / f"{case_id}{file_ending}",
            reader=reader,
            label_map=label_maps.get(case_id),
            probabilities=probabilities.get(case_id, ()),
            rules=rules,
            probabilities_output=output / f"{case_id}{PROBABILITIES_ENDING}" if save_probabilities else None,
        )
        for case_id in sorted({*label_maps, *probabilities})
    ]
    make_label_maps(tasks, output, output / MANIFEST_NAME, workers, "finish")
