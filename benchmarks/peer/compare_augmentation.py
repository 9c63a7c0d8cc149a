"""Augmentation: every transform on given parameters, and the distributions of all random draws (method 6).

    python -m benchmarks.peer.compare_augmentation [--draws N] [--samples N]

Means, squares and products of what is drawn are compared in standard errors of their difference. Among hundreds of
numbers a few lie beyond 3 by chance: those draws are repeated once with four times as many from other seeds, and only
the second result counts.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import numpy as np
import torch
from tests.parity.draws import PIPELINES, draws, our_moments, our_pipeline
from tests.parity.twins import scene, twins

from benchmarks.peer.common import SEED, Table, largest_difference, quiet, workplace
from benchmarks.peer.peer_draws import peer_draws, peer_moments, peer_pipeline
from benchmarks.peer.peer_twins import peer_twins

SHAPES = ((6, 12, 9), (15, 12, 18), (9, 21, 27))
TIED_SHAPES = ((14, 12, 17), (9, 21, 26), (20, 20, 20))
"""Windows in which a zoom without rotation samples half-way between voxels: an odd patch in an even window."""
TWIN_TOLERANCE, ERRORS_ALLOWED = 1e-4, 3.0
AGAIN = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--draws", type=int, default=20_000, help="of every transform (default 20000)")
    parser.add_argument("--samples", type=int, default=4000, help="of every pipeline (default 4000)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = Table("Augmentation")
    with workplace(), quiet():
        theirs, peers_draws = peer_twins(), peer_draws()
        pipelines = {name: peer_pipeline(case) for name, case in PIPELINES.items()}
    for name, ours in twins().items():
        with quiet():
            worst, voxels, points = compare_twin(ours, theirs[name], SHAPES)
        table.row(f"{name}: arrays on given parameters", worst, TWIN_TOLERANCE)
        if points:
            table.row(f"{name}: label voxels on given parameters", voxels / points, TWIN_TOLERANCE, " of all")
    tied = "spatial zoomed out beyond the window"
    _, voxels, points = compare_twin(twins()[tied], theirs[tied], TIED_SHAPES)
    table.report(f"{tied}: label voxels half-way between voxels", f"{voxels} of {points}")
    for name, draw in draws().items():
        compare_moments(name, draw, peers_draws[name], options.draws, "draws", table)
    for name, case in PIPELINES.items():
        compare_moments(f"pipeline {name}", our_pipeline(case), pipelines[name], options.samples, "samples", table)
    table.close()


def compare_twin(ours: Callable, theirs: Callable, shapes: Sequence[tuple[int, int, int]]) -> tuple[float, int, int]:
    """Largest difference of an image or of channels; label voxels that differ, of how many."""
    worst, voxels, points = 0.0, 0, 0
    for shape in shapes:
        image, labels = scene(shape)
        for mine, other in zip(ours(image, labels), theirs(image, labels), strict=True):
            if mine.shape == other.shape and np.issubdtype(mine.dtype, np.integer):
                voxels += int(np.count_nonzero(mine != other))
                points += mine.size
            else:
                worst = max(worst, largest_difference(mine, other))
    return worst, voxels, points


def compare_moments(name: str, ours: Callable, theirs: Callable, count: int, unit: str, table: Table) -> None:
    """The worst of all numbers, or of those that lay beyond the limit when they are drawn again."""

    def distances(times: int, shift: int) -> np.ndarray:
        mine = our_moments(ours, times * count, SEED + shift)
        return mine.standard_errors(peer_moments(theirs, times * count, SEED + shift + 1))

    errors = distances(1, 0)
    beyond = errors > ERRORS_ALLOWED
    note = f"{count} {unit}, {errors.size} numbers"
    if beyond.any():
        table.report(f"{name}, {note}: beyond the limit at first", f"{beyond.sum()}, worst {errors.max():.2f}")
        errors = distances(AGAIN, 1000)[beyond]
        note = f"{AGAIN * count} {unit}, {errors.size} numbers again"
    table.row(f"{name}, {note}: moments and firing rates", float(errors.max()), ERRORS_ALLOWED, " standard errors")


if __name__ == "__main__":
    main()
