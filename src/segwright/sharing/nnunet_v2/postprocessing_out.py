"""Postprocessing rules as nnU-Net v2 stores them: postprocessing.pkl and postprocessing.json (method 12.3).

v2's file is a pickle of (list of functions, list of keyword arguments), in which a function is a *name* that is
imported when the file is read. Python's pickle module writes such a name only after it imported the module and found
the function there, which would make nnU-Net a requirement. The few instructions such a file consists of are therefore
written here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from segwright.core.labels import LabelKey, key_values
from segwright.selection.components import Rule

MODULE = "nnunetv2.postprocessing.remove_connected_components"
FUNCTION = "remove_all_but_largest_component_from_segmentation"

_PROTOCOL, _STOP = b"\x80\x02", b"."  # protocol 2: every Python reads it
_MARK, _TUPLE, _LIST, _APPENDS, _DICT, _SET_ITEM = b"(", b"t", b"]", b"e", b"}", b"s"
_GLOBAL, _INTEGER, _TEXT = b"c", b"J", b"X"


def postprocessing_pickle(rules: Sequence[Rule]) -> bytes:
    """postprocessing.pkl: v2's function once a rule, and its arguments. It names one function and no other."""
    functions = _list([_GLOBAL + f"{MODULE}\n{FUNCTION}\n".encode("ascii")] * len(rules))
    arguments = _list([_value({"labels_or_regions": labels_or_regions(rule)}) for rule in rules])
    return _PROTOCOL + _MARK + functions + arguments + _TUPLE + _STOP


def postprocessing_json(rules: Sequence[Rule], record: Mapping[str, Any]) -> dict[str, Any]:
    """postprocessing.json, for people.

    Args:
        record: content of the model's own postprocessing.json.
    """
    return {
        "input_folder": record.get("before") or {},
        "postprocessed": record.get("after") or {},
        "postprocessing_fns": [FUNCTION] * len(rules),
        "postprocessing_kwargs": [{"labels_or_regions": labels_or_regions(rule)} for rule in rules],
    }


def labels_or_regions(rule: Rule) -> list[LabelKey] | LabelKey:
    """The mask of a rule: several structures as a list, one as a number, a region as a tuple; never background."""
    keys = [_without_background(key) for key in rule.labels_or_regions]
    return keys if len(keys) != 1 else keys[0]


def _without_background(key: LabelKey) -> LabelKey:
    return tuple(value for value in key_values(key) if value != 0) if isinstance(key, tuple) else key


def _value(value: Any) -> bytes:
    """The instructions that make a plain value."""
    if isinstance(value, int):
        return _INTEGER + value.to_bytes(4, "little", signed=True)
    if isinstance(value, str):
        text = value.encode("utf-8")
        return _TEXT + len(text).to_bytes(4, "little") + text
    if isinstance(value, tuple):
        return _MARK + b"".join(map(_value, value)) + _TUPLE
    if isinstance(value, list):
        return _list([_value(item) for item in value])
    if isinstance(value, dict):
        return _DICT + b"".join(_value(key) + _value(item) + _SET_ITEM for key, item in value.items())
    raise TypeError(f"{type(value).__name__} does not occur in postprocessing rules")


def _list(items: Sequence[bytes]) -> bytes:
    return _LIST + _MARK + b"".join(items) + _APPENDS
