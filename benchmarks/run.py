"""CPU seconds of segwright's functions against the obvious library functions, in pairs on the same arrays.

    python -m benchmarks.run [--pairs N] [--only WORD]

One thread each, alternating which one goes first; medians. Results go to benchmarks/results/speed.md, one row a
measurement. What the columns mean stands in benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter
from tests.unit.training.stored import make_cases, make_plan, write_store
from threadpoolctl import threadpool_limits

from benchmarks import peers
from benchmarks.machine import machine_text, versions_text
from benchmarks.table import MarkdownTable
from segwright.core.dataset import Labels
from segwright.core.plans import RESAMPLE_IMAGE, RESAMPLE_LABEL, RESAMPLE_LOGITS
from segwright.core.settings import TrainingSettings
from segwright.evaluation.metrics import case_metrics
from segwright.inference.interpolation import resampling_axes, winning_labels
from segwright.preprocessing.resampling import resample_image, resample_label
from segwright.preprocessing.store import PreprocessedStore
from segwright.training.augmentation.ranges import spatial_ranges
from segwright.training.loader import BatchSource

RESULTS = Path(__file__).parent / "results" / "speed.md"
_PACKAGES = ("numpy", "scipy", "scikit-image", "batchgenerators")
_COLUMNS = ("date", "what", "segwright", "against", "its time", "times faster", "difference", "machine", "versions")
_BLOBS_VOXELS = 10
_HEAD = """
# Speed

Written by `make bench`; what the columns mean stands in [the README](../README.md).
"""


@dataclass(frozen=True)
class Pair:
    """Two functions that should give the same.

    Attributes:
        difference: how far their results are apart, in words.
        per_run: how many units one call makes, and their name; empty: the call itself is the unit.
    """

    what: str
    ours: Callable[[], Any]
    against: str
    theirs: Callable[[], Any]
    difference: Callable[[Any, Any], str]
    per_run: tuple[int, str] = (1, "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=7, help="runs of each function (default 7, at least 5)")
    parser.add_argument("--only", default="", metavar="WORD", help="only measurements whose name holds this")
    options = parser.parse_args()
    table = MarkdownTable(RESULTS, _HEAD, _COLUMNS, key="what")
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(1):
        for pair in pairs(Path(folder)):
            if options.only in pair.what:
                row = measure(pair, max(5, options.pairs))
                table.put(row)
                print(f"{row['what']}: {row['segwright']}; {row['against']}: {row['its time']}; {row['difference']}")


def measure(pair: Pair, repeats: int) -> dict[str, str]:
    """One row: medians over ``repeats`` pairs, after a first call of each that is not counted."""
    difference = pair.difference(pair.ours(), pair.theirs())
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    for repeat in range(repeats):
        order = ("ours", "theirs") if repeat % 2 else ("theirs", "ours")
        for side in order:
            seconds[side].append(_cpu_seconds(getattr(pair, side)))
    ratios = [theirs / ours for ours, theirs in zip(seconds["ours"], seconds["theirs"], strict=True)]
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "what": pair.what,
        "segwright": _time_text(median(seconds["ours"]), pair.per_run),
        "against": pair.against,
        "its time": _time_text(median(seconds["theirs"]), pair.per_run),
        "times faster": f"{median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})",
        "difference": difference,
        "machine": machine_text(),
        "versions": versions_text(_PACKAGES),
    }


def pairs(folder: Path) -> Iterator[Pair]:
    """All measurements, in the order of the stages. Arrays are made only when their turn comes."""
    yield from resampling_pairs()
    yield label_pair()
    yield loading_pair(folder)
    yield export_pair()
    yield metrics_pair()


def resampling_pairs() -> Iterator[Pair]:
    volume, shape = smooth_volume((96, 120, 104)), (154, 144, 166)
    spacing, target = (1.6, 1.2, 1.6), (1.0, 1.0, 1.0)
    ours = partial(resample_image, volume[None], shape, spacing, target, RESAMPLE_IMAGE)
    what = f"resampling, cubic 3-D, {_by(volume.shape)} to {_by(shape)}"
    yield Pair(f"{what}, scipy", ours, "scipy.ndimage.zoom", partial(peers.zoom_cubic, volume, shape), largest)
    yield Pair(
        f"{what}, skimage", ours, "skimage.transform.resize", partial(peers.resize_cubic, volume, shape), largest
    )
    thick, shape = smooth_volume((40, 160, 160)), (67, 229, 229)
    spacing, target = (5.0, 1.0, 1.0), (3.0, 0.7, 0.7)
    yield Pair(
        f"resampling, separate z, {_by(thick.shape)} to {_by(shape)}",
        partial(resample_image, thick[None], shape, spacing, target, RESAMPLE_IMAGE),
        "skimage slice by slice, map_coordinates along z",
        partial(peers.resize_slices_then_z, thick, shape),
        largest,
    )


def label_pair() -> Pair:
    label, shape = label_map((96, 120, 104), 7), (154, 144, 166)
    return Pair(
        f"resampling, labels, 7 labels, {_by(label.shape)} to {_by(shape)}",
        partial(resample_label, label, shape, (1.6, 1.2, 1.6), (1.0, 1.0, 1.0), RESAMPLE_LABEL),
        "batchgenerators resize_segmentation",
        partial(peers.resize_labels, label, shape),
        share_of_voxels,
    )


def loading_pair(folder: Path) -> Pair:
    """Both sides read from the same stored cases; the parameters are drawn anew each time, so results differ."""
    patch, batches, batch_size = (40, 56, 40), 30, 2
    index = write_store(folder, make_cases(8, (96, 112, 96)))
    store = PreprocessedStore(index)
    settings = TrainingSettings().resolved()
    source = BatchSource(
        index=index, case_ids=store.case_ids, plan=make_plan(patch, batch_size=batch_size), settings=settings,
        training=True,
    )  # fmt: skip
    transforms, edges = peers.augmenter(patch), spatial_ranges(patch).loader_patch_size
    cases = [store.open(case_id) for case_id in store.case_ids]

    def ours() -> int:
        return sum(len(source.make(0, step).images) for step in range(batches))

    def theirs() -> int:
        rng, made = np.random.default_rng(0), 0
        np.random.seed(0)
        for _ in range(batches * batch_size):
            image_czyx, label_czyx = peers.load_window(cases[int(rng.integers(len(cases)))], edges, rng)
            made += len(transforms(data=image_czyx[None], seg=label_czyx[None].astype(np.float32))["data"])
        return made

    what = f"load and augment, one patch {_by(patch)}"
    return Pair(what, ours, "batchgenerators' transforms", theirs, other_draws, (batches * batch_size, "patches"))


def export_pair() -> Pair:
    """Logits to a label map on the original grid; segwright interpolates only where the winner changes."""
    logits = np.stack([10 * smooth_volume((80, 96, 80), seed, _BLOBS_VOXELS) for seed in range(7)])
    shape = (136, 164, 136)
    spacing, target = (1.7, 1.7, 1.7), (1.0, 1.0, 1.0)

    def ours() -> np.ndarray:
        axes = resampling_axes(logits.shape[1:], shape, spacing, target, RESAMPLE_LOGITS)
        return winning_labels(logits, axes, "uint8")

    return Pair(
        f"export, 7 classes, {_by(logits.shape[1:])} to {_by(shape)}",
        ours,
        "skimage resize of every class in float32, arg-max",
        partial(peers.argmax_of_resized, logits, shape),
        share_of_voxels,
    )


def metrics_pair() -> Pair:
    shape, count = (160, 192, 160), 7
    reference, prediction = label_map(shape, count), np.roll(label_map(shape, count), 2, axis=1)
    labels = Labels(tuple((f"label_{value}", value) for value in range(count)))
    return Pair(
        f"metrics, 6 labels, {_by(shape)}",
        lambda: [(c.tp, c.fp, c.fn, c.tn) for c in case_metrics(reference, prediction, labels).values()],
        "numpy, mask by mask",
        partial(peers.metrics_mask_by_mask, reference, prediction, range(1, count)),
        lambda ours, theirs: "none" if ours == theirs else "DIFFERENT COUNTS",
    )


def smooth_volume(shape: tuple[int, int, int], seed: int = 0, width_voxels: float = 4) -> np.ndarray:
    """Random structures of some width, standardised; float32."""
    volume = gaussian_filter(np.random.default_rng(seed).standard_normal(shape, np.float32), width_voxels)
    return (volume - volume.mean()) / volume.std()


def label_map(shape: tuple[int, int, int], count: int) -> np.ndarray:
    """``count`` labels in blobs; more than half is background, as in an organ map."""
    values = smooth_volume(shape, width_voxels=_BLOBS_VOXELS)
    bounds = np.quantile(values, np.linspace(0.6, 1, count)[:-1])
    return np.digitize(values, bounds).astype(np.uint8)


def largest(ours: np.ndarray, theirs: np.ndarray) -> str:
    return f"{np.abs(ours[0].astype(np.float64) - theirs).max():.1g} at most"


def share_of_voxels(ours: np.ndarray, theirs: np.ndarray) -> str:
    different = int((ours != theirs).sum())
    return "none" if different == 0 else f"{different} of {ours.size} voxels"


def other_draws(ours: int, theirs: int) -> str:
    return "other random numbers" if ours == theirs else "DIFFERENT NUMBER OF PATCHES"


def _cpu_seconds(function: Callable[[], Any]) -> float:
    started = time.process_time()
    function()
    return time.process_time() - started


def _time_text(seconds: float, per_run: tuple[int, str]) -> str:
    count, unit = per_run
    each = f"{1000 * seconds / count:.3g} ms"
    return f"{each} ({count / seconds:.0f} {unit}/s)" if unit else each


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


if __name__ == "__main__":
    main()
