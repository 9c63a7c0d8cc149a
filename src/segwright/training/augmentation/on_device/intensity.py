"""The image's transforms as tensor operations, in the order of nnU-Net v2 (method 6.2 #2 to #8)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from segwright.training.augmentation.brightness import Brightness
from segwright.training.augmentation.contrast import Contrast
from segwright.training.augmentation.gamma import SMALLEST, Gamma
from segwright.training.augmentation.gaussian_blur import GaussianBlur, gaussian_kernel
from segwright.training.augmentation.gaussian_noise import GaussianNoise
from segwright.training.augmentation.low_resolution import LowResolution, reduced_edges
from segwright.training.augmentation.on_device.dispatch import device_version
from segwright.training.augmentation.on_device.resizing import enlarge, reduce_nearest

Parameter = TypeVar("Parameter")


@device_version.register
def gaussian_noise(twin: GaussianNoise, image: Tensor) -> Tensor:
    """The twin's seed, but the generator of the device: other noise than the CPU's of the same distribution."""
    generator = torch.Generator(image.device).manual_seed(twin.seed)
    noise = torch.randn(image.shape, generator=generator, device=image.device)
    return torch.add(image, noise, alpha=twin.sigma)


@device_version.register
def gaussian_blur(twin: GaussianBlur, image: Tensor) -> Tensor:
    def blur(volume: Tensor, sigmas: Sequence[float]) -> Tensor:
        for axis, sigma in enumerate(sigmas):
            volume = _blur_axis(volume, axis, sigma)
        return volume

    return _each_channel(image, twin.sigmas, blur)


@device_version.register
def brightness(twin: Brightness, image: Tensor) -> Tensor:
    return _each_channel(image, twin.factors, torch.mul)


@device_version.register
def contrast(twin: Contrast, image: Tensor) -> Tensor:
    def stretch(volume: Tensor, factor: float) -> Tensor:
        mean, (low, high) = volume.mean(), torch.aminmax(volume)
        return ((volume - mean) * factor + mean).clamp(low, high)

    return _each_channel(image, twin.factors, stretch)


@device_version.register
def low_resolution(twin: LowResolution, image: Tensor) -> Tensor:
    def coarsen(volume: Tensor, scales: Sequence[float]) -> Tensor:
        return enlarge(reduce_nearest(volume, reduced_edges(volume.shape, scales)), volume.shape)

    return _each_channel(image, twin.scales, coarsen)


@device_version.register
def gamma(twin: Gamma, image: Tensor) -> Tensor:
    def bend(volume: Tensor, exponent: float) -> Tensor:
        deviation, mean = torch.std_mean(volume)
        low, high = torch.aminmax(volume)
        extent = high - low
        bent = ((volume - low) / extent.clamp(min=float(SMALLEST))).pow(exponent) * extent
        deviation_now, mean_now = torch.std_mean(bent)
        return (bent - mean_now) * (deviation / deviation_now.clamp(min=float(SMALLEST))) + mean

    if twin.inverted:
        return -_each_channel(-image, twin.exponents, bend)
    return _each_channel(image, twin.exponents, bend)


def _each_channel(
    image: Tensor, parameters: Sequence[Parameter | None], change: Callable[[Tensor, Parameter], Tensor]
) -> Tensor:
    """Change channels that have a parameter, one by one: a Python number needs no copy to the device."""
    pairs = zip(image, parameters, strict=True)
    return torch.stack([volume if parameter is None else change(volume, parameter) for volume, parameter in pairs])


def _blur_axis(volume: Tensor, axis: int, sigma: float) -> Tensor:
    """Sum of shifted slices; beyond the border the image is reflected (edge not repeated), as often as needed."""
    kernel = [float(weight) for weight in gaussian_kernel(sigma)]
    half, edge = len(kernel) // 2, volume.shape[axis]
    period = max(1, 2 * (edge - 1))
    index = torch.arange(-half, edge + half, device=volume.device).remainder(period)
    padded = volume.index_select(axis, torch.minimum(index, period - index))
    result = padded.narrow(axis, half, edge) * kernel[half]
    for distance in range(1, half + 1):
        pair = padded.narrow(axis, half - distance, edge) + padded.narrow(axis, half + distance, edge)
        result.add_(pair, alpha=kernel[half + distance])
    return result
