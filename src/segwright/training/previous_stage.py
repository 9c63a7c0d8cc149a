"""Label maps that feed a cascade: what the stage before it predicted, on the cascade's grid. Needs no torch.

``next_stage.json``: ``{"version": 1, "target": {configuration: {case: {"file": path from its folder, "digest"}}}}``.
Files are plain .npy, uint8 or uint16 (z, y, x). ``inference/next_stage.py`` writes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segwright.core.errors import MALFORMED, DamagedFileError, DatasetError, brief
from segwright.core.files import read_json
from segwright.core.recorded import RecordedFile


@dataclass(frozen=True)
class PreviousStageMaps:
    """The label maps one cascade configuration is trained with and predicts its own cases from.

    Attributes:
        source: the next_stage.json they are listed in.
        files: by case.
    """

    source: Path
    files: Mapping[str, RecordedFile]

    def file(self, case_id: str) -> RecordedFile:
        """A case's .npy file, with its SHA-256 as recorded when it was written.

        Raises:
            DatasetError: the case has none.
        """
        if case_id not in self.files:
            raise DatasetError(
                f"case {case_id}: not in {self.source}; train and predict every fold of the previous stage"
            )
        return self.files[case_id]

    def open(self, case_id: str, shape_zyx: tuple[int, ...]) -> np.ndarray:
        """Memory map of a case's label map (z, y, x); its content is not compared with the recorded digest.

        Raises:
            DamagedFileError: the file is missing or not an array of the case's shape.
            DatasetError: the previous stage did not predict this case.
        """
        file = self.file(case_id)
        try:
            label_zyx: np.ndarray = np.load(file.path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise file.damaged(f"not a readable array ({error})") from error
        if label_zyx.shape != tuple(shape_zyx) or label_zyx.dtype.kind not in "ui":
            found = f"{label_zyx.dtype} of shape {label_zyx.shape}"
            raise file.damaged(f"{found}, but the case has shape {tuple(shape_zyx)}")
        return label_zyx

    def open_intact(self, case_id: str, shape_zyx: tuple[int, ...]) -> np.ndarray:
        """:meth:`open` after its content was compared with the recorded digest: for those who read all of it anyway."""
        self.file(case_id).verify()
        return self.open(case_id, shape_zyx)


def read_previous_stage(next_stage: Path, configuration: str) -> PreviousStageMaps:
    """The label maps of one cascade configuration.

    Raises:
        DamagedFileError: it is no next_stage.json.
        DatasetError: it holds nothing for this configuration.
    """
    targets = read_next_stage(next_stage)
    if configuration not in targets:
        raise DatasetError(
            f"{next_stage}: there are no label maps for {configuration} (for: {', '.join(sorted(targets)) or 'none'})"
        )
    return PreviousStageMaps(next_stage, targets[configuration])


def read_next_stage(path: Path) -> dict[str, dict[str, RecordedFile]]:
    """Configuration -> case -> label map, of a whole next_stage.json.

    Raises:
        DamagedFileError: it is missing or no such file.
    """
    record: Any = read_json(path)
    try:
        return {
            configuration: {case_id: _file(path, case_id, entry) for case_id, entry in cases.items()}
            for configuration, cases in record["target"].items()
        }
    except MALFORMED as problem:
        raise DamagedFileError(path, f"not a list of next-stage label maps ({brief(repr(problem))})") from problem


def _file(next_stage: Path, case_id: str, entry: Mapping[str, Any]) -> RecordedFile:
    path = next_stage.parent / entry["file"]
    made_with = path.parent.parent.parent / "next_stage.json"  # .../fold_0/next_stage/{configuration}/{case}.npy
    remedy = f"delete {made_with} and {next_stage}, then run again"
    return RecordedFile(path, str(entry["digest"]), next_stage, remedy, case_id)
