"""Read configuration files into the typed settings, and generate the commented default file and its JSON schema.

Every mistake is one line that names the option. Values may come as strings (``--config`` delivers strings): they are
converted to the option's type. ``python -m segwright.core.configfile --write`` regenerates ``config/``.
"""

from __future__ import annotations

import difflib
import re
import sys
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from segwright.core.errors import SettingsError
from segwright.core.files import json_text, write_text
from segwright.core.settings import (
    PipelineSettings,
    PlanningSettings,
    PreprocessingSettings,
    Settings,
    SplitSettings,
    to_plain,
)

T = TypeVar("T")

SECTIONS = tuple(field.name for field in fields(PipelineSettings))
_DATASET_NAME = re.compile(r"[A-Za-z0-9_.\-]+")
_PIPELINE_NAME = re.compile(r"[A-Za-z0-9_]+")
_MAX_FILE_BYTES = 1_000_000
_MAX_ALIASES = 100  # a file of nested aliases could otherwise grow without bound
_ABSENT = ("null", "none", "~", "")


def load_settings(config: Mapping[str, Any]) -> Settings:
    """The settings of a whole configuration file.

    Sections of ``defaults`` may also stand at the top level (``training: {epochs: 5}``), which is handy on a command
    line. Every pipeline is the defaults with its own changes merged in; ``default`` always exists.

    Raises:
        SettingsError: an option is unknown, of the wrong type or out of range; the message is one line.
    """
    config = dict(_mapping(config, "the configuration"))
    shorthand = {section: config.pop(section) for section in SECTIONS if section in config}
    defaults = _merged(_mapping(config.pop("defaults", None) or {}, "defaults"), shorthand)
    pipelines = _mapping(config.pop("pipelines", None) or {}, "pipelines")
    settings = _build(Settings, config, "")
    checked_defaults = _build(PipelineSettings, defaults, "")
    effective = {}
    for name in ("default", *(name for name in pipelines if name != "default")):
        changes = pipelines.get(name) or {}
        _build(PipelineSettings, changes, f"pipelines.{name}")
        effective[str(name)] = _build(PipelineSettings, _merged(defaults, changes), f"pipelines.{name}")
    if "default" in pipelines:  # keep the user's order
        effective = {str(name): effective[str(name)] for name in pipelines}
    _check_names(settings.datasets, effective)
    for name, dataset in settings.datasets.items():
        if not dataset.path:
            raise SettingsError(f"datasets.{name}.path is missing: the folder of the raw dataset")
    return replace(settings, defaults=checked_defaults, pipelines=effective)


def pipeline_settings(settings: Settings, name: str) -> PipelineSettings:
    """The effective settings of a pipeline."""
    if name not in settings.pipelines:
        raise SettingsError(f"there is no pipeline {name} (there are: {', '.join(settings.pipelines)})")
    return settings.pipelines[name]


def pipeline_settings_from_file(path: Path | None) -> PipelineSettings:
    """Settings for one command: a file with sections ``planning``, ``training`` ... (also below ``defaults``), or none.

    Raises:
        SettingsError: the file is missing, not YAML, or an option in it is wrong.
    """
    if path is None:
        return PipelineSettings()
    content = read_yaml(path)
    if content and not any(key in (*SECTIONS, "defaults") for key in content):
        content = {"training": content}
    whole = {key: value for key, value in content.items() if key in (*SECTIONS, "defaults")}
    unknown = [key for key in content if key not in whole and key not in {field.name for field in fields(Settings)}]
    if unknown:
        raise SettingsError(f"{path}: {_unknown(unknown[0], '', SECTIONS)}")
    return load_settings(whole).defaults


def split_settings(plain: Mapping[str, Any]) -> SplitSettings:
    return _build(SplitSettings, plain, "splits")


def planning_settings(plain: Mapping[str, Any]) -> PlanningSettings:
    return _build(PlanningSettings, plain, "planning")


def preprocessing_settings(plain: Mapping[str, Any]) -> PreprocessingSettings:
    return _build(PreprocessingSettings, plain, "preprocessing")


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML (or JSON) file with a mapping at its top.

    Raises:
        SettingsError: the file is missing, too large, not YAML, or holds something else.
    """
    if not path.is_file():
        raise SettingsError(f"{path}: the settings file does not exist")
    if path.stat().st_size > _MAX_FILE_BYTES:
        raise SettingsError(f"{path}: larger than {_MAX_FILE_BYTES // 1000} kB; this is not a settings file")
    try:
        text = path.read_text(encoding="utf-8")
        if sum(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)) > _MAX_ALIASES:
            raise SettingsError(f"{path}: more than {_MAX_ALIASES} aliases; write the values out")
        content = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise SettingsError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from error
    return dict(_mapping(content or {}, str(path)))


# --- building typed settings ------------------------------------------------------------------------------------------


def _build(kind: type[T], value: Any, path: str) -> T:
    """A settings dataclass from a plain mapping."""
    given = _mapping(value, path or "the configuration")
    hints = get_type_hints(kind)
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    arguments = {}
    for key, entry in given.items():
        if key not in known:
            raise SettingsError(_unknown(str(key), path, known))
        option = f"{path}.{key}" if path else str(key)
        arguments[str(key)] = _value(hints[key], entry, option)
        _check_limits(arguments[str(key)], known[key], option)
    return kind(**arguments)


def _value(hint: Any, value: Any, option: str) -> Any:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _one_of_types(get_args(hint), value, option)
    if origin is Literal:
        choices = get_args(hint)
        if value not in choices:
            raise SettingsError(f"{option} is {value!r} but must be one of {', '.join(map(str, choices))}")
        return value
    if origin is tuple:
        return _tuple(get_args(hint)[0], value, option)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        entries = _mapping(_parsed(value), option)
        return {str(key): _value(get_args(hint)[1], entry, f"{option}.{key}") for key, entry in entries.items()}
    if is_dataclass(hint):
        return _build(hint, _parsed(value), option)  # type: ignore[arg-type]
    if hint is Any:
        return value
    return _scalar(hint, value, option)


def _one_of_types(hints: Sequence[Any], value: Any, option: str) -> Any:
    if type(None) in hints and (value is None or (isinstance(value, str) and value.lower() in _ABSENT)):
        return None
    problems = []
    for hint in (hint for hint in hints if hint is not type(None)):
        try:
            return _value(hint, value, option)
        except SettingsError as problem:
            problems.append(problem)
    if len(problems) == 1:
        raise problems[0]
    kinds = " or ".join(_kind_text(hint) for hint in hints)
    raise SettingsError(f"{option} is {value!r} but must be {kinds}")


def _tuple(hint: Any, value: Any, option: str) -> tuple[Any, ...]:
    value = _parsed(value)
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        value = [value] if not isinstance(value, str) else value.split()
    if not isinstance(value, (list, tuple)):
        raise SettingsError(f"{option} is {value!r} but must be a list")
    return tuple(_value(hint, entry, f"{option}[{index}]") for index, entry in enumerate(value))


def _scalar(hint: type, value: Any, option: str) -> Any:
    made = _parsed(value) if hint is not str else value
    if hint is bool and isinstance(made, bool):
        return made
    if hint is str and isinstance(made, str):
        return made
    if hint in (int, float) and isinstance(made, str):  # YAML 1.1 reads 3e-3 as a string
        try:
            made = float(made)
        except ValueError:
            made = value
    if hint is int and isinstance(made, (int, float)) and not isinstance(made, bool) and float(made).is_integer():
        return int(made)
    if hint is float and isinstance(made, (int, float)) and not isinstance(made, bool):
        return float(made)
    raise SettingsError(f"{option} is {value!r} but must be {_kind_text(hint)}")


def _parsed(value: Any) -> Any:
    """What a string from a command line stands for; other values as they are."""
    if not isinstance(value, str):
        return value
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError:
        return value


def _check_limits(value: Any, field: Field[Any], option: str) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return
    limits = field.metadata
    if "minimum" in limits and value < limits["minimum"]:
        raise SettingsError(f"{option} is {value} but must be at least {limits['minimum']}")
    if "exclusive_minimum" in limits and value <= limits["exclusive_minimum"]:
        raise SettingsError(f"{option} is {value} but must be greater than {limits['exclusive_minimum']}")
    if "maximum" in limits and value > limits["maximum"]:
        raise SettingsError(f"{option} is {value} but must be at most {limits['maximum']}")


def _check_names(datasets: Mapping[str, Any], pipelines: Mapping[str, Any]) -> None:
    for name in datasets:
        if not _DATASET_NAME.fullmatch(name) or name.startswith(".") or name in ("logs", "benchmarks"):
            raise SettingsError(f"datasets.{name}: a dataset's name may hold letters, digits and _ . - only")
    for name in pipelines:
        if name == "data" or not _PIPELINE_NAME.fullmatch(name):
            raise SettingsError(f"pipelines.{name}: a pipeline's name may hold letters, digits and _ only, and not be `data`")


def _unknown(key: str, path: str, known: Any) -> str:
    option = f"{path}.{key}" if path else key
    near = difflib.get_close_matches(key, list(known), n=1, cutoff=0.6)
    if near:
        return f"{option} is not known; did you mean {f'{path}.{near[0]}' if path else near[0]}?"
    return f"{option} is not known; known here: {', '.join(known)}"


def _mapping(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise SettingsError(f"{what} is {value!r} but must be a mapping of options")
    return value


def _merged(base: Mapping[str, Any], changes: Any) -> dict[str, Any]:
    """``base`` with ``changes`` laid over it, mappings merged at every depth."""
    merged = dict(base)
    for key, value in changes.items() if isinstance(changes, Mapping) else ():
        value = _parsed(value) if isinstance(merged.get(key), Mapping) else value
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def _kind_text(hint: Any) -> str:
    origin = get_origin(hint)
    if origin is Literal:
        return " or ".join(map(str, get_args(hint)))
    if origin is tuple:
        return f"a list ({_kind_text(get_args(hint)[0])} each)"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}
    return names.get(hint, "a mapping of options")


# --- the generated files ----------------------------------------------------------------------------------------------


def json_schema() -> dict[str, Any]:
    """JSON schema (2020-12) of a configuration file, for editors."""
    schema = _schema(Settings)
    for section, entry in _schema(PipelineSettings)["properties"].items():
        schema["properties"][section] = {**entry, "description": f"shorthand for defaults.{section}"}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "segwright configuration", **schema}


def _schema(hint: Any) -> dict[str, Any]:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return {"anyOf": [_schema(choice) for choice in get_args(hint)]}
    if origin is Literal:
        return {"enum": list(get_args(hint))}
    if origin is tuple:
        return {"type": "array", "items": _schema(get_args(hint)[0])}
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": _schema(get_args(hint)[1])}
    if is_dataclass(hint):
        hints = get_type_hints(hint)
        entries = {field.name: _option_schema(field, hints[field.name]) for field in fields(hint)}
        return {"type": "object", "additionalProperties": False, "properties": entries}
    names = {int: "integer", float: "number", bool: "boolean", str: "string", type(None): "null"}
    return {"type": names[hint]} if hint in names else {}


def _option_schema(field: Field[Any], hint: Any) -> dict[str, Any]:
    schema = {**_schema(hint), "description": field.metadata["help"]}
    if field.default is not MISSING:
        schema["default"] = to_plain(field.default)
    names = {"minimum": "minimum", "maximum": "maximum", "exclusive_minimum": "exclusiveMinimum"}
    limits = {names[key]: value for key, value in field.metadata.items() if key in names}
    if "anyOf" in schema:
        schema["anyOf"] = [
            {**choice, **limits} if choice.get("type") in ("integer", "number") else choice for choice in schema["anyOf"]
        ]
        return schema
    return {**schema, **limits}


_HEADER = """\
# Every option of segwright with its default. A configuration of your own needs one line:
#
#   datasets: {Dataset004_Hippocampus: {path: /data/Dataset004_Hippocampus}}
#
# Generated from src/segwright/core/settings.py by `make schema`; editors complete and check it with the schema below.
# yaml-language-server: $schema=schema/config.schema.json
"""

_DATASETS = """
# datasets by name
datasets: {}
#  Dataset004_Hippocampus:
"""

_PIPELINES = """
# named variations of the defaults; `default` always exists, and any name but `data` may be added
pipelines:
  default: {}
#  resenc_l: {planning: {planner: resenc_l, gpu_memory_gb: 24}}
"""


def default_yaml() -> str:
    """The commented default configuration file."""
    from segwright.core.settings import DatasetSettings, ExecutionSettings, ReportSettings

    lines = [_HEADER, _DATASETS.rstrip("\n")]
    lines += [f"#{line}" if line else "#" for line in _section_lines(DatasetSettings, "    ", {"path": "/data/Dataset004"})]
    lines += ["", "# settings every pipeline starts from", "defaults:"]
    lines += _section_lines(PipelineSettings, "  ")
    lines += [_PIPELINES.rstrip("\n"), "", "# how and where to run; never changes results", "execution:"]
    lines += _section_lines(ExecutionSettings, "  ")
    lines += ["", "report:", *_section_lines(ReportSettings, "  ")]
    by_name = {field.name: field for field in fields(Settings)}
    for name, default in (("results", "results"), ("plugins", "[]")):
        lines += ["", f"# {by_name[name].metadata['help']}", f"{name}: {default}"]
    return "\n".join(lines) + "\n"


def _section_lines(kind: type, indent: str, values: Mapping[str, str] | None = None) -> list[str]:
    """An option a line below its comment; sections within a section are indented."""
    lines: list[str] = []
    hints = get_type_hints(kind)
    for field in fields(kind):  # type: ignore[arg-type]
        lines.append(f"{indent}# {field.metadata['help']}{_limits_text(field)}")
        if is_dataclass(hints[field.name]):
            lines.append(f"{indent}{field.name}:")
            lines += _section_lines(hints[field.name], indent + "  ")
            continue
        default = to_plain(field.default if field.default is not MISSING else field.default_factory())  # type: ignore[misc]
        shown = (values or {}).get(field.name) or _yaml_value(default)
        lines.append(f"{indent}{field.name}: {shown}")
    return lines


def _yaml_value(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("\n...\n").strip()


def _limits_text(field: Field[Any]) -> str:
    limits = field.metadata
    parts = []
    if "minimum" in limits:
        parts.append(f"at least {limits['minimum']}")
    if "exclusive_minimum" in limits:
        parts.append(f"above {limits['exclusive_minimum']}")
    if "maximum" in limits:
        parts.append(f"at most {limits['maximum']}")
    return f" ({', '.join(parts)})" if parts else ""


def write_generated_files(root: Path) -> None:
    """Write ``config/config.yaml`` and ``config/schema/config.schema.json`` below ``root``."""
    write_text(root / "config" / "config.yaml", default_yaml())
    write_text(root / "config" / "schema" / "config.schema.json", json_text(json_schema(), sort_keys=False))


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python -m segwright.core.configfile --write   (in the project's folder)")
    write_generated_files(Path.cwd())
