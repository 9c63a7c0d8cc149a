"""From YAML, JSON or Snakemake's config to typed :class:`Settings`; every mistake is one line that says what is right.

``python -m segwright.core.configfile --write`` regenerates ``config/config.yaml`` and its JSON schema.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import yaml

from segwright.core.configvalues import build, from_text, plain_copy, type_hints, unknown_key
from segwright.core.errors import SettingsError, brief
from segwright.core.files import write_json, write_text
from segwright.core.settings import (
    DatasetSettings,
    ExecutionSettings,
    PipelineSettings,
    ReportSettings,
    Settings,
    TrainingSettings,
)

T = TypeVar("T")
Source = Mapping[str, Any] | Path | str

MAX_BYTES = 1_000_000
SECTIONS = tuple(f.name for f in fields(PipelineSettings))
"""The stages' sections: allowed under ``defaults``, in a pipeline, and (short for ``defaults``) at the top."""
DATASET_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")
PIPELINE_NAME = re.compile(r"[A-Za-z0-9_]{1,100}")
_TAKEN_FOLDERS = {"datasets": ("logs", "benchmarks"), "pipelines": ("data",)}
"""Folders beside those of the datasets, and beside those of a dataset's pipelines."""


def load_settings(*sources: Source) -> Settings:
    """Read a whole configuration: mappings or files, later ones over earlier ones.

    A section such as ``training:`` at the top is short for ``defaults: {training: ...}`` and goes over it. Pipelines
    are merged over the defaults; ``default`` always exists. Text is turned into the type of its option, since
    Snakemake's ``--config`` delivers nothing else.

    Raises:
        SettingsError: an option is unknown, of the wrong type or out of range.
    """
    config: dict[str, Any] = {}
    for source in sources:
        config = merge(config, read_source(source))
    _check_keys(config, [f.name for f in fields(Settings)] + list(SECTIONS))
    shorthand = {name: config.pop(name) for name in SECTIONS if name in config}
    defaults = merge(_section(config.get("defaults"), "defaults"), shorthand)
    datasets = _named(config.get("datasets"), "datasets", DATASET_NAME)
    pipelines = {"default": {}, **_named(config.get("pipelines"), "pipelines", PIPELINE_NAME)}
    for path, names in (("datasets", datasets), ("pipelines", pipelines)):
        _require_own_folders(path, names)
    loaded = {name: build(DatasetSettings, value, f"datasets.{name}") for name, value in datasets.items()}
    for name, dataset in loaded.items():
        if not dataset.path:
            raise SettingsError(f"datasets.{name}.path is missing; name the dataset's folder")
    built_defaults = build(PipelineSettings, defaults, "")  # first, so that a mistake in the defaults is named as one
    return Settings(
        datasets=loaded,
        defaults=built_defaults,
        pipelines={
            name: build(PipelineSettings, merge(defaults, value), f"pipelines.{name}")
            for name, value in pipelines.items()
        },
        execution=build(ExecutionSettings, config.get("execution"), "execution"),
        report=build(ReportSettings, config.get("report"), "report"),
        **_options(Settings, config, ("results", "plugins")),
    )


def pipeline_settings(settings: Settings, name: str) -> PipelineSettings:
    """The effective settings of a pipeline: the defaults with the pipeline's own values over them.

    Raises:
        SettingsError: there is no such pipeline.
    """
    if name not in settings.pipelines:
        raise SettingsError(f"there is no pipeline {name} (there are: {', '.join(settings.pipelines)})")
    return settings.pipelines[name]


def pipeline_settings_from_file(path: Path | str | None) -> PipelineSettings:
    """The sections ``planning``, ``preprocessing``, ``training`` ... of a YAML or JSON file; None: all defaults.

    A whole configuration file is accepted too: then these are its ``default`` pipeline's settings.
    """
    if path is None:
        return PipelineSettings()
    return pipeline_settings(load_settings(Path(path)), "default")


def training_settings_from_file(path: Path | str) -> TrainingSettings:
    """Settings of ``segwright train --settings FILE``: bare training options, or sections as in the configuration.

    Raises:
        SettingsError: as :func:`load_settings`.
    """
    content = read_source(Path(path))
    if any(key in content for key in (*SECTIONS, *(f.name for f in fields(Settings)))):
        return pipeline_settings(load_settings(content), "default").training
    return build(TrainingSettings, content, "training")


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Deep merge: mappings key by key, everything else replaced by ``over``. Neither argument is changed.

    An empty section (``training:`` with nothing below it) changes nothing.
    """
    merged = dict(base)
    for key, value in over.items():
        before = merged.get(key)
        if isinstance(before, Mapping) and value is None and key in _section_names():
            continue
        merged[key] = merge(before, value) if isinstance(before, Mapping) and isinstance(value, Mapping) else value
    return merged


def read_source(source: Source) -> dict[str, Any]:
    """A mapping, or the mapping a YAML or JSON file holds, as plain dictionaries of limited size.

    Raises:
        SettingsError: the file is missing, too large, not YAML, repeats a key, or is no mapping.
    """
    if isinstance(source, Mapping):
        return _sections_from_text(plain_copy(source, "the configuration"))
    path = Path(source)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise SettingsError(f"{path}: larger than {MAX_BYTES} bytes; not a configuration file")
        content = _Loader(path.read_text(encoding="utf-8")).get_single_data()
    except OSError as problem:
        raise SettingsError(f"{path}: cannot be read ({problem.strerror}); correct the path") from None
    except UnicodeDecodeError as problem:
        raise SettingsError(f"{path}: not text in UTF-8 ({problem.reason}); save it as UTF-8") from problem
    except (yaml.YAMLError, ValueError, ArithmeticError, RecursionError) as problem:  # also 2020-13-01, or 5000 digits
        raise SettingsError(f"{path}: not valid YAML ({brief(' '.join(str(problem).split()), 400)})") from problem
    if content is None:
        return {}
    if not isinstance(content, Mapping):
        raise SettingsError(
            f"{path}: must hold options such as `training: {{epochs: 5}}`, not {type(content).__name__}"
        )
    return _sections_from_text(plain_copy(content, str(path)))


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key written twice, of which YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag != "tag:yaml.org,2002:merge" and isinstance(key_node, yaml.ScalarNode):
                if key_node.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key `{key_node.value}` is written twice", key_node.start_mark
                    )
                seen.add(key_node.value)
        return super().construct_mapping(node, deep=deep)


def _options(cls: type[T], config: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Typed values of single options at the top of the configuration; those not given are left out."""
    given = {name: config[name] for name in names if name in config}
    built = build(cls, given, "")
    return {name: getattr(built, name) for name in given}


def _section_names() -> tuple[str, ...]:
    return (*SECTIONS, "defaults", "datasets", "pipelines", "execution", "report")


def _sections_from_text(config: dict[str, Any]) -> dict[str, Any]:
    """Sections given as text on a command line, read as YAML, so that they merge instead of replacing."""
    return {
        key: from_text(value) if key in _section_names() and isinstance(value, str) else value
        for key, value in config.items()
    }


def _check_keys(config: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in config:
        if key not in known:
            sections = {**type_hints(PipelineSettings), "execution": ExecutionSettings}
            homes = [f"{name}.{key}" for name, section in sections.items() if key in type_hints(section)]
            hint = f"{key} is not known; did you mean {' or '.join(homes)}?"
            raise SettingsError(hint if homes else unknown_key(key, known, ""))


def _section(value: Any, path: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise SettingsError(f"{path} is {brief(value)} but must be a section with options below it")
    return dict(value)


def _named(value: Any, path: str, pattern: re.Pattern[str]) -> dict[str, dict[str, Any]]:
    entries = _section(value, path)
    for name in entries:
        if not isinstance(name, str) or not pattern.fullmatch(name):
            allowed = "letters, digits and _" + (" . - (these two not in front)" if pattern is DATASET_NAME else "")
            raise SettingsError(
                f"{path}.{brief(str(name), 60)}: the name becomes a folder, so it may only hold {allowed}, at most"
                f" {200 if pattern is DATASET_NAME else 100} characters"
            )
    return {name: _section(entry, f"{path}.{name}") for name, entry in entries.items()}


def _require_own_folders(path: str, names: Iterable[str]) -> None:
    """Each name stands for a folder of its own, also where upper and lower case are one."""
    seen: dict[str, str] = {}
    for name in names:
        folded = name.lower()
        if folded in _TAKEN_FOLDERS[path]:
            raise SettingsError(f"{path}.{name}: the name `{folded}` is taken by another folder; choose another name")
        if folded in seen:
            raise SettingsError(
                f"{path}.{name}: is one and the same folder as {seen[folded]} on many systems; rename it"
            )
        seen[folded] = name


def main(arguments: Sequence[str] | None = None) -> None:
    """Regenerate the files in ``config/`` that come from the settings classes."""
    from segwright.core.configdocs import default_yaml, json_schema

    parser = argparse.ArgumentParser(prog="python -m segwright.core.configfile", description=main.__doc__)
    parser.add_argument("--write", action="store_true", required=True, help="write config.yaml and its schema")
    parser.add_argument("--folder", type=Path, default=Path("config"), help="the config folder")
    options = parser.parse_args(arguments)
    write_text(options.folder / "config.yaml", default_yaml())
    write_json(options.folder / "schema" / "config.schema.json", json_schema(), sort_keys=False)


if __name__ == "__main__":
    main()
