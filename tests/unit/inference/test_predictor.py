"""The predictor: folds, cascade input, plugins, precision, refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from segwright.core.errors import DamagedFileError, ModelError, SettingsError
from segwright.core.files import file_digest
from segwright.core.settings import PredictionSettings
from segwright.inference.predictor import Predictor
from segwright.inference.request import Computation
from segwright.inference.sliding_window import Input, Window, predict_scores
from segwright.inference.stage import Stage, TrainingFacts
from segwright.networks.build import build_network
from segwright.networks.weights import load_into, load_weights

from .conftest import REGIONS, predict_plan, predictor_of, write_weights

IMAGE = np.random.default_rng(0).normal(size=(1, 9, 12, 10)).astype(np.float32)
SETTINGS = PredictionSettings()


def test_scores_are_those_of_the_network(tmp_path: Path) -> None:
    plan = predict_plan()
    weights = write_weights(tmp_path / "m.safetensors", plan)
    found = predictor_of(plan, weights, mirror_axes=(0, 1, 2)).logits(IMAGE)
    network = build_network(plan.architecture, 1, 3, False).eval()
    load_into(network, load_weights(weights))
    expected = predict_scores(network, Input(IMAGE), Window((8, 8, 8), 3, mirror_axes=(0, 1, 2)), torch.device("cpu"))
    assert found.dtype == np.float32 and found.shape == (3, 9, 12, 10)
    np.testing.assert_array_equal(found, expected.numpy())
    without = predictor_of(plan, weights, mirror_axes=(0, 1, 2), mirroring=False)
    assert np.abs(without.logits(IMAGE) - found).max() > 1e-3


@pytest.mark.parametrize("average", ["logits", "probabilities"])
def test_folds_are_averaged(tmp_path: Path, average: str) -> None:
    plan = predict_plan()
    folds = [write_weights(tmp_path / f"{seed}.safetensors", plan, seed) for seed in (1, 2)]
    single = [predictor_of(plan, fold, average=average).logits(IMAGE) for fold in folds]
    together = predictor_of(plan, *folds, average=average)
    np.testing.assert_allclose(together.logits(IMAGE), (single[0] + single[1]) / 2, atol=1e-6)
    np.testing.assert_allclose(together.logits(IMAGE), (single[0] + single[1]) / 2, atol=1e-6)  # weights take turns
    assert together.kind == average
    if average == "probabilities":
        np.testing.assert_allclose(single[0].sum(axis=0), 1, atol=1e-5)


def test_averaged_regions_lie_between_zero_and_one(tmp_path: Path) -> None:
    plan = predict_plan(REGIONS)
    scores = predictor_of(plan, write_weights(tmp_path / "m", plan), average="probabilities").logits(IMAGE)
    assert scores.shape[0] == 2 and scores.min() > 0 and scores.max() < 1


def test_2d_predicts_every_plane(tmp_path: Path) -> None:
    plan = predict_plan(dimensions=2, patch=(8, 8), spacing_mm=(1.0, 1.0))
    predictor = predictor_of(plan, write_weights(tmp_path / "m", plan), mirror_axes=(0,))
    whole = predictor.logits(IMAGE)
    np.testing.assert_allclose(predictor.logits(IMAGE[:, 3:4]), whole[:, 3:4], atol=1e-5)


def test_a_cascade_sees_the_previous_label_map(tmp_path: Path) -> None:
    plan = predict_plan(previous_stage="3d_lowres")
    predictor = predictor_of(plan, write_weights(tmp_path / "m", plan))
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
    exact = predictor_of(plan, weights).logits(IMAGE)
    reduced = predictor_of(plan, weights, precision="bf16").logits(IMAGE)
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
    predictor_of(plan, write_weights(tmp_path / "m", plan), threads=before + 1).logits(IMAGE)
    predictor_of(plan, tmp_path / "m").logits(IMAGE)
    assert seen == [before + 1, before]
    assert torch.get_num_threads() == before


def test_weights_that_do_not_fit_or_diverged_are_refused(tmp_path: Path) -> None:
    plan = predict_plan()
    with pytest.raises(ModelError, match=r"regions\.safetensors: the weights do not fit"):
        predictor_of(plan, write_weights(tmp_path / "regions.safetensors", predict_plan(REGIONS)))
    with pytest.raises(ModelError, match="no weights"):
        predictor_of(plan)
    (tmp_path / "text").write_text("not weights")
    with pytest.raises(DamagedFileError, match="text"):
        predictor_of(plan, tmp_path / "text")
    state = load_weights(write_weights(tmp_path / "m", plan))
    state[next(iter(state))].fill_(float("nan"))
    from segwright.networks.weights import save_weights

    save_weights(tmp_path / "nan", state, {})
    with pytest.raises(ModelError, match=r"nan: .* not finite"):
        predictor_of(plan, tmp_path / "nan")


def test_output_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    plan = predict_plan()
    predictor = predictor_of(plan, write_weights(tmp_path / "m", plan))
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
    stage = Stage(plan, (weights,), training)
    with pytest.raises(ModelError, match=r"plugin my_networks\.py .* it was not given; use --plugin FILE"):
        Predictor(stage, Computation(SETTINGS, "cpu"))
    assert Predictor(stage, Computation(SETTINGS, "cpu", (plugin,))).logits(IMAGE).any()
    plugin.write_text(PLUGIN.replace("my_unet", "another_unet"))
    with pytest.raises(ModelError, match="another version"):
        Predictor(stage, Computation(SETTINGS, "cpu", (plugin,)))
    with pytest.raises(SettingsError, match="does not exist"):
        Predictor(stage, Computation(SETTINGS, "cpu", (tmp_path / "missing.py",)))
