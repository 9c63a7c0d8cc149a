"""The peer's transforms on the parameters of tests/parity/twins.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from tests.parity.twins import (
    FACTORS,
    OPERATORS_2D,
    PICKS,
    RADII,
    REGIONS,
    SCALES,
    SIGMAS,
    SPATIAL,
    STRIDES,
    Arrays,
    Twin,
    last_plane,
    patch_of,
)

from segwright.training.augmentation.binary_operator import OPERATORS

BOTH = torch.tensor([0, 1])


def peer_twins() -> dict[str, Twin]:
    """The same names as :func:`tests.parity.twins.twins`."""
    from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
    from batchgeneratorsv2.transforms.intensity.contrast import ContrastTransform
    from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
    from batchgeneratorsv2.transforms.nnunet.seg_to_onehot import MoveSegAsOneHotToDataTransform
    from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
    from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
    from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
    from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform
    from batchgeneratorsv2.transforms.utils.nnunet_masking import MaskImageTransform
    from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTransform
    from batchgeneratorsv2.transforms.utils.seg_to_regions import ConvertSegmentationToRegionsTransform

    factors = {"apply_to_channel": BOTH, "multipliers": torch.tensor(FACTORS)}

    def blur(image: np.ndarray, sigmas: Any) -> Arrays:
        parameters = {"apply_to_channel": torch.tensor([True, True]), "sigmas": [list(sigma) for sigma in sigmas]}
        return (GaussianBlurTransform()._apply_to_image(tensor(image), **parameters).numpy(),)

    def gamma(image: np.ndarray, invert: bool) -> Arrays:
        yes, inverted = torch.tensor([True, True]), torch.tensor([invert, invert])
        parameters = {
            "apply_to_channel": BOTH, "retain_stats": yes, "invert_image": inverted, "gamma": torch.tensor(FACTORS),
        }  # fmt: skip
        return (GammaTransform((1, 1), 0, False, 1, 1)._apply_to_image(tensor(image), **parameters).numpy(),)

    def low_resolution(image: np.ndarray, scales: Any) -> Arrays:
        channels = torch.arange(len(scales))
        transform = SimulateLowResolutionTransform((1, 1), False, True, ())
        return (
            transform._apply_to_image(
                tensor(image), apply_to_channel=channels, scales=torch.tensor(scales, dtype=torch.float32)
            ).numpy(),
        )

    def mirror(image: np.ndarray, labels: np.ndarray, axes: list[int]) -> Arrays:
        transform = MirrorTransform((0, 1, 2))
        return (
            transform._apply_to_image(tensor(image), axes=axes).numpy(),
            transform._apply_to_segmentation(tensor(labels), axes=axes).numpy(),
        )

    def mask(image: np.ndarray, labels: np.ndarray) -> Arrays:
        given = {"image": tensor(image), "segmentation": tensor(labels)}
        return (MaskImageTransform([0], 0, 0)(**given)["image"].numpy(),)

    def one_hot(labels: np.ndarray) -> np.ndarray:
        given = {"image": torch.zeros((0, *labels.shape[1:])), "segmentation": tensor(labels)}
        return MoveSegAsOneHotToDataTransform(1, (1, 2, 3))(**given)["image"].numpy()

    def targets(labels: np.ndarray) -> Arrays:
        scales = 1 / np.cumprod(np.array(STRIDES, float), axis=0)
        heads = DownsampleSegForDSTransform([list(scale) for scale in scales[:-1]])._apply_to_segmentation(
            tensor(labels[:1])
        )
        return tuple(head.numpy() for head in heads)

    found: dict[str, Twin] = {
        "blur": lambda image, _: blur(image, SIGMAS),
        "blur 2-D": lambda image, _: blur(last_plane(image), [sigma[1:] for sigma in SIGMAS]),
        "brightness": lambda image, _: (
            MultiplicativeBrightnessTransform((1, 1), False)._apply_to_image(tensor(image), **factors).numpy(),
        ),
        "contrast": lambda image, _: (
            ContrastTransform((1, 1), True, False)._apply_to_image(tensor(image), **factors).numpy(),
        ),
        "gamma": lambda image, _: gamma(image, False),
        "gamma inverted": lambda image, _: gamma(image, True),
        "mirror": lambda image, labels: mirror(image, labels, [0, 2]),
        "mirror 2-D": lambda image, labels: mirror(last_plane(image), last_plane(labels), [1]),
        "mask": mask,
        "label -1": lambda _, labels: (RemoveLabelTransform(-1, 0)._apply_to_segmentation(tensor(labels)).numpy(),),
        "one-hot": lambda _, labels: (one_hot(labels),),
        "regions": lambda _, labels: (
            ConvertSegmentationToRegionsTransform(REGIONS)._apply_to_segmentation(tensor(labels[:1])).numpy(),
        ),
        "targets of deep supervision": lambda _, labels: targets(labels),
        "component removal": lambda _, labels: (removed_components(one_hot(labels)),),
    }
    for name, scales in SCALES.items():
        found[f"low resolution {name}"] = lambda image, _, scales=scales: low_resolution(image, [scales])
    found["low resolution 2-D"] = lambda image, _: low_resolution(last_plane(image), [(0.6,) * 2, (0.8,) * 2])
    for name in SPATIAL:
        found[f"spatial {name}"] = spatial_twin(name)
    for radius in RADII:
        for operator in OPERATORS:
            steps = ((1, operator, radius), (0, operator, radius))
            found[f"{operator} {radius}"] = lambda _, labels, steps=steps: (operated(one_hot(labels), steps),)
    found["binary operators 2-D"] = lambda _, labels: (operated(last_plane(one_hot(labels)), OPERATORS_2D),)
    return found


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array.copy())


def spatial_twin(name: str) -> Twin:
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
    from batchgeneratorsv2.transforms.utils.pseudo2d import Convert2DTo3DTransform, Convert3DTo2DTransform

    angles, scale, in_plane = SPATIAL[name]

    def twin(image: np.ndarray, labels: np.ndarray) -> Arrays:
        if name == "2-D":
            image, labels = last_plane(image), last_plane(labels)
        patch = patch_of(image.shape[1:], in_plane)
        drawn = iter(angles if len(angles) == 3 else angles * 2)  # of two the peer uses the last
        transform = SpatialTransform(
            patch[1:] if in_plane else patch, 0, False, p_rotation=1 if angles else 0,
            rotation=lambda **_: next(drawn), p_scaling=1 if scale != 1 else 0, scaling=scale,
            p_synchronize_scaling_across_axes=1, border_mode_seg="constant", padding_value_seg=-1,
        )  # fmt: skip
        given = {"image": tensor(image), "segmentation": tensor(labels)}
        if in_plane:
            given = Convert2DTo3DTransform()(**transform(**Convert3DTo2DTransform()(**given)))
        else:
            given = transform(**given)
        return given["image"].numpy(), given["segmentation"].numpy()

    return twin


def operated(channels: np.ndarray, steps: Any) -> np.ndarray:
    from batchgeneratorsv2.transforms.nnunet import random_binary_operator as peer

    transform = peer.ApplyRandomBinaryOperatorTransform(list(range(len(channels))))
    return transform._apply_to_image(
        tensor(channels), apply_to_channels=[step[0] for step in steps], strel_size=[step[2] for step in steps],
        operators=[getattr(peer, f"binary_{step[1]}_torch") for step in steps],
    ).numpy()  # fmt: skip


def removed_components(channels: np.ndarray) -> np.ndarray:
    """The component at a given place among the eligible ones: the peer's choice is replaced while it works."""
    places = iter([place for _, place in PICKS])
    with replaced_choice(lambda numbers: sorted(numbers)[int(next(places) * len(numbers))]):
        return removal(len(channels))._apply_to_image(
            tensor(channels), apply_to_channels=[channel for channel, _ in PICKS]
        ).numpy()  # fmt: skip


def removal(channels: int, per_label: float = 0.5) -> Any:
    from batchgeneratorsv2.transforms.nnunet.remove_connected_components import (
        RemoveRandomConnectedComponentFromOneHotEncodingTransform as Removal,
    )

    return Removal(list(range(channels)), 0, 0.15, per_label)


@contextmanager
def replaced_choice(choice: Callable[[list[int]], int]) -> Iterator[None]:
    original, np.random.choice = np.random.choice, choice
    try:
        yield
    finally:
        np.random.choice = original
