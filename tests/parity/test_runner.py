"""The table of `make parity`: what counts as worst, what is told only, and what fails."""

from __future__ import annotations

from benchmarks.peer.run import Comparison, Row, rows_of, summarized

OUTPUT = """
### Prediction

| compared | measured | allowed | |
|---|---|---|---|
| a, 1 fold: 1 - Dice | 3e-05 | 0.0001 | ok |
| b, 2 folds: 1 - Dice | 0 | 0.0001 | ok |
| b, 2 folds: statistic | inf x | 3 x | **differs** |
| a, 1 fold: statistic | 2.5 x | 3 x | ok |
| b: float16 sums | 0.0015 of all | - | told |
"""


def test_rows_are_read_and_summed_up() -> None:
    rows = [row for line in OUTPUT.splitlines() for row in rows_of(line)]
    assert rows[0] == Row("a, 1 fold", "1 - Dice", "3e-05", "0.0001", "ok") and len(rows) == 5
    found = list(summarized(Comparison("prediction", "compare_x"), rows))
    assert [(row["what"], row["measured"], row["tolerance"], row["holds"]) for row in found] == [
        ("prediction: 1 - Dice", "3e-05 (a, 1 fold)", "0.0001", "yes"),
        ("prediction: statistic", "inf x (b, 2 folds)", "3 x", "**no**"),
        ("prediction: float16 sums", "0.0015 of all (b)", "-", "-"),
    ]
    assert found[0]["how"] == "`compare_x`, 2 comparisons"
