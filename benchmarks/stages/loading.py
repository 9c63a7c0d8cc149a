"""Loading and augmentation in one process, steady state: patches a second, as the trainers make them.

Both draw their own random numbers, with the same chances and ranges (method 6.2), so a run makes many patches.
"""

from __future__ import annotations

from benchmarks.measure import run_command
from benchmarks.pairs import Function, Goal, Pair, Place

SMALL, LARGE = "load and augment, 40x56x40", "load and augment, 128x128x128, 6 labels"
STAGES = (SMALL, LARGE)
_BATCHES = {SMALL: 150, LARGE: 16}


def pair(stage: str, place: Place) -> Pair | None:
    from benchmarks.stages.inputs import hippocampus, large_cts, peer_command, prepare, segwright_command

    folder = hippocampus(place) if stage == SMALL else large_cts(place)
    if folder is None:
        return None
    edges = [40, 56, 40] if stage == SMALL else [128, 128, 128]
    prepared = prepare(place, folder, patch_size=edges, **({} if stage == SMALL else {"batch_size": 2}))
    store = place.work / "store"
    words = ("-d", prepared.number, "-c", "3d_fullres", "-np", "1", "--no_pbar")
    run_command(peer_command(place, "preprocess", *words), prepared.variables)
    run_command(
        segwright_command(
            place, "preprocess", "--dataset", folder, "--plans", prepared.plans_file, "--configuration", "3d_fullres",
            "--output", store,
        )
    )  # fmt: skip
    shared = {"plans": str(prepared.plans_file), "configuration": "3d_fullres", "batches": _BATCHES[stage]}
    entry = prepared.plans.configuration("3d_fullres")
    variables = {**prepared.variables, "nnUNet_n_proc_DA": "0"}
    return Pair(
        stage,
        peer=Function(
            "benchmarks.stages.peer_files:load_and_augment",
            {**shared, "dataset_json": str(folder / "dataset.json")},
            variables,
        ),
        ours=Function(
            "benchmarks.stages.own:load_and_augment",
            {**shared, "dataset": str(folder), "index": str(store / "index.json")},
        ),
        must=Goal(ratio=2.5),
        target=Goal(ratio=4),
        per_run=(_BATCHES[stage] * entry.batch_size, "patches"),
        note="other random numbers; distributions are compared in tests/parity",
    )
