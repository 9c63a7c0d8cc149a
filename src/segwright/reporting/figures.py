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

from segwright.evaluation.summary import Summary
from segwright.reporting.results import FoldHistory

_DPI = 110
_COLOURS = (
    "#1f6f8b",
    "#d1495b",
    "#edae49",
    "#66a182",
    "#8d6a9f",
    "#2e4057",
    "#c27c4e",
    "#5b8e7d",
    "#a44a3f",
    "#4f6d7a",
)


def fingerprint_plot(fingerprint: Mapping[str, Any], channel_names: Sequence[str]) -> bytes:
    """Shapes, spacings and foreground intensities of the dataset."""
    shapes = np.asarray(fingerprint["shapes_after_crop"], dtype=float)
    spacings = np.asarray(fingerprint["spacings"], dtype=float)
    intensities = fingerprint["foreground_intensity_properties_per_channel"]
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    shape_axes, spacing_axes, intensity_axes = figure.subplots(1, 3)
    for axis in range(3):
        _dots(shape_axes, axis, shapes[:, axis], _COLOURS[axis])
        _dots(spacing_axes, axis, spacings[:, axis], _COLOURS[axis])
    for axes, title, unit in (
        (shape_axes, "shape after cropping", "voxels"),
        (spacing_axes, "spacing", "mm"),
    ):
        axes.set_xticks(range(3), list("zyx"))
        axes.set_title(title, fontsize=10)
        axes.set_ylabel(unit)
    for index, key in enumerate(sorted(intensities, key=int)):
        statistics = intensities[key]
        low, high = statistics["percentile_00_5"], statistics["percentile_99_5"]
        colour = _COLOURS[index % len(_COLOURS)]
        intensity_axes.plot([index, index], [low, high], color=colour, linewidth=6, alpha=0.4, solid_capstyle="butt")
        intensity_axes.errorbar(
            index, statistics["mean"], yerr=statistics["std"], fmt="o", color=colour, capsize=4, markersize=4
        )
    intensity_axes.set_xticks(range(len(channel_names)), list(channel_names))
    intensity_axes.set_xlim(-0.7, len(channel_names) - 0.3)
    intensity_axes.set_title("foreground intensity: mean ± sd, 0.5 to 99.5 %", fontsize=10)
    return _png(figure)


def curves_plot(histories: Sequence[FoldHistory]) -> bytes:
    """Losses and pseudo Dice of the folds of one configuration."""
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    loss_axes, dice_axes = figure.subplots(1, 2)
    for index, history in enumerate(histories):
        colour = _COLOURS[index % len(_COLOURS)]
        epochs = [record["epoch"] + 1 for record in history.epochs]
        for key, style in (("train_loss", "-"), ("val_loss", ":")):
            loss_axes.plot(epochs, _series(history, key), style, color=colour, label=f"fold {history.fold} {key[:5]}")
        dice_axes.plot(epochs, _series(history, "mean_fg_dice"), ":", color=colour, alpha=0.7)
        dice_axes.plot(epochs, _series(history, "ema_fg_dice"), "-", color=colour, label=f"fold {history.fold}")
    loss_axes.set_title("loss: training (line), validation patches (dotted)", fontsize=10)
    dice_axes.set_title("pseudo Dice of validation patches: moving average (line), epoch (dotted)", fontsize=10)
    dice_axes.set_ylim(-0.02, 1.02)
    for axes in (loss_axes, dice_axes):
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.25)
    dice_axes.legend(fontsize=8, loc="lower right")
    return _png(figure)


def dice_plot(summaries: Mapping[str, Summary], names: Mapping[Any, str]) -> bytes:
    """Dice of every case by structure, one colour a candidate; the bar is the mean."""
    keys = next(iter(summaries.values())).keys
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(summaries)
    for index, (candidate, summary) in enumerate(summaries.items()):
        colour = _COLOURS[index % len(_COLOURS)]
        for position, key in enumerate(keys):
            dice = np.asarray([case.counts[key].dice for case in summary.cases], dtype=float)
            x = position - 0.4 + width * (index + 0.5)
            _dots(axes, x, dice[~np.isnan(dice)], colour, spread=width * 0.35)
            mean = summary.mean[key]["Dice"]
            label = candidate if position == 0 else None
            axes.plot([x - width * 0.4, x + width * 0.4], [mean, mean], color=colour, linewidth=2.5, label=label)
    axes.set_xticks(range(len(keys)), [names[key] for key in keys])
    axes.set_ylim(-0.02, 1.02)
    axes.set_ylabel("Dice")
    axes.grid(axis="y", alpha=0.25)
    axes.legend(fontsize=8, loc="lower right", ncols=min(len(summaries), 4))
    return _png(figure)


def overlay_plot(
    slice_yx: NDArray[np.float32], reference_yx: NDArray[np.bool_], prediction_yx: NDArray[np.bool_], aspect: float
) -> bytes:
    """A slice with the outlines of reference (solid) and prediction (dashed)."""
    low, high = np.percentile(slice_yx, [1, 99])
    height = float(np.clip(4.2 * slice_yx.shape[0] * aspect / max(slice_yx.shape[1], 1), 1.5, 6.0))
    figure = Figure(figsize=(4.2, height), layout="constrained")
    axes = figure.subplots()
    axes.imshow(slice_yx, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), aspect=aspect, interpolation="nearest")
    for mask, colour, style in ((reference_yx, "#3ddc84", "solid"), (prediction_yx, "#ff5a5f", "dashed")):
        if mask.any() and not mask.all():
            axes.contour(mask.astype(float), levels=[0.5], colors=[colour], linewidths=1.4, linestyles=style)
    axes.set_axis_off()
    return _png(figure)


def _series(history: FoldHistory, key: str) -> list[float]:
    values = [record.get(key) for record in history.epochs]
    return [math.nan if value is None else float(value) for value in values]


def _dots(axes: Any, x: float, values: NDArray[np.float64], colour: str, spread: float = 0.18) -> None:
    """Values as a column of dots, shifted sideways in a fixed pattern so that they do not hide each other."""
    shifts = ((np.arange(len(values)) * 0.61803) % 1.0 - 0.5) * 2 * spread
    axes.plot(x + shifts, values, "o", color=colour, markersize=3, alpha=0.6, markeredgewidth=0)


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    FigureCanvasAgg(figure).print_png(stream, metadata={"Software": None})
    return stream.getvalue()
