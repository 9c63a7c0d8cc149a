"""One HTML page that tells the whole experiment: data, plans, training, scores, selection, run times, versions."""

from __future__ import annotations

from pathlib import Path

from segwright.core.dataset import Dataset
from segwright.core.files import write_text
from segwright.reporting.html import Section, facts, number, page, paragraph
from segwright.reporting.plan_sections import dataset_section, plans_section, training_section
from segwright.reporting.results import PipelineResults, ResultFiles, read_results
from segwright.reporting.run_sections import test_section, times_section, versions_section
from segwright.reporting.score_sections import (
    final_dice,
    postprocessing_section,
    scores_section,
    selection_section,
    structures_table,
    worst_section,
)


def write_report(
    files: ResultFiles, dataset: Dataset, output: Path, *, title: str, benchmarks: Path | None = None
) -> None:
    """Write the report of one pipeline.

    Equal results give equal bytes, but for run times and versions.

    Raises:
        DamagedFileError: a result is missing or was altered.
    """
    results = read_results(files, benchmarks)
    sections = [
        _overview_section(results, dataset),
        dataset_section(results, dataset),
        plans_section(results),
        training_section(results),
        scores_section(results, dataset),
        selection_section(results),
        worst_section(results, dataset),
        postprocessing_section(results, dataset),
        test_section(results),
        times_section(results),
        versions_section(results),
    ]
    subtitle = f"Dataset {dataset.name}, pipeline {files.root.name}"
    write_text(output, page(title, subtitle, [section for section in sections if section.body]))


def _overview_section(results: PipelineResults, dataset: Dataset) -> Section:
    selection = results.selection
    tiles: list[tuple[str, object]] = [("selected model", " + ".join(selection.members))]
    if results.summaries:
        after = ", after postprocessing" if results.postprocessing.get("rules") else ""
        tiles.append((f"mean Dice in cross-validation{after}", number(final_dice(results), 3)))
        tiles.append(("folds used", f"{len(selection.folds)} of {selection.planned_folds}"))
    else:
        tiles.append(("trained on", "all cases, no validation"))
    tiles += [
        ("training cases", len(results.checks.cases)),
        ("test images", len(dataset.test)),
        ("structures", len(dataset.labels.foreground_keys)),
        ("warnings about the data", len(results.checks.warnings)),
    ]
    body = facts(tiles) + paragraph(selection.reason)
    return Section("At a glance", body + structures_table(results, dataset))
