from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from segwright.core.errors import ModelError
from segwright.selection.components import Rule, apply_rules, bounding_box, removed_voxels


def plainly(label_zyx: np.ndarray, rule: Rule) -> np.ndarray:
    """Method 12.1 word for word, on the whole array."""
    mask = np.isin(label_zyx, rule.values)
    structure = np.ones((3, 3, 3)) if rule.connectivity == "full" else None
    components, count = ndimage.label(mask, structure)
    sizes = [int((components == i).sum()) for i in range(1, count + 1)]
    kept = np.isin(components, [i for i, size in enumerate(sizes, 1) if size == max(sizes)])
    return np.where(mask & ~kept, 0, label_zyx)


@pytest.mark.parametrize("connectivity", ["full", "faces"])
@pytest.mark.parametrize("keys", [(1,), (2,), (1, 2, 3), ((2, 3),), ((1, 2, 3, 4), 5), (7,)])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), share=st.floats(0.05, 0.6))
def test_equals_the_definition(keys: tuple, connectivity: str, seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    label_zyx = (rng.integers(1, 6, (4, 7, 9)) * (rng.random((4, 7, 9)) < share)).astype(np.uint8)
    before = label_zyx.copy()
    rule = Rule(keys, connectivity)  # type: ignore[arg-type]
    result = apply_rules(label_zyx, (rule,))
    np.testing.assert_array_equal(result, plainly(label_zyx, rule))
    np.testing.assert_array_equal(label_zyx, before)
    assert result.dtype == label_zyx.dtype


def test_all_components_of_maximum_size_stay() -> None:
    label_zyx = np.array([[[1, 1, 0, 1, 1, 0, 1]]], np.uint8)
    assert apply_rules(label_zyx, (Rule((1,)),)).tolist() == [[[1, 1, 0, 1, 1, 0, 0]]]


def test_corners_touch_in_full_connectivity_only() -> None:
    label_zyx = np.zeros((2, 3, 3), np.uint8)
    label_zyx[0, 0, 0] = label_zyx[1, 1, 1] = label_zyx[1, 1, 2] = 1
    assert apply_rules(label_zyx, (Rule((1,), "full"),)).sum() == 3
    assert apply_rules(label_zyx, (Rule((1,), "faces"),)).sum() == 2


def test_diagonal_neighbours_touch_in_a_2d_image() -> None:
    label_zyx = np.array([[[1, 0, 0], [0, 1, 0], [0, 0, 0]]], np.uint8)
    assert apply_rules(label_zyx, (Rule((1,)),)).sum() == 2


def test_rules_apply_one_after_the_other() -> None:
    label_zyx = np.array([[[1, 2, 2, 0, 2, 1, 1, 1]]], np.uint8)
    both, one = Rule((1, 2)), Rule((1,))
    assert apply_rules(label_zyx, (both, one)).tolist() == [[[0, 0, 0, 0, 2, 1, 1, 1]]]
    assert apply_rules(label_zyx, (one, both)).tolist() == [[[0, 0, 0, 0, 2, 1, 1, 1]]]
    assert apply_rules(label_zyx, (Rule((2,)), both)).tolist() == [[[1, 2, 2, 0, 0, 1, 1, 1]]]


def test_known_box_gives_the_same() -> None:
    label_zyx = np.zeros((5, 6, 7), np.uint8)
    label_zyx[1, 1:3, 1] = label_zyx[3, 4, 5] = 2
    box, removed = removed_voxels(label_zyx, Rule((2,)), (slice(1, 5), slice(0, 6), slice(1, 7)))
    plain_box, plain_removed = removed_voxels(label_zyx, Rule((2,)))
    assert box == plain_box == (slice(1, 4), slice(1, 5), slice(1, 6))
    np.testing.assert_array_equal(removed, plain_removed)
    assert removed.sum() == 1


def test_bounding_box() -> None:
    mask = np.zeros((4, 5, 6), bool)
    assert bounding_box(mask) is None
    mask[2, 1, 5] = mask[3, 4, 0] = True
    assert bounding_box(mask) == (slice(2, 4), slice(1, 5), slice(0, 6))


def test_rule_survives_json_and_foreign_operations_are_refused() -> None:
    rule = Rule(((1, 2), 3), "faces")
    assert Rule.from_json(rule.to_json()) == rule
    assert rule.to_json()["labels_or_regions"] == [[1, 2], 3]
    with pytest.raises(ModelError, match="newer segwright"):
        Rule.from_json({"operation": "os.system", "labels_or_regions": [1], "connectivity": "full"})
    with pytest.raises(ModelError, match="not valid"):
        Rule.from_json({"operation": "keep_largest_component", "labels_or_regions": "?"})
