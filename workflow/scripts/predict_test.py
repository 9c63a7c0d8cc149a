"""Predict the test images of one batch with one configuration."""

from pathlib import Path

from _job import Job, run


def main(snakemake):
    from segwright.training.machine import leased_device

    job = Job(snakemake)
    with leased_device(job.execution) as device:
        from segwright.core.settings import PredictionSettings
        from segwright.core.slices import PredictPlan, read_slice
        from segwright.inference.cases import predict_batch

        predict_batch(
            read_slice(snakemake.input.plan, PredictPlan),
            weights=[Path(path) for path in snakemake.input.models],
            training_jsons=[Path(path) for path in snakemake.input.trainings],
            dataset_folder=job.dataset.folder,
            inspection_file=Path(snakemake.input.records),
            output=Path(snakemake.output.predictions),
            settings=PredictionSettings(**snakemake.params.settings),
            device=device,
            file_ending=job.dataset.file_ending,
            previous=Path(snakemake.input.previous) if snakemake.input.previous else None,
            save_probabilities=snakemake.params.save_probabilities,
            plugins=job.plugins,
        )


if __name__ == "__main__":
    run(main, snakemake)  # noqa: F821
