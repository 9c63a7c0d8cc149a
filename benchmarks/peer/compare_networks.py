"""Networks: the peer's weights in ours and ours in the peer's, all heads of deep supervision (method 7)."""

from __future__ import annotations

import torch

from benchmarks.peer.common import SEED, Table, relative_difference, workplace
from benchmarks.peer.small import ARCHITECTURES, our_network, peer_network
from segwright.core.architecture import Architecture
from segwright.networks.build import build_network
from segwright.networks.initialization import initialize
from segwright.networks.weights import with_aliases

CHANNELS, OUTPUTS = 2, 3
TOLERANCE = 1e-5


def main() -> None:
    table = Table("Networks")
    with workplace():
        for name, architecture in ARCHITECTURES.items():
            compare(name, architecture, table)
    table.close()


def compare(name: str, architecture: Architecture, table: Table) -> None:
    image = torch.randn(2, CHANNELS, *(16, 32, 16)[-architecture.dimensions :], generator=generator())
    peers = peer_network(architecture, CHANNELS, OUTPUTS).eval()
    ours = our_network(architecture, CHANNELS, OUTPUTS, peers.state_dict()).eval()
    table.row(
        f"{name}: heads, the peer's weights in ours", worst_head(ours, peers, image), TOLERANCE, " of the largest"
    )
    table.row(f"{name}: full resolution alone", alone(ours, peers, image), TOLERANCE, " of the largest")

    ours = build_network(architecture, CHANNELS, OUTPUTS, True).eval()
    initialize(ours, SEED)
    state = with_aliases(ours.state_dict())
    unknown = set(state) ^ set(peers.state_dict())
    table.row(f"{name}: names of weights that only one knows", len(unknown), 0)
    peers.load_state_dict(state, strict=True)
    table.row(f"{name}: heads, our weights in the peer's", worst_head(ours, peers, image), TOLERANCE, " of the largest")
    table.row(f"{name}: spread of initial weights", initial_spread(architecture), 0.2, " of the peer's")


@torch.no_grad()
def worst_head(ours: torch.nn.Module, peers: torch.nn.Module, image: torch.Tensor) -> float:
    pairs = zip(ours(image), peers(image), strict=True)
    return max(relative_difference(mine.numpy(), theirs.numpy()) for mine, theirs in pairs)


@torch.no_grad()
def alone(ours: torch.nn.Module, peers: torch.nn.Module, image: torch.Tensor) -> float:
    ours.deep_supervision = False
    peers.decoder.deep_supervision = False
    difference = relative_difference(ours(image).numpy(), peers(image).numpy())
    peers.decoder.deep_supervision = True
    return difference


def initial_spread(architecture: Architecture) -> float:
    """Largest relative difference of a parameter's standard deviation, over parameters of more than 500 numbers."""
    import json

    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    entry = json.loads(json.dumps(architecture.to_json()))
    peers = get_network_from_plans(
        entry["network_class_name"], entry["arch_kwargs"], entry["_kw_requires_import"], CHANNELS, OUTPUTS,
        allow_init=True, deep_supervision=True,
    ).state_dict()  # fmt: skip
    network = build_network(architecture, CHANNELS, OUTPUTS, True)
    initialize(network, SEED)
    worst = 0.0
    for name, mine in with_aliases(network.state_dict()).items():
        theirs = peers[name]
        if mine.numel() > 500:
            worst = max(worst, abs(float(mine.std() / theirs.std()) - 1))
        elif name.endswith(("bias", "norm.weight")):
            worst = max(worst, float((mine - theirs).abs().max()))
    return worst


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(SEED)


if __name__ == "__main__":
    main()
