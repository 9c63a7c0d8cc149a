"""Your own configurations, written in v2's form: ``3d_bs4: {inherits_from: 3d_fullres, batch_size: 4}``."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from segwright.core.errors import SettingsError
from segwright.core.plans import Plans
from segwright.planning.reasons import Reason

CONFIGURATION_KEYS = (
    "inherits_from", "data_identifier", "preprocessor_name", "batch_size", "patch_size", "median_image_size_in_voxels",
    "spacing", "normalization_schemes", "use_mask_for_norm", "resampling_fn_data", "resampling_fn_seg",
    "resampling_fn_data_kwargs", "resampling_fn_seg_kwargs", "resampling_fn_probabilities",
    "resampling_fn_probabilities_kwargs", "architecture", "batch_dice", "next_stage", "previous_stage",
)  # fmt: skip
NAME = re.compile(r"[A-Za-z0-9_]+")
RESERVED_NAMES = ("plan", "ensembles", "selection", "predictions", "final", "model")
"""Folders that stand beside the configurations in the results."""


def add_configurations(plans: Plans, added: Mapping[str, Mapping[str, Any]]) -> tuple[Plans, list[Reason]]:
    """Add configurations; a new cascade is also entered as next stage of its previous stage, as v2 needs it.

    Raises:
        SettingsError: a name is taken or not allowed, or a key is not one of v2's.
    """
    if not added:
        return plans, []
    configurations: dict[str, Mapping[str, Any]] = dict(plans.configurations)
    reasons = []
    for name, entry in added.items():
        _check_name(name, configurations)
        _check_keys(name, entry)
        configurations[name] = _typed_entry(name, entry)
        own = ", ".join(f"{key} {value}" for key, value in entry.items() if key != "inherits_from")
        parent = entry.get("inherits_from")
        base = f"everything else from {parent}" if parent else "complete in itself"
        reasons.append(Reason(name, "added", f"by you: {own or 'nothing of its own'}; {base}."))
    grown = replace(plans, configurations=configurations)
    for name in added:
        previous = grown.resolved(name).get("previous_stage")
        if previous in configurations:
            configurations[previous] = _with_next_stage(configurations[previous], grown.resolved(previous), name)
    return replace(plans, configurations=configurations), reasons


def _typed_entry(name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """The entry with its numbers as numbers; a command line delivers them as text."""
    convert: dict[str, Callable[[Any], Any]] = {
        "batch_size": int,
        "patch_size": lambda values: [int(value) for value in values],
        "spacing": lambda values: [float(value) for value in values],
        "median_image_size_in_voxels": lambda values: [float(value) for value in values],
        "batch_dice": lambda value: {"true": True, "false": False}[str(value).lower()],
    }
    typed = dict(entry)
    for key, conversion in convert.items():
        if key in typed:
            try:
                typed[key] = conversion(typed[key])
            except (TypeError, ValueError, KeyError):
                kind = {"batch_size": "a whole number", "batch_dice": "true or false"}.get(key, "a list of numbers")
                raise SettingsError(f"planning.add.{name}.{key} is {typed[key]!r} but must be {kind}") from None
    return typed


def _with_next_stage(entry: Mapping[str, Any], resolved: Mapping[str, Any], name: str) -> dict[str, Any]:
    following = entry.get("next_stage", resolved.get("next_stage")) or []
    stages = [following] if isinstance(following, str) else list(following)
    if name not in stages:
        stages.append(name)
    return {**entry, "next_stage": stages[0] if len(stages) == 1 else stages}


def _check_name(name: str, taken: Mapping[str, Any]) -> None:
    if not NAME.fullmatch(name) or name in RESERVED_NAMES:
        raise SettingsError(
            f"planning.add.{name}: a configuration's name may hold letters, digits and _ only, and must not be one of "
            f"{', '.join(RESERVED_NAMES)}"
        )
    if name in taken:
        raise SettingsError(
            f"planning.add.{name}: the configuration exists already; change it with planning.overrides.{name}, "
            "or choose another name"
        )


def _check_keys(name: str, entry: Mapping[str, Any]) -> None:
    for key in entry:
        if key not in CONFIGURATION_KEYS:
            near = difflib.get_close_matches(key, CONFIGURATION_KEYS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(CONFIGURATION_KEYS)}"
            raise SettingsError(f"planning.add.{name}.{key} is not known; {hint}")
