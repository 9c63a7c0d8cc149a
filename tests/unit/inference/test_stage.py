"""A trained configuration: what its trainings recorded, and what its predictions depend on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from segwright.core.errors import DamagedFileError, ModelError
from segwright.core.files import file_digest, write_json
from segwright.core.settings import PredictionSettings
from segwright.inference.stage import Stage, TrainingFacts, merge_training_facts, read_training_facts

from .conftest import PLAIN, REGIONS, predict_plan, write_weights

SETTINGS = PredictionSettings()


def test_weights_must_be_those_their_training_recorded(tmp_path: Path) -> None:
    plan = predict_plan()
    weights = [write_weights(tmp_path / f"{seed}.safetensors", plan, seed) for seed in (0, 1)]
    records = [tmp_path / f"{seed}.json" for seed in (0, 1)]
    for path, axes, file in zip(records, ([2, 0], [0, 1, 2]), weights, strict=True):
        write_json(path, {"mirror_axes": axes, "settings": {}, "weights_digest": file_digest(file)})
    assert Stage.of_folds(plan, weights, records) == Stage(plan, tuple(weights), TrainingFacts((0, 2)))
    with pytest.raises(DamagedFileError, match=r"1\.safetensors: .* not what .*0\.json recorded; delete .*0\.json"):
        Stage.of_folds(plan, weights[::-1], records)
    records[1].write_text("[]")
    with pytest.raises(DamagedFileError, match=r"1\.json: not a training record"):
        Stage.of_folds(plan, weights, records)


def test_training_record_is_read(tmp_path: Path) -> None:
    path = tmp_path / "training.json"
    settings = {"network": "n", "torch_threads": 3}
    write_json(path, {"mirror_axes": [0, 2], "settings": settings, "plugins": {"p.py": "d"}})
    assert read_training_facts(path) == TrainingFacts((0, 2), "n", {"p.py": "d"}, 3)
    write_json(path, {"epochs": 3})
    with pytest.raises(DamagedFileError, match=r"training\.json"):
        read_training_facts(path)


def test_folds_that_predict_together_must_agree() -> None:
    merged = merge_training_facts([TrainingFacts((0, 1)), TrainingFacts((1, 2))])
    assert merged.mirror_axes == (1,)
    with pytest.raises(ModelError, match="different networks"):
        merge_training_facts([TrainingFacts(network="a"), TrainingFacts(network="b")])


def test_digest_changes_with_what_changes_results(tmp_path: Path) -> None:
    plan = predict_plan(REGIONS)
    stage = Stage(plan, (write_weights(tmp_path / "m", plan),), TrainingFacts((0, 1)))
    digest = stage.digest(SETTINGS)
    assert digest == stage.digest(PredictionSettings(save_probabilities=True))
    reordered = replace(plan.preprocess, labels=replace(plan.labels, entries=plan.labels.entries[::-1]))
    changed = [
        replace(stage, plan=predict_plan(PLAIN)).digest(SETTINGS),
        replace(stage, weights=stage.weights * 2).digest(SETTINGS),
        stage.digest(PredictionSettings(tile_step=0.4)),
        stage.digest(PredictionSettings(mirroring=False)),
        replace(stage, training=TrainingFacts((0,))).digest(SETTINGS),
        replace(stage, plan=replace(plan, preprocess=reordered)).digest(SETTINGS),
    ]
    assert len({digest, *changed}) == 7
