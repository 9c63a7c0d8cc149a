"""Preprocessing of a large case, and of a dataset of small ones.

A large case: read, crop, normalise, resample, sample class locations, write. Small ones: the
whole command; segwright's inspects every case again.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.pairs import Command, Function, Goal, Pair, Place
from benchmarks.stages.compare import stored_cases

ISOTROPIC, THICK = "preprocessing, a large CT, isotropic", "preprocessing, a large CT, anisotropic"
SMALL = "preprocessing, 40 Hippocampus cases, 2d and 3d_fullres"
STAGES = (ISOTROPIC, THICK, SMALL)
_CONFIGURATIONS = ("2d", "3d_fullres")
_MEMORY_SHARE = 2 / 3


def pair(stage: str, place: Place) -> Pair | None:
    return _small(place) if stage == SMALL else _large(stage, place)


def _large(stage: str, place: Place) -> Pair | None:
    from benchmarks.stages.inputs import CT_SPACINGS_MM, THICK_SPACINGS_MM, large_cts, prepare
    from segwright.core.settings import PlanningSettings

    folder = large_cts(place, CT_SPACINGS_MM if stage == ISOTROPIC else THICK_SPACINGS_MM)
    if folder is None:
        return None
    target = (1.0, 1.0, 1.0) if stage == ISOTROPIC else (4.0, 1.0, 1.0)
    prepared = prepare(place, folder, PlanningSettings(spacing_mm=target))
    arguments = {
        "plans": str(prepared.plans_file),
        "dataset": str(folder),
        "configuration": "3d_fullres",
        "case": prepared.dataset.training[1].case_id,
    }
    stores = {who: place.work / f"stored_{who}" for who in ("peer", "ours")}
    for store in stores.values():
        store.mkdir()
    must, target_ratio = (6.0, 10.0) if stage == ISOTROPIC else (5.0, 8.0)
    return Pair(
        stage,
        peer=Function(
            "benchmarks.stages.peer_files:preprocess", {**arguments, "output": str(stores["peer"])}, prepared.variables
        ),
        ours=Function("benchmarks.stages.own:preprocess", {**arguments, "output": str(stores["ours"])}),
        must=Goal(ratio=must, memory_share=_MEMORY_SHARE),
        target=Goal(ratio=target_ratio, memory_share=_MEMORY_SHARE),
        difference=stored_cases,
    )


def _small(place: Place) -> Pair | None:
    from benchmarks.stages.inputs import hippocampus, peer_command, prepare, segwright_command

    folder = hippocampus(place)
    if folder is None:
        return None
    prepared = prepare(place, folder)
    peers = [prepared.plans_file.parent / f"nnUNetPlans_{name}" for name in _CONFIGURATIONS]
    ours = place.work / "stores"
    words = ("preprocess", "--dataset", folder, "--plans", prepared.plans_file, "--output", ours)
    words = (*words, "--configuration", *_CONFIGURATIONS)
    peers_words = ("-d", prepared.number, "-c", *_CONFIGURATIONS, "-np", "1", "--no_pbar")
    return Pair(
        SMALL,
        peer=Command(
            (peer_command(place, "preprocess", *peers_words),),
            prepared.variables,
            tuple(peers),
            peers[1],
        ),
        ours=Command(
            (segwright_command(place, *words),),
            clean=(ours,),
            outcome=ours / "3d_fullres",
        ),
        must=Goal(ratio=5),
        target=Goal(ratio=9),
        difference=count_cases,
    )


def count_cases(ours: Path, peers: Path) -> str:
    """Stored cases of both; their content is compared by benchmarks/peer/compare_preprocessing.py."""
    from segwright.preprocessing.store import PreprocessedStore

    store = PreprocessedStore(ours)
    found = {path.name.removesuffix(".pkl") for path in peers.glob("*.pkl")}
    voxels = sum(int(np.prod(store.open(case).properties.shape)) for case in store.case_ids)
    both, all_cases = found & set(store.case_ids), found | set(store.case_ids)
    return f"{len(both)} of {len(all_cases)} cases in both; {voxels / 1e6:.1f} M voxels"
