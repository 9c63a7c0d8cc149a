"""Preprocess the cases of one batch into the store of one data_id."""

from pathlib import Path

from _job import Job, run


def main(snakemake):
    from segwright.core.slices import PreprocessPlan
    from segwright.preprocessing.batch import preprocess_batch

    preprocess_batch(
        Job(snakemake).dataset,
        Path(snakemake.input.inspection),
        PreprocessPlan.from_json(snakemake.params.plan),
        Path(snakemake.output.batch),
        Path(snakemake.params.cases),
        workers=snakemake.threads,
    )


if __name__ == "__main__":
    run(main, snakemake)  # noqa: F821
