"""Collect the problems of all batches and of the dataset as a whole; always succeeds."""

from pathlib import Path

from _job import Job, run


def main(snakemake):
    from segwright.inspection.checks import collect_checks, write_checks

    checks = collect_checks([Path(path) for path in snakemake.input.batches], Job(snakemake).dataset)
    write_checks(checks, Path(snakemake.output.json), Path(snakemake.output.tsv))


if __name__ == "__main__":
    run(main, snakemake)  # noqa: F821
