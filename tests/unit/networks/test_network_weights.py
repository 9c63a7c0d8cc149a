"""Reading and writing weights: aliases, equal bytes, clear refusals (method 7.2, 14.4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from segwright.core.architecture import Architecture
from segwright.core.errors import DamagedFileError, ModelError
from segwright.networks.build import build_network
from segwright.networks.initialization import initialize
from segwright.networks.weights import canonical_name, load_into, load_weights, save_weights, with_aliases

Network = Callable[..., torch.nn.Module]


@pytest.fixture
def network(small: Callable[..., Architecture]) -> Network:
    """Builder of small initialised networks."""

    def build(seed: int, outputs: int = 2, kind: str = "plain_unet") -> torch.nn.Module:
        result = build_network(small(kind), 1, outputs)
        initialize(result, seed)
        return result

    return build


@pytest.mark.parametrize(
    ("alias", "canonical"),
    [
        ("encoder.stages.0.0.convs.1.all_modules.0.weight", "encoder.stages.0.0.convs.1.conv.weight"),
        ("decoder.encoder.stages.0.0.convs.1.all_modules.1.bias", "encoder.stages.0.0.convs.1.norm.bias"),
        ("module._orig_mod.decoder.stages.0.convs.0.all_modules.1.weight", "decoder.stages.0.convs.0.norm.weight"),
        ("decoder.encoder.stem.convs.0.conv.bias", "encoder.stem.convs.0.conv.bias"),
        ("decoder.seg_layers.1.weight", "decoder.seg_layers.1.weight"),
        ("head.all_modules.0.weight", "head.all_modules.0.weight"),
    ],
)
def test_canonical_name(alias: str, canonical: str) -> None:
    assert canonical_name(alias) == canonical


@pytest.mark.parametrize("kind", ["plain_unet", "residual_unet"])
def test_any_single_alias_is_enough(network: Network, kind: str) -> None:
    source, target = network(1, kind=kind), network(2, kind=kind)
    aliases = with_aliases(source.state_dict())
    own = source.state_dict()
    assert {canonical_name(key) for key in aliases} == set(own)
    last_alias = {canonical_name(key): key for key in aliases}  # the last listed alias of each tensor alone
    load_into(target, {f"module.{key}": aliases[key] for key in last_alias.values()})
    assert all(torch.equal(target.state_dict()[key], own[key]) for key in own)


def test_file_round_trip_is_exact_and_bytes_are_equal(network: Network, tmp_path: Path) -> None:
    source = network(1)
    metadata = {f"key{index}": "value" for index in range(20)}
    save_weights(tmp_path / "a.safetensors", source, metadata)
    save_weights(tmp_path / "b.safetensors", source, dict(reversed(metadata.items())))
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    state = load_weights(tmp_path / "a.safetensors")
    assert set(state) == set(source.state_dict())
    assert all(torch.equal(state[key], value) for key, value in source.state_dict().items())


def test_damaged_and_missing_files_are_named(network: Network, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(DamagedFileError, match=r"model\.safetensors"):
        load_weights(path)
    save_weights(path, network(1), {})
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DamagedFileError, match="not a readable safetensors file"):
        load_weights(path)


def test_weights_that_do_not_fit_are_refused(network: Network) -> None:
    target = network(2)
    state = dict(network(1).state_dict())
    removed = state.pop("decoder.seg_layers.0.bias")
    with pytest.raises(ModelError, match=r"decoder\.seg_layers\.0\.bias is missing"):
        load_into(target, state)
    with pytest.raises(ModelError, match="unknown to the network"):
        load_into(target, {**state, "decoder.seg_layers.0.bias": removed, "extra": removed})
    with pytest.raises(ModelError, match=r"is \(3,\), the network needs \(2,\)"):
        load_into(target, network(1, outputs=3).state_dict())
    aliased = with_aliases(network(1).state_dict())
    aliased["decoder.encoder.stages.0.0.convs.0.conv.bias"] = torch.ones(4)
    with pytest.raises(ModelError, match="different values"):
        load_into(target, aliased)


def test_initial_model_copies_all_but_the_heads(network: Network, small: Callable[..., Architecture]) -> None:
    """Method 14.4: heads keep their own weights, even where they would fit; the rest must fit."""
    target, source = network(2, outputs=4), network(1)
    before = {key: value.clone() for key, value in target.state_dict().items()}
    load_into(target, source.state_dict(), strict=False)
    for key, value in target.state_dict().items():
        expected = before[key] if ".seg_layers." in key else source.state_dict()[key]
        assert torch.equal(value, expected)
    narrow = build_network(replace(small(), features_per_stage=(2, 8, 8)), 1, 2)
    with pytest.raises(ModelError, match="do not fit"):
        load_into(target, narrow.state_dict(), strict=False)


class SharedEncoder(nn.Module):
    """A plugin's network like the public ones: its decoder holds the encoder again, its block a list of its parts."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Module(), nn.Module()
        self.encoder.conv = nn.Conv3d(1, 2, 1)
        self.encoder.all_modules = nn.Sequential(self.encoder.conv)
        self.decoder.encoder = self.encoder


class Wrapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.module = nn.Conv3d(1, 2, 1)


@pytest.mark.parametrize("plugin", [SharedEncoder, Wrapped])
@pytest.mark.parametrize("strict", [True, False])
def test_a_network_whose_own_names_are_aliases_is_read_again(
    tmp_path: Path, plugin: type[nn.Module], strict: bool
) -> None:
    source, target = plugin(), plugin()
    save_weights(tmp_path / "model.safetensors", source, {})
    load_into(target, load_weights(tmp_path / "model.safetensors"), strict=strict)
    assert all(torch.equal(found, source.state_dict()[name]) for name, found in target.state_dict().items())
