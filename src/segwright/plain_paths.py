"""Snakemake takes ``{x}`` and ``<x>`` in a path for something else, and cannot be told otherwise: such are refused."""

from __future__ import annotations

from collections.abc import Iterator

from segwright.core.dataset import Dataset
from segwright.core.errors import DatasetError, SettingsError
from segwright.core.settings import Settings
from segwright.inspection.names import WILDCARD

_TAKEN = "the name holds a brace or a word in angle brackets, which the workflow takes for a wildcard"


def require_plain_options(settings: Settings) -> None:
    """The paths in the configuration from which inputs and outputs of jobs are made.

    Raises:
        SettingsError: names the option.
    """
    for option, path in _paths(settings):
        if path is not None and WILDCARD.search(path):
            raise SettingsError(f"{option} is {path}: {_TAKEN}; choose another name")


def _paths(settings: Settings) -> Iterator[tuple[str, str | None]]:
    yield "results", settings.results
    for name, dataset in settings.datasets.items():
        yield f"datasets.{name}.case_table", dataset.case_table
        yield f"datasets.{name}.splits.file", dataset.splits.file
    for name, pipeline in settings.pipelines.items():
        where = "" if pipeline == settings.defaults else f"pipelines.{name}."
        yield f"{where}planning.plans_file", pipeline.planning.plans_file
        yield f"{where}training.initial_model", pipeline.training.initial_model


def require_plain_files(dataset: Dataset) -> None:
    """The folder and the files of a dataset.

    Raises:
        DatasetError: names the file.
    """
    files = [path for case in (*dataset.training, *dataset.test) for path in (*case.image_files, case.label_file)]
    for path in map(str, (dataset.folder, *files)):
        if WILDCARD.search(path):
            raise DatasetError(f"{path}: {_TAKEN}; rename it")
