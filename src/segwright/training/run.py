"""The epochs of one training: network, optimizer and history, and when to save or to stop."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import time
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from segwright.core.errors import InterruptedForRetry, SettingsError, TrainingError
from segwright.core.progress import Bar, progress
from segwright.networks.build import build_network
from segwright.networks.initialization import initialize
from segwright.networks.weights import canonical_state, load_into, load_weights
from segwright.training.attempts import Attempts, InterruptedWhileChecking
from segwright.training.compilation import forward_of
from segwright.training.data import Batches, TrainingData
from segwright.training.deadline import Deadline, StopSignal
from segwright.training.history import EpochRecord, History, duration_text
from segwright.training.intact import INTACT_FILE
from segwright.training.loop import Compute, Diverged, EpochResult, EpochRules, train_steps, validation_steps
from segwright.training.loss import LOSSES, LossOptions
from segwright.training.metrics import dice_per_class, mean_dice, moving_average
from segwright.training.optimizer import build_optimizer, load_optimizer_state, set_learning_rate
from segwright.training.request import TrainingRequest
from segwright.training.schedule import learning_rate
from segwright.training.state import StateFolder

log = logging.getLogger(__name__)

ROLLBACK_FACTOR = 0.1  # of the learning rate, after a training diverged


class FoldTraining:
    """A training under way.

    Attributes:
        epoch: epochs done.
        history: one record per epoch done.
        rate_factor: 1, or what the learning rate is multiplied with since a rollback.
    """

    def __init__(
        self, request: TrainingRequest, compute: Compute, states: StateFolder, attempts: Attempts, attempt: int
    ) -> None:
        settings = request.settings
        if settings.epochs is None or settings.iterations is None or settings.validation_iterations is None:
            raise SettingsError("training: epochs and iterations must be resolved first")
        self.request, self.settings, self.compute = request, settings, compute
        self.epochs, self.iterations = settings.epochs, settings.iterations
        self.validation_iterations = settings.validation_iterations
        self.states, self.attempts, self.attempt = states, attempts, attempt
        self.epoch = self._saved_epoch = 0
        self._save_s = 0.0
        self.rate_factor = 1.0
        self.history = History(request.output)
        self.best_weights: dict[str, Tensor] | None = None
        self.network = first_network(request).to(compute.device)
        self.optimizer = build_optimizer(self.network, settings)
        self.scaler = compute.scaler()
        self.loss_options = loss_options(request)
        self.loss = LOSSES.get(settings.loss)(self.loss_options)
        self._forward = forward_of(self.network, settings, compute.device)

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a state of :class:`StateFolder`."""
        load_into(self.network, state["network"])
        load_optimizer_state(self.optimizer, state["optimizer"])
        if state["scaler"] and self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])
        self.best_weights = state["best_weights"]
        self.rate_factor = float(state.get("rate_factor", 1.0))
        self.history = History(self.request.output, [EpochRecord.from_json(row) for row in state["history"]])
        self.epoch = self._saved_epoch = int(state["epoch"])

    def run(self, data: TrainingData, deadline: Deadline, stop: StopSignal) -> None:
        """Train the remaining epochs, saving after each ``checkpoint_interval`` of them.

        Raises:
            InterruptedForRetry, TrainingError: see :func:`segwright.training.fold.train_fold`.
        """
        self.history.rewrite()
        if self.is_done():
            return
        if data.check is not None:
            data.check(self.states.folder / INTACT_FILE, lambda: self._stop_while_checking(deadline, stop))
        with contextlib.ExitStack() as sources:
            training = sources.enter_context(contextlib.closing(data.training()))
            validation = sources.enter_context(contextlib.closing(data.validation())) if data.validation else None
            title = f"train {self.request.plan.configuration} fold {self.request.fold.name}"
            steps = self.iterations + (self.validation_iterations if validation is not None else 0)
            with progress(title, (self.epochs - self.epoch) * steps) as bar:
                while not self.is_done():
                    self._stop_between_epochs(deadline, stop)
                    try:
                        self._run_epoch(training, validation, bar, stop)
                    except Diverged as error:
                        self._roll_back(error)
                    except TrainingError as error:
                        if stop.received:  # the signal went to the loader's processes too
                            raise InterruptedForRetry(self._interruption(stop.received)) from error
                        raise

    def is_done(self) -> bool:
        """All epochs done, or none of the last ``early_stopping`` ones was the best."""
        patience, best = self.settings.early_stopping, self.history.best_epoch
        stopped = patience is not None and best is not None and self.epoch - 1 - best >= patience
        return stopped or self.epoch >= self.epochs

    def chosen_weights(self) -> tuple[dict[str, Tensor], int]:
        """The weights that become the model, and the epoch (0-based) they are from."""
        best = self.history.best_epoch
        if self.settings.weights == "best" and self.best_weights is not None and best is not None:
            return self.best_weights, best
        return canonical_state(self.network.state_dict()), self.epoch - 1

    def _run_epoch(self, training: Batches, validation: Batches | None, bar: Bar, stop: StopSignal) -> None:
        epoch, started = self.epoch, time.monotonic()
        torch.manual_seed(seed_of(self.settings.seed, "epoch", epoch))  # for dropout in a plugin's network
        rate = learning_rate(epoch, self.settings) * self.rate_factor
        set_learning_rate(self.optimizer, rate)
        rules = EpochRules(
            loss=self.loss,
            loss_options=self.loss_options,
            gradient_clip=self.settings.gradient_clip,
            compute=self.compute,
            after_step=lambda: self._after_step(bar, stop),
        )
        self.network.train()
        trained = train_steps(
            self._forward,
            list(self.network.parameters()),
            self.optimizer,
            self.scaler,
            training.epoch(epoch, self.iterations),
            rules,
        )
        self.network.eval()
        validated = EpochResult(float("nan"), 0.0)
        if validation is not None:
            validated = validation_steps(self._forward, validation.epoch(epoch, self.validation_iterations), rules)
        self._finish_epoch(rate, trained, validated, started)

    def _roll_back(self, error: Diverged) -> None:
        """Go back to the last saved state, or to the beginning, with a lower learning rate; only once.

        Raises:
            Diverged: the settings do not want it, or it has been done.
        """
        if self.settings.on_divergence == "stop" or self.rate_factor < 1:
            raise error
        state = self.states.load()
        if state is None:
            load_into(self.network, first_network(self.request).state_dict())
            self.optimizer = build_optimizer(self.network, self.settings)
            self.scaler = self.compute.scaler()
            self.history, self.best_weights = History(self.request.output), None
            self.epoch = self._saved_epoch = 0
        else:
            self.restore(state)
        self.rate_factor = ROLLBACK_FACTOR
        self.history.rewrite()
        log.warning("%s. Back to epoch %d, with %g of the learning rate", error, self.epoch, self.rate_factor)

    def _after_step(self, bar: Bar, stop: StopSignal) -> None:
        bar.advance(f"epoch {self.epoch + 1}/{self.epochs}")
        if stop.received:
            raise InterruptedForRetry(self._interruption(stop.received))

    def _finish_epoch(self, rate: float, trained: EpochResult, validated: EpochResult, started: float) -> None:
        dice = [] if validated.counts is None else dice_per_class(validated.counts)
        mean = mean_dice(dice)
        previous = self.history.records[-1].ema_fg_dice if self.history.records else None
        duration_s = time.monotonic() - started
        mean_s = self.history.mean_duration_s(9)
        record = EpochRecord(
            epoch=self.epoch,
            attempt=self.attempt,
            learning_rate=rate,
            train_loss=trained.loss,
            val_loss=validated.loss,
            dice_per_class=tuple(dice),
            mean_fg_dice=mean,
            ema_fg_dice=moving_average(previous, mean),
            duration_s=duration_s,
            data_wait_s=trained.data_wait_s + validated.data_wait_s,
            remaining_s=(mean_s or duration_s) * (self.epochs - self.epoch - 1),
        )
        self.history.add(record)
        self.epoch += 1
        if self.settings.weights == "best" and self.history.best_epoch == record.epoch:
            state = canonical_state(self.network.state_dict())
            self.best_weights = {name: tensor.detach().cpu().clone() for name, tensor in state.items()}
        if self.epoch % self.settings.checkpoint_interval == 0 or self.is_done():
            self._save()
        self.history.draw()
        self._report(record)

    def _save(self) -> None:
        if self._saved_epoch == self.epoch:
            return
        started = time.monotonic()
        self.states.save(
            self.epoch,
            {
                "epoch": self.epoch,
                "network": canonical_state(self.network.state_dict()),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "best_weights": self.best_weights,
                "rate_factor": self.rate_factor,
                "history": [record.to_json() for record in self.history.records],
            },
        )
        self.attempts.saved(self.epoch)
        self.history.append_lines(self._saved_epoch)
        self._saved_epoch = self.epoch
        self._save_s = time.monotonic() - started

    def _stop_while_checking(self, deadline: Deadline, stop: StopSignal) -> None:
        """As between epochs: reading all data of a large training takes long."""
        why = self._reason_to_stop(deadline, stop)
        if why is not None:
            raise InterruptedWhileChecking(self._interruption(why))

    def _stop_between_epochs(self, deadline: Deadline, stop: StopSignal) -> None:
        """Save and leave if there is a reason to."""
        why = self._reason_to_stop(deadline, stop)
        if why is not None:
            self._save()
            raise InterruptedForRetry(self._interruption(why))

    def _reason_to_stop(self, deadline: Deadline, stop: StopSignal) -> str | None:
        """A signal that came, or that the next epoch would not end before the deadline."""
        if stop.received:
            return stop.received
        longest = self.history.longest_duration_s()
        needed = None if longest is None else longest + self._save_s
        if deadline.fits(needed):
            return None
        return f"{max(deadline.remaining_s, 0):.0f} s before the time limit, an epoch takes {needed or 0:.0f} s"

    def _interruption(self, why: str) -> str:
        request = self.request
        return (
            f"{request.plan.configuration}, fold {request.fold.name}: interrupted ({why}) with "
            f"{self._saved_epoch} of {self.epochs} epochs saved in {self.states.folder}; start again to go on"
        )

    def _report(self, record: EpochRecord) -> None:
        log.info(
            "epoch %d/%d: loss %.4f, validation %.4f, pseudo Dice %.4f (average %.4f), %.1f s, about %s left",
            self.epoch,
            self.epochs,
            record.train_loss,
            record.val_loss,
            record.mean_fg_dice,
            record.ema_fg_dice,
            record.duration_s,
            duration_text(record.remaining_s),
        )


def first_network(request: TrainingRequest) -> torch.nn.Module:
    """The untrained network on the CPU: seeded weights, and the initial model's where there is one (method 7.4, 14.4).

    Raises:
        SettingsError: the named network does not exist.
        ModelError: the initial model does not fit.
    """
    plan, settings = request.plan, request.settings
    architecture = plan.architecture if settings.network is None else replace(plan.architecture, kind=settings.network)
    seed = seed_of(settings.seed, "weights")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # for layers of a plugin's network that `initialize` does not know
        network = build_network(
            architecture, plan.num_input_channels, plan.labels.num_outputs, settings.deep_supervision
        )
    initialize(network, seed)
    if request.initial_weights is not None:
        load_into(network, load_weights(request.initial_weights), strict=False)
    return network


def loss_options(request: TrainingRequest) -> LossOptions:
    """Options of the loss from plan and settings (method 8)."""
    labels, settings = request.plan.labels, request.settings
    return LossOptions(
        num_outputs=labels.num_outputs,
        regions=labels.has_regions,
        ignore_label=labels.ignore_label,
        batch_dice=request.plan.batch_dice,
        dice_weight=settings.dice_weight,
        ce_weight=settings.ce_weight,
        class_weights=settings.class_weights,
    )


def seed_of(*key: int | str) -> int:
    """A 63-bit seed for torch's generators from a key such as (seed, "epoch", 3)."""
    text = "/".join(map(str, key)).encode("utf-8")
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1
