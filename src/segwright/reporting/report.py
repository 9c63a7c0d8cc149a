"""One HTML page that tells the whole experiment: data, plans, training, scores, selection, run times, versions."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib import metadata
from itertools import groupby
from pathlib import Path

from segwright import __version__
from segwright.core.dataset import Dataset, LabelKey
from segwright.core.files import write_text
from segwright.reporting import figures
from segwright.reporting.html import Section, figure, number, page, paragraph, row, table
from segwright.reporting.markdown import markdown_to_html
from segwright.reporting.overlays import worst_overlays
from segwright.reporting.results import PipelineResults, read_results

_PACKAGES = ("numpy", "scipy", "SimpleITK", "torch", "snakemake", "batchgenerators", "pandas")


def write_report(
    root: Path, data: Path, dataset: Dataset, output: Path, *, title: str, benchmarks: Path | None = None
) -> None:
    """Write the report of the pipeline in ``root``; ``data`` is the folder of what depends on the dataset alone.

    Raises:
        DamagedFileError: a result is missing or was altered.
    """
    results = read_results(root, data, benchmarks)
    sections = [
        _dataset_section(results, dataset),
        _plans_section(results),
        _training_section(results),
        _scores_section(results, dataset),
        _selection_section(results),
        _worst_section(results, dataset),
        _postprocessing_section(results),
        _prediction_section(results),
        _times_section(results),
        _versions_section(results),
    ]
    subtitle = (
        f"{dataset.name}, pipeline {root.name}: {len(dataset.training)} training cases, {len(dataset.test)} test images"
    )
    write_text(output, page(title, subtitle, [section for section in sections if section.body]))


def _dataset_section(results: PipelineResults, dataset: Dataset) -> Section:
    labels = [(name, str(key)) for name, key in dataset.labels.entries]
    problems = results.checks["problems"]
    body = row(
        [
            table(["channel", "name"], list(enumerate(dataset.channel_names)), numbers_from=9),
            table(["label", "value"], labels, numbers_from=9),
        ]
    )
    body += figure(
        figures.fingerprint_plot(results.fingerprint, dataset.channel_names),
        "Fingerprint: one dot a case; axes z, y, x as stored.",
    )
    if problems:
        rows = [[p["severity"], p["case"] or "–", p["file"] or "–", p["message"]] for p in problems]
        body += "<h3>Checks</h3>" + table(["severity", "case", "file", "problem"], rows, scroll=True, numbers_from=9)
    else:
        body += paragraph("All checks passed without a warning.")
    return Section("Dataset", body)


def _plans_section(results: PipelineResults) -> Section:
    plans = results.plans
    head = ["configuration", "patch", "batch", "spacing (mm)", "stages", "features", "previous stage"]
    rows = []
    for name in plans.configurations:
        configuration = plans.configuration(name)
        rows.append(
            [
                name,
                " × ".join(map(str, configuration.patch_size)),
                configuration.batch_size,
                " × ".join(f"{value:.3g}" for value in configuration.spacing_mm),
                configuration.architecture.n_stages,
                ", ".join(map(str, configuration.architecture.features_per_stage)),
                configuration.previous_stage or "–",
            ]
        )
    body = table(head, rows, numbers_from=9)
    return Section("Plans", body + "<h3>Why these values</h3>" + markdown_to_html(results.reasons_markdown))


def _training_section(results: PipelineResults) -> Section:
    body = ""
    for configuration, group in groupby(results.histories, key=lambda history: history.configuration):
        histories = [history for history in group if history.epochs]
        if histories:
            body += f"<h3>{configuration}</h3>"
            body += figure(figures.curves_plot(histories), f"Curves of {len(histories)} fold(s) of {configuration}.")
    return Section("Training", body)


def _scores_section(results: PipelineResults, dataset: Dataset) -> Section:
    if not results.summaries:
        return Section("Scores", paragraph(results.selection["reason"]))
    names = _names(results, dataset)
    first = next(iter(results.summaries.values()))
    rows = [
        [candidate, number(summary.foreground_mean["Dice"])]
        + [number(summary.mean[key]["Dice"]) for key in first.keys]
        + [number(summary.foreground_mean["IoU"])]
        for candidate, summary in results.summaries.items()
    ]
    best = list(results.summaries).index(results.selection["best"])
    head = ["candidate", "mean Dice", *(f"Dice {names[key]}" for key in first.keys), "mean IoU"]
    body = paragraph("Cross-validation: every case is scored by the fold that has not seen it.", "note")
    body += table(head, rows, best=best)
    body += figure(figures.dice_plot(results.summaries, names), "One dot a case, the bar is the mean.")
    dice = {
        candidate: {case.case_id: {key: counts.dice for key, counts in case.counts.items()} for case in summary.cases}
        for candidate, summary in results.summaries.items()
    }
    case_rows = [
        [case_id, names[key], *(number(of_case[case_id][key]) for of_case in dice.values())]
        for case_id in first.case_ids
        for key in first.keys
    ]
    body += "<h3>Every case</h3>" + table(
        ["case", "structure", *results.summaries], case_rows, scroll=True, numbers_from=2
    )
    return Section("Scores", body)


def _selection_section(results: PipelineResults) -> Section:
    selection = results.selection
    body = paragraph(selection["reason"])
    body += paragraph(f"Selected: {selection['best']} (members: {', '.join(selection['members'])}).")
    return Section("Selection", body)


def _worst_section(results: PipelineResults, dataset: Dataset) -> Section:
    best = results.selection["best"]
    if best not in results.summaries:
        return Section("Worst cases", "")
    names = _names(results, dataset)
    overlays = worst_overlays(results.summaries[best], results.summary_files[best], dataset, results.plans.reader)
    body = paragraph("Reference: green line. Out-of-fold prediction of the selected model: red dashes.", "note")
    for key, group in groupby(overlays, key=lambda overlay: overlay.key):
        pictures = [
            figure(overlay.png, f"{overlay.case_id}, slice {overlay.slice_index}: Dice {number(overlay.dice, 3)}")
            for overlay in group
        ]
        body += f"<h3>{names[key]}</h3>" + row(pictures)
    return Section("Worst cases", body)


def _postprocessing_section(results: PipelineResults) -> Section:
    record = results.postprocessing
    body = paragraph(record["reason"])
    tested = record.get("tested", [])
    if tested:
        rows = [
            [
                str(trial["labels_or_regions"]),
                number(trial["dice_before"]),
                number(trial["dice_after"]),
                "kept" if trial["accepted"] else "not kept",
                trial["decided_by"],
            ]
            for trial in tested
        ]
        body += table(
            ["largest component of", "Dice before", "Dice after", "decision", "because"], rows, numbers_from=9
        )
    return Section("Postprocessing", body)


def _prediction_section(results: PipelineResults) -> Section:
    if results.final_manifest is None:
        return Section("Test images", "")
    cases = results.final_manifest["cases"]
    rows = [[case_id, entry["file"]] for case_id, entry in sorted(cases.items())]
    return Section("Test images", table(["case", "segmentation (in final/)"], rows, scroll=True, numbers_from=9))


def _times_section(results: PipelineResults) -> Section:
    if not results.job_times:
        return Section("Run times", "")
    rows = [
        [time.rule, time.jobs, number(time.runtime_min, 2), number(time.peak_memory_mb, 0)]
        for time in results.job_times
    ]
    note = paragraph("Of the jobs that ran last; jobs shared by several pipelines count in each report.", "note")
    return Section("Run times", note + table(["rule", "jobs", "minutes in all", "peak memory (MB)"], rows))


def _versions_section(results: PipelineResults) -> Section:
    rows = [["segwright", __version__], ["Python", platform.python_version()], ["machine", platform.platform()]]
    for package in _PACKAGES:
        try:
            rows.append([package, metadata.version(package)])
        except metadata.PackageNotFoundError:
            continue  # a rule's environment holds only what the rule needs
    return Section("Versions", table(["what", "version"], rows, numbers_from=9))


def _names(results: PipelineResults, dataset: Dataset) -> Mapping[LabelKey, str]:
    keys = next(iter(results.summaries.values())).keys
    return {key: dataset.labels.name_of(key) for key in keys}
