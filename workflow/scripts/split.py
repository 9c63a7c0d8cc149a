"""Divide the training cases into folds."""

from pathlib import Path

from _job import run


def main(snakemake):
    from segwright.core.configfile import split_settings
    from segwright.splits import split_dataset

    split_dataset(
        [Path(path) for path in snakemake.input.batches],
        Path(snakemake.input.checks),
        split_settings(snakemake.params.splits),
        snakemake.params.case_table,
        Path(snakemake.output.splits),
    )


if __name__ == "__main__":
    run(main, snakemake)  # noqa: F821
