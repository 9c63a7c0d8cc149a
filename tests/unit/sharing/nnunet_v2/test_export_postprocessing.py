from __future__ import annotations

import io
import pickle
import pickletools
from typing import Any

import pytest

from segwright.selection.components import Rule
from segwright.sharing.nnunet_v2.postprocessing_out import postprocessing_json, postprocessing_pickle

MODULE = "nnunetv2.postprocessing.remove_connected_components"
FUNCTION = "remove_all_but_largest_component_from_segmentation"


class StandIn(pickle.Unpickler):
    """Reads the file with a name in the place of the function."""

    def find_class(self, module: str, name: str) -> Any:
        return f"{module}:{name}"


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ((), []),
        ((Rule((1, 2, 300)),), [[1, 2, 300]]),
        ((Rule((1, 2)), Rule((2,))), [[1, 2], 2]),
        ((Rule(((1, 2), 2)), Rule(((1, 2),))), [[(1, 2), 2], (1, 2)]),
        ((Rule(((0, 1),)),), [(1,)]),
    ],
)
def test_pickle_is_v2s_lists_of_functions_and_arguments(rules: tuple[Rule, ...], expected: list[Any]) -> None:
    content = postprocessing_pickle(rules)
    functions, arguments = StandIn(io.BytesIO(content)).load()
    assert functions == [f"{MODULE}:{FUNCTION}"] * len(rules)
    assert arguments == [{"labels_or_regions": value} for value in expected]
    assert all(
        type(value) is type(found["labels_or_regions"]) for value, found in zip(expected, arguments, strict=True)
    )
    assert postprocessing_json(rules, {})["postprocessing_kwargs"] == arguments


def test_pickle_names_one_function_and_calls_nothing() -> None:
    instructions = list(pickletools.genops(postprocessing_pickle((Rule((1, 2)), Rule(((1, 2),))))))
    assert {argument for code, argument, _ in instructions if code.name == "GLOBAL"} == {f"{MODULE} {FUNCTION}"}
    assert {code.name for code, _, _ in instructions} <= {
        "PROTO", "MARK", "EMPTY_LIST", "GLOBAL", "APPENDS", "EMPTY_DICT", "BINUNICODE", "BININT", "TUPLE", "SETITEM",
        "STOP",
    }  # fmt: skip
    pickletools.optimize(postprocessing_pickle((Rule((1,)),)))  # a well-formed file


def test_scores_before_and_after_are_told() -> None:
    record = postprocessing_json((Rule((1,)),), {"before": {"mean": {"1": {"Dice": 0.5}}}, "after": {"mean": {}}})
    assert record["input_folder"] == {"mean": {"1": {"Dice": 0.5}}} and record["postprocessed"] == {"mean": {}}
    assert record["postprocessing_fns"] == [FUNCTION]
