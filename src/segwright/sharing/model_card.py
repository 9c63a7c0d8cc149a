"""The model card: what a person must know before using a model. Deterministic Markdown, no dates, no case names."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segwright.core.labels import Labels, key_text
from segwright.core.plans import Plans
from segwright.evaluation.summary import Summary
from segwright.selection.best import Selection
from segwright.selection.components import Rule
from segwright.sharing.model import ModelConfiguration

NOT_STATED = "not stated"


@dataclass(frozen=True)
class CardFacts:
    """Everything the card tells.

    Attributes:
        dataset: content of dataset.json.
        summary: out-of-fold evaluation of the chosen model; None if there is none (folds: all).
        training: configuration -> content of one fold's training.json.
        origin: where an imported model comes from, one line each; empty for our own.
    """

    dataset: Mapping[str, Any]
    plans: Plans
    selection: Selection
    rules: Sequence[Rule]
    configurations: Mapping[str, ModelConfiguration]
    summary: Summary | None
    training: Mapping[str, Mapping[str, Any]]
    plugins: Mapping[str, str]
    versions: Mapping[str, str]
    origin: Sequence[str] = ()


def model_card(facts: CardFacts) -> str:
    """The README.md of a model folder; its first lines are the YAML header that model hubs read."""
    sections = (
        _header(facts),
        *([_origin(facts)] if facts.origin else []),
        _intended_use(facts),
        _data(facts),
        _performance(facts),
        _training(facts),
        _limitations(facts),
        _licence(facts),
        _use(facts),
    )
    return "\n\n".join("\n".join(section) for section in sections) + "\n"


def licence_of(dataset: Mapping[str, Any]) -> str:
    """The licence dataset.json states, under either spelling."""
    return str(dataset.get("licence") or dataset.get("license") or NOT_STATED)


def _header(facts: CardFacts) -> list[str]:
    return [
        "---",
        f"license: {_yaml(licence_of(facts.dataset))}",
        "library_name: segwright",
        "tags: [image-segmentation, medical-imaging, nnU-Net]",
        "---",
        "",
        f"# {_text(facts.plans.dataset_name)}",
        "",
        _text(str(facts.dataset.get("description") or "A segmentation model trained with segwright.")),
    ]


def _intended_use(facts: CardFacts) -> list[str]:
    channels = ", ".join(_text(name) for name in facts.dataset["channel_names"].values())
    labels = Labels.from_json(facts.dataset)
    names = ", ".join(_text(labels.name_of(key)) for key in labels.foreground_keys)
    return [
        "## Intended use",
        "",
        f"Segmentation of {names} in images with the channels {channels}, in this order, of the same kind as the"
        " training data. For research. It is not a medical device and was not tested for clinical decisions.",
    ]


def _origin(facts: CardFacts) -> list[str]:
    return ["## Origin", "", *(f"- {_text(line)}" for line in facts.origin)]


def _data(facts: CardFacts) -> list[str]:
    labels = Labels.from_json(facts.dataset)
    rows: list[tuple[str, Any]] = [
        ("Dataset", facts.plans.dataset_name),
        ("Training cases", facts.dataset.get("numTraining", NOT_STATED)),
    ]
    rows += [("Reference", facts.dataset.get("reference") or NOT_STATED)]
    rows += [("Release", facts.dataset.get("release") or NOT_STATED)]
    rows += [("Median spacing (planned axis order)", _spacing(facts.plans.original_median_spacing_mm))]
    rows += [("Median size (planned axis order)", _size(facts.plans.original_median_shape))]
    rows += [("File ending, reader", f"{facts.dataset['file_ending']}, {facts.plans.reader}")]
    rows += [("Labels", "; ".join(f"{name} = {key_text(key)}" for name, key in labels.entries))]
    return ["## Data", "", *_table(("", ""), rows)]


def _performance(facts: CardFacts) -> list[str]:
    lines = ["## Performance", "", _text(facts.selection.reason)]
    if facts.summary is None:
        why = "all cases were trained on" if facts.selection.folds == ("all",) else "none came with the model"
        return [*lines, "", f"There is no out-of-fold evaluation: {why}."]
    labels = Labels.from_json(facts.dataset)
    rows: list[tuple[Any, ...]] = []
    for key in facts.summary.keys:
        dice = [case.counts[key].dice for case in facts.summary.cases]
        defined = sorted(value for value in dice if value == value)  # NaN differs from itself
        middle = statistics.median(defined) if defined else float("nan")
        present = sum(1 for case in facts.summary.cases if case.counts[key].tp + case.counts[key].fn)
        lowest = defined[0] if defined else float("nan")
        mean = facts.summary.mean[key]
        numbers = [_number(value) for value in (mean["Dice"], middle, lowest, mean.get("IoU", math.nan))]
        rows.append((labels.name_of(key), *numbers, present))
    foreground = facts.summary.foreground_mean
    rows.append(
        ("mean of structures", _number(foreground["Dice"]), "", "", _number(foreground.get("IoU", math.nan)), "")
    )
    head = ("Structure", "Dice", "median", "lowest", "IoU", "cases with it")
    cases = f"on {len(facts.summary.cases)} cases" if facts.summary.cases else "(single cases are not recorded)"
    return [
        *lines,
        "",
        f"Cross-validation {cases}, each predicted by a network that was not trained on it,"
        " before postprocessing. A case without a structure counts only if the structure is predicted (as Dice 0).",
        "",
        *_table(head, rows),
    ]


def _training(facts: CardFacts) -> list[str]:
    lines = ["## How it was made", ""]
    names = (*facts.configurations,)
    lines.append(f"Members: {', '.join(facts.selection.members)}; networks of {', '.join(names)}.")
    rows: list[tuple[Any, ...]] = []
    for name, configuration in facts.configurations.items():
        settings = facts.training.get(name, {}).get("settings", {})
        patch = _size(configuration.plan.patch_size)
        spacing = _spacing(configuration.plan.preprocess.spacing_mm)
        folds = ", ".join(fold.fold for fold in configuration.folds)
        steps = f"{facts.training.get(name, {}).get('epochs', '?')} x {settings.get('iterations', '?')}"
        optimizer = f"{settings.get('optimizer', '?')}, {settings.get('learning_rate', '?')}"
        rows.append((name, folds, configuration.previous_stage or "none", patch, spacing, steps, optimizer))
    head = ("Configuration", "folds", "previous stage", "patch", "spacing", "epochs x iterations", "optimizer, rate")
    rules = "; ".join(f"largest component of {rule.describe()}" for rule in facts.rules) or "none"
    return [*lines, "", *_table(head, rows), "", f"Postprocessing: {_text(rules)}."]


def _limitations(facts: CardFacts) -> list[str]:
    lines = [
        "## Limitations",
        "",
        "- It was evaluated only on cases of the dataset it was trained on. Images of other scanners, sites, protocols"
        " or patients may give worse results; check them.",
        "- It always answers, also where the image shows something else than the training images.",
    ]
    if len(facts.selection.folds) < facts.selection.planned_folds:
        lines.append(f"- Only the folds {', '.join(facts.selection.folds)} were trained.")
    if facts.plugins:
        lines.append(f"- It needs the plugins {', '.join(_text(name) for name in facts.plugins)} (`--plugin`).")
    return lines


def _licence(facts: CardFacts) -> list[str]:
    licence = licence_of(facts.dataset)
    if licence == NOT_STATED:
        return ["## Licence", "", "Not stated. Ask whoever gave you this model before you share it or use it further."]
    return ["## Licence", "", f"{_text(licence)} (as stated by the training data)."]


def _use(facts: CardFacts) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in sorted(facts.versions.items()))
    return [
        "## How to use it",
        "",
        "```",
        "segwright predict --model THIS_FOLDER_OR_ZIP --input IMAGES --output SEGMENTATIONS",
        "```",
        "",
        f"Made with {versions}. Opening it checks every file against the digests in `model.json` and executes nothing.",
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return lines + ["| " + " | ".join(_text(str(cell)) for cell in row) + " |" for row in rows]


def _text(text: str) -> str:
    """One line that Markdown and HTML take as plain text: names come from files of others."""
    flat = " ".join(text.split())
    for character in "\\|<>[]`":
        flat = flat.replace(character, {"<": "&lt;", ">": "&gt;"}.get(character, f"\\{character}"))
    return flat


def _yaml(text: str) -> str:
    """A double-quoted YAML scalar."""
    flat = "".join(character for character in " ".join(text.split()) if character.isprintable())
    return '"' + flat.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _number(value: float) -> str:
    return "-" if value != value else f"{value:.4f}"


def _spacing(values: Sequence[float]) -> str:
    return " x ".join(f"{value:g}" for value in values) + " mm"


def _size(values: Sequence[int]) -> str:
    return " x ".join(str(value) for value in values)
