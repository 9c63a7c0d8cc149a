"""Label maps for the next stage of a cascade (method 9.7)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segwright.core.errors import DamagedFileError, DatasetError
from segwright.core.files import file_digest, read_json, write_json
from segwright.inference.next_stage import collect_next_stage, read_next_stage, write_label_array, write_next_stage

NAME = "3d_cascade_fullres"


def fold(folder: Path, number: int, cases: str, name: str = NAME) -> Path:
    entries = {}
    for case_id in cases:
        path = folder / f"fold_{number}" / "next_stage" / f"{case_id}.npy"
        write_label_array(path, np.full((2, 3, 4), ord(case_id) - ord("a"), np.uint8))
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
    maps = read_next_stage(tmp_path / "next_stage.json", NAME)
    label = maps.read("c")
    assert label.dtype == np.uint8 and label.shape == (2, 3, 4) and (label == 2).all()
    assert maps.digest("c") == record["target"][NAME]["c"]["digest"]


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
    maps = read_next_stage(source, NAME)
    with pytest.raises(DatasetError, match="case z is missing"):
        maps.read("z")
    maps.files["a"][0].write_bytes(b"")
    with pytest.raises(DamagedFileError, match=r"a\.npy"):
        maps.read("a")
    with pytest.raises(DatasetError, match="nothing for 3d_other"):
        read_next_stage(source, "3d_other")
    write_json(source, {"version": 1})
    with pytest.raises(DamagedFileError, match="next_stage"):
        read_next_stage(source, NAME)
