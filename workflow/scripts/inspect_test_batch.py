"""Inspect the test images of one batch."""

from pathlib import Path

from _job import Job, run


def main(snakemake):
    from segwright.inspection.batch import inspect_batch

    inspect_batch(
        Job(snakemake).dataset,
        snakemake.params.cases,
        Path(snakemake.output.records),
        Path(snakemake.params.store),
        test=True,
        workers=snakemake.threads,
    )


if __name__ == "__main__":
    run(main, snakemake)  # noqa: F821
