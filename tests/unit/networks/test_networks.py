"""Topology, names, parameter counts and shapes of the networks (method 7, 15)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from segwright.core.architecture import Architecture
from segwright.core.errors import PlansError, SettingsError
from segwright.networks.blocks import normalized
from segwright.networks.build import NETWORKS, build_network
from segwright.networks.initialization import initialize
from segwright.networks.weights import with_aliases

Small = Callable[..., Architecture]

HIPPOCAMPUS = Architecture(
    kind="plain_unet",
    features_per_stage=(32, 64, 128, 256),
    kernel_sizes=((3, 3, 3),) * 4,
    strides=((1, 1, 1),) + ((2, 2, 2),) * 3,
    blocks_per_stage=(2, 2, 2, 2),
    convs_per_stage_decoder=(2, 2, 2),
)


def test_hippocampus_has_the_public_size_and_names() -> None:
    """Method 15: 5 603 177 parameters, 188 state-dict entries."""
    network = build_network(HIPPOCAMPUS, 1, 3, deep_supervision=True)
    assert sum(parameter.numel() for parameter in network.parameters()) == 5_603_177
    state = with_aliases(network.state_dict())
    assert len(state) == 188
    for key in (
        "encoder.stages.0.0.convs.0.conv.weight",
        "encoder.stages.3.0.convs.1.all_modules.0.bias",
        "decoder.encoder.stages.2.0.convs.1.all_modules.1.weight",
        "decoder.stages.1.convs.0.norm.bias",
        "decoder.transpconvs.0.bias",
        "decoder.seg_layers.2.weight",
    ):
        assert key in state
    assert state["decoder.seg_layers.0.weight"].shape == (3, 128, 1, 1, 1)  # 0 = lowest resolution
    assert state["decoder.transpconvs.0.weight"].shape == (256, 128, 2, 2, 2)


def test_deep_supervision_outputs_of_hippocampus() -> None:
    """Method 15: (40,56,40), (20,28,20), (10,14,10); checked without arithmetic on the meta device."""
    network = build_network(HIPPOCAMPUS, 1, 3, deep_supervision=True).to("meta")
    logits = network(torch.empty(1, 1, 40, 56, 40, device="meta"))
    assert [tuple(level.shape) for level in logits] == [(1, 3, 40, 56, 40), (1, 3, 20, 28, 20), (1, 3, 10, 14, 10)]
    network.deep_supervision = False
    assert network(torch.empty(1, 1, 40, 56, 40, device="meta")).shape == (1, 3, 40, 56, 40)


@pytest.mark.parametrize("kind", ["plain_unet", "residual_unet"])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_shapes_with_anisotropic_strides(small: Small, kind: str, dimensions: int) -> None:
    network = build_network(small(kind, dimensions), 2, 4, deep_supervision=True)
    image = torch.randn(2, 2, *(8, 16, 8)[3 - dimensions :])
    logits = network(image)
    expected = [(8, 16, 8), (8, 8, 4)] if dimensions == 3 else [(16, 8), (16, 4)]
    assert [tuple(level.shape) for level in logits] == [(2, 4, *shape) for shape in expected]
    network.deep_supervision = False
    assert torch.equal(network(image), logits[0])


def test_residual_unet_names_and_skip_paths(small: Small) -> None:
    """Method 7.3: skip.1 behind a pooling, skip.0 without; a stage that keeps size and features has no skip weights."""
    architecture = replace(small("residual_unet"), features_per_stage=(4, 8, 8))
    keys = set(build_network(architecture, 1, 2).state_dict())
    assert "encoder.stem.convs.0.conv.weight" in keys
    assert "encoder.stages.0.blocks.0.conv1.conv.weight" in keys
    assert not any(key.startswith("encoder.stages.0.blocks.0.skip") for key in keys)
    assert "encoder.stages.1.blocks.0.skip.1.conv.weight" in keys
    assert "encoder.stages.1.blocks.0.skip.1.conv.bias" not in keys
    assert "encoder.stages.1.blocks.0.skip.1.norm.weight" in keys
    assert not any("encoder.stages.2.blocks.0.skip" in key for key in keys)  # 8 -> 8: pooling only
    assert "encoder.stages.2.blocks.2.conv2.norm.bias" in keys
    without_stride = replace(architecture, strides=((1, 1, 1), (1, 1, 1), (2, 2, 2)))
    assert "encoder.stages.1.blocks.0.skip.0.conv.weight" in build_network(without_stride, 1, 2).state_dict()


def test_block_arithmetic_equals_a_direct_evaluation(small: Small) -> None:
    """Plain block = leaky(norm(conv)); residual block adds its input before the activation."""
    network = build_network(small("residual_unet", stages=2), 1, 2)
    initialize(network, 3)
    block = network.encoder.stages[0].blocks[0]
    torch.nn.init.normal_(block.conv2.norm.weight)
    x = torch.randn(1, 4, 4, 6, 6)
    inner = torch.nn.functional.conv3d(x, block.conv1.conv.weight, block.conv1.conv.bias, padding=(0, 1, 1))
    inner = torch.nn.functional.leaky_relu(torch.nn.functional.instance_norm(inner), 0.01)
    outer = torch.nn.functional.conv3d(inner, block.conv2.conv.weight, block.conv2.conv.bias, padding=(0, 1, 1))
    outer = torch.nn.functional.instance_norm(outer) * block.conv2.norm.weight.view(1, -1, 1, 1, 1)
    expected = torch.nn.functional.leaky_relu(outer + x, 0.01)
    torch.testing.assert_close(block(x), expected, rtol=1e-5, atol=1e-5)


def test_initialization_is_seeded_and_follows_the_rule(small: Small) -> None:
    architecture = replace(small("residual_unet"), features_per_stage=(16, 32, 32))
    first, second, other = (build_network(architecture, 1, 2) for _ in range(3))
    initialize(first, 7)
    torch.rand(5)  # other users of the global generator do not matter
    initialize(second, 7)
    initialize(other, 8)
    states = [network.state_dict() for network in (first, second, other)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(states[0]["decoder.seg_layers.0.weight"], states[2]["decoder.seg_layers.0.weight"])
    state = states[0]
    weight = state["encoder.stages.2.blocks.2.conv1.conv.weight"]
    fan_in = 32 * 27
    assert weight.std().item() == pytest.approx((2 / (1 + 0.01**2) / fan_in) ** 0.5, rel=0.05)
    assert all(value.abs().max() == 0 for key, value in state.items() if key.endswith("conv.bias"))
    assert state["encoder.stages.2.blocks.2.conv2.norm.weight"].abs().max() == 0
    assert state["encoder.stages.2.blocks.2.conv1.norm.weight"].min() == 1


def test_wrong_numbers_and_unknown_names_are_named() -> None:
    with pytest.raises(PlansError, match="n_conv_per_stage_decoder has 2 entries but must have 3"):
        build_network(replace(HIPPOCAMPUS, convs_per_stage_decoder=(2, 2)), 1, 3)
    with pytest.raises(PlansError, match="odd"):
        build_network(replace(HIPPOCAMPUS, kernel_sizes=((2, 3, 3),) * 4), 1, 3)
    with pytest.raises(PlansError, match="first stride"):
        build_network(replace(HIPPOCAMPUS, strides=((2, 2, 2),) * 4), 1, 3)
    with pytest.raises(SettingsError, match="did you mean plain_unet"):
        build_network(replace(HIPPOCAMPUS, kind="plain_unett"), 1, 3)
    assert {"plain_unet", "residual_unet"} <= set(NETWORKS.names())


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [(2, 5, 7, 9), (2, 3, 4, 6, 5)])
def test_normalization_on_the_cpu_is_instance_norm(shape: tuple[int, ...], affine: bool) -> None:
    """To the last bit in float32; in bfloat16, where groups of one channel are normalised, to its rounding."""
    operator = nn.InstanceNorm2d if len(shape) == 4 else nn.InstanceNorm3d
    norm = operator(shape[1], eps=1e-3, affine=affine)
    if affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    weights = torch.randn(shape)
    for dtype, tolerance in ((torch.float32, 0.0), (torch.bfloat16, 2**-6)):
        features = torch.randn(shape).add_(3).to(dtype).requires_grad_()
        exact = features.detach().float().requires_grad_()
        wanted, found = norm(exact), normalized(norm, features)
        torch.testing.assert_close(found.float(), wanted, rtol=tolerance, atol=tolerance)
        theirs = torch.autograd.grad((wanted * weights).sum(), exact)[0]
        ours = torch.autograd.grad((found.float() * weights).sum(), features)[0]
        torch.testing.assert_close(ours.float(), theirs, rtol=tolerance, atol=4 * tolerance)
