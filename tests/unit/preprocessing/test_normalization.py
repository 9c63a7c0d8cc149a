"""The five schemes (method 4.4)."""

from __future__ import annotations

import numpy as np
import pytest

from segwright.core.errors import DatasetError, PlansError
from segwright.core.plans import IntensityStatistics
from segwright.preprocessing.normalization import mean_and_std, normalize_channel

from . import reference

CT = IntensityStatistics(
    mean=50.0, median=40.0, std=30.0, min=-1024.0, max=900.0, percentile_00_5=-100.0, percentile_99_5=250.0
)


def volume() -> np.ndarray:
    return np.random.default_rng(0).normal(120, 60, (7, 9, 8)).clip(0, 255).astype(np.float32)


@pytest.mark.parametrize(
    "scheme",
    [
        "CTNormalization",
        "ZScoreNormalization",
        "RescaleTo01Normalization",
        "RGBTo01Normalization",
        "NoNormalization",
    ],
)
def test_schemes_follow_their_formulas_in_place(scheme: str) -> None:
    channel = volume()
    expected = reference.normalize(channel, scheme, None, CT)
    normalize_channel(channel, scheme, None, CT)
    assert channel.dtype == np.float32
    assert np.abs(channel - expected).max() < 1e-5


def test_z_score_with_mask_changes_only_the_inside() -> None:
    channel, inside = volume(), np.zeros((7, 9, 8), bool)
    inside[2:5, 1:8, 3:] = True
    expected = reference.normalize(channel, "ZScoreNormalization", inside, None)
    outside_before = channel[~inside].copy()
    normalize_channel(channel, "ZScoreNormalization", inside)
    assert np.array_equal(channel[~inside], outside_before)
    assert np.abs(channel - expected).max() < 1e-5
    assert abs(channel[inside].mean()) < 1e-6


def test_other_schemes_ignore_the_mask() -> None:
    with_mask, without = volume(), volume()
    normalize_channel(with_mask, "CTNormalization", np.zeros(with_mask.shape, bool), CT)
    normalize_channel(without, "CTNormalization", None, CT)
    assert np.array_equal(with_mask, without)


def test_constant_images_become_zero_not_nan() -> None:
    for scheme in ("ZScoreNormalization", "RescaleTo01Normalization"):
        channel = np.full((3, 4, 5), 7.0, np.float32)
        normalize_channel(channel, scheme)
        assert np.array_equal(channel, np.zeros_like(channel))


def test_empty_mask_leaves_the_image() -> None:
    channel = volume()
    normalize_channel(channel, "ZScoreNormalization", np.zeros(channel.shape, bool))
    assert np.array_equal(channel, volume())


def test_statistics_are_exact_for_large_values() -> None:
    channel = (np.random.default_rng(0).normal(size=(40, 50, 60)) + 1e6).astype(np.float32)
    mean, std = mean_and_std(channel)
    assert mean == pytest.approx(channel.mean(dtype=np.float64), rel=1e-14)
    assert std == pytest.approx(channel.std(dtype=np.float64), rel=1e-10)


def test_unknown_scheme_and_missing_statistics_are_named() -> None:
    with pytest.raises(PlansError, match="Ct2Normalization"):
        normalize_channel(volume(), "Ct2Normalization")
    with pytest.raises(PlansError, match="foreground_intensity_properties"):
        normalize_channel(volume(), "CTNormalization")


def test_rgb_needs_eight_bit_values() -> None:
    with pytest.raises(DatasetError, match="from -1 to 300"):
        normalize_channel(np.array([[[-1, 300]]], np.float32), "RGBTo01Normalization")
