"""Run the comparisons with nnU-Net v2 and write the table of results.

    python -m benchmarks.peer.run --peer VENV [--data DIR] [--only WORD]

Every comparison runs by the peer's interpreter in a process of its own. Its rows ``where: what`` are summed up, the
worst of each ``what``, in benchmarks/results/parity.md; with --only, rows of other comparisons stay. A comparison that
ends early writes no rows: those it printed would look like all of them. Exit status 1 if a row exceeds its tolerance or
a comparison ended early.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.machine import versions_text
from benchmarks.peer.common import END
from benchmarks.table import MarkdownTable

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "parity.md"
COLUMNS = ("what", "how", "tolerance", "measured", "holds", "date", "versions")
HEAD = """
# The same numbers as nnU-Net v2

Written by `make parity`: segwright and the public nnU-Net v2 on the same inputs. *Measured* is the worst of all rows of
that kind, and where that was. Rows without a tolerance are told only. What differs on purpose, and why, stands in
[differences.md](../../docs/explanation/differences.md).
"""
PACKAGES = ("nnunetv2", "batchgenerators", "batchgeneratorsv2", "dynamic-network-architectures", "torch")
TOLD = "-"


@dataclass(frozen=True)
class Comparison:
    """A script of this folder.

    Attributes:
        what: row of the table it fills.
        data: "": it needs no real images; "optional": more with them; "needed": none without.
    """

    what: str
    script: str
    data: str = ""
    arguments: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return " ".join([self.script, *self.arguments])


COMPARISONS = (
    Comparison("readers", "compare_images"),
    Comparison("plans", "compare_planning"),
    Comparison("fingerprint", "compare_fingerprint", "optional"),
    Comparison("stored cases", "compare_preprocessing", "needed"),
    Comparison("network", "compare_networks"),
    Comparison("loss and training step", "compare_training"),
    Comparison("batches", "compare_batches"),
    Comparison("augmentation", "compare_augmentation"),
    Comparison("prediction, phantoms", "compare_prediction"),
    *(
        Comparison(f"prediction, {name}", "compare_trained", "needed", ("--only", name))
        for name in ("Hippocampus 2d", "Hippocampus 3d", "Hippocampus residual", "Hippocampus cascade", "PET/CT",
                     "nuclei", "BraTS")
    ),
    Comparison("metrics, selection, ensembles, postprocessing", "compare_evaluation"),
    Comparison("models in and out", "compare_models", "optional"),
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A row a script printed; ``allowed`` is ``-`` where a figure is told only."""

    where: str
    what: str
    measured: str
    allowed: str
    verdict: str

    @property
    def size(self) -> float:
        """The first number of the measured text."""
        found = re.match(r"[-+0-9.einfa]+", self.measured)
        return float(found[0]) if found else float("inf")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--peer", type=Path, required=True, help="environment of nnU-Net v2 (install.sh)")
    parser.add_argument("--data", type=Path, help="folder of real images; without it phantoms only")
    parser.add_argument("--only", default="", metavar="WORD", help="comparisons whose name holds this")
    options = parser.parse_args()
    python = options.peer.absolute() / "bin" / "python"
    if not options.only:
        RESULTS.unlink(missing_ok=True)
    table = MarkdownTable(RESULTS, HEAD, COLUMNS, key="what")
    versions, failed = f"{versions_text(())}; {peer_versions(python)}", []
    for comparison in COMPARISONS:
        if options.only not in f"{comparison.what} {comparison.name}":
            continue
        if comparison.data == "needed" and options.data is None:
            print(f"{comparison.name} needs real images: name their folder with --data")
            continue
        rows, status = run(comparison, python, options.data)
        for row in summarized(comparison, rows):
            table.put({**row, "date": datetime.now(UTC).strftime("%Y-%m-%d"), "versions": versions})
        if status or not rows or any(row.verdict == "**differs**" for row in rows):
            failed.append(comparison.name)
    raise SystemExit(f"differences or errors in: {', '.join(failed)}" if failed else 0)


def peer_versions(python: Path) -> str:
    code = f"import importlib.metadata as m; print(', '.join(f'{{n}} {{m.version(n)}}' for n in {PACKAGES}))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def run(comparison: Comparison, python: Path, data: Path | None) -> tuple[list[Row], int]:
    """Run a script and show what it prints; returns its rows, none if it ended early, and its exit status."""
    real = [str(data.absolute())] if data is not None and comparison.data else []
    command = [str(python), "-m", f"benchmarks.peer.{comparison.script}", *real, *comparison.arguments]
    print("\n$", " ".join(command[1:]), flush=True)
    path = f"{ROOT / 'src'}{os.pathsep}{ROOT}"
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    if not finished(lines):
        print(f"{comparison.name} ended early, with status {process.returncode}; its rows in the table stay")
        return [], process.returncode
    return [row for line in lines for row in rows_of(line)], process.returncode


def finished(lines: Sequence[str]) -> bool:
    """Whether a script printed all its rows."""
    return any(line.strip() == END for line in lines)


def rows_of(line: str) -> list[Row]:
    """The row a line of output holds, if it is one."""
    cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
    if not line.startswith("| ") or len(cells) != 4 or cells[0] == "compared":
        return []
    where, _, what = cells[0].rpartition(": ")
    return [Row(where, what, *cells[1:])]


def summarized(comparison: Comparison, rows: list[Row]) -> Iterator[dict[str, str]]:
    """One row for each kind of row: the worst. What is judged and told under one name would be one row of the table."""
    for what in dict.fromkeys(row.what for row in rows):
        group = [row for row in rows if row.what == what]
        told = group[0].allowed == TOLD
        if any((row.allowed == TOLD) != told for row in group):
            raise ValueError(f"{comparison.name}: {what} is judged in some rows and only told in others")
        worst = max(group, key=lambda row: (row.verdict == "**differs**", row.size))
        text = worst.measured + (f" ({worst.where})" if worst.where and (worst.size or told) else "")
        count = f"{len(group)} comparison{'s' * (len(group) > 1)}"
        yield {
            "what": f"{comparison.what}: {what}",
            "how": f"`{comparison.name}`, {count}",
            "tolerance": worst.allowed,
            "measured": text,
            "holds": TOLD if told else "yes" if worst.verdict == "ok" else "**no**",
        }


if __name__ == "__main__":
    main()
