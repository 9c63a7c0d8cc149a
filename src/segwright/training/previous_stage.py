"""What a cascade is trained with besides its images: label maps of the stage before it. Needs no torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from segwright.core.errors import DamagedFileError, TrainingError
from segwright.core.files import file_digest, read_json


class PreviousStageMaps:
    """Label maps that a previous stage predicted on the grid of a cascade configuration.

    ``next_stage.json`` is ``{"version", "target": {configuration: {case: {"file": path from its folder, "digest"}}}}``;
    the files are ``.npy`` arrays (z, y, x) of uint8 or uint16.

    Raises:
        TrainingError: there are no maps for the configuration.
    """

    def __init__(self, next_stage: Path, configuration: str) -> None:
        self._file = next_stage
        targets = read_json(next_stage).get("target", {})
        if configuration not in targets:
            raise TrainingError(f"{next_stage}: there are no label maps for {configuration} (for: {sorted(targets)})")
        self._entries = targets[configuration]

    def path(self, case_id: str) -> Path:
        """Where a case's label map lies.

        Raises:
            TrainingError: the case has none.
        """
        if case_id not in self._entries:
            raise TrainingError(f"case {case_id}: not in {self._file}; the previous stage must predict every case")
        path: Path = self._file.parent / self._entries[case_id]["file"]
        return path

    def digest(self, case_id: str) -> str:
        """SHA-256 of the file as recorded when it was written."""
        self.path(case_id)
        return str(self._entries[case_id].get("digest"))

    def verify(self, case_id: str) -> None:
        """Read a case's whole file and compare it with what was recorded when it was written.

        Raises:
            DamagedFileError: it is missing or was altered.
        """
        path = self.path(case_id)
        if not path.is_file():
            raise DamagedFileError(path, f"case {case_id}: the file does not exist", self._remedy(path))
        if file_digest(path) != self.digest(case_id):
            raise DamagedFileError(path, f"case {case_id}: its content is not what was written", self._remedy(path))

    def open(self, case_id: str, shape_zyx: tuple[int, ...]) -> np.ndarray:
        """Memory map of a case's label map; patches are read from it, so :meth:`verify` must have been called before.

        Raises:
            DamagedFileError: the file is missing or not an array of the case's shape.
        """
        path = self.path(case_id)
        try:
            label_zyx = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            text = f"case {case_id}: not a readable array ({error})"
            raise DamagedFileError(path, text, self._remedy(path)) from error
        if label_zyx.shape != tuple(shape_zyx) or label_zyx.dtype.kind not in "ui":
            found = f"{label_zyx.dtype} of shape {label_zyx.shape}"
            text = f"case {case_id}: {found}, but the case has shape {tuple(shape_zyx)}"
            raise DamagedFileError(path, text, self._remedy(path))
        return label_zyx

    def _remedy(self, path: Path) -> str:
        made_with = path.parents[2] / "next_stage.json"  # .../fold_0/next_stage/{configuration}/{case}.npy
        return f"delete {made_with} and {self._file}, then run again"
