"""Building one typed setting from plain YAML: conversion, limits, and messages that say what is allowed."""

from __future__ import annotations

import difflib
import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from segwright.core.errors import SettingsError, brief

T = TypeVar("T")

MAX_NODES, MAX_DEPTH = 100_000, 50
_LARGEST_NUMBER = 1 << 63


def build(cls: type[T], value: Any, path: str) -> T:
    """Build a settings dataclass from a mapping (None means: nothing given).

    Args:
        path: where the mapping stands, for messages; empty at the top.

    Raises:
        SettingsError: an unknown key, a wrong type, a value out of range or not among the choices.
    """
    if value is None:
        value = {}
    if isinstance(value, str):
        value = from_text(value)
    if not isinstance(value, Mapping):
        raise SettingsError(
            f"{path or 'the configuration'} is {_show(value)} but must be a section with options below it"
        )
    known = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
    hints = type_hints(cls)
    for key in value:
        if key not in known:
            raise SettingsError(unknown_key(str(key), list(known), path))
    return cls(**{key: _convert(entry, hints[key], _join(path, key), known[key]) for key, entry in value.items()})


def unknown_key(key: str, known: Sequence[str], path: str) -> str:
    """``training.epohcs is not known; did you mean training.epochs?``"""
    near = difflib.get_close_matches(key[:100], known, n=1)
    hint = f"did you mean {_join(path, near[0])}?" if near else f"known: {', '.join(known)}"
    return f"{_join(path, brief(key))} is not known; {hint}"


def type_hints(cls: Any) -> dict[str, Any]:
    """The resolved annotations of a settings class."""
    return get_type_hints(cls)


def plain_copy(value: Mapping[Any, Any], where: str) -> dict[str, Any]:
    """Copy nested mappings and lists as dict and list with text keys, refusing what grows or nests without bound.

    YAML aliases can stand for exponentially many nodes; they are counted here before anything else walks over them.
    """
    budget = [MAX_NODES]

    def copy(node: Any, depth: int) -> Any:
        budget[0] -= 1
        if budget[0] < 0 or depth > MAX_DEPTH:
            raise SettingsError(f"{where}: too many or too deeply nested values for a configuration")
        if isinstance(node, Mapping):
            return {_key(key, where): copy(entry, depth + 1) for key, entry in node.items()}
        if isinstance(node, (list, tuple)):
            return [copy(entry, depth + 1) for entry in node]
        return node

    copied: dict[str, Any] = copy(value, 0)
    return copied


def describe(hint: Any) -> str:
    """What an option accepts, in words: ``a whole number or null``."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(describe(member) for member in get_args(hint))
    if origin is Literal:
        return (
            "one of " + ", ".join(str(choice) for choice in get_args(hint))
            if len(get_args(hint)) > 1
            else str(get_args(hint)[0])
        )
    if origin is tuple:
        inner = {int: "whole numbers", float: "numbers", str: "texts"}.get(get_args(hint)[0], "values")
        return f"a list of {inner}"
    if hint is type(None):
        return "null"
    if is_dataclass(hint) or is_mapping(hint):
        return "a section with options below it"
    return {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}.get(hint, "a value")


def limits_text(option: Field[Any]) -> str:
    """``at least 1, at most 5``; empty if there are no limits."""
    words = {"minimum": "at least", "exclusive_minimum": "more than", "maximum": "at most"}
    return ", ".join(f"{word} {option.metadata[key]}" for key, word in words.items() if key in option.metadata)


def default_of(option: Field[Any]) -> Any:
    """The default value of an option."""
    return option.default if option.default_factory is MISSING else option.default_factory()


class _Mismatch(Exception):
    """The value is not of the type; another member of a union may still take it."""


def _convert(value: Any, hint: Any, path: str, option: Field[Any]) -> Any:
    if is_dataclass(hint):
        return build(hint, value, path)  # type: ignore[arg-type]
    if is_mapping(hint):
        return _mapping(value, get_args(hint)[1], path, option)
    try:
        converted = _typed(value, hint)
    except _Mismatch:
        limits = limits_text(option)
        allowed = f"{describe(hint)}{f' ({limits})' if limits else ''}"
        raise SettingsError(f"{path} is {_show(value)} but must be {allowed}") from None
    for number in converted if isinstance(converted, tuple) else (converted,):
        _check_limits(number, path, option)
    return _plain_path(converted) if option.metadata.get("path") else converted


def _plain_path(paths: Any) -> Any:
    """A path, or several, as everything that is made from it is spelt: without `./`, `//` or a last `/`.

    ``~`` is the user's home; a folder named ``~`` is nothing anybody wants. An empty text stays one.
    """
    if isinstance(paths, tuple):
        return tuple(_plain_path(path) for path in paths)
    if not paths:
        return paths
    path = Path(paths)
    return str(path.expanduser() if path.parts[:1] == ("~",) else path)


def _mapping(value: Any, inner: Any, path: str, option: Field[Any]) -> dict[str, Any]:
    """A mapping from names to values; a name set to null is left out, so a pipeline can undo a default."""
    if isinstance(value, str):
        value = from_text(value)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise SettingsError(f"{path} is {_show(value)} but must be a section with names below it")
    given = {name: entry for name, entry in value.items() if entry is not None}
    return {name: _convert(entry, inner, _join(path, str(name)), option) for name, entry in given.items()}


def _typed(value: Any, hint: Any) -> Any:
    """Convert to the annotated type, taking text for what it spells; raises _Mismatch."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _one_of(value, get_args(hint))
    if origin is Literal:
        if value in get_args(hint) and isinstance(value, str):
            return value
        raise _Mismatch
    if hint is Any:
        return value
    if hint is str:
        if isinstance(value, str):
            return value
        raise _Mismatch
    if isinstance(value, str):
        value = from_text(value)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise _Mismatch
        return tuple(_typed(entry, get_args(hint)[0]) for entry in value)
    return _scalar(value, hint)


def _one_of(value: Any, members: Sequence[Any]) -> Any:
    """Null first (where allowed), then the members in order."""
    if type(None) in members and (value is None or (isinstance(value, str) and from_text(value) is None)):
        return None
    for member in members:
        if member is not type(None):
            try:
                return _typed(value, member)
            except _Mismatch:
                continue
    raise _Mismatch


def _scalar(value: Any, hint: Any) -> Any:
    if hint is bool and isinstance(value, bool):
        return value
    if isinstance(value, int) and abs(value) > _LARGEST_NUMBER:
        raise _Mismatch
    if hint in (int, float) and isinstance(value, (int, float)) and not isinstance(value, bool):
        if hint is float and math.isfinite(value):
            return float(value)
        if hint is int and float(value).is_integer():
            return int(value)
    raise _Mismatch


def from_text(text: str) -> Any:
    """What a text spells: a number (also 3e-5, which YAML takes for text), true, null, a list, a mapping."""
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, ArithmeticError, RecursionError):
        return text
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return None if value == "None" else value
    return value


def _check_limits(value: Any, path: str, option: Field[Any]) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return
    limits = option.metadata
    if (
        value < limits.get("minimum", -math.inf)
        or value > limits.get("maximum", math.inf)
        or value <= limits.get("exclusive_minimum", -math.inf)
    ):
        raise SettingsError(f"{path} is {_show(value)} but must be {limits_text(option)}")


def is_mapping(hint: Any) -> bool:
    return get_origin(hint) is not None and isinstance(get_origin(hint), type) and issubclass(get_origin(hint), Mapping)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _key(key: Any, where: str) -> str:
    if isinstance(key, bool) or not isinstance(key, (str, int)):
        raise SettingsError(f"{where}: the key {key!r} is not a name; put it in quotes")
    return str(key)


def _show(value: Any) -> str:
    text = {None: "null", True: "true", False: "false"}.get(value) if isinstance(value, (bool, type(None))) else None
    return brief(text if text is not None else (f"`{value}`" if isinstance(value, str) else repr(value)), 60)
