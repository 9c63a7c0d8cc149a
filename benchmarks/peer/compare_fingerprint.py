"""Fingerprints: shapes and spacings exactly, intensity statistics within the peer's sampling error (method 2.3).

    python -m benchmarks.peer.compare_fingerprint DATA

The peer draws voxels with replacement, segwright counts all of them with equal weight a case. The peer's sampling error
is measured: the standard deviation of its statistics over eight seeds, its own among them. Where they all agree (a grey
level that is a percentile) segwright must agree too. Of extremes draws can only miss some: all they found must lie
between segwright's. A million draws are made instead of the peer's hundred million, which takes a minute a channel, so
that its own error is a tenth of the one here; therefore segwright is also compared with what infinitely many draws of
the voxels the peer reads would give.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from tests.parity.datasets import image_dataset

from benchmarks.peer.common import SEED, Planned, Table, largest_difference, planned, quiet, some_cases, workplace
from benchmarks.peer.small import phantom
from segwright.phantom import PRESETS

DATASETS = {
    "hippocampus_small/Dataset004_Hippocampus": 8,
    "petct_sarcoma_small/Dataset103_SarcomaPETCT": 4,
    "brats_small/Dataset104_BraTSsmall": 3,
    "nuclei2d_rgb/Dataset106_NucleiRGB": 6,
    "ct_sarcoma/Dataset101_SarcomaCT": 3,
    "mr_sarcoma/Dataset102_SarcomaMR": 3,
    "hippocampus_mixed/Dataset113_HippocampusMixed": 6,
}
NAMES = ("mean", "median", "std", "percentile_00_5", "percentile_99_5")
SAMPLES = 1_000_000
SEEDS = (1234, *range(1, 8))
ERRORS_ALLOWED = 3.0
SMALL = ("few voxels", "no foreground in a case", "labels where the image is zero", "ignored voxels")
"""Datasets of two cases whose structure has a few dozen voxels: a percentile shows every one of them."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("data", type=Path, nargs="?", help="folder of real images; without it phantoms only")
    options = parser.parse_args()
    table = Table("Fingerprint")
    for preset in PRESETS:
        with workplace() as work:
            compare(phantom(preset, work), table)
    for kind in SMALL:
        with workplace() as work:
            compare(planned(small_structure(kind, work / f"Dataset902_{kind.replace(' ', '_')}"), work), table)
    for name, count in DATASETS.items() if options.data else ():
        with workplace() as work:
            compare(planned(some_cases(options.data / name, work / Path(name).name, count), work), table)
    table.close()


def small_structure(kind: str, folder: Path) -> Path:
    """One of the ``SMALL`` datasets: a case, and a part of it that has fewer of its labelled voxels, or none."""
    image = np.random.default_rng(SEED).normal(100, 20, (2, 12, 16, 20)).astype(np.float32)
    label = np.zeros(image.shape[1:], np.uint8)
    place = slice(None, 3) if kind == "no foreground in a case" else slice(2, 5)
    label[5:8, place, 4:9] = 1
    if kind == "labels where the image is zero":
        image[:, :3], label[1] = 0, 1
    labels = {"background": 0, "structure": 1}
    if kind == "ignored voxels":
        label[9, 6:9, 4:9] = labels["ignore"] = 2
    case = {"spacing": (2.0, 1.0, 1.0), "plan": {"labels": labels, "channel_names": ["CT", "MRI"]}}
    return image_dataset(folder, case, image, label).folder


def compare(plan: Planned, table: Table) -> None:
    with quiet():
        cropped, peers = peer_cases(plan)
        seeds = [peer_statistics(cropped, seed) for seed in SEEDS]
    ours, name = plan.fingerprint, plan.dataset.name
    table.row(f"{name}: shapes", largest_difference(ours["shapes_after_crop"], peers["shapes"]), 0)
    table.row(f"{name}: spacings", largest_difference(ours["spacings"], peers["spacings"]), 0)
    relative = abs(ours["median_relative_size_after_cropping"] - peers["relative"])
    table.row(f"{name}: relative size", relative, 1e-12)
    properties = ours["foreground_intensity_properties_per_channel"]
    table.row(f"{name}: channels", float(sorted(properties) != sorted(map(str, range(len(seeds[0]))))), 0)
    worst, share, outside = (0.0, ""), 0.0, 0
    for channel, mine in properties.items():
        for seed in seeds:
            drawn = seed[int(channel)]
            outside += not mine["min"] <= drawn["min"] <= drawn["max"] <= mine["max"]
        for statistic in NAMES:
            theirs = [seed[int(channel)][statistic] for seed in seeds]
            distance, error = abs(mine[statistic] - float(np.mean(theirs))), float(np.std(theirs, ddof=1))
            far = distance / error if error else 0.0 if distance < 1e-6 * mine["std"] else np.inf
            far = np.inf if np.isnan(far) else far
            worst = max(worst, (far, f"{statistic} of channel {channel}"))
            share = max(share, abs(mine[statistic] - theirs[0]) / mine["std"])
    errors = "standard deviations of the peer's seeds"
    table.row(f"{name}, {worst[1]}: worst statistic", worst[0], ERRORS_ALLOWED, f" {errors}")
    table.row(f"{name}: smallest and largest values beyond segwright's", outside, 0)
    moments, percentiles = 0.0, 0
    for channel, mine in properties.items():
        mean, std, between = infinitely_many_draws(cropped, int(channel))
        moments = max(moments, largest_difference((mine["mean"], mine["std"]), (mean, std)) / std)
        percentiles += sum(not low <= mine[statistic] <= high for statistic, (low, high) in between.items())
    table.row(f"{name}: mean and std of infinitely many draws", moments, 1e-6, " of the intensities' std")
    table.row(f"{name}: percentiles of infinitely many draws that lie at other voxels", percentiles, 0)
    table.report(
        f"{name}: largest difference of a statistic to the peer's seed", f"{share:.2g} of the intensities' std"
    )


def peer_cases(plan: Planned) -> tuple[list[tuple[np.ndarray, np.ndarray]], dict[str, Any]]:
    """Every case as the peer reads and crops it: (label, image); and shapes, spacings and relative size."""
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
    from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero

    first = str(plan.dataset.training[0].image_files[0])
    io = determine_reader_writer_from_dataset_json(plan.facts, first)()
    cases, shapes, spacings, relative = [], [], [], []
    for case in plan.dataset.training:
        images, properties = io.read_images([str(path) for path in case.image_files])
        label, _ = io.read_seg(str(case.label_file))
        cropped, label, _ = crop_to_nonzero(images, label)
        cases.append((label, cropped))
        shapes.append(cropped.shape[1:])
        spacings.append(properties["spacing"])
        relative.append(np.prod(cropped.shape[1:]) / np.prod(images.shape[1:]))
    return cases, {"shapes": shapes, "spacings": spacings, "relative": float(np.median(relative))}


def infinitely_many_draws(
    cases: list[tuple[np.ndarray, np.ndarray]], channel: int
) -> tuple[float, float, dict[str, tuple[float, float]]]:
    """Mean, standard deviation, and between which neighbouring voxels each percentile lies, of the foreground."""
    voxels = [image[channel][label[0] > 0].astype(np.float64) for label, image in cases]
    voxels = [values for values in voxels if values.size]
    means, variances = (np.array([getattr(values, kind)() for values in voxels]) for kind in ("mean", "var"))
    everything = np.concatenate(voxels)
    order = np.argsort(everything)
    shares = np.concatenate([np.full(values.size, 1 / values.size / len(voxels)) for values in voxels])[order].cumsum()
    width = 1 + everything.size // 10_000  # very large cases are sketched
    between = {}
    for statistic, percentage in (("percentile_00_5", 0.5), ("median", 50.0), ("percentile_99_5", 99.5)):
        at = int(np.searchsorted(shares, percentage / 100))
        nearby = everything[order[max(at - width, 0) : at + width + 1]]
        rounded = [abs(nearby[place]) * 1e-8 for place in (0, -1)]  # percentiles are kept in nine digits
        between[statistic] = float(nearby[0] - rounded[0]), float(nearby[-1] + rounded[1])
    return float(means.mean()), float((variances.mean() + means.var()) ** 0.5), between


def peer_statistics(cases: list[tuple[np.ndarray, np.ndarray]], seed: int) -> list[dict[str, float]]:
    """The peer's draws of every case and its statistics over all of them, one entry a channel."""
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor

    per_case = SAMPLES // len(cases)
    values = [
        DatasetFingerprintExtractor.collect_foreground_intensities(label, image, seed=seed, num_samples=per_case)[0]
        for label, image in cases
    ]
    statistics = []
    for channel in range(len(values[0])):
        found = np.concatenate([case[channel] for case in values])
        low, median, high = np.percentile(found, (0.5, 50.0, 99.5))
        extremes = {"min": float(found.min()), "max": float(found.max())}
        numbers = (float(found.mean()), median, float(found.std()), low, high)
        statistics.append({**extremes, **dict(zip(NAMES, numbers, strict=True))})
    return statistics


if __name__ == "__main__":
    main()
