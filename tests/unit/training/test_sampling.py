"""Where patches are taken from (method 5)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segwright.core.labels import LabelKey
from segwright.training.sampling import (
    CaseWindow,
    draw_start,
    must_show_foreground,
    sample_generator,
    signed_type,
    start_bounds,
)

ANNOTATED = (-1, 0, 1, 2)


@pytest.mark.parametrize(("batch_size", "forced"), [(1, 0), (2, 1), (3, 1), (9, 3), (12, 4)])
def test_forced_samples_are_the_last_ones(batch_size: int, forced: int) -> None:
    flags = [must_show_foreground(sample, batch_size, 0.33) for sample in range(batch_size)]
    assert flags == [False] * (batch_size - forced) + [True] * forced


def test_start_bounds_by_hand() -> None:
    # N 100: pad 33 -> -17 .. 100 + 16 + 1 - 73; N 30: 30 + 33 < 73, so pad 43; N 40, no enlargement: 0 .. 0
    assert start_bounds((100, 30, 40), (73, 73, 40), (40, 40, 40)) == ((-17, -22, 0), (44, -21, 0))


@settings(max_examples=60, deadline=None)
@given(edge=st.integers(1, 60), final=st.integers(1, 50), more=st.integers(0, 40))
def test_network_patches_reach_both_borders(edge: int, final: int, more: int) -> None:
    (low,), (high,) = start_bounds((edge,), (final + more,), (final,))
    assert low <= high
    inner_low, inner_high = low + (final + more) // 2 - final // 2, high + (final + more) // 2 - final // 2
    assert inner_low <= 0 and inner_high + final >= edge  # the patch in the middle of the loader patch
    if final <= edge:
        assert inner_low >= -1 and inner_high + final <= edge + 1  # and hardly beyond


def starts(case: tuple[int, int, int], foreground: bool, located: dict[LabelKey, np.ndarray], ignore: bool = False):
    rng = np.random.default_rng(0)
    return np.array(
        [draw_start(rng, case, (8, 8, 8), (6, 6, 6), located, foreground, ANNOTATED, ignore) for _ in range(2000)]
    )


def test_free_starts_are_uniform_over_the_bounds() -> None:
    drawn = starts((20, 6, 9), False, {1: np.array([[0, 0, 0]])})
    assert drawn.min(axis=0).tolist() == [-1, -1, -1] and drawn.max(axis=0).tolist() == [13, -1, 2]
    counts = np.bincount(drawn[:, 0] + 1, minlength=15)
    assert (abs(counts - 2000 / 15) < 5 * np.sqrt(2000 / 15)).all()


def test_forced_starts_centre_a_voxel_of_a_uniformly_chosen_key() -> None:
    located: dict[LabelKey, np.ndarray] = {
        1: np.tile([[10, 10, 10]], (50, 1)),
        (1, 2): np.array([[12, 3, 19]]),
        2: np.zeros((0, 3), int),
        ANNOTATED: np.array([[5, 5, 5]]),
    }
    drawn = starts((20, 20, 20), True, located)
    kinds = {tuple(map(int, start)) for start in drawn}
    assert kinds == {(6, 6, 6), (8, -1, 15)}  # (12, 3, 19) - 4: below limited to -1, above not limited to 13
    share = (drawn == (6, 6, 6)).all(axis=1).mean()
    assert abs(share - 0.5) < 4 * 0.5 / np.sqrt(2000)  # keys count, not voxels


def test_annotated_voxels_are_the_last_resort_and_nothing_gives_a_free_start() -> None:
    only = starts((20, 20, 20), True, {1: np.zeros((0, 3), int), ANNOTATED: np.array([[9, 9, 9]])})
    assert (only == 5).all()
    assert len(np.unique(starts((20, 20, 20), True, {1: np.zeros((0, 3), int)}), axis=0)) > 500


def test_with_an_ignore_label_free_samples_are_centred_on_annotated_voxels() -> None:
    located: dict[LabelKey, np.ndarray] = {1: np.array([[4, 4, 4]]), ANNOTATED: np.array([[9, 9, 9]])}
    assert (starts((20, 20, 20), False, located, ignore=True) == 5).all()
    free = starts((20, 20, 20), False, {ANNOTATED: np.zeros((0, 3), int)}, ignore=True)
    assert len(np.unique(free, axis=0)) > 500


def test_windows_read_the_case_and_pad_beyond_it() -> None:
    image = np.arange(2 * 4 * 5 * 6, dtype=np.float32).reshape(2, 4, 5, 6)
    label = np.arange(120, dtype=np.int8).reshape(4, 5, 6)
    previous = np.full((4, 5, 6), 7, np.uint8)
    window = CaseWindow(image, (label, previous), (-1, 3, 2), (4, 4, 4))
    assert window.shape == (4, 4, 4)
    got_image, got_labels = window.read((0, 1, 0), (3, 3, 2))
    assert got_image.shape == (2, 3, 2, 2) and got_labels.shape == (2, 3, 2, 2) and got_labels.dtype == np.int16
    assert (got_image[:, 0] == 0).all() and (got_labels[:, 0] == -1).all()  # z = -1
    np.testing.assert_array_equal(got_image[:, 1:, 0], image[:, 0:2, 4, 2:4])
    assert (got_image[:, :, 1] == 0).all()  # y = 5
    assert got_labels[1, 1:, 0].tolist() == [[7, 7], [7, 7]]


def test_flat_windows_drop_the_slice_axis() -> None:
    image = np.arange(60, dtype=np.float32).reshape(1, 3, 4, 5)
    window = CaseWindow(image, (image[0].astype(np.int16),), (2, 0, 1), (1, 4, 3), flat=True)
    got_image, got_labels = window.read((1, 0), (3, 2))
    assert window.shape == (4, 3)
    assert got_image.tolist() == [image[0, 2, 1:3, 1:3].tolist()] == got_labels.tolist()


def test_label_types_hold_minus_one() -> None:
    kinds = [signed_type(np.dtype(kind)) for kind in ("int8", "uint8", "int16", "uint16")]
    assert kinds == ["int8", "int16", "int16", "int32"]


def test_generators_differ_in_every_part_of_their_key() -> None:
    keys = [(0, 0, 0, 0, True), (1, 0, 0, 0, True), (0, 1, 0, 0, True), (0, 0, 1, 0, True), (0, 0, 0, 1, True)]
    keys.append((0, 0, 0, 0, False))
    assert len({sample_generator(*key).random() for key in keys}) == len(keys)
    assert sample_generator(*keys[0]).random() == sample_generator(*keys[0]).random()
