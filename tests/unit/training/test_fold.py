"""Whole trainings on computed batches: learning, resuming, stopping, refusing."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.unit.training.fake_training import FOLD, LABELS, PLAN, FakeBatch, make_data, make_request, train

from segwright.core.errors import InterruptedForRetry, ModelError, SettingsError, TrainingError
from segwright.core.files import file_digest, read_json
from segwright.core.labels import Labels
from segwright.core.versions import STAGE_VERSION
from segwright.networks.build import NETWORKS
from segwright.networks.weights import load_weights
from segwright.training.fold import run_training, train_fold, training_identity
from segwright.training.history import duration_text
from segwright.training.loop import resolve_compute

pytestmark = pytest.mark.usefixtures("no_drawing")


def lines(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "training.jsonl").read_text().splitlines()]


def stop_at(epoch: int, step: int, action):
    """Spoil that runs ``action`` once, when that training batch is made."""
    done = []

    def spoil(at_epoch: int, at_step: int, batch: FakeBatch) -> FakeBatch:
        if (at_epoch, at_step) == (epoch, step) and not done:
            done.append(True)
            return action(batch) or batch
        return batch

    return spoil


def test_it_learns_and_writes_its_outputs(tmp_path: Path) -> None:
    train(tmp_path, epochs=12, iterations=6, optimizer="adamw", learning_rate=0.02)
    history = lines(tmp_path)
    assert [line["epoch"] for line in history] == list(range(12))
    assert history[-1]["train_loss"] < history[0]["train_loss"] - 0.5
    assert history[-1]["mean_fg_dice"] > history[0]["mean_fg_dice"] + 0.2
    record = read_json(tmp_path / "training.json")
    assert record["epochs"] == 12 and record["weights_of_epoch"] == 11 and not record["stopped_early"]
    assert record["mirror_axes"] == [0, 1] and record["data_id"] == "data" and record["network"] == "plain_unet"
    assert record["weights_digest"] == file_digest(tmp_path / "model.safetensors")
    assert record["metrics"]["mean_fg_dice"] == pytest.approx(history[-1]["mean_fg_dice"])
    assert (tmp_path / "progress.png").is_file()
    assert str(tmp_path) not in (tmp_path / "training.json").read_text()
    assert load_weights(tmp_path / "model.safetensors")["decoder.seg_layers.1.weight"].shape == (3, 4, 1, 1)
    assert read_json(tmp_path / "state" / "attempts.json")[0]["ended"] == "finished"


def test_equal_requests_give_equal_files_and_another_seed_other_weights(tmp_path: Path) -> None:
    first, second = train(tmp_path / "a", epochs=2), train(tmp_path / "b", epochs=2)
    assert first == second
    assert (tmp_path / "a/training.json").read_bytes() == (tmp_path / "b/training.json").read_bytes()
    assert train(tmp_path / "c", epochs=2, seed=4) != first


def test_finished_training_runs_again_without_an_epoch(tmp_path: Path) -> None:
    """Snakemake deletes declared outputs before a job: they come back from the state alone."""
    digest = train(tmp_path, epochs=2)
    (tmp_path / "model.safetensors").unlink()
    request = make_request(tmp_path, epochs=2)
    run_training(request, make_data(spoil=stop_at(0, 0, lambda batch: pytest.fail("trained again"))), {})
    assert file_digest(tmp_path / "model.safetensors") == digest
    assert len(lines(tmp_path)) == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_signal_saves_and_asks_for_a_retry(tmp_path: Path, number: signal.Signals) -> None:
    straight = train(tmp_path / "straight", epochs=4)
    request = make_request(tmp_path / "run", epochs=4)
    handlers = signal.getsignal(number)
    spoil = stop_at(2, 1, lambda batch: os.kill(os.getpid(), number))
    with pytest.raises(InterruptedForRetry, match=rf"{number.name}.*2 of 4 epochs saved") as caught:
        run_training(request, make_data(spoil=spoil), {})
    assert caught.value.exit_code == 75
    assert signal.getsignal(number) == handlers
    run_training(request, make_data(), {})
    assert file_digest(tmp_path / "run" / "model.safetensors") == straight
    assert [line["attempt"] for line in lines(tmp_path / "run")] == [1, 1, 2, 2]
    assert [a["ended"] for a in read_json(tmp_path / "run/state/attempts.json")] == ["interrupted", "finished"]


def test_worker_that_dies_of_the_same_signal_is_an_interruption(tmp_path: Path) -> None:
    def die(batch: FakeBatch) -> FakeBatch:
        os.kill(os.getpid(), signal.SIGTERM)
        raise TrainingError("a loader process died")

    with pytest.raises(InterruptedForRetry, match="SIGTERM"):
        run_training(make_request(tmp_path), make_data(spoil=stop_at(1, 0, die)), {})


def test_deadline_ends_between_epochs(tmp_path: Path) -> None:
    straight = train(tmp_path / "straight", epochs=3)
    output = tmp_path / "run"
    with pytest.raises(InterruptedForRetry, match=r"before the time limit.*0 of 3 epochs"):
        train(output, epochs=3, deadline=0.0)
    with pytest.raises(InterruptedForRetry, match="1 of 3 epochs"):
        slow = stop_at(0, 0, lambda batch: __import__("time").sleep(0.6))
        run_training(make_request(output, epochs=3, deadline=1.0), make_data(spoil=slow), {})
    assert train(output, epochs=3) == straight


def test_three_attempts_without_progress_fail_with_the_cause(tmp_path: Path) -> None:
    def die(batch: FakeBatch) -> FakeBatch:
        raise TrainingError("worker 3 was killed while loading case_9")

    for _ in range(3):
        with pytest.raises(TrainingError, match="worker 3 was killed"):
            run_training(make_request(tmp_path), make_data(spoil=stop_at(0, 0, die)), {})
    with pytest.raises(TrainingError, match=r"last 3 attempts made no new epoch.*worker 3 was killed.*delete"):
        train(tmp_path)
    (tmp_path / "state" / "attempts.json").unlink()
    train(tmp_path)


def test_keyboard_interrupts_are_never_held_against_a_training(tmp_path: Path) -> None:
    def interrupt(batch: FakeBatch) -> FakeBatch:
        raise KeyboardInterrupt

    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            run_training(make_request(tmp_path), make_data(spoil=stop_at(0, 0, interrupt)), {})
    assert {a["ended"] for a in read_json(tmp_path / "state/attempts.json")} == {"keyboard"}


def test_non_finite_loss_names_the_batch_and_keeps_the_last_state(tmp_path: Path) -> None:
    def poison(batch: FakeBatch) -> FakeBatch:
        batch.images[1, 0, 3, 3] = np.inf
        return batch

    with pytest.raises(TrainingError, match=r"loss is not finite.*step 0.*case_2: 1 of 256 voxels not finite"):
        run_training(make_request(tmp_path), make_data(spoil=stop_at(2, 0, poison)), {})
    assert len(lines(tmp_path)) == 2
    straight = train(tmp_path / "straight")
    assert train(tmp_path) == straight  # goes on from the last good epoch


def test_another_training_never_resumes_the_state(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(tmp_path, epochs=2)
    with caplog.at_level(logging.WARNING):
        changed = train(tmp_path, epochs=3)
    assert "settings.epochs differs" in caplog.text and "state.stale-1" in caplog.text
    assert (tmp_path / "state.stale-1" / "epoch_000002.pt").is_file()
    assert changed == train(tmp_path / "fresh", epochs=3)
    run_training(make_request(tmp_path, epochs=3), make_data(identity="other data"), {})
    assert (tmp_path / "state.stale-2").is_dir()
    assert read_json(tmp_path / "training.json")["data_id"] == "other data"


def test_a_training_whose_settings_are_changed_back_is_taken_up_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = train(tmp_path, epochs=2)
    train(tmp_path, epochs=3)
    with caplog.at_level(logging.INFO):
        assert train(tmp_path, epochs=2) == first
    assert "state.stale-1 is of this training" in caplog.text and "going on after epoch 2 of 2" in caplog.text
    assert [path.name for path in tmp_path.glob("state.stale-*")] == ["state.stale-2"]
    assert (tmp_path / "state.stale-2" / "epoch_000003.pt").is_file()


def test_a_move_back_that_was_killed_is_taken_up_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = train(tmp_path, epochs=2)
    state, aside = tmp_path / "state", tmp_path / "state.stale-1"
    aside.mkdir()
    for name in ("epoch_000002.pt", "stamp.json"):
        (state / name).rename(aside / name)
    with caplog.at_level(logging.INFO):
        assert train(tmp_path, epochs=2) == first
    assert "going on after epoch 2 of 2" in caplog.text and not aside.exists()


def test_a_state_belongs_to_a_version_of_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that makes the workflow train again."""
    train(tmp_path, epochs=2)
    monkeypatch.setitem(STAGE_VERSION, "training", STAGE_VERSION["training"] + 1)
    train(tmp_path, epochs=2)
    assert (tmp_path / "state.stale-1" / "epoch_000002.pt").is_file()


def test_settings_without_effect_do_not_invalidate_a_state(tmp_path: Path) -> None:
    train(tmp_path, epochs=2)
    train(tmp_path, epochs=2, checkpoint_interval=2, folds=(0,))
    assert not (tmp_path / "state.stale-1").exists()


def test_damaged_newest_state_falls_back_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    straight = train(tmp_path)
    path = tmp_path / "state" / "epoch_000006.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert train(tmp_path) == straight
    assert "epoch_000006.pt: its content is not what" in caplog.text
    assert [line["attempt"] for line in lines(tmp_path)] == [1, 1, 1, 1, 1, 2]


def test_checkpoint_interval_keeps_two_states(tmp_path: Path) -> None:
    digest = train(tmp_path / "a", epochs=5, checkpoint_interval=2)
    assert sorted(p.name for p in (tmp_path / "a/state").glob("*.pt")) == ["epoch_000004.pt", "epoch_000005.pt"]
    assert digest == train(tmp_path / "b", epochs=5, keep_state=False)
    assert not (tmp_path / "b/state").exists()


def test_best_weights_and_early_stopping(tmp_path: Path) -> None:
    rate = {"optimizer": "sgd", "learning_rate": 1e-9}  # nothing changes: validation decides by its batches alone
    train(tmp_path, epochs=30, early_stopping=2, weights="best", **rate)
    record = read_json(tmp_path / "training.json")
    history = lines(tmp_path)
    best = max(range(len(history)), key=lambda i: history[i]["ema_fg_dice"])
    assert record["stopped_early"] and record["epochs"] == len(history) == best + 3 < 30
    assert record["weights_of_epoch"] == record["metrics"]["best_epoch"] == best


def test_best_weights_survive_an_interruption(tmp_path: Path) -> None:
    settings = {"weights": "best", "optimizer": "sgd", "learning_rate": 3.0, "epochs": 6}
    straight = train(tmp_path / "straight", **settings)
    best = read_json(tmp_path / "straight/training.json")["weights_of_epoch"]
    request = make_request(tmp_path / "run", **settings)
    spoil = stop_at(min(best + 1, 5), 0, lambda batch: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(InterruptedForRetry):
        run_training(request, make_data(spoil=spoil), {})
    assert train(tmp_path / "run", **settings) == straight


def test_without_validation_cases(tmp_path: Path) -> None:
    request = make_request(tmp_path, fold=replace(FOLD, name="all", val=()), epochs=2)
    run_training(request, make_data(validation=False), {})
    metrics = read_json(tmp_path / "training.json")["metrics"]
    assert metrics["val_loss"] is None and metrics["ema_fg_dice"] is None and math.isfinite(metrics["train_loss"])
    with pytest.raises(SettingsError, match="need validation cases"):
        run_training(
            replace(request, settings=replace(request.settings, weights="best")), make_data(validation=False), {}
        )


def test_initial_model_gives_the_body_and_is_part_of_the_stamp(tmp_path: Path) -> None:
    train(tmp_path / "old")
    old = tmp_path / "old" / "model.safetensors"
    tiny = {"epochs": 1, "iterations": 1, "optimizer": "sgd", "learning_rate": 1e-12, "weight_decay": 0.0}
    train(tmp_path / "new", initial_model=old, **tiny)
    before, after = load_weights(old), load_weights(tmp_path / "new" / "model.safetensors")
    key = "encoder.stages.1.0.convs.0.conv.weight"
    torch.testing.assert_close(before[key], after[key], rtol=0, atol=1e-6)
    assert not torch.allclose(before["decoder.seg_layers.1.weight"], after["decoder.seg_layers.1.weight"])
    assert read_json(tmp_path / "new/training.json")["initial_model"] == file_digest(old)
    other = replace(PLAN, architecture=replace(PLAN.architecture, features_per_stage=(6, 8, 8)))
    with pytest.raises(ModelError, match="do not fit"):
        train(tmp_path / "wrong", plan=other, initial_model=old)


@pytest.mark.parametrize("change", ["deep_supervision", "bf16", "compile_off_2_stages", "ignore"])
def test_variants_train(tmp_path: Path, change: str) -> None:
    plan = PLAN
    settings = {}
    if change == "deep_supervision":
        settings = {"deep_supervision": False}
    if change == "bf16":
        settings = {"precision": "bf16"}
    if change == "compile_off_2_stages":  # one head only: v2 would divide 0 by 0 (method 8.4)
        two = {"features_per_stage": (4, 8), "kernel_sizes": ((3, 3),) * 2, "strides": ((1, 1), (2, 2))}
        architecture = replace(PLAN.architecture, blocks_per_stage=(1, 1), convs_per_stage_decoder=(1,), **two)
        plan = replace(PLAN, architecture=architecture)
    if change == "ignore":
        plan = replace(PLAN, labels=Labels((("background", 0), ("a", 1), ("ignore", 2))))
    train(tmp_path, epochs=2, plan=plan, **settings)
    record = read_json(tmp_path / "training.json")
    assert math.isfinite(record["metrics"]["val_loss"])
    assert record["precision"] == ("bf16" if change == "bf16" else "fp32")
    assert len(record["metrics"]["dice_per_class"]) == len(plan.labels.foreground_labels)


def test_fp16_needs_cuda_and_the_lock_is_exclusive(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="fp16 needs CUDA"):
        resolve_compute("fp16", "cpu")
    assert resolve_compute("auto", "cuda").precision == "fp16"

    def second(batch: FakeBatch) -> FakeBatch:
        with pytest.raises(
            TrainingError, match=rf"another training is writing here: host .*process {os.getpid()}.*since"
        ):
            train(tmp_path)
        return batch

    run_training(make_request(tmp_path), make_data(spoil=stop_at(1, 0, second)), {})
    assert (tmp_path / "model.safetensors").is_file()


def test_out_of_memory_says_what_to_lower(tmp_path: Path) -> None:
    def fail(batch: FakeBatch) -> FakeBatch:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    with pytest.raises(TrainingError, match=r"does not hold batches of 2 x 16 x 16.*gpu_memory_gb"):
        run_training(make_request(tmp_path), make_data(spoil=stop_at(0, 1, fail)), {})
    assert read_json(tmp_path / "state/attempts.json")[0]["ended"] == "out_of_memory"


def test_plugin_network_is_named_in_the_record(tmp_path: Path) -> None:
    name = "one_conv_for_tests"
    if name not in NETWORKS.names():

        @NETWORKS.register(name)
        def one_conv(architecture, num_inputs, num_outputs, deep_supervision):
            return torch.nn.Sequential(torch.nn.Dropout(0.1), torch.nn.Conv2d(num_inputs, num_outputs, 3, padding=1))

    first = train(tmp_path / "a", epochs=2, network=name)
    assert read_json(tmp_path / "a/training.json")["network"] == name
    assert train(tmp_path / "b", epochs=2, network=name) == first  # dropout is seeded by the epoch


def test_a_plugin_is_part_of_a_training_that_uses_one(tmp_path: Path) -> None:
    """Another plugin in the configuration, or a change of it, must not set finished states aside."""

    def plugins_of(**changes: object) -> object:
        return training_identity(make_request(tmp_path, **changes), make_data(), {"mine.py": "1"})["plugins"]

    assert plugins_of() == plugins_of(network="residual_unet", loss="ce", augmentation="none") == {}
    theirs = replace(PLAN, architecture=replace(PLAN.architecture, kind="mine"))
    for changes in ({"network": "mine"}, {"loss": "mine"}, {"augmentation": "mine"}, {"plan": theirs}):
        assert plugins_of(**changes) == {"mine.py": "1"}, changes


def test_missing_plugin_is_refused(tmp_path: Path) -> None:
    request = replace(make_request(tmp_path), plugins=(tmp_path / "absent.py",))
    with pytest.raises(SettingsError, match=r"absent\.py"):
        train_fold(request)
    assert LABELS.num_outputs == 3


def test_duration_text() -> None:
    assert [duration_text(s) for s in (12.4, 185, 4800, 190_000)] == ["12 s", "3 min 5 s", "1 h 20 min", "2 d 4 h"]
