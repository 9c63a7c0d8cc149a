"""The predictor: folds, cascade input, plugins, precision, refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from segwright.core.errors import DamagedFileError, ModelError, SettingsError
from segwright.core.files import file_digest, write_json
from segwright.core.settings import PredictionSettings
from segwright.inference.predictor import (
    Predictor,
    TrainingFacts,
    merge_training_facts,
    prediction_digest,
    read_training_facts,
)
from segwright.inference.sliding_window import Input, Window, predict_scores
from segwright.networks.build import build_network
from segwright.networks.weights import load_into, load_weights

from .conftest import PLAIN, REGIONS, predict_plan, write_weights

IMAGE = np.random.default_rng(0).normal(size=(1, 9, 12, 10)).astype(np.float32)
SETTINGS = PredictionSettings()


def test_scores_are_those_of_the_network(tmp_path: Path) -> None:
    plan = predict_plan()
    weights = write_weights(tmp_path / "m.safetensors", plan)
    found = Predictor(plan, [weights], SETTINGS, "cpu", mirror_axes=(0, 1, 2)).logits(IMAGE)
    network = build_network(plan.architecture, 1, 3, False).eval()
    load_into(network, load_weights(weights))
    expected = predict_scores(network, Input(IMAGE), Window((8, 8, 8), 3, mirror_axes=(0, 1, 2)), torch.device("cpu"))
    assert found.dtype == np.float32 and found.shape == (3, 9, 12, 10)
    np.testing.assert_array_equal(found, expected.numpy())
    without = Predictor(plan, [weights], PredictionSettings(mirroring=False), "cpu", mirror_axes=(0, 1, 2))
    assert np.abs(without.logits(IMAGE) - found).max() > 1e-3


@pytest.mark.parametrize("average", ["logits", "probabilities"])
def test_folds_are_averaged(tmp_path: Path, average: str) -> None:
    plan = predict_plan()
    folds = [write_weights(tmp_path / f"{seed}.safetensors", plan, seed) for seed in (1, 2)]
    settings = PredictionSettings(average=average)  # type: ignore[arg-type]
    single = [Predictor(plan, [fold], settings, "cpu").logits(IMAGE) for fold in folds]
    together = Predictor(plan, folds, settings, "cpu")
    np.testing.assert_allclose(together.logits(IMAGE), (single[0] + single[1]) / 2, atol=1e-6)
    np.testing.assert_allclose(together.logits(IMAGE), (single[0] + single[1]) / 2, atol=1e-6)  # weights take turns
    assert together.kind == average
    if average == "probabilities":
        np.testing.assert_allclose(single[0].sum(axis=0), 1, atol=1e-5)


def test_averaged_regions_lie_between_zero_and_one(tmp_path: Path) -> None:
    plan = predict_plan(REGIONS)
    settings = PredictionSettings(average="probabilities")
    scores = Predictor(plan, [write_weights(tmp_path / "m", plan)], settings, "cpu").logits(IMAGE)
    assert scores.shape[0] == 2 and scores.min() > 0 and scores.max() < 1


def test_2d_predicts_every_plane(tmp_path: Path) -> None:
    plan = predict_plan(dimensions=2, patch=(8, 8), spacing_mm=(1.0, 1.0))
    predictor = Predictor(plan, [write_weights(tmp_path / "m", plan)], SETTINGS, "cpu", mirror_axes=(0,))
    whole = predictor.logits(IMAGE)
    np.testing.assert_allclose(predictor.logits(IMAGE[:, 3:4]), whole[:, 3:4], atol=1e-5)


def test_a_cascade_sees_the_previous_label_map(tmp_path: Path) -> None:
    plan = predict_plan(previous_stage="3d_lowres")
    predictor = Predictor(plan, [write_weights(tmp_path / "m", plan)], SETTINGS, "cpu")
    label = np.zeros(IMAGE.shape[1:], np.uint8)
    nothing = predictor.logits(IMAGE, label)
    label[2:6, 3:7] = 2
    assert np.abs(predictor.logits(IMAGE, label) - nothing).max() > 1e-3
    with pytest.raises(ValueError, match="needs label maps"):
        predictor.logits(IMAGE)
    with pytest.raises(ValueError, match="previous label map"):
        predictor.logits(IMAGE, label[1:])


def test_reduced_precision_is_close(tmp_path: Path) -> None:
    plan = predict_plan()
    weights = write_weights(tmp_path / "m", plan)
    exact = Predictor(plan, [weights], SETTINGS, "cpu").logits(IMAGE)
    reduced = Predictor(plan, [weights], PredictionSettings(precision="bf16"), "cpu").logits(IMAGE)
    assert 0 < np.abs(reduced - exact).max() < 0.1


def test_threads_are_those_asked_for_and_only_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions on another number of threads differ in the last bit, so the workflow fixes it."""
    plan = predict_plan()
    seen = []
    monkeypatch.setattr(
        "segwright.inference.predictor.predict_scores",
        lambda *_: seen.append(torch.get_num_threads()) or torch.zeros(3, 9, 12, 10),
    )
    before = torch.get_num_threads()
    Predictor(plan, [write_weights(tmp_path / "m", plan)], SETTINGS, "cpu", threads=before + 1).logits(IMAGE)
    Predictor(plan, [tmp_path / "m"], SETTINGS, "cpu").logits(IMAGE)
    assert seen == [before + 1, before]
    assert torch.get_num_threads() == before


def test_weights_that_do_not_fit_or_diverged_are_refused(tmp_path: Path) -> None:
    plan = predict_plan()
    with pytest.raises(ModelError, match=r"regions\.safetensors: the weights do not fit"):
        Predictor(plan, [write_weights(tmp_path / "regions.safetensors", predict_plan(REGIONS))], SETTINGS, "cpu")
    with pytest.raises(ModelError, match="no weights"):
        Predictor(plan, [], SETTINGS, "cpu")
    (tmp_path / "text").write_text("not weights")
    with pytest.raises(DamagedFileError, match="text"):
        Predictor(plan, [tmp_path / "text"], SETTINGS, "cpu")
    state = load_weights(write_weights(tmp_path / "m", plan))
    state[next(iter(state))].fill_(float("nan"))
    from segwright.networks.weights import save_weights

    save_weights(tmp_path / "nan", state, {})
    with pytest.raises(ModelError, match=r"nan: .* not finite"):
        Predictor(plan, [tmp_path / "nan"], SETTINGS, "cpu")


def test_output_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    plan = predict_plan()
    predictor = Predictor(plan, [write_weights(tmp_path / "m", plan)], SETTINGS, "cpu")
    with pytest.raises(ModelError, match="not finite"):
        predictor.logits(np.full_like(IMAGE, np.nan))


PLUGIN = """
from segwright.networks.build import NETWORKS
from segwright.networks.plain_unet import plain_unet

@NETWORKS.register("my_unet")
def my_unet(architecture, inputs, outputs, deep_supervision):
    return plain_unet(architecture, inputs, outputs, deep_supervision)
"""


def test_a_plugins_network_needs_the_same_plugin(tmp_path: Path) -> None:
    plan = predict_plan()
    weights = write_weights(tmp_path / "m", plan)
    plugin = tmp_path / "my_networks.py"
    plugin.write_text(PLUGIN)
    training = TrainingFacts(network="my_unet", plugins={"my_networks.py": file_digest(plugin)})
    with pytest.raises(ModelError, match=r"plugin my_networks\.py .* it was not given; use --plugin FILE"):
        Predictor(plan, [weights], SETTINGS, "cpu", training=training)
    assert Predictor(plan, [weights], SETTINGS, "cpu", plugins=[plugin], training=training).logits(IMAGE).any()
    plugin.write_text(PLUGIN.replace("my_unet", "another_unet"))
    with pytest.raises(ModelError, match="another version"):
        Predictor(plan, [weights], SETTINGS, "cpu", plugins=[plugin], training=training)
    with pytest.raises(SettingsError, match="does not exist"):
        Predictor(plan, [weights], SETTINGS, "cpu", plugins=[tmp_path / "missing.py"], training=training)


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
    weights = [write_weights(tmp_path / "m", plan)]
    training = TrainingFacts((0, 1))
    digest = prediction_digest(plan, weights, SETTINGS, training)
    assert digest == prediction_digest(plan, weights, PredictionSettings(save_probabilities=True), training)
    reordered = replace(plan.preprocess, labels=replace(plan.labels, entries=plan.labels.entries[::-1]))
    changed = [
        prediction_digest(predict_plan(PLAIN), weights, SETTINGS, training),
        prediction_digest(plan, weights * 2, SETTINGS, training),
        prediction_digest(plan, weights, PredictionSettings(tile_step=0.4), training),
        prediction_digest(plan, weights, PredictionSettings(mirroring=False), training),
        prediction_digest(plan, weights, SETTINGS, TrainingFacts((0,))),
        prediction_digest(replace(plan, preprocess=reordered), weights, SETTINGS, training),
    ]
    assert len({digest, *changed}) == 7
