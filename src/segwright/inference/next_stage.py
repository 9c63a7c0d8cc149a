"""Write the label maps that feed a cascade: what the previous stage predicts, on the next stage's stored grid (9.7).

Each fold writes a ``next_stage.json`` for its validation cases, and :func:`collect_next_stage` joins those of all
folds; ``training/previous_stage.py`` describes and reads them. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from segwright.core.errors import DatasetError
from segwright.core.files import atomic_path, relative_name, write_json
from segwright.training.previous_stage import read_next_stage

VERSION = 1


def write_label_array(path: Path, label_zyx: np.ndarray) -> None:
    """Write one label map, atomically."""
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, np.ascontiguousarray(label_zyx), allow_pickle=False)


def write_next_stage(path: Path, targets: Mapping[str, Mapping[str, tuple[Path, str]]]) -> None:
    """Write next_stage.json from configuration -> case -> (file, digest)."""
    content = {
        configuration: {
            case_id: {"file": relative_name(file, path.parent), "digest": digest}
            for case_id, (file, digest) in cases.items()
        }
        for configuration, cases in targets.items()
    }
    write_json(path, {"version": VERSION, "target": content}, sealed=True)


def collect_next_stage(fold_files: Sequence[Path], output: Path) -> None:
    """Join the folds' next_stage.json: every case out of fold, so a cascade never trains on what was trained on it.

    Raises:
        DatasetError: two folds predicted one case, or the folds predicted for different configurations.
        DamagedFileError: a file is missing or no such file.
    """
    joined: dict[str, dict[str, tuple[Path, str]]] = {}
    for number, path in enumerate(fold_files):
        targets = read_next_stage(path)
        if number and targets.keys() != joined.keys():
            raise DatasetError(
                f"{path}: made for {sorted(targets)}, the other folds for {sorted(joined)}; predict all folds again"
            )
        for configuration, cases in targets.items():
            known = joined.setdefault(configuration, {})
            twice = sorted(known.keys() & cases.keys())
            if twice:
                raise DatasetError(f"{path}: case {twice[0]} was predicted by another fold too; correct the split")
            known.update({case_id: (file.path, file.digest) for case_id, file in cases.items()})
    write_next_stage(output, joined)
