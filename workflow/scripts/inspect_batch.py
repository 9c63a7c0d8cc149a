"""Inspect the training cases of one batch: integrity checks and fingerprint in one read of each image."""

from pathlib import Path

from _job import Job, run


def main(snakemake):
    from segwright.inspection.batch import inspect_batch
    from segwright.inspection.batch_number import record_batches

    record_batches(Path(snakemake.params.store).parent, snakemake.params.batches)
    inspect_batch(
        Job(snakemake).dataset,
        snakemake.params.cases,
        Path(snakemake.output.records),
        Path(snakemake.params.store),
        workers=snakemake.threads,
    )


if __name__ == "__main__":
    run(main, snakemake)  # noqa: F821
