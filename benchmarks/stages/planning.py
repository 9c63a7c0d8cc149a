"""Planning, from start to end of the process."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.pairs import Command, Goal, Pair, Place
from benchmarks.stages.inputs import hippocampus, large_cts, peer_command, prepare, segwright_command

SMALL, LARGE = "planning, Hippocampus (2d, 3d_fullres)", "planning, large CTs"
STAGES = (SMALL, LARGE)


def pair(stage: str, place: Place) -> Pair | None:
    folder = hippocampus(place) if stage == SMALL else large_cts(place)
    if folder is None:
        return None
    prepared = prepare(place, folder)
    output = place.work / "plan"
    return Pair(
        stage,
        peer=Command(
            (peer_command(place, "plan_experiment", "-d", prepared.number),),
            prepared.variables,
            outcome=prepared.plans_file,
        ),
        ours=Command(
            (
                segwright_command(
                    place, "plan", "--fingerprint", prepared.fingerprint, "--dataset-json", folder / "dataset.json",
                    "--output", output,
                ),
            ),
            clean=(output,),
            outcome=output / "plans.json",
        ),
        must=Goal(seconds=0.5),
        target=Goal(seconds=0.3),
        difference=difference,
    )  # fmt: skip


def difference(ours: Path, peers: Path) -> str:
    mine, theirs = json.loads(ours.read_text()), json.loads(peers.read_text())
    apart = [
        f"{name}.{key}"
        for name, entry in theirs["configurations"].items()
        for key, value in entry.items()
        if mine["configurations"].get(name, {}).get(key) != value
    ]
    return f"differs: {', '.join(apart)}" if apart else "none in any configuration"
