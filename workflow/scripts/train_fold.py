"""Train one fold of one configuration."""

from pathlib import Path

from _job import Job, run


def main(snakemake):
    from segwright.training.machine import leased_device, seconds_left

    job = Job(snakemake)
    deadline_s = seconds_left(job.execution, snakemake.resources.get("runtime"))
    with leased_device(job.execution) as device:  # chooses the GPU before torch is imported
        from segwright.core.slices import TrainPlan, read_slice
        from segwright.experiment import loader_workers, training_settings
        from segwright.splits import read_fold
        from segwright.training.fold import train_fold
        from segwright.training.request import TrainingRequest

        train_fold(
            TrainingRequest(
                plan=read_slice(snakemake.input.plan, TrainPlan),
                settings=training_settings(snakemake.params.settings),
                index=Path(snakemake.input.index),
                fold=read_fold(Path(snakemake.input.split)),
                output=Path(snakemake.output.model).parent,
                device=device,
                workers=loader_workers(job.execution, snakemake.threads, device),
                next_stage=Path(snakemake.input.previous) if snakemake.input.previous else None,
                initial_model=Path(snakemake.input.initial_model) if snakemake.input.initial_model else None,
                deadline=deadline_s,
                plugins=job.plugins,
            )
        )


if __name__ == "__main__":
    run(main, snakemake)  # noqa: F821
