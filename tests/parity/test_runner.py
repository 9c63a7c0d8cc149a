"""The table of `make parity`: what counts as worst, what is told only, and what fails."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
from benchmarks.peer import run as runner
from benchmarks.peer.common import largest_difference
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


def test_one_name_is_judged_everywhere_or_nowhere() -> None:
    """The table has one row a name: what is told would replace what is judged."""
    rows = [Row("a", "label voxels", "0", "1e-4", "ok"), Row("b", "label voxels", "15 of 8834", "-", "told")]
    with pytest.raises(ValueError, match="label voxels is judged in some rows and only told in others"):
        list(summarized(Comparison("augmentation", "compare_x"), rows))


@pytest.mark.parametrize(("ending", "count"), [("table.close()", 1), ("raise SystemExit(1)", 0), ("1 / 0", 0)])
def test_a_comparison_that_ends_early_gives_no_rows(
    ending: str, count: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The rows it printed before would stand in the table like all of them."""
    lines = ["from benchmarks.peer.common import Table", "table = Table('x')", "table.row('a: b', 0, 1)", ending]
    (tmp_path / "python").write_text(f"#!{sys.executable}\n" + "\n".join(lines) + "\n")
    (tmp_path / "python").chmod(0o755)
    rows, status = runner.run(Comparison("x", "compare_x"), tmp_path / "python", None)
    assert len(rows) == count and status == (0 if count else 1)
    assert ("ended early, with status 1" in capsys.readouterr().out) == (not count)


def test_what_is_no_number_is_no_agreement() -> None:
    assert largest_difference([1.0, math.nan], [1.0, 2.0]) == largest_difference([1.0], [1.0, 2.0]) == math.inf
    assert largest_difference([1.0, 2.5], [1.0, 2.0]) == 0.5
