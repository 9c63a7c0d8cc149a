"""Noise, blur, brightness, contrast, low resolution, gamma: twins against recorded arrays, draws against method 6.2."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tests.unit.training.augmentation.golden import golden, within_standard_errors

from segwright.training.augmentation.brightness import Brightness, RandomBrightness
from segwright.training.augmentation.contrast import Contrast, RandomContrast
from segwright.training.augmentation.gamma import Gamma, RandomGamma
from segwright.training.augmentation.gaussian_blur import GaussianBlur, RandomGaussianBlur, gaussian_kernel
from segwright.training.augmentation.gaussian_noise import GaussianNoise, RandomGaussianNoise
from segwright.training.augmentation.low_resolution import LowResolution, RandomLowResolution

SHAPE = (2, 4, 4, 4)
DRAWS = 3000


@pytest.mark.parametrize(
    ("name", "twin"),
    [
        ("blur", GaussianBlur((None, (0.55, 0.8, 0.97)))),
        ("low_resolution_0.6", LowResolution(((0.6,) * 3, None))),
        ("low_resolution_0.77", LowResolution(((0.77,) * 3, None))),
        ("low_resolution_0.95", LowResolution(((0.95,) * 3, None))),
        ("gamma", Gamma((0.8, 1.4), inverted=False)),
        ("gamma_inverted", Gamma((0.8, 1.4), inverted=True)),
        ("contrast", Contrast((0.8, 1.2))),
        ("brightness", Brightness((0.8, 1.2))),
    ],
)
def test_twin_equals_batchgeneratorsv2(name: str, twin: Callable[[np.ndarray], np.ndarray]) -> None:
    image = golden("image").copy()
    result = twin(image)
    np.testing.assert_allclose(result, golden(name), atol=2e-6)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(image, golden("image"))  # the input is left alone


def test_low_resolution_in_two_dimensions_equals_batchgeneratorsv2() -> None:
    got = LowResolution(((0.6,) * 2, (0.8,) * 2))(golden("image")[:, 0])
    np.testing.assert_allclose(got, golden("low_resolution_2d"), atol=2e-6)


def test_kernel_lengths_are_the_nearest_odd_integers() -> None:
    # 6 sigma + 0.5: 3.5 -> 3 (rounds to 4, then down), 4.4 -> 5, 5.9 -> 5, 6.5 -> 7
    assert [len(gaussian_kernel(sigma)) for sigma in (0.5, 0.65, 0.9, 1.0)] == [3, 5, 5, 7]
    assert gaussian_kernel(0.8).sum() == pytest.approx(1)


def test_constant_channels_stay_finite() -> None:
    flat = np.full((1, 3, 3, 3), 2.0, np.float32)
    for twin in (Gamma((1.3,), True), Contrast((1.2,)), LowResolution(((0.5,) * 3,)), GaussianBlur(((1.0,) * 3,))):
        np.testing.assert_allclose(twin(flat), flat, rtol=1e-6)


def test_edges_of_one_voxel_survive() -> None:
    thin = np.random.default_rng(0).standard_normal((1, 1, 2, 9)).astype(np.float32)
    assert LowResolution(((0.5,) * 3,))(thin).shape == thin.shape
    assert np.isfinite(GaussianBlur(((1.0,) * 3,))(thin)).all()


def test_noise_has_the_given_deviation_and_is_reproducible() -> None:
    image = np.zeros((2, 30, 30, 30), np.float32)
    noise = GaussianNoise(0.07, seed=5)(image)
    assert noise.std() == pytest.approx(0.07, rel=0.02) and abs(noise.mean()) < 0.002
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.03
    np.testing.assert_array_equal(noise, GaussianNoise(0.07, seed=5)(image))


def drawn(transform: Any) -> list[Any]:
    rng = np.random.default_rng(11)
    return [transform.draw(rng, SHAPE) for _ in range(DRAWS)]


@pytest.mark.parametrize(
    ("transform", "probability"),
    [
        (RandomGaussianNoise(), 0.1),
        (RandomGaussianBlur(), 0.2),
        (RandomBrightness(), 0.15),
        (RandomContrast(), 0.15),
        (RandomLowResolution(), 0.25),
        (RandomGamma(0.1, inverted=True), 0.1),
        (RandomGamma(0.3, inverted=False), 0.3),
    ],
)
def test_firing_rates(transform: Any, probability: float) -> None:
    fired = np.array([twin is not None for twin in drawn(transform)], float)
    assert within_standard_errors(fired, probability, np.sqrt(probability * (1 - probability)))


@pytest.mark.parametrize(
    ("transform", "attribute", "low", "high"),
    [
        (RandomBrightness(1.0), "factors", 0.75, 1.25),
        (RandomContrast(1.0), "factors", 0.75, 1.25),
        (RandomGamma(1.0, inverted=False), "exponents", 0.7, 1.5),
    ],
)
def test_two_sided_factors_per_channel(transform: Any, attribute: str, low: float, high: float) -> None:
    factors = np.array([getattr(twin, attribute) for twin in drawn(transform)])
    assert factors.shape == (DRAWS, 2) and low <= factors.min() and factors.max() <= high
    assert within_standard_errors((factors < 1).ravel().astype(float), 0.5, 0.5)
    below, above = factors[factors < 1], factors[factors > 1]
    assert within_standard_errors(below, (low + 1) / 2, (1 - low) / np.sqrt(12))
    assert within_standard_errors(above, (1 + high) / 2, (high - 1) / np.sqrt(12))
    assert abs(np.corrcoef(factors.T)[0, 1]) < 0.08  # channels are independent


def test_noise_and_blur_draws() -> None:
    sigmas = np.array([twin.sigma for twin in drawn(RandomGaussianNoise(1.0))])
    assert within_standard_errors(sigmas, 0.05, 0.1 / np.sqrt(12)) and sigmas.max() <= 0.1
    channels = [sigma for twin in drawn(RandomGaussianBlur(1.0)) for sigma in twin.sigmas]
    assert within_standard_errors(np.array([sigma is not None for sigma in channels], float), 0.5, 0.5)
    widths = np.array([sigma for sigma in channels if sigma is not None])
    assert widths.shape[1] == 3 and abs(np.corrcoef(widths.T)[0, 1]) < 0.08  # every axis its own
    assert within_standard_errors(widths.ravel(), 0.75, 0.5 / np.sqrt(12))


def test_low_resolution_draws() -> None:
    channels = [scale for twin in drawn(RandomLowResolution(1.0)) for scale in twin.scales]
    assert within_standard_errors(np.array([scale is not None for scale in channels], float), 0.5, 0.5)
    scales = np.array([scale for scale in channels if scale is not None])
    assert (scales == scales[:, :1]).all()  # one for all axes
    assert within_standard_errors(scales[:, 0], 0.75, 0.5 / np.sqrt(12))
    kept = [scale for twin in drawn(RandomLowResolution(1.0, keep_axis_0=True)) for scale in twin.scales if scale]
    assert all(scale[0] == 1 and scale[1] == scale[2] < 1 for scale in kept)
