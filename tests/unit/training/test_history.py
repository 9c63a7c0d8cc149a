"""training.jsonl and progress.png."""

from __future__ import annotations

import json
import math
from pathlib import Path

import matplotlib.image
import pytest

from segwright.training.history import EpochRecord, History, draw_progress


def record(epoch: int, ema: float = 0.5, dice: tuple[float, ...] = (0.5, float("nan"))) -> EpochRecord:
    return EpochRecord(epoch, 1, 0.01, -0.2, float("nan"), dice, 0.5, ema, 2.0, 0.1, 60.0)


def test_records_survive_json_with_nan() -> None:
    text = json.dumps(record(3).to_json(), allow_nan=False)
    back = EpochRecord.from_json(json.loads(text))
    assert back.epoch == 3 and back.dice_per_class[0] == 0.5
    assert math.isnan(back.dice_per_class[1]) and math.isnan(back.val_loss)


def test_rewriting_drops_lost_epochs_and_torn_lines(tmp_path: Path) -> None:
    path = tmp_path / "training.jsonl"
    path.write_text('{"epoch": 0}\n{"epoch": 1}\n{"epo')
    history = History(tmp_path, [record(0)])
    history.rewrite()
    history.add(record(1))
    history.add(record(2))
    history.append_lines(1)
    assert [json.loads(line)["epoch"] for line in path.read_text().splitlines()] == [0, 1, 2]


@pytest.mark.parametrize(
    ("values", "best"), [((0.1, 0.3, 0.3, 0.2), 1), ((float("nan"), 0.1, float("nan")), 1), ((float("nan"),), 0)]
)
def test_best_epoch(values: tuple[float, ...], best: int) -> None:
    assert History(Path(), [record(i, ema) for i, ema in enumerate(values)]).best_epoch == best
    assert History(Path()).best_epoch is None


def test_figure_has_three_panels_and_equal_bytes(tmp_path: Path) -> None:
    records = [record(i, 0.1 * i) for i in range(5)]
    for name in ("a.png", "b.png"):
        draw_progress(tmp_path / name, records)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert matplotlib.image.imread(tmp_path / "a.png").shape[:2] == (1100, 900)


def test_drawing_takes_a_small_share_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    drawn: list[float] = []

    def draw(path: Path, records: object) -> None:
        drawn.append(now[0])
        now[0] += 1.0

    monkeypatch.setattr("segwright.training.history.time.monotonic", lambda: now[0])
    monkeypatch.setattr("segwright.training.history.draw_progress", draw)
    history = History(tmp_path)
    for _ in range(50):
        history.draw()
        now[0] += 1.0
    assert drawn == [100.0, 121.0, 142.0]  # one second in twenty
    history.draw(always=True)
    assert len(drawn) == 4
