"""The report's plots, as PNG bytes. matplotlib is used without its global state and without a screen."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from segwright.core.labels import LabelKey
from segwright.evaluation.summary import Summary
from segwright.reporting.results import FoldHistory

_DPI = 160
_WIDTH_IN = 11.0
_COLOURS = (
    "#1f6f8b", "#d1495b", "#e0a030", "#5a9c77", "#8d6a9f", "#2e4057", "#c27c4e", "#6c8ebf", "#a44a3f", "#7d7d7d",
)  # fmt: skip
_MAX_CHANNELS = 6
_MANY_STRUCTURES = 12


def fingerprint_plot(fingerprint: Mapping[str, Any], channel_names: Sequence[str]) -> bytes:
    """Sizes and spacings of the cases, and the foreground intensities of each channel (the first six)."""
    shapes = np.asarray(fingerprint["shapes_after_crop"], dtype=float)
    spacings = np.asarray(fingerprint["spacings"], dtype=float)
    intensities = fingerprint["foreground_intensity_properties_per_channel"]
    channels = list(enumerate(channel_names))[:_MAX_CHANNELS]
    axes_shown = [1, 2] if np.all(shapes[:, 0] == 1) else [0, 1, 2]  # a picture has no depth
    widths = [2.2, 2.2, *([max(1.3 / len(channels), 0.6)] * len(channels))]
    figure = Figure(figsize=(_WIDTH_IN, 3.2), layout="constrained")
    panels = figure.subplots(1, len(widths), width_ratios=widths)
    for panel, values, title in ((panels[0], shapes, "size (voxels)"), (panels[1], spacings, "spacing (mm)")):
        for position, axis in enumerate(axes_shown):
            _dots(panel, position, values[:, axis], _COLOURS[axis])
        panel.set_xticks(range(len(axes_shown)), ["zyx"[axis] for axis in axes_shown])
        panel.set_xlim(-0.6, len(axes_shown) - 0.4)
        _finish(panel, title)
        shown = values[:, axes_shown]
        if np.ptp(shown) < 0.02 * np.abs(shown).max():  # equal values need room, or tiny differences look large
            panel.set_ylim(0.9 * shown.min(), 1.1 * shown.max())
    for panel, (index, name) in zip(panels[2:], channels, strict=True):
        statistics = intensities[str(index)]
        low, high = statistics["percentile_00_5"], statistics["percentile_99_5"]
        colour = _COLOURS[(index + 3) % len(_COLOURS)]
        panel.plot([0, 0], [low, high], color=colour, linewidth=9, alpha=0.35, solid_capstyle="butt")
        panel.errorbar(0, statistics["mean"], yerr=statistics["std"], fmt="o", color=colour, capsize=5, markersize=5)
        panel.set_xlim(-1, 1)
        panel.set_xticks([])
        _finish(panel, f"{_short(name, 18)}" if len(channels) > 1 else f"intensity ({_short(name, 18)})")
    return _png(figure)


def curves_plot(histories: Sequence[FoldHistory]) -> bytes:
    """Losses and pseudo Dice of the folds of one configuration; one colour a fold."""
    figure = Figure(figsize=(_WIDTH_IN, 3.4), layout="constrained")
    loss_panel, dice_panel = figure.subplots(1, 2)
    for index, history in enumerate(histories):
        colour = _COLOURS[index % len(_COLOURS)]
        epochs = [record["epoch"] + 1 for record in history.epochs]
        marker = "o" if len(epochs) == 1 else None  # a single epoch would be an invisible line
        style = {"color": colour, "marker": marker, "markersize": 3}
        loss_panel.plot(epochs, _series(history, "train_loss"), "-", label=f"fold {history.fold}", **style)
        loss_panel.plot(epochs, _series(history, "val_loss"), ":", **style)
        dice_panel.plot(epochs, _series(history, "mean_fg_dice"), ":", alpha=0.6, **style)
        dice_panel.plot(epochs, _series(history, "ema_fg_dice"), "-", **style)
    _finish(loss_panel, "loss")
    _finish(dice_panel, "pseudo Dice")
    dice_panel.set_ylim(-0.02, 1.02)
    for panel in (loss_panel, dice_panel):
        panel.set_xlabel("epoch")
        panel.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    return _png(figure)


def dice_plot(summaries: Mapping[str, Summary], names: Mapping[LabelKey, str], best: str) -> bytes:
    """Dice of every case: one panel a structure, one row a candidate, the best one in colour.

    Datasets with many structures get one panel of the best candidate, one row a structure.
    """
    keys = summaries[best].keys
    if len(keys) > _MANY_STRUCTURES:
        figure = Figure(figsize=(_WIDTH_IN, 0.8 + 0.26 * len(keys)), layout="constrained")
        panel = figure.subplots()
        _dice_rows(panel, [(names[key], summaries[best], key, True) for key in keys])
        _finish(panel, f"Dice of {best}", grid="x")
        return _png(figure)
    columns = min(2, len(keys))
    lines = math.ceil(len(keys) / columns)
    height = lines * (0.75 + 0.3 * len(summaries))
    figure = Figure(figsize=(_WIDTH_IN, max(height, 1.6)), layout="constrained")
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    for panel, key in zip(panels.flat, keys, strict=False):
        _dice_rows(panel, [(name, summary, key, name == best) for name, summary in summaries.items()])
        _finish(panel, f"Dice of {_short(names[key], 50)}", grid="x")
    for panel in panels.flat[len(keys) :]:
        panel.set_visible(False)
    return _png(figure)


def overlay_plot(
    views: Sequence[NDArray[np.float32]],
    outlines: Sequence[tuple[NDArray[np.bool_], NDArray[np.bool_]]],
    aspect: float,
    window: tuple[float, float] | None = None,
) -> bytes:
    """Views of one slice beside each other, with the outlines of reference (solid) and prediction (dashed).

    Args:
        views: each (rows, columns), grey values, or (rows, columns, 3), colours 0..1.
        outlines: for each view the masks of reference and prediction, (rows, columns).
        aspect: height of a voxel divided by its width.
        window: intensities shown black and white; None: the first view's 1 and 99 percentiles.
    """
    ratios = [view.shape[1] / (view.shape[0] * aspect) for view in views]
    height = float(np.clip(_WIDTH_IN / 3 / sum(ratios) * 1.9, 1.6, 4.5))
    figure = Figure(figsize=(height * sum(ratios) + 0.1 * (len(views) - 1), height))
    panels = figure.subplots(1, len(views), squeeze=False, width_ratios=ratios)[0]
    figure.subplots_adjust(0, 0, 1, 1, wspace=0.03)
    low, high = np.percentile(views[0], [1, 99]) if window is None else window
    for panel, view, masks in zip(panels, views, outlines, strict=True):
        grey = {} if view.ndim == 3 else {"cmap": "gray", "vmin": low, "vmax": max(high, low + 1e-6)}
        panel.imshow(view, aspect=aspect, interpolation="nearest", **grey)
        for mask, colour, style in zip(masks, OUTLINE_COLOURS, ("solid", (0, (2.5, 1.5))), strict=True):
            if mask.any():
                padded = np.pad(mask.astype(float), 1)  # so that a structure at the border has an outline there too
                rows, columns = np.arange(-1, mask.shape[0] + 1), np.arange(-1, mask.shape[1] + 1)
                panel.contour(columns, rows, padded, levels=[0.5], colors=[colour], linewidths=1.5, linestyles=[style])
        panel.set_xlim(-0.5, view.shape[1] - 0.5)
        panel.set_ylim(view.shape[0] - 0.5, -0.5)
        panel.set_axis_off()
    return _png(figure, dpi=110)


OUTLINE_COLOURS = ("#2fd3ff", "#ff9a1f")
"""Reference and prediction: told apart on grey, also by colour-blind readers."""


def _dice_rows(panel: Any, rows: Sequence[tuple[str, Summary, LabelKey, bool]]) -> None:
    for position, (_, summary, key, is_best) in enumerate(rows):
        dice = np.asarray([case.counts[key].dice for case in summary.cases], dtype=float)
        colour = _COLOURS[0] if is_best else "#8a949f"
        _dots(panel, position, dice[~np.isnan(dice)], colour, spread=0.22, swap=True)
        mean = summary.mean[key]["Dice"]
        panel.plot([mean, mean], [position - 0.36, position + 0.36], color=colour, linewidth=2.5)
    panel.set_yticks(range(len(rows)), [_short(name, 44) for name, *_ in rows], fontsize=8.5)
    panel.set_ylim(len(rows) - 0.4, -0.6)
    panel.set_xlim(-0.02, 1.02)


def _series(history: FoldHistory, key: str) -> list[float]:
    values = [record.get(key) for record in history.epochs]
    return [math.nan if value is None else float(value) for value in values]


def _dots(
    panel: Any, position: float, values: NDArray[np.float64], colour: str, spread: float = 0.2, swap: bool = False
) -> None:
    """Values as a line of dots, shifted sideways in a fixed pattern so that they do not hide each other."""
    shifts = ((np.arange(len(values)) * 0.61803) % 1.0 - 0.5) * 2 * spread
    points = (values, position + shifts) if swap else (position + shifts, values)
    size, alpha = (4.5, 0.65) if len(values) <= 200 else (2.5, 0.35)
    panel.plot(*points, "o", color=colour, markersize=size, alpha=alpha, markeredgewidth=0)


def _finish(panel: Any, title: str, grid: str = "y") -> None:
    panel.set_title(title, fontsize=10, loc="left")
    panel.tick_params(labelsize=8.5)
    panel.ticklabel_format(axis=grid, style="plain", useOffset=False)
    panel.grid(axis=grid, alpha=0.25)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)


def _short(name: str, length: int) -> str:
    """A name as matplotlib shall show it: not too long, and never read as a formula."""
    shown = name if len(name) <= length else f"{name[: length - 1]}…"
    return shown.replace("$", r"\$")


def _png(figure: Figure, dpi: int = _DPI) -> bytes:
    figure.set_dpi(dpi)
    stream = io.BytesIO()
    FigureCanvasAgg(figure).print_png(stream, metadata={"Software": None})
    return stream.getvalue()
