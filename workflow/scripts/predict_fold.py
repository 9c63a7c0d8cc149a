"""Predict the validation cases of one fold: segmentations, probabilities, label maps for the next stage."""

from pathlib import Path

from _job import Job, run


def main(snakemake):
    from segwright.training.machine import leased_device

    job = Job(snakemake)
    with leased_device(job.execution) as device:
        from segwright.core.settings import PredictionSettings
        from segwright.core.slices import PredictPlan, read_slice
        from segwright.inference.fold import StoredCases, predict_fold
        from segwright.inference.request import Computation, Output
        from segwright.inference.stage import Stage
        from segwright.splits import read_fold

        plan = read_slice(snakemake.input.plan, PredictPlan)
        next_indices = map(Path, snakemake.input.next_indices)
        folder = Path(snakemake.output.validation).parent
        predict_fold(
            Stage.of_folds(plan, [Path(snakemake.input.model)], [Path(snakemake.input.training)]),
            StoredCases(
                index=Path(snakemake.input.index),
                fold=read_fold(Path(snakemake.input.split)),
                previous=Path(snakemake.input.previous) if snakemake.input.previous else None,
                next_stages=dict(zip(snakemake.params.next_stages, next_indices, strict=True)),
            ),
            Output(folder, job.dataset.file_ending, snakemake.params.save_probabilities),
            Computation(PredictionSettings(**snakemake.params.settings), device, job.plugins),
        )


if __name__ == "__main__":
    run(main, snakemake)  # noqa: F821
