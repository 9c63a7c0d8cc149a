"""Predict the validation cases of one fold: segmentations, probabilities, label maps for the next stage."""

from pathlib import Path

from _job import Job, run


def main(snakemake):
    from segwright.training.machine import leased_device

    job = Job(snakemake)
    with leased_device(job.execution) as device:
        from segwright.core.settings import PredictionSettings
        from segwright.core.slices import PredictPlan, read_slice
        from segwright.inference.fold import predict_fold
        from segwright.splits import read_fold

        predict_fold(
            read_slice(snakemake.input.plan, PredictPlan),
            weights=Path(snakemake.input.model),
            training_json=Path(snakemake.input.training),
            index=Path(snakemake.input.index),
            fold=read_fold(Path(snakemake.input.split)),
            output=Path(snakemake.output.validation).parent,
            settings=PredictionSettings(**snakemake.params.settings),
            device=device,
            file_ending=job.dataset.file_ending,
            save_probabilities=snakemake.params.save_probabilities,
            next_stage_indices=dict(
                zip(snakemake.params.next_stages, map(Path, snakemake.input.next_indices), strict=True)
            ),
            next_stage_maps=Path(snakemake.input.previous) if snakemake.input.previous else None,
            plugins=job.plugins,
        )


if __name__ == "__main__":
    run(main, snakemake)  # noqa: F821
