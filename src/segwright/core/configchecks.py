"""What a configuration names must be there, before anything starts: files, and names that only a plugin could add.

Snakemake would not say it: where results exist, it takes them for good when a file they were made from is missing.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

from segwright.core.errors import SettingsError
from segwright.core.plugins import named_options, require_different_names
from segwright.core.settings import DatasetSettings, Settings


def require_what_is_named(settings: Settings) -> None:
    """Every file the settings name exists, every name is built in or may come from a plugin, every split can be made.

    Raises:
        SettingsError: names the option.
    """
    for path in settings.plugins:
        _require_file(path, "plugins")
    require_different_names(settings.plugins)
    for name, dataset in settings.datasets.items():
        _require_split(f"datasets.{name}", dataset)
    for name, pipeline in settings.pipelines.items():
        where = "" if pipeline == settings.defaults else f"pipelines.{name}."
        for section in (pipeline.planning, pipeline.training):
            for option, built_in, value in named_options(section):
                if not settings.plugins and value is not None and value not in built_in:
                    _refuse_name(f"{where}{_section_of(pipeline, section)}.{option}", value, built_in)
        if pipeline.planning.plans_file is not None:
            _require_file(pipeline.planning.plans_file, f"{where}planning.plans_file")
        _require_initial_model(settings, name, f"{where}training.initial_model")


def _section_of(pipeline: Any, section: Any) -> str:
    return next(field.name for field in fields(pipeline) if getattr(pipeline, field.name) is section)


def _refuse_name(option: str, value: str, built_in: tuple[str, ...]) -> None:
    near = difflib.get_close_matches(value, built_in, n=1)
    hint = f"did you mean {near[0]}?" if near else "name the plugin that defines it under `plugins`"
    raise SettingsError(f"{option} is `{value}` but without a plugin must be one of {', '.join(built_in)}; {hint}")


def _require_initial_model(settings: Settings, pipeline: str, option: str) -> None:
    """The initial model is there, or another pipeline of this configuration makes it."""
    initial = settings.pipelines[pipeline].training.initial_model
    if initial is None:
        return
    dataset, maker = _result_of(Path(initial).absolute(), Path(settings.results).absolute())
    if dataset not in settings.datasets or maker not in settings.pipelines:
        _require_file(initial, option)
    elif maker == pipeline:
        raise SettingsError(
            f"{option} is {initial}, a result of the pipeline that is to start from it; give these trainings a pipeline"
            " of their own (`pipelines:`), or name a copy that lies elsewhere"
        )


def _result_of(path: Path, results: Path) -> tuple[str | None, str | None]:
    """Dataset and pipeline a file below the results belongs to; None of a file that lies elsewhere."""
    parts = path.relative_to(results).parts if path.is_relative_to(results) else ()
    return (parts[0], parts[1]) if len(parts) > 2 else (None, None)


def _require_split(where: str, dataset: DatasetSettings) -> None:
    splits = dataset.splits
    if dataset.case_table is not None:
        _require_file(dataset.case_table, f"{where}.case_table")
    elif splits.file is None and (column := splits.group or splits.stratify):
        option = "group" if splits.group else "stratify"
        raise SettingsError(f"{where}.splits.{option} is `{column}` but there is no case table; name it: case_table")
    try:
        re.compile(splits.group_pattern or "")
    except re.error as error:
        raise SettingsError(
            f"{where}.splits.group_pattern is `{splits.group_pattern}` but no regular expression ({error})"
        ) from error


def _require_file(path: str, option: str) -> None:
    if not Path(path).is_file():
        raise SettingsError(f"{option}: there is no file {path}; correct the path (it starts at {Path.cwd()})")
