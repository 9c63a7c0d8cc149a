"""A table in a Markdown file whose rows are replaced one by one, so that repeating one measurement keeps the others."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from segwright.core.files import write_text


class MarkdownTable:
    """Rows by key (the text of one column), in the natural order of their keys.

    Args:
        head: what stands above the table.
        columns: names of the columns.
        key: the column whose text a row is known by.
    """

    def __init__(self, path: Path, head: str, columns: Sequence[str], key: str) -> None:
        self.path, self.head, self.columns, self.key = path, head, tuple(columns), key

    def put(self, row: Mapping[str, str]) -> None:
        """Add a row, or replace the one with the same key, and write the file."""
        rows = self.rows()
        rows[row[self.key]] = {name: escaped(row[name]) for name in self.columns}
        lines = [_line(self.columns), _line(["---"] * len(self.columns))]
        lines += [_line([rows[key][name] for name in self.columns]) for key in sorted(rows, key=_natural)]
        write_text(self.path, f"{self.head.strip()}\n\n" + "\n".join(lines) + "\n")

    def rows(self) -> dict[str, dict[str, str]]:
        """The rows of the file as they stand there; none if its columns are others."""
        if not self.path.is_file():
            return {}
        cells = [_cells(line) for line in self.path.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
        if not cells or tuple(cells[0]) != self.columns:
            return {}
        rows = [dict(zip(self.columns, row, strict=True)) for row in cells[2:]]
        return {row[self.key]: row for row in rows}


def escaped(text: str) -> str:
    """Text that may stand in a cell."""
    return "<br>".join(text.strip().replace("\\|", "|").replace("|", "\\|").splitlines())


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def _natural(text: str) -> list[tuple[int, str]]:
    """Sorts ``2 b`` before ``10 a``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)]
