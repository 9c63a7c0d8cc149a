"""Class locations: the very voxels nnU-Net v2 draws (method 4.3)."""

from __future__ import annotations

import numpy as np
import pytest

from segwright.core.labels import Labels
from segwright.preprocessing.locations import location_keys, sample_locations

from . import reference
from .conftest import blobs

PLAIN = {"labels": {"background": 0, "a": 1, "b": 2, "c": 3}}
IGNORE = {"labels": {"background": 0, "a": 1, "b": 2, "ignore": 3}}
REGIONS = {"labels": {"background": 0, "whole": [1, 3, 2], "core": [2], "edge": 3}, "regions_class_order": [1, 2, 3]}
GAPS = {"labels": {"background": 0, "whole": [3, 1], "edge": [3], "ignore": 4}, "regions_class_order": [1, 3]}
BOTH = {"labels": {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}, "regions_class_order": [1, 2]}


@pytest.mark.parametrize(
    ("facts", "keys"),
    [
        (PLAIN, (1, 2, 3)),
        (IGNORE, (1, 2, (-1, 0, 1, 2))),
        (REGIONS, ((1, 3, 2), (2,), 3)),
        (BOTH, ((1, 2), 2, (-1, 0, 1, 2))),
        (GAPS, ((3, 1), (3,), (-1, 0, 1, 3))),
    ],
)
def test_keys_order_and_draws(facts: dict, keys: tuple) -> None:
    labels = Labels.from_json(facts)
    assert location_keys(labels) == keys
    label = blobs((30, 36, 34), 4, 1).astype(np.int8)
    label[:3] = -1
    ours = sample_locations(label, labels)
    expected = reference.class_locations(label, keys)
    assert tuple(ours) == keys
    for key in keys:
        assert ours[key].dtype == np.int32
        assert np.array_equal(ours[key], expected[key])


def test_counts() -> None:
    # all voxels up to 10 000; above, 10 000 or 1 % of them, rounded up
    label = np.zeros((120, 100, 101), np.int8)
    label.reshape(-1)[:9_999] = 1
    label.reshape(-1)[9_999 : 9_999 + 1_000_101] = 2
    drawn = sample_locations(label, Labels.from_json(PLAIN))
    assert {key: len(located) for key, located in drawn.items()} == {1: 9_999, 2: 10_002, 3: 0}
    assert len(np.unique(drawn[2], axis=0)) == 10_002
    assert np.all(label[tuple(drawn[2].T)] == 2)


def test_a_key_without_voxels_draws_nothing() -> None:
    label = blobs((20, 20, 20), 4, 1).astype(np.int8)
    label[label == 1] = 0
    ours = sample_locations(label, Labels.from_json(PLAIN))
    assert ours[1].shape == (0, 3)
    assert np.array_equal(ours[2], reference.class_locations(label, (2,))[2])


def test_no_foreground_at_all() -> None:
    drawn = sample_locations(np.full((4, 4, 4), -1, np.int8), Labels.from_json(PLAIN))
    assert [located.shape for located in drawn.values()] == [(0, 3)] * 3
