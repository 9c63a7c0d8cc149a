"""nnUNetv2_train with a schedule that ends at a given time: a small trainer, as the peer's users write them.

    python -m benchmarks.peer.timed_training DATASET CONFIGURATION FOLD -device cpu

``BENCHMARK_ENDS_AT`` is when the weights are wanted (seconds since 1970), ``BENCHMARK_EPOCHS`` in how many epochs.
The peer's own learning rate, optimizer, loss and augmentation stay. It is given to the peer's command directly instead
of by name: looking a name up imports all its trainers, some of which need packages that are not installed.
"""

from __future__ import annotations

import os
import time
from statistics import median

import torch
from nnunetv2.run import run_training
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

_WARM_UP, _TIMED = 2, 8
_EPOCH_OVERHEAD_S = 1.5  # the peer draws its curves after each epoch
_SPARE_S = 8.0  # to write the last checkpoint and to end


class TimedTrainer(nnUNetTrainer):
    """Measures a few steps, then spreads as many as fit over the epochs, looking at the clock before each."""

    def on_train_start(self) -> None:
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        super().on_train_start()
        self.num_epochs = int(os.environ["BENCHMARK_EPOCHS"])
        self.num_val_iterations_per_epoch = 1
        self.network.train()
        steps_s = []
        for _ in range(_WARM_UP + _TIMED):
            started = time.monotonic()
            self.train_step(next(self.dataloader_train))
            steps_s.append(time.monotonic() - started)
        self.step_s = median(steps_s[_WARM_UP:])
        self.iterations_done = 0
        self.lr_scheduler = PolyLRScheduler(self.optimizer, self.initial_lr, self.num_epochs)

    def on_epoch_start(self) -> None:
        self.epoch_began = time.monotonic()
        left_s = float(os.environ["BENCHMARK_ENDS_AT"]) - time.time() - _SPARE_S
        epoch_s = left_s / (self.num_epochs - self.current_epoch) - _EPOCH_OVERHEAD_S
        self.num_iterations_per_epoch = max(1, int(epoch_s / self.step_s) - 1)  # the validation step is another one
        super().on_epoch_start()

    def on_epoch_end(self) -> None:
        super().on_epoch_end()
        took_s = time.monotonic() - self.epoch_began - _EPOCH_OVERHEAD_S
        self.step_s = took_s / (self.num_iterations_per_epoch + 1)
        self.iterations_done += self.num_iterations_per_epoch

    def on_train_end(self) -> None:
        self.print_to_log_file(f"timed: {self.num_epochs} epochs, {self.iterations_done} iterations")
        super().on_train_end()

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Not needed: the held-back cases are predicted afterwards, by the same rules for both programs."""


def main() -> None:
    TimedTrainer.__name__ = (
        nnUNetTrainer.__name__
    )  # the folder and the checkpoint carry it, and prediction looks for it
    run_training.recursive_find_trainer_class_by_name = lambda name: TimedTrainer
    run_training.run_training_entry()


if __name__ == "__main__":
    main()
