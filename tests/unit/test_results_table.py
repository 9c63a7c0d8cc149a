"""The tables of benchmarks/results: rows are replaced one by one and survive what may stand in a cell."""

from __future__ import annotations

from pathlib import Path

from benchmarks.table import MarkdownTable


def table(path: Path) -> MarkdownTable:
    return MarkdownTable(path, "# Results", ("check", "result"), key="check")


def test_rows_are_replaced_and_sorted_naturally(tmp_path: Path) -> None:
    results = table(tmp_path / "results.md")
    for check, result in (("10 last", "a"), ("2 first", "b"), ("10 last", "c")):
        results.put({"check": check, "result": result})
    assert list(results.rows().values()) == [
        {"check": "2 first", "result": "b"},
        {"check": "10 last", "result": "c"},
    ]
    assert results.path.read_text() == (
        "# Results\n\n| check | result |\n| --- | --- |\n| 2 first | b |\n| 10 last | c |\n"
    )


def test_bars_and_line_breaks_stay_in_their_cell(tmp_path: Path) -> None:
    results = table(tmp_path / "results.md")
    results.put({"check": "1", "result": "a|b\nc"})
    results.put({"check": "2", "result": ""})
    results.put({"check": "3", "result": "d"})
    assert [row["result"] for row in results.rows().values()] == ["a\\|b<br>c", "", "d"]
