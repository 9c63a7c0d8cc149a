"""What happened in each epoch: ``training.jsonl`` for programs, ``progress.png`` for people (method 9.3, 9.5)."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from segwright.core.files import atomic_path, write_text

JSONL_FILE, FIGURE_FILE = "training.jsonl", "progress.png"
_DRAWING_SHARE = 0.05  # at most this share of the time goes into redrawing the figure


@dataclass(frozen=True)
class EpochRecord:
    """One epoch. Losses may be negative (Dice); Dice values are NaN where nothing could be measured.

    Attributes:
        epoch: 0-based.
        attempt: number of the attempt that ran it; an epoch repeated after a kill carries the later one.
        duration_s, data_wait_s: wall time of the epoch, and the part of it spent waiting for batches.
        remaining_s: what the epochs to come will probably take.
    """

    epoch: int
    attempt: int
    learning_rate: float
    train_loss: float
    val_loss: float
    dice_per_class: tuple[float, ...]
    mean_fg_dice: float
    ema_fg_dice: float
    duration_s: float
    data_wait_s: float
    remaining_s: float

    def to_json(self) -> dict[str, Any]:
        """Plain values; NaN becomes null, which JSON knows."""
        return {name: _null_for_nan(value) for name, value in asdict(self).items()}

    @staticmethod
    def from_json(record: dict[str, Any]) -> EpochRecord:
        numbers: dict[str, Any] = {name: float("nan") if value is None else value for name, value in record.items()}
        dice = tuple(float("nan") if value is None else float(value) for value in record["dice_per_class"])
        return EpochRecord(**{**numbers, "dice_per_class": dice})


class History:
    """All epochs so far, and their files in ``folder``."""

    def __init__(self, folder: Path, records: Sequence[EpochRecord] = ()) -> None:
        self.folder = folder
        self.records = list(records)
        self._drawn_s = 0.0
        self._last_drawing = -math.inf

    def rewrite(self) -> None:
        """Make ``training.jsonl`` what the state says: lines of epochs that were lost disappear, torn lines too."""
        text = "".join(_line(record) for record in self.records)
        if text or (self.folder / JSONL_FILE).exists():
            write_text(self.folder / JSONL_FILE, text)

    def add(self, record: EpochRecord) -> None:
        self.records.append(record)

    def append_lines(self, since: int) -> None:
        """Append the lines of all epochs from ``since`` on; called once their state is on disk."""
        with (self.folder / JSONL_FILE).open("a", encoding="utf-8") as stream:
            stream.writelines(_line(record) for record in self.records[since:])

    def draw(self, *, always: bool = False) -> None:
        """Redraw ``progress.png``, unless epochs are so short that drawing would slow the training."""
        started = time.monotonic()
        if not always and (started - self._last_drawing) * _DRAWING_SHARE < self._drawn_s:
            return
        draw_progress(self.folder / FIGURE_FILE, self.records)
        self._last_drawing = time.monotonic()
        self._drawn_s = self._last_drawing - started

    @property
    def best_epoch(self) -> int | None:
        """Epoch of the highest moving average of the pseudo Dice; the first one among equals."""
        best: EpochRecord | None = None
        for record in self.records:
            if best is None or math.isnan(best.ema_fg_dice) or record.ema_fg_dice > best.ema_fg_dice:
                best = record
        return None if best is None else best.epoch

    def mean_duration_s(self, count: int = 10) -> float | None:
        """Mean of the last ``count`` epochs; None before the first one."""
        recent = [record.duration_s for record in self.records[-count:]]
        return sum(recent) / len(recent) if recent else None

    def longest_duration_s(self, count: int = 5) -> float | None:
        """Longest of the last ``count`` epochs; None before the first one."""
        recent = [record.duration_s for record in self.records[-count:]]
        return max(recent) if recent else None


def draw_progress(path: Path, records: Sequence[EpochRecord]) -> None:
    """Three panels: losses and pseudo Dice, epoch duration, learning rate."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # late: half a second, only trainings need it
    from matplotlib.figure import Figure

    epochs = [record.epoch + 1 for record in records]
    figure = Figure(figsize=(9, 11), layout="constrained")
    FigureCanvasAgg(figure)
    losses, durations, rates = figure.subplots(3, 1, sharex=True)
    losses.plot(epochs, [r.train_loss for r in records], color="tab:blue", label="training loss")
    losses.plot(epochs, [r.val_loss for r in records], color="tab:red", label="validation loss")
    losses.set_ylabel("loss")
    dice = losses.twinx()
    dice.plot(epochs, [r.mean_fg_dice for r in records], color="tab:green", ls=":", label="pseudo Dice")
    dice.plot(epochs, [r.ema_fg_dice for r in records], color="tab:green", label="pseudo Dice, moving average")
    dice.set_ylabel("pseudo Dice")
    dice.set_ylim(0, 1)
    handles = [*losses.get_lines(), *dice.get_lines()]
    losses.legend(handles, [str(line.get_label()) for line in handles], loc="best", fontsize="small")
    durations.plot(epochs, [r.duration_s for r in records], color="tab:blue", label="epoch")
    durations.plot(epochs, [r.data_wait_s for r in records], color="tab:orange", label="of it waiting for data")
    durations.set_ylabel("duration [s]")
    durations.set_ylim(bottom=0)
    durations.legend(loc="best", fontsize="small")
    rates.plot(epochs, [r.learning_rate for r in records], color="tab:blue")
    rates.set_ylabel("learning rate")
    rates.set_xlabel("epoch")
    for panel in (losses, durations, rates):
        panel.grid(alpha=0.3)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=100, metadata={"Software": None})


def duration_text(seconds: float) -> str:
    """``2 d 3 h``, ``1 h 20 min``, ``3 min 5 s`` or ``12 s``."""
    whole = round(seconds)
    days, hours, minutes = whole // 86400, whole % 86400 // 3600, whole % 3600 // 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def _line(record: EpochRecord) -> str:
    return json.dumps(record.to_json(), sort_keys=True) + "\n"


def _null_for_nan(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_null_for_nan(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
