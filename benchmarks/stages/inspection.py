"""Inspection and fingerprint, from start to end of the process. Segwright's also checks and hashes every file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from benchmarks.pairs import Command, Goal, Pair, Place
from benchmarks.stages.inputs import hippocampus, large_cts, peer_command, peer_variables, segwright_command

SMALL, LARGE = "inspection, 40 Hippocampus cases", "inspection, 3 large CTs"
STAGES = (SMALL, LARGE)
_STATISTICS = ("mean", "median", "std", "percentile_00_5", "percentile_99_5")


def pair(stage: str, place: Place) -> Pair | None:
    folder = hippocampus(place) if stage == SMALL else large_cts(place)
    if folder is None:
        return None
    peers, ours = place.work / "preprocessed" / folder.name, place.work / "checks"
    number = str(int(folder.name[7:10]))
    return Pair(
        stage,
        peer=Command(
            (peer_command(place, "extract_fingerprint", "-d", number, "-np", "1", "--clean", "--no_pbar"),),
            peer_variables(place.work),
            (peers,),
            peers / "dataset_fingerprint.json",
        ),
        ours=Command(
            (segwright_command(place, "inspect", "--dataset", folder, "--output", ours),),
            clean=(ours,),
            outcome=ours / "dataset_fingerprint.json",
        ),
        must=Goal(ratio=4, memory_mib=512),
        target=Goal(ratio=5, memory_mib=512),
        difference=difference,
    )


def difference(ours: Path, peers: Path) -> str:
    mine, theirs = json.loads(ours.read_text()), json.loads(peers.read_text())
    same = mine["shapes_after_crop"] == theirs["shapes_after_crop"] and np.allclose(
        mine["spacings"], theirs["spacings"], rtol=1e-6
    )
    worst = 0.0
    name = "foreground_intensity_properties_per_channel"
    for channel, found in theirs[name].items():
        worst = max(worst, *(abs(found[key] - mine[name][channel][key]) / found["std"] for key in _STATISTICS))
    sizes = "shapes and spacings equal" if same else "SHAPES OR SPACINGS DIFFER"
    return f"{sizes}; statistics {worst:.1g} standard deviations apart (the peer samples voxels)"
