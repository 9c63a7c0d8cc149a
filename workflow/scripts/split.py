"""Divide the training cases into folds."""

from pathlib import Path

from _job import Job, run


def main(snakemake):
    from segwright.core.configvalues import build
    from segwright.core.settings import SplitSettings
    from segwright.splits import split_dataset

    split_dataset(
        [Path(path) for path in snakemake.input.batches],
        Path(snakemake.input.checks),
        build(SplitSettings, snakemake.params.splits, "splits"),
        snakemake.params.case_table,
        Path(snakemake.output.splits),
        raw_folder=Job(snakemake).dataset.folder,
        may_lack_folds=snakemake.params.may_lack_folds,
    )


if __name__ == "__main__":
    run(main, snakemake)  # noqa: F821
