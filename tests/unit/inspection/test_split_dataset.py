"""From inspection's records to the folds on disk: the rule ``split``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from segwright.core.errors import DatasetError
from segwright.core.settings import SplitSettings
from segwright.inspection.checks import write_checks
from segwright.splits import read_fold, split_dataset

from .conftest import RawDataset, random_image


def _split(raw: RawDataset, settings: SplitSettings) -> Path:
    write_checks(raw.inspect(), raw.output / "checks.json", raw.output / "checks.tsv")
    output = raw.output / "splits"
    split_dataset([raw.batch_file], raw.output / "checks.json", settings, None, output, raw_folder=raw.folder)
    return output


def test_copies_share_a_fold(raw: RawDataset) -> None:
    raw.image("c_0000", random_image(0))  # the image of a
    output = _split(raw, SplitSettings(folds=2))
    assert sorted(read_fold(output / f"fold_{k}.json").val for k in range(2)) == [("a", "c"), ("b",)]
    header, first = (line.split("\t") for line in (output / "counts.tsv").read_text().splitlines()[:2])
    assert first[header.index("voxels:label 2")] == str(len(read_fold(output / "fold_0.json").train))
    with pytest.raises(DatasetError, match="3 training cases in 2 groups"):
        _split(raw, SplitSettings(folds=3))


def test_splits_final_of_the_raw_folder_is_used_as_in_v2(raw: RawDataset, caplog: pytest.LogCaptureFixture) -> None:
    (raw.folder / "splits_final.json").write_text(json.dumps([{"train": ["a", "c"], "val": ["b"]}]))
    output = _split(raw, SplitSettings(folds=3, seed=7))
    assert read_fold(output / "fold_0.json").val == ("b",) and not (output / "fold_1.json").exists()
    [told] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert f"folds are read from {raw.folder / 'splits_final.json'}" in told
    assert "not made by splits.folds (3) and splits.seed (7)" in told
    output = _split(raw, SplitSettings(folds=3, group_pattern="."))  # asked for explicitly
    assert (output / "fold_2.json").exists()


def test_a_splits_file_needs_no_case_table(raw: RawDataset) -> None:
    (raw.folder / "mine.json").write_text(json.dumps([{"train": ["a", "c"], "val": ["b"]}]))
    output = _split(raw, SplitSettings(file=str(raw.folder / "mine.json"), group="patient", stratify="site"))
    assert read_fold(output / "fold_0.json").val == ("b",)
