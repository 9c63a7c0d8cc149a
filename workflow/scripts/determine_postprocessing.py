"""Decide by cross-validation for which structures only the largest component is kept."""

from pathlib import Path

from _job import Job, run


def main(snakemake):
    from segwright.selection.postprocessing import determine_postprocessing

    determine_postprocessing(
        [Path(path) for path in snakemake.input.labels],
        Job(snakemake).dataset,
        Path(snakemake.output.rules),
        enabled=snakemake.params.postprocessing,
        connectivity=snakemake.params.connectivity,
    )


if __name__ == "__main__":
    run(main, snakemake)  # noqa: F821
