from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segwright.planning.topology import bounded_topology, derive_topology, nearest_legal_sizes

spacings = st.lists(st.floats(0.3, 8), min_size=2, max_size=3)


def test_prostate_like_topology() -> None:
    """Method 15."""
    topology = derive_topology((3.6, 0.62, 0.62), (20, 320, 256))
    assert topology.pools == (2, 6, 6)
    assert topology.strides == ((1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2), (1, 2, 2))
    assert topology.kernels == ((1, 3, 3),) * 2 + ((3, 3, 3),) * 5
    assert topology.patch_size == (20, 320, 256)


def test_half_voxels_round_up() -> None:
    """Method 15: a median of an even number of cases may end in .5."""
    topology = derive_topology((1, 1, 1), (36, 50, 34.5))
    assert topology.pools == (3, 3, 3) and topology.patch_size == (40, 56, 40)


@pytest.mark.parametrize(("edge", "stages"), [(7, 1), (8, 1), (11, 1), (12, 2)])
def test_a_single_axis_is_halved_only_from_twelve_voxels_on(edge: int, stages: int) -> None:
    """Method 3.4: 8 is enough for several axes, 12 is needed for one alone."""
    assert derive_topology((1, 1), (edge, 4)).n_stages == stages
    assert derive_topology((1, 1), (8, 8)).n_stages == 2


def test_a_factor_of_exactly_two_keeps_axes_apart() -> None:
    """Method 3.4: the comparison is strict, for pooling and for kernels."""
    topology = derive_topology((2.0, 1.0, 1.0), (64, 64, 64))
    assert topology.strides[1] == (1, 2, 2) and topology.kernels[0] == (1, 3, 3)
    assert derive_topology((1.99, 1.0, 1.0), (64, 64, 64)).strides[1] == (2, 2, 2)


@given(spacings, st.data())
@settings(max_examples=80, deadline=None)
def test_properties(spacing: list[float], data: st.DataObject) -> None:
    size = data.draw(st.lists(st.integers(1, 600), min_size=len(spacing), max_size=len(spacing)))
    topology = derive_topology(spacing, size)
    assert len(topology.kernels) == topology.n_stages == len(topology.strides)
    for axis, edge in enumerate(topology.patch_size):
        assert edge % topology.divisors[axis] == 0 and 0 <= edge - size[axis] < topology.divisors[axis]
        assert edge // topology.divisors[axis] >= min(4, size[axis])
    for below, above in zip(topology.kernels, topology.kernels[1:], strict=False):
        assert all(a >= b for a, b in zip(above, below, strict=True))  # once 3, stays 3
    assert derive_topology(spacing, topology.patch_size).n_stages >= topology.n_stages


@given(spacings, st.data(), st.integers(8, 200), st.integers(2, 6))
@settings(max_examples=80, deadline=None)
def test_limits_hold(spacing: list[float], data: st.DataObject, max_edge: int, max_stages: int) -> None:
    size = data.draw(st.lists(st.integers(1, max_edge), min_size=len(spacing), max_size=len(spacing)))
    topology = bounded_topology(spacing, size, max_edge, max_stages)
    assert max(topology.patch_size) <= max_edge and topology.n_stages <= max_stages
    assert all(edge % divisor == 0 for edge, divisor in zip(topology.patch_size, topology.divisors, strict=True))


def test_without_limits_it_is_the_method() -> None:
    assert bounded_topology((1, 1, 1), (36, 50, 35), None, None) == derive_topology((1, 1, 1), (36, 50, 35))


def test_nearest_legal_sizes() -> None:
    assert nearest_legal_sizes((1, 1, 1), (50, 64, 64), 0) == (48, 56)
    for edge in nearest_legal_sizes((1, 1, 1), (50, 64, 64), 0):
        assert edge is not None
        assert derive_topology((1, 1, 1), (edge, 64, 64)).patch_size == (edge, 64, 64)
