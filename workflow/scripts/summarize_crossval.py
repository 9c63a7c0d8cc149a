"""Score the out-of-fold segmentations of one configuration."""

from pathlib import Path

from _job import Job, run


def main(snakemake):
    from segwright.evaluation.summary import summarize_crossval

    validations = [Path(path) for path in snakemake.input.validations]
    summarize_crossval(
        validations, Job(snakemake).dataset, snakemake.params.reader, Path(snakemake.output.summary), snakemake.threads
    )


if __name__ == "__main__":
    run(main, snakemake)  # noqa: F821
