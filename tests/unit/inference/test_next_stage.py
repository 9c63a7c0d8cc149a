"""Label maps for the next stage of a cascade (method 9.7)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segwright.core.errors import DamagedFileError, DatasetError
from segwright.core.files import file_digest, read_json, write_json
from segwright.inference.next_stage import collect_next_stage, write_label_array, write_next_stage
from segwright.training.previous_stage import read_previous_stage

NAME = "3d_cascade_fullres"
SHAPE = (2, 3, 4)


def fold(folder: Path, number: int, cases: str, name: str = NAME) -> Path:
    entries = {}
    for case_id in cases:
        path = folder / f"fold_{number}" / "next_stage" / f"{case_id}.npy"
        write_label_array(path, np.full(SHAPE, ord(case_id) - ord("a"), np.uint8))
        entries[case_id] = (path, file_digest(path))
    write_next_stage(folder / f"fold_{number}" / "next_stage.json", {name: entries})
    return folder / f"fold_{number}" / "next_stage.json"


def test_folds_are_joined(tmp_path: Path) -> None:
    files = [fold(tmp_path, 0, "ac"), fold(tmp_path, 1, "b")]
    collect_next_stage(files, tmp_path / "next_stage.json")
    record = read_json(tmp_path / "next_stage.json")
    assert record["version"] == 1
    assert {case: entry["file"] for case, entry in record["target"][NAME].items()} == {
        "a": "fold_0/next_stage/a.npy",
        "b": "fold_1/next_stage/b.npy",
        "c": "fold_0/next_stage/c.npy",
    }
    maps = read_previous_stage(tmp_path / "next_stage.json", NAME)
    label = maps.open_intact("c", SHAPE)
    assert label.dtype == np.uint8 and label.shape == SHAPE and (label == 2).all()
    assert maps.file("c").digest == record["target"][NAME]["c"]["digest"]


def test_a_case_predicted_twice_is_an_error(tmp_path: Path) -> None:
    files = [fold(tmp_path, 0, "ab"), fold(tmp_path, 1, "b")]
    with pytest.raises(DatasetError, match="case b was predicted by another fold"):
        collect_next_stage(files, tmp_path / "next_stage.json")
    assert not (tmp_path / "next_stage.json").exists()


def test_folds_must_be_made_for_the_same_configurations(tmp_path: Path) -> None:
    files = [fold(tmp_path, 0, "a"), fold(tmp_path, 1, "b", "other")]
    with pytest.raises(DatasetError, match="predict all folds again"):
        collect_next_stage(files, tmp_path / "next_stage.json")


def test_missing_or_altered_maps_are_named(tmp_path: Path) -> None:
    source = fold(tmp_path, 0, "ab")
    maps = read_previous_stage(source, NAME)
    with pytest.raises(DatasetError, match=r"case z: not in .*next_stage\.json"):
        maps.file("z")
    maps.file("a").path.write_bytes(b"")
    with pytest.raises(DamagedFileError, match=r"a\.npy: case a: its content is not what .*next_stage\.json recorded"):
        maps.open_intact("a", SHAPE)
    with pytest.raises(DamagedFileError, match=r"b\.npy: case b: uint8 of shape \(2, 3, 4\), but .* \(2, 3, 5\)"):
        maps.open_intact("b", (2, 3, 5))
    with pytest.raises(DatasetError, match="no label maps for 3d_other"):
        read_previous_stage(source, "3d_other")
    for malformed in ({"version": 1}, {"target": {NAME: {"a": {"file": "a.npy"}}}}, {"target": {NAME: ["a"]}}, []):
        write_json(source, malformed)
        with pytest.raises(DamagedFileError, match=r"next_stage\.json: not a list of next-stage label maps"):
            read_previous_stage(source, NAME)
