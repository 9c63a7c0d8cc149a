"""Stored cases: every configuration of real datasets and of made cases, one plans file for both programs (method 4).

python -m benchmarks.peer.compare_preprocessing DATA [DATASET ...]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peer.common import Planned, Table, largest_difference, planned, quiet, some_cases, workplace
from benchmarks.peer.random_cases import random_case
from benchmarks.peer.small import phantom
from segwright.core.dataset import Case
from segwright.core.labels import LabelKey, Labels
from segwright.core.settings import PlanningSettings
from segwright.core.slices import preprocess_slice
from segwright.images.readers import read_image, read_label
from segwright.phantom import PRESETS
from segwright.preprocessing.case import PreprocessedCase, preprocess_case

DATASETS: dict[str, tuple[int, PlanningSettings]] = {
    "hippocampus_small/Dataset004_Hippocampus": (5, PlanningSettings()),
    "hippocampus_mixed/Dataset113_HippocampusMixed": (6, PlanningSettings()),
    "hippocampus_thick/Dataset112_HippocampusThick": (3, PlanningSettings()),
    "petct_sarcoma_small/Dataset103_SarcomaPETCT": (3, PlanningSettings(spacing_mm=(4.0, 3.1, 3.7))),
    "brats_small/Dataset104_BraTSsmall": (2, PlanningSettings(spacing_mm=(1.3, 1.1, 0.8))),
    "nuclei2d_rgb/Dataset106_NucleiRGB": (3, PlanningSettings(spacing_mm=(999.0, 1.4, 0.9))),
    "nuclei2d_fluo/Dataset105_NucleiFluo": (3, PlanningSettings()),
    "mr_sarcoma/Dataset102_SarcomaMR": (2, PlanningSettings(spacing_mm=(4.0, 1.1, 0.9))),
    "em_vnc/Dataset107_EMvnc": (1, PlanningSettings(max_patch_size=128)),
    "ct_torso_large_variants/Dataset111_TorsoCTlarge": (2, PlanningSettings(max_patch_size=64)),
    "ct_sarcoma/Dataset101_SarcomaCT": (2, PlanningSettings(spacing_mm=(4.1, 1.3, 1.4))),
}
"""Name -> how many cases are planned for, and how: other spacings where the planned one is that of most images, small
patches where a low resolution configuration is wanted."""
IMAGE_TOLERANCE = 1e-4
MADE_CASES = 280


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("data", type=Path, help="folder of real images")
    parser.add_argument("datasets", nargs="*", help="names below it; none: all")
    options = parser.parse_args()
    table = Table("Preprocessing")
    if not options.datasets:
        for preset in PRESETS:
            with workplace() as work:
                compare_dataset(phantom(preset, work, settings=PlanningSettings(max_patch_size=16)), table)
        compare_made_cases(table)
    for name in options.datasets or DATASETS:
        count, settings = DATASETS[name]
        with workplace() as work:
            folder = some_cases(options.data / name, work / Path(name).name, count)
            compare_dataset(planned(folder, work, settings), table)
    table.close()


def compare_dataset(planned_: Planned, table: Table) -> None:
    for configuration, entry in planned_.plans.configurations.items():
        if "inherits_from" in entry:
            continue
        worst = {"image": 0.0, "label": 0.0, "locations": 0.0, "properties": 0.0}
        for case in planned_.dataset.training:
            for what, difference in compare_case(planned_, configuration, case).items():
                worst[what] = max(worst[what], difference)
        add_rows(f"{planned_.dataset.name} {configuration}", worst, table)


def add_rows(name: str, worst: dict[str, float], table: Table) -> None:
    table.row(f"{name}: image", worst["image"], IMAGE_TOLERANCE)
    table.row(f"{name}: label voxels", worst["label"], 0)
    table.row(f"{name}: class locations", worst["locations"], 0)
    table.row(f"{name}: shapes, crop", worst["properties"], 0)


def compare_made_cases(table: Table) -> None:
    """Zero borders with labels in them, constant channels, masks, transposed and very thin images, absent labels."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    worst = {"image": 0.0, "label": 0.0, "locations": 0.0, "properties": 0.0}
    for number in range(MADE_CASES):
        case = random_case(number)
        manager = PlansManager(json.loads(json.dumps(case.plans.to_json())))
        for configuration in ("2d", "3d_fullres") if "3d_fullres" in case.plans.configurations else ("2d",):
            settings = manager.get_configuration(configuration)
            raw = (case.image.array_czyx, case.label.array_zyx[None].astype(np.float32))
            properties = {"spacing": list(case.image.geometry.spacing_zyx)}
            with quiet():
                peers = settings.preprocessor_class(verbose=False).run_case_npy(
                    *raw, properties, manager, settings, case.facts
                )
            plan = preprocess_slice(case.plans, configuration, Labels.from_json(case.facts), case.channel_names)
            for what, difference in differences(preprocess_case(case.image, case.label, plan), *peers).items():
                worst[what] = max(worst[what], difference)
    add_rows(f"{MADE_CASES} made cases", worst, table)


def compare_case(planned_: Planned, configuration: str, case: Case) -> dict[str, float]:
    with quiet():
        peers = peer_case(planned_, configuration, case)
    return differences(our_case(planned_, configuration, case), *peers)


def differences(
    ours: PreprocessedCase, image: np.ndarray, label: np.ndarray, properties: dict[str, Any]
) -> dict[str, float]:
    """Of a case and what the peer makes of it."""
    assert ours.label_zyx is not None and ours.class_locations is not None
    same_shape = ours.label_zyx.shape == label.shape[1:]
    boxes = [[int(edge) for edge in bounds] for bounds in properties["bbox_used_for_cropping"]]
    return {
        "image": largest_difference(ours.image_czyx, image),
        "label": float(np.count_nonzero(ours.label_zyx != label[0])) if same_shape else np.inf,
        "locations": different_locations(ours, properties["class_locations"]),
        "properties": float(
            [list(bounds) for bounds in ours.properties.bbox] != boxes
            or ours.properties.shape_before_cropping != tuple(properties["shape_before_cropping"])
            or ours.properties.shape_after_cropping != tuple(properties["shape_after_cropping_and_before_resampling"])
        ),
    }


def peer_case(planned_: Planned, configuration: str, case: Case):
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    plans = PlansManager(planned_.plans_json)
    settings = plans.get_configuration(configuration)
    preprocessor = settings.preprocessor_class(verbose=False)
    files = [str(path) for path in case.image_files]
    return preprocessor.run_case(files, str(case.label_file), plans, settings, planned_.facts)


def our_case(planned_: Planned, configuration: str, case: Case) -> PreprocessedCase:
    dataset = planned_.dataset
    plan = preprocess_slice(planned_.plans, configuration, dataset.labels, dataset.channel_names)
    assert case.label_file is not None
    return preprocess_case(read_image(case.image_files, plan.reader), read_label(case.label_file, plan.reader), plan)


def different_locations(ours: PreprocessedCase, peers: dict[LabelKey, np.ndarray]) -> float:
    """How many keys hold other voxels, the peer's leading zero of each coordinate left out."""
    assert ours.class_locations is not None
    found = {normal_key(key): np.asarray(voxels).reshape(-1, 4)[:, 1:] for key, voxels in peers.items()}
    mine = {normal_key(key): voxels for key, voxels in ours.class_locations.items()}
    if found.keys() != mine.keys():
        return float("inf")
    return float(sum(not np.array_equal(mine[key], found[key]) for key in mine))


def normal_key(key: LabelKey) -> LabelKey:
    return tuple(int(value) for value in key) if isinstance(key, tuple) else int(key)


if __name__ == "__main__":
    main()
