"""Predict the test images of one batch with one configuration."""

from pathlib import Path

from _job import Job, run


def main(snakemake):
    from segwright.training.machine import leased_device

    job = Job(snakemake)
    with leased_device(job.execution) as device:
        from segwright.core.settings import PredictionSettings
        from segwright.core.slices import PredictPlan, read_slice
        from segwright.inference.cases import RawCases, predict_batch
        from segwright.inference.request import Computation, Output
        from segwright.inference.stage import Stage

        plan = read_slice(snakemake.input.plan, PredictPlan)
        weights, trainings = map(Path, snakemake.input.models), map(Path, snakemake.input.trainings)
        previous = Path(snakemake.input.previous) if snakemake.input.previous else None
        folder, dataset = Path(snakemake.output.predictions).parent, job.dataset
        predict_batch(
            Stage.of_folds(plan, list(weights), list(trainings)),
            RawCases(dataset.folder, Path(snakemake.input.records), previous),
            Output(folder, dataset.file_ending, snakemake.params.save_probabilities),
            Computation(PredictionSettings(**snakemake.params.settings), device, job.plugins),
        )


if __name__ == "__main__":
    run(main, snakemake)  # noqa: F821
