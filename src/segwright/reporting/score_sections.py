"""The report's second half: scores of every candidate, the choice, the worst cases and what postprocessing does."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Any

import numpy as np

from segwright.core.dataset import Dataset
from segwright.core.labels import LabelKey, key_text, key_values
from segwright.core.plans import Plans
from segwright.evaluation.summary import Summary
from segwright.reporting import figures
from segwright.reporting.html import (
    Section,
    beside,
    dice_cell,
    figure,
    heading,
    number,
    paragraph,
    row,
    table,
)
from segwright.reporting.overlays import Overlay, worst_overlays
from segwright.reporting.results import PipelineResults

_MAX_CELLS = 60_000
"""From here on the table of all cases shows the selected candidate only, or the page would no longer open."""


def final_dice(results: PipelineResults) -> float | None:
    """Mean foreground Dice of the selected candidate, after postprocessing if that was decided."""
    after = results.postprocessing.get("after", {}).get("foreground_mean", {}).get("Dice")
    if after is not None:
        return float(after)
    best = results.selection.best
    return results.summaries[best].foreground_mean["Dice"] if best in results.summaries else None


def structures_table(results: PipelineResults, dataset: Dataset) -> str:
    """Every structure's Dice of the selected candidate: mean, spread, and after postprocessing."""
    best = results.selection.best
    if best not in results.summaries:
        return ""
    summary, names = results.summaries[best], names_of(results, dataset)
    after = results.postprocessing.get("after", {}).get("mean", {})
    rows = []
    for key in summary.keys:
        dice = np.asarray([case.counts[key].dice for case in summary.cases], dtype=float)
        dice = dice[~np.isnan(dice)]
        spread = [f(dice) if len(dice) else None for f in (np.std, np.median, np.min, np.max)]
        row_after = number(after.get(key_text(key), {}).get("Dice"), 3)
        mean = number(summary.mean[key]["Dice"], 3)
        rows.append([names[key], len(dice), mean, *(number(v, 3) for v in spread), row_after])
    note = paragraph(
        f"Dice of {best} on cases that its models had not seen. Cases in which a structure neither occurs nor is"
        " predicted are not counted for it.",
        "note",
    )
    head = ["structure", "cases", "mean Dice", "sd", "median", "lowest", "highest", "mean after postprocessing"]
    return note + table(head, rows)


def scores_section(results: PipelineResults, dataset: Dataset) -> Section:
    """Dice per structure and candidate, per case as plot and table."""
    if not results.summaries:
        return Section("Scores", paragraph("The models were trained on all cases; nothing was held out to score them."))
    names, best = names_of(results, dataset), _shown_candidate(results)
    keys = results.summaries[best].keys
    rows = [
        [candidate, number(summary.foreground_mean["Dice"])]
        + [dice_cell(summary.mean[key]["Dice"]) for key in keys]
        + [number(summary.foreground_mean["IoU"])]
        for candidate, summary in results.summaries.items()
    ]
    head = ["candidate", "mean Dice", *(names[key] for key in keys), "mean IoU"]
    body = paragraph(
        "Cross-validation: every case is scored by models that have not seen it. Columns with a structure's name show"
        " its mean Dice; a+b is the ensemble of two configurations.",
        "note",
    )
    body += table(head, rows, best=list(results.summaries).index(best))
    body += figure(
        figures.dice_plot(results.summaries, names, best),
        f"One dot a case; the bar is the mean. {best}, the selected candidate, is in colour.",
    )
    return Section("Scores", body + heading("Every case") + _case_table(results.summaries, names, best))


def selection_section(results: PipelineResults) -> Section:
    """The choice and its numbers: candidates from best to worst."""
    selection = results.selection
    body = paragraph(selection.reason)
    if not selection.scores:
        return Section("Selection", body)
    ranked = sorted(selection.scores, key=lambda name: -selection.scores[name])
    top = max(selection.scores.values())
    rows = [
        [
            name,
            "ensemble" if "+" in name else "single",
            number(selection.scores[name]),
            "–" if selection.scores[name] == top else f"{selection.scores[name] - top:+.4f}",
        ]
        for name in ranked
    ]
    cases = f"{selection.num_cases} cases of {len(selection.folds)} folds (of {selection.planned_folds} planned)"
    body += paragraph(f"Compared on {cases}.", "note")
    head = ["candidate", "kind", "mean foreground Dice", "behind the best"]
    return Section("Selection", body + table(head, rows, best=ranked.index(selection.best), numbers_from=2))


def worst_section(results: PipelineResults, dataset: Dataset) -> Section:
    """The three cases with the lowest Dice of every structure, as pictures."""
    best = results.selection.best
    if best not in results.summaries:
        return Section("Worst cases", "")
    names = names_of(results, dataset)
    window = _ct_window(results.plans)
    overlays = worst_overlays(
        results.summaries[best], results.summary_files[best], dataset, results.plans.reader, window
    )
    body = paragraph(
        "The slice with most wrong voxels of each case, before postprocessing. Blue line: reference. Orange dashes:"
        " out-of-fold prediction of the selected model. Small structures are shown enlarged beside the slice. Volumes"
        " are turned as in radiology: patient's left on the right of axial and coronal slices.",
        "note",
    )
    for key, group in groupby(overlays, key=lambda overlay: overlay.key):
        body += heading(names[key]) + row(figure(overlay.png, _overlay_caption(overlay)) for overlay in group)
    return Section("Worst cases", body)


def postprocessing_section(results: PipelineResults, dataset: Dataset) -> Section:
    """What was tried, what it changed and what was kept."""
    record = results.postprocessing
    before, after = record.get("before") or {}, record.get("after") or {}
    body = paragraph(_effect_sentence(record, dataset))
    tables = []
    if before and after:
        rows = []
        for key in dataset.labels.foreground_keys:
            pair = [side["mean"].get(key_text(key), {}).get("Dice") for side in (before, after)]
            rows.append(_effect_row(dataset.labels.name_of(key), *pair))
        pair = [side["foreground_mean"].get("Dice") for side in (before, after)]
        rows.append(_effect_row("mean of all", *pair))
        tables.append(table(["structure", "Dice before", "after", "change"], rows))
    if record.get("tested"):
        rows = [
            [
                _mask_name(trial["labels_or_regions"], dataset),
                number(trial["dice_before"]),
                number(trial["dice_after"]),
                "kept" if trial["accepted"] else "rejected",
                trial["decided_by"],
            ]
            for trial in record["tested"]
        ]
        head = ["keep only the largest component of", "Dice before", "after", "rule", "because"]
        tables.append(table(head, rows, numbers_from=None))
    return Section("Postprocessing", body + beside(tables))


def names_of(results: PipelineResults, dataset: Dataset) -> Mapping[LabelKey, str]:
    """The declared name of every evaluated structure."""
    keys = next(iter(results.summaries.values())).keys
    return {key: dataset.labels.name_of(key) for key in keys}


def _shown_candidate(results: PipelineResults) -> str:
    """The selected candidate, or the first one where the selected was not scored."""
    best = results.selection.best
    return best if best in results.summaries else next(iter(results.summaries))


def _case_table(summaries: Mapping[str, Summary], names: Mapping[LabelKey, str], best: str) -> str:
    first = summaries[best]
    shown = dict(summaries)
    body = ""
    if len(first.cases) * len(first.keys) * len(shown) > _MAX_CELLS:
        shown = {best: first}
        body = paragraph(f"Only {best} is listed here; the others are in their summary.json.", "note")
    dice = {
        candidate: {case.case_id: {key: counts.dice for key, counts in case.counts.items()} for case in summary.cases}
        for candidate, summary in shown.items()
    }
    rows = [
        [case_id, names[key], *(dice_cell(of_case[case_id][key]) for of_case in dice.values())]
        for case_id in first.case_ids
        for key in first.keys
    ]
    return body + table(["case", "structure", *shown], rows, scroll=len(rows) > 12, numbers_from=2)


def _ct_window(plans: Plans) -> tuple[float, float] | None:
    """CT is shown in the window of the dataset's foreground: soft tissue would be one grey between air and bone."""
    schemes = plans.configuration(next(iter(plans.configurations))).normalization_schemes
    if schemes[0] != "CTNormalization":
        return None
    return plans.intensities[0].percentile_00_5, plans.intensities[0].percentile_99_5


def _overlay_caption(overlay: Overlay) -> str:
    return f"{overlay.case_id}, {overlay.slice_text}. Dice {number(overlay.dice, 3)}; {overlay.size_text}."


def _effect_sentence(record: Mapping[str, Any], dataset: Dataset) -> str:
    """The recorded reason; where rules were found, with the structures by their names."""
    kept = [_mask_name(rule["labels_or_regions"], dataset) for rule in record.get("rules", [])]
    if not kept or not record.get("after"):
        return str(record.get("reason", ""))
    before, after = (record[side]["foreground_mean"]["Dice"] for side in ("before", "after"))
    return (
        f"Only the largest component is kept of {', then of '.join(kept)}. This raises the mean foreground Dice in"
        f" cross-validation from {before:.4f} to {after:.4f}."
    )


def _effect_row(name: str, before: float | None, after: float | None) -> list[object]:
    change = "–" if before is None or after is None or before != before else f"{after - before:+.4f}"
    return [name, number(before), number(after), change]


def _mask_name(keys: list[int | list[int]], dataset: Dataset) -> str:
    """The structures whose union is one mask, by name."""
    named = [dataset.labels.name_of(tuple(key) if isinstance(key, list) else key) for key in keys]
    whole = {value for key in keys for value in key_values(tuple(key) if isinstance(key, list) else key)}
    everything = whole == set(dataset.labels.foreground_labels) and len(named) > 1
    return f"all together ({', '.join(named)})" if everything else ", ".join(named)
