"""Tiles, weights and accumulation (method 10.2, 10.3)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from segwright.inference import sliding_window
from segwright.inference.sliding_window import Input, Window, gaussian_weights, predict_scores, tile_positions

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("length", "patch", "expected"),
    [(110, 64, (0, 23, 46)), (90, 40, (0, 17, 33, 50)), (60, 56, (0, 4)), (56, 56, (0,)), (30, 56, (0,))],
)
def test_tile_positions_are_those_of_nnunet(length: int, patch: int, expected: tuple[int, ...]) -> None:
    """Vectors of method 10.2."""
    assert tile_positions((length,), (patch,), 0.5) == [expected]


def test_no_more_tiles_than_there_are_places() -> None:
    assert tile_positions((12,), (8,), 1e-12) == [tuple(range(5))]
    assert tile_positions((5,), (1,), 0.5) == [tuple(range(5))]


def test_gaussian_is_that_of_nnunet() -> None:
    """Vectors of method 10.3."""
    weights = gaussian_weights((40, 56, 40))
    assert weights.dtype == np.float32
    assert weights[20, 28, 20] == 10
    assert weights[20, 28, 30] == pytest.approx(1.3535, abs=5e-5)
    assert weights[20, 0, 20] == pytest.approx(0.0034, abs=5e-5)
    assert weights[0, 0, 0] == pytest.approx(5.96e-8, rel=1e-3) == weights.min()


def test_gaussian_is_rounded_as_torch_does() -> None:
    """Doubles become halves by way of singles, which eight voxels of this patch notice in their last bit."""
    patch = (32, 48, 40)
    impulse = np.zeros(patch)
    impulse[tuple(edge // 2 for edge in patch)] = 1
    exact = gaussian_filter(impulse, [edge / 8 for edge in patch], mode="constant", cval=0)
    exact /= exact.max() / 10
    rounded = torch.from_numpy(exact).to(torch.float16).float().numpy()
    assert np.count_nonzero(rounded != exact.astype(np.float16)) == 8
    assert np.array_equal(gaussian_weights(patch)[rounded > 0], rounded[rounded > 0])


def copies(outputs: int) -> sliding_window.Network:
    """A "network" whose output ``k`` is its first input channel times ``k + 1``."""

    def network(patches: Tensor) -> Tensor:
        return torch.cat([patches[:, :1] * (k + 1) for k in range(outputs)], dim=1)

    return network


@pytest.mark.parametrize(
    ("shape", "patch"),
    [
        ((20, 17, 9), (8, 8, 8)),
        ((5, 30, 7), (8, 8, 8)),
        ((8, 8, 8), (8, 8, 8)),
        ((4, 19, 6), (8, 8)),
        ((1, 5, 5), (8, 6)),
    ],
)
@pytest.mark.parametrize("gaussian", [True, False])
def test_a_network_that_copies_gives_the_image_back(
    shape: tuple[int, ...], patch: tuple[int, ...], gaussian: bool
) -> None:
    image = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    window = Window(patch, 2, gaussian=gaussian, mirror_axes=(0, 1))
    scores = predict_scores(copies(2), Input(image), window, CPU)
    assert scores.shape == (2, *shape) and scores.dtype == torch.float32
    np.testing.assert_allclose(scores[0], image[0], atol=1e-5)
    np.testing.assert_allclose(scores[1], 2 * image[0], atol=1e-5)


def test_tiles_are_averaged_with_their_weights() -> None:
    """Each tile predicts its own number; where two overlap the result is their weighted mean."""
    image = np.zeros((1, 1, 1, 12), np.float32)
    calls: list[int] = []

    def network(patches: Tensor) -> Tensor:
        calls.extend(range(len(calls), len(calls) + len(patches)))
        numbers = torch.tensor(calls[-len(patches) :], dtype=torch.float32)
        return numbers.reshape(-1, 1, 1, 1, 1).expand(-1, 1, *patches.shape[2:])

    scores = predict_scores(network, Input(image), Window((1, 1, 8), 1), CPU)[0, 0, 0].numpy()
    weights = gaussian_weights((1, 1, 8))[0, 0]
    assert len(calls) == 2  # tiles at 0 and 4
    expected = [0.0] * 4 + [weights[i] / (weights[i] + weights[i + 4]) for i in range(4)] + [1.0] * 4
    np.testing.assert_allclose(scores, expected, rtol=1e-6)


def test_image_shorter_than_the_patch_is_centred_with_zeros() -> None:
    """diff // 2 below, the rest above (method 10.2)."""
    seen: list[Tensor] = []

    def network(patches: Tensor) -> Tensor:
        seen.append(patches.clone())
        return patches

    predict_scores(network, Input(np.ones((1, 3, 8, 8), np.float32)), Window((8, 8, 8), 1), CPU)
    assert seen[0][0, 0, :, 0, 0].tolist() == [0, 0, 1, 1, 1, 0, 0, 0]


def test_all_combinations_of_mirror_axes_are_averaged() -> None:
    seen: list[Tensor] = []

    def network(patches: Tensor) -> Tensor:
        seen.append(patches.clone())
        return torch.arange(8.0).reshape(1, 1, 2, 2, 2).expand(len(patches), 1, 2, 2, 2)

    image = np.random.default_rng(1).normal(size=(1, 2, 2, 2)).astype(np.float32)
    scores = predict_scores(network, Input(image), Window((2, 2, 2), 1, mirror_axes=(0, 2)), CPU)[0].numpy()
    ramp = np.arange(8.0).reshape(2, 2, 2)
    np.testing.assert_array_equal(scores, (ramp + ramp[::-1] + ramp[:, :, ::-1] + ramp[::-1, :, ::-1]) / 4)
    inputs = [patch[0, 0].numpy() for patch in seen]
    for found, expected in zip(
        inputs, [image[0], image[0][::-1], image[0][:, :, ::-1], image[0][::-1, :, ::-1]], strict=True
    ):
        np.testing.assert_array_equal(found, expected)


def test_probabilities_are_averaged_on_request() -> None:
    def network(patches: Tensor) -> Tensor:
        first = patches[:, :, :1, :1, :1].expand_as(patches)
        return torch.cat([torch.zeros_like(first), first], dim=1)  # differs between the mirror images

    image = np.arange(8, dtype=np.float32).reshape(1, 2, 2, 2)
    window = Window((2, 2, 2), 2, mirror_axes=(0,), activation="softmax")
    scores = predict_scores(network, Input(image), window, CPU)
    expected = (1 / (1 + np.exp(-0.0)) + 1 / (1 + np.exp(-4.0))) / 2
    np.testing.assert_allclose(scores[1], expected, rtol=1e-6)
    np.testing.assert_allclose(scores.sum(0), 1, rtol=1e-6)
    sigmoid = Window((2, 2, 2), 2, mirror_axes=(0,), activation="sigmoid")
    np.testing.assert_allclose(predict_scores(network, Input(image), sigmoid, CPU)[0], 0.5)


def test_previous_stage_becomes_one_hot_channels() -> None:
    image = np.zeros((1, 2, 3, 3), np.float32)
    label = np.array([[[0, 1, 2]] * 3] * 2, np.int8)
    label[0, 0, 0] = -1
    source = Input(image, label, (1, 2))
    tile = source.tile((-1, 0, 0), (4, 3, 3))
    assert tile.shape == (3, 4, 3, 3)
    assert tile[1, 1:3].sum() == 6 and tile[2, 1:3].sum() == 6 and tile[:, (0, 3)].sum() == 0
    np.testing.assert_array_equal(tile[1, 1], label[0] == 1)


def test_scores_are_summed_on_the_cpu_when_the_device_is_full(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    places = []

    def accumulate(network: object, source: Input, window: Window, device: torch.device, sums: torch.device) -> Tensor:
        places.append(sums.type)
        if sums.type == "cuda":
            raise torch.OutOfMemoryError("full")
        return torch.ones(1)

    monkeypatch.setattr(sliding_window, "_accumulate", accumulate)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    source = Input(np.zeros((1, 2, 2, 2), np.float32))
    with caplog.at_level("INFO"):
        predict_scores(copies(1), source, Window((2, 2, 2), 1), torch.device("cuda"))
    assert places == ["cuda", "cpu"]
    assert "summed on the CPU" in caplog.text
