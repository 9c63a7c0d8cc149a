"""nnUNetv2_train with 2 epochs of 5 training and 2 validation steps.

    python -m benchmarks.peer.short_training DATASET CONFIGURATION FOLD -device cpu --npz

The trainer is given to the peer's command directly instead of by name: looking a name up imports all its trainers, some
of which need packages that are not installed.
"""

from __future__ import annotations

from nnunetv2.run import run_training
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class ShortTrainer(nnUNetTrainer):
    """The default trainer but for the length."""

    def initialize(self) -> None:
        self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 2, 5, 2
        super().initialize()


def main() -> None:
    ShortTrainer.__name__ = nnUNetTrainer.__name__  # the folder and the checkpoint carry it, later commands look for it
    run_training.recursive_find_trainer_class_by_name = lambda name: ShortTrainer
    run_training.run_training_entry()


if __name__ == "__main__":
    main()
