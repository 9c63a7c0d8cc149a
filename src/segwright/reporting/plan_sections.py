"""The report's first half: what the data are, what was planned and why, and how the trainings went."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from segwright.core.dataset import Dataset
from segwright.core.labels import key_values
from segwright.core.plans import Plans
from segwright.reporting import figures
from segwright.reporting.html import (
    Cell,
    Section,
    beside,
    details,
    figure,
    heading,
    number,
    paragraph,
    table,
)
from segwright.reporting.markdown import markdown_sections, markdown_to_html
from segwright.reporting.results import FoldHistory, PipelineResults

_SHOWN_SETTINGS = (
    "schedule", "epochs", "iterations", "optimizer", "learning_rate", "weight_decay", "decay", "loss", "augmentation",
    "mirroring", "weights", "seed",
)  # fmt: skip


def dataset_section(results: PipelineResults, dataset: Dataset) -> Section:
    """Channels, labels, sizes, spacings and intensities, and what inspection found."""
    labels = [(name, ", ".join(map(str, key_values(key)))) for name, key in dataset.labels.entries]
    fingerprint = results.fingerprint
    body = beside(
        [
            table(["label", "value"], labels, numbers_from=None),
            _extents_table(fingerprint),
            _channels_table(fingerprint, dataset.channel_names, results.plans),
        ]
    )
    body += figure(
        figures.fingerprint_plot(fingerprint, dataset.channel_names),
        "One dot a training case: its size after cropping to non-zero, and its voxel spacing, along the axes of the"
        " stored image. Intensities are those of foreground voxels over all cases: mean, standard deviation (whiskers)"
        " and the 0.5 to 99.5 percentiles (bar).",
    )
    return Section("Dataset", body + heading("Checks") + _checks(results))


def plans_section(results: PipelineResults) -> Section:
    """The planned configurations as a table, and the reason of every value."""
    plans = results.plans
    rows = [_plan_row(plans, name) for name in plans.configurations]
    head = ["configuration", "patch (voxels)", "batch", "spacing (mm)", "stages", "features", "previous stage"]
    body = table(head, rows, numbers_from=None)
    names = {part for part, _ in markdown_sections(results.reasons_markdown)}
    for part, markdown in markdown_sections(results.reasons_markdown):
        if part == "":
            body += heading("Why these values") + markdown_to_html(markdown)
        else:
            body += details(part, markdown_to_html(markdown), opened=part not in plans.configurations)
    return Section("Plans", body if names else body + paragraph("The reasons were not recorded.", "note"))


def training_section(results: PipelineResults) -> Section:
    """Settings, curves and end values of every trained fold."""
    if not results.histories:
        return Section("Training", "")
    body = _settings_table(results.histories)
    for configuration, group in groupby(results.histories, key=lambda history: history.configuration):
        histories = sorted(group, key=lambda history: (len(history.fold), history.fold))
        drawn = [history for history in histories if history.epochs]
        body += heading(configuration)
        if drawn:
            folds = "one fold" if len(drawn) == 1 else f"{len(drawn)} folds"
            body += figure(
                figures.curves_plot(drawn),
                f"{configuration}, {folds}, one colour each. Loss: training (line) and validation patches (dotted)."
                " Pseudo Dice of validation patches: moving average (line) and single epochs (dotted).",
            )
        head = ["fold", "epochs", "starts", "time (min)", "final loss", "pseudo Dice", "best (epoch)"]
        body += table(head, [_fold_row(history) for history in histories])
    return Section("Training", body)


def _extents_table(fingerprint: Mapping[str, Any]) -> str:
    rows = []
    for what, key in (("size (voxels)", "shapes_after_crop"), ("spacing (mm)", "spacings")):
        values = np.asarray(fingerprint[key], dtype=float)
        for axis, name in enumerate("zyx"):
            column = values[:, axis]
            low, middle, high = (f"{value:.4g}" for value in (column.min(), np.median(column), column.max()))
            rows.append([f"{what} {name}", low, middle, high])
    return table(["axis", "least", "median", "most"], rows)


def _channels_table(fingerprint: Mapping[str, Any], channel_names: Sequence[str], plans: Plans) -> str:
    """Foreground intensities and normalisation of every channel."""
    statistics = fingerprint["foreground_intensity_properties_per_channel"]
    names = list(plans.configurations)
    schemes = plans.configuration(names[0]).normalization_schemes if names else ()
    rows = []
    for index, channel in enumerate(channel_names):
        values = statistics[str(index)]
        shown = [f"{values[key]:.4g}" for key in ("mean", "std", "percentile_00_5", "percentile_99_5")]
        scheme = schemes[index].removesuffix("Normalization") if index < len(schemes) else "–"
        rows.append([f"{index}: {channel}", *shown, Cell(scheme, "")])
    return table(["channel", "mean", "sd", "0.5 %", "99.5 %", "normalised by"], rows)


def _checks(results: PipelineResults) -> str:
    checks = results.checks
    if not checks.problems:
        return paragraph(f"All {len(checks.cases)} training cases passed all checks without a warning.")
    rows = [
        [Cell(problem.severity, problem.severity), problem.case or "–", problem.file or "–",
         Cell(f"{problem.message}; {problem.remedy}", "text")]
        for problem in checks.problems
    ]  # fmt: skip
    counts = paragraph(f"{len(checks.errors)} errors and {len(checks.warnings)} warnings.")
    head = ["severity", "case", "file", "problem and what to do"]
    return counts + table(head, rows, scroll=len(rows) > 10, numbers_from=None)


def _plan_row(plans: Plans, name: str) -> list[object]:
    configuration = plans.configuration(name)
    return [
        name,
        " × ".join(map(str, configuration.patch_size)),
        configuration.batch_size,
        " × ".join(f"{value:.3g}" for value in configuration.spacing_mm),
        configuration.architecture.n_stages,
        ", ".join(map(str, configuration.architecture.features_per_stage)),
        configuration.previous_stage or "–",
    ]


def _settings_table(histories: Sequence[FoldHistory]) -> str:
    """The settings all trainings share in one line; those that differ by configuration in a table of their own."""
    by_configuration = {history.configuration: dict(_shown_settings(history)) for history in histories}
    names = [name for name in _SHOWN_SETTINGS if any(name in settings for settings in by_configuration.values())]
    values = {name: [settings.get(name) for settings in by_configuration.values()] for name in names}
    shared = [name for name in names if all(value == values[name][0] for value in values[name])]
    body = paragraph("; ".join(f"{name.replace('_', ' ')} {values[name][0]}" for name in shared) + ".", "note")
    different = [name for name in names if name not in shared]
    if different:
        rows = [[name, *(settings.get(n, "–") for n in different)] for name, settings in by_configuration.items()]
        body += table(["configuration", *(name.replace("_", " ") for name in different)], rows, numbers_from=None)
    return body


def _shown_settings(history: FoldHistory) -> Iterator[tuple[str, object]]:
    settings = history.training.get("settings", {})
    for name in _SHOWN_SETTINGS:
        if name in settings:
            value = settings[name]
            yield name, ("yes" if value else "no") if isinstance(value, bool) else value
    yield "device", history.training.get("device", "–")


def _fold_row(history: FoldHistory) -> list[object]:
    metrics = history.training.get("metrics", {})
    best = metrics.get("best_epoch")
    shown_best = "–" if best is None else f"{number(metrics.get('best_ema_fg_dice'), 3)} ({best + 1})"
    early = " (stopped early)" if history.training.get("stopped_early") else ""
    return [
        history.fold,
        f"{history.training.get('epochs', len(history.epochs))}{early}",
        history.attempts,
        number(history.duration_s / 60, 1) if history.epochs else "–",
        number(metrics.get("train_loss"), 3),
        number(metrics.get("ema_fg_dice"), 3),
        shown_best,
    ]
