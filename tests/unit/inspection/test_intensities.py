"""Counting and mixing foreground intensities, against numpy on the voxels themselves."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segwright.inspection import intensities
from segwright.inspection.intensities import EXACT_VALUES, SKETCH_GROUPS, count_values, mix, weighted_percentiles


def _percentiles(voxels: np.ndarray, percentages: Sequence[float]) -> tuple[float, ...]:
    values, counts = np.unique(voxels.astype(np.float64), return_counts=True)
    return weighted_percentiles(values, counts / voxels.size, percentages)


def _of_infinitely_many_draws(voxels: np.ndarray, percentage: Fraction) -> float:
    """The voxel up to which more than the percentage lies; half-way to the next one where one ends exactly there."""
    ordered, rank = np.sort(voxels.astype(np.float64)), percentage / 100 * voxels.size
    whole = math.floor(rank)
    first = whole - 1 if rank == whole and whole > 0 else whole
    return float(ordered[min(first, voxels.size - 1)] + ordered[min(whole, voxels.size - 1)]) / 2


@settings(max_examples=80, deadline=None)
@given(
    voxels=st.lists(st.integers(-50, 50) | st.floats(-1e4, 1e4, width=32), min_size=1, max_size=60),
    tenths=st.lists(st.integers(0, 1000), min_size=1, max_size=5),
)
def test_percentiles_of_one_case_lie_at_its_voxels(voxels: list[float], tenths: list[int]) -> None:
    array = np.array(voxels, np.float32)
    expected = [_of_infinitely_many_draws(array, Fraction(tenth, 10)) for tenth in tenths]
    assert np.allclose(_percentiles(array, [tenth / 10 for tenth in tenths]), expected, rtol=1e-7, atol=1e-7)


def test_percentiles_are_those_of_very_many_draws() -> None:
    """A structure of 45 voxels: the percentiles 0.5 and 99.5 of draws with replacement are its extremes."""
    voxels = np.random.default_rng(7).normal(100, 20, 45).astype(np.float32)
    drawn = np.random.default_rng(8).choice(voxels, 200_000)
    found = mix([count_values(voxels)])
    assert found is not None
    assert found.percentile_00_5 == pytest.approx(np.percentile(drawn, 0.5), rel=1e-7) == voxels.min()
    assert found.median == pytest.approx(np.percentile(drawn, 50), rel=1e-7)
    assert found.percentile_99_5 == pytest.approx(np.percentile(drawn, 99.5), rel=1e-7) == voxels.max()


@settings(max_examples=30, deadline=None)
@given(n_cases=st.integers(1, 4), size=st.integers(1, 40), whole=st.booleans(), seed=st.integers(0, 9999))
def test_cases_of_equal_size_equal_numpy_on_the_pooled_voxels(n_cases: int, size: int, whole: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    cases = [rng.normal(100 * k, 30, size).astype(np.float32) for k in range(n_cases)]
    cases = [np.rint(case) for case in cases] if whole else cases
    found = mix(count_values(case) for case in cases)
    pooled = np.concatenate(cases).astype(np.float64)
    assert found is not None
    percentiles = [_of_infinitely_many_draws(pooled, Fraction(p)) for p in ("0.5", "50", "99.5")]
    expected = [*percentiles, pooled.mean(), pooled.std(), pooled.min(), pooled.max()]
    got = [found.percentile_00_5, found.median, found.percentile_99_5, found.mean, found.std, found.min, found.max]
    assert np.allclose(got, expected, rtol=1e-6, atol=1e-4)


def test_every_case_weighs_the_same() -> None:
    """Ten voxels of one case count as much as a thousand of another: v2's draws with replacement in the limit."""
    small, large = np.arange(10, dtype=np.float32), np.arange(1000, dtype=np.float32) + 500
    found = mix([count_values(small), count_values(large)])
    assert found is not None
    assert found.mean == pytest.approx((4.5 + 999.5) / 2)
    rng = np.random.default_rng(0)
    drawn = np.concatenate([rng.choice(small, 200_000), rng.choice(large, 200_000)])
    assert found.std == pytest.approx(drawn.std(), rel=3e-3)
    assert found.percentile_00_5 == pytest.approx(np.percentile(drawn, 0.5), abs=0.5)
    assert found.percentile_99_5 == pytest.approx(np.percentile(drawn, 99.5), abs=2)
    assert found.median == pytest.approx((9 + 500) / 2, rel=1e-6)  # half of the weight lies on either side


def test_percentiles_of_cases_of_different_size() -> None:
    rng = np.random.default_rng(5)
    cases = [rng.integers(0, 30, size).astype(np.float32) for size in (4, 12, 24)]
    alike = np.concatenate([np.repeat(case, 24 // case.size) for case in cases])
    found = mix(count_values(case) for case in cases)
    assert found is not None
    assert [found.percentile_00_5, found.median, found.percentile_99_5] == pytest.approx(
        [_of_infinitely_many_draws(alike, Fraction(p)) for p in ("0.5", "50", "99.5")], abs=1e-6
    )


def test_cases_without_foreground_contribute_nothing() -> None:
    case, empty = count_values(np.array([1, 2, 4], np.float32)), count_values(np.zeros(0, np.float32))
    assert mix([case, empty]) == mix([case])
    assert mix([empty]) is None


def test_large_whole_numbers_are_counted_exactly() -> None:
    voxels = np.array([16_777_218, 3, 16_777_218, -7], np.float32)
    found = count_values(voxels)
    assert found.values.tolist() == [-7, 3, 16_777_218] and found.counts.tolist() == [1, 1, 2]
    assert found.summary.mean == pytest.approx((2 * 16_777_218 - 4) / 4, rel=1e-12)


def test_sketch_keeps_moments_exactly_and_percentiles_closely() -> None:
    voxels = np.random.default_rng(1).gamma(2.0, 50.0, 200_000).astype(np.float32)
    found = count_values(voxels)
    assert found.summary.sketched and found.values.size <= SKETCH_GROUPS < EXACT_VALUES
    assert found.counts.sum() == voxels.size
    wide = voxels.astype(np.float64)
    assert found.summary.mean == pytest.approx(wide.mean(), rel=1e-12)
    assert found.summary.variance == pytest.approx(wide.var(), rel=1e-9)
    statistics = mix([found])
    assert statistics is not None and statistics.min == wide.min() and statistics.max == wide.max()
    ranks = [
        np.mean(wide < value) for value in (statistics.percentile_00_5, statistics.median, statistics.percentile_99_5)
    ]
    assert np.abs(np.array(ranks) - (0.005, 0.5, 0.995)).max() < 1e-4


def test_a_mixture_of_many_values_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    cases = [count_values(rng.normal(k, 1, 3000).astype(np.float32)) for k in range(12)]
    exact = mix(cases)
    monkeypatch.setattr(intensities, "MIXED_VALUES", 1 << 13)
    bounded = mix(cases)
    assert exact is not None and bounded is not None
    assert bounded.mean == exact.mean and bounded.std == exact.std
    assert bounded.median == pytest.approx(exact.median, abs=0.05)
    assert bounded.percentile_99_5 == pytest.approx(exact.percentile_99_5, abs=0.05)


def test_records_merge_in_any_order() -> None:
    rng = np.random.default_rng(3)
    cases = [count_values(rng.integers(0, 50, int(n)).astype(np.float32)) for n in rng.integers(5, 90, 6)]
    forth, back = mix(cases), mix(cases[::-1])
    assert forth is not None and back is not None
    assert np.allclose(list(forth.to_json().values()), list(back.to_json().values()), rtol=1e-9)


@pytest.mark.parametrize(("low", "high"), [(-1024, 3071), (0, 1 << 20)])
def test_whole_numbers_are_counted_block_by_block(low: int, high: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intensities, "_BLOCK_VOXELS", 1 << 16)
    voxels = np.random.default_rng(4).integers(low, high, 1_500_000, endpoint=True).astype(np.float32)
    values, counts = np.unique(voxels, return_counts=True)
    found = intensities._count_whole(voxels, int(voxels.min()), int(voxels.max()))
    np.testing.assert_array_equal(np.flatnonzero(found) + int(voxels.min()), values)
    np.testing.assert_array_equal(found[found > 0], counts)
    voxels[-1] += 0.5
    assert not intensities._are_whole(voxels) and intensities._are_whole(voxels[:-1])


def test_counting_whole_numbers_takes_little_memory() -> None:
    voxels = np.random.default_rng(4).integers(-1024, 3071, 1 << 22).astype(np.float32)
    tracemalloc.start()
    found = count_values(voxels)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.counts.sum() == voxels.size and peak_bytes < voxels.nbytes / 2
