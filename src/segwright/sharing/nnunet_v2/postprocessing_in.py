"""postprocessing.pkl and postprocessing.json of nnU-Net v2 as rules (method 12.3). Functions in them are names only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segwright.core.errors import MALFORMED, ModelError, brief
from segwright.core.files import read_json
from segwright.core.labels import LabelKey
from segwright.selection.components import Rule
from segwright.sharing.nnunet_v2.restricted_pickle import LIMIT_BYTES, Name, Vocabulary, read_pickle

PICKLE, JSON = "postprocessing.pkl", "postprocessing.json"

_FUNCTION = "remove_all_but_largest_component_from_segmentation"
_MODULE = "nnunetv2.postprocessing.remove_connected_components"
_LABEL_MAX = (1 << 31) - 1


def rules_of_folder(folder: Path) -> tuple[Rule, ...] | None:
    """The rules a folder of results holds; None if it holds none. The pickle counts, as in nnU-Net.

    Raises:
        ModelError: a file is damaged or names something else than nnU-Net's one function, or both contradict.
    """
    pickled = rules_from_pickle(folder / PICKLE) if (folder / PICKLE).is_file() else None
    written = rules_from_json(folder / JSON) if (folder / JSON).is_file() else None
    both = pickled is not None and written is not None
    if both and [rule.values for rule in pickled or ()] != [rule.values for rule in written or ()]:
        raise ModelError(f"{folder}: {PICKLE} and {JSON} hold different rules; get the model again")
    return written if pickled is None else pickled


def rules_from_pickle(path: Path) -> tuple[Rule, ...]:
    """Read a postprocessing.pkl: a pair of a list of functions and a list of their arguments.

    Raises:
        ModelError: see :func:`rules_of_folder`.
    """
    if path.stat().st_size > LIMIT_BYTES:
        raise ModelError(f"{path}: is too large for a list of rules; do not use it")
    content = read_pickle(path.read_bytes(), Vocabulary(names=frozenset({f"{_MODULE}.{_FUNCTION}"})), str(path))
    if not (isinstance(content, (tuple, list)) and len(content) == 2):
        raise ModelError(f"{path}: is not a list of functions and their arguments; get the model again")
    functions, arguments = content
    if not isinstance(functions, list) or not all(isinstance(function, Name) for function in functions):
        raise ModelError(f"{path}: its functions are not names; get the model again")
    return _rules([function.text.rsplit(".", 1)[-1] for function in functions], arguments, path)


def rules_from_json(path: Path) -> tuple[Rule, ...]:
    """Read a postprocessing.json, in which tuples became lists; a mask is the same either way.

    Raises:
        ModelError: see :func:`rules_of_folder`.
    """
    record = read_json(path)
    if not isinstance(record, Mapping) or not isinstance(record.get("postprocessing_fns"), list):
        raise ModelError(f"{path}: it lacks postprocessing_fns; get the model again")
    return _rules(record["postprocessing_fns"], record.get("postprocessing_kwargs"), path)


def _rules(names: Sequence[Any], arguments: Any, path: Path) -> tuple[Rule, ...]:
    if not isinstance(arguments, list) or len(arguments) != len(names):
        raise ModelError(f"{path}: has {len(names)} functions and other arguments; get the model again")
    return tuple(_rule(name, entry, path) for name, entry in zip(names, arguments, strict=True))


def _rule(name: Any, arguments: Any, path: Path) -> Rule:
    if name != _FUNCTION:
        raise ModelError(f"{path}: the postprocessing {name!r} is not available (known: {_FUNCTION})")
    try:
        structures = arguments["labels_or_regions"]
        further = {key: value for key, value in arguments.items() if key != "labels_or_regions"}
        keys = tuple(map(_key, structures)) if isinstance(structures, list) else (_key(structures),)
        is_usual = all(item == ("background_label", 0) for item in further.items())
    except MALFORMED as problem:
        raise ModelError(f"{path}: arguments of {name} are not valid ({brief(repr(problem))})") from problem
    if not is_usual:
        raise ModelError(f"{path}: {name} with {', '.join(map(str, further))} is not available")
    return Rule(keys)


def _key(value: Any) -> LabelKey:
    return tuple(map(_label, value)) if isinstance(value, (tuple, list)) else _label(value)


def _label(value: Any) -> int:
    label = int(value)
    if not 0 <= label <= _LABEL_MAX:
        raise ValueError("a number that is no label")
    return label
