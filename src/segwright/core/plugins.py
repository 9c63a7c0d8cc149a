"""Which trainings a plugin has a part in: one that nobody names changes no result, so editing it re-runs nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from segwright.core.errors import SettingsError
from segwright.core.settings import PipelineSettings, PlanningSettings, TrainingSettings


def named_options(section: Any) -> Iterator[tuple[str, tuple[str, ...], str | None]]:
    """Options that take a registered name: the option, the names there are without a plugin, and the value."""
    for field in fields(section):
        if "built_in" in field.metadata:
            yield field.name, field.metadata["built_in"], getattr(section, field.name)


def names_a_plugin(section: PlanningSettings | TrainingSettings) -> bool:
    """Whether a section names something only a plugin can define."""
    return any(value is not None and value not in built_in for _, built_in, value in named_options(section))


def may_use_plugins(pipeline: PipelineSettings) -> bool:
    """Whether plugins can have a part in a pipeline's results: it names one, or its plans may name one's network."""
    planning = pipeline.planning
    own_plans = planning.plans_file is not None or bool(planning.add)
    return own_plans or names_a_plugin(planning) or names_a_plugin(pipeline.training)


def require_different_names(paths: Iterable[Path | str]) -> None:
    """What was trained records plugins by file name, so two of one name would be taken for one.

    Raises:
        SettingsError: names both files.
    """
    seen: dict[str, Path] = {}
    for path in map(Path, paths):
        other = seen.setdefault(path.name, path)
        if other.absolute() != path.absolute():
            raise SettingsError(f"plugins: {other} and {path} have the same file name; rename one of them")
