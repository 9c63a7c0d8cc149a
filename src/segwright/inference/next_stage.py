"""Label maps that feed a cascade: what the previous stage predicts, on the next stage's stored grid (method 9.7).

``next_stage.json``: ``{"version": 1, "target": {configuration: {case: {"file", "digest"}}}}``; each fold writes one for
its validation cases, and :func:`collect_next_stage` joins those of all folds. Files are plain .npy, uint8 or uint16
(z, y, x), their names relative to the JSON's folder. Needs no torch.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segwright.core.errors import MALFORMED, DamagedFileError, DatasetError, brief
from segwright.core.files import atomic_path, file_digest, read_json, write_json

VERSION = 1


@dataclass(frozen=True)
class NextStageMaps:
    """The label maps one cascade configuration trains and is validated with.

    Attributes:
        source: the next_stage.json they are listed in.
        files: case -> (.npy file, its SHA-256).
    """

    source: Path
    files: Mapping[str, tuple[Path, str]]

    def digest(self, case_id: str) -> str:
        return self._entry(case_id)[1]

    def read(self, case_id: str) -> np.ndarray:
        """The label map (z, y, x), uint8 or uint16, read-only.

        Raises:
            DamagedFileError: the file is missing or not what was recorded.
            DatasetError: the previous stage did not predict this case.
        """
        path, digest = self._entry(case_id)
        if not path.is_file() or file_digest(path) != digest:
            made_with = path.parents[2] / "next_stage.json"  # .../fold_0/next_stage/{configuration}/{case}.npy
            raise DamagedFileError(
                path, f"not the label map {self.source} names", f"delete {made_with} and {self.source}, then run again"
            )
        label_zyx: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        return label_zyx

    def _entry(self, case_id: str) -> tuple[Path, str]:
        if case_id not in self.files:
            raise DatasetError(f"{self.source}: case {case_id} is missing; train every fold of the previous stage")
        return self.files[case_id]


def write_label_array(path: Path, label_zyx: np.ndarray) -> None:
    """Write one label map, atomically."""
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, np.ascontiguousarray(label_zyx), allow_pickle=False)


def write_next_stage(path: Path, targets: Mapping[str, Mapping[str, tuple[Path, str]]]) -> None:
    """Write next_stage.json from configuration -> case -> (file, digest)."""
    content = {
        configuration: {
            case_id: {"file": Path(os.path.relpath(file, path.parent)).as_posix(), "digest": digest}
            for case_id, (file, digest) in cases.items()
        }
        for configuration, cases in targets.items()
    }
    write_json(path, {"version": VERSION, "target": content}, sealed=True)


def read_next_stage(path: Path, configuration: str) -> NextStageMaps:
    """The label maps of one cascade configuration.

    Raises:
        DamagedFileError: it is no such file. DatasetError: it holds nothing for this configuration.
    """
    targets = _read_targets(path)
    if configuration not in targets:
        raise DatasetError(f"{path}: nothing for {configuration}, only for {', '.join(sorted(targets)) or 'nobody'}")
    return NextStageMaps(path, targets[configuration])


def collect_next_stage(fold_files: Sequence[Path], output: Path) -> None:
    """Join the folds' next_stage.json: every case out of fold, so a cascade never trains on what was trained on it.

    Raises:
        DatasetError: two folds predicted one case, or the folds predicted for different configurations.
        DamagedFileError: a file is missing or no such file.
    """
    joined: dict[str, dict[str, tuple[Path, str]]] = {}
    for number, path in enumerate(fold_files):
        targets = _read_targets(path)
        if number and targets.keys() != joined.keys():
            raise DatasetError(
                f"{path}: made for {sorted(targets)}, the other folds for {sorted(joined)}; predict all folds again"
            )
        for configuration, cases in targets.items():
            known = joined.setdefault(configuration, {})
            twice = sorted(known.keys() & cases.keys())
            if twice:
                raise DatasetError(f"{path}: case {twice[0]} was predicted by another fold too; correct the split")
            known.update(cases)
    write_next_stage(output, joined)


def _read_targets(path: Path) -> dict[str, dict[str, tuple[Path, str]]]:
    record: Any = read_json(path)
    try:
        return {
            configuration: {
                case_id: (path.parent / entry["file"], str(entry["digest"])) for case_id, entry in cases.items()
            }
            for configuration, cases in record["target"].items()
        }
    except MALFORMED as problem:
        raise DamagedFileError(path, f"not a list of next-stage label maps ({brief(repr(problem))})") from problem
