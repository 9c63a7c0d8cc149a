"""A loss that is not finite: what is said, what is kept, and the one rollback that may be asked for."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from segwright.core.files import file_digest, read_json
from segwright.training.fold import run_training
from segwright.training.loop import Compute, Diverged, EpochResult, EpochRules, train_steps
from segwright.training.loss import LOSSES, LossOptions
from segwright.training.run import ROLLBACK_FACTOR
from tests.unit.training.fake_training import PLAN, FakeBatch, FakeBatches, make_data, make_request, saved_epochs


class Poison:
    """Makes the batch of (epoch, step) infinite or not a number, the first ``times`` times it is made."""

    def __init__(self, epoch: int, step: int, value: float, times: int = 1) -> None:
        self.at, self.value, self.times = (epoch, step), value, times

    def __call__(self, epoch: int, step: int, batch: FakeBatch) -> FakeBatch:
        if (epoch, step) == self.at and self.times:
            self.times -= 1
            batch.images[1, 0, 3, 3:5] = self.value
        return batch


def rates(output: Path) -> list[float]:
    return [record["learning_rate"] for record in map(__import__("json").loads, (output / "training.jsonl").open())]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_it_stops_with_the_cases_and_their_statistics_and_keeps_the_last_state(tmp_path: Path, value: float) -> None:
    message = (
        r"the loss is not finite \(loss nan\) in step 1, with the cases \[case_1: 0 of 256 voxels not finite, min .*"
        r"mean.*max.*; case_2: 2 of 256 voxels not finite, .*\] and target values \[0, 1, 2\].*last good epoch is kept"
    )
    with pytest.raises(Diverged, match=message):
        run_training(make_request(tmp_path, epochs=3), make_data(spoil=Poison(1, 1, value)), {})
    assert saved_epochs(tmp_path) == 1 and not (tmp_path / "model.safetensors").exists()
    (attempt,) = read_json(tmp_path / "state" / "attempts.json")
    assert attempt["ended"] == "error" and "case_2: 2 of 256" in attempt["cause"] and attempt["epochs_at_end"] == 1


def test_one_rollback_goes_on_from_the_last_state_with_a_tenth_of_the_rate(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    request = make_request(tmp_path / "a", epochs=4, on_divergence="rollback")
    run_training(request, make_data(spoil=Poison(2, 1, np.nan)), {})
    assert "Back to epoch 2, with 0.1 of the learning rate" in caplog.text and "case_2: 2 of 256" in caplog.text
    straight = make_request(tmp_path / "straight", epochs=4)
    run_training(straight, make_data(), {})
    np.testing.assert_allclose(rates(tmp_path / "a")[:2], rates(tmp_path / "straight")[:2], rtol=0)
    np.testing.assert_allclose(rates(tmp_path / "a")[2:], np.array(rates(tmp_path / "straight")[2:]) * ROLLBACK_FACTOR)
    assert read_json(tmp_path / "a" / "training.json")["rate_factor_after_rollback"] == ROLLBACK_FACTOR
    assert "rate_factor_after_rollback" not in read_json(tmp_path / "straight" / "training.json")


def test_a_rollback_in_the_first_epoch_begins_anew_and_a_second_one_is_refused(tmp_path: Path) -> None:
    request = make_request(tmp_path, epochs=3, on_divergence="rollback")
    with pytest.raises(Diverged, match="loss is not finite"):
        run_training(request, make_data(spoil=Poison(0, 1, np.nan, times=2)), {})
    assert saved_epochs(tmp_path) == 0
    run_training(request, make_data(spoil=Poison(0, 1, np.nan)), {})
    assert len(rates(tmp_path)) == 3 and read_json(tmp_path / "training.json")["rate_factor_after_rollback"]


def test_a_rollback_is_remembered_over_a_restart(tmp_path: Path) -> None:
    """The state after a rollback carries the lower rate: interrupted or not, the weights are the same."""

    def run(output: Path, interrupt_at: tuple[int, int] | None) -> str:
        poison, interrupted = Poison(1, 0, np.nan), []

        def spoil(epoch: int, step: int, batch: FakeBatch) -> FakeBatch:
            if (epoch, step) == interrupt_at and not interrupted and not poison.times:
                interrupted.append(True)
                raise KeyboardInterrupt
            return poison(epoch, step, batch)

        request = make_request(output, epochs=4, on_divergence="rollback")
        if interrupt_at is not None:
            with pytest.raises(KeyboardInterrupt):
                run_training(request, make_data(spoil=spoil), {})
        run_training(request, make_data(spoil=spoil), {})
        return file_digest(output / "model.safetensors")

    assert run(tmp_path / "interrupted", (3, 0)) == run(tmp_path / "straight", None)


class Overflowing(nn.Module):
    """One convolution whose output is infinite at some calls, as float16 may make it."""

    def __init__(self, at: Collection[int]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution, self.at, self.calls = nn.Conv2d(1, 3, 3, padding=1), at, 0

    def forward(self, images: Tensor) -> Tensor:
        overflows, self.calls = self.calls in self.at, self.calls + 1
        result: Tensor = self.convolution(images)
        return result * torch.inf if overflows else result


def train_scaled(network: Overflowing, batches: list[FakeBatch]) -> EpochResult:
    """An epoch with gradient scaling, which float16 needs and which works on the CPU, too."""
    options = LossOptions(3)
    rules = EpochRules(LOSSES.get("default")(options), options, 12.0, Compute(torch.device("cpu")))
    optimizer = torch.optim.SGD(network.parameters(), 0.01, 0.9)
    return train_steps(network, list(network.parameters()), optimizer, torch.amp.GradScaler("cpu"), batches, rules)


def test_a_step_that_overflows_half_precision_is_skipped(caplog: pytest.LogCaptureFixture) -> None:
    batches = [FakeBatches(PLAN, True).make(0, step) for step in range(6)]
    overflowing, sound = Overflowing({2}), Overflowing(())
    with caplog.at_level(logging.WARNING):
        found = train_scaled(overflowing, batches)
    wanted = train_scaled(sound, batches[:2] + batches[3:])
    assert found.loss == wanted.loss
    for mine, other in zip(overflowing.parameters(), sound.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=0)  # another scale of the gradients
    assert "step 2, cases case_1, case_2: the loss is not finite in half precision" in caplog.text


def test_overflows_without_end_and_images_that_are_not_finite_end_the_training() -> None:
    batches = [FakeBatches(PLAN, True).make(0, step) for step in range(20)]
    with pytest.raises(Diverged, match=r"the loss is not finite .* in step 17"):
        train_scaled(Overflowing(range(2, 20)), batches)
    with pytest.raises(Diverged, match="no step of this epoch had a finite loss in half precision"):
        train_scaled(Overflowing(range(3)), batches[:3])
    batches[1].images[1, 0, 0, 0] = np.nan
    with pytest.raises(Diverged, match=r"in step 1, .*case_2: 1 of 256 voxels not finite"):
        train_scaled(Overflowing(()), batches)
