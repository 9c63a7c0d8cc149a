"""postprocessing.pkl and .json: the name of nnU-Net's function becomes our rule; other names are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segwright.core.errors import ModelError
from segwright.selection.components import Rule
from segwright.sharing.nnunet_v2.postprocessing_in import rules_from_json, rules_from_pickle, rules_of_folder
from tests.unit.sharing.nnunet_v2 import made


def pickled(folder: Path, arguments: list[Any], **options: Any) -> Path:
    (folder / "postprocessing.pkl").write_bytes(made.postprocessing_pickle(arguments, **options))
    return folder / "postprocessing.pkl"


@pytest.mark.parametrize(
    ("structures", "rule"),
    [
        ([1, 2], Rule((1, 2))),
        (2, Rule((2,))),
        ((1, 2), Rule(((1, 2),))),
        ([(1, 2), 3], Rule(((1, 2), 3))),
        ([np.int64(1), np.int64(2)], Rule((1, 2))),
        (np.int32(3), Rule((3,))),
    ],
)
def test_one_rule(structures: Any, rule: Rule, tmp_path: Path) -> None:
    assert rules_from_pickle(pickled(tmp_path, [{"labels_or_regions": structures, "background_label": 0}])) == (rule,)


def test_none_and_several(tmp_path: Path) -> None:
    assert rules_of_folder(tmp_path) is None
    assert rules_from_pickle(pickled(tmp_path, [])) == ()
    folder = made.crossval(tmp_path / "scored", rules=[[1, 2], 1, (1, 2)])
    assert rules_of_folder(folder) == (Rule((1, 2)), Rule((1,)), Rule(((1, 2),)))
    (folder / "postprocessing.pkl").unlink()
    assert rules_of_folder(folder) == (Rule((1, 2)), Rule((1,)), Rule((1, 2)))  # the same masks


@pytest.mark.parametrize(
    ("arguments", "function", "words"),
    [
        ([{"labels_or_regions": 1}], "nnunetv2.other.fill_holes", "names nnunetv2.other.fill_holes"),
        ([{"labels_or_regions": 1}], "builtins.eval", "names builtins.eval"),
        ([{"labels_or_regions": 1, "background_label": 2}], None, "with background_label"),
        ([{"labels_or_regions": 1, "size": 5}], None, "with size"),
        ([{"other": 1}], None, "not valid"),
        ([{"labels_or_regions": "organ"}], None, "not valid"),
        ([{"labels_or_regions": [10**5000]}], None, "not valid .*no label"),
        ([{"labels_or_regions": -1}], None, "not valid .*no label"),
        ([{"labels_or_regions": float("inf")}], None, "not valid"),
        ([{"labels_or_regions": 1, "background_label": np.zeros(2)}], None, "not valid"),
        ([3], None, "not valid"),
    ],
)
def test_other_functions_and_arguments_are_refused(
    arguments: list[Any], function: str | None, words: str, tmp_path: Path
) -> None:
    options = {} if function is None else {"function": function}
    with pytest.raises(ModelError, match=rf"postprocessing\.pkl: .*{words}"):
        rules_from_pickle(pickled(tmp_path, arguments, **options))


def test_contradictions_and_other_contents_are_refused(tmp_path: Path) -> None:
    folder = made.crossval(tmp_path / "scored", rules=[1])
    record = json.loads((folder / "postprocessing.json").read_text())
    record["postprocessing_kwargs"] = [{"labels_or_regions": 2}]
    (folder / "postprocessing.json").write_text(json.dumps(record))
    with pytest.raises(ModelError, match="different rules"):
        rules_of_folder(folder)
    for content in ({}, [], {"postprocessing_fns": ["x"], "postprocessing_kwargs": []}):
        (folder / "postprocessing.json").write_text(json.dumps(content))
        with pytest.raises(ModelError, match=r"postprocessing\.json"):
            rules_from_json(folder / "postprocessing.json")
    for raw in (b"N.", b"]N\x86.", b"]]N\x87.", b"K\x01]\x86."):
        (folder / "postprocessing.pkl").write_bytes(raw)
        with pytest.raises(ModelError, match=r"postprocessing\.pkl"):
            rules_from_pickle(folder / "postprocessing.pkl")
