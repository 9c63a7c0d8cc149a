"""Real images, every reader and label scenario, against the plain re-implementation: no voxel of a label may differ."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segwright.core.dataset import load_dataset
from segwright.core.slices import PreprocessPlan
from segwright.images.readers import read_image, read_label
from segwright.preprocessing.case import preprocess_case
from segwright.preprocessing.locations import location_keys

from . import reference

DATASETS = {
    "hippocampus_mixed/Dataset113_HippocampusMixed": ("SimpleITKIO", (1.0, 1.0, 1.0), False),
    "hippocampus_thick/Dataset112_HippocampusThick": ("SimpleITKIO", (2.0, 0.9, 0.9), False),
    "petct_sarcoma_small/Dataset103_SarcomaPETCT": ("SimpleITKIO", (3.0, 3.5, 3.5), True),
    "mr_sarcoma/Dataset102_SarcomaMR": ("SimpleITKIO", (4.0, 1.2, 1.2), False),
    "nuclei2d_fluo/Dataset105_NucleiFluo": ("NaturalImage2DIO", (1.1, 1.2), False),
    "nuclei2d_rgb/Dataset106_NucleiRGB": ("NaturalImage2DIO", (1.3, 0.9), False),
}


@pytest.mark.parametrize("name", DATASETS)
def test_stored_arrays_equal_the_reference(shared_data: Path, name: str) -> None:
    reader, spacing, mask = DATASETS[name]
    if not (shared_data / name).is_dir():
        pytest.skip(f"{name} is not there")
    dataset = load_dataset(shared_data / name)
    case = dataset.training[0]
    assert case.label_file is not None
    image, label = read_image(case.image_files, reader), read_label(case.label_file, reader)
    channels = len(image.array_czyx)
    plan = PreprocessPlan(
        data_name="real",
        channel_names=dataset.channel_names,
        labels=dataset.labels,
        reader=reader,
        transpose_forward=(0, 1, 2),
        transpose_backward=(0, 1, 2),
        spacing_mm=spacing,
        normalization_schemes=("ZScoreNormalization",) * channels,
        use_mask_for_norm=(mask,) * channels,
        intensities=(None,) * channels,
    )
    ours = preprocess_case(image, label, plan)
    expected_image, expected_label = reference.preprocess(
        image.array_czyx, label.array_zyx, image.geometry.spacing_zyx, plan
    )
    assert np.abs(ours.image_czyx - expected_image).max() < 1e-5
    assert ours.label_zyx is not None
    assert np.array_equal(ours.label_zyx, expected_label)
    expected_locations = reference.class_locations(expected_label, location_keys(dataset.labels))
    assert ours.class_locations is not None
    for key, located in expected_locations.items():
        assert np.array_equal(ours.class_locations[key], located.reshape(-1, 3))
