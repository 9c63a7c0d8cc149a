"""Fingerprints: shapes and spacings exactly, intensity statistics within the peer's sampling error (method 2.3).

    python -m benchmarks.peer.compare_fingerprint DATA

The peer draws voxels with replacement, segwright counts all of them with equal weight a case. The peer's sampling error
is measured: its own statistics from two other seeds.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peer.common import Planned, Table, largest_difference, planned, quiet, some_cases, workplace
from benchmarks.peer.small import phantom
from segwright.phantom import PRESETS

DATASETS = {
    "hippocampus_small/Dataset004_Hippocampus": 8,
    "petct_sarcoma_small/Dataset103_SarcomaPETCT": 4,
    "brats_small/Dataset104_BraTSsmall": 3,
    "nuclei2d_rgb/Dataset106_NucleiRGB": 6,
    "ct_sarcoma/Dataset101_SarcomaCT": 3,
}
NAMES = ("mean", "median", "std", "percentile_00_5", "percentile_99_5")
SAMPLES = 1_000_000
FACTOR = 2
"""Allowed distance to the peer, as a multiple of the spread of its own seeds (at least 1 % of the standard deviation:
percentiles of few voxels jump from one grey value to the next)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("data", type=Path, nargs="?", help="folder of real images; without it phantoms only")
    options = parser.parse_args()
    table = Table("Fingerprint")
    for preset in PRESETS:
        with workplace() as work:
            compare(phantom(preset, work), table)
    for name, count in DATASETS.items() if options.data else ():
        with workplace() as work:
            compare(planned(some_cases(options.data / name, work / Path(name).name, count), work), table)
    table.close()


def compare(plan: Planned, table: Table) -> None:
    with quiet():
        seeds = [peer_fingerprint(plan, seed) for seed in (1234, 1, 2, 3)]
    ours, peers, name = plan.fingerprint, seeds[0], plan.dataset.name
    table.row(f"{name}: shapes", largest_difference(ours["shapes_after_crop"], peers["shapes"]), 0)
    table.row(f"{name}: spacings", largest_difference(ours["spacings"], peers["spacings"]), 0)
    relative = abs(ours["median_relative_size_after_cropping"] - peers["relative"])
    table.row(f"{name}: relative size", relative, 1e-12)
    worst = (0.0, "")
    for channel, mine in ours["foreground_intensity_properties_per_channel"].items():
        for statistic in NAMES:
            theirs = [seed["statistics"][int(channel)][statistic] for seed in seeds]
            exact = float(np.mean(theirs))
            scale = peers["statistics"][int(channel)]["std"]
            error = max(float(np.ptp(theirs)), 1e-2 * scale)
            worst = max(worst, (abs(mine[statistic] - exact) / error, f"{statistic} of channel {channel}"))
    table.row(f"{name}: worst statistic ({worst[1]})", worst[0], FACTOR, " x the spread of seeds")


def peer_fingerprint(plan: Planned, seed: int) -> dict[str, Any]:
    """The peer's own steps for every case and its statistics over all cases, without its pool of processes."""
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
    from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero

    first = str(plan.dataset.training[0].image_files[0])
    io = determine_reader_writer_from_dataset_json(plan.facts, first)()
    per_case = SAMPLES // len(plan.dataset.training)
    shapes, spacings, relative, values = [], [], [], []
    for case in plan.dataset.training:
        images, properties = io.read_images([str(path) for path in case.image_files])
        label, _ = io.read_seg(str(case.label_file))
        cropped, label, _ = crop_to_nonzero(images, label)
        sampled, _ = DatasetFingerprintExtractor.collect_foreground_intensities(
            label, cropped, seed=seed, num_samples=per_case
        )
        shapes.append(cropped.shape[1:])
        spacings.append(properties["spacing"])
        relative.append(np.prod(cropped.shape[1:]) / np.prod(images.shape[1:]))
        values.append(sampled)
    statistics = []
    for channel in range(len(values[0])):
        found = np.concatenate([case[channel] for case in values])
        low, median, high = np.percentile(found, (0.5, 50.0, 99.5))
        statistics.append(dict(zip(NAMES, (float(found.mean()), median, float(found.std()), low, high), strict=True)))
    return {
        "shapes": shapes,
        "spacings": spacings,
        "relative": float(np.median(relative)),
        "statistics": statistics,
    }


if __name__ == "__main__":
    main()
