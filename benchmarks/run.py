"""Every stage of nnU-Net v2 and of segwright in turn on the same inputs, a row a stage in benchmarks/results/speed.md.

    python -m benchmarks.run --peer .venv-peer [--pairs N] [--only WORD ...] [--list]

What is measured and what the columns mean stands in benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.pairs import COLUMNS, LEAST_PAIRS, Pair, Place, measured_row, table

MODULES = (
    "benchmarks.stages.inspection",
    "benchmarks.stages.planning",
    "benchmarks.stages.resampling",
    "benchmarks.stages.preprocessing",
    "benchmarks.stages.loading",
    "benchmarks.stages.training",
    "benchmarks.stages.precision",
    "benchmarks.stages.prediction",
    "benchmarks.stages.export",
    "benchmarks.stages.evaluation",
    "benchmarks.stages.dry_run",
    "benchmarks.stages.workflow",
    "benchmarks.stages.equal_time",
)
"""Each has STAGES, a tuple of names, and ``pair(stage, place)``, which makes the inputs and gives the pair (or None
where the images are missing), or ``row(stage, place)``, which measures in its own way and gives the finished row."""
_NOT_PRINTED = ("date", "machine", "versions")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--peer", type=Path, default=Path(".venv-peer"), help="environment of nnunetv2, or its python")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of real images")
    parser.add_argument("--pairs", type=int, default=LEAST_PAIRS, help=f"runs of each side (default {LEAST_PAIRS})")
    parser.add_argument(
        "--only", nargs="+", default=[""], metavar="WORD", help="only stages whose names hold one of these"
    )
    parser.add_argument("--lock", type=Path, help="file whose lock is held while a stage is measured")
    parser.add_argument("--list", action="store_true", help="print the names of the stages")
    parser.add_argument("--dry", action="store_true", help="print the rows, leave the table as it is")
    options = parser.parse_args()
    chosen = [(module, stage) for module, stage in stages() if any(word in stage for word in options.only)]
    if options.list:
        print("\n".join(stage for _, stage in chosen))
        return
    peer = options.peer / "bin" / "python" if options.peer.is_dir() else options.peer
    if not peer.is_file():
        raise SystemExit(f"{peer} is missing; install the peer: benchmarks/peer/install.sh .venv-peer")
    for module, stage in chosen:
        with tempfile.TemporaryDirectory(prefix="segwright-bench-") as folder:
            place = Place(
                Path(folder), options.data.resolve(), peer.absolute(), Path(sys.executable), options.lock,
                options.pairs,
            )  # fmt: skip
            row = row_of_stage(module, stage, place)
        if row is None:
            print(f"{stage}: not measured, its images are missing in {options.data}", flush=True)
            continue
        if not options.dry:
            table().put(row)
        print("; ".join(f"{name}: {row[name]}" for name in COLUMNS if name not in _NOT_PRINTED), flush=True)


def stages() -> Iterator[tuple[str, str]]:
    """(module, stage) of everything that can be measured, in order."""
    for name in MODULES:
        for stage in importlib.import_module(name).STAGES:
            yield name, stage


def row_of_stage(module: str, stage: str, place: Place) -> dict[str, str] | None:
    found = importlib.import_module(module)
    if hasattr(found, "row"):
        return found.row(stage, place)
    pair: Pair | None = found.pair(stage, place)
    return None if pair is None else measured_row(pair, place)


if __name__ == "__main__":
    main()
